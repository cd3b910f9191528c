"""Writes the generated parts of the documentation: ``python docs/generate.py``, or ``--check`` to only compare.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. It is made of the code's docstrings, tables
and constants, so that the two cannot disagree; ``tests/docs/test_generated.py`` compares them. It is longer than most because
of the table of limits.
"""

from __future__ import annotations

import dataclasses
import errno
import importlib
import inspect
import json
import re
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcm_backstores.null import NullBackstore
from tcm_iscsi.attributes import AclAttributes, TpgAttributes, TpgParameters

from tcm import hookspecs
from tcm.backstore import Backstore, BackstoreError, BackstoreErrorKind, Capabilities
from tcm.control.methods import Methods
from tcm.fabric import Fabric, TransportServices
from tcm.plugin_types import BackstoreType, FabricType, FilterType
from tcm.scsi.command import VARIABLE_LENGTH, Feature
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.mode_pages import BLOCK_DEVICE_PAGES, LOGICAL_BLOCK_PROVISIONING_PAGE
from tcm.scsi.sense import CheckCondition
from tcm.target import reservation_matrix
from tcm.target.device_server.identification import VPD_PAGES
from tcm.target.errors import ERRNO_KINDS, SENSES, to_check_condition
from tcm.target.log_page_table import LOG_PAGES, listed_pages
from tcm.target.logical_unit import LogicalUnit
from tcm.target.task import TaskState
from tcm.target.task_management import TaskManagementFunction

sys.path.insert(0, str(Path(__file__).parent))  # for whoever loads this file by its path
import conformance_table
import fcoe_pictures
import ffp_table
import iscsi_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ROOT = Path(__file__).parents[1]
PAGES = (
    "plugins.md",
    "docs/conformance.md",
    "docs/conformance-tests.md",
    "docs/control-protocol.md",
    "docs/fcoe.md",
    "docs/iscsi-attributes.md",
    "docs/iscsi-ffp.md",
    "docs/limits.md",
    "docs/negotiation.md",
    "docs/reservations.md",
    "docs/state-machines.md",
)
ROLE = re.compile(r":(?:meth|class|func|mod|attr|data):`~?(?:[\w.]+\.)?(\w+)`")
PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def markdown(docstring: str) -> list[str]:
    """A docstring as lines of Markdown: a paragraph a line, ``:param`` lines as a list, ``::`` blocks as Python."""
    lines: list[str] = []
    code = joining = False
    for line in inspect.cleandoc(docstring).splitlines():
        if code and line and not line.startswith("    "):
            while not lines[-1]:
                lines.pop()
            lines += ["```", ""]
            code = False
        if code:
            if line or lines[-1] != "```python":
                lines.append(line[4:])
        elif line.endswith("::"):
            lines.append("```python")
            code, joining = True, False
        else:
            text = ROLE.sub(r"`\1`", line).replace("``", "`").strip()
            text = re.sub(r"^:param (\w+): ", r"- `\1`: ", text).replace("If omitted:", "*If omitted:*")
            if joining and text and not text.startswith("- "):
                lines[-1] += f" {text}"
            else:
                lines.append(text)
            joining = bool(text)
    return [*lines, "```"] if code else lines


def signature(name: str, function: Callable[..., Any]) -> str:
    """``async writev(buffers, offset, fua=False)``."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]
    arguments = str(inspect.Signature(parameters))
    return f"{'async ' if inspect.iscoroutinefunction(function) else ''}{name}{arguments}"


def methods(cls: type[Any]) -> dict[str, Callable[..., Any]]:
    """Public methods in the order of the source."""
    return {name: value for name, value in vars(cls).items() if inspect.isfunction(value) and not name.startswith("_")}


def required(cls: type[Any]) -> dict[str, Callable[..., Any]]:
    """Those that have to be there."""
    abstract: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset())
    return {name: function for name, function in methods(cls).items() if name in abstract}


def optional(cls: type[Any]) -> dict[str, Callable[..., Any]]:
    """The others."""
    abstract: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset())
    return {name: function for name, function in methods(cls).items() if name not in abstract}


def entry(name: str, function: Callable[..., Any]) -> list[str]:
    """A heading and the docstring."""
    assert function.__doc__, name
    return [f"**`{signature(name, function)}`**", "", *markdown(function.__doc__), ""]


def entries(functions: dict[str, Callable[..., Any]]) -> list[str]:
    """All of them."""
    return [line for name, function in functions.items() for line in entry(name, function)]


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def described_fields(cls: type[Any]) -> list[str]:
    """A dataclass's fields, with their defaults and the strings below them."""
    source = inspect.getsource(cls)
    rows = []
    for field in dataclasses.fields(cls):
        found = re.search(rf'^    {field.name}: .*\n(?:    """((?:.|\n)*?)""")?', source, re.MULTILINE)
        text = " ".join(markdown((found and found[1]) or ""))
        if field.default is dataclasses.MISSING:
            default = "required"
        elif inspect.isclass(field.default):
            default = f"`{field.default.__name__}`"
        else:
            default = f"`{field.default!s}`" if field.default != "" else "empty"
        rows.append((f"`{field.name}`", default, text))
    return table(("field", "default", "meaning"), rows)


