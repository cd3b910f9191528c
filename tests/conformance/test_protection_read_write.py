"""READ and WRITE with protection information: each type, each value of RDPROTECT and WRPROTECT (SBC-4 4.21, 5.16, 5.40)."""

from __future__ import annotations

import pytest
from support.protection import (
    INITIAL,
    UNKNOWN,
    control,
    crc16,
    failed_at,
    format_unit,
    poke,
    poke_protection,
    protection,
    together,
    tuples,
)
from support.scsi import one_initiator, pattern
from tcm_backstores.filters.error import ErrorFilter, ErrorOptions
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    CheckCondition,
    InvalidFieldInCdb,
    InvalidFieldInCommandInformationUnit,
    InvalidOpcode,
    LbaOutOfRange,
    LogicalBlockApplicationTagCheckFailed,
    LogicalBlockGuardCheckFailed,
    LogicalBlockReferenceTagCheckFailed,
    SpaceAllocationFailed,
)
from tcm.testing import ModelBackstore

pytestmark = pytest.mark.anyio
TYPES = pytest.mark.parametrize("kind", [1, 2, 3])
CODES = pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5])
SENDING = pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
LBA, BLOCKS = 1000, 20
DATA = pattern(512 * BLOCKS, 7)
GUARD, REFERENCE, APPLICATION = (
    LogicalBlockGuardCheckFailed,
    LogicalBlockReferenceTagCheckFailed,
    LogicalBlockApplicationTagCheckFailed,
)
GUARDED, TAGGED = {0, 1, 4, 5}, {0, 1, 2, 5}
"""Codes with which guards, and tags, are checked (SBC-4 tables 79 and 133)."""


def test_crc_test_cases() -> None:
    """SBC-4 table 27, of the tests' own CRC."""
    for data, crc in (
        (bytes(32), 0x0000),
        (b"\xff" * 32, 0xA293),
        (bytes(range(32)), 0x0224),
        (b"\xff\xff" + bytes(30), 0x21B8),
        (bytes(range(255, 223, -1)), 0xA0B7),
    ):
        assert crc16(data) == crc


def first_reference(kind: int) -> int:
    """What these tests use: type 1 leaves no choice."""
    return {1: LBA, 2: 0xFFFFFFF8, 3: 0x1234}[kind]


def length_of(kind: int) -> int:
    """Of CDBs that may have protection information: with type 2 only those of 32 bytes."""
    return 32 if kind == 2 else 16


def tags(kind: int, **more: int) -> dict[str, int]:
    return {"reference": first_reference(kind), **more} if kind == 2 else {}


def sent(kind: int, application: int = 0x55AA) -> bytes:
    return tuples(DATA, first_reference(kind), application)


async def write(disk: ApplicationClient, kind: int, protection: bytes, code: int = 1, **fields: object) -> object:
    return await disk.write(length_of(kind), LBA, together(DATA, protection), BLOCKS, protect=code, **{**tags(kind), **fields})


@TYPES
@pytest.mark.every_backstore
async def test_write_protected(disk: ApplicationClient, kind: int) -> None:
    """SBC-4 table 133, note e: what comes is kept, and is read back the same, whole or without it."""
    await format_unit(disk, kind)
    for code in (1, 2, 3, 4, 5):
        application = 0x100 + code
        await write(disk, kind, sent(kind, application), code)
        assert await protection(disk, LBA - 1, BLOCKS + 2) == INITIAL + sent(kind, application) + INITIAL
        for back in (1, 2, 3, 4, 5):
            result = await disk.read(length_of(kind), LBA, BLOCKS, protect=back, read_length=520 * BLOCKS, **tags(kind))
            assert result.data_in == together(DATA, sent(kind, application))
            assert result.residual == 0
    assert (await disk.read(16, LBA, BLOCKS)).data_in == DATA


@TYPES
@pytest.mark.parametrize("ato", [0, 1])
async def test_write_protected_without(disk: ApplicationClient, kind: int, ato: int) -> None:
    """SBC-4 table 133, code 000b: guards are generated, reference tags are LBAs or unknown, application tags by ATO."""
    await format_unit(disk, kind)
    await control(disk, ato=ato)
    application = 0xFFFF if ato else 0
    reference = LBA if kind == 1 else UNKNOWN
    expected = tuples(DATA, reference, application, constant=kind != 1)
    for length in (6, 10, 12, 16, 32) if kind == 2 else (6, 10, 12, 16):
        await disk.write(length, LBA, DATA, **(tags(kind) if length == 32 else {}))
        assert await protection(disk, LBA - 1, BLOCKS + 2) == INITIAL + expected + INITIAL
        await poke_protection(disk, LBA, INITIAL * BLOCKS)


