"""A saveconfig.json as the steps on the tree that make it, in the order that LIO wants (lio-configfs 4.4)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tcm.option_syntax import join_pairs
from tcm.saveconfig_names import EXTRAS

Json = Mapping[str, Any]

HBA_PREFIXES = {"fileio": "fileio", "block": "iblock", "ramdisk": "rd_mcp", "pscsi": "pscsi", "user": "user"}
"""rtslib's plugin to the name of its HBAs; others have their own."""
FABRIC_DIRECTORIES = {"tcm_fc": "fc"}
"""rtslib's name of a fabric to its directory, where they differ."""
DEFAULT_TG_PT_GP = "default_tg_pt_gp"
_PAGE = 4096
FABRICS = "tcm_fabrics"
"""Files of the fabrics' own directories."""
IDENTITY_KEYS = ("vendor_id", "product_id", "revision", "company_id", "pd_text_id_info")
"""``tcm_identity`` of a storage object: ``wwn/`` besides the serial."""
SOFT = frozenset(
    {
        *("optimal_sectors", "queue_depth", "max_write_same_len", "max_unmap_lba_count", "max_unmap_block_desc_count"),
        *("unmap_granularity", "unmap_granularity_alignment", "unmap_zeroes_data", "alua_support", "pgr_support"),
        *("pi_prot_format", "submit_type", "complete_type"),
    }
)
"""Attributes that tell what the backend can do: a value that another backend had may not be to be had."""
UNEXPORTED = frozenset(
    {
        *("block_size", "emulate_tas", "emulate_ua_intlck_ctrl", "force_pr_aptpl", "optimal_sectors", "pi_prot_format"),
        *("pi_prot_type", "pi_prot_verify", "queue_depth", "unmap_zeroes_data"),
    }
)
"""Attributes that are refused while the device is exported."""
_DEVICE_KEYS = {
    *("name", "plugin", "attributes", "alua_tpgs", "wwn", "alua_lu_gp", "lba_map", "tcm_filters", "tcm_identity"),
    *("alias", "udev_path"),
}
_GROUP_ORDER = ("alua_access_type", "alua_write_metadata", "alua_access_state", "alua_access_status")
"""These go last in a target port group: states are refused while what they want is missing."""
_INITIATORS_ORDER = ("alua_write_metadata", "alua_access_state", "alua_access_status", "alua_access_type")
"""The same where initiators alone change the state, or nobody does: a group that is made new still takes one."""
_CHAP = {
    "userid": "chap_userid",
    "password": "chap_password",
    "userid_mutual": "chap_mutual_userid",
    "password_mutual": "chap_mutual_password",
}
DISCOVERY_KEYS = {
    "userid": "discovery_userid",
    "password": "discovery_password",
    "userid_mutual": "discovery_mutual_userid",
    "password_mutual": "discovery_mutual_password",
}
_SEPARATOR = re.compile(r"[,\n]")
_ESCAPE = re.compile(r"\\([,\n])")
_PAIR = re.compile(r"(?:\\[,\n]|[^,\n])+")
_SECRET = ("password", "password_mutual")


class Step(NamedTuple):
    """One operation on the tree."""

    action: str
    """``make``, ``write`` or ``link``."""
    path: str
    value: str = ""
    """What is written; where a link goes."""
    group: str = ""
    """The group that a value belongs to, or that a link is in: it goes when the group goes."""
    fixed: bool = False
    """The value can be given only once: another one wants the group made anew."""
    secret: bool = False
    soft: bool = False
    """If it is refused, it stays as it is."""
    unexported: bool = False
    """Another value is taken only while no LUN leads to the group."""
    grows: bool = False
    """It is a size: though fixed, a greater one can be written."""

    initial: str | None = None
    """What is there if no file says anything; ``None``: that is not known."""

    @property
    def key(self) -> str:
        """What is set: of ``control`` that is the word before the equals sign."""
        return f"{self.path} {self.value.partition('=')[0]}" if self.path.endswith("/control") else self.path


