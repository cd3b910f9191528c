"""READ BUFFER (10) and WRITE BUFFER (SPC-4 6.18, 6.49)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scsi import pattern
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    CheckCondition,
    CommandSequenceError,
    EchoBufferOverwritten,
    InvalidFieldInCdb,
    ParameterListLengthError,
)
from tcm.scsi.sense import Status
from tcm.target.buffers import DataBuffer
from tcm.target.task_management import TaskManagementFunction

pytestmark = pytest.mark.anyio
Pair = tuple[ApplicationClient, ApplicationClient]
DATA, DESCRIPTOR, ECHO, ECHO_DESCRIPTOR = 0x02, 0x03, 0x0A, 0x0B
CAPACITY, ECHO_CAPACITY = 64 << 10, 4 << 10


async def read(client: ApplicationClient, mode: int, length: int = CAPACITY, *, offset: int = 0) -> bytes:
    return (await client.execute(cdb.read_buffer(mode, length, offset=offset), read_length=CAPACITY)).data_in


async def write(client: ApplicationClient, mode: int, data: bytes, *, offset: int = 0) -> None:
    await client.execute(cdb.write_buffer(mode, len(data), offset=offset), data)


async def refused(client: ApplicationClient, command: bytes, specific: str, data: bytes = b"") -> None:
    """INVALID FIELD IN CDB with that sense key specific field."""
    result = await client.execute(command, data, read_length=0 if data else CAPACITY, expect=InvalidFieldInCdb)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes.fromhex(specific)


async def test_read_buffer_descriptor(disk: ApplicationClient) -> None:
    """SPC-4 6.18.5: OFFSET BOUNDARY 0 (any byte) and the capacity of buffer 0; all zero for a buffer that is not there."""
    assert await read(disk, DESCRIPTOR) == bytes.fromhex("00010000")
    assert await read(disk, DESCRIPTOR, 3) == bytes.fromhex("000100")
    result = await disk.execute(cdb.read_buffer(DESCRIPTOR, buffer_id=1), read_length=64)
    assert result.data_in == bytes(4)


async def test_read_buffer_echo_descriptor(disk: ApplicationClient) -> None:
    """SPC-4 6.18.8: EBOS, and the capacity, which is what can be written."""
    assert await read(disk, ECHO_DESCRIPTOR) == bytes.fromhex("01001000")
    await write(disk, ECHO, bytes(ECHO_CAPACITY))
    await refused(disk, cdb.write_buffer(ECHO, ECHO_CAPACITY + 1), "c00006", bytes(ECHO_CAPACITY + 1))


async def test_write_buffer_data(pair: Pair) -> None:
    """SPC-4 6.18.4, 6.49.4: what one nexus writes at an offset, every other reads; the rest stays; zeroes at first."""
    one, other = pair
    assert await read(one, DATA) == bytes(CAPACITY)
    data = pattern(5000)
    await write(one, DATA, data, offset=1001)
    assert await read(other, DATA) == bytes(1001) + data + bytes(CAPACITY - 6001)
    assert await read(other, DATA, 7, offset=1003) == data[2:9]
    await write(other, DATA, b"xyz", offset=CAPACITY - 3)
    assert await read(one, DATA, offset=CAPACITY - 4) == b"\0xyz"


async def test_write_buffer_leaves_the_medium_alone(disk: ApplicationClient) -> None:
    """SPC-4 6.49.4: the buffer is not the medium."""
    await write(disk, DATA, pattern(CAPACITY))
    assert (await disk.read(10, 0, 128)).data_in == bytes(CAPACITY)


async def test_write_buffer_data_range(disk: ApplicationClient) -> None:
    """SPC-4 6.49.4: an unknown BUFFER ID, an offset and a length beyond the capacity are INVALID FIELD IN CDB."""
    await refused(disk, cdb.write_buffer(DATA, 1, buffer_id=1), "c00002", b"x")
    await refused(disk, cdb.read_buffer(DATA, buffer_id=1), "c00002")
    for offset in (CAPACITY, 0xFFFFFF):
        await refused(disk, cdb.write_buffer(DATA, 1, offset=offset), "c00003", b"x")
        await refused(disk, cdb.read_buffer(DATA, offset=offset), "c00003")
    await refused(disk, cdb.write_buffer(DATA, 2, offset=CAPACITY - 1), "c00006", b"xy")
    assert await read(disk, DATA) == bytes(CAPACITY)


async def test_write_buffer_zero_length(disk: ApplicationClient) -> None:
    """SPC-4 6.49.1: a PARAMETER LIST LENGTH of zero is no error, and nothing is written."""
    for mode in (DATA, ECHO):
        await write(disk, mode, b"")
    await disk.execute(cdb.read_buffer(ECHO), read_length=64, expect=CommandSequenceError)


async def test_write_buffer_truncated(disk: ApplicationClient) -> None:
    """SPC-5 4.3.5.4: fewer bytes than PARAMETER LIST LENGTH says are PARAMETER LIST LENGTH ERROR; nothing is half done."""
    for mode in (DATA, ECHO):
        for sent in (0, 1, 7):
            await disk.execute(cdb.write_buffer(mode, 8), b"x" * sent, expect=ParameterListLengthError)
    assert await read(disk, DATA) == bytes(CAPACITY)
    await disk.execute(cdb.read_buffer(ECHO), read_length=64, expect=CommandSequenceError)


async def test_read_buffer_echo(disk: ApplicationClient) -> None:
    """SPC-4 6.18.7: as many bytes as were written; BUFFER ID and BUFFER OFFSET are ignored; ALLOCATION LENGTH truncates."""
    data = pattern(1000)
    await disk.execute(cdb.read_buffer(ECHO), read_length=64, expect=CommandSequenceError)
    await write(disk, ECHO, data, offset=17)
    for _ in range(2):
        result = await disk.execute(cdb.read_buffer(ECHO, offset=0xFFFFFF, buffer_id=0xFF), read_length=4096)
        assert result.data_in == data
    assert await read(disk, ECHO, 10) == data[:10]
    await write(disk, ECHO, b"short")
    assert await read(disk, ECHO) == b"short"


async def test_read_buffer_echo_overwritten(pair: Pair) -> None:
    """SPC-4 6.18.7 (EBOS): another nexus's WRITE BUFFER makes it ECHO BUFFER OVERWRITTEN, until this one writes again."""
    one, other = pair
    await write(one, ECHO, b"one")
    await other.execute(cdb.read_buffer(ECHO), read_length=64, expect=CommandSequenceError)
    await write(other, ECHO, b"other")
    for _ in range(2):
        await one.execute(cdb.read_buffer(ECHO), read_length=64, expect=EchoBufferOverwritten)
    assert await read(other, ECHO) == b"other"
    await write(one, ECHO, b"again")
    assert await read(one, ECHO) == b"again"
    await other.execute(cdb.read_buffer(ECHO), read_length=64, expect=EchoBufferOverwritten)


