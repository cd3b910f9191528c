"""``readonly``: nothing reaches the medium but reads."""

# ruff: noqa: ARG002  # a write is refused whatever it is

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tcm.backstore import BackstoreError, BackstoreErrorKind, Buffer, Capabilities, Concurrency
from tcm.filter import BackstoreFilter
from tcm.plugin_types import API_VERSION, FilterType

if TYPE_CHECKING:
    from collections.abc import Sequence


class ReadonlyFilter(BackstoreFilter):
    """The LUN is write protected; should the core ever write all the same, it is refused here."""

    concurrency = Concurrency.PARALLEL
    passed_through = frozenset({"size", "readv", "flush", "extents", "read_nowait", "read_protection", "protection_label"})

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        raise BackstoreError(BackstoreErrorKind.READ_ONLY, offset=offset)

    async def unmap(self, offset: int, length: int) -> None:
        raise BackstoreError(BackstoreErrorKind.READ_ONLY, offset=offset)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        raise BackstoreError(BackstoreErrorKind.READ_ONLY, offset=offset)

    async def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:
        raise BackstoreError(BackstoreErrorKind.READ_ONLY)

    async def set_protection(self, length: int, label: bytes) -> None:
        raise BackstoreError(BackstoreErrorKind.READ_ONLY)

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        return False

    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities(), read_only=True)


READONLY = FilterType(
    name="readonly",
    api_version=API_VERSION,
    factory=lambda inner, _options: ReadonlyFilter(inner),
    description="write protects the LUN",
)
