"""Data of SECURITY PROTOCOL IN with security protocol information, 00h (SPC-4 7.7.1)."""

from __future__ import annotations

SECURITY_PROTOCOL_INFORMATION = 0x00

INCREMENT = 512
"""Bytes that ALLOCATION LENGTH counts if INC_512 is one."""


def supported_protocols() -> bytes:
    """The protocols that there are, ascending: only this one."""
    return bytes(6) + b"\0\1" + bytes((SECURITY_PROTOCOL_INFORMATION,))


def certificate_data() -> bytes:
    """There is no certificate."""
    return bytes(4)


INFORMATION = {0x0000: supported_protocols, 0x0001: certificate_data}
"""By SECURITY PROTOCOL SPECIFIC."""
