"""What the MIB modules keep through a restart: the indexes of rows, and what managers have set of the instance itself."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from tcm.failure import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.statistics.mib_writing import Document

FILE = "snmp.json"
"""In the state directory."""
MAXIMUM_INDEXES = 65536
"""Of one kind; beyond that those of rows that are gone are forgotten."""
TRANSIENT = 1 << 30
"""Indexes from here on are of rows that come and go with initiators; they are not kept."""
VOLATILE, NON_VOLATILE = 2, 3
"""StorageType."""


class Indexes:
    """An index for each name of a kind: once given, always the same, and not given to another name."""

    def __init__(self) -> None:
        self.given: dict[str, dict[str, int]] = {}
        """By kind and name."""
        self._taken: dict[str, dict[int, str]] = {}
        self._next: dict[str, int] = {}
        self._used: set[tuple[str, str]] = set()
        self.changed = False
        """Since :meth:`to_json`."""

    def of(self, kind: str, name: str) -> int:
        """The index of a name, a new one if it has none."""
        found = self.given.get(kind, {}).get(name)
        if found is None:
            found = self._next.get(kind, 1)
            self.assign(kind, name, found)
        self._used.add((kind, name))
        return found

    def name(self, kind: str, index: int) -> str | None:
        """Who has an index."""
        return self._taken.get(kind, {}).get(index)

    def assign(self, kind: str, name: str, index: int, *, steal: bool = False) -> None:
        """Give a name an index of one's choice. Raises :class:`ValueError` if another name has it, or it cannot be kept.

        :param steal: the other name is of nothing any more.
        """
        if not 0 < index < TRANSIENT:
            raise ValueError(f"indexes are 1 to {TRANSIENT - 1}")
        given, taken = self.given.setdefault(kind, {}), self._taken.setdefault(kind, {})
        other = taken.get(index, name)
        if other != name:
            if not steal:
                raise ValueError(f"index {index} is taken")
            del given[other]
        if name in given:
            del taken[given[name]]
        elif len(given) >= MAXIMUM_INDEXES:
            self._forget(kind)
        given[name], taken[index] = index, name
        self._used.add((kind, name))
        self._next[kind] = self._free(kind, max(self._next.get(kind, 1), index + 1))
        self.changed = True

    def _free(self, kind: str, start: int) -> int:
        """Never one that had been given, until all have been."""
        taken = self._taken[kind]
        start = start if start < TRANSIENT else 1
        while start in taken:
            start += 1
        return start

    def _forget(self, kind: str) -> None:
        """Names that this process has not seen."""
        given = self.given[kind]
        for name in [name for name in given if (kind, name) not in self._used]:
            del self._taken[kind][given.pop(name)]

    def to_json(self) -> dict[str, Any]:
        """To be kept."""
        self.changed = False
        return {"given": copy.deepcopy(self.given), "next": dict(self._next)}

    @classmethod
    def from_json(cls, found: Any) -> Indexes:
        """Raises :class:`ValueError` or :class:`TypeError` for what was not kept by this class."""
        made = cls()
        for kind, given in dict(found["given"]).items():
            for name, index in dict(given).items():
                if not isinstance(index, int):
                    raise TypeError(index)
                made.assign(kind, name, index)
        made._next.update({kind: number for kind, number in dict(found["next"]).items() if isinstance(number, int)})
        made._used.clear()
        made.changed = False
        return made


class Transients:
    """Indexes from :data:`TRANSIENT` on for names that come and go: an index of one that is gone is never given again."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}
        self._next = TRANSIENT

    def of_all(self, names: Iterable[str]) -> dict[str, int]:
        """The index of each name that there is now; all others are forgotten."""
        before, self._given = self._given, {}
        for name in names:
            found = before.get(name)
            if found is None:
                found, self._next = self._next, self._next + 1
            self._given[name] = found
        return self._given


def nothing_set() -> Document:
    """What managers have set of the instances, before any has."""
    return {
        "alias": "",
        "notifications": True,
        "storage": VOLATILE,
        "aliases": {},
        "authorization": "",
        "identities": {},
    }


def no_identity() -> Document:
    """What is kept of an identity (RFC 4545), before anybody has said what: by its index in ``identities``."""
    return {"description": "", "name": "", "name_index": 1, "credential": 0, "user": "", "addresses": {}}


def _alike(found: Any, template: Document) -> bool:
    """Whether it has the template's keys, with values of its types."""
    return (
        isinstance(found, dict)
        and found.keys() == template.keys()
        and all(type(found[key]) is type(value) for key, value in template.items())
    )


def _is_own(own: Document) -> bool:
    """Whether it may be what was kept."""
    identities = own["identities"] if _alike(own, nothing_set()) else None
    return (
        identities is not None
        and all(text.isdecimal() and _alike(each, no_identity()) for text, each in identities.items())
        and all(
            text.isdecimal() and isinstance(network, str)
            for each in identities.values()
            for text, network in each["addresses"].items()
        )
    )


class MibState:
    """The file.

    :param directory: where it is; ``None``: nothing outlives the process.

    Raises :class:`ConfigError` if it is there and cannot be read.
    """

    def __init__(self, directory: str | None = None) -> None:
        self.path = os.path.join(directory, FILE) if directory is not None else None
        self.indexes = Indexes()
        self.own = nothing_set()
        self.transients = Transients()
        """Of identities that only demo mode knows."""
        self._lock = anyio.Lock()
        if self.path is not None and os.path.exists(self.path):
            self._read(self.path)

    @property
    def storage(self) -> int:
        """StorageType of what managers set: volatile(2) or nonVolatile(3)."""
        return int(self.own["storage"])

    def _read(self, path: str) -> None:
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            self.indexes = Indexes.from_json(found["indexes"])
            own = nothing_set() | found["own"]
            if not _is_own(own):
                raise TypeError(own)
            if own["storage"] == NON_VOLATILE:
                self.own = own
        except OSError as error:
            raise ConfigError(f"--agentx: {path}: {error.strerror}; write --state-dir DIR with a folder of yours") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ConfigError(
                f"--agentx: {path} is damaged; restore it, or delete it: rows get other SNMP indexes then"
            ) from None

    async def save(self) -> None:
        """Keep it, if there is a place. Raises ``OSError``; then everything is as if nobody had tried."""
        if self.path is None:
            return
        async with self._lock:
            content = {"indexes": self.indexes.to_json(), "own": copy.deepcopy(self.own)}
            if content["own"]["storage"] != NON_VOLATILE:
                content["own"] = nothing_set()
            try:
                await to_thread.run_sync(_write, self.path, content)
            except OSError:
                self.indexes.changed = True
                raise


def _write(path: str, content: dict[str, Any]) -> None:
    """The old file or the new one, never half of it."""
    directory = os.path.dirname(path)
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=f".{FILE}")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
