"""Formatting with protection information: FORMAT UNIT, what is then reported, what outlives what (SBC-4 4.21, 5.4)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.memory import GatedMemory
from support.protection import INITIAL, format_unit, poke, poke_protection, protection, tuples
from support.scsi import logical_unit, make_target, one_initiator, pattern, two_initiators
from tcm_backstores.fileio import FileBackstore
from tcm_backstores.filters.readonly import ReadonlyFilter
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient, check

from tcm.adapters import adapt
from tcm.backstore import Backstore, BlockingBackstore
from tcm.failure import ConfigError
from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    FormatInProgress,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    InvalidOpcode,
    LogicalBlockGuardCheckFailed,
)
from tcm.scsi.command import VARIABLE_LENGTH
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.protection import WITH_PROTECT_FIELD
from tcm.scsi.sense import Status
from tcm.target.attributes import DeviceAttributes
from tcm.target.directory_store import DirectoryStore
from tcm.target.erasure_store import FORMAT, Erasure, to_text
from tcm.target.logical_unit import LogicalUnit
from tcm.target.unit_attention import CAPACITY_DATA_HAS_CHANGED

pytestmark = pytest.mark.anyio
TYPES = pytest.mark.parametrize("kind", [1, 2, 3])
SIZE = 1 << 20
BLOCKS = SIZE // 512


async def capacity_byte(disk: ApplicationClient) -> int:
    return (await disk.execute(cdb.read_capacity16(), read_length=32)).data_in[12]


@asynccontextmanager
async def file_disk(path: Path, **attributes: Any) -> AsyncIterator[ApplicationClient]:
    size = attributes.pop("size", SIZE)
    async with one_initiator(FileBackstore(str(path / "disk"), size), **attributes) as disk:
        yield disk


async def cannot_open(store: Backstore | BlockingBackstore, why: str, **attributes: Any) -> None:
    unit = LogicalUnit("disk", adapt(store), serial="s", attributes=DeviceAttributes(**attributes))
    with pytest.raises((ConfigError, OSError), match=why):
        await unit.open()
    await unit.backstore.aclose()


@TYPES
@pytest.mark.every_backstore
async def test_format_unit_protection(disk: ApplicationClient, kind: int) -> None:
    """SBC-4 5.4: zeroes, protection information all ones; PROT_EN and P_TYPE; and back to none."""
    for long in (False, True):
        await format_unit(disk, kind, long=long)
        assert await capacity_byte(disk) == (kind - 1) << 1 | 1
        assert disk.blocks == 4096
        assert await protection(disk, 0, 4096) == INITIAL * 4096
        assert (await disk.read(10, 7, 3)).data_in == bytes(3 * 512)
        await disk.write(10, 7, pattern(512 * 3))
        assert (await disk.read(10, 7, 3)).data_in == pattern(512 * 3)
    await format_unit(disk, 0)
    assert await capacity_byte(disk) == 0
    assert not any((await disk.read(10, 7, 3)).data_in)
    await disk.read(10, 7, 3, protect=1, expect=InvalidFieldInCdb)


@pytest.mark.parametrize(
    ("fmtpinfo", "parameters", "refused", "pointer"),
    [
        (0b00, "01000000", InvalidFieldInParameterList, (0, 2)),
        (0b01, "00000000", InvalidFieldInCdb, (1, 7)),
        (0b10, "01000000", InvalidFieldInParameterList, (0, 2)),
        (0b11, "02000000", InvalidFieldInParameterList, (0, 2)),
        (0b11, "07000000", InvalidFieldInParameterList, (0, 2)),
        (0b11, "08000000", InvalidFieldInParameterList, (0, 3)),
        (0b10, "0000000100000000", InvalidFieldInParameterList, (3, 0)),
        (0b11, "0000000300000000", InvalidFieldInParameterList, (3, 1)),
        (0b11, "0000001000000000", InvalidFieldInParameterList, (3, 4)),
    ],
)
async def test_format_unit_protection_illegal(
    disk: ApplicationClient, fmtpinfo: int, parameters: str, refused: Any, pointer: tuple[int, int]
) -> None:
    """SBC-4 table 44; PROTECTION INTERVAL EXPONENT and P_I_INFORMATION are zero; nothing changes."""
    await disk.write(10, 0, pattern(512))
    data = bytes.fromhex(parameters)
    command = cdb.format_unit(fmtpinfo=fmtpinfo, fmtdata=True, longlist=len(data) == 8)
    result = await disk.execute(command, data, expect=refused)
    assert result.sense is not None
    byte, bit = pointer
    assert result.sense.sense_key_specific == bytes(((0xC8 if refused is InvalidFieldInCdb else 0x88) | bit, 0, byte))
    assert (await disk.read(10, 0, 1)).data_in == pattern(512)
    assert await capacity_byte(disk) == 0


async def test_format_unit_protection_unsupported() -> None:
    """SBC-4 table 44: without PROTECT every FMTPINFO but zero is INVALID FIELD IN CDB, and not among the usage data."""
    async with one_initiator(GatedMemory()) as disk:
        for fmtpinfo in (1, 2, 3):
            await disk.execute(cdb.format_unit(fmtpinfo=fmtpinfo, fmtdata=True), bytes(4), expect=InvalidFieldInCdb)
        asked = cdb.report_supported_operation_codes(1, 0x04)
        assert (await disk.execute(asked, read_length=64)).data_in[5] & 0xC0 == 0
        mask = await disk.mode_sense(10, 0x0A, dbd=True, control=1)
        assert (mask[8 + 2] & 0x08, mask[8 + 5] & 0x90) == (0, 0)


@TYPES
async def test_protection_report_supported(disk: ApplicationClient, kind: int) -> None:
    """SBC-4 4.21.2: the protect field is evaluated with types 1 and 3, 32-byte CDBs with type 2."""
    await format_unit(disk, kind)
    for command in COMMANDS:
        option = 1 if command.service_action is None else 2
        if command.handler not in WITH_PROTECT_FIELD:
            continue
        asked = cdb.report_supported_operation_codes(option, command.operation_code, command.service_action or 0)
        data = (await disk.execute(asked, read_length=64)).data_in
        if command.operation_code == VARIABLE_LENGTH:
            assert data[1] & 7 == (3 if kind == 2 else 1)
            assert kind != 2 or data[4 + 10] & 0xE0 == 0xE0
        elif command.length > 6:
            assert data[4 + 1] & 0xE0 == (0 if kind == 2 else 0xE0), command.name


@TYPES
async def test_protection_persistent(tmp_path: Path, kind: int) -> None:
    """SBC-4 4.21.1: type, data and protection information are there after a restart."""
    data = pattern(512 * 40)
    async with file_disk(tmp_path) as disk:
        await format_unit(disk, kind)
        await disk.write(16, 100, data, fua=True)
        kept = await protection(disk, 90, 60)
    assert kept == INITIAL * 10 + tuples(data, 100 if kind == 1 else 0xFFFFFFFF, constant=kind != 1) + INITIAL * 10
    async with file_disk(tmp_path) as disk:
        assert await capacity_byte(disk) == (kind - 1) << 1 | 1
        assert await protection(disk, 90, 60) == kept
        assert (await disk.read(16, 100, 40)).data_in == data
        await poke(disk, 120, b"\1")
        result = await disk.read(16, 100, 40, expect=LogicalBlockGuardCheckFailed)
        assert result.sense is not None
        assert result.sense.information == 120
    assert (tmp_path / "disk.protection").stat().st_size == BLOCKS * 8 + 512
    async with file_disk(tmp_path) as disk:
        await format_unit(disk, 0)
    assert not (tmp_path / "disk.protection").exists()


async def test_protection_damaged_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A protection file whose trailer is damaged, or that was cut, or that LIO made, is not taken for one."""
    async with file_disk(tmp_path) as disk:
        await format_unit(disk, 1)
    path = tmp_path / "disk.protection"
    good = path.read_bytes()
    for bad in (good[:-1], good[:-512], good[:-1] + b"\1", good[8:], b"", bytes(511)):
        path.write_bytes(bad)
        caplog.clear()
        async with file_disk(tmp_path) as disk:
            assert await capacity_byte(disk) == 0
        assert (f"{path} is not complete or not ours" in caplog.text) is bool(bad)
    path.write_bytes(good)
    async with file_disk(tmp_path) as disk:
        assert await capacity_byte(disk) == 1
    await cannot_open(FileBackstore(str(tmp_path / "disk")), "write block_size=512", block_size=4096)


