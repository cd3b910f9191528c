"""An FCoE initiator port for programs (anyio): an interface in, targets that are found, commands to be awaited."""

from __future__ import annotations

import os
import random
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from tcm.initiator.driver import Driver
from tcm_fcoe.hba import describe
from tcm_fcoe.initiator.faults import FaultyPath
from tcm_fcoe.initiator.fcp_initiator import FcpInitiator
from tcm_fcoe.initiator.results import InitiatorError, LoginFailed
from tcm_fcoe.initiator.tasks import FcpTask
from tcm_fcoe.link import open_link
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import colon_form, name_from_mac
from tcm_fcoe.protocol.station import Station

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from anyio.abc import TaskGroup

    from tcm_fcoe.capture import CaptureFile
    from tcm_fcoe.initiator.faults import Chance, Faults
    from tcm_fcoe.initiator.nexus import TargetNexus
    from tcm_fcoe.initiator.options import Options
    from tcm_fcoe.initiator.results import Result
    from tcm_fcoe.link import Link
    from tcm_fcoe.protocol.fcoe import Buffer

TICK = 0.01
"""Seconds between looks at the timers."""
POLL = 200e-6
"""Seconds for which the link is polled after the last frame: on a virtual machine a wake-up costs more than a command."""
TURN = 0.005
"""Seconds until other tasks get their turn."""
LOGOUT_SECONDS = 0.2
"""For what is sent at the end."""


class Target(Driver):
    """A target that has been logged in to. :meth:`execute` and the ready-made commands go to its LUNs.

    It stays the same when its login ends and comes again; what was outstanding then fails with TargetLost.
    """

    def __init__(self, initiator: InitiatorPort, nexus: TargetNexus) -> None:
        self.initiator = initiator
        self.nexus: TargetNexus = nexus
        self.port_name = nexus.remote.port_name
        self.node_name = nexus.remote.node_name
        self.logged_in = True
        self.default_lun = 0
        self._capacities = {}

    def submit(self, task: FcpTask) -> None:
        """Start a command; its ``done`` is called with it when it is finished. For many at once, without a task for each."""
        port = self.initiator
        port.fcp.submit(self.nexus, task, port.now())
        port.flush_soon()

    def abandon(self, task: FcpTask) -> None:
        """See :meth:`abort`."""
        self.abort(task)

    def abort(self, task: FcpTask) -> None:
        """ABTS, which is FCP's ABORT TASK: it ends with TaskAborted."""
        port = self.initiator
        port.fcp.abort_task(task, port.now())
        port.flush_soon()

    async def execute(
        self,
        cdb: bytes,
        lun: int | bytes | None = None,
        *,
        data_out: Buffer = b"",
        read_length: int = 0,
        write_length: int | None = None,
        attribute: int = 0,
    ) -> Result:
        """A SCSI command; any status comes back as a result. Lengths in bytes.

        :raises RequestFailed: there is no status.
        """
        task = FcpTask(
            cdb, self.default_lun if lun is None else lun, data_out=data_out, read_length=read_length,
            write_length=write_length, attribute=attribute,
        )  # fmt: skip
        return (await self.perform(task)).result

    async def task_management(self, flag: int, lun: int | bytes | None = None) -> int:
        """A task management function (:class:`~tcm_fcoe.protocol.fcp.TaskManagementFlag`); its RSP_CODE."""
        task = FcpTask(b"", self.default_lun if lun is None else lun, management=flag)
        return (await self.perform(task)).code or 0


