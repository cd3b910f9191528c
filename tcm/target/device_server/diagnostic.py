"""SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS (SPC-5 6.42, 6.28): the default self-test and the list of pages."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tcm.scsi.check_condition import CheckCondition, InvalidFieldInCdb, LogicalUnitFailedSelfTest, ParameterListLengthError
from tcm.scsi.diagnostic_pages import DIAGNOSTIC_PAGES, parse_send_diagnostic, supported_diagnostic_pages
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler
from tcm.target.log_parameters import SelfTestResult

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

log = logging.getLogger(__name__)

_PF, _SELFTEST = 0x10, 0x04
DEFAULT_SELF_TEST = 0
"""SELF-TEST CODE of SELFTEST."""
_PCV = 0x01


def _prepare_send(task: Task) -> int:
    cdb = task.cdb
    length = cdb[3] << 8 | cdb[4]
    if cdb[1] & _SELFTEST:
        if length:
            raise InvalidFieldInCdb.at(3)
        if cdb[1] & _PF:
            raise InvalidFieldInCdb.at(1, 4)
    elif length and not cdb[1] & _PF:
        raise InvalidFieldInCdb.at(1, 4)
    task.parameters = length
    return length


def _send(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    if task.cdb[1] & _SELFTEST:
        return _self_test(lu) if lu.ready else None
    if task.parameters:
        data = bytes(task.data_out[: task.data_out_wanted])
        if len(data) < task.parameters:
            raise ParameterListLengthError
        parse_send_diagnostic(data)
    return None


async def _self_test(lu: LogicalUnit) -> None:
    """The default self-test: the first and the last block can be read."""
    buffer = memoryview(bytearray(lu.block_size))
    results = lu.log_parameters
    for lba in {0, lu.blocks - 1}:
        try:
            await lu.medium.read([buffer], lba)
        except CheckCondition as error:
            log.warning("%s: the self-test failed: %s", lu.name, error.sense)
            results.self_tests.appendleft(SelfTestResult(DEFAULT_SELF_TEST, results.hours, error.sense, lba))
            raise LogicalUnitFailedSelfTest from error
    results.self_tests.appendleft(SelfTestResult(DEFAULT_SELF_TEST, results.hours, None))


def _receive(task: Task) -> None:
    """Without PCV the page that SEND DIAGNOSTIC asked for last: there is only one."""
    cdb = task.cdb
    if cdb[2] not in (DIAGNOSTIC_PAGES if cdb[1] & _PCV else (0,)):
        raise InvalidFieldInCdb.at(2)
    give(task, supported_diagnostic_pages(), cdb[3] << 8 | cdb[4])


HANDLERS = {
    "send_diagnostic": Handler(_prepare_send, _send),
    "receive_diagnostic_results": Handler(no_data_out, _receive),
}
