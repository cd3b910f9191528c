"""CDBs as such: reserved bits, length, operation codes, REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import bare
from support.memory import GatedMemory
from support.scsi import logical_unit, one_initiator
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidOpcode
from tcm.scsi.command import VARIABLE_LENGTH, Command, Feature
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.referrals import parse_lba_map
from tcm.scsi.sense import Status

pytestmark = pytest.mark.anyio
MISSING = {Feature.TYPE_2_PROTECTION, Feature.CRYPTOGRAPHIC_ERASE}
OFFERED = [command for command in COMMANDS if command.feature not in MISSING]
"""By a disk that neither has protection information nor encrypts."""
EVERY = pytest.mark.parametrize("command", OFFERED, ids=lambda command: command.name)
OPCODES = {command.operation_code for command in COMMANDS}
WITH_ACTION = {command.operation_code for command in COMMANDS if command.service_action is not None} - {VARIABLE_LENGTH}

ANCHOR = {"WRITE SAME (10)": 0x10, "WRITE SAME (16)": 0x10, "UNMAP": 0x01}


@pytest.fixture
async def disk(disk: ApplicationClient) -> ApplicationClient:
    """The usual disk with all that a command of the table may need: an LBA map for REPORT REFERRALS."""
    unit = logical_unit(disk)
    unit.asymmetric_access.set_lba_map(parse_lba_map(f"0 0\n0 {unit.blocks - 1} 0:O"))
    await disk.request_sense()  # INQUIRY DATA HAS CHANGED
    return disk


@EVERY
async def test_cdb_reserved_bits(disk: ApplicationClient, command: Command) -> None:
    """SPC-5 4.2.1, 4.2.5.1: every reserved bit is INVALID FIELD IN CDB with a pointer to the bit; so is NACA."""
    tried = 0
    for byte in range(1, command.length):
        for bit in range(8):
            if not command.reserved >> 8 * (command.length - 1 - byte) + bit & 1:
                continue
            data = bare(command)
            data[byte] |= 1 << bit
            result = await disk.execute(bytes(data), bytes(512), read_length=4096, expect=InvalidFieldInCdb)
            assert result.sense is not None
            assert result.sense.sense_key_specific == bytes((0xC8 | bit, 0, byte))
            tried += 1
    assert tried
    control = bare(command)
    control[command.control_byte] |= 0x04
    await disk.execute(bytes(control), expect=InvalidFieldInCdb)


@EVERY
async def test_cdb_truncated(disk: ApplicationClient, command: Command) -> None:
    """SPC-5 4.2.1: a CDB shorter than its command is refused and does no harm."""
    data = bytes(bare(command))
    for length in range(1, command.length):
        result = await disk.execute(data[:length], expect=None)
        assert result.status is Status.CHECK_CONDITION
        assert result.sense is not None
        assert (result.sense.key, result.sense.asc) in {(5, 0x24), (5, 0x20)}


async def test_cdb_empty(disk: ApplicationClient) -> None:
    """SPC-5 4.2.1: no CDB at all."""
    await disk.execute(b"", expect=InvalidOpcode)


async def test_cdb_padded(disk: ApplicationClient) -> None:
    """RFC 7143 11.3.5: iSCSI pads a short CDB to 16 bytes: what follows it is not looked at."""
    await disk.execute(cdb.test_unit_ready() + b"\xff" * 10)
    await disk.execute(cdb.read(10, 0, 1) + b"\xff" * 6, read_length=512)


async def test_cdb_unknown_operation_codes(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.2: every operation code without a row is INVALID COMMAND OPERATION CODE."""
    for opcode in set(range(256)) - OPCODES:
        await disk.execute(bytes((opcode, *bytes(15))), bytes(512), read_length=512, expect=InvalidOpcode)


