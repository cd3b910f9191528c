"""TLS in front of a portal: what comes out of it goes through a socket pair into the same loop that serves plain TCP.

So full feature phase knows nothing of TLS, and plain portals pay nothing for it.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from tcm.backstore import ConfigError
from tcm_iscsi.connection import show_address
from tcm_iscsi.logins import LoginQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tcm_iscsi.sessions import PortalBinding

    Serve = Callable[[socket.socket, PortalBinding, tuple[tuple[Any, ...], tuple[Any, ...]]], Coroutine[Any, Any, None]]
    """Serves one connection: its socket, its portal, and the addresses (ours, the peer's) that the socket does not know."""

log = logging.getLogger("tcm.iscsi.tls")

HANDSHAKE_SECONDS = 10.0
"""From connecting to the end of the handshake."""
MAXIMUM_HANDSHAKES = 256
"""Connections whose handshake is not done; then the oldest of the address that has most of them gives way."""
CHUNK = 64 << 10
"""Bytes that are encrypted or decrypted at a time."""
FINISH_SECONDS = 2.0
"""For how long what is left is sent after the connection has ended."""

_NO_TUNNEL = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG"}
)


def make_context(certificate: str, key: str, authorities: str | None = None) -> ssl.SSLContext:
    """A server's context of PEM files: TLS 1.2 or newer. Raises :class:`ConfigError`: one line.

    :param certificate: the certificate, followed by those that lead to its issuer.
    :param authorities: who has to have signed the certificates of those who connect; None: they need none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _check_certificates(certificate, "tls-cert")
    _check_key(key)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError) as e:
        raise ConfigError(_why(e, certificate, key)) from None
    if authorities is not None:
        _check_certificates(authorities, "tls-ca")
        context.load_verify_locations(authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    """Asked for if a key is encrypted; without this OpenSSL would ask whoever is at the terminal."""
    raise ConfigError("tls-key: the key is encrypted, and nobody is there to ask; write the path of one that is not")


def _check_certificates(path: str, place: str) -> None:
    try:
        with open(path, "rb"):
            pass
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        raise ConfigError(f"{place}: {path} has no certificate; write the path of a PEM file that begins with one") from None
    except OSError as e:
        raise ConfigError(f"{place}: cannot read {path}: {e.strerror}; write the path of a certificate in PEM form") from None


def _check_key(path: str) -> None:
    """It can be read, and not by everybody."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o004:
                log.warning("tls-key: %s: everybody on this machine can read it; chmod 600 %s", path, path)
            file.read(1)
    except OSError as e:
        raise ConfigError(f"tls-key: cannot read {path}: {e.strerror}; write the path of a private key in PEM form") from None


def _why(error: OSError, certificate: str, key: str) -> str:
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    if reason == "KEY_VALUES_MISMATCH":
        return f"tls-key: {key} is not the key of the certificate in {certificate}; write the path of the one that is"
    words = str(reason).lower().replace("_", " ")
    if "EE_KEY_TOO_SMALL" in reason or "MD_TOO_WEAK" in reason or "CA_" in reason:
        return f"tls-cert: {certificate} cannot be used: {words}; write the path of a newer certificate"
    return (
        f"tls-key: {key} has no private key that can be used ({words}); write the path of one in PEM form, without a password"
    )