async def test_write_protected_reference_wraps(disk: ApplicationClient) -> None:
    """SBC-4 table 25: after FFFFFFFFh comes zero."""
    await format_unit(disk, 2)
    await write(disk, 2, sent(2))
    kept = await protection(disk, LBA, BLOCKS)
    assert [int.from_bytes(kept[at + 4 : at + 8]) for at in range(0, len(kept), 8)] == [
        *range(0xFFFFFFF8, 1 << 32),
        *range(12),
    ]
    await disk.read(32, LBA + 10, 10, protect=1, read_length=5200, reference=2)


@TYPES
@CODES
async def test_read_protected_guard(disk: ApplicationClient, kind: int, code: int) -> None:
    """SBC-4 table 79: a guard that does not fit, by the block that it is in."""
    await format_unit(disk, kind)
    await write(disk, kind, sent(kind))
    await poke(disk, LBA + 7, b"\0" * 16)
    length = length_of(kind) if code else 16
    result = await disk.read(
        length,
        LBA,
        BLOCKS,
        protect=code,
        read_length=520 * BLOCKS if code else None,
        **(tags(kind) if code else {}),
        expect=GUARD if code in GUARDED else None,
    )
    if code in GUARDED:
        assert failed_at(result, GUARD) == LBA + 7
    else:
        assert len(result.data_in) == 520 * BLOCKS


@TYPES
@CODES
async def test_read_protected_reference_tag(disk: ApplicationClient, kind: int, code: int) -> None:
    """SBC-4 table 79, note i: known for type 1, told by READ (32) for type 2, unknown for type 3."""
    await format_unit(disk, kind)
    await write(disk, kind, sent(kind))
    kept = bytearray(await protection(disk, LBA + 9, 1))
    kept[7] ^= 1
    await poke_protection(disk, LBA + 9, bytes(kept))
    length = length_of(kind)
    checked = code in TAGGED and kind != 3
    result = await disk.read(
        length,
        LBA,
        BLOCKS,
        protect=code,
        read_length=520 * BLOCKS if code else None,
        **tags(kind),
        expect=REFERENCE if checked else None,
    )
    if checked:
        assert failed_at(result, REFERENCE) == LBA + 9
    else:
        assert result.sense is None
    if kind == 2:
        await disk.read(16, LBA, BLOCKS)  # nobody says what it should be


@CODES
@pytest.mark.parametrize("ato", [0, 1])
async def test_read_protected_application_tag(disk: ApplicationClient, code: int, ato: int) -> None:
    """SBC-4 5.19: with ATO, the bits of the mask are compared with the EXPECTED LOGICAL BLOCK APPLICATION TAG."""
    await format_unit(disk, 2)
    await control(disk, ato=ato)
    await write(disk, 2, sent(2, 0x1234), application=0x1234, mask=0xFFFF)
    size = 520 * BLOCKS if code else None
    for application, mask, fits in ((0x1234, 0xFFFF, True), (0x1235, 0xFFFE, True), (0x1235, 0x0001, False), (0, 0, True)):
        checked = ato and code in TAGGED and not fits
        result = await disk.read(
            32,
            LBA,
            BLOCKS,
            protect=code,
            read_length=size,
            **tags(2, application=application, mask=mask),
            expect=APPLICATION if checked else None,
        )
        if checked:
            assert failed_at(result, APPLICATION) == LBA
        else:
            assert result.sense is None


@TYPES
async def test_read_protected_escape(disk: ApplicationClient, kind: int) -> None:
    """SBC-4 4.21.3: application tag FFFFh, with type 3 and reference tag FFFFFFFFh, disables all checks of the block."""
    await format_unit(disk, kind)
    await write(disk, kind, sent(kind))
    wrong = b"\0\0\xff\xff\0\0\0\0"
    await poke_protection(disk, LBA + 3, wrong)
    result = await disk.read(16, LBA, BLOCKS, expect=GUARD if kind == 3 else None)
    if kind == 3:
        assert failed_at(result, GUARD) == LBA + 3
        await poke_protection(disk, LBA + 3, wrong[:4] + b"\xff" * 4)
        assert (await disk.read(16, LBA, BLOCKS)).data_in == DATA
    else:
        assert result.data_in == DATA


@TYPES
async def test_read_protected_dpicz(disk: ApplicationClient, kind: int) -> None:
    """SPC-5, Control mode page, DPICZ: a protect field of zero then asks for no checks; others are not touched by it."""
    await format_unit(disk, kind)
    await write(disk, kind, sent(kind))
    await poke(disk, LBA, b"\0" * 16)
    await disk.read(16, LBA, 1, expect=GUARD)
    await control(disk, dpicz=1)
    await disk.read(16, LBA, 1)
    await disk.verify(16, LBA, 1)
    await disk.read(length_of(kind), LBA, 1, protect=1, read_length=520, **tags(kind), expect=GUARD)


