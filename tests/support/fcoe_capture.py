"""The golden trace: a Linux initiator and LIO's tcm_fc, FCoE in VN2VN mode. No frame of it is ours."""

from __future__ import annotations

import functools
import gzip
import struct
from pathlib import Path
from typing import NamedTuple

CAPTURE = Path(__file__).parents[1] / "data" / "fcoe-vn2vn-lio.pcap.gz"
TARGET, INITIATOR = 0x00FC00, 0x009700
"""Their FC_IDs."""
FCOE, FIP = 0x8906, 0x8914


class Captured(NamedTuple):
    """A whole Ethernet frame and when it was seen, seconds."""

    time: float
    ethernet: bytes

    @property
    def ether_type(self) -> int:
        return int.from_bytes(self.ethernet[12:14], "big")

    @property
    def pdu(self) -> memoryview:
        """What follows the EtherType."""
        return memoryview(self.ethernet)[14:]


@functools.cache
def captured() -> tuple[Captured, ...]:
    """All frames in order: number N of Wireshark is ``captured()[N - 1]``."""
    raw = gzip.decompress(CAPTURE.read_bytes())
    magic = struct.unpack_from("<I", raw)[0]
    assert magic == 0xA1B2C3D4
    found, at, first = [], 24, None
    while at < len(raw):
        seconds, micro, length = struct.unpack_from("<III", raw, at)
        moment = seconds + micro / 1e6
        first = moment if first is None else first
        found.append(Captured(moment - first, raw[at + 16 : at + 16 + length]))
        at += 16 + length
    return tuple(found)
