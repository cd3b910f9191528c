"""What LIO's ConfigFS tree has for iSCSI beside ``attrib/``, ``param/`` and ``auth/`` (lio-configfs 4.1 to 4.3.6)."""

from __future__ import annotations

import dataclasses
import errno
import os
from typing import TYPE_CHECKING, Any

from tcm.failure import ConfigError
from tcm.tree_types import FabricTree, Table, TreeAttribute
from tcm_iscsi.protocol.text import format_boolean
from tcm_iscsi.statistics import IscsiInstance, IscsiLoginStats, IscsiLogoutStats, IscsiSessErr, IscsiSessStats, IscsiTgtAttr

if TYPE_CHECKING:
    from tcm.target.node_acl import Authentication
    from tcm.target.portal_group import TargetPortalGroup
    from tcm.tree_types import NodeAclPlace, PortalGroupPlace, PortalPlace
    from tcm_iscsi.fabric import IscsiFabric
    from tcm_iscsi.protocol.full_feature import FullFeaturePhase
    from tcm_iscsi.protocol.session import Session

_NO_SESSION = "No Active iSCSI Session"
_VALUES = "---------------------[iSCSI Session Values]-----------------------"
_CONNECTIONS = "----------------------[iSCSI Connections]-------------------------"
_CLEAR = "NULL"
_SECRET_BYTES = 255


def sessions(place: NodeAclPlace) -> list[Session]:
    """The initiator's sessions with the portal group."""
    fabric: Any = place.fabric
    wanted = id(place.group), place.acl.initiator_name
    return [session for (group, name, _), session in fabric.registry.sessions.items() if (group, name) == wanted]


# the fabric


def _processors(_fabric: IscsiFabric) -> str:
    """``0-3,8``."""
    numbers = sorted(os.sched_getaffinity(0))
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _set_processors(_fabric: IscsiFabric, text: str) -> None:
    numbers: set[int] = set()
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()) or int(last or first) > 1 << 16:
            raise ConfigError(f"{text!r} is not a list of processors; write one such as 0-3,8")
        numbers.update(range(int(first), int(last or first) + 1))
    try:
        os.sched_setaffinity(0, numbers)
    except (OSError, ValueError):
        raise ConfigError(f"this machine has none of the processors {text}, or they are not ours") from None


# discovery


def _discovery(fabric: IscsiFabric) -> Authentication:
    return fabric.discovery_auth


def _set_discovery(name: str) -> TreeAttribute:
    def store(fabric: IscsiFabric, text: str) -> None:
        value = "" if text == _CLEAR else text
        if len(value.encode()) > _SECRET_BYTES:
            raise ConfigError(f"{name}: write at most {_SECRET_BYTES} bytes")
        changed = dataclasses.replace(fabric.discovery_auth, **{name: value})
        if changed.password and changed.password == changed.password_mutual:
            raise ConfigError("both directions would have the same CHAP secret (RFC 7143 9.2.1 forbids it); write another")
        fabric.discovery_auth = changed

    return TreeAttribute(lambda fabric: str(getattr(_discovery(fabric), name)), store, exact=True)


def _enforce_discovery(fabric: IscsiFabric, text: str) -> None:
    if text not in {"0", "1"}:
        raise ConfigError(f"enforce_discovery_auth={text}: write 0 or 1")
    fabric.enforce_discovery_auth = text == "1"


DISCOVERY: Table = {
    "authenticate_target": TreeAttribute(lambda fabric: f"{_discovery(fabric).authenticate_target:d}"),
    "enforce_discovery_auth": TreeAttribute(lambda fabric: f"{fabric.enforce_discovery_auth:d}", _enforce_discovery),
    **{name: _set_discovery(name) for name in ("password", "password_mutual", "userid", "userid_mutual")},
}


# portal groups and portals


def _dynamic_sessions(place: PortalGroupPlace) -> str:
    acls = place.group.node_acls
    names = {nexus.initiator_port.name for nexus in place.group.nexuses}
    return "\n".join(sorted(name for name in names if name in acls and acls[name].dynamic))


def _other_transport(what: str) -> TreeAttribute:
    def store(_place: PortalPlace, text: str) -> None:
        if text != "0":
            raise OSError(errno.EOPNOTSUPP, f"{what} is not served, only TCP is; write 0")

    return TreeAttribute(lambda _place: "0", store)


def attribute_stored(group: TargetPortalGroup, name: str) -> None:
    """As in LIO, ``authentication`` takes None out of AuthMethod, or puts it there."""
    if name != "authentication":
        return
    methods = [method for method in group.parameters.methods if method != "None"] or ["CHAP"]
    if not group.attributes.authentication:
        methods.append("None")
    group.parameters = dataclasses.replace(group.parameters, AuthMethod=",".join(methods))


# node ACLs


