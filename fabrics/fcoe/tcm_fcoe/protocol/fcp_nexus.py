"""An I_T nexus of FCP: the exchanges of one initiator, its limits, and the frames to it (FCP-4 4.2, 9)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from tcm.scsi.lun import decode as decode_lun
from tcm.scsi.lun import encode as encode_lun
from tcm_fcoe.protocol.fcp import (
    CDB_AT,
    CONF_REQ,
    GOOD_RESPONSE,
    GOOD_RESPONSE_CONF,
    TYPE_FCP,
    InformationUnit,
    ServiceParameters,
    pack_transfer_ready,
)
from tcm_fcoe.protocol.fcp_answered import Answers, answered_by
from tcm_fcoe.protocol.fcp_exchange import Exchange
from tcm_fcoe.protocol.fcp_frames import DATA_ENDS, RESPONSE, FcpFrames
from tcm_fcoe.protocol.fcp_memory import Memory
from tcm_fcoe.protocol.frame import (
    F_CTL_END_SEQUENCE,
    F_CTL_EXCHANGE_RESPONDER,
    F_CTL_SEQUENCE_INITIATIVE,
)
from tcm_fcoe.protocol.mode_pages import BurstSizes

if TYPE_CHECKING:
    from tcm.scsi.mode_pages import ModePageValues
    from tcm.target.nexus import ITLNexus, ITNexus
    from tcm.target.task import Task
    from tcm.target.task_management import TaskManagementRequest
    from tcm.target.unit_attention import UnitAttention
    from tcm_fcoe.protocol.fcp_exchange import Management
    from tcm_fcoe.protocol.fcp_identifiers import Identifiers
    from tcm_fcoe.protocol.fcp_target import FcpTarget
    from tcm_fcoe.protocol.remote_port import RemotePort

EXCHANGES_LIMIT = 1024
"""Exchanges that one initiator may have open; more commands end in TASK SET FULL."""
READ_LIMIT = 8 << 20
"""Bytes of Data-In of one initiator that are being read, or wait to be sent, beyond which its further commands wait."""
GRANT_LIMIT = 8 << 20
"""Bytes of Data-Out that one initiator may have been asked for, of commands that have not ended."""
OUTBOX_LIMIT = 512
"""Frames that wait for the link, beyond which no FCP_DATA is made."""
READS = frozenset((0x08, 0x28, 0x88, 0xA8))
"""READ (6), (10), (16) and (12)."""
FLAGS_AT = 10
"""Byte of FCP_RSP with FCP_CONF_REQ."""
STALL_PERIODS = 3
"""R_A_TOVs without a frame of the data that was asked for: the command is given up. An initiator that has lost FCP_XFER_RDY
asks with REC after REC_TOV, and if that is lost too it knows twice R_A_TOV later (FCP-4 clause 11): it aborts the exchange."""

TRANSFER_READY = TYPE_FCP << 24 | F_CTL_EXCHANGE_RESPONDER | F_CTL_END_SEQUENCE | F_CTL_SEQUENCE_INITIATIVE
"""TYPE and F_CTL."""
RESPONSE_TO_CONFIRM = TRANSFER_READY
"""FCP_RSP with FCP_CONF_REQ hands the sequence initiative over, and does not end the exchange."""


class BatchTimer(Protocol):
    """Times commands on the express lane (:class:`tcm.target.latency.ExpressTimer`)."""

    def begin(self) -> None:
        """A batch of frames has come."""

    def finish(self, seconds: float) -> None:
        """What it has set off was sent so many seconds later."""


class ScsiPort(Protocol):
    """How a nexus reaches the core without importing it."""

    nexus: ITNexus

    def make_timer(self) -> BatchTimer:
        """For the express lane of this nexus."""

    def make_task(
        self,
        lun: bytes,
        tag: int,
        cdb: bytes,
        attribute: int,
        priority: int,
        read_length: int,
        write_length: int,
        data: Any,
        context: Any,
    ) -> Task:
        """A task of this nexus; ``attribute`` is FCP's."""

    def manage(self, flag: int, lun: bytes, context: Any) -> None:
        """Hand a task management function (:class:`TaskManagementFlag`) to the core: ``context.executed(request)`` follows."""

    def abort_task(self, lun: bytes, tag: int, context: Any) -> None:
        """ABORT TASK, likewise."""

    def response_code(self, request: TaskManagementRequest) -> tuple[int, bytes]:
        """RSP_CODE and additional response information."""


