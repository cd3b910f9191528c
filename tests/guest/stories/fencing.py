"""Node B fences node A with PREEMPT AND ABORT while both write: A stops, B goes on, nothing of A's lands afterwards."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from stories.fio import Fio, moving
from stories.machine import Failed, clear_kernel_log, kernel_log, log, same
from stories.persist import RESERVATION_CONFLICT, keys, out, quiet, reservation, told

if TYPE_CHECKING:
    from stories.cluster import Cluster
    from stories.initiator import Disk

KEY_A, KEY_B = 0xA11CE, 0xB0B
WRITE_EXCLUSIVE_REGISTRANTS = 5
BLOCKS = 16 << 20 >> 9
"""Each node's part of the disk, in logical blocks; A's comes first."""


def _part(disk: Disk, first: int) -> bytes:
    """A node's part of the disk, read by that disk's node."""
    found = b""
    for lba in range(first, first + BLOCKS, 2048):
        data = disk.read(lba, 2048)
        if isinstance(data, int):
            raise Failed(f"{disk}: {errno.errorcode[data]} at {lba}")
        found += data
    return found


def story(cluster: Cluster) -> None:
    a, b = (node.disk(cluster.lun("fencing")) for node in (cluster.a, cluster.b))
    quiet(a)
    quiet(b)
    clear_kernel_log()
    out(a, "register", new=KEY_A)
    out(b, "register", new=KEY_B)
    out(a, "reserve", key=KEY_A, kind=WRITE_EXCLUSIVE_REGISTRANTS)

    with Fio("a", a.path, 0, BLOCKS << 9) as loser, Fio("b", b.path, BLOCKS << 9, BLOCKS << 9) as winner:
        for disk in (a, b):
            moving(disk, 64, 64)

        out(b, "preempt-abort", key=KEY_B, new=KEY_A, kind=WRITE_EXCLUSIVE_REGISTRANTS)
        before = _part(b, 0)
        same((keys(b), reservation(b)), ([KEY_B], (KEY_B, "Write Exclusive, registrants only")), "after the fence")

        failed = loser.ended()
        same(failed["error"], errno.EBADE, "how A's fio ended")
        same(a.write(0, bytes(4096)), errno.EBADE, "A's next write")
        quiet(a)
        out(a, "reserve", key=KEY_A, kind=WRITE_EXCLUSIVE_REGISTRANTS, code=RESERVATION_CONFLICT)
        same(winner.running, True, "B's fio goes on")
        moving(b, 64, 64)
        same(_part(b, 0) == before, True, "A's part is as it was when PREEMPT AND ABORT ended")

        done = winner.stop()
        same(done["error"], 0, "how B's fio ended")
        counts = winner.counts(done)
        if "reservation conflict" not in kernel_log():
            raise Failed(f"the kernel knows of no reservation conflict:\n{kernel_log()}")
        log(f"fencing: A was stopped, B wrote {counts[0]} blocks and verified {counts[1]}")
    quiet(a)
    out(b, "clear", key=KEY_B)
    told(a)
