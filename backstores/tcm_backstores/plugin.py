"""Hooks of this distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.hookspecs import hookimpl
from tcm_backstores.fileio import FILEIO
from tcm_backstores.null import NULL
from tcm_backstores.ramdisk import RAMDISK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.plugin_types import BackstoreType


@hookimpl
def tcm_backstores() -> Iterable[BackstoreType]:
    """The storage objects we ship."""
    return (FILEIO, RAMDISK, NULL)
