"""TLS in front of a portal, on both event loops; certificates and keys that cannot work."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from anyio import to_thread
from support.raw_iscsi import Initiator
from support.scsi import make_lu, pattern, ramdisk
from support.tls import Certificate, client_context, make_certificate, tls_initiator, write_key
from tcm_iscsi import tls
from tcm_iscsi.attributes import TpgAttributes, TpgParameters
from tcm_iscsi.fabric import IscsiFabric, IscsiOptions
from tcm_iscsi.tls import make_context

from tcm.failure import ConfigError
from tcm.target.device import TargetDevice
from tcm.target.node_acl import AccessControl
from tcm.target.portal_group import NetworkPortal

NAME = "iqn.2003-01.org.example:t"
T = TypeVar("T")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


class Served:
    def __init__(self, fabric: IscsiFabric, certificate: Certificate) -> None:
        self.fabric = fabric
        self.context = client_context(certificate)

    @property
    def port(self) -> int:
        return self.fabric.registry.bindings[0].port

    def connect(self) -> Initiator:
        return tls_initiator(self.port, self.context)

    def login(self, **options: Any) -> Initiator:
        return self.connect().login(NAME, **options).ready()

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 60)


async def apart(work: Callable[..., T], *args: Any) -> T:
    """Run blocking initiator code beside the target."""
    with anyio.fail_after(30):
        return await to_thread.run_sync(partial(work, *args), abandon_on_cancel=True)


@asynccontextmanager
async def served(certificate: Certificate, portals: int = 1, **options: Any) -> AsyncIterator[Served]:
    async with make_lu(ramdisk(8 << 20)) as unit:
        device = TargetDevice(NAME, "iscsi")
        group = device.add_portal_group(1)
        group.access = AccessControl(generate_node_acls=True, demo_mode_write_protect=False)
        group.attributes = TpgAttributes(authentication=False)
        group.parameters = TpgParameters()
        group.portals.extend([NetworkPortal(f"127.0.0.{n + 1}", 0) for n in range(portals)])
        group.add_lun(0, unit)
        given = {"tls_cert": str(certificate.path), "tls_key": str(certificate.key), **options}
        fabric = IscsiFabric([device], IscsiOptions(**given))
        async with anyio.create_task_group() as tasks:
            await tasks.start(lambda task_status: fabric.run(task_status=task_status))
            try:
                yield Served(fabric, certificate)
            finally:
                tasks.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_through_tls(certificate: Certificate, version: ssl.TLSVersion) -> None:
    """Small and large transfers; the log and the discovery have the real addresses."""
    data = pattern(3 << 20)
    async with served(certificate) as t:
        t.context.minimum_version = t.context.maximum_version = version

        def work() -> None:
            with t.login() as i:
                assert i.socket.version() == version.name.replace("_", ".")  # type: ignore[attr-defined]
                (line,) = t.fabric.sessions()
                assert line.startswith(f"127.0.0.1:{i.socket.getsockname()[1]} ")
                assert i.write(0, data[:4096]).status == 0
                assert i.write(8, data[4096:]).status == 0
                assert i.read(0, len(data) // 512).data == data
                assert i.logout() == 0
            with t.connect().login(None) as i:
                assert f"127.0.0.1:{t.port},1" in i.text({"SendTargets": "All"})["TargetAddress"]

        await apart(work)


@pytest.mark.anyio
async def test_nothing_older_than_tls_1_2(certificate: Certificate) -> None:
    async with served(certificate) as t:
        t.context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            t.context.maximum_version = ssl.TLSVersion.TLSv1_1
        t.context.set_ciphers("ALL:@SECLEVEL=0")

        def work() -> None:
            with pytest.raises(ssl.SSLError):
                t.connect()

        await apart(work)


@pytest.mark.anyio
async def test_goodbye_at_logout(certificate: Certificate) -> None:
    """The answer to the logout arrives, and then a close_notify: nobody can cut the end off unnoticed."""
    async with served(certificate) as t:

        def work() -> None:
            with t.login() as i:
                i.socket.suppress_ragged_eofs = False  # type: ignore[attr-defined]
                assert i.logout() == 0
                assert i.socket.recv(1) == b""

        await apart(work)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("said", "logged"),
    [
        (b"\x43\x87" + bytes(46), "is there no tunnel?"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "is there no tunnel?"),
        (os.urandom(4096), "TLS handshake failed"),
        (b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + b"\xff" * 0x4000, "TLS handshake failed"),
        (b"", "the peer has closed the connection"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "the peer has closed the connection"),
    ],
)
async def test_what_is_no_handshake(
    certificate: Certificate, caplog: pytest.LogCaptureFixture, said: bytes, logged: str
) -> None:
    """Plain iSCSI, HTTP, noise, half a ClientHello: one line, and others are served as before."""
    async with served(certificate) as t:

        def work() -> None:
            with t.login() as bystander:
                with t.raw() as sock:
                    sock.sendall(said)
                    sock.shutdown(socket.SHUT_WR)
                    try:
                        while sock.recv(4096):
                            pass
                    except ConnectionResetError:
                        pass
                assert bystander.read(0, 8).status == 0

        await apart(work)
        assert len(t.fabric.sessions()) <= 1
    assert [record for record in caplog.records if logged in record.getMessage()]


@pytest.mark.anyio
async def test_a_handshake_that_never_comes(
    certificate: Certificate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.3)
    async with served(certificate) as t:

        def work() -> None:
            with t.raw() as silent, t.raw() as slow:
                begin = time.monotonic()
                slow.sendall(b"\x16\x03\x01\x02\0\x01")
                assert silent.recv(1) == b""
                assert slow.recv(1) == b""
                assert time.monotonic() - begin > 0.2

        await apart(work)
    assert sum("not done within 0.3 s" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.anyio
async def test_handshakes_are_bounded(
    certificate: Certificate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest give way; who gets on with it gets through."""
    monkeypatch.setattr(tls, "MAXIMUM_HANDSHAKES", 8)
    async with served(certificate) as t:

        def work() -> None:
            crowd = [t.raw() for _ in range(20)]
            with t.login() as i:
                assert i.read(0, 8).status == 0
            for sock in crowd[:12]:
                assert sock.recv(1) == b""
            for sock in crowd:
                sock.close()

        await apart(work)
    assert "too many connections are at it" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["reset", "silent end", "half a record", "forged record"])
