"""FCP target of one N_Port: FCP_CMND, FCP_DATA and FCP_CONF in, FCP_XFER_RDY, FCP_DATA and FCP_RSP out (FCP-4).

Frames come in with :meth:`FcpTarget.receive`; whole Ethernet frames go to ``outbox``. Ordinary READs and WRITEs take the core's
express lane: they have no task.
"""

from __future__ import annotations

from collections import deque
from math import inf
from types import MethodType
from typing import TYPE_CHECKING, Protocol

from tcm_fcoe.protocol import fcp_command, fcp_express, fcp_recovery
from tcm_fcoe.protocol.els import Plain, Reject
from tcm_fcoe.protocol.fcp import InformationUnit, ServiceParameters
from tcm_fcoe.protocol.fcp_counters import FcpCounters
from tcm_fcoe.protocol.fcp_frames import ROOMS_LIMIT
from tcm_fcoe.protocol.fcp_identifiers import Identifiers
from tcm_fcoe.protocol.fcp_memory import Buffers, Pool
from tcm_fcoe.protocol.fcp_nexus import OUTBOX_LIMIT, FcpNexus
from tcm_fcoe.protocol.frame import F_CTL_EXCHANGE_RESPONDER, NO_EXCHANGE
from tcm_fcoe.protocol.mode_pages import BURST_UNIT, BurstSizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.basic import Abts
    from tcm_fcoe.protocol.fc4 import BasicReply, ExchangeState, ShortWays
    from tcm_fcoe.protocol.fcp_exchange import Exchange
    from tcm_fcoe.protocol.fcp_frames import Rooms
    from tcm_fcoe.protocol.fcp_nexus import ScsiPort
    from tcm_fcoe.protocol.frame import Frame
    from tcm_fcoe.protocol.remote_port import RemotePort

TURN = 64
"""Frames of one exchange before another gets its turn."""
TICK = 0.5
"""Seconds between looks at the timers."""
RETAIN_SECONDS = 10.0
"""How long an answered exchange is remembered: RR_TOV, which is long enough for REC and SRR to be tried more than once."""
DEFAULT_BURST = 256 << 10
FCP_CMND, FCP_DATA, FCP_CONF = int(InformationUnit.FCP_CMND), int(InformationUnit.FCP_DATA), int(InformationUnit.FCP_CONF)


class TargetServices(Protocol):
    """What an FCP target wants of who made it."""

    def establish(self, remote: RemotePort, nexus: FcpNexus) -> ScsiPort | None:
        """An initiator logs in: its way to the core, or ``None`` if it may not."""

    def ended(self, nexus: FcpNexus, reason: str) -> None:
        """An initiator's I_T nexus is lost."""

    def wake(self) -> None:
        """There is something to send that :meth:`FcpTarget.receive` did not cause."""

    def send_away(self, nexus: FcpNexus, now: float) -> None:
        """An initiator that is to leave has no commands any more: LOGO."""

    def look_after(self, now: float) -> bool:
        """Initiators that were sent away, every now and then. False: there are none."""


class SendsFrames(Protocol):
    """The N_Port, as much of it as concerns FCP."""

    fc_id: int
    outbox: deque[bytes]
    e_d_tov: float
    """Seconds within which the frames of a sequence follow each other."""
    r_a_tov: float
    """Seconds after which no frame of long ago comes any more."""

    @property
    def rooms(self) -> Rooms | None:
        """Where frames may be made, if the link has such memory."""


