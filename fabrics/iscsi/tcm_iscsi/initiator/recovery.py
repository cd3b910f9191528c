"""Error recovery, initiator side (RFC 7143 clause 7): within a command, within a connection, of a connection.

Nothing here waits: gaps are asked for when they are seen, and :meth:`ErrorRecovery.handle_timer` asks again for what has not
come. What fails at one level is passed on to the next: SNACK, then connection recovery (level 2), then the session is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcm_iscsi.initiator.connection import ConnectionFailed
from tcm_iscsi.initiator.results import ConnectionLost, RequestFailed, TaskAborted, TaskLost
from tcm_iscsi.initiator.tasks import Logout, Nop, Request, ScsiTask, TaskManagement, Text
from tcm_iscsi.protocol.pdu import (
    LUN_NONE,
    RESERVED_TAG,
    LogoutReason,
    LogoutResponse,
    SnackType,
    TaskManagementFunctionCode,
    TaskManagementResponseCode,
)
from tcm_iscsi.protocol.serial import HALF, SERIAL_BITS

if TYPE_CHECKING:
    from tcm_iscsi.initiator.connection import Connection
    from tcm_iscsi.initiator.session import Session

_R = TaskManagementResponseCode
STILL_ALLEGIANT_DELAY = 0.5
"""Seconds until a reassignment that came too early is tried again."""


@dataclass(slots=True, kw_only=True)
class Lost:
    """A connection that is to come back, and the tasks that wait for it."""

    cid: int
    reason: str
    wait_until: float
    deadline: float
    exp_stat_sn: int
    requests: list[Request] = field(default_factory=list)
    logout: Logout | None = None


class ErrorRecovery:
    """What a session does about errors; its tables of what is lost."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.options = session.options.recovery
        self.lost: dict[int, Lost] = {}
        """By CID."""
        self.times: tuple[int, int] | None = None
        """Time2Wait and Time2Retain of an Asynchronous Message that announced the loss, seconds."""
        self.doubtful: list[tuple[float, ScsiTask, float]] = []
        """Tasks whose reassignment was rejected: until when something may come for them all the same, and their progress."""
        self.postponed: list[tuple[float, ScsiTask]] = []
        """Tasks to be reassigned again, and when."""
        self._tag = 0

    # within a command: data

    def data_missing(self, connection: Connection, task: ScsiTask, end: int) -> None:
        """Data-In or R2T PDUs below ``end`` have not come. Raises ConnectionFailed at level 0."""
        if not self.session.error_recovery_level:
            msg = "a Data-In PDU is missing"
            raise ConnectionFailed(msg)
        if self.session.automatic and task.snacked < end:
            self.ask_data(connection, task, end, task.snacked)

    def ask_data(self, connection: Connection, task: ScsiTask, end: int, above: int = 0) -> None:
        """SNACK for everything from ``above`` on and below ``end`` that has not come."""
        task.snacked = end
        if task.read_length and connection.max_recv < task.max_recv:
            self.resegment(connection, task)
            return
        for beg_run, length in task.numbers.missing(end):
            first = max(beg_run, above)
            if first < beg_run + length:
                # to the end: by 0, because LIO counts one less than RunLength says (clause 11.16.7)
                last = task.status_known and beg_run + length == end
                connection.snack(SnackType.DATA_OR_R2T, task.itt, first, 0 if last else beg_run + length - first, lun=task.lun)

    def resegment(self, connection: Connection, task: ScsiTask) -> None:
        """R-Data SNACK: all unacknowledged data again, in PDUs that we can take now (clause 11.16.3)."""
        stat_sn = task.stat_sn
        task.discard_unacknowledged(task.acked)
        task.stat_sn = stat_sn  # withheld until the response with our tag has come
        task.max_recv = connection.max_recv
        self._tag = self._tag + 1 & 0x7FFFFFFF or 1
        task.snack_tag = self._tag
        connection.snack(SnackType.R_DATA, task.itt, 0, 0, ttt=self._tag, lun=task.lun)

    # within a connection: status

    def status_missing(self, connection: Connection, runs: list[tuple[int, int]]) -> None:
        """Numbered responses have not come. Raises ConnectionFailed at level 0."""
        if not self.session.error_recovery_level:
            msg = f"a response is missing: StatSN {runs[0][0]:#x}"
            raise ConnectionFailed(msg)
        if self.session.automatic:
            self.ask_status(connection, runs, connection.status_asked)

    def ask_status(self, connection: Connection, runs: list[tuple[int, int]], above: int | None = None) -> None:
        """Status SNACK for these runs, as far as they are not below ``above``."""
        for beg_run, length in runs:
            skip = 0
            if above is not None and (above - beg_run) & SERIAL_BITS < HALF:
                skip = min((above - beg_run) & SERIAL_BITS, length)
            if skip < length:
                connection.status_asked_at = self.session.now
                first = beg_run + skip & SERIAL_BITS
                connection.snack(SnackType.STATUS, RESERVED_TAG, first, length - skip)
                connection.status_asked = first + length - skip & SERIAL_BITS

    def snack_rejected(self, connection: Connection, bhs: bytes) -> None:
        """The target will not send it again; what we have may be complete all the same by now."""
        session = self.session
        kind = bhs[1] & 0x0F
        if kind in (SnackType.DATA_OR_R2T, SnackType.R_DATA):
            task = session.requests.get(int.from_bytes(bhs[16:20], "big"))
            if isinstance(task, ScsiTask) and task.connection is connection and task.read_length:
                beg_run, length = int.from_bytes(bhs[40:44], "big"), int.from_bytes(bhs[44:48], "big")
                wanted = range(beg_run, beg_run + length) if length else range(beg_run, max(task.end, beg_run + 1))
                if kind == SnackType.R_DATA or any(n >= task.numbers.expected and n not in task.numbers.ahead for n in wanted):
                    self._give_up(task)
        elif kind == SnackType.STATUS:
            first, length = int.from_bytes(bhs[40:44], "big"), int.from_bytes(bhs[44:48], "big")
            runs = connection.statuses.missing()
            if any((first - beg) & SERIAL_BITS < count for beg, count in runs) and length:
                session.connection_lost(connection, "the target does not send a response again")

    def _give_up(self, task: ScsiTask) -> None:
        """Data cannot be had: end the task (clause 7.8), so that nothing comes for it any more."""
        session = self.session
        connection = task.connection
        if not task.status_known and connection is not None:
            function = TaskManagementFunctionCode.ABORT_TASK
            session.submit(TaskManagement(function, task.lun, referenced=task.itt, ref_cmd_sn=task.cmd_sn), connection)
        session.finish(task, RequestFailed("the target does not send the data again"))

    # time

    def handle_timer(self, now: float) -> None:
        """Ask again; give up what has been asked for too often."""
        session, options = self.session, self.options
        for connection in list(session.connections.values()):
            if connection.dead:
                continue
            if connection.asked_since is not None and now - connection.asked_since >= options.connection_timeout:
                session.connection_lost(connection, f"nothing has come for {now - connection.last_received:.1f} s")
            elif session.automatic:
                self._look_after(connection, now)
        self._reconnections(now)

    def _look_after(self, connection: Connection, now: float) -> None:
        """One connection and its tasks."""
        session, options = self.session, self.options
        limit = options.progress_timeout
        wants_ping = False
        for request in list(session.requests.values()):
            if request.connection is not connection or request.queued:
                continue
            if options.task_timeout and now - request.started >= options.task_timeout and not isinstance(request, Nop):
                self._overdue(request, connection)
                if connection.dead:
                    return
            elif now - request.progress >= limit:
                wants_ping = True
                if session.error_recovery_level and request is not connection.ping:
                    self._nudge(request, connection, now)
                if connection.dead:
                    return
        if session.error_recovery_level:
            runs = connection.statuses.missing()
            if runs and now - connection.status_asked_at >= limit:
                connection.status_asked = connection.statuses.expected
                self.ask_status(connection, runs)
        if wants_ping or (connection.ping is None and now - connection.last_received >= options.connection_timeout / 2):
            self.probe(connection)

    def probe(self, connection: Connection) -> None:
        """Ask the target where it is: the NOP-In shows missing responses (StatSN) and commands (ExpCmdSN)."""
        ping = connection.ping
        if ping is not None and not ping.finished:
            if self.session.now - ping.progress < self.options.progress_timeout:
                return
            self.session.finish(ping)  # it, or its answer, is lost
            if connection.dead or connection.ping is not None:  # what that has led to
                return
        if connection.asked_since is None:
            connection.asked_since = self.session.now
        connection.ping = Nop(done=self._probed)
        self.session.submit(connection.ping, connection)

    def _probed(self, ping: Nop) -> None:
        """Everything that was sent before the ping has been seen by now, or is lost."""
        session, connection = self.session, ping.connection
        if connection is None or connection.dead or ping.error is not None or connection.ping is not ping:
            return
        connection.ping = None
        if not session.error_recovery_level:
            return
        for request in session.requests.values():
            if (
                request.connection is connection
                and not request.immediate
                and request.cmd_sn == session.exp_cmd_sn
                and 0 < request.order < ping.order
                and not request.queued
                # the target may only be busy: not more often than this
                and session.now - request.progress >= self.options.progress_timeout
            ):
                if self._tried(request, connection):
                    self.retry(request)
                    self.probe(connection)
                return

    def retry(self, request: Request) -> None:
        """Send a request again as it was, CmdSN and tag included (clause 7.2.1)."""
        connection = request.connection
        assert connection is not None
        if isinstance(request, ScsiTask):
            request.result.retries += 1
        self.session.send(request, connection)

    def _tried(self, request: Request, connection: Connection) -> bool:
        """Count an attempt; False: there were enough, and the connection is given up."""
        request.retries += 1
        if request.retries <= self.options.attempts:
            return True
        self.session.connection_lost(connection, "a request gets no response however often it is sent")
        return False

    def _nudge(self, request: Request, connection: Connection, now: float) -> None:
        """A request without progress, at level 1 or above."""
        if isinstance(request, ScsiTask):
            numbers = request.numbers
            if request.status_known or numbers.ahead or request.snack_tag:
                request.progress = now
                if self._tried(request, connection):
                    if request.snack_tag and not request.status_known:
                        connection.snack(SnackType.R_DATA, request.itt, 0, 0, ttt=request.snack_tag, lun=request.lun)
                    else:
                        end = max(request.end, numbers.expected + 1) if request.status_known else max(numbers.ahead)
                        self.ask_data(connection, request, end)
        elif request.immediate and (isinstance(request, Nop) or self._tried(request, connection)):
            # nothing tells whether an immediate request has arrived; who answers no ping at all is found out by probe()
            self.session.renew(request, connection)

    def _overdue(self, request: Request, connection: Connection) -> None:
        """No response in ``task_timeout``: abort the task; if that has no response either, the connection is useless."""
        session = self.session
        if not isinstance(request, ScsiTask):
            session.connection_lost(connection, f"no response to a request in {self.options.task_timeout:.0f} s")
            return
        request.started = session.now
        session.submit(
            TaskManagement(
                TaskManagementFunctionCode.ABORT_TASK,
                request.lun,
                referenced=request.itt,
                ref_cmd_sn=None if request.immediate else request.cmd_sn,
                done=lambda tmf: session.finish(request, TaskAborted("no response in time")) if tmf.error is None else None,
            ),
            connection,
        )

    # of a connection

    def connection_lost(self, connection: Connection, reason: str, *, tell: bool = True) -> None:
        """Keep its tasks for the connection that replaces it (level 2)."""
        session = self.session
        wait, retain = self.times or (session.parameters.default_time2wait, session.parameters.default_time2retain)
        self.times = None
        if connection.ping is not None:
            session.finish(connection.ping, RequestFailed("the connection failed"))
            connection.ping = None
        requests = [r for r in session.requests.values() if r.connection is connection and not r.queued]
        for request in list(session.waiting):
            if request.connection is connection:
                session.release(request)
        patience = self.options.retain if self.options.retain is not None else wait + retain
        lost = Lost(
            cid=connection.cid,
            reason=reason,
            wait_until=session.now + wait,
            deadline=session.now + max(patience, wait),
            exp_stat_sn=connection.statuses.expected,
            requests=requests,
        )
        before = self.lost.get(connection.cid)
        if before is not None:
            lost.requests = before.requests + requests
        self.lost[connection.cid] = lost
        if tell:
            session.events.append(
                ConnectionLost(
                    cid=lost.cid,
                    reason=reason,
                    wait_until=lost.wait_until,
                    deadline=lost.deadline,
                    exp_stat_sn=lost.exp_stat_sn,
                )
            )

    def reinstated(self, connection: Connection) -> int:
        """A new connection has the CID of a lost one: its tasks move (clause 7.2.2). Returns how many."""
        lost = self.lost.pop(connection.cid, None)
        return self.adopt(lost.requests, connection) if lost is not None else 0

    def removed(self, request: Logout) -> None:
        """The answer to a Logout for recovery (clause 11.15)."""
        lost = self.lost.get(request.cid)
        if lost is None:
            return
        if request.response in (LogoutResponse.CLOSED, LogoutResponse.CID_NOT_FOUND):
            now = self.session.now
            lost.wait_until = now + request.time2wait
            lost.deadline = lost.wait_until + max(request.time2retain, 1)
            lost.logout = request
        else:
            self.session.end(f"connection {request.cid} cannot be recovered: Logout response {request.response}")

    def _reconnections(self, now: float) -> None:
        """Lost connections whose time has come; tasks whose reassignment was too early."""
        session = self.session
        for when, task, progress in list(self.doubtful):
            if when <= now:
                self.doubtful.remove((when, task, progress))
                if task.progress == progress:
                    session.finish(task, TaskLost("TASK REASSIGN: function rejected"))
        due = [task for when, task in self.postponed if when <= now]
        self.postponed = [(when, task) for when, task in self.postponed if when > now]
        for task in due:
            if not task.finished and task.connection is not None and not task.connection.dead:
                self.reassign(task, task.connection)
        for lost in list(self.lost.values()):
            survivor = session.choose()
            if now >= lost.deadline:
                session.end(f"connection {lost.cid} did not come back: {lost.reason}")
                return
            if now < lost.wait_until or survivor is None:
                continue
            if lost.logout is not None and lost.logout.finished and lost.logout.response >= 0:
                del self.lost[lost.cid]
                self.adopt(lost.requests, survivor)
            elif self.options.by_logout and (lost.logout is None or lost.logout.finished):
                lost.logout = Logout(LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY, lost.cid)
                session.submit(lost.logout, survivor)

    def adopt(self, requests: list[Request], connection: Connection) -> int:
        """Tasks of a logged out connection go on on this one: retried if the target has not got them, or reassigned."""
        session = self.session
        count = 0
        for request in sorted(requests, key=lambda r: (r.cmd_sn - session.exp_cmd_sn) & SERIAL_BITS):
            if request.finished:
                continue
            count += 1
            session.release(request)
            request.connection = connection
            connection.outstanding += 1
            request.progress = session.now
            if not request.immediate and not session.acknowledged(request):
                if isinstance(request, ScsiTask):
                    self._from_the_start(request)
                self.retry(request)
            elif isinstance(request, ScsiTask):
                self.reassign(request, connection)
            else:
                self._repeat(request, connection)
        return count

    def _from_the_start(self, task: ScsiTask) -> None:
        """The target has nothing of the task: neither have we."""
        task.acked = task.snack_tag = 0
        task.lengths.clear()
        task.received = 0
        task.served.clear()
        task.discard_unacknowledged(0)

    def reassign(self, task: ScsiTask, connection: Connection) -> None:
        """TASK REASSIGN to a connection, after the one that it was allegiant to has been logged out (clauses 7.2.2, 11.5)."""
        session = self.session
        # what has not been acknowledged is sent again from ExpDataSN on; with another MaxRecvDataSegmentLength the numbers
        # mean other bytes, so that only the reference that the target knows will do
        exp_data_sn = task.numbers.expected if task.read_length else 0
        if connection.max_recv != task.max_recv:
            exp_data_sn = 0
        task.discard_unacknowledged(exp_data_sn or task.acked)
        task.max_recv = connection.max_recv
        task.snack_tag = 0
        task.served.clear()
        task.resync = bool(task.write_length)
        task.result.retries += 1
        session.submit(
            TaskManagement(
                TaskManagementFunctionCode.TASK_REASSIGN,
                LUN_NONE,
                referenced=task.itt,
                ref_cmd_sn=0,
                exp_data_sn=exp_data_sn,
                done=lambda tmf: self._reassigned(tmf, task, connection),
            ),
            connection,
        )

    def _reassigned(self, tmf: TaskManagement, task: ScsiTask, connection: Connection) -> None:
        """The answer to a TASK REASSIGN."""
        session = self.session
        if task.finished or task.connection is not connection or connection.dead:
            return
        task.progress = session.now
        if tmf.response == _R.FUNCTION_COMPLETE:
            return
        if tmf.response == _R.TASK_STILL_ALLEGIANT:
            if tmf.retries:  # to this connection: the request had arrived before, and its response was lost
                return
            if task.retries < self.options.attempts:
                task.retries += 1
                self.postponed.append((session.now + STILL_ALLEGIANT_DELAY, task))
                return
        elif tmf.response == _R.FUNCTION_REJECTED:
            # LIO says this where it means "complete", and goes on with the task: wait and see
            self.doubtful.append((session.now + 2 * self.options.progress_timeout, task, task.progress))
            return
        elif tmf.response == _R.TASK_DOES_NOT_EXIST and task.immediate:
            self._from_the_start(task)
            session.renew(task, connection)
            return
        elif tmf.response == _R.TASK_ALLEGIANCE_REASSIGNMENT_NOT_SUPPORTED:
            session.end("the target does not support the reassignment of tasks")
            return
        session.finish(task, TaskLost(str(tmf.error) if tmf.error else f"TASK REASSIGN: response {tmf.response}"))

    def _repeat(self, request: Request, connection: Connection) -> None:
        """What cannot be reassigned (clause 11.5.1): ask again, or say that nobody knows."""
        session = self.session
        if isinstance(request, Logout):
            session.finish(request)
        elif isinstance(request, TaskManagement) and request.function == TaskManagementFunctionCode.TASK_REASSIGN:
            session.finish(request, RequestFailed("the connection failed"))
        elif isinstance(request, Text) and request.ttt != RESERVED_TAG:
            session.finish(request, RequestFailed("the connection failed in the middle of a text negotiation"))
        elif isinstance(request, Text):
            request.piece, request.outgoing = None, request.text
            session.renew(request, connection)
        else:
            session.renew(request, connection)