@pytest.mark.parametrize("opcode", sorted(WITH_ACTION))
async def test_cdb_unknown_service_actions(disk: ApplicationClient, opcode: int) -> None:
    """SPC-5 4.2.5.3: an unknown service action is INVALID FIELD IN CDB, pointing at the SERVICE ACTION field."""
    known = {command.service_action for command in COMMANDS if command.operation_code == opcode}
    for action in set(range(32)) - known:
        result = await disk.execute(bytes((opcode, action, *bytes(14))), read_length=512, expect=InvalidFieldInCdb)
        assert result.sense is not None
        assert result.sense.sense_key_specific == bytes((0xCC, 0, 1))


# REPORT SUPPORTED OPERATION CODES


async def all_commands(disk: ApplicationClient, *, rctd: bool = False) -> list[tuple[int, int | None, int, bytes]]:
    """(operation code, service action, CDB size, timeouts descriptor) of each descriptor."""
    result = await disk.execute(cdb.report_supported_operation_codes(rctd=rctd), read_length=65536)
    data = result.data_in
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    found, at = [], 4
    while at < len(data):
        descriptor = data[at : at + 8]
        at += 8
        servactv, ctdp = descriptor[5] & 1, descriptor[5] & 2
        timeouts = b""
        if ctdp:
            assert data[at : at + 2] == b"\0\x0a"
            timeouts = data[at : at + 12]
            at += 12
        action = int.from_bytes(descriptor[2:4], "big")
        assert servactv or not action
        found.append((descriptor[0], action if servactv else None, int.from_bytes(descriptor[6:8], "big"), timeouts))
    assert at == len(data)
    return found


async def one_command(disk: ApplicationClient, options: int, opcode: int, action: int = 0, *, rctd: bool = False) -> bytes:
    command = cdb.report_supported_operation_codes(options, opcode, action, rctd=rctd)
    return (await disk.execute(command, read_length=65536)).data_in


async def test_report_supported_operation_codes_all(disk: ApplicationClient) -> None:
    """SPC-5 6.35.2: every command of the table, no other, with its CDB's length."""
    found = await all_commands(disk)
    assert sorted(found, key=repr) == sorted(
        ((command.operation_code, command.service_action, command.length, b"") for command in OFFERED), key=repr
    )


async def test_report_supported_operation_codes_works(tmp_path: Path) -> None:
    """SPC-5 6.35: what is reported as supported is not INVALID COMMAND OPERATION CODE, and the other way round."""
    for store, attributes in (
        (None, {}),
        (GatedMemory(thin=False), {"emulate_caw": False, "emulate_pr": False}),
    ):
        async with one_initiator(store, directory=tmp_path, **attributes) as unit:
            offered = {(opcode, action) for opcode, action, _, _ in await all_commands(unit)}
            for command in COMMANDS:
                if command.name.startswith("START STOP"):
                    continue
                result = await unit.execute(bytes(bare(command)), read_length=65536, expect=None)
                unknown = result.sense is not None and (
                    (result.sense.asc, result.sense.ascq) == (0x20, 0)
                    or (
                        command.service_action is not None
                        and result.sense.sense_key_specific == b"\xcc\0\1"
                        and not command.name.endswith("LOST RESERVATION")  # offered, and refused while nothing is lost
                    )
                )
                assert unknown is ((command.operation_code, command.service_action) not in offered), command.name


async def test_report_supported_operation_codes_timeouts(disk: ApplicationClient) -> None:
    """SPC-5 6.35.4: with RCTD every descriptor has a timeouts descriptor of 12 bytes with a recommended timeout."""
    for opcode, _, _, timeouts in await all_commands(disk, rctd=True):
        assert len(timeouts) == 12, hex(opcode)
        assert int.from_bytes(timeouts[8:12], "big") > 0


