"""The control socket: a Unix socket of mode 0600 for the same user and root, a request at a time for each client.

A client's next request is read when the answer to the one before has been taken, so nothing queues; whoever does not take an
answer is dropped. When all places are taken, the client that has been idle for the longest time gives way to the next one, and
not all places can be taken by calls that wait: somebody can always get in.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import tempfile
from typing import TYPE_CHECKING, Any

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import SocketAttribute, SocketListener

from tcm.control.peer import Peer, peer_of, short_path
from tcm.control.places import Place, Places
from tcm.control.protocol import (
    GAVE_WAY,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    MAXIMUM_MESSAGE,
    REFUSED,
    LineFramer,
    Request,
    RpcError,
    TooLong,
    dump,
    failure,
    parse_line,
    result,
)
from tcm.failure import ConfigError

if TYPE_CHECKING:
    from anyio.abc import SocketStream, TaskStatus

    from tcm.control.methods import Methods

log = logging.getLogger(__name__)

MAXIMUM_CLIENTS = 32
MAXIMUM_CHANGES = 24
"""Clients with a call that may wait: for its turn, or for initiators (``drain``). There is room for others beside them."""
MAXIMUM_ANSWERS = 4 << 20
"""Bytes of answers after which the rest of a batch is not done."""
SEND_TIMEOUT = 10.0
"""Seconds in which a client has to take each piece of an answer."""
_FAREWELL = 0.5
"""Seconds in which a client that gives way has to take the news."""
_BUSY = "calls that change something are under way already; try again when one of them has ended"
_PIECE = 256 << 10
_RECEIVE = 64 << 10


class ControlServer:
    """Serves :class:`Methods` at a path.

    :param limit: bytes of a request.
    :param listener: a socket that listens already.
    :param owned: ``path`` is removed when it ends; not if systemd made it.
    """

    def __init__(
        self,
        methods: Methods,
        path: str,
        *,
        send_timeout: float = SEND_TIMEOUT,
        clients: int = MAXIMUM_CLIENTS,
        changes: int = MAXIMUM_CHANGES,
        limit: int = MAXIMUM_MESSAGE,
        listener: socket.socket | None = None,
        owned: bool = True,
    ) -> None:
        self._methods = methods
        self.path = path
        self._send_timeout = send_timeout
        self._places = Places(clients, changes)
        self._limit = limit
        self._listener = listener
        self._owned = owned

    @property
    def connected(self) -> int:
        """Clients there are."""
        return len(self._places)

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled. Raises :class:`ConfigError` if it cannot listen."""
        listening = self._listener or listen(self.path)
        inode = os.stat(self.path).st_ino if self._owned else 0
        try:
            async with await SocketListener.from_socket(listening) as listener:
                task_status.started()
                await listener.serve(self._client)
        finally:
            if self._owned:
                _unlink(self.path, inode)

    async def _client(self, stream: SocketStream) -> None:
        try:
            async with stream:
                await self._greet(stream)
        except TimeoutError:
            log.warning("control socket: a client does not read its answers: dropped")
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass
        except Exception:
            log.exception("control socket: a client ended unexpectedly")  # the others are still served

    async def _greet(self, stream: SocketStream) -> None:
        peer = peer_of(stream.extra(SocketAttribute.raw_socket))  # noqa: S610 - anyio's
        if not peer.allowed:
            log.warning("control socket: %s may not connect", peer)
            text = f"user {peer.uid} may not control this process; be user {os.geteuid()} or root"
            await self._send(stream, dump(failure(None, RpcError(INVALID_REQUEST, text))))
            return
        place = self._places.take(anyio.current_time())
        if place is None:
            text = f"{self._places.limit} clients have calls under way; try again when one of them has ended"
            await self._send(stream, dump(failure(None, RpcError(INVALID_REQUEST, text))))
            return
        try:
            with place.scope:
                await self._serve(stream, peer, place)
            if place.gone:
                log.info("control socket: %s was idle for longest and gave way to another client", peer)
            if place.gone and not place.sending:
                text = f"idle for longest of {self._places.limit} clients, it gave way to another one; connect again"
                with anyio.move_on_after(_FAREWELL):
                    await stream.send(dump(failure(None, RpcError(GAVE_WAY, text))))
        finally:
            self._places.give_back(place)

    async def _serve(self, stream: SocketStream, peer: Peer, place: Place) -> None:
        framer = LineFramer(self._limit)
        while True:
            data = await stream.receive(_RECEIVE)
            place.last = anyio.current_time()
            try:
                lines = framer.receive_data(data)
            except TooLong as error:
                log.warning("control socket: %s sent %s: dropped", peer, error)
                await self._send(stream, dump(failure(None, RpcError(INVALID_REQUEST, f"{error}; write less at once"))))
                return
            for line in lines:
                if place.gone:  # it will ask again, so it must not be done now
                    return
                place.busy = True
                answer = await self._answer(line, peer)
                place.busy = False
                if answer is not None:
                    place.sending = True
                    await self._send(stream, answer, place)
                    place.sending = False

    async def _send(self, stream: SocketStream, data: bytes, place: Place | None = None) -> None:
        for start in range(0, len(data), _PIECE):
            with anyio.fail_after(self._send_timeout):
                await stream.send(data[start : start + _PIECE])
            if place is not None:
                place.last = anyio.current_time()

    async def _answer(self, line: bytes, peer: Peer) -> bytes | None:
        if not line.strip():
            return None
        try:
            requests, batch = parse_line(line)
        except RpcError as error:
            return dump(failure(None, error))
        if not batch:
            answer = await self._one(requests[0], peer)
            return None if answer is None else dump(answer)
        answers: list[bytes] = []
        size = 0
        for each in requests:
            if size > MAXIMUM_ANSWERS:
                identifier = each.identifier if isinstance(each, Request) else None
                text = (
                    f"the answers of this batch have more than {MAXIMUM_ANSWERS} bytes already: not done; write smaller batches"
                )
                answer = failure(identifier, RpcError(INVALID_REQUEST, text))
            else:
                answer = await self._one(each, peer)
            if answer is not None:
                answers.append(dump(answer).rstrip(b"\n"))
                size += len(answers[-1])
        return b"[" + b",".join(answers) + b"]\n" if answers else None

    async def _one(self, request: Request | RpcError, peer: Peer) -> dict[str, Any] | None:
        if isinstance(request, RpcError):
            identifier = request.data["id"] if isinstance(request.data, dict) else None
            return failure(identifier, RpcError(request.code, str(request)))
        try:
            value = await self._call(request, peer)
        except RpcError as error:
            answer = failure(request.identifier, error)
        except Exception:
            log.exception("control socket: %s failed", request.method)
            answer = failure(request.identifier, RpcError(INTERNAL_ERROR, f"{request.method} failed; the log says why"))
        else:
            answer = result(request.identifier, value)
        return None if request.notification else answer

    async def _call(self, request: Request, peer: Peer) -> Any:
        if not self._methods.may_wait(request.method):
            return await self._methods.call(request.method, request.params, peer)
        with self._places.changing() as allowed:
            if not allowed:
                raise RpcError(REFUSED, f"{self._places.changes} {_BUSY}", {"errno": errno.EBUSY, "name": "EBUSY"})
            return await self._methods.call(request.method, request.params, peer)


def listen(path: str) -> socket.socket:
    """A listening socket of mode 0600 at ``path``; one that nobody serves any more is replaced. Raises :class:`ConfigError`."""
    folder = os.path.dirname(path) or "."
    try:
        if _served(path):
            raise ConfigError(f"--control: {path}: another process serves it; stop that, or write another path")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        # nobody gets in between bind and chmod: the folder is ours alone until the socket is in its place
        with tempfile.TemporaryDirectory(dir=folder, prefix=".c") as private:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                with short_path(os.path.join(private, "s")) as address:
                    made.bind(address)
                os.chmod(os.path.join(private, "s"), 0o600)
                made.listen(64)
                made.setblocking(False)
                os.rename(os.path.join(private, "s"), path)
            except BaseException:
                made.close()
                raise
            return made
    except OSError as error:
        raise ConfigError(f"--control: {path}: {error.strerror or error}; write --control PATH, in a folder of yours") from None


def _served(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConfigError(f"--control: {path}: is there already, and no socket; write another path")
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            with short_path(path) as address:
                probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True


def _unlink(path: str, inode: int) -> None:
    """If it is still ours."""
    try:
        if os.lstat(path).st_ino == inode:
            os.unlink(path)
    except OSError:
        pass
