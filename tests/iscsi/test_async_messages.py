"""Async Messages (RFC 7143 11.9): what the target says without being asked."""

from __future__ import annotations

import pytest
from support.iscsi_session import connected
from support.pdus import Pdu
from tcm_iscsi.protocol.discovery import TextPhase
from tcm_iscsi.protocol.pdu import TEXT_REQUEST

pytestmark = pytest.mark.anyio


def event(pdu: Pdu) -> tuple[int, int, int, int]:
    """AsyncEvent and its three parameters."""
    assert (pdu.opcode, pdu.itt, pdu.flags) == (0x32, 0xFFFFFFFF, 0x80)
    return pdu.bhs[36], *(int.from_bytes(pdu.bhs[n : n + 2], "big") for n in (38, 40, 42))  # type: ignore[return-value]  # four


async def test_logout_requested() -> None:
    """Event 1: Parameter3 is how many seconds there are."""
    async with connected() as i:
        i.phase.request_logout(5)
        (asked,) = i.answers()
        assert event(asked) == (1, 0, 0, 5)
        assert asked.stat_sn == i.phase.stat_sn - 1


async def test_connection_dropped() -> None:
    """Event 2, on another connection: the CID, Time2Wait and Time2Retain."""
    async with connected(session={"default_time2wait": 3, "default_time2retain": 4}) as i:
        j, k = i.join(1), i.join(2)
        j.fail()
        told = i.answers() + k.answers()
        assert [event(a) for a in told] == [(2, 1, 3, 4)]


async def test_negotiation_requested() -> None:
    """Event 4: Parameter3 is how many seconds there are."""
    async with connected() as i:
        i.phase.request_negotiation(7)
        (asked,) = i.answers()
        assert event(asked) == (4, 0, 0, 7)


async def test_declared_anew_longer_segments_are_taken_at_once_and_shorter_ones_are_no_reason_to_complain() -> None:
    """13.12: what was on its way when the shorter length was declared is as long as it was allowed to be."""
    async with connected() as i:
        i.phase.text = TextPhase(list, i.phase.parameters, target_name="iqn.2001-04.com.example:one")
        for length in (1 << 20, 4096):
            i.phase.redeclare({"MaxRecvDataSegmentLength": str(length)}, 7)
            (asked,) = i.answers()
            assert event(asked) == (4, 0, 0, 7)
            i.phase.redeclare({"MaxRecvDataSegmentLength": str(length)}, 7)
            assert i.answers() == []
            request = i.pdu(TEXT_REQUEST.pack(0x44, 0x80, 0, bytes(8), 9, 0xFFFFFFFF, i.cmd_sn, 0))
            (told,) = i.feed(request)
            assert told.data == f"MaxRecvDataSegmentLength={length}\0".encode()
            assert i.phase.parameters.max_recv_data_segment_length == length
            assert i.phase.max_segment == 1 << 20
            assert len(i.feed(i.nop_out(5, data=bytes(1 << 19)))) == 1


async def test_it_can_be_asked_for_again() -> None:
    """11.16: an Async Message carries status, so a Status SNACK brings it again."""
    async with connected(session={"error_recovery_level": 1}) as i:
        i.phase.request_logout(5)
        (asked,) = i.answers()
        (again,) = i.feed(i.snack(1, asked.stat_sn, 1))
        assert event(again) == event(asked)