@TYPES
@SENDING
async def test_write_protected_guard(disk: ApplicationClient, kind: int, code: int) -> None:
    """SBC-4 table 133: a guard that does not fit what was sent; nothing is written."""
    await format_unit(disk, kind)
    bad = bytearray(sent(kind))
    bad[8 * 11] ^= 0x80
    result = await write(disk, kind, bytes(bad), code, expect=GUARD if code in GUARDED else None)
    if code in GUARDED:
        assert failed_at(result, GUARD) == LBA + 11
        assert await protection(disk, LBA, BLOCKS) == INITIAL * BLOCKS
        assert not any((await disk.read(16, LBA, BLOCKS)).data_in)
    else:
        assert await protection(disk, LBA, BLOCKS) == bytes(bad)
        assert failed_at(await disk.read(16, LBA, BLOCKS, expect=GUARD), GUARD) == LBA + 11


@TYPES
@SENDING
async def test_write_protected_tags(disk: ApplicationClient, kind: int, code: int) -> None:
    """SBC-4 table 133: reference tags that are known, application tags if they are the client's."""
    await format_unit(disk, kind)
    await control(disk, ato=1)
    bad = bytearray(sent(kind))
    bad[8 * 5 + 4] ^= 0x80
    checked = code in TAGGED and kind != 3
    result = await write(disk, kind, bytes(bad), code, expect=REFERENCE if checked else None)
    assert not checked or failed_at(result, REFERENCE) == LBA + 5
    if kind == 2:
        fields = {"application": 0x55AB, "mask": 0x00FF}
        result = await write(disk, kind, sent(kind), code, **fields, expect=APPLICATION if code in TAGGED else None)
        assert code not in TAGGED or failed_at(result, APPLICATION) == LBA


@TYPES
async def test_write_protected_escape(disk: ApplicationClient, kind: int) -> None:
    """SPC-5 7.7.7, NO_PI_CHK: blocks that say so are not checked when they are written either."""
    await format_unit(disk, kind)
    await write(disk, kind, INITIAL * BLOCKS, 5)
    assert await protection(disk, LBA, BLOCKS) == INITIAL * BLOCKS
    assert (await disk.read(16, LBA, BLOCKS)).data_in == DATA


@TYPES
async def test_protect_field_reserved(disk: ApplicationClient, kind: int) -> None:
    """SBC-4 tables 79 and 133: 110b and 111b are reserved."""
    await format_unit(disk, kind)
    length = length_of(kind)
    for code in (6, 7):
        for result in (
            await disk.read(length, 0, 1, protect=code, expect=InvalidFieldInCdb),
            await disk.write(length, 0, bytes(520), 1, protect=code, expect=InvalidFieldInCdb),
        ):
            assert result.sense is not None
            assert result.sense.sense_key_specific == bytes((0xCF, 0, 10 if length == 32 else 1))


async def test_protect_field_type_2(disk: ApplicationClient) -> None:
    """SBC-4 4.21.2.4: with type 2 a protect field in any but 32-byte CDBs is INVALID COMMAND OPERATION CODE."""
    await format_unit(disk, 2)
    for code in range(1, 8):
        for length in (10, 12, 16):
            await disk.read(length, 0, 1, protect=code, expect=InvalidOpcode)
            await disk.write(length, 0, bytes(520), 1, protect=code, expect=InvalidOpcode)
            await disk.verify(length, 0, 1, protect=code, expect=InvalidOpcode)
            await disk.write_and_verify(length, 0, bytes(520), 1, protect=code, expect=InvalidOpcode)
        for length in (10, 16):
            await disk.write_same(length, 0, 1, bytes(520), protect=code, expect=InvalidOpcode)
        await disk.orwrite(0, bytes(520), 1, protect=code, expect=InvalidOpcode)
        await disk.write_atomic(0, bytes(520), 1, protect=code, expect=InvalidOpcode)
        await disk.compare_and_write(0, bytes(520), bytes(520), 1, protect=code, expect=InvalidOpcode)


@TYPES
async def test_protected_range(disk: ApplicationClient, kind: int) -> None:
    """SBC-4 5.16: ranges are checked as ever, and nothing is transferred for no blocks."""
    await format_unit(disk, kind)
    length = length_of(kind)
    for lba, blocks in ((4096, 0), (4095, 2), (1 << 40, 1)):
        await disk.read(length, lba, blocks, protect=1, read_length=1040, expect=LbaOutOfRange)
        await disk.write(length, lba, bytes(520 * blocks), blocks, protect=1, expect=LbaOutOfRange)
    result = await disk.read(length, 10, 0, protect=1, read_length=520)
    assert (result.data_in, result.residual) == (b"", 520)
    await disk.write(length, 10, b"", 0, protect=1)


