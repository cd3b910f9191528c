"""Task management over the wire, with tasks that take their time (the delay filter).

``test_reset_overtakes_a_write`` is what libiscsi's iSCSITMF.LUNResetSimpleAsync sets out to ask.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support.daemon import Daemon, running
from support.pdus import SCSI_RESPONSE
from support.raw_iscsi import Initiator, connect

pytestmark = pytest.mark.interop

ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LOGICAL_UNIT_RESET, TARGET_WARM_RESET, TARGET_COLD_RESET = 1, 2, 4, 5, 6, 7
COMPLETE, NO_SUCH_TASK, NO_SUCH_LUN = 0, 1, 2
TASK_ABORTED = 0x40
SLOW = 1.0
WRITE = b"\x8a\0" + bytes(8) + (8).to_bytes(4, "big") + b"\0\0"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("tmf")
    luns = ("--lun", "0=ramdisk:size=16M", "--lun", "1=ramdisk:size=16M", "--filter", f"1=delay:write={SLOW * 1000:.0f}")
    with running(directory, *luns, urls=2) as daemon:
        yield daemon


@pytest.fixture
def session(daemon: Daemon) -> Iterator[Initiator]:
    with connect(daemon.url) as session:
        session.ready(1)
        yield session


@pytest.fixture
def other(daemon: Daemon) -> Iterator[Initiator]:
    with connect(daemon.url, name="iqn.2025-01.test:other") as other:
        other.ready(1)
        yield other


def silent(session: Initiator, tag: int, seconds: float = SLOW + 0.3) -> bool:
    """No SCSI response for the tag arrives while the session goes on."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        session.ping()
        time.sleep(0.05)
    return not any(pdu.opcode == SCSI_RESPONSE and pdu.itt == tag for pdu in session.unexpected)


def attentions(session: Initiator, lun: int) -> list[tuple[int, int]]:
    """ASC and ASCQ of the unit attentions that wait."""
    found = []
    while (outcome := session.command(bytes(6), lun)).status:
        assert outcome.sense_key == 6, outcome
        found.append(outcome.asc)
    return found


def test_abort_task(session: Initiator) -> None:
    """RFC 7143 11.6.1: function complete, no response for the task, and whatever it did is over by then."""
    sn = session.cmd_sn
    tag = session.start(WRITE, 1, write=b"A" * 4096)
    session.ping()
    assert session.task_management(ABORT_TASK, 1, tag, sn) == COMPLETE
    after = session.read(0, 8, 1).data
    assert after in {bytes(4096), b"A" * 4096}
    assert silent(session, tag)
    assert session.read(0, 8, 1).data == after, "the aborted task wrote later"
    assert attentions(session, 1) == []


def test_abort_of_what_is_over(session: Initiator) -> None:
    sn = session.cmd_sn
    assert session.command(bytes(6)).status == 0
    assert session.task_management(ABORT_TASK, 0, session.tag, sn) == NO_SUCH_TASK


def test_abort_task_set(session: Initiator, other: Initiator) -> None:
    """Only the tasks of this nexus end."""
    tags = [session.start(WRITE, 1, write=b"B" * 4096) for _ in range(3)]
    theirs = other.start(WRITE, 1, write=b"C" * 4096)
    other.ping()
    assert session.task_management(ABORT_TASK_SET, 1) == COMPLETE
    assert other.finish(theirs).status == 0
    assert all(silent(session, tag, 0.1) for tag in tags)
    assert attentions(session, 1) == attentions(other, 1) == []


def test_reset_overtakes_a_write(session: Initiator, other: Initiator) -> None:
    """LOGICAL UNIT RESET ends the tasks of all nexuses; the others' end with TASK ABORTED (TAS is one), and all hear of it."""
    mine = session.start(WRITE, 1, write=b"D" * 4096)
    theirs = other.start(WRITE, 1, write=b"E" * 4096)
    other.ping()
    assert session.task_management(LOGICAL_UNIT_RESET, 1) == COMPLETE
    assert other.finish(theirs).status == TASK_ABORTED
    assert silent(session, mine)
    for each in (session, other):
        assert (0x29, 0x03) in attentions(each, 1), "BUS DEVICE RESET FUNCTION OCCURRED"
        assert attentions(each, 0) == [], "the other unit was not reset"


def test_clear_task_set(session: Initiator, other: Initiator) -> None:
    mine = session.start(WRITE, 1, write=b"F" * 4096)
    theirs = other.start(WRITE, 1, write=b"G" * 4096)
    other.ping()
    assert session.task_management(CLEAR_TASK_SET, 1) == COMPLETE
    assert other.finish(theirs).status == TASK_ABORTED
    assert silent(session, mine)
    assert attentions(session, 1) == []


def test_no_such_unit(session: Initiator) -> None:
    assert session.task_management(LOGICAL_UNIT_RESET, 9) == NO_SUCH_LUN


def test_warm_reset(session: Initiator, other: Initiator) -> None:
    assert session.task_management(TARGET_WARM_RESET) == COMPLETE
    for each in (session, other):
        for lun in (0, 1):
            assert attentions(each, lun), f"LUN {lun}"


def test_cold_reset(daemon: Daemon, session: Initiator, other: Initiator) -> None:
    """Answered, and then all sessions end (RFC 7143 11.5.1)."""
    assert session.task_management(TARGET_COLD_RESET) == COMPLETE
    for each in (session, other):
        with pytest.raises(ConnectionError):
            each.ping()
    with connect(daemon.url) as again:
        assert again.read(0, 1).status == 0
