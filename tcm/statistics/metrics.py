"""The Prometheus endpoint of ``tcm-run --metrics``: where it listens, and what it answers."""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketAttribute, SocketListener

from tcm.configuration import parse_portal, portal_text
from tcm.failure import ConfigError
from tcm.options import one_line
from tcm.statistics.http import Responder
from tcm.target.portal_group import NetworkPortal

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from tcm.statistics.registry import Statistics

log = logging.getLogger(__name__)

DEFAULT_PORT = 9860
FLAG = "--metrics"
RETRY_SECONDS = 1.0
"""After connections could not be accepted."""

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


def _bind(portal: NetworkPortal) -> socket.socket:
    """Not by name: the resolver knows no address of a machine that has none but on lo, as machines with FCoE only do."""
    family = socket.AF_INET6 if ":" in portal.address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((portal.address, portal.port))
        made.listen(128)
    except OSError:
        made.close()
        raise
    return made


async def serve(portal: NetworkPortal, statistics: Statistics, *, task_status: TaskStatus[NetworkPortal]) -> None:
    """Serves until cancelled; the portal that ``task_status`` gets has its real port. Raises :class:`ConfigError`."""
    try:
        bound = _bind(portal)
    except OSError as error:
        why = _WHY.get(error.errno or 0, error.strerror or str(error))
        raise ConfigError(f"{FLAG} {portal_text(portal)}: {why}") from error
    listener = await SocketListener.from_socket(bound)
    async with listener:
        real = NetworkPortal(portal.address, listener.extra(SocketAttribute.local_port))  # noqa: S610  # not Django's
        log.info("metrics at http://%s/metrics", portal_text(real))
        task_status.started(real)
        responder = Responder(Endpoint(statistics).answer)
        while True:
            try:
                await listener.serve(responder)
            except Exception as error:  # noqa: BLE001  # out of file descriptors, say: initiators are served all the same
                log.warning("%s: %s; trying again", FLAG, one_line(error))
                await anyio.sleep(RETRY_SECONDS)
