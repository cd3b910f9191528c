"""Rows and columns of ISCSI-MIB (RFC 7147): what its values are made of, and the tables of sessions and of initiators."""

from __future__ import annotations

import functools
import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tcm.statistics.mib import ZERO_DOT_ZERO, Oid, Syntax, columns, constant, nowhere
from tcm.statistics.mib_edits import device_index
from tcm.statistics.mib_writing import unchanging
from tcm.target.device import TargetDevice
from tcm_iscsi.access import address_of, parameters_of
from tcm_iscsi.attributes import TpgParameters
from tcm_iscsi.counters import SessionCounts, TargetCounters
from tcm_iscsi.protocol.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.statistics.mib_state import Indexes
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import TargetPortalGroup
    from tcm_iscsi.protocol.pdu import LogoutReason
    from tcm_iscsi.sessions import PortalBinding

ISCSI_MIB: Oid = (1, 3, 6, 1, 2, 1, 142)
INSTANCE = 1
"""iscsiInstIndex: there is one, the fabric."""
DESCRIPTION = "tcm iSCSI target"
VENDOR = "tcm"
TARGET_ROLE = b"\x80"
"""BITS: targetTypePortal(0), targetTypeNode(0)."""
TRUE, FALSE, ACTIVE, TCP = 1, 2, 1, 6
"""TruthValue; RowStatus; IscsiTransportProtocol."""
NEVER = float("-inf")
"""A TimeStamp of 0: what the counters began with is the start of everything."""
DIGESTS = {"None": 3, "CRC32C": 4}
"""IscsiDigestMethod: noDigest, crc32c."""
NO_DIGEST_MEANT = 1
"""none: there is no such choice."""
FAILURE_COLUMNS = {"other": 2, "redirect": 3, "authorize": 4, "authenticate": 5, "negotiate": 6}
"""Of iscsiTargetLoginStatsTable."""
TASK_REPORTING = {"RFC3720": b"\x80", "ResponseFence": b"\x40", "FastAbort": b"\x20"}

INTEGER, OCTETS, IDENTIFIER = Syntax.INTEGER, Syntax.OCTET_STRING, Syntax.OBJECT_IDENTIFIER
COUNTER, GAUGE, TICKS, COUNTER_64 = Syntax.COUNTER_32, Syntax.GAUGE_32, Syntax.TIME_TICKS, Syntax.COUNTER_64
OBJECTS = (*ISCSI_MIB, 1)
STORAGE = unchanging(choices=frozenset(range(1, 6)))
"""StorageType, which is scsiInstStorageType's: another one is not taken."""


@functools.cache
def version() -> str:
    """Of this distribution."""
    return importlib.metadata.version("tcm-target-iscsi")


def node_row(index: int) -> Oid:
    """RowPointer to a target's row of iscsiNodeAttributesTable."""
    return (*OBJECTS, 5, 1, 1, 2, INSTANCE, index)


def truth(value: object) -> int:
    """TruthValue."""
    return TRUE if value else FALSE


def address_type(text: str) -> int:
    """InetAddressType: unknown(0), ipv4(1), ipv6(2)."""
    address = address_of(text)
    return 0 if address is None else 1 if address.version == 4 else 2


def address_octets(text: str) -> bytes:
    """InetAddress."""
    address = address_of(text)
    return b"" if address is None else address.packed


def parameters(target: TargetDevice) -> Any:
    """``param/`` of a node: that of its first target portal group."""
    groups = target.portal_groups
    return (groups[min(groups)].parameters if groups else None) or TpgParameters()


@dataclass(frozen=True, slots=True)
class Node:
    """A target, and what is counted of it."""

    target: TargetDevice
    counters: TargetCounters


class AuthorizedInitiator(NamedTuple):
    """A node ACL, and where it is."""

    group: TargetPortalGroup
    acl: NodeAcl


