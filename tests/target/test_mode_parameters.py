"""Mode parameters take effect, are saved, and come back; the device server's SPC half where conformance tests do not look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.memory import GatedMemory
from support.scsi import FIRST, make_lu, make_target, one_initiator, pattern
from tcm_loopback.commands import ApplicationClient, check

from tcm.adapters import adapt
from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InternalTargetFailure,
    InvalidFieldInCdb,
    LogicalUnitFailedSelfTest,
    ParameterListLengthError,
    SavingParametersNotSupported,
    WriteError,
    WriteProtected,
)
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.mode_pages import CACHING, CONTROL, Key
from tcm.scsi.sense import Status
from tcm.target.device_server import HANDLERS
from tcm.target.logical_unit import LogicalUnit
from tcm.target.task_management import TaskManagementFunction
from tcm.testing import MemoryStore
from tcm.testing.memory_store import Values

pytestmark = pytest.mark.anyio


def parameters(unit: LogicalUnit, key: Key, **fields: int) -> bytes:
    """A MODE SELECT (6) parameter list with one page."""
    values = unit.mode_parameters.values
    page = values.pages[key]
    return bytes(4) + page.pack({**page.layout.unpack(values.current[key]), **fields})


async def connect(unit: LogicalUnit) -> ApplicationClient:
    client = ApplicationClient(make_target(unit).connect(FIRST))
    await client.identify()
    return client


def test_every_command_has_its_handler():
    assert {command.handler for command in COMMANDS} == set(HANDLERS)


async def test_saved_values_survive(tmp_path):
    """SPC-5 6.12: SP saves; a logical unit made anew starts with what was saved, not with the defaults."""
    async with make_lu(directory=tmp_path) as unit:
        client = await connect(unit)
        assert (await client.mode_sense(6, 0x0A, dbd=True))[4] == 0x8A, "PS"
        await client.mode_select(6, parameters(unit, CONTROL, swp=1), sp=True)
        saved = await client.mode_sense(6, 0x0A, dbd=True, control=3)
        assert saved[4 + 4] & 0x08
        await client.mode_select(6, parameters(unit, CONTROL, swp=0))
        assert not unit.write_protected
        unit.mode_parameters.reset()
        assert unit.write_protected
    async with make_lu(directory=tmp_path) as unit:
        client = await connect(unit)
        await client.write(10, 0, pattern(512), expect=WriteProtected)
        assert not (await client.mode_sense(6, 0x0A, dbd=True, control=2))[4 + 4] & 0x08


async def test_a_full_disk_saves_nothing(tmp_path):
    """The command says that it failed, and the saved values are still those that are kept."""
    (tmp_path / "mode").touch()
    async with make_lu(directory=tmp_path) as unit:
        client = await connect(unit)
        await client.mode_select(6, parameters(unit, CONTROL, d_sense=1), sp=True, expect=InternalTargetFailure)
        assert not (await client.mode_sense(6, 0x0A, dbd=True, control=3))[4 + 2] & 0x04


async def test_what_two_save_at_once_is_kept_together():
    values = Values()
    async with make_lu(store=MemoryStore(values)) as unit:
        client = await connect(unit)
        lists = [parameters(unit, CONTROL, d_sense=1), parameters(unit, CONTROL, tas=0)]
        handles = [client.initiator.start(0, cdb.mode_select(6, len(each), sp=True), each) for each in lists]
        for handle in handles:
            check(await handle.wait(), Status.GOOD)
        kept = values.entries[f"mode/{unit.serial}"].value
        assert json.loads(kept) == unit.mode_parameters.values.saved_fields()


async def test_nothing_can_be_saved_without_a_store():
    async with one_initiator() as client:
        await client.execute(cdb.mode_sense(6, 0x3F, control=3), read_length=252, expect=SavingParametersNotSupported)
        await client.mode_select(6, b"", sp=True, expect=InvalidFieldInCdb)
        assert (await client.mode_sense(6, 0x0A, dbd=True))[4] == 0x0A


def kept_in(directory: Path) -> Path:
    """The file of the usual logical unit; its folder is made."""
    (directory / "mode").mkdir()
    return directory / "mode" / "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize("content", ["", "[1]", '{"0a/00": 7}', "\xff"])
async def test_a_spoilt_file_is_ignored(tmp_path, content, caplog):
    kept_in(tmp_path).write_text(content, encoding="latin-1")
    async with make_lu(directory=tmp_path) as unit:
        assert "saved mode parameters are ignored" in caplog.text
        assert unit.mode_parameters.values.current == unit.mode_parameters.values.default
        await unit.mode_parameters.save()


async def test_a_file_that_is_not_there_is_no_matter(tmp_path, caplog):
    async with make_lu(directory=tmp_path):
        assert not caplog.text


@pytest.mark.parametrize("key, fields", [(CACHING, {"wce": 0}), (CONTROL, {"swp": 1})])
async def test_the_cache_is_emptied_first(key, fields):
    """SBC-4 6.5.5, 4.12: what is cached reaches the medium before WCE becomes zero or SWP one."""
    memory = GatedMemory()
    async with make_lu(memory) as unit:
        client = await connect(unit)
        await client.write(10, 0, pattern(512))
        memory.log.clear()
        await client.mode_select(6, parameters(unit, key, **fields))
        assert [operation for operation, _, _ in memory.log] == ["flush"]
        assert unit.medium.write_cache is (key != CACHING)
        assert unit.write_protected is (key == CONTROL)
        memory.log.clear()
        await client.mode_select(6, parameters(unit, key, **fields))
        assert memory.log == []


async def test_wce_zero_makes_writes_durable():
    memory = GatedMemory()
    async with make_lu(memory) as unit:
        client = await connect(unit)
        await client.mode_select(6, parameters(unit, CACHING, wce=0))
        memory.log.clear()
        await client.write(10, 0, pattern(512))
        assert memory.log == [("write fua", 0, 512)]


async def test_nothing_stays_in_the_cache_when_it_is_switched_off():
    """SBC-4 6.5.5: neither a write that was under way, nor one that comes while the cache is being emptied."""
    memory = GatedMemory()
    async with make_lu(memory) as unit:
        client = await connect(unit)
        memory.log.clear()
        memory.shut()
        under_way = client.initiator.start(0, cdb.write(10, 0, 1), pattern(512))
        await memory.until_waiting(1)
        select = parameters(unit, CACHING, wce=0)
        off = client.initiator.start(0, cdb.mode_select(6, len(select)), select)
        await memory.until_waiting(2)
        late = client.initiator.start(0, cdb.write(10, 1, 1), pattern(512))
        await memory.until_waiting(3)
        assert ("write fua", 512, 512) in memory.waiting
        memory.release()
        for command in (under_way, off, late):
            check(await command.wait(), Status.GOOD)
        written = memory.log.index(("write", 0, 512))
        assert ("flush", 0, 0) in memory.log[written:]


async def test_a_stopped_unit_empties_its_cache_too():
    """NO_FLUSH leaves the cache as it is; when WCE becomes zero nothing may be left."""
    memory = GatedMemory()
    async with make_lu(memory) as unit:
        client = await connect(unit)
        await client.start_stop_unit(no_flush=True)
        memory.log.clear()
        await client.mode_select(6, parameters(unit, CACHING, wce=0))
        assert memory.log == [("flush", 0, 0)]


@pytest.mark.parametrize("abort", [False, True])
async def test_a_cache_that_cannot_be_emptied_stays_on(abort):
    memory = GatedMemory()
    async with make_lu(memory) as unit:
        client = await connect(unit)
        memory.shut()
        select = parameters(unit, CACHING, wce=0)
        off = client.initiator.start(0, cdb.mode_select(6, len(select)), select)
        await memory.until_waiting(1)
        if abort:
            await client.initiator.task_management(TaskManagementFunction.ABORT_TASK_SET)
            memory.release()
        else:
            memory.failure = OSError(5, "input/output error")
            memory.release()
            check(await off.wait(), WriteError)
            memory.failure = None
        assert unit.mode_parameters.write_cache
        assert unit.medium.write_cache
        memory.log.clear()
        await client.write(10, 0, pattern(512))
        assert memory.log == [("write", 0, 512)]


async def test_a_reset_that_ends_the_cache_empties_it():
    """A reset restores WCE zero: what was acknowledged before becomes durable, though nobody will ask for it any more."""
    memory = GatedMemory()
    async with make_lu(memory, emulate_write_cache=False) as unit:
        client = await connect(unit)
        await client.mode_select(6, parameters(unit, CACHING, wce=1))
        await client.write(10, 0, pattern(512))
        memory.log.clear()
        await client.initiator.task_management(TaskManagementFunction.LOGICAL_UNIT_RESET)
        await unit.running.until_idle()
        assert memory.log == [("flush", 0, 0)]
        assert not unit.medium.write_cache


async def test_write_protection_meets_the_data():
    """SBC-4 4.12: a WRITE whose data come after SWP was set writes nothing."""
    memory = GatedMemory()
    async with make_lu(memory) as unit:
        client = await connect(unit)
        command = client.initiator.start(0, cdb.write(10, 0, 1), pattern(512), withheld=True)
        await command.requested.wait()
        await client.mode_select(6, parameters(unit, CONTROL, swp=1))
        command.deliver()
        check(await command.wait(), WriteProtected)
        assert not any(memory.data)


async def test_data_out_that_does_not_come():
    async with one_initiator() as client:
        await client.execute(cdb.mode_select(6, 16), b"", write_length=0, expect=ParameterListLengthError)


async def test_self_test_reads_the_medium():
    """SPC-5 6.42: the default self-test fails if the medium cannot be read."""
    memory = GatedMemory()
    async with make_lu(memory) as unit:
        client = await connect(unit)
        memory.log.clear()
        await client.execute(cdb.send_diagnostic(self_test=True))
        assert sorted(memory.log) == [("read", 0, 512), ("read", len(memory.data) - 512, 512)]
        memory.failure = OSError(5, "gone")
        await client.execute(cdb.send_diagnostic(self_test=True), expect=LogicalUnitFailedSelfTest)


async def test_usage_data_follow_the_attributes():
    """SPC-5 6.36.3: bits that this logical unit refuses are zero in the usage data."""

    async def usage(client: ApplicationClient, opcode: int) -> int:
        data = await client.execute(cdb.report_supported_operation_codes(1, opcode), read_length=64)
        return data.data_in[5]

    async with one_initiator() as client:
        assert [await usage(client, opcode) for opcode in (0x28, 0x2F, 0x93, 0x42)] == [0x18, 0x16, 0x09, 0x00]
    async with one_initiator(emulate_fua_write=False, emulate_tpws=False) as client:
        assert [await usage(client, opcode) for opcode in (0x28, 0x2F, 0x93, 0x42)] == [0x00, 0x06, 0x01, 0x00]
        await client.read(10, 0, 1, dpo=True, expect=InvalidFieldInCdb)


async def test_commands_that_are_switched_off_are_not_reported():
    async with one_initiator(adapt(GatedMemory(thin=False)), emulate_caw=False, emulate_pr=False) as client:
        data = (await client.execute(cdb.report_supported_operation_codes(), read_length=65536)).data_in
        reported = {data[at] for at in range(4, len(data), 8)}
        assert reported.isdisjoint({0x42, 0x89, 0x16, 0x17, 0x56, 0x57})
        assert {0x28, 0x41, 0x93, 0xA3} <= reported
        for opcode in (0x42, 0x89, 0x16):
            one = (await client.execute(cdb.report_supported_operation_codes(3, opcode), read_length=64)).data_in
            assert one == bytes.fromhex("00010000")


@pytest.mark.parametrize("value", [[], 2.0, True, "1", None, 1 << 9])
async def test_a_saved_value_that_cannot_be_is_passed_over(tmp_path, value):
    kept_in(tmp_path).write_text(json.dumps({"0a/00": {"ua_intlck_ctrl": value, "swp": value, "d_sense": 1}}))
    async with make_lu(directory=tmp_path) as unit:
        parameters = unit.mode_parameters
        assert (parameters.unit_attention_interlock, parameters.software_write_protect) == (0, False)
        assert parameters.descriptor_sense
