"""What the initiator does with a real target, story by story: ours in the tests, LIO's in a guest.

As a program: ``python -m support.initiator_stories [--only REGEX] URL`` tells them all and prints how each ended. The logical
unit is written to. This file is longer than most because all stories stand in it, and share their load and their accidents.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import anyio
from tcm_iscsi.initiator import (
    Credentials,
    Faults,
    InitiatorSession,
    LoginFailed,
    Options,
    Recovery,
    RequestFailed,
    ScsiTask,
    connect,
    discover,
    parse_url,
    read_16,
    write_16,
)
from tcm_iscsi.protocol.pdu import OPCODE_MASK, Opcode, SnackType

DIGESTS = {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"}
QUICK = Recovery(progress_timeout=0.3, connection_timeout=20.0, attempts=50)
"""Asks soon, and gives up late: a busy machine, or a guest on one, is silent for seconds."""
BLOCK = 512


def options(level: int = 0, *, recovery: Recovery = QUICK, **keys: str) -> Options:
    return Options(keys={"ErrorRecoveryLevel": str(level), **keys}, recovery=recovery)


async def nothing_outstanding(session: InitiatorSession) -> None:
    """No task is left, and nothing else stays: a ping, or what brings a connection back, may be under way at this moment."""
    left = {itt: request for itt, request in session.core.requests.items() if isinstance(request, ScsiTask)}
    assert not left, f"tasks that nobody waits for: {left}"
    with anyio.move_on_after(60):
        while session.core.requests:
            await anyio.sleep(0.02)
    assert not session.core.requests, f"left: {session.core.requests}"


@dataclass
class Watch:
    """Counts PDUs, and remembers SNACKs and task management."""

    counts: dict[tuple[str, int], int] = field(default_factory=dict)
    snacks: list[tuple[int, int, int]] = field(default_factory=list)
    """Type, BegRun, RunLength."""
    functions: list[int] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    """ExpDataSN of the TASK REASSIGNs that have one."""
    rejects: list[int] = field(default_factory=list)

    def __call__(self, _connection: Any, direction: str, bhs: bytes, _data: bytes) -> None:
        opcode = bhs[0] & OPCODE_MASK
        self.counts[direction, opcode] = self.counts.get((direction, opcode), 0) + 1
        if opcode == Opcode.SNACK_REQUEST:
            self.snacks.append((bhs[1] & 15, int.from_bytes(bhs[40:44], "big"), int.from_bytes(bhs[44:48], "big")))
        elif opcode == Opcode.TASK_MANAGEMENT_REQUEST:
            self.functions.append(bhs[1] & 0x7F)
            if bhs[1] & 0x7F == 8 and any(bhs[36:40]):
                self.resumed.append(int.from_bytes(bhs[36:40], "big"))
        elif opcode == Opcode.REJECT:
            self.rejects.append(bhs[2])

    def on_session(self, core: Any) -> None:
        core.observer = self


class Once:
    """Does a fault to the ``nth`` PDU with an opcode (and flags) in one direction, once."""

    def __init__(self, fault: str, direction: str, opcode: Opcode, *, nth: int = 1, times: int = 1, flags: int = 0) -> None:
        self.fault, self.direction, self.opcode, self.nth, self.flags = fault, direction, opcode, nth, flags
        self.times = times
        self.seen = self.done = 0

    def __call__(self, direction: str, bhs: bytes, _number: int) -> str | None:
        if direction != self.direction or bhs[0] & OPCODE_MASK != self.opcode or bhs[1] & self.flags != self.flags:
            return None
        self.seen += 1
        if self.seen >= self.nth and self.done < self.times:
            self.done += 1
            return self.fault
        return None


async def churn(
    session: InitiatorSession,
    *,
    commands: int = 200,
    depth: int = 16,
    seed: int = 1,
    sizes: tuple[int, ...] = (1, 8, 64, 300),
    seconds: float | None = None,
    again: bool = False,
    first: int = 0,
) -> int:
    """Write, read back and compare, ``depth`` at a time, each in a place of its own; how many were done.

    :param first: the LBA of the first place.
    :param again: a request that fails without a status is done again (ERL 0 and 1: the session came back).
    """
    chance = random.Random(seed)
    end = time.monotonic() + seconds if seconds is not None else None
    done = 0
    room = max(sizes)
    forgiven = (RequestFailed,) if again else ()

    async def worker(number: int) -> None:
        nonlocal done
        lba = first + number * room
        while (end is None and done < commands) or (end is not None and time.monotonic() < end):
            blocks = chance.choice(sizes)
            data = chance.randbytes(blocks * BLOCK)
            at = lba + chance.randrange(room - blocks + 1)
            for _ in range(50):
                try:
                    await session.write(at, data)
                    back = await session.read(at, blocks)
                    break
                except forgiven:
                    pass
            else:
                raise AssertionError("fifty times were not enough")
            assert back == data, f"{blocks} blocks at {at}: {first_difference(back, data)}"
            done += 2

    async with anyio.create_task_group() as group:
        for number in range(depth):
            group.start_soon(worker, number)
    return done


def first_difference(a: bytes, b: bytes) -> str:
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f"lengths {len(a)} and {len(b)}, first difference at byte {at}"


# stories: each takes the URL


async def discovery(url: str) -> None:
    found = await discover(url)
    assert parse_url(url).target in found, found
    one = await discover(url, name=parse_url(url).target)
    assert list(one) == [parse_url(url).target], one


KEYS = (
    {"InitialR2T": "Yes", "ImmediateData": "No", "MaxBurstLength": "512", "MaxRecvDataSegmentLength": "512"},
    {"InitialR2T": "No", "ImmediateData": "No", "FirstBurstLength": "4096", "MaxBurstLength": "8192"},
    {"InitialR2T": "Yes", "ImmediateData": "Yes", "MaxOutstandingR2T": "1", "MaxBurstLength": "65536"},
    {"InitialR2T": "No", "MaxBurstLength": "16777215", "FirstBurstLength": "16777215"},
    {"MaxRecvDataSegmentLength": "16777215", **DIGESTS},
    {"HeaderDigest": "CRC32C,None", "DataDigest": "None,CRC32C"},
    {"DataPDUInOrder": "No", "DataSequenceInOrder": "No"},
    {"DefaultTime2Wait": "3600", "DefaultTime2Retain": "0"},
    {"X-org.example.strange": "1", "MaxOutstandingR2T": "65535"},
)
"""Values at both ends of what may be offered."""


async def keys(url: str, number: int) -> None:
    async with connect(url, options(**KEYS[number])) as session:
        await churn(session, commands=24, depth=4, sizes=(1, 9, 130))


ALICE = Credentials(name="alice", secret="initiatorsecret", mutual_name="bob", mutual_secret="targetsecret12")
"""Those of the target that tests/guest/lio_recovery.guest makes for it."""


async def chap(url: str, algorithm: int, *, mutual: bool) -> None:
    """One way or both ways; and not with another secret."""
    where = replace(parse_url(url), target=f"{parse_url(url).target}.chap")
    mine = replace(ALICE, algorithms=(algorithm,), mutual_secret=ALICE.mutual_secret if mutual else b"")
    async with connect(where, Options(chap=mine)) as session:
        await session.test_unit_ready()
    for wrong in (None, replace(mine, secret="wrong secret 1")):
        status: int | None = None
        try:
            async with connect(where, Options(chap=wrong)):
                pass
        except LoginFailed as e:
            status = e.status
        assert status in (0x0201, 0x0202), f"status {status} for a wrong secret, or for none"


async def load(url: str, level: int = 0, connections: int = 1, **offer: str) -> None:
    async with connect(url, options(level, **offer), connections=connections) as session:
        assert session.core.error_recovery_level == level
        assert len(session.core.connections) == connections
        await churn(session, commands=300, depth=24)
        assert session.core.snacks == 0


async def pings(url: str) -> None:
    async with connect(url, options(2)) as session:
        for data in (b"", b"x", bytes(range(256)) * 4):
            assert await session.ping(data) == data
            assert await session.ping(data, immediate=False) == data


async def task_management(url: str) -> None:
    async with connect(url, options(1)) as session:
        await session.test_unit_ready()
        assert await session.task_management(5) == 0
        assert await session.task_management(2) in (0, 5)
        missing = ScsiTask(bytes(6))
        missing.itt = 0x7FFFFFF0
        assert await session.task_management(1, task=missing) in (0, 1)
        await churn(session, commands=20, depth=4)


async def residuals(url: str) -> None:
    async with connect(url, options(1)) as session:
        await session.test_unit_ready()
        result = await session.execute(bytes((0x12, 0, 0, 0, 36, 0)), read_length=200)
        assert (result.good, result.underflow, len(result.data) + result.residual) == (True, True, 200), result
        result = await session.execute(read_16(0, 2), read_length=512)
        assert (result.overflow, result.residual) == (True, 512), result
        result = await session.execute(read_16(1 << 40, 1), read_length=512)
        assert (result.status, result.asc) == (2, (0x21, 0)), result


async def one_loss(
    url: str, once: Callable[[], Once], *, level: int = 1, connections: int = 1, snack: int | None = None, **offer: str
) -> None:
    """One PDU meets with an accident in the middle of a load, and nobody but the wire notices."""
    rule = once()
    watch = Watch()
    faults = Faults(choose=rule)
    keys = {**DIGESTS, "MaxRecvDataSegmentLength": "8192", **offer}
    async with connect(
        url,
        options(level, **keys),
        connections=connections,
        faults=faults,
        chance=random.Random(1),
        on_session=watch.on_session,
    ) as session:
        done = await churn(session, commands=160, depth=8)
        assert done >= 160
        core = session.core
        assert core.ended is None
        assert rule.done == rule.times, f"only {rule.done} of {rule.times} accidents: {rule.seen} PDUs"
        if snack is not None:
            assert any(kind == snack for kind, _, _ in watch.snacks), watch.snacks
        if level < 2:
            assert session.recoveries == 0, "a connection was lost over it"


def loss_stories() -> dict[str, Callable[[str], Awaitable[None]]]:
    stories: dict[str, Callable[[str], Awaitable[None]]] = {}

    def add(name: str, fault: str, direction: str, opcode: Opcode, snack: int | None = None, **more: Any) -> None:
        rule = {key: more.pop(key) for key in ("nth", "times", "flags") if key in more}
        stories[name] = partial(one_loss, once=partial(Once, fault, direction, opcode, **rule), snack=snack, **more)

    data, status = SnackType.DATA_OR_R2T, SnackType.STATUS
    many = {"nth": 5, "times": 6}
    r2t = {"InitialR2T": "Yes", "ImmediateData": "No", "MaxBurstLength": "16384", "FirstBurstLength": "8192"}
    add("ERL 1: a Data-In PDU is lost", "drop", "in", Opcode.DATA_IN, data, nth=20)
    add("ERL 1: Data-In PDUs are lost", "drop", "in", Opcode.DATA_IN, data, nth=20, times=5)
    add("ERL 1: data digest errors in Data-In", "corrupt_data", "in", Opcode.DATA_IN, data, **many)
    add("ERL 1: header digest errors in Data-In", "corrupt_header", "in", Opcode.DATA_IN, None, nth=7)
    add("ERL 1: a SCSI Response is lost", "drop", "in", Opcode.SCSI_RESPONSE, status, nth=9)
    add("ERL 1: SCSI Responses are lost", "drop", "in", Opcode.SCSI_RESPONSE, status, **many)
    add("ERL 1: a header digest error in a SCSI Response", "corrupt_header", "in", Opcode.SCSI_RESPONSE, status, nth=9)
    add("ERL 1: a command is lost", "drop", "out", Opcode.SCSI_COMMAND, None, nth=9)
    add("ERL 1: commands are lost", "drop", "out", Opcode.SCSI_COMMAND, None, **many)
    add("ERL 1: data digest error in immediate data", "corrupt_data", "out", Opcode.SCSI_COMMAND, None, nth=4)
    add("ERL 1: a solicited Data-Out PDU is lost", "drop", "out", Opcode.DATA_OUT, None, nth=9, **r2t)
    add("ERL 1: data digest error in solicited Data-Out", "corrupt_data", "out", Opcode.DATA_OUT, None, nth=9, **r2t)
    add("ERL 1: an unsolicited Data-Out PDU is lost", "drop", "out", Opcode.DATA_OUT, None, nth=3, ImmediateData="No")
    add("ERL 1: an R2T is lost", "drop", "in", Opcode.R2T, None, nth=5, **r2t)
    add("ERL 1: an R2T is lost, 8 outstanding", "drop", "in", Opcode.R2T, None, nth=5, **{**r2t, "MaxOutstandingR2T": "8"})
    add("ERL 1: Data-In PDUs come twice", "duplicate", "in", Opcode.DATA_IN, None, **many)
    add("ERL 1: responses come twice", "duplicate", "in", Opcode.SCSI_RESPONSE, None, **many)
    add("ERL 1: commands go twice", "duplicate", "out", Opcode.SCSI_COMMAND, None, **many)
    add("ERL 1: Data-Out PDUs go twice", "duplicate", "out", Opcode.DATA_OUT, None, **many, **r2t)
    # a target may drop the connection over it (RFC 7143 7.8): both do
    for opcode in (Opcode.SCSI_COMMAND, Opcode.DATA_OUT):
        name = opcode.name.replace("_", " ")
        more = r2t if opcode == Opcode.DATA_OUT else {}
        add(f"ERL 2: header digest error in {name}", "corrupt_header", "out", opcode, None, nth=9, level=2, **more)
    for direction, opcode in (
        ("in", Opcode.DATA_IN),
        ("in", Opcode.SCSI_RESPONSE),
        ("in", Opcode.R2T),
        ("out", Opcode.SCSI_COMMAND),
        ("out", Opcode.DATA_OUT),
    ):
        name = opcode.name.replace("_", " ")
        for connections in (1, 4):
            add(
                f"ERL 2: cut at {name} ({direction}), {connections} connections",
                "cut",
                direction,
                opcode,
                None,
                nth=13,
                times=2,
                level=2,
                connections=connections,
                **(r2t if opcode in (Opcode.R2T, Opcode.DATA_OUT) else {}),
            )
    return stories


async def connections_come_and_go(url: str, level: int = 0) -> None:
    async with connect(url, options(level), connections=3) as session:
        await churn(session, commands=40)
        added = await session.add_connection()
        assert sorted(session.core.connections) == [0, 1, 2, added]
        await churn(session, commands=40)
        assert await session.remove_connection(1) == 0
        assert await session.remove_connection(2, via=0) == 0
        assert sorted(session.core.connections) == [0, added]
        await churn(session, commands=40)


async def reinstatement(url: str) -> None:
    """A login with the CID of a connection that is up: clause 6.3.4."""
    async with connect(url, options(2), connections=2) as session:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(churn, session, commands=300))
            for _ in range(3):
                await anyio.sleep(0.1)
                await session.add_connection(cid=1)
        assert sorted(session.core.connections) == [0, 1]


async def recovery_logout(url: str) -> None:
    """Logout for recovery on another connection, then TASK REASSIGN there: clauses 11.14 and 7.2.2."""
    async with connect(url, options(2, recovery=replace(QUICK, by_logout=True)), connections=3) as session:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(churn, session, commands=400))
            for _ in range(3):
                await anyio.sleep(0.3)
                while max(session.core.connections) == 0:
                    await anyio.sleep(0.1)
                victim = max(session.core.connections)
                session.wires[victim].end_now()
        await session.ping()


async def reassign_reads(url: str) -> None:
    """Many large reads are outstanding when the only connection is cut; each ends well, from where it was."""
    watch = Watch()
    recovery = replace(QUICK, progress_timeout=0.5)
    cut = Once("cut", "in", Opcode.DATA_IN, nth=70)
    cut.done = 1  # not yet
    async with connect(
        url,
        options(2, recovery=recovery, MaxRecvDataSegmentLength="8192", MaxBurstLength="65536"),
        faults=Faults(choose=cut),
        chance=random.Random(1),
        on_session=watch.on_session,
    ) as session:
        data = random.Random(3).randbytes(1024 * BLOCK)
        await session.write(0, data)
        results: dict[int, bytes] = {}
        cut.done = cut.seen = 0

        async def read(number: int) -> None:
            results[number] = await session.read(number * 8, 512)

        async with anyio.create_task_group() as group:
            for number in range(16):
                group.start_soon(read, number)
        for number, back in results.items():
            assert back == data[number * 8 * BLOCK :][: 512 * BLOCK], first_difference(back, data[number * 8 * BLOCK :])
        assert session.recoveries == 1
        assert 8 in watch.functions, "no TASK REASSIGN was needed"
        assert len(watch.resumed) > 0, "nothing went on from where it was"


async def one_task_moves(url: str, opcode: Opcode, *, by_logout: bool = False) -> None:
    """One command is in the hands of the target when its connection is cut: TASK REASSIGN brings it to its end."""
    watch = Watch()
    rule = Once("drop", "in", opcode, times=100)
    rule.done = 100  # not yet
    recovery = replace(QUICK, by_logout=by_logout)
    keys = {"InitialR2T": "Yes", "ImmediateData": "No", "MaxRecvDataSegmentLength": "8192"}
    async with connect(
        url,
        options(2, recovery=recovery, **keys),
        connections=2 if by_logout else 1,
        faults=Faults(choose=rule),
        chance=random.Random(1),
        on_session=watch.on_session,
    ) as session:
        await session.capacity()
        data = random.Random(3).randbytes(64 * BLOCK)
        writes = opcode is Opcode.R2T
        task = ScsiTask(write_16(0, 64), data_out=data) if writes else ScsiTask(read_16(0, 64), read_length=64 * BLOCK)
        if not writes:
            await session.write(0, data)
        event = anyio.Event()
        task.done = lambda _: event.set()
        rule.done, rule.seen = 0, 0
        session.submit(task, 0)
        while not rule.done:
            await anyio.sleep(0.01)
        session.wires[0].end_now()
        rule.done = 100
        with anyio.fail_after(40):
            await event.wait()
        if task.error is not None:
            raise task.error
        assert task.result.good, task.result
        assert 8 in watch.functions, "no TASK REASSIGN was needed"
        assert writes or bytes(task.buffer) == data, first_difference(bytes(task.buffer), data)


async def r_data_snack(url: str) -> None:
    """MaxRecvDataSegmentLength shrinks, then Data-In is lost: R-Data SNACK (clause 11.16.3)."""
    watch = Watch()
    rule = Once("none", "in", Opcode.DATA_IN)
    async with connect(
        url,
        options(1, MaxRecvDataSegmentLength="65536", MaxBurstLength="65536"),
        faults=Faults(choose=rule),
        chance=random.Random(1),
        on_session=watch.on_session,
    ) as session:
        data = random.Random(3).randbytes(256 * BLOCK)
        await session.write(0, data)
        task = ScsiTask(read_16(0, 256), 0, read_length=256 * BLOCK)
        rule.fault, rule.done = "drop", 0
        event = anyio.Event()
        task.done = lambda _: event.set()
        session.core.automatic = False
        session.submit(task)
        await session.ping()
        await session.declare_max_recv(8192, cid=0)
        session.core.automatic = True
        with anyio.fail_after(40):
            await event.wait()
        assert any(kind == SnackType.R_DATA for kind, _, _ in watch.snacks), watch.snacks
        if task.error is not None:
            raise task.error
        assert bytes(task.buffer) == data, first_difference(bytes(task.buffer), data)


async def data_acknowledgement(url: str) -> None:
    """The A bit is answered with DataACK where the target sets it."""
    watch = Watch()
    keys = {"MaxRecvDataSegmentLength": "4096", "MaxBurstLength": "16384"}
    async with connect(url, options(1, **keys), on_session=watch.on_session) as session:
        await churn(session, commands=20, depth=2, sizes=(300,))
        assert not watch.rejects, watch.rejects


async def negotiation_in_full_feature_phase(url: str) -> None:
    async with connect(url, options(1), connections=1) as session:
        await session.declare_max_recv(4096, cid=0)
        await churn(session, commands=20, depth=2)
        await session.declare_max_recv(1 << 20, cid=0)
        await churn(session, commands=20, depth=2)


async def session_comes_back(url: str, level: int = 0) -> None:
    """Below level 2 a lost connection ends the session; session recovery brings a new one."""
    recovery = replace(QUICK, session_recovery=True)
    async with connect(url, options(level, recovery=recovery), connections=2) as session:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(churn, session, commands=300, again=True))
            for _ in range(2):
                await anyio.sleep(0.2)
                while not session.wires:  # it is not back yet
                    await anyio.sleep(0.01)
                next(iter(session.wires.values())).end_now()
        assert session.recoveries >= 1


async def storm(url: str, seconds: float = 20.0, chance: float = 0.01, level: int = 2, connections: int = 4) -> dict[str, int]:
    """Every PDU dropped, corrupted, delayed, or its connection cut, each with this chance."""
    faults = Faults.all(chance, delay_seconds=0.02)
    if level < 2:  # what would cost the session
        faults = replace(faults, cut=0.0, corrupt_header=0.0, duplicate=chance)
    async with connect(
        url,
        options(level, MaxRecvDataSegmentLength="16384", MaxBurstLength="65536", **DIGESTS),
        connections=connections,
        faults=faults,
        chance=random.Random(7),
    ) as session:
        done = await churn(session, seconds=seconds, depth=32)
        for wire in session.wires.values():
            for name, count in wire.faults.done.items() if wire.faults is not None else ():
                session.fault_counts[name] = session.fault_counts.get(name, 0) + count
        assert done > 0
        print(f"    {done} commands, {session.recoveries} connections recovered, {session.fault_counts}", flush=True)
        return session.fault_counts


STORIES: dict[str, Callable[[str], Awaitable[Any]]] = {
    "discovery": discovery,
    **{f"keys {number}": partial(keys, number=number) for number in range(len(KEYS))},
    **{
        f"LIO: CHAP {name}, {'both ways' if mutual else 'one way'}": partial(chap, algorithm=number, mutual=mutual)
        for name, number in (("MD5", 5), ("SHA1", 6), ("SHA-256", 7), ("SHA3-256", 8))
        for mutual in (False, True)
    },
    "pings": pings,
    "task management": task_management,
    "residuals": residuals,
    **{
        f"load at ERL {level}, {n} connections": partial(load, level=level, connections=n)
        for level in (0, 1, 2)
        for n in (1, 4)
    },
    "load with digests at ERL 2": partial(load, level=2, **DIGESTS),
    "connections come and go": connections_come_and_go,
    "connections come and go, ERL 2": partial(connections_come_and_go, level=2),
    "negotiation in full feature phase": negotiation_in_full_feature_phase,
    "DataACK": data_acknowledgement,
    "ERL 0: the session comes back": session_comes_back,
    "ERL 1: the session comes back": partial(session_comes_back, level=1),
    **loss_stories(),
    "ERL 2: one read moves": partial(one_task_moves, opcode=Opcode.DATA_IN),
    "ERL 2: one write moves": partial(one_task_moves, opcode=Opcode.R2T),
    "ERL 2: one read moves by logout": partial(one_task_moves, opcode=Opcode.DATA_IN, by_logout=True),
    "ERL 2: one write moves by logout": partial(one_task_moves, opcode=Opcode.R2T, by_logout=True),
    "ERL 2: reinstatement": reinstatement,
    "ERL 2: reassignment of reads": reassign_reads,
    "ERL 2: recovery logout": recovery_logout,
    "ERL 1: R-Data SNACK": r_data_snack,
    "storm at ERL 1": partial(storm, level=1, seconds=10, connections=1),
    "storm": storm,
}


async def tell(url: str, only: str, limit: float) -> int:
    failed = 0
    for name, story in STORIES.items():
        if not re.search(only, name):
            continue
        began = time.monotonic()
        try:
            with anyio.fail_after(limit):
                await story(url)
            print(f"ok      {time.monotonic() - began:6.2f} s  {name}", flush=True)
        except Exception as e:
            failed += 1
            text = "".join(traceback.format_exception(e))
            last = [line for line in text.splitlines() if line.strip()][-1].strip(" |")
            print(f"FAILED  {time.monotonic() - began:6.2f} s  {name}: {last}", flush=True)
            print(text, file=sys.stderr, flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=float, default=60, help="seconds for a story")
    parser.add_argument("url")
    given = parser.parse_args()
    sys.exit(1 if anyio.run(tell, given.url, given.only, given.limit) else 0)


if __name__ == "__main__":
    main()
