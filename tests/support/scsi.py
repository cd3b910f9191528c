"""Logical units, a target with them, and initiators: real backstores behind the real core, over the loopback fabric."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from support.memory import GatedMemory
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.fabric import LoopbackPort

from tcm.adapters import adapt
from tcm.backstore import Backstore, BlockingBackstore
from tcm.target.attributes import DeviceAttributes
from tcm.target.device import TargetDevice
from tcm.target.directory_store import DirectoryStore
from tcm.target.logical_unit import LogicalUnit
from tcm.target.store import Store

FIRST = "naa.5001405000000001"
SECOND = "naa.5001405000000002"
SIZE = 2 << 20


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes that repeat nowhere; other seeds, other bytes."""
    return random.Random(seed).randbytes(size)


def ramdisk(size: int = SIZE) -> Backstore:
    return RamdiskBackstore(size)


@asynccontextmanager
async def make_lu(
    backstore: Backstore | BlockingBackstore | None = None,
    *,
    name: str = "disk",
    serial: str = "11111111-2222-3333-4444-555555555555",
    removable: bool = False,
    read_only: bool = False,
    directory: Path | None = None,
    store: Store | None = None,
    **attributes: Any,
) -> AsyncIterator[LogicalUnit]:
    """An open logical unit; a 2 MiB thin ramdisk of 512-byte blocks unless a backstore is given.

    ``attributes`` are those of :class:`DeviceAttributes`.

    :param directory: where it keeps what has to outlive it.
    :param store: likewise; with neither it keeps nothing.
    """
    unit = LogicalUnit(
        name,
        adapt(backstore) if backstore is not None else ramdisk(),
        serial=serial,
        attributes=DeviceAttributes(**attributes),
        removable=removable,
        read_only=read_only,
        store=DirectoryStore(str(directory)) if directory is not None else store,
    )
    failure: Exception | None = None
    async with anyio.create_task_group() as task_group:
        await unit.open()
        unit.start(task_group)
        try:
            yield unit
        except Exception as error:  # raised below, without a group around it
            failure = error
        finally:
            if isinstance(backstore, GatedMemory):
                backstore.failure = None
                backstore.release()
            with anyio.fail_after(60, shield=True):
                await unit.aclose()
            task_group.cancel_scope.cancel()
    if failure is not None:
        raise failure


def make_target(*units: LogicalUnit, name: str = "naa.50014050000000aa") -> LoopbackPort:
    """A target port that admits everybody and has the units as LUN 0, 1 ..."""
    device = TargetDevice(name, "loopback")
    group = device.add_portal_group(1)
    group.enabled = True
    group.access = replace(group.access, generate_node_acls=True, demo_mode_write_protect=False)
    for number, unit in enumerate(units):
        group.add_lun(number, unit)
    return LoopbackPort(group)


@asynccontextmanager
async def target(*backstores: Backstore | BlockingBackstore | None, **options: Any) -> AsyncIterator[LoopbackPort]:
    """A target port with a logical unit for each backstore; see :func:`make_lu`."""
    async with AsyncExitStack() as stack:
        units = [
            await stack.enter_async_context(
                make_lu(store, name=f"disk{i}", serial=f"{i:08x}-2222-3333-4444-555555555555", **options)
            )
            for i, store in enumerate(backstores)
        ]
        port = make_target(*units)
        try:
            yield port
        finally:
            for initiator in port.initiators:
                initiator.disconnect()


@asynccontextmanager
async def one_initiator(
    backstore: Backstore | BlockingBackstore | None = None, *, express: bool = False, **options: Any
) -> AsyncIterator[ApplicationClient]:
    """An application client of one new logical unit, its unit attentions out of the way."""
    async with target(backstore, **options) as port:
        client = ApplicationClient(port.connect(FIRST, express=express))
        await client.identify()
        yield client


@asynccontextmanager
async def two_initiators(
    backstore: Backstore | BlockingBackstore | None = None, **options: Any
) -> AsyncIterator[tuple[ApplicationClient, ApplicationClient]]:
    """Two application clients, each with its own I_T nexus, of one new logical unit."""
    async with target(backstore, **options) as port:
        clients = (ApplicationClient(port.connect(FIRST)), ApplicationClient(port.connect(SECOND)))
        for client in clients:
            await client.identify()
        yield clients


def logical_unit(client: ApplicationClient) -> LogicalUnit:
    """The logical unit that a client talks to."""
    assert client.initiator.nexus is not None
    number = client.lun if isinstance(client.lun, int) else client.lun[1]
    return client.initiator.nexus.target_portal_group.luns[number].logical_unit
