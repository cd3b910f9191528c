"""MODE SENSE and MODE SELECT (6), (10): SPC-5 6.13 to 6.16, 7.5; SBC-4 6.5."""

from __future__ import annotations

import pytest
from support.scsi import one_initiator, pattern
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    CheckCondition,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    LbaOutOfRange,
    ParameterListLengthError,
    WriteProtected,
)
from tcm.scsi.sense import SenseKey
from tcm.target import unit_attention

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("length", [6, 10])
Pair = tuple[ApplicationClient, ApplicationClient]
CURRENT, CHANGEABLE, DEFAULT, SAVED = range(4)
PAGES = (0x01, 0x08, 0x0A, 0x1C)
CONTROL = 0x0A


class SavingParametersNotSupported(CheckCondition):
    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x39, 0x00


def split(data: bytes, length: int) -> tuple[bytes, bytes, bytes]:
    """Header, block descriptors, pages of mode parameter data."""
    size = 4 if length == 6 else 8
    descriptors = data[3] if length == 6 else int.from_bytes(data[6:8], "big")
    return data[:size], data[size : size + descriptors], data[size + descriptors :]


def pages(data: bytes, length: int) -> dict[tuple[int, int], bytes]:
    found, rest = {}, split(data, length)[2]
    while rest:
        if rest[0] & 0x40:
            size, key = 4 + int.from_bytes(rest[2:4], "big"), (rest[0] & 0x3F, rest[1])
        else:
            size, key = 2 + rest[1], (rest[0] & 0x3F, 0)
        assert len(rest) >= size
        found[key], rest = rest[:size], rest[size:]
    return found


async def page(disk: ApplicationClient, code: int, subpage: int = 0, *, control: int = CURRENT) -> bytes:
    """One page, header and all, of MODE SENSE (10)."""
    data = await disk.mode_sense(10, code, subpage, control=control, dbd=True, allocation_length=4096)
    ((_, found),) = pages(data, 10).items()
    return found


def parameters(length: int, *changed: bytes, descriptor: bytes = b"") -> bytes:
    """A MODE SELECT parameter list; PS is cleared, as it is reserved there."""
    header = bytes((0, 0, 0, len(descriptor))) if length == 6 else bytes(6) + len(descriptor).to_bytes(2, "big")
    return header + descriptor + b"".join(bytes((data[0] & 0x7F,)) + data[1:] for data in changed)


def with_bits(data: bytes, byte: int, clear: int, set_: int) -> bytes:
    return data[:byte] + bytes((data[byte] & ~clear | set_,)) + data[byte + 1 :]


@BOTH
async def test_mode_sense_all_pages(disk: ApplicationClient, length: int) -> None:
    """SPC-5 6.13: page 3Fh returns every page once; MODE DATA LENGTH counts what follows it."""
    data = await disk.mode_sense(length, 0x3F)
    size = data[0] + 1 if length == 6 else int.from_bytes(data[:2], "big") + 2
    assert size == len(data)
    found = pages(data, length)
    assert {(code, 0) for code in PAGES} <= set(found)
    assert list(found) == sorted(found)
    assert all(subpage == 0 for _, subpage in found)
    for (code, _), content in found.items():
        one = await disk.mode_sense(length, code)
        assert pages(one, length) == {(code, 0): content}


@BOTH
async def test_mode_sense_subpages(disk: ApplicationClient, length: int) -> None:
    """SPC-5 table 158: page 3Fh subpage FFh is everything, a page's subpage FFh all of that page; 0A/01 is there."""
    everything = pages(await disk.mode_sense(length, 0x3F, 0xFF), length)
    assert (CONTROL, 1) in everything
    assert len(everything[CONTROL, 1]) == 32
    assert everything[CONTROL, 1][:4] == bytes((everything[CONTROL, 1][0], 1, 0, 28))
    assert set(pages(await disk.mode_sense(length, CONTROL, 0xFF), length)) == {key for key in everything if key[0] == CONTROL}
    await disk.mode_sense(length, CONTROL, 0x7E, expect=InvalidFieldInCdb)
    await disk.mode_sense(length, 0x3F, 0x01, expect=InvalidFieldInCdb)


