"""Invariant: whatever bytes arrive on however many connections of a session, at every error recovery level, cut however, a
connection goes on or ends with ConnectionFailed or a refused login; nothing else is raised, no command fails unexpectedly, what
is held stays bounded, nothing is left of a session that has ended, and another session reads back what it wrote.

Run it by itself for as long as you like:  python tests/fuzz/fuzz_connection.py SECONDS [SEED]
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import pdus
from support.commands import identify
from support.iscsi_session import Initiator
from support.pdus import LUN_0
from support.scsi import make_lu, pattern, ramdisk
from tcm_iscsi.attributes import AclAttributes, TpgAttributes, TpgParameters
from tcm_iscsi.connection import Connection
from tcm_iscsi.protocol.ahs import AdditionalHeaders, encode_ahs
from tcm_iscsi.protocol.arena import DataInArena
from tcm_iscsi.protocol.command_flow import GRANT_LIMIT, HIGH_WATER
from tcm_iscsi.protocol.failure import ConnectionFailed
from tcm_iscsi.protocol.full_feature import FullFeaturePhase
from tcm_iscsi.protocol.pdu import (
    DATA_OUT,
    LOGIN_REQUEST,
    NOP_OUT,
    PAD,
    RESERVED_TAG,
    SCSI_COMMAND,
    TASK_MANAGEMENT_REQUEST,
    TEXT_REQUEST,
)
from tcm_iscsi.sessions import PortalBinding, Registry

from tcm.scsi.command_table import COMMANDS
from tcm.target.device import TargetDevice
from tcm.target.node_acl import AccessControl
from tcm.target.portal_group import NetworkPortal

NAME = "iqn.2003-01.org.example:t"
VICTIM, ATTACKER = "iqn.2003-01.org.example:victim", "iqn.2003-01.org.example:attacker"
QUIET_LBA, QUIET_BLOCKS = 0, 64
"""Blocks of a LUN of its own that only the well-behaved session writes."""
BOUND = 2 * HIGH_WATER + GRANT_LIMIT + (64 << 20)
"""Bytes queued at once: the high water marks, and one transfer of the greatest length."""


class Target:
    """A registry with one target of two RAM disks: LUN 0 is fair game, LUN 1 the quiet session's."""

    def __init__(self, units: list[Any]) -> None:
        device = TargetDevice(NAME, "iscsi")
        group = device.add_portal_group(1)
        group.enabled = True
        group.access = AccessControl(generate_node_acls=True, demo_mode_write_protect=False)
        group.attributes = TpgAttributes(authentication=False)
        group.parameters = TpgParameters(
            MaxConnections=4,
            ErrorRecoveryLevel=2,
            DataPDUInOrder=False,
            DataSequenceInOrder=False,
            FirstBurstLength=65536,
            MaxBurstLength=65536,
        )
        group.portals.append(NetworkPortal("127.0.0.1", 3260))
        acl = group.add_node_acl(ATTACKER)
        acl.attributes = AclAttributes(random_datain_pdu_offsets=True, random_datain_seq_offsets=True, random_r2t_offsets=True)
        for number, unit in enumerate(units):
            group.add_lun(number, unit)
        group.map_lun(acl, 0, 0)
        self.binding = PortalBinding("127.0.0.1", 3260, [group])
        self.registry = Registry([device])
        self.registry.bindings = [self.binding]
        self.arena = DataInArena(1 << 20)

    def connect(self) -> Connection:
        return Connection(
            self.registry,
            self.binding,
            local=("127.0.0.1", 3260),
            peer=("127.0.0.1", 50000),
            arena=self.arena,
            wake=lambda: None,
            now=0.0,
        )


def login_pdu(name: str, isid: bytes, keys: dict[str, str] | None = None, *, tsih: int = 0, cid: int = 0) -> bytes:
    """One request that goes straight to full feature phase."""
    text = {"InitiatorName": name, "TargetName": NAME, "SessionType": "Normal", **(keys or {})}
    data = b"".join(f"{k}={v}\0".encode() for k, v in text.items())
    bhs = LOGIN_REQUEST.pack(0x43, 0x87, 0, 0, len(data), isid, tsih, 1, cid, 1, 0)
    return bhs + data + PAD[len(data) & 3]


def feed(connection: Connection, stream: bytes, rng: random.Random) -> None:
    """As the socket loop does, cut at random."""
    rest, at = b"", 0
    while at < len(stream) and not connection.closing:
        piece = stream[at : at + rng.choice((1, 7, 48, 100, 1000, 100000))]
        at += len(piece)
        room = connection.payload_room()
        if room is not None:
            count = min(len(room), len(piece))
            room[:count] = piece[:count]
            connection.payload_received(count)
            piece = piece[count:]
        buf = bytearray(rest + piece)
        off, before = 0, -1
        while off != before and not connection.closing:
            before = off
            off = connection.process(buf, memoryview(buf), off, len(buf))
            held = sum(map(len, connection.out))
            assert held <= BOUND, f"{held} bytes queued"
            connection.out.clear()
            connection.sent(0)
            connection.arena.free = 0
        rest = bytes(buf[off:])
        assert len(rest) <= 1 << 20