class Authorization(NamedTuple):
    """The same as a row."""

    group: TargetPortalGroup
    acl: NodeAcl
    identity: int
    """The index that its initiator has in IPS-AUTH-MIB."""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session, and the portal group it is of (``None``: discovery)."""

    session: Session
    group: Any
    credential: Oid = ZERO_DOT_ZERO
    """Where IPS-AUTH-MIB has that by which the initiator has proved itself."""

    @property
    def counts(self) -> SessionCounts:
        """Now."""
        return SessionCounts.of(self.session)

    @property
    def alias(self) -> str:
        """TargetAlias."""
        return parameters_of(self.group, self.session.identity.initiator_name).TargetAlias if self.group is not None else ""

    @property
    def established(self) -> float:
        """On the monotonic clock."""
        port = self.session.port
        return port.nexus.established if port is not None else NEVER


def digest_choice(name: str, place: int) -> Callable[[PortalBinding], int]:
    """The first or second choice of a portal for ``HeaderDigest`` or ``DataDigest``."""

    def read(binding: PortalBinding) -> int:
        chosen = getattr(portal_parameters(binding), name).split(",")
        return DIGESTS.get(chosen[place], 2) if place < len(chosen) else NO_DIGEST_MEANT

    return read


def portal_parameters(binding: PortalBinding) -> Any:
    return (binding.groups[0].parameters if binding.groups else None) or TpgParameters()


def node_parameter(name: str) -> Callable[[Node], Any]:
    """A parameter of a node."""
    return lambda node: getattr(parameters(node.target), name)


def agreed(name: str) -> Callable[[SessionRow], Any]:
    """A value that a session's login agreed on."""
    return lambda row: getattr(row.session.parameters, name)


def truth_of(read: Callable[[Any], Any]) -> Callable[[Any], int]:
    return lambda row: truth(read(row))


def last_failure(read: Callable[[Any], Any], otherwise: Any) -> Callable[[Node], Any]:
    """Of the last login that failed."""
    return lambda node: read(node.counters.login_failure) if node.counters.login_failure is not None else otherwise


def session_index(indexes: Indexes, session: Session) -> Oid:
    """Instance, node (0 for discovery), session."""
    port: Any = session.port
    if port is None:
        return INSTANCE, 0, session.identity.tsih
    return INSTANCE, device_index(indexes, port.group.target), port.nexus.identifier


def logouts(reason: LogoutReason) -> Callable[[Node], int]:
    return lambda node: node.counters.logouts[reason]


SESSION_ATTRIBUTES = columns(
    (3, "iscsiSsnDirection", INTEGER, constant(1)),
    (4, "iscsiSsnInitiatorName", OCTETS, lambda row: row.session.identity.initiator_name.encode()),
    (5, "iscsiSsnTargetName", OCTETS, lambda row: row.session.identity.target_name.encode()),
    (6, "iscsiSsnTSIH", GAUGE, lambda row: row.session.identity.tsih),
    (7, "iscsiSsnISID", OCTETS, lambda row: row.session.identity.isid),
    (8, "iscsiSsnInitiatorAlias", OCTETS, lambda row: row.session.identity.initiator_alias.encode()),
    (9, "iscsiSsnTargetAlias", OCTETS, lambda row: row.alias.encode()),
    (10, "iscsiSsnInitialR2T", INTEGER, truth_of(agreed("initial_r2t"))),
    (11, "iscsiSsnImmediateData", INTEGER, truth_of(agreed("immediate_data"))),
    (12, "iscsiSsnType", INTEGER, lambda row: 2 if row.session.port is None else 1),
    (13, "iscsiSsnMaxOutstandingR2T", GAUGE, agreed("max_outstanding_r2t")),
    (14, "iscsiSsnFirstBurstLength", GAUGE, agreed("first_burst_length")),
    (15, "iscsiSsnMaxBurstLength", GAUGE, agreed("max_burst_length")),
    (16, "iscsiSsnConnectionNumber", GAUGE, lambda row: len(row.session.connections)),
    (17, "iscsiSsnAuthIdentity", IDENTIFIER, lambda row: row.credential),
    (18, "iscsiSsnDataSequenceInOrder", INTEGER, truth_of(agreed("data_sequence_in_order"))),
    (19, "iscsiSsnDataPDUInOrder", INTEGER, truth_of(agreed("data_pdu_in_order"))),
    (20, "iscsiSsnErrorRecoveryLevel", GAUGE, agreed("error_recovery_level")),
    (21, "iscsiSsnDiscontinuityTime", TICKS, lambda row: row.established),
    (22, "iscsiSsnProtocolLevel", GAUGE, agreed("iscsi_protocol_level")),
    (23, "iscsiSsnTaskReporting", OCTETS, lambda row: TASK_REPORTING.get(row.session.parameters.task_reporting, b"\0")),
)
SESSION_STATS = columns(
    (1, "iscsiSsnCmdPDUs", COUNTER, lambda row: row.counts.cmd_pdus),
    (2, "iscsiSsnRspPDUs", COUNTER, lambda row: row.counts.rsp_pdus),
    (3, "iscsiSsnTxDataOctets", COUNTER_64, lambda row: row.counts.txdata_octets),
    (4, "iscsiSsnRxDataOctets", COUNTER_64, lambda row: row.counts.rxdata_octets),
    (5, "iscsiSsnLCTxDataOctets", COUNTER, lambda row: row.counts.txdata_octets),
    (6, "iscsiSsnLCRxDataOctets", COUNTER, lambda row: row.counts.rxdata_octets),
    (7, "iscsiSsnNopReceivedPDUs", COUNTER, lambda row: row.session.nops_received),
    (8, "iscsiSsnNopSentPDUs", COUNTER, lambda row: row.session.nops_sent),
)
CONNECTION_ATTRIBUTES = columns(
    (2, "iscsiCxnCid", GAUGE, lambda row: row.phase.cid),
    (3, "iscsiCxnState", INTEGER, lambda row: 2 if row.phase.logout is None else 3),
    (4, "iscsiCxnAddrType", INTEGER, lambda row: address_type(row.local[0])),
    (5, "iscsiCxnLocalAddr", OCTETS, lambda row: address_octets(row.local[0])),
    (6, "iscsiCxnProtocol", GAUGE, constant(TCP)),
    (7, "iscsiCxnLocalPort", GAUGE, lambda row: row.local[1]),
    (8, "iscsiCxnRemoteAddr", OCTETS, lambda row: address_octets(row.remote[0])),
    (9, "iscsiCxnRemotePort", GAUGE, lambda row: row.remote[1]),
    (10, "iscsiCxnMaxRecvDataSegLength", GAUGE, lambda row: row.phase.parameters.max_recv_data_segment_length),
    (11, "iscsiCxnMaxXmitDataSegLength", GAUGE, lambda row: row.phase.parameters.send_limit),
    (12, "iscsiCxnHeaderIntegrity", INTEGER, lambda row: DIGESTS["CRC32C" if row.phase.header_digest else "None"]),
    (13, "iscsiCxnDataIntegrity", INTEGER, lambda row: DIGESTS["CRC32C" if row.phase.data_digest else "None"]),
    (14, "iscsiCxnRecvMarker", INTEGER, constant(FALSE)),
    (15, "iscsiCxnSendMarker", INTEGER, constant(FALSE)),
    (16, "iscsiCxnVersionActive", GAUGE, constant(0)),
)