def _info(place: NodeAclPlace) -> str:
    """The text that rtslib takes sessions from."""
    lines: list[str] = []
    for session in sessions(place):
        identity = session.identity
        isid = " ".join(f"{byte:02x}" for byte in identity.isid)
        lines += [
            f"InitiatorName: {identity.initiator_name}",
            f"InitiatorAlias: {identity.initiator_alias}",
            f"LIO Session ID: {identity.tsih}   ISID: 0x{isid}  TSIH: {identity.tsih}  SessionType: Normal",
            f"Session State: TARG_SESS_STATE_{'LOGGED_IN' if session.connections else 'FAILED'}",
            _VALUES,
            "  CmdSN/WR  :  CmdSN/WC  :  ExpCmdSN  :  MaxCmdSN  :     ITT    :     TTT",
            _numbers(session),
            _CONNECTIONS,
        ]
        for connection in session.connections.values():
            lines += [
                f"CID: {connection.cid}  Connection State: TARG_CONN_STATE_{_state(connection)}",
                f"   Address {_host(connection.peer)} TCP  StatSN: 0x{connection.stat_sn:08x}",
            ]
    return "\n".join(lines) or f"No active iSCSI Session for Initiator Endpoint: {place.acl.initiator_name}"


def _numbers(session: Session) -> str:
    first = f" 0x{session.depth:08x}   0x{session.depth:08x}   0x{session.exp_cmd_sn:08x}"
    return f"{first}   0x{session.max_cmd_sn:08x}   0x{0:08x}   0x{session.next_ttt:08x}"


def _state(connection: FullFeaturePhase) -> str:
    if connection.logout is not None:
        return "IN_LOGOUT"
    return "CLEANUP_WAIT" if connection.closing or connection.suspended else "LOGGED_IN"


def _host(peer: str) -> str:
    """An IPv6 address keeps its brackets."""
    return peer.rpartition(":")[0]


def _set_depth(place: NodeAclPlace, text: str) -> None:
    """As in LIO, the initiator's sessions end: a command window does not change while it is in use."""
    depth = int(text) if text.isdecimal() else 0
    if not 1 <= depth <= 512:
        raise ConfigError(f"cmdsn_depth={text}: write a number from 1 to 512")
    acl, group = place.acl, place.group
    if depth == acl.cmdsn_depth:
        return
    acl.cmdsn_depth = depth
    for nexus in [nexus for nexus in group.nexuses if nexus.initiator_port.name == acl.initiator_name]:
        place.fabric.drop(nexus)


def _set_tag(place: NodeAclPlace, text: str) -> None:
    if len(text) >= 64:
        raise ConfigError("tag: write at most 63 characters")
    place.acl.tag = "" if text == _CLEAR else text


def _negotiated(key: str, field: str) -> TreeAttribute:
    def show(place: NodeAclPlace) -> str:
        for session in sessions(place):
            value = getattr(session.parameters, field)
            return format_boolean(value) if isinstance(value, bool) else f"{key}={value}".partition("=")[2]
        return _NO_SESSION

    return TreeAttribute(show)


NEGOTIATED = {
    "DataPDUInOrder": "data_pdu_in_order",
    "DataSequenceInOrder": "data_sequence_in_order",
    "DefaultTime2Retain": "default_time2retain",
    "DefaultTime2Wait": "default_time2wait",
    "ErrorRecoveryLevel": "error_recovery_level",
    "FirstBurstLength": "first_burst_length",
    "ImmediateData": "immediate_data",
    "InitialR2T": "initial_r2t",
    "MaxBurstLength": "max_burst_length",
    "MaxConnections": "max_connections",
    "MaxOutstandingR2T": "max_outstanding_r2t",
}


TREE = FabricTree(
    attributes={
        "cpus_allowed_list": TreeAttribute(_processors, _set_processors),
        "lio_version": TreeAttribute(lambda _fabric: "tcm iSCSI Target (RFC 7143)"),
    },
    discovery=DISCOVERY,
    portal_group={"dynamic_sessions": TreeAttribute(_dynamic_sessions)},
    authentication=True,
    portal={"cxgbit": _other_transport("cxgbit"), "iser": _other_transport("iSER")},
    node_acl={
        "cmdsn_depth": TreeAttribute(lambda place: str(place.acl.cmdsn_depth), _set_depth),
        "info": TreeAttribute(_info),
        "tag": TreeAttribute(lambda place: place.acl.tag, _set_tag),
    },
    node_acl_parameters={key: _negotiated(key, field) for key, field in NEGOTIATED.items()},
    target_statistics=(IscsiInstance, IscsiSessErr, IscsiTgtAttr, IscsiLoginStats, IscsiLogoutStats),
    node_acl_statistics=(IscsiSessStats,),
    node_acl_inherits=("default_erl",),
    dynamic_acl_attributes=(
        *("dataout_timeout", "dataout_timeout_retries", "nopin_timeout", "nopin_response_timeout"),
        *("random_datain_pdu_offsets", "random_datain_seq_offsets", "random_r2t_offsets"),
    ),
    attribute_stored=attribute_stored,
)
