"""Directories whose files a table describes, and what comes of what is written into one."""

from __future__ import annotations

import errno
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from tcm.configfs.node import Attribute, Group, Node, TreeError
from tcm.failure import ConfigError, RuntimeFailure
from tcm.options import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tcm.target.draining import Draining
    from tcm.tree_types import Table, TreeAttribute

log = logging.getLogger(__name__)

G = TypeVar("G", bound=Group)
_LINKS_SHOWN = 3


@contextmanager
def refusals(place: str) -> Iterator[None]:
    """Turns what operations on the running target raise into :class:`TreeError`, with ``place`` before the text."""
    try:
        yield
    except TreeError:
        raise
    except Exception as error:
        raise refusal(place, error) from error


def refusal(place: str, error: Exception) -> TreeError:
    """What an operation on the running target has raised, with ``place`` before the text."""
    if isinstance(error, OSError):
        return TreeError(error.errno or errno.EIO, f"{place}: {error.strerror or one_line(error)}")
    if isinstance(error, ConfigError):
        cause = error.__cause__
        number = cause.errno if isinstance(cause, OSError) and cause.errno else errno.EINVAL
        return TreeError(number, f"{place}: {one_line(error)}")
    if isinstance(error, ValueError | OverflowError):
        return TreeError(errno.EINVAL, f"{place}: {one_line(error)}")
    if isinstance(error, RuntimeFailure):
        return TreeError(errno.EIO, f"{place}: {one_line(error)}")
    # a plug-in's, or a backstore's that fails
    log.error("%s: failed", place, exc_info=error)
    return TreeError(errno.EIO, f"{place}: {one_line(error.__cause__ or error)}; the log says more")


class TableAttribute(Attribute):
    """One line of a table, for one object."""

    def __init__(self, name: str, parent: Group, rule: TreeAttribute, subject: Any) -> None:
        super().__init__(name, parent)
        self._rule = rule
        self._subject = subject
        self.readable = rule.show is not None
        self.writable = rule.store is not None

    def read(self) -> str:
        if self._rule.show is None:
            return super().read()
        try:
            text = self._rule.show(self._subject)
        except Exception as error:
            raise refusal(self.path, error) from error
        return f"{text}\n" if text else ""

    async def write(self, text: str) -> None:
        if self._rule.store is None:
            return await super().write(text)
        try:
            done = self._rule.store(self._subject, text.removesuffix("\n") if self._rule.exact else text.strip())
            if done is not None:
                await done
        except Exception as error:
            raise refusal(self.path, error) from error
        return None


class TableGroup(Group):
    """A directory of files that a table describes, and of directories that are always there.

    :param table: the files, in the order in which they are shown.
    :param subject: what they are called with.
    """

    def __init__(self, name: str, parent: Group | None, table: Table | None = None, subject: Any = None) -> None:
        super().__init__(name, parent)
        self.table: Table = {} if table is None else table
        self.subject = subject
        self.defaults: dict[str, Group] = {}
        """Directories that nobody makes or removes."""

    def attach(self, group: G) -> G:
        """One more of :attr:`defaults`."""
        self.defaults[group.name] = group
        return group

    def children(self) -> Mapping[str, Node]:
        files = {name: TableAttribute(name, self, rule, self.subject) for name, rule in self.table.items()}
        return {**files, **self.defaults, **self.made()}

    def child(self, name: str) -> Node | None:
        rule = self.table.get(name)
        if rule is not None:
            return TableAttribute(name, self, rule, self.subject)
        return self.defaults.get(name) or self.made().get(name)

    def settings(self) -> dict[str, str]:
        """What the files say that can be read and written, without line ends. Raises :class:`TreeError`."""
        found = {}
        for name, rule in self.table.items():
            if rule.show is not None and rule.store is not None:
                try:
                    found[name] = rule.show(self.subject)
                except Exception as error:
                    raise refusal(f"{self.path}/{name}", error) from error
        return found

    def made(self) -> Mapping[str, Node]:
        """Directories and links that somebody made."""
        return {}

    def draining(self) -> Iterable[Draining]:
        """What has to be drained before it is removed; if there is anything, that does for what is in it as well."""
        return ()


class FixedGroup(TableGroup):
    """A directory in which nothing can be made."""


class ParentGroup(TableGroup):
    """A directory in which directories are made and removed."""

    def __init__(self, name: str, parent: Group | None, table: Table | None = None, subject: Any = None) -> None:
        super().__init__(name, parent, table, subject)
        self.groups: dict[str, MadeGroup] = {}

    def made(self) -> Mapping[str, Node]:
        return self.groups

    async def make(self, name: str) -> Group:
        with refusals(f"{self.path}/{name}"):
            group = await self.create(name)
        self.groups[name] = group
        return group

    async def remove(self, name: str) -> None:
        group = self.groups.get(name)
        if group is None:
            raise TreeError(errno.EPERM, f"{self.path}/{name}: is always there")
        group.check_removable()
        with refusals(group.path):
            await group.destroy()
        del self.groups[name]

    async def create(self, name: str) -> MadeGroup:
        """What ``mkdir`` makes. Raises what :func:`refusals` takes."""
        raise TreeError(errno.EPERM, f"{self.path}: no directory can be made here, {name!r} neither")


class MadeGroup(TableGroup):
    """A directory that somebody made."""

    @property
    def links(self) -> Sequence[str]:
        """What leads here."""
        return ()

    def check_removable(self) -> None:
        """Raises :class:`TreeError`, as ConfigFS does: EBUSY while links lead here, ENOTEMPTY while something is in it."""
        links = self.links
        if links:
            more = f" and {len(links) - _LINKS_SHOWN} more" if len(links) > _LINKS_SHOWN else ""
            raise TreeError(
                errno.EBUSY, f"{self.path}: in use as {', '.join(links[:_LINKS_SHOWN])}{more}; remove the link there first"
            )
        there = made_in(self)
        if there is not None:
            raise TreeError(errno.ENOTEMPTY, f"{self.path}: {there.path} is in it; remove that first")

    async def destroy(self) -> None:
        """``rmdir``, of what is empty. Raises what :func:`refusals` takes."""


class MadeParent(MadeGroup, ParentGroup):
    """Both."""


def made_in(group: Group) -> Node | None:
    """Something in it that was made, however deep."""
    if isinstance(group, TableGroup):
        for node in group.made().values():
            return node
        for each in group.defaults.values():
            found = made_in(each)
            if found is not None:
                return found
    return None


def number(text: str, least: int, most: int) -> int:
    """A decimal or 0x number in range. Raises ``ValueError`` that says what to write."""
    try:
        value = int(text, 16 if text.lower().startswith("0x") else 10)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise ValueError(f"{text[:40]!r}: write a number from {least} to {most}")
    return value


def flag(text: str) -> bool:
    """0 or 1. Raises ``ValueError``."""
    if text not in {"0", "1"}:
        raise ValueError(f"{text[:40]!r}: write 0 or 1")
    return text == "1"
