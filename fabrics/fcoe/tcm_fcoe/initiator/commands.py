"""SCSI commands that everyone needs, on top of ``execute``: CDBs built, data read, status checked (SPC, SBC)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from struct import Struct
from typing import TYPE_CHECKING

from tcm_fcoe.initiator.results import CHECK_CONDITION, Result, ScsiError

if TYPE_CHECKING:
    from tcm_fcoe.protocol.fcoe import Buffer

_CDB_16 = Struct(">BBQIxx").pack
UNIT_ATTENTION = 6
UNIT_ATTENTIONS = 16
"""How many in a row are cleared before one is reported."""
REPORT_LUNS_LENGTH = 16 + 8 * 256


class Commands(ABC):
    """Commands to one target. Lengths in bytes, LBAs and counts in logical blocks; LUN None: the one of the target's address.

    Each raises ScsiError for a status that is not GOOD. Unit attentions are passed over: ``execute`` shows them.
    """

    _capacities: dict[int | None, tuple[int, int]]

    @abstractmethod
    async def execute(
        self, cdb: bytes, lun: int | bytes | None = None, *, data_out: Buffer = b"", read_length: int = 0
    ) -> Result:
        """A SCSI command."""

    async def checked(
        self, cdb: bytes, lun: int | bytes | None = None, *, data_out: Buffer = b"", read_length: int = 0
    ) -> Result:
        """A command that has to succeed."""
        for _ in range(UNIT_ATTENTIONS):
            result = await self.execute(cdb, lun, data_out=data_out, read_length=read_length)
            if result.good:
                return result
            if result.code or result.status != CHECK_CONDITION or result.sense_key != UNIT_ATTENTION:
                break
        raise ScsiError(result)

    async def test_unit_ready(self, lun: int | None = None) -> None:
        """TEST UNIT READY."""
        await self.checked(bytes(6), lun)

    async def inquiry(self, lun: int | None = None, *, page: int | None = None, length: int = 252) -> bytes:
        """INQUIRY: the standard data, or a vital product data page."""
        cdb = bytes((0x12, page is not None, page or 0, length >> 8, length & 0xFF, 0))
        return bytes((await self.checked(cdb, lun, read_length=length)).data)

    async def report_luns(self) -> list[bytes]:
        """REPORT LUNS: the eight bytes of each."""
        length = REPORT_LUNS_LENGTH
        while True:
            cdb = bytes((0xA0, 0, 0, 0, 0, 0)) + length.to_bytes(4, "big") + bytes(2)
            data = bytes((await self.checked(cdb, 0, read_length=length)).data)
            needed = 8 + int.from_bytes(data[:4], "big")
            if needed <= length:
                return [data[at : at + 8] for at in range(8, needed, 8)]
            length = needed

    async def capacity(self, lun: int | None = None) -> tuple[int, int]:
        """READ CAPACITY (16): logical blocks, and bytes of one. Remembered."""
        if lun not in self._capacities:
            cdb = bytes((0x9E, 0x10)) + bytes(8) + (32).to_bytes(4, "big") + bytes(2)
            data = bytes((await self.checked(cdb, lun, read_length=32)).data)
            self._capacities[lun] = int.from_bytes(data[:8], "big") + 1, int.from_bytes(data[8:12], "big")
        return self._capacities[lun]

    async def read(self, lba: int, blocks: int, lun: int | None = None) -> bytes:
        """READ (16)."""
        _, block_size = await self.capacity(lun)
        return bytes((await self.checked(read_16(lba, blocks), lun, read_length=blocks * block_size)).data)

    async def write(self, lba: int, data: Buffer, lun: int | None = None, *, fua: bool = False) -> None:
        """WRITE (16): whole logical blocks."""
        _, block_size = await self.capacity(lun)
        blocks, rest = divmod(len(data), block_size)
        if rest:
            msg = f"{len(data)} bytes are no multiple of the logical block's {block_size}"
            raise ValueError(msg)
        await self.checked(write_16(lba, blocks, fua=fua), lun, data_out=data)

    async def synchronize_cache(self, lun: int | None = None) -> None:
        """SYNCHRONIZE CACHE (16) of everything."""
        await self.checked(bytes((0x91,)) + bytes(15), lun)


def read_16(lba: int, blocks: int, *, fua: bool = False) -> bytes:
    """The CDB of READ (16)."""
    return _CDB_16(0x88, 8 if fua else 0, lba, blocks)


def write_16(lba: int, blocks: int, *, fua: bool = False) -> bytes:
    """The CDB of WRITE (16)."""
    return _CDB_16(0x8A, 8 if fua else 0, lba, blocks)
