"""The log pages of a logical unit: which there are, and what stands in them (SPC-5 7.3, SBC-4 6.4).

Left out because nothing here could fill them in truthfully: Temperature (0Dh: there is no sensor), Start-Stop Cycle Counter
(0Eh: it counts from the day of manufacture), Solid State Media (11h), Background Scan (15h: none runs), Protocol Specific Port
(18h: iSCSI defines none) and Cache Memory Statistics (19h/20h: the cache is the kernel's).

Nobody measures how long commands take or how long there are none, so processing and idle intervals of the statistics are zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tcm.scsi.log_pages import (
    ALL_SUBPAGES,
    APPLICATION_CLIENT,
    GENERAL_STATISTICS,
    GENERAL_USAGE_LENGTH,
    GENERAL_USAGE_PARAMETERS,
    INFORMATIONAL_EXCEPTIONS,
    LOGICAL_BLOCK_PROVISIONING,
    NON_MEDIUM_ERRORS,
    READ_ERRORS,
    SELF_TEST_RESULTS,
    SUPPORTED_PAGES,
    SUPPORTED_PAGES_AND_SUBPAGES,
    VERIFY_ERRORS,
    WRITE_ERRORS,
    Change,
    Key,
    LogParameter,
    ParameterFormat,
    counter,
    saturated,
)
from tcm.target import log_parameters as events
from tcm.target.log_parameters import SELF_TESTS_KEPT
from tcm.target.provisioning import AVAILABLE, USED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tcm.target.log_parameters import SelfTestResult
    from tcm.target.logical_unit import LogicalUnit

TOTAL_BYTES_PROCESSED, TOTAL_UNCORRECTED_ERRORS = 0x0005, 0x0006
"""Parameter codes of the error counter pages; backstores do not tell what they have corrected."""
IDLE_TIME, TIME_INTERVAL = 0x0002, 0x0003
"""Parameter codes of the statistics that are mandatory, though there is nothing to say (SPC-4 table 374)."""
_MILLISECOND = bytes((0, 0, 0, 3, 0, 0, 0, 1))
"""Time interval descriptor: EXPONENT, the negative power of ten, and INTEGER."""
_DEDICATED, _SHARED = 0b01, 0b10
"""SCOPE of a resource count."""
_NO_ADDRESS = b"\xff" * 8
_NO_TEMPERATURE = 0xFF
_COMPLETED, _FAILED = 0x0, 0x7
"""SELF-TEST RESULTS: no error; a segment other than the first and the second has failed."""


class LogPage(NamedTuple):
    """How a page is filled in."""

    parameters: Callable[[LogicalUnit], list[LogParameter]]
    """All of them, ascending by code."""
    counts: bool = True
    """They are counters, which LOG SELECT resets."""
    savable: bool = False
    """SP keeps them, if there is a place for it."""
    provisioning: bool = False
    """Only there if the backstore knows its resources, which have to be asked for first."""


def _error_page(key: Key, event: str, moved: tuple[str, str] | None) -> LogPage:
    def parameters(lu: LogicalUnit) -> list[LogParameter]:
        log = lu.log_parameters
        found = []
        if moved is not None:
            found.append(counter(TOTAL_BYTES_PROCESSED, log.count(key, moved[0]) - log.count(key, moved[1]), 8))
        return [*found, counter(TOTAL_UNCORRECTED_ERRORS, log.count(key, event), 4)]

    return LogPage(parameters)


def _non_medium_errors(lu: LogicalUnit) -> list[LogParameter]:
    return [counter(0x0000, lu.log_parameters.count(NON_MEDIUM_ERRORS, events.NON_MEDIUM_ERRORS), 4)]


def _provisioning(lu: LogicalUnit) -> list[LogParameter]:
    resources = lu.provisioning.resources
    scope = _SHARED if resources.shared else _DEDICATED
    counts = {AVAILABLE: resources.available, USED: resources.used}
    return [
        LogParameter(code, ParameterFormat.BINARY_LIST, count.to_bytes(4, "big") + bytes((scope, 0, 0, 0)), Change.NEVER)
        for code, count in counts.items()
    ]


def _application_client(lu: LogicalUnit) -> list[LogParameter]:
    written = lu.log_parameters.application
    empty = bytes(GENERAL_USAGE_LENGTH)
    return [
        LogParameter(code, ParameterFormat.BINARY_LIST, written.get(code, empty), Change.ALWAYS)
        for code in range(GENERAL_USAGE_PARAMETERS)
    ]


def _self_test_results(lu: LogicalUnit) -> list[LogParameter]:
    """Unused entries are all zero."""
    values = [_self_test(result) for result in lu.log_parameters.self_tests]
    values += [bytes(16)] * (SELF_TESTS_KEPT - len(values))
    return [LogParameter(code, ParameterFormat.BINARY_LIST, value, Change.NEVER) for code, value in enumerate(values, 1)]


def _self_test(result: SelfTestResult) -> bytes:
    sense = result.sense
    outcome = bytes((result.code << 5 | (_COMPLETED if sense is None else _FAILED), 0))
    address = _NO_ADDRESS if result.lba is None else result.lba.to_bytes(8, "big")
    reason = bytes(4) if sense is None else bytes((sense.key, sense.asc, sense.ascq, 0))
    return outcome + saturated(result.hours, 2) + address + reason


def _general_statistics(lu: LogicalUnit) -> list[LogParameter]:
    log, shift = lu.log_parameters, lu.block_shift

    def count(name: str) -> int:
        return log.count(GENERAL_STATISTICS, name)

    fields = (
        count("read_cmds"),
        count("write_cmds"),
        count("write_bytes") - count("parameter_bytes_out") >> shift,
        count("read_bytes") - count("parameter_bytes_in") >> shift,
        0,  # read command processing intervals
        0,  # write command processing intervals
        0,  # weighted number of read commands plus write commands
        0,  # weighted read command processing plus write command processing
    )
    value = b"".join(saturated(field, 8) for field in fields)
    return [
        LogParameter(0x0001, ParameterFormat.UNBOUNDED_COUNTER, value),
        counter(IDLE_TIME, 0, 8, bounded=False),
        LogParameter(TIME_INTERVAL, ParameterFormat.BINARY_LIST, _MILLISECOND, Change.NEVER),
    ]


def _informational_exceptions(lu: LogicalUnit) -> list[LogParameter]:  # noqa: ARG001  # the signature of all pages
    """None is pending, as none is foreseen; the temperature is not known."""
    return [LogParameter(0x0000, ParameterFormat.BINARY_LIST, bytes((0, 0, _NO_TEMPERATURE, 0)))]


LOG_PAGES: dict[Key, LogPage] = {
    WRITE_ERRORS: _error_page(WRITE_ERRORS, events.WRITE_ERRORS, ("write_bytes", "parameter_bytes_out")),
    READ_ERRORS: _error_page(READ_ERRORS, events.READ_ERRORS, ("read_bytes", "parameter_bytes_in")),
    VERIFY_ERRORS: _error_page(VERIFY_ERRORS, events.VERIFY_ERRORS, None),
    NON_MEDIUM_ERRORS: LogPage(_non_medium_errors),
    LOGICAL_BLOCK_PROVISIONING: LogPage(_provisioning, counts=False, provisioning=True),
    APPLICATION_CLIENT: LogPage(_application_client, counts=False, savable=True),
    SELF_TEST_RESULTS: LogPage(_self_test_results, counts=False),
    GENERAL_STATISTICS: LogPage(_general_statistics),
    INFORMATIONAL_EXCEPTIONS: LogPage(_informational_exceptions, counts=False),
}
"""All pages with log parameters that a logical unit may have, ascending."""


def pages_of(lu: LogicalUnit) -> dict[Key, LogPage]:
    """Those that this one has."""
    return {key: page for key, page in LOG_PAGES.items() if lu.provisioning.known or not page.provisioning}


def listed_pages(keys: Iterable[Key]) -> list[Key]:
    """Pages, and the pages that list them, ascending; a page code that has subpages has a list of its own."""
    lists = {(code, ALL_SUBPAGES) for code, subpage in keys if subpage}
    return sorted({SUPPORTED_PAGES, SUPPORTED_PAGES_AND_SUBPAGES, *keys, *lists})
