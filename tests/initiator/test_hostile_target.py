"""A target that sends anything at all: the session ends or goes on, and nothing else happens. No socket."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcm_iscsi.initiator import LoggedIn, Nop, Options, ScsiTask, Session, Text, read_16, write_16
from tcm_iscsi.initiator.negotiation import ConnectionParameters
from tcm_iscsi.protocol.framer import frame
from tcm_iscsi.protocol.parameters import SessionParameters
from tcm_iscsi.protocol.pdu import (
    DATA_IN,
    NOP_IN,
    R2T,
    RESERVED_TAG,
    SCSI_RESPONSE,
    Opcode,
)

TARGET_OPCODES = [opcode for opcode in Opcode if opcode >= 0x20]


def session(level: int = 1, **parameters: Any) -> Session:
    login = LoggedIn(
        tsih=1,
        cid=0,
        isid=b"\x80\0\0\0\0\1",
        session_parameters=SessionParameters(error_recovery_level=level, **parameters),
        connection_parameters=ConnectionParameters(max_recv_data_segment_length=4096),
        exp_stat_sn=1,
        cmd_sn=1,
        exp_cmd_sn=1,
        max_cmd_sn=32,
    )
    made = Session(Options(target_name="iqn.2003-01.org.example:t"), login, now=0.0)
    made.attach(login)
    for n in range(3):
        made.submit(ScsiTask(read_16(n, 4), read_length=2048))
    for n in range(3):
        made.submit(ScsiTask(write_16(n, 4), data_out=bytes(2048)))
    made.submit(Nop(b"ping"))
    made.submit(Text([("X-org.example", "1")]))
    return made


def check(made: Session) -> None:
    """What holds whatever came."""
    assert all(not request.finished for request in made.requests.values())
    assert (made.ended is None) or not made.requests
    made.handle_timer(made.now + 1)
    made.handle_timer(made.now + 100)
    for connection in made.connections.values():
        assert connection.out_size < 1 << 20
        assert len(connection.statuses.ahead) <= 65536


word = st.integers(0, 0xFFFFFFFF)
small = st.one_of(st.integers(0, 12), word)


@st.composite
def pdus(draw: st.DrawFn) -> bytes:
    """A header with an opcode of a target, and anything in it, likely values more often."""
    bhs = bytearray(draw(st.binary(min_size=48, max_size=48)))
    bhs[0] = draw(st.sampled_from(TARGET_OPCODES))
    if draw(st.booleans()):
        bhs[1] = draw(st.sampled_from([0x80, 0x81, 0xC0, 0xC1, 0x00, 0x82, 0x84]))
    for at in range(16, 48, 4):
        if draw(st.booleans()):
            bhs[at : at + 4] = draw(small).to_bytes(4, "big")
    return frame(bytes(bhs), draw(st.binary(max_size=600)))


@settings(max_examples=300, deadline=None)
@given(level=st.integers(0, 2), stream=st.lists(pdus(), max_size=12), cut=st.integers(1, 400))
def test_any_pdus(level: int, stream: list[bytes], cut: int) -> None:
    made = session(level)
    connection = made.connections[0]
    data = b"".join(stream)
    for at in range(0, len(data), cut):
        connection.receive_data(data[at : at + cut])
    check(made)


@settings(max_examples=150, deadline=None)
@given(level=st.integers(0, 2), data=st.binary(max_size=2000))
def test_any_bytes(level: int, data: bytes) -> None:
    made = session(level)
    made.connections[0].receive_data(data)
    check(made)


def fails(*stream: bytes, level: int = 0, **parameters: Any) -> str:
    """How the session ends of it."""
    made = session(level, **parameters)
    made.connections[0].receive_data(b"".join(stream))
    assert made.ended is not None
    return str(made.ended)


def data_in(itt: int, *, sn: int = 0, offset: int = 0, flags: int = 0x80, length: int = 512, stat_sn: int = 0) -> bytes:
    bhs = DATA_IN.pack(0x25, flags, 0, 0, bytes(8), itt, RESERVED_TAG, stat_sn, 1, 32, sn, offset, 0)
    return frame(bhs, bytes(length))


def r2t(itt: int, *, sn: int = 0, offset: int = 0, length: int = 512, ttt: int = 9) -> bytes:
    return R2T.pack(0x31, 0x80, 0, bytes(8), itt, ttt, 1, 1, 32, sn, offset, length)


def response(itt: int, stat_sn: int, exp_data_sn: int = 0) -> bytes:
    return SCSI_RESPONSE.pack(0x21, 0x80, 0, 0, 0, 0, itt, 0, stat_sn, 2, 33, exp_data_sn, 0, 0)


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        ((data_in(1, offset=2000),), "beyond the 2048 bytes"),
        ((data_in(1, sn=1),), "missing"),
        ((response(1, 7),), "missing"),
        ((r2t(4, length=4096),), "R2T for 4096 bytes"),
        ((r2t(4, length=0),), "R2T for 0 bytes"),
        ((r2t(4, offset=1 << 31),), "R2T"),
        ((frame(DATA_IN.pack(0x25, 0x80, 0, 0, bytes(8), 1, 0, 0, 1, 32, 0, 0, 0), bytes(5000)),), "more than the 4096"),
        ((bytes((0x01, 0x80)) + bytes(46),), "opcode 0x01 "),
        ((data_in(1, flags=0x01, stat_sn=1),), "not final"),
    ],
)
def test_what_is_wrong_ends_the_session_with_a_reason(stream: tuple[bytes, ...], says: str) -> None:
    assert says in fails(*stream)


def test_data_in_of_nothing_is_nothing() -> None:
    """For a command that reads, and for one that does not."""
    made = session()
    made.connections[0].receive_data(data_in(1, length=0) + data_in(4, length=0))
    assert made.ended is None
    check(made)


def test_stat_sn_that_jumps_far_ends_the_session() -> None:
    assert "StatSN" in fails(response(1, 1 + 70000), level=1)


def test_data_sn_that_jumps_far_ends_the_session() -> None:
    assert "number" in fails(data_in(1, sn=1 << 30), level=1)


def test_a_window_that_goes_backwards_is_not_believed() -> None:
    """4.2.2.1: MaxCmdSN below ExpCmdSN - 1 says nothing; a smaller one than before neither."""
    made = session()
    connection = made.connections[0]
    for exp, maximum in ((9, 40), (9, 20), (5, 3), (0x7FFFFFFF, 0x7FFFFFFF)):
        connection.receive_data(NOP_IN.pack(0x20, 0x80, 0, bytes(8), RESERVED_TAG, RESERVED_TAG, 1, exp, maximum))
    assert made.max_cmd_sn == 0x7FFFFFFF
    assert made.exp_cmd_sn <= made.cmd_sn


def test_r2ts_without_end_are_bounded() -> None:
    """A target that asks for the same data for ever, while nothing can be sent."""
    made = session(0, max_burst_length=2048)
    connection = made.connections[0]
    sn = 0
    while made.ended is None:
        connection.receive_data(r2t(4, sn=sn, length=2048, ttt=sn))
        sn += 1
        assert sn < 200_000
    assert "more data than it takes" in str(made.ended)
