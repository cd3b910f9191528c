"""Groups, attributes and links: what a tree like ConfigFS is made of, and its operations, one at a time.

Reads are synchronous and see the running target. Changes are serialised; each raises the tree's revision by one.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

PAGE = 4096
"""Bytes that an attribute holds when it is written (ConfigFS: one page)."""
LINE_LIMIT = 1000
"""Characters of a refusal: what is refused may be a megabyte."""
NAME_LIMIT = 255
"""Bytes of a name (NAME_MAX)."""
MAXIMUM_DRAIN = 3600
"""Seconds that removing something may wait for what runs there."""
_MOST = (0o7777, 2**32 - 2, 2**32 - 2)
"""Of a mode, a user, a group."""
KEPT_CHANGES = 256
"""Changes that the tree remembers."""

_NOTHING: Mapping[str, Node] = MappingProxyType({})


def printable(text: str) -> str:
    r"""One line that tells a terminal to do nothing: what cannot be printed, of a path for example, is ``\n`` or ``\x1b``."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class TreeError(Exception):
    """An operation on the tree is refused.

    :param number: what errno is set to.
    :param message: one line.
    """

    def __init__(self, number: int, message: str) -> None:
        message = printable(message)
        super().__init__(message if len(message) <= LINE_LIMIT else f"{message[: LINE_LIMIT - 3]}...")
        self.number = number

    @property
    def name(self) -> str:
        """``EBUSY``."""
        return errno.errorcode.get(self.number, str(self.number))


class Permissions(NamedTuple):
    """What ``chmod`` and ``chown`` have said of a node; ``None``: nothing."""

    mode: int | None = None
    """0 to 0o7777."""
    uid: int | None = None
    gid: int | None = None


class Node:
    """Anything that has a name in the tree."""

    def __init__(self, name: str, parent: Group | None) -> None:
        self.name = name
        self.parent = parent

    @property
    def path(self) -> str:
        """From the root, without a slash in front: ``core/fileio_0/disk``; the root's is empty."""
        names = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            names.append(node.name)
            node = node.parent
        return "/".join(reversed(names))


class Attribute(Node):
    """A text file."""

    readable = True
    writable = True

    @property
    def mode(self) -> int:
        """Permission bits: 0o644, 0o444 or 0o200."""
        return (0o444 if self.readable else 0) | (0o200 if self.writable else 0)

    def read(self) -> str:
        """The value as LIO writes it, with a line end. Raises :class:`TreeError` (EACCES) if it can only be written."""
        raise TreeError(errno.EACCES, f"{self.path}: can only be written")

    async def write(self, text: str) -> None:
        """Sets it, in the running target. Raises :class:`TreeError`: EACCES if it can only be read, EINVAL for the value."""
        del text
        raise TreeError(errno.EACCES, f"{self.path}: can only be read")


class Link(Node):
    """A symbolic link to a group.

    :param target: from the root of the tree, with a slash in front: ``/core/fileio_0/disk``.
    """

    def __init__(self, name: str, parent: Group | None, target: str) -> None:
        super().__init__(name, parent)
        self.target = target


class Group(Node):
    """A directory."""

    def __init__(self, name: str, parent: Group | None) -> None:
        super().__init__(name, parent)
        self.permissions: dict[str, Permissions] = {}
        """Of attributes and links in it by name, its own by an empty one: they go with it, as in ConfigFS."""

    def children(self) -> Mapping[str, Node]:
        """What is in it, by name, in the order in which it is shown."""
        return _NOTHING

    def child(self, name: str) -> Node | None:
        """One of :meth:`children`."""
        return self.children().get(name)

    async def make(self, name: str) -> Group:
        """``mkdir``. Raises :class:`TreeError`: EPERM where none can be made, EINVAL for a name that cannot be."""
        raise TreeError(errno.EPERM, f"{self.path or '/'}: no directory can be made here, {name!r} neither")

    async def remove(self, name: str) -> None:
        """``rmdir``. Raises :class:`TreeError`: EPERM for what cannot be removed, EBUSY for what is in use."""
        raise TreeError(errno.EPERM, f"{self.path}/{name}: cannot be removed")

    def check_removable(self) -> None:
        """Raises :class:`TreeError` if :meth:`remove` of what it is in would, whatever runs there."""

    async def link(self, name: str, target: Group) -> None:
        """``symlink``. Raises :class:`TreeError`: EPERM where none can be made, EINVAL for the wrong kind of target."""
        raise TreeError(errno.EPERM, f"{self.path}: no link can be made here, {name!r} to {target.path} neither")

    async def unlink(self, name: str) -> None:
        """Removes a link. Raises :class:`TreeError`."""
        raise TreeError(errno.EPERM, f"{self.path}/{name}: cannot be removed")


