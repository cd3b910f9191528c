"""scapy packet classes: they agree with the golden trace, with Wireshark and with the codecs of the target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from support.fcoe_capture import FCOE, captured
from support.tshark import complaints, fields
from tcm_fcoe.capture import CaptureFile
from tcm_fcoe.protocol import layers, link_service_layers
from tcm_fcoe.protocol.fcoe import decapsulate
from tcm_fcoe.protocol.frame import Frame
from tcm_fcoe.protocol.layers import FC, FCoE, FcpCmnd, FcpConf, FcpData, FcpRsp, FcpXferRdy, Fip

TARGET, INITIATOR = "0e:fd:00:00:fc:00", "0e:fd:00:00:97:00"
CDB = bytes.fromhex("28000000000800000800") + bytes(6)


def fc_frame(body: Packet, *, answer: bool = False, **header: object) -> Packet:
    """From the initiator to the target, or back."""
    ends = (0x9700, 0x00FC00) if answer else (0x00FC00, 0x9700)
    ethernet = Ether(src=TARGET if answer else INITIATOR, dst=INITIATOR if answer else TARGET, type=FCOE)
    return ethernet / FCoE(**header.pop("fcoe", {})) / FC(d_id=ends[0], s_id=ends[1], **header) / body


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


def examples() -> list[Packet]:
    """A frame of each kind."""
    request, reply = {"f_ctl": 0x290000}, {"f_ctl": 0x980000, "answer": True, "rx_id": 1}
    services = link_service_layers
    login = {"port_name": 0x2000525400F59700, "node_name": 0x1000525400F59700}
    class3 = services.ClassParameters(options=0x8800, receive_size=2112, concurrent_sequences=255, open_sequences=1)
    page = services.ProcessPage(parameters=0x1B2)
    made = [
        fc_frame(services.Plogi(**login, class3=class3), r_ctl=0x22, type=1, ox_id=1, **request),
        fc_frame(services.LoginAccept(**login, class3=class3), r_ctl=0x23, type=1, ox_id=1, **reply),
        fc_frame(services.Prli(pages=[page]), r_ctl=0x22, type=1, ox_id=2, **request),
        fc_frame(services.ProcessAccept(pages=[services.ProcessPage(response=1, parameters=0x112)]), r_ctl=0x23, type=1,
                 ox_id=2, **reply),
        fc_frame(services.Rtv(), r_ctl=0x22, type=1, ox_id=3, **request),
        fc_frame(services.RtvAccept(), r_ctl=0x23, type=1, ox_id=3, **reply),
        fc_frame(services.Adisc(**login, fc_id=0x9700), r_ctl=0x22, type=1, ox_id=4, **request),
        fc_frame(services.LsRjt(reason=3, explanation=0x1E), r_ctl=0x23, type=1, ox_id=4, **reply),
        fc_frame(FcpCmnd(rddata=1, cdb=CDB, fcp_dl=4096), r_ctl=6, ox_id=5, **request),
        fc_frame(FcpData(data=bytes(2048)), r_ctl=1, ox_id=5, answer=True, rx_id=1, f_ctl=0x800008, fcoe={"eof": 0x41}),
        fc_frame(FcpData(data=bytes(2045)), r_ctl=1, ox_id=5, answer=True, rx_id=1, f_ctl=0x880008, seq_cnt=1, parameter=2048,
                 fcoe={"sof": 0x36}),
        fc_frame(services.Rec(s_id=0x9700, ox_id=5), r_ctl=0x22, type=1, ox_id=6, **request),
        fc_frame(services.RecAccept(ox_id=5, rx_id=1, originator=0x9700, responder=0xFC00, transferred=2048), r_ctl=0x23,
                 type=1, ox_id=6, **reply),
        fc_frame(FcpRsp(flags="under+sns_len", status=2, residual=3, sense=bytes.fromhex("700005") + bytes(15)), r_ctl=7,
                 ox_id=5, **reply),
        fc_frame(FcpConf(), r_ctl=3, ox_id=5, rx_id=1, f_ctl=0x190000),
        fc_frame(FcpCmnd(wrdata=1, cdb=b"\x2a" + CDB[1:], fcp_dl=4096), r_ctl=6, ox_id=7, **request),
        fc_frame(FcpXferRdy(burst_length=4096), r_ctl=5, ox_id=7, answer=True, rx_id=2, f_ctl=0x890000),
        fc_frame(services.Abts(), r_ctl=0x81, type=0, ox_id=7, rx_id=2, f_ctl=0x090000),
        fc_frame(services.BaAcc(ox_id=7, rx_id=2), r_ctl=0x84, type=0, ox_id=7, answer=True, rx_id=2, f_ctl=0x990000),
        fc_frame(services.Logo(fc_id=0x9700, port_name=login["port_name"]), r_ctl=0x22, type=1, ox_id=8, **request),
    ]  # fmt: skip
    descriptors = [
        layers.Priority(), layers.MacAddress(mac="0e:fc:00:01:00:01"), layers.NameIdentifier(wwn=1), layers.FabricName(wwn=2),
        layers.FkaAdvPeriod(period=8000),
    ]  # fmt: skip
    fip = Ether(src="02:00:00:00:00:01", dst="01:10:18:01:00:01", type=layers.FIP_TYPE)
    made.append(fip / Fip(operation=1, subcode=2, flags="FPMA+available+FCF", descriptors=descriptors))
    made.append(fip / Fip(operation=4, subcode=2, descriptors=[layers.MacAddress(), layers.Vlan(vlan=101)]))
    return made


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
