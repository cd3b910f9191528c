"""Hooks of this distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.hookspecs import hookimpl
from tcm_backstores.fileio import FILEIO
from tcm_backstores.filters.delay import DELAY
from tcm_backstores.filters.encrypt import ENCRYPT
from tcm_backstores.filters.error import ERROR
from tcm_backstores.filters.log import LOG
from tcm_backstores.filters.rate import RATE
from tcm_backstores.filters.readonly import READONLY
from tcm_backstores.null import NULL
from tcm_backstores.ramdisk import RAMDISK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.plugin_types import BackstoreType, FilterType


@hookimpl
def tcm_backstores() -> Iterable[BackstoreType]:
    """The storage objects we ship."""
    return (FILEIO, RAMDISK, NULL)


@hookimpl
def tcm_filters() -> Iterable[FilterType]:
    """The filters we ship."""
    return (READONLY, DELAY, ERROR, LOG, RATE, ENCRYPT)