class FcpTarget:
    """FCP of one N_Port (FC-4 of :class:`tcm_fcoe.protocol.n_port.NPort`).

    :param port: the N_Port.
    :param burst_length: bytes of a burst, either way, unless MODE SELECT changes that; of 512 bytes each.
    :param data_out_timeout: seconds without a frame of the data of a write until it is given up; 0: thrice R_A_TOV.
    :param first_burst: WRITE FCP_XFER_RDY DISABLED is offered: initiators that agree send data unasked.
    """

    def __init__(
        self,
        port: SendsFrames,
        services: TargetServices,
        *,
        burst_length: int = DEFAULT_BURST,
        first_burst: bool = False,
        retry: bool = True,
        data_out_timeout: float = 0,
        counters: FcpCounters | None = None,
    ) -> None:
        self.n_port = port
        self.outbox = port.outbox
        self.rooms = port.rooms
        self.services = services
        self.burst_sizes = BurstSizes(max(burst_length // BURST_UNIT, 1) * BURST_UNIT, 0)
        """By default."""
        self.express_limit = min(fcp_express.EXPRESS_LIMIT, self.burst_sizes.maximum)
        """Bytes of Data-In that are put into frames at once."""
        self.counters = counters or FcpCounters()
        self.service_parameters = int(
            ServiceParameters.TARGET_FUNCTION
            | ServiceParameters.READ_FCP_XFER_RDY_DISABLED
            | ServiceParameters.CONFIRMED_COMPLETION_ALLOWED
            | (ServiceParameters.WRITE_FCP_XFER_RDY_DISABLED if first_burst else 0)
            | (ServiceParameters.RETRY | ServiceParameters.REC_SUPPORT if retry else 0)
        )
        self.granted = int(ServiceParameters.TASK_RETRY_IDENTIFICATION_REQUESTED) if retry else 0
        """Agreed to where an initiator asks."""
        self.nexuses: dict[int, FcpNexus] = {}
        """By the initiator's FC_ID."""
        self.open_exchanges = 0
        """Of all of them."""
        self.unsolicited: set[FcpNexus] = set()
        """Those that send first bursts unasked."""
        self.sending: deque[Exchange] = deque()
        """Exchanges with FCP_DATA to be made as the link takes it."""
        self.data_out, self.data_in, self.kept = Pool(), Pool(), Pool()
        """Memory: for data that is to come, for data to be sent, and for what may have to be sent again."""
        self.buffers = Buffers()
        """Memory that is used again."""
        self.waiting: dict[FcpNexus, None] = {}
        """Initiators with commands that wait for memory, in turn."""
        self.fresh: dict[int, bytes] = {}
        """FCP_CMND payloads of this batch that have been answered, by S_ID and OX_ID: they may still come twice. Those of short
        READs are elsewhere: :meth:`tcm_fcoe.protocol.fcp_answered.Answers.remember_read`."""
        self.batch = 0
        """Number of this batch."""
        self.timed: list[tuple[FcpNexus, float]] = []
        """Initiators that use the express lane in this batch, and since when."""
        self.again: deque[Callable[[], None]] = deque()
        """What SRR has asked for."""
        self.leaving: set[FcpNexus] = set()
        """Initiators that are sent away once they have no commands."""
        self.now = 0.0
        self.receiving = False
        self.e_d_tov, self.r_a_tov = port.e_d_tov, port.r_a_tov
        self.data_out_timeout = data_out_timeout
        self.next_rx_id = 0
        self.next_timer = inf
        self.short_ways: ShortWays = {
            FCP_CMND: MethodType(fcp_express.begin, self),  # costs less than partial
            FCP_DATA: MethodType(fcp_express.receive_data, self),
            FCP_CONF: MethodType(fcp_express.confirm, self),
        }

    def wake(self) -> None:
        """Somebody has to look at the outbox, unless we are called by somebody who will."""
        if not self.receiving:
            self.services.wake()

    # logins

    def process_login(self, remote: RemotePort, parameters: int, now: float) -> bool:
        """PRLI has come or was accepted (FCP-4 6.3). False: no image pair can be."""
        self.now = now
        counters = self.counters
        if not parameters & ServiceParameters.INITIATOR_FUNCTION:
            counters.logins_refused += 1
            return False
        self.outbox, self.rooms = self.n_port.outbox, self.n_port.rooms
        self.e_d_tov, self.r_a_tov = self.n_port.e_d_tov, self.n_port.r_a_tov
        self.end(remote.fc_id)
        agreed = parameters & (self.service_parameters | self.granted)
        nexus = FcpNexus(self, remote, agreed, self.n_port.fc_id)
        port = self.services.establish(remote, nexus)
        if port is None:
            counters.logins_refused += 1
            return False
        counters.logins += 1
        nexus.port = port
        nexus.luns = port.nexus.luns
        nexus.timer = port.make_timer()
        if agreed & ServiceParameters.TASK_RETRY_IDENTIFICATION_REQUESTED:
            nexus.identifiers = Identifiers(nexus)
            nexus.luns = {}  # no express lane: that looks at no identifiers
        self.nexuses[remote.fc_id] = nexus
        if agreed & ServiceParameters.WRITE_FCP_XFER_RDY_DISABLED:
            self.unsolicited.add(nexus)
        self.next_timer = min(self.next_timer, now + TICK)
        return True

    def process_logout(self, remote: RemotePort, reason: str, now: float) -> None:
        """PRLO, LOGO, a link that is down: the I_T nexus is lost."""
        self.now = now
        self.end(remote.fc_id, reason)

    def end(self, fc_id: int, reason: str = "another login") -> None:
        """I_T nexus loss; nothing if there is none."""
        nexus = self.nexuses.pop(fc_id, None)
        if nexus is None:
            return
        self.counters.logouts += 1
        self.unsolicited.discard(nexus)
        self.leaving.discard(nexus)
        nexus.backlog.clear()
        nexus.grant_queue.clear()
        nexus.draining = True
        self.waiting.pop(nexus, None)
        for exchange in list(nexus.exchanges.values()):
            exchange.abort()
        nexus.port.nexus.lose()
        nexus.answered.clear()
        if self.waiting:
            self.go_on()
        self.services.ended(nexus, reason)

    def leave(self, nexus: FcpNexus, now: float) -> None:
        """Send an initiator away as soon as it has no commands, unless the core stops draining its I_T nexus before."""
        self.leaving.add(nexus)
        self.next_timer = now

    def _part(self, now: float) -> None:
        for nexus in list(self.leaving):
            idle = not (nexus.exchanges or nexus.answered.exchanges)
            if idle or not nexus.port.nexus.draining:
                self.leaving.discard(nexus)
            if idle and nexus.port.nexus.draining:
                self.services.send_away(nexus, now)

    # frames

    def receive(self, remote: RemotePort, frame: Frame, now: float) -> None:
        """An FCP information unit of an initiator that has logged in (FC-2 has checked the addresses)."""
        if now != self.now:
            self.begin_batch(now)
        nexus = self.nexuses.get(remote.fc_id)
        if nexus is None:
            self.counters.unexpected_frames += 1
            return
        self.receiving = True
        try:
            r_ctl = frame.r_ctl
            if r_ctl == FCP_CMND:
                if not fcp_express.begin(
                    self,
                    remote,
                    frame.payload,
                    frame.sof,
                    frame.f_ctl,
                    frame.seq_id,
                    frame.seq_cnt,
                    frame.ox_id,
                    frame.rx_id,
                    frame.parameter,
                    now,
                ):
                    self.command(nexus, frame)
                return
            exchange = nexus.exchanges.get(frame.ox_id)
            if r_ctl == FCP_DATA and exchange is not None and frame.rx_id in (exchange.rx_id, NO_EXCHANGE):
                nexus.rx_bytes += len(frame.payload)
                exchange.receive_data(frame)
            elif r_ctl == FCP_CONF and exchange is None and nexus.answered.release(frame.ox_id):
                self.counters.confirmations += 1
            else:
                self.counters.unexpected_frames += 1
        finally:
            self.receiving = False

    def begin_batch(self, now: float) -> None:
        """Frames have come since the last ones: initiators may have seen the answers to those, and used their OX_IDs again."""
        self.now = now
        self.batch += 1
        if self.fresh:
            self.fresh.clear()

    def watch(self, nexus: FcpNexus) -> None:
        """An initiator uses the express lane: it is timed until all answers have been sent."""
        nexus.watched = True
        nexus.timer.begin()
        self.timed.append((nexus, self.now))

    def take_rx_id(self) -> int:
        """For a new exchange."""
        rx_id = self.next_rx_id
        self.next_rx_id = rx_id + 1 if rx_id < 0xFFFE else 0
        return rx_id

    def command(self, nexus: FcpNexus, frame: Frame) -> None:
        """FCP_CMND of any kind (FCP-4 9.2)."""
        counters = self.counters
        ox_id = frame.ox_id
        if frame.f_ctl & F_CTL_EXCHANGE_RESPONDER or ox_id == NO_EXCHANGE:
            counters.unexpected_frames += 1
            return
        identifiers = nexus.identifiers
        if identifiers is None or not identifiers.is_another(ox_id, frame.parameter):
            there, again = nexus.exchanges.get(ox_id), bytes(frame.payload)
            if (
                (there is not None and there.is_like(frame))
                or self.fresh.get(nexus.d_id << 16 | ox_id) == again
                or nexus.answered.repeats(ox_id, again, self.batch)
                or (identifiers is not None and identifiers.has_answered(ox_id, frame.parameter, again))
            ):
                counters.duplicate_frames += 1
                return
        if identifiers is not None:
            identifiers.note(ox_id, frame.parameter)
        nexus.answered.release(ox_id)
        fcp_command.begin(self, nexus, frame, self.take_rx_id())

    def go_on(self) -> None:
        """Memory has become free: commands that wait for it go on, each initiator's in order."""
        for nexus in list(self.waiting):
            nexus.go_on()

    # recovery

    def abort(self, remote: RemotePort, abts: Abts, reply: Callable[[BasicReply], None], now: float) -> BasicReply | None:
        """ABTS (FCP-4 12.3): the answer, or ``None``: ``reply`` will be called with it."""
        self.now = now
        return fcp_recovery.abort(self, remote.fc_id, abts, reply)

    def rec(self, remote: RemotePort, ox_id: int, rx_id: int, identifier: int = 0) -> ExchangeState | None:
        """REC (FCP-4 12.2); ``None``: there is no such exchange."""
        self.counters.recs += 1
        return fcp_recovery.rec(self, remote.fc_id, ox_id, rx_id, identifier)

    def srr(self, remote: RemotePort, payload: bytes | memoryview, now: float, identifier: int = 0) -> bytes:
        """SRR (FCP-4 12.4): the payload of FCP_ACC or FCP_RJT. What is sent again follows, at the next :meth:`resume`."""
        self.now = now
        self.counters.srrs += 1
        again = fcp_recovery.srr(self, remote.fc_id, payload, identifier)
        if isinstance(again, Reject):
            self.counters.srrs_refused += 1
            return again.pack()
        self.again.append(again)
        self.next_timer = now
        return Plain().pack()

    # sending

    def send_data(self, exchange: Exchange) -> None:
        """Data-In of an exchange is there: FCP_DATA and FCP_RSP, now or when the link has taken what waits."""
        data = exchange.data_in
        assert data is not None
        length = len(data)
        self.counters.data_in_bytes += length
        nexus = exchange.nexus
        nexus.tx_bytes += length
        self.sending.append(exchange)
        self.pump()

    def resume(self, now: float) -> None:
        """The link has taken frames: make the next ones. What has been answered until now is no duplicate any more."""
        self.begin_batch(now)
        if self.timed:
            for nexus, since in self.timed:
                nexus.watched = False
                nexus.timer.finish(now - since)
            self.timed.clear()
        if self.sending or self.again:
            self.pump()

    def pump(self) -> None:
        """Make the next frames, as long as not too many wait for the link: a turn for each exchange."""
        while self.again:
            self.again.popleft()()
        sending, outbox, rooms = self.sending, self.outbox, self.rooms
        while sending and len(outbox) < OUTBOX_LIMIT and (rooms is None or rooms.unsent < ROOMS_LIMIT):
            exchange = sending.popleft()
            if exchange.done:
                continue
            nexus, data = exchange.nexus, exchange.data_in
            assert data is not None
            length = len(data)
            start, end = exchange.sent, exchange.burst_end
            if start == end:
                end = exchange.burst_end = min(length, start + (nexus.burst_sizes(exchange.lun).maximum or length))
            stop = min(end, start + TURN * nexus.max_payload)
            exchange.seq_cnt = nexus.frames.put_data(
                outbox, rooms, exchange.ox_id, exchange.rx_id, exchange.sequences, exchange.seq_cnt, data, start, stop, end
            )
            exchange.sent = stop
            if stop < length:
                if stop == end:
                    exchange.sequences = exchange.sequences + 1 & 0xFF
                    exchange.seq_cnt = 0
                sending.append(exchange)
                continue
            exchange.sequences = exchange.sequences + 1 & 0xFF
            exchange.finish()
            nexus.send_response(exchange)
            if exchange.borrowed and not nexus.retries:
                self.buffers.give_back(data)

    def handle_timer(self, now: float) -> None:
        """Data that does not come; exchanges that need not be remembered any more."""
        self.now = now
        if self.again:
            self.pump()
        if now < self.next_timer:
            return
        for nexus in list(self.nexuses.values()):
            nexus.handle_timer(now, self.e_d_tov, RETAIN_SECONDS)
        if self.leaving:
            self._part(now)
        self.next_timer = now + TICK if self.services.look_after(now) or self.nexuses else inf
