"""Requests to be awaited, whatever the transport: the loop is anyio's, a request begins and ends where the transport says."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol, TypeVar

import anyio

from tcm.initiator.commands import Commands


class Awaited(Protocol):
    """A request of a transport's own kind: a SCSI command, a task management function, ..."""

    done: Any
    """``None``, or what is called with the request when it is finished."""
    error: Any
    """Why there is no response; ``None`` if there is one."""


AwaitedT = TypeVar("AwaitedT", bound=Awaited)


class Driver(Commands):
    """Commands to one target, on an event loop."""

    @abstractmethod
    def abandon(self, request: Any) -> None:
        """Nobody waits for the request any more: end it, at the target too."""

    async def perform(self, request: AwaitedT, *where: Any) -> AwaitedT:
        """:meth:`submit` (with ``where``), and wait. Cancelled: it is abandoned. Raises RequestFailed."""
        event = anyio.Event()
        request.done = lambda _: event.set()
        self.submit(request, *where)
        try:
            await event.wait()
        except BaseException:
            request.done = None
            self.abandon(request)
            raise
        if request.error is not None:
            raise request.error.with_traceback(None)
        return request
