"""Protection information as an application client makes it, apart from the target's code so that the two can disagree."""

from __future__ import annotations

import struct

import anyio
from support.scsi import logical_unit
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.transport import Result

from tcm.scsi import cdb
from tcm.scsi.check_condition import CheckCondition

FORMATS = {0: (0b00, 0), 1: (0b10, 0), 2: (0b11, 0), 3: (0b11, 1)}
"""Protection type to FMTPINFO and PROTECTION FIELD USAGE."""
INITIAL = b"\xff" * 8
UNKNOWN = 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        remainder = value << 8
        for _ in range(8):
            remainder = (remainder << 1 ^ (0x8BB7 if remainder & 0x8000 else 0)) & 0xFFFF
        table.append(remainder)
    return table


_CRC = _crc_table()


def crc16(data: bytes) -> int:
    """SBC-4 table 26."""
    remainder = 0
    for byte in data:
        remainder = (remainder << 8 & 0xFFFF) ^ _CRC[remainder >> 8 ^ byte]
    return remainder


def tuples(data: bytes, reference: int, application: int = 0, *, size: int = 512, constant: bool = False) -> bytes:
    """Protection information of blocks; reference tags count on unless ``constant``."""
    return b"".join(
        struct.pack(
            ">HHI",
            crc16(data[start : start + size]),
            application,
            reference if constant else (reference + start // size) & 0xFFFFFFFF,
        )
        for start in range(0, len(data), size)
    )


def together(data: bytes, protection: bytes, size: int = 512) -> bytes:
    """Blocks as they are transferred, each with its protection information behind it."""
    blocks = zip(range(0, len(data), size), range(0, len(protection), 8), strict=True)
    return b"".join(data[at : at + size] + protection[there : there + 8] for at, there in blocks)


async def format_unit(disk: ApplicationClient, kind: int, *, long: bool = False) -> None:
    """FORMAT UNIT with protection information of a type, and whatever unit attention that makes."""
    fmtpinfo, usage = FORMATS[kind]
    command = cdb.format_unit(fmtpinfo=fmtpinfo, fmtdata=True, longlist=long)
    await disk.execute(command, bytes((usage,)) + bytes(7 if long else 3))
    with anyio.fail_after(60):
        await disk.identify()


async def protection(disk: ApplicationClient, lba: int, blocks: int) -> bytes:
    """What is kept, past the target."""
    found = bytearray(blocks * 8)
    await logical_unit(disk).backstore.read_protection(memoryview(found), lba * 8)
    return bytes(found)


async def poke(disk: ApplicationClient, lba: int, data: bytes) -> None:
    """Change data past the target."""
    await logical_unit(disk).backstore.writev([data], lba * disk.block_size)


async def poke_protection(disk: ApplicationClient, lba: int, data: bytes) -> None:
    """Change protection information past the target."""
    await logical_unit(disk).backstore.write_protection(data, lba * 8)


async def control(disk: ApplicationClient, **fields: int) -> None:
    """Set fields of the Control mode page: ato, dpicz, rwwp, each 0 or 1, what is not given 0."""
    places = {"ato": (5, 7), "dpicz": (2, 3), "rwwp": (5, 4)}
    page = bytearray((await disk.mode_sense(10, 0x0A, dbd=True))[8:])
    page[0] &= 0x7F
    for name, (byte, bit) in places.items():
        page[byte] = page[byte] & ~(1 << bit) | fields.get(name, 0) << bit
    await disk.mode_select(10, bytes(8) + bytes(page))


def failed_at(result: Result, error: type[CheckCondition]) -> int:
    """The INFORMATION field of a command that ended so."""
    assert result.sense is not None
    assert (result.sense.key, result.sense.asc, result.sense.ascq) == (error.key, error.asc, error.ascq)
    assert result.sense.information is not None
    assert result.data_in == b""
    return result.sense.information
