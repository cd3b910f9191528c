"""AES-256-XTS (IEEE 1619) over the sectors of a disk, with what was never written told apart.

The tweak is the number of a unit's first 512-byte sector, little-endian: what Linux calls ``aes-xts-plain64``. A unit that
is stored as zeroes is a hole and reads as zeroes; that a written one becomes such has a chance of 1 in 2 to the 4096.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

if TYPE_CHECKING:
    from tcm.backstore import Buffer

SECTOR_SHIFT = 9


class Xts:
    """A key at work. Nothing of it is shown by ``repr`` or in an error.

    :param key: 64 bytes, whose halves differ.
    :param unit: bytes under one tweak: 512, 1024, 2048 or 4096.
    """

    def __init__(self, key: bytes, unit: int) -> None:
        self._algorithm = algorithms.AES(key)
        self._unit = unit
        self._hole = bytes(unit)

    def encrypt(self, data: Buffer, offset: int) -> bytes:
        """What to store for ``data``, whole units at byte ``offset``."""
        algorithm, unit, step = self._algorithm, self._unit, self._unit >> SECTOR_SHIFT
        sector, stored = offset >> SECTOR_SHIFT, []
        for start in range(0, len(data), unit):
            cipher = Cipher(algorithm, modes.XTS(sector.to_bytes(16, "little"))).encryptor()
            stored.append(cipher.update(data[start : start + unit]))
            sector += step
        return b"".join(stored)

    def decrypt(self, stored: bytes | bytearray, offset: int) -> bytes:
        """The data of which ``stored`` is what byte ``offset`` holds, whole units."""
        algorithm, unit, hole, step = self._algorithm, self._unit, self._hole, self._unit >> SECTOR_SHIFT
        sector, data = offset >> SECTOR_SHIFT, []
        for start in range(0, len(stored), unit):
            piece = stored[start : start + unit]
            if piece == hole:
                data.append(hole)
            else:
                data.append(Cipher(algorithm, modes.XTS(sector.to_bytes(16, "little"))).decryptor().update(piece))
            sector += step
        return b"".join(data)
