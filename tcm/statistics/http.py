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
"""Served at once; more are closed without an answer."""
TIMEOUT = 10.0
"""Seconds that a connection may take, from its first byte to the last of the answer."""

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


async def _respond(stream: ByteStream, answer: Answer) -> bytes:
    try:
        path, accept = parse(await _head(stream))
        if path != "/metrics":
            raise BadRequest(404, "there is nothing but /metrics")
        return response(200, *await answer(accept))
    except BadRequest as error:
        return response(error.status, f"{error}\n".encode())
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        raise
    except Exception:
        log.exception("metrics could not be made")
        return response(500, b"see the log\n")


class Responder:
    """Serves connections.

    :param answer: what ``/metrics`` is.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._serving = 0

    async def __call__(self, stream: ByteStream) -> None:
        """One connection, to its end."""
        async with stream:
            if self._serving >= MAXIMUM_CONNECTIONS:
                return
            self._serving += 1
            try:
                with anyio.move_on_after(TIMEOUT):
                    await stream.send(await _respond(stream, self._answer))
                    await stream.send_eof()
                    while True:  # what the peer still says is read, so that closing does not cut the answer off
                        await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass
            finally:
                self._serving -= 1
