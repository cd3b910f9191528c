"""INQUIRY (SPC-5 6.6), VPD pages (SPC-5 7.7, SBC-4 6.6), REPORT LUNS (SPC-5 6.34)."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from support.memory import GatedMemory
from support.scsi import SECOND, logical_unit, make_lu, make_target, one_initiator, target
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi import lun as lun_codec
from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidOpcode, LogicalUnitNotSupported
from tcm.scsi.sense import SenseKey, Status
from tcm.target import unit_attention
from tcm.target.attributes import Identity
from tcm.target.reconfiguration import reconfigured

pytestmark = pytest.mark.anyio
PAGES = (0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2, 0xB3)


async def test_inquiry_standard(disk: ApplicationClient) -> None:
    """SPC-5 6.6.2: a direct access device, SPC-4 or later, response data format 2, command queuing, printable text."""
    data = await disk.inquiry()
    assert data[0] == 0
    assert data[1] == 0
    assert data[2] in {6, 7}
    assert data[3] & 0x0F == 2
    assert data[3] & 0xE0 == 0
    assert data[4] == len(data) - 5
    assert data[7] & 0x02
    assert len(data) >= 74
    for text in (data[8:16], data[16:32], data[32:36]):
        assert all(0x20 <= byte <= 0x7E for byte in text)
        assert text.strip()


async def test_inquiry_version_descriptors(disk: ApplicationClient) -> None:
    """SPC-5 6.6.2: the standards: an SPC, an SBC, a SAM."""
    data = await disk.inquiry()
    versions = {int.from_bytes(data[i : i + 2], "big") for i in range(58, 74, 2)} - {0}
    assert any(0x0040 <= version <= 0x00BF for version in versions), "SAM"
    assert any(version >> 5 in {0x260 >> 5, 0x300 >> 5, 0x460 >> 5, 0x5C0 >> 5} for version in versions), "SPC"
    assert any(version >> 5 in {0x320 >> 5, 0x4C0 >> 5, 0x600 >> 5} for version in versions), "SBC"


async def test_inquiry_removable(disk: ApplicationClient, removable: ApplicationClient) -> None:
    """SPC-5 6.6.2: RMB."""
    assert (await disk.inquiry())[1] == 0x00
    assert (await removable.inquiry())[1] == 0x80


async def test_inquiry_allocation_length(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.6: every allocation length truncates; it has 16 bits."""
    full = await disk.inquiry(allocation_length=512)
    for length in (0, 1, 4, 5, 36, 95, 96, 255, 256, 511, 65535):
        result = await disk.execute(cdb.inquiry(None, length), read_length=length)
        assert result.data_in == full[:length]
        assert result.residual == length - len(result.data_in)
        assert not result.overflow


async def test_inquiry_page_code_without_evpd(disk: ApplicationClient) -> None:
    """SPC-5 6.6.1: EVPD zero and a PAGE CODE is INVALID FIELD IN CDB."""
    await disk.inquiry(0x01, evpd=False, expect=InvalidFieldInCdb)
    await disk.inquiry(0x83, evpd=False, expect=InvalidFieldInCdb)


async def test_inquiry_cmddt(disk: ApplicationClient) -> None:
    """SPC-5 6.6.1: bit 1 of byte 1 (obsolete CMDDT) is refused."""
    await disk.execute(bytes((0x12, 0x02, 0, 0, 96, 0)), read_length=96, expect=InvalidFieldInCdb)


async def test_inquiry_logical_unit_number_of_scsi_2(disk: ApplicationClient) -> None:
    """SCSI-2 7.2.2: bits 7 to 5 of byte 1 were the LUN; hosts fill it in that do not know yet what they talk to."""
    for number in range(8):
        result = await disk.execute(bytes((0x12, number << 5, 0, 0, 36, 0)), read_length=36)
        assert result.data_in == await disk.inquiry(allocation_length=36)


