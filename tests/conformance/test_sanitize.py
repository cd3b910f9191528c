"""SANITIZE: SBC-4 5.30, sanitize operations: 4.11.

Longer than most because an operation has to be followed from its command through failures and restarts to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from support.commands import bare
from support.encrypted import EncryptedMemory
from support.memory import GatedMemory
from support.scsi import logical_unit, make_lu, make_target, one_initiator, pattern, target, two_initiators
from tcm_backstores.fileio import FileBackstore
from tcm_backstores.filters.delay import DelayFilter, DelayOptions
from tcm_backstores.filters.encrypt import EncryptFilter, EncryptOptions
from tcm_backstores.filters.log import LogFilter, LogOptions
from tcm_loopback.commands import ApplicationClient, check
from tcm_loopback.initiator import LoopbackCommand
from tcm_loopback.transport import CommandAborted

from tcm.adapters import adapt
from tcm.backstore import Buffer
from tcm.filter import BackstoreFilter, methods
from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InternalTargetFailure,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    MediumNotPresent,
    ParameterListLengthError,
    SanitizeCommandFailed,
    SanitizeInProgress,
    WriteProtected,
)
from tcm.scsi.command import WhileErasing
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.sense import Status
from tcm.target import unit_attention
from tcm.target.directory_store import DirectoryStore
from tcm.target.erasure_store import CRYPTOGRAPHIC_ERASE as CRYPTOGRAPHIC_ERASURE
from tcm.target.erasure_store import UNKNOWN, Erasure, from_text, to_text
from tcm.target.logical_unit import LogicalUnit
from tcm.target.task_management import TaskManagementFunction as Function

pytestmark = pytest.mark.anyio
OVERWRITE, BLOCK_ERASE, CRYPTOGRAPHIC_ERASE, EXIT_FAILURE_MODE = 1, 2, 3, 31
SIZE = 4 << 20
ONES = cdb.overwrite_parameters(b"\xff" * 4)


class GatedStore(DirectoryStore):
    """Takes something only when ``open`` is set."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.open, self.waiting = anyio.Event(), anyio.Event()
        self.open.set()

    async def put(self, key: str, value: str | None, revision: str) -> str:
        if not self.open.is_set():
            self.waiting.set()
        await self.open.wait()
        return await super().put(key, value, revision)


async def overwrite(disk: ApplicationClient, parameters: bytes = ONES, **fields: bool) -> None:
    await disk.execute(cdb.sanitize(OVERWRITE, len(parameters), **fields), parameters)


async def until_done(disk: ApplicationClient) -> None:
    with anyio.fail_after(60):
        while (await disk.test_unit_ready(expect=None)).status is not Status.GOOD:
            await anyio.sleep(0.005)


def start(disk: ApplicationClient, parameters: bytes = ONES) -> LoopbackCommand:
    return disk.initiator.start(0, cdb.sanitize(OVERWRITE, len(parameters)), parameters)


async def progress(disk: ApplicationClient) -> int:
    """PROGRESS INDICATION of REQUEST SENSE, which says SANITIZE IN PROGRESS."""
    data = await disk.request_sense()
    assert (data[2] & 0xF, data[12], data[13], data[15]) == (2, 0x04, 0x1B, 0x80)
    return int.from_bytes(data[16:18], "big")


@pytest.mark.every_backstore
async def test_sanitize_overwrite(disk: ApplicationClient) -> None:
    """SBC-4 5.30.2.2: every block is the pattern, repeated from the block's first byte on, when GOOD status comes."""
    for length in (1, 3, 4, 500, 512):
        await disk.write(10, 0, pattern(512 * 8))
        data = pattern(length, length)
        await overwrite(disk, cdb.overwrite_parameters(data))
        block = (data * 512)[:512]
        for lba in (0, 1, 2047, 2048, disk.blocks - 8):
            assert (await disk.read(10, lba, 8)).data_in == block * 8


