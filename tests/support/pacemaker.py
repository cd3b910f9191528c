"""Pacemaker's agents, unmodified, as its executor runs them: an action, parameters in the environment, an OCF exit code."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from support.controlled import Ctl
from support.toy_process import CTL

OCF_ROOT = Path("/usr/lib/ocf")
AGENTS = OCF_ROOT / "resource.d" / "heartbeat"
SUCCESS, GENERIC, CONFIGURED, NOT_RUNNING = 0, 1, 6, 7


@dataclass
class Resource:
    """A resource of a cluster: an agent and its parameters.

    :param ctl: the node that it runs on; another one after a failover.
    """

    ctl: Ctl
    agent: str
    name: str
    parameters: dict[str, str] = field(default_factory=dict)
    said: str = ""
    """Output and log of the last action."""

    def codes(self, *actions: str) -> list[int]:
        """Runs them one after the other, and returns what the agent ended with each time."""
        folder = Path(self.ctl.environment["HOME"])
        temporary = folder / "rsctmp"
        temporary.mkdir(exist_ok=True)
        environment = {
            **self.ctl.environment,
            "OCF_ROOT": str(OCF_ROOT),
            "OCF_RA_VERSION_MAJOR": "1",
            "OCF_RA_VERSION_MINOR": "0",
            "OCF_RESOURCE_TYPE": self.agent,
            "OCF_RESOURCE_INSTANCE": self.name,
            "OCF_RESKEY_implementation": "lio-t",
            "HA_RSCTMP": str(temporary),
            "HA_LOGFILE": os.devnull,
            **{f"OCF_RESKEY_{name}": value for name, value in self.parameters.items()},
        }
        done = subprocess.run(
            [
                *CTL,
                "exec",
                "sh",
                "-c",
                'for each; do "$0" "$each" 2>&1; echo "ended: $?"; done',
                str(AGENTS / self.agent),
                *actions,
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.said = done.stdout + done.stderr
        assert "Traceback" not in self.said, self.said
        assert done.returncode == SUCCESS, self.said
        return [int(code) for code in re.findall("^ended: ([0-9]+)$", done.stdout, re.MULTILINE)]

    def does(self, *actions: str) -> None:
        """Runs them, each of which has to succeed."""
        assert self.codes(*actions) == [SUCCESS] * len(actions), f"{self.name} {actions}\n{self.said}"


def target(ctl: Ctl, iqn: str, portals: str, **parameters: str) -> Resource:
    return Resource(ctl, "iSCSITarget", "target-" + iqn.rpartition(":")[2], {"iqn": iqn, "portals": portals, **parameters})


def logical_unit(ctl: Ctl, iqn: str, lun: int, path: str, **parameters: str) -> Resource:
    own = {"target_iqn": iqn, "lun": str(lun), "path": path, "liot_bstype": "fileio", **parameters}
    return Resource(ctl, "iSCSILogicalUnit", f"unit{lun}", own)
