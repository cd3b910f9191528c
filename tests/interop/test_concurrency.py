"""64 iSCSI sessions with the real tcm-run at once: what is atomic stays so, one wins each race, and order is kept.

The backstores: a ramdisk, a file, and a file behind the delay filter, whose commands are all halfway when others come.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.daemon import Daemon, running
from support.pdus import SCSI_RESPONSE, lun_field
from support.raw_iscsi import Initiator, Outcome, close_all, connect

pytestmark = pytest.mark.interop

SESSIONS = 64
GOOD, CHECK_CONDITION, CONFLICT = 0x00, 0x02, 0x18
MISCOMPARE, UNIT_ATTENTION = 0x0E, 0x06
SIMPLE, ORDERED, HEAD_OF_QUEUE = 1, 2, 3
EVERY_LUN = pytest.mark.parametrize("lun", [0, 1, 2], ids=["ramdisk", "fileio", "delayed fileio"])
DELAYED, SLOW = 2, 3


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("concurrency")
    arguments = []
    for lun, store in enumerate(("ramdisk:size=1M", "fileio:path={}/1,size=1M", "fileio:path={}/2,size=1M", "ramdisk:size=1M")):
        arguments += ["--lun", f"{lun}={store.format(directory)}"]
    arguments += ["--filter", f"{DELAYED}=delay:all=0.2,jitter=2,seed=1", "--filter", f"{SLOW}=delay:write=100"]
    with running(directory, *arguments, urls=4) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def sessions(daemon: Daemon) -> Iterator[list[Initiator]]:
    opened: list[Initiator] = []
    try:
        for number in range(SESSIONS):
            opened.append(connect(daemon.url, name=f"iqn.2025-01.test:{number}"))
            for url in daemon.urls:
                opened[-1].ready(url.lun)
        for session in opened:
            session.timeout = 30
        yield opened
    finally:
        close_all(opened)


def all_at_once(sessions: list[Initiator], function: Callable[[int, Initiator], None]) -> None:
    """Call ``function`` in a thread for each session, all let go together."""
    gate = threading.Barrier(len(sessions))

    def one(number: int) -> None:
        gate.wait(30)
        function(number, sessions[number])

    with ThreadPoolExecutor(len(sessions)) as pool:
        for result in [pool.submit(one, number) for number in range(len(sessions))]:
            result.result(120)


def block_command(opcode: int, lba: int, blocks: int) -> bytes:
    return struct.pack(">BBQIxx", opcode, 0, lba, blocks)


@EVERY_LUN
def test_compare_and_write_loses_no_increment(sessions: list[Initiator], lun: int) -> None:
    """SBC-4 5.3: every session raises its own number in a block shared by 16, in a retry loop; all come out exact."""
    rounds, blocks = 3, 4
    assert sessions[0].write(0, bytes(blocks * 512), lun).status == GOOD

    def count(number: int, session: Initiator) -> None:
        lba = number % blocks
        for value in range(1, rounds + 1):
            while True:
                old = session.read(lba, 1, lun).data
                new = bytearray(old)
                new[8 * number : 8 * number + 8] = value.to_bytes(8, "big")
                outcome = session.command(block_command(0x89, lba, 1), lun, write=old + bytes(new))
                if outcome.status == GOOD:
                    break
                assert (outcome.status, outcome.sense_key) == (CHECK_CONDITION, MISCOMPARE), outcome

    all_at_once(sessions, count)
    data = sessions[0].read(0, blocks, lun).data
    for number in range(SESSIONS):
        at = number % blocks * 512 + 8 * number
        assert int.from_bytes(data[at : at + 8], "big") == rounds


@EVERY_LUN
def test_orwrite_loses_no_bit(sessions: list[Initiator], lun: int) -> None:
    """SBC-4 5.10: 64 writers set 8 bits each in three blocks that all share."""
    lba = 20
    assert sessions[0].write(lba, bytes(3 * 512), lun).status == GOOD

    def set_bits(number: int, session: Initiator) -> None:
        for bit in range(8 * number, 8 * number + 8):
            assert (
                session.command(block_command(0x8B, lba, 3), lun, write=(1 << bit).to_bytes(512, "little") * 3).status == GOOD
            )

    all_at_once(sessions, set_bits)
    expected = ((1 << 8 * SESSIONS) - 1).to_bytes(512, "little")
    assert sessions[0].read(lba, 3, lun).data == expected * 3


@EVERY_LUN
def test_write_atomic_is_never_torn(sessions: list[Initiator], lun: int) -> None:
    """SBC-4 4.28: 32 sessions write 16 blocks at a time, 32 read them: every READ sees a single writer's."""
    lba, blocks = 64, 16
    seen: set[int] = set()
    assert sessions[0].write(lba, bytes(blocks * 512), lun).status == GOOD

    def write_or_read(number: int, session: Initiator) -> None:
        for _ in range(6):
            if number % 2:
                data = session.read(lba, blocks, lun).data
                assert data == data[:1] * len(data), "torn"
                seen.add(data[0])
            else:
                cdb = struct.pack(">BBQHHxx", 0x9C, 0, lba, 0, blocks)
                assert session.command(cdb, lun, write=bytes((number,)) * blocks * 512).status == GOOD

    all_at_once(sessions, write_or_read)
    assert len(seen) > 2


