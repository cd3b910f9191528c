"""A disk in this process's memory, gone when it ends.

Memory: one anonymous mapping of the disk's size, which the kernel fills page by page as it is written, and one byte a
page of bookkeeping, just as lazy. Resident at most ``size * (1 + 1/4096)``; reading takes none; unmap gives pages back.
Protection information adds what is written of it, a 64th of the size at most.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import checkpoint

from tcm.backstore import Allocation, Backstore, Buffer, Capabilities, Concurrency, Extent, Support
from tcm.failure import ConfigError
from tcm.options import parse_bool, parse_whole
from tcm.plugin_types import API_VERSION, BackstoreType, option
from tcm.tree_types import BackstoreTree
from tcm_backstores.null import ZEROES, NullBackstore, check_size

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = mmap.PAGESIZE
SHIFT = PAGE.bit_length() - 1
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
"""Linux's value for all but four architectures; Python 3.13 has the name."""
COMPLEMENT = bytes(255 - byte for byte in range(256))
RD_PAGE = 4096
"""Bytes of what LIO's ``rd_pages`` counts."""
SCAN = 1 << 20
"""Pages that one :meth:`RamdiskBackstore.extents` looks at: it runs in the event loop."""


@dataclass(frozen=True)
class RamdiskOptions:
    """Options of ``ramdisk``."""

    size: int = option("bytes, a multiple of 512, for example 64M; memory is taken as it is written", kind="size")
    nullio: bool = option("read zeroes and discard writes, as LIO's rd_nullio does", False)


def check_config(options: RamdiskOptions) -> None:
    """:raises ConfigError: if the size cannot be that of a disk."""
    check_size(options.size)


def clear(memory: mmap.mmap, start: int, end: int) -> None:
    """Zero ``memory[start:end]``; its whole pages go back to the kernel."""
    first, last = (start + PAGE - 1) & -PAGE, end & -PAGE
    if first < last:
        memory.madvise(mmap.MADV_DONTNEED, first, last - first)
        clear(memory, start, first)
        clear(memory, last, end)
    elif start < end:
        memory[start:end] = bytes(end - start)


