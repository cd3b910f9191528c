"""The SCSI target device: portal groups, LUN maps, access control (SAM-5 4.6; LIO's ``tpgt_N``)."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from tcm.scsi import lun as lun_codec
from tcm.scsi.asymmetric_access import AccessState, AccessStatus
from tcm.scsi.mode_pages import ModePageValues
from tcm.target.access_metadata import FABRICS
from tcm.target.counters import retire, totals
from tcm.target.logical_unit import LogicalUnit
from tcm.target.nexus import ITNexus
from tcm.target.reconfiguration import reconfigured
from tcm.target.target_port_group import TargetPortGroup
from tcm.target.unit_attention import REPORTED_LUNS_DATA_HAS_CHANGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.fabric import ProtocolModePages, TransportServices
    from tcm.scsi.mode_pages import Key
    from tcm.target.nexus import ITLNexus

_target_indexes = itertools.count(1)
_acl_indexes = itertools.count(1)
_UNRESTRICTED = frozenset({AccessState.ACTIVE_OPTIMIZED, AccessState.ACTIVE_NON_OPTIMIZED})


class PortIdentifiers:
    """RELATIVE TARGET PORT IDENTIFIERs, each of one port at a time (SAM-5 4.6.5.2)."""

    def __init__(self, last: int = 65535) -> None:
        self.last = last
        self._ports: WeakValueDictionary[int, TargetPortalGroup] = WeakValueDictionary()
        self._lowest = 1
        """None below it is free, unless its port is gone without a word."""

    def take(self, port: TargetPortalGroup, wanted: int | None = None) -> int:
        """The lowest that is free, or the one that is wanted. Raises :class:`ValueError` if all are taken."""
        if wanted is None:
            numbers = itertools.chain(range(self._lowest, self.last + 1), range(1, self._lowest))
            wanted = next((number for number in numbers if number not in self._ports), None)
            if wanted is None:
                raise ValueError(f"all {self.last} relative target port identifiers are taken")
            self._lowest = wanted + 1
        self._ports[wanted] = port
        return wanted

    def release(self, port: TargetPortalGroup, identifier: int) -> None:
        """The port has it no more."""
        if self._ports.get(identifier) is port:
            del self._ports[identifier]
            self._lowest = min(self._lowest, identifier)


_port_identifiers = PortIdentifiers()


class NexusRefused(Exception):
    """An initiator port may not log in. The message is for the log."""


@dataclass(frozen=True, slots=True)
class InitiatorPort:
    """Who is at the other end."""

    name: str
    """Initiator port name as the fabric writes it, without ISID."""
    isid: bytes | None = None
    """iSCSI: 6 bytes, part of the port's name."""
    transport_id: bytes = b""
    """TransportID (SPC-5 7.6.4)."""
    address: str = ""
    """Where it is, for people."""


@dataclass(frozen=True, slots=True)
class AccessControl:
    """LIO's four attributes of demo mode (lio-configfs 4.3.3)."""

    generate_node_acls: bool = False
    """Demo mode: any initiator may log in, with a dynamic node ACL that maps all LUNs."""
    cache_dynamic_acls: bool = False
    """Dynamic node ACLs stay after the last nexus."""
    demo_mode_write_protect: bool = True
    """LUNs of dynamic node ACLs are write protected."""
    prod_mode_write_protect: bool = False
    """LUNs mapped to explicit node ACLs are write protected unless they say otherwise."""


@dataclass(frozen=True, slots=True)
class Authentication:
    """CHAP credentials; empty strings: not set."""

    userid: str = ""
    password: str = field(default="", repr=False)
    userid_mutual: str = ""
    password_mutual: str = field(default="", repr=False)

    @property
    def authenticate_target(self) -> bool:
        """The initiator wants the target to authenticate itself too."""
        return bool(self.userid_mutual and self.password_mutual)


@dataclass(frozen=True, slots=True)
class NetworkPortal:
    """Where a portal group listens."""

    address: str
    port: int


