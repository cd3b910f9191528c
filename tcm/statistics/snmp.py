"""``tcm-run --agentx``: keeps a sub-agent connected to a master agent such as Debian's snmpd, and tells it of what changes."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio

from tcm.backstore import ConfigError
from tcm.configuration import parse_portal
from tcm.statistics.agentx import AgentXError
from tcm.statistics.mib import View
from tcm.statistics.scsi_mib import ScsiMib
from tcm.statistics.subagent import State, SubAgent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import ByteStream

    from tcm.statistics.mib import Module, Notification, Oid, Value
    from tcm.statistics.registry import Statistics

log = logging.getLogger(__name__)

DEFAULT_PORT = 705
FLAG = "--agentx"
TICK = 1.0
"""Seconds between two looks at what notifications tell of."""
BURST, BURST_SECONDS = 3, 10.0
"""Of one kind of notification at most so many are sent in so many seconds."""
RECONNECT_SECONDS = (1.0, 30.0)
"""After a connection was lost, first and at most; each time twice as long."""
CONNECT_SECONDS = 10.0


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


class Watch:
    """Notices changes of what one kind of notification tells of, and bounds how many are told."""

    def __init__(self, notification: Notification) -> None:
        self.notification = notification
        self._before: dict[Oid, Value] | None = None
        self._told: deque[float] = deque(maxlen=BURST)
        self._read = next(each for each in notification.table.columns if each.name == notification.watched).read

    def changes(self, now: float) -> Iterator[tuple[Oid, Any]]:
        """Index and row of what has changed since the last call and may be told. A row's first value is none to tell."""
        rows = dict(self.notification.table.rows())
        values = {index: self._read(row) for index, row in rows.items()}
        before, self._before = self._before, values
        for index, value in values.items():
            if before is None or index not in before or before[index] == value:
                continue
            if len(self._told) == BURST and now - self._told[0] < BURST_SECONDS:
                continue
            self._told.append(now)
            yield index, rows[index]


class Agent:
    """Keeps a sub-agent connected.

    :param address: see :func:`check`.
    """

    def __init__(self, address: str, statistics: Statistics) -> None:
        self.address = address
        self.statistics = statistics
        self.connected = False
        """The master knows us, and what we answer for."""

    def modules(self) -> list[Module]:
        """SCSI-MIB, and those of the fabrics."""
        own = [self.statistics.of_fabric(name) for name in self.statistics.fabrics]
        return [ScsiMib(self.statistics).module(), *(module for each in own if each is not None for module in each.mib())]

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        first, longest = RECONNECT_SECONDS
        wait = first
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
            wait = first if self.connected else min(2 * wait, longest)
            self.connected = False
            if reason != said:
                log.warning("%s %s: %s; trying again", FLAG, self.address, reason)
                said = reason
            await anyio.sleep(wait)

    async def _connect(self) -> ByteStream:
        if self.address.startswith("/"):
            return await anyio.connect_unix(self.address)
        portal = parse_portal(self.address, FLAG, DEFAULT_PORT)
        return await anyio.connect_tcp(portal.address, portal.port)

    async def _serve(self, stream: ByteStream) -> None:
        """One connection, to its end."""
        agent = SubAgent(View(self.modules()), time.monotonic())
        lock = anyio.Lock()

        async def send() -> None:
            async with lock:
                for buffer in agent.data_to_send():
                    await stream.send(buffer)

        async def receive() -> None:
            async for data in stream:
                agent.receive_data(data, time.monotonic())
                await send()
                if agent.state is State.RUNNING and not self.connected:
                    self.connected = True
                    log.info("%s %s: registered at the master agent", FLAG, self.address)
            tasks.cancel_scope.cancel()

        async def tick() -> None:
            watches = [Watch(each) for module in agent.view.modules for each in module.notifications]
            while True:
                await anyio.sleep(TICK)
                now = time.monotonic()
                agent.handle_timer(now)
                for watch in watches:
                    for index, row in watch.changes(now):
                        agent.notify(watch.notification, index, row)
                await send()

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
                with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await send()


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