async def test_read_buffer_echo_lost(pair: Pair) -> None:
    """SAM-5 6.3.3, 6.3.4: neither a nexus that was lost nor a reset unit has echo data."""
    one, other = pair
    await write(one, ECHO, b"one")
    await write(other, ECHO, b"other")
    for client in pair:
        client.initiator.disconnect()
        client.initiator.reconnect()
        await client.identify()
        await client.execute(cdb.read_buffer(ECHO), read_length=64, expect=CommandSequenceError)
    await write(one, ECHO, b"one")
    await other.initiator.task_management(TaskManagementFunction.LOGICAL_UNIT_RESET)
    await one.identify()
    await one.execute(cdb.read_buffer(ECHO), read_length=64, expect=CommandSequenceError)


@pytest.mark.parametrize("mode", range(32))
async def test_read_buffer_modes(disk: ApplicationClient, mode: int) -> None:
    """SPC-4 tables 217, 310: modes that are not offered (microcode, error history, obsolete ones) are INVALID FIELD IN CDB."""
    if mode not in {DATA, DESCRIPTOR, ECHO, ECHO_DESCRIPTOR}:
        await refused(disk, cdb.read_buffer(mode), "cc0001")
    if mode not in {DATA, ECHO}:
        await refused(disk, cdb.write_buffer(mode, 1), "cc0001", b"x")
    await refused(disk, cdb.read_buffer(mode, specific=1), "cd0001")


async def test_write_buffer_reserved(pair: Pair) -> None:
    """SPC-2 table 10: both conflict with another nexus's reservation."""
    one, other = pair
    await one.reserve()
    await other.execute(cdb.read_buffer(DESCRIPTOR), read_length=4, expect=Status.RESERVATION_CONFLICT)
    await other.execute(cdb.write_buffer(DATA, 1), b"x", expect=Status.RESERVATION_CONFLICT)


async def test_read_buffer_of_a_stopped_unit(disk: ApplicationClient) -> None:
    """SBC-4 5.28: the buffers need no medium."""
    await disk.start_stop_unit(start=False)
    await write(disk, DATA, b"x")
    assert await read(disk, DATA, 2) == b"x\0"


@given(st.lists(st.tuples(st.integers(0, CAPACITY - 1), st.binary(min_size=1, max_size=64)), max_size=8), st.data())
def test_write_buffer_is_memory(writes: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """SPC-4 6.49.4: the last byte written is the one that is read."""
    buffer, model = DataBuffer(), bytearray(CAPACITY)
    for offset, content in writes:
        content = content[: CAPACITY - offset]  # cut at the end
        buffer.write(offset, content)
        model[offset : offset + len(content)] = content
    offset = data.draw(st.integers(0, CAPACITY - 1))
    assert buffer.read(offset, 1 << 24) == model[offset:]
    assert len(buffer.read(0, 100)) == 100


def test_read_buffer_senses() -> None:
    """SPC-4 6.18.7: COMMAND SEQUENCE ERROR is ILLEGAL REQUEST, ECHO BUFFER OVERWRITTEN is ABORTED COMMAND."""
    errors: tuple[CheckCondition, ...] = (CommandSequenceError(), EchoBufferOverwritten())
    assert [str(error.sense) for error in errors] == ["ILLEGAL_REQUEST 2ch/00h", "ABORTED_COMMAND 3fh/0fh"]
