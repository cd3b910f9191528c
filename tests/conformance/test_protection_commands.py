"""What else reads or writes blocks of a unit with protection information, each with its protect field (SBC-4 4.21)."""

from __future__ import annotations

import tracemalloc

import anyio
import pytest
from support.protection import (
    INITIAL,
    UNKNOWN,
    control,
    failed_at,
    format_unit,
    poke,
    poke_protection,
    protection,
    together,
    tuples,
)
from support.scsi import logical_unit, one_initiator, pattern, target, two_initiators
from tcm_backstores.filters.error import ErrorFilter, ErrorOptions
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.transport import Result

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InvalidFieldInCdb,
    InvalidFieldInCommandInformationUnit,
    LogicalBlockApplicationTagCheckFailed,
    LogicalBlockGuardCheckFailed,
    LogicalBlockReferenceTagCheckFailed,
    MiscompareDuringVerify,
    UnrecoveredReadError,
    WriteError,
)
from tcm.scsi.sense import SenseKey

pytestmark = pytest.mark.anyio
TYPES = pytest.mark.parametrize("kind", [1, 2, 3])
ONE_AND_THREE = pytest.mark.parametrize("kind", [1, 3])
CODES = pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5])
LBA, BLOCKS = 300, 9
DATA = pattern(512 * BLOCKS, 9)
GUARD, REFERENCE = LogicalBlockGuardCheckFailed, LogicalBlockReferenceTagCheckFailed
GUARDED = {0, 1, 4, 5}


def reference(kind: int) -> int:
    return {1: LBA, 2: 0xABCD0000, 3: 77}[kind]


def sent(kind: int, application: int = 0x0F0F, data: bytes = DATA) -> bytes:
    return tuples(data, reference(kind), application)


def length_of(kind: int) -> int:
    return 32 if kind == 2 else 16


def tags(kind: int, **more: int) -> dict[str, int]:
    return {"reference": reference(kind), **more} if kind == 2 else {}


async def prepared(disk: ApplicationClient, kind: int) -> None:
    await format_unit(disk, kind)
    await disk.write(length_of(kind), LBA, together(DATA, sent(kind)), BLOCKS, protect=1, **tags(kind))


def miscompared(result: Result, field: type[LogicalBlockGuardCheckFailed]) -> int:
    """INFORMATION of a compare operation that failed in protection information (SBC-4 table 128, note c)."""
    assert result.sense is not None
    assert (result.sense.key, result.sense.asc, result.sense.ascq) == (SenseKey.MISCOMPARE, field.asc, field.ascq)
    assert result.sense.information is not None
    return result.sense.information


# VERIFY


@TYPES
@CODES
async def test_verify_protected(disk: ApplicationClient, kind: int, code: int) -> None:
    """SBC-4 table 125, BYTCHK 00b: the medium is checked; unmapped blocks are in order."""
    await prepared(disk, kind)
    length = length_of(kind) if code else 16
    fields = {"protect": code, **(tags(kind) if code else {})}
    await disk.verify(length, LBA, BLOCKS, **fields)
    await disk.verify(length, LBA + BLOCKS, 100, **fields)
    await poke(disk, LBA + 4, b"\0\0")
    result = await disk.verify(length, LBA, BLOCKS, **fields, expect=GUARD if code in GUARDED else None)
    if code in GUARDED:
        assert failed_at(result, GUARD) == LBA + 4


