"""A real tcm-run whose portal takes TLS: initiators without TLS through socat, openssl, and those who have no handshake."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.daemon import TARGET, running, wait_until
from support.pdus import ASYNC
from support.programs import program
from support.raw_iscsi import connect
from support.tls import Certificate, client_context, make_certificate, tls_initiator, tunnel
from support.watch import Watch

pytestmark = pytest.mark.interop

LUN = ("--lun", "ramdisk:size=32M")


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path)


def flags(certificate: Certificate) -> tuple[str, ...]:
    return *LUN, "--tls-cert", str(certificate.path), "--tls-key", str(certificate.key)


def run(*command: str) -> str:
    done = subprocess.run(
        [program(command[0]), *command[1:]], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_libiscsi_and_qemu_through_a_tunnel(tmp_path: Path, certificate: Certificate) -> None:
    """A disk image goes there and comes back."""
    image, back = tmp_path / "image", tmp_path / "back"
    image.write_bytes(os.urandom(8 << 20))
    with running(tmp_path, *flags(certificate)) as daemon, tunnel(daemon.url.port, certificate) as port:
        url = f"iscsi://127.0.0.1:{port}/{TARGET}/0"
        assert "LIO-ORG" in run("iscsi-inq", url)
        assert f"Target:{TARGET} Portal:127.0.0.1:{daemon.url.port},1" in run("iscsi-ls", f"iscsi://127.0.0.1:{port}")
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), url)
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", url, str(back))
        assert back.read_bytes()[: 8 << 20] == image.read_bytes()
        hints = [line for line in daemon.output if "TLS first:" in line]
        assert len(hints) == 1
        assert f"OPENSSL:127.0.0.1:{daemon.url.port}" in hints[0]


@pytest.mark.parametrize("workload", ["read", "write"])
def test_several_connections_through_a_tunnel(tmp_path: Path, certificate: Certificate, workload: str) -> None:
    """MC/S with digests at error recovery level 2, by our own initiator."""
    more = ("--param", "MaxConnections=4", "--param", "ErrorRecoveryLevel=2")
    with running(tmp_path, *flags(certificate), *more) as daemon, tunnel(daemon.url.port, certificate) as port:
        url = f"iscsi://127.0.0.1:{port}/{TARGET}/0"
        said = subprocess.run(
            (
                *(sys.executable, "-m", "tcm_iscsi.initiator", "bench", url, "--seconds", "1", "--block-size", "64K"),
                *("--connections", "4", "--error-recovery-level", "2", "--header-digest", "crc32c", "--data-digest", "crc32c"),
                *("--workload", workload, "--overwrite"),
            ),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert said.returncode == 0, said.stdout + said.stderr
        daemon.assert_quiet()
        assert "dropped" not in daemon.log()
        logged_in = [line for line in daemon.log().splitlines() if "logged in" in line]
        assert len(logged_in) >= 4


def test_what_openssl_says(tmp_path: Path, certificate: Certificate) -> None:
    """TLS 1.3, the certificate as it is, and nothing below TLS 1.2."""
    with running(tmp_path, *flags(certificate)) as daemon:
        address = f"127.0.0.1:{daemon.url.port}"
        said = run(
            "openssl", "s_client", "-connect", address, "-CAfile", str(certificate.path), "-verify_return_error", "-brief"
        )
        assert said == ""
        for version, good in (("-tls1_3", True), ("-tls1_2", True), ("-tls1_1", False)):
            command = [program("openssl"), "s_client", "-connect", address, "-CAfile", str(certificate.path), version]
            done = subprocess.run(command, capture_output=True, timeout=20, check=False, stdin=subprocess.DEVNULL)
            assert (done.returncode == 0) == good, version


def test_a_key_that_everybody_can_read(tmp_path: Path, certificate: Certificate) -> None:
    """Said once."""
    certificate.key.chmod(0o644)
    with running(tmp_path, *flags(certificate)) as daemon:
        assert daemon.log().count("everybody on this machine can read it; chmod 600") == 1


def test_beside_a_plain_portal(tmp_path: Path, certificate: Certificate) -> None:
    """``tls-portal``, written as an option of the fabric."""
    fabric = f"iscsi:tls-cert={certificate.path},tls-key={certificate.key},tls-portal=127.0.0.2:0"
    portals = ("127.0.0.1:0", "127.0.0.2:0")
    with running(tmp_path, *LUN, fabric=fabric, portals=portals, urls=2) as daemon:
        plain, secure = daemon.urls
        data = os.urandom(4096)
        with connect(plain) as session:
            assert session.write(0, data).status == 0
        with tls_initiator(secure.port, client_context(certificate), secure.host).login(TARGET).ready() as session:
            assert session.read(0, 8).data == data


def test_logout_is_asked_for_through_tls(tmp_path: Path, certificate: Certificate) -> None:
    with running(tmp_path, *flags(certificate)) as daemon:
        process = daemon.process
        assert process is not None
        with tls_initiator(daemon.url.port, client_context(certificate)).login(TARGET).ready() as session:
            process.terminate()
            assert session.receive().opcode == ASYNC
            assert session.logout() == 0
            assert process.wait(60) == 0
        assert "Traceback" not in daemon.log()
        daemon.process = None


def test_bad_handshakes_disturb_nobody(tmp_path: Path, certificate: Certificate) -> None:
    """Silence, noise, plain iSCSI and half handshakes, many at a time, beside a session on a plain portal."""
    fabric = f"iscsi:tls-cert={certificate.path},tls-key={certificate.key},tls-portal=127.0.0.2:0"
    with running(tmp_path, *LUN, fabric=fabric, portals=("127.0.0.1:0", "127.0.0.2:0"), urls=2) as daemon:
        secure = daemon.urls[1]
        before = daemon.file_descriptors()
        with Watch(daemon, growth=64 << 20):
            hold = [socket.create_connection((secure.host, secure.port), 5) for _ in range(400)]
            for number, sock in enumerate(hold):
                said = (b"", os.urandom(512), b"\x43\x87" + bytes(46), b"\x16\x03\x01\x02\0\x01\0\x01")[number % 4]
                with contextlib.suppress(OSError):
                    sock.sendall(said)
            with tls_initiator(secure.port, client_context(certificate), secure.host).login(TARGET).ready() as session:
                assert session.read(0, 8).status == 0
            for sock in hold:
                sock.close()
            wait_until(lambda: daemon.file_descriptors() <= before + 2, 60, "all gone")
        assert "is there no tunnel?" in daemon.log()


def test_a_tunnel_that_is_cut(tmp_path: Path, certificate: Certificate) -> None:
    """In the middle of a transfer: the session ends, and another one goes on."""
    with running(tmp_path, *flags(certificate)) as daemon:
        context = client_context(certificate)
        with tls_initiator(daemon.url.port, context).login(TARGET).ready() as bystander:
            before = daemon.file_descriptors()
            for _ in range(5):
                session = tls_initiator(daemon.url.port, context).login(TARGET).ready()
                for _ in range(8):
                    session.start(b"\x88\0" + bytes(8) + (2048).to_bytes(4, "big") + b"\0\0", read=1 << 20)
                time.sleep(0.05)
                session.close()
                assert bystander.read(0, 8).status == 0
            wait_until(lambda: daemon.file_descriptors() <= before, 60, "all gone")
        daemon.assert_quiet()


def test_throughput(tmp_path: Path, certificate: Certificate) -> None:
    """Not a benchmark: 256 MiB of reads through TLS take seconds, not minutes, and memory stays where it was."""
    with running(tmp_path, *flags(certificate)) as daemon:
        session = tls_initiator(daemon.url.port, client_context(certificate)).login(TARGET).ready()
        assert session.read(0, 2048).status == 0
        before, begin, used = daemon.rss(), time.monotonic(), daemon.processor_seconds()
        for _ in range(256):
            assert len(session.read(0, 2048).data) == 1 << 20
        seconds = time.monotonic() - begin
        print(f"  [{256 / seconds:.0f} MiB/s through TLS]")
        assert daemon.processor_seconds() - used < 30
        assert daemon.rss() - before < 16 << 20
        session.close()