async def test_vpd_supported_pages(disk: ApplicationClient) -> None:
    """SPC-5 7.7.16: page 00h lists in ascending order exactly the pages that can be had."""
    data = await disk.inquiry(0x00)
    assert data[:2] == b"\0\0"
    listed = list(data[4:])
    assert int.from_bytes(data[2:4], "big") == len(listed)
    assert listed == sorted(listed)
    assert set(PAGES) <= set(listed)
    for page in range(256):
        if page in listed:
            data = await disk.inquiry(page)
            assert data[:2] == bytes((0, page))
            assert int.from_bytes(data[2:4], "big") == len(data) - 4
        else:
            await disk.inquiry(page, expect=InvalidFieldInCdb)


@pytest.mark.parametrize("page", PAGES)
async def test_vpd_allocation_length(disk: ApplicationClient, page: int) -> None:
    """SPC-5 4.2.5.6: every page is truncated; its PAGE LENGTH is not."""
    full = await disk.inquiry(page)
    for length in (0, 3, 4, 8, 20, 255, 4096):
        result = await disk.execute(cdb.inquiry(page, length), read_length=length)
        assert result.data_in == full[:length]


async def test_vpd_unit_serial_number() -> None:
    """SPC-5 7.7.17: the configured serial number, another for every logical unit."""
    serial = "0d1e2f30-1111-2222-3333-444455556666"
    async with make_lu(serial=serial) as unit:
        disk = ApplicationClient(make_target(unit).connect())
        data = await disk.inquiry(0x80)
        text = data[4:].decode("ascii")
        assert text.replace("-", "") == serial.replace("-", "")
        disk.initiator.disconnect()


def designators(page: bytes) -> list[tuple[int, int, int, bytes]]:
    """(association, type, code set, identifier) of page 83h."""
    found, at = [], 4
    while at < len(page):
        length = page[at + 3]
        found.append((page[at + 1] >> 4 & 3, page[at + 1] & 0xF, page[at] & 0xF, page[at + 4 : at + 4 + length]))
        at += 4 + length
    assert at == len(page)
    return found


async def test_vpd_device_identification() -> None:
    """SPC-5 7.7.6, SBC-4 6.6.1: a name of the unit that differs from every other's and is the same through every path."""
    async with target(None, None) as port:
        one, two = port.connect(), port.connect(SECOND)
        pages = {
            (initiator.name, lun): await ApplicationClient(initiator, lun).inquiry(0x83)
            for initiator in (one, two)
            for lun in (0, 1)
        }
        assert pages[one.name, 0] == pages[two.name, 0]
        units = {
            lun: {entry for entry in designators(pages[one.name, lun]) if entry[0] == 0 and entry[1] in {1, 2, 3, 8}}
            for lun in (0, 1)
        }
        assert units[0]
        assert not units[0] & units[1]
        naa = [entry for entry in units[0] if entry[1] == 3]
        assert naa
        assert all(entry[3][0] >> 4 in {2, 3, 5, 6} and len(entry[3]) in {8, 16} for entry in naa)
        assert any(entry[0] == 1 and entry[1] == 4 for entry in designators(pages[one.name, 0])), "relative target port"


async def test_vpd_extended_inquiry(disk: ApplicationClient) -> None:
    """SPC-5 7.7.7: 64 bytes; the task attributes of the task set; protection types 1 to 3, if there is room."""
    data = await disk.inquiry(0x86)
    assert len(data) == 64
    assert (data[4] & 0x3F, data[7]) == (0b111111, 0x21), "SPT, GRD_CHK, APP_CHK, REF_CHK; NO_PI_CHK, P_I_I_SUP, LUICLR"
    assert (await disk.inquiry())[5] & 0x01
    assert data[5] & 0x07 == 0x07
    assert not data[6] & 0x01, "V_SUP: a ramdisk has no volatile cache in front of it"
    async with one_initiator(GatedMemory()) as cached:
        data = await cached.inquiry(0x86)
        assert data[6] & 0x01
        assert (data[4] & 0x3F, data[7], (await cached.inquiry())[5] & 0x01) == (0, 0x01, 0)


async def test_vpd_block_limits(disk: ApplicationClient) -> None:
    """SBC-4 6.6.4: 64 bytes of limits that agree with one another."""
    data = await disk.inquiry(0xB0)
    assert len(data) == 64

    def number(start: int, size: int = 4) -> int:
        return int.from_bytes(data[start : start + size], "big")

    maximum = number(8)
    assert maximum >= 2048
    assert number(12) <= maximum
    assert 1 <= data[5] <= maximum
    assert number(6, 2) == 8
    assert number(28) == 8
    assert number(36, 8) >= 256
    assert number(44) <= maximum


