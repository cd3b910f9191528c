"""The tree as a file system: LIO's ConfigFS by FUSE, over the control socket.

It runs in a process of its own. Whatever becomes of the mount, the target does not notice; and when the target goes, the
mount goes.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import posixpath
import queue
import stat
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import mfusepy

from tcm.configfs.node import NAME_LIMIT
from tcm.control.client import Client, ClientError, Refused, connect, is_farewell
from tcm.control.protocol import MAXIMUM_MESSAGE, LineFramer, TooLong

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

log = logging.getLogger(__name__)

PAGE = 4096
"""Bytes that an attribute shows, and its size (ConfigFS: one page)."""
CONFIGFS = "/sys/kernel/config"
"""Where links may point to as well, wherever the mount is."""
_DBROOT = "/target/dbroot"
_CONNECTIONS = 4
_CHANGED = 540.0
"""Seconds, beyond a client's patience, that a change may take: whoever waits cannot be killed meanwhile."""
_LINGERING = 2.0
"""Seconds for which files that are open keep the mount's process after the target has gone."""
_TIMEOUT = 0.1
"""Seconds for which the kernel remembers that something is there."""
_AGAIN = 1.0
"""Seconds after which the connection that tells of the target's end is made again, if others wanted its place."""
_KINDS = {"group": stat.S_IFDIR | 0o755, "link": stat.S_IFLNK | 0o777}


