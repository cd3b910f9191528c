"""RECEIVE ROD TOKEN INFORMATION and REPORT ALL ROD TOKENS (SPC-5)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.scsi import logical_unit
from support.tokens import Bench, Information, bench, populate_data, write_data

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidFieldInParameterList
from tcm.scsi.copy_results import CopyStatus
from tcm.scsi.rod_token_commands import MAXIMUM_RANGES
from tcm.scsi.rod_tokens import zero_token
from tcm.scsi.sense import Status
from tcm.target.copy_manager import HOLD_TIME, CopyManager
from tcm.target.rod_tokens import MAXIMUM_BYTES, RodTokens
from tcm.target.task_management import TaskManagementFunction

pytestmark = pytest.mark.anyio


@pytest.fixture
async def units() -> AsyncIterator[Bench]:
    async with bench() as clients:
        tokens = RodTokens()
        for client in (clients.source, clients.destination):
            logical_unit(client).rod_tokens = tokens
        yield clients


async def unknown(units: Bench, lid: int) -> None:
    result = await units.source.execute(cdb.receive_rod_token_information(lid), read_length=4096, expect=InvalidFieldInCdb)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes.fromhex("c00002")


async def test_receive_rod_token_information_of_populate_token(units: Bench) -> None:
    """SBC-4, RECEIVE ROD TOKEN INFORMATION parameter data for POPULATE TOKEN: byte by byte."""
    await units.source.send_populate(populate_data((8, 3), (100, 4)), lid=0xFFFFFFFE)
    command = cdb.receive_rod_token_information(0xFFFFFFFE)
    data = (await units.source.execute(command, read_length=4096)).data_in
    assert data[:32].hex() == "0000022210010000fffffffe000000f100000000000000070000" + "00" * 6
    assert data[32:38].hex() == "000002020000"
    assert len(data) == 38 + 512
    await units.destination.write_token(data[38:], (0, 7))


async def test_receive_rod_token_information_of_write_using_token(units: Bench) -> None:
    """SBC-4, RECEIVE ROD TOKEN INFORMATION parameter data for WRITE USING TOKEN: there is no token in it."""
    await units.source.write_token(zero_token(), (0, 5))
    data = (await units.source.execute(cdb.receive_rod_token_information(2), read_length=4096)).data_in
    assert len(data) == 36
    assert data[4:6].hex() == "1101"
    found = Information.parse(data)
    assert (found.count, found.tokens) == (5, [])


async def test_receive_rod_token_information_unknown_list_identifier(units: Bench) -> None:
    """SPC-5, RECEIVE ROD TOKEN INFORMATION: a list identifier that nobody has used on this I_T nexus and logical unit."""
    await unknown(units, 0)
    await units.source.populate((0, 8), lid=5)
    await unknown(units, 6)
    for client in (units.other_source, units.destination):
        await client.execute(cdb.receive_rod_token_information(5), read_length=4096, expect=InvalidFieldInCdb)


@pytest.mark.parametrize("length", [1, 4, 31, 36, 38, 549])
async def test_receive_rod_token_information_truncated(units: Bench, length: int) -> None:
    """SPC-5, RECEIVE ROD TOKEN INFORMATION: AVAILABLE DATA is not altered, and what was cut off is still there."""
    await units.source.send_populate(populate_data((0, 8)))
    whole = (550 - 4).to_bytes(4)
    short = (await units.source.execute(cdb.receive_rod_token_information(1, length), read_length=4096)).data_in
    assert len(short) == length
    assert short[:4] == whole[:length]
    short = (await units.source.execute(cdb.receive_rod_token_information(1), read_length=length)).data_in
    assert len(short) == length
    assert len((await units.source.information(1)).tokens) == 1


async def test_receive_rod_token_information_discards_what_it_told(units: Bench) -> None:
    """SPC-5, RECEIVE ROD TOKEN INFORMATION: a token is told once; the status stays."""
    token = await units.source.populate((0, 8))
    found = await units.source.information(1)
    assert (found.status, found.count, found.tokens) == (CopyStatus.COMPLETED, 8, [])
    await units.destination.write_token(token, (0, 8))


async def test_receive_rod_token_information_allocation_length_zero(units: Bench) -> None:
    """SPC-5, RECEIVE ROD TOKEN INFORMATION: an allocation length of zero discards the token."""
    await units.source.send_populate(populate_data((0, 8)))
    await units.source.execute(cdb.receive_rod_token_information(1, 0))
    assert (await units.source.information(1)).tokens == []


async def test_receive_rod_token_information_list_identifier_used_again(units: Bench) -> None:
    """SPC-5, RECEIVE ROD TOKEN INFORMATION: what is kept under a list identifier goes when it is used again."""
    await units.source.send_populate(populate_data((0, 8)))
    await units.source.send_write(b"")
    assert len((await units.source.information(1)).tokens) == 1
    await units.source.send_populate(populate_data((0, 8)))
    await units.source.send_write(write_data(zero_token(), (0, 1)), lid=1)
    found = await units.source.information(1)
    assert (found.service_action, found.tokens) == (0x11, [])


async def test_receive_rod_token_information_after_a_reset(units: Bench) -> None:
    """SPC-5, RECEIVE ROD TOKEN INFORMATION: a logical unit reset discards everything, an I_T nexus loss what was its own."""
    await units.source.send_populate(populate_data((0, 8)))
    await units.other_source.send_populate(populate_data((0, 8)))
    units.other_source.initiator.disconnect()
    units.other_source.initiator.reconnect()
    await units.other_source.request_sense()
    await units.other_source.execute(cdb.receive_rod_token_information(1), read_length=4096, expect=InvalidFieldInCdb)
    await units.source.initiator.task_management(TaskManagementFunction.LOGICAL_UNIT_RESET, 0)
    await units.source.request_sense()
    await unknown(units, 1)


async def test_receive_rod_token_information_kept_for_a_while(units: Bench) -> None:
    """SPC-5, RECEIVE ROD TOKEN INFORMATION: tokens are kept for a vendor specific time."""
    now = 0.0
    logical_unit(units.source).copies = CopyManager(lambda: now)
    await units.source.send_populate(populate_data((0, 8)))
    now = HOLD_TIME
    await units.source.execute(cdb.receive_rod_token_information(1, 32), read_length=32)
    now = HOLD_TIME + 1
    await unknown(units, 1)


async def test_receive_rod_token_information_reserved_unit(units: Bench) -> None:
    """SPC-5, Reservations: the information is everybody's who has asked for it."""
    await units.other_source.send_populate(populate_data((0, 8)))
    await units.source.execute(cdb.persistent_reserve_out(0), bytes(8) + (1).to_bytes(8) + bytes(8))
    await units.source.execute(cdb.persistent_reserve_out(1, 3), (1).to_bytes(8) + bytes(16))
    assert len((await units.other_source.information(1)).tokens) == 1
    await units.other_source.execute(cdb.report_all_rod_tokens(), read_length=4096)
    await units.other_source.send_populate(populate_data((0, 8)), expect=Status.RESERVATION_CONFLICT)