async def test_vpd_block_limits_enforced() -> None:
    """SBC-4 6.6.4: reads, VERIFY and writes keep the limits that the page states; PRE-FETCH has none."""
    async with one_initiator(hw_max_sectors=32) as disk:
        data = await disk.inquiry(0xB0)
        assert int.from_bytes(data[8:12], "big") == 32
        zeroes = bytes(33 * 512)
        await disk.read(10, 0, 33, expect=InvalidFieldInCdb)
        await disk.write(10, 0, zeroes, expect=InvalidFieldInCdb)
        await disk.write_and_verify(10, 0, zeroes, expect=InvalidFieldInCdb)
        await disk.verify(10, 0, 33, zeroes, bytchk=1, expect=InvalidFieldInCdb)
        await disk.orwrite(0, zeroes, expect=InvalidFieldInCdb)
        await disk.write_atomic(0, zeroes, expect=InvalidFieldInCdb)
        assert int.from_bytes(data[16:20], "big") == 0, "MAXIMUM PREFETCH LENGTH: no limit"
        await disk.execute(cdb.pre_fetch(10, 0, 33), expect=Status.CONDITION_MET)


async def test_vpd_block_device_characteristics() -> None:
    """SBC-4 6.6.2: 64 bytes; MEDIUM ROTATION RATE 1 is a non-rotating medium."""
    for nonrotating, rates in ((True, {1}), (False, {0, *range(0x401, 0xFFFF)})):
        async with one_initiator(is_nonrot=nonrotating) as disk:
            data = await disk.inquiry(0xB1)
            assert len(data) == 64
            assert int.from_bytes(data[4:6], "big") in rates


async def test_vpd_logical_block_provisioning(disk: ApplicationClient) -> None:
    """SBC-4 6.6.6: LBPU, LBPWS, LBPWS10 and LBPRZ with PROVISIONING TYPE thin; none and full for a thick unit."""
    data = await disk.inquiry(0xB2)
    assert data[5] & 0xE0 == 0xE0
    assert data[5] >> 2 & 0x07 == 1
    assert data[6] & 0x07 == 2
    async with one_initiator(GatedMemory(thin=False)) as thick:
        data = await thick.inquiry(0xB2)
        assert data[5] & 0xE0 == 0
        assert data[6] & 0x07 in {0, 1}


async def test_inquiry_unsupported_lun(disk: ApplicationClient) -> None:
    """SPC-5 6.6.2: a LUN that does not exist: peripheral qualifier 011b, device type 1Fh, for INQUIRY of every kind."""
    nobody = ApplicationClient(disk.initiator, 7)
    data = await nobody.inquiry()
    assert data[0] == 0x7F
    assert data[4] == len(data) - 5
    await nobody.inquiry(1, evpd=False, expect=InvalidFieldInCdb)


async def test_unsupported_lun_commands(disk: ApplicationClient) -> None:
    """SPC-5 5.12, SAM-5 4.6.4: REPORT LUNS and REQUEST SENSE work there, anything else is LOGICAL UNIT NOT SUPPORTED."""
    nobody = ApplicationClient(disk.initiator, 7)
    assert await nobody.report_luns() == [lun_codec.encode(0)]
    sense = await nobody.request_sense()
    assert (sense[0] & 0x7F, sense[2] & 0xF, sense[12], sense[13]) == (0x70, SenseKey.ILLEGAL_REQUEST, 0x25, 0x00)
    await nobody.test_unit_ready(expect=LogicalUnitNotSupported)
    await nobody.read(10, 0, 1, expect=LogicalUnitNotSupported)
    await nobody.write(10, 0, bytes(512), expect=LogicalUnitNotSupported)
    await nobody.mode_sense(6, 0x3F, expect=LogicalUnitNotSupported)
    await nobody.execute(bytes((0xFF, *bytes(15))), expect=LogicalUnitNotSupported)
    for command in (cdb.inquiry(), cdb.report_luns(), cdb.request_sense()):
        await nobody.execute(command[:1] + bytes((command[1] | 0x10,)) + command[2:], read_length=64, expect=InvalidFieldInCdb)


