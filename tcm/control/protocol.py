"""JSON-RPC 2.0, one JSON text a line, sans-IO: framing, requests, responses, errors (docs/control-protocol.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MAXIMUM_MESSAGE = 16 << 20
"""Bytes of a line that the server takes; a saveconfig.json of 1,000 LUNs and 200 targets has 4 MB."""
MAXIMUM_RESPONSE = 256 << 20
"""Bytes of a line that the client takes."""
MAXIMUM_BATCH = 1000
"""Requests in one line."""
MAXIMUM_DEPTH = 64
"""Arrays and objects inside each other."""

MAXIMUM_VALUES = 500_000
"""Arrays and objects in one line; each takes much more room once it is parsed."""
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
REFUSED = -32000
"""The tree refuses the operation; ``data`` has errno's number and name."""

GAVE_WAY = -32001
"""The client was idle and others want its place: it may connect again. A request that it has just sent was not looked at."""


class RpcError(Exception):
    """What a request is answered with instead of a result.

    :param data: whatever else may be said, as JSON.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    def to_json(self) -> dict[str, Any]:
        """The ``error`` member of the response."""
        error = {"code": self.code, "message": str(self)}
        return error if self.data is None else {**error, "data": self.data}


class TooLong(Exception):
    """A line is longer than allowed: the peer does not speak this protocol."""


class LineFramer:
    """Bytes in, lines out.

    :param limit: bytes of a line, without its end.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._length = 0

    def receive_data(self, data: bytes) -> list[bytes]:
        """The lines that are complete now. Raises :class:`TooLong`."""
        *ends, rest = data.split(b"\n")
        lines = []
        for end in ends:
            self._add(end)
            lines.append(b"".join(self._parts))
            self._parts, self._length = [], 0
        if rest:
            self._add(rest)
        return lines

    def _add(self, part: bytes) -> None:
        self._length += len(part)
        if self._length > self._limit:
            raise TooLong(f"a line of more than {self._limit} bytes")
        self._parts.append(part)


@dataclass(frozen=True, slots=True)
class Request:
    """One call."""

    method: str
    params: dict[str, Any] | list[Any]
    identifier: str | int | float | None = None
    notification: bool = False
    """Nobody wants an answer."""


def parse_line(line: bytes) -> tuple[list[Request | RpcError], bool]:
    """The requests of a line, each bad one as its error, and whether they are a batch. Raises :class:`RpcError` for no JSON."""
    value = parse_json(line)
    if not isinstance(value, list):
        return [_request(value)], False
    if not value:
        raise RpcError(INVALID_REQUEST, "an empty batch; write at least one request")
    if len(value) > MAXIMUM_BATCH:
        raise RpcError(INVALID_REQUEST, f"a batch of {len(value)} requests; write at most {MAXIMUM_BATCH}")
    return [_request(each) for each in value], True


def parse_json(line: bytes) -> Any:
    """Any JSON value, neither too deep nor with NaN in it. Raises :class:`RpcError`."""
    brackets = line.count(b"[") + line.count(b"{")
    if brackets > MAXIMUM_VALUES:
        raise RpcError(PARSE_ERROR, f"{brackets} arrays and objects; write at most {MAXIMUM_VALUES}")
    # looked at before it is parsed: the parser would recurse
    if brackets > MAXIMUM_DEPTH and _too_deep(line):
        raise RpcError(PARSE_ERROR, f"nested more than {MAXIMUM_DEPTH} deep")
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RpcError(PARSE_ERROR, f"not JSON: {error}") from None


def _too_deep(line: bytes) -> bool:
    """Whether arrays and objects are nested too deep, or do not end; brackets inside strings do not count.

    Pairs are taken away from the inside, a level at a time: others wait for the answer, and so nothing is done byte by byte.
    """
    outside = b"".join(line.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    left = outside.translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(MAXIMUM_DEPTH):
        if not left:
            return False
        left = left.replace(b"[]", b"")
    return bool(left)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _request(value: Any) -> Request | RpcError:
    if not isinstance(value, dict):
        return RpcError(INVALID_REQUEST, "a request is an object")
    identifier = value.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int | float | None):
        return RpcError(INVALID_REQUEST, "id: write a string or a number")
    if value.get("jsonrpc") != "2.0":
        return RpcError(INVALID_REQUEST, 'jsonrpc: write "2.0"', {"id": identifier})
    method, params = value.get("method"), value.get("params", {})
    if not isinstance(method, str):
        return RpcError(INVALID_REQUEST, "method: write a string", {"id": identifier})
    if not isinstance(params, dict | list):
        return RpcError(INVALID_REQUEST, "params: write an object", {"id": identifier})
    return Request(method, params, identifier, notification="id" not in value)


def request_line(method: str, params: dict[str, Any], identifier: int) -> bytes:
    """A request as it is sent."""
    return dump({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})


def result(identifier: Any, value: Any) -> dict[str, Any]:
    """A response of success."""
    return {"jsonrpc": "2.0", "id": identifier, "result": value}


def failure(identifier: Any, error: RpcError) -> dict[str, Any]:
    """A response of failure."""
    return {"jsonrpc": "2.0", "id": identifier, "error": error.to_json()}


def dump(value: Any) -> bytes:
    """A JSON value as a line."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"
