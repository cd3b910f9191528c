"""The plug-in manager: finds, checks and hands out what distributions provide under the entry-point group ``tcm``.

Built-in fabrics, backstores and filters come the same way as a stranger's. Loading never raises: what is wrong with a
plug-in is one warning and a row of :meth:`PluginManager.rows`; the others work.
"""

from __future__ import annotations

import importlib.metadata
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pluggy

from tcm import hookspecs
from tcm.failure import ConfigError
from tcm.options import NAME, one_line, options_of, suggestion
from tcm.plugin_types import API_VERSION, BackstoreType, FabricType, FilterType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tcm.target.device import TargetDevice
    from tcm.target.nexus import ITNexus

log = logging.getLogger(__name__)

GROUP = "tcm"

Descriptor = FabricType | BackstoreType | FilterType
D = TypeVar("D", FabricType, BackstoreType, FilterType)

KINDS: dict[str, tuple[str, type[Any]]] = {
    "fabric": ("tcm_fabrics", FabricType),
    "backstore": ("tcm_backstores", BackstoreType),
    "filter": ("tcm_filters", FilterType),
}
"""Kind, the hook that returns it, the descriptor's class."""

PROVIDERS: dict[tuple[str, str], str] = {
    ("fabric", "iscsi"): "tcm-target-iscsi",
    ("fabric", "fcoe"): "tcm-target-fcoe",
    ("fabric", "loopback"): "tcm-target-loopback",
    **{("backstore", name): "tcm-target-backstores" for name in ("ramdisk", "fileio", "null")},
    **{("filter", name): "tcm-target-backstores" for name in ("readonly", "delay", "error", "log", "rate")},
}
"""Which distribution to install for what is not there."""


@dataclass(frozen=True, slots=True)
class PluginRow:
    """One line of ``--list-plugins``."""

    name: str
    kind: str
    """``fabric``, ``backstore``, ``filter``; ``plug-in`` for one that could not be loaded."""
    distribution: str
    version: str
    api_version: int | None
    state: str
    """``ok``, or what is wrong."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a plug-in comes from."""

    entry_point: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plug-in {self.entry_point!r} of {self.distribution} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class _Provided:
    """A descriptor and who brought it."""

    descriptor: Descriptor
    source: _Source


