"""A client of the control socket that blocks: for ``tcm-ctl`` and the FUSE mount."""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import suppress
from typing import Any, Self

from tcm.control.peer import short_path
from tcm.control.protocol import GAVE_WAY, MAXIMUM_RESPONSE, REFUSED, LineFramer, RpcError, TooLong, request_line

TIMEOUT = 60.0
"""Seconds to wait for an answer."""
_ATTEMPTS = 5
"""How often a call is made by a client that has to give way to others."""


class ClientError(Exception):
    """There is no server, or it does not answer. The message is one line."""


class Refused(Exception):
    """The server refuses.

    :param number: errno, ``EINVAL`` where there is none.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number

    @property
    def name(self) -> str:
        """``EBUSY``."""
        return errno.errorcode.get(self.number, str(self.number))


class Client:
    """A connection.

    :param path: of the control socket.
    :param timeout: seconds to wait for each answer; ``None``: for ever.

    Raises :class:`ClientError`.
    """

    def __init__(self, path: str, timeout: float | None = TIMEOUT) -> None:
        self.path = path
        self.timeout = timeout
        self._framer = LineFramer(MAXIMUM_RESPONSE)
        self._identifier = 0
        self._socket: socket.socket | None = connect(path, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; a call makes another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def wait_longer(self, seconds: float) -> None:
        """For the answers to the next calls, which take so much time."""
        self.timeout = TIMEOUT + seconds

    def call(self, method: str, **params: Any) -> Any:
        """The result. Raises :class:`Refused` and :class:`ClientError`.

        A client that was idle may have had to give way to others: it connects again.
        """
        for attempts_left in range(_ATTEMPTS, 0, -1):
            self._identifier += 1
            answer = self._ask(request_line(method, params, self._identifier))
            if not isinstance(answer, dict):
                raise ClientError(f"{self.path}: whoever answers does not speak this protocol")
            if "error" not in answer:
                return answer.get("result")
            if not is_farewell(answer) or attempts_left == 1:
                raise self._error(answer["error"])
            self.close()
        raise AssertionError

    def _ask(self, request: bytes) -> Any:
        if self._socket is None:
            self._framer = LineFramer(MAXIMUM_RESPONSE)
            self._socket = connect(self.path, self.timeout)
        whole = False
        try:
            self._socket.settimeout(self.timeout)
            with suppress(BrokenPipeError, ConnectionResetError):  # there may be a last word to read
                self._socket.sendall(request)
            answer = self._receive(self._socket)
            whole = True
        except TimeoutError:
            raise ClientError(f"{self.path}: no answer in time; see the log of tcm-run") from None
        except (OSError, TooLong) as error:
            raise ClientError(f"{self.path}: the connection broke ({error}); does tcm-run still run?") from None
        finally:
            if not whole:
                # what comes there yet is the answer to this one, not to the next
                self.close()
        return answer

    def _receive(self, connection: socket.socket) -> Any:
        while True:
            data = connection.recv(1 << 20)
            if not data:
                raise ClientError(f"{self.path}: tcm-run has closed the connection; does it still run?")
            for line in self._framer.receive_data(data):
                try:
                    return json.loads(line)
                except ValueError:
                    raise ClientError(f"{self.path}: whoever answers does not speak this protocol") from None

    def _error(self, error: Any) -> Exception:
        data = error.get("data") or {}
        if error.get("code") == REFUSED:
            return Refused(data.get("errno") or errno.EINVAL, str(error.get("message")))
        return Refused(errno.EINVAL, str(RpcError(error.get("code", 0), str(error.get("message")))))


def is_farewell(answer: Any) -> bool:
    """Whether it says that the client gives way to another one, and may connect again."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return isinstance(error, dict) and error.get("code") == GAVE_WAY


def connect(path: str, timeout: float | None) -> socket.socket:
    """Raises :class:`ClientError`."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(timeout)
    try:
        with short_path(path) as address:
            made.connect(address)
    except OSError as error:
        made.close()
        raise ClientError(f"{path}: {_why(error)}") from None
    return made


def _why(error: OSError) -> str:
    if error.errno in {errno.ENOENT, errno.ECONNREFUSED}:
        return "no tcm-run listens there; start it, or write --control PATH of the one that runs"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"belongs to another user than {os.geteuid()}; run this as that user or as root"
    return str(error.strerror or error)