async def test_sanitize_overwrite_passes() -> None:
    """SBC-4 5.30.2.2: OVERWRITE COUNT passes over all blocks, each flushed before the next."""
    for count, invert in ((3, False), (2, True), (3, True)):
        store = GatedMemory(SIZE)
        async with one_initiator(store) as disk:
            await overwrite(disk, cdb.overwrite_parameters(b"\x0f", count, invert=invert))
            assert store.data == b"\x0f" * SIZE
            operations = [entry[0] for entry in store.log]
            assert operations == (["write"] * 4 + ["flush"]) * count


class _Passes(GatedMemory):
    """What each write to the first block begins with."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.seen: list[int] = []

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        if not offset:
            self.seen.append(memoryview(buffers[0])[0])
        await super().writev(buffers, offset, fua)


async def test_sanitize_overwrite_inverted() -> None:
    """SBC-4 5.30.2.2: with INVERT, an even OVERWRITE COUNT begins with the inversion, so that the pattern is what stays."""
    for count, wanted in ((1, b"\x0f"), (2, b"\xf0\x0f"), (3, b"\x0f\xf0\x0f"), (4, b"\xf0\x0f\xf0\x0f")):
        store = _Passes()
        async with one_initiator(store) as disk:
            await overwrite(disk, cdb.overwrite_parameters(b"\x0f", count, invert=True))
            assert bytes(store.seen) == wanted


async def test_sanitize_zoned_no_reset_ignored(disk: ApplicationClient) -> None:
    """SBC-4 5.30.1: a logical unit that is not a zoned block device ignores ZNR, whatever the service action."""
    await disk.execute(cdb.sanitize(OVERWRITE, len(ONES), znr=True), ONES)
    await disk.execute(cdb.sanitize(BLOCK_ERASE, znr=True))
    await disk.execute(cdb.sanitize(EXIT_FAILURE_MODE, znr=True))


async def test_sanitize_overwrite_reaches_the_medium() -> None:
    """SBC-4 5.30.2.2: a pattern of zeroes is written, too, and nothing is left to the write cache."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        await overwrite(disk, cdb.overwrite_parameters(b"\0"))
        assert [entry[0] for entry in store.log] == ["write"] * 4 + ["flush"]


@pytest.mark.every_backstore
async def test_sanitize_block_erase(disk: ApplicationClient) -> None:
    """SBC-4 5.30.2.3: nothing of what was there can be read; WABEREQ 01b: reading is no error. All blocks are deallocated."""
    assert (await disk.inquiry(0xB1))[7] == 0x40
    await disk.write(10, 0, pattern(512 * 9))
    await disk.write(10, disk.blocks - 9, pattern(512 * 9))
    await disk.execute(cdb.sanitize(BLOCK_ERASE))
    for lba in (0, disk.blocks - 9):
        assert not any((await disk.read(10, lba, 9)).data_in)
    assert await disk.get_lba_status(0) == [(0, disk.blocks, 1)]