class PluginManager:
    """All plug-ins of this environment.

    :param entry_points: instead of those that are installed; for tests and for programs that embed a target.
    """

    def __init__(self, entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> None:
        self._pluggy = pluggy.PluginManager("tcm")
        self._pluggy.add_hookspecs(hookspecs)
        self._provided: dict[tuple[str, str], list[_Provided]] = {}
        self._failed: list[PluginRow] = []
        self._loaded: dict[str, str] = {}
        """Version of each distribution with a plug-in that could be loaded."""
        found = importlib.metadata.entry_points(group=GROUP) if entry_points is None else entry_points
        for entry_point in sorted(set(found), key=lambda each: (each.name, each.value)):
            self._load(entry_point)

    def register(self, plugin: object, name: str, distribution: str = "(this program)", version: str = "") -> None:
        """Adds a module or object with hooks, as if an entry point had led to it."""
        self._register(plugin, _Source(name, distribution, version))

    def _load(self, entry_point: importlib.metadata.EntryPoint) -> None:
        distribution = entry_point.dist
        source = _Source(
            entry_point.name,
            distribution.name if distribution else "(unknown distribution)",
            distribution.version if distribution else "",
        )
        started = time.perf_counter()
        try:
            plugin = entry_point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's module may do anything; the others must work
            self._refuse(source, f"cannot be imported ({type(error).__name__}: {one_line(error)})")
            return
        log.debug("%s loaded in %.0f ms", source, (time.perf_counter() - started) * 1000)
        self._register(plugin, source)

    def _register(self, plugin: object, source: _Source) -> None:
        try:
            if self._pluggy.register(plugin, f"{source.distribution}:{source.entry_point}") is None:
                return
        except (pluggy.PluginValidationError, ValueError) as error:
            self._refuse(source, f"has a hook that does not fit: {one_line(error)}")
            return
        self._loaded[source.distribution] = source.version
        callers = self._pluggy.get_hookcallers(plugin) or []
        known = {caller.name for caller in callers if caller.spec is not None}
        for name in sorted({caller.name for caller in callers} - known):
            specs = [spec for spec in vars(hookspecs) if spec.startswith("tcm_")]
            log.warning("%s implements %s, which is no hook%s: it is never called", source, name, suggestion(name, specs))
        for kind, (hook, expected) in KINDS.items():
            for caller in callers:
                if caller.name == hook:
                    implementations = [each for each in caller.get_hookimpls() if each.plugin is plugin]
                    for implementation in implementations:
                        self._collect(kind, expected, cast("Callable[[], Iterable[object]]", implementation.function), source)

    def _collect(self, kind: str, expected: type[Any], hook: Callable[[], Iterable[object]], source: _Source) -> None:
        try:
            descriptors = list(hook() or ())
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(source, f"fails in {KINDS[kind][0]} ({type(error).__name__}: {one_line(error)})", kind)
            return
        for descriptor in descriptors:
            problem = self._problem(descriptor, expected)
            if problem:
                name = getattr(descriptor, "name", source.entry_point)
                self._refuse(source, problem, kind, str(name), getattr(descriptor, "api_version", None))
            else:
                known = cast("Descriptor", descriptor)
                self._provided.setdefault((kind, known.name), []).append(_Provided(known, source))

    @staticmethod
    def _problem(descriptor: object, expected: type[Any]) -> str:
        """What is wrong with what a hook returned; empty if nothing is."""
        if not isinstance(descriptor, expected):
            return f"returns a {type(descriptor).__name__} where a {expected.__name__} is wanted"
        if not isinstance(descriptor.api_version, int) or descriptor.api_version < 1:
            return f"has API version {descriptor.api_version!r}: it is a number from 1 on"
        if descriptor.api_version > API_VERSION:
            return f"needs API version {descriptor.api_version}, this tcm has {API_VERSION}: install a newer tcm-target"
        if not isinstance(descriptor.name, str) or not NAME.fullmatch(descriptor.name):
            return f"has the name {descriptor.name!r}: lower case letters, digits and _ only, a letter first, at most 32"
        try:
            options_of(descriptor.options)
        except (ConfigError, TypeError) as error:
            return one_line(error)
        return ""

    def _refuse(
        self, source: _Source, problem: str, kind: str = "plug-in", name: str = "", api_version: int | None = None
    ) -> None:
        log.warning("%s %s; going on without it", source, problem)
        self._failed.append(
            PluginRow(name or source.entry_point, kind, source.distribution, source.version, api_version, problem)
        )

    # what is there

    def check(self) -> None:
        """Raises :class:`ConfigError` if two plug-ins provide one name of a kind."""
        for kind, name in self._provided:
            self._get(kind, name)

    def fabric(self, name: str) -> FabricType:
        """The fabric of that name, or :class:`ConfigError` that says how to get it."""
        return cast("FabricType", self._get("fabric", name))

    def backstore(self, name: str) -> BackstoreType:
        """The backstore of that name, or :class:`ConfigError` that says how to get it."""
        return cast("BackstoreType", self._get("backstore", name))

    def filter(self, name: str) -> FilterType:
        """The filter of that name, or :class:`ConfigError` that says how to get it."""
        return cast("FilterType", self._get("filter", name))

    def names(self, kind: str) -> list[str]:
        """The names there are of a kind (``fabric``, ``backstore``, ``filter``), sorted."""
        return sorted(name for each, name in self._provided if each == kind)

    def backstores(self) -> Sequence[BackstoreType]:
        """Every backstore, sorted by name."""
        return [self.backstore(name) for name in self.names("backstore")]

    def find(self, name: str) -> list[tuple[str, Descriptor, PluginRow]]:
        """What has that name, of whatever kind."""
        return [
            (kind, provided.descriptor, self._row(kind, provided))
            for (kind, each), several in sorted(self._provided.items())
            if each == name
            for provided in several
        ]

    def rows(self) -> list[PluginRow]:
        """All there is, sorted by kind and name, and then what could not be loaded."""
        good = [self._row(kind, each) for (kind, _), several in sorted(self._provided.items()) for each in several]
        return good + self._failed

    def _row(self, kind: str, provided: _Provided) -> PluginRow:
        descriptor, source = provided.descriptor, provided.source
        others = [each.source.distribution for each in self._provided[kind, descriptor.name] if each is not provided]
        state = f"conflict with {', '.join(others)}" if others else "ok"
        return PluginRow(descriptor.name, kind, source.distribution, source.version, descriptor.api_version, state)

    def _get(self, kind: str, name: str) -> Descriptor:
        several = self._provided.get((kind, name))
        if several is None:
            raise ConfigError(self._missing(kind, name))
        if len(several) > 1:
            whose = " and ".join(f"{each.source.distribution} {each.source.version}".rstrip() for each in several)
            raise ConfigError(f"{kind} {name!r} is provided twice, by {whose}; uninstall one of them")
        return several[0].descriptor

    def _missing(self, kind: str, name: str) -> str:
        names = self.names(kind)
        there = f"installed: {', '.join(names)}" if names else f"no {kind} is installed"
        failed = [row for row in self._failed if row.name == name]
        if failed:
            return f"{kind} {name!r} cannot be used: {failed[0].distribution} {failed[0].state}; {there}"
        provider = PROVIDERS.get((kind, name))
        if provider in self._loaded:
            version = self._loaded[provider]
            return f"{kind} {name!r} is not there yet: {provider} {version} is installed, a later version brings it; {there}"
        if provider:
            return f"{kind} {name!r} is not installed: it comes with {provider} (pip install {provider}); {there}"
        ours = [each for other, each in PROVIDERS if other == kind]
        return f"there is no {kind} {name!r}{suggestion(name, {*names, *ours})}; {there}"

    # notifications

    def target_configured(self, target: TargetDevice) -> None:
        """Calls ``tcm_target_configured``."""
        self._notify("tcm_target_configured", target=target)

    def nexus_established(self, nexus: ITNexus) -> None:
        """Calls ``tcm_nexus_established``."""
        self._notify("tcm_nexus_established", nexus=nexus)

    def nexus_lost(self, nexus: ITNexus) -> None:
        """Calls ``tcm_nexus_lost``."""
        self._notify("tcm_nexus_lost", nexus=nexus)

    def unhandled_error(self, where: str, error: BaseException) -> None:
        """Calls ``tcm_unhandled_error``."""
        self._notify("tcm_unhandled_error", where=where, error=error)

    def _notify(self, hook: str, **arguments: object) -> None:
        """A plug-in that fails in a notification is logged; it must not take the session with it."""
        caller: pluggy.HookCaller = getattr(self._pluggy.hook, hook)
        if not caller.get_hookimpls():
            return
        try:
            caller(**arguments)
        except Exception:
            log.exception("a plug-in failed in %s", hook)