@TYPES
@CODES
async def test_verify_protected_bytchk(disk: ApplicationClient, kind: int, code: int) -> None:
    """SBC-4 tables 126 to 128, BYTCHK 01b: what was sent is checked, then compared."""
    await prepared(disk, kind)
    await control(disk, ato=1)
    length = length_of(kind) if code else 16
    fields = {"protect": code, "bytchk": 1, **(tags(kind) if code else {})}
    same = together(DATA, sent(kind)) if code else DATA
    await disk.verify(length, LBA, BLOCKS, same, **fields)
    other = bytearray(DATA)
    other[512 * 3 + 5] ^= 1
    different = together(bytes(other), sent(kind, data=bytes(other))) if code else bytes(other)
    result = await disk.verify(length, LBA, BLOCKS, different, **fields, expect=MiscompareDuringVerify)
    assert result.sense is not None
    assert result.sense.information == 3 * (520 if code else 512) + 5
    if not code:
        await poke(disk, LBA, b"\0\0")
        assert failed_at(await disk.verify(16, LBA, 1, DATA[:512], bytchk=1, expect=GUARD), GUARD) == LBA
        return
    bad = bytearray(sent(kind))
    bad[8 * 2] ^= 1
    result = await disk.verify(length, LBA, BLOCKS, together(DATA, bytes(bad)), **fields, expect=None)
    if code in GUARDED:
        assert failed_at(result, GUARD) == LBA + 2
    elif code == 3:
        assert miscompared(result, GUARD) == 2 * 520 + 512
    else:
        assert result.sense is None
    await poke_protection(disk, LBA + 1, sent(kind, 0x0F0E)[8:16])
    result = await disk.verify(length, LBA, BLOCKS, same, **fields, expect=None)
    assert miscompared(result, LogicalBlockApplicationTagCheckFailed) == 520 + 512 + 2
    await control(disk, ato=0)
    await disk.verify(length, LBA, BLOCKS, same, **fields)
    await poke_protection(disk, LBA + 1, sent(kind)[8:14] + b"\x99\x99")
    result = await disk.verify(length, LBA, BLOCKS, same, **fields, expect=None)
    if code == 5 or kind == 3:
        assert result.sense is None
    else:
        assert miscompared(result, REFERENCE) == 520 + 512 + 4
    await poke_protection(disk, LBA + 1, INITIAL)
    await disk.verify(length, LBA, BLOCKS, same, **fields)


@TYPES
@pytest.mark.parametrize("code", [0, 1])
async def test_verify_protected_one_block(disk: ApplicationClient, kind: int, code: int) -> None:
    """SBC-4 table 128, note g, BYTCHK 11b: one block for all; its reference tag counts on, with type 3 it does not."""
    await format_unit(disk, kind)
    await control(disk, ato=1)
    block = pattern(512, 3)
    one = tuples(block, reference(kind), 5)
    length = length_of(kind)
    many = tuples(block * 3000, reference(kind), 5, constant=kind == 3)
    await disk.write(length, LBA, together(block * 3000, many), 3000, protect=1, **tags(kind))
    fields = {"protect": code, "bytchk": 3, **tags(kind)}
    data = block + one if code else block
    await disk.verify(length, LBA, 3000, data, **fields)
    kept = bytearray(await protection(disk, LBA + 2999, 1))
    kept[7] ^= 1
    await poke_protection(disk, LBA + 2999, bytes(kept))
    if code:
        result = await disk.verify(length, LBA, 3000, data, **fields, expect=None)
        assert miscompared(result, REFERENCE) == 512 + 4
    elif kind != 3:
        assert failed_at(await disk.verify(length, LBA, 3000, data, **fields, expect=REFERENCE), REFERENCE) == LBA + 2999


# WRITE AND VERIFY


@TYPES
@CODES
@pytest.mark.parametrize("bytchk", [0, 1])
async def test_write_and_verify_protected(disk: ApplicationClient, kind: int, code: int, bytchk: int) -> None:
    """SBC-4 5.44: written as WRITE does, verified as VERIFY does."""
    await format_unit(disk, kind)
    length = length_of(kind)
    data = together(DATA, sent(kind)) if code else DATA
    fields = {"protect": code, "bytchk": bytchk, **tags(kind)}
    await disk.write_and_verify(length, LBA, data, BLOCKS, **fields)
    expected = sent(kind) if code else tuples(DATA, LBA if kind == 1 else UNKNOWN, constant=kind != 1)
    assert await protection(disk, LBA, BLOCKS) == expected
    assert (await disk.read(16, LBA, BLOCKS)).data_in == DATA
    if code:
        bad = bytearray(sent(kind))
        bad[0] ^= 1
        wrong = together(pattern(512 * BLOCKS, 1), bytes(bad))
        result = await disk.write_and_verify(length, LBA, wrong, BLOCKS, **fields, expect=None)
        assert code not in GUARDED or failed_at(result, GUARD) == LBA


# WRITE SAME