class Script:
    """The steps of one configuration.

    :param config: the content of a saveconfig.json; it has been checked (:func:`tcm.saveconfig.load` raises for what is wrong).
    :param places: of the storage objects that are there: ``/backstores/fileio/disk0`` to ``core/fileio_0/disk0``. The others
        get an HBA each, of a number that is free.
    :param fabrics: directories of those that run, whether the configuration has something for them or not.
    """

    def __init__(self, config: Json, places: Mapping[str, str], fabrics: Iterable[str] = ()) -> None:
        self._config = config
        self._fabrics = tuple(fabrics)
        self._places = dict(places)
        self._taken = {place.split("/")[1] for place in places.values()}

    def steps(self) -> Iterator[Step]:
        """All of them; a group that several want (an HBA, a fabric's directory) is made once."""
        made = set()
        for step in self._steps():
            if step.action == "make":
                if step.path in made:
                    continue
                made.add(step.path)
            yield step

    def _steps(self) -> Iterator[Step]:
        for group in self._config.get("alua_lu_gps", ()):
            path = f"core/alua/lu_gps/{group['name']}"
            yield Step("make", path)
            yield Step("write", f"{path}/lu_gp_id", str(group["lu_gp_id"]), path, fixed=True)
        extras = self._config.get(EXTRAS, {})
        for each in self._config.get("storage_objects", ()):
            yield from self._storage_object({**each, **extras.get(f"/backstores/{each['plugin']}/{each['name']}", {})})
        modules = {fabric_directory(each["name"]): each for each in self._config.get("fabric_modules", ())}
        for fabric in dict.fromkeys([*self._fabrics, *fabrics_of(self._config)]):
            yield Step("make", fabric)
            yield from _discovery(fabric, modules.get(fabric, {}))
            for name, value in sorted(self._config.get(FABRICS, {}).get(fabric, {}).items()):
                yield Step("write", f"{fabric}/{name}", text_of(value), fabric, soft=True)
        for each in self._config.get("targets", ()):
            yield from self._target(each, fabric_directory(each["fabric"]))

    # storage objects

    def _storage_object(self, config: Json) -> Iterator[Step]:
        path = self._place(config)
        yield Step("make", path.rpartition("/")[0])
        yield Step("make", path)
        if (udev_path := config.get("udev_path", config.get("dev"))) is not None:
            yield Step("write", f"{path}/udev_path", str(udev_path), path, initial="")
        if "alias" in config:
            yield Step("write", f"{path}/alias", config["alias"], path, initial="")
        for line in control_lines(config):
            grows = config["plugin"] == "fileio" and line.startswith("fd_dev_size=")
            yield Step("write", f"{path}/control", line, path, fixed=True, grows=grows)
        yield Step("write", f"{path}/tcm_filters", filters_text(config.get("tcm_filters", ())), path, fixed=True)
        if config.get("wwn"):
            yield Step("write", f"{path}/wwn/vpd_unit_serial", str(config["wwn"]), path, fixed=True)
        yield Step("write", f"{path}/enable", "1", path, fixed=True)
        for name, value in sorted(config.get("attributes", {}).items()):
            where = f"{path}/attrib/{name}"
            yield Step("write", where, text_of(value), path, soft=name in SOFT, unexported=name in UNEXPORTED)
        for name, value in sorted(config.get("tcm_identity", {}).items()):
            yield Step("write", f"{path}/wwn/{name}", text_of(value), path)
        yield Step("write", f"{path}/alua_lu_gp", str(config.get("alua_lu_gp") or "NULL"), path)
        for group in config.get("alua_tpgs", ()):
            yield from _target_port_group(path, group)
        if config.get("lba_map"):
            yield Step("write", f"{path}/lba_map", "\n".join(config["lba_map"]), path)
        # a map has groups support a state, whatever they say
        for group in config.get("alua_tpgs", ()):
            yield from _group_values(path, group)

    def _place(self, config: Json) -> str:
        key = f"/backstores/{config['plugin']}/{config['name']}"
        if key not in self._places:
            prefix = HBA_PREFIXES.get(config["plugin"], config["plugin"])
            number = 0
            while f"{prefix}_{number}" in self._taken:
                number += 1
            self._taken.add(f"{prefix}_{number}")
            self._places[key] = f"core/{prefix}_{number}/{config['name']}"
        return self._places[key]

    # targets

    def _target(self, config: Json, fabric: str) -> Iterator[Step]:
        path = f"{fabric}/{config['wwn']}"
        yield Step("make", path)
        for name, value in sorted(config.get("parameters", {}).items()):
            yield Step("write", f"{path}/param/{name}", text_of(value), path)
        for each in config.get("tpgs", ()):
            yield from self._portal_group(each, f"{path}/tpgt_{each.get('tag', 1)}", fabric)

    def _portal_group(self, config: Json, path: str, fabric: str) -> Iterator[Step]:
        yield Step("make", path)
        if config.get("rtpi") is not None:
            yield Step("write", f"{path}/rtpi", str(config["rtpi"]), path, fixed=True)
        yield from _values(path, "attrib", config.get("attributes", {}))
        yield from _values(path, "tcm_attrib", config.get("tcm_attributes", {}))
        yield from _values(path, "param", config.get("parameters", {}))
        yield from _values(path, "tcm_acl_attrib", config.get("tcm_acl_attributes", {}))
        for lun in config.get("luns", ()):
            yield from self._lun(lun, path)
        for portal in config.get("portals", ()):
            yield Step("make", f"{path}/np/{portal_name(portal)}")
        if _has_authentication(fabric):
            yield from _chap(path, config, _CHAP)
        for acl in config.get("node_acls", ()):
            yield from _node_acl(acl, path, fabric)
        for name, value in sorted(config.get("tcm_files", {}).items()):
            yield Step("write", f"{path}/{name}", value, path)
        if fabric not in _ALWAYS_ENABLED:
            yield Step("write", f"{path}/enable", "1" if config.get("enable", True) else "0", path)

    def _lun(self, config: Json, path: str) -> Iterator[Step]:
        lun = f"{path}/lun/lun_{config['index']}"
        target = self._places[config["storage_object"]]
        yield Step("make", lun)
        yield Step("link", f"{lun}/{config.get('alias') or alias_of(lun)}", target, lun)
        yield Step("write", f"{lun}/alua_tg_pt_gp", config.get("alua_tg_pt_gp_name") or DEFAULT_TG_PT_GP, lun)
        for name in ("alua_tg_pt_offline", "alua_tg_pt_write_md"):
            yield Step("write", f"{lun}/{name}", text_of(config.get(name, False)), lun)
        if "alua_tg_pt_status" in config:
            yield Step("write", f"{lun}/alua_tg_pt_status", text_of(config["alua_tg_pt_status"]), lun)


