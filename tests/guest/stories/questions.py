"""Questions that tcm and LIO both answer: commands by one nexus or the other, and what is compared of the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

A, B = "a", "b"
KEY_A, KEY_B, KEY_C = 0xA11CE, 0xB0B, 0xC0FFEE
ISIDS = {A: b"ISID-OF-A...", B: b"ISID-OF-B..."}
"""What stands for a session's ISID (12 hexadecimal digits), which is not the same with tcm and with LIO."""
NAMES = {A: b"iqn.2025-01.test.vm:node-a", B: b"iqn.2025-01.test.vm:node-b"}


@dataclass(frozen=True)
class Ask:
    """A command."""

    nexus: str
    cdb: bytes
    data: bytes = b""
    size: int = 0
    """Most bytes of Data-In."""


def ask(cdb: str, size: int = 0, data: bytes = b"", nexus: str = A) -> Ask:
    """A command whose CDB is written in hexadecimal."""
    return Ask(nexus, bytes.fromhex(cdb), data, size)


def keys(nexus: str = A, size: int = 256) -> Ask:
    """READ KEYS."""
    return _prin(nexus, 0, size)


def reservation(nexus: str = A) -> Ask:
    """READ RESERVATION."""
    return _prin(nexus, 1, 256)


def capabilities(nexus: str = A) -> Ask:
    """REPORT CAPABILITIES."""
    return _prin(nexus, 2, 256)


def full_status(nexus: str = A) -> Ask:
    """READ FULL STATUS."""
    return _prin(nexus, 3, 2048)


def _prin(nexus: str, action: int, size: int) -> Ask:
    return Ask(nexus, bytes((0x5E, action, 0, 0, 0, 0, 0)) + size.to_bytes(2, "big") + b"\0", size=size)


def prout(
    nexus: str,
    action: int,
    key: int = 0,
    new: int = 0,
    kind: int = 0,
    *,
    flags: int = 0,
    more: bytes = b"",
    length: int | None = None,
) -> Ask:
    """PERSISTENT RESERVE OUT with the basic parameter list.

    :param kind: byte 2 of the CDB: scope and type.
    :param flags: byte 20: SPEC_I_PT 8, ALL_TG_PT 4, APTPL 1.
    :param more: additional parameter data.
    :param length: PARAMETER LIST LENGTH, if it is not that of the list.
    """
    data = key.to_bytes(8, "big") + new.to_bytes(8, "big") + bytes(4) + bytes((flags, 0, 0, 0)) + more
    count = len(data) if length is None else length
    return Ask(nexus, bytes((0x5F, action, kind, 0, 0)) + count.to_bytes(4, "big") + b"\0", data)


def transport_id(nexus: str, *, isid: bytes | None = None, kind: int = 0x45) -> bytes:
    """An iSCSI TransportID: of an initiator port (kind 45h) or of an initiator node (05h)."""
    name = NAMES[nexus] + (b",i,0x" + (isid or ISIDS[nexus]) if kind & 0x40 else b"")
    padded = name + bytes(4 - len(name) % 4)
    return bytes((kind, 0)) + len(padded).to_bytes(2, "big") + padded


def list_of(*transport_ids: bytes) -> bytes:
    """Additional parameter data with TransportIDs."""
    return sum(map(len, transport_ids)).to_bytes(4, "big") + b"".join(transport_ids)


def move(key: int, new: int, port: int, name: bytes, flags: int = 0) -> Ask:
    """REGISTER AND MOVE by A."""
    data = key.to_bytes(8, "big") + new.to_bytes(8, "big") + bytes((0, flags)) + port.to_bytes(2, "big")
    data += len(name).to_bytes(4, "big") + name
    return Ask(A, bytes((0x5F, 7, 0, 0, 0)) + len(data).to_bytes(4, "big") + b"\0", data)


REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE, REGISTER_AND_MOVE, REPLACE_LOST = range(9)
READY_A, READY_B = ask("00 00 00 00 00 00"), ask("00 00 00 00 00 00", nexus=B)
WRITE_B = ask("2a 00 00 00 00 00 00 00 01 00", data=bytes(512), nexus=B)
READ_B = ask("28 00 00 00 00 00 00 00 01 00", 512, nexus=B)
BOTH = (prout(A, REGISTER_AND_IGNORE, new=KEY_A), prout(B, REGISTER_AND_IGNORE, new=KEY_B))


