"""An FCP initiator port, sans-IO (FCP-4): commands in, frames out; frames in, commands done. The FC-4 of an N_Port.

Frames come in with :meth:`FcpInitiator.receive`; whole Ethernet frames go to the N_Port's ``outbox``. What is lost is the
business of :mod:`tcm_fcoe.initiator.recovery`.

Longer than most files because what happens to each command and frame is one class, without calls between modules on the way.
"""

from __future__ import annotations

from array import array
from collections import deque
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from tcm_fcoe.initiator.counters import InitiatorCounters
from tcm_fcoe.initiator.nexus import TargetNexus, nexus_with
from tcm_fcoe.initiator.options import Options
from tcm_fcoe.initiator.pieces import Pieces
from tcm_fcoe.initiator.recovery import Recoveries
from tcm_fcoe.initiator.results import ProtocolViolation, RequestFailed, TargetLost, TaskAborted
from tcm_fcoe.protocol.basic import UNKNOWN_EXCHANGE, Abts
from tcm_fcoe.protocol.els import Reject
from tcm_fcoe.protocol.els_codes import Reason
from tcm_fcoe.protocol.exchange import FC4_OX_IDS
from tcm_fcoe.protocol.fcp import (
    GOOD_RESPONSE,
    GOOD_RESPONSE_CONF,
    TRANSFER_READY_LENGTH,
    FcpError,
    InformationUnit,
    Response,
    ResponseCode,
    ServiceParameters,
    TaskManagementFlag,
    unpack_ready,
    unpack_transfer_ready,
)
from tcm_fcoe.protocol.fcp_frames import ROOMS_LIMIT
from tcm_fcoe.protocol.frame import F_CTL_EXCHANGE_RESPONDER, F_CTL_RELATIVE_OFFSET, NO_EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.initiator.tasks import FcpTask
    from tcm_fcoe.protocol.exchange import Exchanges
    from tcm_fcoe.protocol.fc4 import BasicReply, ExchangeState, ShortWays
    from tcm_fcoe.protocol.fcp_frames import Rooms
    from tcm_fcoe.protocol.frame import Frame
    from tcm_fcoe.protocol.recovery import Aborts
    from tcm_fcoe.protocol.remote_port import RemotePort

OUTBOX_LIMIT = 512
"""Frames that wait for the link, beyond which no FCP_DATA is made."""
TURN = 64
"""Frames of one command before another gets its turn."""
FCP_DATA, FCP_XFER_RDY, FCP_RSP = (
    int(InformationUnit.FCP_DATA),
    int(InformationUnit.FCP_XFER_RDY),
    int(InformationUnit.FCP_RSP),
)
_GOOD = frozenset((GOOD_RESPONSE, GOOD_RESPONSE_CONF))
CONFIRM_AT = 10
"""Byte of FCP_RSP with its flags."""
_DATA_BITS = F_CTL_EXCHANGE_RESPONDER | F_CTL_RELATIVE_OFFSET
_CLEARING = {
    TaskManagementFlag.ABORT_TASK_SET: True,
    TaskManagementFlag.CLEAR_TASK_SET: True,
    TaskManagementFlag.LOGICAL_UNIT_RESET: True,
    TaskManagementFlag.TARGET_RESET: False,
}
"""Functions that end our commands: whether those of one logical unit only."""


class Port(Protocol):
    """The N_Port, as much of it as concerns FCP."""

    fc_id: int
    outbox: deque[bytes]
    exchanges: Exchanges
    aborts: Aborts

    @property
    def rooms(self) -> Rooms | None:
        """Memory of the link in which frames may be made."""