async def test_protection_attribute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """LIO's pi_prot_type is for a medium that was never formatted; pi_prot_format overrules; the data stays."""
    async with file_disk(tmp_path) as disk:
        await disk.write(10, 5, pattern(512))
    async with file_disk(tmp_path, pi_prot_type=3) as disk:
        assert await capacity_byte(disk) == 5
        assert (await disk.read(10, 5, 1)).data_in == pattern(512)
        assert await protection(disk, 0, BLOCKS) == INITIAL * BLOCKS
        await disk.write(10, 6, pattern(512))
        await format_unit(disk, 0)
        assert await capacity_byte(disk) == 0
    async with file_disk(tmp_path, pi_prot_type=3) as disk:
        assert await capacity_byte(disk) == 0, "the initiator wanted none"
        await disk.write(10, 5, pattern(512))
    async with file_disk(tmp_path, pi_prot_type=1, pi_prot_format=True) as disk:
        assert await capacity_byte(disk) == 1
        await disk.write(10, 6, pattern(512))
        kept = await protection(disk, 6, 1)
    async with file_disk(tmp_path, pi_prot_type=1, pi_prot_format=True) as disk:
        assert await protection(disk, 6, 1) == kept, "formatted once, not at every start"
        assert (await disk.read(10, 5, 1)).data_in == pattern(512)
    async with file_disk(tmp_path, pi_prot_type=2) as disk:
        assert await capacity_byte(disk) == 1, "what the medium says"
    assert "pi_prot_type=2 has no effect: the medium is formatted with type 1" in caplog.text
    async with file_disk(tmp_path, pi_prot_format=True) as disk:
        assert await capacity_byte(disk) == 0


