"""Variable length CDBs (SPC-5 4.2.3): GET LBA STATUS (32), and who takes the 32-byte reads and writes."""

from __future__ import annotations

import pytest
from support.scsi import pattern
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidOpcode, LbaOutOfRange
from tcm.scsi.command import VARIABLE_LENGTH
from tcm.scsi.command_table import COMMANDS

pytestmark = pytest.mark.anyio
LONG = [command for command in COMMANDS if command.operation_code == VARIABLE_LENGTH]


async def status(disk: ApplicationClient, lba: int, scan_length: int = 0, **fields: int) -> list[tuple[int, int, int]]:
    command = cdb.get_lba_status_32(lba, scan_length=scan_length, **fields)
    data = (await disk.execute(command, read_length=4096)).data_in
    assert int.from_bytes(data[:4]) == len(data) - 4
    return [
        (int.from_bytes(data[i : i + 8]), int.from_bytes(data[i + 8 : i + 12]), data[i + 12]) for i in range(8, len(data), 16)
    ]


@pytest.mark.every_backstore
async def test_get_lba_status_32_simple(disk: ApplicationClient) -> None:
    """SBC-4 5.7: without SCAN LENGTH it says what GET LBA STATUS (16) says."""
    assert await status(disk, 0) == [(0, disk.blocks, 1)]
    await disk.write(10, 64, pattern(512 * 16))
    assert await status(disk, 0) == await disk.get_lba_status(0) == [(0, 64, 1), (64, 16, 0), (80, disk.blocks - 80, 1)]
    assert await status(disk, 70) == await disk.get_lba_status(70)


async def test_get_lba_status_32_scan_length(disk: ApplicationClient) -> None:
    """SBC-4 5.7.1: no block beyond the SCAN LENGTH is looked at; one that reaches beyond the medium ends there."""
    await disk.write(10, 64, pattern(512 * 16))
    assert await status(disk, 0, 64) == [(0, 64, 1)]
    assert await status(disk, 0, 65) == [(0, 64, 1), (64, 1, 0)]
    assert await status(disk, 72, 4) == [(72, 4, 0)]
    assert await status(disk, disk.blocks - 1, 0xFFFFFFFF) == [(disk.blocks - 1, 1, 1)]


async def test_get_lba_status_32_allocation_length(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.6."""
    full = (await disk.execute(cdb.get_lba_status_32(0), read_length=4096)).data_in
    for length in (0, 7, 8, 23, 24):
        assert (await disk.execute(cdb.get_lba_status_32(0, length), read_length=length)).data_in == full[:length]


async def test_get_lba_status_32_beyond_end(disk: ApplicationClient) -> None:
    """SBC-4 5.6.1."""
    for lba in (disk.blocks, 1 << 63):
        await disk.execute(cdb.get_lba_status_32(lba), read_length=4096, expect=LbaOutOfRange)


@pytest.mark.parametrize(("fields", "byte"), [({"element": 1}, 27), ({"report_type": 1}, 10)])
async def test_get_lba_status_32_unsupported(disk: ApplicationClient, fields: dict[str, int], byte: int) -> None:
    """SBC-4 5.7.1: there are no physical elements, and one report type."""
    refused = await disk.execute(cdb.get_lba_status_32(0, **fields), read_length=4096, expect=InvalidFieldInCdb)
    assert refused.sense is not None
    assert refused.sense.sense_key_specific == bytes((0xC8, 0, byte))


@pytest.mark.parametrize("command", [each for each in LONG if each.feature], ids=lambda command: command.name)
async def test_cdb_32_without_type_2(disk: ApplicationClient, command) -> None:
    """SBC-4 4.21.2.2: without type 2 protection they are INVALID COMMAND OPERATION CODE, and not reported as supported."""
    data = bytearray(32)
    data[0], data[7:10] = VARIABLE_LENGTH, command.usage[7:10]
    await disk.execute(bytes(data), expect=InvalidOpcode)
    data[10:] = b"\xff" * 22
    await disk.execute(bytes(data), expect=InvalidOpcode)
    asked = cdb.report_supported_operation_codes(3, VARIABLE_LENGTH, command.service_action)
    assert (await disk.execute(asked, read_length=64)).data_in[1] & 0x07 == 1


async def test_cdb_32_additional_length(disk: ApplicationClient) -> None:
    """SPC-5 4.2.3.1: an ADDITIONAL CDB LENGTH that is not the service action's is INVALID FIELD IN CDB."""
    for wrong in (0, 0x17, 0x19, 0xF8, 0xFF):
        data = bytearray(cdb.get_lba_status_32(0))
        data[7] = wrong
        refused = await disk.execute(bytes(data) + bytes(wrong), read_length=64, expect=InvalidFieldInCdb)
        assert refused.sense is not None
        assert refused.sense.sense_key_specific == b"\xc0\0\7"


async def test_cdb_32_unknown_service_action(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.3: INVALID FIELD IN CDB, pointing at the SERVICE ACTION field."""
    known = {command.service_action for command in LONG}
    for action in {*range(0x40), 0x0100, 0x0900, 0x1800, 0xFFFF} - known:
        data = bytearray(32)
        data[0], data[7], data[8:10] = VARIABLE_LENGTH, 0x18, action.to_bytes(2)
        refused = await disk.execute(bytes(data), read_length=64, expect=InvalidFieldInCdb)
        assert refused.sense is not None
        assert refused.sense.sense_key_specific == b"\xc0\0\x08"