def held(kind: int) -> tuple[Ask, ...]:
    """Both are registered, and A holds a reservation."""
    return *BOTH, prout(A, RESERVE, KEY_A, kind=kind)


AFTER = (
    *(prout(A, REGISTER_AND_IGNORE, new=KEY_A), prout(A, CLEAR, KEY_A)),
    *(ask("17 00 00 00 00 00"), ask("17 00 00 00 00 00", nexus=B)),
)
"""What makes everything as it was; the answers do not matter."""

INQUIRY = {
    "INQUIRY": (ask("12 00 00 00 60 00", 96),),
    "INQUIRY, 5 bytes": (ask("12 00 00 00 05 00", 5),),
    "INQUIRY, PAGE CODE without EVPD": (ask("12 00 80 00 60 00", 96),),
    "INQUIRY, CMDDT": (ask("12 02 00 00 60 00", 96),),
    "INQUIRY, a page that is not there": (ask("12 01 7f 00 60 00", 96),),
    "VPD 00h": (ask("12 01 00 00 ff 00", 255),),
    "VPD 80h": (ask("12 01 80 00 ff 00", 255),),
    "VPD 83h": (ask("12 01 83 08 00 00", 2048),),
    "VPD 86h": (ask("12 01 86 00 ff 00", 255),),
    "VPD B0h": (ask("12 01 b0 00 ff 00", 255),),
    "VPD B1h": (ask("12 01 b1 00 ff 00", 255),),
    "VPD B2h": (ask("12 01 b2 00 ff 00", 255),),
    "VPD B3h": (ask("12 01 b3 00 ff 00", 255),),
}

PRIMARY = {
    "TEST UNIT READY": (READY_A,),
    "TEST UNIT READY, a reserved bit": (ask("00 00 01 00 00 00"),),
    "TEST UNIT READY, NACA": (ask("00 00 00 00 00 04"),),
    "an operation code that is not there": (ask("d7 00 00 00 00 00"),),
    "a service action that is not there": (ask("9e 1f 00 00 00 00 00 00 00 00 00 00 00 20 00 00", 32),),
    "REQUEST SENSE": (ask("03 00 00 00 12 00", 18),),
    "REQUEST SENSE, descriptors": (ask("03 01 00 00 12 00", 18),),
    "REPORT LUNS": (ask("a0 00 00 00 00 00 00 00 01 00 00 00", 256),),
    "REPORT LUNS, ALLOCATION LENGTH of 15": (ask("a0 00 00 00 00 00 00 00 00 0f 00 00", 15),),
    "REPORT LUNS, well-known units only": (ask("a0 00 01 00 00 00 00 00 01 00 00 00", 256),),
    "REPORT LUNS, all": (ask("a0 00 02 00 00 00 00 00 01 00 00 00", 256),),
    "REPORT LUNS, a reserved SELECT REPORT": (ask("a0 00 77 00 00 00 00 00 01 00 00 00", 256),),
    "REPORT SUPPORTED OPERATION CODES": (ask("a3 0c 00 00 00 00 00 00 00 04 00 00", 4),),
    "LOG SENSE, supported pages": (ask("4d 00 40 00 00 00 00 00 ff 00", 255),),
    "SEND DIAGNOSTIC, self-test": (ask("1d 04 00 00 00 00"),),
    "START STOP UNIT, start": (ask("1b 00 00 00 01 00"),),
    "PREVENT ALLOW MEDIUM REMOVAL": (ask("1e 00 00 00 00 00"),),
    "READ BUFFER, descriptor": (ask("3c 03 00 00 00 00 00 00 04 00", 4),),
    "MODE SENSE (6), all pages": (ask("1a 00 3f 00 ff 00", 255),),
    "MODE SENSE (6), caching": (ask("1a 08 08 00 ff 00", 255),),
    "MODE SENSE (6), control": (ask("1a 08 0a 00 ff 00", 255),),
    "MODE SENSE (6), changeable": (ask("1a 08 48 00 ff 00", 255),),
    "MODE SENSE (6), saved": (ask("1a 08 c8 00 ff 00", 255),),
    "MODE SENSE (6), a page that is not there": (ask("1a 08 07 00 ff 00", 255),),
    "MODE SENSE (10), LLBAA": (ask("5a 10 08 00 00 00 00 00 ff 00", 255),),
    "MODE SELECT (6), no data": (ask("15 10 00 00 00 00"),),
    "MODE SELECT (6), a list that ends early": (ask("15 10 00 00 06 00", data=bytes(4) + b"\x08\x12"),),
    "MODE SELECT (6), what cannot be changed": (ask("15 10 00 00 18 00", data=bytes(4) + b"\x08\x12\xff" + bytes(17)),),
}

