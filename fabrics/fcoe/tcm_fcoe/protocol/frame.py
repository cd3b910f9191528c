"""FC-2 frames (FC-FS-3 clauses 9 to 12): the header by ``struct``, and the numbers in it.

The payload of a received frame is a view into the link's buffer: who keeps it beyond the call copies it.
"""

from __future__ import annotations

import enum
from struct import Struct

from tcm_fcoe.protocol.fcoe import FC_HEADER_LENGTH, Buffer, FcoeError
from tcm_fcoe.protocol.names import format_fc_id

HEADER = Struct(">IIIBBHHHI")
"""R_CTL and D_ID, CS_CTL and S_ID, TYPE and F_CTL (a byte and three each), SEQ_ID, DF_CTL, SEQ_CNT, OX_ID, RX_ID, parameter."""

NO_EXCHANGE = 0xFFFF
"""An RX_ID (or OX_ID) that has not been assigned (FC-FS-3 clause 9.10)."""


class RCtl(enum.IntEnum):
    """Routing and information category (FC-FS-3 tables 10 to 19; FCP-4 table 3 for device data of FCP)."""

    UNCATEGORIZED = 0x00
    SOLICITED_DATA = 0x01
    UNSOLICITED_CONTROL = 0x02
    SOLICITED_CONTROL = 0x03
    UNSOLICITED_DATA = 0x04
    DATA_DESCRIPTOR = 0x05
    UNSOLICITED_COMMAND = 0x06
    COMMAND_STATUS = 0x07
    EXTENDED_LINK_REQUEST = 0x22
    EXTENDED_LINK_REPLY = 0x23
    FC4_LINK_REQUEST = 0x32
    FC4_LINK_REPLY = 0x33
    VIDEO_DATA = 0x44
    VFT_HEADER = 0x50
    IFR_HEADER = 0x51
    ENCAPSULATION_HEADER = 0x52
    BASIC_NOP = 0x80
    BASIC_ABTS = 0x81
    BASIC_RMC = 0x82
    BASIC_ACC = 0x84
    BASIC_RJT = 0x85
    BASIC_PREEMPTED = 0x86
    LINK_ACK_1 = 0xC0
    LINK_ACK_0 = 0xC1
    LINK_P_RJT = 0xC2
    LINK_F_RJT = 0xC3
    LINK_P_BSY = 0xC4
    LINK_F_BSY_DATA = 0xC5
    LINK_F_BSY_CONTROL = 0xC6
    LINK_RESET = 0xC7
    LINK_NOTIFY = 0xC8
    LINK_END = 0xC9


class FcType(enum.IntEnum):
    """TYPE (FC-FS-3 tables 22, 23)."""

    BASIC_LINK_SERVICE = 0x00
    EXTENDED_LINK_SERVICE = 0x01
    FCP = 0x08
    COMMON_TRANSPORT = 0x20
    INTERNAL_LINK_SERVICE = 0x22


# F_CTL (FC-FS-3 table 25).
F_CTL_EXCHANGE_RESPONDER = 0x800000
"""The sender is the responder of the exchange."""
F_CTL_SEQUENCE_RECIPIENT = 0x400000
"""The sender is the recipient of the sequence."""
F_CTL_FIRST_SEQUENCE = 0x200000
F_CTL_LAST_SEQUENCE = 0x100000
F_CTL_END_SEQUENCE = 0x080000
F_CTL_PRIORITY = 0x020000
F_CTL_SEQUENCE_INITIATIVE = 0x010000
"""Handed over to the other side with the last frame of the sequence."""
F_CTL_RETRANSMITTED = 0x000200
F_CTL_RELATIVE_OFFSET = 0x000008
"""The parameter field is a relative offset."""
F_CTL_FILL_MASK = 0x000003

F_CTL_REQUEST = F_CTL_FIRST_SEQUENCE | F_CTL_END_SEQUENCE | F_CTL_SEQUENCE_INITIATIVE
"""290000h: the only frame of the first sequence, an answer is wanted (ELS, CT, FCP_CMND)."""
F_CTL_REPLY = F_CTL_EXCHANGE_RESPONDER | F_CTL_LAST_SEQUENCE | F_CTL_END_SEQUENCE
"""980000h: the last frame of the responder's last sequence."""

