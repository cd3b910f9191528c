"""FORMAT UNIT: SBC-4 5.3."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from support.commands import bare
from support.memory import GatedMemory
from support.scsi import logical_unit, make_lu, make_target, one_initiator, pattern
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.transport import CommandAborted

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    FormatCommandFailed,
    FormatInProgress,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    MediumFormatCorrupted,
    MediumNotPresent,
    ParameterListLengthError,
    WriteProtected,
)
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.sense import Status
from tcm.target.erasure_store import Erasure, to_text
from tcm.target.task_management import TaskManagementFunction as Function

pytestmark = pytest.mark.anyio
SIZE = 4 << 20
IMMED = b"\0\x02\0\0"


async def until_done(disk: ApplicationClient) -> None:
    with anyio.fail_after(60):
        while (await disk.test_unit_ready(expect=None)).status is not Status.GOOD:
            await anyio.sleep(0.005)


@pytest.mark.every_backstore
async def test_format_unit_simple(disk: ApplicationClient) -> None:
    """SBC-4 5.3.1, 4.7.3: all blocks read as zeroes and, thin provisioned, are deallocated; capacity stays as it is."""
    blocks = disk.blocks
    for command, data in (
        (cdb.format_unit(), b""),
        (cdb.format_unit(longlist=True, cmplst=True, defect_list_format=7), b""),
        (cdb.format_unit(fmtdata=True), bytes(4)),
        (cdb.format_unit(fmtdata=True, cmplst=True, defect_list_format=5), b"\0\xf0\0\0"),
        (cdb.format_unit(fmtdata=True, longlist=True), bytes(8)),
    ):
        await disk.write(10, 0, pattern(512 * 9))
        await disk.write(10, blocks - 9, pattern(512 * 9))
        await disk.execute(command, data)
        for lba in (0, blocks - 9):
            assert not any((await disk.read(10, lba, 9)).data_in)
        assert await disk.get_lba_status(0) == [(0, blocks, 1)]
    await disk.identify()
    assert disk.blocks == blocks


async def test_format_unit_thick() -> None:
    """SBC-4 5.3.1: zeroes are written where nothing can be deallocated, and are durable."""
    store = GatedMemory(SIZE, thin=False)
    store.data[:] = b"\1" * SIZE
    async with one_initiator(store) as disk:
        await disk.execute(cdb.format_unit())
        assert not any(store.data)
        assert [entry[0] for entry in store.log] == ["write"] * 4 + ["flush"]


@pytest.mark.parametrize(
    ("fields", "byte", "bit"),
    [
        ({"fmtpinfo": 2}, 1, 7),
        ({"fmtpinfo": 3}, 1, 7),
        ({"fmtpinfo": 1}, 1, 7),
        ({"fmtpinfo": 1, "fmtdata": True}, 1, 7),
        ({"ffmt": 1}, 4, 0),
        ({"ffmt": 2}, 4, 1),
        ({"fmtdata": True, "defect_list_format": 6}, 1, 2),
    ],
)
async def test_format_unit_invalid_cdb(disk: ApplicationClient, fields: dict[str, int], byte: int, bit: int) -> None:
    """SBC-4 5.3.1: no FMTPINFO without a parameter list, none of 01b, no fast format, no vendor's defect lists."""
    await disk.write(10, 0, pattern(512))
    result = await disk.execute(cdb.format_unit(**fields), bytes(8), expect=InvalidFieldInCdb)  # type: ignore[arg-type]  # flags
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0xC8 | bit, 0, byte))
    assert (await disk.read(10, 0, 1)).data_in == pattern(512)


@pytest.mark.parametrize(
    ("parameters", "byte", "bit"),
    [
        ("01000000", 0, 2),
        ("07000000", 0, 2),
        ("80000000", 0, 7),
        ("00400000", 1, 6),
        ("00200000", 1, 5),
        ("00100000", 1, 4),
        ("00080000", 1, 3),
        ("00880000", 1, 3),
        ("00840000", 1, 2),
        ("00010000", 1, 0),
        ("00000008", 2, None),
        ("00000800", 2, None),
        ("0100000000000000", 0, 2),
        ("0000010000000000", 2, 0),
        ("0000000100000000", 3, 0),
        ("0000008000000000", 3, 7),
        ("0000000000000008", 4, None),
        ("0000000080000000", 4, None),
    ],
)
async def test_format_unit_invalid_parameters(disk: ApplicationClient, parameters: str, byte: int, bit: int | None) -> None:
    """SBC-4 5.3.2.2: PROTECTION FIELD USAGE, options without FOV, IP, reserved bits, P_I_INFORMATION, a defect list."""
    data = bytes.fromhex(parameters)
    await disk.write(10, 0, pattern(512))
    command = cdb.format_unit(fmtdata=True, longlist=len(data) == 8)
    result = await disk.execute(command, data, expect=InvalidFieldInParameterList)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0x80 | (0 if bit is None else 8 | bit), 0, byte))
    assert (await disk.read(10, 0, 1)).data_in == pattern(512)


