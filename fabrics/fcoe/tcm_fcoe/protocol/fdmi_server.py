"""The HBA management server of a fabric (FC-GS clause 6.7): which HBAs are there, as their ports have registered them.

A port registers its own HBA and changes only one that has it in its list. What it has registered goes with its login.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tcm_fcoe.protocol import fdmi
from tcm_fcoe.protocol.ct import CtError, CtReason, accept, check_request, parse_iu, reject
from tcm_fcoe.protocol.fdmi import Attributes, FdmiCommand, FdmiExplanation, FdmiRequest, HbaAttribute, PortAttribute
from tcm_fcoe.protocol.names import NO_NAME, colon_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.ct import CtIu
    from tcm_fcoe.protocol.fcoe import Buffer

HBA_BYTES = 1 << 14
"""Attributes of one HBA and its ports. A port registers one HBA, so that there are never more of these than of those."""


@dataclass(slots=True, eq=False)
class Hba:
    """One that is registered."""

    identifier: bytes
    owner: bytes
    """Name of the port that has registered it."""
    ports: list[bytes]
    """Names; not all of them need be logged in."""
    attributes: Attributes
    port_attributes: dict[bytes, Attributes] = field(default_factory=dict)
    """By port name."""

    @property
    def size(self) -> int:
        """Bytes of all attributes."""
        return sum(sum(map(len, each.values())) for each in (self.attributes, *self.port_attributes.values()))

    def describe(self) -> str:
        """One line for people: names, what it is, what runs it, and where."""
        texts = [fdmi.plain(self.attributes.get(kind, b"")) for kind in _TOLD]
        for each in self.port_attributes.values():
            texts.append(fdmi.plain(each.get(PortAttribute.HOST_NAME, b"")))
            texts.append(fdmi.plain(each.get(PortAttribute.OS_DEVICE_NAME, b"")))
        told = [colon_form(self.identifier), *dict.fromkeys(filter(None, texts))]
        others = [colon_form(each) for each in self.ports if each != self.identifier]
        return ", ".join(told) + (f"; ports {' '.join(others)}" if others else "")


_TOLD = (
    HbaAttribute.MANUFACTURER,
    HbaAttribute.MODEL,
    HbaAttribute.MODEL_DESCRIPTION,
    HbaAttribute.DRIVER_VERSION,
    HbaAttribute.OS_NAME_AND_VERSION,
)


class FdmiServer:
    """All HBAs of a fabric.

    :param is_there: whether a port of this name is logged in.
    """

    def __init__(self, is_there: Callable[[bytes], bool]) -> None:
        self.hbas: dict[bytes, Hba] = {}
        """By identifier."""
        self._is_there = is_there

    def request(self, port_name: bytes, data: Buffer) -> CtIu:
        """The answer to a request.

        :param port_name: who asks.
        :param data: the whole CT_IU.
        """
        try:
            iu = parse_iu(data)
            check_request(iu, fdmi.MANAGEMENT_SERVICE, fdmi.FDMI)
            asked = fdmi.parse_request(iu)
            body = _ANSWERS[asked.command](self, port_name, asked) or b""
        except CtError as e:
            return _of_fdmi(reject(e.reason, e.explanation))
        room = iu.size * 4 or len(body)
        return _of_fdmi(accept(body[:room], residual=max(0, len(body) - room) // 4))

    def remove(self, port_name: bytes) -> None:
        """A port is gone, and with the last of its ports an HBA."""
        for hba in list(self.hbas.values()):
            if port_name in hba.ports:
                hba.port_attributes.pop(port_name, None)
                if hba.owner == port_name or not any(map(self._is_there, hba.ports)):
                    del self.hbas[hba.identifier]

    def clear(self) -> None:
        """All are gone."""
        self.hbas.clear()

    # Looking up

    def _hba(self, identifier: bytes) -> Hba:
        found = self.hbas.get(identifier)
        if found is None:
            raise _unable(FdmiExplanation.HBA_NOT_REGISTERED, f"no HBA {identifier.hex(':')}")
        return found

    def _own(self, port_name: bytes, identifier: bytes) -> Hba:
        """An HBA that the port may change."""
        hba = self._hba(identifier)
        if port_name not in hba.ports:
            raise _unable(FdmiExplanation.PORT_NOT_IN_LIST, f"{port_name.hex(':')} is no port of it")
        return hba

    def _of_port(self, port: bytes, *, by: bytes | None = None) -> Hba:
        """The HBA that has a port in its list, by the port's own word if there is one.

        :param by: the HBA has to be one that this port may change.
        """
        found = [hba for hba in self.hbas.values() if port in hba.ports and (by is None or by in hba.ports)]
        if found:
            return next((hba for hba in found if hba.owner == port), found[0])
        raise _unable(FdmiExplanation.PORT_NOT_REGISTERED, f"no HBA has port {port.hex(':')}")

    # Registration

    def _register_hba(self, port_name: bytes, asked: FdmiRequest) -> None:
        if port_name not in asked.ports:
            raise _unable(FdmiExplanation.PORT_NOT_IN_LIST, f"{port_name.hex(':')} is not in the list that it sends")
        owned = any(each.owner == port_name for each in self.hbas.values())
        if asked.hba in self.hbas or owned or asked.hba == NO_NAME:
            raise _unable(FdmiExplanation.HBA_ALREADY_REGISTERED, f"{asked.hba.hex(':')}, or another by the same port")
        hba = Hba(asked.hba, port_name, list(dict.fromkeys(asked.ports)), {})
        self._set(hba, hba.attributes, asked.attributes)
        self.hbas[hba.identifier] = hba

    def _set(self, hba: Hba, attributes: Attributes, given: Attributes | None) -> None:
        """Add to attributes, or replace them; all or none."""
        new = {**attributes, **(given or {})}
        size = hba.size + sum(map(len, new.values())) - sum(map(len, attributes.values()))
        if size > HBA_BYTES or len(new) > fdmi.MAX_ATTRIBUTES:
            raise _unable(FdmiExplanation.NONE, f"{size} bytes of attributes")
        attributes.update(new)

    def _register_hba_attributes(self, port_name: bytes, asked: FdmiRequest) -> None:
        hba = self._own(port_name, asked.hba)
        self._set(hba, hba.attributes, asked.attributes)

    def _register_port(self, port_name: bytes, asked: FdmiRequest) -> None:
        hba = self.hbas.get(asked.hba)
        if hba is None:
            raise _unable(FdmiExplanation.HBA_NOT_IN_LIST, f"no HBA {asked.hba.hex(':')}")
        if port_name not in (asked.port, *hba.ports):
            raise _unable(FdmiExplanation.PORT_NOT_IN_LIST, f"{port_name.hex(':')} registers another's port")
        if asked.port in hba.port_attributes:
            raise _unable(FdmiExplanation.PORT_ALREADY_REGISTERED, asked.port.hex(":"))
        if asked.port not in hba.ports and len(hba.ports) >= fdmi.MAX_PORTS:
            raise _unable(FdmiExplanation.NONE, f"{fdmi.MAX_PORTS} ports are the most")
        attributes: Attributes = {}
        self._set(hba, attributes, asked.attributes)
        hba.port_attributes[asked.port] = attributes
        if asked.port not in hba.ports:
            hba.ports.append(asked.port)

    def _register_port_attributes(self, port_name: bytes, asked: FdmiRequest) -> None:
        hba = self._of_port(asked.port, by=port_name)
        attributes = hba.port_attributes.get(asked.port, {})
        self._set(hba, attributes, asked.attributes)
        hba.port_attributes[asked.port] = attributes

    # Removal

    def _remove_hba(self, port_name: bytes, asked: FdmiRequest) -> None:
        del self.hbas[self._own(port_name, asked.hba).identifier]

    def _remove_hba_attributes(self, port_name: bytes, asked: FdmiRequest) -> None:
        hba = self._own(port_name, asked.hba)
        if not hba.attributes:
            raise _unable(FdmiExplanation.HBA_ATTRIBUTES_NOT_REGISTERED, asked.hba.hex(":"))
        hba.attributes.clear()

    def _remove_port(self, port_name: bytes, asked: FdmiRequest) -> None:
        hba = self._of_port(asked.port, by=port_name)
        hba.ports.remove(asked.port)
        hba.port_attributes.pop(asked.port, None)
        if not hba.ports:
            del self.hbas[hba.identifier]

    def _remove_port_attributes(self, port_name: bytes, asked: FdmiRequest) -> None:
        hba = self._of_port(asked.port, by=port_name)
        if hba.port_attributes.pop(asked.port, None) is None:
            raise _unable(FdmiExplanation.PORT_ATTRIBUTES_NOT_REGISTERED, asked.port.hex(":"))

    # Questions

    def _list_hbas(self, _port_name: bytes, _asked: FdmiRequest) -> bytes:
        return fdmi.pack_names(sorted(self.hbas))

    def _hba_attributes(self, _port_name: bytes, asked: FdmiRequest) -> bytes:
        hba = self._hba(asked.hba)
        return fdmi.pack_names(hba.ports) + fdmi.pack_attributes(hba.attributes)

    def _list_ports(self, _port_name: bytes, asked: FdmiRequest) -> bytes:
        return fdmi.pack_names(self._hba(asked.hba).ports)

    def _port_attributes(self, _port_name: bytes, asked: FdmiRequest) -> bytes:
        return fdmi.pack_attributes(self._of_port(asked.port).port_attributes.get(asked.port, {}))


def _unable(explanation: FdmiExplanation, text: str) -> CtError:
    return CtError(CtReason.UNABLE_TO_PERFORM, explanation, text)


def _of_fdmi(iu: CtIu) -> CtIu:
    return replace(iu, gs_type=fdmi.MANAGEMENT_SERVICE, gs_subtype=fdmi.FDMI)


_ANSWERS: dict[FdmiCommand, Callable[[FdmiServer, bytes, FdmiRequest], bytes | None]] = {
    FdmiCommand.GRHL: FdmiServer._list_hbas,
    FdmiCommand.GHAT: FdmiServer._hba_attributes,
    FdmiCommand.GRPL: FdmiServer._list_ports,
    FdmiCommand.GPAT: FdmiServer._port_attributes,
    FdmiCommand.RHBA: FdmiServer._register_hba,
    FdmiCommand.RHAT: FdmiServer._register_hba_attributes,
    FdmiCommand.RPRT: FdmiServer._register_port,
    FdmiCommand.RPA: FdmiServer._register_port_attributes,
    FdmiCommand.DHBA: FdmiServer._remove_hba,
    FdmiCommand.DHAT: FdmiServer._remove_hba_attributes,
    FdmiCommand.DPRT: FdmiServer._remove_port,
    FdmiCommand.DPA: FdmiServer._remove_port_attributes,
}
"""By command; what registers or removes answers with nothing."""
