"""The wire that misbehaves: what comes out of it, with and without digests, in any pieces."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_iscsi.initiator import Faults, FaultyWire
from tcm_iscsi.protocol.framer import Framer, FramingError, frame
from tcm_iscsi.protocol.pdu import NOP_OUT, Opcode

DIGESTS = [(False, False), (True, False), (False, True), (True, True)]


def pdu(number: int, length: int = 0, *, header: bool = False, data: bool = False) -> bytes:
    bhs = NOP_OUT.pack(0x40, 0x80, 0, bytes(8), number, 0xFFFFFFFF, 1, 1)
    return frame(bhs, bytes((number + n) & 0xFF for n in range(length)), header_digest=header, data_digest=data)


def stream(count: int = 30, *, header: bool = False, data: bool = False) -> list[bytes]:
    return [pdu(n, n * 7 % 50, header=header, data=data) for n in range(count)]


def tags(data: bytes, *, header: bool = False, digest: bool = False) -> list[int]:
    framer = Framer(header_digest=header, data_digest=digest)
    framer.receive_data(data)
    found = []
    while (one := framer.next_pdu()) is not None:
        found.append(int.from_bytes(one.bhs[16:20], "big"))
    return found


@pytest.mark.parametrize(("header", "data"), DIGESTS)
@given(cuts=st.lists(st.integers(1, 200), max_size=40))
def test_without_faults_it_is_a_wire(header: bool, data: bool, cuts: list[int]) -> None:
    wire = FaultyWire(Faults(), random.Random(1), header_digest=header, data_digest=data)
    whole = b"".join(stream(header=header, data=data))
    out, at = b"", 0
    for cut in [*cuts, len(whole)]:
        out += wire.outgoing(whole[at : at + cut], 0.0)
        at += cut
    assert out == whole


def run(faults: Faults, pdus: list[bytes], **how: Any) -> tuple[bytes, FaultyWire]:
    wire = FaultyWire(faults, random.Random(3), **{"header_digest": False, "data_digest": False, **how})
    return wire.outgoing(b"".join(pdus), 10.0), wire


def one(fault: str, number: int) -> Faults:
    return Faults(choose=lambda _way, _bhs, n: fault if n == number else "none")


def test_each_fault_does_what_it_says() -> None:
    pdus = stream(4)
    assert tags(run(one("drop", 2), pdus)[0]) == [0, 2, 3]
    assert tags(run(one("duplicate", 2), pdus)[0]) == [0, 1, 1, 2, 3]
    assert tags(run(one("reorder", 2), pdus)[0]) == [0, 2, 1, 3]
    out, wire = run(one("cut", 3), pdus)
    assert tags(out) == [0, 1]
    assert wire.cut
    assert wire.outgoing(pdu(9), 11.0) == b""


def test_what_is_delayed_holds_the_rest_up() -> None:
    out, wire = run(one("delay", 2), stream(4))
    assert tags(out) == [0]
    assert wire.next_timer == pytest.approx(10.05)
    assert wire.handle_timer(10.01) == (b"", b"")
    later, nothing = wire.handle_timer(10.06)
    assert tags(later) == [1, 2, 3]
    assert nothing == b""
    assert wire.next_timer is None


def test_delayed_pdus_go_before_what_comes_later() -> None:
    _, wire = run(one("delay", 1), stream(2))
    assert tags(wire.outgoing(pdu(7), 20.0)) == [0, 1, 7]


@pytest.mark.parametrize("seed", range(20))
def test_corruption_shows_in_the_digest_and_nowhere_else(seed: int) -> None:
    for fault in ("corrupt_header", "corrupt_data"):
        wire = FaultyWire(one(fault, 2), random.Random(seed), header_digest=True, data_digest=True)
        out = wire.incoming(b"".join(stream(4, header=True, data=True)), 0.0)
        framer = Framer(header_digest=True, data_digest=True)
        framer.receive_data(out)
        first = framer.next_pdu()
        assert first is not None
        if fault == "corrupt_header":
            with pytest.raises(FramingError, match="header digest"):
                framer.next_pdu()
        else:
            bad, good = framer.next_pdu(), framer.next_pdu()
            assert bad is not None
            assert good is not None
            assert (bad.data_digest_valid, good.data_digest_valid) == (False, True)
        assert len(out) == len(b"".join(stream(4, header=True, data=True)))


def test_nothing_is_corrupted_that_nobody_would_notice() -> None:
    pdus = stream(50)
    out, wire = run(Faults(corrupt_header=1.0, corrupt_data=1.0), pdus)
    assert out == b"".join(pdus)
    assert not wire.done


def test_chance_has_a_seed() -> None:
    faults = Faults.all(0.2, duplicate=0.2, cut=0.0)
    both = [
        FaultyWire(faults, random.Random(5), header_digest=False, data_digest=False).outgoing(b"".join(stream(200)), 0.0)
        for _ in range(2)
    ]
    assert both[0] == both[1] != b"".join(stream(200))


def test_only_some_pdus_and_one_direction() -> None:
    faults = Faults(drop=1.0, directions=frozenset({"in"}), opcodes=frozenset({Opcode.NOP_OUT}))
    wire = FaultyWire(faults, random.Random(1), header_digest=False, data_digest=False)
    assert tags(wire.outgoing(pdu(1), 0.0)) == [1]
    assert wire.incoming(pdu(1), 0.0) == b""
    spared = Faults(drop=1.0, spared=frozenset({Opcode.NOP_OUT}))
    assert tags(run(spared, stream(3))[0]) == [0, 1, 2]


def test_an_unknown_fault_is_an_error() -> None:
    with pytest.raises(ValueError, match="use one of cut, drop"):
        run(one("explode", 1), stream(2))
