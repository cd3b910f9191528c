"""LIO's saveconfig.json (rtslib's; lio-configfs section 5) as a :class:`~tcm.configuration.Configuration`.

Our own additions: ``tcm_filters`` (a list of ``{"type": ..., option: ...}``, outermost first), ``removable`` and ``read_only``
on storage objects, ``tcm_identity`` (what is in ``wwn/``), and any option of the backstore under its own name. rtslib makes no
storage object of keys that it does not know, so they may also stand in ``tcm_storage_objects``, an object at the top, by the
storage object's path (``/backstores/fileio/disk0``).

What rtslib leaves out of asymmetric access (lio-configfs 5.5): ``alua_lu_gps``, ``alua_lu_gp``, ``lba_map``,
``alua_tg_pt_offline``, ``alua_tg_pt_status`` and ``alua_tg_pt_write_md``. Of storage objects also ``alias`` and ``udev_path``.
``tcm_files`` on portal groups are files that the fabric wants saved. ``tcm_attributes`` on portal groups and node ACLs are
attributes of the fabric that LIO lacks, ``rtpi`` on portal groups is the file of that name, ``tcm_fabrics`` are files of the
fabrics' own directories, ``tcm_acl_attributes`` on portal groups are for node ACLs that demo mode makes, and
``tcm_parameters`` on node ACLs are the portal group's, with these instead.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tcm.configuration import (
    MAXIMUM_LUN,
    MAXIMUM_TAG,
    MAXIMUM_TEXT,
    Configuration,
    FabricConfig,
    FilterConfig,
    LogicalUnitGroupConfig,
    LunConfig,
    MappedLunConfig,
    NodeAclConfig,
    PortalGroupConfig,
    StorageObject,
    TargetConfig,
    check_authentication,
    check_entry,
    check_unique,
    make_fabric,
    make_filter,
    make_options,
    make_portal,
    named,
    portal_text,
    saved_serial,
)
from tcm.failure import ConfigError
from tcm.json_reader import Node, check_text, read_json
from tcm.options import build, options_of, unknown_key
from tcm.saveconfig_alua import check_one_group, lba_map, logical_unit_groups, lun_group, target_port_groups
from tcm.saveconfig_names import (
    DEVICE,
    EXTRAS,
    FABRIC_NAMES,
    MODEL_ALIAS,
    NODE_ACL,
    NOT_SUPPORTED,
    PARAMETERS,
    PLUGINS,
    TARGET_PORTAL_GROUP,
    Key,
)
from tcm.target.attributes import DeviceAttributes, Identity
from tcm.target.node_acl import Authentication

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tcm.plugin_types import BackstoreType, FabricType
    from tcm.plugins import PluginManager

log = logging.getLogger(__name__)

FABRICS = "tcm_fabrics"
"""Files of the fabrics' own directories, by the fabric's directory in LIO's tree."""
_CHAP = ("chap_userid", "chap_password", "chap_mutual_userid", "chap_mutual_password")
_SECONDARY = ("alua_tg_pt_offline", "alua_tg_pt_status", "alua_tg_pt_write_md")
_DISCOVERY = ("discovery_userid", "discovery_password", "discovery_mutual_userid", "discovery_mutual_password")


def load(
    path: str,
    plugins: PluginManager,
    *,
    fabrics: Mapping[str, Mapping[str, object]] | None = None,
    read_only: bool = False,
    keep_going: bool = False,
) -> Configuration:
    """Reads the file.

    :param fabrics: names and options of the fabrics to run, from the command line; empty: all that have targets.
    :param read_only: nothing may be written, whatever the file says.
    :param keep_going: media are not looked at, and what cannot be served is going to be left out.

    Raises :class:`ConfigError`: one line with the file, the JSON path, what is wrong and what to write instead.
    """
    root = read_json(path)
    loader = _Loader(plugins, dict(fabrics or {}), read_only=read_only, looks=not keep_going)
    found = named(path, loader.configuration, root)
    return replace(found, saved=root.value) if keep_going else found


