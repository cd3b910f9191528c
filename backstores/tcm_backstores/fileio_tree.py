"""LIO's ``fileio`` and ``iblock`` plugins in the ConfigFS tree: what ``control`` and ``info`` mean here (lio-configfs 3.1)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from tcm.options import parse_bool, parse_whole
from tcm.tree_types import BackstoreTree

if TYPE_CHECKING:
    from collections.abc import Mapping


def _size(text: str) -> Mapping[str, object]:
    """0: whatever it has, a block device."""
    size = parse_whole(text)
    return {"size": size} if size else {}


def _file_info(options: Any, size: int, _read_only: bool) -> str:
    mode = "Buffered-WCE" if options.write_back else "O_DSYNC"
    return f"        TCM FILEIO ID: 0        File: {options.path}  Size: {size}  Mode: {mode} Async: {options.aio:d}"


def _grow(options: Any, size: int) -> None:
    """The target finds the new size; nobody else has to know of it."""
    found = os.stat(options.path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{options.path} is a block device; make it larger itself")
    if size < found.st_size:
        raise ValueError(f"{options.path} has {found.st_size} bytes, and data would be lost; write as many or more")
    os.truncate(options.path, size)


def _block_info(options: Any, _size: int, read_only: bool) -> str:
    path = os.path.realpath(options.path)
    try:
        found = os.stat(path)
        number = found.st_rdev if stat.S_ISBLK(found.st_mode) else 0
    except OSError:
        number = 0
    first = f"        iBlock device: {os.path.basename(path)}  UDEV PATH: {options.path}  readonly: {read_only:d}"
    return f"{first}\n        Major: {os.major(number)} Minor: {os.minor(number)}  CLAIMED: IBLOCK"


FILEIO_TREE = BackstoreTree(
    plugin="fileio",
    controls={
        "fd_dev_name": lambda text: {"path": text},
        "fd_dev_size": _size,
        "fd_buffered_io": lambda text: {"write_back": parse_bool(text)},
        "fd_async_io": lambda text: {"aio": parse_bool(text)},
    },
    defaults={"write_back": False},
    info=_file_info,
    grow=_grow,
)
IBLOCK_TREE = BackstoreTree(
    plugin="iblock",
    saveconfig="block",
    controls={
        "udev_path": lambda text: {"path": text},
        "readonly": lambda text: {"read_only": parse_bool(text)},
        "force": lambda _text: {},
        "exclusive": lambda _text: {},
    },
    info=_block_info,
)
"""``force`` means nothing in LIO either; a device is never claimed for ourselves alone."""
