"""ISCSI-MIB (RFC 7147, which adds columns to RFC 4544's), read from the registry's and the server's objects.

Our targets are its nodes. The tables of iSCSI initiators are there, and empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.statistics.mib import ZERO_DOT_ZERO, Module, Notification, Oid, Syntax, Table, columns, constant
from tcm.statistics.mib_edits import acl_index, device_index
from tcm.statistics.mib_writing import STATUS, Writer, unchanging
from tcm.statistics.scsi_mib_rows import transport_instance
from tcm_iscsi.counters import kind_of
from tcm_iscsi.ips_auth_rows import identity_row
from tcm_iscsi.mib_rows import (
    ACTIVE,
    CONNECTION_ATTRIBUTES,
    COUNTER,
    DESCRIPTION,
    FAILURE_COLUMNS,
    FALSE,
    GAUGE,
    IDENTIFIER,
    INITIATOR_TABLES,
    INSTANCE,
    INTEGER,
    ISCSI_MIB,
    NEVER,
    OBJECTS,
    OCTETS,
    SESSION_ATTRIBUTES,
    SESSION_STATS,
    STORAGE,
    TARGET_ROLE,
    TCP,
    TICKS,
    VENDOR,
    Authorization,
    Node,
    SessionRow,
    address_octets,
    address_type,
    digest_choice,
    last_failure,
    logouts,
    node_parameter,
    parameters,
    portal_parameters,
    session_index,
    truth_of,
    version,
)
from tcm_iscsi.mib_writing import (
    IscsiWriting,
    TargetPortal,
    number_parameter,
    portal_name,
    truth_parameter,
)
from tcm_iscsi.protocol.failure import Failure
from tcm_iscsi.protocol.pdu import LogoutReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tcm.statistics.mib_state import MibState
    from tcm_iscsi.connection import Connection
    from tcm_iscsi.ips_auth_rows import Identities
    from tcm_iscsi.server import Server
    from tcm_iscsi.sessions import PortalBinding, Registry


ColumnSpec = tuple[int, str, Syntax, "Callable[[Any], Any]", Writer]
DIGEST = unchanging(choices=frozenset(range(1, 5)))
"""IscsiDigestMethod."""


def truth(number: int, name: str) -> ColumnSpec:
    """A column of iscsiNodeAttributesTable that is Yes or No."""
    return number, f"iscsiNode{name}", INTEGER, truth_of(node_parameter(name)), truth_parameter(name)


def number(number: int, name: str, minimum: int, maximum: int) -> ColumnSpec:
    """A column of iscsiNodeAttributesTable that is a number."""
    return number, f"iscsiNode{name}", GAUGE, node_parameter(name), number_parameter(name, minimum, maximum)


class IscsiMib:
    """The module's rows.

    :param identities: what rows point to in IPS-AUTH-MIB.
    :param state: the indexes they have.
    """

    def __init__(self, registry: Registry, server: Server, identities: Identities, state: MibState) -> None:
        self.registry = registry
        self.server = server
        self.state = state
        self.indexes = state.indexes
        self.identities = identities
        self.writing = IscsiWriting(registry, identities, state)

    # rows

    def _nodes(self) -> Iterator[tuple[Oid, Node]]:
        for target in self.registry.targets:
            yield (INSTANCE, device_index(self.indexes, target)), Node(target, self.registry.counters.of(target.name))

    def _portals(self) -> Iterator[tuple[Oid, PortalBinding]]:
        for binding in self.registry.bindings:
            yield (INSTANCE, self.indexes.of("portal", portal_name(binding.address, binding.port))), binding

    def _target_portals(self) -> Iterator[tuple[Oid, TargetPortal]]:
        for index, binding in self._portals():
            for group in binding.groups:
                yield (*index, device_index(self.indexes, group.target)), TargetPortal(binding, group)

    def _authorized(self) -> Iterator[tuple[Oid, Authorization]]:
        identities = self.identities.by_name()
        for index, node in self._nodes():
            for group in node.target.portal_groups.values():
                for acl in group.node_acls.values():
                    identity = identities[acl.initiator_name].index
                    yield (*index, acl_index(self.indexes, group, acl)), Authorization(group, acl, identity)

    def _sessions(self) -> Iterator[tuple[Oid, SessionRow]]:
        identities = self.identities.by_name()
        for session in list(self.registry.sessions.values()):
            port: Any = session.port
            identity = identities.get(session.identity.initiator_name)
            proof = self.identities.credential_row(identity, port.group, session.identity.chap_user)
            yield session_index(self.indexes, session), SessionRow(session, port.group, proof)
        for connection in self.server.describe():
            if connection.phase is not None and connection.phase.session.port is None:
                discovery = connection.phase.session
                yield session_index(self.indexes, discovery), SessionRow(discovery, None)

    def _connections(self) -> Iterator[tuple[Oid, Connection]]:
        for connection in self.server.describe():
            if connection.phase is not None:
                yield (*session_index(self.indexes, connection.phase.session), connection.phase.cid + 1), connection

    # the instance

    def _failures(self, failure: Failure) -> int:
        return sum(each.session_failures[failure] for each in self.registry.counters.all())

    def _all_failures(self) -> int:
        return sum(each.session_failures.total() for each in self.registry.counters.all())

    def _last_failure(self) -> Any:
        found = [each.session_failure for each in self.registry.counters.all()]
        return max((each for each in found if each is not None), key=lambda each: each.time, default=None)

    def _last_failure_type(self, _: object) -> Oid:
        last = self._last_failure()
        return (*OBJECTS, 1, 2, 1, last.failure.value) if last is not None and last.failure is not None else ZERO_DOT_ZERO

    def _last_failure_name(self, _: object) -> bytes:
        last = self._last_failure()
        return last.initiator_name.encode() if last is not None else b""

    # tables

    def module(self) -> Module:
        """The whole of it."""
        instance, targets = self._instance(), self._targets()
        return Module(
            "ISCSI-MIB",
            ISCSI_MIB,
            (*instance, *self._portal_tables(), *targets, *INITIATOR_TABLES, *self._session_tables()),
            (
                Notification(
                    "iscsiTgtLoginFailure",
                    (*ISCSI_MIB, 0, 1),
                    targets[1],
                    "iscsiTgtLoginFailures",
                    (
                        "iscsiTgtLoginFailures",
                        "iscsiTgtLastFailureType",
                        "iscsiTgtLastIntrFailureName",
                        "iscsiTgtLastIntrFailureAddrType",
                        "iscsiTgtLastIntrFailureAddr",
                        "iscsiTgtLastIntrFailurePort",
                    ),
                ),
                Notification(
                    "iscsiIntrLoginFailure",
                    (*ISCSI_MIB, 0, 2),
                    INITIATOR_TABLES[1],
                    "iscsiIntrLoginFailures",
                    (
                        "iscsiIntrLoginFailures",
                        "iscsiIntrLastFailureType",
                        "iscsiIntrLastTgtFailureName",
                        "iscsiIntrLastTgtFailureAddrType",
                        "iscsiIntrLastTgtFailureAddr",
                        "iscsiIntrLastTgtFailurePort",
                    ),
                ),
                Notification(
                    "iscsiInstSessionFailure",
                    (*ISCSI_MIB, 0, 3),
                    instance[0],
                    "iscsiInstSsnFailures",
                    ("iscsiInstSsnFailures", "iscsiInstLastSsnFailureType", "iscsiInstLastSsnRmtNodeName"),
                ),
            ),
        )

    def _instance(self) -> tuple[Table, ...]:
        return (
            Table(
                "iscsiInstanceAttributesTable",
                (*OBJECTS, 1, 1),
                lambda: [((INSTANCE,), None)],
                columns(
                    (2, "iscsiInstDescr", OCTETS, constant(DESCRIPTION.encode())),
                    (3, "iscsiInstVersionMin", GAUGE, constant(0)),
                    (4, "iscsiInstVersionMax", GAUGE, constant(0)),
                    (5, "iscsiInstVendorID", OCTETS, constant(VENDOR.encode())),
                    (6, "iscsiInstVendorVersion", OCTETS, lambda _: version().encode()),
                    (7, "iscsiInstPortalNumber", GAUGE, lambda _: len(self.registry.bindings)),
                    (8, "iscsiInstNodeNumber", GAUGE, lambda _: len(self.registry.targets)),
                    (9, "iscsiInstSessionNumber", GAUGE, lambda _: len(dict(self._sessions()))),
                    (10, "iscsiInstSsnFailures", COUNTER, lambda _: self._all_failures()),
                    (11, "iscsiInstLastSsnFailureType", IDENTIFIER, self._last_failure_type),
                    (12, "iscsiInstLastSsnRmtNodeName", OCTETS, self._last_failure_name),
                    (13, "iscsiInstDiscontinuityTime", TICKS, lambda _: self.registry.counters.began),
                    (14, "iscsiInstXNodeArchitecture", OCTETS, lambda _: f"tcm {version()}".encode()),
                ),
            ),
            Table(
                "iscsiInstanceSsnErrorStatsTable",
                (*OBJECTS, 1, 2),
                lambda: [((INSTANCE,), None)],
                columns(
                    (1, "iscsiInstSsnDigestErrors", COUNTER, lambda _: self._failures(Failure.DIGEST)),
                    (2, "iscsiInstSsnCxnTimeoutErrors", COUNTER, lambda _: self._failures(Failure.TIMEOUT)),
                    (3, "iscsiInstSsnFormatErrors", COUNTER, lambda _: self._failures(Failure.FORMAT)),
                    (4, "iscsiInstSsnTgtUnmappedErrors", COUNTER, lambda _: self._failures(Failure.UNMAPPED)),
                ),
            ),
        )

    def _portal_tables(self) -> tuple[Table, ...]:
        return (
            Table(
                "iscsiPortalAttributesTable",
                (*OBJECTS, 2, 1),
                self._portals,
                columns(
                    (2, "iscsiPortalRowStatus", INTEGER, constant(ACTIVE), STATUS),
                    (3, "iscsiPortalRoles", OCTETS, constant(TARGET_ROLE), unchanging(0, 4)),
                    (
                        4,
                        "iscsiPortalAddrType",
                        INTEGER,
                        lambda binding: address_type(binding.address),
                        unchanging(choices=frozenset({0, 1, 2, 3, 4, 16})),
                    ),
                    (5, "iscsiPortalAddr", OCTETS, lambda binding: address_octets(binding.address), unchanging(0, 255)),
                    (6, "iscsiPortalProtocol", GAUGE, constant(TCP), unchanging(0, 255)),
                    (
                        7,
                        "iscsiPortalMaxRecvDataSegLength",
                        GAUGE,
                        lambda binding: portal_parameters(binding).MaxRecvDataSegmentLength,
                        unchanging(512, 16777215),
                    ),
                    (8, "iscsiPortalPrimaryHdrDigest", INTEGER, digest_choice("HeaderDigest", 0), DIGEST),
                    (9, "iscsiPortalPrimaryDataDigest", INTEGER, digest_choice("DataDigest", 0), DIGEST),
                    (10, "iscsiPortalSecondaryHdrDigest", INTEGER, digest_choice("HeaderDigest", 1), DIGEST),
                    (11, "iscsiPortalSecondaryDataDigest", INTEGER, digest_choice("DataDigest", 1), DIGEST),
                    (12, "iscsiPortalRecvMarker", INTEGER, constant(FALSE), unchanging(choices=frozenset({FALSE}))),
                    (13, "iscsiPortalStorageType", INTEGER, lambda _: self.state.storage, STORAGE),
                    (14, "iscsiPortalDescr", OCTETS, lambda binding: b"TLS" if binding.tls else b""),
                ),
                self.writing.portals,
            ),
            Table(
                "iscsiTgtPortalAttributesTable",
                (*OBJECTS, 3, 1),
                self._target_portals,
                columns(
                    (2, "iscsiTgtPortalPort", GAUGE, lambda row: row.binding.port, self.writing.port),
                    (3, "iscsiTgtPortalTag", GAUGE, lambda row: row.group.tag, self.writing.tag),
                ),
            ),
        )

    def _targets(self) -> tuple[Table, ...]:
        return (
            Table(
                "iscsiNodeAttributesTable",
                (*OBJECTS, 5, 1),
                self._nodes,
                columns(
                    (2, "iscsiNodeName", OCTETS, lambda node: node.target.name.encode()),
                    (3, "iscsiNodeAlias", OCTETS, lambda node: parameters(node.target).TargetAlias.encode()),
                    (4, "iscsiNodeRoles", OCTETS, constant(TARGET_ROLE)),
                    (5, "iscsiNodeTransportType", IDENTIFIER, lambda node: transport_instance(self.indexes, node.target)),
                    (6, "iscsiNodeInitialR2T", INTEGER, truth_of(node_parameter("InitialR2T"))),
                    truth(7, "ImmediateData"),
                    number(8, "MaxOutstandingR2T", 1, 65535),
                    number(9, "FirstBurstLength", 512, 16777215),
                    number(10, "MaxBurstLength", 512, 16777215),
                    number(11, "MaxConnections", 1, 65535),
                    truth(12, "DataSequenceInOrder"),
                    truth(13, "DataPDUInOrder"),
                    number(14, "DefaultTime2Wait", 0, 3600),
                    number(15, "DefaultTime2Retain", 0, 3600),
                    number(16, "ErrorRecoveryLevel", 0, 2),
                    (17, "iscsiNodeDiscontinuityTime", TICKS, lambda node: node.target.created),
                    (18, "iscsiNodeStorageType", INTEGER, lambda _: self.state.storage, STORAGE),
                ),
            ),
            Table(
                "iscsiTargetAttributesTable",
                (*OBJECTS, 6, 1),
                self._nodes,
                columns(
                    (1, "iscsiTgtLoginFailures", COUNTER, lambda node: node.counters.failures),
                    (2, "iscsiTgtLastFailureTime", TICKS, last_failure(lambda last: last.time, NEVER)),
                    (
                        3,
                        "iscsiTgtLastFailureType",
                        IDENTIFIER,
                        last_failure(lambda last: (*OBJECTS, 6, 2, 1, FAILURE_COLUMNS[kind_of(last.status)]), ZERO_DOT_ZERO),
                    ),
                    (4, "iscsiTgtLastIntrFailureName", OCTETS, last_failure(lambda last: last.initiator_name.encode(), b"")),
                    (5, "iscsiTgtLastIntrFailureAddrType", INTEGER, last_failure(lambda last: address_type(last.address), 0)),
                    (6, "iscsiTgtLastIntrFailureAddr", OCTETS, last_failure(lambda last: address_octets(last.address), b"")),
                    (7, "iscsiTgtLastIntrFailurePort", GAUGE, last_failure(lambda last: last.port, 0)),
                ),
            ),
            Table(
                "iscsiTargetLoginStatsTable",
                (*OBJECTS, 6, 2),
                self._nodes,
                columns(
                    (1, "iscsiTgtLoginAccepts", COUNTER, lambda node: node.counters.accepts),
                    (2, "iscsiTgtLoginOtherFails", COUNTER, lambda node: node.counters.refusals("other")),
                    (3, "iscsiTgtLoginRedirects", COUNTER, lambda node: node.counters.refusals("redirect")),
                    (4, "iscsiTgtLoginAuthorizeFails", COUNTER, lambda node: node.counters.refusals("authorize")),
                    (5, "iscsiTgtLoginAuthenticateFails", COUNTER, lambda node: node.counters.refusals("authenticate")),
                    (6, "iscsiTgtLoginNegotiateFails", COUNTER, lambda node: node.counters.refusals("negotiate")),
                ),
            ),
            Table(
                "iscsiTargetLogoutStatsTable",
                (*OBJECTS, 6, 3),
                self._nodes,
                columns(
                    (1, "iscsiTgtLogoutNormals", COUNTER, logouts(LogoutReason.CLOSE_SESSION)),
                    (
                        2,
                        "iscsiTgtLogoutOthers",
                        COUNTER,
                        lambda node: node.counters.logouts.total() - node.counters.logouts[LogoutReason.CLOSE_SESSION],
                    ),
                    (3, "iscsiTgtLogoutCxnClosed", COUNTER, logouts(LogoutReason.CLOSE_CONNECTION)),
                    (4, "iscsiTgtLogoutCxnRemoved", COUNTER, logouts(LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY)),
                ),
            ),
            Table(
                "iscsiTgtAuthAttributesTable",
                (*OBJECTS, 7, 1),
                self._authorized,
                columns(
                    (2, "iscsiTgtAuthRowStatus", INTEGER, constant(ACTIVE), STATUS),
                    (3, "iscsiTgtAuthIdentity", IDENTIFIER, lambda row: identity_row(row.identity), unchanging()),
                    (4, "iscsiTgtAuthStorageType", INTEGER, lambda _: self.state.storage, STORAGE),
                ),
                self.writing.authorized,
            ),
        )

    def _session_tables(self) -> tuple[Table, ...]:
        sessions = (*OBJECTS, 10)
        return (
            Table("iscsiSessionAttributesTable", (*sessions, 1), self._sessions, SESSION_ATTRIBUTES),
            Table("iscsiSessionStatsTable", (*sessions, 2), self._sessions, SESSION_STATS),
            Table(
                "iscsiSessionCxnErrorStatsTable",
                (*sessions, 3),
                self._sessions,
                columns(
                    (1, "iscsiSsnCxnDigestErrors", COUNTER, lambda row: row.session.digest_errors),
                    (2, "iscsiSsnCxnTimeoutErrors", COUNTER, lambda row: row.session.timeout_errors),
                ),
            ),
            Table("iscsiConnectionAttributesTable", (*OBJECTS, 11, 1), self._connections, CONNECTION_ATTRIBUTES),
        )
