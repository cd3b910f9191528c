"""Designation descriptors of the Device Identification VPD page (SPC-5 7.7.6.2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm.scsi.text import left_aligned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.scsi.inquiry import ProtocolIdentifier

LIO_COMPANY_ID = 0x001405
"""The OUI (OpenFabrics) that LIO builds its NAA designators with."""

MAXIMUM_DESIGNATOR_LENGTH = 255
_NAA_6_SERIAL_DIGITS = 25
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


class CodeSet(enum.IntEnum):
    """SPC-5 table 20."""

    BINARY = 1
    ASCII = 2
    UTF_8 = 3


class Association(enum.IntEnum):
    """SPC-5 table 530: what is designated."""

    LOGICAL_UNIT = 0
    TARGET_PORT = 1
    TARGET_DEVICE = 2


class DesignatorType(enum.IntEnum):
    """SPC-5 table 531."""

    VENDOR_SPECIFIC = 0
    T10_VENDOR_ID = 1
    EUI_64 = 2
    NAA = 3
    RELATIVE_TARGET_PORT = 4
    TARGET_PORT_GROUP = 5
    LOGICAL_UNIT_GROUP = 6
    MD5_LOGICAL_UNIT = 7
    SCSI_NAME_STRING = 8


@dataclass(frozen=True, slots=True)
class Designator:
    """One designation descriptor."""

    code_set: int
    type: int
    association: int
    data: bytes
    """At most 255 bytes."""
    protocol: int | None = None
    """PROTOCOL IDENTIFIER; PIV is set if present."""

    def pack(self) -> bytes:
        """Header and designator. Raises ``ValueError`` if the designator is too long."""
        if len(self.data) > MAXIMUM_DESIGNATOR_LENGTH:
            raise ValueError(f"a designator of {len(self.data)} bytes")
        piv = 0 if self.protocol is None else 0x80
        first = (self.protocol or 0) << 4 | self.code_set
        return bytes((first, piv | self.association << 4 | self.type, 0, len(self.data))) + self.data


def parse(data: bytes) -> list[Designator]:
    """A list of descriptors without padding between them.

    :raises ValueError: one that ends beyond the data.
    """
    found = []
    while data:
        if len(data) < 4 or len(data) < 4 + data[3]:
            raise ValueError("a designation descriptor is cut short")
        protocol = data[0] >> 4 if data[1] & 0x80 else None
        length = 4 + data[3]
        found.append(Designator(data[0] & 0x0F, data[1] & 0x0F, data[1] >> 4 & 0b11, bytes(data[4:length]), protocol))
        data = data[length:]
    return found


def pack(designators: Iterable[Designator]) -> bytes:
    """Descriptors one after the other."""
    return b"".join(designator.pack() for designator in designators)


def naa_6(serial: str, company_id: int = LIO_COMPANY_ID) -> Designator:
    """NAA IEEE Registered Extended, as LIO makes it: the company id and the first 25 hexadecimal digits of the unit serial."""
    digits = "".join(character for character in serial if character in _HEXADECIMAL)
    text = f"6{company_id:06x}{digits[:_NAA_6_SERIAL_DIGITS]:0<{_NAA_6_SERIAL_DIGITS}}"
    return Designator(CodeSet.BINARY, DesignatorType.NAA, Association.LOGICAL_UNIT, bytes.fromhex(text))


def naa(name: bytes, association: Association, protocol: ProtocolIdentifier | None = None) -> Designator:
    """A World Wide Name of eight bytes (SPC-5 7.7.6.6)."""
    return Designator(CodeSet.BINARY, DesignatorType.NAA, association, name, protocol)


def t10_vendor_id(vendor: str, product: str, serial: str) -> Designator:
    """T10 vendor ID based, as LIO makes it: eight characters of vendor, then ``product:serial``."""
    specific = f"{product.strip()}:{serial}"
    limit = MAXIMUM_DESIGNATOR_LENGTH - 8
    data = left_aligned(vendor, 8) + left_aligned(specific, min(len(specific), limit))
    return Designator(CodeSet.ASCII, DesignatorType.T10_VENDOR_ID, Association.LOGICAL_UNIT, data)


def relative_target_port(identifier: int, protocol: ProtocolIdentifier | None = None) -> Designator:
    """The relative target port identifier, 1 to 65535."""
    return _port_number(DesignatorType.RELATIVE_TARGET_PORT, identifier, protocol)


def target_port_group(identifier: int, protocol: ProtocolIdentifier | None = None) -> Designator:
    """The (ALUA) target port group that the port belongs to."""
    return _port_number(DesignatorType.TARGET_PORT_GROUP, identifier, protocol)


def logical_unit_group(identifier: int) -> Designator:
    """The group of logical units whose target port groups change state together."""
    data = bytes(2) + identifier.to_bytes(2, "big")
    return Designator(CodeSet.BINARY, DesignatorType.LOGICAL_UNIT_GROUP, Association.LOGICAL_UNIT, data)


def _port_number(kind: DesignatorType, value: int, protocol: ProtocolIdentifier | None) -> Designator:
    return Designator(CodeSet.BINARY, kind, Association.TARGET_PORT, bytes(2) + value.to_bytes(2, "big"), protocol)


def scsi_name_string(name: str, association: Association, protocol: ProtocolIdentifier | None = None) -> Designator:
    """A SCSI name in UTF-8, null-terminated and padded to a multiple of four (SPC-5 7.7.6.11).

    :raises ValueError: the name is too long for a descriptor.
    """
    text = name.encode() + b"\0"
    padded = text + bytes(-len(text) % 4)
    if len(padded) > MAXIMUM_DESIGNATOR_LENGTH:
        raise ValueError(f"the SCSI name {name!r} takes {len(padded)} bytes")
    return Designator(CodeSet.UTF_8, DesignatorType.SCSI_NAME_STRING, association, padded, protocol)
