"""What a logical unit's log pages are made of: counters, self-test results, and what application clients have stored."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

import anyio

from tcm.scsi.check_condition import CheckCondition, InternalTargetFailure
from tcm.scsi.command import Access
from tcm.scsi.log_pages import GENERAL_USAGE_LENGTH, GENERAL_USAGE_PARAMETERS
from tcm.scsi.sense import SenseKey
from tcm.target.counters import COUNTERS
from tcm.target.kept import Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tcm.scsi.check_condition import CommandTerminated
    from tcm.scsi.command import Command
    from tcm.scsi.log_pages import Key
    from tcm.scsi.sense import Sense
    from tcm.target.logical_unit import LogicalUnit

log = logging.getLogger(__name__)

SELF_TESTS_KEPT = 20
"""Results in the Self-Test Results log page."""

READ_ERRORS, WRITE_ERRORS, VERIFY_ERRORS, NON_MEDIUM_ERRORS = "read errors", "write errors", "verify errors", "other errors"


class SelfTestResult(NamedTuple):
    """How a self-test ended."""

    code: int
    """SELF-TEST CODE of the SEND DIAGNOSTIC command."""
    hours: int
    """Since the logical unit was opened."""
    sense: Sense | None
    """What failed; ``None``: nothing did."""
    lba: int | None = None
    """Where."""


class LogParameters:
    """The log parameters of one logical unit. A counter is what has happened since its page was reset last.

    :param clock: seconds, monotonic.
    """

    def __init__(self, logical_unit: LogicalUnit, clock: Callable[[], float] = time.monotonic) -> None:
        self._logical_unit = logical_unit
        self._clock = clock
        self._opened = clock()
        self.events: Counter[str] = Counter()
        self._before: dict[Key, Counter[str]] = {}
        self.self_tests: deque[SelfTestResult] = deque(maxlen=SELF_TESTS_KEPT)
        """The most recent first."""
        self.application: dict[int, bytes] = {}
        """General usage parameters that have been written, by code."""
        self._saved: Mapping[int, bytes] = {}
        self._saving = anyio.Lock()
        self._kept = Kept(logical_unit, "log")

    @property
    def savable(self) -> bool:
        """There is a place for them."""
        return bool(self._kept)

    async def load(self) -> None:
        """Take up what was saved, once the backstore is open; what cannot be read is as if it had never been."""
        self._opened = self._clock()
        try:
            text = await self._kept.load()
            self._saved = {} if text is None else parse_saved(text)
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s: saved log parameters are ignored: %s", self._kept, error)
        self.application = dict(self._saved)

    @property
    def hours(self) -> int:
        """Since the logical unit was opened."""
        return int(self._clock() - self._opened) // 3600

    def note_failure(self, command: Command | None, error: CommandTerminated) -> None:
        """A command has failed because its backstore has, or a program's mistake made it."""
        if isinstance(error, CheckCondition) and error.sense.key is SenseKey.MEDIUM_ERROR and command is not None:
            if command.access is Access.WRITE:
                self.events[WRITE_ERRORS] += 1
            else:
                self.events[VERIFY_ERRORS if command.handler == "verify" else READ_ERRORS] += 1
        else:
            self.events[NON_MEDIUM_ERRORS] += 1

    def count(self, page: Key, name: str) -> int:
        """An event, or one of the nexuses' counters, as ``page`` shows it."""
        return self._total(name) - self._before.get(page, Counter())[name]

    def _total(self, name: str) -> int:
        return self._logical_unit.total(name) if name in COUNTERS else self.events[name]

    def reset_counters(self, keys: Iterable[Key]) -> None:
        """The counters of these pages go on from zero."""
        now = Counter({name: self._total(name) for name in COUNTERS}) + self.events
        self._before |= dict.fromkeys(keys, now)

    def reset(self, keys: Iterable[Key]) -> None:
        """Logical unit reset: the counters of all pages, ``keys``, are zero, and what is not saved is forgotten."""
        self.reset_counters(keys)
        self.application = dict(self._saved)

    def set(self, values: Mapping[int, bytes]) -> bool:
        """Make general usage parameters current; returns whether that changed anything."""
        before = self.application
        self.application = self._with(values)
        return self.application != before

    async def save(self, values: Mapping[int, bytes]) -> None:
        """Keep the current parameters, with ``values`` about to be among them.

        Raises INTERNAL TARGET FAILURE if they cannot be kept; nothing has changed then.
        """
        async with self._saving:  # one after the other, each with what the one before has saved
            wanted = self._with(values)
            text = json.dumps({str(code): value.hex() for code, value in sorted(wanted.items())}, indent=1)
            try:
                await self._kept.save(text)
            except OSError as error:
                raise InternalTargetFailure from error
            self._saved = wanted

    def _with(self, values: Mapping[int, bytes]) -> dict[int, bytes]:
        """Parameters that are all zero are as if they had never been written."""
        return {code: value for code, value in {**self.application, **values}.items() if any(value)}


def parse_saved(text: str) -> dict[int, bytes]:
    """General usage parameters by code, as :meth:`LogParameters.save` wrote them. Raises ``ValueError``."""
    content = json.loads(text)
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ValueError("not a table of parameters")
    parameters = {int(code): bytes.fromhex(value) for code, value in content.items()}
    for code, value in parameters.items():
        if not 0 <= code < GENERAL_USAGE_PARAMETERS or len(value) != GENERAL_USAGE_LENGTH:
            raise ValueError(f"parameter {code} with {len(value)} bytes")
    return parameters
