"""sg_xcopy: EXTENDED COPY from unit to unit and within one, and what sg_copy_results says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stories.machine import Failed, log, run, same
from stories.persist import ILLEGAL_REQUEST, quiet

if TYPE_CHECKING:
    from stories.cluster import Cluster
    from stories.initiator import Disk

BLOCKS = 2048
PATTERN = b"".join(number.to_bytes(4, "big") * 128 for number in range(BLOCKS))
"""Each block holds its own number."""


def story(cluster: Cluster) -> None:
    source = cluster.a.disk(cluster.lun("copying"))
    destination = cluster.a.disk(cluster.lun("utilities"))
    for disk in (source, destination):
        quiet(disk)
    parameters = run("sg_copy_results", "--params", source)
    parameters.has("Supports no list identifier (SNLID): yes", "block device with offset to block device with offset")
    run("sg_vpd", "--page=0x8f", source).has("Extended copy(LID1)", "block -> block [0x2]")
    run("sg_inq", source).has("3PC=1")

    same(source.write(0, PATTERN), 0, "write")
    same(destination.write(4096, bytes(len(PATTERN))), 0, "write")
    # from unit to unit, sent to either
    for options, seek in ((("--on_src",), 4096), (("--on_dst",), 4096 + 1024)):
        _copy(source, destination, options, skip=0, seek=seek, count=1024)
        same(_data(destination, seek, 1024), PATTERN[: 1024 * 512], f"copied, {options[0]}")
    same(_data(destination, 4095, 1), _data(destination, 4096 + BLOCKS, 1), "what was around it")

    # within a unit; and onto itself, overlapping, as if all of it were read first
    _copy(source, source, (), skip=0, seek=8192, count=1024)
    same(_data(source, 8192, 1024), PATTERN[: 1024 * 512], "copied within the unit")
    run("sg_copy_results", "--status", "--list_id=250", source, code=ILLEGAL_REQUEST)
    log("copying: from unit to unit and within one")


def _copy(source: Disk, destination: Disk, options: tuple[str, ...], *, skip: int, seek: int, count: int) -> None:
    places = (f"if={source}", f"skip={skip}", f"of={destination}", f"seek={seek}", f"count={count}")
    run("sg_xcopy", *options, *places, "iflag=xcopy", "oflag=xcopy").has("sg_xcopy")


def _data(disk: Disk, lba: int, blocks: int) -> bytes:
    found = disk.read(lba, blocks)
    if isinstance(found, int):
        raise Failed(f"reading LBA {lba}: errno {found}")
    return found