class InitiatorPort:
    """One N_Port with an FCP initiator, on one interface. Made by :func:`attach`.

    ``fcp`` is the sans-IO initiator under it, ``station`` what is below that.
    """

    def __init__(
        self,
        link: Link,
        *,
        mode: str,
        vlan: int | None,
        port_name: bytes | None,
        node_name: bytes | None,
        options: Options | None,
        faults: Faults | None,
        chance: Chance | None,
        capture: CaptureFile | None,
    ) -> None:
        self.link = link
        self.mode = mode
        rng = random.Random()
        discovery: dict[str, Any] = {"discover_vlan": True} if mode == "fabric" and vlan is None else {}
        self.station = Station(mode, link.address, mtu=link.mtu, rng=rng, vlan=vlan, **discovery)
        port_name = port_name or name_from_mac(link.address)
        self.port = NPort(
            port_name,
            node_name or name_from_mac(link.address, naa=1),
            symbolic_name="tcm initiator",
            hba=describe(link.name, "FCoE initiator"),
        )
        self.fcp = FcpInitiator(self.port, options)
        self.port.fc4 = self.fcp
        self.fcp.on_login, self.fcp.on_logout = self._logged_in, self._logged_out
        self.targets: dict[bytes, Target] = {}
        """By port name: all that have been logged in to."""
        self.clock: Callable[[], float] = time.monotonic
        self.incoming = self.outgoing = None
        if faults:
            chance = chance or random.Random()
            self.incoming, self.outgoing = FaultyPath(faults, chance), FaultyPath(faults, chance)
        self._from_link: Callable[[], Sequence[memoryview]] = link.receive
        self._to_link: Callable[[deque[bytes]], bool] = link.send
        if capture is not None:
            self._from_link, self._to_link = partial(capture.receive, link), partial(capture.send, link)
        self.rooms = link.rooms if not faults and capture is None else None  # who looks at frames has to see them
        self.station.rooms = self.rooms
        self._sending: deque[bytes] = deque()
        """Frames that the faults let through, for the link."""
        self._processing = False
        self._blocked = False
        self._woken = anyio.Event()
        self._changed = anyio.Event()
        self._now = 0.0

    def now(self) -> float:
        """Seconds of the clock, read once for a batch of frames."""
        return self._now if self._processing else self.clock()

    # targets

    def _logged_in(self, nexus: TargetNexus) -> None:
        name = nexus.remote.port_name
        target = self.targets.get(name)
        if target is None:
            self.targets[name] = Target(self, nexus)
        else:
            target.nexus, target.logged_in = nexus, True
        self._tell()

    def _logged_out(self, nexus: TargetNexus, _reason: str) -> None:
        target = self.targets.get(nexus.remote.port_name)
        if target is not None and target.nexus is nexus:
            target.logged_in = False
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def target(self, port_name: bytes | None = None, *, timeout: float = 15.0) -> Target:  # noqa: ASYNC109 - told in words
        """A target that is logged in; ``None``: the first that there is.

        :raises LoginFailed: there is no such after ``timeout`` seconds.
        """
        with anyio.move_on_after(timeout):
            while True:
                there = [each for each in self.targets.values() if each.logged_in]
                found = [each for each in there if port_name is None or each.port_name == port_name]
                if found:
                    return found[0]
                await self._changed.wait()
        raise LoginFailed(self._why_not(port_name, timeout))

    def _why_not(self, port_name: bytes | None, seconds: float) -> str:
        where = f"{self.link.name} in mode {self.mode}"
        if not self.link.up:
            return f"{self.link.name} is down: nobody is at the other end"
        if not self.port.is_up:
            return f"no address on {where} within {seconds:g} s: is the other side there, and in the same mode and VLAN?"
        there = ", ".join(colon_form(each.port_name) for each in self.targets.values() if each.logged_in)
        if not there and self.station.counters.other_vlans:
            own = f"--vlan {self.station.vlan}" if self.station.vlan else "none"
            return f"no target on {where} within {seconds:g} s; frames of another VLAN than ours ({own}) have come"
        if port_name is None:
            return f"no target on {where} has let us in within {seconds:g} s"
        return f"no target {colon_form(port_name)} on {where} within {seconds:g} s; there are: {there or 'none'}"

    async def settle(self, quiet: float = 1.0, *, timeout: float = 15.0) -> list[Target]:  # noqa: ASYNC109 - told in words
        """The targets, once no more have come for ``quiet`` seconds, or after ``timeout``.

        :raises LoginFailed: there is none.
        """
        await self.target(timeout=timeout)
        with anyio.move_on_after(timeout):
            while True:
                changed = self._changed
                with anyio.move_on_after(quiet):
                    await changed.wait()
                if not changed.is_set():
                    break
        return [each for each in self.targets.values() if each.logged_in]

    # frames

    def flush_soon(self) -> None:
        """What is in the outbox goes out: now, or at the end of the batch that is being processed."""
        if not self._processing:
            self._flush()

    def _flush(self) -> None:
        outbox, fcp, rooms = self.station.outbox, self.fcp, self.rooms
        while not self._blocked:
            queue = outbox
            if self.outgoing is not None:
                queue = self._sending
                queue += (bytes(frame) for frame in self.outgoing.take(outbox, self.now()))
                outbox.clear()
            if (queue or (rooms is not None and rooms.unsent)) and not self._to_link(queue):
                self._blocked = True
                self._woken.set()
            elif fcp.sending:
                fcp.resume(self.now())
            else:
                return

    async def run(self, group: TaskGroup) -> None:
        """Receive until cancelled."""
        for each in (self._watch, self._tick, self._drain):
            group.start_soon(each)
        link, clock, receive = self.link, self.clock, self._from_link
        poll = POLL if len(os.sched_getaffinity(0)) > 1 else 0.0
        hot_until = began = 0.0
        while True:
            frames = receive()
            now = clock()
            if not frames:
                if now < hot_until:
                    await checkpoint()
                else:
                    await link.wait_readable()
                began = clock()
                continue
            hot_until = now + poll
            self._take(frames, now)
            if now - began > TURN:
                await checkpoint()
                began = clock()

    def _take(self, frames: Sequence[memoryview], now: float) -> None:
        if self.incoming is not None:
            frames = [memoryview(frame) for frame in self.incoming.take(frames, now)]
        self._process(partial(self.station.receive, frames, now), now)

    def _process(self, work: Callable[[], None], now: float) -> None:
        self._now = now
        self._processing = True
        try:
            work()
        finally:
            self._processing = False
        # before anybody can answer to a new one
        addresses = self.station.take_addresses()
        if addresses is not None:
            self.link.set_addresses(addresses)
        self._flush()

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(TICK)
            now = self.clock()
            if self.incoming is not None and self.outgoing is not None:
                if late := self.incoming.handle_timer(now):
                    frames = [memoryview(frame) for frame in late]
                    self._process(partial(self.station.receive, frames, now), now)
                if late := self.outgoing.handle_timer(now):
                    self._sending += (bytes(frame) for frame in late)
                    self._flush()
            if self.station.next_timer <= now:
                self._process(partial(self.station.handle_timer, now), now)

    async def _drain(self) -> None:
        """When the link took no more: go on as soon as it does."""
        while True:
            await self._woken.wait()
            self._woken = anyio.Event()
            while self._blocked:
                await self.link.wait_writable()
                self._blocked = not self._to_link(self.station.outbox if self.outgoing is None else self._sending)
            self._flush()

    async def _watch(self) -> None:
        """The link goes up and down."""
        up, downs = False, self.link.downs
        while True:
            now = self.clock()
            if up and (not self.link.up or self.link.downs != downs):
                up = False
                self._process(partial(self.station.link_down, now), now)
            if self.link.up and not up:
                up = True
                self._process(partial(self.station.link_up, now), now)
            downs = self.link.downs
            await self.link.wait_change()

    async def leave(self) -> None:
        """Log out, as well as that goes."""
        now = self.clock()
        self._process(partial(self.station.stop, now), now)
        await anyio.sleep(LOGOUT_SECONDS if self.targets else 0)

    @property
    def fault_counts(self) -> dict[str, int]:
        """Faults so far, by direction and name."""
        paths = (("out", self.outgoing), ("in", self.incoming))
        return {f"{way} {name}": count for way, path in paths if path is not None for name, count in path.done.items()}


