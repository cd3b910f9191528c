"""READ BUFFER (10) and WRITE BUFFER (SPC-4 6.18, 6.49): data, echo, and their descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.buffers import BufferMode, buffer_descriptor, echo_buffer_descriptor
from tcm.scsi.check_condition import InvalidFieldInCdb, ParameterListLengthError
from tcm.target.buffers import DATA_BUFFER_CAPACITY, ECHO_BUFFER_CAPACITY
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task

DATA_BUFFER = 0
"""BUFFER ID of the only one."""


def _data_offset(cdb: bytes) -> int:
    """BUFFER OFFSET of a CDB that names the data buffer."""
    if cdb[2] != DATA_BUFFER:
        raise InvalidFieldInCdb.at(2)
    offset = int.from_bytes(cdb[3:6])
    if offset >= DATA_BUFFER_CAPACITY:
        raise InvalidFieldInCdb.at(3)
    return offset


def _read_data(itl: ITLNexus, cdb: bytes) -> bytes:
    return itl.logical_unit.data_buffer.read(_data_offset(cdb), int.from_bytes(cdb[6:9]))


def _read_descriptor(itl: ITLNexus, cdb: bytes) -> bytes:  # noqa: ARG001  # the signature of all modes
    return buffer_descriptor(DATA_BUFFER_CAPACITY if cdb[2] == DATA_BUFFER else 0)


def _read_echo(itl: ITLNexus, cdb: bytes) -> bytes:  # noqa: ARG001  # the signature of all modes
    return itl.logical_unit.echo_buffer.read(itl)


def _read_echo_descriptor(itl: ITLNexus, cdb: bytes) -> bytes:  # noqa: ARG001  # the signature of all modes
    return echo_buffer_descriptor(ECHO_BUFFER_CAPACITY)


_READS: dict[int, Callable[[ITLNexus, bytes], bytes]] = {
    BufferMode.DATA: _read_data,
    BufferMode.DESCRIPTOR: _read_descriptor,
    BufferMode.ECHO: _read_echo,
    BufferMode.ECHO_DESCRIPTOR: _read_echo_descriptor,
}


def _read(task: Task) -> None:
    itl = task.itl
    assert itl is not None
    cdb = task.cdb
    read = _READS.get(cdb[1])
    if read is None:
        raise InvalidFieldInCdb.at(1, 4)
    give(task, read(itl, cdb), int.from_bytes(cdb[6:9]))


def _prepare_write(task: Task) -> int:
    """Leaves the offset in the data buffer, or ``None`` for the echo buffer, and the length."""
    cdb = task.cdb
    length = int.from_bytes(cdb[6:9])
    if cdb[1] == BufferMode.DATA:
        offset = _data_offset(cdb)
        room = DATA_BUFFER_CAPACITY - offset
        task.parameters = offset, length
    elif cdb[1] == BufferMode.ECHO:
        room = ECHO_BUFFER_CAPACITY
        task.parameters = None, length
    else:
        raise InvalidFieldInCdb.at(1, 4)
    if length > room:
        raise InvalidFieldInCdb.at(6)
    return length


def _write(task: Task) -> None:
    itl = task.itl
    assert itl is not None
    offset, length = task.parameters
    data = bytes(task.data_out[: task.data_out_wanted])
    if len(data) < length:
        raise ParameterListLengthError
    if not data:
        return
    if offset is None:
        itl.logical_unit.echo_buffer.write(itl, data)
    else:
        itl.logical_unit.data_buffer.write(offset, data)


HANDLERS = {
    "read_buffer": Handler(no_data_out, _read),
    "write_buffer": Handler(_prepare_write, _write),
}
