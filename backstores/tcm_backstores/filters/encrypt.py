"""``encrypt``: AES-256-XTS at rest, with a key that can be thrown away (SANITIZE CRYPTOGRAPHIC ERASE).

Ciphering holds the interpreter's lock, so a worker thread would not run beside the event loop but take long turns with it.
It is done in the loop instead, ``SLICE`` units at a time, and others get their turn in between.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint
from anyio.to_thread import run_sync

from tcm.backstore import Allocation, Backstore, BackstoreError, BackstoreErrorKind, Buffer, Capabilities, Concurrency, Support
from tcm.failure import ConfigError
from tcm.filter import BackstoreFilter
from tcm.plugin_types import API_VERSION, FilterType, option
from tcm_backstores import key_file
from tcm_backstores.files import ZEROES, total
from tcm_backstores.key_file import KeyFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcm_backstores.xts import Xts

log = logging.getLogger("tcm.backstores")

SLICE = 32
"""Units that are ciphered in one go: 0.2 ms. What is longer is not done by ``nowait``."""
UNITS = (512, 1024, 2048, 4096)


@dataclass(frozen=True)
class EncryptOptions:
    """Options of ``encrypt``."""

    key_file: str = option(
        "64 random bytes, mode 0600, for this LUN alone; made if missing and the medium is empty", kind="path"
    )
    create: bool = option("make a missing key file although the medium is not empty: what is on it is lost", False)
    sector_size: int = option(
        "bytes that are encrypted as one: 512, 1024, 2048 or 4096 (fastest; the LUN's blocks are at least as large)",
        512,
        kind="size",
    )


def check_config(options: EncryptOptions) -> None:
    """:raises ConfigError: says what to write or install."""
    if importlib.util.find_spec("cryptography") is None:
        raise ConfigError("the package cryptography is missing; pip install 'tcm-target-backstores[encrypt]'")
    if options.sector_size not in UNITS:
        raise ConfigError(f"sector-size={options.sector_size} is none of 512, 1024, 2048 and 4096; write sector-size=4096")
    key_file.check(options.key_file)


class EncryptFilter(BackstoreFilter):
    """Nothing reaches ``inner`` but ciphertext, and which blocks are unmapped."""

    concurrency = Concurrency.PARALLEL
    passed_through = frozenset({"size", "flush", "unmap", "extents"})

    def __init__(self, inner: Backstore, options: EncryptOptions) -> None:
        super().__init__(inner)
        self._key_file = KeyFile(options.key_file)
        self._create = options.create
        self._unit = options.sector_size
        self._slice = SLICE * options.sector_size
        self._cipher: Xts | None = None
        self._zeroes_natively = False

    # life cycle

    async def open(self) -> None:
        await self.inner.open()
        key = await run_sync(self._key_file.open)
        if key is None:
            if not (self._create or await self._is_empty()):
                raise ConfigError(
                    f"key-file: {self._key_file.path} does not exist, and the medium is not empty as far as can be told; "
                    "restore the key, or write create=yes to make one and lose what is on the medium"
                )
            key = await run_sync(self._key_file.create)
            log.warning("%s: a new key was made; without a copy of that file the disk is lost with it", self._key_file.path)
        assert key is not None
        self._zeroes_natively = self.inner.capabilities().write_zeroes is Support.NATIVE
        self._cipher = await run_sync(self._make_cipher, key)

    def _make_cipher(self, key: bytes) -> Xts:
        from tcm_backstores.xts import Xts  # an optional package, and 50 ms

        return Xts(key, self._unit)

    async def _is_empty(self) -> bool:
        """The medium can be written, can tell where data is, and holds none."""
        capabilities = self.inner.capabilities()
        if capabilities.read_only or capabilities.extents is not Support.NATIVE:
            return False
        offset, size = 0, self.inner.size()
        while offset < size:
            for run in await self.inner.extents(offset, size - offset):
                if run.mapped:
                    return False
                offset = run.offset + run.length
        return True

    async def aclose(self) -> None:
        self._cipher = None
        try:
            await self.inner.aclose()
        finally:
            self._key_file.close()

    def capabilities(self) -> Capabilities:
        inner = self.inner.capabilities()
        return replace(
            inner,
            block_size=max(inner.block_size, self._unit),
            write_zeroes=Support.NATIVE,
            protection=Support.NONE,
            copy_range=Support.NONE,
            cryptographic_erase=Support.NATIVE if self._key_file.writable and not inner.read_only else Support.NONE,
        )

    # data

    @property
    def _keyed(self) -> Xts:
        if self._cipher is None:
            raise BackstoreError(BackstoreErrorKind.NOT_READY, "replacing the key failed, so there is none; sanitize again")
        return self._cipher

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        cipher, stored = self._keyed, bytearray(total(buffers))
        await self.inner.readv([memoryview(stored)], offset)
        pieces = []
        for start in range(0, len(stored), self._slice):
            if start:
                await checkpoint()
            pieces.append(cipher.decrypt(stored[start : start + self._slice], offset + start))
        _scatter(b"".join(pieces), buffers)

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        cipher, data = self._keyed, _gather(buffers)
        pieces = []
        for start in range(0, len(data), self._slice):
            if start:
                await checkpoint()
            pieces.append(cipher.encrypt(data[start : start + self._slice], offset + start))
        await self.inner.writev(pieces, offset, fua)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        if may_unmap and self._zeroes_natively:  # what is stored as zeroes reads as zeroes
            await self.inner.write_zeroes(offset, length, may_unmap=True, fua=fua)
            return
        for start in range(offset, offset + length, len(ZEROES)):
            await self.writev((ZEROES[: offset + length - start],), start, fua)

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        length = total(buffers)
        if length > self._slice or self._cipher is None:
            return False
        stored = bytearray(length)
        if not self.inner.read_nowait([memoryview(stored)], offset):
            return False
        _scatter(self._cipher.decrypt(stored, offset), buffers)
        return True

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        if total(buffers) > self._slice or self._cipher is None:
            return False
        return self.inner.write_nowait([self._cipher.encrypt(_gather(buffers), offset)], offset)

    async def allocation(self) -> Allocation | None:
        return await self.inner.allocation()

    # guards are check sums of plain data, and would be stored as such: there is no protection information
    read_protection = Backstore.read_protection
    write_protection = Backstore.write_protection
    set_protection = Backstore.set_protection
    protection_label = Backstore.protection_label

    # the key

    async def erase_key(self) -> None:
        await run_sync(self._key_file.check_place)
        self._cipher = None  # the file may hold either key until the new one is known to be there
        key = await run_sync(self._key_file.replace)
        self._cipher = self._make_cipher(key)
        log.info("%s: the key was replaced", self._key_file.path)


def _gather(buffers: Sequence[Buffer]) -> Buffer:
    return buffers[0] if len(buffers) == 1 else b"".join(buffers)


def _scatter(data: bytes, buffers: Sequence[memoryview]) -> None:
    if len(buffers) == 1:
        buffers[0][:] = data
        return
    start = 0
    for buffer in buffers:
        buffer[:] = data[start : start + len(buffer)]
        start += len(buffer)


ENCRYPT = FilterType(
    name="encrypt",
    api_version=API_VERSION,
    options=EncryptOptions,
    factory=EncryptFilter,
    check_config=check_config,
    description="encrypts what is stored (AES-256-XTS); SANITIZE CRYPTOGRAPHIC ERASE throws the key away",
)