INITIATOR_TABLES = (
    nowhere("iscsiIntrPortalAttributesTable", (*OBJECTS, 4, 1), ((2, "iscsiIntrPortalTag", GAUGE),)),
    nowhere(
        "iscsiInitiatorAttributesTable",
        (*OBJECTS, 8, 1),
        (
            (1, "iscsiIntrLoginFailures", COUNTER),
            (2, "iscsiIntrLastFailureTime", TICKS),
            (3, "iscsiIntrLastFailureType", IDENTIFIER),
            (4, "iscsiIntrLastTgtFailureName", OCTETS),
            (5, "iscsiIntrLastTgtFailureAddrType", INTEGER),
            (6, "iscsiIntrLastTgtFailureAddr", OCTETS),
            (7, "iscsiIntrLastTgtFailurePort", GAUGE),
        ),
    ),
    nowhere(
        "iscsiInitiatorLoginStatsTable",
        (*OBJECTS, 8, 2),
        (
            (1, "iscsiIntrLoginAcceptRsps", COUNTER),
            (2, "iscsiIntrLoginOtherFailRsps", COUNTER),
            (3, "iscsiIntrLoginRedirectRsps", COUNTER),
            (4, "iscsiIntrLoginAuthFailRsps", COUNTER),
            (5, "iscsiIntrLoginAuthenticateFails", COUNTER),
            (6, "iscsiIntrLoginNegotiateFails", COUNTER),
            (7, "iscsiIntrLoginAuthorizeFails", COUNTER),
        ),
    ),
    nowhere(
        "iscsiInitiatorLogoutStatsTable",
        (*OBJECTS, 8, 3),
        ((1, "iscsiIntrLogoutNormals", COUNTER), (2, "iscsiIntrLogoutOthers", COUNTER)),
    ),
    nowhere(
        "iscsiIntrAuthAttributesTable",
        (*OBJECTS, 9, 1),
        (
            (2, "iscsiIntrAuthRowStatus", INTEGER),
            (3, "iscsiIntrAuthIdentity", IDENTIFIER),
            (4, "iscsiIntrAuthStorageType", INTEGER),
        ),
    ),
)
