"""What the control socket can do: one async method a JSON-RPC method, its parameters from the signature."""

from __future__ import annotations

import errno
import inspect
import os
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from anyio.lowlevel import checkpoint

from tcm.configfs.node import LINE_LIMIT, Attribute, Group, Link, Node, Permissions, Tree, TreeError, printable
from tcm.control.protocol import INVALID_PARAMS, METHOD_NOT_FOUND, REFUSED, RpcError
from tcm.failure import ConfigError

if typing.TYPE_CHECKING:
    from tcm.control.peer import Peer

PROTOCOL_VERSION = 1
MOUNT_POINT = "/sys/kernel/config/target"
"""Where LIO has the tree."""
STATISTICS = frozenset({"statistics", "fabric_statistics"})
"""Groups that a list without statistics leaves out."""
MAXIMUM_WHO = 128
"""Characters of ``who``."""
_BATCH = 256
"""Nodes that are listed before others get their turn."""


class Settings(Protocol):
    """Whole configurations: what is behind ``export``, ``diff``, ``apply``, ``save``, ``clear`` and ``reload``."""

    async def export(self) -> dict[str, Any]: ...
    async def diff(self, config: Mapping[str, Any]) -> list[dict[str, Any]]: ...
    async def apply(
        self, config: Mapping[str, Any], *, revision: int | None, who: str, dry_run: bool = False
    ) -> list[dict[str, Any]]: ...
    async def save(self, path: str) -> str: ...
    def left_out(self) -> list[dict[str, Any]]: ...
    async def retry(self, *, who: str) -> list[dict[str, Any]]: ...
    def forget(self, name: str) -> None: ...
    async def reload(self, *, who: str, dry_run: bool = False) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class Sources:
    """What the process can tell besides the tree."""

    version: str = ""
    settings: Settings | None = None
    sessions: Callable[[], list[dict[str, Any]]] = list
    units: Callable[[], dict[str, Any]] = dict
    statistics: Callable[[], dict[str, Any]] = dict