def available_memory() -> int:
    """Bytes that this machine's programs can still have."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))


class RamdiskBackstore(Backstore):
    """``size`` bytes of anonymous memory. It has no write cache: nothing survives the process, flushed or not."""

    concurrency = Concurrency.PARALLEL

    def __init__(self, size: int) -> None:
        self._size = size
        self._view = memoryview(b"")
        self._pages: mmap.mmap | None = None
        self._mapped: mmap.mmap | None = None
        self._protection: mmap.mmap | None = None
        """Complemented: protection information that was never written is all ones, and takes no memory."""
        self._label = b""

    async def open(self) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        pages = (self._size + PAGE - 1) >> SHIFT
        try:
            self._pages = mmap.mmap(-1, pages << SHIFT, flags=flags)
            self._mapped = mmap.mmap(-1, pages, flags=flags)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"size={self._size} does not fit this process's memory ({error}); write less") from error
        self._view = memoryview(self._pages)

    def size(self) -> int:
        return self._size

    async def aclose(self) -> None:
        self._view.release()
        for memory in (self._pages, self._mapped, self._protection):
            if memory is not None:
                memory.close()
        self._pages = self._mapped = self._protection = None

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self.read_nowait(buffers, offset)

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:  # noqa: ARG002  nothing is cached
        self.write_nowait(buffers, offset)

    async def unmap(self, offset: int, length: int) -> None:
        assert self._pages is not None
        assert self._mapped is not None
        end = offset + length
        clear(self._pages, offset, end)
        last = len(self._mapped) if end == self._size else end >> SHIFT  # nothing else lives in the last page
        clear(self._mapped, (offset + PAGE - 1) >> SHIFT, last)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:  # noqa: ARG002  as above
        if may_unmap:
            await self.unmap(offset, length)
            return
        for start in range(offset, offset + length, len(ZEROES)):
            self.write_nowait((ZEROES[: offset + length - start],), start)

    async def allocation(self) -> Allocation | None:
        assert self._mapped is not None
        pages = 0
        for start in range(0, len(self._mapped), SCAN):
            pages += self._mapped[start : start + SCAN].count(1)
            await checkpoint()
        return Allocation(pages << SHIFT, available_memory())

    async def extents(self, offset: int, length: int) -> list[Extent]:
        mapped = self._mapped
        assert mapped is not None
        end = min(offset + length, (offset >> SHIFT << SHIFT) + (SCAN << SHIFT))
        last = (end + PAGE - 1) >> SHIFT
        runs: list[Extent] = []
        while offset < end:
            page = offset >> SHIFT
            here = mapped[page]
            found = mapped.find(b"\0" if here else b"\1", page, last)
            stop = end if found < 0 else min(found << SHIFT, end)
            runs.append(Extent(offset, stop - offset, bool(here)))
            offset = stop
        return runs

    async def read_protection(self, buffer: memoryview, offset: int) -> None:
        assert self._protection is not None
        buffer[:] = self._protection[offset : offset + len(buffer)].translate(COMPLEMENT)

    async def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:  # noqa: ARG002  as above
        assert self._protection is not None
        kept = bytes(data).translate(COMPLEMENT)
        if kept.strip(b"\0"):
            self._protection[offset : offset + len(kept)] = kept
        else:
            clear(self._protection, offset, offset + len(kept))

    async def set_protection(self, length: int, label: bytes) -> None:
        old, self._label = self._protection, label
        if old is not None and len(old) == length:
            return
        self._protection = None
        if length:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
            self._protection = mmap.mmap(-1, length, flags=flags)
        if old is not None:
            if self._protection is not None:
                both = min(len(old), length)
                self._protection[:both] = old[:both]
            old.close()

    def protection_label(self) -> bytes:
        return self._label

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        view = self._view
        for buffer in buffers:
            end = offset + len(buffer)
            buffer[:] = view[offset:end]
            offset = end
        return True

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        view, start = self._view, offset
        for buffer in buffers:
            end = offset + len(buffer)
            view[offset:end] = buffer
            offset = end
        first, last = start >> SHIFT, (offset + PAGE - 1) >> SHIFT
        self._mapped[first:last] = b"\1" * (last - first)  # type: ignore[index]  # open between open() and aclose()
        return True

    def capabilities(self) -> Capabilities:
        return Capabilities(
            physical_block_size=PAGE,
            unmap=Support.NATIVE,
            unmap_granularity=PAGE,
            write_zeroes=Support.NATIVE,
            extents=Support.NATIVE,
            protection=Support.NATIVE,
            nowait=True,
        )


def make(options: RamdiskOptions) -> Backstore:
    """The backstore that ``options`` describe."""
    return NullBackstore(options.size) if options.nullio else RamdiskBackstore(options.size)


def from_saveconfig(storage_object: dict[str, Any]) -> dict[str, Any]:
    """LIO's ``ramdisk``: ``size`` in bytes, ``nullio``."""
    return {name: storage_object[name] for name in ("size", "nullio") if storage_object.get(name) is not None}


def _info(options: RamdiskOptions, _size: int, _read_only: bool) -> str:
    lines = "        TCM RamDisk ID: 0  RamDisk Makeup: rd_mcp\n        PAGES/PAGE_SIZE: "
    return f"{lines}{options.size // RD_PAGE}*{RD_PAGE}  SG_table_count: 1  nullio: {options.nullio:d} dummy: 0"


RAMDISK_TREE = BackstoreTree(
    plugin="rd_mcp",
    saveconfig="ramdisk",
    controls={
        "rd_pages": lambda text: {"size": parse_whole(text) * RD_PAGE},
        "rd_nullio": lambda text: {"nullio": parse_bool(text)},
        "rd_dummy": lambda _text: {},
    },
    product="RAMDISK-MCP",
    info=_info,
)

RAMDISK = BackstoreType(
    name="ramdisk",
    api_version=API_VERSION,
    options=RamdiskOptions,
    factory=make,
    check_config=check_config,
    description="a disk in memory, thin provisioned, gone when the program ends",
    saveconfig_plugin="ramdisk",
    from_saveconfig=from_saveconfig,
    trees=(RAMDISK_TREE,),
)
