"""The copy manager of a logical unit (SPC-4 5.17): copy operations under way, and what is kept of those that have ended."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio

from tcm.scsi.check_condition import (
    CheckCondition,
    CommandsClearedByDeviceServer,
    CommandTerminated,
    InternalTargetFailure,
    OperationInProgress,
)
from tcm.scsi.copy_results import CopyStatus
from tcm.scsi.sense import Sense, Status
from tcm.target.task import TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITNexus
    from tcm.target.task import Task

log = logging.getLogger(__name__)

MAXIMUM_COPIES = 64
"""Copy operations of one logical unit under way at a time; the next originating command ends with BUSY status."""
MAXIMUM_KEPT = 1024
"""Ended copy operations that one logical unit remembers; then it forgets the oldest."""
HOLD_TIME = 600.0
"""Seconds for which it remembers them."""

UNDER_WAY = frozenset({CopyStatus.FOREGROUND, CopyStatus.BACKGROUND})


class CopyOperation:
    """One copy operation, under way or ended. Made by :meth:`CopyManager.begin`.

    :param list_identifier: 32 bits; ``None`` if it cannot be asked about.
    :param service_action: of the command that originated it.
    :param task: that command, unless the operation goes on in the background.
    """

    def __init__(self, nexus: ITNexus, list_identifier: int | None, service_action: int, task: Task | None) -> None:
        self.nexus = nexus
        self.list_identifier = list_identifier
        self.service_action = service_action
        self.transferred = 0
        """Bytes written to the destination, without gap from the start."""
        self.segments = 0
        """Segment descriptors processed, the one that is being processed among them."""
        self.steps = 0
        """OPERATION COUNTER."""
        self.completion = Status.TASK_ABORTED
        """Status that the operation ended with."""
        self.sense: Sense | None = None
        self.result: Any = None
        """What it made for the application client to fetch (a ROD token)."""
        self.status_told = False
        """RECEIVE COPY STATUS (LID1) has been answered since it ended: not again (SPC-4 6.25)."""
        self.details_told = False
        """Likewise RECEIVE COPY FAILURE DETAILS (LID1)."""
        self.ended_at = 0.0
        self._status = CopyStatus.BACKGROUND if task is None else CopyStatus.FOREGROUND
        self._task = task
        self._started = False
        self._scope = anyio.CancelScope()
        self._waiting: list[Callable[[], None]] = []

    @property
    def status(self) -> CopyStatus:
        """COPY OPERATION STATUS."""
        if self._task is not None and not self._started and self._task.state is TaskState.ABORTED:
            return CopyStatus.TERMINATED  # before it was its turn to run
        return self._status

    @property
    def under_way(self) -> bool:
        """It has not ended."""
        return self.status in UNDER_WAY

    def abort(self) -> None:
        """COPY OPERATION ABORT: stop at the next step; see :func:`when_ended`. Nothing happens if it has ended."""
        self._scope.cancel()

    @contextmanager
    def touching(self, unit: LogicalUnit, nexus: ITNexus) -> Iterator[None]:
        """While it reads or writes a logical unit's medium, in the name of an I_T nexus."""
        guests = unit.copies.touching
        before = guests.get(self)
        guests[self] = nexus
        try:
            yield
        finally:
            if before is None:
                del guests[self]

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do it. Raises what the command ends with; COPY ABORTED, COMMANDS CLEARED BY DEVICE SERVER after :meth:`abort`."""
        self._started = True
        ending = CopyStatus.TERMINATED
        try:
            with self._scope:
                await work()
            if self._scope.cancelled_caught:
                raise CommandsClearedByDeviceServer
            ending, self.completion = CopyStatus.COMPLETED, Status.GOOD
        except CommandTerminated as error:
            self._record(error)
            if not self._scope.cancelled_caught:
                ending = CopyStatus.FAILED
            raise
        except Exception:
            self._record(InternalTargetFailure())
            ending = CopyStatus.FAILED
            raise
        finally:
            self._end(ending)

    def _record(self, error: CommandTerminated) -> None:
        self.completion = error.status
        self.sense = error.sense if isinstance(error, CheckCondition) else None

    def _end(self, status: CopyStatus) -> None:
        self._status = status
        self._task = None
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()

    def call_when_ended(self, then: Callable[[], None]) -> None:
        """Call ``then`` when it has ended, at once if it has."""
        if self.under_way:
            self._waiting.append(then)
        else:
            then()


def when_ended(operations: Iterable[CopyOperation], then: Callable[[], None]) -> None:
    """Call ``then`` when all have ended, before this returns if they have."""
    waiting = 1

    def one_ended() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            then()

    for operation in operations:
        waiting += 1
        operation.call_when_ended(one_ended)
    one_ended()


async def until_ended(operations: Iterable[CopyOperation]) -> None:
    """Return when all have ended."""
    ended = anyio.Event()
    when_ended(operations, ended.set)
    await ended.wait()


class CopyManager:
    """The copy operations of one logical unit, and those of others that touch it.

    :param clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._operations: list[CopyOperation] = []
        """Oldest first."""
        self.touching: dict[CopyOperation, ITNexus] = {}
        """What reads or writes this unit's medium at the moment, and in whose name."""

    def begin(self, task: Task, list_identifier: int | None, service_action: int, *, background: bool = False) -> CopyOperation:
        """A new copy operation, to be run at once. What was kept under its list identifier is forgotten.

        Raises :class:`OperationInProgress` for a list identifier that is in use on the I_T nexus (SPC-4 5.17.4.2), BUSY status
        if there are too many.
        """
        self._expire()
        if list_identifier is not None:
            other = self.find(task.nexus, list_identifier)
            if other is not None and other.under_way:
                raise OperationInProgress
            if other is not None:
                self._operations.remove(other)
        if sum(each.under_way for each in self._operations) >= MAXIMUM_COPIES:
            raise CommandTerminated(Status.BUSY)
        operation = CopyOperation(task.nexus, list_identifier, service_action, None if background else task)
        operation.call_when_ended(lambda: self._ended(operation))
        self._operations.append(operation)
        return operation

    def find(self, nexus: ITNexus, list_identifier: int) -> CopyOperation | None:
        """The operation that an I_T nexus has originated under a list identifier, under way or remembered."""
        self._expire()
        return next(
            (each for each in self._operations if each.nexus is nexus and each.list_identifier == list_identifier), None
        )

    async def run_in_background(self, operation: CopyOperation, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """As :meth:`CopyOperation.run`; how it ended is only remembered (SPC-4 5.17.4.3: there are no deferred errors)."""
        try:
            await operation.run(work)
        except CommandTerminated as error:
            level = logging.INFO if operation.status is CopyStatus.TERMINATED else logging.WARNING
            log.log(level, "a copy operation in the background ended with %s", operation.sense or error)

    def forget(self, nexus: ITNexus) -> None:
        """I_T nexus loss: nothing is kept for it; what is under way goes on (SPC-4 5.17.5)."""
        self._operations = [each for each in self._operations if each.nexus is not nexus or each.under_way]

    def reset(self) -> list[CopyOperation]:
        """Logical unit reset: abort what is under way in the background, and forget everything.

        :returns: what is under way, to be waited for; the task manager aborts what of it is in the foreground.
        """
        doomed = [each for each in self._operations if each.under_way]
        self._operations = []
        for operation in doomed:
            if operation.status is CopyStatus.BACKGROUND:
                operation.abort()
        return doomed

    async def abort(self, nexuses: Callable[[ITNexus], bool] = lambda _: True) -> None:
        """Abort what touches this unit's medium in the name of one of the I_T nexuses; return when it does not any more."""
        doomed = [operation for operation, nexus in self.touching.items() if nexuses(nexus)]
        for operation in doomed:
            operation.abort()
        await until_ended(doomed)

    def _ended(self, operation: CopyOperation) -> None:
        operation.ended_at = self._clock()
        if operation.list_identifier is None and operation in self._operations:
            self._operations.remove(operation)

    def _expire(self) -> None:
        horizon = self._clock() - HOLD_TIME
        ended = [each for each in self._operations if not each.under_way]
        surplus = set(ended[: max(0, len(ended) - MAXIMUM_KEPT)])
        surplus.update(each for each in ended if each.ended_at < horizon)
        if surplus:
            self._operations = [each for each in self._operations if each not in surplus]
