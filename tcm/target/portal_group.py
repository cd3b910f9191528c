"""A target port: its LUNs, who may log in, and the I_T nexuses that end there (SAM-5 4.6; LIO's ``tpgt_N``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcm.scsi import lun as lun_codec
from tcm.target.counters import retire
from tcm.target.lun import Lun, MappedLun
from tcm.target.nexus import ITNexus
from tcm.target.node_acl import AccessControl, Authentication, NodeAcl
from tcm.target.port_identifiers import PORT_IDENTIFIERS
from tcm.target.reconfiguration import reconfigured
from tcm.target.unit_attention import REPORTED_LUNS_DATA_HAS_CHANGED

if TYPE_CHECKING:
    from tcm.fabric import ProtocolModePages, TransportServices
    from tcm.target.device import TargetDevice
    from tcm.target.initiator_port import InitiatorPort
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus


class NexusRefused(Exception):
    """An initiator port may not log in. The message is for the log."""


@dataclass(frozen=True, slots=True)
class NetworkPortal:
    """Where a portal group listens."""

    address: str
    port: int


class TargetPortalGroup:
    """A target port: where I_T nexuses end."""

    def __init__(self, target: TargetDevice, tag: int) -> None:
        # core only
        self.target = target
        self.tag = tag
        self.relative_target_port_identifier = PORT_IDENTIFIERS.take(self)
        """Unique in the process (SAM-5 4.6.5.2); changed by :meth:`identify`."""
        self.nexuses: set[ITNexus] = set()
        self.busy_statuses = 0
        """Commands that ended in BUSY."""
        self.luns: dict[int, Lun] = {}
        self.node_acls: dict[str, NodeAcl] = {}
        # set by the configuration, read by the fabric
        self.enabled = True
        self.draining = False
        """It is about to go: nobody may log in."""
        self.portals: list[NetworkPortal] = []
        self.access = AccessControl()
        self.attributes: Any = None
        """The fabric's ``tpg_attributes`` dataclass."""
        self.parameters: Any = None
        """The fabric's ``tpg_parameters`` dataclass."""
        self.dynamic_acl_attributes: Any = None
        """The fabric's ``acl_attributes`` of node ACLs that demo mode makes; ``None``: the fabric's defaults."""
        self.authentication = Authentication()
        # set by the fabric
        self.protocol_mode_pages: ProtocolModePages | None = None
        """Mode pages that are the protocol's own."""

    def identify(self, identifier: int | None) -> None:
        """Another RELATIVE TARGET PORT IDENTIFIER, which no other port of the process has; ``None``: it has none any more."""
        PORT_IDENTIFIERS.release(self, self.relative_target_port_identifier)
        if identifier is not None:
            self.relative_target_port_identifier = PORT_IDENTIFIERS.take(self, identifier)

    def take_identifier(self) -> None:
        """The lowest one that is free. Raises :class:`ValueError` if all are taken."""
        self.relative_target_port_identifier = PORT_IDENTIFIERS.take(self)

    # LUNs

    def add_lun(self, number: int, logical_unit: LogicalUnit, alias: str = "") -> Lun:
        """Export a logical unit. Raises :class:`ValueError` if the number is taken or cannot be written in a LUN field."""
        lun_codec.encode(number)
        if number in self.luns:
            raise ValueError(f"LUN {number} of {self.target.name} is taken by {self.luns[number].logical_unit.name}")
        with reconfigured(logical_unit):  # MULTIP of standard INQUIRY data
            lun = self.luns[number] = Lun(number, logical_unit, self, alias)
            logical_unit.ports.append(self)
            logical_unit.asymmetric_access.join(lun)
        for acl in self.node_acls.values():
            if acl.dynamic:
                mapped = self.map_lun(acl, number, number, write_protect=self.access.demo_mode_write_protect)
                mapped.dynamic = True
        return lun

    def remove_lun(self, number: int) -> None:
        """Take a LUN away from every initiator: tasks there are aborted, registrations dropped. Raises :class:`KeyError`."""
        unit = self.luns[number].logical_unit
        with reconfigured(unit):
            lun = self.luns.pop(number)
            unit.ports.remove(self)
        for acl in self.node_acls.values():
            for mapped in [mapped for mapped in acl.mapped_luns.values() if mapped.lun is lun]:
                self.unmap_lun(acl, mapped.number)
        unit.asymmetric_access.leave(lun)
        if self not in unit.ports:
            unit.persistent_reservations.forget(self)

    def map_lun(
        self, acl: NodeAcl, number: int, lun_number: int, *, write_protect: bool | None = None, alias: str = ""
    ) -> MappedLun:
        """Show LUN ``lun_number`` of this group to an initiator as ``number``, now if it is logged in.

        What demo mode has mapped for an initiator whose node ACL is explicit since stays as it is, and is explicit too.

        :param write_protect: ``None``: as ``prod_mode_write_protect`` says.

        Raises :class:`KeyError` if there is no such LUN, :class:`ValueError` if the number is taken.
        """
        lun_codec.encode(number)
        if write_protect is None:
            write_protect = self.access.prod_mode_write_protect
        there = acl.mapped_luns.get(number)
        if there is not None and there.dynamic and not acl.dynamic and there.lun is self.luns[lun_number]:
            there.dynamic, there.alias = False, alias
            self.protect_lun(acl, number, write_protect=write_protect)
            return there
        if there is not None:
            raise ValueError(f"LUN {number} of {acl.initiator_name} is taken by LUN {there.lun.number}")
        mapped = acl.mapped_luns[number] = MappedLun(number, self.luns[lun_number], write_protect, alias)
        for nexus in self._nexuses_of(acl):
            nexus.add_lun(number, mapped.lun, write_protect=write_protect)
            mapped.attached += 1
            self._luns_changed(nexus, number)
        return mapped

    def unmap_lun(self, acl: NodeAcl, number: int) -> None:
        """Hide a LUN from an initiator, now; its registration is dropped. Raises :class:`KeyError`."""
        unit = acl.mapped_luns.pop(number).lun.logical_unit
        for nexus in self._nexuses_of(acl):
            itl = nexus.find_lun(lun_codec.encode(number))
            if itl is not None:
                nexus.remove_lun(itl)
                self._luns_changed(nexus, number)
        if all(mapped.lun.logical_unit is not unit for mapped in acl.mapped_luns.values()):
            unit.persistent_reservations.forget(self, acl.initiator_name)

    def protect_lun(self, acl: NodeAcl, number: int, *, write_protect: bool) -> None:
        """Let an initiator write to a LUN, or not any more, from the next command on. Raises :class:`KeyError`."""
        acl.mapped_luns[number].write_protect = write_protect
        for nexus in self._nexuses_of(acl):
            itl = nexus.find_lun(lun_codec.encode(number))
            if itl is not None:
                itl.write_protect = write_protect
                itl.rebuild_express()

    def _nexuses_of(self, acl: NodeAcl) -> list[ITNexus]:
        return [nexus for nexus in self.nexuses if nexus.initiator_port.name == acl.initiator_name]

    def _luns_changed(self, nexus: ITNexus, number: int) -> None:
        for itl in nexus.luns.values():
            if itl.lun_number != number:
                itl.establish_attention(REPORTED_LUNS_DATA_HAS_CHANGED)

    # initiators

    def add_node_acl(self, initiator_name: str) -> NodeAcl:
        """An explicit node ACL, without LUNs at first; a dynamic one that is there becomes explicit and keeps its LUNs."""
        acl = self.node_acls.get(initiator_name)
        if acl is None:
            acl = self.node_acls[initiator_name] = NodeAcl(initiator_name)
        acl.dynamic = False
        return acl

    def remove_node_acl(self, initiator_name: str) -> None:
        """Take an initiator's rights away, and its nexuses and registrations with them. Raises :class:`KeyError`."""
        acl = self.node_acls.pop(initiator_name)
        for nexus in self._nexuses_of(acl):
            nexus.lose()
        for unit in {mapped.lun.logical_unit for mapped in acl.mapped_luns.values()}:
            unit.persistent_reservations.forget(self, initiator_name)

    def find_node_acl(self, initiator_name: str) -> NodeAcl | None:
        """The node ACL of an initiator, dynamic ones included."""
        return self.node_acls.get(initiator_name)

    def admits(self, initiator_name: str) -> bool:
        """Whether :meth:`establish_nexus` would let this initiator in.

        Who came in by demo mode and has left is a stranger once that is off, though its node ACL may be cached.
        """
        if not self.enabled or self.access.generate_node_acls:
            return self.enabled
        acl = self.node_acls.get(initiator_name)
        return acl is not None and (not acl.dynamic or bool(self._nexuses_of(acl)))

    def drains(self, initiator_name: str) -> bool:
        """Whether an initiator that is admitted may not log in for a while."""
        acl = self.node_acls.get(initiator_name)
        return self.draining or (acl is not None and acl.draining)

    def establish_nexus(self, initiator_port: InitiatorPort, services: TransportServices) -> ITNexus:
        """An initiator port has logged in. A nexus that it has already is the fabric's to lose first.

        Raises :class:`NexusRefused` if there is no node ACL for it and no demo mode, or the portal group is disabled, or one
        of both drained.
        """
        name = initiator_port.name
        if not self.admits(name):
            why = "has no node ACL, and demo mode is off" if self.enabled else "came to a disabled portal group"
            raise NexusRefused(f"{name} {why}: {self.target.name}, tag {self.tag}")
        if self.drains(name):
            raise NexusRefused(f"{name} came to what is about to be removed: {self.target.name}, tag {self.tag}")
        acl = self.node_acls.get(name) or self._demo_acl(name)
        nexus = ITNexus(initiator_port, self, services)
        for mapped in acl.mapped_luns.values():
            nexus.add_lun(mapped.number, mapped.lun, write_protect=mapped.write_protect)
            mapped.attached += 1
        acl.attached += 1
        self.nexuses.add(nexus)
        if self.target.nexus_established is not None:
            self.target.nexus_established(nexus)
        return nexus

    def retire(self, itl: ITLNexus) -> None:
        """Called by :meth:`ITNexus.remove_lun`: what the I_T_L nexus has counted stays with its LUN and its mapped LUN."""
        retire(itl.exported.retired, itl)
        acl = self.node_acls.get(itl.nexus.initiator_port.name)
        mapped = acl.mapped_luns.get(itl.lun_number) if acl is not None else None
        if mapped is not None and mapped.lun is itl.exported:
            retire(mapped.retired, itl)

    def nexus_lost(self, nexus: ITNexus) -> None:
        """Called by :meth:`ITNexus.lose`."""
        self.nexuses.discard(nexus)
        acl = self.node_acls.get(nexus.initiator_port.name)
        if acl is not None and acl.dynamic and not self.access.cache_dynamic_acls and not self._nexuses_of(acl):
            del self.node_acls[acl.initiator_name]
        if self.target.nexus_lost is not None:
            self.target.nexus_lost(nexus)

    def _demo_acl(self, initiator_name: str) -> NodeAcl:
        acl = self.node_acls[initiator_name] = NodeAcl(initiator_name, attributes=self.dynamic_acl_attributes, dynamic=True)
        protect = self.access.demo_mode_write_protect
        acl.mapped_luns = {number: MappedLun(number, lun, protect, dynamic=True) for number, lun in self.luns.items()}
        return acl
