"""What a storage object is to the core: byte offsets in, bytes out.

The core has already checked every request: offset and length are multiples of the logical block size, the range lies
inside the medium as :meth:`Backstore.size` told it last, length is greater than zero, and nothing is written to a read-only
device. A backstore raises ``OSError`` or :class:`BackstoreError`; :mod:`tcm.target.errors` maps either to sense data.
"""

# ruff: noqa: ARG002, B027  # defaults of optional methods use none of their arguments, and some do nothing
from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tcm.failure import ConfigError as ConfigError  # noqa: PLC0414  # what a backstore needs is all here

if TYPE_CHECKING:
    from collections.abc import Sequence

Buffer = bytes | bytearray | memoryview


class Support(enum.Enum):
    """How an operation that the core can emulate is served."""

    NONE = "none"
    """Not to be had: the core does not offer it to initiators."""
    EMULATE = "emulate"
    """The core makes it out of the required methods."""
    NATIVE = "native"
    """The backstore's own method is called."""


class Concurrency(enum.Enum):
    """How many requests may be inside a backstore at once."""

    SERIALIZED = "serialized"
    """One at a time, in the order of arrival. Safe for code that was never meant to run in parallel."""
    PARALLEL = "parallel"
    """Any number, at any offsets; the core never sends a write that overlaps another request that must be atomic."""


class BackstoreErrorKind(enum.Enum):
    """Failures that ``OSError`` has no number for."""

    MEDIUM_READ = "medium-read"
    """The medium cannot be read there: MEDIUM ERROR, UNRECOVERED READ ERROR."""
    MEDIUM_WRITE = "medium-write"
    """The medium cannot be written there: MEDIUM ERROR, WRITE ERROR."""
    NO_SPACE = "no-space"
    """A thin device has no room left: DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT."""
    NOT_READY = "not-ready"
    """The device cannot be reached at the moment: NOT READY, LOGICAL UNIT NOT READY, CAUSE NOT REPORTABLE."""
    BUSY = "busy"
    """Try again later: the command ends with BUSY status."""
    RESIZED = "resized"
    """The medium has become smaller, and the range is not inside it any more: LOGICAL BLOCK ADDRESS OUT OF RANGE."""
    READ_ONLY = "read-only"
    """The device turned out to be write protected: DATA PROTECT, WRITE PROTECTED."""


class BackstoreError(Exception):
    """A failure that the backstore can name.

    :param kind: what failed; decides the sense data.
    :param message: for the log.
    :param offset: byte offset of the first byte that failed, for the INFORMATION field; ``None`` if unknown.
    """

    def __init__(self, kind: BackstoreErrorKind, message: str = "", offset: int | None = None) -> None:
        super().__init__(message or kind.value)
        self.kind = kind
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes that is all mapped (holds data) or all unmapped (reads as zeroes)."""

    offset: int
    length: int
    mapped: bool


@dataclass(frozen=True, slots=True)
class Allocation:
    """Storage of a thin device, in bytes."""

    used: int
    """Taken."""
    available: int
    """Can still be had."""
    shared: bool = True
    """Others may take from what is available."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an open backstore says of itself. Asked once, after :meth:`Backstore.open`; see also :meth:`Backstore.size`."""

    read_only: bool = False
    """No write, unmap or write_zeroes will be sent."""
    block_size: int = 512
    """Logical block size in bytes that the device wants: 512, 1024, 2048 or 4096. The configuration may choose a larger one."""
    physical_block_size: int = 4096
    """Bytes that the medium writes without reading first."""
    flush: Support = Support.EMULATE
    """EMULATE: writes are durable once they return (no write cache), so SYNCHRONIZE CACHE has nothing to do."""
    fua: Support = Support.EMULATE
    """EMULATE: a FUA write is a write and then a flush."""
    unmap: Support = Support.NONE
    """NATIVE: thin provisioned. There is no emulation: UNMAP is a hint, and zeroes may be written by WRITE SAME."""
    unmap_zeroes: bool = True
    """Unmapped bytes read as zeroes (LBPRZ)."""
    unmap_granularity: int = 4096
    """Bytes; ranges smaller than this, or not aligned to it, may stay mapped."""
    write_zeroes: Support = Support.EMULATE
    """EMULATE: zeroes are written through :meth:`Backstore.writev`."""
    extents: Support = Support.EMULATE
    """EMULATE: everything is reported as mapped."""
    protection: Support = Support.NONE
    """NATIVE: there is room beside the data for protection information; otherwise FORMAT UNIT with it is refused."""
    copy_range: Support = Support.NONE
    """NATIVE: :meth:`Backstore.copy_range` is worth calling. Otherwise the core reads and writes."""
    cryptographic_erase: Support = Support.NONE
    """NATIVE: all data is stored encrypted, and :meth:`Backstore.erase_key` makes it unreadable for good."""
    rotational: bool = False
    """A rotating disk, for the Block Device Characteristics VPD page."""
    optimal_transfer: int = 0
    """Bytes that one request moves best; 0: as many as one may have."""
    nowait: bool = False
    """``read_nowait`` and ``write_nowait`` are worth calling."""


