"""``tcm-run --agentx``: keeps a sub-agent connected to a master agent such as Debian's snmpd, and tells it of what changes."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from tcm.configuration import parse_portal
from tcm.failure import ConfigError
from tcm.statistics.agentx import AgentXError, Error, PduType
from tcm.statistics.mib import PIECE, Pieces, View, finish
from tcm.statistics.mib_state import MibState
from tcm.statistics.scsi_mib import ScsiMib
from tcm.statistics.sets import Setter
from tcm.statistics.subagent import State, SubAgent

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from tcm.statistics.agentx import Pdu
    from tcm.statistics.mib import Module, Notification, Oid, Value
    from tcm.statistics.registry import Statistics
    from tcm.statistics.sets import Configurator

log = logging.getLogger(__name__)
T = TypeVar("T")

DEFAULT_PORT = 705
FLAG = "--agentx"
TICK = 1.0
"""Seconds between two looks at what notifications tell of."""
BURST, BURST_SECONDS = 3, 10.0
"""At most so many notifications of one kind (of SCSI-MIB: of one kind and row) are sent in so many seconds, as the MIBs say."""
RECONNECT_SECONDS = (1.0, 30.0)
"""After a connection was lost, first and at most; each time twice as long."""
CONNECT_SECONDS = 10.0
SEND_SECONDS = 10.0
"""After which a master that does not read is given up."""


def check(text: str) -> str:
    """``/path/of/a/socket`` or ``ADDR:PORT``. Raises :class:`ConfigError` for anything else."""
    if text.startswith("/"):
        if len(text.encode()) > 107:
            raise ConfigError(f"{FLAG}: {text}: the path of a Unix socket has at most 107 bytes; write a shorter one")
        return text
    if not text or "/" in text:
        raise ConfigError(
            f"{FLAG}: {text!r}: write the absolute path of the master agent's socket, or 127.0.0.1:{DEFAULT_PORT}"
        )
    parse_portal(text, FLAG, DEFAULT_PORT)
    return text


def next_wait(before: float, *, connected: bool) -> float:
    """Seconds until the next connection is tried: ever longer until there was one."""
    first, longest = RECONNECT_SECONDS
    return first if connected else min(2 * before, longest)


class Watch:
    """Notices changes of what one kind of notification tells of, and bounds how many are told.

    What may not be told yet is told later, if it is still so.
    """

    def __init__(self, notification: Notification) -> None:
        self.notification = notification
        self._before: dict[Oid, Value | None] = {}
        self._told: dict[Oid, deque[float]] = {}
        """When; of each row or, under ``()``, of all."""

    def changes(self, now: float) -> list[tuple[Oid, Any]]:
        """Index and row of what has changed since the last call and may be told. A row's first value is none to tell."""
        return finish(self.changes_in_pieces(now))

    def changes_in_pieces(self, now: float) -> Pieces[list[tuple[Oid, Any]]]:
        """The same."""
        kind = self.notification
        read = next(each for each in kind.table.columns if each.name == kind.watched).read
        rows = yield from kind.table.rows_in_pieces()
        after: dict[Oid, Value | None] = {}
        self._told = {index: told for index, told in self._told.items() if not index or index in rows}
        found = []
        for count, (index, row) in enumerate(rows.items(), 1):
            value = read(row)
            known = after[index] = self._before.get(index, value)
            if known != value and not (kind.tells(value) and kind.enabled()):
                after[index] = value
            elif known != value and self._may(index if kind.each else (), now):
                after[index] = value
                found.append((index, row))
            if count % PIECE == 0:
                yield
        self._before = after
        return found

    def _may(self, index: Oid, now: float) -> bool:
        told = self._told.setdefault(index, deque(maxlen=BURST))
        if len(told) == BURST and now - told[0] < BURST_SECONDS:
            return False
        told.append(now)
        return True