@BOTH
async def test_mode_sense_unknown_page(disk: ApplicationClient, length: int) -> None:
    """SPC-5 6.13: a page that is not there is INVALID FIELD IN CDB."""
    known = {code for code, _ in pages(await disk.mode_sense(length, 0x3F), length)}
    for code in set(range(1, 0x3F)) - known:
        await disk.mode_sense(length, code, expect=InvalidFieldInCdb)


@BOTH
async def test_mode_sense_page_controls(disk: ApplicationClient, length: int) -> None:
    """SPC-5 6.13.2: current, changeable and default values have one layout; current starts as default."""
    current = pages(await disk.mode_sense(length, 0x3F, control=CURRENT), length)
    default = pages(await disk.mode_sense(length, 0x3F, control=DEFAULT), length)
    changeable = pages(await disk.mode_sense(length, 0x3F, control=CHANGEABLE), length)
    assert current == default
    assert {key: (value[0], value[1]) for key, value in changeable.items()} == {
        key: (value[0], value[1]) for key, value in current.items()
    }
    assert any(any(value[2:]) for value in changeable.values())


@BOTH
async def test_mode_sense_saved(disk: ApplicationClient, length: int) -> None:
    """SPC-5 6.13.2.5: saved values, or SAVING PARAMETERS NOT SUPPORTED if PS is zero."""
    data = await disk.mode_sense(length, CONTROL)
    ps = pages(data, length)[CONTROL, 0][0] & 0x80
    if ps:
        assert await disk.mode_sense(length, CONTROL, control=SAVED)
    else:
        await disk.mode_sense(length, CONTROL, control=SAVED, expect=SavingParametersNotSupported)


@BOTH
async def test_mode_sense_block_descriptor(disk: ApplicationClient, length: int) -> None:
    """SBC-4 6.5.2: the short descriptor has the capacity and the block length; DBD leaves it out."""
    descriptor = split(await disk.mode_sense(length, 0x3F), length)[1]
    assert descriptor == disk.blocks.to_bytes(4, "big") + disk.block_size.to_bytes(4, "big")
    assert split(await disk.mode_sense(length, 0x3F, dbd=True), length)[1] == b""


async def test_mode_sense10_long_descriptor(disk: ApplicationClient) -> None:
    """SBC-4 6.5.2.3: with LLBAA the descriptor is the 16-byte one, and LONGLBA says so."""
    header, descriptor, _ = split(await disk.mode_sense(10, 0x3F, llbaa=True), 10)
    assert header[4] & 1
    assert descriptor == disk.blocks.to_bytes(8, "big") + bytes(4) + disk.block_size.to_bytes(4, "big")


@BOTH
async def test_mode_sense_residuals(disk: ApplicationClient, length: int) -> None:
    """SPC-5 4.2.5.6: an allocation length of 4 gives 4 bytes and no residual; 252 gives all and an underflow."""
    full = await disk.mode_sense(length, 0x3F)
    for allocation in (0, 4, 17, 252):
        command = cdb.mode_sense(length, 0x3F, allocation_length=allocation)
        result = await disk.execute(command, read_length=allocation)
        assert result.data_in == full[:allocation]
        assert (result.residual, result.overflow) == (allocation - len(result.data_in), False)


async def test_mode_sense_control_page(disk: ApplicationClient) -> None:
    """SPC-5 7.5.10: values that are allowed, and those that the attributes ask for."""
    data = await page(disk, CONTROL)
    assert len(data) == 12
    assert data[2] >> 5 == 0, "TST: one task set"
    assert data[3] >> 4 in {0, 1}, "QUEUE ALGORITHM MODIFIER"
    assert data[3] >> 1 & 3 != 2, "QERR"
    assert data[4] >> 4 & 3 != 1, "UA_INTLCK_CTRL"
    assert data[5] & 0x40, "TAS"
    assert data[5] & 0x07 <= 2, "AUTOLOAD MODE"


@pytest.mark.parametrize(("attribute", "code"), [(0, 0), (1, 2), (2, 3)])
async def test_mode_sense_ua_intlck_ctrl(attribute: int, code: int) -> None:
    """SPC-5 7.5.10: the attribute emulate_ua_intlck_ctrl is the default of UA_INTLCK_CTRL."""
    async with one_initiator(emulate_ua_intlck_ctrl=attribute) as disk:
        assert (await page(disk, CONTROL))[4] >> 4 & 3 == code