def reserve_out(session: Initiator, lun: int, action: int, key: int, new: int = 0, kind: int = 0) -> int:
    """PERSISTENT RESERVE OUT: its status; unit attentions are passed over."""
    while True:
        cdb = bytes((0x5F, action, kind, 0, 0)) + (24).to_bytes(4, "big") + b"\0"
        outcome = session.command(cdb, lun, write=struct.pack(">QQ8x", key, new))
        if not (outcome.status == CHECK_CONDITION and outcome.sense_key == UNIT_ATTENTION):
            return outcome.status


@EVERY_LUN
def test_persistent_reserve_out_one_wins(sessions: list[Initiator], lun: int) -> None:
    """SPC-5 5.14: of 64 RESERVEs one is GOOD, of 63 PREEMPT AND ABORTs of its key again one; once a session knows that it has
    won, nobody else's write that is sent after that gets to the medium."""
    reserve, clear, preempt_and_abort, register_and_ignore = 1, 3, 5, 6
    exclusive_access = 3
    winners: list[int] = []
    lost: list[int] = []
    wrong: list[Outcome] = []
    won = threading.Event()

    def race(action: int, victim: int | None) -> Callable[[int, Initiator], None]:
        def one(number: int, session: Initiator) -> None:
            if number != victim:
                status = reserve_out(session, lun, action, number + 1, 0 if victim is None else victim + 1, exclusive_access)
                (winners if status == GOOD else lost).append(number)
                assert status in {GOOD, CONFLICT}
                if status == GOOD:
                    won.set()
            if number not in winners:
                assert won.wait(30)
                outcome = session.write(number, b"\xff" * 512, lun)
                if outcome.status == GOOD:
                    wrong.append(outcome)

        return one

    for number, session in enumerate(sessions):
        assert reserve_out(session, lun, register_and_ignore, 0, number + 1) == GOOD
    assert sessions[0].write(0, bytes(SESSIONS * 512), lun).status == GOOD
    try:
        all_at_once(sessions, race(reserve, None))
        assert len(winners) == 1
        holder = winners.pop()
        won.clear()
        all_at_once(sessions, race(preempt_and_abort, holder))
        assert len(winners) == 1
        assert not wrong
        assert not any(sessions[winners[0]].read(0, SESSIONS, lun).data)
    finally:
        for number, session in enumerate(sessions):
            if reserve_out(session, lun, clear, number + 1) == GOOD:
                break
        for session in sessions:
            session.ready(lun)


@EVERY_LUN
def test_reserve_one_wins(sessions: list[Initiator], lun: int) -> None:
    """SPC-2 7.21: of 64 RESERVEs one is GOOD, and the others' writes conflict until its RELEASE."""
    winners: list[int] = []
    done = threading.Barrier(SESSIONS)

    def race(number: int, session: Initiator) -> None:
        status = session.command(b"\x16" + bytes(5), lun).status
        if status == GOOD:
            winners.append(number)
        done.wait(30)
        assert session.write(number, bytes(512), lun).status == (GOOD if status == GOOD else CONFLICT)

    all_at_once(sessions, race)
    assert len(winners) == 1
    assert sessions[winners[0]].command(b"\x17" + bytes(5), lun).status == GOOD


def test_order_of_slow_writes(sessions: list[Initiator]) -> None:
    """SAM-5 8.6: with 100 ms for each write, SIMPLE ones run side by side, an ORDERED one alone, a HEAD OF QUEUE one at once;
    over two sessions."""
    order: list[str] = []
    sent = [
        ("first", 0, SIMPLE), ("second", 1, SIMPLE), ("ordered", 0, ORDERED), ("third", 1, SIMPLE), ("fourth", 0, SIMPLE),
        ("head", 1, HEAD_OF_QUEUE),
    ]  # fmt: skip
    names: dict[tuple[int, int], str] = {}
    begun = time.monotonic()
    for lba, (name, at, attribute) in enumerate(sent):
        session = sessions[at]
        bhs = session.command_pdu(block_command(0x8A, lba, 1), SLOW, write=512, attribute=attribute)
        assert bhs[8:16] == lun_field(SLOW)
        session.send(bhs, bytes(512))
        names[at, session.tag] = name
        session.ping()  # the target has the command now
    ended: dict[str, float] = {}
    lock = threading.Lock()

    def gather(number: int, session: Initiator) -> None:
        for _ in range(sum(at == number for _, at, _ in sent)):
            pdu = next((each for each in session.unexpected if each.opcode == SCSI_RESPONSE), None)
            if pdu is not None:
                session.unexpected.remove(pdu)
            else:
                pdu = session.receive()
            assert pdu.bhs[3] == GOOD
            with lock:
                name = names[number, pdu.itt]
                order.append(name)
                ended[name] = time.monotonic() - begun

    all_at_once(sessions[:2], gather)
    assert set(order[:3]) == {"first", "second", "head"}
    assert order[3] == "ordered"
    assert set(order[4:]) == {"third", "fourth"}
    assert ended["ordered"] >= 0.2
    assert ended["fourth"] >= 0.3