async def test_sanitize_block_erase_zeroes_before_it_unmaps() -> None:
    """SBC-4 4.11: a backstore may leave what it was told to unmap; so zeroes are written first."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        await disk.execute(cdb.sanitize(BLOCK_ERASE))
        assert [entry[0] for entry in store.log] == ["write"] * 4 + ["unmap", "flush"]


async def test_sanitize_block_erase_thick() -> None:
    """SBC-4 5.30.2.3, 6.6.3: a unit without thin provisioning has no BLOCK ERASE, and WABEREQ is zero; OVERWRITE it has."""
    async with one_initiator(GatedMemory(thin=False)) as disk:
        assert (await disk.inquiry(0xB1))[7] == 0
        await disk.execute(cdb.sanitize(BLOCK_ERASE), expect=InvalidFieldInCdb)
        await overwrite(disk)


async def test_sanitize_cryptographic_erase(tmp_path: Path) -> None:
    """SBC-4 5.30.2.4: the key is thrown away, once; what was there cannot be read; WACEREQ 01b: reading is no error."""
    store = EncryptedMemory(tmp_path)
    async with one_initiator(store) as disk:
        assert (await disk.inquiry(0xB1))[7] & 0x30 == 0x10
        await disk.write(10, 8, pattern(512))
        kept, key = bytes(store.memory.data), store.key
        assert pattern(512)[:16] not in kept
        await disk.execute(cdb.sanitize(CRYPTOGRAPHIC_ERASE))
        assert store.memory.log[-1] == ("erase_key", 0, 0)
        assert store.memory.data == kept
        assert store.key != key
        noise = (await disk.read(10, 8, 1)).data_in
        assert noise != pattern(512)
        assert len(set(noise)) > 100
        await disk.write(10, 8, pattern(512))
        assert (await disk.read(10, 8, 1)).data_in == pattern(512)


async def test_sanitize_cryptographic_erase_outlives_the_process(tmp_path: Path) -> None:
    """SBC-4 5.30.2.4: before GOOD status the key is gone for good, and what is written afterwards is there after a restart."""
    disk_options = EncryptOptions(str(tmp_path / "key"))

    def disk_image() -> EncryptFilter:
        return EncryptFilter(adapt(FileBackstore(str(tmp_path / "disk.img"), SIZE)), disk_options)

    async with one_initiator(disk_image()) as disk:
        await disk.write(10, 0, pattern(512 * 64, 1))
    async with one_initiator(disk_image()) as disk:
        assert (await disk.read(10, 0, 64)).data_in == pattern(512 * 64, 1)
        await disk.execute(cdb.sanitize(CRYPTOGRAPHIC_ERASE))
        await disk.write(10, 32, pattern(512 * 32, 2))
    async with one_initiator(disk_image()) as disk:
        found = (await disk.read(10, 0, 64)).data_in
        assert found[512 * 32 :] == pattern(512 * 32, 2)
        assert all(found[i : i + 16] != pattern(512 * 64, 1)[i : i + 16] for i in range(0, 512 * 32, 16))
        assert not any((await disk.read(10, 64, 64)).data_in)


async def test_sanitize_cryptographic_erase_reserved_bits(tmp_path: Path) -> None:
    """SBC-4 5.30.2.4: all but IMMED, ZNR and AUSE is reserved, PARAMETER LIST LENGTH is zero: INVALID FIELD IN CDB."""
    store = EncryptedMemory(tmp_path)
    async with one_initiator(store) as disk:
        key = store.key
        for byte in range(1, 10):
            for bit in range(8):
                command = bytearray(cdb.sanitize(CRYPTOGRAPHIC_ERASE))
                command[byte] |= 1 << bit
                if byte > 1:
                    await disk.execute(bytes(command), expect=InvalidFieldInCdb)
        assert store.key == key


async def test_sanitize_cryptographic_erase_in_the_background(tmp_path: Path) -> None:
    """SBC-4 4.11: with IMMED it goes on by itself; all that touches the medium is refused until it has ended."""
    store = EncryptedMemory(tmp_path)
    async with one_initiator(store) as disk:
        store.memory.shut()
        await disk.execute(cdb.sanitize(CRYPTOGRAPHIC_ERASE, immed=True))
        await store.memory.until_waiting(1)
        await disk.read(10, 0, 1, expect=SanitizeInProgress)
        assert await progress(disk) == 0
        store.memory.release()
        await until_done(disk)


async def test_sanitize_cryptographic_erase_restart(tmp_path: Path) -> None:
    """SBC-4 4.11: what a restart has interrupted is done again."""
    path = kept_in(tmp_path)
    path.write_text(to_text(Erasure(kind=CRYPTOGRAPHIC_ERASURE)))
    store = EncryptedMemory(tmp_path)
    store.key_path.write_bytes(pattern(64))
    store.key_path.chmod(0o600)
    async with make_lu(store, directory=tmp_path) as unit:
        await until_done(await connected(unit))
    assert store.key != pattern(64)
    assert not path.exists()


async def test_sanitize_cryptographic_erase_fails(tmp_path: Path) -> None:
    """SBC-4 4.11: a failure leaves the medium closed until another sanitize operation succeeds."""
    store = EncryptedMemory(tmp_path)
    async with one_initiator(store) as disk:
        elsewhere = tmp_path / "elsewhere"
        store.key_path.rename(elsewhere)
        await disk.execute(cdb.sanitize(CRYPTOGRAPHIC_ERASE), expect=SanitizeCommandFailed)
        await disk.read(10, 0, 1, expect=SanitizeCommandFailed)
        elsewhere.rename(store.key_path)
        await disk.execute(cdb.sanitize(CRYPTOGRAPHIC_ERASE))
        await disk.read(10, 0, 1)


async def test_sanitize_cryptographic_erase_not_offered(disk: ApplicationClient) -> None:
    """SBC-4 5.30.2.4: without a backstore that encrypts there is none, and WACEREQ is zero."""
    result = await disk.execute(cdb.sanitize(CRYPTOGRAPHIC_ERASE), expect=InvalidFieldInCdb)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0xCC, 0, 1))
    assert (await disk.inquiry(0xB1))[7] & 0x30 == 0


@pytest.mark.parametrize("lets_through", [False, True])
async def test_sanitize_cryptographic_erase_through_filters(tmp_path: Path, lets_through: bool) -> None:
    """A filter that does not know of it may keep data elsewhere: then it is not offered. Ours let it through."""

    class Silent(BackstoreFilter):
        passed_through = methods()

    store = EncryptedMemory(tmp_path)
    inner = DelayFilter(adapt(store), DelayOptions())
    async with one_initiator(LogFilter(inner, LogOptions()) if lets_through else Silent(inner)) as disk:
        key = store.key
        expect = Status.GOOD if lets_through else InvalidFieldInCdb
        await disk.execute(cdb.sanitize(CRYPTOGRAPHIC_ERASE), expect=expect)
        assert (store.key != key) == lets_through


async def test_sanitize_cryptographic_erase_above_a_filter(tmp_path: Path) -> None:
    """A filter below the one that encrypts sees nothing but ciphertext, whatever it does with it."""

    class Silent(BackstoreFilter):
        passed_through = methods()

    options = EncryptOptions(str(tmp_path / "key"), create=True)
    async with one_initiator(EncryptFilter(adapt(Silent(adapt(GatedMemory()))), options)) as disk:
        await disk.execute(cdb.sanitize(CRYPTOGRAPHIC_ERASE))


async def test_sanitize_parameter_list_length(disk: ApplicationClient) -> None:
    """SBC-4 5.30.2.2: more than four bytes and no more than a block and four; for BLOCK ERASE and EXIT FAILURE MODE none."""
    for action, length in ((1, 0), (1, 4), (1, 517), (1, 65535), (2, 1), (2, 256), (31, 4)):
        result = await disk.execute(cdb.sanitize(action, length), bytes(length), expect=InvalidFieldInCdb)
        assert result.sense is not None
        assert result.sense.sense_key_specific is not None
        assert result.sense.sense_key_specific[2] in {7, 8}


@pytest.mark.parametrize(
    ("parameters", "byte", "bit"),
    [
        (cdb.overwrite_parameters(b"\1", 0), 0, 4),
        (cdb.overwrite_parameters(b"\1", 1, test=1), 0, 6),
        (cdb.overwrite_parameters(b"\1", 1, test=2), 0, 6),
        (b"\x01\x01\x00\x01\x00", 1, None),
        (b"\x01\x00\x00\x00\x00", 2, None),
        (b"\x01\x00\x02\x01" + bytes(512), 2, None),
    ],
)
async def test_sanitize_overwrite_invalid_field(disk: ApplicationClient, parameters: bytes, byte: int, bit: int | None) -> None:
    """SBC-4 5.30.2.2: OVERWRITE COUNT zero, TEST, the reserved byte, INITIALIZATION PATTERN LENGTH zero or beyond a block."""
    await disk.write(10, 0, pattern(512))
    result = await disk.execute(cdb.sanitize(OVERWRITE, len(parameters)), parameters, expect=InvalidFieldInParameterList)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0x80 | (0 if bit is None else 8 | bit), 0, byte))
    assert (await disk.read(10, 0, 1)).data_in == pattern(512)


async def test_sanitize_overwrite_truncated(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.5: a list shorter than it says, in itself or in transfer, is PARAMETER LIST LENGTH ERROR, nothing more."""
    await disk.write(10, 0, pattern(512))
    whole = cdb.overwrite_parameters(pattern(8, 2))
    for length in range(5, len(whole)):
        await disk.execute(cdb.sanitize(OVERWRITE, length), whole[:length], expect=ParameterListLengthError)
    for length in range(len(whole)):
        await disk.execute(cdb.sanitize(OVERWRITE, len(whole)), whole[:length], expect=ParameterListLengthError)
    assert (await disk.read(10, 0, 1)).data_in == pattern(512)