class TlsFront:
    """The TLS side of all portals that want it.

    :param serve: what serves a connection when its bytes are plain.
    """

    def __init__(self, context: ssl.SSLContext, serve: Serve) -> None:
        self._context = context
        self._serve = serve
        self._handshakes: LoginQueue[_TlsConnection] = LoginQueue(lambda each: not each.established, MAXIMUM_HANDSHAKES)

    async def serve(self, sock: socket.socket, binding: PortalBinding) -> None:
        """One connection, from accept to close."""
        connection: _TlsConnection | None = None
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            addresses = sock.getsockname(), sock.getpeername()
            connection = _TlsConnection(sock, self._context)
            crowded_out = self._handshakes.enter(connection, addresses[1][0])
            if crowded_out is not None:
                crowded_out.scope.cancel()
            if await self._handshake(connection, show_address(addresses[1])):
                self._handshakes.leave(connection)
                await self._relay(connection, binding, addresses)
        except OSError as e:  # gone before it was set up, or no more file descriptors
            log.debug("accept: %s", e.strerror)
        except Exception:
            log.exception("internal error, TLS connection dropped")
        finally:
            if connection is not None:
                self._handshakes.leave(connection)
            anyio.notify_closing(sock)
            sock.close()

    async def _handshake(self, connection: _TlsConnection, peer: str) -> bool:
        reason = "too many connections are at it, and this is the oldest of its address"
        with connection.scope:
            try:
                with anyio.fail_after(HANDSHAKE_SECONDS):
                    await connection.handshake()
            except TimeoutError:
                reason = f"not done within {HANDSHAKE_SECONDS:g} s"
            except ssl.SSLError as e:
                reason = (e.reason or str(e)).lower().replace("_", " ")
                if e.reason in _NO_TUNNEL:
                    reason += ": what came is no TLS; is there no tunnel?"
                with anyio.move_on_after(FINISH_SECONDS):
                    await connection.flush()  # the alert that says why
            except OSError as e:
                reason = e.strerror or str(e)
            else:
                return True
        log.warning("%s: TLS handshake failed: %s", peer, reason)
        return False

    async def _relay(self, connection: _TlsConnection, binding: PortalBinding, addresses: tuple[Any, Any]) -> None:
        """Serve it through a socket pair, and end when both sides have."""
        log.debug("%s: %s, %s", show_address(addresses[1]), connection.tls.version(), connection.tls.cipher())
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            async with anyio.create_task_group() as tasks:
                connection.inner = ours
                tasks.start_soon(connection.receive)
                tasks.start_soon(connection.send)
                await self._serve(theirs, binding, addresses)  # closes it
                with anyio.move_on_after(FINISH_SECONDS):
                    await connection.sent.wait()
                    await connection.received.wait()
                tasks.cancel_scope.cancel()
        finally:
            anyio.notify_closing(ours)
            ours.close()
            theirs.close()


class _TlsConnection:
    """One TCP connection with TLS on it, and the plain end of a socket pair."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.inner: socket.socket
        self.scope = anyio.CancelScope()
        """Around the handshake."""
        self.established = False
        self.received = anyio.Event()
        """The peer sends no more."""
        self.sent = anyio.Event()
        """All that the server had to say is sent, and that this is the end."""
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._sending = anyio.Lock()

    async def handshake(self) -> None:
        """Raises OSError, of which SSLError is one."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                data = await _receive(self.sock)
                if not data:
                    raise ConnectionResetError(errno.ECONNRESET, "the peer has closed the connection") from None
                self._in.write(data)
            else:
                self.established = True
                await self.flush()
                return

    async def flush(self) -> None:
        """Send what TLS has to send; in the order in which it was made."""
        async with self._sending:
            await _send_all(self.sock, self._out.read())

    async def receive(self) -> None:
        """From the peer to the server, until the peer ends it."""
        try:
            while True:
                while True:
                    try:
                        plain = self.tls.read(CHUNK)
                    except ssl.SSLWantReadError:
                        break
                    if not plain:
                        return
                    await _send_all(self.inner, plain)
                await self.flush()
                data = await _receive(self.sock)
                if not data:
                    return
                self._in.write(data)
        except OSError as e:  # ssl.SSLError is one: a forged record, or the peer's end
            log.debug("%s", e)
        finally:
            self.received.set()
            with suppress(OSError):
                self.inner.shutdown(socket.SHUT_WR)

    async def send(self) -> None:
        """From the server to the peer, until the server ends it."""
        try:
            while data := await _receive(self.inner):
                view = memoryview(data)
                while view:
                    view = view[self.tls.write(view) :]
                await self.flush()
            with suppress(ssl.SSLError):
                self.tls.unwrap()  # says goodbye; that the peer's is not here yet is no error
            await self.flush()
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as e:
            log.debug("%s", e)
            for sock in (self.sock, self.inner):  # the peer takes no more: nobody is to wait for it
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        finally:
            self.sent.set()


async def _receive(sock: socket.socket) -> bytes:
    while True:
        try:
            return sock.recv(CHUNK)
        except BlockingIOError:
            await anyio.wait_readable(sock)


async def _send_all(sock: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            await anyio.wait_writable(sock)
