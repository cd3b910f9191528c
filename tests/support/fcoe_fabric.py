"""Frames of a login to a fabric, made with the packet classes."""

from __future__ import annotations

from scapy.layers.l2 import Ether
from tcm_fcoe.protocol import link_service_layers as services
from tcm_fcoe.protocol.layers import FC, FCOE, FCoE

PORT, FABRIC = "02:00:00:00:00:01", "0e:fc:00:ff:ff:fe"


def login_frames() -> list[bytes]:
    """FLOGI and its accept, a query of the name server and its answer."""
    there, back = Ether(src=PORT, dst=FABRIC, type=FCOE) / FCoE(), Ether(src=FABRIC, dst=PORT, type=FCOE) / FCoE()
    request, reply = {"f_ctl": 0x290000, "ox_id": 1}, {"f_ctl": 0x980000, "ox_id": 1}
    flogi = services.Flogi(port_name=0x2000000000000001, node_name=0x1000000000000001)
    accept = services.LoginAccept(port_name=0x2001000000000000, node_name=0x1001000000000000)
    gid_ft = services.CommonTransport(code=0x0171) / b"\0\0\0\x08"
    return [
        bytes(there / FC(r_ctl=0x22, type=1, s_id=0, d_id=0xFFFFFE, **request) / flogi),
        bytes(back / FC(r_ctl=0x23, type=1, s_id=0xFFFFFE, d_id=0x010001, **reply) / accept),
        bytes(there / FC(r_ctl=2, type=0x20, s_id=0x010001, d_id=0xFFFFFC, **request) / gid_ft),
        bytes(back / FC(r_ctl=3, type=0x20, s_id=0xFFFFFC, d_id=0x010001, **reply) / services.CommonTransport(code=0x8002)),
    ]
