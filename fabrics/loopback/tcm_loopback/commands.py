"""An application client (SAM-5 4.5.6): one method per command, each told which outcome to expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi import cdb as cdbs
from tcm.scsi.check_condition import CheckCondition
from tcm.scsi.sense import Sense, SenseKey, Status
from tcm.target.task import TaskAttribute
from tcm.target.unit_attention import UnitAttention

if TYPE_CHECKING:
    from tcm.backstore import Buffer
    from tcm_loopback.initiator import LoopbackInitiator
    from tcm_loopback.transport import Result

Expected = Status | type[CheckCondition] | UnitAttention | None
"""What a command should come to: a status; CHECK CONDITION with the sense of an exception class or with a unit attention;
None: anything."""


class UnexpectedOutcome(AssertionError):
    """A command came to something else than the caller said."""


def check(result: Result, expect: Expected) -> Result:
    """``result``, if it is what was expected. Raises :class:`UnexpectedOutcome`."""
    if expect is None:
        return result
    if isinstance(expect, Status):
        if result.status is not expect:
            raise UnexpectedOutcome(f"expected {expect.name}, got {_describe(result)}")
        return result
    key = SenseKey.UNIT_ATTENTION if isinstance(expect, UnitAttention) else expect.key
    wanted = Sense(key=key, asc=expect.asc, ascq=expect.ascq)
    got = result.sense
    if (
        result.status is not Status.CHECK_CONDITION
        or got is None
        or (got.key, got.asc, got.ascq) != (key, expect.asc, expect.ascq)
    ):
        raise UnexpectedOutcome(f"expected CHECK_CONDITION {wanted}, got {_describe(result)}")
    return result


def _describe(result: Result) -> str:
    return result.status.name + (f" {result.sense}" if result.sense else "")


class ApplicationClient:
    """Sends commands to one logical unit.

    :param block_size: bytes in a logical block; :meth:`identify` asks the unit.
    """

    def __init__(self, initiator: LoopbackInitiator, lun: int | bytes = 0, block_size: int = 512) -> None:
        self.initiator = initiator
        self.lun = lun
        self.block_size = block_size
        self.blocks = 0

    async def execute(
        self,
        cdb: bytes,
        data_out: Buffer = b"",
        *,
        expect: Expected = Status.GOOD,
        read_length: int = 0,
        write_length: int | None = None,
        attribute: TaskAttribute = TaskAttribute.SIMPLE,
    ) -> Result:
        """Any command. Raises :class:`UnexpectedOutcome`."""
        result = await self.initiator.execute(
            self.lun, cdb, data_out, read_length=read_length, write_length=write_length, attribute=attribute
        )
        try:
            return check(result, expect)
        except UnexpectedOutcome as error:
            raise UnexpectedOutcome(f"{cdb.hex(' ')}: {error}") from None

    async def identify(self) -> None:
        """Take the pending unit attentions away and learn the unit's block size and number of blocks."""
        for _ in range(16):
            result = await self.test_unit_ready(expect=None)
            if result.sense is None or result.sense.key is not SenseKey.UNIT_ATTENTION:
                break
            # a unit with UA_INTLCK_CTRL set keeps what it reports until REQUEST SENSE
            await self.request_sense()
        capacity = (await self.execute(cdbs.read_capacity16(), read_length=32)).data_in
        self.blocks = int.from_bytes(capacity[:8], "big") + 1
        self.block_size = int.from_bytes(capacity[8:12], "big")

    # Block commands: ``length`` is the CDB's, in bytes

    async def read(
        self,
        length: int,
        lba: int,
        blocks: int,
        *,
        expect: Expected = Status.GOOD,
        read_length: int | None = None,
        **fields: Any,
    ) -> Result:
        """READ; the buffer holds what the CDB asks for unless ``read_length`` says otherwise."""
        size = (blocks or (256 if length == 6 else 0)) * self.block_size
        cdb = cdbs.read(length, lba, blocks, **fields)
        return await self.execute(cdb, read_length=size if read_length is None else read_length, expect=expect)

    async def write(
        self, length: int, lba: int, data: Buffer, blocks: int | None = None, *, expect: Expected = Status.GOOD, **fields: Any
    ) -> Result:
        """WRITE of ``data``, ``blocks`` long (the data's length, if None)."""
        return await self.execute(cdbs.write(length, lba, self._blocks(data, blocks), **fields), data, expect=expect)

    async def write_and_verify(
        self, length: int, lba: int, data: Buffer, blocks: int | None = None, *, expect: Expected = Status.GOOD, **fields: Any
    ) -> Result:
        """WRITE AND VERIFY."""
        return await self.execute(cdbs.write_and_verify(length, lba, self._blocks(data, blocks), **fields), data, expect=expect)

    async def verify(
        self, length: int, lba: int, blocks: int, data: Buffer = b"", *, expect: Expected = Status.GOOD, **fields: Any
    ) -> Result:
        """VERIFY; with ``bytchk`` 1 or 3 against ``data``."""
        return await self.execute(cdbs.verify(length, lba, blocks, **fields), data, expect=expect)

    async def write_same(
        self, length: int, lba: int, blocks: int, data: Buffer, *, expect: Expected = Status.GOOD, **fields: Any
    ) -> Result:
        """WRITE SAME of the one block ``data``."""
        return await self.execute(cdbs.write_same(length, lba, blocks, **fields), data, expect=expect)

    async def orwrite(
        self, lba: int, data: Buffer, blocks: int | None = None, *, expect: Expected = Status.GOOD, **fields: Any
    ) -> Result:
        """ORWRITE (16)."""
        return await self.execute(cdbs.orwrite(lba, self._blocks(data, blocks), **fields), data, expect=expect)

    async def compare_and_write(
        self,
        lba: int,
        compare: bytes,
        data: bytes,
        blocks: int | None = None,
        *,
        expect: Expected = Status.GOOD,
        **fields: Any,
    ) -> Result:
        """COMPARE AND WRITE."""
        cdb = cdbs.compare_and_write(lba, self._blocks(data, blocks), **fields)
        return await self.execute(cdb, compare + data, expect=expect)

    async def write_atomic(
        self, lba: int, data: Buffer, blocks: int | None = None, *, expect: Expected = Status.GOOD, **fields: Any
    ) -> Result:
        """WRITE ATOMIC (16)."""
        return await self.execute(cdbs.write_atomic(lba, self._blocks(data, blocks), **fields), data, expect=expect)

    async def unmap(self, *ranges: tuple[int, int], expect: Expected = Status.GOOD, **fields: Any) -> Result:
        """UNMAP of ranges of (LBA, blocks)."""
        parameters = cdbs.unmap_parameters(*ranges)
        return await self.execute(cdbs.unmap(len(parameters), **fields), parameters, expect=expect)

    async def get_lba_status(self, lba: int, *, allocation_length: int = 4096) -> list[tuple[int, int, int]]:
        """GET LBA STATUS: (LBA, blocks, provisioning status) of each descriptor."""
        result = await self.execute(cdbs.get_lba_status(lba, allocation_length), read_length=allocation_length)
        data = result.data_in
        return [
            (int.from_bytes(data[i : i + 8], "big"), int.from_bytes(data[i + 8 : i + 12], "big"), data[i + 12] & 0xF)
            for i in range(8, len(data), 16)
        ]

    def _blocks(self, data: Buffer, blocks: int | None) -> int:
        return len(data) // self.block_size if blocks is None else blocks

    # Primary commands

    async def test_unit_ready(self, *, expect: Expected = Status.GOOD) -> Result:
        """TEST UNIT READY."""
        return await self.execute(cdbs.test_unit_ready(), expect=expect)

    async def request_sense(self, *, desc: bool = False, allocation_length: int = 252) -> bytes:
        """REQUEST SENSE: the sense data."""
        return (await self.execute(cdbs.request_sense(allocation_length, desc=desc), read_length=allocation_length)).data_in

    async def inquiry(
        self, page: int | None = None, allocation_length: int = 4096, *, expect: Expected = Status.GOOD, **fields: Any
    ) -> bytes:
        """INQUIRY: standard data, or a VPD page."""
        cdb = cdbs.inquiry(page, allocation_length, **fields)
        return (await self.execute(cdb, read_length=allocation_length, expect=expect)).data_in

    async def report_luns(self, select_report: int = 0, *, expect: Expected = Status.GOOD) -> list[bytes]:
        """REPORT LUNS: the LUN fields."""
        data = (await self.execute(cdbs.report_luns(select_report), read_length=4096, expect=expect)).data_in
        return [data[i : i + 8] for i in range(8, len(data), 8)]

    async def mode_sense(
        self,
        length: int,
        page: int,
        subpage: int = 0,
        *,
        expect: Expected = Status.GOOD,
        allocation_length: int = 252,
        **fields: Any,
    ) -> bytes:
        """MODE SENSE: header, block descriptors and pages."""
        cdb = cdbs.mode_sense(length, page, subpage, allocation_length=allocation_length, **fields)
        return (await self.execute(cdb, read_length=allocation_length, expect=expect)).data_in

    async def mode_select(self, length: int, parameters: bytes, *, expect: Expected = Status.GOOD, **fields: Any) -> Result:
        """MODE SELECT of a whole parameter list."""
        return await self.execute(cdbs.mode_select(length, len(parameters), **fields), parameters, expect=expect)

    async def start_stop_unit(self, *, expect: Expected = Status.GOOD, **fields: Any) -> Result:
        """START STOP UNIT."""
        return await self.execute(cdbs.start_stop_unit(**fields), expect=expect)

    async def prevent_allow_medium_removal(self, prevent: int, *, expect: Expected = Status.GOOD) -> Result:
        """PREVENT ALLOW MEDIUM REMOVAL."""
        return await self.execute(cdbs.prevent_allow_medium_removal(prevent), expect=expect)

    async def reserve(self, length: int = 6, *, expect: Expected = Status.GOOD) -> Result:
        """RESERVE."""
        return await self.execute(cdbs.reserve(length), expect=expect)

    async def release(self, length: int = 6, *, expect: Expected = Status.GOOD) -> Result:
        """RELEASE."""
        return await self.execute(cdbs.release(length), expect=expect)
