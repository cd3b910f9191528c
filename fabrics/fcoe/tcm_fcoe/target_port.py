"""A target device as an N_Port: who may log in, and what becomes of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tcm.fabric import ProtocolModePages
from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.scsi.transport_id import TransportId
from tcm.target.initiator_port import InitiatorPort
from tcm.target.portal_group import NexusRefused
from tcm_fcoe.attributes import node_name
from tcm_fcoe.hba import describe
from tcm_fcoe.port import Port
from tcm_fcoe.protocol import mode_pages
from tcm_fcoe.protocol.controller import Allowance
from tcm_fcoe.protocol.fcp_target import RETAIN_SECONDS, FcpTarget
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import colon_form, format_fc_id, parse_name

if TYPE_CHECKING:
    from tcm.target.device import TargetDevice
    from tcm.target.nexus import ITNexus
    from tcm.target.portal_group import TargetPortalGroup
    from tcm_fcoe.attributes import FcoeOptions
    from tcm_fcoe.protocol.fcp_nexus import FcpNexus
    from tcm_fcoe.protocol.remote_port import RemotePort
    from tcm_fcoe.server import InterfaceServer

log = logging.getLogger("tcm.fcoe")
LINES, LINE_RATE = 256, 2.0
"""Log lines about logins at once; then so many a second. Who logs in and out all the time does not fill the disk."""


class TargetPort:
    """The N_Port of one target device on one interface; implements what its FCP target wants (``TargetServices``)."""

    def __init__(self, target: TargetDevice, server: InterfaceServer, options: FcoeOptions) -> None:
        self.target = target
        self.server = server
        name = parse_name(target.name)
        self.n_port = NPort(
            name,
            node_name(name),
            symbolic_name=f"tcm {target.name}",
            hba=describe(server.link.name, "FCoE target"),
        )
        self.fcp = FcpTarget(
            self.n_port, self, burst_length=options.burst, first_burst=options.first_burst, retry=options.retry,
            data_out_timeout=options.data_out_timeout,
        )  # fmt: skip
        self.n_port.fc4 = self.fcp
        self.serving = False
        """The N_Port is on its interface."""
        self.sent_away: set[str] = set()
        """Initiators that had to leave since they, or the portal group, are drained."""
        self.refused: dict[str, str] = {}
        """Why initiators were refused last, by name: said once each."""
        self._lines = Allowance(LINES, LINE_RATE)
        self._left_out = 0
        """Lines that were not written since the last one that was."""

    def _log(self, level: int, text: str, *arguments: object) -> None:
        """A line, unless there have been too many."""
        if not self._lines.take(self.server.clock()):
            self._left_out += 1
            return
        if self._left_out:
            text += " (%d lines about logins before this one were left out)"
            arguments += (self._left_out,)
            self._left_out = 0
        log.log(level, text, *arguments)

    @property
    def group(self) -> TargetPortalGroup | None:
        """The portal group, of which there is one at most."""
        return next(iter(self.target.portal_groups.values()), None)

    def update(self) -> None:
        """Be on the interface while there is a portal group that is enabled."""
        group = self.group
        if group is not None:
            pages = mode_pages.defaults(self.fcp.burst_sizes.maximum, RETAIN_SECONDS)
            group.protocol_mode_pages = ProtocolModePages(mode_pages.PAGES, pages)
        wanted = group is not None and group.enabled
        if wanted and not self.serving:
            self.serving = True
            self.server.add_port(self.n_port)
        elif not wanted and self.serving:
            self.serving = False
            self.server.remove_port(self.n_port)

    def remove(self) -> None:
        """The target device is gone."""
        if self.serving:
            self.serving = False
            self.server.remove_port(self.n_port)

    def end(self, reason: str) -> None:
        """All I_T nexuses are lost."""
        for fc_id in list(self.fcp.nexuses):
            self.fcp.end(fc_id, reason)

    # called by the FCP target

    def establish(self, remote: RemotePort, nexus: FcpNexus) -> Port | None:
        """See :class:`tcm_fcoe.protocol.fcp_target.TargetServices`."""
        group = self.group
        name = colon_form(remote.port_name)
        if group is None:
            return None
        for other in list(self.fcp.nexuses.values()):
            if other.remote.port_name == remote.port_name:  # it has another address now
                self.fcp.end(other.remote.fc_id)
        initiator = InitiatorPort(
            name=name,
            transport_id=TransportId(ProtocolIdentifier.FCP, remote.port_name.hex()).pack(),
            address=format_fc_id(remote.fc_id),
        )
        port = Port(group)
        try:
            port.nexus = group.establish_nexus(initiator, nexus)
        except NexusRefused as refusal:
            if self.refused.get(name) != str(refusal):
                self._log(logging.WARNING, "%s: refused: %s", self.server, refusal)
            if len(self.refused) > REFUSED_LIMIT:
                self.refused.clear()
            self.refused[name] = str(refusal)
            return None
        self.refused.pop(name, None)
        self._log(
            logging.INFO, "%s: %s logged in to %s (FC_ID %s)", self.server, name, self.target.name, format_fc_id(remote.fc_id)
        )
        return port

    def ended(self, nexus: FcpNexus, reason: str) -> None:
        """See :class:`tcm_fcoe.protocol.fcp_target.TargetServices`."""
        self._log(
            logging.INFO,
            "%s: %s is logged out of %s: %s",
            self.server,
            colon_form(nexus.remote.port_name),
            self.target.name,
            reason,
        )

    def send_away(self, nexus: FcpNexus, now: float) -> None:
        """See :class:`tcm_fcoe.protocol.fcp_target.TargetServices`."""
        self.sent_away.add(colon_form(nexus.remote.port_name))
        self.n_port.logout(nexus.remote, now)
        self.fcp.end(nexus.remote.fc_id, "it is about to be removed")

    def look_after(self, now: float) -> bool:
        """See :class:`tcm_fcoe.protocol.fcp_target.TargetServices`: who was sent away may come again if nothing came of it."""
        del now
        group = self.group
        if self.sent_away and (group is None or not any(map(group.drains, self.sent_away))):
            again, self.sent_away = self.sent_away, set()
            for name in again if group is not None else ():
                self.admit(name)
        return bool(self.sent_away)

    def wake(self) -> None:
        """See :class:`tcm_fcoe.protocol.fcp_target.TargetServices`."""
        self.server.wake()

    # the administrator's changes

    def drop(self, nexus: ITNexus) -> None:
        """End an initiator's login: LOGO."""
        for each in list(self.fcp.nexuses.values()):
            if each.port.nexus is nexus:
                self.n_port.logout(each.remote, self.server.clock())
                self.fcp.end(each.remote.fc_id, "the administrator's wish")
        nexus.lose()
        self.server.wake()

    def request_logout(self, nexus: ITNexus) -> None:
        """Have an initiator leave once it has no commands: LOGO, and PRLI is refused while it is drained."""
        for each in list(self.fcp.nexuses.values()):
            if each.port.nexus is nexus:
                self.fcp.leave(each, self.server.clock())
        self.server.wake()

    def admit(self, initiator: str | None) -> None:
        """It may log in from now on (``None``: all who were refused): without an image pair, LOGO makes it try again."""
        for remote in list(self.n_port.remotes.values()):
            name = colon_form(remote.port_name)
            wanted = name in self.refused if initiator is None else name == initiator
            if wanted and remote.logged_in and remote.fc_id not in self.fcp.nexuses:
                self.n_port.logout(remote, self.server.clock())
        self.server.wake()


REFUSED_LIMIT = 1024
"""Initiators of whom it is remembered that their refusal has been told."""