class Mount(mfusepy.Operations):  # type: ignore[misc]  # mfusepy has no types
    """The operations.

    :param control: path of the control socket.
    :param mount_point: absolute.
    :param own_dbroot: ``dbroot`` is this mount's alone: rtslib writes its own into it, which is right where the program sees
        other directories than the target does.
    """

    use_ns = True

    def __init__(self, control: str, mount_point: str, *, own_dbroot: bool = False) -> None:
        self._dbroot: bytes | None = b"/var/target\n" if own_dbroot else None
        self._mount_point = mount_point
        self._control = control
        self._idle: queue.LifoQueue[Client] = queue.LifoQueue()
        for _ in range(_CONNECTIONS):
            self._idle.put(Client(control))
        self._open: dict[int, tuple[str, bytes | None]] = {}
        """By handle: the path, and what it said when it was read from the beginning."""
        self._handles = itertools.count(1)
        self._time = time.time_ns()
        self._owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        self.mounted = False

    @contextmanager
    def _client(self) -> Iterator[Client]:
        client = self._idle.get()
        try:
            yield client
        finally:
            self._idle.put(client)

    def _call(self, method: str, *, patience: float = 0, **params: Any) -> Any:
        """Raises :class:`OSError` with the errno that the kernel's ConfigFS has for it."""
        with self._client() as client:
            client.wait_longer(patience)
            try:
                return client.call(method, **params)
            except Refused as error:
                log.debug("%s %s: %s", method, params.get("path"), error)
                raise mfusepy.FuseOSError(error.number) from None
            except ClientError:
                raise mfusepy.FuseOSError(errno.ENOTCONN) from None

    def _change(self, method: str, path: str | None, **params: Any) -> int:
        self._call(method, patience=_CHANGED, path=_inside(path), who=_caller(), **params)
        return 0

    def _stat(self, path: str | None) -> Any:
        inside = _inside(path)
        if not _is_text(inside):
            # there cannot be one
            raise mfusepy.FuseOSError(errno.ENOENT)
        return self._call("stat", path=inside)

    def init(self, path: str) -> None:
        """The kernel has mounted it."""
        self.mounted = True

    # looking

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, Any]:
        """The size of an attribute is a page, as in ConfigFS."""
        owner = dict(self._owner)
        if path == "/":
            mode, size = _KINDS["group"], 0
        else:
            found = self._stat(path)
            assert path is not None
            mode = _KINDS.get(found["kind"]) or (stat.S_IFREG | found["mode"])
            if posixpath.basename(path).startswith("password"):
                # where everybody sees the tree, not everybody sees secrets
                mode &= ~0o077
            given = found.get("permissions", {})
            mode = stat.S_IFMT(mode) | given.get("mode", stat.S_IMODE(mode))
            owner |= {f"st_{name}": given[name] for name in ("uid", "gid") if name in given}
            size = PAGE if found["kind"] == "attribute" else 0
        links = 2 if stat.S_ISDIR(mode) else 1
        times = {"st_ctime": self._time, "st_mtime": self._time, "st_atime": self._time}
        return {"st_mode": mode, "st_nlink": links, "st_size": size, **times, **owner}

    def readdir(self, path: str, fh: int) -> Iterable[str]:
        """What is in a directory."""
        if path == "/":
            return [".", "..", "target"]
        found = self._call("list", path=_inside(path), depth=1)
        if found["kind"] != "group":
            raise mfusepy.FuseOSError(errno.ENOTDIR)
        return [".", "..", *found["children"]]

    def readlink(self, path: str) -> str:
        """Relative, as in ConfigFS: it is right wherever the tree is mounted."""
        found = self._stat(path)
        if found["kind"] != "link":
            raise mfusepy.FuseOSError(errno.EINVAL)
        return posixpath.relpath("/target/" + found["target"].strip("/"), posixpath.dirname(path))

    def open(self, path: str, flags: int) -> int:
        """Write-only attributes cannot be opened for reading, whoever asks."""
        found = self._stat(path)
        mode, given = found.get("mode", 0), found.get("permissions", {}).get("mode")
        if given is not None:
            # not even root opens what nobody may read, or write
            mode &= (0o400 if given & 0o444 else 0) | (0o200 if given & 0o222 else 0)
        wanted = flags & os.O_ACCMODE
        if (wanted != os.O_WRONLY and not mode & 0o400) or (wanted != os.O_RDONLY and not mode & 0o200):
            raise mfusepy.FuseOSError(errno.EACCES)
        handle = next(self._handles)
        self._open[handle] = path, None
        return handle

    def release(self, path: str | None, fh: int) -> int:
        """Nobody has it open any more."""
        self._open.pop(fh, None)
        return 0

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        """At most a page. Who reads it in pieces reads what it was at the first of them, as in ConfigFS."""
        opened, text = self._open.get(fh, ("", None))
        if path is None or path != opened:
            # it has been removed; one that is there again is another one
            raise mfusepy.FuseOSError(errno.ENOENT)
        if text is None or offset == 0:
            if self._dbroot is not None and path == _DBROOT:
                text = self._dbroot
            else:
                text = self._call("read", path=_inside(path))["value"].encode(errors="surrogateescape")[:PAGE]
            self._open[fh] = opened, text
        return text[offset : offset + size]

    # changing

    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        """Each write is a whole value, wherever the file position is."""
        if self._dbroot is not None and path == _DBROOT:
            self._dbroot = data[:PAGE]
            return len(data)
        self._change("write", path, value=data.decode(errors="surrogateescape"))
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """``>`` truncates before it writes."""
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        return self._change("make", path)

    def rmdir(self, path: str) -> int:
        if _inside(path) == "":
            raise mfusepy.FuseOSError(errno.EPERM)
        return self._change("remove", path)

    def symlink(self, target: str, source: str) -> int:
        """``target`` is the link (mfusepy's names), ``source`` its text: relative, or absolute by either mount point."""
        return self._change("link", target, target=self._resolve(source, target))

    def _resolve(self, text: str, link: str) -> str:
        full = posixpath.normpath(posixpath.join(self._mount_point, posixpath.dirname(link).lstrip("/"), text))
        for prefix in (self._mount_point, CONFIGFS):
            if full.startswith(prefix + "/"):
                return _inside(full[len(prefix) :])
        # links stay inside; what is outside is not looked at: it may lead here, and wait for those who look
        raise mfusepy.FuseOSError(errno.EPERM)

    def unlink(self, path: str) -> int:
        return self._change("unlink", path)

    def chmod(self, path: str, mode: int) -> int:
        """Kept as long as what it is of. Who may, and what comes of it, is the kernel's business where others see the mount."""
        return self._permit(path, mode=stat.S_IMODE(mode))

    def chown(self, path: str, uid: int, gid: int) -> int:
        """-1: as it is."""
        mine = os.geteuid() != 0
        if mine and (uid not in {-1, os.geteuid()} or gid not in {-1, os.getegid(), *os.getgroups()}):
            # nobody else sees the mount, and the kernel leaves it to us
            raise mfusepy.FuseOSError(errno.EPERM)
        return self._permit(path, **{name: each for name, each in (("uid", uid), ("gid", gid)) if each != -1})

    def _permit(self, path: str, **given: int) -> int:
        if path == "/":
            raise mfusepy.FuseOSError(errno.EPERM)
        self._call("permit", path=_inside(path), **given)
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        """Files are made by the kernel, not by people."""
        raise mfusepy.FuseOSError(errno.EACCES)

    def mknod(self, path: str, mode: int, dev: int) -> int:
        """Other kinds are what ConfigFS does not have at all."""
        raise mfusepy.FuseOSError(errno.EACCES if stat.S_ISREG(mode) else errno.EPERM)

    def statfs(self, path: str) -> dict[str, int]:
        return {"f_bsize": PAGE, "f_frsize": PAGE, "f_namemax": NAME_LIMIT}

    def rename(self, old: str, new: str) -> int:
        raise mfusepy.FuseOSError(errno.EPERM)

    def link(self, target: str, source: str) -> int:
        raise mfusepy.FuseOSError(errno.EPERM)

    def utimens(self, path: str, times: Any = None) -> int:
        return 0


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _inside(path: str | None) -> str:
    """The path in the tree of a path in the mount. Raises ENOENT outside of ``target``, and for what has been removed."""
    if path is None:
        raise mfusepy.FuseOSError(errno.ENOENT)
    first, _, rest = path.lstrip("/").partition("/")
    if first != "target":
        # nothing but target is there, and nothing else can be made
        raise mfusepy.FuseOSError(errno.ENOENT)
    return rest


