"""dm-multipath with prio alua over two target port groups: over and back during fio, by SET TARGET PORT GROUPS and by a cut."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from stories.fio import Fio
from stories.initiator import Session
from stories.machine import Failed, Outcome, attempt, kernel_log, log, run, same, until
from stories.persist import UNIT_ATTENTION, quiet

if TYPE_CHECKING:
    from stories.cluster import Cluster
    from stories.initiator import Disk

LEFT, RIGHT = 1, 2
"""Identifiers of the target port groups; portal group 1 is in LEFT."""
OPTIMIZED, NON_OPTIMIZED, STANDBY, UNAVAILABLE, OFFLINE = 0x0, 0x1, 0x2, 0x3, 0xE
NOT_READY = 2
"""Exit code of sg_turs."""
CONFIGURATION = """
defaults {
    find_multipaths no
    user_friendly_names no
    polling_interval 1
    max_polling_interval 1
}
blacklist {
    wwid ".*"
}
blacklist_exceptions {
    wwid "%s"
}
overrides {
    path_grouping_policy group_by_prio
    prio alua
    failback immediate
    no_path_retry 60
    path_checker tur
}
"""


def story(cluster: Cluster) -> None:
    """The left portal is behind a relay of the host's, which can be cut."""
    run("modprobe", "-a", "dm_multipath", "scsi_dh_alua", "dm_service_time")
    sessions = [
        Session(cluster.target, portal, tag, "iqn.2025-01.test.vm:node-m")
        for tag, portal in ((1, cluster.relayed), (2, cluster.portals[1]))
    ]
    for session in sessions:
        session.setting("node.session.timeo.replacement_timeout", 1).login()
    left, right = (session.disk(cluster.lun("multipath")) for session in sessions)
    groups(left, right)
    offline(cluster)
    with Map(left, right) as device, Fio("multipath", device.path, 0, 32 << 20) as fio:
        over_and_back(fio, device, left, right)
        a_cut(fio, device, left, right)
        done = fio.stop()
        same(done["error"], 0, "how fio ended")
        log(f"multipath: {fio.counts(done)[0]} blocks written, {fio.counts(done)[1]} verified")
    if re.search(r"I/O error, dev dm-|Buffer I/O error on dev dm-", kernel_log()):
        raise Failed(f"the map has failed:\n{kernel_log()}")
    set_states(left, OPTIMIZED, NON_OPTIMIZED)
    for session in sessions:
        session.logout()


def states(disk: Disk, *options: str) -> dict[int, int]:
    """The primary state of each group, by sg_rtpg."""
    said = run("sg_rtpg", "--decode", *options, disk).text
    found = re.findall(r"target port group id : 0x(\w+) .*?access state : 0x(\w+)", said, re.DOTALL)
    return {int(group, 16): int(state, 16) for group, state in found}


def set_states(disk: Disk, left: int, right: int) -> Outcome:
    """SET TARGET PORT GROUPS, for both."""
    # sg_stpg of sg3_utils 1.46 ends with 0 whatever happens
    return run("sg_stpg", f"--state={left:#x},{right:#x}", f"--tp={LEFT},{RIGHT}", disk).has_not("Set Target Port Groups:")


def groups(left: Disk, right: Disk) -> None:
    """What sg_rtpg and sg_vpd say, each state set by sg_stpg, and what is told by both paths."""
    for disk, group in ((left, LEFT), (right, RIGHT)):
        quiet(disk)
        same(states(disk), {LEFT: OPTIMIZED, RIGHT: NON_OPTIMIZED}, "states")
        same(states(disk, "--extended"), {LEFT: OPTIMIZED, RIGHT: NON_OPTIMIZED}, "states, extended header")
        run("sg_vpd", "--page=di", disk).has(f"Target port group: 0x{group:x}")
    run("sg_inq", left).has("TPGS=3")
    for state in (STANDBY, UNAVAILABLE, NON_OPTIMIZED):
        set_states(left, OPTIMIZED, state)
        same(states(left), {LEFT: OPTIMIZED, RIGHT: state}, "states")
        quiet(left)
        while attempt("sg_turs", right).code == UNIT_ATTENTION:
            pass
        run("sg_inq", right)
        ready = attempt("sg_turs", "--verbose", right)
        if state == NON_OPTIMIZED:
            same(ready.code, 0, "TEST UNIT READY")
        else:
            same(ready.code, NOT_READY, "TEST UNIT READY")
            ready.has("Logical unit not accessible, target port in")
    attempt("sg_stpg", "--state=0x0,0x0", f"--tp={LEFT},77", left).has("Illegal request")
    same(states(right), {LEFT: OPTIMIZED, RIGHT: NON_OPTIMIZED}, "states in the end")