class Tree:
    """The whole tree: paths, one change at a time, and who made which."""

    def __init__(self, root: Group) -> None:
        self.root = root
        self.revision = 0
        """Goes up by one with each change."""
        self.changes: deque[Change] = deque(maxlen=KEPT_CHANGES)
        # whoever makes many changes gives way now and then: a turn of the loop costs more than most changes
        self._lock = anyio.Lock(fast_acquire=True)
        self._place_found: tuple[str, Group] = ("", root)
        """Where something was found last: whoever looks at one thing in a directory looks at others."""

    # looking

    def find(self, path: str) -> Node:
        """What is at a path, links not followed. Raises :class:`TreeError`: ENOENT, ENOTDIR."""
        where, _, last = path.rpartition("/")
        if where and where == self._place_found[0]:
            found = self._place_found[1].child(last)
            if found is not None:
                return found
        node: Node = self.root
        for name in split(path):
            if not isinstance(node, Group):
                raise TreeError(errno.ENOTDIR, f"{node.path}: not a directory")
            found = node.child(name)
            if found is None:
                raise TreeError(errno.ENOENT, f"{path.strip('/')}: {name!r} is not in /{node.path}")
            node = found
        if last == node.name and node.parent is not None:
            self._place_found = where, node.parent
        return node

    def group(self, path: str) -> Group:
        """A directory, links followed. Raises :class:`TreeError`: ENOENT, ENOTDIR."""
        node = self.find(path)
        if isinstance(node, Link):
            node = self.find(node.target)
        if not isinstance(node, Group):
            raise TreeError(errno.ENOTDIR, f"{node.path}: not a directory")
        return node

    def read(self, path: str) -> str:
        """An attribute's text. Raises :class:`TreeError`."""
        return self._attribute(path).read()

    def _attribute(self, path: str) -> Attribute:
        node = self.find(path)
        if isinstance(node, Attribute):
            return node
        raise TreeError(errno.EISDIR, f"{path.strip('/')}: a directory or link, not an attribute")

    def permissions(self, node: Node) -> Permissions:
        """What was given to a node by :meth:`permit`."""
        group, name = _keeper(node)
        return group.permissions.get(name, Permissions())

    # changing

    def permit(self, path: str, permissions: Permissions) -> None:
        """Another mode or owner for whoever comes by a mount; the tree itself obeys none. Raises :class:`TreeError`."""
        if any(each is not None and not 0 <= each <= most for each, most in zip(permissions, _MOST, strict=True)):
            raise TreeError(errno.EINVAL, f"{path.strip('/')}: write a mode of 0 to 07777, users and groups of 0 to 4294967294")
        node = self.find(path)
        group, name = _keeper(node)
        before = self.permissions(node)
        group.permissions[name] = Permissions(
            *(old if new is None else new for new, old in zip(permissions, before, strict=True))
        )

    async def write(self, path: str, text: str, *, revision: int | None = None, who: str = "") -> None:
        """Sets an attribute.

        :param revision: the tree's when the caller looked; :class:`TreeError` (ESTALE) if it has changed since.
        """
        async with self._lock:
            self._check(revision)
            attribute = self._attribute(path)
            if not attribute.writable:
                raise TreeError(errno.EACCES, f"{attribute.path}: can only be read")
            if len(text.encode(errors="surrogateescape")) > PAGE:
                raise TreeError(
                    errno.EINVAL, f"{attribute.path}: {len(text)} characters are too many; write at most {PAGE} bytes"
                )
            if "\0" in text:
                raise TreeError(errno.EINVAL, f"{attribute.path}: write text without NUL characters")
            await attribute.write(text)
            self._changed(who, f"wrote {path.strip('/')}")

    async def make(self, path: str, *, revision: int | None = None, who: str = "") -> Group:
        """Makes a directory. Raises :class:`TreeError`: EEXIST besides what :meth:`Group.make` raises."""
        async with self._lock:
            self._check(revision)
            group, name = self._place(path)
            made = await group.make(name)
            self._changed(who, f"made {path.strip('/')}")
            return made

    async def remove(
        self, path: str, *, recursive: bool = False, drain: float | None = None, revision: int | None = None, who: str = ""
    ) -> list[str]:
        """Removes a directory; returns the paths of what is gone, in order.

        :param recursive: with what is in it; what is removed stays so, even if the rest is refused.
        :param drain: seconds that what runs there has to end, and in which nothing else is let in; ``None``: it is broken off.

        Raises :class:`TreeError`: ENOTEMPTY if links or directories that were made are in it, EBUSY if it is not drained in
        time.
        """
        async with self._draining(path, drain, revision, recursive=recursive), self._lock:
            if drain is None:
                self._check(revision)
            node = self.find(path)
            if not isinstance(node, Group):
                raise TreeError(errno.ENOTDIR, f"{node.path}: not a directory")
            if node.parent is None:
                raise TreeError(errno.EBUSY, "/: the root cannot be removed")
            gone: list[str] = []
            try:
                if recursive:
                    await self._empty(node, gone, who)
                await node.parent.remove(node.name)
            finally:
                self._place_found = "", self.root
            self._changed(who, f"removed {path.strip('/')}")
            return [*gone, node.path]

    async def _empty(self, group: Group, gone: list[str], who: str) -> None:
        """Removes what somebody made in it."""
        for node in list(group.children().values()):
            try:
                if isinstance(node, Link):
                    await group.unlink(node.name)
                    self._changed(who, f"unlinked {node.path}")
                elif isinstance(node, Group):
                    await self._empty(node, gone, who)
                    await group.remove(node.name)
                    self._changed(who, f"removed {node.path}")
                else:
                    continue
            except TreeError as error:
                # what is always there goes with what is above it
                if error.number != errno.EPERM:
                    raise
            else:
                gone.append(node.path)

    @asynccontextmanager
    async def _draining(
        self, path: str, seconds: float | None, revision: int | None, *, recursive: bool = True
    ) -> AsyncIterator[None]:
        """Others may change the tree meanwhile: they would have to wait for initiators otherwise."""
        if seconds is None:
            yield
            return
        if not 0 <= seconds <= MAXIMUM_DRAIN:
            raise TreeError(errno.EINVAL, f"{seconds:g} s to drain: write 0 to {MAXIMUM_DRAIN}")
        async with self._lock:
            self._check(revision)
            node = self.find(path)
            if isinstance(node, Group) and not recursive:
                # initiators are not asked to leave for nothing
                node.check_removable()
        async with self.drained(node, seconds):
            yield

    @asynccontextmanager
    async def drained(self, node: Node, seconds: float) -> AsyncIterator[None]:  # noqa: ARG002  for those that are in use
        """Inside, nothing runs there and nothing begins. Raises :class:`TreeError` (EBUSY) if that cannot be had in time."""
        yield

    async def link(self, path: str, target_path: str, *, revision: int | None = None, who: str = "") -> None:
        """Makes a link at ``path`` to the directory at ``target_path``, both from the root of the tree."""
        async with self._lock:
            self._check(revision)
            group, name = self._place(path)
            target = self.group(target_path)
            await group.link(name, target)
            self._changed(who, f"linked {path.strip('/')} to {target.path}")

    async def unlink(self, path: str, *, drain: float | None = None, revision: int | None = None, who: str = "") -> None:
        """Removes a link. Raises :class:`TreeError`: EPERM for what is none.

        :param drain: as of :meth:`remove`.
        """
        async with self._draining(path, drain, revision), self._lock:
            if drain is None:
                self._check(revision)
            node = self.find(path)
            if not isinstance(node, Link) or node.parent is None:
                raise TreeError(errno.EPERM, f"{node.path}: not a link; only links are removed like this")
            await node.parent.unlink(node.name)
            node.parent.permissions.pop(node.name, None)
            self._changed(who, f"unlinked {path.strip('/')}")

    def _place(self, path: str) -> tuple[Group, str]:
        """The group and the name of what is to be made."""
        *before, name = split(path) or [""]
        group = self.group("/".join(before))
        if not name or len(name.encode(errors="surrogateescape")) > NAME_LIMIT:
            raise TreeError(
                errno.ENAMETOOLONG if name else errno.EEXIST, f"{path[:80]}: write a name of 1 to {NAME_LIMIT} bytes"
            )
        if not name.isprintable():
            raise TreeError(errno.EINVAL, f"{path!r}: write a name of printable characters")
        if group.child(name) is not None:
            raise TreeError(errno.EEXIST, f"{path.strip('/')}: is there already")
        return group, name

    def _check(self, revision: int | None) -> None:
        if revision is None or revision == self.revision:
            return
        since = [change for change in self.changes if change.revision > revision]
        shown = "; ".join(f"{change.who or 'somebody'} {change.what}" for change in since[:4])
        more = f" and {len(since) - 4} more" if len(since) > 4 else ""
        raise TreeError(
            errno.ESTALE,
            f"the tree has changed since revision {revision} (now {self.revision}): {shown or 'long ago'}{more}; look again",
        )

    def _changed(self, who: str, what: str) -> None:
        self.revision += 1
        self.changes.append(Change(self.revision, who, what, time.time()))


def _keeper(node: Node) -> tuple[Group, str]:
    """Attributes and links are made anew for whoever looks; directories stay."""
    if isinstance(node, Group):
        return node, ""
    assert node.parent is not None
    return node.parent, node.name


class Change(NamedTuple):
    """What somebody did to the tree."""

    revision: int
    """The tree's, from then on."""
    who: str
    what: str
    time: float
    """Seconds since 1970."""


def split(path: str) -> list[str]:
    """The names of a path. Raises :class:`TreeError` (EINVAL) for ``.``, ``..`` and NUL characters."""
    names = [name for name in path.split("/") if name]
    for name in names:
        if name in {".", ".."} or "\0" in name:
            raise TreeError(errno.EINVAL, f"{path[:80]!r}: paths go down from the root, without . and .. and NUL characters")
    return names