@pytest.mark.parametrize("field", ["0001000000000001", "ffffffffffffffff", "c102000000000000", "8001000000000000"])
async def test_unsupported_lun_formats(disk: ApplicationClient, field: str) -> None:
    """SAM-5 4.7: LUN fields of a kind that the target has none of."""
    nobody = ApplicationClient(disk.initiator, bytes.fromhex(field))
    await nobody.test_unit_ready(expect=LogicalUnitNotSupported)
    assert (await nobody.inquiry())[0] == 0x7F


async def test_report_luns_simple() -> None:
    """SPC-5 6.34: SELECT REPORT 00h: the LUNs, in order; LUN LIST LENGTH counts them all."""
    async with target(None, None, None) as port:
        disk = ApplicationClient(port.connect())
        luns = [lun_codec.encode(i) for i in range(3)]
        assert await disk.report_luns(0) == luns
        data = (await disk.execute(cdb.report_luns(0, 16), read_length=16)).data_in
        assert data == (24).to_bytes(4, "big") + bytes(4) + luns[0]


async def test_report_luns_select_report(disk: ApplicationClient) -> None:
    """SPC-5 table 199: 01h well-known units only, 02h all, 10h administrative, 11h and 12h, the rest is refused."""
    plain = [lun_codec.encode(0)]
    known = set(await disk.report_luns(1))
    assert known <= {lun_codec.REPORT_LUNS_WELL_KNOWN}
    assert set(await disk.report_luns(2)) == set(plain) | known
    assert await disk.report_luns(0x10) == []
    assert set(await disk.report_luns(0x11)) <= set(plain)
    assert set(await disk.report_luns(0x12)) <= set(plain)
    for reserved in (3, 0x0F, 0x13, 0x7F, 0xF7):
        await disk.report_luns(reserved, expect=InvalidFieldInCdb)


async def test_report_luns_allocation_length(disk: ApplicationClient) -> None:
    """SPC-5 6.34: less than 16 bytes may be refused or truncated; never more than was asked for."""
    for length in (0, 4, 8, 15):
        result = await disk.execute(cdb.report_luns(0, length), read_length=length, expect=None)
        assert len(result.data_in) <= length
        assert not result.overflow


async def test_report_luns_well_known_unit(disk: ApplicationClient) -> None:
    """SPC-5 8.2: the REPORT LUNS well-known unit serves REPORT LUNS, INQUIRY, TEST UNIT READY, REQUEST SENSE and no READ."""
    known = ApplicationClient(disk.initiator, lun_codec.REPORT_LUNS_WELL_KNOWN)
    if lun_codec.REPORT_LUNS_WELL_KNOWN in await disk.report_luns(2):
        assert await known.report_luns() == [lun_codec.encode(0)]
        assert (await known.inquiry())[0] == 0x1E
        await known.test_unit_ready()
        await known.request_sense()
    result = await known.read(10, 0, 1, expect=None)
    assert result.sense is not None
    assert result.sense.key is SenseKey.ILLEGAL_REQUEST


async def test_report_luns_data_has_changed() -> None:
    """SPC-5 6.34, SAM-5 5.14: a LUN that comes or goes is a unit attention for the others; REPORT LUNS tells and clears it."""
    async with target(None) as port, make_lu(serial=str(uuid.UUID(int=5))) as extra:
        disk = ApplicationClient(port.connect())
        await disk.identify()
        port.target_portal_group.add_lun(5, extra)
        assert await disk.report_luns() == [lun_codec.encode(0), lun_codec.encode(5)]
        await disk.test_unit_ready()
        second = ApplicationClient(disk.initiator, 5)
        await second.identify()
        await second.read(10, 0, 1)
        await disk.identify()
        port.target_portal_group.remove_lun(5)
        await disk.test_unit_ready(expect=unit_attention.REPORTED_LUNS_DATA_HAS_CHANGED)
        await second.test_unit_ready(expect=LogicalUnitNotSupported)
        assert await disk.report_luns() == [lun_codec.encode(0)]