def offline(cluster: Cluster) -> None:
    """The secondary state: of one target port of one unit, for good as far as initiators are concerned."""
    left, right = (node.disk(cluster.lun("copying")) for node in (cluster.a, cluster.b))
    quiet(left)
    quiet(right)
    run("sg_stpg", f"--state={OFFLINE:#x}", "--tp=2", left)
    same(sorted(states(left).values()), [OPTIMIZED, OFFLINE], "states")
    until(lambda: attempt("sg_turs", right).code == NOT_READY, "the right port is offline")
    run("sg_turs", "--verbose", right, code=NOT_READY).has("Logical unit not ready, offline")
    run("sg_inq", right)
    quiet(left)
    same(left.write(0, bytes(4096)), 0, "a write by the left port")


class Map:
    """The multipath device of two paths, with multipathd behind it."""

    def __init__(self, left: Disk, right: Disk) -> None:
        self.wwid = Path(f"/sys/block/{left.name}/device/wwid").read_text().strip().replace("naa.", "3")
        self.path = f"/dev/mapper/{self.wwid}"
        self.names = {left.name, right.name}
        self.daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        Path("/etc/multipath.conf").write_text(CONFIGURATION % self.wwid)
        self.daemon = subprocess.Popen(["multipathd", "-d", "-v2"], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        until(lambda: self.priorities() == [50, 10] and Path(self.path).is_block_device(), "a map of two paths")
        log(self.ask("show topology"))
        return self

    def __exit__(self, *_: object) -> None:
        assert self.daemon is not None
        self.daemon.terminate()
        self.daemon.wait()
        attempt("multipath", "-f", self.wwid)

    def ask(self, command: str) -> str:
        """One command to multipathd."""
        return subprocess.run(["multipathd", "-k" + command], capture_output=True, text=True, check=False).stdout

    def priorities(self) -> list[int]:
        """Of its paths that work, the best first."""
        said = self.ask('show paths raw format "%d %t %p"')
        found = [line.split() for line in said.splitlines()]
        return sorted((int(each[2]) for each in found if each[0] in self.names and each[1] == "active"), reverse=True)

    def flows(self, this: Disk, other: Disk, wanted: dict[int, int] | None = None) -> None:
        """Wait until I/O goes by one path, and by it only.

        :param wanted: states to be set again when they are others: the kernel's device handler optimizes the group of the path
            that it fails over to, and may do so just after a command of ours.
        """

        def only() -> bool:
            if wanted is not None and states(this) != wanted:
                set_states(this, wanted[LEFT], wanted[RIGHT])
            before = this.transfers()[1], other.transfers()[1]  # writes, which a path checker does not
            time.sleep(1)
            return this.transfers()[1] > before[0] and other.transfers()[1] == before[1]

        until(only, f"I/O by {this} only", 300)


def over_and_back(fio: Fio, device: Map, left: Disk, right: Disk) -> None:
    """SET TARGET PORT GROUPS moves the I/O, whatever state the other group gets."""
    device.flows(left, right)
    for state in (NON_OPTIMIZED, STANDBY, UNAVAILABLE):
        for this, other, wanted in (
            (right, left, {LEFT: state, RIGHT: OPTIMIZED}),
            (left, right, {LEFT: OPTIMIZED, RIGHT: NON_OPTIMIZED}),
        ):
            set_states(right, wanted[LEFT], wanted[RIGHT])
            device.flows(this, other, wanted)
        same(fio.running, True, "fio goes on")
        log(f"multipath: over and back, the other group in state {state:X}h")


def a_cut(fio: Fio, device: Map, left: Disk, right: Disk) -> None:
    """The left path is gone and comes back."""
    Path("/share/cut").touch()
    device.flows(right, left)
    same(fio.running, True, "fio goes on without the left path")
    Path("/share/cut").unlink()
    until(lambda: attempt("sg_turs", left).code == 0, "the left path is there again", 300)
    device.flows(left, right, {LEFT: OPTIMIZED, RIGHT: NON_OPTIMIZED})
    same(fio.running, True, "fio goes on by the left path again")
    log("multipath: over and back, the left path cut and mended")
