"""Mode ``fcf``: what the services of the fabric and ports of the same station say to each other, without a wire."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tcm_fcoe.protocol.controller import NEVER, LocalPort
from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3
from tcm_fcoe.protocol.frame import Frame
from tcm_fcoe.protocol.switch import SERVICES, AttachedPort, Switch

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.fcoe import Buffer

D_ID = slice(1, 4)
"""Of an FC frame header."""


class LocalFrames:
    """Requests are dealt with at once; what services send arrives later, so that a request is noted before its reply comes."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._waiting: deque[tuple[AttachedPort, Frame]] = deque()

    @property
    def next_timer(self) -> float:
        """At once, if there is anything."""
        return 0.0 if self._waiting else NEVER

    def take(self, port: LocalPort, header: bytes, payload: bytes, now: float) -> bool:
        """A frame of a port of ours, if it is for a service; whether it was."""
        attached = self._switch.by_name.get(port.port_name)
        if attached is None or attached.port is not port or int.from_bytes(header[D_ID], "big") not in SERVICES:
            return False
        self._switch.receive(attached, Frame.unpack(memoryview(header + payload), SOF_I3, EOF_T), now)
        return True

    def send(self, to: AttachedPort, header: bytes, payload: Buffer, sof: int, eof: int) -> None:
        """A frame of a service for a port of ours."""
        self._waiting.append((to, Frame.unpack(memoryview(header + payload), sof, eof)))

    def deliver(self, received: Callable[[LocalPort, Frame, float], None], now: float) -> None:
        """All there is, and what comes of it."""
        while self._waiting:
            to, frame = self._waiting.popleft()
            if to.port is not None and self._switch.ports.get(to.fc_id) is to:
                received(to.port, frame, now)

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()
