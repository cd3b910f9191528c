"""The store in a local directory: a file for each key (:mod:`tcm.target.store`).

A file is replaced as a whole and durable before ``put`` returns; a revision is a digest of the content, so it needs no place of
its own and is the same after a restart. (That a value was changed and changed back goes unnoticed; whoever compares decides the
same.) A lock file keeps processes apart, so that ``put`` refuses what another process has changed; ``watch`` tells only of
changes made through the same object, since no other process is to serve the units of this directory.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from anyio import to_thread

from tcm.target.store import ABSENT, Entry, LeaseHeld, RevisionMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOCK, _NEW = ".lock", ".new"
_LEASES, _CLAIMS = "lease", "serving"
_TEXT = "utf-8", "surrogateescape"
"""What a file has become that is no text can still be told from what it was, and be compared and replaced."""


class Claimed(Exception):
    """Somebody else has the name: who, for people."""


class DirectoryStore:
    """A :class:`tcm.target.store.Store`.

    :param directory: made, with mode 0700, when something is put there first.
    :param clock: wall-clock time in seconds, the same for all processes.
    """

    shared = False

    def __init__(self, directory: str, *, clock: Callable[[], float] = time.time) -> None:
        self.directory = os.path.abspath(directory)
        self._clock = clock
        self._watching: dict[object, tuple[str, Callable[[str], None]]] = {}

    def __str__(self) -> str:
        return self.directory

    async def get(self, key: str) -> Entry:
        """See :meth:`tcm.target.store.Store.get`."""
        path = self.path(key)
        # what was never kept, which is most of a new unit's, is not worth a thread
        content = await to_thread.run_sync(_read, path) if _exists(path) else None
        return Entry(None if content is None else content.decode(*_TEXT), _revision(content))

    async def put(self, key: str, value: str | None, revision: str) -> str:
        """See :meth:`tcm.target.store.Store.put`."""
        content = None if value is None else value.encode(*_TEXT)
        await to_thread.run_sync(self._put, self.path(key), content, revision)
        for prefix, changed in tuple(self._watching.values()):
            if key.startswith(prefix):
                changed(key)
        return _revision(content)

    def watch(self, prefix: str, changed: Callable[[str], None]) -> Callable[[], None]:
        """See :meth:`tcm.target.store.Store.watch`."""
        token = object()
        self._watching[token] = prefix, changed

        def cancel() -> None:
            self._watching.pop(token, None)

        return cancel

    async def lease(self, name: str, seconds: float) -> DirectoryLease:
        """See :meth:`tcm.target.store.Store.lease`."""
        lease = DirectoryLease(self, self.path(f"{_LEASES}/{name}"), seconds)
        await to_thread.run_sync(lease.take)
        return lease

    def path(self, key: str) -> str:
        """The file of a key. Raises ``ValueError`` for a key that would lead elsewhere."""
        if any(part in {"", ".", "..", _LOCK, _NEW} for part in key.split("/")) or "\0" in key:
            raise ValueError(f"{key!r} is no key")
        return os.path.join(self.directory, *key.split("/"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process and no other thread changes anything meanwhile."""
        _make(self.directory)
        descriptor = os.open(os.path.join(self.directory, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def claim(self, name: str) -> int:
        """Have a name for oneself until the file descriptor that this returns is closed, or the process is gone.

        Raises :class:`Claimed`, and ``OSError`` if the directory cannot be written.
        """
        path = self.path(f"{_CLAIMS}/{name}")
        _make(os.path.dirname(path))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode(*_TEXT).strip()
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise Claimed(f"process {holder}" if holder.isdigit() else "another process") from None
            raise
        return descriptor

    def now(self) -> float:
        """Seconds by the clock."""
        return self._clock()

    def _put(self, path: str, content: bytes | None, revision: str) -> None:
        with self.locked():
            before = _read(path)
            if _revision(before) != revision:
                raise RevisionMismatch(errno.ESTALE, "was changed meanwhile", path)
            try:
                _write(path, content)
            except OSError:
                if _read(path) != before:  # it is there, and not durable
                    with suppress(OSError):
                        _write(path, before)
                raise


class DirectoryLease:
    """A :class:`tcm.target.store.Lease`: a file that says who has it and until when."""

    def __init__(self, store: DirectoryStore, path: str, seconds: float) -> None:
        self._store = store
        self._path = path
        self._seconds = seconds
        self._holder = secrets.token_hex(8)

    def take(self) -> None:
        """Blocks. Raises :class:`LeaseHeld`."""
        with self._store.locked():
            holder, until = self._read()
            if holder is not None and until > self._store.now():
                raise LeaseHeld(errno.EBUSY, "is leased", self._path)
            self._write()

    async def renew(self) -> None:
        """See :meth:`tcm.target.store.Lease.renew`."""
        await to_thread.run_sync(self._renew)

    async def release(self) -> None:
        """See :meth:`tcm.target.store.Lease.release`."""
        await to_thread.run_sync(self._release)

    def _renew(self) -> None:
        with self._store.locked():
            if self._read()[0] != self._holder:
                raise LeaseHeld(errno.EBUSY, "was lost", self._path)
            self._write()

    def _release(self) -> None:
        with self._store.locked():
            if self._read()[0] == self._holder:
                _write(self._path, None)

    def _read(self) -> tuple[str | None, float]:
        content = _read(self._path)
        try:
            found = json.loads(content or b"{}")
            return str(found["holder"]), float(found["until"])
        except (ValueError, TypeError, KeyError):
            return None, 0.0  # nobody can hold what cannot be read

    def _write(self) -> None:
        until = self._store.now() + self._seconds
        _write(self._path, json.dumps({"holder": self._holder, "until": until}).encode())


def _revision(content: bytes | None) -> str:
    return ABSENT if content is None else hashlib.blake2b(content, digest_size=16).hexdigest()


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _exists(path: str) -> bool:
    return os.path.lexists(path)


def _write(path: str, content: bytes | None) -> None:
    """Temporary file, fsync, rename, fsync of the directory. Raises ``OSError``."""
    directory = os.path.dirname(path)
    if content is None:
        with suppress(FileNotFoundError):
            os.unlink(path)
            _sync(directory)
        return
    _make(directory)
    temporary = os.path.join(directory, _NEW)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync(directory)


def _make(directory: str) -> None:
    """Make a directory and what it is in, durable."""
    if not os.path.isdir(directory):
        parent = os.path.dirname(directory)
        _make(parent)
        with suppress(FileExistsError):
            os.mkdir(directory, mode=0o700)
        _sync(parent)


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
