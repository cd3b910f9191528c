"""Whole configurations: compared, applied whole or taken back whole, saved."""

from __future__ import annotations

import errno
import logging
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint

from tcm.configfs.node import Group, Tree, TreeError
from tcm.configfs.plan import Move, Operation, plan
from tcm.configfs.script import HBA_PREFIXES, fabric_directory
from tcm.configfs.settled import before_growth, settle
from tcm.left_out import groups_of, portal_of, without
from tcm.options import one_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Generator, Mapping

    from tcm.left_out import LeftOut

log = logging.getLogger(__name__)

_TRIES = 20
_TURN = 16
"""Operations after which initiators get their turn."""

_SETTINGS = {"attrib", "param", "tcm_acl_attrib", "tcm_attrib", "tcm_param"}
"""Folders of values, in no particular order; a target port group is another."""
_FOLLOWS = {"attrib/authentication": "param/AuthMethod"}
"""Attributes of a portal group that change another one when they are written."""
_PLUGINS = {prefix: plugin for plugin, prefix in HBA_PREFIXES.items()}


class Settings:
    """What the control socket's ``export``, ``diff``, ``apply``, ``save`` and ``reload`` do.

    :param tree: of the running target.
    :param dump: what runs as the content of a saveconfig.json: :func:`tcm.configfs.export.export`.
    :param check: raises :class:`tcm.failure.ConfigError` for a configuration that cannot be; it does not look at the media of
        these storage objects.
    :param read: reads a saveconfig.json; raises the same.
    :param write: writes one.
    :param path: where it is kept; ``None``: nowhere unless it is said where.
    :param renew: reads files again that are named elsewhere (certificates); each of what it returns puts one in force. Raises
        :class:`tcm.failure.ConfigError`.
    :param left_out: what of the configuration is not served.
    :param unfit: which of these names of a configuration cannot be served now, and why.
    :param configured: what runs was read from ``path``; it has to be there to be read again.
    """

    def __init__(
        self,
        tree: Tree,
        dump: Callable[[Tree, Collection[str] | None], Generator[None, None, dict[str, Any]]],
        check: Callable[[Mapping[str, Any], Collection[str]], None],
        read: Callable[[str], dict[str, Any]],
        write: Callable[[str, Mapping[str, Any]], None],
        path: str | None = None,
        renew: Callable[[], list[Callable[[], None]]] = list,
        *,
        left_out: LeftOut,
        unfit: Callable[[Mapping[str, Any], Collection[str]], Awaitable[dict[str, str]]],
        configured: bool = False,
    ) -> None:
        self._tree = tree
        self._dump = dump
        self._check = check
        self._read = read
        self._write = write
        self._renew = renew
        self._configured = configured
        self._left_out = left_out
        self._unfit = unfit
        self.path = path
        self._lock = anyio.Lock()
        self._kept: dict[str, str] = {}
        """What is applied: paths that have not taken the value, and why."""

    @property
    def revision(self) -> int:
        """The tree's."""
        return self._tree.revision

    async def export(self, part: Collection[str] | None = None) -> dict[str, Any]:
        """What runs, at one moment, and what is left out.

        :param part: names of target devices: what they are made of, and nothing else; ``None``: everything.
        """
        found = await self._running(part)
        return self._left_out.merged(found) if part is None else found

    async def _running(self, part: Collection[str] | None = None) -> dict[str, Any]:
        for _ in range(_TRIES):
            revision = self._tree.revision
            found = await self._walk(part)
            if found is not None and revision == self._tree.revision:
                return found
        raise TreeError(errno.EAGAIN, "the tree changes all the time; try again when it is quiet")

    async def _walk(self, part: Collection[str] | None) -> dict[str, Any] | None:
        """``None`` if somebody took away what was to be looked at."""
        revision = self._tree.revision
        steps = self._dump(self._tree, part)
        try:
            while True:
                next(steps)
                await checkpoint()
        except StopIteration as done:
            found: dict[str, Any] = done.value
            return found
        except Exception:
            if revision == self._tree.revision:
                raise
            return None

    async def diff(self, config: Mapping[str, Any], part: Collection[str] | None = None) -> list[dict[str, Any]]:
        """The operations from what runs to ``config``.

        :param part: what ``config`` is about; other target devices stay as they are.
        """
        return _shown(await self._plan(config, part, self._left_out.unchanged))

    async def _plan(
        self,
        config: Mapping[str, Any],
        part: Collection[str] | None = None,
        absent: Callable[[Mapping[str, Any]], Collection[str]] = frozenset,
    ) -> list[Move]:
        current, found = await self._running(part), places(self._tree)
        # in a thread: initiators are served meanwhile
        await to_thread.run_sync(self._check, before_growth(current, config), absent(config))
        settle(self._tree, found, current, config)
        return await to_thread.run_sync(plan, config, current, found)

    async def apply(
        self,
        config: Mapping[str, Any],
        *,
        revision: int | None = None,
        who: str = "",
        part: Collection[str] | None = None,
        dry_run: bool = False,
    ) -> list[dict[str, Any]]:
        """All of them, or none. What is left out, and cannot be served yet, stays so.

        :param part: as of :meth:`diff`.
        :param dry_run: only say what would be done.

        Raises :class:`TreeError` for the operation that is refused, once everything before it is taken back.
        """
        async with self._lock:
            started = self._tree.revision if revision is None else revision
            wanted, reasons = (config, {}) if part is not None else await self._without_unfit(config)
            moves = await self._plan(wanted, part)
            left_out = [{"action": "leave out", "path": name, "not_taken": why} for name, why in reasons.items()]
            if dry_run:
                return [*_shown(moves), *left_out]
            self._kept = {}
            before = self._left_out.state
            if part is None:
                self._left_out.keep(config, reasons)
            try:
                # whoever asked may go: what has begun is ended, one way or the other
                with anyio.CancelScope(shield=True):
                    await self._perform(moves, started, who)
            except BaseException:
                self._left_out.state = before
                raise
            if part is None:
                # what was made anew on the way has lost its own
                self._left_out.keep(config, reasons)
            return [*_shown(moves, self._kept), *left_out]

    async def _without_unfit(self, config: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
        """What of it can be served, and what of what is left out cannot, and why."""
        if not self._left_out.reasons:
            return config, {}
        await to_thread.run_sync(self._check_leniently, config)
        reasons = await self._unfit(config, self._left_out.unchanged(config))
        return without(config, reasons), reasons

    def _check_leniently(self, config: Mapping[str, Any]) -> None:
        self._check(config, self._left_out.reasons)

    # what is left out

    def left_out(self) -> list[dict[str, Any]]:
        """What of the configuration is not served, and why."""
        return [asdict(each) for each in self._left_out.missing()]

    async def retry(self, *, who: str = "") -> list[dict[str, Any]]:
        """Serves what can be served by now; the operations."""
        return await self.apply(await self.export(), who=who)

    def forget(self, name: str) -> None:
        """Gives up what is left out: it is not saved any more, and its LUN numbers are free. Raises :class:`TreeError`."""
        there = ", ".join(self._left_out.reasons) or "none"
        if not self._left_out.forget(name):
            raise TreeError(errno.ENOENT, f"{name[:200]!r} is not left out; there are {there}")
        log.warning("%s is given up: it is not saved any more", name)

    async def retry_portals(self) -> None:
        """Listens at those that are left out, if this machine has their addresses by now."""
        async with self._lock:
            for target, group in groups_of(self._left_out.config):
                for portal in group["portals"]:
                    path = f"{fabric_directory(target['fabric'])}/{target['wwn']}/tpgt_{group['tag']}/np/{portal_of(portal)}"
                    with suppress(TreeError):
                        await self._tree.make(path, who="tcm-run")
                        log.info("%s was left out and is served now", path)

    async def _perform(self, moves: list[Move], revision: int, who: str) -> None:
        done: list[Move] = []
        waiting: list[Move] = []

        async def perform(move: Move) -> None:
            nonlocal revision
            if move.do is not None:
                follows = self._follows(move.do)
                await self._do(move.do, who, revision)
                revision = self._tree.revision
                done.extend(follows)
            done.append(move)

        async def perform_those_that_wait() -> None:
            for each in waiting:
                await perform(each)
            waiting.clear()

        try:
            for number, move in enumerate(moves):
                if number % _TURN == 0:
                    await checkpoint()
                if waiting and _folder(move) != _folder(waiting[0]):
                    await perform_those_that_wait()
                try:
                    await perform(move)
                except TreeError as error:
                    if error.number != errno.EINVAL or not _is_setting(move):
                        raise
                    # a value may want another one of the same folder first: FirstBurstLength and MaxBurstLength
                    waiting.append(move)
            await perform_those_that_wait()
        except Exception as error:
            log.warning("applying a configuration: %s: taking %d operations back", one_line(error), len(done))
            lost = await self._take_back(done, who)
            if not isinstance(error, TreeError):
                raise
            rest = f"; not everything could be taken back: {lost[0]}" if lost else "; nothing was changed"
            raise TreeError(error.number, f"{error}{rest}") from None

    def _follows(self, operation: Operation) -> list[Move]:
        """What is to be taken back as well, once the operation is."""
        group, folder, name = ("", "", *operation.path.rsplit("/", 2))[-3:]
        other = _FOLLOWS.get(f"{folder}/{name}")
        if operation.action != "write" or other is None:
            return []
        path = f"{group}/{other}"
        try:
            return [Move(None, Operation("write", path, self._tree.read(path).rstrip("\n")))]
        except TreeError:
            return []

    async def _take_back(self, done: list[Move], who: str) -> list[str]:
        """What could not be, one line each."""
        again = []
        for move in reversed(done):
            if move.undo is not None:
                try:
                    await self._do(move.undo, who, None)
                except TreeError:
                    again.append(move)
        lost = []
        for move in again:
            assert move.undo is not None
            try:
                await self._do(move.undo, who, None)
            except TreeError as error:
                # values of what is not gone are refused where they are already as they should be
                if move.do is not None:
                    log.error("taking back: %s %s: %s", move.undo.action, move.undo.path, error)
                    lost.append(str(error))
        return lost

    async def _do(self, operation: Operation, who: str, revision: int | None) -> None:
        tree, path = self._tree, operation.path
        if operation.action == "make":
            try:
                await tree.make(path, revision=revision, who=who)
            except TreeError as error:
                # an HBA or a fabric's directory without anything in it
                shared = "/" not in path or (path.startswith("core/") and path.count("/") == 1)
                if error.number != errno.EEXIST or not shared:
                    raise
        elif operation.action == "remove":
            await tree.remove(path, revision=revision, who=who)
        elif operation.action == "write":
            if operation.secret or not _is_already(tree, operation):
                await self._write_value(operation, who, revision)
        elif operation.action == "link":
            await tree.link(path, operation.value, revision=revision, who=who)
        else:
            await tree.unlink(path, revision=revision, who=who)

    async def _write_value(self, operation: Operation, who: str, revision: int | None) -> None:
        path = operation.path
        try:
            await self._tree.write(path, operation.value, revision=revision, who=who)
        except TreeError as error:
            if not operation.soft or error.number == errno.ESTALE:
                raise
            self._kept[path] = str(error).removeprefix(f"{path}: ")
        else:
            there = self._tree.read(path).rstrip("\n") if operation.soft else operation.value
            if there != operation.value:
                self._kept[path] = f"it is {there}, as much as the device can do with its other attributes"
        if path in self._kept:
            log.warning("%s: %s was not taken: %s", path, operation.value, self._kept[path])

    async def save(self, path: str = "") -> str:
        """Writes what runs; returns the path. Raises :class:`OSError`, :class:`TreeError` if nobody has said where."""
        where = path or self.path
        if where is None:
            raise TreeError(errno.EINVAL, "save: this process keeps no file; write the path of one")
        config = await self.export()
        await to_thread.run_sync(self._write, where, config)
        log.info("saved to %s", where)
        return where

    async def reload(self, *, who: str = "", dry_run: bool = False) -> list[dict[str, Any]]:
        """Applies the file again, and puts in force what is in other files now; if it is refused, neither.

        :param dry_run: only the operations that it would take.
        """
        renewals = self._renew()
        done: list[dict[str, Any]] = []
        if self.path is None or (renewals and not self._configured and not await anyio.Path(self.path).exists()):
            if not renewals:
                raise TreeError(errno.EINVAL, "reload: this process keeps no file; apply one instead")
        else:
            if not await anyio.Path(self.path).exists():
                raise TreeError(errno.ENOENT, f"reload: {self.path} is not there; save makes it")
            config = await to_thread.run_sync(self._read, self.path)
            done = await self.apply(config, who=who, dry_run=dry_run)
        for put_in_force in () if dry_run else renewals:
            put_in_force()
        return done


def _folder(move: Move) -> str:
    operation = move.do or move.undo
    return operation.path.rpartition("/")[0] if operation is not None else ""


def _is_setting(move: Move) -> bool:
    """One of many values of a folder, in no particular order."""
    if move.do is None or move.do.action != "write":
        return False
    folder = _folder(move).split("/")
    return folder[-1] in _SETTINGS or (folder[0] == "core" and folder[-2] == "alua")


def _is_already(tree: Tree, operation: Operation) -> bool:
    """What is as it should be is not written: that might be refused, for no reason that matters."""
    try:
        return tree.read(operation.path).rstrip("\n") == operation.value
    except TreeError:
        return False


def places(tree: Tree) -> dict[str, str]:
    """Where the storage objects are: ``/backstores/fileio/disk0`` to ``core/fileio_0/disk0``."""
    found: dict[str, str] = {}
    try:
        core = tree.group("core")
    except TreeError:
        return found
    for hba in core.children().values():
        if isinstance(hba, Group) and "_" in hba.name:
            prefix = hba.name.rpartition("_")[0]
            for device in hba.children().values():
                if isinstance(device, Group):
                    found[f"/backstores/{_PLUGINS.get(prefix, prefix)}/{device.name}"] = device.path
    return found


def _shown(moves: list[Move], kept: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    found = [move.do.to_json() for move in moves if move.do is not None]
    for each in found if kept else ():
        if each["action"] == "write" and each["path"] in (kept or ()):
            each["not_taken"] = (kept or {})[each["path"]]
    return found
