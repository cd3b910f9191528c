"""scapy packet classes: they agree with the golden trace, with Wireshark and with the codecs of the target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw
from support.fcoe_capture import FCOE, captured
from support.fcoe_examples import INITIATOR, TARGET, examples
from support.tshark import complaints, fields
from tcm_fcoe.capture import CaptureFile
from tcm_fcoe.protocol import layers
from tcm_fcoe.protocol.fcoe import decapsulate
from tcm_fcoe.protocol.frame import Frame
from tcm_fcoe.protocol.layers import FC, FCoE, FcpData, FcpXferRdy, Fip


def test_the_golden_trace_is_built_as_it_was_read():
    for each in captured():
        ethernet = Ether(each.ethernet)
        assert bytes(ethernet) == each.ethernet
        if FCoE in ethernet:
            again = ethernet.copy()
            again[FCoE].crc = None
            assert bytes(again) == each.ethernet
        assert FC in ethernet or Fip in ethernet


def test_the_golden_trace_has_nothing_unknown():
    for number, each in enumerate(captured(), 1):
        ethernet = Ether(each.ethernet)
        # a Claim Response is padded to the largest frame
        assert Raw not in ethernet or number == 9, number
        if Fip in ethernet:
            assert all(type(part) is not layers.Descriptor for part in ethernet[Fip].descriptors)


def test_headers_are_those_that_struct_reads():
    for each in captured():
        if each.ether_type != FCOE:
            continue
        sof, fc, eof = decapsulate(each.pdu)
        frame, packet = Frame.unpack(fc, sof, eof), Ether(each.ethernet)
        for name in ("r_ctl", "d_id", "cs_ctl", "s_id", "type", "f_ctl", "seq_id", "df_ctl", "seq_cnt", "ox_id", "rx_id"):
            assert int(getattr(packet[FC], name)) == getattr(frame, name), name
        assert packet[FC].parameter == frame.parameter
        assert bytes(packet[FC].payload) == frame.payload
        assert (packet[FCoE].sof, packet[FCoE].eof) == (sof, eof)


def test_wireshark_reads_what_they_write(tmp_path):
    path = tmp_path / "examples.pcap"
    with CaptureFile(str(path)) as capture:
        for at, each in enumerate(examples()):
            capture.write(bytes(each), at * 10**6)
    assert complaints(path) == []
    names = ("fc.d_id", "fc.s_id", "fc.ox_id", "fcels.opcode", "fcp.dl", "fcp.burstlen", "fcp.resid", "fip.vlan", "fip.opcode")
    seen = fields(path, names)
    assert len(seen) == len(examples())
    for row, packet in zip(seen, examples(), strict=True):
        if FC not in packet:
            assert int(row["fip.opcode"], 16) == packet[Fip].operation
            continue
        assert row["fc.d_id"] == packet[FC].d_id.to_bytes(3, "big").hex(".")
        assert int(row["fc.ox_id"], 16) == packet[FC].ox_id
    assert [row["fcp.dl"] for row in seen if row["fcp.dl"]] == ["4096", "4096"]
    assert [row["fcp.resid"] for row in seen if row["fcp.resid"]] == ["3"]
    assert [row["fip.vlan"] for row in seen if row["fip.vlan"]] == ["101"]


def test_a_tag_stands_before_it():
    tagged = (
        Ether(src=INITIATOR, dst=TARGET, type=0x8100)
        / Dot1Q(vlan=101, prio=3)
        / FCoE()
        / FC(r_ctl=5)
        / FcpXferRdy(burst_length=512)
    )
    found = Ether(bytes(tagged))
    assert found[Dot1Q].type == FCOE
    assert found[FcpXferRdy].burst_length == 512


@pytest.mark.parametrize("length", range(5))
def test_fill_bytes_follow_the_payload(length):
    wire = bytes(FC(r_ctl=1) / FcpData(data=b"x" * length))
    assert len(wire) == 24 + 4 * -(-length // 4)
    found = FC(wire)
    assert bytes(found.payload) == b"x" * length
    assert int(found.f_ctl) & 3 == -length % 4
    assert found.fill == bytes(-length % 4)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_and_built(data):
    header = bytes.fromhex("0e fd 00 00 fc 00 0e fd 00 00 97 00")
    for kind in (b"\x89\x06", b"\x89\x14"):
        whole = header + kind + data
        assert len(bytes(Ether(whole))) >= 14