# errors


def sense_name(error: object) -> str:
    """What an initiator is told."""
    if isinstance(error, CheckCondition):
        sense, name = error.sense, type(error).__doc__ or ""
        return f"{name.rstrip('.')} ({sense.key:X}h {sense.asc:02X}h/{sense.ascq:02X}h)"
    return "BUSY status"


def errors() -> list[str]:
    """Every exception of a backstore that has a meaning of its own."""

    def both(error: BaseException) -> tuple[str, str]:
        reading, writing = (sense_name(to_check_condition(error, write=write, block_size=512)) for write in (False, True))
        return reading, "the same" if reading == writing else writing

    rows: list[tuple[str, str, str]] = []
    for kind in BackstoreErrorKind:
        assert kind in SENSES or kind is BackstoreErrorKind.BUSY
        rows.append((f"`BackstoreError(BackstoreErrorKind.{kind.name})`", *both(BackstoreError(kind))))
    numbers: dict[tuple[str, str], list[str]] = {}
    for number in (*ERRNO_KINDS, errno.ENOMEDIUM):
        numbers.setdefault(both(OSError(number, "")), []).append(f"`{errno.errorcode[number]}`")
    rows += [(f"`OSError` with errno {', '.join(names)}", *senses) for senses, names in numbers.items()]
    rows.append(("`OSError`, any other", *both(OSError(errno.ENOTTY, ""))))
    rows.append(("anything else", *both(KeyError())))
    return table(("raised", "while reading", "while writing, flushing, unmapping"), rows)


# hooks


def hooks() -> list[str]:
    """Every hook specification."""
    return entries({name: value for name, value in vars(hookspecs).items() if name.startswith("tcm_")})


# state machines


TASK_STATES: tuple[tuple[TaskState, TaskState, str], ...] = (
    (TaskState.NEW, TaskState.ENABLED, "submit, nothing in its way"),
    (TaskState.NEW, TaskState.DORMANT, "submit, an ORDERED or HEAD OF QUEUE task is in its way"),
    (TaskState.DORMANT, TaskState.ENABLED, "what it waited for has left the task set"),
    (TaskState.ENABLED, TaskState.AWAITING_DATA_OUT, "prepare wants Data-Out that is not there: receive_data_out"),
    (TaskState.AWAITING_DATA_OUT, TaskState.ENABLED, "data_out_received"),
    (TaskState.AWAITING_DATA_OUT, TaskState.COMPLETED, "data_out_failed: CHECK CONDITION"),
    (TaskState.NEW, TaskState.COMPLETED, "no logical unit there, TASK SET FULL, overlapped command: send_command_complete"),
    (TaskState.ENABLED, TaskState.COMPLETED, "executed, or a check failed: send_command_complete"),
    (TaskState.DORMANT, TaskState.ABORTED, "task management, nexus loss"),
    (TaskState.AWAITING_DATA_OUT, TaskState.ABORTED, "task management, nexus loss"),
    (TaskState.ENABLED, TaskState.ABORTED, "task management, nexus loss: after what runs has ended"),
)
"""Every change of a task's state. tests/docs/test_state_machines.py watches tasks and finds these and no others."""


