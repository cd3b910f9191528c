"""The Fabric Device Management Interface (FC-GS clause 6.7): what stands after the preamble of a CT_IU, requests and answers.

An HBA has an identifier (the name of one of its ports), a list of ports, and attributes; so has each of its ports. An attribute
is a type, a length that counts type and length, and a value of whole words.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm_fcoe.protocol.ct import CtError, CtIu, CtReason
from tcm_fcoe.protocol.names import NAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tcm_fcoe.protocol.fcoe import Buffer

MANAGEMENT_SERVICE = 0xFA
"""GS_Type."""
FDMI = 0x10
"""GS_Subtype of the management service: the HBA management server."""
MAX_PORTS = 64
"""Port names in the list of one HBA."""
MAX_ATTRIBUTES = 64
"""Attributes in one request."""
_COUNT = struct.Struct(">I")
_ATTRIBUTE = struct.Struct(">HH")
TEXT = 256
"""Bytes of the longest text, its zero included."""


class FdmiCommand(enum.IntEnum):
    """Command codes: get, register, remove."""

    GRHL = 0x0100
    GHAT = 0x0101
    GRPL = 0x0102
    GPAT = 0x0110
    RHBA = 0x0200
    RHAT = 0x0201
    RPRT = 0x0210
    RPA = 0x0211
    DHBA = 0x0300
    DHAT = 0x0301
    DPRT = 0x0310
    DPA = 0x0311


class FdmiExplanation(enum.IntEnum):
    """Reason code explanations of the HBA management server (FC-GS clause 6.7.4).

    QLogic's driver for Linux has the same numbers, and none for the last. Emulex's has those of an earlier FC-GS: 10h, 11h, 12h
    and 13h for what is 11h to 14h here, and 20h to 22h without 21h.
    """

    NONE = 0x00
    HBA_ALREADY_REGISTERED = 0x10
    HBA_ATTRIBUTES_NOT_REGISTERED = 0x11
    HBA_ATTRIBUTE_TWICE = 0x12
    HBA_ATTRIBUTE_LENGTH = 0x13
    HBA_ATTRIBUTE_NOT_PRESENT = 0x14
    PORT_NOT_IN_LIST = 0x15
    """The port that asks is not in the HBA's list."""
    HBA_NOT_IN_LIST = 0x16
    HBA_NOT_REGISTERED = 0x17
    PORT_ATTRIBUTES_NOT_REGISTERED = 0x20
    PORT_NOT_REGISTERED = 0x21
    PORT_ATTRIBUTE_TWICE = 0x22
    PORT_ATTRIBUTE_LENGTH = 0x23
    PORT_ALREADY_REGISTERED = 0x24


class HbaAttribute(enum.IntEnum):
    """Attributes of an HBA."""

    NODE_NAME = 0x0001
    MANUFACTURER = 0x0002
    SERIAL_NUMBER = 0x0003
    MODEL = 0x0004
    MODEL_DESCRIPTION = 0x0005
    HARDWARE_VERSION = 0x0006
    DRIVER_VERSION = 0x0007
    OPTION_ROM_VERSION = 0x0008
    FIRMWARE_VERSION = 0x0009
    OS_NAME_AND_VERSION = 0x000A
    MAXIMUM_CT_PAYLOAD = 0x000B


class PortAttribute(enum.IntEnum):
    """Attributes of a port."""

    FC4_TYPES = 0x0001
    SUPPORTED_SPEED = 0x0002
    CURRENT_SPEED = 0x0003
    MAXIMUM_FRAME_SIZE = 0x0004
    OS_DEVICE_NAME = 0x0005
    HOST_NAME = 0x0006


SPEED_UNKNOWN = 0x8000
"""Of the speed attributes."""

Attributes = dict[int, bytes]
"""Values by type, in the order in which they came."""


@dataclass(frozen=True, slots=True)
class FdmiRequest:
    """What a request is about; what its command does not have is empty."""

    command: FdmiCommand
    hba: bytes = b""
    port: bytes = b""
    ports: tuple[bytes, ...] = ()
    attributes: Attributes | None = None

    def iu(self, *, size: int = 0) -> CtIu:
        """As it is sent.

        :param size: the most words that the answer may have after its preamble; 0: any number.
        """
        parts = {
            "hba": self.hba,
            "port": self.port,
            "ports": pack_names(self.ports),
            "attributes": pack_attributes(self.attributes or {}),
        }
        body = b"".join(parts[name] for name in LAYOUTS[self.command])
        return CtIu(self.command, body, size, gs_type=MANAGEMENT_SERVICE, gs_subtype=FDMI)