_ALWAYS_ENABLED = {"loopback", "fc", "vhost", "xen-pvscsi"}
"""Fabrics whose portal groups have no ``enable``."""


def _has_authentication(fabric: str) -> bool:
    return fabric == "iscsi"


def _node_acl(config: Json, path: str, fabric: str) -> Iterator[Step]:
    acl = f"{path}/acls/{config['node_wwn']}"
    yield Step("make", acl)
    yield from _values(acl, "attrib", config.get("attributes", {}))
    own = dict(config.get("tcm_attributes", {}))
    if "cmdsn_depth" in own:
        yield Step("write", f"{acl}/cmdsn_depth", text_of(own.pop("cmdsn_depth")), acl)
    yield from _values(acl, "tcm_attrib", own)
    yield from _values(acl, "tcm_param", config.get("tcm_parameters", {}))
    if config.get("tag"):
        yield Step("write", f"{acl}/tag", str(config["tag"]), acl)
    if _has_authentication(fabric):
        yield from _chap(acl, config, _CHAP)
    for each in config.get("mapped_luns", ()):
        mapped = f"{acl}/lun_{each['index']}"
        yield Step("make", mapped)
        yield Step("link", f"{mapped}/{each.get('alias') or alias_of(mapped)}", f"{path}/lun/lun_{each['tpg_lun']}", mapped)
        if each.get("write_protect") is not None:
            yield Step("write", f"{mapped}/write_protect", text_of(each["write_protect"]), mapped)


def _target_port_group(device: str, config: Json) -> Iterator[Step]:
    path = f"{device}/alua/{config['name']}"
    if config["name"] != DEFAULT_TG_PT_GP:
        yield Step("make", path)
        yield Step("write", f"{path}/tg_pt_gp_id", str(config["tg_pt_gp_id"]), path, fixed=True)


def _group_values(device: str, config: Json) -> Iterator[Step]:
    path = f"{device}/alua/{config['name']}"
    owner = path if config["name"] != DEFAULT_TG_PT_GP else device
    implicit = bool(int(config.get("alua_access_type", 3)) & 1)
    names = sorted(set(config) - {"name", "tg_pt_gp_id", *_GROUP_ORDER})
    for name in [*names, *(_GROUP_ORDER if implicit else _INITIATORS_ORDER)]:
        if config.get(name) is not None:
            # where initiators have put it meanwhile, it stays
            soft = name == "alua_access_state" and not implicit
            yield Step("write", f"{path}/{name}", text_of(config[name]), owner, soft=soft)


