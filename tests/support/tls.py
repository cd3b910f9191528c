"""Certificates for tests, initiators that speak TLS themselves, and a tunnel for those that do not."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.programs import free_port, program
from support.raw_iscsi import Initiator


@dataclass(frozen=True)
class Certificate:
    """A certificate for localhost and 127.0.0.1 and its key, as PEM files; signed by itself or by another one."""

    path: Path
    key: Path
    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey


def make_certificate(folder: Path, name: str = "portal", issuer: Certificate | None = None) -> Certificate:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer.private if issuer else private, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    path, key = folder / f"{name}.crt", folder / f"{name}.key"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(write_key(private))
    return Certificate(path, key, certificate, private)


def write_key(private: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption: Any = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def client_context(trusted: Certificate, own: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(trusted.path))
    if own is not None:
        context.load_cert_chain(own.path, own.key)
    return context


def tls_initiator(port: int, context: ssl.SSLContext, host: str = "127.0.0.1") -> Initiator:
    """One that has not logged in; the certificate has to be that of localhost."""
    initiator = Initiator(host, port)
    initiator.socket = context.wrap_socket(initiator.socket, server_hostname="localhost")
    return initiator


@contextmanager
def tunnel(port: int, trusted: Certificate) -> Iterator[int]:
    """socat from a port of its own, which this yields, to a portal that takes TLS."""
    listen = free_port()
    command = [
        program("socat"),
        f"TCP-LISTEN:{listen},bind=127.0.0.1,reuseaddr,fork",
        f"OPENSSL:127.0.0.1:{port},cafile={trusted.path}",
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", listen), 1).close()
                break
            except OSError:
                assert time.monotonic() < end, "socat does not listen"
                time.sleep(0.02)
        yield listen
    finally:
        process.terminate()
        process.wait(60)