@TYPES
@CODES
async def test_write_same_protected(disk: ApplicationClient, kind: int, code: int) -> None:
    """SBC-4 5.52: the guard and the application tag of the one block, its reference tag counted on; type 3 has it as it is."""
    await format_unit(disk, kind)
    block, length = pattern(512, 4), length_of(kind)
    one = tuples(block, reference(kind), 0x7777)
    await disk.write_same(length, LBA, 2500, block + one if code else block, protect=code, **tags(kind))
    if code:
        expected = tuples(block * 2500, reference(kind), 0x7777, constant=kind == 3)
    else:
        expected = tuples(block * 2500, LBA if kind == 1 else UNKNOWN, constant=kind != 1)
    assert await protection(disk, LBA - 1, 2502) == INITIAL + expected + INITIAL
    assert (await disk.read(16, LBA, 2500)).data_in == block * 2500
    if code:
        await disk.write_same(length, LBA, 3, block + INITIAL, protect=code, **tags(kind))
        assert await protection(disk, LBA, 3) == INITIAL * 3
        bad = bytes((one[0] ^ 1,)) + one[1:]
        result = await disk.write_same(length, LBA, 3, block + bad, protect=code, **tags(kind), expect=None)
        assert code not in GUARDED or failed_at(result, GUARD) == LBA
        await disk.write_same(length, LBA, 3, block, protect=code, **tags(kind), expect=InvalidFieldInCommandInformationUnit)


@TYPES
async def test_write_same_protected_zeroes(disk: ApplicationClient, kind: int) -> None:
    """SBC-4 5.53, 4.7.3.4.4: zeroes are written or, with UNMAP and no other protection information than ones, unmapped."""
    await prepared(disk, kind)
    length, unmapped = length_of(kind), INITIAL * 16
    generated = tuples(bytes(512 * 16), 288 if kind == 1 else UNKNOWN, constant=kind != 1)
    one = tuples(bytes(512), {1: 288, 2: reference(2), 3: 5}[kind], 1)
    for data, fields, expected, mapped in (
        (bytes(512), {}, generated, True),
        (b"", {"ndob": True}, generated, True),
        (bytes(512), {"unmap": True}, unmapped, False),
        (b"", {"ndob": True, "unmap": True}, unmapped, False),
        (b"", {"ndob": True, "protect": 1}, unmapped, True),
        (bytes(512) + INITIAL, {"protect": 1, "unmap": True}, unmapped, False),
        (bytes(512) + one, {"protect": 1, "unmap": True}, None, True),
    ):
        long = length if fields.get("protect") else 16
        await disk.write(16, 288, pattern(512 * 16))
        await disk.write_same(long, 288, 16, data, **fields, **(tags(kind) if long == 32 else {}))
        assert not any((await disk.read(16, 288, 16)).data_in)
        if expected is not None:
            assert await protection(disk, 288, 16) == expected
        status = await disk.get_lba_status(288)
        assert (status[0][2] == 0) is mapped, fields


# ORWRITE, COMPARE AND WRITE, WRITE ATOMIC


@ONE_AND_THREE
@CODES
async def test_orwrite_protected(disk: ApplicationClient, kind: int, code: int) -> None:
    """SBC-4 5.10, tables 67 and 68: both sides are checked; the result has a guard of its own, and the tags that came."""
    await prepared(disk, kind)
    more = pattern(512 * BLOCKS, 5)
    merged = bytes(a | b for a, b in zip(DATA, more, strict=True))
    given = sent(kind, 0x2222, more)
    await disk.orwrite(LBA, together(more, given) if code else more, BLOCKS, protect=code)
    assert (await disk.read(16, LBA, BLOCKS)).data_in == merged
    expected = (
        tuples(merged, reference(kind), 0x2222) if code else tuples(merged, LBA if kind == 1 else UNKNOWN, constant=kind == 3)
    )
    assert await protection(disk, LBA, BLOCKS) == expected
    await poke(disk, LBA + 8, b"\0\0\0")
    data = together(more, given) if code else more
    result = await disk.orwrite(LBA, data, BLOCKS, protect=code, expect=GUARD if code in GUARDED else None)
    assert code not in GUARDED or failed_at(result, GUARD) == LBA + 8