_unpack = HEADER.unpack_from
_pack = HEADER.pack


class Frame:
    """A frame as it was received, without CRC and fill bytes."""

    __slots__ = (
        "cs_ctl",
        "d_id",
        "df_ctl",
        "eof",
        "f_ctl",
        "ox_id",
        "parameter",
        "payload",
        "r_ctl",
        "rx_id",
        "s_id",
        "seq_cnt",
        "seq_id",
        "sof",
        "type",
    )

    r_ctl: int
    d_id: int
    cs_ctl: int
    s_id: int
    type: int
    f_ctl: int
    seq_id: int
    df_ctl: int
    seq_cnt: int
    ox_id: int
    rx_id: int
    parameter: int
    payload: memoryview
    """The data field, with its optional headers if DF_CTL says that there are some."""
    sof: int
    eof: int

    @classmethod
    def unpack(cls, fc: memoryview, sof: int, eof: int) -> Frame:
        """From what :func:`tcm_fcoe.protocol.fcoe.decapsulate` gave.

        :raises FcoeError: cut short, or more fill bytes than data.
        """
        if len(fc) < FC_HEADER_LENGTH:
            raise FcoeError("bad_length", f"an FC frame of {len(fc)} bytes")
        frame = cls()
        (
            word_0,
            word_1,
            word_2,
            frame.seq_id,
            frame.df_ctl,
            frame.seq_cnt,
            frame.ox_id,
            frame.rx_id,
            frame.parameter,
        ) = _unpack(fc)
        frame.r_ctl = word_0 >> 24
        frame.d_id = word_0 & 0xFFFFFF
        frame.cs_ctl = word_1 >> 24
        frame.s_id = word_1 & 0xFFFFFF
        frame.type = word_2 >> 24
        frame.f_ctl = word_2 & 0xFFFFFF
        if fill := word_2 & 3:
            end = len(fc) - fill
            if end < FC_HEADER_LENGTH:
                raise FcoeError("bad_length", f"{fill} fill bytes in a frame without data")
            frame.payload = fc[FC_HEADER_LENGTH:end]
        else:
            frame.payload = fc[FC_HEADER_LENGTH:]
        frame.sof = sof
        frame.eof = eof
        return frame

    def pack(self) -> bytes:
        """Header and payload as they were, fill bytes (zero) included."""
        header = pack_header(
            self.r_ctl,
            self.d_id,
            self.s_id,
            self.type,
            self.f_ctl,
            self.seq_id,
            self.df_ctl,
            self.seq_cnt,
            self.ox_id,
            self.rx_id,
            self.parameter,
            cs_ctl=self.cs_ctl,
        )
        return header + self.payload + bytes(self.f_ctl & F_CTL_FILL_MASK)

    def __repr__(self) -> str:
        return (
            f"<Frame {format_fc_id(self.s_id)} > {format_fc_id(self.d_id)} R_CTL {self.r_ctl:02x} TYPE {self.type:02x} "
            f"F_CTL {self.f_ctl:06x} OX_ID {self.ox_id:04x} RX_ID {self.rx_id:04x} SEQ {self.seq_id:02x}:{self.seq_cnt} "
            f"parameter {self.parameter:08x}, {len(self.payload)} bytes>"
        )


def pack_header(
    r_ctl: int,
    d_id: int,
    s_id: int,
    type: int,  # noqa: A002 - the standard's name
    f_ctl: int,
    seq_id: int,
    df_ctl: int,
    seq_cnt: int,
    ox_id: int,
    rx_id: int,
    parameter: int,
    *,
    cs_ctl: int = 0,
) -> bytes:
    """The 24 bytes. F_CTL has to say how many fill bytes follow the payload (:func:`fill`)."""
    return _pack(
        r_ctl << 24 | d_id,
        cs_ctl << 24 | s_id,
        type << 24 | f_ctl,
        seq_id,
        df_ctl,
        seq_cnt,
        ox_id,
        rx_id,
        parameter,
    )


def fill(payload: Buffer) -> int:
    """How many fill bytes a payload needs: the low two bits of F_CTL."""
    return -len(payload) & F_CTL_FILL_MASK