BLOCK = {
    "READ CAPACITY (10)": (ask("25 00 00 00 00 00 00 00 00 00", 8),),
    "READ CAPACITY (10), an LBA without PMI": (ask("25 00 00 00 00 01 00 00 00 00", 8),),
    "READ CAPACITY (16)": (ask("9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00", 32),),
    "READ (10), beyond the end": (ask("28 00 ff ff ff f0 00 00 01 00", 512),),
    "READ (10), over the end": (ask("28 00 00 01 ff ff 00 00 02 00", 1024),),
    "READ (10), nothing": (ask("28 00 00 00 00 00 00 00 00 00"),),
    "READ (16), nothing, beyond the end": (ask("88 00 00 00 00 00 00 02 00 01 00 00 00 00 00 00"),),
    "READ (16), RDPROTECT": (ask("88 20 00 00 00 00 00 00 00 00 00 00 00 01 00 00", 512),),
    "WRITE (10), beyond the end": (ask("2a 00 00 02 00 00 00 00 01 00", data=bytes(512)),),
    "WRITE (10), WRPROTECT": (ask("2a 20 00 00 00 00 00 00 01 00", data=bytes(512)),),
    "VERIFY (10), BYTCHK of 00b": (ask("2f 00 00 00 00 00 00 00 01 00"),),
    "VERIFY (10), BYTCHK of 01b": (ask("2f 02 00 00 00 00 00 00 01 00", data=b"\x01" + bytes(511)),),
    "SYNCHRONIZE CACHE (10)": (ask("35 00 00 00 00 00 00 00 00 00"),),
    "SYNCHRONIZE CACHE (10), beyond the end": (ask("35 00 ff ff ff ff 00 00 01 00"),),
    "WRITE SAME (10)": (ask("41 00 00 00 00 00 00 00 08 00", data=bytes(512)),),
    "WRITE SAME (16), too many": (ask("93 00 00 00 00 00 00 00 00 00 00 02 00 00 00 00", data=bytes(512)),),
    "WRITE SAME (16), beyond the end": (ask("93 00 00 00 00 00 00 02 00 00 00 00 00 01 00 00", data=bytes(512)),),
    "WRITE SAME (16), UNMAP": (ask("93 08 00 00 00 00 00 00 00 00 00 00 00 08 00 00", data=bytes(512)),),
    "WRITE SAME (16), NDOB": (ask("93 01 00 00 00 00 00 00 00 00 00 00 00 08 00 00"),),
    "UNMAP, nothing": (ask("42 00 00 00 00 00 00 00 00 00"),),
    "UNMAP, a header only": (ask("42 00 00 00 00 00 00 00 08 00", data=b"\0\6\0\0\0\0\0\0"),),
    "UNMAP, a list that ends early": (ask("42 00 00 00 00 00 00 00 07 00", data=bytes(7)),),
    "UNMAP, lengths that lie": (ask("42 00 00 00 00 00 00 00 18 00", data=b"\0\x16\0\x20" + bytes(20)),),
    "UNMAP, beyond the end": (
        ask("42 00 00 00 00 00 00 00 18 00", data=b"\0\x16\0\x10" + bytes(9) + b"\2" + bytes(5) + b"\0\0\0\1" + bytes(1)),
    ),
    "UNMAP, ANCHOR": (ask("42 01 00 00 00 00 00 00 18 00", data=b"\0\x16\0\x10" + bytes(20)),),
    "COMPARE AND WRITE, a miscompare": (
        ask("89 00 00 00 00 00 00 00 00 40 00 00 00 01 00 00", data=bytes(5) + b"\1" + bytes(1018)),
    ),
    "COMPARE AND WRITE, nothing": (ask("89 00 00 00 00 00 00 00 00 40 00 00 00 00 00 00"),),
    "COMPARE AND WRITE, beyond the end": (ask("89 00 00 00 00 00 00 02 00 00 00 00 00 01 00 00", data=bytes(1024)),),
    "GET LBA STATUS": (ask("9e 12 00 00 00 00 00 00 00 00 00 00 00 18 00 00", 24),),
}

