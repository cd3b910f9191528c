"""The one validated model of what to serve. :mod:`tcm.saveconfig` and the command line make it, :mod:`tcm.runtime` runs it.

Everything in it has been checked: names are in the fabric's normal form, options are instances of the plug-in's dataclass
for which ``check_config`` has passed, numbers are unique and every reference leads somewhere.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tcm.failure import ConfigError
from tcm.options import build, one_line
from tcm.scsi.asymmetric_access import AccessState, AccessStatus
from tcm.scsi.referrals import LbaMap
from tcm.target.attributes import DeviceAttributes, Identity
from tcm.target.node_acl import AccessControl, Authentication
from tcm.target.portal_group import NetworkPortal
from tcm.target.target_port_group import GroupAttributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tcm.plugin_types import FabricType
    from tcm.plugins import PluginManager

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

MAXIMUM_LUN = 65535
"""LIO's limit (lio-configfs 5.2)."""
MAXIMUM_TAG = 65535
MAXIMUM_TEXT = 511
"""Characters of ``alias`` and ``udev_path`` (lio-configfs 3)."""
MAXIMUM_SERIAL = 253
"""Characters of a unit serial (lio-configfs 3.4)."""
CHAP_SECRET_BYTES = 12
"""96 bits: RFC 7143 9.2.1 wants at least as many where the network is not protected otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterConfig:
    """A filter around a storage object."""

    type: str
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPortGroupConfig:
    """A target port group of a storage object."""

    name: str
    identifier: int
    """1 to 65535; 0 for the default group, which is always there."""
    attributes: GroupAttributes = field(default_factory=GroupAttributes)
    state: AccessState = AccessState.ACTIVE_OPTIMIZED
    status: AccessStatus = AccessStatus.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalUnitGroupConfig:
    """A logical unit group."""

    name: str
    identifier: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageObject:
    """What a logical unit is made of."""

    path: str
    """``/backstores/<plugin>/<name>``, unique: how LUNs and people refer to it."""
    name: str
    type: str
    """The backstore plug-in's name."""
    options: Any
    filters: tuple[FilterConfig, ...] = ()
    """Outermost first."""
    attributes: DeviceAttributes = field(default_factory=DeviceAttributes)
    identity: Identity = field(default_factory=Identity)
    alias: str = ""
    """Free text of its own (``alias`` in LIO's tree)."""
    udev_path: str | None = None
    """Free text too, where tools for LIO write the medium's path; ``None``: that path."""
    model_alias: bool | None = None
    """LIO's ``emulate_model_alias``: the product was named after the storage object; ``None``: if it has that name."""
    serial: str
    """Unit serial number, a UUID: the logical unit's identity, on which its NAA designator is made."""
    removable: bool = False
    read_only: bool = False
    target_port_groups: tuple[TargetPortGroupConfig, ...] = ()
    logical_unit_group: str | None = None
    """The name of one of the configuration's; ``None``: the default one."""
    lba_map: LbaMap | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LunConfig:
    """A LUN of a target portal group."""

    index: int
    storage_object: StorageObject
    alias: str = ""
    target_port_group: str | None = None
    """The name of one of the storage object's; ``None``: the default one."""
    offline: bool = False
    """The secondary access state."""
    offline_status: int = 0
    """How it came to be offline or online, as ``alua_tg_pt_status``."""
    write_metadata: bool = False
    """That state is kept through a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedLunConfig:
    """A LUN as one initiator sees it."""

    index: int
    tpg_lun: int
    write_protect: bool | None = None
    """``None``: as ``prod_mode_write_protect`` says."""
    alias: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAclConfig:
    """What one initiator may do."""

    initiator_name: str
    mapped_luns: tuple[MappedLunConfig, ...] = ()
    attributes: Any = None
    """The fabric's ``acl_attributes``."""
    parameters: Any = None
    """The fabric's ``tpg_parameters`` for this initiator; ``None``: those of the portal group."""
    own_parameters: Mapping[str, Any] = field(default_factory=dict)
    """Those of them that are not the portal group's, by name."""
    authentication: Authentication = field(default_factory=Authentication)
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalGroupConfig:
    """A target portal group."""

    tag: int
    relative_target_port_identifier: int | None = None
    """Unique among all targets, 1 to 65535; ``None``: one that is free."""
    enabled: bool = True
    attributes: Any = None
    """The fabric's ``tpg_attributes``."""
    parameters: Any = None
    """The fabric's ``tpg_parameters``."""
    dynamic_acl_attributes: Any = None
    """The fabric's ``acl_attributes`` for initiators that demo mode lets in; ``None``: their defaults."""
    authentication: Authentication = field(default_factory=Authentication)
    """For initiators without a node ACL of their own."""
    luns: tuple[LunConfig, ...] = ()
    portals: tuple[NetworkPortal, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Set once its fabric runs: :attr:`tcm.tree_types.FabricTree.portal_group_saved`."""
    node_acls: tuple[NodeAclConfig, ...] = ()

    @property
    def access(self) -> AccessControl:
        """Who gets in: :func:`access_of`."""
        return access_of(self.attributes)

    @property
    def authenticates(self) -> bool:
        """Whether initiators without a node ACL of their own must prove who they are."""
        return bool(getattr(self.attributes, "authentication", False))


def access_of(attributes: Any) -> AccessControl:
    """Who gets in, from the attributes that LIO's fabrics share. A fabric that has none lets everybody in, to write."""
    names = [each.name for each in dataclasses.fields(AccessControl) if hasattr(attributes, each.name)]
    if "generate_node_acls" not in names:
        return AccessControl(generate_node_acls=True, demo_mode_write_protect=False)
    return AccessControl(**{name: bool(getattr(attributes, name)) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """A target device."""

    name: str
    fabric: str
    portal_groups: tuple[PortalGroupConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricConfig:
    """A fabric to run."""

    name: str
    options: Any
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Set once it is made: files of its directory in LIO's tree (:attr:`tcm.tree_types.FabricTree.attributes`)."""
    discovery: Mapping[str, str] = field(default_factory=dict)
    """The same for its ``discovery_auth``: names and secrets that are kept, and not in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All there is to serve."""

    fabrics: tuple[FabricConfig, ...]
    storage_objects: tuple[StorageObject, ...]
    targets: tuple[TargetConfig, ...]
    logical_unit_groups: tuple[LogicalUnitGroupConfig, ...] = ()
    state_directory: str | None = None
    """Where logical units keep what has to survive a restart, made when needed: reservations with APTPL, target port groups'
    states, mode and log parameters, erasures under way, identifying information; ``None``: they keep nothing."""

    saved: Mapping[str, Any] | None = None
    """The content of the saveconfig.json, if what of it cannot be served is to be left out; ``None``: it is served whole."""

    def exposed(self) -> list[str]:
        """One sentence for each portal beyond loopback that lets anybody in, from anywhere."""
        return [
            f"portal {portal_text(portal)} of {target.name} is open to whoever can reach it: no authentication, no node ACLs"
            for target in self.targets
            for group in target.portal_groups
            for portal in group.portals
            if group.enabled
            and group.access.generate_node_acls
            and not group.authenticates
            and not getattr(group.attributes, "allowed_addresses", ())
            and not ipaddress.ip_address(portal.address).is_loopback
        ]


def portal_text(portal: NetworkPortal) -> str:
    """``127.0.0.1:3260``, ``[::1]:3260``."""
    return f"[{portal.address}]:{portal.port}" if ":" in portal.address else f"{portal.address}:{portal.port}"


def parse_portal(text: str, place: str, default_port: int) -> NetworkPortal:
    """``ADDR``, ``ADDR:PORT``, ``[V6]`` or ``[V6]:PORT``; port 0 is any free one."""
    help_text = f"write an address and a port such as 127.0.0.1:{default_port} or [::]:{default_port}"
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ConfigError(f"{place}: {text!r} is not a portal; {help_text}")
        port = port[1:] if port else str(default_port)
    elif text.count(":") > 1:
        raise ConfigError(f"{place}: {text!r}: an IPv6 address stands in brackets; write {_bracketed(text, default_port)}")
    else:
        address, colon, port = text.partition(":")
        port = port if colon else str(default_port)
    if not port.isascii() or not port.isdigit():
        raise ConfigError(f"{place}: {port!r} is not a port; {help_text}")
    return make_portal(address, int(port), place, help_text)


def _bracketed(text: str, default_port: int) -> str:
    """What somebody meant who wrote an IPv6 address without brackets: what follows it may be the port."""
    address, _, port = text.rpartition(":")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return f"[{text}]:{default_port}"
    return f"[{address}]:{port or default_port}"


def make_portal(address: str, port: int, place: str, help_text: str = "write an address such as 127.0.0.1") -> NetworkPortal:
    """A portal whose address is one and whose port is 0 to 65535."""
    try:
        checked = str(ipaddress.ip_address("127.0.0.1" if address == "localhost" else address))
    except ValueError:
        raise ConfigError(f"{place}: {address!r} is not an IP address; {help_text}") from None
    if not 0 <= port <= 65535:
        raise ConfigError(f"{place}: port {port} is out of range; write 1 to 65535, or 0 for any free one")
    return NetworkPortal(checked, port)


def make_serial(text: str, place: str) -> str:
    """A unit serial in the usual form of a UUID."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise ConfigError(
            f"{place}: {text!r} is not a UUID; write for example {uuid.uuid5(uuid.NAMESPACE_URL, text)}"
        ) from None


def check_serial(text: str) -> str:
    """Any unit serial that LIO's kernel takes; tools make UUIDs, cluster agents what they like. Raises ``ValueError``."""
    if not 0 < len(text) <= MAXIMUM_SERIAL or not text.isascii() or not text.isprintable() or "/" in text:
        raise ValueError(f"write 1 to {MAXIMUM_SERIAL} printable ASCII characters without a slash, best a UUID")
    return text


def saved_serial(text: str, place: str) -> str:
    """A unit serial that was in force once; a UUID in its usual form."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        pass
    try:
        return check_serial(text)
    except ValueError as error:
        raise ConfigError(f"{place}: {text[:60]!r}: {error}") from None


def check_entry(name: str, place: str, example: str) -> str:
    """A name that can be one of a directory or a link in LIO's tree."""
    if name in {".", ".."} or "/" in name or not name.isprintable() or not 0 < len(name.encode()) <= 255:
        raise ConfigError(f"{place}: {name[:60]!r}: write 1 to 255 printable characters without a slash, for example {example}")
    return name


def make_options(kind: Any, values: Mapping[str, object], prefix: str, *, looks: bool = True) -> Any:
    """Checked options for a descriptor of :mod:`tcm.plugin_types`.

    :param looks: at what is there too, such as files.
    """
    options = build(kind.options, values, prefix)
    if kind.check_config is not None and looks:
        named(prefix.rstrip(": ."), kind.check_config, options)
    return options


def named(place: str, check: Callable[[T], R], value: T) -> R:
    """``check(value)``, with ``place`` before the text of its :class:`ConfigError`."""
    try:
        return check(value)
    except ConfigError as error:
        raise ConfigError(f"{place}: {one_line(error)}") from error


def make_filter(
    plugins: PluginManager, name: str, values: Mapping[str, object], place: str, prefix: str, *, looks: bool = True
) -> FilterConfig:
    """A filter with checked options; ``looks`` as of :func:`make_options`."""
    kind = named(place, plugins.filter, name)
    return FilterConfig(type=name, options=make_options(kind, values, prefix, looks=looks))


def make_fabric(
    kind: FabricType, values: Mapping[str, object], prefix: str, discovery: Authentication | None = None
) -> FabricConfig:
    """A fabric with checked options.

    :param discovery: who may ask for the names of targets; for fabrics whose options have a field ``discovery_auth``.
    """
    values = dict(values)
    if discovery is not None:
        if not any(each.name == "discovery_auth" for each in dataclasses.fields(kind.options)):
            raise ConfigError(f"{prefix.rstrip(': .')}: fabric {kind.name} has no discovery authentication; leave it out")
        values["discovery_auth"] = discovery
    return FabricConfig(name=kind.name, options=make_options(kind, values, prefix))


def check_authentication(authentication: Authentication, place: str, *, saved: bool = False) -> Authentication:
    """Refuses what cannot work, and warns of secrets that are too short (RFC 7143 9.2.1).

    :param saved: it was in force once: names without secrets, which let nobody in, are warned of too.
    """

    def incomplete(text: str) -> None:
        if not saved:
            raise ConfigError(f"{place}: {text}")
        log.warning("%s: %s; until then nobody gets in by it", place, text)

    pairs = (
        ("CHAP", authentication.userid, authentication.password),
        ("mutual CHAP", authentication.userid_mutual, authentication.password_mutual),
    )
    for what, userid, password in pairs:
        if userid and not password:
            incomplete(f"{what} user {userid!r} has no secret; give one")
        if password and not userid:
            incomplete(f"a {what} secret without a user; give the user's name")
        if any(len(each.encode()) > 255 for each in (userid, password)):
            raise ConfigError(f"{place}: a {what} name or secret is longer than 255 bytes; write a shorter one")
        if password and len(password.encode()) < CHAP_SECRET_BYTES:
            log.warning(
                "%s: the %s secret of %r is shorter than %d bytes: it can be guessed from one captured login",
                place,
                what,
                userid,
                CHAP_SECRET_BYTES,
            )
    if authentication.userid_mutual and not authentication.userid:
        incomplete("mutual CHAP without CHAP; give the initiator's user and secret as well")
    if authentication.password and authentication.password == authentication.password_mutual:
        raise ConfigError(f"{place}: both directions have the same CHAP secret (RFC 7143 9.2.1 forbids it); change one")
    return authentication


def check_unique(places: Iterable[tuple[str, object]], what: str) -> None:
    """Raises :class:`ConfigError` if a value stands at two places."""
    seen: dict[object, str] = {}
    for place, value in places:
        if value in seen:
            raise ConfigError(f"{place}: {what} {value} is already at {seen[value]}; write another one")
        seen[value] = place
