"""A backstore that wraps a backstore.

Filters are coupled to the exact set of methods of :class:`~tcm.backstore.Backstore`: a method that a filter does not know
would reach the inner backstore unfiltered (writes around a read-only filter, plain data around an encrypting one). So a
filter accounts for every method: it overrides it, or names it in :attr:`BackstoreFilter.passed_through`.
:func:`unaccounted` says which are missing; ``tcm.testing.FilterContract`` fails on any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tcm.backstore import Allocation, Backstore, BackstoreError, BackstoreErrorKind, Buffer, Capabilities, Extent, Support

if TYPE_CHECKING:
    from collections.abc import Sequence


class BackstoreFilter(Backstore):
    """Forwards every method to ``inner``; a filter overrides what it changes.

    ``concurrency`` speaks for the filter's own code; the default, SERIALIZED, lets one request at a time into the filter
    and everything below it. A filter that changes a method's promise also changes :meth:`capabilities`
    (``dataclasses.replace(self.inner.capabilities(), nowait=False)``).

    :param inner: an adapted backstore or another filter. The filter opens it and closes it.
    """

    passed_through: ClassVar[frozenset[str]] = frozenset()
    """Names of the methods that this filter lets through unchanged, on purpose."""

    def __init__(self, inner: Backstore) -> None:
        self.inner = inner

    async def open(self) -> None:
        await self.inner.open()

    def size(self) -> int:
        return self.inner.size()

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        await self.inner.readv(buffers, offset)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        await self.inner.writev(buffers, offset, fua)

    async def flush(self) -> None:
        await self.inner.flush()

    async def unmap(self, offset: int, length: int) -> None:
        await self.inner.unmap(offset, length)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        await self.inner.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    async def extents(self, offset: int, length: int) -> list[Extent]:
        return await self.inner.extents(offset, length)

    async def read_protection(self, buffer: memoryview, offset: int) -> None:
        await self.inner.read_protection(buffer, offset)

    async def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:
        await self.inner.write_protection(data, offset, fua)

    async def set_protection(self, length: int, label: bytes) -> None:
        await self.inner.set_protection(length, label)

    def protection_label(self) -> bytes:
        return self.inner.protection_label()

    async def copy_range(self, source: Backstore, source_offset: int, offset: int, length: int) -> int:  # noqa: ARG002  # see below
        """Not forwarded: the core then reads and writes through the filter."""
        return 0

    async def allocation(self) -> Allocation | None:
        """Not forwarded: a filter may keep data elsewhere. One that does not overrides it to ask ``inner``."""
        return None

    async def erase_key(self) -> None:
        """Not forwarded, and not offered: what a filter keeps elsewhere would outlive the key. See :func:`erases_key`."""
        raise BackstoreError(BackstoreErrorKind.MEDIUM_WRITE, "a filter does not let a cryptographic erase through")

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        return self.inner.read_nowait(buffers, offset)

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        return self.inner.write_nowait(buffers, offset)

    def capabilities(self) -> Capabilities:
        return self.inner.capabilities()


PROTECTION = frozenset({"read_protection", "write_protection", "set_protection", "protection_label"})
"""The methods that keep protection information: for a filter that lets it pass beside the data."""

LIFE_CYCLE = frozenset({"open", "aclose"})
"""Methods that carry no request: forwarding them is what a filter is for, so nobody need name them."""


NOT_FORWARDED = frozenset({"allocation", "copy_range", "erase_key"})
"""Methods that :class:`BackstoreFilter` answers itself or refuses: no filter is bypassed by them."""


def methods() -> frozenset[str]:
    """Names of the public methods of :class:`Backstore` that a filter forwards."""
    names = frozenset(name for name, value in vars(Backstore).items() if callable(value) and not name.startswith("_"))
    return names - NOT_FORWARDED


def unaccounted(filter_class: type[BackstoreFilter]) -> list[str]:
    """Methods of :class:`Backstore` that ``filter_class`` neither overrides nor names in ``passed_through``, sorted."""
    own = filter_class.__mro__[: filter_class.__mro__.index(BackstoreFilter)]
    overridden = {name for cls in own for name in vars(cls)}
    return sorted(methods() - overridden - filter_class.passed_through - LIFE_CYCLE)


def erases_key(backstore: Backstore) -> bool:
    """Whether a cryptographic erase reaches what encrypts, a backstore or a filter: all above override ``erase_key``."""
    while isinstance(backstore, BackstoreFilter):
        if type(backstore).erase_key is BackstoreFilter.erase_key:
            return False
        backstore = backstore.inner
        if backstore.capabilities().cryptographic_erase is not Support.NATIVE:
            break  # the key is that of the filter above
    return True