async def test_protection_attribute_refused(tmp_path: Path) -> None:
    """A backstore without room for it, a read-only one, and types that there are not."""
    await cannot_open(GatedMemory(), "disk: pi_prot_type=1", pi_prot_type=1)
    await cannot_open(ReadonlyFilter(RamdiskBackstore(SIZE)), "disk: pi_prot_type=1: a read-only medium", pi_prot_type=1)
    (tmp_path / "disk.protection").mkdir()
    await cannot_open(FileBackstore(str(tmp_path / "disk"), SIZE), "disk.protection", pi_prot_type=1)
    with pytest.raises(ConfigError, match="pi_prot_type 4"):
        DeviceAttributes(pi_prot_type=4)


async def test_protection_verify_attribute() -> None:
    """LIO's pi_prot_verify=0: DPICZ is one by default."""
    async with one_initiator(pi_prot_type=1, pi_prot_verify=False) as disk:
        assert (await disk.mode_sense(10, 0x0A, dbd=True))[8 + 2] & 0x08
        await disk.write(10, 0, pattern(512))
        await poke(disk, 0, b"\0\0\0")
        await disk.read(10, 0, 1)
        await disk.read(10, 0, 1, protect=1, read_length=520, expect=LogicalBlockGuardCheckFailed)


async def test_protection_capacity(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A medium that grows keeps the capacity for which it has protection information, until it is formatted again."""
    async with file_disk(tmp_path) as disk:
        await format_unit(disk, 1)
        os.truncate(tmp_path / "disk", 2 * SIZE)
        await disk.identify()
        assert disk.blocks == BLOCKS
        await format_unit(disk, 1)
        assert disk.blocks == 2 * BLOCKS
        assert await protection(disk, 0, 2 * BLOCKS) == INITIAL * (2 * BLOCKS)
    os.truncate(tmp_path / "disk", SIZE)
    async with file_disk(tmp_path, size=None) as disk:
        assert disk.blocks == BLOCKS
    assert "out of reach" not in caplog.text
    os.truncate(tmp_path / "disk", 3 * SIZE)
    async with file_disk(tmp_path, size=None) as disk:
        assert disk.blocks == 2 * BLOCKS
    assert f"its medium has grown: {BLOCKS} blocks are out of reach until it is formatted again" in caplog.text


async def test_format_unit_protection_unit_attention() -> None:
    """SBC-4 5.4: the others hear that READ CAPACITY data has changed, once for each change of type."""
    async with two_initiators() as (one, two):
        await one.execute(cdb.format_unit(fmtpinfo=2, fmtdata=True), bytes(4))
        await one.test_unit_ready()
        await two.test_unit_ready(expect=CAPACITY_DATA_HAS_CHANGED)
        await two.test_unit_ready()
        await one.execute(cdb.format_unit(fmtpinfo=2, fmtdata=True), bytes(4))
        await two.test_unit_ready()


async def test_format_unit_protection_resumed(tmp_path: Path) -> None:
    """SBC-4 5.4: what a restart interrupts goes on to the type that was asked for."""
    path = tmp_path / "erasure" / "s"
    path.parent.mkdir()
    path.write_text(to_text(Erasure(kind=FORMAT, protection=2, lba=1000)))
    for _ in range(2):
        async with anyio.create_task_group() as group:
            backstore = adapt(FileBackstore(str(tmp_path / "disk"), SIZE))
            unit = LogicalUnit("disk", backstore, serial="s", store=DirectoryStore(str(tmp_path)))
            unit.start(group)
            await unit.open()
            disk = ApplicationClient(make_target(unit).connect("naa.5001405000000001"))
            with anyio.fail_after(60):
                while (await disk.test_unit_ready(expect=None)).status is not Status.GOOD:
                    await anyio.sleep(0.005)
            await disk.identify()
            assert await capacity_byte(disk) == 3
            assert await protection(disk, 1000, BLOCKS - 1000) == INITIAL * (BLOCKS - 1000)
            disk.initiator.disconnect()
            await unit.aclose()
        assert not path.exists()


@pytest.mark.parametrize("kinds", [(1, 0), (0, 1), (3, 1), (2, 1), (1, 2)])
async def test_format_unit_protection_before_data_out(disk: ApplicationClient, kinds: tuple[int, int]) -> None:
    """SBC-4 5.4: a write that was checked before a format, and whose data comes after it, is checked again."""
    before, after = kinds
    for protect in (0, 1) if before else (0,):
        await format_unit(disk, before)
        length = 32 if before == 2 and protect else 16
        data = pattern((520 if protect else 512) * 8)
        held = disk.initiator.start(0, cdb.write(length, 0, 8, protect=protect), data, withheld=True)
        await format_unit(disk, after)
        held.deliver()
        result = await held.wait()
        if protect:
            # without protection information the field is a reserved one; 32-byte CDBs and type 2 want each other
            refused = InvalidFieldInCdb if not after else InvalidOpcode if 2 in kinds else LogicalBlockGuardCheckFailed
            check(result, refused)
            assert not any((await disk.read(16, 0, 8)).data_in)
        else:
            check(result, Status.GOOD)
            assert (await disk.read(16, 0, 8)).data_in == data


async def test_format_unit_protection_in_progress(tmp_path: Path) -> None:
    """SBC-4 5.4: nobody reads while it is formatted, whatever type it had."""
    async with file_disk(tmp_path) as disk:
        await format_unit(disk, 1)
        await disk.execute(cdb.format_unit(fmtpinfo=3, fmtdata=True), b"\1\2\0\0")
        seen = {Status.GOOD}
        with anyio.fail_after(60):
            while (result := await disk.read(10, 0, 1, expect=None)).status is not Status.GOOD:
                assert result.sense is not None
                assert (result.sense.key, result.sense.asc, result.sense.ascq) == (
                    FormatInProgress.key,
                    FormatInProgress.asc,
                    FormatInProgress.ascq,
                )
                seen.add(result.status)
                await anyio.sleep(0.002)
        assert await capacity_byte(disk) == 5


@pytest.mark.every_backstore
async def test_sanitize_protection(disk: ApplicationClient) -> None:
    """SBC-4 4.11: nothing is left of the tags either; the type stays, and what was erased reads without an error."""
    await format_unit(disk, 1)
    await disk.write(10, 0, pattern(512 * 8))
    parameters = b"\x01\0\0\x04" + b"\xaa\x55\xaa\x55"
    await disk.execute(bytes((0x48, 0x01, 0, 0, 0, 0, 0, 0, 8, 0)), parameters)
    assert await protection(disk, 0, 4096) == INITIAL * 4096
    assert (await disk.read(10, 0, 8)).data_in == b"\xaa\x55\xaa\x55" * 1024
    await disk.write(10, 0, pattern(512 * 8))
    await disk.execute(bytes((0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0)))
    assert await protection(disk, 0, 4096) == INITIAL * 4096
    assert not any((await disk.read(10, 0, 8)).data_in)
    assert await capacity_byte(disk) == 1


async def test_protection_closes_the_express_lane(disk: ApplicationClient) -> None:
    """What has protection information is read and written by commands only, also by who was there before."""
    await disk.write(10, 0, pattern(512))
    itl = next(iter(logical_unit(disk).itl_nexuses))
    assert itl.express_read is not None
    assert itl.express_write is not None
    await format_unit(disk, 1)
    assert itl.express_read is itl.express_write is None
    await disk.write(10, 0, pattern(512))
    await poke_protection(disk, 0, b"\0" * 8)
    await disk.read(10, 0, 1, expect=LogicalBlockGuardCheckFailed)
    await format_unit(disk, 0)
    assert itl.express_read is not None
