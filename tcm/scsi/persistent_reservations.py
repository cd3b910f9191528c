"""Parameter data of PERSISTENT RESERVE IN and parameter lists of PERSISTENT RESERVE OUT (SPC-5 6.15, 6.16)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm.scsi.check_condition import InvalidFieldInParameterList, ParameterListLengthError
from tcm.scsi.transport_id import FIXED_LENGTH, MAXIMUM_LENGTH, TransportId, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

PARAMETER_LIST_LENGTH = 24
"""Bytes of a parameter list without TransportIDs."""
MAXIMUM_PARAMETER_LIST_LENGTH = 64 << 10
"""Bytes of a parameter list with them; a longer one is refused, for it is parsed in the event loop."""
LU_SCOPE = 0
"""The only SCOPE there is: the whole logical unit (SPC-5 table 215)."""

_TRANSPORT_IDS = 28
_LENGTH_FIELD = 24
_FLAGS, _UNREG_FLAGS, _MOVE_LENGTH = 20, 17, 20
_SPEC_I_PT, _ALL_TG_PT, _APTPL, _UNREG = 0x08, 0x04, 0x01, 0x02


class ReservationType(enum.IntEnum):
    """TYPE (SPC-5 table 216)."""

    WRITE_EXCLUSIVE = 0x1
    EXCLUSIVE_ACCESS = 0x3
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 0x5
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 0x6
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 0x7
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 0x8

    @property
    def exclusive_access(self) -> bool:
        """Others may not read either."""
        return self in _EXCLUSIVE_ACCESS

    @property
    def all_registrants(self) -> bool:
        """Every registered I_T nexus holds the reservation."""
        return self in _ALL_REGISTRANTS

    @property
    def for_registrants(self) -> bool:
        """Every registered I_T nexus has access: registrants only, and all registrants."""
        return self >= ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY


_EXCLUSIVE_ACCESS = {
    ReservationType.EXCLUSIVE_ACCESS,
    ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
}
_ALL_REGISTRANTS = {ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS, ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS}


class InAction(enum.IntEnum):
    """Service actions of PERSISTENT RESERVE IN (SPC-5 table 211)."""

    READ_KEYS = 0
    READ_RESERVATION = 1
    REPORT_CAPABILITIES = 2
    READ_FULL_STATUS = 3


class OutAction(enum.IntEnum):
    """Service actions of PERSISTENT RESERVE OUT (SPC-5 table 222)."""

    REGISTER = 0
    RESERVE = 1
    RELEASE = 2
    CLEAR = 3
    PREEMPT = 4
    PREEMPT_AND_ABORT = 5
    REGISTER_AND_IGNORE_EXISTING_KEY = 6
    REGISTER_AND_MOVE = 7
    REPLACE_LOST_RESERVATION = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class OutParameters:
    """A parameter list of PERSISTENT RESERVE OUT (SPC-5 6.16.3, 6.16.4)."""

    key: int
    """RESERVATION KEY."""
    new_key: int
    """SERVICE ACTION RESERVATION KEY."""
    spec_i_pt: bool = False
    all_tg_pt: bool = False
    aptpl: bool = False
    unreg: bool = False
    relative_port: int = 0
    """RELATIVE TARGET PORT IDENTIFIER of REGISTER AND MOVE."""
    transport_ids: tuple[TransportId, ...] = ()
    offsets: tuple[int, ...] = ()
    """Where each TransportID begins, for field pointers."""


def parse_out(action: OutAction, data: bytes) -> OutParameters:
    """Parse a parameter list.

    :raises ParameterListLengthError: it ends too early, or goes on where nothing is wanted.
    :raises InvalidFieldInParameterList: with a pointer to the field.
    """
    if len(data) < PARAMETER_LIST_LENGTH:
        raise ParameterListLengthError
    key, new_key = int.from_bytes(data[:8]), int.from_bytes(data[8:16])
    if action is OutAction.REGISTER_AND_MOVE:
        return _parse_move(data, key, new_key)
    _no_reserved(data, _FLAGS, _SPEC_I_PT | _ALL_TG_PT | _APTPL)
    _no_reserved(data, _FLAGS + 1, 0)
    flags = data[_FLAGS]
    transport_ids: tuple[TransportId, ...] = ()
    offsets: tuple[int, ...] = ()
    if flags & _SPEC_I_PT:
        if action is not OutAction.REGISTER:
            raise InvalidFieldInParameterList.at(_FLAGS, 3)
        if len(data) < _TRANSPORT_IDS:
            raise ParameterListLengthError
        length = int.from_bytes(data[_LENGTH_FIELD:_TRANSPORT_IDS])
        if length > len(data) - _TRANSPORT_IDS:
            raise InvalidFieldInParameterList.at(_LENGTH_FIELD)
        if length < len(data) - _TRANSPORT_IDS:
            raise ParameterListLengthError
        transport_ids, offsets = _parse_transport_ids(data, _TRANSPORT_IDS)
    elif len(data) != PARAMETER_LIST_LENGTH:
        raise ParameterListLengthError
    return OutParameters(
        key=key,
        new_key=new_key,
        spec_i_pt=bool(flags & _SPEC_I_PT),
        all_tg_pt=bool(flags & _ALL_TG_PT),
        aptpl=bool(flags & _APTPL),
        transport_ids=transport_ids,
        offsets=offsets,
    )


def _parse_move(data: bytes, key: int, new_key: int) -> OutParameters:
    _no_reserved(data, _UNREG_FLAGS - 1, 0)
    _no_reserved(data, _UNREG_FLAGS, _UNREG | _APTPL)
    length = int.from_bytes(data[_MOVE_LENGTH:PARAMETER_LIST_LENGTH])
    if length < FIXED_LENGTH or length > len(data) - PARAMETER_LIST_LENGTH:
        raise InvalidFieldInParameterList.at(_MOVE_LENGTH)
    if length < len(data) - PARAMETER_LIST_LENGTH:
        raise ParameterListLengthError
    transport_ids, offsets = _parse_transport_ids(data, PARAMETER_LIST_LENGTH)
    if len(transport_ids) != 1:
        raise InvalidFieldInParameterList.at(_MOVE_LENGTH)
    return OutParameters(
        key=key,
        new_key=new_key,
        unreg=bool(data[_UNREG_FLAGS] & _UNREG),
        aptpl=bool(data[_UNREG_FLAGS] & _APTPL),
        relative_port=int.from_bytes(data[18:20]),
        transport_ids=transport_ids,
        offsets=offsets,
    )


_FULL_STATUS_HEADER = 24
MAXIMUM_SHOWN = 0xFFFF // (_FULL_STATUS_HEADER + FIXED_LENGTH) + 1
"""Descriptors of READ FULL STATUS for which there is room in any allocation length."""

ALLOWED_WHILE_LOST = frozenset(
    {
        # operation code, service action
        (0x03, None),  # REQUEST SENSE
        (0x12, None),  # INQUIRY
        (0x3B, None),  # WRITE BUFFER
        (0x3C, None),  # READ BUFFER (10)
        (0x4D, None),  # LOG SENSE
        (0x5F, OutAction.REPLACE_LOST_RESERVATION),
        (0x9B, None),  # READ BUFFER (16)
        (0xA0, None),  # REPORT LUNS
        (0xA3, 0x0A),  # REPORT TARGET PORT GROUPS
    }
)
"""Commands that a logical unit executes whose persistent reservation information is lost (SPC-4 5.13.5.2); START STOP UNIT with
START and no power condition too."""


def _no_reserved(data: bytes, byte: int, allowed: int) -> None:
    wrong = data[byte] & ~allowed
    if wrong:
        raise InvalidFieldInParameterList.at(byte, wrong.bit_length() - 1)


def _parse_transport_ids(data: bytes, start: int) -> tuple[tuple[TransportId, ...], tuple[int, ...]]:
    found, offsets = [], []
    position = start
    while position < len(data):
        try:
            transport_id, length = parse(data[position : position + MAXIMUM_LENGTH])
        except ValueError:
            raise InvalidFieldInParameterList.at(position) from None
        found.append(transport_id)
        offsets.append(position)
        position += length
    return tuple(found), tuple(offsets)


def _with_header(generation: int, body: bytes) -> bytes:
    return generation.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body


def read_keys_data(generation: int, keys: Iterable[int]) -> bytes:
    """READ KEYS (SPC-5 6.15.2): a key for each registered I_T nexus."""
    return _with_header(generation, b"".join(key.to_bytes(8, "big") for key in keys))


def read_reservation_data(generation: int, reservation: tuple[int, ReservationType] | None) -> bytes:
    """READ RESERVATION (SPC-5 6.15.3).

    :param reservation: the holder's key (zero for all registrants types) and the type; ``None``: there is none.
    """
    if reservation is None:
        return _with_header(generation, b"")
    key, kind = reservation
    return _with_header(generation, key.to_bytes(8, "big") + bytes(5) + bytes((LU_SCOPE << 4 | kind,)) + bytes(2))


def capabilities_data(*, persistent: bool, active: bool) -> bytes:
    """REPORT CAPABILITIES (SPC-5 6.15.4): everything but compatible reservation handling that is not.

    :param persistent: PTPL_C: registrations can be kept through a loss of power.
    :param active: PTPL_A: they are.
    """
    # RLR_C, CRH, SIP_C, ATP_C
    capable = 0x80 | 0x10 | 0x08 | 0x04 | persistent
    # TMV; ALLOW COMMANDS 100b: TEST UNIT READY and RECEIVE COPY RESULTS through all types, MODE SENSE and its like through
    # Write Exclusive
    mask = 0x80 | 0b100 << 4 | active
    types = sum(1 << kind for kind in ReservationType)
    return bytes((0, 8, capable, mask, types & 0xFF, types >> 8, 0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class FullStatus:
    """One descriptor of READ FULL STATUS (SPC-5 6.15.5)."""

    key: int
    kind: ReservationType | None
    """The reservation's type if this I_T nexus holds it."""
    relative_port: int
    transport_id: bytes

    def pack(self) -> bytes:
        """The descriptor. ALL_TG_PT is zero: each target port has a registration of its own."""
        held = bytes((1, LU_SCOPE << 4 | self.kind)) if self.kind is not None else bytes(2)
        return (
            self.key.to_bytes(8, "big")
            + bytes(4)
            + held
            + bytes(4)
            + self.relative_port.to_bytes(2, "big")
            + len(self.transport_id).to_bytes(4, "big")
            + self.transport_id
        )


def full_status_length(transport_id: bytes) -> int:
    """Bytes of a descriptor."""
    return _FULL_STATUS_HEADER + len(transport_id)


def read_full_status_data(generation: int, length: int, descriptors: Iterable[FullStatus]) -> bytes:
    """READ FULL STATUS.

    :param length: of the descriptors of all registered I_T nexuses.
    :param descriptors: of all, or as many as :data:`MAXIMUM_SHOWN`.
    """
    return generation.to_bytes(4, "big") + length.to_bytes(4, "big") + b"".join(each.pack() for each in descriptors)
