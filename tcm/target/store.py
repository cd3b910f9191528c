"""What has to outlive the process goes through a store: get, compare-and-set by revision, watch, lease.

Values are text under keys that read like relative paths. The core keeps what it needs in memory and asks the store when it
starts, when it changes something, and when it is told that somebody else has: no command that reads or writes waits for one.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable

ABSENT = ""
"""The revision of a key that has no value."""


class RevisionMismatch(OSError):
    """Somebody else has changed the value meanwhile."""


class LeaseHeld(OSError):
    """Somebody else has the lease."""


class Entry(NamedTuple):
    """What is under a key."""

    value: str | None
    """``None``: nothing."""
    revision: str
    """Of the value. Only good for comparing; two equal values may have the same one."""


class Lease(Protocol):
    """A name that nobody else has, for a time."""

    async def renew(self) -> None:
        """The time starts anew. Raises :class:`LeaseHeld` if it ran out and the name is not this lease's any more."""

    async def release(self) -> None:
        """Give the name up, if it is this lease's still."""


class Store(Protocol):
    """An engine. Every method is called in the event loop; those that may fail raise ``OSError``."""

    shared: bool
    """Other nodes serve the same logical units from it: all they have to agree on is kept there, not just what a user asked
    to be kept."""

    async def get(self, key: str) -> Entry:
        """The value and its revision."""

    async def put(self, key: str, value: str | None, revision: str) -> str:
        """Replace a value that still has ``revision`` (``None``: remove it); durable when this returns the new revision.

        Raises :class:`RevisionMismatch`. Whatever it raises, the value has stayed what it was.
        """

    def watch(self, prefix: str, changed: Callable[[str], None]) -> Callable[[], None]:
        """Call ``changed(key)``, in the event loop, after each change of a key that begins with ``prefix``.

        One's own changes are told too (their revision tells them), several may be told as one, and never fewer than one
        after the last. Returns what ends the watching.
        """

    async def lease(self, name: str, seconds: float) -> Lease:
        """Take a name that nobody has, or whose time has run out. Raises :class:`LeaseHeld`."""


def key(*parts: str) -> str:
    """A key of these parts, each of which may have any characters."""
    return "/".join(map(_quoted, parts))


@functools.lru_cache(maxsize=1024)
def _quoted(part: str) -> str:
    """A logical unit asks for many keys with the same first part."""
    quoted = quote(part, safe=" +,:@")
    return f"%2E{quoted[1:]}" if quoted in {".", ".."} else quoted
