"""An iSCSI session for programs (anyio): requests to be awaited, connections that come back, events."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from tcm.initiator.driver import Driver
from tcm_iscsi.initiator.options import Options
from tcm_iscsi.initiator.results import (
    AsyncMessage,
    ConnectionClosed,
    ConnectionLost,
    Event,
    InitiatorError,
    LoginFailed,
    RequestFailed,
    Result,
    SessionEnded,
)
from tcm_iscsi.initiator.tasks import SIMPLE, Logout, Nop, Request, ScsiTask, TaskManagement, Text
from tcm_iscsi.initiator.transport import KEPT_EVENTS, Transport
from tcm_iscsi.initiator.url import Url, parse_url
from tcm_iscsi.protocol.pdu import RESERVED_TAG, AsyncEvent, Buffer, LoginStatus, LogoutReason, TaskManagementFunctionCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from anyio.abc import TaskGroup

    from tcm.initiator.driver import AwaitedT
    from tcm_iscsi.initiator.faults import Chance, Faults
    from tcm_iscsi.initiator.session import Session
    from tcm_iscsi.initiator.wire import Wire
    from tcm_iscsi.protocol.text import Pair

LINGER = 0.5
"""Seconds that the target has to close a connection after its Logout Response."""


class InitiatorSession(Transport, Driver):
    """A session with a target. Made by :func:`connect`.

    ``core`` is the sans-IO session: everything that recovers on demand is there. ``events`` are the last ones that happened,
    and ``on_event`` is called with each.
    """

    def __init__(
        self,
        group: TaskGroup,
        url: Url,
        options: Options,
        *,
        faults: Faults | None = None,
        chance: Chance | None = None,
    ) -> None:
        super().__init__(group, url, options, faults=faults, chance=chance)
        self.default_lun = url.lun or 0
        self.events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self.on_event: Callable[[Event], None] | None = None
        self.recoveries = 0
        """Connections that were brought back, and sessions."""
        self._happened = anyio.Event()
        self._closing = False
        self._recovering: anyio.Event | None = None
        self._capacities = {}

    async def start(self, connections: int = 1) -> None:
        """Log in, with that many connections. Raises InitiatorError."""
        await self._lead()
        allowed = self.core.parameters.max_connections
        if connections > allowed:
            raise InitiatorError(f"the session may have {allowed} connections: MaxConnections of both sides decides")
        self._group.start_soon(self._tick)
        self._group.start_soon(self._send_woken)
        for _ in range(connections - 1):
            await self.add_connection()

    # the end of connections

    async def remove_connection(self, cid: int, *, via: int | None = None) -> int:
        """Log a connection out (reason 1), on itself or ``via`` another; the Logout response."""
        return (await self._log_out_connection(cid, LogoutReason.CLOSE_CONNECTION, via)).response

    async def remove_for_recovery(self, cid: int, *, via: int | None = None) -> Logout:
        """Log a connection out for recovery (reason 2): its tasks wait for reassignment."""
        return await self._log_out_connection(cid, LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY, via)

    async def _log_out_connection(self, cid: int, reason: LogoutReason, via: int | None) -> Logout:
        done = anyio.Event()
        answers: list[Logout] = []

        def take(request: Logout) -> None:
            answers.append(request)
            done.set()

        wire = self.wires.get(cid)
        self.core.now = self.clock()
        self.core.close_connection(cid, reason, via=self.core.connections[via] if via is not None else None, done=take)
        self._flush_soon()
        await done.wait()
        if answers[0].error is not None:
            raise answers[0].error
        if wire is not None:
            await self._until(lambda: wire.closed)
        return answers[0]

    async def logout(self, patience: float = 5.0) -> None:
        """End the session by the book: wait for what is outstanding, Logout, close. No error if it is over already.

        :param patience: seconds, for each of the two waits.
        """
        self._closing = True
        with anyio.move_on_after(patience):
            await self._until(lambda: self.core.ended is not None or not self.core.scsi_tasks())
            # one by one, the last one with the session: LIO is known to trip when it has to close several at once
            for cid in sorted(self.core.connections)[1:]:
                if cid in self.core.connections:
                    with suppress(RequestFailed):
                        await self.remove_connection(cid)
        if self.core.ended is None:
            done = anyio.Event()
            self.core.now = self.clock()
            self.core.log_out(done=lambda _: done.set())
            self._flush_soon()
            with anyio.move_on_after(patience):
                await done.wait()
        self.core.end("")
        self._after()

    # requests

    def submit(self, request: Request, cid: int | None = None) -> None:
        """Start a request; its ``done`` is called with it when it is finished. For many at once, without a task for each."""
        core = self.core
        if not self._processing:
            core.now = self.clock()
        core.submit(request, core.connections[cid] if cid is not None else None)
        if not self._processing:
            self._flush_soon()

    async def perform(self, request: AwaitedT, cid: int | None = None) -> AwaitedT:
        """:meth:`submit`, and wait. Cancelled: the task is aborted at the target. Raises RequestFailed."""
        if self._recovering is not None:
            await self._recovering.wait()
        return await super().perform(request, cid)

    def abandon(self, request: Request) -> None:
        """Take it back, or ABORT TASK if it has been sent."""
        core = self.core
        if request.finished or core.ended is not None:
            return
        if request.queued:
            core.finish(request)
        elif isinstance(request, ScsiTask) and request.connection is not None and not request.connection.dead:
            ref = None if request.immediate else request.cmd_sn
            core.submit(
                TaskManagement(TaskManagementFunctionCode.ABORT_TASK, request.lun, referenced=request.itt, ref_cmd_sn=ref),
                request.connection,
            )
            self._flush_soon()

    async def execute(
        self,
        cdb: bytes,
        lun: int | bytes | None = None,
        *,
        data_out: Buffer = b"",
        read_length: int = 0,
        write_length: int | None = None,
        attribute: int = SIMPLE,
        immediate: bool = False,
        cid: int | None = None,
    ) -> Result:
        """A SCSI command; any status comes back as a result. Lengths in bytes.

        :param lun: a number, the eight bytes of a LUN, or None: that of the URL.
        :param cid: on this connection; None: on the one with the fewest tasks.
        :raises RequestFailed: there is no status.
        """
        task = ScsiTask(
            cdb,
            self.default_lun if lun is None else lun,
            data_out=data_out,
            read_length=read_length,
            write_length=write_length,
            attribute=attribute,
            immediate=immediate,
        )
        await self.perform(task, cid)
        result = task.result
        result.data = task.buffer[: max(0, read_length - result.residual) if result.underflow else read_length]
        return result

    async def task_management(
        self, function: int, lun: int | bytes | None = None, *, task: ScsiTask | None = None, cid: int | None = None
    ) -> int:
        """A task management function; its response code (a TaskManagementResponseCode). ``task``: of ABORT TASK."""
        referenced, ref_cmd_sn = RESERVED_TAG, None
        if task is not None:
            referenced = task.itt
            ref_cmd_sn = None if task.immediate else task.cmd_sn
            if cid is None and task.connection is not None:
                cid = task.connection.cid  # clause 11.5.1: where the task is allegiant
        request = TaskManagement(
            function, self.default_lun if lun is None else lun, referenced=referenced, ref_cmd_sn=ref_cmd_sn
        )
        return (await self.perform(request, cid)).response

    async def ping(self, data: bytes = b"", *, immediate: bool = True, cid: int | None = None) -> bytes:
        """NOP-Out; the data that the target sends back."""
        return (await self.perform(Nop(data, immediate=immediate), cid)).answer

    async def text(self, pairs: Mapping[str, str] | Iterable[Pair], *, cid: int | None = None) -> list[Pair]:
        """A text negotiation of full feature phase; the target's pairs, in order."""
        items = list(pairs.items()) if hasattr(pairs, "items") else list(pairs)
        return (await self.perform(Text(items), cid)).answers

    async def declare_max_recv(self, length: int, *, cid: int) -> None:
        """Declare another MaxRecvDataSegmentLength for a connection (clause 13.12), in bytes."""
        connection, wire = self.core.connections[cid], self.wires[cid]
        if length > connection.max_recv:  # the target may use it before its answer is here
            wire.make_room_again(length)
            connection.max_recv = length
        await self.text([("MaxRecvDataSegmentLength", str(length))], cid=cid)
        connection.max_recv = length

    async def next_event(self, kind: type[Event] | None = None) -> Event:
        """Wait for the next event (of a class)."""
        while True:
            await self._happened.wait()
            event = self.events[-1]
            if kind is None or isinstance(event, kind):
                return event

    # what happens

    def _handle(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ConnectionLost):
            wire = self.wires.get(event.cid)
            if wire is not None and wire.connection is not None and wire.connection.dead:
                wire.end_now()
            if self.core.error_recovery_level == 2 and not self._closing and self.options.recovery.automatic:
                self._group.start_soon(self._bring_back, event, self.core)
        elif isinstance(event, ConnectionClosed):
            self.portals.pop(event.cid, None)
            wire = self.wires.get(event.cid)
            if wire is not None:
                wire.lingering = True
                self._group.start_soon(self._linger, wire)
        elif isinstance(event, SessionEnded):
            for wire in list(self.wires.values()):
                wire.end_now()
            if event.reason and self.options.recovery.session_recovery and not self._closing and self._recovering is None:
                self._recovering = anyio.Event()
                self._group.start_soon(self._recover_session)
        elif isinstance(event, AsyncMessage) and self.options.recovery.automatic:
            if event.event == AsyncEvent.LOGOUT_REQUESTED:
                self._group.start_soon(self._asked_to_leave, event.cid)
            elif event.event == AsyncEvent.NEGOTIATION_REQUESTED:
                self._group.start_soon(self._asked_to_negotiate, event.cid)
        happened, self._happened = self._happened, anyio.Event()
        happened.set()
        if self.on_event is not None:
            self.on_event(event)

    async def _linger(self, wire: Wire) -> None:
        """The target closes a connection that is logged out; if it does not, we do."""
        await anyio.sleep(LINGER)
        wire.end_now()

    async def _bring_back(self, event: ConnectionLost, core: Session) -> None:
        """Reinstate a lost connection (level 2)."""
        portal = self.portals.get(event.cid) or self._main_portal()
        await anyio.sleep(max(0.0, event.wait_until - self.clock()))
        pause = 0.05
        while core.ended is None and core is self.core and event.cid not in core.connections:
            by_logout = self.options.recovery.by_logout and core.choose() is not None
            if not (by_logout and event.cid in core.recovery.lost):
                try:
                    await self._join(portal, event.cid)
                    self.recoveries += 1
                    return
                except LoginFailed as e:
                    if e.status == LoginStatus.SESSION_DOES_NOT_EXIST:
                        core.now = self.clock()
                        core.end("the target has forgotten the session")
                        self._after()
                        return
                except InitiatorError:
                    pass
            await anyio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _recover_session(self) -> None:
        """Session recovery: log in anew with the same ISID, with as many connections (clauses 7.1.4.4, 6.3.5)."""
        portals = list(self.portals.values())
        recovering = self._recovering
        assert recovering is not None
        pause = 0.05
        try:
            while not self._closing:
                try:
                    self.portals.clear()
                    await self._lead()
                    for portal in portals[1:]:
                        await self.add_connection(portal)
                    self.recoveries += 1
                    return
                except InitiatorError as e:
                    if isinstance(e, LoginFailed) and e.status is not None and e.status >> 8 == 2:
                        return
                await anyio.sleep(pause)
                pause = min(2 * pause, 2.0)
        finally:
            self._recovering = None
            recovering.set()

    async def _asked_to_negotiate(self, cid: int) -> None:
        """The target wants a text negotiation on a connection (clause 11.9.1): it gets what we have to declare."""
        with suppress(RequestFailed):
            connection = self.core.connections.get(cid)
            if connection is not None:
                await self.declare_max_recv(connection.max_recv, cid=cid)

    async def _asked_to_leave(self, cid: int) -> None:
        """The target wants a connection, or the only one, logged out (clause 11.9.1)."""
        with suppress(RequestFailed):
            if set(self.core.connections) <= {cid}:
                await self.logout()
            else:
                leaving = self.core.connections[cid]
                leaving.leaving = True
                await self._until(lambda: all(r.connection is not leaving for r in self.core.scsi_tasks()))
                if cid in self.core.connections:
                    await self.remove_connection(cid)


