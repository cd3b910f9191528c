"""The frames that a long capture is made of, by ``struct``: whole FCP information units with their CRC right.

Everything else, and whatever is wrong with a frame, is for the packet classes of :mod:`tcm_fcoe.protocol.layers`, which are
far slower. The attributes here are named as their fields are, so that :mod:`tcm_fcoe.protocol.ladder_text` reads both.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from tcm_fcoe.protocol.ethernet import ETHERTYPE_FCOE, split
from tcm_fcoe.protocol.fcoe import FcoeError, decapsulate
from tcm_fcoe.protocol.fcp import RSP_LEN_VALID, SNS_LEN_VALID
from tcm_fcoe.protocol.frame import FcType, Frame, RCtl

if TYPE_CHECKING:
    from collections.abc import Callable

TASK_MANAGEMENT, ADDITIONAL, WRDATA, RDDATA, CDB = 10, 11, 0x01, 0x02, 12
"""Of an FCP_CMND (FCP-4 9.1.2)."""
SHORTEST_COMMAND, SHORTEST_TRANSFER_READY, SHORTEST_RESPONSE = 32, 12, 24
BOTH_WAYS = 4
"""Bytes of FCP_BIDIRECTIONAL_READ_DL."""

_FCP_DL = Struct(">I")
_TRANSFER_READY = Struct(">II")
_RESPONSE = Struct(">8xHBBIII")


@dataclass(frozen=True, slots=True)
class Data:
    """FCP_DATA, or an FCP_CONF."""

    data: memoryview

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Command(Data):
    """FCP_CMND without a task management function."""

    lun: bytes
    attribute: int
    rddata: int
    wrdata: int
    cdb: bytes
    fcp_dl: int
    task_management: int = 0


@dataclass(frozen=True, slots=True)
class TransferReady(Data):
    """FCP_XFER_RDY."""

    offset: int
    burst_length: int


@dataclass(frozen=True, slots=True)
class Response(Data):
    """FCP_RSP."""

    flags: int
    status: int
    residual: int
    response: bytes
    sense: bytes


def _command(data: memoryview) -> Command | None:
    if len(data) < SHORTEST_COMMAND or data[TASK_MANAGEMENT]:
        return None
    more = data[ADDITIONAL]
    ways = more & 3
    end = CDB + 16 + 4 * (more >> 2)
    if len(data) != end + 4 + (BOTH_WAYS if ways == RDDATA | WRDATA else 0):
        return None
    (fcp_dl,) = _FCP_DL.unpack_from(data, end)
    return Command(data, bytes(data[:8]), data[9] & 7, ways & RDDATA, ways & WRDATA, bytes(data[CDB:end]), fcp_dl)


def _transfer_ready(data: memoryview) -> TransferReady | None:
    return TransferReady(data, *_TRANSFER_READY.unpack_from(data)) if len(data) >= SHORTEST_TRANSFER_READY else None


def _response(data: memoryview) -> Response | None:
    if len(data) < SHORTEST_RESPONSE:
        return None
    _, flags, status, residual, sense_length, response_length = _RESPONSE.unpack_from(data)
    at = SHORTEST_RESPONSE + (response_length if flags & RSP_LEN_VALID else 0)
    end = at + (sense_length if flags & SNS_LEN_VALID else 0)
    if end > len(data):
        return None
    return Response(data, flags, status, residual, bytes(data[SHORTEST_RESPONSE:at]), bytes(data[at:end]))


UNITS: dict[int, Callable[[memoryview], Data | None]] = {
    int(RCtl.SOLICITED_DATA): lambda data: Data(data) if data else None,
    int(RCtl.SOLICITED_CONTROL): Data,
    int(RCtl.DATA_DESCRIPTOR): _transfer_ready,
    int(RCtl.UNSOLICITED_COMMAND): _command,
    int(RCtl.COMMAND_STATUS): _response,
}
"""By R_CTL."""


def information_unit(ethernet: bytes) -> tuple[int | None, Frame, Data] | None:
    """VLAN, frame and what is in it; None: another kind of frame, or one with which something is not in order."""
    view = memoryview(ethernet)
    vlan, kind, at = split(view)
    if kind != ETHERTYPE_FCOE:
        return None
    try:
        sof, fc, eof = decapsulate(view[at:])
        frame = Frame.unpack(fc, sof, eof)
    except FcoeError:
        return None
    if frame.type != FcType.FCP or frame.df_ctl or (unit := UNITS.get(frame.r_ctl)) is None:
        return None
    body = unit(frame.payload)
    return None if body is None else (vlan, frame, body)