@ONE_AND_THREE
@CODES
async def test_compare_and_write_protected(disk: ApplicationClient, kind: int, code: int) -> None:
    """SBC-4 5.3: only user data is compared; the write instance is checked, after that, and kept."""
    await prepared(disk, kind)
    fresh = pattern(512 * BLOCKS, 6)
    junk = b"\x12\x34" * 4 * BLOCKS

    def instance(data: bytes, tags: bytes) -> bytes:
        return together(data, tags) if code else data

    bad = bytearray(DATA)
    bad[512 * 2 + 9] ^= 4
    result = await disk.compare_and_write(
        LBA, instance(bytes(bad), junk), instance(fresh, junk), BLOCKS, protect=code, expect=MiscompareDuringVerify
    )
    assert result.sense is not None
    assert result.sense.information == 2 * (520 if code else 512) + 9
    if code in GUARDED and code:
        result = await disk.compare_and_write(
            LBA, instance(DATA, junk), instance(fresh, junk), BLOCKS, protect=code, expect=GUARD
        )
        assert failed_at(result, GUARD) == LBA
    assert (await disk.read(16, LBA, BLOCKS)).data_in == DATA
    given = sent(kind, 9, fresh)
    await disk.compare_and_write(LBA, instance(DATA, junk), instance(fresh, given), BLOCKS, protect=code)
    assert (await disk.read(16, LBA, BLOCKS)).data_in == fresh
    expected = given if code else tuples(fresh, LBA if kind == 1 else UNKNOWN, constant=kind == 3)
    assert await protection(disk, LBA, BLOCKS) == expected
    await disk.compare_and_write(LBA, fresh[:512], fresh[:512] + bytes(8), 1, protect=code, expect=InvalidFieldInCdb)


@TYPES
@CODES
async def test_write_atomic_protected(disk: ApplicationClient, kind: int, code: int) -> None:
    """SBC-4 5.48, 5.49: as WRITE; nothing of it is written if a check fails or data is missing."""
    await format_unit(disk, kind)

    async def write(data: bytes, expect: object = None) -> Result:
        if kind == 2:
            command = cdb.write_atomic_32(LBA, BLOCKS, protect=code, **tags(2))
        else:
            command = cdb.write_atomic(LBA, BLOCKS, protect=code)
        return await disk.execute(command, data, expect=expect)  # type: ignore[arg-type]  # an exception class, or None

    whole = together(DATA, sent(kind)) if code else DATA
    assert (await write(whole)).sense is None
    assert await protection(disk, LBA, BLOCKS) == (
        sent(kind) if code else tuples(DATA, LBA if kind == 1 else UNKNOWN, constant=kind != 1)
    )
    await write(whole[:-1], InvalidFieldInCommandInformationUnit)
    if code in GUARDED and code:
        bad = whole[:-8] + bytes((whole[-8] ^ 1,)) + whole[-7:]
        assert failed_at(await write(bad, GUARD), GUARD) == LBA + BLOCKS - 1
    assert (await disk.read(16, LBA, BLOCKS)).data_in == DATA


# UNMAP


@TYPES
@pytest.mark.every_backstore
async def test_unmap_protected(disk: ApplicationClient, kind: int) -> None:
    """SBC-4 4.7.3: deallocated blocks read as zeroes, with protection information that disables checks."""
    await prepared(disk, kind)
    await disk.write(16, 0, pattern(512 * 200))
    await disk.unmap((LBA + 1, 3), (8, 64))
    for lba, blocks in ((LBA + 1, 3), (8, 64)):
        assert await protection(disk, lba, blocks) == INITIAL * blocks
        result = await disk.read(length_of(kind), lba, blocks, protect=1, read_length=520 * blocks, **tags(kind))
        assert result.data_in == together(bytes(512 * blocks), INITIAL * blocks)
    assert (await disk.read(16, LBA, 1)).data_in == DATA[:512]
    assert (await disk.read(16, LBA + 4, 5)).data_in == DATA[512 * 4 :]


# EXTENDED COPY, and what belongs together


