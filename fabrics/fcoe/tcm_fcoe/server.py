"""The event loop's part: one interface, its link and its station. Frames in, frames out, timers, the link's state."""

from __future__ import annotations

import logging
import os
import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from tcm_fcoe.link.base import BATCH
from tcm_fcoe.protocol.names import colon_form
from tcm_fcoe.protocol.station import Station

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable, Sequence

    from anyio.abc import TaskGroup

    from tcm_fcoe.capture import CaptureFile
    from tcm_fcoe.link import Link
    from tcm_fcoe.protocol.n_port import NPort
    from tcm_fcoe.protocol.station import Listener

log = logging.getLogger("tcm.fcoe")

TURN = 0.005
"""Seconds that one interface may go on before the event loop gets its turn."""
SPINS = 24
"""Tries to receive before the event loop gets its turn, when nothing else is busy."""
REFRESH_SECONDS = 10.0
"""Between two looks at what the kernel counts, if there is anything else to do; RLS tells it."""
MOST_SECONDS = 3600.0
"""Between two looks at the timers."""


class InterfaceServer:
    """One interface.

    :param poll: seconds to keep polling the link after the last frame before sleeping; see :mod:`tcm_iscsi.server`'s reasons: a
        sleeping thread's wake-up costs more than a command. 0 to sleep at once.
    :param on_error: is told of what nobody expected: where, and what.
    :param clock: monotonic seconds.
    :param capture: a file for all frames of the interface.
    :param controller_options: what the FCoE controller of the mode takes besides.
    """

    def __init__(
        self,
        link: Link,
        mode: str,
        *,
        vlan: int | None,
        tag_priority: int,
        poll: float,
        listener: Listener,
        on_error: Callable[[str, BaseException], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        capture: CaptureFile | None = None,
        **controller_options: Any,
    ) -> None:
        self.link = link
        self.receive: Callable[[], Sequence[memoryview]] = link.receive
        self.send: Callable[[deque[bytes]], bool] = link.send
        self.rooms = link.rooms
        if capture is not None:  # which has to see them
            self.receive, self.send, self.rooms = partial(capture.receive, link), partial(capture.send, link), None
        self.mode = mode
        self.vlan = vlan
        self.tag_priority = tag_priority
        self.controller_options = controller_options
        self.poll = poll if len(os.sched_getaffinity(0)) > 1 else 0.0
        self.clock = clock
        self.on_error = on_error
        self.listener = listener
        self.station = self._make_station()
        self.processing = False
        self.hot_until = 0.0
        self._refresh_at = 0.0
        """When the link's counters are looked at again."""
        self.armed = 0.0
        """When the timer task looks again."""
        self._rearm = anyio.Event()
        self._writing: anyio.Event | None = None
        """Set when the writer task has sent everything; ``None`` while there is none."""
        self._more = False
        """There was more to make and to send than one turn had time for."""
        self._seen = (link.address, link.mtu, link.downs)
        self.group: TaskGroup | None = None
        """While it serves."""

    def _make_station(self) -> Station:
        link = self.link
        station = Station(
            self.mode,
            link.address,
            link.mtu,
            rng=random.Random(),  # not for secrets: back-off and addresses
            vlan=self.vlan,
            tag_priority=self.tag_priority,
            listener=self.listener,
            **self.controller_options,
        )
        station.rooms = self.rooms
        return station

    def __str__(self) -> str:
        return self.link.name

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with anyio.create_task_group() as self.group:
                if self.link.up:
                    self.station.link_up(self.clock())
                else:
                    log.info("%s is down; it is served as soon as it is up", self)
                self.flush()
                self.group.start_soon(self._watch)
                self.group.start_soon(self._tick)
                await self._receive()
        finally:
            self.group = None
            self.station.stop(self.clock())  # whoever has not been asked to leave is told now, as far as the link takes it
            self.flush()
            self.link.close()

    # ports

    def add_port(self, port: NPort) -> None:
        """Serve one more. Raises ``ValueError`` if its name is in use here."""
        self.station.add_port(port, self.clock())
        self.flush()

    def remove_port(self, port: NPort) -> None:
        """Log it out of everything."""
        self.station.remove_port(port, self.clock())
        self.flush()

    # frames

    async def _receive(self) -> None:
        link, clock, poll = self.link, self.clock, self.poll
        receive = self.receive
        spins = 0
        began = clock()
        while True:
            frames = receive()
            now = clock()
            if frames:
                self.hot_until = now + poll
                self.take(frames, now)
                self.flush()
            elif self._more:
                self.flush()
            else:
                spins += 1
                if poll and spins < SPINS and now < self.hot_until:
                    continue
                spins = 0
                if poll and now < self.hot_until:
                    await checkpoint()
                else:
                    await link.wait_readable()
                began = clock()
                continue
            if now - began > TURN:  # whoever always has something to say must not keep others waiting
                await checkpoint()
                began = clock()

    def take(self, frames: Iterable[memoryview], now: float) -> None:
        """Frames that have come. One that meets a mistake of ours is lost, the others are not."""
        left = iter(frames)
        self.processing = True
        for _ in range(BATCH):
            try:
                self.station.receive(left, now)
                break
            except Exception as error:  # noqa: BLE001  # whatever it is, the interface goes on
                self._unexpected("a frame", error)
        self.processing = False

    def wake(self) -> None:
        """There is something to send, maybe from outside of :meth:`_receive`."""
        if not self.processing:
            self.flush()

    def flush(self) -> None:
        """Send what there is; have more made as long as the link takes it, and it does not take too long."""
        station = self.station
        outbox, rooms = station.outbox, self.rooms
        deadline = self.clock() + TURN
        self._more = False
        addresses = station.take_addresses()
        if addresses is not None:
            self.link.set_addresses(addresses)  # before anybody can answer to a new one
        while True:
            if not self._send():
                break
            now = self.clock()
            try:
                station.resume(now)
            except Exception as error:  # noqa: BLE001  # see above
                self._unexpected("data to be sent", error)
            if not outbox and not (rooms is not None and rooms.unsent):
                break
            if now > deadline:
                self._more = True
                break
        if station.next_timer < self.armed:
            self._rearm.set()

    def _send(self) -> bool:
        """Send what there is; False: there is more than the link takes now, which goes when it does."""
        outbox, rooms = self.station.outbox, self.rooms
        if not outbox and (rooms is None or not rooms.unsent):
            return True
        if self._writing is not None:
            return False
        if self.send(outbox):
            return True
        if self.group is not None:
            self._writing = anyio.Event()
            self.group.start_soon(self._write)
        return False

    async def _write(self) -> None:
        """Send the rest as the link takes it."""
        event = self._writing
        assert event is not None
        try:
            while not self.send(self.station.outbox):
                await self.link.wait_writable()
        finally:
            self._writing = None
            event.set()
        self.flush()

    # time and the link's state

    async def _tick(self) -> None:
        while True:
            station = self.station
            self._rearm = anyio.Event()
            now = self.clock()
            if now >= self._refresh_at:
                self._refresh_at = now + REFRESH_SECONDS
                self.link.refresh()
                station.counters.frame_check_errors = self.link.counters.frame_check_errors
            self.armed = min(station.next_timer, now + MOST_SECONDS)
            if self.armed > now:
                with anyio.move_on_after(self.armed - now):
                    await self._rearm.wait()
            else:
                await checkpoint()
            now = self.clock()
            if station.next_timer <= now:
                self.processing = True
                try:
                    station.handle_timer(now)
                except Exception as error:  # noqa: BLE001  # see above
                    self._unexpected("a timer", error)
                finally:
                    self.processing = False
                self.flush()

    async def _watch(self) -> None:
        while True:
            await self.link.wait_change()
            self.link_changed()

    def link_changed(self) -> None:
        """The link went down or came up, or has another address or MTU: then all ports begin anew."""
        link, station, now = self.link, self.station, self.clock()
        address, mtu, downs = self._seen
        self._seen = (link.address, link.mtu, link.downs)
        if (address, mtu) != (link.address, link.mtu):
            log.warning(
                "%s: MAC address %s, MTU %d from now on: all ports log in anew", self, colon_form(link.address), link.mtu
            )
            for notice in link.notices:
                log.warning("%s", notice)
            ports = list(station.ports.values())
            station.stop(now)
            self.flush()
            station.link_down(now)
            self.station = self._make_station()
            self.station.counters = station.counters  # they go on: it is the same interface
            for port in ports:
                self.station.add_port(port, now)
            if link.up:
                self.station.link_up(now)
        elif downs != link.downs or not link.up:
            log.info("%s is down", self)
            station.link_down(now)
            if link.up:
                station.link_up(now)
        if link.up and not self.station.controller.link_is_up:
            log.info("%s is up", self)
            self.station.link_up(now)
        self.flush()
        self._rearm.set()

    async def stop(self) -> None:
        """Log out of everything, and return when that has been sent."""
        self.station.stop(self.clock())
        self.flush()
        while self._writing is not None:
            await self._writing.wait()

    def _unexpected(self, what: str, error: BaseException) -> None:
        """A mistake of ours: the batch is lost, the interface goes on."""
        log.error("%s: internal error with %s", self, what, exc_info=error)
        if self.on_error is not None:
            self.on_error(f"{self}: {what}", error)
