"""Bad input, for every row of the command table alike: parameter lists cut at every byte, with every bit turned, with lengths
that lie, and random ones; and allocation lengths that cut. Whatever is refused is refused with the right sense data and has
changed nothing; nothing is an internal error.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.examples import (
    ALLOCATION_LENGTH_LEAST,
    ALLOCATION_LENGTHS,
    MORE_LISTS,
    PARAMETER_LISTS,
    TELL_ONCE,
    Example,
    example_for,
    prepare,
    returns_data,
    snapshot,
    takes_a_list,
)
from support.reservations import SPEC_I_PT, parameters, sas, specified
from support.scsi import FIRST, logical_unit, one_initiator
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.transport import Result

from tcm.scsi import cdb, copy_cdb
from tcm.scsi.check_condition import ParameterListLengthError
from tcm.scsi.command_table import COMMANDS, lookup
from tcm.scsi.persistent_reservations import OutAction
from tcm.scsi.sense import SenseKey, Status

pytestmark = pytest.mark.anyio
ONE_LOOP = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""What is parsed does not depend on the event loop."""
EVERY_LIST = pytest.mark.parametrize("name", [*PARAMETER_LISTS, *MORE_LISTS])
EVERY_LENGTH = pytest.mark.parametrize(
    "name", [name for name in (*PARAMETER_LISTS, *MORE_LISTS) if not name.startswith("FORMAT UNIT")]
)
"""Commands whose CDB says how long the list is."""
MOST_BITS = 300
"""Of a long list, so many bits are turned, chosen at random."""
ROUNDS = 60
FORMAT_UNIT = 0x04
INVALID_FIELD_IN_CDB, INVALID_FIELD_IN_PARAMETER_LIST, PARAMETER_LIST_LENGTH_ERROR = (0x24, 0), (0x26, 0), (0x1A, 0)


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[ApplicationClient]:
    """A disk of 128 blocks that has everything."""
    async with one_initiator(RamdiskBackstore(128 * 512), directory=tmp_path) as client:
        yield client


async def send(client: ApplicationClient, example: Example, line: bytes, data: bytes) -> Result:
    """Send a command that may be wrong; look at its sense data, and at what it has changed if it was refused."""
    before = snapshot(client)
    result = await client.execute(line, data, read_length=0, expect=None)
    text = f"{line.hex(' ')} with {data.hex(' ')}: {result.status.name} {result.sense}"
    if result.status is Status.GOOD:
        with anyio.fail_after(60):
            while logical_unit(client).eraser.erasure is not None:  # FORMAT UNIT with IMMED
                await checkpoint()
        prepare(client, example)
        if line[0] == FORMAT_UNIT:  # with protection information or without: unit attentions, if that has changed
            await client.identify()
        return result
    assert snapshot(client) == before, text
    if line[0] == 0x5F and result.status is Status.RESERVATION_CONFLICT:
        return result
    assert result.status is Status.CHECK_CONDITION, text
    assert result.sense is not None
    copies = line[0] == 0x83
    assert result.sense.key is SenseKey.ILLEGAL_REQUEST or (copies and result.sense.key is SenseKey.COPY_ABORTED), text
    code, pointer = (result.sense.asc, result.sense.ascq), result.sense.sense_key_specific
    if code == INVALID_FIELD_IN_PARAMETER_LIST:
        assert pointer is not None, text
        assert pointer[0] & 0xC0 == 0x80, text
        assert int.from_bytes(pointer[1:]) < max(len(data), 1), text
    elif code == INVALID_FIELD_IN_CDB:
        assert pointer is not None, text
        assert pointer[0] & 0xC0 == 0xC0, text
        assert int.from_bytes(pointer[1:]) < len(line), text
    return result


def offered(client: ApplicationClient, name: str) -> Example:
    """The example of a row; the test ends here if the unit does not have the command."""
    example = example_for(client, name)
    command = lookup(example.cdb)
    assert name.startswith(command.name)
    if command.feature is not None and command.feature not in logical_unit(client).features:
        pytest.skip(f"needs {command.feature.value}")
    prepare(client, example)
    return example


def test_every_command_has_an_example() -> None:
    """A new row brings its example, or its tests do not count."""
    assert {command.name for command in COMMANDS if takes_a_list(command)} == set(PARAMETER_LISTS)
    assert {command.name for command in COMMANDS if returns_data(command)} >= set(ALLOCATION_LENGTHS) | TELL_ONCE
    missing = {command.name for command in COMMANDS if returns_data(command)} - set(ALLOCATION_LENGTHS) - TELL_ONCE
    assert missing <= {"REPORT REFERRALS"}, "offered only with an lba_map"


@EVERY_LIST
async def test_parameter_list_example_is_good(disk: ApplicationClient, name: str) -> None:
    """What the bad lists are made of is a good one, twice."""
    example = offered(disk, name)
    for _ in range(2):
        assert (await send(disk, example, example.cdb, example.data)).status is Status.GOOD