class FcpNexus:
    """One initiator; implements :class:`tcm.fabric.TransportServices` for its I_T nexus.

    :param parameters: flags of PRLI that both sides have.
    """

    __slots__ = (
        "answered",
        "backlog",
        "bursts",
        "cmd_ius",
        "collecting",
        "confirms",
        "d_id",
        "data_in",
        "data_out",
        "draining",
        "exchanges",
        "frames",
        "grant_queue",
        "identifiers",
        "luns",
        "max_payload",
        "port",
        "remote",
        "retries",
        "rsp_ius",
        "rx_bytes",
        "since",
        "target",
        "timer",
        "tx_bytes",
        "watched",
        "word_ready",
        "word_response",
    )  # fmt: skip

    port: ScsiPort
    timer: BatchTimer
    luns: dict[bytes, ITLNexus]

    def __init__(self, target: FcpTarget, remote: RemotePort, parameters: int, s_id: int) -> None:
        self.target = target
        self.remote = remote
        self.d_id = remote.fc_id
        self.frames = FcpFrames(remote, s_id, responder=F_CTL_EXCHANGE_RESPONDER, data_ends=DATA_ENDS)
        self.word_ready = InformationUnit.FCP_XFER_RDY << 24 | remote.fc_id
        self.word_response = InformationUnit.FCP_RSP << 24 | remote.fc_id
        self.max_payload = self.frames.max_payload
        self.confirms = bool(parameters & ServiceParameters.CONFIRMED_COMPLETION_ALLOWED)
        self.retries = bool(parameters & ServiceParameters.RETRY)
        self.exchanges: dict[int, Exchange | Management] = {}
        """By OX_ID."""
        self.collecting: dict[int, Exchange] = {}
        """Those whose data comes before the core has them: ordinary writes, and first bursts."""
        self.backlog: deque[Exchange] = deque()
        """Commands that wait until less Data-In is on its way."""
        self.grant_queue: deque[Exchange] = deque()
        """Commands that wait for memory for their Data-Out."""
        self.data_out = Memory(target.data_out, GRANT_LIMIT)
        self.data_in = Memory(target.data_in, READ_LIMIT)
        self.bursts: dict[bytes, BurstSizes] = {}
        """By LUN, of those where MODE SELECT has changed them."""
        self.draining = False
        self.watched = False
        """This batch is being timed."""
        self.identifiers: Identifiers | None = None
        """Task retry identifiers, where PRLI has agreed on them."""
        self.answered = Answers(target.kept, target.buffers)
        """What is remembered after FCP_RSP."""
        self.since = target.now
        """Monotonic seconds of the login."""
        self.cmd_ius = 0
        self.rsp_ius = 0
        self.tx_bytes = 0
        self.rx_bytes = 0

    # to the core

    def make_task(self, exchange: Exchange, data_out: Any) -> Task:
        """The task of an exchange."""
        return self.port.make_task(
            exchange.lun,
            exchange.ox_id,
            exchange.cdb,
            exchange.attribute,
            exchange.priority,
            exchange.read_length,
            exchange.write_length,
            data_out,
            exchange,
        )

    # called by the core

    def receive_data_out(self, task: Task) -> None:
        """See :class:`tcm.fabric.TransportServices`."""
        task.context.want(task.data_out_wanted)

    def send_command_complete(self, task: Task) -> None:
        """See :class:`tcm.fabric.TransportServices`."""
        exchange = task.context
        if exchange is not None:
            exchange.complete()
            self.target.wake()

    def task_aborted(self, task: Task) -> None:
        """See :class:`tcm.fabric.TransportServices`."""
        if task.context is not None:
            task.context.abandon()

    def task_management_executed(self, request: TaskManagementRequest) -> None:
        """See :class:`tcm.fabric.TransportServices`."""
        request.context.executed(request)
        self.target.wake()

    def unsubmitted(self, lun: bytes) -> list[Task]:
        """See :class:`tcm.fabric.TransportServices`: writes whose data is collected, and what waits for memory."""
        number = decode_lun(lun)
        return [
            each.hand_over()
            for each in list(self.exchanges.values())
            if isinstance(each, Exchange) and not each.submitted and decode_lun(each.lun) == number
        ]

    def mode_pages_changed(self, lun: bytes, values: ModePageValues) -> None:
        """See :class:`tcm.fabric.TransportServices`: the Disconnect-Reconnect page."""
        self.bursts[lun] = BurstSizes.of(values)

    def burst_sizes(self, lun: bytes) -> BurstSizes:
        """Of a logical unit, by its LUN field."""
        if not self.bursts:
            return self.target.burst_sizes
        number = decode_lun(lun)
        return self.target.burst_sizes if number is None else self.bursts.get(encode_lun(number), self.target.burst_sizes)

    def asynchronous_event(self, lun: bytes, attention: UnitAttention) -> None:
        """FCP has no way to tell: the condition waits for the next command."""

    # limits

    def grant(self, exchange: Exchange, size: int) -> None:
        """Memory for Data-Out, now or in its turn."""
        if exchange in self.grant_queue:
            return
        if self.grant_queue or not self.data_out.has_room(size):
            self.grant_queue.append(exchange)
            self.target.waiting[self] = None
            return
        self.give(exchange, size)

    def give(self, exchange: Exchange, size: int, *, unsolicited: int = 0) -> None:
        """Memory for Data-Out, now.

        :param unsolicited: bytes that may come without FCP_XFER_RDY.
        """
        exchange.granted = size
        self.data_out.take(size)
        exchange.granted_memory(size, unsolicited=unsolicited)

    def hold_back(self, exchange: Exchange) -> bool:
        """Whether a command has to wait until less Data-In is on its way."""
        if not self.backlog and self.data_in.has_room(exchange.read_length):
            return False
        self.backlog.append(exchange)
        self.target.waiting[self] = None
        return True

    def finished(self, exchange: Exchange) -> None:
        """An exchange has ended: what waits for its memory goes on."""
        self.forget(exchange)
        self.leave_queues(exchange)
        if exchange.reading:
            self.data_in.give_back(exchange.reading)
            exchange.reading = 0
        if exchange.granted:
            self.data_out.give_back(exchange.granted)
            exchange.granted = 0
        if self.target.waiting:
            self.target.go_on()

    def end_write(self, exchange: Exchange) -> None:
        """A WRITE of the express lane has ended well: :meth:`finished` and :meth:`send_response` of what it can have."""
        ox_id, target = exchange.ox_id, self.target
        self.forget(exchange)
        if self.collecting.get(ox_id) is exchange:
            del self.collecting[ox_id]
        self.data_out.give_back(exchange.granted)
        exchange.granted = 0
        if target.waiting:
            target.go_on()
        if not (self.retries and self.confirms):
            exchange.response = GOOD_RESPONSE
            self.send_response(exchange)
            return
        exchange.response = GOOD_RESPONSE_CONF
        seq_id, rx_id, command = exchange.sequences, exchange.rx_id, exchange.command
        target.fresh[self.d_id << 16 | ox_id] = command
        target.counters.responses += 1
        self.rsp_ius += 1
        self.frames.put(target.outbox, self.word_response, RESPONSE_TO_CONFIRM, seq_id, ox_id, rx_id, GOOD_RESPONSE_CONF)
        after, length = seq_id + 1 & 0xFF, exchange.write_length
        answered = answered_by((rx_id, length, GOOD_RESPONSE_CONF, after, target.now, command, False))
        self.answered.remember(ox_id, answered)

    def leave_queues(self, exchange: Exchange) -> None:
        """It is not to be handed to the core later, and does not wait for memory."""
        if self.collecting.get(exchange.ox_id) is exchange:
            del self.collecting[exchange.ox_id]
        if self.grant_queue and exchange in self.grant_queue:
            self.grant_queue.remove(exchange)

    def keep(self, exchange: Exchange | Management) -> None:
        """Its OX_ID is in use, maybe instead of another's."""
        if exchange.ox_id not in self.exchanges:
            self.target.open_exchanges += 1
        self.exchanges[exchange.ox_id] = exchange

    def forget(self, exchange: Exchange | Management) -> None:
        """Its OX_ID is free."""
        if self.exchanges.get(exchange.ox_id) is exchange:
            del self.exchanges[exchange.ox_id]
            self.target.open_exchanges -= 1

    def go_on(self) -> None:
        """Commands that wait for memory."""
        if self.draining:
            return
        self.draining = True
        queue, backlog = self.grant_queue, self.backlog
        while queue and self.data_out.has_room(queue[0].wanted):
            exchange = queue.popleft()
            self.give(exchange, exchange.wanted)
        while backlog and self.data_in.has_room(backlog[0].read_length):
            exchange = backlog.popleft()
            if not exchange.done:
                exchange.submit()
        if not (queue or backlog):
            self.target.waiting.pop(self, None)
        self.draining = False

    def submit_collecting(self) -> None:
        """Something comes that must not overtake them, or has to find them: hand them to the core, whatever has come."""
        for exchange in list(self.collecting.values()):
            exchange.submit()

    def handle_timer(self, now: float, e_d_tov: float, retain: float) -> None:
        """Data that does not come, and exchanges that need not be remembered any more."""
        e_d_tov = max(e_d_tov, self.remote.e_d_tov)
        stalled = self.target.data_out_timeout or STALL_PERIODS * max(self.target.r_a_tov, 2 * e_d_tov)
        for each in list(self.exchanges.values()):
            data_out = each.data_out
            if data_out is None or not data_out.active:
                continue
            if data_out.ended and now - data_out.since > e_d_tov:
                data_out.restart()
                self.target.counters.sequence_errors += 1
            elif now - max(data_out.since, data_out.inquired) > stalled:
                self.target.counters.stalled_transfers += 1
                if not each.abort():
                    self.port.abort_task(each.lun, each.ox_id, _Nobody)
        self.answered.forget_before(now - retain)

    # after FCP_RSP

    def answer_again(self, ox_id: int, offset: int) -> None:
        """SRR: Data-In from ``offset`` on, and FCP_RSP, once more; nothing if that is under way, or it has been forgotten."""
        answered, data = self.answered.get(ox_id), self.answered.data.get(ox_id)
        if answered is None or data is None:
            return
        exchange = Exchange(self, ox_id, answered.rx_id, command=answered.command)
        exchange.submitted = True
        exchange.data_in, exchange.sent = data, offset
        exchange.burst_end = offset
        exchange.sequences, exchange.response = answered.sequences, answered.response
        self.answered.take(ox_id)
        self.keep(exchange)
        self.target.sending.append(exchange)
        self.target.pump()

    def respond_again(self, ox_id: int) -> None:
        """SRR: FCP_RSP once more, likewise."""
        answered = self.answered.take_sequence(ox_id)
        if answered is not None:
            self.put_response(ox_id, answered.rx_id, answered.sequences, answered.response)

    # frames

    def send_transfer_ready(self, exchange: Exchange, offset: int, length: int) -> None:
        """FCP_XFER_RDY, and the sequence initiative."""
        target = self.target
        target.counters.transfer_readies += 1
        seq_id = exchange.sequences
        exchange.sequences = seq_id + 1 & 0xFF
        self.frames.put(
            target.outbox, self.word_ready, TRANSFER_READY, seq_id, exchange.ox_id, exchange.rx_id,
            pack_transfer_ready(offset, length),
        )  # fmt: skip
        if not target.receiving:
            target.wake()

    def put_response(self, ox_id: int, rx_id: int, seq_id: int, response: bytes) -> None:
        """FCP_RSP."""
        self.rsp_ius += 1
        target = self.target
        target.counters.responses += 1
        f_ctl = RESPONSE_TO_CONFIRM if response[FLAGS_AT] & CONF_REQ else RESPONSE
        self.frames.put(target.outbox, self.word_response, f_ctl, seq_id, ox_id, rx_id, response)

    def send_response(self, exchange: Exchange | Management) -> None:
        """FCP_RSP of an exchange, which is remembered if it may be asked about."""
        response, target, ox_id = exchange.response, self.target, exchange.ox_id
        confirmed = bool(response[FLAGS_AT] & CONF_REQ)
        if self.retries and self.confirms and not confirmed and not is_good_read(exchange):
            confirmed = True
            response = (
                GOOD_RESPONSE_CONF
                if response is GOOD_RESPONSE
                else response[:FLAGS_AT] + bytes((response[FLAGS_AT] | CONF_REQ,)) + response[FLAGS_AT + 1 :]
            )
            exchange.response = response
        seq_id, rx_id, command = exchange.sequences, exchange.rx_id, exchange.command
        target.fresh[self.d_id << 16 | ox_id] = command
        self.put_response(ox_id, rx_id, seq_id, response)
        if confirmed or self.retries:
            data_out, data = exchange.data_out, exchange.data_in if self.retries else None
            length = len(data) if data is not None else data_out.filled if data_out is not None else 0
            self.answered.remember(
                ox_id,
                answered_by((rx_id, length, response, seq_id + 1 & 0xFF, target.now, command, exchange.borrowed)),
                data,
                confirmed=confirmed,
            )


def is_good_read(exchange: Exchange | Management) -> bool:
    """A READ of which all went well: FCP_RSP need not be confirmed (FCP-4 4.5), since nothing is lost with it.

    Its FCP_DATA has told the initiator our RX_ID, by which REC and SRR find it; if all of that was lost too, it is read again.
    All others are, where exchanges are remembered: an initiator that has seen nothing of an exchange asks with an RX_ID of
    FFFFh, and must not be given the response of the exchange before for a command that was lost.
    """
    return exchange.data_in is not None and exchange.response == GOOD_RESPONSE and exchange.command[CDB_AT] in READS


class _Nobody:
    """Nobody waits for what comes of it."""

    @staticmethod
    def executed(request: TaskManagementRequest) -> None:
        """A task that had stalled is gone."""
