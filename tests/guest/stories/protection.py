"""sg_format with protection information: what the unit says of itself, and what lies beside the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stories.machine import attempt, log, run, same, until
from stories.persist import ILLEGAL_REQUEST, quiet

if TYPE_CHECKING:
    from stories.cluster import Cluster
    from stories.initiator import Disk

TYPES = {1: 2, 2: 3}
"""Protection type and the FMTPINFO that asks for it, both without a PROTECTION FIELD USAGE."""
READ_10, RDPROTECT = 0x28, 0x20


def story(cluster: Cluster) -> None:
    disk = cluster.a.disk(cluster.lun("protection"))
    quiet(disk)
    for kind, information in TYPES.items():
        formatted(disk, information)
        run("sg_readcap", "--long", disk).has(f"prot_en=1, p_type={kind - 1}")
        run("sg_inq", disk).has("Protect=1")
        same(disk.write(0, b"data" * 128), 0, "write")
        same(disk.read(0, 1), b"data" * 128, "read without protection information")
    formatted(disk, 2)
    same(disk.write(8, b"data" * 128), 0, "write")
    same(len(protected(disk, 8)), 520, "a block and its protection information")
    same(protected(disk, 8)[512:], crc16(b"data" * 128).to_bytes(2, "big") + b"\0\0\0\0\0\x08", "guard and tags")
    same(protected(disk, 9)[512:], b"\xff" * 8, "of a block that nobody has written")
    formatted(disk, 0)
    run("sg_readcap", "--long", disk).has("prot_en=0")
    run("sg_raw", "-r", "520", disk, *_read_10(0), code=ILLEGAL_REQUEST)
    log("protection: formatted with types 1 and 2, and without")


def formatted(disk: Disk, information: int) -> None:
    """FORMAT UNIT, until it is over."""
    run("sg_format", "--format", "--quick", "--early", f"--fmtpinfo={information}", disk)
    until(lambda: attempt("sg_turs", disk).code == 0, "formatted")


def protected(disk: Disk, lba: int) -> bytes:
    """READ (10) of one block with RDPROTECT of 001b."""
    run("sg_raw", "-r", "520", "-o", "/tmp/read", disk, *_read_10(lba))
    return Path("/tmp/read").read_bytes()


def _read_10(lba: int) -> list[str]:
    return bytes((READ_10, RDPROTECT, *lba.to_bytes(4, "big"), 0, 0, 1, 0)).hex(" ").split()


def crc16(data: bytes) -> int:
    """The guard (SBC-4: CRC of T10 DIF, polynomial 18BB7h)."""
    remainder = 0
    for byte in data:
        remainder ^= byte << 8
        for _ in range(8):
            remainder = (remainder << 1 ^ 0x8BB7 if remainder & 0x8000 else remainder << 1) & 0xFFFF
    return remainder
