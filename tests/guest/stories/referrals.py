"""sg_referrals: a unit whose halves are best reached by different ports."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stories.machine import run, same
from stories.persist import quiet

if TYPE_CHECKING:
    from stories.cluster import Cluster

HALF = 65536
"""Logical blocks."""
BEST, OTHER = "active/optimized", "active/non optimized"


def story(cluster: Cluster) -> None:
    for node, group in ((cluster.a, 1), (cluster.b, 2)):
        disk = node.disk(cluster.lun("referrals"))
        quiet(disk)
        said = run("sg_referrals", disk).text
        segments = re.findall(r"first lba (\d+), last lba (\d+)", said)
        same(segments, [("0", str(HALF - 1)), (str(HALF), str(2 * HALF - 1))], "segments")
        states = re.findall(r"port group (\d) state \((.*?)\)", said)
        same(states, [("1", BEST), ("2", OTHER), ("1", OTHER), ("2", BEST)], "states")
        run("sg_rtpg", "--decode", disk).has("access state : 0x04")
        run("sg_vpd", "--page=ref", disk)
        for lba in (0, HALF):
            same(disk.write(lba, bytes((group,)) * 4096), 0, f"write at LBA {lba}")
            same(disk.read(lba), bytes((group,)) * 4096, f"read at LBA {lba}")