@TYPES
async def test_protected_residuals(disk: ApplicationClient, kind: int) -> None:
    """SAM-5 5.4.2: transfer lengths count protection information; so do residuals, both ways."""
    await format_unit(disk, kind)
    length = length_of(kind)
    await write(disk, kind, sent(kind))
    whole = together(DATA, sent(kind))
    for room, residual, overflow in ((519, 520 * BLOCKS - 519, True), (520 * BLOCKS + 7, 7, False)):
        result = await disk.read(length, LBA, BLOCKS, protect=3, read_length=room, **tags(kind))
        assert (result.data_in, result.residual, result.overflow) == (whole[:room], residual, overflow)
    result = await disk.write(length, LBA, whole[: 520 * 3], BLOCKS, protect=1, **tags(kind))
    assert (result.residual, result.overflow) == (520 * (BLOCKS - 3), True)
    await disk.write(length, LBA, whole[: 512 * 4], 4, protect=1, expect=InvalidFieldInCommandInformationUnit)
    result = await disk.write(length, LBA, whole, 2, protect=1, **tags(kind))
    assert (result.residual, result.overflow) == (520 * (BLOCKS - 2), False)
    assert await protection(disk, LBA, BLOCKS) == sent(kind)


async def test_protected_rwwp(disk: ApplicationClient) -> None:
    """SPC-5, Control mode page, RWWP: writes without protection information are INVALID FIELD IN CDB; reads are not."""
    await format_unit(disk, 1)
    await control(disk, rwwp=1)
    refused: type[CheckCondition] = InvalidFieldInCdb
    for length in (6, 10, 12, 16):
        await disk.write(length, 0, bytes(512), expect=refused)
        await disk.read(length, 0, 1)
    await disk.write_and_verify(10, 0, bytes(512), expect=refused)
    await disk.write_same(10, 0, 1, bytes(512), expect=refused)
    await disk.write_same(16, 0, 1, b"", ndob=True, expect=refused)
    await disk.orwrite(0, bytes(512), expect=refused)
    await disk.write_atomic(0, bytes(512), expect=refused)
    await disk.compare_and_write(0, bytes(512), bytes(512), expect=refused)
    await disk.write(16, LBA, together(DATA, sent(1)), BLOCKS, protect=1)
    await disk.unmap((0, 8))
    await format_unit(disk, 0)
    await disk.write(10, 0, bytes(512))


async def test_protected_block_size() -> None:
    """SBC-4 table 22: one protection information interval a block, however large it is."""
    async with one_initiator(block_size=4096) as disk:
        await format_unit(disk, 1)
        data = pattern(4096 * 3)
        await disk.write(16, 5, data)
        result = await disk.read(16, 5, 3, protect=1, read_length=3 * 4104)
        assert result.data_in == together(data, tuples(data, 5, size=4096), size=4096)
        await poke(disk, 7, b"\0\0\0\0")
        assert failed_at(await disk.read(16, 5, 3, expect=GUARD), GUARD) == 7


async def test_write_protected_durable() -> None:
    """SBC-4 5.40, FUA: data, then its protection information, both durable; without FUA a flush makes both so."""
    store = ModelBackstore(1 << 20)
    async with one_initiator(store, pi_prot_type=1) as disk:
        store.calls.clear()
        await disk.write(16, 8, pattern(1024), fua=True)
        assert store.calls == [("writev", 4096, 1024, True), ("write_protection", 64, 16, True)]
        store.calls.clear()
        await disk.write(16, 8, pattern(1024))
        await disk.execute(cdb.synchronize_cache(10))
        assert store.calls == [("write_nowait", 4096, 1024), ("write_protection", 64, 16, False), ("flush",)]
        store.calls.clear()
        await disk.unmap((8, 2))
        assert store.calls == [("write_protection", 64, 16, False), ("unmap", 4096, 1024)]
    store = ModelBackstore(1 << 20)
    async with one_initiator(store, pi_prot_type=1, emulate_write_cache=False) as disk:
        store.calls.clear()
        await disk.write_same(16, 8, 2, bytes(512))
        assert [call[0] for call in store.calls] == ["write_zeroes", "write_protection", "flush"]


async def test_write_protected_no_room() -> None:
    """SBC-4 4.18: a write that finds no room leaves blocks whose protection information fits them."""
    full = ErrorFilter(ModelBackstore(1 << 20), ErrorOptions(error="ENOSPC", operation=("write",), after=1))
    async with one_initiator(full, pi_prot_type=1) as disk:
        await disk.write(16, 0, DATA)
        await disk.write(16, 0, bytes(512 * BLOCKS), expect=SpaceAllocationFailed)
        assert (await disk.read(16, 0, BLOCKS)).data_in == DATA