async def test_report_luns_data_has_changed_is_told_once() -> None:
    """SPC-4 7.8.7, LUICLR: told for one logical unit, by CHECK CONDITION or REQUEST SENSE, it is pending for no other."""
    async with (
        target(None) as port,
        make_lu(serial=str(uuid.UUID(int=5))) as extra,
        make_lu(serial=str(uuid.UUID(int=6))) as last,
    ):
        group = port.target_portal_group
        group.add_lun(5, extra)
        nexuses = [port.connect() for _ in range(2)]
        disks = [[ApplicationClient(nexus, number) for number in (0, 5)] for nexus in nexuses]
        for first, second in disks:
            await first.identify()
            await second.identify()
        group.add_lun(6, last)
        await disks[0][1].test_unit_ready(expect=unit_attention.REPORTED_LUNS_DATA_HAS_CHANGED)
        await disks[0][0].test_unit_ready()
        assert (await disks[1][0].request_sense())[12:14] == b"\x3f\x0e", "another I_T nexus"
        await disks[1][1].test_unit_ready()


async def test_lun_flat_addressing(disk: ApplicationClient) -> None:
    """SAM-5 4.7.5: flat space addressing of a small LUN reaches the same logical unit."""
    flat = ApplicationClient(disk.initiator, bytes.fromhex("4000000000000000"))
    await flat.identify()
    assert await flat.inquiry(0x83) == await disk.inquiry(0x83)


async def test_uuid_serial_is_stable() -> None:
    """SPC-5 7.7.6: the same serial number gives the same designators after a restart."""
    serial = str(uuid.uuid5(uuid.NAMESPACE_DNS, "stable"))
    pages = []
    for _ in range(2):
        async with make_lu(serial=serial) as unit:
            initiator = make_target(unit).connect()
            entries = designators(await ApplicationClient(initiator).inquiry(0x83))
            pages.append([entry for entry in entries if entry[0] == 0])
            initiator.disconnect()
    assert pages[0] == pages[1]


async def test_inquiry_data_has_changed(pair: tuple[ApplicationClient, ApplicationClient]) -> None:
    """SPC-5 6.6: when INQUIRY says something else, every I_T nexus hears of it; when it does not, nobody does."""
    unit = logical_unit(pair[0])
    with reconfigured(unit):
        unit.identity = Identity(revision="0002")
    for client in pair:
        await client.test_unit_ready(expect=unit_attention.INQUIRY_DATA_HAS_CHANGED)
        assert (await client.inquiry())[32:36] == b"0002"
        assert (await client.test_unit_ready()).sense is None
    with reconfigured(unit):
        unit.identity = Identity(revision="0002")
        unit.attributes = replace(unit.attributes, queue_depth=17)
    assert unit.task_set.depth == 17
    for client in pair:
        await client.test_unit_ready()


async def test_inquiry_data_has_changed_with_attributes(disk: ApplicationClient) -> None:
    """SPC-5 6.6: what follows from attributes (pages B0h and B2h, commands, limits) changes with them."""
    unit = logical_unit(disk)
    disk.initiator.express = True
    with reconfigured(unit):
        unit.attributes = replace(unit.attributes, emulate_tpu=False, hw_max_sectors=8)
    await disk.test_unit_ready(expect=unit_attention.INQUIRY_DATA_HAS_CHANGED)
    assert not (await disk.inquiry(0xB2))[5] & 0x80
    assert int.from_bytes((await disk.inquiry(0xB0))[8:12], "big") == 8
    await disk.unmap((0, 8), expect=InvalidOpcode)
    await disk.read(16, 0, 8)
    await disk.read(16, 0, 9, expect=InvalidFieldInCdb)


async def test_inquiry_data_has_changed_with_ports(disk: ApplicationClient) -> None:
    """SPC-5 6.6.2: MULTIP: another port of the target now reaches the logical unit, and then no more."""
    unit = logical_unit(disk)
    assert disk.initiator.nexus is not None
    group = disk.initiator.nexus.target_portal_group.target.add_portal_group(2)
    group.add_lun(5, unit)
    await disk.test_unit_ready(expect=unit_attention.INQUIRY_DATA_HAS_CHANGED)
    assert (await disk.inquiry())[6] & 0x10
    group.remove_lun(5)
    await disk.test_unit_ready(expect=unit_attention.INQUIRY_DATA_HAS_CHANGED)
    assert not (await disk.inquiry())[6] & 0x10