@asynccontextmanager
async def attach(
    interface: str,
    *,
    mode: str = "vn2vn",
    vlan: int | None = None,
    port_name: bytes | None = None,
    node_name: bytes | None = None,
    options: Options | None = None,
    faults: Faults | None = None,
    chance: Chance | None = None,
    capture: CaptureFile | None = None,
) -> AsyncIterator[InitiatorPort]:
    """An initiator port on an interface, for the length of the block: it logs in to every target that it finds.

    :param interface: a network interface, or ``unix:LOCAL,PEER``.
    :param mode: ``vn2vn``, ``fabric``, ``p2p`` or ``fcf``: then the port is one of the switch itself.
    :param vlan: of all its frames but those of VLAN discovery; ``None``: in mode ``fabric`` the one that the FCF tells.
    :param port_name: made from the interface's MAC address if not given; so is ``node_name``.
    :param faults: misbehave, at the mercy of ``chance`` (a :class:`random.Random` with a seed).
    :param capture: a file for all frames that really went over the link.
    :raises ConfigError: the interface cannot be used.
    """
    link = open_link(interface)
    failure: Exception | None = None
    try:
        port = InitiatorPort(
            link, mode=mode, vlan=vlan, port_name=port_name, node_name=node_name, options=options, faults=faults, chance=chance,
            capture=capture,
        )  # fmt: skip
        port.station.add_port(port.port, port.clock())
        async with anyio.create_task_group() as group:
            group.start_soon(port.run, group)
            try:
                yield port
            except Exception as e:  # noqa: BLE001  # raised again below, outside of the group
                failure = e
            finally:
                with anyio.CancelScope(shield=True), suppress(InitiatorError, OSError):
                    await port.leave()
                group.cancel_scope.cancel()
    finally:
        link.close()
    if failure is not None:
        raise failure
