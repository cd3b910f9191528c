"""Asymmetric logical unit access: its states, and the data of REPORT and SET TARGET PORT GROUPS (SPC-4 5.16.2, 6.37, 6.45)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm.scsi.check_condition import (
    AccessStateTransition,
    CheckCondition,
    InvalidFieldInParameterList,
    LogicalUnitOffline,
    TargetPortInStandbyState,
    TargetPortInUnavailableState,
)
from tcm.scsi.command import AccessStates

if TYPE_CHECKING:
    from collections.abc import Iterable


class AccessState(enum.IntEnum):
    """ASYMMETRIC ACCESS STATE (SPC-4 table 307)."""

    ACTIVE_OPTIMIZED = 0x0
    ACTIVE_NON_OPTIMIZED = 0x1
    STANDBY = 0x2
    UNAVAILABLE = 0x3
    LOGICAL_BLOCK_DEPENDENT = 0x4
    """LIO: LBA dependent."""
    OFFLINE = 0xE
    """A single port's secondary state; here also a group's primary one, which LIO takes but does not act on."""
    TRANSITIONING = 0xF


class AccessStatus(enum.IntEnum):
    """STATUS CODE: who brought the state about (SPC-4 table 308)."""

    NONE = 0
    EXPLICIT = 1
    """SET TARGET PORT GROUPS."""
    IMPLICIT = 2
    """The target device itself, or whoever manages it."""


class AccessType(enum.IntEnum):
    """The TPGS field of standard INQUIRY data: how states may change."""

    NONE = 0b00
    IMPLICIT = 0b01
    EXPLICIT = 0b10
    BOTH = 0b11

    @property
    def is_implicit(self) -> bool:
        """The target device may change the state."""
        return bool(self & AccessType.IMPLICIT)

    @property
    def is_explicit(self) -> bool:
        """SET TARGET PORT GROUPS may."""
        return bool(self & AccessType.EXPLICIT)


_EVERYTHING = frozenset(AccessStates)
_LIMITED = frozenset({AccessStates.SETTLED, AccessStates.ANY})

ADMITTED: dict[AccessState, frozenset[AccessStates]] = {
    AccessState.ACTIVE_OPTIMIZED: _EVERYTHING,
    AccessState.ACTIVE_NON_OPTIMIZED: _EVERYTHING,
    AccessState.LOGICAL_BLOCK_DEPENDENT: _EVERYTHING,
    AccessState.STANDBY: _LIMITED | {AccessStates.STANDBY},
    AccessState.UNAVAILABLE: _LIMITED,
    AccessState.OFFLINE: _LIMITED,
    AccessState.TRANSITIONING: frozenset({AccessStates.ANY}),
}
"""What the command table's column has to say for a command to be taken through a port in that state."""

REFUSED: dict[AccessState, type[CheckCondition]] = {
    AccessState.STANDBY: TargetPortInStandbyState,
    AccessState.UNAVAILABLE: TargetPortInUnavailableState,
    AccessState.OFFLINE: LogicalUnitOffline,
    AccessState.TRANSITIONING: AccessStateTransition,
}
"""How the others end."""

DISCONNECTED = frozenset({AccessState.UNAVAILABLE, AccessState.OFFLINE})
"""INQUIRY answers with peripheral qualifier 001b (SPC-4 5.16.2.4.5)."""

SUPPORT_BITS: dict[AccessState, int] = {
    AccessState.TRANSITIONING: 0x80,
    AccessState.OFFLINE: 0x40,
    AccessState.LOGICAL_BLOCK_DEPENDENT: 0x10,
    AccessState.UNAVAILABLE: 0x08,
    AccessState.STANDBY: 0x04,
    AccessState.ACTIVE_NON_OPTIMIZED: 0x02,
    AccessState.ACTIVE_OPTIMIZED: 0x01,
}
"""T_SUP to AO_SUP, byte 1 of a target port group descriptor (SPC-4 table 306)."""

MAXIMUM_PORTS = 255
"""Target ports in one descriptor: TARGET PORT COUNT is a byte."""

HEADER_LENGTH = 4
DESCRIPTOR_LENGTH = 4
MAXIMUM_DESCRIPTORS = 1024
"""Set target port group descriptors in one command."""

_SETTABLE = frozenset(
    {
        AccessState.ACTIVE_OPTIMIZED,
        AccessState.ACTIVE_NON_OPTIMIZED,
        AccessState.STANDBY,
        AccessState.UNAVAILABLE,
        AccessState.OFFLINE,
    }
)
"""What SET TARGET PORT GROUPS may ask for (SPC-4 table 330)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDescriptor:
    """A target port group descriptor."""

    identifier: int
    state: AccessState
    supported: int
    """:data:`SUPPORT_BITS`."""
    status: AccessStatus = AccessStatus.NONE
    preferred: bool = False
    ports: tuple[int, ...] = ()
    """Relative target port identifiers."""

    def pack(self) -> bytes:
        """Eight bytes and four for each port."""
        ports = self.ports[:MAXIMUM_PORTS]
        head = bytes((self.preferred << 7 | self.state, self.supported))
        head += self.identifier.to_bytes(2, "big") + bytes((0, self.status, 0, len(ports)))
        return head + b"".join(bytes(2) + port.to_bytes(2, "big") for port in ports)


def report_target_port_groups_data(groups: Iterable[GroupDescriptor], *, implicit_transition_time: int | None = None) -> bytes:
    """REPORT TARGET PORT GROUPS parameter data.

    :param implicit_transition_time: seconds, 0 if not specified: the extended header; ``None``: the length only header.
    """
    body = b"".join(group.pack() for group in groups)
    if implicit_transition_time is not None:
        body = bytes((0x10, implicit_transition_time, 0, 0)) + body
    return len(body).to_bytes(4, "big") + body


@dataclass(frozen=True, slots=True)
class SetTargetPortGroup:
    """A set target port group descriptor."""

    state: AccessState
    identifier: int
    """Of a target port group; of a target port (relative target port identifier) if the state is OFFLINE."""
    offset: int
    """Where the descriptor begins in the parameter list, for field pointers."""


def parse_set_target_port_groups(data: bytes) -> list[SetTargetPortGroup]:
    """The descriptors of a parameter list that is a header and whole descriptors long, or empty.

    Raises :class:`InvalidFieldInParameterList`: reserved bits, states that cannot be asked for, a group or port named twice.
    """
    _check_reserved(data[:HEADER_LENGTH], bytes(HEADER_LENGTH), 0)
    found: list[SetTargetPortGroup] = []
    seen: set[tuple[bool, int]] = set()
    for offset in range(HEADER_LENGTH, len(data), DESCRIPTOR_LENGTH):
        descriptor = data[offset : offset + DESCRIPTOR_LENGTH]
        _check_reserved(descriptor, b"\x0f\x00\xff\xff", offset)
        if descriptor[0] not in _SETTABLE:
            raise InvalidFieldInParameterList.at(offset, 3)
        state, identifier = AccessState(descriptor[0]), int.from_bytes(descriptor[2:4])
        what = state is AccessState.OFFLINE, identifier
        if what in seen:
            raise InvalidFieldInParameterList.at(offset + 2)
        seen.add(what)
        found.append(SetTargetPortGroup(state, identifier, offset))
    return found


def _check_reserved(data: bytes, allowed: bytes, offset: int) -> None:
    for index, (value, mask) in enumerate(zip(data, allowed, strict=True) if data else ()):
        wrong = value & ~mask
        if wrong:
            raise InvalidFieldInParameterList.at(offset + index, wrong.bit_length() - 1)