def _resolve(where: str | Url, options: Options | None) -> tuple[Url, Options]:
    url = parse_url(where) if isinstance(where, str) else where
    options = options or Options()
    if url.target and not options.target_name:
        options = replace(options, target_name=url.target)
    return url, options


@asynccontextmanager
async def connect(
    where: str | Url,
    options: Options | None = None,
    *,
    connections: int = 1,
    faults: Faults | None = None,
    chance: Chance | None = None,
    on_session: Callable[[Session], None] | None = None,
) -> AsyncIterator[InitiatorSession]:
    """A session with the target at ``where`` (``iscsi://host:port/target-name/lun``), for the length of the block.

    :param connections: MC/S: how many; the target must allow them (MaxConnections).
    :param faults: misbehave, at the mercy of ``chance`` (a :class:`random.Random` with a seed).
    :raises InitiatorError: it cannot be reached, or does not let us in.
    :raises InvalidUrl: ``where`` is no such address.
    """
    url, options = _resolve(where, options)
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        session = InitiatorSession(group, url, options, faults=faults, chance=chance)
        session.on_session = on_session
        try:
            await session.start(connections)
            yield session
        except Exception as e:  # noqa: BLE001  # raised again below, outside of the group
            failure = e
        finally:
            with anyio.CancelScope(shield=True):
                if hasattr(session, "core"):
                    await session.logout(5.0 if failure is None else 1.0)
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def discover(where: str | Url, options: Options | None = None, *, name: str = "All") -> dict[str, list[str]]:
    """The targets of a portal and the addresses of each (SendTargets, RFC 7143 appendix C): ``{name: [host:port,tag]}``."""
    url, options = _resolve(where, options)
    async with connect(replace(url, target="", lun=None), replace(options, target_name="")) as session:
        pairs = await session.text([("SendTargets", name)])
    found: dict[str, list[str]] = {}
    addresses: list[str] = []
    for key, value in pairs:
        if key == "TargetName":
            addresses = found.setdefault(value, [])
        elif key == "TargetAddress":
            addresses.append(value)
    return found