class Methods:
    """Every public async method is a method of the protocol; its docstring is in docs/control-protocol.md.

    ``revision``: the tree's when the caller looked; if it has changed since, the call is refused (ESTALE) and says who changed
    what. ``who``: on whose behalf, for the list of changes; by default the peer.
    """

    def __init__(self, tree: Tree, sources: Sources) -> None:
        self._tree = tree
        self._sources = sources
        self.table: dict[str, Callable[..., Awaitable[Any]]] = {
            name: method
            for name, method in inspect.getmembers(self, inspect.iscoroutinefunction)
            if not name.startswith("_") and name != "call"
        }
        self._parameters = {name: _parameters(method) for name, method in self.table.items()}

    def may_wait(self, method: str) -> bool:
        """Whether calls of it may take long, for their turn or for initiators: those that change something."""
        return "who" in self._parameters.get(method, ())

    async def call(self, method: str, params: dict[str, Any] | list[Any], peer: Peer) -> Any:
        """Calls a method. Raises :class:`RpcError`."""
        if method not in self.table:
            raise RpcError(METHOD_NOT_FOUND, f"no method {method[:80]!r}; there are {', '.join(self.table)}")
        arguments = _bind(self._parameters[method], params, method)
        if "who" in self._parameters[method]:
            arguments["who"] = _one_name(arguments.get("who") or str(peer))
        try:
            return await self.table[method](**arguments)
        except TreeError as error:
            raise RpcError(REFUSED, str(error), {"errno": error.number, "name": error.name}) from None
        except ConfigError as error:
            raise RpcError(REFUSED, _shortened(str(error)), {"errno": 22, "name": "EINVAL"}) from None
        except OSError as error:
            text = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)
            number = error.errno or errno.EIO
            named = {"errno": number, "name": errno.errorcode.get(number, str(number))}
            raise RpcError(REFUSED, _shortened(printable(text)), named) from None

    # looking

    async def version(self) -> dict[str, Any]:
        """Program, protocol, process and the tree's revision."""
        return {
            "version": self._sources.version,
            "protocol": PROTOCOL_VERSION,
            "pid": os.getpid(),
            "revision": self._tree.revision,
            "root": MOUNT_POINT,
        }

    async def read(self, path: str) -> dict[str, Any]:
        """An attribute's ``value`` as LIO writes it, with a line end, and the ``revision``."""
        return {"value": self._tree.read(path), "revision": self._tree.revision}

    async def stat(self, path: str) -> dict[str, Any]:
        """One node: ``kind`` (group, attribute, link), ``mode`` of an attribute, ``target`` of a link.

        ``permissions``: what ``permit`` has said of it.
        """
        node = self._tree.find(path)
        given = {name: value for name, value in self._tree.permissions(node)._asdict().items() if value is not None}
        return {**_describe(node), **({"permissions": given} if given else {})}

    async def list(self, path: str = "", depth: int = 1, values: bool = False, statistics: bool = True) -> dict[str, Any]:
        """A node and what is below it, ``depth`` levels deep (-1: all), with or without attributes' values."""
        listing = _Listing(depth, values=values, statistics=statistics)
        return {**await listing.node(self._tree.find(path), 0), "revision": self._tree.revision}

    async def sessions(self) -> typing.List[dict[str, Any]]:  # noqa: UP006 - list is a method here
        """The I_T nexuses: target, portal group, initiator, where it is, its LUNs and what they have counted."""
        return self._sources.sessions()

    async def units(self) -> dict[str, Any]:
        """Each logical unit's counters since the start, its queue and its latencies, and the ``time`` in seconds."""
        return self._sources.units()

    async def statistics(self) -> dict[str, Any]:
        """All counters at one moment."""
        return self._sources.statistics()

    async def changes(self, since: int = 0) -> dict[str, Any]:
        """The last 256 changes after revision ``since``, oldest first: `time` (since 1970), `who`, `what`."""
        found = [
            {"revision": each.revision, "time": each.time, "who": each.who, "what": each.what}
            for each in self._tree.changes
            if each.revision > since
        ]
        return {"revision": self._tree.revision, "changes": found}

    # changing

    async def write(self, path: str, value: str, revision: int | None = None, who: str = "") -> dict[str, Any]:
        """Sets an attribute."""
        await self._tree.write(path, value, revision=revision, who=who)
        return self._revision()

    async def permit(
        self, path: str, mode: int | None = None, uid: int | None = None, gid: int | None = None
    ) -> dict[str, Any]:
        """Another mode or owner of a node, for whoever comes by a mount (chmod, chown): kept as long as the node is there."""
        self._tree.permit(path, Permissions(mode, uid, gid))
        return self._revision()

    async def make(self, path: str, revision: int | None = None, who: str = "") -> dict[str, Any]:
        """Makes a group (mkdir)."""
        await self._tree.make(path, revision=revision, who=who)
        return self._revision()

    async def remove(
        self, path: str, recursive: bool = False, drain: float | None = None, revision: int | None = None, who: str = ""
    ) -> dict[str, Any]:
        """Removes a group (rmdir), or with all that is in it; ``drain``: see below. Returns the paths that are ``removed``."""
        removed = await self._tree.remove(path, recursive=recursive, drain=drain, revision=revision, who=who)
        return {**self._revision(), "removed": removed}

    async def link(self, path: str, target: str, revision: int | None = None, who: str = "") -> dict[str, Any]:
        """Makes a link at ``path`` to the group at ``target`` (symlink)."""
        await self._tree.link(path, target, revision=revision, who=who)
        return self._revision()

    async def unlink(self, path: str, drain: float | None = None, revision: int | None = None, who: str = "") -> dict[str, Any]:
        """Removes a link; ``drain``: see below."""
        await self._tree.unlink(path, drain=drain, revision=revision, who=who)
        return self._revision()

    def _revision(self) -> dict[str, Any]:
        return {"revision": self._tree.revision}

    # whole configurations

    async def export(self) -> dict[str, Any]:
        """What runs and what is left out, as the content of a saveconfig.json."""
        return await self._settings().export()

    async def diff(self, config: dict[str, Any]) -> typing.List[dict[str, Any]]:  # noqa: UP006 - the same
        """The operations that would make ``config`` out of what runs."""
        return await self._settings().diff(config)

    async def apply(
        self, config: dict[str, Any], revision: int | None = None, who: str = "", dry_run: bool = False
    ) -> typing.List[dict[str, Any]]:  # noqa: UP006 - the same
        """Makes ``config`` out of what runs, whole or not at all; returns the operations.

        ``dry_run``: only what would be done.
        """
        return await self._settings().apply(config, revision=revision, who=who, dry_run=dry_run)

    async def clear(self, who: str = "") -> typing.List[dict[str, Any]]:  # noqa: UP006 - the same
        """Removes every target and every storage object, whole or not at all; returns the operations."""
        return await self._settings().apply({}, revision=None, who=who)

    async def save(self, path: str = "") -> dict[str, Any]:
        """Saves what runs and what is left out, by default where the process keeps it; returns the file's ``path``."""
        return {"path": await self._settings().save(path)}

    async def reload(self, who: str = "", dry_run: bool = False) -> typing.List[dict[str, Any]]:  # noqa: UP006 - the same
        """Reads the file of ``--config`` again and applies it, whole or not at all; returns the operations.

        ``dry_run``: only what would be done.
        """
        return await self._settings().reload(who=who, dry_run=dry_run)

    async def left_out(self) -> typing.List[dict[str, Any]]:  # noqa: UP006 - the same
        """What of the saved configuration is not served: `kind`, `name`, `reason`, and `where` it is missed."""
        return self._sources.settings.left_out() if self._sources.settings is not None else []

    async def retry(self, who: str = "") -> typing.List[dict[str, Any]]:  # noqa: UP006 - the same
        """Serves what is left out as far as it can be by now; returns the operations."""
        return await self._settings().retry(who=who)

    async def forget(self, name: str, who: str = "") -> dict[str, Any]:
        """Gives up what is left out: it is not saved any more, and its LUN numbers are free."""
        del who
        self._settings().forget(name)
        return self._revision()

    def _settings(self) -> Settings:
        if self._sources.settings is None:
            raise RpcError(METHOD_NOT_FOUND, "this process cannot save or apply configurations")
        return self._sources.settings