async def test_receive_rod_token_information_copy_status(units: Bench) -> None:
    """SPC-5, Monitoring progress: RECEIVE COPY STATUS (LID4) tells the same of a token operation, without the token."""
    await units.source.send_populate(populate_data((0, 8)))
    command = bytes((0x84, 0x05)) + (1).to_bytes(4) + bytes(4) + (4096).to_bytes(4) + bytes(2)
    status = (await units.source.execute(command, read_length=4096)).data_in
    data = (await units.source.execute(cdb.receive_rod_token_information(1), read_length=4096)).data_in
    assert status == (28).to_bytes(4) + data[4:32]


async def test_receive_rod_token_information_vpd(units: Bench) -> None:
    """SBC-4, Third-party Copy VPD page: what POPULATE TOKEN and WRITE USING TOKEN take, and where they end."""
    page = await units.source.inquiry(0x8F)
    found: dict[int, bytes] = {}
    at = 4
    while at < len(page):
        length = int.from_bytes(page[at + 2 : at + 4])
        found[int.from_bytes(page[at : at + 2])] = page[at + 4 : at + 4 + length]
        at += 4 + length
    assert list(found) == sorted(found)
    limits, features, types = found[0x0000], found[0x0106], found[0x0108]
    assert int.from_bytes(limits[6:8]) == MAXIMUM_RANGES
    assert (int.from_bytes(limits[8:12]), int.from_bytes(limits[12:16])) == (600, 60)
    assert int.from_bytes(limits[16:24]) * 512 == int.from_bytes(features[44 + 8 : 44 + 16]) == MAXIMUM_BYTES
    assert int.from_bytes(limits[24:32]) * 512 == int.from_bytes(features[44 + 16 : 44 + 24])
    assert int.from_bytes(types[2:4]) == len(types) - 4 == 4 * 64
    commands = found[0x0001]
    assert {0x10, 0x11} <= set(commands[3 : 3 + commands[2]])
    await units.source.send_populate(populate_data((0, 1), timeout=600))
    await units.source.send_populate(populate_data((0, 1), timeout=601), expect=InvalidFieldInParameterList)


async def test_report_all_rod_tokens(units: Bench) -> None:
    """SPC-5, REPORT ALL ROD TOKENS: the management tokens of what this copy manager has made and still knows."""

    async def reported() -> list[bytes]:
        data = (await units.source.execute(cdb.report_all_rod_tokens(), read_length=1 << 20)).data_in
        assert int.from_bytes(data[:4]) == len(data) - 4
        assert data[4:8] == bytes(4)
        return [data[at : at + 96] for at in range(8, len(data), 96)]

    assert await reported() == []
    one, two = await units.source.populate((0, 8)), await units.other_source.populate((8, 8), lid=9)
    await units.destination.populate((0, 8))
    assert await reported() == [one[:96], two[:96]]
    cut = (await units.source.execute(cdb.report_all_rod_tokens(50), read_length=4096)).data_in
    assert (len(cut), int.from_bytes(cut[:4])) == (50, 4 + 2 * 96)
    await units.destination.write_token(one, (0, 8), flags=2)
    assert await reported() == [two[:96]]
    await units.source.write(10, 15, bytes(512))
    assert await reported() == []