async def test_sanitize_write_protected(read_only: ApplicationClient) -> None:
    """SBC-4 4.11.1, 4.12: a write-protected unit is not sanitized; it takes no service action, EXIT FAILURE MODE included."""
    await read_only.execute(cdb.sanitize(OVERWRITE, len(ONES)), ONES, expect=WriteProtected)
    await read_only.execute(cdb.sanitize(BLOCK_ERASE), expect=WriteProtected)
    await read_only.execute(cdb.sanitize(EXIT_FAILURE_MODE), expect=WriteProtected)


async def test_sanitize_medium_not_present(removable: ApplicationClient) -> None:
    """SBC-4 4.4: no medium, nothing to sanitize."""
    await removable.start_stop_unit(loej=True)
    await removable.execute(cdb.sanitize(BLOCK_ERASE), expect=MediumNotPresent)


async def test_sanitize_reservation_conflict(pair: tuple[ApplicationClient, ApplicationClient]) -> None:
    """SBC-4 4.17, SPC-2 5.5.1: RESERVATION CONFLICT for all service actions."""
    await pair[0].reserve()
    await pair[1].execute(cdb.sanitize(OVERWRITE, len(ONES)), ONES, expect=Status.RESERVATION_CONFLICT)
    for action in (BLOCK_ERASE, EXIT_FAILURE_MODE):
        await pair[1].execute(cdb.sanitize(action), expect=Status.RESERVATION_CONFLICT)


