"""TLS in front of a portal: a handshake, and then an object that the receive loop takes for a socket.

So full feature phase knows nothing of TLS, and plain portals pay nothing for it.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import anyio

from tcm.failure import ConfigError
from tcm_iscsi.connection import show_address
from tcm_iscsi.logins import LoginQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from tcm_iscsi.sessions import PortalBinding

    Serve = Callable[[socket.socket, PortalBinding], Coroutine[Any, Any, None]]
    """Serves one connection, and closes its socket."""

log = logging.getLogger("tcm.iscsi.tls")

HANDSHAKE_SECONDS = 10.0
"""From connecting to the end of the handshake."""
MAXIMUM_HANDSHAKES = 256
"""Connections whose handshake is not done; then the oldest of the address that has most of them gives way."""
CHUNK = 256 << 10
"""Bytes that are received or encrypted at a time; at most so much waits in a connection for a peer that does not take it."""
RECORD = 16 << 10
"""Bytes of the longest record (RFC 8446 5.1)."""
ALERT_SECONDS = 2.0
"""For how long a peer is told why its handshake failed."""

_NO_TUNNEL = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG"}
)


def make_context(certificate: str, key: str, authorities: str | None = None, *, warn: bool = True) -> ssl.SSLContext:
    """A server's context of PEM files: TLS 1.2 or newer. Raises :class:`ConfigError`: one line.

    :param certificate: the certificate, followed by those that lead to its issuer.
    :param authorities: who has to have signed the certificates of those who connect; None: they need none.
    :param warn: of a key that everybody can read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _check_certificates(certificate, "tls-cert")
    _check_key(key, warn=warn)
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