@ONE_LOOP
@EVERY_LIST
async def test_parameter_list_cut_by_the_initiator(disk: ApplicationClient, name: str) -> None:
    """SPC-5, PARAMETER LIST LENGTH field: less Data-Out than the CDB promises: refused, wherever it ends."""
    example = offered(disk, name)
    for length in range(len(example.data)):
        result = await send(disk, example, example.cdb, example.data[:length])
        assert result.status is Status.CHECK_CONDITION, f"{length} bytes of {len(example.data)}"


@ONE_LOOP
@EVERY_LENGTH
async def test_parameter_list_cut_by_the_cdb(disk: ApplicationClient, name: str) -> None:
    """SPC-5, PARAMETER LIST LENGTH field: a list that ends too early is taken up to a whole element, or refused; what the
    initiator has beyond it is not looked at; zero is no list, and no error."""
    example = offered(disk, name)
    for length in range(len(example.data)):
        for data in (example.data[:length], example.data):
            await send(disk, example, example.told(length), data)


@ONE_LOOP
@EVERY_LENGTH
async def test_parameter_list_length_that_lies(disk: ApplicationClient, name: str) -> None:
    """SPC-5, PARAMETER LIST LENGTH field: more than there is, up to the most that the field can say; padded, or not."""
    example = offered(disk, name)
    size = len(example.data)
    for length in (size + 1, size + 3, size + 4, 2 * size, 4 * size, 65535, 65536, 1 << 20, example.longest):
        if length > example.longest or length <= size:
            continue
        result = await send(disk, example, example.told(length), example.data)
        assert result.status is Status.CHECK_CONDITION
        for filling in (b"\0", b"\xff"):
            await send(disk, example, example.told(length), example.data.ljust(min(length, 1 << 18), filling))


@ONE_LOOP
@EVERY_LIST
async def test_parameter_list_with_each_bit_turned(disk: ApplicationClient, name: str) -> None:
    """SPC-5 4.2.1: reserved bits, lengths within the list, codes: each bit on its own is taken as another value, or refused."""
    example = offered(disk, name)
    bits = range(8 * len(example.data))
    for bit in bits if len(bits) <= MOST_BITS else sorted(random.Random(name).sample(bits, MOST_BITS)):
        data = bytearray(example.data)
        data[bit >> 3] ^= 1 << (bit & 7)
        await send(disk, example, example.cdb, bytes(data))


@ONE_LOOP
@EVERY_LIST
async def test_parameter_list_of_random_bytes(disk: ApplicationClient, name: str) -> None:
    """Whatever a list holds, the command ends with a status that the standard knows, and the unit serves the next one."""
    example = offered(disk, name)
    chance = random.Random(name)
    for _ in range(ROUNDS):
        data = bytearray(example.data)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        if chance.random() < 0.3:
            data = bytearray(chance.randbytes(chance.randrange(64)))
        await send(disk, example, example.told(min(len(data), example.longest)), bytes(data))
    assert (await send(disk, example, example.cdb, example.data)).status is Status.GOOD


@pytest.mark.parametrize("name", ALLOCATION_LENGTHS)
async def test_allocation_length_cuts(disk: ApplicationClient, name: str) -> None:
    """SPC-5, ALLOCATION LENGTH field: any value, from zero to more than there is, is GOOD and gives that much of the data."""
    line, (at, size) = ALLOCATION_LENGTHS[name]
    command = lookup(line)
    assert command.name == name
    if command.feature is not None and command.feature not in logical_unit(disk).features:
        pytest.skip(f"needs {command.feature.value}")
    if line[0] == 0x84:
        data = copy_cdb.lid4_parameters(b"", copy_cdb.block_to_block(copy_cdb.THIS_UNIT, 0, copy_cdb.THIS_UNIT, 64, 8))
        await disk.execute(copy_cdb.extended_copy(len(data), lid4=True), data)
    most = (1 << 8 * size) - 1

    async def answer(length: int) -> bytes:
        command = line[:at] + length.to_bytes(size) + line[at + size :]
        return (await disk.execute(command, read_length=1 << 16)).data_in

    full = await answer(min(most, 1 << 16))
    assert full
    for length in {*range(min(len(full), 80) + 2), len(full) - 1, len(full), len(full) + 1, most}:
        if ALLOCATION_LENGTH_LEAST.get(name, 0) <= length <= most:
            cut = await answer(length)
            if name == "REPORT TIMESTAMP":  # which goes on
                assert len(cut) == min(length, len(full))
            else:
                assert cut == full[:length]


async def test_parameter_list_longer_than_a_field_pointer(disk: ApplicationClient) -> None:
    """SPC-5 4.5.2.4.2: FIELD POINTER has 16 bits; the longest list of all, of SPEC_I_PT, ends where they do."""
    data = parameters(0, 0xA1, flags=SPEC_I_PT, more=specified(sas(FIRST) * 4000))
    before = snapshot(disk)
    command = cdb.persistent_reserve_out(OutAction.REGISTER, 0, len(data))
    await disk.execute(command, data, expect=ParameterListLengthError)
    assert snapshot(disk) == before
