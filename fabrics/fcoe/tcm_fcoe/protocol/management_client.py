"""An N_Port behind a fabric says what HBA it is (FDMI, FC-GS clause 6.7). A fabric that does not want to know is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm_fcoe.protocol.ct import CtError, parse_iu
from tcm_fcoe.protocol.ct_names import fc4_types
from tcm_fcoe.protocol.els import Reject, parse_reply
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.els_payload import ElsError
from tcm_fcoe.protocol.fdmi import SPEED_UNKNOWN, Attributes, FdmiCommand, FdmiRequest, HbaAttribute, PortAttribute, text
from tcm_fcoe.protocol.frame import FcType, RCtl
from tcm_fcoe.protocol.logins import service_parameters
from tcm_fcoe.protocol.names import WellKnownAddress, colon_form

if TYPE_CHECKING:
    from tcm_fcoe.protocol.n_port import NPort

MANAGEMENT = int(WellKnownAddress.MANAGEMENT_SERVER)
MANUFACTURER = "tcm"
_SHORT = 64
"""Bytes of the longest manufacturer and serial number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HbaDescription:
    """What is told besides names; what is empty is left out."""

    model: str = "FCoE"
    description: str = ""
    driver_version: str = ""
    os: str = ""
    """Name and version of the operating system."""
    host: str = ""
    """Name of the machine."""
    device: str = ""
    """Name of the interface."""


@dataclass(frozen=True, slots=True)
class _Step:
    command: FdmiCommand
    accepted: str
    """The step after it; empty: that was all."""
    refused: str


STEPS = {
    "RHBA": _Step(FdmiCommand.RHBA, "RPA", "DHBA"),
    "DHBA": _Step(FdmiCommand.DHBA, "RHBA again", "RHBA again"),
    "RHBA again": _Step(FdmiCommand.RHBA, "RPA", "RPRT"),
    "RPA": _Step(FdmiCommand.RPA, "", ""),
    "RPRT": _Step(FdmiCommand.RPRT, "", ""),
}
"""After PLOGI. What an earlier login has left behind is removed; an HBA that another has registered gets a port."""


class ManagementClient:
    """Of one N_Port; it does nothing for one without a description."""

    def __init__(self, port: NPort) -> None:
        self._port = port
        self.step = ""
        """Name of the step that is under way; ``registered`` or ``refused`` at the end."""

    def start(self, now: float) -> None:
        """Begin with PLOGI."""
        self.stop()
        if self._port.hba is not None:
            self.step = "PLOGI"
            self._port.request(MANAGEMENT, service_parameters(self._port, ElsCommand.PLOGI), self._logged_in, now)

    def stop(self) -> None:
        """No more, until the next start."""
        self._port.exchanges.forget(MANAGEMENT)
        self.step = ""

    def logged_out(self, s_id: int, now: float) -> None:
        """A service has sent LOGO."""
        if s_id == MANAGEMENT and self.step == "registered":
            self.start(now)

    def _logged_in(self, reply: bytes | None, now: float) -> None:
        try:
            accepted = reply is not None and not isinstance(parse_reply(ElsCommand.PLOGI, reply), Reject)
        except ElsError:
            accepted = False
        if accepted:
            self._begin("RHBA", now)
        else:
            self.step = "refused"

    def _begin(self, name: str, now: float) -> None:
        port, step = self._port, STEPS[name]
        self.step = name

        def answered(reply: bytes | None, moment: float) -> None:
            accepted = _is_accepted(reply)
            if reply is not None and not accepted:
                port.counters.ct_refused += 1
            following = step.accepted if accepted else step.refused
            if following:
                self._begin(following, moment)
            else:
                self.step = "registered" if accepted else "refused"

        port.exchanges.request(
            MANAGEMENT,
            self._request(step.command).iu().pack(),
            answered,
            now,
            r_ctl=RCtl.UNSOLICITED_CONTROL,
            fc_type=FcType.COMMON_TRANSPORT,
        )

    def _request(self, command: FdmiCommand) -> FdmiRequest:
        name = self._port.port_name
        attributes = self._of_hba() if command is FdmiCommand.RHBA else self._of_port()
        return FdmiRequest(command, hba=name, port=name, ports=(name,), attributes=attributes)

    def _of_hba(self) -> Attributes:
        port, hba = self._port, self._port.hba
        assert hba is not None
        texts = {
            HbaAttribute.MODEL: hba.model,
            HbaAttribute.MODEL_DESCRIPTION: hba.description,
            HbaAttribute.DRIVER_VERSION: hba.driver_version,
            HbaAttribute.OS_NAME_AND_VERSION: hba.os,
        }
        return {
            HbaAttribute.NODE_NAME: port.node_name,
            HbaAttribute.MANUFACTURER: text(MANUFACTURER, _SHORT),
            HbaAttribute.SERIAL_NUMBER: text(colon_form(port.port_name), _SHORT),
            **{kind: text(value) for kind, value in texts.items() if value},
            HbaAttribute.MAXIMUM_CT_PAYLOAD: port.limits.sequence_length.to_bytes(4, "big"),
        }

    def _of_port(self) -> Attributes:
        port, hba = self._port, self._port.hba
        assert hba is not None
        texts = {PortAttribute.OS_DEVICE_NAME: hba.device, PortAttribute.HOST_NAME: hba.host}
        return {
            PortAttribute.FC4_TYPES: fc4_types((FcType.FCP,)),
            PortAttribute.SUPPORTED_SPEED: SPEED_UNKNOWN.to_bytes(4, "big"),
            PortAttribute.CURRENT_SPEED: SPEED_UNKNOWN.to_bytes(4, "big"),
            PortAttribute.MAXIMUM_FRAME_SIZE: port.receive_size.to_bytes(4, "big"),
            **{kind: text(value) for kind, value in texts.items() if value},
        }


def _is_accepted(reply: bytes | None) -> bool:
    try:
        return reply is not None and parse_iu(reply).accepted
    except CtError:
        return False