def task_states() -> list[str]:
    """The life of a task as a drawing."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> NEW"]
    lines += [f"    {before.name} --> {after.name}: {why}" for before, after, why in TASK_STATES]
    return [*lines, "    COMPLETED --> [*]", "    ABORTED --> [*]", "```"]


def attributes(cls: type[Any], family: str) -> list[str]:
    """Attributes or parameters of the iSCSI fabric: what each does, and the test that shows it."""
    cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in described_fields(cls)[2:]]
    tests = [iscsi_tables.attribute_test(each.name, family) for each in dataclasses.fields(cls)]
    return table(("name", "default", "what it does", "test"), [(*row, test) for row, test in zip(cells, tests, strict=True)])


# limits

LIMITS: tuple[tuple[str, str, str], ...] = (
    # what it bounds, module:name or module:class.field, unit
    ("Queued to send, or being read for commands in progress, per connection; then commands wait",
     "tcm_iscsi.protocol.full_feature:HIGH_WATER", "bytes"),
    ("Data-Out asked for by R2T, of commands that have not ended, per connection",
     "tcm_iscsi.protocol.full_feature:GRANT_LIMIT", "bytes"),
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
    ("For how long", "tcm_fcoe.protocol.fcp_target:RETAIN_SECONDS", "seconds"),
    ("Their Data-In, in case it has to be sent again", "tcm_fcoe.protocol.fcp_answered:ANSWERED_BYTES", "bytes"),
    ("Silence of an initiator that owes Data-Out until the command is given up", "tcm_fcoe.protocol.fcp_nexus:STALL_SECONDS",
     "seconds"),
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


def commands() -> list[str]:
    """The command table."""
    needs = {
        None: "",
        Feature.UNMAP: "thin provisioning, `emulate_tpu`",
        Feature.COMPARE_AND_WRITE: "`emulate_caw`",
        Feature.ATOMIC_WRITE: "",
        Feature.BLOCK_ERASE: "thin provisioning",
        Feature.CRYPTOGRAPHIC_ERASE: "a backstore that encrypts",
        Feature.RESERVE: "`emulate_pr`",
        Feature.REPORT_SUPPORTED: "`emulate_rsoc`",
        Feature.THIRD_PARTY_COPY: "`emulate_3pc`",
        Feature.IDENTIFYING_INFORMATION: "a state directory",
        Feature.EXPLICIT_ACCESS: "a group of access type explicit",
        Feature.REFERRALS: "`lba_map`",
        Feature.TYPE_2_PROTECTION: "type 2 protection",
    }
    rows = []
    found = conformance_table.tests_by_stem()
    for command in COMMANDS:
        action = ""
        if command.service_action is not None:
            action = f"{command.service_action:0{4 if command.operation_code == VARIABLE_LENGTH else 2}X}h"
        persistent = command.persistent_reservation.value
        erasing = command.while_erasing.value
        rows.append((
            command.name, f"{command.operation_code:02X}h", action, conformance_table.clause(command),
            conformance_table.spc2_rule(command), persistent, command.access_states.value, erasing, needs[command.feature],
            conformance_table.tests_cell(command, found),
        ))  # fmt: skip
    heads = ("command", "operation code", "service action", "clause", "under another nexus's SPC-2 reservation")
    heads += ("under a persistent reservation it has no part in", "ALUA states", "while the medium is erased", "offered with")
    return table((*heads, "tests"), rows)


def reservation_rows(headings: Sequence[str], rows: Iterable[reservation_matrix.Row]) -> list[str]:
    """A table of what a persistent reservation stops."""
    word = {True: "Allowed", False: "Conflict"}
    return table(headings, [(row.name, *(word[each] for each in row.allowed)) for row in rows])


def page_code(code: int, subpage: int = 0) -> str:
    """``0Ah/01h``."""
    return f"{code:02X}h/{subpage:02X}h" if subpage else f"{code:02X}h"


def pages() -> list[str]:
    """VPD, mode and log pages, task management functions."""
    served = [function.value for function in TaskManagementFunction if function is not TaskManagementFunction.CLEAR_ACA]
    rows = (
        ("VPD pages", ", ".join(map(page_code, VPD_PAGES))),
        ("mode pages", ", ".join(page_code(*page.key) for page in (*BLOCK_DEVICE_PAGES, LOGICAL_BLOCK_PROVISIONING_PAGE))),
        ("log pages", ", ".join(page_code(*key) for key in listed_pages(LOG_PAGES))),
        ("task management functions", ", ".join(served)),
    )
    return table(("of these", "there are"), rows)


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


SUMMANDS = {
    "high water": "tcm_iscsi.protocol.full_feature:HIGH_WATER",
    "granted": "tcm_iscsi.protocol.full_feature:GRANT_LIMIT",
    "window": "tcm_iscsi.attributes:TpgAttributes.default_cmdsn_depth",
    "burst": "tcm_iscsi.attributes:TpgParameters.FirstBurstLength",
    "segment": "tcm_iscsi.attributes:TpgParameters.MaxRecvDataSegmentLength",
    "arena": "tcm_iscsi.server:ARENA",
}


def limits() -> list[str]:
    """Every bound, from the constant that makes it one."""
    rows = [(what, amount(limit(place), unit), f"`{place}`") for what, place, unit in LIMITS]
    return table(("what", "bound", "where it is set"), rows)


def control_methods() -> list[str]:
    """A row a method of the control socket."""
    rows = []
    for name, method in inspect.getmembers(Methods, inspect.iscoroutinefunction):
        if not name.startswith("_") and name != "call":
            parameters = [
                f"`{each.name}`" if each.default is each.empty else f"`{each.name}` ({json.dumps(each.default)})"
                for each in inspect.signature(method).parameters.values()
                if each.name != "self"
            ]
            rows.append((f"`{name}`", ", ".join(parameters), " ".join(markdown(method.__doc__ or ""))))
    return table(("method", "parameters (default)", "result"), rows)


def fcoe_differences(name: str) -> list[str]:
    """Where our FCoE target answers otherwise than LIO's: what ``tests/fcoe/test_golden_trace.py`` holds to."""
    rows = runpy.run_path(str(ROOT / "tests/support/fcoe_lio_differences.py"))[name]
    return table(("where", "LIO and libfc", "tcm", "clause, and why"), [row[:4] for row in rows])


