"""Where persistent reservations are kept through a loss of power."""

from __future__ import annotations

import os
from typing import Protocol
from urllib.parse import quote


class RevisionMismatch(OSError):
    """Somebody else has changed the value meanwhile."""


class ReservationStore(Protocol):
    """One value, which is text, and its revision. Both methods may block: they are called in worker threads."""

    def get(self) -> tuple[str | None, int]:
        """The value, ``None`` if nothing was ever put there, and its revision. Raises ``OSError``, ``ValueError``."""

    def put(self, value: str, revision: int) -> int:
        """Replace the value if it still has ``revision``; the new one is durable when this returns its revision.

        Raises ``OSError`` (the value stays what it was), :class:`RevisionMismatch`.
        """


class ReservationFile:
    """A :class:`ReservationStore` in a file, replaced as a whole. Revisions count from zero when it is made."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._revision = 0

    def __str__(self) -> str:
        return self.path

    @classmethod
    def of(cls, directory: str, serial: str) -> ReservationFile:
        """The file of the logical unit with that unit serial number, named as LIO does; :meth:`put` makes the directory."""
        return cls(os.path.join(directory, f"aptpl_{quote(serial, safe='')}"))

    def get(self) -> tuple[str | None, int]:
        """See :meth:`ReservationStore.get`."""
        try:
            with open(self.path, encoding="utf-8") as file:
                return file.read(), self._revision
        except FileNotFoundError:
            return None, self._revision

    def put(self, value: str, revision: int) -> int:
        """See :meth:`ReservationStore.put`."""
        if revision != self._revision:
            raise RevisionMismatch(f"{self.path}: revision {self._revision}, not {revision}")
        directory = os.path.dirname(self.path) or "."
        os.makedirs(directory, mode=0o700, exist_ok=True)
        temporary = self.path + ".new"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._revision += 1
        return self._revision