@pytest.mark.parametrize("kinds", [(1, 3), (0, 1), (1, 0)])
async def test_medium_copy_protected(kinds: tuple[int, int]) -> None:
    """SBC-4 4.21: a copy is checked where it is read, and gets protection information of its own where it is written."""
    async with target(RamdiskBackstore(1 << 20), RamdiskBackstore(1 << 20)) as port:
        initiator = port.connect("naa.5001405000000001")
        first, second = ApplicationClient(initiator, 0), ApplicationClient(initiator, 1)
        for disk, kind in zip((first, second), kinds, strict=True):
            await disk.identify()
            await format_unit(disk, kind)
            await disk.identify()
        await first.write(16, LBA, DATA)
        source, destination = logical_unit(first).medium, logical_unit(second).medium
        assert not await destination.copy_range(source, LBA * 512, 7 * 512, 512 * BLOCKS)
        data = bytearray(512 * BLOCKS)
        await source.read([memoryview(data)], LBA)
        await destination.write_uncommitted([data], 7)
        assert (await second.read(16, 7, BLOCKS)).data_in == DATA
        if kinds[1]:
            expected = tuples(DATA, 7 if kinds[1] == 1 else UNKNOWN, constant=kinds[1] != 1)
            assert await protection(second, 7, BLOCKS) == expected
        if kinds[0]:
            await poke(first, LBA, b"\0\0")
            with pytest.raises(GUARD):
                await source.read([memoryview(data)], LBA)


async def test_write_protected_beside_reads() -> None:
    """SAM-5: a read beside writes of the same blocks gets one of them, data and protection information together."""
    async with two_initiators() as (one, two):
        await format_unit(one, 1)
        await two.identify()
        versions = []
        for seed in range(1, 5):
            data = pattern(512 * 64, seed)
            versions.append(together(data, tuples(data, 0, seed)))
        for command in ("write", "orwrite", "unmap", "write_same"):
            await one.write(16, 0, versions[0], 64, protect=1)
            async with anyio.create_task_group() as group:
                for whole in versions * 5:
                    group.start_soon(lambda whole=whole: one.write(16, 0, whole, 64, protect=1))
                    group.start_soon(lambda: two.read(16, 0, 64, protect=1, read_length=64 * 520))
                    group.start_soon(lambda: two.read(16, 5, 50))
                    if command == "orwrite":
                        group.start_soon(lambda: two.orwrite(3, bytes(512 * 40)))
                    elif command == "unmap":
                        group.start_soon(lambda: two.unmap((8, 48)))
                    elif command == "write_same":
                        group.start_soon(lambda: two.write_same(16, 3, 40, pattern(512)))
            await two.verify(16, 0, 64, protect=1)


@pytest.mark.parametrize("operation", ["read_protection", "write_protection"])
async def test_protected_backstore_failure(operation: str) -> None:
    """SBC-4 4.18: protection information that cannot be read or written is a medium error, not a check that failed."""
    store = ErrorFilter(RamdiskBackstore(1 << 20), ErrorOptions(operation=(operation,), after=1, count=1))  # type: ignore[arg-type]
    async with one_initiator(store, pi_prot_type=1) as disk:
        if operation == "read_protection":
            await disk.read(16, 0, 8)
            await disk.read(16, 0, 8, expect=UnrecoveredReadError)
            await disk.read(16, 0, 8)
        else:
            await disk.write(16, 0, DATA, expect=WriteError)
            await disk.read(16, 1, BLOCKS - 1)
            await disk.write(16, 0, DATA)
            assert (await disk.read(16, 0, BLOCKS)).data_in == DATA


async def test_verify_protected_long() -> None:
    """SBC-4 5.36: with BYTCHK 11b any number of blocks is compared with one, in memory that does not grow with it."""
    async with one_initiator(RamdiskBackstore(1 << 30), pi_prot_type=1) as disk:
        other = pattern(512)
        one = together(other, tuples(other, 0))
        tracemalloc.start()
        try:
            await disk.verify(16, 0, 1 << 21, one, bytchk=3, protect=1, expect=MiscompareDuringVerify)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


async def test_write_same_protected_long() -> None:
    """SBC-4 5.52: the reference tags of type 1 count on through all the steps in which a range is written."""
    blocks = 5000
    async with one_initiator(RamdiskBackstore(4 << 20), pi_prot_type=1, max_write_same_len=1 << 20) as disk:
        block = pattern(512)
        await disk.write_same(16, 3, blocks, together(block, tuples(block, 3, 7)), protect=1)
        assert await protection(disk, 3, blocks) == tuples(block * blocks, 3, 7)
        await disk.verify(16, 3, blocks, together(block, tuples(block, 3, 7)), bytchk=3, protect=1)
