"""An application client of ROD tokens: parameter lists, and commands that send them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
from anyio.lowlevel import checkpoint
from support.scsi import FIRST, SECOND, target
from tcm_loopback.commands import ApplicationClient, Expected
from tcm_loopback.transport import Result

from tcm.backstore import Backstore, BlockingBackstore
from tcm.scsi import cdb
from tcm.scsi.check_condition import CheckCondition
from tcm.scsi.copy_results import CopyStatus
from tcm.scsi.sense import Sense, SenseKey, Status

POPULATE, WRITE = 0x10, 0x11
RangeFields = tuple[int, int]
"""LBA and number of blocks."""


def ranges_data(*ranges: RangeFields) -> bytes:
    """Block device range descriptors."""
    return b"".join(lba.to_bytes(8) + blocks.to_bytes(4) + bytes(4) for lba, blocks in ranges)


def populate_data(*ranges: RangeFields, flags: int = 0, timeout: int = 0, rod_type: int = 0) -> bytes:
    """POPULATE TOKEN's parameter list. IMMED is flag 01h, RTV 02h."""
    found = ranges_data(*ranges)
    head = (14 + len(found)).to_bytes(2) + bytes((flags, 0)) + timeout.to_bytes(4) + rod_type.to_bytes(4) + bytes(2)
    return head + len(found).to_bytes(2) + found


def write_data(token: bytes, *ranges: RangeFields, flags: int = 0, offset: int = 0) -> bytes:
    """WRITE USING TOKEN's parameter list. IMMED is flag 01h, DEL_TKN 02h."""
    found = ranges_data(*ranges)
    head = (534 + len(found)).to_bytes(2) + bytes((flags,)) + bytes(5) + offset.to_bytes(8) + token + bytes(6)
    return head + len(found).to_bytes(2) + found


def pointer(error: CheckCondition | Sense | None) -> RangeFields | tuple[int, None]:
    """Byte and bit of a field pointer into the parameter list."""
    sense = error.sense if isinstance(error, CheckCondition) else error
    assert sense is not None
    specific = sense.sense_key_specific
    assert specific is not None
    assert not specific[0] & 0x40
    return int.from_bytes(specific[1:3]), specific[0] & 7 if specific[0] & 8 else None


class Information(NamedTuple):
    """What RECEIVE ROD TOKEN INFORMATION returns."""

    service_action: int
    status: int
    completion: int
    delay: int
    units: int
    count: int
    segments: int
    sense: bytes
    tokens: list[bytes]

    @classmethod
    def parse(cls, data: bytes) -> Information:
        assert int.from_bytes(data[:4]) == len(data) - 4
        end = 32 + data[13]
        assert int.from_bytes(data[end : end + 4]) == len(data) - end - 4
        found = data[end + 4 :]
        assert not len(found) % 514
        return cls(
            data[4],
            data[5],
            data[12],
            int.from_bytes(data[8:12]),
            data[15],
            int.from_bytes(data[16:24]),
            int.from_bytes(data[24:26]),
            data[32 : 32 + data[14]],
            [found[at + 2 : at + 514] for at in range(0, len(found), 514)],
        )


class TokenClient(ApplicationClient):
    """An application client that copies with tokens."""

    async def send_populate(self, data: bytes, *, lid: int = 1, expect: Expected = Status.GOOD, **options: Any) -> Result:
        return await self.execute(cdb.populate_token(lid, len(data)), data, expect=expect, **options)

    async def send_write(self, data: bytes, *, lid: int = 2, expect: Expected = Status.GOOD, **options: Any) -> Result:
        return await self.execute(cdb.write_using_token(lid, len(data)), data, expect=expect, **options)

    async def information(self, lid: int, allocation_length: int = 4096) -> Information:
        command = cdb.receive_rod_token_information(lid, allocation_length)
        return Information.parse((await self.execute(command, read_length=4096)).data_in)

    async def ended(self, lid: int) -> Information:
        """Ask until the operation is not under way any more."""
        with anyio.fail_after(60):
            while (found := await self.information(lid)).status in {CopyStatus.FOREGROUND, CopyStatus.BACKGROUND}:
                await checkpoint()
        return found

    async def populate(self, *ranges: RangeFields, lid: int = 1, **fields: Any) -> bytes:
        """A token of these ranges."""
        await self.send_populate(populate_data(*ranges, **fields), lid=lid)
        (token,) = (await self.ended(lid)).tokens
        return token

    async def write_token(self, token: bytes, *ranges: RangeFields, expect: Expected = Status.GOOD, **fields: Any) -> Result:
        return await self.send_write(write_data(token, *ranges, **fields), expect=expect)

    async def contents(self, lba: int, blocks: int) -> bytes:
        return (await self.read(16, lba, blocks)).data_in


class Bench(NamedTuple):
    """Two logical units and two I_T nexuses that reach both."""

    source: TokenClient
    destination: TokenClient
    other_source: TokenClient
    """The source, by the other I_T nexus."""
    other_destination: TokenClient


@asynccontextmanager
async def bench(
    first: Backstore | BlockingBackstore | None = None,
    second: Backstore | BlockingBackstore | None = None,
    *,
    express: bool = False,
    **options: Any,
) -> AsyncIterator[Bench]:
    """Two ramdisks, unless backstores are given; ``options`` as of ``support.scsi.make_lu``."""
    async with target(first, second, **options) as port:
        nexuses = [port.connect(FIRST, express=express), port.connect(SECOND)]
        clients = [TokenClient(nexus, lun) for nexus in nexuses for lun in (0, 1)]
        for client in clients:
            await client.identify()
        yield Bench(*clients)


def underrun(result: Result, count: int) -> None:
    """COPY TARGET DEVICE DATA UNDERRUN, with that transfer count (SBC-4, command completion)."""
    sense = result.sense
    assert sense is not None
    assert (sense.key, sense.asc, sense.ascq) == (SenseKey.COPY_ABORTED if count else SenseKey.ILLEGAL_REQUEST, 0x0D, 0x04)
    assert sense.information == count