def random_pdu(rng: random.Random, cmd_sn: int, stat_sn: int) -> bytes:
    """A PDU of full feature phase that is nearly right."""
    itt, data, ahs = rng.choice((1, 2, 3, rng.getrandbits(32))), b"", b""
    kind = rng.randrange(9)
    ack = rng.choice((0, stat_sn, stat_sn, stat_sn - 1 & 0xFFFFFFFF, rng.getrandbits(32)))
    sn = cmd_sn if rng.random() < 0.9 else rng.getrandbits(32)
    lun = LUN_0 if rng.random() < 0.9 else rng.randbytes(8)
    if kind <= 3:
        command = rng.choice(COMMANDS)
        usage = command.usage
        cdb = bytearray(rng.getrandbits(8) & mask for mask in usage)
        identify(command, cdb)
        if rng.random() < 0.7:
            for n in range(2, min(8, len(cdb))):
                cdb[n] = 0
        ahs = encode_ahs(AdditionalHeaders(bytes(cdb[16:])))
        data = rng.randbytes(rng.choice((0, 0, 24, 512, 1024)))
        flags = rng.choice((0x81, 0xC1, 0xA1, 0xA1, 0x21, rng.getrandbits(8)))
        length = rng.choice((0, len(data), 512, 4096, 1 << 20, rng.getrandbits(32)))
        opcode = 0x41 if rng.random() < 0.1 else 0x01
        bhs = SCSI_COMMAND.pack(opcode, flags, 0, 0, lun, itt, length, sn, ack, bytes(cdb).ljust(16, b"\0")[:16])
    elif kind == 4:
        data = rng.randbytes(rng.choice((0, 512, 8192)))
        ttt = rng.choice((RESERVED_TAG, 1, 2, 3, rng.getrandbits(32)))
        offset = rng.choice((0, 0, 512, rng.getrandbits(32)))
        bhs = DATA_OUT.pack(0x05, rng.choice((0, 0x80)), 0, lun, itt, ttt, ack, rng.choice((0, 1, 5)), offset)
    elif kind == 5:
        data = rng.randbytes(rng.choice((0, 5, 4096)))
        bhs = NOP_OUT.pack(
            rng.choice((0x00, 0x40)), 0x80, 0, lun, rng.choice((itt, RESERVED_TAG)), rng.getrandbits(32), sn, ack
        )
    elif kind == 6:
        function = rng.choice((1, 2, 3, 4, 5, 6, 8, 8, 8, 9, rng.randrange(10, 128)))  # no cold reset: it ends every session
        bhs = TASK_MANAGEMENT_REQUEST.pack(
            0x42, 0x80 | function, 0, lun, 99, itt, sn, ack, rng.choice((sn - 1, 0)) & 0xFFFFFFFF, rng.choice((0, 1, 9))
        )
    elif kind == 7:
        tag = rng.choice((RESERVED_TAG, itt))
        first = rng.choice((0, 0, 1, stat_sn - 1 & 0xFFFFFFFF, rng.getrandbits(32)))
        wanted = rng.choice((itt, RESERVED_TAG))
        bhs = pdus.snack(rng.randrange(5), first, rng.choice((0, 0, 1, 5)), ack, itt=wanted, ttt=tag, lun=lun).bhs
    else:
        data = rng.choice((b"SendTargets=\0", b"SendTargets=All\0", b"MaxRecvDataSegmentLength=512\0", rng.randbytes(40)))
        flags = rng.choice((0x80, 0x40, 0x00, 0xC0))
        bhs = TEXT_REQUEST.pack(0x04, flags, 0, lun, itt, rng.choice((RESERVED_TAG, 1, rng.getrandbits(32))), sn, ack)
        if rng.random() < 0.05:
            bhs = pdus.logout(rng.getrandbits(2), itt, sn, ack, cid=rng.randrange(5)).bhs
    pdu = bytearray(bhs)
    pdu[4], pdu[5:8] = len(ahs) // 4, len(data).to_bytes(3, "big")
    if rng.random() < 0.05:
        pdu[rng.randrange(48)] = rng.getrandbits(8)
    if pdu[0] & 0x3F == 0x02 and pdu[1] & 0x7F == 7:  # by chance: a cold reset ends every session, rightly
        pdu[1] ^= 1
    return bytes(pdu) + ahs + data + PAD[len(data) & 3]


