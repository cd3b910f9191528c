"""Puts the same questions to tcm and to LIO, and leaves what differs in ``/share/differences.json``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stories import lio
from stories.initiator import Session
from stories.machine import log
from stories.persist import quiet
from stories.questions import AFTER, ISIDS, QUESTIONS, A, Ask, B
from stories.scsi_io import STATUSES, command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stories.cluster import Cluster

SIZE = 64 << 20
PERSISTENT_RESERVE_IN, REPORT_CAPABILITIES = 0x5E, 2


class Told(NamedTuple):
    """An answer, as far as it can be compared."""

    status: str
    """Or sense key, additional sense code and qualifier."""
    where: str = ""
    """Field pointer, INFORMATION."""
    data: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, self))


class Target:
    """One of the two, with two nexuses."""

    def __init__(self, sessions: Mapping[str, Session], lun: int) -> None:
        self.disks = {name: session.disk(lun) for name, session in sessions.items()}
        self.isids = {session.isid.encode(): ISIDS[name] for name, session in sessions.items()}
        self.generation = 0

    def answer(self, question: tuple[Ask, ...]) -> list[Told]:
        """One for each command; then everything is as it was."""
        for disk in self.disks.values():
            quiet(disk)
        self.generation = int.from_bytes(command(self.disks[A], bytes.fromhex("5e000000000000000800"), size=8).data[:4], "big")
        told = [self.told(each) for each in question]
        for each in AFTER:
            command(self.disks[each.nexus], each.cdb, each.data, each.size)
        return told

    def told(self, asked: Ask) -> Told:
        """Put one question. ISIDs, and how far PRGENERATION had got before, are written in the same way for both."""
        sent = asked.data
        for isid, name in self.isids.items():
            sent = sent.replace(name, isid)
        answer = command(self.disks[asked.nexus], asked.cdb, sent, asked.size)
        if answer.sense:
            where = [answer.field] if answer.field else []
            where += [f"information {answer.information:#x}"] if answer.information is not None else []
            return Told(f"{answer.key:X}/{answer.code[0]:02X}/{answer.code[1]:02X}", " ".join(where))
        status = STATUSES.get(answer.status, hex(answer.status))
        data = answer.data
        if answer.status:
            return Told(status)  # what LIO sends along with an error means nothing
        if asked.cdb[0] == PERSISTENT_RESERVE_IN and asked.cdb[1] != REPORT_CAPABILITIES and len(data) >= 4:
            data = b"+%d|" % (int.from_bytes(data[:4], "big") - self.generation) + data[4:]
        for isid, name in self.isids.items():
            data = data.replace(isid, name)
        return Told(status, data="".join(chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\{byte:02x}" for byte in data))


def agree(ours: Told, theirs: Told) -> bool:
    """LIO mostly leaves out where in a CDB or list the error is; where it says so, it has to be where we say."""
    return ours[0] == theirs[0] and ours.data == theirs.data and theirs.where in {"", ours.where}


def story(cluster: Cluster) -> None:
    lun = cluster.lun("comparison")
    ours = Target({A: cluster.a, B: cluster.b}, lun)
    serials = {number: cluster.serials[name] for name, number in cluster.luns.items()}
    lio.serve(cluster.target, serials, SIZE, (cluster.a.initiator, cluster.b.initiator))
    sessions = {
        name: Session(cluster.target, f"127.0.0.1:{port}", tag, session.initiator).login()
        for (name, session), port, tag in zip({A: cluster.a, B: cluster.b}.items(), lio.PORTS, (1, 2), strict=True)
    }
    theirs = Target(sessions, lun)
    differences = {}
    for name, question in QUESTIONS.items():
        pairs = list(zip(ours.answer(question), theirs.answer(question), strict=True))
        if all(agree(*pair) for pair in pairs):
            continue
        differences[name] = [{"tcm": str(pair[0]), "LIO": str(pair[1])} for pair in pairs]
        log(name)
        for pair in pairs:
            log(f"    {pair[0]}" if agree(*pair) else f"    tcm: {pair[0]}\n    LIO: {pair[1]}")
    told = {"linux": os.uname().release, "asked": list(QUESTIONS), "differences": differences}
    Path("/share/differences.json").write_text(json.dumps(told, indent=1))
    for session in sessions.values():
        session.logout()