SPC_2 = {
    "RESERVE (6), and another nexus": (ask("16 00 00 00 00 00"), READY_B, WRITE_B, ask("12 00 00 00 60 00", 4, nexus=B)),
    "RESERVE (6), another's release": (ask("16 00 00 00 00 00"), ask("17 00 00 00 00 00", nexus=B), WRITE_B),
    "RESERVE (6), third party": (ask("16 10 00 00 00 00"),),
    "RESERVE (6) while another has it": (ask("16 00 00 00 00 00"), ask("16 00 00 00 00 00", nexus=B)),
    "RESERVE (6), then persistent": (ask("16 00 00 00 00 00"), keys(), prout(A, REGISTER, new=KEY_A), keys(B)),
    "RESERVE (6) after registering": (prout(A, REGISTER, new=KEY_A), ask("16 00 00 00 00 00"), ask("17 00 00 00 00 00")),
    "RESERVE (6) of one who is not registered": (prout(A, REGISTER, new=KEY_A), ask("16 00 00 00 00 00", nexus=B)),
}

PERSISTENT = {
    "REPORT CAPABILITIES": (capabilities(),),
    "READ KEYS, none": (keys(),),
    "READ KEYS, ALLOCATION LENGTH of 8": (*BOTH, keys(size=8)),
    "READ KEYS, ALLOCATION LENGTH of 7": (*BOTH, keys(size=7)),
    "READ RESERVATION, none": (reservation(),),
    "READ FULL STATUS, none": (full_status(),),
    "READ FULL STATUS": (*held(5), full_status()),
    "READ FULL STATUS, all registrants": (*held(7), full_status(), reservation(B)),
    "PERSISTENT RESERVE IN, a service action that is not there": (_prin(A, 0x1F, 8),),
    "PERSISTENT RESERVE OUT, a service action that is not there": (prout(A, 0x1F),),
    "REGISTER": (prout(A, REGISTER, new=KEY_A), keys()),
    "REGISTER, a key while not registered": (prout(A, REGISTER, KEY_B, KEY_A), keys()),
    "REGISTER, the wrong key": (prout(A, REGISTER, new=KEY_A), prout(A, REGISTER, KEY_B, KEY_C), keys()),
    "REGISTER, another key": (prout(A, REGISTER, new=KEY_A), prout(A, REGISTER, KEY_A, KEY_C), keys()),
    "REGISTER, the same key again": (prout(A, REGISTER, new=KEY_A), prout(A, REGISTER, KEY_A, KEY_A), keys()),
    "REGISTER, zero while not registered": (prout(A, REGISTER), keys()),
    "REGISTER AND IGNORE, zero while not registered": (prout(A, REGISTER_AND_IGNORE), keys()),
    "REGISTER AND IGNORE, again": (*BOTH, prout(A, REGISTER_AND_IGNORE, 1, KEY_C), keys()),
    "REGISTER, a scope and a type": (prout(A, REGISTER, new=KEY_A, kind=0x25), keys()),
    "REGISTER, leaving as holder": (*held(5), prout(A, REGISTER, KEY_A), READY_B, reservation(B), keys(B)),
    "REGISTER, leaving as holder of write exclusive": (*held(1), prout(A, REGISTER, KEY_A), READY_B, reservation(B), keys(B)),
    "REGISTER, leaving as one of all registrants": (*held(7), prout(A, REGISTER, KEY_A), READY_B, reservation(B), keys(B)),
    "REGISTER, APTPL": (prout(A, REGISTER, new=KEY_A, flags=1), capabilities(), keys()),
    "REGISTER, ALL_TG_PT": (prout(A, REGISTER, new=KEY_A, flags=4), full_status()),
    "REGISTER, reserved bits of byte 20": (prout(A, REGISTER, new=KEY_A, flags=0xF2), keys()),
    "REGISTER, SPEC_I_PT with no TransportIDs": (prout(A, REGISTER, new=KEY_A, flags=8, more=bytes(4)), keys()),
    "REGISTER, SPEC_I_PT and a length that lies": (prout(A, REGISTER, new=KEY_A, flags=8, more=b"\0\0\0\x18"), keys()),
    "REGISTER, SPEC_I_PT": (
        prout(A, REGISTER, new=KEY_A, flags=8, more=list_of(transport_id(B))),
        full_status(),
    ),
    "REGISTER, SPEC_I_PT, twice the same": (
        prout(A, REGISTER, new=KEY_A, flags=8, more=list_of(transport_id(B), transport_id(B))),
        keys(),
    ),
    "REGISTER, SPEC_I_PT, of oneself": (prout(A, REGISTER, new=KEY_A, flags=8, more=list_of(transport_id(A))), keys()),
    "REGISTER, SPEC_I_PT while registered": (
        prout(A, REGISTER, new=KEY_A),
        prout(A, REGISTER, KEY_A, KEY_C, flags=8, more=list_of(transport_id(B))),
        keys(),
    ),
    "REGISTER, SPEC_I_PT, a TransportID of another protocol": (
        prout(A, REGISTER, new=KEY_A, flags=8, more=list_of(bytes((6,)) + bytes(23))),
        keys(),
    ),
    "REGISTER AND IGNORE, SPEC_I_PT": (
        prout(A, REGISTER_AND_IGNORE, new=KEY_A, flags=8, more=list_of(transport_id(B))),
        keys(),
    ),
    "REGISTER, a list of 23 bytes": (prout(A, REGISTER, new=KEY_A, length=23), keys()),
    "REGISTER, a list of 25 bytes": (prout(A, REGISTER, new=KEY_A, more=b"\0"), keys()),
    "RESERVE, unregistered": (prout(A, RESERVE, KEY_A, kind=5), reservation()),
    "RESERVE, the wrong key": (*BOTH, prout(A, RESERVE, KEY_B, kind=5), reservation()),
    "RESERVE, a type that is not there": (*held(2), reservation()),
    "RESERVE, a scope that is not there": (*BOTH, prout(A, RESERVE, KEY_A, kind=0x15), reservation()),
    "RESERVE, again": (*held(5), prout(A, RESERVE, KEY_A, kind=5), reservation()),
    "RESERVE, another type": (*held(5), prout(A, RESERVE, KEY_A, kind=1), reservation()),
    "RESERVE while another holds it": (*held(5), prout(B, RESERVE, KEY_B, kind=5), keys()),
    "RESERVE, all registrants, by the other": (*held(7), prout(B, RESERVE, KEY_B, kind=7)),
    "RESERVE counts for nothing in PRGENERATION": (*BOTH, keys(), prout(A, RESERVE, KEY_A, kind=5), keys()),
    "RELEASE": (*held(5), prout(A, RELEASE, KEY_A, kind=5), READY_B, keys(), reservation()),
    "RELEASE of write exclusive": (*held(1), prout(A, RELEASE, KEY_A, kind=1), READY_B),
    "RELEASE, another type": (*held(5), prout(A, RELEASE, KEY_A, kind=6), reservation()),
    "RELEASE by one who does not hold it": (*held(5), prout(B, RELEASE, KEY_B, kind=5), keys()),
    "RELEASE, nothing is reserved": (*BOTH, prout(A, RELEASE, KEY_A, kind=5)),
    "RELEASE, the wrong key": (*held(5), prout(A, RELEASE, KEY_B, kind=5), reservation()),
    "CLEAR": (*held(5), prout(B, CLEAR, KEY_B), READY_A, READY_B, keys(), reservation()),
    "CLEAR, the wrong key": (*BOTH, prout(B, CLEAR, KEY_A), keys()),
    "CLEAR, unregistered": (prout(A, REGISTER, new=KEY_A), prout(B, CLEAR, KEY_B), keys()),
    "PREEMPT": (*held(5), prout(B, PREEMPT, KEY_B, KEY_A, 5), READY_A, READY_B, full_status(B)),
    "PREEMPT, to another type": (*held(5), prout(B, PREEMPT, KEY_B, KEY_A, 3), READY_A, READY_B, full_status(B)),
    "PREEMPT AND ABORT": (*held(5), prout(B, 5, KEY_B, KEY_A, 5), READY_A, READY_B, keys(B)),
    "PREEMPT, a registration": (*held(5), prout(A, PREEMPT, KEY_A, KEY_B, 5), READY_B, keys()),
    "PREEMPT, nothing is reserved": (*BOTH, prout(A, PREEMPT, KEY_A, KEY_B, 5), READY_B, keys(), reservation()),
    "PREEMPT, oneself": (*held(5), prout(A, PREEMPT, KEY_A, KEY_A, 3), READY_B, reservation(), keys()),
    "PREEMPT, a key that nobody has": (*held(5), prout(B, PREEMPT, KEY_B, KEY_C, 5), keys()),
    "PREEMPT, zero": (*held(5), prout(B, PREEMPT, KEY_B, 0, 5), keys(), reservation()),
    "PREEMPT, all registrants": (*held(7), prout(B, PREEMPT, KEY_B, 0, 7), READY_A, full_status(B)),
    "PREEMPT, one of all registrants": (*held(7), prout(B, PREEMPT, KEY_B, KEY_A, 7), READY_A, full_status(B)),
    "PREEMPT, unregistered": (prout(A, REGISTER, new=KEY_A), prout(B, PREEMPT, KEY_B, KEY_A, 5), keys()),
    "REGISTER AND MOVE, nothing is reserved": (*BOTH, prout(A, REGISTER_AND_MOVE, KEY_A, KEY_C, length=24)),
    "REGISTER AND MOVE": (*held(5), move(KEY_A, KEY_C, 2, transport_id(B)), full_status(), reservation()),
    "REGISTER AND MOVE, UNREG": (*held(5), move(KEY_A, KEY_C, 2, transport_id(B), flags=2), full_status(), reservation(B)),
    "REGISTER AND MOVE, the wrong key": (*held(5), move(KEY_B, KEY_C, 2, transport_id(B)), reservation()),
    "REGISTER AND MOVE, to key zero": (*held(5), move(KEY_A, 0, 2, transport_id(B)), reservation()),
    "REGISTER AND MOVE, to a port that is not there": (*held(5), move(KEY_A, KEY_C, 99, transport_id(B)), reservation()),
    "REGISTER AND MOVE, to oneself": (*held(5), move(KEY_A, KEY_C, 1, transport_id(A)), reservation()),
    "REGISTER AND MOVE, of all registrants": (*held(7), move(KEY_A, KEY_C, 2, transport_id(B)), reservation()),
    "REGISTER AND MOVE, a reserved bit": (*held(5), move(KEY_A, KEY_C, 2, transport_id(B), flags=0x80), reservation()),
    "REPLACE LOST RESERVATION, nothing was lost": (prout(A, REPLACE_LOST, 0, KEY_A, 5), keys()),
    "a conflict: write exclusive": (prout(A, REGISTER, new=KEY_A), prout(A, RESERVE, KEY_A, kind=1), READ_B, WRITE_B, READY_B),
    "a conflict: exclusive access": (prout(A, REGISTER, new=KEY_A), prout(A, RESERVE, KEY_A, kind=3), READ_B, WRITE_B, READY_B),
}