PARTS: dict[str, Callable[[], list[str]]] = {
    "reservation-matrix": lambda: reservation_rows(
        ("command", *(heading for heading, _, _ in reservation_matrix.COLUMNS)), reservation_matrix.commands()
    ),
    "reservation-service-actions": lambda: reservation_rows(
        ("service action", "registered", "not registered"), reservation_matrix.service_actions()
    ),
    "backstore-required": lambda: entries(required(Backstore)),
    "backstore-optional": lambda: entries(optional(Backstore)),
    "capabilities": lambda: described_fields(Capabilities),
    "backstore-type": lambda: described_fields(BackstoreType),
    "filter-type": lambda: described_fields(FilterType),
    "fabric-type": lambda: described_fields(FabricType),
    "errors": errors,
    "transport-services": lambda: entries(methods(TransportServices)),
    "fabric-required": lambda: entries(required(Fabric)),
    "fabric-optional": lambda: entries(optional(Fabric)),
    "hooks": hooks,
    "login-states": iscsi_tables.login_states,
    "login-rules": lambda: table(("broken rule", "Login Response status"), iscsi_tables.login_rules()),
    "task-states": task_states,
    "keys": lambda: table(iscsi_tables.KEY_HEADS, iscsi_tables.key_rows()),
    "negotiation": lambda: table(iscsi_tables.NEGOTIATION_HEADS, iscsi_tables.negotiation_rows()),
    "tpg-attributes": lambda: attributes(TpgAttributes, "tpg"),
    "acl-attributes": lambda: attributes(AclAttributes, "acl"),
    "tpg-parameters": lambda: attributes(TpgParameters, "param"),
    "control-methods": control_methods,
    "limits": limits,
    "sums": sums,
    "commands": commands,
    "pages": pages,
    "tests": lambda: list(conformance_table.tests_page()),
    **fcoe_pictures.PARTS,
    "fcoe-lio": lambda: fcoe_differences("ROWS"),
    "fcoe-lio-not-seen": lambda: fcoe_differences("NOT_SEEN"),
    "ffp": lambda: table(("test", "shown", "tcm", "LIO", "RFC 7143"), ffp_table.table()),
}


def generated(text: str) -> str:
    """A page with its generated parts made anew."""
    return PART.sub(lambda match: match[1] + "\n".join(PARTS[match[2]]()).rstrip("\n") + "\n" + match[3], text)


def main() -> int:
    """0, or 1 if ``--check`` finds a difference."""
    check = "--check" in sys.argv[1:]
    differing = 0
    for page in PAGES:
        path = ROOT / page
        before = path.read_text(encoding="utf-8")
        after = generated(before)
        if before == after:
            continue
        differing = 1
        if not check:
            path.write_text(after, encoding="utf-8")
        print(f"{page}: {'differs; run python docs/generate.py' if check else 'written'}")
    return differing if check else 0


if __name__ == "__main__":
    sys.exit(main())