def _capabilities_of(cls: type[Any], base: type[Any]) -> Capabilities:
    """What a class can do, as far as the methods that it overrides tell."""

    def overrides(name: str) -> bool:
        return getattr(cls, name) is not getattr(base, name)

    def support(name: str, otherwise: Support = Support.EMULATE) -> Support:
        return Support.NATIVE if overrides(name) else otherwise

    return Capabilities(
        read_only=not overrides("writev"),
        flush=support("flush"),
        unmap=support("unmap", Support.NONE),
        write_zeroes=support("write_zeroes"),
        extents=support("extents"),
        protection=support("set_protection", Support.NONE),
        copy_range=support("copy_range", Support.NONE),
        cryptographic_erase=support("erase_key", Support.NONE),
        nowait=overrides("read_nowait") or overrides("write_nowait"),
    )


class Backstore(ABC):
    """A storage object. All methods run in the event loop; see :class:`BlockingBackstore` for code that blocks.

    Buffers are flat sequences of bytes, any number of them and of any lengths; only their sum is a multiple of the block size.
    Reads, flushes and extents may be cancelled: let the cancellation out, and leave the buffers alone from then on. The core
    shields everything that changes the medium.
    """

    concurrency: ClassVar[Concurrency] = Concurrency.SERIALIZED

    @abstractmethod
    async def open(self) -> None:
        """Take hold of the medium. Called once, before anything else; raises ``OSError`` or :class:`ConfigError`."""

    @abstractmethod
    def size(self) -> int:
        """The medium's size in bytes, now. The core asks after :meth:`open` and every few seconds: must not block."""

    @abstractmethod
    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill all ``buffers``, one after the other, from ``offset`` on. Raises if a single byte cannot be read."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the medium. Called once, after the last request has ended, also when :meth:`open` has failed."""

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        """Write all ``buffers``, one after the other, at ``offset``. The core never changes them meanwhile.

        :param fua: return only when the data is durable. Set only if ``capabilities().fua`` is NATIVE.

        If omitted: the device is read-only.
        """
        raise BackstoreError(BackstoreErrorKind.READ_ONLY)

    async def flush(self) -> None:
        """Return when every write that has returned before this call is durable.

        If omitted: writes must be durable when they return.
        """

    async def unmap(self, offset: int, length: int) -> None:
        """Give back the range's storage. Afterwards it reads as zeroes if ``unmap_zeroes``, as anything otherwise.

        If omitted: the device is fully provisioned, and UNMAP is not offered.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_WRITE, "unmap is not supported")

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Make the range read as zeroes.

        :param may_unmap: the range may become unmapped; otherwise it stays allocated.

        If omitted: the core writes zeroes with :meth:`writev`.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_WRITE, "write_zeroes is not supported")

    async def extents(self, offset: int, length: int) -> list[Extent]:
        """Runs of mapped and unmapped bytes that cover the range, in order, without gaps; a prefix of it will do.

        If omitted: the whole range is reported as mapped.
        """
        return [Extent(offset, length, True)]

    async def allocation(self) -> Allocation | None:
        """How much storage the device has taken and can still have; ``None``: that is not known.

        If omitted: it is not known, and there are no thresholds that warn of a full disk.
        """
        return None

    async def read_protection(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` from the protection area, ``offset`` bytes from its beginning on; the range lies inside the area.

        The area is bytes beside the medium, eight for each logical block, that only the core understands.

        If omitted: the medium cannot be formatted with protection information.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_READ, "protection information is not supported")

    async def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:
        """Write ``data`` to the protection area. :meth:`flush` makes it durable along with the medium.

        :param fua: as in :meth:`writev`.

        If omitted: the medium cannot be formatted with protection information.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_WRITE, "protection information is not supported")

    async def set_protection(self, length: int, label: bytes) -> None:
        """Make the protection area ``length`` bytes long, and label it; both are durable when this returns.

        It keeps what it holds as far as it fits; what is added may hold anything. Length zero without a label: there is no area
        any more. A label is at most 256 bytes; it must never say the new thing before the area has the new length.

        If omitted: the medium cannot be formatted with protection information.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_WRITE, "protection information is not supported")

    def protection_label(self) -> bytes:
        """The label that :meth:`set_protection` was last given, by this process or an earlier one; empty if there is none.

        If omitted: the medium has no protection information.
        """
        return b""

    async def copy_range(self, source: Backstore, source_offset: int, offset: int, length: int) -> int:
        """Copy from another backstore, or from another range of this one, without the data passing through the core.

        Return how many bytes were copied, from the first on: the core reads and writes the rest. 0 is for what cannot be done,
        and for what failed: reading and writing meets the failure again, and tells which side it is on.

        :param source: as the core calls it: around a filter, do not look for the backstore inside. The range is not an
            overlapping one of ``self``.

        If omitted: the core reads and writes.
        """
        return 0

    async def erase_key(self) -> None:
        """Throw away the key that all data are encrypted with, and go on with a new one; durable when this returns.

        What was there before cannot be had back by any means; every byte can be read afterwards, without an error. Nothing else
        is under way meanwhile. Called again if the process ended before this returned.

        If omitted: SANITIZE CRYPTOGRAPHIC ERASE is not offered.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_WRITE, "nothing is encrypted")

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        """Fill ``buffers`` at once, without sleeping, and return True; or touch nothing that matters and return False.

        The buffers' contents are undefined after False; the core then calls :meth:`readv`.

        If omitted: every read goes through :meth:`readv`.
        """
        return False

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        """Write at once, without sleeping, and return True; or return False, whereupon the core writes it all again.

        Never asked for FUA. The buffers are the caller's again when this returns.

        If omitted: every write goes through :meth:`writev`.
        """
        return False

    def capabilities(self) -> Capabilities:
        """What this device can do. Called once, after :meth:`open`.

        If omitted: what the class overrides is NATIVE, what it does not is emulated; without :meth:`writev` it is read-only.
        """
        return _capabilities_of(type(self), Backstore)