async def test_a_peer_that_vanishes(certificate: Certificate, how: str) -> None:
    """In the middle of a session: it ends, at once, and leaves nothing behind."""
    async with served(certificate) as t:

        def work() -> None:
            i = t.login()
            raw = socket.socket(fileno=i.socket.detach())
            with raw:
                if how == "reset":
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif how == "half a record":
                    raw.sendall(b"\x17\x03\x03\x10\x00" + bytes(100))
                elif how == "forged record":
                    raw.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
                    time.sleep(0.1)

        before = len(os.listdir("/proc/self/fd"))
        await apart(work)
        with anyio.fail_after(60):
            while t.fabric.sessions() or len(os.listdir("/proc/self/fd")) > before:
                await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_a_peer_that_does_not_read(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has asked for waits within bounds; when the server drops it, everything of it goes."""

    async with served(certificate) as t:

        def work() -> Initiator:
            i = t.login()
            for _ in range(32):  # 32 MiB, of which some fits in the sockets
                i.start(b"\x88\0" + bytes(8) + (2048).to_bytes(4, "big") + b"\0\0", read=1 << 20)
            return i

        before = len(os.listdir("/proc/self/fd"))
        stalled = await apart(work)
        await anyio.sleep(0.3)
        (link,) = t.fabric.server.links
        link.fail("dropped by the test")
        with anyio.fail_after(60):
            while t.fabric.sessions():
                await anyio.sleep(0.01)
        stalled.close()
        with anyio.fail_after(60):
            while len(os.listdir("/proc/self/fd")) > before:
                await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_some_portals_only(certificate: Certificate) -> None:
    """``tls-portal``; and discovery tells those that came by TCP of none that take TLS, and the other way round."""
    async with served(certificate, portals=2, tls_portal=("127.0.0.1:0",)) as t:
        plain = t.fabric.registry.bindings[1]

        def work() -> None:
            with t.connect().login(None) as i:
                assert i.text({"SendTargets": "All"})["TargetAddress"] == f"127.0.0.1:{t.port},1"
            with Initiator("127.0.0.2", plain.port).login(None) as i:
                assert i.text({"SendTargets": "All"})["TargetAddress"] == f"127.0.0.2:{plain.port},1"
            with Initiator("127.0.0.2", plain.port).login(NAME) as i:
                assert i.ready().read(0, 1).status == 0

        await apart(work)
        tls_lines, plain_lines = (endpoint.hints for endpoint in t.fabric.endpoints())
        assert "TLS first:" in tls_lines[0]
        assert "TLS" not in "".join(plain_lines)


@pytest.mark.anyio
async def test_tls_portal_that_is_not_there(certificate: Certificate) -> None:
    with pytest.raises((ConfigError, ExceptionGroup)) as caught:
        async with served(certificate, tls_portal=("127.0.0.9:3260",)):
            pass
    found: BaseException = caught.value
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    assert str(found) == "--fabric iscsi: tls-portal: 127.0.0.9:3260 is none of the portals; write one as it stands there"


@pytest.mark.anyio
async def test_tunnels_that_have_to_show_a_certificate(certificate: Certificate, tmp_path: Path) -> None:
    """``tls-ca``: signed by one of them, or no session."""
    ca = make_certificate(tmp_path, "ca")
    friend, stranger = make_certificate(tmp_path, "friend", ca), make_certificate(tmp_path, "stranger")
    async with served(certificate, tls_ca=str(ca.path)) as t:

        def work() -> None:
            with tls_initiator(t.port, client_context(certificate, friend)).login(NAME) as i:
                assert i.ready().read(0, 1).status == 0
            for context in (client_context(certificate), client_context(certificate, stranger)):
                with pytest.raises((ssl.SSLError, ConnectionError)), tls_initiator(t.port, context) as i:
                    i.login(NAME)

        await apart(work)


# files that cannot work


def refused(certificate: Path, key: Path, authorities: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        make_context(str(certificate), str(key), str(authorities) if authorities else None)
    return str(caught.value)


def test_files_that_cannot_be_read(certificate: Certificate, tmp_path: Path) -> None:
    assert refused(tmp_path / "no", certificate.key).startswith(
        f"tls-cert: cannot read {tmp_path}/no: No such file or directory;"
    )
    assert refused(certificate.path, tmp_path / "no").startswith(
        f"tls-key: cannot read {tmp_path}/no: No such file or directory;"
    )
    assert refused(tmp_path, certificate.key).startswith(f"tls-cert: cannot read {tmp_path}: Is a directory;")
    assert refused(certificate.path, tmp_path).startswith(f"tls-key: cannot read {tmp_path}: Is a directory;")
    assert refused(certificate.path, certificate.key, tmp_path / "no").startswith("tls-ca: cannot read ")


def test_files_with_something_else(certificate: Certificate, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    for content in (b"", b"nonsense\n", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        junk.write_bytes(content)
        junk.chmod(0o600)
        assert refused(junk, certificate.key).startswith(f"tls-cert: {junk} has no certificate;")
        assert refused(certificate.path, junk).startswith(f"tls-key: {junk} has no private key that can be used (")
        assert refused(certificate.path, certificate.key, junk).startswith(f"tls-ca: {junk} has no certificate;")
    assert refused(certificate.key, certificate.key).startswith(f"tls-cert: {certificate.key} has no certificate;")


def test_another_certificates_key(certificate: Certificate, tmp_path: Path) -> None:
    other = make_certificate(tmp_path, "other")
    assert refused(certificate.path, other.key) == (
        f"tls-key: {other.key} is not the key of the certificate in {certificate.path}; write the path of the one that is"
    )


def test_a_key_with_a_password(certificate: Certificate, tmp_path: Path) -> None:
    """Nobody is asked for it."""
    locked = tmp_path / "locked"
    locked.touch(0o600)
    locked.write_bytes(write_key(certificate.private, b"password"))
    assert refused(certificate.path, locked).startswith("tls-key: the key is encrypted, and nobody is there to ask;")


def test_a_key_that_everybody_can_read(certificate: Certificate, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make_context(str(certificate.path), str(certificate.key))
        assert not caplog.records
        key = tmp_path / "key"
        key.write_bytes(certificate.key.read_bytes())
        key.chmod(0o644)
        make_context(str(certificate.path), str(key))
    (record,) = caplog.records
    assert record.getMessage() == f"tls-key: {key}: everybody on this machine can read it; chmod 600 {key}"


def test_one_file_for_both(certificate: Certificate, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.touch(0o600)
    both.write_bytes(certificate.key.read_bytes() + certificate.path.read_bytes())
    assert make_context(str(both), str(both)).minimum_version == ssl.TLSVersion.TLSv1_2
