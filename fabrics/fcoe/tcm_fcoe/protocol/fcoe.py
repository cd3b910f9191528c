"""FCoE encapsulation (FC-BB-5 clause 7.7): an FC frame with its CRC between SOF and EOF in an Ethernet frame.

Every frame passes here, so nothing is made that is not handed on: one copy and one CRC a frame. All our frames are class 3.
"""

from __future__ import annotations

import enum
from struct import Struct

from fastcrc.crc32 import iso_hdlc as crc32

Buffer = bytes | bytearray | memoryview

HEADER_LENGTH = 14
"""Version, reserved, SOF."""
TRAILER_LENGTH = 8
"""CRC, EOF, reserved."""
FC_HEADER_LENGTH = 24
MAX_DATA_FIELD = 2112
MIN_DATA_FIELD = 256
"""The least that a port may say it can receive (FC-FS-3 clause 14)."""
MIN_PDU_LENGTH = HEADER_LENGTH + FC_HEADER_LENGTH + TRAILER_LENGTH
"""Bytes after the EtherType: 46, so Ethernet never pads an FCoE frame."""
MAX_PDU_LENGTH = MIN_PDU_LENGTH + MAX_DATA_FIELD
VERSION = 0


class Sof(enum.IntEnum):
    """Start of frame (FC-BB-5 table 7): class, and whether a sequence begins with the frame (i) or goes on (n)."""

    F = 0x28
    I4 = 0x29
    I2 = 0x2D
    I3 = 0x2E
    N4 = 0x31
    N2 = 0x35
    N3 = 0x36
    C4 = 0x39


class Eof(enum.IntEnum):
    """End of frame: normal, terminates the sequence, invalid, aborted; the others belong to connections."""

    N = 0x41
    T = 0x42
    RT = 0x44
    DT = 0x46
    NI = 0x49
    DTI = 0x4E
    RTI = 0x4F
    A = 0x50


SOF_I3, SOF_N3, EOF_N, EOF_T = int(Sof.I3), int(Sof.N3), int(Eof.N), int(Eof.T)
_KNOWN_SOF = frozenset(int(each) for each in Sof)
_INVALID_EOF = frozenset((int(Eof.NI), int(Eof.DTI), int(Eof.RTI), int(Eof.A)))

_TRAILER = Struct("<IB")
_CRC_EOF = Struct("<IB3x")
_FILL = (b"", b"\0", b"\0\0", b"\0\0\0")
FCOE_HEADERS = {sof: bytes(HEADER_LENGTH - 1) + bytes((sof,)) for sof in _KNOWN_SOF}
COUNTERS = ("bad_length", "bad_version", "bad_sof", "unsupported_class", "bad_eof", "aborted_frames", "crc_errors")
"""What :class:`FcoeError` may name."""


class FcoeError(ValueError):
    """A frame that is dropped without an answer, as class 3 has it.

    :param counter: the name of the counter that it belongs to.
    """

    def __init__(self, counter: str, text: str) -> None:
        super().__init__(text)
        self.counter = counter


def encapsulate(prefix: bytes, sof: int, header: bytes, payload: Buffer, eof: int) -> bytes:
    """The whole Ethernet frame, in one buffer.

    :param prefix: destination, source, perhaps an 802.1Q tag, EtherType 8906h.
    :param header: 24 bytes; its F_CTL already says how many fill bytes there are: ``-len(payload) & 3``.
    :param payload: the data field without fill bytes.
    """
    crc = crc32(payload, crc32(header))
    if fill := -len(payload) & 3:
        return b"".join(
            (prefix, FCOE_HEADERS[sof], header, payload, _FILL[fill], _CRC_EOF.pack(crc32(_FILL[fill], crc), eof)),
        )
    return b"".join((prefix, FCOE_HEADERS[sof], header, payload, _CRC_EOF.pack(crc, eof)))


def decapsulate(pdu: memoryview) -> tuple[int, memoryview, int]:
    """SOF, the FC frame without its CRC, EOF.

    :param pdu: what follows the EtherType.
    :raises FcoeError: no class 3 frame, or one that was damaged on the way.
    """
    length = len(pdu)
    if length < MIN_PDU_LENGTH or length > MAX_PDU_LENGTH or length & 3 != MIN_PDU_LENGTH & 3:
        raise FcoeError("bad_length", f"{length} bytes after the EtherType")
    sof = pdu[HEADER_LENGTH - 1]
    crc, eof = _TRAILER.unpack_from(pdu, length - TRAILER_LENGTH)
    if (sof != SOF_I3 and sof != SOF_N3) or (eof != EOF_T and eof != EOF_N) or pdu[0] & 0xF0:  # noqa: PLR1714 - half the time
        raise _wrong_delimiter(pdu[0] >> 4, sof, eof)
    frame = pdu[HEADER_LENGTH : length - TRAILER_LENGTH]
    if crc32(frame) != crc:
        raise FcoeError("crc_errors", f"CRC is {crc:08x}h, not {crc32(frame):08x}h")
    return sof, frame, eof


def _wrong_delimiter(version: int, sof: int, eof: int) -> FcoeError:
    if version != VERSION:
        return FcoeError("bad_version", f"version {version}")
    if sof not in _KNOWN_SOF:
        return FcoeError("bad_sof", f"SOF {sof:02x}h is none")
    if sof not in (SOF_I3, SOF_N3):
        return FcoeError("unsupported_class", f"SOF{Sof(sof).name} is not of class 3")
    if eof in _INVALID_EOF:
        return FcoeError("aborted_frames", f"EOF{Eof(eof).name}: whoever forwarded it found it invalid")
    return FcoeError("bad_eof", f"EOF {eof:02x}h does not end a frame of class 3")