@dataclass(slots=True, eq=False)
class Lun:
    """A logical unit under a number of a portal group."""

    number: int
    logical_unit: LogicalUnit
    port: TargetPortalGroup
    alias: str = ""
    target_port_group: TargetPortGroup = field(init=False, repr=False)
    """The (ALUA) target port group; set and changed by :class:`AsymmetricAccess`."""
    offline: bool = False
    """The secondary access state is offline (LIO: ``alua_tg_pt_offline``)."""
    offline_status: AccessStatus = AccessStatus.NONE
    """Who brought that about (LIO: ``alua_tg_pt_status``)."""
    alua_tg_pt_write_md: bool = False
    """The secondary access state is kept through a restart."""
    draining: bool = False
    """It is about to go: new commands end in BUSY."""
    retired: Counter[str] = field(default_factory=Counter, repr=False)
    """What I_T_L nexuses that are gone have counted here."""

    _mode_pages: ModePageValues | None = field(default=None, init=False, repr=False)

    @property
    def mode_pages(self) -> ModePageValues | None:
        """Protocol-specific mode pages of the logical unit at this target port; ``None``: it has none."""
        protocol = self.port.protocol_mode_pages
        if self._mode_pages is None and protocol is not None:
            self._mode_pages = ModePageValues(protocol.pages, defaults=protocol.defaults)
        return self._mode_pages

    @property
    def changed_mode_pages(self) -> ModePageValues | None:
        """The same, if they do not have their default values."""
        values = self._mode_pages
        return values if values is not None and values.current != values.default else None

    def change_mode_pages(self, pages: Mapping[Key, bytes]) -> bool:
        """Make some of them current, and tell the fabric. Returns whether that changed anything."""
        values = self.mode_pages
        if values is None or all(values.current[key] == page for key, page in pages.items()):
            return False
        values.current = {**values.current, **pages}
        for itl in tuple(self.logical_unit.itl_nexuses):
            if itl.exported is self:
                itl.nexus.services.mode_pages_changed(itl.lun, values)
        return True

    def totals(self) -> Counter[str]:
        """All of :data:`~tcm.target.counters.COUNTERS`, of all initiators there are and were."""
        return totals(self.retired, (itl for itl in self.logical_unit.itl_nexuses if itl.exported is self))

    @property
    def access_state(self) -> AccessState:
        """How well the logical unit is reached here."""
        return AccessState.OFFLINE if self.offline else self.target_port_group.state

    @property
    def delay(self) -> float:
        """Seconds that a command waits here before it is executed."""
        return self.target_port_group.delay

    @property
    def restricted(self) -> bool:
        """Not every command is taken at once: an access state has to be asked for."""
        return bool(self.delay) or self.access_state not in _UNRESTRICTED

    @property
    def kept(self) -> bool:
        """The secondary access state is kept in the store."""
        store = self.logical_unit.store
        return store is not None and (self.alua_tg_pt_write_md or store.shared)

    @property
    def path(self) -> str:
        """``iSCSI/<name>/tpgt_1/lun_0``, as LIO writes it."""
        target = self.port.target
        return f"{FABRICS.get(target.fabric_name, target.fabric_name)}/{target.name}/tpgt_{self.port.tag}/lun_{self.number}"


@dataclass(slots=True, eq=False)
class MappedLun:
    """A portal group's LUN as one initiator sees it."""

    number: int
    lun: Lun
    write_protect: bool = False
    alias: str = ""
    """The name of LIO's link."""
    dynamic: bool = False
    """Made by demo mode, and nobody has asked for it since."""
    created: float = field(default_factory=time.monotonic, repr=False)
    """When that was, on the monotonic clock."""
    attached: int = 0
    """How many nexuses of the initiator there have been."""
    retired: Counter[str] = field(default_factory=Counter, repr=False)
    """What I_T_L nexuses that are gone have counted."""


@dataclass(slots=True, eq=False)
class NodeAcl:
    """What one initiator may see."""

    initiator_name: str
    mapped_luns: dict[int, MappedLun] = field(default_factory=dict)
    attributes: Any = None
    """The fabric's dataclass (lio-configfs 4.3.6)."""
    parameters: Any = None
    """The fabric's ``tpg_parameters`` for this initiator; ``None``: those of the portal group."""
    own_parameters: Mapping[str, Any] = field(default_factory=dict)
    """Those of them that are not the portal group's, by name."""
    authentication: Authentication = field(default_factory=Authentication)
    cmdsn_depth: int = 64
    tag: str = ""
    dynamic: bool = False
    """Made by demo mode."""
    draining: bool = False
    """It is about to go: the initiator may not log in."""
    index: int = field(default_factory=lambda: next(_acl_indexes), repr=False)
    """Unique in the process."""
    created: float = field(default_factory=time.monotonic, repr=False)
    """When that was, on the monotonic clock."""
    attached: int = 0
    """How many nexuses there have been."""


class TargetPortalGroup:
    """A target port: where I_T nexuses end."""

    def __init__(self, target: TargetDevice, tag: int) -> None:
        # core only
        self.target = target
        self.tag = tag
        self.relative_target_port_identifier = _port_identifiers.take(self)
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
        _port_identifiers.release(self, self.relative_target_port_identifier)
        if identifier is not None:
            self.relative_target_port_identifier = _port_identifiers.take(self, identifier)

    def take_identifier(self) -> None:
        """The lowest one that is free. Raises :class:`ValueError` if all are taken."""
        self.relative_target_port_identifier = _port_identifiers.take(self)

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


class TargetDevice:
    """A SCSI target device under one name of one fabric."""

    def __init__(self, name: str, fabric_name: str) -> None:
        self.name = name
        self.fabric_name = fabric_name
        self.portal_groups: dict[int, TargetPortalGroup] = {}
        self.resets = 0
        """TARGET WARM RESET and TARGET COLD RESET functions."""
        self.index = next(_target_indexes)
        """Unique in the process."""
        self.created = time.monotonic()
        """When that was, on the monotonic clock."""
        self.peers: list[TargetDevice] = [self]
        """All target devices of the process, to whose units third-party copies may go (set by the runtime)."""
        self.nexus_established: Callable[[ITNexus], None] | None = None
        """Told of every new nexus (set by the runtime)."""
        self.nexus_lost: Callable[[ITNexus], None] | None = None
        """Told of every lost nexus (set by the runtime)."""
        self.unhandled_error: Callable[[str, BaseException], None] | None = None
        """For the fabric to tell of what nobody expected, besides the log (set by the runtime)."""

    def add_portal_group(self, tag: int) -> TargetPortalGroup:
        """A new target portal group. Raises :class:`ValueError` if the tag is taken."""
        if tag in self.portal_groups:
            raise ValueError(f"{self.name} has a portal group {tag} already")
        group = self.portal_groups[tag] = TargetPortalGroup(self, tag)
        return group

    def remove_portal_group(self, tag: int) -> None:
        """One that nobody uses any more. Raises :class:`KeyError`."""
        self.portal_groups.pop(tag).identify(None)
