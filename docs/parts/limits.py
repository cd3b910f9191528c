"""The tables of docs/limits.md: every bound, from the constant that makes it one, and what one session sums up to."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from tcm_backstores.null import NullBackstore

from parts.markdown import table
from tcm.target.logical_unit import LogicalUnit

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS: tuple[tuple[str, str, str], ...] = (
    # what it bounds, module:name or module:class.field, unit
    ("Queued to send, or being read for commands in progress, per connection; then commands wait",
     "tcm_iscsi.protocol.command_flow:HIGH_WATER", "bytes"),
    ("Data-Out asked for by R2T, of commands that have not ended, per connection",
     "tcm_iscsi.protocol.command_flow:GRANT_LIMIT", "bytes"),
    ("Connections of a session, whatever MaxConnections allows; then the login is refused (0302h)",
     "tcm_iscsi.login_policy:CONNECTION_LIMIT", "count"),
    ("ERL 1 and 2: responses and Data-In kept until acknowledged, per connection; then commands wait, and a NOP-In asks",
     "tcm_iscsi.protocol.unacknowledged:KEPT_BYTES", "bytes"),
    ("Likewise, the number of responses", "tcm_iscsi.protocol.unacknowledged:KEPT_RESPONSES", "count"),
    ("ERL 2: connections of a session whose tasks wait for reassignment; the oldest gives way",
     "tcm_iscsi.protocol.session:LOST_CONNECTIONS", "count"),
    ("Responses and data kept for them, per session; likewise", "tcm_iscsi.protocol.session:LOST_BYTES", "bytes"),
    ("The same for all sessions together; the session that has waited longest gives way",
     "tcm_iscsi.sessions:LOST_TOTAL_BYTES", "bytes"),
    ("Sessions with such connections; likewise", "tcm_iscsi.sessions:LOST_SESSIONS", "count"),
    ("FCoE: exchanges of one initiator that are open; then TASK SET FULL",
     "tcm_fcoe.protocol.fcp_nexus:EXCHANGES_LIMIT", "count"),
    ("Those of all initiators of a port; then BUSY or TASK SET FULL",
     "tcm_fcoe.protocol.fcp_command:PORT_EXCHANGES_LIMIT", "count"),
    ("Those that each initiator may have whatever the others do", "tcm_fcoe.protocol.fcp_command:RESERVED_EXCHANGES", "count"),
    ("Data-Out of one initiator that has been asked for; other commands of it wait", "tcm_fcoe.protocol.fcp_nexus:GRANT_LIMIT",
     "bytes"),
    ("Data-In of one initiator that is read, or waits to be sent; likewise", "tcm_fcoe.protocol.fcp_nexus:READ_LIMIT", "bytes"),
    ("Each of both, of all initiators of a port", "tcm_fcoe.protocol.fcp_memory:PORT_LIMIT", "bytes"),
    ("What each initiator may have of it whatever the others do", "tcm_fcoe.protocol.fcp_memory:RESERVE", "bytes"),
    ("Answered exchanges of one initiator that REC and SRR can ask about until FCP_CONF comes",
     "tcm_fcoe.protocol.fcp_answered:ANSWERED_LIMIT", "count"),
    ("Beside them those without FCP_CONF: READs that went well", "tcm_fcoe.protocol.fcp_answered:UNCONFIRMED_LIMIT", "count"),
    ("And short READs of the express lane, in each of two generations", "tcm_fcoe.protocol.fcp_answered:GENERATION", "count"),
    ("For how long", "tcm_fcoe.protocol.fcp_target:RETAIN_SECONDS", "seconds"),
    ("Their Data-In, in case it has to be sent again", "tcm_fcoe.protocol.fcp_answered:ANSWERED_BYTES", "bytes"),
    ("Silence of an initiator that owes Data-Out until the command is given up, times R_A_TOV (`data_out_timeout`)",
     "tcm_fcoe.protocol.fcp_nexus:STALL_PERIODS", "count"),
    ("Frames that wait for the link, beyond which no FCP_DATA is made", "tcm_fcoe.protocol.fcp_target:OUTBOX_LIMIT", "count"),
    ("Frames that wait for the link, beyond which those that come are lost", "tcm_fcoe.protocol.station:CONGESTION", "count"),
    ("Pieces of a burst that wait for what is missing between them; what would make another is lost",
     "tcm_fcoe.protocol.data_out:ISLANDS_LIMIT", "count"),
    ("FCoE, mode `fcf`: N_Ports that are logged in; then FLOGI and FDISC are refused", "tcm_fcoe.protocol.switch:MAX_PORTS",
     "count"),
    ("Those of one ENode; likewise", "tcm_fcoe.protocol.fcf:MAX_PORTS_PER_ENODE", "count"),
    ("Requests to its services of which frames are missing, of one of them", "tcm_fcoe.protocol.switch:REQUESTS_PER_PORT",
     "count"),
    ("Bytes of such a request", "tcm_fcoe.protocol.switch:REQUEST_BYTES", "bytes"),
    ("Attributes of an HBA and its ports (FDMI), of which an N_Port registers one", "tcm_fcoe.protocol.fdmi_server:HBA_BYTES",
     "bytes"),
    ("Port names in its list", "tcm_fcoe.protocol.fdmi:MAX_PORTS", "count"),
    ("FCoE, mode `vn2vn`: neighbours that are known; one that is not logged in gives way",
     "tcm_fcoe.protocol.vn2vn_neighbours:MAX_NEIGHBOURS", "count"),
    ("FCoE, mode `fabric`: FCFs that are known; one that answers nothing gives way", "tcm_fcoe.protocol.enode_fcfs:MAX_FCFS",
     "count"),
    ("N_Ports about which the directory is asked before their PLOGI is answered; then PLOGI is refused as busy",
     "tcm_fcoe.protocol.name_client:VERIFYING_LIMIT", "count"),
    ("FIP frames at once of all who have no virtual link; then they are not read",
     "tcm_fcoe.protocol.controller:STRANGERS_BURST", "count"),
    ("Likewise, a second", "tcm_fcoe.protocol.controller:STRANGERS_RATE", "count"),
    ("PLOGIs and PRLIs a second of all who have had no image pair; then they are refused as busy",
     "tcm_fcoe.protocol.els_responder:LOGIN_RATE", "count"),
    ("Sequences of a command that may end with Data-Out missing; then it fails (PROTOCOL SERVICE CRC ERROR)",
     "tcm_iscsi.protocol.data_out:RECOVERY_LIMIT", "count"),
    ("Pieces of a sequence that wait for what is missing between them; then the command fails (INCORRECT AMOUNT OF DATA)",
     "tcm_iscsi.protocol.data_out:ISLANDS_LIMIT", "count"),
    ("Gaps of a sequence that are asked for one by one; the rest of it as a whole",
     "tcm_iscsi.protocol.data_out:GAPS_LIMIT", "count"),
    ("Ended sequences that a command remembers; data for older ones drops the connection",
     "tcm_iscsi.protocol.data_out:RETIRED_LIMIT", "count"),
    ("Seconds from a connection's failure or recovery logout until its tasks end: both of these together",
     "tcm_iscsi.attributes:TpgParameters.DefaultTime2Wait", "seconds"),
    ("", "tcm_iscsi.attributes:TpgParameters.DefaultTime2Retain", "seconds"),
    ("Receive buffer, one for all connections", "tcm_iscsi.server:RECEIVE_BUFFER", "bytes"),
    ("Memory that express reads fill, one for all connections; a peer that does not take its answers keeps one for itself",
     "tcm_iscsi.server:ARENA", "bytes"),
    ("Such pieces of memory kept for the next one", "tcm_iscsi.protocol.arena:SPARE_ARENAS", "count"),
    ("Data segment of a PDU during login", "tcm_iscsi.protocol.framer:LOGIN_MAX_DATA_SEGMENT_LENGTH", "bytes"),
    ("Data segment of a PDU after login (MaxRecvDataSegmentLength)",
     "tcm_iscsi.attributes:TpgParameters.MaxRecvDataSegmentLength", "bytes"),
    ("One R2T, one Data-In sequence (MaxBurstLength)", "tcm_iscsi.attributes:TpgParameters.MaxBurstLength", "bytes"),
    ("Unsolicited data of a command (FirstBurstLength)", "tcm_iscsi.attributes:TpgParameters.FirstBurstLength", "bytes"),
    ("R2Ts outstanding for a command (MaxOutstandingR2T)", "tcm_iscsi.attributes:TpgParameters.MaxOutstandingR2T", "count"),
    ("Text of one login or text negotiation, all its PDUs", "tcm_iscsi.protocol.text:MAX_TEXT_LENGTH", "bytes"),
    ("Pairs in it", "tcm_iscsi.protocol.text:MAX_PAIRS", "count"),
    ("Clients of the control socket; then the one that is idle for longest gives way",
     "tcm.control.server:MAXIMUM_CLIENTS", "count"),
    ("Those among them with a call that changes something; then EBUSY", "tcm.control.server:MAXIMUM_CHANGES", "count"),
    ("A message of a client", "tcm.control.protocol:MAXIMUM_MESSAGE", "bytes"),
    ("Connections that have not logged in; then the oldest of the address that has most of them is dropped",
     "tcm_iscsi.logins:MAXIMUM_LOGINS", "count"),
    ("Key name", "tcm_iscsi.protocol.text:MAX_KEY_LENGTH", "bytes"),
    ("Value, unless its key says otherwise", "tcm_iscsi.protocol.text:MAX_VALUE_LENGTH", "bytes"),
    ("Commands in progress per session: the CmdSN window", "tcm_iscsi.attributes:TpgAttributes.default_cmdsn_depth", "count"),
    ("Commands of all initiators in a logical unit's task set; then TASK SET FULL or BUSY",
     "tcm.target.attributes:DeviceAttributes.queue_depth", "count"),
    ("From connecting to the end of login", "tcm_iscsi.attributes:TpgAttributes.login_timeout", "seconds"),
    ("Silence before the initiator is pinged", "tcm_iscsi.attributes:AclAttributes.nopin_timeout", "seconds"),
    ("Time it has to answer; then the connection is dropped",
     "tcm_iscsi.attributes:AclAttributes.nopin_response_timeout", "seconds"),
    ("Time that one has to take what is queued before its connection is closed",
     "tcm_iscsi.connection:CLOSING_SECONDS", "seconds"),
    ("Time that initiators get to log out when the daemon stops", "tcm.runtime:DRAIN_TIMEOUT", "seconds"),
    ("Unit attentions pending for one I_T_L nexus", "tcm.target.unit_attention:MAXIMUM_PENDING", "count"),
    ("Initiator ports whose loss a logical unit remembers", "tcm.target.lost_ports:LOST_PORTS_KEPT", "count"),
    ("I_T nexuses with persistent reservation keys, per logical unit; then INSUFFICIENT REGISTRATION RESOURCES",
     "tcm.target.persistent_reservations:MAXIMUM_REGISTRATIONS", "count"),
    ("Parameter list of PERSISTENT RESERVE OUT",
     "tcm.scsi.persistent_reservations:MAXIMUM_PARAMETER_LIST_LENGTH", "bytes"),
    ("Descriptors of one SET TARGET PORT GROUPS", "tcm.scsi.asymmetric_access:MAXIMUM_DESCRIPTORS", "count"),
    ("Lines of an LBA map", "tcm.scsi.referrals:MAXIMUM_SEGMENTS", "count"),
    ("Copies of a logical unit under way; then BUSY", "tcm.target.copy_manager:MAXIMUM_COPIES", "count"),
    ("Memory of a copy, unless the backstores copy", "tcm.target.copier:CHUNK", "bytes"),
    ("What a copy locks at a time", "tcm.target.copier:WINDOW", "bytes"),
    ("Ended copies that a logical unit remembers", "tcm.target.copy_manager:MAXIMUM_KEPT", "count"),
    ("For how long it remembers them", "tcm.target.copy_manager:HOLD_TIME", "seconds"),
    ("CSCD descriptors of an EXTENDED COPY", "tcm.scsi.third_party_copy:MAXIMUM_CSCDS", "count"),
    ("Segment descriptors of an EXTENDED COPY", "tcm.scsi.third_party_copy:MAXIMUM_SEGMENTS", "count"),
    ("Both together", "tcm.scsi.third_party_copy:MAXIMUM_DESCRIPTOR_LIST_LENGTH", "bytes"),
    ("What one segment copies", "tcm.scsi.third_party_copy:MAXIMUM_SEGMENT_LENGTH", "bytes"),
    ("ROD tokens that are good at a time, in the process; then INSUFFICIENT RESOURCES TO CREATE ROD TOKEN",
     "tcm.target.rod_tokens:MAXIMUM_TOKENS", "count"),
    ("Ranges of one logical unit that they stand for; then likewise", "tcm.target.rod_tokens:MAXIMUM_UNIT_RANGES", "count"),
    ("ROD tokens whose end is remembered", "tcm.target.rod_tokens:MAXIMUM_ENDED", "count"),
    ("Seconds that a ROD token lives, however much it is used", "tcm.target.rod_tokens:LIFETIME", "seconds"),
    ("What one ROD token stands for, and what one WRITE USING TOKEN writes", "tcm.target.rod_tokens:MAXIMUM_BYTES", "bytes"),
    ("Ranges in POPULATE TOKEN and WRITE USING TOKEN", "tcm.scsi.rod_token_commands:MAXIMUM_RANGES", "count"),
    ("What one step of VERIFY, WRITE SAME and other long commands holds in memory", "tcm.target.medium:CHUNK", "bytes"),
    ("Data buffer of a logical unit (WRITE BUFFER), once it is written", "tcm.target.buffers:DATA_BUFFER_CAPACITY", "bytes"),
    ("Self-test results that a logical unit keeps", "tcm.target.log_parameters:SELF_TESTS_KEPT", "count"),
    ("General usage parameters of 252 bytes that application clients may store in a logical unit",
     "tcm.scsi.log_pages:GENERAL_USAGE_PARAMETERS", "count"),
    ("Echo buffer of a logical unit", "tcm.target.buffers:ECHO_BUFFER_CAPACITY", "bytes"),
    ("An iSNS message that a server answers with, all its PDUs", "tcm_iscsi.protocol.isns_pdu:MAX_MESSAGE", "bytes"),
    ("Attributes in it", "tcm_iscsi.protocol.isns_attributes:MAX_ATTRIBUTES", "count"),
    ("An iSNS message to a notification port", "tcm_iscsi.protocol.isns_notifications:MAX_NOTIFICATION", "bytes"),
    ("Connections to the notification ports; then the longest idle one is closed",
     "tcm_iscsi.isns_client:MAX_CONNECTIONS", "count"),
    ("For how long such a connection may leave a message unfinished", "tcm_iscsi.isns_client:MESSAGE_SECONDS", "seconds"),
    ("For how long it may say nothing", "tcm_iscsi.isns_client:IDLE_SECONDS", "seconds"),
    ("For how long an answer of the iSNS server is waited for", "tcm_iscsi.protocol.isns_client:ANSWER_SECONDS", "seconds"),
    ("For how long a stop waits for the deregistration", "tcm_iscsi.isns_client:LEAVE_SECONDS", "seconds"),
    ("Connections in a TLS handshake; then the oldest of the address that has most of them gives way",
     "tcm_iscsi.tls:MAXIMUM_HANDSHAKES", "count"),
    ("From connecting to the end of the TLS handshake", "tcm_iscsi.tls:HANDSHAKE_SECONDS", "seconds"),
    ("What a TLS connection encrypts at a time, and keeps if the peer does not take it",
     "tcm_iscsi.tls:CHUNK", "bytes"),
    ("Connections to `--metrics` at once; then the oldest gives way once it is a second old, or else the new one is closed",
     "tcm.statistics.http:MAXIMUM_CONNECTIONS", "count"),
    ("Answers of `--metrics` that nobody reads; then those who have read the longest give way",
     "tcm.statistics.http:MAXIMUM_UNSENT", "bytes"),
    ("The head of such a request; then 431", "tcm.statistics.http:MAXIMUM_REQUEST", "bytes"),
    ("From the first byte of such a connection to the last", "tcm.statistics.http:TIMEOUT", "seconds"),
    ("An AgentX PDU of the SNMP agent's; then the connection is dropped and made again",
     "tcm.statistics.agentx:MAXIMUM_PAYLOAD", "bytes"),
    ("Values in an answer to it", "tcm.statistics.subagent:MAXIMUM_BINDS", "count"),
    ("For how long an answer of the SNMP agent's is waited for", "tcm.statistics.subagent:ANSWER_SECONDS", "seconds"),
    ("For how long the SNMP agent may read nothing", "tcm.statistics.snmp:SEND_SECONDS", "seconds"),
    ("Names in an AgentX request; more are refused", "tcm.statistics.agentx:MAXIMUM_RANGES", "count"),
    ("Variables in an answer to GetBulk", "tcm.statistics.subagent:MAXIMUM_BINDS", "count"),
    ("Rows of an SNMP table that are being made (notReady, notInService)",
     "tcm.statistics.mib_writing:MAXIMUM_PENDING", "count"),
    ("After which such a row is forgotten", "tcm.statistics.mib_writing:PENDING_SECONDS", "seconds"),
    ("SNMP indexes of one kind in `snmp.json`; then those of what is gone are forgotten",
     "tcm.statistics.mib_state:MAXIMUM_INDEXES", "count"),
    ("Identities of IPS-AUTH-MIB that are authorized nowhere yet", "tcm_iscsi.ips_auth_writing:MAXIMUM_IDENTITIES", "count"),
    ("Address ranges of such an identity", "tcm_iscsi.ips_auth_writing:MAXIMUM_ADDRESSES", "count"),
    ("SNMP notifications in 10 s, of one kind (of SCSI-MIB: of one kind and row)", "tcm.statistics.snmp:BURST", "count"),
    ("Worker threads of one blocking backstore that is PARALLEL", "tcm.adapters:MAX_THREADS", "count"),
)  # fmt: skip

SUMMANDS = {
    "high water": "tcm_iscsi.protocol.command_flow:HIGH_WATER",
    "granted": "tcm_iscsi.protocol.command_flow:GRANT_LIMIT",
    "window": "tcm_iscsi.attributes:TpgAttributes.default_cmdsn_depth",
    "burst": "tcm_iscsi.attributes:TpgParameters.FirstBurstLength",
    "segment": "tcm_iscsi.attributes:TpgParameters.MaxRecvDataSegmentLength",
    "arena": "tcm_iscsi.server:ARENA",
}


def limit(place: str) -> Any:
    """The value of ``module:NAME`` or ``module:Class.field``."""
    module, _, name = place.partition(":")
    found: Any = importlib.import_module(module)
    owner, _, field = name.partition(".")
    found = getattr(found, owner)
    if field:
        return next(each.default for each in dataclasses.fields(found) if each.name == field)
    return found


def amount(value: float, unit: str) -> str:
    """``512 KiB``, ``15 s``, ``64``."""
    if unit == "seconds":
        return f"{value:g} s"
    if unit == "count":
        return str(value)
    for shift, name in ((20, "MiB"), (10, "KiB")):
        if value >= 1 << shift and not int(value) % (1 << shift):
            return f"{int(value) >> shift} {name}"
    return f"{value} bytes"


def sums() -> list[str]:
    """What one session can make the target hold, worst case."""
    parts = {name: limit(place) for name, place in SUMMANDS.items()}
    unit = LogicalUnit("unit", NullBackstore(1 << 30), serial="")
    largest = unit.limits.maximum_transfer_length << unit.block_shift
    window = parts["window"]
    early = 2 * window * parts["burst"]
    rows = (
        ("answers that wait to be sent", parts["high water"]),
        ("one more command's Data-In: MAXIMUM TRANSFER LENGTH", largest),
        ("solicited Data-Out", parts["granted"]),
        (f"unsolicited Data-Out of {window} commands, and as many immediate ones: FirstBurstLength each", early),
        ("a PDU that is not all there yet", parts["segment"]),
        ("the arena that its answers are in", parts["arena"]),
    )
    total = ("**together**", f"**{sum(size for _, size in rows) / (1 << 20):g} MiB**")
    return table(("held for one session", "at most"), [*((what, amount(size, "bytes")) for what, size in rows), total])


def limits() -> list[str]:
    """Every bound, from the constant that makes it one."""
    rows = [(what, amount(limit(place), unit), f"`{place}`") for what, place, unit in LIMITS]
    return table(("what", "bound", "where it is set"), rows)


PARTS: dict[str, Callable[[], list[str]]] = {"limits": limits, "sums": sums}
