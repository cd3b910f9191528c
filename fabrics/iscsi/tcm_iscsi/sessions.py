"""Sessions of all targets, and which replaces which."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.scsi.transport_id import TransportId
from tcm.target.initiator_port import InitiatorPort
from tcm.target.portal_group import NexusRefused, TargetPortalGroup
from tcm_iscsi.access import parameters_of, refusal
from tcm_iscsi.addresses import WILDCARDS
from tcm_iscsi.attributes import AclAttributes
from tcm_iscsi.counters import Counters
from tcm_iscsi.isns_records import real_addresses
from tcm_iscsi.login_policy import Policy, session_key
from tcm_iscsi.port import Port
from tcm_iscsi.protocol.discovery import PortalRecord, TargetRecord, TextPhase
from tcm_iscsi.protocol.failure import ConnectionFailed, Failure
from tcm_iscsi.protocol.faults import Faults
from tcm_iscsi.protocol.login_interface import (
    Disposition,
    LoginError,
)
from tcm_iscsi.protocol.pdu import AsyncEvent, LoginStatus, LogoutReason
from tcm_iscsi.protocol.session import Session, SessionIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tcm.target.device import TargetDevice
    from tcm.target.node_acl import Authentication, NodeAcl
    from tcm_iscsi.protocol.full_feature import FullFeaturePhase
    from tcm_iscsi.protocol.login_interface import LoginCompleted

log = logging.getLogger("tcm.iscsi")

NEGOTIATION_SECONDS = 10
"""How long an initiator has to negotiate parameters anew; if it does not, the old ones hold."""
LOST_SESSIONS = 4096
"""Sessions that wait for lost connections to come back; the one that has waited longest gives its tasks up."""
LOST_TOTAL_BYTES = 512 << 20
"""What is kept for the lost connections of all sessions; likewise."""


@dataclass(slots=True, eq=False)
class PortalBinding:
    """One listening address, and the portal groups behind it."""

    address: str
    port: int
    """0 until bound, if any free port will do."""
    groups: list[TargetPortalGroup] = field(default_factory=list)
    tls: bool = False
    """It takes nothing but TLS."""
    draining: list[TargetPortalGroup] = field(default_factory=list)
    """Groups of which nobody may log in here any more."""


class Registry:
    """All sessions of the fabric.

    :param on_error: told of failures nobody expected.
    """

    def __init__(
        self,
        targets: Sequence[TargetDevice],
        discovery_auth: Authentication | None = None,
        on_error: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self.targets = targets
        self.discovery_auth = discovery_auth
        self.bindings: list[PortalBinding] = []
        self.sessions: dict[tuple[int, str, bytes], Session] = {}
        self.tsihs: set[int] = set()
        self.last_tsih = 0
        self.waiting: dict[Session, int] = {}
        """Sessions with lost connections, the one that has waited longest first, and what was kept for them lately: bytes."""
        self.on_error = on_error
        self.counters = Counters(targets)
        self.machine_addresses: Callable[[], list[str]] = list
        """What discovery shows for a wildcard portal, besides the address at which the initiator reached us."""

    def policy(self, binding: PortalBinding, local: tuple[Any, ...], peer: tuple[Any, ...] = ()) -> Policy:
        """For one new connection, by what its socket says of both ends."""
        return Policy(self, binding, local, peer)

    def login_timeout(self, binding: PortalBinding) -> float:
        """Seconds from accept to full feature phase."""
        return float(max((g.attributes.login_timeout for g in binding.groups), default=15))

    def nopin_timeouts(self, session: Session) -> tuple[float, float]:
        """Seconds of silence before a ping, and seconds to answer it."""
        acl = node_acl(session)
        attributes = acl.attributes if acl is not None else None
        return (attributes.nopin_timeout, attributes.nopin_response_timeout) if attributes is not None else (15, 30)

    def data_out_timeout(self, session: Session) -> tuple[float, int]:
        """Seconds that a command waits for the next of its Data-Out, and how often that."""
        attributes = acl_attributes(session)
        return attributes.dataout_timeout, attributes.dataout_timeout_retries

    def new_tsih(self) -> int:
        """RFC 7143 11.13.3: 1 to 65535."""
        for _ in range(0xFFFF):
            self.last_tsih = self.last_tsih % 0xFFFF + 1
            if self.last_tsih not in self.tsihs:
                return self.last_tsih
        raise LoginError(LoginStatus.OUT_OF_RESOURCES, "all 65535 session handles are taken")

    def open_session(self, event: LoginCompleted, policy: Policy, peer: str) -> tuple[Session, TextPhase]:
        """The session that a login made, its old self ended first."""
        identity, group = event.identity, event.target.handle
        if event.disposition is Disposition.CONNECTION_REINSTATEMENT:
            session: Session = event.session
            self.reinstate(session, identity.cid)
        elif event.disposition is Disposition.ADD_CONNECTION:
            session = event.session
        else:
            if event.session is not None:
                log.info("%s: session reinstated", event.session.identity)
                self.drop(event.session)
            name = SessionIdentity(
                identity.initiator_name, identity.isid, event.tsih, event.target.name, event.target.portal_group_tag,
                identity.initiator_alias, event.authenticated_name or "",
            )  # fmt: skip
            port = Port(group, self) if group is not None else None
            depth = event.target.command_window
            session = Session(name, event.session_parameters, port, exp_cmd_sn=event.cmd_sn, depth=depth)
            if port is not None:
                port.level = event.session_parameters.iscsi_protocol_level
                initiator = InitiatorPort(
                    identity.initiator_name,
                    identity.isid,
                    TransportId(ProtocolIdentifier.ISCSI, identity.initiator_name, identity.isid).pack(),
                    peer,
                )
                try:
                    port.nexus = group.establish_nexus(initiator, session)
                except NexusRefused as e:  # the ACL was removed since the login began
                    raise ConnectionFailed(str(e)) from e
                attributes = acl_attributes(session)
                session.faults = Faults.chosen(session.parameters, attributes, random.shuffle)
                self.sessions[session_key(group, identity.initiator_name, identity.isid)] = session
            self.tsihs.add(event.tsih)
        text = TextPhase(
            lambda: policy.records(identity.initiator_name),
            event.connection_parameters,
            target_name=group.target.name if group is not None else None,
            local_address=policy.local[0],
        )
        if group is not None:
            parameters = parameters_of(group, identity.initiator_name)
            event.connection_parameters.max_xmit_data_segment_length = parameters.MaxXmitDataSegmentLength
            text.told = parameters.declarations()
        return session, text

    def parameters_changed(self, group: TargetPortalGroup) -> None:
        """``param/`` of a group or of its node ACLs: who is logged in is asked to negotiate what can be (use ALL)."""
        for session in self.sessions.values():
            if session.port is not None and getattr(session.port, "group", None) is group:
                parameters = parameters_of(group, session.identity.initiator_name)
                for connection in session.connections.values():
                    connection.parameters.max_xmit_data_segment_length = parameters.MaxXmitDataSegmentLength
                    connection.limit_sending()
                    connection.redeclare(parameters.declarations(), NEGOTIATION_SECONDS)

    def reinstate(self, session: Session, cid: int) -> None:
        """A login takes a connection's place (RFC 7143 6.3.4): the old one is logged out, for recovery if that can be."""
        connection = session.connections.get(cid)
        if session.recoverable:
            session.remove_for_recovery(cid)
        elif connection is not None:
            session.terminate(connection)
        if connection is not None:
            connection.logout = LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY
            connection.close()
            connection.wake()

    def connection_closed(self, session: Session, connection: FullFeaturePhase) -> None:
        """A connection is gone. A session ends with its last one, unless that can be recovered (RFC 7143 7.1.5, 8.3)."""
        failed = connection.logout is None and not session.closed and session.port is not None
        if failed:
            session.connection_failed(connection)
        session.acknowledged()
        if not session.closed:
            self.await_return(session)
        self.end_if_left(session)
        if failed and session.closed:
            self.counters.session_failed(session, connection.failure)

    def await_return(self, session: Session) -> None:
        """Its initiator may come back for the tasks of lost connections, unless too many are awaited already."""
        if session.lost:
            self.waiting[session] = session.kept
        while len(self.waiting) > LOST_SESSIONS or sum(self.waiting.values()) > LOST_TOTAL_BYTES:
            longest = next(iter(self.waiting))
            del self.waiting[longest]
            for lost in list(longest.lost):
                longest.give_up(lost)
            self.end_if_left(longest)
            if longest.closed and longest is not session:
                self.counters.session_failed(longest, Failure.TIMEOUT)

    def end_if_left(self, session: Session) -> None:
        """Nobody is there, and nobody can come back."""
        if not session.connections and not session.lost:
            self.end(session)

    def handle_timer(self, now: float) -> None:
        """Tasks of lost connections that nobody has reassigned, or nobody may any more."""
        for session in list(self.sessions.values()):
            try:
                self._expire(session, now)
            except Exception as e:  # a bug ends one session
                log.exception("%s: internal error, session dropped", session.identity)
                self.unhandled(str(session.identity), e)
                self._abandon(session)

    def _expire(self, session: Session, now: float) -> None:
        port: Any = session.port
        if not session.connections and (port.nexus.lost or not port.group.enabled):
            log.info("%s: nobody may come back", session.identity)
            self.counters.session_failed(session, Failure.UNMAPPED)
            self.dismiss(session)
        elif session.lost:
            session.expire(now)
            self.end_if_left(session)
            if session.closed:
                self.counters.session_failed(session, Failure.TIMEOUT)
        if not session.lost:
            self.waiting.pop(session, None)
        elif session in self.waiting:
            self.waiting[session] = session.kept

    def _abandon(self, session: Session) -> None:
        """As far as that still can be done."""
        try:
            self.dismiss(session)
        except Exception:
            log.exception("%s: internal error while it was dropped", session.identity)

    def drop(self, session: Session) -> None:
        """End a session and its connections."""
        session.lost.clear()
        self.end(session)
        for connection in list(session.connections.values()):
            connection.close()
            connection.wake()

    def drop_sessions(self, target: TargetDevice) -> None:
        """End all sessions of a target once what is queued has been sent."""
        for session in list(self.sessions.values()):
            if session.identity.target_name == target.name:
                self.dismiss(session)

    def dismiss(self, session: Session) -> None:
        """Tell every connection that the session is dropped (RFC 7143 11.9.1); close it once what is queued is sent."""
        p = session.parameters
        session.lost.clear()
        for connection in list(session.connections.values()):
            connection.async_message(AsyncEvent.SESSION_DROPPED, 0, p.default_time2wait, p.default_time2retain)
            connection.logout = LogoutReason.CLOSE_SESSION
            connection.closing = True
            connection.wake()
        self.end_if_left(session)

    def end(self, session: Session) -> None:
        """The I_T nexus is lost: its commands are aborted."""
        if session.closed:
            return
        session.closed = True
        self.waiting.pop(session, None)
        self.tsihs.discard(session.identity.tsih)
        if session.port is not None:
            port: Any = session.port
            key = session_key(port.group, session.identity.initiator_name, session.identity.isid)
            if self.sessions.get(key) is session:
                del self.sessions[key]
            port.nexus.lose()

    def unhandled(self, where: str, error: BaseException) -> None:
        """Tell whoever wants to know."""
        if self.on_error is not None:
            self.on_error(where, error)

    def records(self, initiator_name: str, peer: str = "", *, tls: bool = False) -> list[TargetRecord]:
        """Targets and their addresses, as SendTargets may tell this initiator, who is at ``peer``.

        :param tls: the initiator came through TLS: portals of the other kind are none that it can use.
        """
        found = []
        machine = self.machine_addresses()
        for target in self.targets:
            portals = [
                PortalRecord(address, binding.port, group.tag)
                for binding in self.bindings
                for group in binding.groups
                if group.target is target and binding.tls == tls and visible(group, initiator_name, peer)
                for address in (binding.address, *shown_for(binding, self.bindings, machine))
            ]
            if portals:
                found.append(TargetRecord(target.name, tuple(portals)))
        return found


def shown_for(binding: PortalBinding, bindings: Sequence[PortalBinding], machine: Sequence[str]) -> Sequence[str]:
    """Addresses of the machine that a wildcard portal stands for."""
    return real_addresses(binding, bindings, machine, "") if machine and binding.address in WILDCARDS else ()


def visible(group: TargetPortalGroup, initiator_name: str, peer: str = "") -> bool:
    """Whether discovery shows the group: the allow lists, LIO's tpg_enabled_sendtargets and demo_mode_discovery."""
    attributes = group.attributes
    if attributes.tpg_enabled_sendtargets and not group.enabled:
        return False
    if refusal(group, initiator_name, peer) is not None:
        return False
    return bool(attributes.demo_mode_discovery) or group.admits(initiator_name)


def acl_attributes(session: Session) -> AclAttributes:
    """The attributes of the node ACL a session came in by."""
    acl = node_acl(session)
    return acl.attributes if acl is not None and acl.attributes is not None else AclAttributes()


def node_acl(session: Session) -> NodeAcl | None:
    """The node ACL a session came in by."""
    port: Any = session.port
    return port.group.find_node_acl(session.identity.initiator_name) if port is not None else None
