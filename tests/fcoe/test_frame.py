"""FC-2 frame headers (FC-FS-3 clause 9): read and written by one layout; fill bytes; optional headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3, FcoeError
from tcm_fcoe.protocol.frame import F_CTL_FILL_MASK, Frame, fill, pack_header

BYTE, SHORT, ID = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFF)


@given(BYTE, ID, BYTE, ID, BYTE, ID, BYTE, BYTE, SHORT, SHORT, SHORT, st.integers(0, 0xFFFFFFFF), st.binary(max_size=100))
def test_what_is_written_is_read(
    r_ctl, d_id, cs_ctl, s_id, fc_type, f_ctl, seq_id, df_ctl, seq_cnt, ox_id, rx_id, parameter, payload
):
    f_ctl = f_ctl & ~F_CTL_FILL_MASK | fill(payload)
    header = pack_header(r_ctl, d_id, s_id, fc_type, f_ctl, seq_id, df_ctl, seq_cnt, ox_id, rx_id, parameter, cs_ctl=cs_ctl)
    whole = header + payload + bytes(fill(payload))
    frame = Frame.unpack(memoryview(whole), SOF_I3, EOF_T)
    assert (frame.r_ctl, frame.d_id, frame.cs_ctl, frame.s_id) == (r_ctl, d_id, cs_ctl, s_id)
    assert (frame.type, frame.f_ctl, frame.seq_id, frame.df_ctl) == (fc_type, f_ctl, seq_id, df_ctl)
    assert (frame.seq_cnt, frame.ox_id, frame.rx_id, frame.parameter) == (seq_cnt, ox_id, rx_id, parameter)
    assert (bytes(frame.payload), frame.sof, frame.eof) == (payload, SOF_I3, EOF_T)
    assert frame.pack() == whole
    assert f"OX_ID {ox_id:04x}" in repr(frame)


@pytest.mark.parametrize("length", range(24))
def test_cut_at_every_byte(length):
    with pytest.raises(FcoeError) as caught:
        Frame.unpack(memoryview(bytes(length)), SOF_I3, EOF_T)
    assert caught.value.counter == "bad_length"


@pytest.mark.parametrize("length, count, good", [(0, 1, False), (0, 3, False), (4, 3, True), (4, 1, True), (2, 3, False)])
def test_fill_bytes_without_data(length, count, good):
    whole = memoryview(pack_header(0x22, 1, 2, 1, 0x290000 | count, 0, 0, 0, 1, 0xFFFF, 0) + bytes(length))
    if good:
        assert len(Frame.unpack(whole, SOF_I3, EOF_T).payload) == length - count
    else:
        with pytest.raises(FcoeError, match="fill bytes"):
            Frame.unpack(whole, SOF_I3, EOF_T)
