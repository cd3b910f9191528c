"""A disk that reads as zeroes and discards what is written: for measuring everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm.backstore import Backstore, Buffer, Capabilities, Concurrency, Extent, Support
from tcm.failure import ConfigError
from tcm.plugin_types import API_VERSION, BackstoreType, option

if TYPE_CHECKING:
    from collections.abc import Sequence

ZEROES = memoryview(bytes(1 << 20))


@dataclass(frozen=True)
class NullOptions:
    """Options of ``null``."""

    size: int = option("bytes, a multiple of 512, for example 1T; takes no memory", kind="size")


def check_size(size: int) -> None:
    """:raises ConfigError: unless ``size`` is a positive multiple of 512 that an int64 holds."""
    if size <= 0 or size % 512 or size >= 1 << 63:
        raise ConfigError(f"size={size} is not a disk's size; write a multiple of 512 bytes, for example size=64M")


class NullBackstore(Backstore):
    """``size`` bytes of nothing."""

    concurrency = Concurrency.PARALLEL

    def __init__(self, size: int) -> None:
        self._size = size

    async def open(self) -> None:
        """There is nothing to take hold of."""

    def size(self) -> int:
        return self._size

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self.read_nowait(buffers, offset)

    async def aclose(self) -> None:
        """There is nothing to let go of."""

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        """Discards the data."""

    async def unmap(self, offset: int, length: int) -> None:
        """It never was mapped."""

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """It reads as zeroes anyway."""

    async def extents(self, offset: int, length: int) -> list[Extent]:
        return [Extent(offset, length, False)]

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:  # noqa: ARG002  it is zero everywhere
        for buffer in buffers:
            length = len(buffer)
            if length <= len(ZEROES):
                buffer[:] = ZEROES[:length]
            else:
                buffer[:] = bytes(length)
        return True

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:  # noqa: ARG002  it is discarded
        return True

    def capabilities(self) -> Capabilities:
        return Capabilities(unmap=Support.NATIVE, write_zeroes=Support.NATIVE, extents=Support.NATIVE, nowait=True)


NULL = BackstoreType(
    name="null",
    api_version=API_VERSION,
    options=NullOptions,
    factory=lambda options: NullBackstore(options.size),
    check_config=lambda options: check_size(options.size),
    description="reads as zeroes, discards writes; for measuring",
)
