"""Who a logical unit, its target port and its target device say they are."""

from __future__ import annotations

import pytest
from support.scsi import FIRST, make_lu, make_target
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.transport import LoopbackTransport

from tcm.scsi import designators
from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.scsi.designators import Association, DesignatorType
from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.scsi.lun import REPORT_LUNS_WELL_KNOWN
from tcm.scsi.transport_id import TransportId
from tcm.target.device import TargetDevice
from tcm.target.device_designators import port_designators
from tcm.target.device_server.identification import standard_data
from tcm.target.initiator_port import InitiatorPort

pytestmark = pytest.mark.anyio

TARGET = "naa.50014050000000aa"


async def test_device_identification_names_unit_port_and_device():
    """SPC-5 7.7.6.1: one designator at least for each association; NAA names the logical unit."""
    async with make_lu() as unit:
        port = make_target(unit, name=TARGET)
        client = ApplicationClient(port.connect(FIRST))
        await client.identify()
        found = designators.parse((await client.inquiry(0x83))[4:])
    by_association = {
        association: [each.type for each in found if each.association == association] for association in Association
    }
    assert by_association == {
        Association.LOGICAL_UNIT: [
            DesignatorType.NAA,
            DesignatorType.T10_VENDOR_ID,
        ],
        Association.TARGET_PORT: [
            DesignatorType.TARGET_PORT_GROUP,
            DesignatorType.RELATIVE_TARGET_PORT,
            DesignatorType.SCSI_NAME_STRING,
        ],
        Association.TARGET_DEVICE: [DesignatorType.SCSI_NAME_STRING],
    }
    assert found[-1].data.rstrip(b"\0") == TARGET.encode()
    assert {each.protocol for each in found if each.association} == {ProtocolIdentifier.SAS}


async def test_an_iscsi_target_port_is_a_portal_group():
    """RFC 7143 4.2.7.1: the port's name is the target's with its tag."""
    async with make_lu() as unit:
        device = TargetDevice("iqn.2003-01.org:t", "iscsi")
        group = device.add_portal_group(3)
        group.access = make_target().target_portal_group.access
        group.add_lun(0, unit)
        identity = TransportId(ProtocolIdentifier.ISCSI, "iqn.a:i", bytes(6)).pack()
        nexus = group.establish_nexus(InitiatorPort("iqn.a:i", bytes(6), identity), LoopbackTransport())
        names = [each.data.rstrip(b"\0") for each in port_designators(nexus) if each.type == DesignatorType.SCSI_NAME_STRING]
        assert names == [b"iqn.2003-01.org:t,t,0x0003", b"iqn.2003-01.org:t"]
        (itl,) = nexus.luns.values()
        assert standard_data(itl)[60:62] == b"\x09\x60", "iSCSI's version descriptor"
        assert not standard_data(itl)[6] & 0x10
        device.add_portal_group(4).add_lun(7, unit)
        assert standard_data(itl)[6] & 0x10, "MULTIP"
        nexus.lose()


async def test_the_well_known_unit_names_the_port():
    """SPC-5 8.1: INQUIRY with the Device Identification page; no designator of a logical unit."""
    async with make_lu() as unit:
        client = ApplicationClient(make_target(unit).connect(FIRST), REPORT_LUNS_WELL_KNOWN)
        assert (await client.inquiry(0x00)).hex() == "1e0000020083"
        page = await client.inquiry(0x83)
        assert page[0] == 0x1E
        assert Association.LOGICAL_UNIT not in {each.association for each in designators.parse(page[4:])}
        await client.inquiry(0x80, expect=InvalidFieldInCdb)


async def test_a_fabric_of_another_protocol():
    """A TransportID of a protocol that nothing here knows (SRP: 4h) names no protocol; INQUIRY answers all the same."""
    async with make_lu() as unit:
        device = TargetDevice("srp.t", "srp")
        group = device.add_portal_group(1)
        group.access = make_target().target_portal_group.access
        group.add_lun(0, unit)
        nexus = group.establish_nexus(InitiatorPort("srp.i", None, b"\x04" + bytes(23)), LoopbackTransport())
        (itl,) = nexus.luns.values()
        assert len(standard_data(itl)) == 96
        assert {each.protocol for each in port_designators(nexus)} == {None}
        nexus.lose()
