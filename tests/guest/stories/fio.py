"""fio in the background, verifying what it writes as it goes."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stories.machine import Failed, until

if TYPE_CHECKING:
    from stories.initiator import Disk

_VERIFYING = (
    *("--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=8", "--norandommap"),
    *("--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1", "--time_based", "--runtime=3600", "--output-format=json"),
)


class Fio:
    """fio writing at random and reading back what it wrote, until it is told to stop."""

    def __init__(self, name: str, path: str, offset: int, size: int, *more: str) -> None:
        self.result = f"/tmp/{name}.json"
        words = ["fio", f"--name={name}", f"--filename={path}", f"--offset={offset}", f"--size={size}", *_VERIFYING, *more]
        self.process = subprocess.Popen(
            [*words, f"--output={self.result}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.process.kill()
        self.process.wait()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def ended(self) -> dict[str, Any]:
        """Its job's part of the report, once it has ended by itself."""
        said, _ = self.process.communicate(timeout=300)
        text = Path(self.result).read_text()
        try:
            (job,) = json.loads(text[text.index("{\n") :])["jobs"]
        except (ValueError, KeyError) as error:
            raise Failed(f"fio: {text}\n{said}") from error
        return dict(job)

    @staticmethod
    def counts(job: dict[str, Any], least: int = 128) -> tuple[int, int]:
        """Blocks written and blocks verified; there have to be some."""
        written, verified = job["write"]["total_ios"], job["read"]["total_ios"]
        if min(written, verified) < least:
            raise Failed(f"fio wrote {written} blocks and verified {verified}")
        return written, verified

    def stop(self) -> dict[str, Any]:
        self.process.send_signal(signal.SIGINT)
        return self.ended()


def moving(disk: Disk, reads: int, writes: int) -> None:
    """Wait for so many more transfers."""
    begin = disk.transfers()
    until(lambda: disk.transfers()[0] >= begin[0] + reads and disk.transfers()[1] >= begin[1] + writes, f"I/O on {disk}", 300)
