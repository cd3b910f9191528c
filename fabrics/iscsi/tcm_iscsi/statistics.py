"""What the fabric tells of itself: portals, sessions and logins, and LIO's ``fabric_statistics/`` (lio-configfs 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tcm.fabric_statistics import FabricStatistics, LioGroup, LoginRow, PortalRow, SessionRow
from tcm_iscsi.access import address_of
from tcm_iscsi.connection import show_address
from tcm_iscsi.counters import SessionCounts, TargetCounters, kind_of
from tcm_iscsi.ips_auth_mib import IpsAuthMib
from tcm_iscsi.ips_auth_rows import Identities
from tcm_iscsi.mib import IscsiMib
from tcm_iscsi.mib_rows import DESCRIPTION, VENDOR, node_row, version
from tcm_iscsi.protocol.failure import Failure
from tcm_iscsi.protocol.pdu import LogoutReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcm.statistics.mib import Module
    from tcm.statistics.mib_state import MibState
    from tcm.target.device import TargetDevice
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import TargetPortalGroup
    from tcm_iscsi.protocol.session import Session
    from tcm_iscsi.server import Server
    from tcm_iscsi.sessions import Registry

FAIL_TYPES = {"other": 2, "redirect": 3, "authorize": 4, "authenticate": 5, "negotiate": 6}
"""LIO's numbers: the columns of iscsiTargetLoginStatsTable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IscsiInstance(LioGroup):
    """``iscsi_instance/``."""

    GROUP: ClassVar[str] = "iscsi_instance"
    inst: int
    min_ver: int
    max_ver: int
    portals: int
    nodes: int
    sessions: int
    fail_sess: int
    fail_type: int
    fail_rem_name: str
    disc_time: int
    description: str
    vendor: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IscsiSessErr(LioGroup):
    """``iscsi_sess_err/``."""

    GROUP: ClassVar[str] = "iscsi_sess_err"
    inst: int
    digest_errors: int
    cxn_errors: int
    format_errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IscsiTgtAttr(LioGroup):
    """``iscsi_tgt_attr/``."""

    GROUP: ClassVar[str] = "iscsi_tgt_attr"
    inst: int
    indx: int
    login_fails: int
    last_fail_time: int
    last_fail_type: int
    fail_intr_name: str
    fail_intr_addr_type: str
    fail_intr_addr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IscsiLoginStats(LioGroup):
    """``iscsi_login_stats/``."""

    GROUP: ClassVar[str] = "iscsi_login_stats"
    inst: int
    indx: int
    accepts: int
    other_fails: int
    redirects: int
    authorize_fails: int
    authenticate_fails: int
    negotiate_fails: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IscsiLogoutStats(LioGroup):
    """``iscsi_logout_stats/``."""

    GROUP: ClassVar[str] = "iscsi_logout_stats"
    inst: int
    indx: int
    normal_logouts: int
    abnormal_logouts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IscsiSessStats(LioGroup):
    """``iscsi_sess_stats/``: of the initiator's last session; all but one file are empty without one."""

    GROUP: ClassVar[str] = "iscsi_sess_stats"
    inst: int
    node: int | str = ""
    indx: int | str = ""
    cmd_pdus: int | str = ""
    rsp_pdus: int | str = ""
    txdata_octs: int | str = ""
    rxdata_octs: int | str = ""
    conn_digest_errors: int | str = ""
    conn_timeout_errors: int | str = ""