async def test_sanitize_progress() -> None:
    """SBC-4 4.11, SPC-5 4.5.2.4.4: while it runs REQUEST SENSE says how much is done; it never goes back."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        store.shut()
        await overwrite(disk, cdb.overwrite_parameters(b"\1", 2), immed=True)
        seen = []
        for _ in range(8):
            await store.until_waiting(1)
            seen.append(await progress(disk))
            if store.waiting[0][0] == "write":
                store.release()
                store.shut()
                await anyio.sleep(0.01)
        assert seen == sorted(seen)
        assert seen[0] == 0
        assert 0 < seen[1] < 65536
        result = await disk.test_unit_ready(expect=SanitizeInProgress)
        assert result.sense is not None
        assert result.sense.sense_key_specific is not None
        store.release()
        await until_done(disk)
        assert store.data == b"\1" * SIZE


async def test_sanitize_commands_meanwhile() -> None:
    """SBC-4 4.11.2, 4.11.3: all but those listed end in NOT READY, SANITIZE IN PROGRESS, another SANITIZE included."""
    store = GatedMemory(SIZE)
    async with two_initiators(store) as clients:
        store.shut()
        await overwrite(clients[0], immed=True)
        for client in clients:
            client.initiator.express = True
            features = logical_unit(client).features
            for command in COMMANDS:
                if command.feature is not None and command.feature not in features:
                    continue
                allowed = command.while_erasing in {WhileErasing.ALLOWED, WhileErasing.SANITIZING}
                await client.execute(bytes(bare(command)), expect=None if allowed else SanitizeInProgress)
            await client.read(10, 0, 1, expect=SanitizeInProgress)
            await client.write(10, 0, bytes(512), expect=SanitizeInProgress)
            assert (await client.inquiry())[0] == 0
            assert await client.report_luns()
            await client.execute(cdb.report_supported_operation_codes(), read_length=65536)
            await client.execute(cdb.read_capacity16(), read_length=32)
            await client.execute(cdb.read_capacity10(), read_length=8)
            for page in (0x08, 0x0A, 0x1C):
                for length in (6, 10):
                    assert await client.mode_sense(length, page)
            for page, subpage in ((0x01, 0), (0x3F, 0), (0x3F, 0xFF), (0x0A, 1), (0x0A, 0xFF)):
                await client.execute(cdb.mode_sense(6, page, subpage), read_length=255, expect=SanitizeInProgress)
            for command in (cdb.log_sense(0), cdb.report_target_port_groups()):
                await client.execute(command, read_length=4096, expect=SanitizeInProgress)
        store.release()
        await until_done(clients[0])
        for client in clients:
            assert (await client.read(10, 0, 1)).data_in == b"\xff" * 512


async def test_sanitize_finishes_commands_in_progress() -> None:
    """SBC-4 4.11: commands that execute already end first, and the blocks they wrote are sanitized."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        store.shut()
        write = disk.initiator.start(0, cdb.write(10, 5, 1), pattern(512))
        await store.until_waiting(1)
        late = disk.initiator.start(0, cdb.write(10, 6, 1), pattern(512), withheld=True)
        await late.requested.wait()
        await overwrite(disk, immed=True)
        await anyio.sleep(0.02)
        assert [entry[0] for entry in store.waiting] == ["write"]
        late.deliver()
        check(await late.wait(), SanitizeInProgress)
        store.release()
        check(await write.wait(), Status.GOOD)
        await until_done(disk)
        assert store.data == b"\xff" * SIZE


