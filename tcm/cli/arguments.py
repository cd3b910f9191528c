"""The command line of ``tcm-run`` as a :class:`~tcm.configuration.Configuration`."""

from __future__ import annotations

import logging
import os
import re
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tcm import saveconfig
from tcm.cli.fabric_options import give
from tcm.cli.folders import check_folder_of
from tcm.cli.state import State, default_directory
from tcm.configuration import (
    MAXIMUM_LUN,
    Configuration,
    FabricConfig,
    FilterConfig,
    LunConfig,
    PortalGroupConfig,
    StorageObject,
    TargetConfig,
    check_authentication,
    check_unique,
    make_fabric,
    make_filter,
    make_options,
    make_serial,
    named,
    parse_portal,
)
from tcm.failure import ConfigError
from tcm.option_syntax import join_pairs, read_secret_file, read_secrets, split_spec
from tcm.options import build, options_of, unknown_key
from tcm.plugin_types import option
from tcm.target.attributes import DeviceAttributes, Identity
from tcm.target.node_acl import Authentication
from tcm.target.portal_group import NetworkPortal

if TYPE_CHECKING:
    from tcm.plugin_types import FabricType
    from tcm.plugins import PluginManager

log = logging.getLogger(__name__)

DEFAULT_LUN_TYPE = "fileio"
DEFAULT_LUN_SIZE = "1G"
CHAP_SECRET = "TCM_CHAP_SECRET"  # noqa: S105 - the variable's name
CHAP_MUTUAL_SECRET = "TCM_CHAP_MUTUAL_SECRET"  # noqa: S105 - the same

_LUN = re.compile(r"(?:(?P<index>[^=:,]*)=)?(?P<spec>.*)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,9}")
_NOT_BESIDE_CONFIG = (
    *("portals", "targets", "luns", "filters", "attributes", "params"),
    *("chap", "chap_secret_file", "chap_mutual", "chap_mutual_secret_file", "chap_discovery"),
)


