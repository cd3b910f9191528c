"""The Prometheus endpoint of ``tcm-run --metrics``: where it listens, and what it answers."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketAttribute

from tcm.backstore import ConfigError
from tcm.configuration import parse_portal, portal_text
from tcm.statistics.http import Responder
from tcm.target.device import NetworkPortal

if TYPE_CHECKING:
    from anyio.abc import Listener, SocketStream, TaskStatus

    from tcm.statistics.registry import Statistics

log = logging.getLogger(__name__)

DEFAULT_PORT = 9860
FLAG = "--metrics"

_WHY = {
    errno.EADDRINUSE: "the port is taken; write another one (port 0 takes any free one)",
    errno.EACCES: f"ports below 1024 need root; write one above, such as {DEFAULT_PORT}",
    errno.EADDRNOTAVAIL: "this machine has no such address; `ip address` lists those it has",
}


def check(text: str) -> NetworkPortal:
    """``ADDR:PORT``. Raises :class:`ConfigError` for what is none, and if prometheus_client is not installed."""
    portal = parse_portal(text, FLAG, DEFAULT_PORT)
    try:
        import prometheus_client  # noqa: F401  # only whether it is there
    except ImportError:
        raise ConfigError(f"{FLAG}: prometheus_client is not installed; pip install 'tcm-target[metrics]'") from None
    return portal


class Endpoint:
    """Answers scrapes, one after the other."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._one = anyio.CapacityLimiter(1)

    async def answer(self, accept: str) -> tuple[bytes, str]:
        """The metrics of now."""
        from tcm.statistics.prometheus import expose

        async with self._one:
            return await expose(await self._statistics.gather(), accept)


async def serve(portal: NetworkPortal, statistics: Statistics, *, task_status: TaskStatus[NetworkPortal]) -> None:
    """Serves until cancelled; the portal that ``task_status`` gets has its real port. Raises :class:`ConfigError`."""
    try:
        listener: Listener[SocketStream] = await anyio.create_tcp_listener(local_host=portal.address, local_port=portal.port)
    except OSError as error:
        found = error
        while isinstance(found.__cause__, OSError):
            found = found.__cause__
        why = _WHY.get(found.errno or 0, found.strerror or str(found))
        raise ConfigError(f"{FLAG} {portal_text(portal)}: {why}") from error
    async with listener:
        real = NetworkPortal(portal.address, listener.extra(SocketAttribute.local_port))  # noqa: S610  # not Django's
        log.info("metrics at http://%s/metrics", portal_text(real))
        task_status.started(real)
        await listener.serve(Responder(Endpoint(statistics).answer))
