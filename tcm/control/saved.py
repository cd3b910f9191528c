"""A saveconfig.json on disk: replaced as a whole, with backups that rotate."""

from __future__ import annotations

import errno
import gzip
import json
import os
import stat
import tempfile
import time
from typing import TYPE_CHECKING, Any

from tcm.json_reader import MAXIMUM_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

MAXIMUM_BACKUPS = 10
"""As many as targetcli keeps."""


def config_text(config: Mapping[str, Any]) -> str:
    """As rtslib writes it: sorted keys, two spaces, a line end."""
    return json.dumps(config, sort_keys=True, indent=2) + "\n"


def write_config(path: str, config: Mapping[str, Any], *, backups: int = MAXIMUM_BACKUPS) -> None:
    """Replaces the file: the old one or the new one is there, never half of one. Mode 0600, since secrets are in it.

    What was there before goes to ``backup/`` beside it, unless it is the same.

    Raises :class:`OSError`; also if something else than a configuration is there (a disk, a device), which would be lost.
    """
    if "\0" in path:
        raise OSError(errno.EINVAL, "write a path without NUL characters", path)
    path = os.path.realpath(path)
    data = config_text(config).encode()
    before = _configuration_at(path)
    if backups and before not in (None, data):
        _back_up(path, before, backups)
    replace_file(path, data)


def _configuration_at(path: str) -> bytes | None:
    """What is there, if it may be replaced; ``None``: nothing is."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "no file; write the path of one", path)
        with open(path, "rb") as file:
            found = file.read(MAXIMUM_FILE + 1)
    except FileNotFoundError:
        return None
    # half of a configuration begins like one
    if len(found) > MAXIMUM_FILE or found.lstrip()[:1] not in (b"", b"{"):
        raise OSError(errno.EEXIST, "no saveconfig.json, and it would be lost; move it away or write another path", path)
    return found


def replace_file(path: str, data: bytes) -> None:
    """By a temporary file beside it, fsync and rename. Raises :class:`OSError`."""
    folder = os.path.dirname(path) or "."
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    # the rename itself is durable only then
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _back_up(path: str, before: bytes, limit: int) -> None:
    folder = os.path.join(os.path.dirname(path), "backup")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    stem = os.path.basename(path).removesuffix(".json")
    seconds, rest = divmod(time.time_ns(), 10**9)
    stamp = f"{time.strftime('%Y%m%d-%H:%M:%S', time.localtime(seconds))}.{rest:09d}"
    replace_file(os.path.join(folder, f"{stem}-{stamp}-json.gz"), gzip.compress(before))
    kept = sorted(name for name in os.listdir(folder) if name.startswith(f"{stem}-2") and name.endswith("-json.gz"))
    for name in kept[:-limit]:
        os.unlink(os.path.join(folder, name))
