"""``GET /metrics`` and nothing else: a bounded HTTP/1.1 responder (RFC 9112), one answer a connection."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from anyio.abc import ByteStream

log = logging.getLogger(__name__)

Answer = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Given the Accept header: content and content type."""

MAXIMUM_REQUEST = 8192
"""Bytes of a request's head."""
MAXIMUM_CONNECTIONS = 16
"""Served at once. For another one the oldest has to go, if it has had its :data:`GRACE`; else the new one is closed."""
GRACE = 1.0
"""Seconds that a connection has before others may have its place."""
TIMEOUT = 10.0
"""Seconds that a connection may take, from its first byte to the last of the answer."""
MAXIMUM_UNSENT = 32 << 20
"""Bytes of answers that wait for peers to read them; beyond that, those who have read the longest have to go."""
PIECE = 1 << 16
"""Bytes of an answer that are sent in one go."""

GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
"""The peer has left, in one way or another."""

STATUSES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    505: "HTTP Version Not Supported",
}


class BadRequest(Exception):
    """What is not answered with content."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def parse(head: bytes) -> tuple[str, str]:
    """The path of a GET request, and its Accept header. Raises :class:`BadRequest`."""
    try:
        lines = head.decode("ascii").split("\r\n")
        method, target, protocol = lines[0].split(" ")
    except ValueError:
        raise BadRequest(400, "this is no HTTP request") from None
    if not protocol.startswith("HTTP/1."):
        raise BadRequest(505 if protocol.startswith("HTTP/") else 400, "HTTP/1.1 is spoken here")
    if method != "GET":
        raise BadRequest(405, "only GET")
    headers = {
        name.strip().lower(): value.strip() for name, colon, value in (line.partition(":") for line in lines[1:]) if colon
    }
    return target.partition("?")[0], headers.get("accept", "")


def response(status: int, content: bytes, content_type: str = "text/plain; charset=utf-8") -> bytes:
    """A whole response."""
    allow = "Allow: GET\r\n" if status == 405 else ""
    head = (
        f"HTTP/1.1 {status} {STATUSES[status]}\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n"
        f"{allow}Connection: close\r\n\r\n"
    )
    return head.encode() + content


async def _head(stream: ByteStream) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        if len(received) > MAXIMUM_REQUEST:
            raise BadRequest(431, "the request is too long")
        received += await stream.receive(4096)
    return received.partition(b"\r\n\r\n")[0]


class _Connection:
    """One that is served."""

    def __init__(self) -> None:
        self.since = anyio.current_time()
        self.scope = anyio.CancelScope()
        self.unsent = 0
        """Bytes."""


class Responder:
    """Serves connections.

    :param answer: what ``/metrics`` is.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._serving: list[_Connection] = []
        """Oldest first."""

    async def __call__(self, stream: ByteStream) -> None:
        """One connection, to its end. Whatever goes wrong ends the connection and nothing else."""
        try:
            async with stream:
                connection = self._admit()
                if connection is None:
                    return
                try:
                    with anyio.move_on_after(TIMEOUT), connection.scope:
                        await self._serve(stream, connection)
                finally:
                    if connection in self._serving:
                        self._serving.remove(connection)
        except GONE:
            pass
        except Exception:
            log.exception("a connection to the metrics failed")

    def _admit(self) -> _Connection | None:
        """``None``: all places are taken by others that are as new."""
        made = _Connection()
        if len(self._serving) >= MAXIMUM_CONNECTIONS:
            oldest = self._serving[0]
            if made.since - oldest.since < GRACE:
                return None
            self._end(oldest)
        self._serving.append(made)
        return made

    def _end(self, connection: _Connection) -> None:
        self._serving.remove(connection)
        connection.scope.cancel()

    def _make_room(self, connection: _Connection) -> None:
        """For its answer, at the cost of those that read slowly."""
        unsent = sum(each.unsent for each in self._serving)
        for each in list(self._serving):
            if unsent <= MAXIMUM_UNSENT:
                break
            if each.unsent and each is not connection:
                unsent -= each.unsent
                self._end(each)

    async def _respond(self, stream: ByteStream) -> bytes:
        try:
            path, accept = parse(await _head(stream))
            if path != "/metrics":
                raise BadRequest(404, "there is nothing but /metrics")
            return response(200, *await self._answer(accept))
        except BadRequest as error:
            return response(error.status, f"{error}\n".encode())
        except GONE:
            raise
        except Exception:
            log.exception("metrics could not be made")
            return response(500, b"see the log\n")

    async def _serve(self, stream: ByteStream, connection: _Connection) -> None:
        answer = memoryview(await self._respond(stream))
        connection.unsent = len(answer)
        self._make_room(connection)
        for start in range(0, len(answer), PIECE):
            await stream.send(bytes(answer[start : start + PIECE]))
        connection.unsent = 0
        try:
            await stream.send_eof()
        except RuntimeError as error:  # uvloop's word for a connection that the peer has reset
            raise anyio.BrokenResourceError from error
        while True:  # what the peer still says is read, so that closing does not cut the answer off
            await stream.receive()