def read(path: str) -> dict[str, Any]:
    """The file's content, unchecked but for being an object. Raises :class:`ConfigError`."""
    return named(path, lambda node: node.object(), read_json(path))


def check(config: Mapping[str, Any], plugins: PluginManager, absent: Collection[str] = ()) -> None:
    """Whether it could be loaded; it may have no targets. Raises :class:`ConfigError` as :func:`load` does.

    :param absent: paths of storage objects whose media are not looked at.
    """
    _Loader(plugins, {}, read_only=False, empty=True, absent=absent).configuration(Node(dict(config), ""))


def parse(config: Mapping[str, Any], plugins: PluginManager) -> Configuration:
    """What it says, whatever there is of it on this machine. Raises :class:`ConfigError` as :func:`load` does."""
    return _Loader(plugins, {}, read_only=False, empty=True, looks=False).configuration(Node(dict(config), ""))


class _Loader:
    """One pass over one file."""

    def __init__(
        self,
        plugins: PluginManager,
        fabrics: dict[str, Mapping[str, object]],
        *,
        read_only: bool,
        empty: bool = False,
        looks: bool = True,
        absent: Collection[str] = (),
    ) -> None:
        self._plugins = plugins
        self._empty = empty
        self._looks = looks
        self._absent = absent
        self._fabrics = fabrics
        self._read_only = read_only
        self._storage_objects: dict[str, StorageObject] = {}
        self._ignored: set[str] = set()
        self._logical_unit_groups: tuple[LogicalUnitGroupConfig, ...] = ()

    def configuration(self, root: Node) -> Configuration:
        check_text(root)
        root.keys({"storage_objects", "targets", "fabric_modules", "alua_lu_gps", EXTRAS, FABRICS})
        self._logical_unit_groups = logical_unit_groups(root)
        extras = root.child(EXTRAS)
        for node in root.items("storage_objects"):
            key = f"/backstores/{node.text('plugin')}/{node.text('name')}"
            made = self._storage_object(Node({**node.object(), **extras.child(key).object()}, node.path))
            if made.path in self._storage_objects:
                raise ConfigError(f"{node.path}.name: {made.path} is there already; write another name")
            self._storage_objects[made.path] = made
        objects = self._storage_objects.values()
        check_unique(((f"storage_objects[{index}].wwn", each.serial) for index, each in enumerate(objects)), "unit serial")
        targets = [self._target(node) for node in root.items("targets") if self._wanted(node)]
        check_unique(
            ((f"targets[{index}].wwn", (target.fabric, target.name)) for index, target in enumerate(targets)), "target"
        )
        identifiers = (
            (f"targets[{index}]", group.relative_target_port_identifier)
            for index, target in enumerate(targets)
            for group in target.portal_groups
            if group.relative_target_port_identifier is not None
        )
        check_unique(identifiers, "rtpi")
        fabrics = self._fabric_configs(root, targets)
        unknown = extras.object().keys() - self._storage_objects.keys()
        if unknown:
            raise ConfigError(f"{EXTRAS}: {min(unknown)!r} is not in storage_objects; leave it out")
        if not targets and not self._empty:
            wanted = f" for fabric {', '.join(self._fabrics)}" if self._fabrics else ""
            raise ConfigError(f"targets: there is none{wanted}, so there is nothing to serve; add one")
        if self._ignored:
            log.warning("these LIO settings have no effect here: %s", ", ".join(sorted(self._ignored)))
        return Configuration(
            fabrics=fabrics,
            storage_objects=tuple(self._storage_objects.values()),
            targets=tuple(targets),
            logical_unit_groups=self._logical_unit_groups,
        )

    # storage objects

    def _storage_object(self, node: Node) -> StorageObject:
        plugin = node.text("plugin", required=True)
        name = node.text("name", required=True)
        if not name or any(character in name for character in "/ \t\n"):
            raise ConfigError(f"{node.path}.name: {name!r}: no slash, space, tab or newline; write for example disk0")
        check_entry(name, f"{node.path}.name", "disk0")
        if plugin in NOT_SUPPORTED:
            raise ConfigError(
                f"{node.path}.plugin: {plugin!r} is not supported yet ({NOT_SUPPORTED[plugin]}); write fileio or ramdisk"
            )
        kind = self._backstore(node, plugin)
        known = {**{key: Key() for key in options_of(kind.options)}, **PLUGINS.get(plugin, {})}
        common = {"name", "plugin", "attributes", "alua_tpgs", "wwn", "tcm_filters", "removable", "read_only"}
        common |= {"alua_lu_gp", "lba_map", "tcm_identity", "alias", "udev_path"}
        node.keys(common | set(known))
        own = {key: known[key].read(node, key) for key in node.value if key in known and key not in common}
        for key, rule in known.items():
            if rule.required and key not in own:
                raise ConfigError(f"{node.path}.{key}: missing; write {rule.example}")
        readonly = bool(own.pop("readonly", False)) if plugin == "block" else False
        if own.pop("exclusive", None) is not None:
            self._ignored.add("exclusive")
        if kind.from_saveconfig is not None:
            lio = {key: own.pop(key) for key in PLUGINS.get(plugin, {}) if key in own}
            own |= named(node.path, kind.from_saveconfig, lio)
        attributes, others = self._attributes(node.child("attributes"), DeviceAttributes, DEVICE)
        path = f"/backstores/{plugin}/{name}"
        looks = self._looks and path not in self._absent
        return StorageObject(
            path=path,
            name=name,
            type=kind.name,
            options=make_options(kind, own, f"{node.path}.", looks=looks),
            filters=tuple(self._filter(each, looks=looks) for each in node.items("tcm_filters")),
            attributes=attributes,
            identity=_identity(node, (name if others.get(MODEL_ALIAS) else kind.name.upper())[:16]),
            alias=_free_text(node, "alias") or "",
            udev_path=_free_text(node, "udev_path"),
            model_alias=bool(others[MODEL_ALIAS]) if MODEL_ALIAS in others else None,
            serial=saved_serial(node.text("wwn"), f"{node.path}.wwn") if "wwn" in node.value else _serial(plugin, name),
            removable=node.boolean("removable"),
            read_only=self._read_only or readonly or node.boolean("read_only"),
            target_port_groups=(groups := target_port_groups(node)),
            logical_unit_group=self._logical_unit_group(node),
            lba_map=lba_map(node, groups),
        )

    def _logical_unit_group(self, node: Node) -> str | None:
        name = node.text("alua_lu_gp") or None
        known = [group.name for group in self._logical_unit_groups]
        if name is not None and name not in known:
            raise ConfigError(
                f"{node.path}.alua_lu_gp: {name!r} is not in alua_lu_gps; "
                f"write one of: {', '.join(known) or 'none, so add it there'}"
            )
        return name

    def _backstore(self, node: Node, plugin: str) -> BackstoreType:
        """The plug-in that says it is LIO's ``plugin``; ``block`` is a file that happens to be a device."""
        for wanted in (plugin, "fileio") if plugin == "block" else (plugin,):
            for kind in self._plugins.backstores():
                if kind.saveconfig_plugin == wanted:
                    return kind
        return named(f"{node.path}.plugin", self._plugins.backstore, plugin)

    def _filter(self, node: Node, *, looks: bool) -> FilterConfig:
        values = dict(node.object())
        values.pop("type", None)
        name, place = node.text("type", required=True), f"{node.path}."
        return make_filter(self._plugins, name, values, f"{place}type", place, looks=looks)

    def _attributes(self, node: Node, cls: type[Any], lio: Mapping[str, object]) -> tuple[Any, dict[str, object]]:
        """An instance of ``cls`` and what LIO has but ``cls`` has not; that is noted if it differs from LIO's default."""
        known = options_of(cls)
        ours: dict[str, object] = {}
        others: dict[str, object] = {}
        for key, value in node.object().items():
            if key in known:
                ours[key] = value
            elif key in lio:
                others[key] = value
                if key != MODEL_ALIAS and str(int(value) if isinstance(value, bool) else value) != str(lio[key]):
                    self._ignored.add(f"{key}={value}")
            else:
                raise ConfigError(f"{node.path}.{key}: {unknown_key(key, {*known, *lio})}")
        return build(cls, ours, f"{node.path}."), others

    def _own_attributes(self, node: Node, cls: type[Any], lio: Mapping[str, object]) -> Any:
        """``attributes``, and what LIO lacks of them from ``tcm_attributes``, which targetcli leaves alone."""
        attributes, own = node.child("attributes"), node.child("tcm_attributes")
        for key in own.object():
            if key in lio:
                raise ConfigError(f"{own.path}.{key}: LIO has this one; write it into {attributes.path}")
        made, _ = self._attributes(attributes, cls, lio)
        return build(cls, own.object(), f"{own.path}.", made) if own.object() else made

    # targets

    def _wanted(self, node: Node) -> bool:
        name = self._fabric_name(node.text("fabric", required=True))
        if self._fabrics and name not in self._fabrics:
            log.info("%s: not served, because --fabric names %s only", node.path, ", ".join(self._fabrics))
            return False
        return True

    @staticmethod
    def _fabric_name(name: str) -> str:
        return FABRIC_NAMES.get(name, name)

    def _target(self, node: Node) -> TargetConfig:
        node.keys({"wwn", "fabric", "tpgs", "parameters", "attributes"})
        fabric = named(f"{node.path}.fabric", self._plugins.fabric, self._fabric_name(node.text("fabric")))
        name = named(f"{node.path}.wwn", fabric.check_name, node.text("wwn", required=True))
        groups = tuple(self._portal_group(each, fabric) for each in node.items("tpgs"))
        check_unique(((f"{node.path}.tpgs[{index}].tag", group.tag) for index, group in enumerate(groups)), "tag")
        portals = ((f"{node.path}.tpgs[{index}].portals", each) for index, group in enumerate(groups) for each in group.portals)
        check_unique(((place, portal_text(each)) for place, each in portals if each.port), "portal")
        return TargetConfig(name=name, fabric=fabric.name, portal_groups=groups)

    def _portal_group(self, node: Node, fabric: FabricType) -> PortalGroupConfig:
        known = {"tag", "enable", "attributes", "parameters", "luns", "portals", "node_acls", *_CHAP}
        node.keys(known | {"rtpi", "tcm_attributes", "tcm_acl_attributes", "tcm_files"})
        attributes = self._own_attributes(node, fabric.tpg_attributes, TARGET_PORTAL_GROUP)
        parameters, _ = self._attributes(node.child("parameters"), fabric.tpg_parameters, PARAMETERS)
        dynamic = _dynamic(node.child("tcm_acl_attributes"), fabric)
        luns = tuple(self._lun(each) for each in node.items("luns"))
        check_one_group(node, luns)
        check_unique(((f"{node.path}.luns[{index}].index", lun.index) for index, lun in enumerate(luns)), "LUN")
        numbers = {lun.index for lun in luns}
        acls = tuple(self._node_acl(each, fabric, numbers, parameters) for each in node.items("node_acls"))
        check_unique(
            ((f"{node.path}.node_acls[{index}].node_wwn", acl.initiator_name) for index, acl in enumerate(acls)), "node ACL"
        )
        portals = tuple(self._portal(each) for each in node.items("portals"))
        check_unique(((f"{node.path}.portals[{index}]", each) for index, each in enumerate(portals) if each.port), "portal")
        if portals and not fabric.uses_portals:
            raise ConfigError(f"{node.path}.portals: fabric {fabric.name} has no portals; write []")
        return PortalGroupConfig(
            tag=node.integer("tag", minimum=0, maximum=MAXIMUM_TAG, default=1),
            relative_target_port_identifier=(
                node.integer("rtpi", minimum=1, maximum=0xFFFF) if node.value.get("rtpi") is not None else None
            ),
            enabled=node.boolean("enable", default=True),
            attributes=attributes,
            parameters=parameters,
            dynamic_acl_attributes=dynamic if "tcm_acl_attributes" in node.value else None,
            authentication=_authentication(node, _CHAP),
            luns=luns,
            portals=portals,
            files=_files(node.child("tcm_files"), fabric),
            node_acls=acls,
        )

    def _lun(self, node: Node) -> LunConfig:
        node.keys({"index", "storage_object", "alias", "alua_tg_pt_gp_name", *_SECONDARY})
        path = node.text("storage_object", required=True)
        storage_object = self._storage_objects.get(path)
        if storage_object is None:
            there = ", ".join(self._storage_objects) or "none, so add it to storage_objects"
            raise ConfigError(f"{node.path}.storage_object: {path!r} is not there; write one of: {there}")
        index = node.integer("index", minimum=0, maximum=MAXIMUM_LUN, required=True)
        return LunConfig(
            index=index,
            storage_object=storage_object,
            alias=_alias(node),
            target_port_group=lun_group(node, storage_object),
            offline=node.boolean("alua_tg_pt_offline"),
            offline_status=node.integer("alua_tg_pt_status", minimum=0, maximum=2),
            write_metadata=node.boolean("alua_tg_pt_write_md"),
        )

    @staticmethod
    def _portal(node: Node) -> Any:
        node.keys({"ip_address", "port", "iser", "offload"})
        for transport in ("iser", "offload"):
            if node.boolean(transport):
                raise ConfigError(f"{node.path}.{transport}: only TCP is served; write false")
        address = node.text("ip_address", required=True).removeprefix("[").removesuffix("]")
        return make_portal(address, node.integer("port", default=3260), node.path)

    def _node_acl(self, node: Node, fabric: FabricType, luns: set[int], parameters: Any) -> NodeAclConfig:
        node.keys({"node_wwn", "attributes", "mapped_luns", "tag", "tcm_attributes", "tcm_parameters", *_CHAP})
        mapped = []
        for each in node.items("mapped_luns"):
            each.keys({"index", "tpg_lun", "write_protect", "alias", "alua_tg_pt_gp_name"})
            tpg_lun = each.integer("tpg_lun", required=True)
            if tpg_lun not in luns:
                raise ConfigError(f"{each.path}.tpg_lun: LUN {tpg_lun} is not in luns; write one of {sorted(luns)}")
            index = each.integer("index", minimum=0, maximum=MAXIMUM_LUN, required=True)
            protect = each.boolean("write_protect") if "write_protect" in each.value else None
            mapped.append(MappedLunConfig(index=index, tpg_lun=tpg_lun, write_protect=protect, alias=_alias(each)))
        check_unique(
            ((f"{node.path}.mapped_luns[{number}].index", each.index) for number, each in enumerate(mapped)), "mapped LUN"
        )
        attributes = self._own_attributes(node, fabric.acl_attributes, NODE_ACL)
        own = node.child("tcm_parameters")
        made = build(type(parameters), own.object(), f"{own.path}.", parameters) if own.object() else None
        return NodeAclConfig(
            initiator_name=named(f"{node.path}.node_wwn", fabric.check_name, node.text("node_wwn", required=True)),
            mapped_luns=tuple(mapped),
            attributes=attributes,
            parameters=made,
            own_parameters={name: getattr(made, name) for name in (key.replace("-", "_") for key in own.object())},
            authentication=_authentication(node, _CHAP),
            tag=node.text("tag"),
        )

    # fabrics

    def _fabric_configs(self, root: Node, targets: Sequence[TargetConfig]) -> tuple[FabricConfig, ...]:
        discovery: dict[str, Authentication] = {}
        kept: dict[str, dict[str, str]] = {}
        for node in root.items("fabric_modules"):
            node.keys({"name", "discovery_enable_auth", *_DISCOVERY})
            authentication = _authentication(node, _DISCOVERY)
            if node.boolean("discovery_enable_auth"):
                discovery[self._fabric_name(node.text("name", required=True))] = authentication
            elif values := {name: text for name, text in dataclasses.asdict(authentication).items() if text}:
                kept[self._fabric_name(node.text("name", required=True))] = values
        names = dict.fromkeys([*self._fabrics, *(target.fabric for target in targets)])
        attributes = self._fabric_attributes(root.child(FABRICS))
        return tuple(
            replace(
                make_fabric(self._plugins.fabric(name), self._fabrics.get(name, {}), f"--fabric {name}: ", discovery.get(name)),
                attributes=attributes.get(name, {}),
                discovery=kept.get(name, {}),
            )
            for name in names
        )

    def _fabric_attributes(self, node: Node) -> dict[str, dict[str, str]]:
        """By the fabric's name."""
        kinds = {kind.tree.name or kind.name: kind for kind in map(self._plugins.fabric, self._plugins.names("fabric"))}
        node.keys(set(kinds))
        found = {}
        for directory, kind in kinds.items():
            own = node.child(directory)
            own.keys({name for name, attribute in kind.tree.attributes.items() if attribute.store is not None})
            found[kind.name] = {name: own.text(name) for name in own.object()}
        return found


