"""A frame of each kind, made with scapy's packet classes."""

from __future__ import annotations

from scapy.layers.l2 import Ether
from scapy.packet import Packet
from support.fcoe_capture import FCOE
from tcm_fcoe.protocol import layers, link_service_layers
from tcm_fcoe.protocol.layers import FC, FCoE, FcpCmnd, FcpConf, FcpData, FcpRsp, FcpXferRdy, Fip

TARGET, INITIATOR = "0e:fd:00:00:fc:00", "0e:fd:00:00:97:00"
CDB = bytes.fromhex("28000000000800000800") + bytes(6)


def fc_frame(body: Packet, *, answer: bool = False, **header: object) -> Packet:
    """From the initiator to the target, or back."""
    ends = (0x9700, 0x00FC00) if answer else (0x00FC00, 0x9700)
    ethernet = Ether(src=TARGET if answer else INITIATOR, dst=INITIATOR if answer else TARGET, type=FCOE)
    return ethernet / FCoE(**header.pop("fcoe", {})) / FC(d_id=ends[0], s_id=ends[1], **header) / body


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
