"""An attacker on a segment of real interfaces: a target as a process, an initiator whose every byte is verified (root)."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import anyio
import pytest
from support.daemon import wait_until
from support.fcoe_attacker import Attacker, Station
from support.fcoe_daemon import FcoeDaemon
from support.namespaces import Namespace, namespace
from tcm_fcoe.initiator import InitiatorPort, Target, attach
from tcm_fcoe.protocol.names import colon_form

pytestmark = pytest.mark.anyio
MACS = {name: bytes.fromhex("5254000010") + bytes((number,)) for number, name in enumerate(("target", "victim", "attacker"), 1)}
SECONDS = 4.0
SLOWEST = 5.0
"""Seconds of processor time that the target may use while a WRITE and the READ after it wait."""
GROWTH = 64 << 20
"""Bytes that the target may have grown by: its table of neighbours or ports, open exchanges, what it remembers of answers."""
BLOCKS = 64


@pytest.fixture
def anyio_backend() -> str:
    """The target is a process of its own: which event loop the initiator has makes no difference to it."""
    return "asyncio"


@pytest.fixture
def segment() -> Iterator[Namespace]:
    """A switch with three interfaces on it."""
    with namespace() as made:
        made.ip("link", "add", "switch0", "mtu", "2500", "type", "bridge")
        made.ip("link", "set", "switch0", "up")
        for name, mac in MACS.items():
            made.cable(name, f"to-{name}")
            made.ip("link", "set", name, "address", mac.hex(":"))
            made.ip("link", "set", f"to-{name}", "master", "switch0")
        yield made


class Target_(FcoeDaemon):
    """tcm-run in the namespace."""

    def __init__(self, directory: Path, ns: Namespace, mode: str) -> None:
        super().__init__(directory, "--wwpn", wwpn("target"), "--lun", "ramdisk:size=64M", mode=mode)
        self.args[self.args.index("--interface") + 1] = "target"
        self.ns = ns

    def start(self, timeout: float = 60) -> FcoeDaemon:
        with self.ns.inside():
            super().start(timeout)
        return self


def wwpn(name: str) -> str:
    return colon_form(b"\x20\0" + MACS[name])


async def attached(stack: AsyncExitStack, ns: Namespace, name: str, mode: str) -> tuple[InitiatorPort, Target]:
    with ns.inside():
        manager = attach(name, mode=mode)
        port = await stack.enter_async_context(manager)
    return port, await port.target(timeout=60)


async def io(daemon: FcoeDaemon, target: Target, end: float, worker: int = 0) -> float:
    """Random data, written and read back until then, in a place of the worker's own; the most processor time that the target
    used meanwhile.
    """
    chance, slowest = random.Random(worker), 0.0
    while time.monotonic() < end:
        data, lba, began = (
            chance.randbytes(BLOCKS * 512),
            worker * 0x2000 + chance.randrange(0x1000),
            daemon.processor_seconds(),
        )
        await target.write(lba, data)
        assert bytes(await target.read(lba, BLOCKS)) == data
        slowest = max(slowest, daemon.processor_seconds() - began)
    return slowest


@pytest.mark.parametrize("comes_in", [False, True], ids=["stranger", "logged in"])
@pytest.mark.parametrize("mode, theirs", [("vn2vn", "vn2vn"), ("fcf", "fabric")])
async def test_attacker_on_the_segment(tmp_path: Path, segment: Namespace, mode: str, theirs: str, comes_in: bool) -> None:
    """Frames in others' names, floods from 10,000 MAC addresses, VLAN tags, nonsense; a login of its own and all it allows.

    The initiator's I/O goes on in the same login, memory is bounded, and a new initiator gets in afterwards.
    """
    daemon = Target_(tmp_path, segment, mode)
    try:
        daemon.start()
        async with AsyncExitStack() as stack:
            victim, target = await attached(stack, segment, "victim", theirs)
            foe = (await attached(stack, segment, "attacker", theirs))[0] if comes_in else None
            stations = (
                Station(MACS["attacker"], foe.port.fc_id if foe else 0),
                Station(MACS["target"], target.nexus.remote.fc_id),
                Station(MACS["victim"], victim.port.fc_id),
            )
            before, end, sent, slowest = daemon.rss(), time.monotonic() + SECONDS, 0, []
            with segment.inside():
                wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
                wire.bind(("attacker", 0))
            async with anyio.create_task_group() as tasks:

                async def work(worker: int) -> None:
                    slowest.append(await io(daemon, target, end, worker))

                for worker in range(4):
                    tasks.start_soon(work, worker)
                rounds = Attacker(*stations, fcf=mode == "fcf").rounds(foe.port if foe else None)
                with wire:
                    while time.monotonic() < end:
                        for frame in next(rounds):
                            with suppress(OSError):
                                sent += wire.send(frame) > 0
                        await anyio.sleep(0.002)
            assert sent > 1000
            assert max(slowest) < SLOWEST
            assert daemon.rss() - before < GROWTH
            assert f"{wwpn('victim')} is logged out" not in daemon.log()
            assert daemon.log().count(f"{wwpn('victim')} logged in") == 1
        wait_until(lambda: f"{wwpn('victim')} is logged out" in daemon.log(), 60, "the logout")
        async with AsyncExitStack() as stack:
            _, target = await attached(stack, segment, "victim", theirs)
            await io(daemon, target, time.monotonic() + 0.2)
        daemon.assert_quiet()
    finally:
        daemon.kill()
