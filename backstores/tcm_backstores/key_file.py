"""A file that holds nothing but a random key. Every method may sleep.

A new key is written over the old one, in the same file: a new file in its place would leave the old key on the disk, in
blocks that nobody names any more. A loss of power in the middle leaves the old key, the new one or some of each, and that
is good enough: the old one is to be forgotten, and nothing has been written with the new one yet.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile

from tcm.failure import ConfigError
from tcm_backstores.files import read_all, write_all
from tcm_backstores.locks import lock
from tcm_backstores.opening import sync_directory

LENGTH = 64
"""Two AES-256 keys: one for the data, one for the tweaks."""
OTHERS = 0o077


def check(path: str) -> None:
    """What can be said without opening it.

    :raises ConfigError: says what to write.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder):
            raise ConfigError(f"key-file: there is no folder {folder}; make it (mode 0700), or write another path") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    else:
        check_status(path, status)


def check_status(path: str, status: os.stat_result) -> None:
    """The rule for a file that is there: 64 bytes that nobody else can read.

    :raises ConfigError: says what to do.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"key-file: {path} is not a file; write the path of one, or of none to have it made")
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"key-file: {path} belongs to somebody else (user {status.st_uid}); chown {os.geteuid()} {path}")
    if status.st_mode & OTHERS:
        raise ConfigError(f"key-file: {path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}); chmod 600 {path}")
    if status.st_size != LENGTH:
        raise ConfigError(f"key-file: {path} has {status.st_size} bytes, a key has {LENGTH}; restore it, or write another path")


def _unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"key-file: {path}: {error.strerror}; write the path of a file that this user can read")


class KeyFile:
    """Locked while it is open, so that no two LUNs encrypt with one key, or one erases the other's.

    :param path: of the file, absolute.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.writable = False
        """The key can be replaced."""
        self._fd = -1

    def open(self) -> bytes | None:
        """The key; ``None`` if there is no such file.

        :raises ConfigError: it cannot be read, it is not a key, or somebody else uses it.
        """
        try:
            self._fd = self._open()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(
                f"key-file: {self.path}: {error.strerror}; write the path of a file that this user can read"
            ) from None
        check_status(self.path, os.fstat(self._fd))
        lock(self._fd, self.path, exclusive=self.writable)
        key = bytearray(LENGTH)
        read_all(self._fd, [memoryview(key)], 0)
        if key[: LENGTH // 2] == key[LENGTH // 2 :]:
            raise ConfigError(f"key-file: {self.path} is damaged: both halves of the key are the same; restore it")
        return bytes(key)

    def _open(self) -> int:
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        self.writable = True
        try:
            return os.open(self.path, os.O_RDWR | flags)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
        self.writable = False
        return os.open(self.path, os.O_RDONLY | flags)

    def create(self) -> bytes | None:
        """Make the file, with a key that is durable before it is used, and open it.

        :raises ConfigError: it cannot be made.
        """
        try:
            fd, temporary = tempfile.mkstemp(dir=os.path.dirname(self.path) or ".", prefix=".key-")  # mode 0600
            try:
                write_all(fd, [os.urandom(LENGTH)], 0)
                os.fsync(fd)
                os.link(temporary, self.path)  # unlike a rename, never over a key that is there
            finally:
                os.close(fd)
                os.unlink(temporary)
            sync_directory(self.path)
        except OSError as error:
            raise ConfigError(f"key-file: {self.path} cannot be made ({error.strerror}); write another path") from None
        return self.open()

    def check_place(self) -> None:
        """:raises OSError: the path has come to name another file, or none, which :meth:`replace` would not reach."""
        if not os.path.samestat(os.stat(self.path), os.fstat(self._fd)):
            raise OSError(errno.ESTALE, "the key file was exchanged for another", self.path)

    def replace(self) -> bytes:
        """A new key, durable and in the old one's place.

        :raises OSError: the file may hold either.
        """
        key = os.urandom(LENGTH)
        write_all(self._fd, [key], 0)
        os.fsync(self._fd)
        return key

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