async def test_sanitize_leaves_other_units_alone() -> None:
    """SAM-5 4.6.4: another logical unit of the target answers meanwhile."""
    store = GatedMemory(SIZE)
    async with target(store, None) as port:
        initiator = port.connect()
        disk, other = ApplicationClient(initiator, 0), ApplicationClient(initiator, 1)
        await disk.identify()
        await other.identify()
        store.shut()
        await overwrite(disk, immed=True)
        await other.write(10, 0, pattern(512))
        assert (await other.read(10, 0, 1)).data_in == pattern(512)
        store.release()
        await until_done(disk)


@pytest.mark.parametrize(
    "function", [Function.ABORT_TASK, Function.ABORT_TASK_SET, Function.LOGICAL_UNIT_RESET, Function.TARGET_COLD_RESET]
)
async def test_sanitize_outlives(function: Function) -> None:
    """SBC-4 4.11: task management ends the command and not the operation."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        store.shut()
        handle = start(disk)
        await store.until_waiting(1)
        assert handle.task is not None
        with anyio.fail_after(60):
            await disk.initiator.task_management(function, tag=handle.task.tag)
            with pytest.raises(CommandAborted):
                await handle.wait()
        if function in {Function.LOGICAL_UNIT_RESET, Function.TARGET_COLD_RESET}:
            assert (await disk.request_sense())[2] == 6
        await disk.test_unit_ready(expect=SanitizeInProgress)
        store.release()
        await until_done(disk)
        assert store.data == b"\xff" * SIZE


async def test_sanitize_outlives_nexus() -> None:
    """SBC-4 4.11: I_T nexus loss does not stop it; the next nexus is told of it."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        store.shut()
        start(disk)
        await store.until_waiting(1)
        disk.initiator.reconnect()
        await disk.test_unit_ready(expect=unit_attention.I_T_NEXUS_LOSS_OCCURRED)
        await disk.test_unit_ready(expect=SanitizeInProgress)
        store.release()
        await until_done(disk)
        assert store.data == b"\xff" * SIZE


async def test_sanitize_failure_restricted() -> None:
    """SBC-4 4.11: AUSE zero: after a failure everything is SANITIZE COMMAND FAILED until a restricted SANITIZE succeeds."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        store.failure = OSError(5, "Input/output error")
        await disk.execute(cdb.sanitize(OVERWRITE, len(ONES)), ONES, expect=SanitizeCommandFailed)
        for _ in range(2):
            await disk.test_unit_ready(expect=SanitizeCommandFailed)
            await disk.read(10, 0, 1, expect=SanitizeCommandFailed)
            assert (await disk.request_sense())[12:14] == b"\x31\x03"
            assert (await disk.inquiry())[0] == 0
            for bad, bit in ((cdb.sanitize(EXIT_FAILURE_MODE), 4), (cdb.sanitize(BLOCK_ERASE, ause=True), 5)):
                result = await disk.execute(bad, expect=InvalidFieldInCdb)
                assert result.sense is not None
                assert result.sense.sense_key_specific == bytes((0xC8 | bit, 0, 1))
            await disk.initiator.task_management(Function.LOGICAL_UNIT_RESET)
            await disk.request_sense()
        store.failure = None
        await disk.execute(cdb.sanitize(BLOCK_ERASE))
        await disk.test_unit_ready()


async def test_sanitize_exit_failure_mode() -> None:
    """SBC-4 4.11, 5.30.2.5: AUSE one: EXIT FAILURE MODE makes the medium accessible again."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        await disk.execute(cdb.sanitize(EXIT_FAILURE_MODE))  # there is none to leave
        store.failure = OSError(5, "Input/output error")
        await disk.execute(cdb.sanitize(OVERWRITE, len(ONES), ause=True), ONES, expect=SanitizeCommandFailed)
        await disk.read(10, 0, 1, expect=SanitizeCommandFailed)
        store.failure = None
        await disk.execute(cdb.sanitize(EXIT_FAILURE_MODE))
        await disk.read(10, 0, 1)