@dataclass(frozen=True)
class LunOptions:
    """Keys that every ``--lun`` takes, whatever its type."""

    removable: bool = option("the medium can be ejected (RMB)", False)
    read_only: bool = option("nothing can be written", False)
    wwn: str = option("unit serial number, a UUID; default: made of the state directory, the LUN and its path", "")
    name: str = option("name of the storage object in logs; default: lun and the number", "")
    vendor: str = option("T10 vendor identification, at most 8 characters", Identity().vendor)
    product: str = option("product identification, at most 16 characters; default: the type in capitals", "")
    revision: str = option("product revision, at most 4 characters", Identity().revision)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What was written on the command line, as text."""

    fabrics: tuple[str, ...] = ()
    portals: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    luns: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    chap: str | None = None
    chap_secret_file: str | None = None
    chap_mutual: str | None = None
    chap_mutual_secret_file: str | None = None
    chap_discovery: bool = False
    tls_cert: str | None = None
    tls_key: str | None = None
    read_only: bool = False
    config: str | None = None
    state_dir: str | None = None
    empty: bool = False
    keep_going: bool = False
    fabric_options: dict[str, Any] = field(default_factory=dict)
    """Options that the chosen fabrics have brought (:mod:`tcm.cli.fabric_options`), by field."""


def configuration(arguments: Arguments, plugins: PluginManager) -> Configuration:
    """What to serve. Raises :class:`ConfigError`: one line."""
    if arguments.state_dir:
        check_folder_of("--state-dir", arguments.state_dir, "--state-dir DIR")
    fabrics: dict[str, dict[str, Any]] = {}
    for text in arguments.fabrics:
        name, values = split_spec(text, "--fabric")
        if name in fabrics:
            raise ConfigError(f"--fabric {name}: given twice; write it once, its options separated by commas")
        fabrics[name] = read_secrets(named("--fabric", plugins.fabric, name).options, values, f"--fabric {name}: ")
    give(arguments.fabric_options, plugins, fabrics)
    _give_tls(arguments, plugins, fabrics)
    if arguments.config is not None and arguments.empty:
        raise ConfigError("--empty: cannot be given beside --config, which says what there is; leave one out")
    if arguments.keep_going and arguments.config is None:
        raise ConfigError("--keep-going: what is left out is kept in the file of --config; write one, or leave it out")
    if arguments.config is not None:
        _refuse_beside_config(arguments)
        loaded = saveconfig.load(
            arguments.config, plugins, fabrics=fabrics, read_only=arguments.read_only, keep_going=arguments.keep_going
        )
        return _keeping(loaded, arguments)
    if arguments.empty:
        _refuse_beside_empty(arguments)
        configs = tuple(make_fabric(plugins.fabric(name), values, f"--fabric {name}: ") for name, values in fabrics.items())
        return _keeping(Configuration(fabrics=configs, storage_objects=(), targets=()), arguments)
    if not fabrics:
        there = ", ".join(plugins.names("fabric")) or "none; pip install tcm-target-iscsi"
        raise ConfigError(f"nothing to serve; write --fabric NAME or --config FILE (fabrics installed: {there})")
    return _keeping(_Builder(arguments, plugins).configuration(fabrics), arguments)


def _give_tls(arguments: Arguments, plugins: PluginManager, fabrics: dict[str, dict[str, Any]]) -> None:
    """``--tls-cert`` and ``--tls-key`` are options of the fabrics that have options of these names."""
    for name, value in (("tls_cert", arguments.tls_cert), ("tls_key", arguments.tls_key)):
        flag = f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if not fabrics:
            raise ConfigError(f"{flag}: of which fabric? write --fabric NAME as well")
        takers = [values for fabric, values in fabrics.items() if name in options_of(plugins.fabric(fabric).options)]
        if not takers:
            raise ConfigError(f"{flag}: fabric {', '.join(fabrics)} has no TLS; leave it out")
        for values in takers:
            if values.setdefault(name, value) is not value:
                raise ConfigError(f"{flag}: stands in --fabric too; write it once")


def _state_directory(arguments: Arguments) -> str:
    if arguments.state_dir == "":
        raise ConfigError("--state-dir: empty; write --state-dir DIR with a folder of yours, or leave it out")
    return arguments.state_dir or default_directory()


def _keeping(configuration: Configuration, arguments: Arguments) -> Configuration:
    """With the directory where logical units keep what has to survive a restart."""
    try:
        directory = os.path.abspath(_state_directory(arguments))
    except ConfigError:
        if arguments.state_dir is not None:
            raise
        # a --config is served without a home directory too
        log.warning("no home directory and no --state-dir: nothing that initiators want to be kept outlives this process")
        return configuration
    return replace(configuration, state_directory=directory)


def _refuse_beside_empty(arguments: Arguments) -> None:
    for name in (*_NOT_BESIDE_CONFIG, "read_only"):
        if getattr(arguments, name) not in (None, (), False):
            flag = f"--{name.removesuffix('s').replace('_', '-')}"
            raise ConfigError(f"{flag}: cannot be given beside --empty; make it later, or leave --empty out")


def _refuse_beside_config(arguments: Arguments) -> None:
    for name in _NOT_BESIDE_CONFIG:
        if getattr(arguments, name) not in (None, (), False):
            flag = f"--{name.removesuffix('s').replace('_', '-')}"
            raise ConfigError(f"{flag}: cannot be given beside --config; write it into {arguments.config}")
    for variable in (CHAP_SECRET, CHAP_MUTUAL_SECRET):
        if os.environ.pop(variable, ""):
            log.warning("%s is not used: the secrets are those in %s", variable, arguments.config)


class _Builder:
    """Makes a configuration of one target a fabric, all with the same LUNs."""

    def __init__(self, arguments: Arguments, plugins: PluginManager) -> None:
        self._arguments = arguments
        self._plugins = plugins
        self._state = State(_state_directory(arguments))
        self._attributes: dict[str, Any] = {}
        self._params: dict[str, Any] = {}

    def configuration(self, fabrics: dict[str, dict[str, Any]]) -> Configuration:
        luns = self._luns()
        authentication = _authentication(self._arguments)
        kinds = [self._plugins.fabric(name) for name in fabrics]
        self._attributes = _settings("--attribute", self._arguments.attributes, kinds, ("tpg_attributes", "acl_attributes"))
        self._params = _settings("--param", self._arguments.params, kinds, ("tpg_parameters",))
        configs: list[FabricConfig] = []
        targets = []
        for name, values in fabrics.items():
            kind = self._plugins.fabric(name)
            discovery = authentication if self._arguments.chap_discovery else None
            config = make_fabric(kind, values, f"--fabric {name}: ", discovery)
            configs.append(config)
            targets += [self._target(kind, name, luns, authentication) for name in self._names(kind, config.options)]
        if self._arguments.portals and not any(self._plugins.fabric(name).uses_portals for name in fabrics):
            raise ConfigError(f"--portal: fabric {', '.join(fabrics)} has no portals; leave it out")
        objects = tuple(lun.storage_object for lun in luns)
        check_unique(((f"--lun {lun.index}", lun.storage_object.path) for lun in luns), "storage object")
        check_unique(((f"--lun {lun.index}: wwn", lun.storage_object.serial) for lun in luns), "unit serial")
        return Configuration(fabrics=tuple(configs), storage_objects=objects, targets=tuple(targets))

    # LUNs

    def _luns(self) -> tuple[LunConfig, ...]:
        specs = self._numbered(self._arguments.luns or (self._default_lun(),))
        filters: dict[int, list[FilterConfig]] = {}
        for text in self._arguments.filters:
            number, equals, spec = text.partition("=")
            if not equals or not number.isascii() or not number.isdigit():
                raise ConfigError(f"--filter {text.partition(':')[0]}: which LUN? write --filter N=TYPE[:key=value,...]")
            if int(number) not in specs:
                there = ", ".join(map(str, specs))
                raise ConfigError(f"--filter {number}={spec.partition(':')[0]}: there is no LUN {number}; LUNs are {there}")
            name, values = split_spec(spec, f"--filter {number}=")
            place = f"--filter {number}={name}"
            values = read_secrets(named(place, self._plugins.filter, name).options, values, f"{place}: ")
            filters.setdefault(int(number), []).append(make_filter(self._plugins, name, values, place, f"{place}: "))
        return tuple(
            LunConfig(index=index, storage_object=self._storage_object(index, spec, tuple(filters.get(index, ()))))
            for index, spec in sorted(specs.items())
        )

    def _default_lun(self) -> str:
        return f"{DEFAULT_LUN_TYPE}:{join_pairs({'path': self._state.path('lun0.img'), 'size': DEFAULT_LUN_SIZE})}"

    @staticmethod
    def _numbered(texts: tuple[str, ...]) -> dict[int, str]:
        """Numbers as written; what has none takes the lowest that is free, in order."""
        numbered: dict[int, str] = {}
        free: list[str] = []
        for text in texts:
            match = _LUN.fullmatch(text)
            if match is None or match["index"] is None:
                free.append(text)
                continue
            if not _NUMBER.fullmatch(match["index"]):
                raise ConfigError(
                    f"--lun {match['index']}=: not a LUN's number; write --lun [N=]TYPE[:key=value,...], for example 0=..."
                )
            index = int(match["index"])
            if index > MAXIMUM_LUN:
                raise ConfigError(f"--lun {index}: out of range; write 0 to {MAXIMUM_LUN}")
            if index in numbered:
                raise ConfigError(f"--lun {index}: given twice; write another number, or leave it out")
            numbered[index] = match["spec"]
        for text in free:
            numbered[next(index for index in range(MAXIMUM_LUN + 1) if index not in numbered)] = text
        return numbered

    def _storage_object(self, index: int, text: str, filters: tuple[FilterConfig, ...]) -> StorageObject:
        name, values = split_spec(text, f"--lun {index}=")
        place = f"--lun {index}={name}"
        kind = named(place, self._plugins.backstore, name)
        own, common, attributes = self._sorted_out(values, kind.options, place)
        lun = build(LunOptions, common, f"{place}: ")
        options = make_options(kind, read_secrets(kind.options, own, f"{place}: "), f"{place}: ")
        identity = {"vendor": lun.vendor, "product": lun.product or name.upper()[:16], "revision": lun.revision}
        return StorageObject(
            path=f"/backstores/{name}/{lun.name or f'lun{index}'}",
            name=lun.name or f"lun{index}",
            type=name,
            options=options,
            filters=filters,
            attributes=build(DeviceAttributes, attributes, f"{place}: "),
            identity=build(Identity, identity, f"{place}: "),
            serial=make_serial(lun.wwn, f"{place}: wwn") if lun.wwn else self._serial(index, name, options),
            removable=lun.removable,
            read_only=lun.read_only or self._arguments.read_only,
        )

    @staticmethod
    def _sorted_out(values: dict[str, Any], cls: type[Any], place: str) -> tuple[dict[str, Any], ...]:
        """The backstore's own keys, those of every LUN, and device attributes. The backstore's go first."""
        families = [options_of(each) for each in (cls, LunOptions, DeviceAttributes)]
        sorted_out: tuple[dict[str, Any], ...] = ({}, {}, {})
        for key, value in values.items():
            for family, found in zip(families, sorted_out, strict=True):
                if key in family:
                    found[key] = value
                    break
            else:
                text = unknown_key(key, {name for family in families for name in family})
                best = text.partition(";")[0]
                keys = ", ".join(sorted({*families[0], *families[1]}))
                raise ConfigError(f"{place}: {key}: {best}; keys are {keys}, and the attributes that --dump-plugin lists")
        return sorted_out

    def _serial(self, index: int, name: str, options: Any) -> str:
        """The same for the same thing after a restart: state directory, LUN, type and path."""
        paths = [str(getattr(options, each.name)) for each in options_of(type(options)).values() if each.kind == "path"]
        text = "|".join(["tcm", self._state.unique, str(index), name, *paths])
        # a path may have bytes that are no UTF-8
        return str(uuid.uuid5(uuid.NAMESPACE_URL, os.fsencode(text).decode(errors="backslashreplace")))

    # targets

    def _names(self, fabric: FabricType, options: Any) -> list[str]:
        flag = f"--{next(iter(fabric.target_flags), 'target')}"
        given = [named(flag, fabric.check_name, each) for each in self._arguments.targets]
        check_unique(((flag, each) for each in given), "target")
        count = 1 if fabric.default_targets is None else fabric.default_targets(options)
        return given or [self._state.target_name(fabric, number) for number in range(count)]

    def _target(
        self, fabric: FabricType, name: str, luns: tuple[LunConfig, ...], authentication: Authentication
    ) -> TargetConfig:
        known = options_of(fabric.tpg_attributes)
        if authentication.userid and "authentication" not in known:
            raise ConfigError(f"--chap: fabric {fabric.name} has no authentication; leave it out")
        if not authentication.userid and "authentication" in self._attributes:
            raise ConfigError("--attribute authentication: it goes with a user and a secret; write --chap USER instead")
        if "generate_node_acls" in self._attributes:
            raise ConfigError(
                "--attribute generate_node_acls: a command line has no node ACLs; write allowed_initiators, or a --config"
            )
        wanted = {
            "generate_node_acls": True,
            "cache_dynamic_acls": True,
            "demo_mode_write_protect": False,
            "authentication": bool(authentication.userid),
        }
        base = build(fabric.tpg_attributes, {key: value for key, value in wanted.items() if key in known}, "--chap: ")
        acl = options_of(fabric.acl_attributes)
        own = {key: value for key, value in self._attributes.items() if key in known}
        dynamic = {key: value for key, value in self._attributes.items() if key in acl and key not in known}
        params = {key: value for key, value in self._params.items() if key in options_of(fabric.tpg_parameters)}
        group = PortalGroupConfig(
            tag=1,
            attributes=build(fabric.tpg_attributes, own, "--attribute ", base),
            parameters=build(fabric.tpg_parameters, params, "--param "),
            dynamic_acl_attributes=build(fabric.acl_attributes, dynamic, "--attribute ") if dynamic else None,
            authentication=authentication,
            luns=luns,
            portals=self._portals(fabric),
        )
        return TargetConfig(name=name, fabric=fabric.name, portal_groups=(group,))

    def _portals(self, fabric: FabricType) -> tuple[NetworkPortal, ...]:
        if not fabric.uses_portals:
            return ()
        address, port = fabric.default_portal or ("127.0.0.1", 0)
        portals = tuple(parse_portal(text, "--portal", port) for text in self._arguments.portals)
        check_unique((("--portal", each) for each in portals if each.port), "portal")
        return portals or (NetworkPortal(address, port),)


def _settings(flag: str, texts: tuple[str, ...], fabrics: list[FabricType], families: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` by name, as one of the fabrics has it; what is given more than once as a tuple."""
    known = {name for fabric in fabrics for family in families for name in options_of(getattr(fabric, family))}
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name = key.strip().replace("-", "_")
        if not equals or not name:
            raise ConfigError(
                f"{flag}: {text!r} is not NAME=VALUE; write for example {flag} {min(known, default='NAME')}=VALUE"
            )
        if name not in known:
            raise ConfigError(f"{flag} {name}: {unknown_key(name, known)}")
        values[name] = (*values[name], value) if name in values else (value,)
    return {name: given if len(given) > 1 else given[0] for name, given in values.items()}