async def test_mode_sense_write_protect(disk: ApplicationClient, read_only: ApplicationClient) -> None:
    """SBC-4 6.5.1: WP in the DEVICE-SPECIFIC PARAMETER."""
    assert (await disk.mode_sense(6, 0x3F))[2] & 0x80 == 0
    assert (await read_only.mode_sense(6, 0x3F))[2] & 0x80
    assert (await read_only.mode_sense(10, 0x3F))[3] & 0x80


@BOTH
async def test_mode_select_changes(pair: Pair, length: int) -> None:
    """SPC-5 6.15, 7.5.10: D_SENSE can be changed: sense data follow it, other nexuses get MODE PARAMETERS CHANGED."""
    one, two = pair
    data = await page(one, CONTROL)
    assert (await page(one, CONTROL, control=CHANGEABLE))[2] & 0x04
    await one.mode_select(length, parameters(length, with_bits(data, 2, 0x04, 0x04)))
    assert (await page(one, CONTROL))[2] & 0x04
    assert not (await page(one, CONTROL, control=DEFAULT))[2] & 0x04
    await two.test_unit_ready(expect=unit_attention.MODE_PARAMETERS_CHANGED)
    await two.test_unit_ready()
    await one.test_unit_ready()
    assert (await page(two, CONTROL))[2] & 0x04
    await one.mode_select(length, parameters(length, data))
    assert await page(one, CONTROL) == data


@BOTH
async def test_mode_select_no_change(pair: Pair, length: int) -> None:
    """SPC-5 6.15: a list that changes nothing is accepted; every page can be sent back as it was read."""
    one, two = pair
    for code in PAGES:
        data = await page(one, code)
        await one.mode_select(length, parameters(length, data))
    await one.mode_select(length, b"")
    await one.mode_select(length, parameters(length))
    await two.test_unit_ready()


@BOTH
async def test_mode_select_swp(disk: ApplicationClient, length: int) -> None:
    """SBC-4 6.5.1, SPC-5 7.5.10: SWP stops writes and nothing else, in either lane."""
    data = await page(disk, CONTROL)
    disk.initiator.express = True
    assert (await disk.write(10, 0, pattern(512))).express
    await disk.mode_select(length, parameters(length, with_bits(data, 4, 0x08, 0x08)))
    assert (await page(disk, CONTROL))[4] & 0x08
    assert (await disk.mode_sense(6, 0x3F))[2] & 0x80
    await disk.write(10, 0, bytes(512), expect=WriteProtected)
    assert (await disk.read(10, 0, 1)).data_in == pattern(512)
    await disk.mode_select(length, parameters(length, data))
    assert (await disk.write(10, 0, bytes(512))).express


async def test_mode_select_d_sense(disk: ApplicationClient) -> None:
    """SPC-5 7.5.10, 4.5.1: D_SENSE chooses the format of sense data; REQUEST SENSE obeys its DESC bit."""
    data = await page(disk, CONTROL)
    await disk.mode_select(10, parameters(10, with_bits(data, 2, 0x04, 0x04)))
    result = await disk.read(16, (1 << 64) - 1, 1, expect=LbaOutOfRange)
    assert result.sense_data[0] == 0x72
    assert result.sense_data[1:4] == bytes((SenseKey.ILLEGAL_REQUEST, 0x21, 0))
    assert len(result.sense_data) == 8 + result.sense_data[7]
    await disk.mode_select(10, parameters(10, data))
    result = await disk.read(16, (1 << 64) - 1, 1, expect=LbaOutOfRange)
    assert result.sense_data[0] & 0x7F == 0x70
    assert (result.sense_data[2] & 0xF, result.sense_data[12]) == (SenseKey.ILLEGAL_REQUEST, 0x21)
    assert (await disk.request_sense())[0] & 0x7F == 0x70
    assert (await disk.request_sense(desc=True))[0] & 0x7F == 0x72


@BOTH
async def test_mode_select_not_changeable(disk: ApplicationClient, length: int) -> None:
    """SPC-5 6.15: another value in a field whose mask is zero is INVALID FIELD IN PARAMETER LIST; nothing changes."""
    for code in PAGES:
        data = await page(disk, code)
        mask = await page(disk, code, control=CHANGEABLE)
        for byte in range(2, len(data)):
            for bit in range(8):
                if not mask[byte] >> bit & 1:
                    wrong = with_bits(data, byte, 0, 0) if byte >= len(data) else data[:byte] + bytes((data[byte] ^ 1 << bit,))
                    wrong += data[byte + 1 :]
                    await disk.mode_select(length, parameters(length, wrong), expect=InvalidFieldInParameterList)
        assert await page(disk, code) == data


