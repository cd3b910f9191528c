"""What the fabric keeps in the state directory for the process that comes after it: who the peer of a port was."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from tcm.target.store import key

if TYPE_CHECKING:
    from tcm.target.store import Store
    from tcm_fcoe.target_port import TargetPort

log = logging.getLogger("tcm.fcoe")


class Memory:
    """Of all ports.

    :param store: the state directory.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._latest: dict[str, str] = {}
        """What is to be written, by key: only the last of several."""
        self._wanted = anyio.Event()

    async def recall(self, port: TargetPort) -> None:
        """Tell the port's controller what was kept. What cannot be read is not missed for long: the peer asks by itself."""
        try:
            entry = await self._store.get(_key(port))
        except OSError as e:
            log.warning("%s: what was kept of its peer cannot be read: %s", port.server, e)
        else:
            if entry.value:
                port.server.station.controller.remember(entry.value)

    def keep(self, port: TargetPort) -> None:
        """It has come up: keep what its controller would want to know."""
        memory = port.server.station.controller.memory()
        if memory:
            self._latest[_key(port)] = memory
            self._wanted.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            while self._latest:
                where, value = self._latest.popitem()
                try:
                    entry = await self._store.get(where)
                    if entry.value != value:
                        await self._store.put(where, value, entry.revision)
                except OSError as e:
                    log.warning("the peer of a port cannot be kept: %s", e)


def _key(port: TargetPort) -> str:
    return key("fcoe", "peers", f"naa.{port.n_port.port_name.hex()}")