LAYOUTS: Mapping[FdmiCommand, Sequence[str]] = {
    FdmiCommand.GRHL: (),
    FdmiCommand.GHAT: ("hba",),
    FdmiCommand.GRPL: ("hba",),
    FdmiCommand.GPAT: ("port",),
    FdmiCommand.RHBA: ("hba", "ports", "attributes"),
    FdmiCommand.RHAT: ("hba", "attributes"),
    FdmiCommand.RPRT: ("hba", "port", "attributes"),
    FdmiCommand.RPA: ("port", "attributes"),
    FdmiCommand.DHBA: ("hba",),
    FdmiCommand.DHAT: ("hba",),
    FdmiCommand.DPRT: ("port",),
    FdmiCommand.DPA: ("port",),
}
"""What each request has, in order."""
_OF_PORTS = frozenset((FdmiCommand.RPRT, FdmiCommand.RPA))


def parse_request(iu: CtIu) -> FdmiRequest:
    """What a request asks for.

    :raises CtError: no such command, cut short, or attributes that cannot be.
    """
    try:
        command = FdmiCommand(iu.code)
    except ValueError:
        raise CtError(CtReason.COMMAND_NOT_SUPPORTED, FdmiExplanation.NONE, f"FDMI command {iu.code:04x}h") from None
    reader = _Reader(iu.body)
    hba = port = b""
    ports: tuple[bytes, ...] = ()
    attributes: Attributes | None = None
    for name in LAYOUTS[command]:
        if name == "hba":
            hba = reader.name()
        elif name == "port":
            port = reader.name()
        elif name == "ports":
            ports = reader.names()
        else:
            attributes = reader.attributes(of_port=command in _OF_PORTS)
    return FdmiRequest(command, hba, port, ports, attributes)


class _Reader:
    """Takes a payload apart from the front. Its methods raise CtError for what is cut short."""

    def __init__(self, data: Buffer) -> None:
        self._data = bytes(data)
        self._at = 0

    def _take(self, count: int) -> bytes:
        start, self._at = self._at, self._at + count
        if self._at > len(self._data):
            raise CtError(CtReason.INVALID_IU_SIZE, FdmiExplanation.NONE, f"an FDMI request of {len(self._data)} bytes")
        return self._data[start : self._at]

    def name(self) -> bytes:
        return self._take(NAME_LENGTH)

    def _count(self, most: int, what: str) -> int:
        (count,) = _COUNT.unpack(self._take(_COUNT.size))
        if count > most:
            raise CtError(CtReason.UNABLE_TO_PERFORM, FdmiExplanation.NONE, f"{count} {what}, and {most} are the most")
        return int(count)

    def names(self) -> tuple[bytes, ...]:
        return tuple(self.name() for _ in range(self._count(MAX_PORTS, "ports")))

    def attributes(self, *, of_port: bool) -> Attributes:
        twice, wrong = (
            (FdmiExplanation.PORT_ATTRIBUTE_TWICE, FdmiExplanation.PORT_ATTRIBUTE_LENGTH)
            if of_port
            else (FdmiExplanation.HBA_ATTRIBUTE_TWICE, FdmiExplanation.HBA_ATTRIBUTE_LENGTH)
        )
        found: Attributes = {}
        for _ in range(self._count(MAX_ATTRIBUTES, "attributes")):
            kind, length = _ATTRIBUTE.unpack(self._take(_ATTRIBUTE.size))
            if length <= _ATTRIBUTE.size or length & 3 or length - _ATTRIBUTE.size > TEXT:
                raise CtError(CtReason.UNABLE_TO_PERFORM, wrong, f"attribute {kind:04x}h of {length} bytes")
            value = self._take(length - _ATTRIBUTE.size)
            if kind in found:
                raise CtError(CtReason.UNABLE_TO_PERFORM, twice, f"attribute {kind:04x}h twice")
            found[kind] = value
        return found


def parse_names(body: bytes) -> tuple[bytes, ...]:
    """The answer to GRHL and GRPL; what GHAT's begins with.

    :raises CtError: cut short.
    """
    return _Reader(body).names()


def parse_attributes(body: bytes) -> Attributes:
    """The answer to GPAT; what follows the list in that to GHAT.

    :raises CtError: cut short.
    """
    return _Reader(body).attributes(of_port=True)


def pack_names(names: Sequence[bytes]) -> bytes:
    """A list of HBAs or ports."""
    return _COUNT.pack(len(names)) + b"".join(names)


def pack_attributes(attributes: Attributes) -> bytes:
    """A block of attributes."""
    packed = (_ATTRIBUTE.pack(kind, _ATTRIBUTE.size + len(value)) + value for kind, value in attributes.items())
    return _COUNT.pack(len(attributes)) + b"".join(packed)


def text(value: str, most: int = TEXT) -> bytes:
    """A text attribute's value: ASCII, a zero, and zeros to the next word.

    :param most: bytes of it.
    """
    kept = value.encode("ascii", "replace")[: most - 1]
    return kept + bytes(4 - len(kept) % 4)


def plain(value: bytes) -> str:
    """What a text attribute says; what is no printable ASCII is a question mark."""
    return "".join(chr(octet) if 0x20 <= octet < 0x7F else "?" for octet in value.partition(b"\0")[0])
