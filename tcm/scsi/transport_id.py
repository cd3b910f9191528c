"""TransportIDs: how reservations name initiator ports (SPC-5 7.6.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tcm.scsi.inquiry import ProtocolIdentifier

FIXED_LENGTH = 24
"""Bytes of a TransportID of FCP or SAS, and the least of any."""
MAXIMUM_LENGTH = 248
"""Bytes of the longest: an iSCSI name of 223 bytes, separator, ISID, null and padding to a multiple of four."""
_ISCSI_MINIMUM_ADDITIONAL = 20
_ISCSI_HEADER = 4
_ISID_SEPARATOR = ",i,0x"
_ISID_LENGTH = 6
_MAXIMUM_ISCSI_NAME = 223
_ISID = re.compile("[0-9a-fA-F]{12}")
_WORLD_WIDE_NAME = re.compile("[0-9a-fA-F]{16}")

_NAME_ONLY, _WITH_ISID = 0b00, 0b01


@dataclass(frozen=True, slots=True)
class TransportId:
    """An initiator port's name in its protocol."""

    protocol: ProtocolIdentifier
    name: str
    """The iSCSI name; or 16 hexadecimal digits: N_Port_Name, SAS address."""
    isid: bytes | None = None
    """iSCSI: 6 bytes; ``None`` names every initiator port of that initiator."""

    @property
    def port_name(self) -> str:
        """The name as fabrics of the protocol write it: ``iqn...``, ``20:00:52:54:00:2f:fc:00``, ``naa.5001405...``."""
        if self.protocol is ProtocolIdentifier.FCP:
            return ":".join(self.name[at : at + 2] for at in range(0, len(self.name), 2))
        return f"naa.{self.name}" if self.protocol is ProtocolIdentifier.SAS else self.name

    def pack(self) -> bytes:
        """The TransportID. Raises ``ValueError`` for a name that cannot be."""
        if self.protocol is ProtocolIdentifier.ISCSI:
            return self._pack_iscsi()
        if self.protocol is ProtocolIdentifier.FCP:
            return bytes((ProtocolIdentifier.FCP,)) + bytes(7) + self._world_wide_name() + bytes(8)
        if self.protocol is ProtocolIdentifier.SAS:
            return bytes((ProtocolIdentifier.SAS,)) + bytes(3) + self._world_wide_name() + bytes(12)
        raise ValueError(f"no TransportID for {self.protocol.name}")

    def _pack_iscsi(self) -> bytes:
        text, format_code = self.name, _NAME_ONLY
        if not text or _ISID_SEPARATOR in text or "\0" in text or len(text.encode()) > _MAXIMUM_ISCSI_NAME:
            raise ValueError(f"{text!r} is no iSCSI name")
        if self.isid is not None:
            if len(self.isid) != _ISID_LENGTH:
                raise ValueError(f"an ISID of {len(self.isid)} bytes")
            text, format_code = f"{text}{_ISID_SEPARATOR}{self.isid.hex()}", _WITH_ISID
        body = text.encode() + b"\0"
        length = max(_ISCSI_MINIMUM_ADDITIONAL, len(body) + -len(body) % 4)
        return bytes((format_code << 6 | ProtocolIdentifier.ISCSI, 0)) + length.to_bytes(2, "big") + body.ljust(length, b"\0")

    def _world_wide_name(self) -> bytes:
        if not _WORLD_WIDE_NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not 16 hexadecimal digits")
        return bytes.fromhex(self.name)


def parse(data: bytes) -> tuple[TransportId, int]:
    """The TransportID that ``data`` begins with, and its length in bytes.

    :raises ValueError: unknown protocol or format, a reserved bit set, or a length or name that cannot be.
    """
    if len(data) < FIXED_LENGTH:
        raise ValueError(f"a TransportID of {len(data)} bytes")
    format_code, protocol = data[0] >> 6, data[0] & 0x0F
    if data[0] & 0x30:
        raise ValueError("reserved bits are set in a TransportID")
    if protocol == ProtocolIdentifier.ISCSI:
        return _parse_iscsi(data, format_code)
    if format_code != 0:
        raise ValueError(f"TransportID format {format_code}")
    if protocol == ProtocolIdentifier.FCP and not any(data[1:8] + data[16:24]):
        return TransportId(ProtocolIdentifier.FCP, data[8:16].hex()), FIXED_LENGTH
    if protocol == ProtocolIdentifier.SAS and not any(data[1:4] + data[12:24]):
        return TransportId(ProtocolIdentifier.SAS, data[4:12].hex()), FIXED_LENGTH
    raise ValueError(f"TransportID of protocol {protocol:#x} is malformed or unknown")


def _parse_iscsi(data: bytes, format_code: int) -> tuple[TransportId, int]:
    length = int.from_bytes(data[2:4])
    if data[1] or length % 4 or length < _ISCSI_MINIMUM_ADDITIONAL or len(data) < _ISCSI_HEADER + length:
        raise ValueError(f"an iSCSI TransportID with ADDITIONAL LENGTH {length}")
    body = bytes(data[_ISCSI_HEADER : _ISCSI_HEADER + length])
    text, terminator, padding = body.partition(b"\0")
    if not terminator or any(padding):  # a length that lies would swallow the next TransportID as padding
        raise ValueError("an iSCSI TransportID's name is not null-terminated and padded")
    name, separator, isid = text.decode().partition(_ISID_SEPARATOR)
    if not name or len(name.encode()) > _MAXIMUM_ISCSI_NAME:
        raise ValueError("an iSCSI TransportID's name is empty or too long")
    if format_code == _NAME_ONLY and not separator:
        return TransportId(ProtocolIdentifier.ISCSI, name), _ISCSI_HEADER + length
    if format_code == _WITH_ISID and separator and _ISID.fullmatch(isid):
        return TransportId(ProtocolIdentifier.ISCSI, name, bytes.fromhex(isid)), _ISCSI_HEADER + length
    raise ValueError(f"an iSCSI TransportID of format {format_code} that says {text!r}")
