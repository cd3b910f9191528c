"""Classic BPF programs that let only FCoE and FIP frames to certain addresses pass, so that others never wake us."""

from __future__ import annotations

import ctypes
import socket
from struct import Struct
from typing import NamedTuple

from tcm_fcoe.link.base import ROOM
from tcm_fcoe.protocol.ethernet import ETHERTYPE_FCOE, ETHERTYPE_FIP, ETHERTYPE_VLAN

SO_ATTACH_FILTER = 26
MAX_ADDRESSES = 512
"""With more of them every address passes (the kernel takes programs of 4096 instructions)."""

_INSTRUCTION = Struct("=HBBI")
_PROGRAM = Struct("@HP")
_LOAD_WORD, _LOAD_HALF, _EQUAL, _RETURN = 0x20, 0x28, 0x15, 0x06


class Instruction(NamedTuple):
    """One of a program: code, how many to skip if true and if false, operand."""

    code: int
    if_true: int
    if_false: int
    operand: int


def program(addresses: frozenset[bytes] | None) -> list[Instruction]:
    """What passes: EtherTypes 8906h and 8914h, behind one tag or none, to one of these addresses (``None``: any)."""
    found = [
        Instruction(_LOAD_HALF, 0, 0, 12),
        Instruction(_EQUAL, 0, 1, ETHERTYPE_VLAN),
        Instruction(_LOAD_HALF, 0, 0, 16),
        Instruction(_EQUAL, 2, 0, ETHERTYPE_FCOE),
        Instruction(_EQUAL, 1, 0, ETHERTYPE_FIP),
        Instruction(_RETURN, 0, 0, 0),
    ]
    if addresses is None or len(addresses) > MAX_ADDRESSES:
        return [*found, Instruction(_RETURN, 0, 0, ROOM)]
    for address in sorted(addresses):
        found += (
            Instruction(_LOAD_WORD, 0, 0, 2),
            Instruction(_EQUAL, 0, 3, int.from_bytes(address[2:], "big")),
            Instruction(_LOAD_HALF, 0, 0, 0),
            Instruction(_EQUAL, 0, 1, int.from_bytes(address[:2], "big")),
            Instruction(_RETURN, 0, 0, ROOM),
        )
    return [*found, Instruction(_RETURN, 0, 0, 0)]


def attach(sock: socket.socket, instructions: list[Instruction]) -> None:
    """Filter what comes in at a socket from now on, in place of an earlier program."""
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*each) for each in instructions))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, _PROGRAM.pack(len(instructions), ctypes.addressof(code)))
