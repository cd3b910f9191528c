"""A running fabric as tcm-run makes it, in this process, on a link of Unix sockets; and initiators at its other end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from tcm_fcoe.fabric import FcoeFabric
from tcm_fcoe.initiator.driver import InitiatorPort, attach

from tcm.cli.arguments import Arguments, configuration
from tcm.plugins import PluginManager
from tcm.runtime import Runtime

WWPN = "20:00:52:54:00:2f:fc:00"
INITIATOR = "20:00:52:54:00:f5:97:00"
STRANGER = "20:00:52:54:00:f5:97:01"


class FcoeSite:
    """What runs, and where."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self.runtime = runtime
        self.folder = folder
        fabric = runtime.fabrics["fcoe"]
        assert isinstance(fabric, FcoeFabric)
        self.fabric = fabric

    @asynccontextmanager
    async def initiator(self, name: str = INITIATOR, number: int = 0, **options: Any) -> AsyncIterator[InitiatorPort]:
        """An initiator port at the other end of the nth interface. One at a time: it is a cable."""
        link = f"unix:{self.folder}/i{number},{self.folder}/t{number}"
        async with attach(link, port_name=bytes.fromhex(name.replace(":", "")), **options) as port:
            yield port


@asynccontextmanager
async def fcoe_site(
    folder: Path, *, targets: tuple[str, ...] = (WWPN,), interfaces: int = 1, luns: tuple[str, ...] = ("ramdisk:size=8M",),
    config: str | None = None, **options: Any,
) -> AsyncIterator[FcoeSite]:  # fmt: skip
    links = tuple(f"unix:{folder}/t{number},{folder}/i{number}" for number in range(interfaces))
    arguments = Arguments(
        fabrics=("fcoe",),
        fabric_options={"interface": links, **options},
        targets=() if config else targets,
        luns=() if config else luns,
        config=config,
        state_dir=str(folder / "state"),
    )
    plugins = PluginManager()
    runtime = Runtime(configuration(arguments, plugins), plugins, drain_timeout=2)
    with anyio.fail_after(120):
        async with anyio.create_task_group() as tasks:
            await tasks.start(runtime.serve)
            failure: Exception | None = None
            try:
                yield FcoeSite(runtime, folder)
            except Exception as error:  # raised below, without a group around it
                failure = error
            runtime.stop()
    if failure is not None:
        raise failure