def _caller() -> str:
    """For the list of changes: the program that called the kernel."""
    uid, _, pid = mfusepy.fuse_get_context()
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            program = file.read(64).strip()
    except OSError:
        program = "process"
    return f"{program} (pid {pid}, uid {uid}) by FUSE"


def serve(control: str, mount_point: str, *, own_dbroot: bool = False) -> None:
    """Mounts, and serves until it is unmounted or the target goes.

    Raises :class:`ClientError` if nobody is at the socket, :class:`OSError` if it cannot be mounted.
    """
    mount_point = os.path.abspath(mount_point)
    made = _prepare(mount_point)
    operations = Mount(control, mount_point, own_dbroot=own_dbroot)
    watched = connect(control, None)
    threading.Thread(target=_unmount_at_the_end, args=(control, watched, mount_point, made), daemon=True).start()
    options: dict[str, Any] = {
        "fsname": "configfs",
        "subtype": "tcm",
        "direct_io": True,
        "attr_timeout": _TIMEOUT,
        "entry_timeout": _TIMEOUT,
    }
    # libfuse 3.14 complains of its own default
    options["max_idle_threads"] = _CONNECTIONS
    if os.geteuid() == 0:
        options |= {"allow_other": True, "default_permissions": True}
    try:
        mfusepy.FUSE(operations, mount_point, foreground=True, **options)
    except RuntimeError as error:
        # libfuse calls an end by a signal an error too
        if not operations.mounted:
            raise OSError(errno.EIO, "libfuse could not mount it, see above", mount_point) from error
    finally:
        if made:
            with suppress(OSError):
                os.rmdir(mount_point)


def _prepare(mount_point: str) -> bool:
    """Makes the folder, not what it is in; clears away a mount whose process has died. Returns whether the folder was made."""
    try:
        os.mkdir(mount_point)
        return True
    except FileExistsError:
        pass
    try:
        if os.listdir(mount_point):
            raise OSError(errno.ENOTEMPTY, "not empty; write an empty folder", mount_point)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        unmount(mount_point)
    return False


def _unmount_at_the_end(control: str, watched: socket.socket, mount_point: str, made: bool) -> None:
    while _gives_way(watched):
        time.sleep(_AGAIN)
        try:
            watched = connect(control, None)
        except ClientError:
            break
    unmount(mount_point)
    # the process would stay as long as somebody has something open there, which is of no use any more
    time.sleep(_LINGERING)
    if made:
        with suppress(OSError):
            os.rmdir(mount_point)
    os._exit(0)


def _gives_way(watched: socket.socket) -> bool:
    """Waits until the connection ends: whether because others want its place (or the target is gone)."""
    framer = LineFramer(MAXIMUM_MESSAGE)
    farewell = False
    with suppress(OSError, ValueError, TooLong), watched:
        while data := watched.recv(1 << 16):
            farewell = any(is_farewell(json.loads(line)) for line in framer.receive_data(data))
    return farewell


def unmount(mount_point: str) -> None:
    """Now, even if files are open there."""
    subprocess.run(["fusermount3", "-u", "-z", "-q", mount_point], check=False, stdin=subprocess.DEVNULL, capture_output=True)
