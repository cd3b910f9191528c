"""Linux's software FCoE initiator: an FC host on an interface, the remote ports and disks that it finds."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stories.initiator import Disk
from stories.machine import Failed, kernel_log, run, until

PARAMETERS = Path("/sys/module/libfcoe/parameters")
HOSTS = Path("/sys/class/fc_host")
REMOTE_PORTS = Path("/sys/class/fc_remote_ports")
CREATE = {"vn2vn": "create_vn2vn", "fcf": "create", "p2p": "create"}


@dataclass
class Port:
    """One N_Port of ours, on one interface."""

    nic: str
    mode: str

    def create(self) -> Port:
        """Without a link at first: a FIP frame that comes before libfcoe is ready ends in its fcoe_ctlr_vn_recv (Linux 6.1)."""
        self.plug(up=False)
        (PARAMETERS / CREATE[self.mode]).write_text(self.nic)
        self.plug(up=True)
        return self

    def destroy(self) -> None:
        (PARAMETERS / "destroy").write_text(self.nic)
        until(lambda: not self.exists, f"the FC host of {self.nic} is gone")

    @property
    def exists(self) -> bool:
        return any(self._hosts())

    def _hosts(self) -> list[Path]:
        found = []
        for each in HOSTS.iterdir() if HOSTS.exists() else ():
            with suppress(OSError):  # one that is going away
                if (each / "symbolic_name").read_text().split()[-1] == self.nic:
                    found.append(each)
        return found

    @property
    def host(self) -> Path:
        found = self._hosts()
        if not found:
            raise Failed(f"no FC host of {self.nic}\n{kernel_log()}")
        return found[0]

    def attribute(self, name: str) -> str:
        return (self.host / name).read_text().strip()

    @property
    def port_name(self) -> str:
        return self.attribute("port_name")

    def remote_ports(self) -> list[dict[str, str]]:
        """Attributes of each."""
        number = self.host.name.removeprefix("host")
        names = ("port_name", "port_id", "roles", "port_state")
        return [
            {name: (each / name).read_text().strip() for name in names}
            for each in (REMOTE_PORTS.iterdir() if REMOTE_PORTS.exists() else ())
            if each.name.startswith(f"rport-{number}:")
        ]

    def targets(self, state: str = "Online") -> list[dict[str, str]]:
        """Remote ports that are FCP targets."""
        return [each for each in self.remote_ports() if "FCP Target" in each["roles"] and each["port_state"] == state]

    def disk(self, lun: int = 0, seconds: float = 90) -> Disk:
        """The block device of a LUN, once kernel and udev have made it."""
        found: list[Path] = []

        def look() -> bool:
            if self.exists:
                host = (self.host / "device").resolve()
                found[:] = host.glob(f"rport-*/target*/*:*:*:{lun}/block/sd*")
            return bool(found) and os.path.exists(f"/dev/{found[0].name}")

        try:
            until(look, f"{self.nic}: LUN {lun}", seconds)
        except Failed as error:
            raise Failed(
                f"{error}\nremote ports: {self.remote_ports() if self.exists else 'no host'}\n{kernel_log()}"
            ) from error
        run("udevadm", "settle")
        return Disk(f"/dev/{found[0].name}")

    def plug(self, up: bool) -> None:
        """The interface, seen from this side."""
        run("ip", "link", "set", self.nic, "up" if up else "down")


def prepare() -> None:
    """Modules, and a udev that does not open disks again whenever somebody closes them."""
    Path("/etc/udev/rules.d").mkdir(parents=True, exist_ok=True)
    Path("/etc/udev/rules.d/99-no-watch.rules").write_text('ACTION!="remove", SUBSYSTEM=="block", OPTIONS:="nowatch"\n')
    run("udevadm", "control", "--reload")
    run("modprobe", "-a", "fcoe", "sd_mod", "sg")


def number(name: str) -> int:
    """A WWPN as an integer, from any spelling."""
    return int(re.sub(r"naa\.|0x|:", "", name), 16)