def _shortened(text: str) -> str:
    return text if len(text) <= LINE_LIMIT else f"{text[: LINE_LIMIT - 3]}..."


def _one_name(who: str) -> str:
    """It stands in the log and in the list of changes, a line each."""
    return "".join(each if each.isprintable() else "?" for each in who[:MAXIMUM_WHO])


class _Listing:
    """One walk through a part of the tree; others get their turn in between."""

    def __init__(self, depth: int, *, values: bool, statistics: bool) -> None:
        self._depth = depth
        self._values = values
        self._statistics = statistics
        self._seen = 0

    async def node(self, node: Node, level: int) -> dict[str, Any]:
        self._seen += 1
        if self._seen % _BATCH == 0:
            await checkpoint()
        made = _describe(node)
        if isinstance(node, Attribute) and self._values and node.readable:
            try:
                made["value"] = node.read()
            except TreeError as error:
                made["error"] = {"errno": error.number, "name": error.name, "message": str(error)}
        if isinstance(node, Group) and level != self._depth:
            made["children"] = {
                name: await self.node(child, level + 1)
                for name, child in [*node.children().items()]
                if self._statistics or name not in STATISTICS
            }
        return made


def _describe(node: Node) -> dict[str, Any]:
    if isinstance(node, Attribute):
        return {"kind": "attribute", "mode": node.mode}
    if isinstance(node, Link):
        return {"kind": "link", "target": node.target}
    return {"kind": "group"}


@dataclass(frozen=True, slots=True)
class _Parameter:
    kinds: tuple[type, ...]
    required: bool


_KIND_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    type(None): "null",
}


def _parameters(method: Callable[..., Any]) -> dict[str, _Parameter]:
    hints = typing.get_type_hints(method)
    found = {}
    for name, parameter in inspect.signature(method).parameters.items():
        hint = hints[name]
        union = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = tuple(typing.get_origin(each) or each for each in union)
        if float in kinds:
            kinds = (*kinds, int)
        found[name] = _Parameter(kinds, parameter.default is inspect.Parameter.empty)
    return found


def _bind(parameters: Mapping[str, _Parameter], params: dict[str, Any] | list[Any], method: str) -> dict[str, Any]:
    if isinstance(params, list):
        if len(params) > len(parameters):
            raise RpcError(INVALID_PARAMS, f"{method}: {len(params)} parameters are too many; write {_names(parameters)}")
        params = dict(zip(parameters, params, strict=False))
    for name, value in params.items():
        if name not in parameters:
            raise RpcError(INVALID_PARAMS, f"{method}: no parameter {name[:80]!r}; write {_names(parameters)}")
        kinds = parameters[name].kinds
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(_KIND_NAMES[each] for each in kinds if not (each is int and float in kinds))
            raise RpcError(INVALID_PARAMS, f"{method}: {name}: write {wanted}")
        if isinstance(value, str) and not _is_text(value):
            raise RpcError(REFUSED, f"{method}: {name}: this is no UTF-8; write text", {"errno": 22, "name": "EINVAL"})
    for name, parameter in parameters.items():
        if parameter.required and name not in params:
            raise RpcError(INVALID_PARAMS, f"{method}: {name} is missing; write {_names(parameters)}")
    return dict(params)


def _is_text(value: str) -> bool:
    """Not half of a surrogate pair, which is what bytes that are no UTF-8 become."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _names(parameters: Mapping[str, _Parameter]) -> str:
    return ", ".join(parameters) or "none"
