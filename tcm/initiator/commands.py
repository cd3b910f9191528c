"""SCSI commands that everyone needs, on top of ``execute``: CDBs built, data read, status checked (SPC, SBC)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from tcm.initiator.results import ScsiError
from tcm.scsi import cdb as cdbs
from tcm.scsi.lun import decode
from tcm.scsi.sense import SenseKey, Status

if TYPE_CHECKING:
    from tcm.backstore import Buffer
    from tcm.initiator.results import Result

UNIT_ATTENTIONS = 16
"""How many in a row are cleared before one is reported."""
REPORT_LUNS_LENGTH = 16 + 8 * 256
CAPACITY_LENGTH = 32


class Commands(ABC):
    """Commands to one target. Lengths in bytes, LBAs and counts in logical blocks; LUN None: ``default_lun``.

    Each raises ScsiError for a status that is not GOOD. Unit attentions are passed over: ``execute`` shows them.
    """

    default_lun: int
    _capacities: dict[int | None, tuple[int, int]]

    @abstractmethod
    async def execute(
        self, cdb: bytes, lun: int | bytes | None = None, *, data_out: Buffer = b"", read_length: int = 0
    ) -> Result:
        """A SCSI command."""

    @abstractmethod
    def submit(self, task: Any, *where: Any) -> None:
        """Start a task of the transport's own kind; its ``done`` is called with it when it is finished.

        :param where: what else the transport wants to know, such as the connection.
        """

    async def checked(
        self, cdb: bytes, lun: int | bytes | None = None, *, data_out: Buffer = b"", read_length: int = 0
    ) -> Result:
        """A command that has to succeed."""
        for _ in range(UNIT_ATTENTIONS):
            result = await self.execute(cdb, lun, data_out=data_out, read_length=read_length)
            if result.good:
                return result
            if not result.completed or result.status != Status.CHECK_CONDITION or result.sense_key != SenseKey.UNIT_ATTENTION:
                break
        raise ScsiError(result)

    async def _data(self, cdb: bytes, lun: int | bytes | None, length: int) -> bytes:
        return bytes((await self.checked(cdb, lun, read_length=length)).data)

    async def test_unit_ready(self, lun: int | None = None) -> None:
        """TEST UNIT READY."""
        await self.checked(cdbs.test_unit_ready(), lun)

    async def inquiry(self, lun: int | None = None, *, page: int | None = None, length: int = 252) -> bytes:
        """INQUIRY: the standard data, or a vital product data page."""
        return await self._data(cdbs.inquiry(page, length), lun, length)

    async def report_luns(self) -> list[bytes]:
        """REPORT LUNS: the eight bytes of each."""
        length = REPORT_LUNS_LENGTH
        while True:
            data = await self._data(cdbs.report_luns(0, length), 0, length)
            needed = 8 + int.from_bytes(data[:4], "big")
            if needed <= length:
                return [data[at : at + 8] for at in range(8, needed, 8)]
            length = needed

    async def lun_numbers(self) -> list[int]:
        """REPORT LUNS: those that are a number, in order."""
        return sorted(number for field in await self.report_luns() if (number := decode(field)) is not None)

    async def capacity(self, lun: int | None = None) -> tuple[int, int]:
        """READ CAPACITY (16): logical blocks, and bytes of one. Remembered."""
        if lun not in self._capacities:
            data = await self._data(cdbs.read_capacity16(CAPACITY_LENGTH), lun, CAPACITY_LENGTH)
            self._capacities[lun] = int.from_bytes(data[:8], "big") + 1, int.from_bytes(data[8:12], "big")
        return self._capacities[lun]

    async def read(self, lba: int, blocks: int, lun: int | None = None) -> bytes:
        """READ (16)."""
        _, block_size = await self.capacity(lun)
        return await self._data(cdbs.read_16(lba, blocks), lun, blocks * block_size)

    async def write(self, lba: int, data: Buffer, lun: int | None = None, *, fua: bool = False) -> None:
        """WRITE (16): whole logical blocks."""
        _, block_size = await self.capacity(lun)
        blocks, rest = divmod(len(data), block_size)
        if rest:
            msg = f"{len(data)} bytes are no multiple of the logical block's {block_size}"
            raise ValueError(msg)
        await self.checked(cdbs.write_16(lba, blocks, fua=fua), lun, data_out=data)

    async def synchronize_cache(self, lun: int | None = None) -> None:
        """SYNCHRONIZE CACHE (16) of everything."""
        await self.checked(cdbs.synchronize_cache(16), lun)
