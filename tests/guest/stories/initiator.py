"""Sessions of open-iscsi, each an I_T nexus of its own, and the disks behind them."""

from __future__ import annotations

import errno
import mmap
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stories.machine import run, until

if TYPE_CHECKING:
    from collections.abc import Iterator

SESSIONS = Path("/sys/class/iscsi_session")
BLOCK = 512


@dataclass(frozen=True)
class Disk:
    """A logical unit as one I_T nexus sees it."""

    path: str

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def lun(self) -> int:
        return int(Path(f"/sys/block/{self.name}/device").resolve().name.rpartition(":")[2])

    def read(self, lba: int, blocks: int = 8) -> bytes | int:
        """The data, past the page cache; or ``errno``."""
        with self._buffer(blocks * BLOCK) as buffer:
            failed = self._access(os.O_RDONLY, lambda fd: os.preadv(fd, [buffer], lba * BLOCK))
            return failed or bytes(buffer)

    def write(self, lba: int, data: bytes) -> int:
        """0, or ``errno``."""
        with self._buffer(len(data)) as buffer:
            buffer[:] = data
            return self._access(os.O_RDWR, lambda fd: os.pwritev(fd, [buffer], lba * BLOCK))

    @staticmethod
    @contextmanager
    def _buffer(size: int) -> Iterator[mmap.mmap]:
        with mmap.mmap(-1, size) as buffer:  # page aligned, as O_DIRECT wants it
            yield buffer

    def _access(self, flags: int, access: object) -> int:
        fd = os.open(self.path, flags | os.O_DIRECT)
        try:
            access(fd)  # type: ignore[operator]
        except OSError as error:
            return error.errno or errno.EIO
        finally:
            os.close(fd)
        return 0

    def transfers(self) -> tuple[int, int]:
        """Reads and writes that the kernel has completed on it."""
        fields = Path(f"/sys/block/{self.name}/stat").read_text().split()
        return int(fields[0]), int(fields[4])


class Session:
    """One I_T nexus: the initiator port of this name, logged in to one portal."""

    def __init__(self, target: str, portal: str, tag: int, initiator: str) -> None:
        self.target, self.portal, self.initiator = target, portal, initiator
        self.interface = re.sub(r"\W", "_", f"{initiator.rpartition(':')[2]}_{portal.rpartition(':')[2]}")
        run("iscsiadm", "-m", "iface", "-o", "new", "-I", self.interface)
        run("iscsiadm", "-m", "iface", "-o", "update", "-I", self.interface, "-n", "iface.initiatorname", "-v", initiator)
        run("iscsiadm", "-m", "node", "-o", "new", "-T", target, "-p", f"{portal},{tag}", "-I", self.interface)
        self.setting("node.session.scan", "manual")  # a unit that nobody asks for costs seconds, with all that udev does
        self.number = ""

    def _node(self, *more: str) -> None:
        run("iscsiadm", "-m", "node", "-T", self.target, "-p", self.portal, "-I", self.interface, *more)

    def setting(self, name: str, value: object) -> Session:
        self._node("-o", "update", "-n", name, "-v", str(value))
        return self

    def login(self) -> Session:
        before = set(os.listdir(SESSIONS)) if SESSIONS.exists() else set()
        self._node("--login")
        (self.number,) = set(os.listdir(SESSIONS)) - before
        return self

    def logout(self) -> None:
        self._node("--logout")

    @property
    def isid(self) -> str:
        """The ISID as sg_persist writes it."""
        # open-iscsi: type and "A", "B", "C" fields of RFC 7143, the session's number in "D"
        return f"00023d{int(self.number.removeprefix('session')):06x}"

    def disk(self, lun: int, seconds: float = 180) -> Disk:
        """The block device of a LUN, once kernel and udev have made it."""
        device = (SESSIONS / self.number / "device").resolve()
        scan = Path(f"/sys/class/scsi_host/{device.parent.name}/scan")
        found: list[Path] = []

        def look() -> bool:
            if not list(device.glob(f"target*/*:*:*:{lun}")):
                scan.write_text(f"0 0 {lun}")  # nothing comes of it until the kernel has unblocked the session
            found[:] = device.glob(f"target*/*:*:*:{lun}/block/sd*")
            return bool(found) and os.path.exists(f"/dev/{found[0].name}")

        until(look, f"{self.interface}: LUN {lun}", seconds)
        run("udevadm", "settle")
        return Disk(f"/dev/{found[0].name}")


def start_iscsid(**settings: object) -> None:
    """Start open-iscsi's daemon with these lines in its configuration."""
    # udev reads a disk again when somebody who could write closes it, and would take the unit attentions that a story waits for
    Path("/etc/udev/rules.d").mkdir(parents=True, exist_ok=True)
    Path("/etc/udev/rules.d/99-no-watch.rules").write_text('ACTION!="remove", SUBSYSTEM=="block", OPTIONS:="nowatch"\n')
    run("udevadm", "control", "--reload")
    run("modprobe", "-a", "iscsi_tcp")
    path = Path("/etc/iscsi/iscsid.conf")
    kept = [line for line in path.read_text().splitlines() if line.partition("=")[0].strip() not in settings]
    path.write_text("\n".join([*kept, *(f"{name} = {value}" for name, value in settings.items()), ""]))
    run("iscsid")
    until(lambda: os.path.exists("/run/iscsid.pid"), "iscsid")
