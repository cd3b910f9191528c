"""An iSCSI session, initiator side, sans-IO: CmdSN and its window, tasks, connections (RFC 7143 clauses 4.2, 7).

The owner has sockets and a clock. It sets :attr:`Session.now` before it calls anything, attaches a
:class:`~tcm_iscsi.initiator.connection.Connection` for every login that succeeds, hands received bytes to it, sends what the
connections in :meth:`Session.take_dirty` have, calls :meth:`Session.handle_timer` a few times a second, and reads
:meth:`Session.next_event`. Requests are submitted with a callback.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tcm_iscsi.initiator.connection import Connection
from tcm_iscsi.initiator.recovery import ErrorRecovery
from tcm_iscsi.initiator.results import (
    AsyncMessage,
    ConnectionClosed,
    ConnectionLost,
    ConnectionUp,
    Event,
    RequestFailed,
    SessionEnded,
    SessionFailed,
    TaskAborted,
)
from tcm_iscsi.initiator.tasks import Logout, Request, ScsiTask, TaskManagement, Text
from tcm_iscsi.protocol.pdu import (
    RESERVED_TAG,
    AsyncEvent,
    Buffer,
    LogoutReason,
    LogoutResponse,
    TaskManagementFunctionCode,
    TaskManagementResponseCode,
)
from tcm_iscsi.protocol.serial import HALF, SERIAL_BITS, serial_less

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tcm_iscsi.initiator.login import LoggedIn
    from tcm_iscsi.initiator.options import Options
    from tcm_iscsi.protocol.parameters import SessionParameters

_F = TaskManagementFunctionCode
ENDS_LOGICAL_UNIT = frozenset({_F.ABORT_TASK_SET, _F.CLEAR_TASK_SET, _F.LOGICAL_UNIT_RESET})
ENDS_ALL = frozenset({_F.TARGET_WARM_RESET, _F.TARGET_COLD_RESET, _F.I_T_NEXUS_RESET})
DONE = frozenset({TaskManagementResponseCode.FUNCTION_COMPLETE, TaskManagementResponseCode.FUNCTION_SUCCEEDED})


class Session:
    """One session.

    :param login: of its leading connection, which :meth:`attach` then makes.
    :param now: on the owner's clock, seconds.
    """

    def __init__(self, options: Options, login: LoggedIn, *, now: float) -> None:
        self.options = options
        self.now = now
        self.isid, self.tsih = login.isid, login.tsih
        self.parameters: SessionParameters = login.session_parameters
        self.keys: Mapping[str, str] = login.keys
        self.error_recovery_level = self.parameters.error_recovery_level
        self.automatic = options.recovery.automatic
        self.cmd_sn = login.cmd_sn
        """The next CmdSN."""
        self.exp_cmd_sn, self.max_cmd_sn = login.exp_cmd_sn, login.max_cmd_sn
        self.connections: dict[int, Connection] = {}
        self.requests: dict[int, Request] = {}
        """What is outstanding, by Initiator Task Tag."""
        self.waiting: deque[Request] = deque()
        """What has not been sent, because the window is closed or no connection is up."""
        self.events: deque[Event] = deque()
        self.recovery = ErrorRecovery(self)
        self.observer: Callable[[Connection, str, bytes, bytes], None] | None = None
        """Called with (connection, "in" or "out", header with AHS, data) for every PDU; a trace, or a test's eye."""
        self.ended: RequestFailed | None = None
        self.logging_out = False
        self.header_digest_errors = 0
        self.data_digest_errors = 0
        self.snacks = 0
        self._itt = 0
        self._dirty: list[Connection] = []

    # the owner's side

    def attach(self, login: LoggedIn) -> Connection:
        """A login has succeeded: its connection, which may replace one that was lost (clause 6.3.4)."""
        connection = Connection(self, login)
        old = self.connections.pop(login.cid, None)
        if old is not None:
            self.connection_lost(old, "reinstated")
        self.connections[login.cid] = connection
        self.window(login.exp_cmd_sn, login.max_cmd_sn)
        recovered = self.recovery.reinstated(connection)
        self.events.append(ConnectionUp(cid=connection.cid, recovered=recovered))
        if login.trailing_data:
            connection.receive_data(login.trailing_data)
        self.pump()
        return connection

    def submit(self, request: Request, connection: Connection | None = None) -> None:
        """Send a request as soon as the command window allows it; on a connection of the session's choice if None."""
        if self.ended is not None:
            request.finished = True
            request.error = self.ended
            if request.done is not None:
                request.done(request)
            return
        request.started = request.progress = self.now
        request.itt = self.new_tag()
        self.requests[request.itt] = request
        if connection is not None:
            request.connection = connection
            connection.outstanding += 1
            if request.immediate:
                self._transmit(request, connection)
                return
        elif not self.waiting and (request.immediate or (self.max_cmd_sn - self.cmd_sn) & SERIAL_BITS < HALF):
            chosen = self.choose(request)
            if chosen is not None:
                request.connection = chosen
                chosen.outstanding += 1
                self._transmit(request, chosen)
                return
        self.queue(request)
        self.pump()

    def next_event(self) -> Event | None:
        """What happened, oldest first; None if there is nothing."""
        return self.events.popleft() if self.events else None

    def take_dirty(self) -> list[Connection]:
        """The connections that have something to send; each is told once."""
        dirty, self._dirty = self._dirty, []
        return dirty

    def dirty(self, connection: Connection) -> None:
        """A connection has something to send."""
        connection.dirty = True
        self._dirty.append(connection)

    def handle_timer(self, now: float) -> None:
        """Look at everything that has a time limit; a few times a second."""
        self.now = now
        self.recovery.handle_timer(now)
        self.pump()

    # numbers

    def new_tag(self) -> int:
        """An Initiator Task Tag that is not in use, and has not been for long."""
        requests = self.requests
        while True:
            self._itt = itt = self._itt + 1 & SERIAL_BITS
            if itt != RESERVED_TAG and itt not in requests:
                return itt

    def window(self, exp_cmd_sn: int, max_cmd_sn: int) -> None:
        """ExpCmdSN and MaxCmdSN of a PDU (clause 4.2.2.1)."""
        if (max_cmd_sn - exp_cmd_sn + 1) & SERIAL_BITS >= HALF:
            return
        # serial number arithmetic (RFC 1982), in line
        if 0 < (max_cmd_sn - self.max_cmd_sn) & SERIAL_BITS < HALF:
            self.max_cmd_sn = max_cmd_sn
        if 0 < (exp_cmd_sn - self.exp_cmd_sn) & SERIAL_BITS < HALF and (self.cmd_sn - exp_cmd_sn) & SERIAL_BITS < HALF:
            self.exp_cmd_sn = exp_cmd_sn

    def acknowledged(self, request: Request) -> bool:
        """The target has received a request that is not immediate."""
        return serial_less(request.cmd_sn, self.exp_cmd_sn)

    # sending

    def pump(self) -> None:
        """Send what can be sent."""
        waiting = self.waiting
        while waiting:
            request = waiting[0]
            if request.finished:
                waiting.popleft()
                continue
            if not request.immediate and (self.max_cmd_sn - self.cmd_sn) & SERIAL_BITS >= HALF:
                break
            connection = request.connection or self.choose(request)
            if connection is None or not connection.takes(request):
                break
            waiting.popleft()
            request.queued = False
            if request.connection is None:
                request.connection = connection
                connection.outstanding += 1
            self._transmit(request, connection)

    def choose(self, request: Request | None = None) -> Connection | None:
        """The connection with the fewest tasks, of those that take the request."""
        best: Connection | None = None
        for connection in self.connections.values():
            if (
                not connection.leaving
                and (request is None or connection.takes(request))
                and (best is None or connection.outstanding < best.outstanding)
            ):
                best = connection
        return best

    def _transmit(self, request: Request, connection: Connection) -> None:
        """Send for the first time: this is where a request gets its CmdSN."""
        request.cmd_sn = cmd_sn = self.cmd_sn
        if not request.immediate:
            self.cmd_sn = cmd_sn + 1 & SERIAL_BITS
        self.send(request, connection)

    def send(self, request: Request, connection: Connection) -> None:
        """Send a request that has its CmdSN, for the first time or again."""
        connection.order = request.order = connection.order + 1
        request.progress = self.now
        request.send(connection)

    def again(self, request: Request) -> None:
        """The next PDU of a task of several requests (Text): a new CmdSN."""
        assert request.connection is not None
        if request.immediate:
            self._transmit(request, request.connection)
        else:
            self.queue(request)
            self.pump()

    def renew(self, request: Request, connection: Connection) -> None:
        """Send a request anew, under a new tag, because the old one's fate cannot be known."""
        self.requests.pop(request.itt, None)
        self.release(request)
        request.itt = self.new_tag()
        self.requests[request.itt] = request
        request.connection = connection
        connection.outstanding += 1
        if request.immediate:
            self._transmit(request, connection)
        else:
            self.queue(request)

    def queue(self, request: Request) -> None:
        """Let it wait for its turn."""
        request.queued = True
        self.waiting.append(request)

    def release(self, request: Request) -> None:
        """The request is allegiant to no connection."""
        if request.connection is not None:
            request.connection.outstanding -= 1
            request.connection = None

    # the end of a request

    def finish(self, request: Request, error: RequestFailed | None = None) -> None:
        """The response has come, or none will."""
        if request.finished:
            return
        self.requests.pop(request.itt, None)
        connection = request.connection
        if connection is not None:
            connection.outstanding -= 1
            if isinstance(request, ScsiTask) and request.stat_sn is not None:
                connection.statuses.release(request.stat_sn)
        request.finished = True
        request.error = error
        if request.done is not None:
            request.done(request)

    def managed(self, request: TaskManagement) -> None:
        """A Task Management Function Response: tasks that it has ended will get no other response (clause 11.5.1)."""
        if request.response in DONE:
            function = request.function
            if function == _F.ABORT_TASK:
                task = self.requests.get(request.referenced)
                if task is not None:
                    self.finish(task, TaskAborted("ABORT TASK"))
            elif function in ENDS_LOGICAL_UNIT or function in ENDS_ALL:
                for task in list(self.requests.values()):
                    if (
                        isinstance(task, ScsiTask)
                        and task.connection is not None
                        and not task.queued
                        and (function in ENDS_ALL or task.lun == request.lun)
                        and serial_less(task.cmd_sn, request.cmd_sn)
                    ):
                        self.finish(task, TaskAborted(_F(function).name.replace("_", " ")))
        self.finish(request)

    # connections

    def log_out(self, *, done: Callable[[Logout], None] | None = None) -> None:
        """Close the session: its tasks are ended by the target (clause 11.14). Wait for those that matter before."""
        self.logging_out = True
        connection = self.choose() or next(iter(self.connections.values()), None)
        request = Logout(LogoutReason.CLOSE_SESSION, done=done)
        if connection is None:
            self.end("")
            request.finished = True
            if done is not None:
                done(request)
            return
        self.submit(request, connection)

    def close_connection(
        self,
        cid: int,
        reason: LogoutReason = LogoutReason.CLOSE_CONNECTION,
        *,
        via: Connection | None = None,
        done: Callable[[Logout], None] | None = None,
    ) -> None:
        """Log one connection out, on itself or ``via`` another one."""
        target = self.connections.get(cid)
        if target is not None:
            target.leaving = True
        connection = via or target or self.choose()
        if connection is None:
            raise SessionFailed("there is no connection to send the Logout on")
        self.submit(Logout(reason, cid, done=done), connection)

    def logged_out(self, request: Logout) -> None:
        """A Logout Response."""
        if request.response == LogoutResponse.CLOSED:
            if request.reason == LogoutReason.CLOSE_SESSION:
                self.finish(request)
                self.end("")
                return
            gone = self.connections.get(request.cid)
            if request.reason == LogoutReason.CLOSE_CONNECTION:
                self.recovery.lost.pop(request.cid, None)
            if gone is not None:
                self.finish(request)
                self.drop(gone, request.reason == LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY)
        if request.reason == LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY:
            self.recovery.removed(request)
        self.finish(request)

    def drop(self, connection: Connection, for_recovery: bool) -> None:
        """A connection has been logged out: its tasks are gone, or wait for reassignment."""
        self.connections.pop(connection.cid, None)
        connection.dead = connection.closing = True
        if for_recovery:
            self.recovery.connection_lost(connection, "removed for recovery", tell=False)
        else:
            for request in [r for r in self.requests.values() if r.connection is connection]:
                self.finish(request, TaskAborted("the connection was logged out"))
        self.events.append(ConnectionClosed(cid=connection.cid))
        if not self.connections and not self.recovery.lost:
            self.end("")

    def connection_lost(self, connection: Connection, reason: str) -> None:
        """A connection is gone without logout: what its socket's owner, or the protocol, says."""
        if connection.dead:
            return
        if not self.logging_out and self._expected(connection):
            return
        connection.dead = connection.closing = True
        connection.reason = reason
        connection.out.clear()
        if self.connections.get(connection.cid) is connection:
            del self.connections[connection.cid]
        if self.logging_out:
            self.end("")
        elif self.error_recovery_level < 2:
            self.events.append(
                ConnectionLost(
                    cid=connection.cid,
                    reason=reason,
                    wait_until=self.now,
                    deadline=self.now,
                    exp_stat_sn=connection.statuses.expected,
                )
            )
            # below level 2 session recovery is all there is (clause 7.1.4.4)
            self.end(f"connection {connection.cid} failed: {reason}")
        else:
            self.recovery.connection_lost(connection, reason)

    def _expected(self, connection: Connection) -> bool:
        """The end of a connection whose Logout is on its way may be seen before the response to it."""
        for request in self.requests.values():
            if isinstance(request, Logout) and request.cid == connection.cid and request.reason != LogoutReason.CLOSE_SESSION:
                if request.connection is connection:
                    request.response = LogoutResponse.CLOSED
                    self.finish(request)
                self.drop(connection, request.reason == LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY)
                return True
        return False

    def end(self, reason: str) -> None:
        """The session is over; whatever is outstanding fails."""
        if self.ended is not None:
            return
        self.ended = SessionFailed(reason or "the session was logged out")
        for connection in list(self.connections.values()):
            connection.closing = True
            connection.dead = True
        self.connections.clear()
        self.recovery.lost.clear()
        self.waiting.clear()
        for request in list(self.requests.values()):
            self.finish(request, None if isinstance(request, Logout) else self.ended)
        self.events.append(SessionEnded(reason=reason))

    def async_message(self, connection: Connection, message: AsyncMessage) -> None:
        """Asynchronous Message (clause 11.9)."""
        self.events.append(message)
        event = message.event
        first, wait, retain = message.parameters
        if event == AsyncEvent.CONNECTION_DROPPED:
            dropped = self.connections.get(first)
            if dropped is not None:
                self.recovery.times = (wait, retain)
                self.connection_lost(dropped, "the target drops the connection")
        elif event == AsyncEvent.SESSION_DROPPED:
            self.end("the target drops all connections of the session")
        elif event == AsyncEvent.TASK_TERMINATION:
            connection.terminated(message.lun)
        elif event == AsyncEvent.NEGOTIATION_REQUESTED:
            # a Text Request that is on its way is answer enough
            asking = any(isinstance(each, Text) and each.connection is connection for each in self.requests.values())
            if not asking and not connection.leaving:
                self.submit(Text([]), connection)

    # conveniences for what recovers on demand

    def scsi_tasks(self) -> list[ScsiTask]:
        """The SCSI commands outstanding."""
        return [request for request in self.requests.values() if isinstance(request, ScsiTask)]

    def send_raw(self, connection: Connection, bhs: bytes, data: Buffer = b"", ahs: bytes = b"") -> None:
        """Any PDU at all: ``bhs`` is sent as it is, apart from its lengths; digests are added as negotiated."""
        connection.emit(bhs[:4] + (len(ahs) // 4 << 24 | len(data)).to_bytes(4, "big") + bhs[8:], data, ahs)
