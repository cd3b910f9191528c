"""``error``: a failing disk."""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tcm.backstore import Allocation, Backstore, BackstoreError, BackstoreErrorKind, Buffer, Concurrency, Extent
from tcm.failure import ConfigError
from tcm.filter import BackstoreFilter
from tcm.options import suggestion
from tcm.plugin_types import API_VERSION, FilterType, option

if TYPE_CHECKING:
    from collections.abc import Sequence

Operation = Literal[
    "read", "write", "flush", "unmap", "write_zeroes", "extents", "erase_key", "read_protection", "write_protection"
]
KINDS = {kind.value: kind for kind in BackstoreErrorKind}


@dataclass(frozen=True)
class ErrorOptions:
    """Options of ``error``."""

    error: str = option("an errno name such as EIO or ENOSPC, or a kind: " + ", ".join(KINDS), "EIO")
    operation: tuple[Operation, ...] = option(
        "only these; may be given more than once; all if left out (flush and protection only without a range)", ()
    )
    rate: float = option("the part of the matching requests that fails, 0 to 1", 1.0)
    offset: int = option("only requests that touch bytes from here on", 0, kind="size")
    length: int | None = option(
        "only requests that touch these many bytes from offset on; to the end if left out", None, kind="size"
    )
    lba: int | None = option("like offset, in blocks of block_size bytes", None)
    blocks: int | None = option("like length, in blocks of block_size bytes", None)
    block_size: int = option("what lba and blocks count in", 512)
    after: int = option("let that many matching requests pass first", 0)
    count: int | None = option("then fail that many times and work again; 1 is a one-shot", None)
    seed: int | None = option("makes rate repeatable", None)


def check_config(options: ErrorOptions) -> None:
    """:raises ConfigError: says what to write."""
    make_error(options.error, None)
    if not 0 <= options.rate <= 1:
        raise ConfigError(f"rate={options.rate} is not between 0 and 1; write rate=0.01 for one in a hundred")
    if (options.lba is not None and options.offset) or (options.blocks is not None and options.length is not None):
        raise ConfigError("the range is given both in bytes and in blocks; write offset and length, or lba and blocks")
    for name in ("lba", "blocks", "after", "count"):
        value = getattr(options, name)
        if value is not None and value < 0:
            raise ConfigError(f"{name}={value} is negative; write 0 or more")
    if options.block_size <= 0:
        raise ConfigError(f"block_size={options.block_size} is no block; write block_size=512 or 4096")


def make_error(name: str, offset: int | None) -> OSError | BackstoreError:
    """The exception that ``name`` stands for.

    :raises ConfigError: there is no such errno or kind.
    """
    kind = KINDS.get(name.lower().replace("_", "-"))
    if kind is not None:
        return BackstoreError(kind, "injected", offset)
    number = getattr(errno, name.upper(), None) if name.upper().startswith("E") else None
    if not isinstance(number, int):
        names = [*KINDS, *errno.errorcode.values()]
        raise ConfigError(f"error={name} is neither an errno nor a kind{suggestion(name, names)}; write error=EIO")
    return OSError(number, f"{os.strerror(number)} (injected)")


class ErrorFilter(BackstoreFilter):
    """Fails matching requests before they reach the medium, whole: nothing of a failed write is written."""

    concurrency = Concurrency.PARALLEL
    passed_through = frozenset({"size", "capabilities", "set_protection", "protection_label"})

    def __init__(self, inner: Backstore, options: ErrorOptions) -> None:
        super().__init__(inner)
        unit = options.block_size
        self._error = options.error
        self._operations = frozenset(options.operation)
        self._rate = options.rate
        self._start = options.offset if options.lba is None else options.lba * unit
        length = options.length if options.blocks is None else options.blocks * unit
        self._end = None if length is None else self._start + length
        self._ranged = self._start > 0 or self._end is not None
        self._after = options.after
        self._count = options.count
        self._random = random.Random(options.seed)

    def _matches(self, operation: Operation, offset: int, length: int) -> bool:
        return (
            self._count != 0
            and (not self._operations or operation in self._operations)
            and offset + length > self._start
            and (self._end is None or offset < self._end)
        )

    def _check(self, operation: Operation, offset: int, length: int) -> None:
        if not self._matches(operation, offset, length):
            return
        if self._after:
            self._after -= 1
            return
        if self._random.random() >= self._rate:
            return
        if self._count is not None:
            self._count -= 1
        raise make_error(self._error, max(offset, self._start))

    def _check_without_range(self, operation: Operation) -> None:
        """It touches no bytes of the medium: with a range it is meant only if it is named."""
        if operation in self._operations or not self._ranged:
            self._check(operation, self._start, 1)

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self._check("read", offset, sum(map(len, buffers)))
        await self.inner.readv(buffers, offset)

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        self._check("write", offset, sum(map(len, buffers)))
        await self.inner.writev(buffers, offset, fua)

    async def flush(self) -> None:
        self._check_without_range("flush")
        await self.inner.flush()

    async def unmap(self, offset: int, length: int) -> None:
        self._check("unmap", offset, length)
        await self.inner.unmap(offset, length)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        self._check("write_zeroes", offset, length)
        await self.inner.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    async def extents(self, offset: int, length: int) -> list[Extent]:
        self._check("extents", offset, length)
        return await self.inner.extents(offset, length)

    async def allocation(self) -> Allocation | None:
        return await self.inner.allocation()

    async def read_protection(self, buffer: memoryview, offset: int) -> None:
        self._check_without_range("read_protection")
        await self.inner.read_protection(buffer, offset)

    async def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:
        self._check_without_range("write_protection")
        await self.inner.write_protection(data, offset, fua)

    async def erase_key(self) -> None:
        self._check_without_range("erase_key")
        await self.inner.erase_key()

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        # What might fail goes the long way, so the dice are thrown once.
        return not self._matches("read", offset, sum(map(len, buffers))) and self.inner.read_nowait(buffers, offset)

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        return not self._matches("write", offset, sum(map(len, buffers))) and self.inner.write_nowait(buffers, offset)


ERROR = FilterType(
    name="error",
    api_version=API_VERSION,
    options=ErrorOptions,
    factory=ErrorFilter,
    check_config=check_config,
    description="makes requests fail: some or all, anywhere or in a range, for ever or a few times",
)
