"""What fabrics and backstores declare for LIO's ConfigFS tree, besides the dataclasses of their options and attributes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tcm.fabric_statistics import LioGroup

if TYPE_CHECKING:
    from tcm.fabric import Fabric
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import NetworkPortal, TargetPortalGroup


@dataclass(frozen=True, slots=True)
class TreeAttribute:
    """A text file of the tree.

    What it is called with says which object is meant; the tables below say what that is.
    """

    show: Callable[[Any], str] | None = None
    """The value without a line end; ``None``: it can only be written. Raises ``OSError`` if it cannot be read now."""
    store: Callable[[Any, str], Awaitable[None] | None] | None = None
    """Sets it, from text without white space around it; ``None``: it can only be read.

    Raises :class:`tcm.failure.ConfigError` or ``ValueError`` for what it cannot be (EINVAL), ``OSError`` for the rest."""
    exact: bool = False
    """White space around the text belongs to it, but for one line end."""


Table = Mapping[str, TreeAttribute]


class PortalGroupPlace(NamedTuple):
    """A target portal group of a running fabric."""

    fabric: Fabric
    group: TargetPortalGroup


class PortalPlace(NamedTuple):
    """A network portal of a target portal group."""

    fabric: Fabric
    group: TargetPortalGroup
    portal: NetworkPortal


class NodeAclPlace(NamedTuple):
    """A node ACL of a target portal group."""

    fabric: Fabric
    group: TargetPortalGroup
    acl: NodeAcl


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricTree:
    """A fabric's part of the tree (lio-configfs 4)."""

    name: str = ""
    """The directory; empty: as the fabric is called."""
    attributes: Table = field(default_factory=dict)
    """In the fabric's directory; called with the :class:`tcm.fabric.Fabric`."""
    discovery: Table = field(default_factory=dict)
    """In its ``discovery_auth``; called with the fabric."""
    tags: range = range(65536)
    """Target portal group tags that there may be."""
    enable: bool = True
    """A portal group is switched on by ``enable``. Without it, it is on from the start."""
    portal_group: Table = field(default_factory=dict)
    """In ``tpgt_N``, beside ``enable`` and ``rtpi``; called with a :class:`PortalGroupPlace`."""
    portal_group_saved: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Files of :attr:`portal_group` that are saved, and what they can say; what they say at first is the first of it."""
    node_acls: bool = True
    """There are node ACLs."""
    authentication: bool = False
    """Portal groups and node ACLs have CHAP names and secrets in ``auth``."""
    portal: Table = field(default_factory=dict)
    """In ``np/<portal>``; called with a :class:`PortalPlace`."""
    node_acl: Table = field(default_factory=dict)
    """In ``acls/<initiator>``; called with a :class:`NodeAclPlace`."""
    node_acl_parameters: Table = field(default_factory=dict)
    """In its ``param``; likewise."""
    target_statistics: tuple[type[LioGroup], ...] = ()
    """``<wwn>/fabric_statistics``: what :meth:`tcm.fabric_statistics.FabricStatistics.target_groups` returns."""
    node_acl_statistics: tuple[type[LioGroup], ...] = ()
    """``acls/<initiator>/fabric_statistics``: what :meth:`tcm.fabric_statistics.FabricStatistics.node_acl_groups` returns."""
    node_acl_inherits: tuple[str, ...] = ()
    """Attributes of a node ACL that are shown as the portal group's of the same name while they are -1."""
    dynamic_acl_attributes: tuple[str, ...] = ()
    """Attributes of node ACLs that hold for those that demo mode makes, too."""
    attribute_stored: Callable[[Any, str], None] | None = None
    """Told of a portal group of which an attribute was set, and which, for what follows from it."""


PLAIN_TREE = FabricTree()
"""Of a fabric that says nothing of the tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackstoreTree:
    """A backstore's part of the tree: one of LIO's plugins (lio-configfs 2 and 3.1)."""

    plugin: str
    """The HBA's name without its number: ``fileio``."""
    saveconfig: str = ""
    """The name that saveconfig.json has for it; empty: the same."""
    controls: Mapping[str, Callable[[str], Mapping[str, object]]] = field(default_factory=dict)
    """Keys of ``control``: each makes option values of its text; ``read_only`` may be among them. Raises ``ValueError``."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Options that are as LIO has them unless ``control`` says otherwise, where our default is another."""
    product: str = ""
    """PRODUCT IDENTIFICATION unless somebody writes another; empty: the plugin's name in capitals."""
    info: Callable[[Any, int, bool], str] | None = None
    """What ``info`` says after the first line, of the options, the size in bytes, and whether it is read-only; ``None``: the
    options, but not the secret ones."""
    grow: Callable[[Any, int], None] | None = None
    """Makes the medium as large as so many bytes while it is served, given the options; it may block. Raises ``ValueError``,
    ``OSError``. ``None``: another size wants another device."""