async def test_sanitize_exit_failure_mode_beside_another(tmp_path: Path) -> None:
    """SBC-4 4.11: EXIT FAILURE MODE is about the operation that has failed, not about the one that came just after it."""
    store, memory = GatedStore(str(tmp_path)), GatedMemory(SIZE)
    async with one_initiator(memory, store=store) as disk:
        memory.failure = OSError(5, "Input/output error")
        await disk.execute(cdb.sanitize(BLOCK_ERASE, ause=True), expect=SanitizeCommandFailed)
        memory.failure = None
        memory.data[:] = b"\xaa" * SIZE
        store.open = anyio.Event()
        commands = [disk.initiator.start(0, cdb.sanitize(EXIT_FAILURE_MODE))]
        with anyio.fail_after(60):
            await store.waiting.wait()
            commands.append(disk.initiator.start(0, cdb.sanitize(BLOCK_ERASE, ause=True)))
            commands.append(disk.initiator.start(0, cdb.sanitize(EXIT_FAILURE_MODE)))
            store.open.set()
            results = [await command.wait() for command in commands]
        assert [result.status for result in results] == [Status.GOOD, Status.GOOD, Status.CHECK_CONDITION]
        assert memory.data == bytes(SIZE)
        await disk.test_unit_ready()


async def test_sanitize_failure_immed() -> None:
    """SBC-4 5.30.1: with IMMED it is the next commands that hear of a failure."""
    store = GatedMemory(SIZE)
    async with one_initiator(store) as disk:
        store.failure = OSError(5, "Input/output error")
        await overwrite(disk, immed=True)
        with anyio.fail_after(60):
            while not (logical_unit(disk).eraser.erasure or UNKNOWN).failed:
                await anyio.sleep(0.005)
        await disk.test_unit_ready(expect=SanitizeCommandFailed)


def kept_in(directory: Path) -> Path:
    """The file of the usual logical unit; its folder is made."""
    (directory / "erasure").mkdir(parents=True, exist_ok=True)
    return directory / "erasure" / "11111111-2222-3333-4444-555555555555"


async def connected(unit: LogicalUnit) -> ApplicationClient:
    disk = ApplicationClient(make_target(unit).connect())
    await disk.test_unit_ready(expect=None)
    return disk


async def test_sanitize_restart(tmp_path: Path) -> None:
    """SBC-4 4.11: after a power cycle it goes on where it was; the file that says so is gone when it is done."""
    path = kept_in(tmp_path)
    memory = GatedMemory(SIZE)
    async with make_lu(memory, directory=tmp_path) as unit:
        disk = await connected(unit)
        memory.shut()
        await overwrite(disk, cdb.overwrite_parameters(b"\x0f", 2, invert=True), immed=True)
        await memory.until_waiting(1)
        assert path.exists()
    assert from_text(path.read_text()) == Erasure(kind="overwrite", passes=2, invert=True, block=b"\x0f" * 512, lba=2048)
    assert memory.data[1 << 20 :] == bytes(SIZE - (1 << 20))
    memory = GatedMemory(SIZE)
    memory.shut()
    async with make_lu(memory, directory=tmp_path) as unit:
        disk = await connected(unit)
        await disk.test_unit_ready(expect=SanitizeInProgress)
        memory.release()
        await until_done(disk)
        assert memory.log[0] == ("write", 1 << 20, 1 << 20)
        assert memory.data == b"\x0f" * SIZE
        assert not path.exists()


