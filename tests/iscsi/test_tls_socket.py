"""What the receive loop takes for a socket, between small socket buffers: no byte is lost, doubled or out of order."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tls import Certificate, client_context, make_certificate
from tcm_iscsi.tls import CHUNK, TlsSocket, make_context


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


class Client:
    """The other end: takes and gives as much as it is told to."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.inside, self.outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inside, self.outside, server_hostname="localhost")
        self.unsent = b""
        self.plain = bytearray()
        self.goodbye = False

    def pump(self, limit: int = 1 << 20) -> None:
        """Move up to ``limit`` bytes each way between the socket and TLS."""
        self.unsent += self.outside.read()
        with suppress(BlockingIOError, BrokenPipeError):
            self.unsent = self.unsent[self.sock.send(self.unsent[:limit]) :]
        with suppress(BlockingIOError):
            self.inside.write(self.sock.recv(limit))

    def read(self) -> None:
        try:
            while data := self.tls.read(1 << 16):
                self.plain += data
            self.goodbye = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.goodbye = True


@contextmanager
def connected(certificate: Certificate, buffer: int = 8192) -> Iterator[tuple[TlsSocket, Client]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        server = TlsSocket(ours, make_context(str(certificate.path), str(certificate.key)), bytearray(CHUNK))
        client = Client(theirs, client_context(certificate))
        done = False
        while not done or server.handshake() is not None:
            try:
                client.tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            client.pump()
            server.handshake()
            client.pump()
        yield server, client


def receive(server: TlsSocket, size: int) -> bytes | None:
    buffer = bytearray(size)
    try:
        return bytes(buffer[: server.recv_into(buffer)])
    except BlockingIOError:
        return None


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 40_000), min_size=1, max_size=5), min_size=1, max_size=4),
    st.lists(st.integers(1, 30_000), min_size=1, max_size=20).filter(lambda limits: sum(limits) > 1000 * len(limits)),
    st.booleans(),
)
def test_sending(certificate: Certificate, batches: list[list[int]], limits: list[int], moves: bool) -> None:
    """As ``Link`` does: what was not reported as sent stands at the beginning again, perhaps as a copy (``detach``)."""
    with connected(certificate) as (server, client):
        expected = bytearray()
        out: list[bytes | memoryview] = []
        turn = 0
        for batch in [*batches, []]:
            for length in batch:
                piece = bytes((len(expected) + n) & 0xFF for n in range(length))
                expected += piece
                out.append(memoryview(piece))
            while out:
                try:
                    sent = server.sendmsg(out)
                except BlockingIOError:
                    if moves:
                        out = [bytes(each) for each in out]
                    client.pump(limits[turn % len(limits)])
                    client.read()
                    turn += 1
                    continue
                assert sent <= CHUNK
                while out and sent >= len(out[0]):
                    sent -= len(out.pop(0))
                if sent:
                    out[0] = memoryview(out[0])[sent:]
        for _ in range(100):
            client.pump()
            client.read()
            if len(client.plain) >= len(expected):
                break
        assert client.plain == expected


@settings(deadline=None, max_examples=50)
@given(
    st.binary(min_size=1, max_size=100_000),
    st.lists(st.integers(1, 50_000), min_size=1, max_size=10),
    st.lists(st.integers(1, 30_000), min_size=1, max_size=10),
)
def test_receiving(certificate: Certificate, data: bytes, sizes: list[int], limits: list[int]) -> None:
    """Whatever the sizes of records, of socket buffers and of what is asked for; BlockingIOError only if nothing is there."""
    with connected(certificate) as (server, client):
        client.tls.write(data)
        found = bytearray()
        for turn in range(10_000):
            client.pump(limits[turn % len(limits)])
            while (piece := receive(server, sizes[turn % len(sizes)])) is not None:
                assert piece
                found += piece
            if len(found) >= len(data):
                break
        assert found == data
        assert receive(server, 10) is None


def test_data_segment_into_its_own_buffer(certificate: Certificate) -> None:
    """``recvmsg_into``: the first buffer, and then as much again."""
    with connected(certificate, 1 << 20) as (server, client):
        client.tls.write(b"a" * 300 + b"b" * 50)
        client.pump()
        first, second = bytearray(300), bytearray(512)
        assert server.recvmsg_into((memoryview(first), memoryview(second)))[0] == 300
        assert first == b"a" * 300
        assert receive(server, 512) == b"b" * 50


def test_what_came_with_the_handshake_is_there(certificate: Certificate) -> None:
    """A client may send with its last flight; nothing would ever make the socket readable again."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        server = TlsSocket(ours, make_context(str(certificate.path), str(certificate.key)), bytearray(CHUNK))
        client = Client(theirs, client_context(certificate))
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        client.pump()
        server.handshake()
        client.pump()
        client.tls.do_handshake()
        client.tls.write(b"login")
        client.pump()  # Finished and the data together
        assert server.handshake() is None
        assert receive(server, 100) == b"login"


@pytest.mark.parametrize("polite", [True, False])
def test_the_peers_end(certificate: Certificate, polite: bool) -> None:
    """With and without a close_notify: the end, after what came before it."""
    with connected(certificate, 1 << 20) as (server, client):
        client.tls.write(b"last")
        if polite:
            with pytest.raises(ssl.SSLWantReadError):
                client.tls.unwrap()
        client.pump()
        client.sock.shutdown(socket.SHUT_WR)
        assert receive(server, 100) == b"last"
        assert receive(server, 100) == b""
        assert receive(server, 100) == b""


def test_our_end(certificate: Certificate) -> None:
    with connected(certificate, 1 << 20) as (server, client):
        assert server.sendmsg([b"last"]) == 4
        server.shutdown(socket.SHUT_WR)
        client.pump()
        client.read()
        assert (client.plain, client.goodbye) == (b"last", True)
        server.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError):
            server.sendmsg([b"more"])


def test_a_forged_record(certificate: Certificate) -> None:
    with connected(certificate, 1 << 20) as (server, client):
        client.sock.send(b"\x17\x03\x03\x00\x40" + bytes(64))
        with pytest.raises(ssl.SSLError):
            receive(server, 100)


def test_a_peer_that_takes_nothing(certificate: Certificate) -> None:
    """No more is encrypted than one chunk."""
    with connected(certificate) as (server, _client):
        out = [bytes(1 << 20)]
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 1 << 30:
                sent += server.sendmsg(out)
        assert sent < 1 << 20
        for _ in range(10):
            with pytest.raises(BlockingIOError):
                server.sendmsg(out)
        assert len(server._unsent) + server._out.pending < CHUNK * 1.1


def test_change_of_keys(certificate: Certificate, tmp_path: Path) -> None:
    """Megabytes each way at once: what OpenSSL does of itself meanwhile disturbs nothing."""
    with connected(certificate, 1 << 16) as (server, client):
        data = bytes(range(256)) * 8192
        found, out = bytearray(), [memoryview(data)]
        given_ = 0
        while len(found) < len(data) or len(client.plain) < len(data):
            if given_ < len(data):
                given_ += client.tls.write(data[given_ : given_ + 30_000])
            client.pump(50_000)
            client.read()
            if out:
                try:
                    sent = server.sendmsg(out)
                    out = [out[0][sent:]] if sent < len(out[0]) else []
                except BlockingIOError:
                    pass
            piece = receive(server, 40_000)
            found += piece or b""
        assert found == data
        assert client.plain == data
