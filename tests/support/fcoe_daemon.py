"""tcm-run as an FCoE target at one end of a Unix-socket link, and the initiator's end of it: no root, no network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from support.daemon import Daemon, Url, started

_URL = re.compile(r"fcoe://(?P<interface>\S+)/(?P<target>[0-9a-f]{2}(?::[0-9a-f]{2}){7})/(?P<lun>\d+)")


class FcoeDaemon(Daemon):
    """One of those. ``args`` follow ``--fabric fcoe --interface unix:... --mode ...``.

    :param mode: of the target.
    """

    def __init__(self, directory: Path, *args: str, mode: str = "vn2vn", urls: int = 1, fabric: str = "fcoe") -> None:
        # a socket's path must be short, and pytest's are not
        self.sockets = Path(tempfile.mkdtemp(prefix="fcoe"))
        ours, theirs = self.sockets / "target", self.sockets / "initiator"
        self.link = f"unix:{theirs},{ours}"
        """The initiator's end."""
        super().__init__(
            directory, "--interface", f"unix:{ours},{theirs}", "--mode", mode, *args,
            urls=urls, portals=(), target=None, fabric=fabric,
        )  # fmt: skip

    @staticmethod
    def parse(line: str) -> Url | None:
        found = _URL.match(line.strip())
        if found is None:
            return None
        return Url(found[0], found["interface"], 0, found["target"], int(found["lun"]))

    @property
    def address(self) -> str:
        """What the initiator is told."""
        return f"fcoe://{self.link}"

    def initiator(
        self, command: str, *arguments: str, address: str | None = None, check: bool = True, **options: object
    ) -> str:
        """Run ``python -m tcm_fcoe.initiator``; what it prints."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tcm_fcoe.initiator", command, address or self.address, *arguments],
            capture_output=True, check=False, timeout=90, **options,
        )  # type: ignore[call-overload]  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done

    def kill(self) -> None:
        super().kill()
        shutil.rmtree(self.sockets, ignore_errors=True)


def fcoe_running(directory: Path, *args: str, **kwargs: object) -> AbstractContextManager[FcoeDaemon]:
    """One for the length of a ``with`` block; a clean block ends with a clean stop."""
    return started(FcoeDaemon(directory, *args, **kwargs))  # type: ignore[arg-type]
