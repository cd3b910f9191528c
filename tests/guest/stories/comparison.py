"""Puts the same questions to tcm and to LIO, and leaves what differs in ``/share/differences.json``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from stories import lio
from stories.initiator import Session
from stories.machine import log
from stories.persist import quiet
from stories.questions import AFTER, QUESTIONS, A, Ask, B
from stories.scsi_io import STATUSES, Answer, command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stories.cluster import Cluster

SIZE = 64 << 20


class Target:
    """One of the two, with two nexuses."""

    def __init__(self, sessions: Mapping[str, Session], lun: int) -> None:
        self.disks = {name: session.disk(lun) for name, session in sessions.items()}
        self.isids = {session.isid.encode(): f"isid of {name}".encode() for name, session in sessions.items()}
        self.generation = 0

    def answer(self, question: tuple[Ask, ...]) -> list[str]:
        """A line a command; then everything is as it was."""
        for disk in self.disks.values():
            quiet(disk)
        self.generation = int.from_bytes(command(self.disks[A], bytes.fromhex("5e000000000000000800"), size=8).data[:4], "big")
        lines = [self.told(each, command(self.disks[each.nexus], each.cdb, each.data, each.size)) for each in question]
        for each in AFTER:
            command(self.disks[each.nexus], each.cdb, each.data, each.size)
        return lines

    def told(self, asked: Ask, answer: Answer) -> str:
        """All of an answer that can be compared: names of sessions and how far PRGENERATION had got are not."""
        words = [STATUSES.get(answer.status, hex(answer.status))]
        if answer.sense:
            words[:] = [f"{answer.key:X}/{answer.code[0]:02X}/{answer.code[1]:02X}"]
            words += [answer.field] if answer.field else []
            words += [f"information {answer.information:#x}"] if answer.information is not None else []
        data = answer.data
        if asked.cdb[0] == 0x5E and asked.cdb[1] != 2 and len(data) >= 4:
            data = b"+%d|" % (int.from_bytes(data[:4], "big") - self.generation) + data[4:]
        for isid, name in self.isids.items():
            data = data.replace(isid, name)
        if data:
            words.append("".join(chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\{byte:02x}" for byte in data))
        return " ".join(words)


def story(cluster: Cluster) -> None:
    lun = cluster.lun("comparison")
    ours = Target({A: cluster.a, B: cluster.b}, lun)
    device = Path(f"/sys/block/{ours.disks[A].name}/device")
    lio.serve(cluster.target, {number: serial(device, number) for number in cluster.luns.values()}, SIZE)
    sessions = {
        name: Session(cluster.target, f"127.0.0.1:{port}", tag, session.initiator).login()
        for (name, session), port, tag in zip({A: cluster.a, B: cluster.b}.items(), lio.PORTS, (1, 2), strict=True)
    }
    theirs = Target(sessions, lun)
    differences = {}
    for name, question in QUESTIONS.items():
        pair = {"tcm": ours.answer(question), "LIO": theirs.answer(question)}
        if pair["tcm"] != pair["LIO"]:
            differences[name] = pair
    path = Path("/share/differences.json")
    path.write_text(json.dumps({"linux": os.uname().release, "asked": list(QUESTIONS), "differences": differences}, indent=1))
    for name, pair in differences.items():
        log(name)
        for ours_line, lio_line in zip(pair["tcm"], pair["LIO"], strict=True):
            log(f"    {ours_line}" if ours_line == lio_line else f"    tcm: {ours_line}\n    LIO: {lio_line}")
    for session in sessions.values():
        session.logout()


def serial(device: Path, lun: int) -> str:
    """Unit serial number of another LUN of the same target."""
    host, channel, target, _ = device.resolve().name.split(":")
    return Path(f"/sys/class/scsi_device/{host}:{channel}:{target}:{lun}/device/vpd_pg80").read_bytes()[4:].decode()