_OTHER_COMMANDS = {
    "MODE SENSE (6)": ask("1a 00 08 00 ff 00", 255, nexus=B),
    "REPORT LUNS": ask("a0 00 00 00 00 00 00 00 01 00 00 00", 256, nexus=B),
    "READ CAPACITY (16)": ask("9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00", 32, nexus=B),
    "SYNCHRONIZE CACHE (10)": ask("35 00 00 00 00 00 00 00 00 00", nexus=B),
    "VERIFY (10)": ask("2f 00 00 00 00 00 00 00 01 00", nexus=B),
    "REQUEST SENSE": ask("03 00 00 00 12 00", 18, nexus=B),
    "START STOP UNIT": ask("1b 00 00 00 01 00", nexus=B),
    "UNMAP": ask("42 00 00 00 00 00 00 00 08 00", data=b"\0\6\0\0\0\0\0\0", nexus=B),
    "WRITE SAME (10)": ask("41 00 00 00 00 00 00 00 08 00", data=bytes(512), nexus=B),
    "COMPARE AND WRITE": ask("89 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", data=bytes(1024), nexus=B),
    "READ RESERVATION": reservation(B),
    "RELEASE (6)": ask("17 00 00 00 00 00", nexus=B),
}
CONFLICTS = {
    f"under another's {'write exclusive' if kind == 1 else 'exclusive access'}: {name}": (
        prout(A, REGISTER, new=KEY_A),
        prout(A, RESERVE, KEY_A, kind=kind),
        command,
    )
    for kind in (1, 3)
    for name, command in _OTHER_COMMANDS.items()
}