def _discovery(fabric: str, config: Json) -> Iterator[Step]:
    if not _has_authentication(fabric):
        return
    yield from _chap(fabric, config, DISCOVERY_KEYS, "discovery_auth")
    enforced = text_of(bool(config.get("discovery_enable_auth", False)))
    yield Step("write", f"{fabric}/discovery_auth/enforce_discovery_auth", enforced, fabric)


def _values(path: str, folder: str, values: Json) -> Iterator[Step]:
    for name, value in sorted(values.items()):
        yield Step("write", f"{path}/{folder}/{name}", text_of(value), path)


def _chap(path: str, config: Json, keys: Mapping[str, str], folder: str = "auth") -> Iterator[Step]:
    """What the file does not name is none: LIO's word for that is NULL."""
    for name, key in keys.items():
        yield Step("write", f"{path}/{folder}/{name}", str(config.get(key) or "NULL"), path, secret=name in _SECRET)


def control_lines(config: Json) -> list[str]:
    """What is written to ``control`` of a new storage object (lio-configfs 3.1), and options that only our backstores have."""
    plugin = config["plugin"]
    known: dict[str, Any] = {}
    taken: set[str] = set()
    if plugin == "fileio":
        known = {"fd_dev_name": config.get("dev"), "fd_dev_size": config.get("size") or None}
        known |= {"fd_buffered_io": bool(config.get("write_back", True)), "fd_async_io": bool(config.get("aio"))}
        taken = {"dev", "size", "write_back", "aio"}
    elif plugin == "block":
        known = {"udev_path": config.get("dev"), "readonly": bool(config.get("readonly"))}
        taken = {"dev", "readonly", "exclusive", "write_back"}
    elif plugin == "ramdisk":
        known = {"rd_pages": -(-int(config["size"]) // _PAGE), "rd_nullio": bool(config.get("nullio"))}
        taken = {"size", "nullio"}
    known |= {"read_only": bool(config.get("read_only")), "removable": bool(config.get("removable"))}
    taken |= {*_DEVICE_KEYS, "read_only", "removable"}
    own = {name: config[name] for name in sorted(config) if name not in taken and not isinstance(config[name], list)}
    return [f"{name}={_escaped(text_of(value))}" for name, value in {**known, **own}.items() if value is not None]


def _escaped(value: str) -> str:
    # one line end is taken away from what is written
    return _SEPARATOR.sub(r"\\\g<0>", value) + ("\n" if value.endswith("\n") else "")


def control_pairs(text: str) -> list[str]:
    """What ``control`` was written, pair by pair: commas and line ends separate them, but for those after a backslash."""
    return [_ESCAPE.sub(r"\1", pair) for pair in _PAIR.findall(text)]


def filters_text(filters: Any) -> str:
    """What ``tcm_filters`` of a device takes: a line each, outermost first, as ``--filter`` does."""
    return "\n".join(_spec(each) for each in filters)


def _spec(config: Json) -> str:
    pairs = {name: text_of(value) for name, value in config.items() if name != "type"}
    return f"{config['type']}:{join_pairs(pairs)}" if pairs else str(config["type"])


def fabric_directory(name: str) -> str:
    """Of rtslib's name of a fabric."""
    return FABRIC_DIRECTORIES.get(name, name)


def fabrics_of(config: Json) -> list[str]:
    """Directories of the fabrics that a configuration has something for."""
    modules = [fabric_directory(each["name"]) for each in config.get("fabric_modules", ())]
    served = [fabric_directory(each["fabric"]) for each in config.get("targets", ())]
    return [*dict.fromkeys([*modules, *config.get(FABRICS, {}), *served])]


def portal_name(config: Json) -> str:
    """``127.0.0.1:3260``, ``[::1]:3260``."""
    address = str(config["ip_address"]).strip("[]")
    return f"{f'[{address}]' if ':' in address else address}:{config.get('port', 3260)}"


def text_of(value: Any) -> str:
    """A JSON value as an attribute takes it: lists a line each."""
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return str(int(value)) if isinstance(value, bool) else str(value)


def alias_of(path: str) -> str:
    """Ten characters that are the same for the same path, as rtslib's random ones are long."""
    return hashlib.sha256(path.encode()).hexdigest()[:10]