class IscsiStatistics(FabricStatistics):
    """Reads the registry's and the server's counters."""

    def __init__(self, registry: Registry, server: Server) -> None:
        self.registry = registry
        self.server = server

    def counters(self, target: TargetDevice) -> TargetCounters:
        """Of one target device."""
        return self.registry.counters.of(target.name)

    def sessions_of(self, target_name: str) -> list[Session]:
        """Normal sessions."""
        return [each for each in list(self.registry.sessions.values()) if each.identity.target_name == target_name]

    def portals(self) -> Sequence[PortalRow]:
        """By binding."""
        now: dict[int, int] = {}
        for connection in self.server.describe():
            now[id(connection.binding)] = now.get(id(connection.binding), 0) + 1
        accepted = self.registry.counters.connections
        return [
            PortalRow(
                portal=show_address((binding.address, binding.port)),
                connections=now.get(id(binding), 0),
                accepted=accepted[binding.address, binding.port],
            )
            for binding in self.registry.bindings
        ]

    def sessions(self) -> Sequence[SessionRow]:
        """Normal sessions."""
        rows = []
        for session in list(self.registry.sessions.values()):
            identity, counts, port = session.identity, SessionCounts.of(session), session.port
            rows.append(
                SessionRow(
                    target=identity.target_name,
                    tag=identity.portal_group_tag,
                    initiator=identity.initiator_name,
                    isid=identity.isid.hex(),
                    addresses=tuple(connection.peer for connection in session.connections.values()),
                    established=port.nexus.established if port is not None else 0.0,
                    cmd_pdus=counts.cmd_pdus,
                    rsp_pdus=counts.rsp_pdus,
                    txdata_octets=counts.txdata_octets,
                    rxdata_octets=counts.rxdata_octets,
                    digest_errors=session.digest_errors,
                    timeout_errors=session.timeout_errors,
                )
            )
        return rows

    def logins(self) -> Sequence[LoginRow]:
        """By target, and discovery."""
        named = [(target.name, self.counters(target)) for target in self.registry.targets]
        return [
            LoginRow(
                target=name,
                accepted=counters.accepts,
                refused={status.name.lower(): count for status, count in counters.refused.items()},
                logouts={reason.name.lower(): count for reason, count in counters.logouts.items()},
                session_failures={
                    failure.name.lower() if failure is not None else "connection_lost": count
                    for failure, count in counters.session_failures.items()
                },
            )
            for name, counters in [*named, ("", self.registry.counters.discovery)]
        ]

    def target_groups(self, target: TargetDevice) -> Sequence[LioGroup]:
        """LIO's five directories."""
        counters, inst = self.counters(target), target.index
        failed, refused = counters.session_failure, counters.login_failure
        address = refused.address if refused is not None else ""
        failures = counters.session_failures
        return (
            IscsiInstance(
                inst=inst,
                min_ver=0,
                max_ver=0,
                portals=sum(len(group.portals) for group in target.portal_groups.values()),
                nodes=1,
                sessions=len(self.sessions_of(target.name)),
                fail_sess=failures.total(),
                fail_type=failed.failure or 0 if failed is not None else 0,
                fail_rem_name=failed.initiator_name if failed is not None else "None",
                disc_time=0,
                description=DESCRIPTION,
                vendor=VENDOR,
                version=version(),
            ),
            IscsiSessErr(
                inst=inst,
                digest_errors=failures[Failure.DIGEST],
                cxn_errors=failures[Failure.TIMEOUT],
                format_errors=failures[Failure.FORMAT],
            ),
            IscsiTgtAttr(
                inst=inst,
                indx=1,
                login_fails=counters.failures,
                last_fail_time=int(refused.time * 100) if refused is not None else 0,
                last_fail_type=FAIL_TYPES[kind_of(refused.status)] if refused is not None else 0,
                fail_intr_name=(refused.initiator_name if refused is not None else "") or "None",
                fail_intr_addr_type="ipv6" if getattr(address_of(address), "version", 4) == 6 else "ipv4",
                fail_intr_addr=address or "0.0.0.0",
            ),
            IscsiLoginStats(
                inst=inst,
                indx=1,
                accepts=counters.accepts,
                other_fails=counters.refusals("other"),
                redirects=counters.refusals("redirect"),
                authorize_fails=counters.refusals("authorize"),
                authenticate_fails=counters.refusals("authenticate"),
                negotiate_fails=counters.refusals("negotiate"),
            ),
            IscsiLogoutStats(
                inst=inst,
                indx=1,
                normal_logouts=counters.logouts[LogoutReason.CLOSE_SESSION],
                abnormal_logouts=counters.logouts.total() - counters.logouts[LogoutReason.CLOSE_SESSION],
            ),
        )

    def transport_row(self, target: TargetDevice, index: int) -> tuple[int, ...]:
        """Of iscsiNodeAttributesTable."""
        del target
        return node_row(index)

    def mib(self, state: MibState) -> Sequence[Module]:
        """ISCSI-MIB, and IPS-AUTH-MIB, which it points into."""
        identities = Identities(self.registry, state)
        return (
            IpsAuthMib(identities, state).module(),
            IscsiMib(self.registry, self.server, identities, state).module(),
        )

    def node_acl_groups(self, group: TargetPortalGroup, acl: NodeAcl) -> Sequence[LioGroup]:
        """``iscsi_sess_stats/``."""
        inst = group.target.index
        found: list[Any] = [
            session
            for session in list(self.registry.sessions.values())
            if session.identity.initiator_name == acl.initiator_name and getattr(session.port, "group", None) is group
        ]
        if not found:
            return (IscsiSessStats(inst=inst),)
        session = max(found, key=lambda each: each.port.nexus.identifier)
        counts = SessionCounts.of(session)
        return (
            IscsiSessStats(
                inst=inst,
                node=1,
                indx=session.port.nexus.identifier,
                cmd_pdus=counts.cmd_pdus,
                rsp_pdus=counts.rsp_pdus,
                txdata_octs=counts.txdata_octets,
                rxdata_octs=counts.rxdata_octets,
                conn_digest_errors=session.digest_errors,
                conn_timeout_errors=session.timeout_errors,
            ),
        )
