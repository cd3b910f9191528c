"""SANITIZE (SBC-4 5.30)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import InvalidFieldInCdb, ParameterListLengthError
from tcm.scsi.sanitize import HEADER, parse_overwrite
from tcm.target.device_server.handler import Handler
from tcm.target.erasure_store import BLOCK_ERASE, CRYPTOGRAPHIC_ERASE, OVERWRITE, Erasure

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.target.eraser import Run
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

IMMED, AUSE = 0x80, 0x20


async def wait(run: Run, *, immed: bool) -> None:
    """Until the command may have its status; if it is aborted, the erasure goes on."""
    await (run.started if immed else run.ended).wait()
    if run.error is not None and not (immed and run.begun):
        raise run.error


def _restricted(lu: LogicalUnit) -> bool:
    """A sanitize operation has failed that was to complete in restricted mode."""
    erasure = lu.eraser.erasure
    return lu.eraser.sanitizing and erasure is not None and not erasure.unrestricted


def _check_mode(task: Task) -> None:
    """After a failure in restricted mode only another sanitize operation in restricted mode will do."""
    lu = task.logical_unit
    assert lu is not None
    if task.cdb[1] & AUSE and _restricted(lu):
        raise InvalidFieldInCdb.at(1, 5)


def _prepare_overwrite(task: Task) -> int:
    lu = task.logical_unit
    assert lu is not None
    _check_mode(task)
    length = int.from_bytes(task.cdb[7:9])
    if not HEADER < length <= HEADER + lu.block_size:
        raise InvalidFieldInCdb.at(7)
    task.parameters = length
    return length


def _overwrite(task: Task) -> Coroutine[Any, Any, None]:
    lu = task.logical_unit
    assert lu is not None
    data = bytes(task.data_out[: task.data_out_wanted])
    if len(data) < task.parameters:
        raise ParameterListLengthError
    passes, invert, block = parse_overwrite(data, lu.block_size)
    return _sanitize(task, Erasure(kind=OVERWRITE, passes=passes, invert=invert, block=block, unrestricted=_ause(task)))


def _prepare_whole(task: Task) -> int:
    _check_mode(task)
    return 0


def _block_erase(task: Task) -> Coroutine[Any, Any, None]:
    return _sanitize(task, Erasure(kind=BLOCK_ERASE, unrestricted=_ause(task)))


def _cryptographic_erase(task: Task) -> Coroutine[Any, Any, None]:
    return _sanitize(task, Erasure(kind=CRYPTOGRAPHIC_ERASE, unrestricted=_ause(task)))


def _ause(task: Task) -> bool:
    return bool(task.cdb[1] & AUSE)


def _sanitize(task: Task, erasure: Erasure) -> Coroutine[Any, Any, None]:
    lu = task.logical_unit
    assert lu is not None
    return wait(lu.eraser.begin(task, erasure), immed=bool(task.cdb[1] & IMMED))


def _prepare_exit_failure_mode(task: Task) -> int:
    lu = task.logical_unit
    assert lu is not None
    if _restricted(lu):
        raise InvalidFieldInCdb.at(1, 4)
    return 0


def _exit_failure_mode(task: Task) -> Coroutine[Any, Any, None] | None:
    """Nothing happens if no sanitize operation has failed."""
    lu = task.logical_unit
    assert lu is not None
    erasure = lu.eraser.erasure
    return lu.eraser.leave_failure(erasure) if erasure is not None and lu.eraser.sanitizing else None


HANDLERS = {
    "sanitize_overwrite": Handler(_prepare_overwrite, _overwrite),
    "sanitize_block_erase": Handler(_prepare_whole, _block_erase),
    "sanitize_cryptographic_erase": Handler(_prepare_whole, _cryptographic_erase),
    "sanitize_exit_failure_mode": Handler(_prepare_exit_failure_mode, _exit_failure_mode),
}
