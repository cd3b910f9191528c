"""Modes and descriptors of READ BUFFER (10) and WRITE BUFFER (SPC-4 6.18, 6.49)."""

from __future__ import annotations

import enum


class BufferMode(enum.IntEnum):
    """MODE; microcode and error history are not offered."""

    DATA = 0x02
    DESCRIPTOR = 0x03
    """Only read."""
    ECHO = 0x0A
    ECHO_DESCRIPTOR = 0x0B
    """Only read."""


def buffer_descriptor(capacity: int) -> bytes:
    """READ BUFFER descriptor of a buffer that can be accessed at any byte; all zero for one that there is not."""
    return b"\0" + capacity.to_bytes(3, "big")


def echo_buffer_descriptor(capacity: int) -> bytes:
    """Echo buffer descriptor; EBOS: whoever's data another I_T nexus overwrote is told so."""
    return b"\1\0" + capacity.to_bytes(2, "big")