def log_in(target: Target, rng: random.Random, tsih: int, isid: bytes, cid: int) -> Connection:
    """A connection, of a new session or one that is there, whose login is nearly right."""
    connection = target.connect()
    yes_no = ("Yes", "No")
    keys = {
        "ErrorRecoveryLevel": rng.choice("0122"),
        "MaxConnections": rng.choice("14"),
        "DataPDUInOrder": rng.choice(yes_no),
        "DataSequenceInOrder": rng.choice(yes_no),
        "MaxRecvDataSegmentLength": rng.choice(("512", "65536")),
        "TaskReporting": rng.choice(("RFC3720", "ResponseFence", "FastAbort")),
    }
    first = login_pdu(ATTACKER, isid, {} if tsih else keys, tsih=tsih, cid=cid)
    if rng.random() < 0.3:
        broken = bytearray(first)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(len(broken))] = rng.getrandbits(8)
        first = bytes(broken)
    feed(connection, first, rng)
    return connection


def drain(connections: list[Connection]) -> None:
    """Take what is queued on the others, and close what ends."""
    for connection in list(connections):
        held = sum(map(len, connection.out))
        assert held <= BOUND, f"{held} bytes queued"
        connection.out.clear()
        connection.sent(0)
        if connection.closing:
            connection.close()
            connections.remove(connection)


def attack(target: Target, rng: random.Random) -> None:
    """One hostile session, from its first byte to the end of its last connection."""
    isid = b"\x80\0\0\0\0" + bytes((rng.randrange(3),))
    connections = [log_in(target, rng, 0, isid, 0)]
    tsih = connections[0].phase.session.identity.tsih if connections[0].phase is not None else 0
    now = 0.0
    for _ in range(rng.randrange(60)):
        drain(connections)
        if (not connections or rng.random() < 0.08) and tsih:
            connections.append(log_in(target, rng, tsih, isid, rng.randrange(5)))
        if not connections:
            break
        connection = rng.choice(connections)
        phase = connection.phase
        try:
            if connection.closing or phase is None or rng.random() < 0.03:
                connection.failed("cut")
            else:
                feed(connection, random_pdu(rng, phase.session.exp_cmd_sn, phase.stat_sn), rng)
                connection.resume()
            if rng.random() < 0.1:
                now += rng.choice((1.0, 3.0, 16.0))
                connection.handle_timer(now)
                target.registry.handle_timer(now)
        except ConnectionFailed as e:
            connection.failed(str(e))
    for connection in connections:
        connection.close()


async def fuzz(seconds: float, seed: int) -> int:
    """Attack for so long; returns how many connections that were."""
    rng = random.Random(seed)
    done = 0
    async with make_lu(ramdisk(4 << 20), name="fair") as fair, make_lu(ramdisk(1 << 20), name="quiet") as quiet:
        target = Target([fair, quiet])
        unexpected: list[str] = []
        fair.unhandled_error = quiet.unhandled_error = lambda where, error: unexpected.append(f"{where}: {error!r}")
        victim = target.connect()
        feed(victim, login_pdu(VICTIM, b"\x80\0\0\0\0\x09"), rng)
        phase = victim.phase
        assert isinstance(phase, FullFeaturePhase)
        initiator = Initiator(phase)
        quiet_lun = b"\0\1" + bytes(6)
        while initiator.feed(initiator.command(bytes(6), lun=quiet_lun))[-1].status:
            pass
        data = pattern(QUIET_BLOCKS * 512, seed)
        write = b"\x2a\0" + QUIET_LBA.to_bytes(4, "big") + b"\0" + QUIET_BLOCKS.to_bytes(2, "big") + b"\0"
        assert initiator.feed(initiator.command(write, lun=quiet_lun, write=len(data), data=data))[0].status == 0
        read = b"\x28" + write[1:]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            state = rng.getstate()
            try:
                attack(target, rng)
                await anyio.lowlevel.checkpoint()
                assert not unexpected, unexpected
            except Exception:
                print(f"seed {seed}, connection {done}, random state hash {hash(state)}", file=sys.stderr)
                raise
            done += 1
            if done % 20 == 0:
                for _ in range(4):  # a target warm reset leaves a unit attention
                    answers = initiator.feed(initiator.command(read, lun=quiet_lun, read=len(data)))
                    if answers[-1].opcode == 0x25:
                        break
                assert b"".join(a.data for a in answers) == data
                for now in (1e6, 2e6):  # the time to reassign tasks is over
                    target.registry.handle_timer(now)
                assert len(target.registry.sessions) == 1
        phase.session.port.nexus.lose()  # type: ignore[union-attr]  # a normal session has a port
    return done


if __name__ == "__main__":
    how_long = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    which = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().getrandbits(32)
    print(f"seed {which}")
    print(f"{anyio.run(fuzz, how_long, which)} connections")