@EVERY
async def test_report_supported_operation_codes_one_command(disk: ApplicationClient, command: Command) -> None:
    """SPC-5 6.35.3: reporting options 1, 2 and 3 for commands with and without service actions, with and without timeouts."""
    opcode, action = command.operation_code, command.service_action
    right, wrong = (1, 2) if action is None else (2, 1)
    usage = bytearray(command.usage)
    if command.name in ANCHOR:  # a bit that is refused while ANC_SUP is zero
        usage[1] &= ~ANCHOR[command.name]
    if opcode == VARIABLE_LENGTH:
        usage[7] = 0xFF  # ADDITIONAL CDB LENGTH is evaluated: the map has ones, only codes stand there as they are
    await disk.execute(
        cdb.report_supported_operation_codes(wrong, opcode, action or 0), read_length=4096, expect=InvalidFieldInCdb
    )
    for options in (right, 3):
        for rctd in (False, True):
            data = await one_command(disk, options, opcode, action or 0, rctd=rctd)
            size = int.from_bytes(data[2:4], "big")
            assert data[1] & 0x07 == 3
            assert bool(data[1] & 0x80) is rctd
            assert size == command.length
            assert data[4] == opcode
            assert data[4 : 4 + size] == usage
            assert len(data) == 4 + size + (12 if rctd else 0)


async def test_report_supported_operation_codes_dpo_fua() -> None:
    """SBC-4 6.5.1, SPC-5 6.35.3: the usage data's DPO and FUA follow DPOFUA."""
    for fua in (True, False):
        async with one_initiator(emulate_fua_write=fua) as disk:
            assert bool((await disk.mode_sense(6, 0x3F))[2] & 0x10) is fua
            for opcode, mask in (
                (0x28, 0x18),
                (0x2A, 0x18),
                (0x8A, 0x18),
                (0x8B, 0x18),
                (0x89, 0x18),
                (0x9C, 0x18),
                (0x2E, 0x10),
            ):
                usage = (await one_command(disk, 1, opcode))[4:]
                assert usage[1] & mask == (mask if fua else 0), hex(opcode)


async def test_report_supported_operation_codes_unknown(disk: ApplicationClient) -> None:
    """SPC-5 table 175: a command that is not there: SUPPORT 001b and no usage data; reserved options are refused."""
    for opcode in (0x02, 0xFF):
        data = await one_command(disk, 1, opcode)
        assert data[1] & 0x07 == 1
        assert int.from_bytes(data[2:4], "big") == 0
    data = await one_command(disk, 3, 0x9E, 0x1F)
    assert data[1] & 0x07 == 1
    for options in (4, 5, 6, 7):
        await disk.execute(cdb.report_supported_operation_codes(options, 0x28), read_length=512, expect=InvalidFieldInCdb)


async def test_report_supported_operation_codes_allocation_length(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.6."""
    full = (await disk.execute(cdb.report_supported_operation_codes(), read_length=65536)).data_in
    for length in (0, 4, 11, 1024):
        command = cdb.report_supported_operation_codes(allocation_length=length)
        result = await disk.execute(command, read_length=length)
        assert result.data_in == full[:length]


async def test_report_supported_operation_codes_not_supported() -> None:
    """LIO's emulate_rsoc=0."""
    async with one_initiator(emulate_rsoc=False) as disk:
        result = await disk.execute(cdb.report_supported_operation_codes(), read_length=512, expect=None)
        assert result.status is Status.CHECK_CONDITION


async def test_report_supported_task_management_functions(disk: ApplicationClient) -> None:
    """SPC-5 6.36: what the task manager has; the extended form has 16 bytes with timeouts; room for less than 4 is an error."""
    command = cdb.report_supported_task_management_functions()
    data = (await disk.execute(command, read_length=16)).data_in
    assert len(data) == 4
    assert data[0] & 0xDA == 0xDA, "ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK"
    assert data[1] & 0x07 == 0x07, "QUERY ASYNCHRONOUS EVENT, QUERY TASK SET, I_T NEXUS RESET"
    command = cdb.report_supported_task_management_functions(repd=True)
    extended = (await disk.execute(command, read_length=16)).data_in
    assert len(extended) == 16
    assert extended[:2] == data[:2]
    assert extended[3] == 12
    for length in range(4):
        short = cdb.report_supported_task_management_functions(allocation_length=length)
        result = await disk.execute(short, read_length=length, expect=InvalidFieldInCdb)
        assert not result.data_in


async def test_cdb_features_exist(disk: ApplicationClient) -> None:
    """Every other row of the table is offered by a thin disk with default attributes."""
    missing = {command.feature for command in OFFERED if command.feature} - logical_unit(disk).features
    assert not missing