COPY = {
    "RECEIVE COPY RESULTS, OPERATING PARAMETERS": (ask("84 03 00 00 00 00 00 00 00 00 00 00 02 00 00 00", 512),),
    "RECEIVE COPY RESULTS, COPY STATUS of a copy that never was": (
        ask("84 00 77 00 00 00 00 00 00 00 00 00 02 00 00 00", 512),
    ),
    "EXTENDED COPY, no parameter list": (ask("83 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"),),
    "EXTENDED COPY, a list that ends early": (ask("83 00 00 00 00 00 00 00 00 00 00 00 00 08 00 00", data=bytes(8)),),
    "EXTENDED COPY, no descriptors": (ask("83 00 00 00 00 00 00 00 00 00 00 00 00 10 00 00", data=bytes(16)),),
    "EXTENDED COPY, lengths that lie": (
        ask("83 00 00 00 00 00 00 00 00 00 00 00 00 10 00 00", data=b"\1\0\0\x20" + bytes(12)),
    ),
}

ACCESS = {
    "REPORT TARGET PORT GROUPS": (ask("a3 0a 00 00 00 00 00 00 00 80 00 00", 128),),
    "REPORT TARGET PORT GROUPS, extended header": (ask("a3 2a 00 00 00 00 00 00 00 80 00 00", 128),),
    "REPORT TARGET PORT GROUPS, ALLOCATION LENGTH of 3": (ask("a3 0a 00 00 00 00 00 00 00 03 00 00", 3),),
    "REPORT TARGET PORT GROUPS, a reserved data format": (ask("a3 4a 00 00 00 00 00 00 00 80 00 00", 128),),
    "SET TARGET PORT GROUPS, nothing": (ask("a4 0a 00 00 00 00 00 00 00 00 00 00"),),
    "SET TARGET PORT GROUPS, a list that ends early": (ask("a4 0a 00 00 00 00 00 00 00 06 00 00", data=bytes(6)),),
    "SET TARGET PORT GROUPS, a reserved state": (ask("a4 0a 00 00 00 00 00 00 00 08 00 00", data=bytes(4) + b"\x09\0\0\0"),),
    "SET TARGET PORT GROUPS, a group that is not there": (
        ask("a4 0a 00 00 00 00 00 00 00 08 00 00", data=bytes(4) + b"\0\0\x77\x77"),
    ),
    "REPORT REFERRALS": (ask("9e 13 00 00 00 00 00 00 00 00 00 00 00 20 00 00", 32),),
}

QUESTIONS: Mapping[str, tuple[Ask, ...]] = INQUIRY | PRIMARY | BLOCK | SPC_2 | PERSISTENT | CONFLICTS | COPY | ACCESS
