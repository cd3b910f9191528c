"""Eight sessions at once: libiscsi, qemu, and our initiator at every error recovery level, each on a LUN of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Url, running
from support.programs import program

pytestmark = pytest.mark.interop

SIZE = 32 << 20


def say(*command: str) -> str:
    """Run a program; what it printed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
    return done.stdout


def copy_with_qemu(url: Url, folder: Path) -> None:
    """An image goes onto the LUN and comes back the same."""
    image = folder / f"{url.lun}.img"
    image.write_bytes(os.urandom(SIZE))
    say(program("qemu-img"), "convert", "-n", "-f", "raw", "-O", "raw", str(image), url.text)
    say(program("qemu-img"), "compare", "-f", "raw", "-F", "raw", str(image), url.text)


def read_with_libiscsi(url: Url, _: Path) -> None:
    """Reads at random for some seconds."""
    assert re.search(
        r"iops", say("timeout", "--preserve-status", "-s", "INT", "60", program("iscsi-perf"), "-t", "5", url.text)
    )


def ours(*arguments: str) -> Callable[[Url, Path], None]:
    """Our initiator: an image onto the LUN and back, then requests for some seconds."""

    def run(url: Url, folder: Path) -> None:
        image, back = folder / f"{url.lun}.img", folder / f"{url.lun}.back"
        image.write_bytes(os.urandom(SIZE))
        command = (sys.executable, "-m", "tcm_iscsi.initiator")
        settings = [a for a in arguments if not a.startswith("--connections")]
        say(*command, "write", url.text, "--input", str(image), *settings)
        say(*command, "read", url.text, "--output", str(back), *settings)
        assert back.read_bytes() == image.read_bytes()
        say(*command, "bench", url.text, "--seconds", "4", *arguments)

    return run


INITIATORS: tuple[Callable[[Url, Path], None], ...] = (
    copy_with_qemu,
    copy_with_qemu,
    read_with_libiscsi,
    read_with_libiscsi,
    ours(),
    ours("--header-digest", "crc32c", "--data-digest", "crc32c"),
    ours("--error-recovery-level", "1", "--data-digest", "crc32c"),
    ours("--error-recovery-level", "2", "--connections=4"),
)


@pytest.mark.timeout(200)
def test_eight_at_once(tmp_path: Path) -> None:
    """Nobody disturbs anybody; nothing of them is left."""
    luns = [word for number in range(8) for word in ("--lun", f"{number}=ramdisk:size={SIZE}")]
    params = ("--param", "ErrorRecoveryLevel=2", "--param", "MaxConnections=4")
    failures: list[str] = []
    with running(tmp_path / "run", *luns, *params, urls=8) as daemon:

        def work(initiator: Callable[[Url, Path], None], url: Url) -> None:
            try:
                initiator(url, tmp_path)
            except BaseException as error:
                failures.append(f"LUN {url.lun}: {error}")

        threads = [threading.Thread(target=work, args=pair) for pair in zip(INITIATORS, daemon.urls, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, "\n".join(failures)
