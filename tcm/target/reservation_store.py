"""Where persistent reservations are kept through a loss of power."""

from __future__ import annotations

from typing import Protocol


class RevisionMismatch(OSError):
    """Somebody else has changed the value meanwhile."""


class ReservationStore(Protocol):
    """One value, which is text, and its revision. Both methods may block: they are called in worker threads."""

    def get(self) -> tuple[str, int]:
        """The value and its revision; empty and zero if nothing was ever put there. Raises ``OSError``, ``ValueError``."""

    def put(self, value: str, revision: int) -> int:
        """Replace the value if it still has ``revision``; the new one is durable when this returns its revision.

        Raises ``OSError`` (the value stays what it was), :class:`RevisionMismatch`.
        """
