"""A TCP relay between an initiator and the daemon that keeps the beginning of what each side says."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

KEPT = 16384
"""Bytes of each direction of each connection: the login is among them."""


class Relay:
    """Listens on ``port`` and passes everything on to the given address, for the length of a ``with`` block.

    :param listen: the port to listen on; 0: any that is free.
    """

    def __init__(self, host: str, port: int, listen: int = 0) -> None:
        self.to = (host, port)
        self.listener = socket.create_server(("127.0.0.1", listen))
        self.port: int = self.listener.getsockname()[1]
        self.from_target: list[bytearray] = []
        self.from_initiator: list[bytearray] = []
        self.threads: list[threading.Thread] = []
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in list(self.threads):
            thread.join()
        for each in (self.listener, *self.sockets):
            each.close()

    def _start(self, what: object, *args: object) -> None:
        thread = threading.Thread(target=what, args=args)  # type: ignore[arg-type]
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                initiator, _ = self.listener.accept()
                target = socket.create_connection(self.to)
                self.sockets += (initiator, target)
                for kept in (self.from_initiator, self.from_target):
                    kept.append(bytearray())
                self._start(self._pass_on, initiator, target, self.from_initiator[-1])
                self._start(self._pass_on, target, initiator, self.from_target[-1])

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                kept += data[: KEPT - len(kept)]
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