class BlockingBackstore(ABC):
    """The same contract for code that blocks: every method without ``async``, run in worker threads by the core.

    With ``Concurrency.SERIALIZED`` (the default) no two methods ever run at once; with PARALLEL they run in as many threads
    as there are requests, up to a limit.
    """

    concurrency: ClassVar[Concurrency] = Concurrency.SERIALIZED

    @abstractmethod
    def open(self) -> None:
        """See :meth:`Backstore.open`."""

    @abstractmethod
    def size(self) -> int:
        """See :meth:`Backstore.size`. Called in the event loop: must not block."""

    @abstractmethod
    def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        """See :meth:`Backstore.readv`."""

    @abstractmethod
    def close(self) -> None:
        """See :meth:`Backstore.aclose`."""

    def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        """See :meth:`Backstore.writev`.

        If omitted: the device is read-only.
        """
        raise BackstoreError(BackstoreErrorKind.READ_ONLY)

    def flush(self) -> None:
        """See :meth:`Backstore.flush`.

        If omitted: writes must be durable when they return.
        """

    def unmap(self, offset: int, length: int) -> None:
        """See :meth:`Backstore.unmap`.

        If omitted: the device is fully provisioned, and UNMAP is not offered.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_WRITE, "unmap is not supported")

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """See :meth:`Backstore.write_zeroes`.

        If omitted: the core writes zeroes with :meth:`writev`.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_WRITE, "write_zeroes is not supported")

    def extents(self, offset: int, length: int) -> list[Extent]:
        """See :meth:`Backstore.extents`.

        If omitted: the whole range is reported as mapped.
        """
        return [Extent(offset, length, True)]

    def allocation(self) -> Allocation | None:
        """See :meth:`Backstore.allocation`.

        If omitted: it is not known, and there are no thresholds that warn of a full disk.
        """
        return None

    def read_protection(self, buffer: memoryview, offset: int) -> None:
        """See :meth:`Backstore.read_protection`.

        If omitted: the medium cannot be formatted with protection information.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_READ, "protection information is not supported")

    def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:
        """See :meth:`Backstore.write_protection`.

        If omitted: the medium cannot be formatted with protection information.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_WRITE, "protection information is not supported")

    def set_protection(self, length: int, label: bytes) -> None:
        """See :meth:`Backstore.set_protection`.

        If omitted: the medium cannot be formatted with protection information.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_WRITE, "protection information is not supported")

    def protection_label(self) -> bytes:
        """See :meth:`Backstore.protection_label`. Called in the event loop: must not block.

        If omitted: the medium has no protection information.
        """
        return b""

    def copy_range(self, source: Backstore | BlockingBackstore, source_offset: int, offset: int, length: int) -> int:
        """See :meth:`Backstore.copy_range`.

        Called only if ``concurrency`` is PARALLEL. A blocking PARALLEL ``source`` is passed as itself.

        If omitted: the core reads and writes.
        """
        return 0

    def erase_key(self) -> None:
        """See :meth:`Backstore.erase_key`.

        If omitted: SANITIZE CRYPTOGRAPHIC ERASE is not offered.
        """
        raise BackstoreError(BackstoreErrorKind.MEDIUM_WRITE, "nothing is encrypted")

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        """See :meth:`Backstore.read_nowait`. Called in the event loop.

        If omitted: every read goes through :meth:`readv`, in a worker thread.
        """
        return False

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        """See :meth:`Backstore.write_nowait`. Called in the event loop.

        If omitted: every write goes through :meth:`writev`, in a worker thread.
        """
        return False

    def capabilities(self) -> Capabilities:
        """See :meth:`Backstore.capabilities`.

        If omitted: what the class overrides is NATIVE, what it does not is emulated; without :meth:`writev` it is read-only.
        """
        return _capabilities_of(type(self), BlockingBackstore)
