"""The task router: what happens to a task between its arrival and its status, the same for every command.

    submit -> begin -> [data-out] -> execute -> [ended] -> complete

A command that does not block goes all the way inside the call that submitted it.
"""

from __future__ import annotations

import logging
from time import perf_counter_ns
from typing import TYPE_CHECKING

from anyio import get_cancelled_exc_class
from anyio.lowlevel import checkpoint_if_cancelled

from tcm.backstore import BackstoreError
from tcm.scsi.check_condition import (
    CheckCondition,
    CommandTerminated,
    InternalTargetFailure,
    InvalidFieldInCdb,
    InvalidOpcode,
    WriteProtected,
)
from tcm.scsi.command import SERVICE_ACTION_BYTE, Access, Attention, Counted, Extent, Feature
from tcm.scsi.command_table import check_reserved, rows
from tcm.scsi.sense import Status
from tcm.target.access_check import check_access
from tcm.target.device_server.incorrect_logical_unit import answer
from tcm.target.errors import is_backstore_failure, to_check_condition
from tcm.target.task import TaskState
from tcm.target.unit_attention import (
    PREVIOUS_BUSY_STATUS,
    PREVIOUS_RESERVATION_CONFLICT_STATUS,
    PREVIOUS_TASK_SET_FULL_STATUS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

    from tcm.scsi.command import Command
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task

log = logging.getLogger(__name__)

_REPORT = Attention.REPORT
_WRITE = Access.WRITE
_READ_COMMAND, _WRITE_COMMAND, _OTHER = Counted.READ, Counted.WRITE, Counted.OTHER
_AWAITING_DATA_OUT = TaskState.AWAITING_DATA_OUT
_ENABLED = TaskState.ENABLED
_COMPLETED = TaskState.COMPLETED
_ABORTED = TaskState.ABORTED
_NO_EXTENT = Extent.NONE
_GOOD = Status.GOOD

_INTERLOCKED = {
    Status.BUSY: PREVIOUS_BUSY_STATUS,
    Status.TASK_SET_FULL: PREVIOUS_TASK_SET_FULL_STATUS,
    Status.RESERVATION_CONFLICT: PREVIOUS_RESERVATION_CONFLICT_STATUS,
}
"""Unit attentions that these statuses establish if UA_INTLCK_CTRL is 11b (SPC-5 7.5.10)."""


class StrayCancellation(Exception):
    """A backstore raised the event loop's cancellation exception, and nobody had cancelled it."""


def begin(task: Task, *, delayed: bool = False) -> None:
    """A task became enabled: check it, get its data, execute it.

    :param delayed: it has waited as long as the target port's access state wants it to.
    """
    itl = task.itl
    lu = task.logical_unit
    assert itl is not None
    assert lu is not None
    cdb = task.cdb
    task.state = _ENABLED
    try:
        try:
            task.command = command = lu.lookup(cdb)
        except CheckCondition:
            _check_state(task, itl, lu, None)
            raise
        if itl.attentions or itl.gated:
            _check_state(task, itl, lu, command)
            delay = itl.exported.delay
            if delay and not delayed:
                lu.running.hold(task, delay)
                return
        if command.feature is not None and command.feature not in lu.features:
            raise _unsupported(command, lu)
        check_reserved(command, cdb)
        if not lu.ready:
            lu.check_ready(command)
        if command.access is _WRITE and itl.protected:
            raise WriteProtected
        handler = lu.handlers[command.handler]
        wanted = handler.prepare(task)
        given = task.write_length
        if wanted != given:
            if wanted > given:
                task.residual = wanted - given
                task.overflow = True
                wanted = given
            else:
                task.residual = given - wanted
        if wanted:
            task.data_out_wanted = wanted
            if len(task.data_out) < wanted:
                task.state = _AWAITING_DATA_OUT
                task.nexus.services.receive_data_out(task)
                return
        coroutine = handler.execute(task)
    except CommandTerminated as error:
        _terminate(task, error)
    except Exception as error:  # noqa: BLE001  # whatever a handler or a backstore may raise is answered
        _terminate(task, _sense_for(task, error))
    else:
        if coroutine is not None:
            lu.spawn(task, coroutine)
            return
    complete(task)


def without_logical_unit(task: Task) -> None:
    """A task for a LUN where there is no logical unit: answered at once, whatever its attribute."""
    if task.nexus.lost:
        forget(task)
        task.nexus.services.task_aborted(task)
        return
    try:
        answer(task)
        task.residual = task.write_length
    except CommandTerminated as error:
        _terminate(task, error)
    complete(task)


def execute(task: Task) -> None:
    """All Data-Out is there; meanwhile the port's state may have changed, or the medium: gone, smaller, write protected."""
    command, lu, itl = task.command, task.logical_unit, task.itl
    assert command is not None
    assert lu is not None
    assert itl is not None
    task.state = _ENABLED
    try:
        if itl.gated:
            check_access(itl, command, task.cdb)
        if not lu.ready:
            lu.check_ready(command)
        if command.access is _WRITE and itl.protected:
            raise WriteProtected
        if lu.has_shrunk and command.extent is not _NO_EXTENT:
            _prepare_again(task, lu)
        coroutine = lu.handlers[command.handler].execute(task)
    except CommandTerminated as error:
        _terminate(task, error)
    except Exception as error:  # noqa: BLE001  # see begin
        _terminate(task, _sense_for(task, error))
    else:
        if coroutine is not None:
            lu.spawn(task, coroutine)
            return
    complete(task)


def _prepare_again(task: Task, lu: LogicalUnit) -> None:
    """The medium is not what it was when the command was checked: smaller, or formatted in another way."""
    task.command = command = lu.lookup(task.cdb)
    if command.feature is not None and command.feature not in lu.features:
        raise _unsupported(command, lu)
    check_reserved(command, task.cdb)
    lu.handlers[command.handler].prepare(task)


async def finish(task: Task, coroutine: Coroutine[Any, Any, None]) -> None:
    """Run what ``execute`` returned; afterwards the task has its status. Only our own cancellation passes through."""
    try:
        await coroutine
    except CommandTerminated as error:
        _terminate(task, error)
    except Exception as error:  # noqa: BLE001  # see begin
        _terminate(task, _sense_for(task, error))
    except get_cancelled_exc_class() as error:
        # a backstore may let out that something of its own was cancelled: nobody has cancelled this then
        await checkpoint_if_cancelled()
        _terminate(task, _sense_for(task, StrayCancellation().with_traceback(error.__traceback__)))


def resume(task: Task) -> None:
    """A task that was held has waited long enough, or was aborted."""
    if task.state is _ABORTED:
        aborted(task)
    else:
        begin(task, delayed=True)


def ended(task: Task) -> None:
    """A task that ran in the task group has ended, by itself or aborted."""
    if task.state is _ABORTED:
        aborted(task)
    else:
        complete(task)


def complete(task: Task) -> None:
    """Count, settle the residual, and hand the task to the fabric. An aborted one has been dealt with."""
    if task.state is _ABORTED:
        return
    lu, itl, nexus = task.logical_unit, task.itl, task.nexus
    task.state = _COMPLETED
    data_in = task.data_in
    expected = task.read_length
    produced = 0
    for buffer in data_in:
        produced += len(buffer)
    if produced != expected:
        _truncate(task, produced, expected)
        produced = min(produced, expected)
    forget(task)
    if itl is None or lu is None:
        nexus.services.send_command_complete(task)
        return
    _count(task, itl, lu, produced)
    task_set = lu.task_set
    task_set.remove(task)
    nexus.services.send_command_complete(task)
    if task_set.strict:
        lu.dispatch()


def _count(task: Task, itl: ITLNexus, lu: LogicalUnit, produced: int) -> None:
    command = task.command
    counted = command.counted if command is not None else _OTHER
    microseconds = (perf_counter_ns() - task.began) // 1000
    itl.task_cmds += 1
    if counted is _READ_COMMAND:
        itl.read_cmds += 1
        latency = lu.latency.read
    elif counted is _WRITE_COMMAND:
        itl.write_cmds += 1
        latency = lu.latency.write
    else:
        itl.other_cmds += 1
        latency = lu.latency.other
        itl.parameter_bytes_in += produced
        itl.parameter_bytes_out += task.data_out_wanted
    latency.buckets[microseconds.bit_length()] += 1
    latency.microseconds += microseconds
    itl.read_bytes += produced
    itl.write_bytes += task.data_out_wanted


def _count_aborted(task: Task, itl: ITLNexus) -> None:
    """It was received (RFC 4455 scsiLuInCommands); how long it would have taken, and what it would have moved, nobody knows."""
    counted = task.command.counted if task.command is not None else _OTHER
    itl.task_cmds += 1
    if counted is _READ_COMMAND:
        itl.read_cmds += 1
    elif counted is _WRITE_COMMAND:
        itl.write_cmds += 1
    else:
        itl.other_cmds += 1


def forget(task: Task) -> None:
    """Its tag is free, unless the tag is another task's by now."""
    tasks = task.nexus.tasks
    if tasks.get(task.tag) is task:
        del tasks[task.tag]


def terminate(task: Task, error: CommandTerminated) -> None:
    """End a task of the nexus with a status that is not GOOD."""
    _terminate(task, error)
    complete(task)


def abort(tasks: Iterable[Task], *, respond: Callable[[Task], bool], then: Callable[[], None]) -> None:
    """Abort tasks (SAM-5 5.6): none of them touches the medium once ``then`` is called.

    :param respond: whether the task ends with TASK ABORTED status; otherwise without any.
    :param then: called when all of them have ended, before this returns if nothing has to be waited for.
    """
    waiting = 1
    touched: set[LogicalUnit] = set()

    def one_ended() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            then()

    for task in tasks:
        lu = task.logical_unit
        if lu is None or task.state is _COMPLETED:
            continue
        touched.add(lu)
        runs = task in lu.running
        if task.state is not _ABORTED:
            task.status = Status.TASK_ABORTED if respond(task) else _GOOD
            task.state = _ABORTED
            if not runs:
                aborted(task, dispatch=False)
            elif task.scope is not None:
                lu.extents.strand(task)
                task.scope.cancel()
        if runs:
            waiting += 1
            lu.running.when_ended(task, one_ended)
    for lu in touched:
        lu.dispatch()
    one_ended()


def aborted(task: Task, *, dispatch: bool = True) -> None:
    """An aborted task has ended: send its TASK ABORTED, or tell the fabric to forget it."""
    lu, nexus = task.logical_unit, task.nexus
    assert lu is not None
    forget(task)
    lu.task_set.remove(task)
    if task.itl is not None:
        _count_aborted(task, task.itl)
    task.data_in = []
    task.sense = None
    if task.status is Status.TASK_ABORTED and not nexus.lost:
        task.residual = task.read_length or task.write_length
        task.overflow = False
        nexus.services.send_command_complete(task)
    else:
        nexus.services.task_aborted(task)
    if dispatch and lu.task_set.strict:
        lu.dispatch()


def _check_state(task: Task, itl: ITLNexus, lu: LogicalUnit, command: Command | None) -> None:
    """In the order of SAM-5 5.3.3: BUSY, resets, RESERVATION CONFLICT, other unit attentions, and then access states."""
    if itl.draining is not None and task not in itl.draining and (command is None or command.attention is _REPORT):
        raise CommandTerminated(Status.BUSY)
    attention = itl.attentions.first() if command is None or command.attention is _REPORT else None
    if attention is not None and attention.is_reset:
        raise itl.report_attention()
    if lu.reserved:
        lu.check_reservation(task)
    if attention is not None:
        raise itl.report_attention()
    if command is not None:
        check_access(itl, command, task.cdb)


def _unsupported(command: Command, lu: LogicalUnit) -> CheckCondition:
    """The sense of an operation code or a service action that this logical unit does not have.

    That of the 32-byte reads and writes is laid down (SBC-4 4.21.2), although they are service actions.
    """
    if command.feature is not Feature.TYPE_2_PROTECTION and any(
        row.feature is None or row.feature in lu.features for row in rows(command.operation_code)
    ):
        return InvalidFieldInCdb.at(SERVICE_ACTION_BYTE, 4)
    return InvalidOpcode()


def _terminate(task: Task, error: CommandTerminated) -> None:
    if task.state is _ABORTED:
        return  # how it ends has been decided, whatever came of it
    task.status = status = error.status
    task.data_in = []
    if isinstance(error, CheckCondition):
        task.sense = error.sense
    if isinstance(error.__cause__, (OSError, BackstoreError)):
        _log_failure(task, error, error.__cause__)
        assert task.logical_unit is not None
        task.logical_unit.backstore_failed(task.command, error)
    if not (task.data_out_wanted or task.overflow):
        task.residual = task.write_length
    lu, itl = task.logical_unit, task.itl
    if status is Status.BUSY:
        task.nexus.target_portal_group.busy_statuses += 1
    elif status is Status.TASK_SET_FULL and lu is not None:
        lu.task_set_full_statuses += 1
    if status in _INTERLOCKED and itl is not None and lu is not None and lu.mode_parameters.unit_attention_interlock == 0b11:
        itl.establish_attention(_INTERLOCKED[status])


def _sense_for(task: Task, error: Exception) -> CommandTerminated:
    """The termination for an exception that is none: a backstore's, by the table; anything else is logged, once, here."""
    lu, command = task.logical_unit, task.command
    assert lu is not None
    if is_backstore_failure(error):
        terminated = to_check_condition(error, write=command is not None and command.access is _WRITE, block_size=lu.block_size)
        if terminated is not error:
            terminated.__cause__ = error
        return terminated
    lu.report_unexpected(command.name if command else task.cdb.hex(" "), error)
    return InternalTargetFailure()


def _log_failure(task: Task, answer: CommandTerminated, reason: BaseException) -> None:
    """The initiator gets sense data, whoever looks after the storage this line."""
    lu, itl, command = task.logical_unit, task.itl, task.command
    assert lu is not None
    assert itl is not None
    lba = getattr(task.parameters, "lba", None)
    sense = answer.sense if isinstance(answer, CheckCondition) else None
    log.log(
        logging.ERROR if sense else logging.WARNING,
        "%s (LUN %d): %s%s from %s failed: %s; answered %s%s",
        lu.name,
        itl.lun_number,
        command.name if command else task.cdb.hex(" "),
        "" if lba is None else f" at LBA {lba}",
        task.nexus.initiator_port.name,
        (reason.strerror if isinstance(reason, OSError) else None) or reason,
        answer.status.name,
        f" {sense.key.name} {sense.asc:02X}/{sense.ascq:02X}" if sense else "",
    )


def _truncate(task: Task, produced: int, expected: int) -> None:
    """Data-In and the initiator's buffer differ in length: cut what does not fit, and say so (SAM-5 5.4.2)."""
    if produced < expected:
        task.residual = expected - produced
        task.overflow = False
        return
    task.residual = produced - expected
    task.overflow = True
    kept = []
    room = expected
    for buffer in task.data_in:
        if not room:
            break
        kept.append(buffer if len(buffer) <= room else memoryview(buffer)[:room])
        room -= len(kept[-1])
    task.data_in = kept