def _check_key(path: str, *, warn: bool) -> None:
    """It can be read, and not by everybody."""
    try:
        with open(path, "rb") as file:
            if warn and os.fstat(file.fileno()).st_mode & 0o004:
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

    :param serve: what serves a connection once its handshake is done.
    """

    def __init__(self, context: ssl.SSLContext, serve: Serve) -> None:
        self.context = context
        """Of handshakes from now on."""
        self._serve = serve
        self._buffer = bytearray(CHUNK)
        self._handshakes: LoginQueue[Handshake] = LoginQueue(lambda each: not each.done, MAXIMUM_HANDSHAKES)

    def admit(self, sock: socket.socket) -> Handshake | None:
        """A connection has come, for :meth:`serve`; another may have to make room. None: it is gone again."""
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = sock.getpeername()
        except OSError as e:
            log.debug("accept: %s", e.strerror)
            sock.close()
            return None
        handshake = Handshake(sock, TlsSocket(sock, self.context, self._buffer), show_address(peer))
        crowded_out = self._handshakes.enter(handshake, peer[0])
        if crowded_out is not None:
            crowded_out.scope.cancel()
        return handshake

    async def serve(self, handshake: Handshake, binding: PortalBinding) -> None:
        """One connection, until it is closed."""
        sock = handshake.plain
        try:
            if await handshake.run():
                self._handshakes.leave(handshake)
                # it has what the loop calls
                await self._serve(cast("socket.socket", handshake.sock), binding)
        except Exception:
            log.exception("internal error, TLS connection dropped")
        finally:
            self._handshakes.leave(handshake)
            if sock.fileno() >= 0:
                anyio.notify_closing(sock)
                sock.close()


class Handshake:
    """Of one connection."""

    def __init__(self, plain: socket.socket, sock: TlsSocket, peer: str) -> None:
        self.plain = plain
        self.sock = sock
        self.peer = peer
        self.done = False
        self.scope = anyio.CancelScope()

    async def run(self) -> bool:
        """Whether it was done in time; if not, the log says why."""
        reason = "too many connections are at it, and this is the oldest of its address"
        with self.scope:
            try:
                with anyio.fail_after(HANDSHAKE_SECONDS):
                    while (wait := self.sock.handshake()) is not None:
                        await wait(self.sock)
            except TimeoutError:
                reason = f"not done within {HANDSHAKE_SECONDS:g} s"
            except ssl.SSLError as e:
                reason = (e.reason or str(e)).lower().replace("_", " ")
                if e.reason in _NO_TUNNEL:
                    reason += ": what came is no TLS; is there no tunnel?"
                with anyio.move_on_after(ALERT_SECONDS):
                    while not self.sock.flush():
                        await anyio.wait_writable(self.sock)
            except OSError as e:
                reason = e.strerror or str(e)
            else:
                self.done = True
                log.debug("%s: %s, %s", self.peer, self.sock.tls.version(), self.sock.tls.cipher())
                return True
        log.warning("%s: TLS handshake failed: %s", self.peer, reason)
        return False


class TlsSocket:
    """What the receive loop needs of a socket that does not block, with TLS in between.

    As from a socket, :class:`BlockingIOError` says that it has to become readable or writable first, and other
    :class:`OSError`, of which :class:`ssl.SSLError` is one, that the connection is broken.

    :param buffer: for what is received and not decrypted yet; shared by all, since nothing stays in it.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, buffer: bytearray) -> None:
        self._sock = sock
        self._buffer = buffer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._unsent = memoryview(b"")
        """Of what has been encrypted."""
        self._encrypted = 0
        """Bytes handed to :meth:`sendmsg` that are encrypted and of which the caller has not heard that they are sent."""
        self._drained = True
        """All that was received is decrypted and taken."""
        self.fileno = sock.fileno
        self.getsockname = sock.getsockname
        self.getpeername = sock.getpeername
        self.setblocking = sock.setblocking
        self.setsockopt = sock.setsockopt
        self.close = sock.close

    def handshake(self) -> Callable[[Any], Awaitable[None]] | None:
        """A step of the handshake: what to wait for before the next one, or None if it is done. Raises OSError."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                if not self.flush():
                    return anyio.wait_writable
                try:
                    if not self._fill():
                        raise ConnectionResetError(errno.ECONNRESET, "the peer has closed the connection") from None
                except BlockingIOError:
                    return anyio.wait_readable
            else:
                self._drained = False  # something may have come with the end of the handshake
                self.flush()
                return None

    # receiving

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        """See :meth:`socket.socket.recv_into`."""
        view = memoryview(buffer)
        while True:
            if self._drained and not self._fill():
                return 0
            count = self._decrypt(view)
            if count is not None:
                return count

    def recvmsg_into(self, buffers: tuple[memoryview, memoryview]) -> tuple[int, list[Any], int, None]:
        """See :meth:`socket.socket.recvmsg_into`; fills the first buffer only."""
        return self.recv_into(buffers[0]), [], 0, None

    def _fill(self) -> bool:
        """Take what the socket has; False at its end. Raises BlockingIOError."""
        count = self._sock.recv_into(self._buffer)
        if not count:
            return False
        with memoryview(self._buffer) as view:
            self._in.write(view[:count])
        self._drained = False
        return True

    def _decrypt(self, view: memoryview) -> int | None:
        """Bytes that were there; 0 at the end; None if a record is not all here."""
        filled = 0
        while filled < len(view):
            try:
                # with a buffer it returns a number
                count = cast("int", self.tls.read(len(view) - filled, view[filled:]))
            except ssl.SSLWantReadError:
                self._drained = True
                if self._out.pending:
                    self.flush()  # an answer to a change of keys
                return filled or None
            except ssl.SSLZeroReturnError:
                return filled
            if not count:
                return filled
            filled += count
        return filled

    # sending

    def sendmsg(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        """See :meth:`socket.socket.sendmsg`. What it could not send whole has to stand at the beginning the next time too."""
        if not self.flush():
            raise BlockingIOError(errno.EAGAIN, "the peer does not take it")
        if not self._encrypted:
            self._encrypted = self._encrypt(buffers)
            if not self.flush():
                raise BlockingIOError(errno.EAGAIN, "the peer does not take it")
        sent, self._encrypted = self._encrypted, 0
        return sent

    def _encrypt(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        """Small pieces together, as a record of its own costs more than a copy."""
        done = 0
        small = bytearray()
        for buffer in buffers:
            piece = memoryview(buffer)[: CHUNK - done]
            done += len(piece)
            if len(small) + len(piece) <= RECORD:
                small += piece
            else:
                self._write(small)
                small.clear()
                if len(piece) < RECORD:
                    small += piece
                else:
                    self._write(piece)
            if done >= CHUNK:
                break
        self._write(small)
        return done

    def _write(self, data: bytearray | memoryview) -> None:
        with memoryview(data) as view:
            position = 0
            while position < len(view):
                position += self.tls.write(view[position:])

    def flush(self) -> bool:
        """Send what is encrypted; False if the socket does not take all of it now."""
        try:
            while True:
                if not self._unsent:
                    if not self._out.pending:
                        return True
                    self._unsent = memoryview(self._out.read())
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            return False

    def shutdown(self, how: int) -> None:
        """Says goodbye, so that the peer knows that nothing was cut off (RFC 8446 6.1), if the socket takes it."""
        with suppress(OSError):
            self.tls.unwrap()
        with suppress(OSError):
            self.flush()
        self._sock.shutdown(how)