async def test_format_unit_truncated(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.5: a header that is not all there is PARAMETER LIST LENGTH ERROR."""
    for long, size in ((False, 4), (True, 8)):
        for length in range(size):
            command = cdb.format_unit(fmtdata=True, longlist=long)
            await disk.execute(command, bytes(length), expect=ParameterListLengthError)


async def test_format_unit_write_protected(read_only: ApplicationClient) -> None:
    """SBC-4 4.12."""
    await read_only.execute(cdb.format_unit(), expect=WriteProtected)


async def test_format_unit_medium_not_present(removable: ApplicationClient) -> None:
    """SBC-4 4.4."""
    await removable.start_stop_unit(loej=True)
    await removable.execute(cdb.format_unit(), expect=MediumNotPresent)


async def test_format_unit_reservation_conflict(pair: tuple[ApplicationClient, ApplicationClient]) -> None:
    """SBC-4 4.17."""
    await pair[0].reserve()
    await pair[1].execute(cdb.format_unit(), expect=Status.RESERVATION_CONFLICT)


async def test_format_unit_progress() -> None:
    """SBC-4 5.3.1, SPC-5 4.5.2.4.4: NOT READY, FORMAT IN PROGRESS, with how much is done; aborts and resets do not stop it."""
    store = GatedMemory(32 << 20)
    async with one_initiator(store) as disk:
        store.data[-1] = 1
        store.shut()
        await disk.execute(cdb.format_unit(fmtdata=True), IMMED)
        await store.until_waiting(1)
        for command in (cdb.format_unit(), cdb.sanitize(2), cdb.start_stop_unit(start=True)):
            await disk.execute(command, expect=FormatInProgress)
        await disk.read(10, 0, 1, expect=FormatInProgress)
        await disk.initiator.task_management(Function.LOGICAL_UNIT_RESET)
        await disk.request_sense()
        seen = []
        while True:
            data = await disk.request_sense()
            if data[2] & 0xF == 0:
                break
            assert (data[2] & 0xF, data[12], data[13], data[15]) == (2, 0x04, 0x04, 0x80)
            seen.append(int.from_bytes(data[16:18], "big"))
            store.release()
            store.shut()
            await anyio.sleep(0.005)
        assert seen == sorted(seen)
        assert {0, 32768} <= set(seen)
        await disk.test_unit_ready()
        assert not any(store.data)


async def test_format_unit_commands_meanwhile() -> None:
    """SBC-4 4.33.2: INQUIRY, REPORT LUNS and REQUEST SENSE; all others end in NOT READY, FORMAT IN PROGRESS."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        store.shut()
        await disk.execute(cdb.format_unit(fmtdata=True), IMMED)
        features = logical_unit(disk).features
        for command in COMMANDS:
            if command.feature is None or command.feature in features:
                taken = command.name in {"INQUIRY", "REPORT LUNS", "REQUEST SENSE"}
                await disk.execute(bytes(bare(command)), expect=Status.GOOD if taken else FormatInProgress)
        store.release()
        await until_done(disk)


async def test_format_unit_commands_after_failure() -> None:
    """SBC-4 4.33.3.1: format corrupt, only commands that access logical blocks end in MEDIUM FORMAT CORRUPTED."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        store.failure = OSError(5, "Input/output error")
        await disk.execute(cdb.format_unit(), expect=FormatCommandFailed)
        for command in (cdb.log_sense(0), cdb.mode_sense(6, 0x3F), cdb.read_capacity10(), cdb.read_capacity16()):
            await disk.execute(command, read_length=255)
        for command in (cdb.read(16, 0, 1), cdb.verify(10, 0, 1), cdb.synchronize_cache(10)):
            await disk.execute(command, read_length=512, expect=MediumFormatCorrupted)


async def test_format_unit_abort() -> None:
    """SBC-4 5.3.1: the command ends, the operation does not."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        store.data[-1] = 1
        store.shut()
        handle = disk.initiator.start(0, cdb.format_unit())
        await store.until_waiting(1)
        with anyio.fail_after(60):
            await disk.initiator.task_management(Function.ABORT_TASK_SET)
            with pytest.raises(CommandAborted):
                await handle.wait()
        await disk.test_unit_ready(expect=FormatInProgress)
        store.release()
        await until_done(disk)
        assert not any(store.data)


async def test_format_unit_failure() -> None:
    """SBC-4 5.3.1: FORMAT COMMAND FAILED; then MEDIUM FORMAT CORRUPTED for whoever wants the medium, until one succeeds."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        store.failure = OSError(5, "Input/output error")
        await disk.execute(cdb.format_unit(), expect=FormatCommandFailed)
        await disk.test_unit_ready(expect=MediumFormatCorrupted)
        await disk.read(10, 0, 1, expect=MediumFormatCorrupted)
        await disk.mode_sense(6, 8)
        await disk.execute(cdb.sanitize(31))
        await disk.execute(cdb.format_unit(), expect=FormatCommandFailed)
        store.failure = None
        await disk.execute(cdb.format_unit())
        await disk.read(10, 0, 1)


async def test_format_unit_after_failed_sanitize() -> None:
    """SBC-4 4.11: formatting is no way out of a sanitize operation that failed."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        store.failure = OSError(5, "Input/output error")
        result = await disk.execute(cdb.sanitize(2, ause=True), expect=None)
        store.failure = None
        result = await disk.execute(cdb.format_unit(), expect=None)
        assert result.sense is not None
        assert (result.sense.asc, result.sense.ascq) == (0x31, 0x03)


async def test_format_unit_restart(tmp_path: Path) -> None:
    """SBC-4 5.3.1: a format that a power cycle interrupted goes on."""
    path = tmp_path / "erasure" / "11111111-2222-3333-4444-555555555555"
    path.parent.mkdir()
    path.write_text(to_text(Erasure(kind="format", lba=2048)))
    memory = GatedMemory(SIZE)
    memory.data[:] = b"\1" * SIZE
    memory.shut()
    async with make_lu(memory, directory=tmp_path) as unit:
        disk = ApplicationClient(make_target(unit).connect())
        await disk.test_unit_ready(expect=None)
        await disk.test_unit_ready(expect=FormatInProgress)
        memory.release()
        await until_done(disk)
        assert memory.data == b"\1" * (1 << 20) + bytes(SIZE - (1 << 20))
        assert not path.exists()