class Agent:
    """Keeps a sub-agent connected.

    :param address: see :func:`check`.
    :param state: what outlives the process.
    """

    def __init__(self, address: str, statistics: Statistics, state: MibState | None = None) -> None:
        self.address = address
        self.statistics = statistics
        self.state = state if state is not None else MibState()
        self.configurator: Configurator | None = None
        """What managers can change; ``None``: only what the MIB modules keep for themselves."""
        self.connected = False
        """The master knows us, and what we answer for."""
        self._watches: dict[str, Watch] = {}
        """By notification. They outlive a connection: what changed meanwhile is told."""
        self._unkept = False
        """It was said once that the state cannot be kept."""

    def modules(self) -> list[Module]:
        """SCSI-MIB, and those of the fabrics."""
        own = [self.statistics.of_fabric(name) for name in self.statistics.fabrics]
        found = [ScsiMib(self.statistics, self.state).module()]
        return [*found, *(module for each in own if each is not None for module in each.mib(self.state))]

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        wait, _ = RECONNECT_SECONDS
        said = ""
        while True:
            try:
                with anyio.fail_after(CONNECT_SECONDS):
                    stream = await self._connect()
                async with stream:
                    said = ""
                    await self._serve(stream)
                reason = "the master agent closed the connection"
            except AgentXError as error:
                reason = str(error)
            except TimeoutError:
                reason = "no connection in time"
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream) as error:
                reason = _reason(error)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                if reason != said:
                    log.exception("the SNMP sub-agent failed; initiators are served all the same")
            wait = next_wait(wait, connected=self.connected)
            self.connected = False
            if reason != said:
                log.warning("%s %s: %s; trying again", FLAG, self.address, reason)
                said = reason
            await anyio.sleep(wait)

    async def _keep(self) -> None:
        """Indexes that rows have got since."""
        if self.state.indexes.changed and not self._unkept:
            try:
                await self.state.save()
            except OSError as error:
                self._unkept = True
                log.warning("%s: indexes are not kept: %s: %s", FLAG, self.state.path, error.strerror)

    async def _connect(self) -> ByteStream:
        if self.address.startswith("/"):
            return await anyio.connect_unix(self.address)
        portal = parse_portal(self.address, FLAG, DEFAULT_PORT)
        return await anyio.connect_tcp(portal.address, portal.port)

    async def _serve(self, stream: ByteStream) -> None:
        """One connection, to its end."""
        fabrics = tuple(self.statistics.fabrics)
        view = View(self.modules())
        agent = SubAgent(view, time.monotonic())
        setter = Setter(view, self.state, lambda: self.configurator)
        lock = anyio.Lock()

        async def send() -> None:
            async with lock:
                for buffer in agent.data_to_send():
                    try:
                        with anyio.fail_after(SEND_SECONDS):
                            await stream.send(buffer)
                    except TimeoutError:
                        raise AgentXError(f"the master agent has read nothing for {SEND_SECONDS:.0f} s") from None

        async def receive() -> None:
            async for data in stream:
                await _finish(agent.receive_in_pieces(data, time.monotonic()))
                await send()
                while agent.sets:
                    pdu = agent.sets.popleft()
                    agent.answer_set(pdu, *await _set(setter, pdu))
                    await send()
                if agent.state is State.RUNNING and not self.connected:
                    self.connected = True
                    log.info("%s %s: registered at the master agent", FLAG, self.address)
            tasks.cancel_scope.cancel()

        async def tick() -> None:
            kinds = {each.name: each for module in view.modules for each in module.notifications}
            self._watches = {name: self._watches.get(name) or Watch(each) for name, each in kinds.items()}
            for name, watch in self._watches.items():
                watch.notification = kinds[name]
            while True:
                await anyio.sleep(TICK)
                now = time.monotonic()
                agent.handle_timer(now)
                if tuple(self.statistics.fabrics) != fabrics:
                    raise AgentXError("the fabrics have changed, and their MIB modules with them")
                if agent.state is State.RUNNING:
                    for watch in self._watches.values():
                        pieces = watch.changes_in_pieces(now)
                        for index, row in await _finish(pieces):
                            agent.notify(watch.notification, index, row)
                await send()
                await self._keep()

        failures: list[Exception] = []
        try:
            await send()
            async with anyio.create_task_group() as tasks:
                for each in (receive, tick):
                    tasks.start_soon(_noting, each, failures, tasks.cancel_scope)
            if failures:
                raise failures[0]
        finally:
            agent.close()
            with anyio.move_on_after(1, shield=True):
                with contextlib.suppress(OSError, AgentXError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await send()
            with anyio.CancelScope(shield=True):
                await self._keep()


async def _finish(pieces: Pieces[T]) -> T:
    """All of it, and what comes out; initiators are served in between."""
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            found: T = done.value
            return found
        await checkpoint()


async def _set(setter: Setter, pdu: Pdu) -> tuple[Error, int]:
    """One step of a SET."""
    if pdu.type == PduType.TEST_SET:
        return await setter.test(pdu.transaction, pdu.wanted, time.monotonic())
    if pdu.type == PduType.COMMIT_SET:
        return await setter.commit(pdu.transaction)
    if pdu.type == PduType.UNDO_SET:
        return await setter.undo(pdu.transaction)
    setter.cleanup(pdu.transaction)
    return Error.NO_ERROR, 0


async def _noting(function: Any, failures: list[Exception], scope: anyio.CancelScope) -> None:
    """The first failure ends the others, and is no group of exceptions."""
    try:
        await function()
    except Exception as error:  # noqa: BLE001  # raised by whoever waits for both
        failures.append(error)
        scope.cancel()


def _reason(error: BaseException) -> str:
    while isinstance(error.__cause__, OSError):
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return _reason(error.exceptions[0])
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or "the connection broke"
