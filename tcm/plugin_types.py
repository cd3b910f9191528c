"""What a plug-in's hooks return: frozen descriptors. A pluggy call is for start-up; objects do the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tcm.tree_types import PLAIN_TREE, BackstoreTree, FabricTree

if TYPE_CHECKING:
    from tcm.backstore import Backstore, BlockingBackstore
    from tcm.fabric import Fabric
    from tcm.target.device import TargetDevice

API_VERSION = 1
"""Version of the contracts in tcm.backstore, tcm.filter, tcm.fabric and this module. A newer descriptor is refused."""


@dataclass(frozen=True)
class NoOptions:
    """For a plug-in that takes no options."""


def option(help: str, default: Any = ..., *, secret: bool = False, kind: str | None = None) -> Any:  # noqa: A002  # as argparse
    """A field of an options dataclass.

    :param help: one line for ``--dump-plugin`` and the documentation.
    :param default: leave it out to make the option required.
    :param secret: never shown in a log or a dump.
    :param kind: ``"size"`` (an int written ``64M``), ``"path"`` (absolute, ``~`` expanded); ``None``: as the field's type.
    """
    metadata = {"help": help, "secret": secret, "kind": kind}
    if default is ...:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackstoreType:
    """A kind of storage object, for hook ``tcm_backstores``."""

    name: str
    """What people write: ``--lun NAME:key=value``. Lower case letters, digits, ``_``."""
    api_version: int
    """The version of the contracts it was written for, as a number: not :data:`API_VERSION`, which moves."""
    options: type[Any] = NoOptions
    """A frozen dataclass: its fields are the command-line syntax, the configuration-file syntax and the documentation."""
    factory: Callable[[Any], Backstore | BlockingBackstore]
    """Makes the object from a checked options instance. Must not touch the medium: ``open`` does."""
    check_config: Callable[[Any], None] | None = None
    """Raises :class:`tcm.failure.ConfigError` if the options cannot work. Must change nothing."""
    description: str = ""
    """One line for ``--dump-plugin``."""
    saveconfig_plugin: str | None = None
    """The name LIO's saveconfig.json has for it, if any (``fileio``, ``ramdisk``, ``block``, ``pscsi``, ``user``)."""
    from_saveconfig: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """Turns the storage object's own keys in saveconfig.json (dev, size, ...) into option names and values."""
    trees: tuple[BackstoreTree, ...] = ()
    """LIO's plugins that it stands for in the ConfigFS tree; none: it is a plugin of its own name, whose ``control`` takes the
    options as the command line does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterType:
    """A backstore that wraps a backstore, for hook ``tcm_filters``."""

    name: str
    """What people write: ``--filter N=NAME:key=value``."""
    api_version: int
    """As for :class:`BackstoreType`."""
    options: type[Any] = NoOptions
    """As for :class:`BackstoreType`."""
    factory: Callable[[Backstore, Any], Backstore]
    """Makes the filter around an inner backstore from a checked options instance."""
    check_config: Callable[[Any], None] | None = None
    """As for :class:`BackstoreType`."""
    description: str = ""
    """One line for ``--dump-plugin``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricType:
    """A fabric, for hook ``tcm_fabrics``."""

    name: str
    """What people write: ``--fabric NAME:key=value``."""
    api_version: int
    """As for :class:`BackstoreType`."""
    options: type[Any] = NoOptions
    """Options of the whole fabric (timeouts, polling ...): ``--fabric NAME:key=value``, or ``--key value`` beside it."""
    factory: Callable[[Sequence[TargetDevice], Any], Fabric]
    """Makes the fabric from its configured target devices and a checked options instance. Must not listen: ``run`` does.

    The sequence is of those that there are: it grows and shrinks while the fabric runs."""
    check_config: Callable[[Any], None] | None = None
    """As for :class:`BackstoreType`."""
    description: str = ""
    """One line for ``--dump-plugin``."""
    check_name: Callable[[str], str]
    """Normalises a target or initiator port name of this fabric; raises :class:`tcm.failure.ConfigError`."""
    default_name: Callable[[str, str], str]
    """``(host, unique)`` to the target name of an embedded default; ``unique`` is 12 hex digits of the state directory."""
    uses_portals: bool = False
    """Targets listen at ``--portal ADDR:PORT``."""
    default_portal: tuple[str, int] | None = None
    """Address and port where targets listen if nobody says."""
    tpg_attributes: type[Any] = NoOptions
    """Dataclass of ``attrib/`` of a target portal group, LIO's names; ``--attribute`` on the command line."""
    tpg_parameters: type[Any] = NoOptions
    """Dataclass of ``param/`` of a target portal group, LIO's names; ``--param`` on the command line."""
    acl_attributes: type[Any] = NoOptions
    """Dataclass of ``attrib/`` of a node ACL; ``--attribute`` sets them for initiators that demo mode lets in."""
    target_flags: tuple[str, ...] = ()
    """What else ``--target`` may be called on the command line: ``wwpn``."""
    default_targets: Callable[[Any], int] | None = None
    """How many target devices a command line makes that names none, from checked options; ``None``: one."""
    tree: FabricTree = PLAIN_TREE
    """What the ConfigFS tree has of it beside these dataclasses."""
