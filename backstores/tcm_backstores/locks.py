"""One owner per file. Two locks, because programs look at one or the other.

flock(2) is what util-linux, udev and other targets take; an open-file-description lock is what QEMU takes. Both belong to
the open file, so they also refuse a second LUN of the same process, and the kernel drops them when the process dies.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct

from tcm.failure import ConfigError

log = logging.getLogger("tcm.backstores")

FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length (0: to the end, wherever that is), pid
HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})
NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def lock(fd: int, path: str, *, exclusive: bool) -> None:
    """Lock the open file as long as it stays open; ``exclusive`` for writers, shared for readers.

    :raises ConfigError: somebody holds it; names the file, and the holder if it can be known.
    """
    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in NO_LOCKS:
            log.warning("%s: its file system has no locks (%s): make sure that nobody else writes to it", path, error.strerror)
            return
        if error.errno not in HELD:
            raise
        raise ConfigError(f"{path} is in use by {holder(fd)}: stop that, or give this LUN another file") from None


def holder(fd: int) -> str:
    """Who holds a lock on the open file, for people; found in /proc/locks, which may be unreadable or speak of another host."""
    status = os.fstat(fd)
    try:
        with open("/proc/locks", encoding="ascii") as table:
            rows = [line.split() for line in table]
    except OSError:
        rows = []
    # "1: FLOCK ADVISORY WRITE 4711 fd:01:1234 0 EOF"; device numbers differ from st_dev on btrfs, so the inode has to do.
    found = {int(row[4]) for row in rows if len(row) > 5 and row[5].endswith(f":{status.st_ino}")} - {-1, 0}
    if os.getpid() in found:
        return "another LUN of this process"
    for pid in sorted(found):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                return f"process {pid} ({comm.read().strip()})"
        except OSError:
            return f"process {pid}"
    return "another process"
