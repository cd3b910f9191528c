"""The designators of a logical unit, and of the target port and target device that an I_T nexus reaches it by (SPC-4 7.8.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi import designators
from tcm.scsi.designators import Association
from tcm.scsi.inquiry import ProtocolIdentifier

if TYPE_CHECKING:
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITNexus

_PROTOCOLS: dict[int, ProtocolIdentifier] = {protocol.value: protocol for protocol in ProtocolIdentifier}


def protocol_of(nexus: ITNexus) -> ProtocolIdentifier | None:
    """The transport protocol, which the initiator port's TransportID names; ``None`` without one, or for one not known here."""
    transport_id = nexus.initiator_port.transport_id
    return _PROTOCOLS.get(transport_id[0] & 0x0F) if transport_id else None


def device_name(name: str, protocol: ProtocolIdentifier | None) -> str:
    """A target device's name in the form of SCSI name strings (SPC-5 7.7.6.11)."""
    return f"naa.{name.replace(':', '')}" if protocol is ProtocolIdentifier.FCP else name


def port_designators(nexus: ITNexus) -> list[designators.Designator]:
    """The target port's and the target device's designators."""
    group, protocol = nexus.target_portal_group, protocol_of(nexus)
    name = device_name(group.target.name, protocol)
    # an iSCSI target port is a portal group of its target (RFC 7143 4.2.7.1); elsewhere the target's name is the port's
    port_name = f"{name},t,0x{group.tag:04x}" if protocol is ProtocolIdentifier.ISCSI else name
    named: list[designators.Designator] = []
    if protocol is ProtocolIdentifier.FCP:
        # its N_Port_Name (FCP-4 table 4)
        named = [designators.naa(bytes.fromhex(name.removeprefix("naa.")), Association.TARGET_PORT, protocol)]
    return [
        *named,
        designators.relative_target_port(group.relative_target_port_identifier, protocol),
        designators.scsi_name_string(port_name, Association.TARGET_PORT, protocol),
        designators.scsi_name_string(name, Association.TARGET_DEVICE, protocol),
    ]


def unit_designators(lu: LogicalUnit) -> list[designators.Designator]:
    """The logical unit's own designators."""
    return [
        designators.naa_6(lu.serial, lu.identity.company_id),
        designators.t10_vendor_id(lu.identity.vendor, lu.identity.product, lu.serial),
    ]