def _authentication(arguments: Arguments) -> Authentication:
    user, password = _secret("--chap", arguments.chap, arguments.chap_secret_file, CHAP_SECRET)
    mutual = _secret("--chap-mutual", arguments.chap_mutual, arguments.chap_mutual_secret_file, CHAP_MUTUAL_SECRET)
    if arguments.chap_discovery and not user:
        raise ConfigError("--chap-discovery: without --chap there is no secret to ask for; write --chap USER as well")
    made = Authentication(userid=user, password=password, userid_mutual=mutual[0], password_mutual=mutual[1])
    return check_authentication(made, "--chap-mutual" if mutual[0] else "--chap")


def _secret(flag: str, user: str | None, file: str | None, variable: str) -> tuple[str, str]:
    # children and core dumps need not see it
    from_environment = os.environ.pop(variable, "")
    if user is None:
        if file is not None:
            raise ConfigError(f"{flag}-secret-file: whose secret? write {flag} USER as well")
        if from_environment:
            log.warning("%s is not used, because there is no %s; write %s USER to ask for it", variable, flag, flag)
        return "", ""
    if not user:
        raise ConfigError(f"{flag}: empty; write the user's name")
    if "%" in user:
        raise ConfigError(
            f"{flag}: write only the user's name: a secret on the command line can be read by everybody on this machine;"
            f" put it into a file ({flag}-secret-file FILE) or into {variable}"
        )
    if file is not None:
        return user, read_secret_file(file, f"{flag}-secret-file")
    if not from_environment:
        raise ConfigError(f"{flag}: no secret; write {flag}-secret-file FILE or set {variable}")
    return user, from_environment
