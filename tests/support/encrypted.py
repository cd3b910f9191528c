"""A backstore that keeps nothing but what it has encrypted, and can throw away the key: what a plug-in would do, in little."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from support.memory import GatedMemory

from tcm.backstore import Buffer, Capabilities, Support

SECTOR = 512


class EncryptedMemory(GatedMemory):
    """Each sector is XORed with a stream of its own, made of a key that has a number."""

    def __init__(self, size: int = 1 << 20) -> None:
        super().__init__(size)
        self.key = 1

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), unmap_zeroes=False, cryptographic_erase=Support.NATIVE)

    def _crypt(self, data: bytes, offset: int) -> bytes:
        sectors = range(offset // SECTOR, (offset + len(data)) // SECTOR)
        stream = b"".join(hashlib.shake_128(b"%d %d" % (self.key, sector)).digest(SECTOR) for sector in sectors)
        return bytes(a ^ b for a, b in zip(data, stream, strict=True))

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        data = bytearray(sum(map(len, buffers)))
        await super().readv([memoryview(data)], offset)
        plain = self._crypt(data, offset)
        for buffer in buffers:
            buffer[:], plain = plain[: len(buffer)], plain[len(buffer) :]

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        await super().writev([self._crypt(b"".join(buffers), offset)], offset, fua)

    async def erase_key(self) -> None:
        await self._pass("erase_key", 0, 0)
        self.key += 1