class FcpInitiator:
    """FCP of one N_Port (FC-4 of :class:`tcm_fcoe.protocol.n_port.NPort`).

    ``on_login(nexus)`` and ``on_logout(nexus, reason)`` are called when targets come and go.

    :param port: the N_Port.
    """

    def __init__(self, port: Port, options: Options | None = None) -> None:
        self.port = port
        self.outbox = port.outbox
        self.rooms = port.rooms
        self.options = options or Options()
        self.service_parameters = self.options.service_parameters()
        self.granted = 0
        self.counters = InitiatorCounters()
        self.nexuses: dict[int, TargetNexus] = {}
        """By the target's FC_ID."""
        self.tasks: dict[int, FcpTask] = {}
        """Those that have an exchange, by OX_ID."""
        self.sending: deque[FcpTask] = deque()
        """Commands with FCP_DATA to be made as the link takes it."""
        self.recoveries = Recoveries(self)
        self.on_login: Callable[[TargetNexus], None] | None = None
        self.on_logout: Callable[[TargetNexus, str], None] | None = None
        self.now = 0.0
        self.next_timer = inf
        self._next_ox_id = FC4_OX_IDS.start
        self.last_rx_ids = array("H", (NO_EXCHANGE,)) * (NO_EXCHANGE + 1)
        """By OX_ID, of the exchange before: what the target still says of that one is no news of the next."""
        # a tenth of the shortest patience is how late one may be
        recovery = self.options.recovery
        self._tick = max(0.01, min(recovery.rec_timeout, recovery.gap_timeout) / 4)
        self.short_ways: ShortWays = {
            FCP_DATA: self.receive_data,
            FCP_RSP: self.receive_response,
            FCP_XFER_RDY: self.receive_ready,
        }

    # logins

    def process_login(self, remote: RemotePort, parameters: int, now: float) -> bool:
        """PRLI has come or was accepted. False: it is no target."""
        self.now = now
        self.outbox, self.rooms = self.port.outbox, self.port.rooms  # a station's, once the port is one of its ports
        if not parameters & ServiceParameters.TARGET_FUNCTION or not self.service_parameters:
            return False
        known = self.nexuses.get(remote.fc_id)
        if known is not None and known.remote is remote and known.parameters == parameters and known.s_id == self.port.fc_id:
            return True  # PRLI of both sides, one after the other
        self._end(remote.fc_id, "it has logged in anew")
        nexus = self.nexuses[remote.fc_id] = nexus_with(self, remote, parameters)
        self.counters.logins += 1
        if self.on_login is not None:
            self.on_login(nexus)
        return True

    def process_logout(self, remote: RemotePort, reason: str, now: float) -> None:
        """PRLO, LOGO, a link that is down: its commands fail with TargetLost."""
        self.now = now
        self._end(remote.fc_id, reason)

    def _end(self, fc_id: int, reason: str) -> None:
        nexus = self.nexuses.pop(fc_id, None)
        if nexus is None:
            return
        self.counters.logouts += 1
        lost = [*self.recoveries.forget(nexus), *(each for each in self.tasks.values() if each.nexus is nexus), *nexus.queue]
        nexus.queue.clear()
        for task in lost:
            self._forget(task)
            task.error = TargetLost(f"the login with the target has ended: {reason}")
            self.finish(task)
        if self.on_logout is not None:
            self.on_logout(nexus, reason)

    # commands

    def submit(self, nexus: TargetNexus, task: FcpTask, now: float) -> None:
        """Start a command or task management function; ``task.done`` tells how it ends, perhaps from here."""
        self.now = task.started = task.progress = now
        task.nexus = nexus
        if self.nexuses.get(nexus.d_id) is not nexus:
            task.error = TargetLost("the login with the target has ended")
            self.finish(task)
            return
        if (nexus.outstanding >= self.options.queue_depth and not task.management) or nexus.queue:
            nexus.queue.append(task)
            return
        self.start(task)

    def start(self, task: FcpTask) -> None:
        """Give it an exchange, and send FCP_CMND."""
        nexus = task.nexus
        assert nexus is not None
        tasks, ox_id = self.tasks, self._next_ox_id
        holds = self.port.aborts.holds
        if ox_id in tasks or holds(ox_id):
            others = chain(range(ox_id + 1, FC4_OX_IDS.stop), range(FC4_OX_IDS.start, ox_id))
            ox_id = next((each for each in others if each not in tasks and not holds(each)), NO_EXCHANGE)
            if ox_id == NO_EXCHANGE:
                nexus.queue.append(task)  # the first that ends makes room
                return
        self._next_ox_id = ox_id + 1 if ox_id + 1 < FC4_OX_IDS.stop else FC4_OX_IDS.start
        task.ox_id = ox_id
        task.progress = self.now
        tasks[ox_id] = task
        nexus.outstanding += 1
        self.counters.commands += 1
        if self.next_timer == inf:
            self.next_timer = self.now + self._tick
        nexus.send_command(task)

    def finish(self, task: FcpTask) -> None:
        """Tell its owner."""
        task.finished = True
        if task.done is not None:
            task.done(task)

    def complete(self, task: FcpTask) -> None:
        """Out of the books; the next one that waits takes its place."""
        self._forget(task)
        self.finish(task)
        nexus = task.nexus
        if nexus is not None and nexus.queue:
            self.go_on(nexus)

    def go_on(self, nexus: TargetNexus) -> None:
        """Commands that wait for their turn."""
        while nexus.queue and nexus.outstanding < self.options.queue_depth and self.nexuses.get(nexus.d_id) is nexus:
            self.start(nexus.queue.popleft())

    def _forget(self, task: FcpTask) -> None:
        """Its exchange is over, as far as we are concerned."""
        if self.tasks.get(task.ox_id) is task:
            del self.tasks[task.ox_id]
            self.last_rx_ids[task.ox_id] = task.rx_id
            if task.nexus is not None:
                task.nexus.outstanding -= 1
        if task.burst_at < task.burst_end:
            task.burst_at = task.burst_end
            if task in self.sending:
                self.sending.remove(task)

    def abort_task(self, task: FcpTask, now: float, reason: str = "aborted") -> None:
        """ABTS (which is FCP's ABORT TASK): it ends with TaskAborted once the target has answered."""
        self.now = now
        if task.finished:
            return
        nexus = task.nexus
        if nexus is not None and task in nexus.queue:
            nexus.queue.remove(task)
            task.error = TaskAborted(reason)
            self.finish(task)
        else:
            self.recoveries.abort(task, TaskAborted(reason))

    # frames

    def receive(self, remote: RemotePort, frame: Frame, now: float) -> None:
        """An FCP information unit of a target that is logged in (FC-2 has checked the addresses)."""
        self.now = now
        task = self.tasks.get(frame.ox_id)
        if (
            task is None
            or not frame.f_ctl & F_CTL_EXCHANGE_RESPONDER
            or task.nexus is None
            or task.nexus.remote is not remote
            or (frame.rx_id != task.rx_id and not self._name(task, frame.rx_id))
        ):
            self.counters.unexpected_frames += 1
            return
        task.progress = now
        r_ctl = frame.r_ctl
        if r_ctl == FCP_DATA:
            payload = frame.payload
            start = frame.parameter if frame.f_ctl & F_CTL_RELATIVE_OFFSET else task.received
            end = start + len(payload)
            if start == task.received and end <= task.read_length and task.pieces is None:
                task.buffer[start:end] = payload
                task.received = end
            else:
                self._late_data(task, payload, start, end)
        elif r_ctl == FCP_RSP:
            response = bytes(frame.payload)
            if task.read_length == task.received and response in _GOOD:
                self._good(task, task.nexus, response)
            else:
                self._respond(task, frame)
        elif r_ctl == FCP_XFER_RDY:
            self._transfer_ready(task, frame)
        else:
            self.counters.unexpected_frames += 1

    def receive_data(
        self,
        remote: RemotePort,
        payload: memoryview,
        sof: int,  # noqa: ARG002 - targets look at it
        f_ctl: int,
        seq_id: int,  # noqa: ARG002 - likewise
        seq_cnt: int,  # noqa: ARG002 - likewise
        ox_id: int,
        rx_id: int,
        offset: int,
        now: float,
        /,
    ) -> bool:
        """FCP_DATA that continues where the last one ended; False: nothing has happened."""
        task = self.tasks.get(ox_id)
        end = offset + len(payload)
        if (
            task is None
            or offset != task.received
            or end > task.read_length
            or task.pieces is not None
            or f_ctl & _DATA_BITS != _DATA_BITS
            or task.nexus is None
            or task.nexus.remote is not remote
            or (rx_id != task.rx_id and not self._name(task, rx_id))
        ):
            return False
        self.now = task.progress = now
        task.buffer[offset:end] = payload
        task.received = end
        return True

    def receive_response(
        self,
        remote: RemotePort,
        payload: memoryview,
        sof: int,  # noqa: ARG002 - targets look at it
        f_ctl: int,
        seq_id: int,  # noqa: ARG002 - likewise
        seq_cnt: int,  # noqa: ARG002 - likewise
        ox_id: int,
        rx_id: int,
        parameter: int,  # noqa: ARG002 - of data only
        now: float,
        /,
    ) -> bool:
        """FCP_RSP with GOOD, of a command whose data is all there and whose exchange is known; False: nothing has happened."""
        task = self.tasks.get(ox_id)
        if (
            task is None
            or rx_id != task.rx_id
            or task.received != task.read_length
            or not f_ctl & F_CTL_EXCHANGE_RESPONDER
            or task.nexus is None
            or task.nexus.remote is not remote
        ):
            return False
        response = bytes(payload)
        if response not in _GOOD:
            return False
        self.now = task.progress = now
        self._good(task, task.nexus, response)
        return True

    def _good(self, task: FcpTask, nexus: TargetNexus, response: bytes) -> None:
        """FCP_RSP of a command that went well, and has all its data."""
        counters = self.counters
        counters.responses += 1
        counters.data_in_bytes += task.received
        counters.data_out_bytes += task.written
        if response[CONFIRM_AT]:
            counters.confirmations += 1
            nexus.send_confirmation(task)
        if task.burst_at < task.burst_end:
            self._forget(task)
        else:
            ox_id = task.ox_id
            del self.tasks[ox_id]
            self.last_rx_ids[ox_id] = task.rx_id
            nexus.outstanding -= 1
        task.finished = True
        if task.management:
            self._managed(task)
        if task.done is not None:
            task.done(task)
        if nexus.queue:
            self.go_on(nexus)

    def receive_ready(
        self,
        remote: RemotePort,
        payload: memoryview,
        sof: int,  # noqa: ARG002 - targets look at it
        f_ctl: int,
        seq_id: int,
        seq_cnt: int,  # noqa: ARG002 - likewise
        ox_id: int,
        rx_id: int,
        parameter: int,  # noqa: ARG002 - of data only
        now: float,
        /,
    ) -> bool:
        """FCP_XFER_RDY for the next burst, when no other is being sent; False: nothing has happened."""
        task = self.tasks.get(ox_id)
        if task is None or len(payload) != TRANSFER_READY_LENGTH:
            return False
        offset, length = unpack_ready(payload)
        end, nexus = offset + length, task.nexus
        if (
            not length
            or offset != task.written
            or end > task.write_length
            or seq_id == task.ready_seq_id
            or task.burst_at < task.burst_end
            or not f_ctl & F_CTL_EXCHANGE_RESPONDER
            or nexus is None
            or nexus.remote is not remote
            or (rx_id != task.rx_id and not self._name(task, rx_id))
        ):
            return False
        self.now = task.progress = now
        self.counters.transfer_readies += 1
        task.ready_seq_id = seq_id
        task.written = end
        task.attempts = 0
        nexus.begin_burst(task, offset, length)
        return True

    def _name(self, task: FcpTask, rx_id: int) -> bool:
        """The first frame of the responder names its exchange; False: it is of another one."""
        if task.rx_id != NO_EXCHANGE or rx_id == self.last_rx_ids[task.ox_id]:
            return False
        task.rx_id = rx_id
        return True

    def _late_data(self, task: FcpTask, payload: memoryview, start: int, end: int) -> None:
        """FCP_DATA that does not continue where the last one ended."""
        if end > task.read_length:
            self._violated(task, f"FCP_DATA to offset {end} of {task.read_length} bytes")
            return
        pieces = task.pieces
        if pieces is None:
            pieces = task.pieces = Pieces()
            if task.received:
                pieces.add(0, task.received)
        if not pieces.add(start, end):
            self.counters.duplicate_frames += 1
            return
        self.counters.out_of_order_frames += 1
        task.buffer[start:end] = payload
        contiguous = pieces.contiguous()
        if contiguous > task.received:
            task.received = contiguous
            task.attempts = 0
        if task.response is not None and self._has_all(task, task.response):
            self._end_command(task, task.response)

    def _transfer_ready(self, task: FcpTask, frame: Frame) -> None:
        """FCP_XFER_RDY: the target wants data."""
        if frame.seq_id == task.ready_seq_id:
            self.counters.duplicate_frames += 1
            return
        try:
            offset, length = unpack_transfer_ready(frame.payload)
        except FcpError as e:
            self._violated(task, str(e))
            return
        end = offset + length
        if not length or end > task.write_length:
            self._violated(task, f"FCP_XFER_RDY for {length} bytes from {offset} on of {task.write_length}")
            return
        self.counters.transfer_readies += 1
        task.ready_seq_id = frame.seq_id
        if end > task.written:
            task.written = end
            task.attempts = 0
        if task.burst_at < task.burst_end:
            # asked again for a burst that has not all gone out: that one is not wanted any more
            self.sending.remove(task)
        assert task.nexus is not None
        task.nexus.begin_burst(task, offset, length)

    def _respond(self, task: FcpTask, frame: Frame) -> None:
        """FCP_RSP that says more than GOOD, or before all data is there."""
        try:
            response = Response.unpack(frame.payload)
        except FcpError as e:
            self._violated(task, str(e))
            return
        flags = frame.payload[CONFIRM_AT]
        task.status, task.code, task.sense = response.status, response.code, response.sense
        task.residual, task.overflow = response.residual, response.overflow
        task.underflow = bool(flags & 0x08)
        if self._has_all(task, response):
            self._end_command(task, response)
        else:
            task.response = response

    def _has_all(self, task: FcpTask, response: Response) -> bool:
        """All Data-In that there is by the response."""
        if response.status or response.code:
            return True  # what came before is of no use
        expected = task.read_length - (response.residual if task.underflow else 0)
        return task.received >= expected

    def _end_command(self, task: FcpTask, response: Response) -> None:
        self.counters.responses += 1
        self.counters.data_in_bytes += task.received
        self.counters.data_out_bytes += task.written
        if response.confirm:
            self.counters.confirmations += 1
            assert task.nexus is not None
            task.nexus.send_confirmation(task)
        if task.management:
            self._forget(task)
            self._managed(task)
        self.complete(task)

    def _managed(self, task: FcpTask) -> None:
        """A task management function has been executed: the exchanges of what it has ended are over (FCP-4 4.10)."""
        try:
            one = _CLEARING.get(TaskManagementFlag(task.management))
        except ValueError:
            return
        done = (None, ResponseCode.TASK_MANAGEMENT_FUNCTION_COMPLETE, ResponseCode.TASK_MANAGEMENT_FUNCTION_SUCCEEDED)
        if one is None or task.code not in done:
            return
        name = TaskManagementFlag(task.management).name
        for each in list(self.tasks.values()):
            if each.nexus is task.nexus and each.started <= task.started and (not one or each.lun == task.lun):
                self.recoveries.abort(each, TaskAborted(f"{str(name).replace('_', ' ')} has ended it"))

    def _violated(self, task: FcpTask, text: str) -> None:
        self.counters.wrong_frames += 1
        self.recoveries.abort(task, ProtocolViolation(f"the target has sent {text}"))

    # link services of the other side: targets originate no exchange of FCP

    def abort(self, remote: RemotePort, abts: Abts, reply: Callable[[BasicReply], None], now: float) -> BasicReply | None:
        """ABTS: there is nothing that could be aborted (FCP-4 12.3: that is for initiators to do)."""
        del remote, abts, reply, now
        return UNKNOWN_EXCHANGE

    def rec(self, remote: RemotePort, ox_id: int, rx_id: int, identifier: int = 0) -> ExchangeState | None:
        """REC: the exchange is not there."""
        del remote, ox_id, rx_id, identifier
        return None

    def srr(self, remote: RemotePort, payload: bytes, now: float, identifier: int = 0) -> bytes:
        """SRR is for targets."""
        del remote, payload, now, identifier
        return Reject(Reason.COMMAND_NOT_SUPPORTED).pack()

    # sending

    def resume(self, now: float) -> None:
        """The link has taken frames: make the next ones, a turn for each command."""
        self.now = now
        sending, outbox, rooms = self.sending, self.outbox, self.rooms
        while sending and (room := OUTBOX_LIMIT - len(outbox)) > 0 and (rooms is None or rooms.unsent < ROOMS_LIMIT):
            task = sending.popleft()
            nexus = task.nexus
            assert nexus is not None
            task.progress = now
            if not nexus.send_data(task, min(TURN, room)):
                sending.append(task)

    # time

    def handle_timer(self, now: float) -> None:
        """Commands that have heard nothing for too long."""
        self.now = now
        if now < self.next_timer:
            return
        self.recoveries.look(now)
        self.next_timer = now + self._tick if self.tasks else inf

    def fail(self, task: FcpTask, error: RequestFailed) -> None:
        """It ends without a response."""
        task.error = error
        self.complete(task)

    def statistics(self) -> dict[str, Any]:
        """Counters, and what is outstanding."""
        return {**self.counters.as_dict(), "outstanding": len(self.tasks)}
