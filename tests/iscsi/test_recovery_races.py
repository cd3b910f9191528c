"""Several connections and recovery where they meet: what is reused, aborted, discarded or waited for at the wrong moment."""

from __future__ import annotations

import struct
from typing import Any

import anyio
import pytest
from support.iscsi_session import Initiator, connected
from support.memory import GatedMemory
from support.scsi import pattern, ramdisk
from tcm_iscsi.protocol.data_out import RECOVERY_LIMIT

pytestmark = pytest.mark.anyio

TEST_UNIT_READY = bytes(6)
LEVEL_2: dict[str, Any] = {"error_recovery_level": 2, "max_connections": 4, "default_time2wait": 2, "default_time2retain": 20}
SOLICITED = {**LEVEL_2, "initial_r2t": True, "immediate_data": False, "max_burst_length": 2048, "max_outstanding_r2t": 2}
REMOVE = 2


def read10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


def in_turn(*initiators: Initiator) -> None:
    """They count CmdSN together."""
    most = max(i.cmd_sn for i in initiators)
    for i in initiators:
        i.cmd_sn = most


@pytest.mark.parametrize("old_first", [False, True])
async def test_reassignment_finds_the_newest_task_with_its_tag(*, old_first: bool) -> None:
    """An ITT is free again once its status has arrived, acknowledged or not: a lost connection may still keep the old task."""
    async with connected(session=LEVEL_2) as i:
        data = pattern(1024)
        i.feed(i.command(write10(0, 2), itt=9, write=1024, data=data))
        first = i.feed(i.command(read10(0, 1), itt=5, read=512))
        assert first[0].data == data[:512]
        j, k = i.join(1), i.join(2)
        in_turn(i, j, k)
        j.feed(j.command(read10(1, 1), itt=5, read=512))
        in_turn(i, j, k)
        for lost in (i, j) if old_first else (j, i):
            lost.fail()
            assert k.feed(k.logout(REMOVE, lost.phase.cid))[-1].bhs[2] == 0
        answers = k.feed(k.task_management(8, referenced=5))
        assert b"".join(a.data for a in answers) == data[512:]


async def test_a_reset_goes_on_when_the_last_command_before_it_is_read_at_once() -> None:
    """4.2.3.3: it waits for the commands before it; the fast way of a READ counts as an arrival as well."""
    async with connected() as i:
        j = i.join(1)
        on_its_way = i.command(read10(0, 1), itt=1, read=512)
        in_turn(i, j)
        assert not j.feed(j.task_management(5, itt=100))
        assert not i.feed(on_its_way)  # it is one of those that the reset ends
        assert [(a.opcode, a.itt) for a in j.answers()] == [(0x22, 100)]


async def test_a_deferred_request_of_another_connection_wakes_it() -> None:
    """Its answer is queued while nothing comes by its own connection."""
    async with connected() as i:
        j = i.join(1)
        woken = []
        j.phase.wake = lambda: woken.append(j)
        first = i.command(TEST_UNIT_READY, itt=1)
        in_turn(i, j)
        assert not j.feed(j.nop_out(7, immediate=False))
        i.feed(first)
        assert woken
        assert [a.itt for a in j.answers()] == [7]


@pytest.mark.parametrize("function", [1, 2])
async def test_an_aborted_command_that_had_not_its_turn_leaves_no_gap(function: int) -> None:
    """11.5.5: its CmdSN counts as received, although its connection is removed for recovery before its turn comes."""
    async with connected(session=LEVEL_2) as i:
        j = i.join(1)
        missing = j.command(TEST_UNIT_READY, itt=1)
        in_turn(i, j)
        ahead = i.cmd_sn
        assert not i.feed(i.command(write10(0, 1), itt=2, write=512, data=bytes(512)))
        in_turn(i, j)
        if function == 1:
            abort = j.task_management(1, referenced=2, ref_cmd_sn=ahead)
            assert [a.bhs[2] for a in j.feed(abort)] == [0]
        else:
            j.feed(j.task_management(2))
        i.fail()
        j.answers()
        if function == 1:
            assert j.feed(j.logout(REMOVE, i.phase.cid))[-1].bhs[2] == 0
        assert j.feed(missing)[-1].status == 0
        if function == 2:
            assert j.feed(j.logout(REMOVE, i.phase.cid))[-1].bhs[2] == 0
        assert [a.status for a in j.feed(j.command(TEST_UNIT_READY, itt=3))] == [0]