@BOTH
async def test_mode_select_all_or_nothing(disk: ApplicationClient, length: int) -> None:
    """SPC-5 6.15: a list with one bad page changes no page."""
    data = await page(disk, CONTROL)
    bad = await page(disk, 0x01)
    bad = bad[:2] + bytes((bad[2] ^ 0xFF,)) + bad[3:]
    changed = with_bits(data, 2, 0x04, 0x04)
    await disk.mode_select(length, parameters(length, changed, bad), expect=InvalidFieldInParameterList)
    assert await page(disk, CONTROL) == data


@BOTH
async def test_mode_select_bad_lists(disk: ApplicationClient, length: int) -> None:
    """SPC-5 6.15: truncated lists are PARAMETER LIST LENGTH ERROR; bad headers and lengths INVALID FIELD IN PARAMETER LIST."""
    data = await page(disk, CONTROL)
    good = parameters(length, data)
    for size in range(1, len(good)):
        if size == (4 if length == 6 else 8):
            continue
        await disk.mode_select(length, good[:size], expect=ParameterListLengthError)
    for wrong in (
        b"\x01" + good[1:],
        parameters(length, bytes((0x3E, 0x0A, *bytes(10)))),
        parameters(length, data[:1] + bytes((data[1] - 1,)) + data[2:-1]),
    ):
        await disk.mode_select(length, wrong, expect=InvalidFieldInParameterList)


@BOTH
async def test_mode_select_short_data_out(disk: ApplicationClient, length: int) -> None:
    """RFC 7143 11.4.5, SPC-5 6.15: fewer bytes than PARAMETER LIST LENGTH: the list is truncated, nothing is changed."""
    data = await page(disk, CONTROL)
    changed = parameters(length, with_bits(data, 2, 0x04, 0x04))
    for given in (0, 3, len(changed) - 1):
        command = cdb.mode_select(length, len(changed))
        result = await disk.execute(command, changed[:given], expect=None)
        assert (result.residual, result.overflow) == (len(changed) - given, True)
        assert await page(disk, CONTROL) == data
    await disk.execute(cdb.mode_select(length, len(changed)), changed + bytes(100))
    assert await page(disk, CONTROL) != data


@BOTH
async def test_mode_select_block_descriptor(disk: ApplicationClient, length: int) -> None:
    """SBC-4 6.5.2: a descriptor that changes nothing is taken, one that asks for another block length is refused."""
    blocks = disk.blocks.to_bytes(4, "big")
    await disk.mode_select(length, parameters(length, descriptor=blocks + (512).to_bytes(4, "big")))
    await disk.mode_select(length, parameters(length, descriptor=bytes(4) + (512).to_bytes(4, "big")))
    wrong = parameters(length, descriptor=blocks + (520).to_bytes(4, "big"))
    await disk.mode_select(length, wrong, expect=InvalidFieldInParameterList)
    await disk.mode_select(length, parameters(length, descriptor=bytes(7)), expect=InvalidFieldInParameterList)


@BOTH
async def test_mode_select_flags(disk: ApplicationClient, length: int) -> None:
    """SPC-5 6.15: SP while nothing can be saved, and a list without PF, are INVALID FIELD IN CDB."""
    data = parameters(length, await page(disk, CONTROL))
    if not (await page(disk, CONTROL))[0] & 0x80:
        await disk.mode_select(length, data, sp=True, expect=InvalidFieldInCdb)
    await disk.mode_select(length, data, pf=False, expect=InvalidFieldInCdb)


async def test_mode_select_survives_nexus_loss_not_reset(pair: Pair) -> None:
    """SPC-5 6.15, SAM-5 6.3: current values are the unit's, shared by all; a reset brings the defaults back."""
    from tcm.target.task_management import TaskManagementFunction

    one, two = pair
    data = await page(one, CONTROL)
    await one.mode_select(10, parameters(10, with_bits(data, 2, 0x04, 0x04)))
    one.initiator.disconnect()
    await two.identify()
    assert (await page(two, CONTROL))[2] & 0x04
    await two.initiator.task_management(TaskManagementFunction.LOGICAL_UNIT_RESET)
    await two.identify()
    assert await page(two, CONTROL) == data
