"""Node B fences node A with PREEMPT AND ABORT while both write: A stops, B goes on, nothing of A's lands afterwards."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from stories.machine import Failed, clear_kernel_log, kernel_log, log, same, until
from stories.persist import RESERVATION_CONFLICT, keys, out, quiet, reservation, told

if TYPE_CHECKING:
    from stories.cluster import Cluster
    from stories.initiator import Disk

KEY_A, KEY_B = 0xA11CE, 0xB0B
WRITE_EXCLUSIVE_REGISTRANTS = 5
BLOCKS = 16 << 20 >> 9
"""Each node's part of the disk, in logical blocks; A's comes first."""

_VERIFYING = (
    *("--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=8", "--norandommap"),
    *("--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1", "--time_based", "--runtime=600", "--output-format=json"),
)


class Fio:
    """fio writing at random and reading back what it wrote, until it is told to stop."""

    def __init__(self, name: str, path: str, offset: int, size: int, *more: str) -> None:
        self.result = f"/tmp/{name}.json"
        words = ["fio", f"--name={name}", f"--filename={path}", f"--offset={offset}", f"--size={size}", *_VERIFYING, *more]
        self.process = subprocess.Popen(
            [*words, f"--output={self.result}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def ended(self) -> dict[str, object]:
        """Its job's part of the report, once it has ended by itself."""
        said, _ = self.process.communicate(timeout=120)
        text = Path(self.result).read_text()
        try:
            (job,) = json.loads(text[text.index("{\n") :])["jobs"]
        except (ValueError, KeyError) as error:
            raise Failed(f"fio: {text}\n{said}") from error
        return dict(job)

    def stop(self) -> dict[str, object]:
        self.process.send_signal(signal.SIGINT)
        return self.ended()


def _moving(disk: Disk, reads: int, writes: int) -> None:
    """Wait for so many more transfers."""
    begin = disk.transfers()
    until(lambda: disk.transfers()[0] >= begin[0] + reads and disk.transfers()[1] >= begin[1] + writes, f"I/O on {disk}")


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

    loser = Fio("a", a.path, 0, BLOCKS << 9)
    winner = Fio("b", b.path, BLOCKS << 9, BLOCKS << 9)
    for disk in (a, b):
        _moving(disk, 64, 64)

    out(b, "preempt-abort", key=KEY_B, new=KEY_A, kind=WRITE_EXCLUSIVE_REGISTRANTS)
    before = _part(b, 0)
    same((keys(b), reservation(b)), ([KEY_B], (KEY_B, "Write Exclusive, registrants only")), "after the fence")

    failed = loser.ended()
    same(failed["error"], errno.EBADE, "how A's fio ended")
    same(a.write(0, bytes(4096)), errno.EBADE, "A's next write")
    out(a, "reserve", key=KEY_A, kind=WRITE_EXCLUSIVE_REGISTRANTS, code=RESERVATION_CONFLICT)
    same(winner.running, True, "B's fio goes on")
    _moving(b, 64, 64)
    same(_part(b, 0) == before, True, "A's part is as it was when PREEMPT AND ABORT ended")

    done = winner.stop()
    same(done["error"], 0, "how B's fio ended")
    counts = [done[direction]["total_ios"] for direction in ("write", "read")]  # type: ignore[index]
    if min(counts) < 128:
        raise Failed(f"B wrote and verified only {counts} blocks")
    if "reservation conflict" not in kernel_log():
        raise Failed(f"the kernel knows of no reservation conflict:\n{kernel_log()}")
    log(f"fencing: A was stopped, B wrote {counts[0]} blocks and verified {counts[1]}")
    quiet(a)
    out(b, "clear", key=KEY_B)
    told(a)