async def test_a_write_whose_tag_is_still_in_use_ends_with_its_connection() -> None:
    """A response that waits for data has its ITT taken by a hostile WRITE: that one must not stay in the task set for ever."""
    async with connected(session={**SOLICITED, "initial_r2t": False, "error_recovery_level": 0}) as i:
        j = i.join(1)
        # refused by the core, but its unsolicited data is still to come
        assert not i.feed(i.command(b"\x2a\xff" + bytes(8), itt=5, write=4096, final=False))
        assert i.phase.session.commands[5].held
        i.feed(i.command(write10(0, 4), itt=5, write=2048))
        unit = i.phase.session.port.nexus.luns[bytes(8)].logical_unit  # type: ignore[union-attr]  # a normal session has a port
        assert len(unit.task_set) == 1
        i.fail()
        j.answers()
        assert not len(unit.task_set)
        assert not i.phase.session.commands
        session = i.phase.session
        assert (session.max_cmd_sn - session.exp_cmd_sn + 1) & 0xFFFFFFFF == session.depth


async def test_repeated_removal_does_not_prolong_the_time() -> None:
    """The time to reassign tasks counts anew from the logout, not from each."""
    async with connected(session=SOLICITED) as i:
        i.feed(i.command(write10(0, 4), itt=1, write=2048))
        j = i.join(1)
        in_turn(i, j)
        i.fail()
        session = i.phase.session
        for second in range(40):
            j.feed(j.logout(REMOVE, i.phase.cid))
            session.expire(float(second))
        assert not session.lost
        assert not session.commands


async def test_reassignment_of_a_task_whose_time_is_over_but_whose_end_is_not() -> None:
    """11.6.1: it is aborted, which takes as long as the medium does; nobody can have it any more."""
    memory = GatedMemory(1 << 20)
    async with connected(memory, session=LEVEL_2) as i:
        memory.shut()
        i.feed(i.command(read10(0, 8), itt=1, read=4096))
        await memory.until_waiting(1)
        j = i.join(1)
        i.fail()
        j.answers()
        for now in (0.0, 100.0):
            i.phase.session.expire(now)
        assert j.feed(j.task_management(8, referenced=1))[0].bhs[2] == 1
        memory.release()
        await anyio.sleep(0.01)
        assert not i.phase.session.commands


@pytest.mark.parametrize("tas", [False, True])
async def test_a_logical_unit_is_removed_while_its_tasks_wait(*, tas: bool) -> None:
    """SAM-5 5.6.4: they are aborted; what can be reassigned is TASK ABORTED status, if that is to be told."""
    async with connected(session=SOLICITED) as i:
        i.feed(i.command(write10(0, 8), itt=1, write=4096))
        j = i.join(1)
        in_turn(i, j)
        i.fail()
        j.answers()
        nexus = i.phase.session.port.nexus  # type: ignore[union-attr]  # a normal session has a port
        itl = nexus.luns[bytes(8)]
        itl.logical_unit.mode_parameters.task_aborted_status = tas
        nexus.remove_lun(itl)
        assert j.feed(j.logout(REMOVE, i.phase.cid))[-1].bhs[2] == 0
        response, *rest = j.feed(j.task_management(8, referenced=1))
        assert (response.bhs[2], [a.status for a in rest]) == ((0, [0x40]) if tas else (1, []))


async def test_a_write_outlives_any_number_of_connections() -> None:
    """7.2.2: what a connection took with it is no fault of the command, however many R2Ts were open, and however often."""
    session = {**SOLICITED, "max_burst_length": 512, "max_outstanding_r2t": RECOVERY_LIMIT + 9}
    async with connected(ramdisk(4 << 20), session=session) as current:
        data = pattern((RECOVERY_LIMIT + 9) * 512)
        r2ts = current.feed(current.command(write10(0, len(data) // 512), itt=1, write=len(data)))
        for cid in range(1, 5):
            following = current.join(cid)
            current.fail()
            assert following.feed(following.logout(REMOVE, current.phase.cid))[-1].bhs[2] == 0
            response, *r2ts = following.feed(following.task_management(8, referenced=1))
            assert response.bhs[2] == 0
            assert len(r2ts) == RECOVERY_LIMIT + 9
            current = following
        (answer,) = current.feed(*(current.data_out(1, a.word(20), a.word(40), data[a.word(40) :][:512]) for a in r2ts))
        assert answer.status == 0
