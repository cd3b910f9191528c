"""Golden trace: what Linux sent is read, and written again byte for byte."""

from __future__ import annotations

from collections import Counter

import pytest
from support.fcoe_capture import FCOE, INITIATOR, TARGET, captured
from tcm_fcoe.protocol.els import Reject, parse_reply, parse_request
from tcm_fcoe.protocol.fcoe import decapsulate, encapsulate
from tcm_fcoe.protocol.frame import FcType, Frame, RCtl, pack_header

FRAMES = [frame for frame in captured() if frame.ether_type == FCOE]


def unpack(pdu: memoryview) -> Frame:
    sof, fc, eof = decapsulate(pdu)
    return Frame.unpack(fc, sof, eof)


def test_every_frame_is_written_as_it_was_read():
    assert len(FRAMES) > 800
    for each in FRAMES:
        frame = unpack(each.pdu)
        header = pack_header(
            frame.r_ctl,
            frame.d_id,
            frame.s_id,
            frame.type,
            frame.f_ctl,
            frame.seq_id,
            frame.df_ctl,
            frame.seq_cnt,
            frame.ox_id,
            frame.rx_id,
            frame.parameter,
            cs_ctl=frame.cs_ctl,
        )
        assert encapsulate(each.ethernet[:14], frame.sof, header, frame.payload, frame.eof) == each.ethernet
        sof, fc, eof = decapsulate(each.pdu)
        assert (sof, bytes(fc), eof) == (frame.sof, frame.pack(), frame.eof)


def test_what_there_is_in_the_trace():
    """So that the test above cannot have gone past what it is for."""
    kinds = Counter((frame.r_ctl, frame.type) for frame in map(unpack, (each.pdu for each in FRAMES)))
    assert kinds[RCtl.EXTENDED_LINK_REQUEST, FcType.EXTENDED_LINK_SERVICE] == 5
    assert kinds[RCtl.EXTENDED_LINK_REPLY, FcType.EXTENDED_LINK_SERVICE] == 5
    assert {kind for kind, _type in kinds} == {1, 5, 6, 7, 0x22, 0x23}
    assert {frame.s_id for frame in map(unpack, (each.pdu for each in FRAMES))} == {TARGET, INITIATOR}


def test_every_els_is_written_as_it_was_read():
    requests = {}
    names = []
    for each in FRAMES:
        frame = unpack(each.pdu)
        if frame.r_ctl == RCtl.EXTENDED_LINK_REQUEST:
            request = parse_request(frame.payload)
            assert request.pack() == frame.payload
            requests[frame.s_id, frame.ox_id] = request.command
            names.append(type(request).__name__)
        elif frame.r_ctl == RCtl.EXTENDED_LINK_REPLY:
            reply = parse_reply(requests.pop((frame.d_id, frame.ox_id)), frame.payload)
            assert not isinstance(reply, Reject)
            assert reply.pack() == frame.payload
            names.append(type(reply).__name__)
    assert requests == {}
    assert Counter(names) == {"Login": 2, "ProcessLogin": 4, "Plain": 2, "TimeoutValues": 2}


@pytest.mark.parametrize("number", [11, 12, 836, 837, 838])
def test_an_els_inside_fip_is_written_as_it_was_read(number: int):
    """FIP carries it in a descriptor: the FC frame without SOF, EOF and CRC begins four bytes into that (FC-BB-5 7.8.7)."""
    pdu = captured()[number - 1].pdu
    length = pdu[11] * 4
    frame = Frame.unpack(pdu[14 : 10 + length], 0x2E, 0x42)
    if frame.r_ctl == RCtl.EXTENDED_LINK_REQUEST:
        assert parse_request(frame.payload).pack() == frame.payload
    else:
        assert parse_reply({12: 0x04, 837: 0x05}[number], frame.payload).pack() == frame.payload