async def test_sanitize_restart_after_failure(tmp_path: Path) -> None:
    """SBC-4 4.11: a failure is not forgotten; nor is the mode it happened in."""
    path = kept_in(tmp_path)
    memory = GatedMemory(SIZE)
    async with make_lu(memory, directory=tmp_path) as unit:
        disk = await connected(unit)
        memory.failure = OSError(5, "Input/output error")
        await disk.execute(cdb.sanitize(BLOCK_ERASE, ause=True), expect=SanitizeCommandFailed)
    async with make_lu(directory=tmp_path) as unit:
        disk = await connected(unit)
        await disk.read(10, 0, 1, expect=SanitizeCommandFailed)
        await disk.execute(cdb.sanitize(EXIT_FAILURE_MODE))
        await disk.read(10, 0, 1)
        assert not path.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"kind": "overwrite", "block": "zz"}', '{"kind": "burn", "block": ""}',
             '{"kind": "overwrite", "block": "", "passes": 0}', '{"kind": "overwrite", "block": "00"}']
)  # fmt: skip
async def test_sanitize_restart_damaged(tmp_path: Path, text: str) -> None:
    """SBC-4 4.11: a file that makes no sense is not taken for a medium that is fine."""
    path = kept_in(tmp_path)
    path.write_text(text)
    async with make_lu(directory=tmp_path) as unit:
        disk = await connected(unit)
        await disk.read(10, 0, 1, expect=SanitizeCommandFailed)
        await disk.execute(cdb.sanitize(BLOCK_ERASE))
        await disk.read(10, 0, 1)
        assert not path.exists()


async def test_sanitize_state_cannot_be_kept(tmp_path: Path) -> None:
    """SBC-4 4.11: what would be forgotten by a power cycle is not begun."""
    async with make_lu(directory=tmp_path) as unit:
        disk = await connected(unit)
        await disk.identify()
        await disk.write(10, 0, pattern(512))
        (tmp_path / "erasure").write_text("in the way of a directory")
        await disk.execute(cdb.sanitize(BLOCK_ERASE), expect=InternalTargetFailure)
        assert (await disk.read(10, 0, 1)).data_in == pattern(512)


@pytest.mark.parametrize("runs_first", [False, True])
async def test_sanitize_restart_when_opened(tmp_path: Path, runs_first: bool) -> None:
    """SBC-4 4.11: a unit that finds the file when it is opened goes on by itself, and is not ready before it is done."""
    path = kept_in(tmp_path)
    path.write_text(to_text(Erasure(kind="overwrite", block=b"\x55" * 512, lba=2048)))
    memory = GatedMemory(SIZE)
    unit = LogicalUnit("disk", memory, serial=path.name, store=DirectoryStore(str(tmp_path)))
    async with anyio.create_task_group() as task_group:
        if runs_first:
            unit.start(task_group)
        await unit.open()
        assert not unit.ready
        if not runs_first:
            unit.start(task_group)
        with anyio.fail_after(60):
            while not unit.ready:
                await anyio.sleep(0.005)
        assert memory.data == bytes(1 << 20) + b"\x55" * (SIZE - (1 << 20))
        assert not path.exists()
        await unit.aclose()


async def test_sanitize_restart_cannot_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SBC-4 4.11: a unit that is write protected meanwhile, or has other blocks, counts as one whose sanitizing failed."""
    for read_only, size in ((True, 512), (False, 4096)):
        kept_in(tmp_path).write_text(to_text(Erasure(kind="overwrite", block=bytes(size))))
        async with make_lu(read_only=read_only, directory=tmp_path) as unit:
            disk = await connected(unit)
            await disk.read(10, 0, 1, expect=SanitizeCommandFailed)
        assert "cannot go on with overwrite, so its medium stays closed: " in caplog.text
    kept_in(tmp_path).write_text(to_text(Erasure(kind="overwrite", block=bytes(512), failed=True)))
    async with make_lu(directory=tmp_path) as unit:
        assert f"{unit.name}: overwrite has failed before: its medium stays closed" in caplog.text