def _free_text(node: Node, key: str) -> str | None:
    """``None``: nothing is said of it."""
    if key not in node.value:
        return None
    text = node.text(key)
    if len(text) > MAXIMUM_TEXT:
        raise ConfigError(f"{node.path}.{key}: {len(text)} characters are too many; write at most {MAXIMUM_TEXT}")
    return text


def _files(node: Node, fabric: FabricType) -> dict[str, str]:
    """Files of a portal group that its fabric wants saved."""
    saved = fabric.tree.portal_group_saved
    node.keys(saved)
    found = {name: node.text(name) for name in node.object()}
    for name, text in found.items():
        if text not in saved[name]:
            raise ConfigError(f"{node.path}.{name}: {text[:60]!r}: write one of: {', '.join(saved[name])}")
    return found


def _alias(node: Node) -> str:
    """The name of LIO's link."""
    alias = node.text("alias")
    return check_entry(alias, f"{node.path}.alias", "a1b2c3d4e5") if alias else ""


def _dynamic(node: Node, fabric: FabricType) -> Any:
    """Attributes of node ACLs that demo mode makes: the others of a node ACL are the portal group's business."""
    made = build(fabric.acl_attributes, node.object(), f"{node.path}.")
    for name in node.object():
        if name not in fabric.tree.dynamic_acl_attributes:
            there = ", ".join(fabric.tree.dynamic_acl_attributes) or "none"
            raise ConfigError(
                f"{node.path}.{name}: for those that demo mode lets in the portal group says it; there are {there}"
            )
    return made


def _identity(node: Node, product: str) -> Identity:
    """``tcm_identity``: LIO's names of what is in ``wwn/``. The text that identifies the unit is kept by the unit itself."""
    own = node.child("tcm_identity")
    own.keys({"vendor_id", "product_id", "revision", "company_id", "pd_text_id_info"})
    names = {"vendor_id": "vendor", "product_id": "product", "revision": "revision"}
    values: dict[str, object] = {ours: own.text(name) for name, ours in names.items() if name in own.value}
    if "company_id" in own.value:
        values["company_id"] = int(own.text("company_id"), 16)
    return build(Identity, {"product": product, **values}, f"{own.path}.")


def _authentication(node: Node, keys: Sequence[str]) -> Authentication:
    values = ["" if (text := node.text(key)) == "NULL" else text for key in keys]  # LIO's word for nothing
    userid, password, mutual_userid, mutual_password = values
    made = Authentication(userid=userid, password=password, userid_mutual=mutual_userid, password_mutual=mutual_password)
    return check_authentication(made, node.path, saved=True)


def _serial(plugin: str, name: str) -> str:
    """A serial that stays the same as long as the name does, for files that leave it out."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"tcm:/backstores/{plugin}/{name}"))
