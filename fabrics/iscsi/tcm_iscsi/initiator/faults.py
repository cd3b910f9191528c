"""Misbehaviour between an initiator and the wire, sans-IO: PDUs of full feature phase that are lost, damaged, late, out of
order, doubled, and connections that are cut. By chance with a seed, or by a rule.

A :class:`FaultyWire` stands between :class:`~tcm_iscsi.initiator.connection.Connection` and its socket, or any other stream of
iSCSI PDUs: bytes in, bytes out, both ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tcm_iscsi.protocol.pdu import BHS_LENGTH, DIGEST_LENGTH, OPCODE_MASK, Buffer, padded

OUT, IN = "out", "in"


class Chance(Protocol):
    """What of :class:`random.Random` is used."""

    def random(self) -> float:
        """From 0 to 1."""

    def randrange(self, stop: int, /) -> int:
        """Below ``stop``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How likely each fault is, per PDU, from 0 to 1. Everything 0: a wire that does nothing.

    Only what has a digest is corrupted, because nobody could tell otherwise. What ``choose`` says comes first.
    """

    drop: float = 0.0
    corrupt_header: float = 0.0
    """A bit of the header, lengths excepted, so that the next PDU is still found (RFC 7143 7.8 with its framing intact)."""
    corrupt_data: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """The PDU comes after the next one. No TCP connection does that."""
    delay: float = 0.0
    """The PDU, and all that follow it, come ``delay_seconds`` later."""
    delay_seconds: float = 0.05
    cut: float = 0.0
    """The connection ends before this PDU."""
    directions: frozenset[str] = frozenset({OUT, IN})
    opcodes: frozenset[int] | None = None
    """Only PDUs with these; None: all."""
    spared: frozenset[int] = frozenset()
    """Opcodes that nothing happens to."""
    choose: Callable[[str, bytes, int], str | None] | None = field(default=None, compare=False)
    """``choose(direction, header, number of the PDU in its direction)``: the name of a fault, ``"none"``, or None: let chance
    decide."""

    @classmethod
    def all(cls, chance: float, **more: float) -> Faults:
        """Every PDU dropped, corrupted, delayed, or its connection cut, each with this chance."""
        return cls(**{**dict.fromkeys(("drop", "corrupt_header", "corrupt_data", "delay", "cut"), chance), **more})  # type: ignore[arg-type]  # floats all


NAMES = ("cut", "drop", "corrupt_header", "corrupt_data", "duplicate", "reorder", "delay")


class _Direction:
    """One way."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.count = 0
        self.late: list[tuple[float, bytes]] = []
        """What is delayed, and until when; in order."""
        self.held = b""
        """The PDU that lets the next one pass."""


class FaultyWire:
    """One connection's wire, from its first PDU of full feature phase on.

    :param chance: a :class:`random.Random` with a seed, usually shared by all wires of a test.
    """

    def __init__(self, faults: Faults, chance: Chance, *, header_digest: bool, data_digest: bool) -> None:
        self.faults = faults
        self.chance = chance
        self.header_digest = header_digest
        self.data_digest = data_digest
        self.cut = False
        """The connection is to be ended once what was returned has been passed on; nothing follows it."""
        self.done: Counter[str] = Counter()
        """Faults, by ``direction fault``."""
        self._ways = {OUT: _Direction(), IN: _Direction()}

    def outgoing(self, data: Buffer, now: float) -> bytes:
        """What the initiator sends; returns what really goes out."""
        return self._pass(OUT, data, now)

    def incoming(self, data: Buffer, now: float) -> bytes:
        """What the target sends; returns what really arrives."""
        return self._pass(IN, data, now)

    def handle_timer(self, now: float) -> tuple[bytes, bytes]:
        """Delayed PDUs whose time has come: (outgoing, incoming)."""
        return self._due(self._ways[OUT], now), self._due(self._ways[IN], now)

    @property
    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` has something to do."""
        return min((way.late[0][0] for way in self._ways.values() if way.late), default=None)

    def _due(self, way: _Direction, now: float) -> bytes:
        out = b""
        while way.late and way.late[0][0] <= now and not self.cut:
            out += way.late.pop(0)[1]
        return out

    def _pass(self, direction: str, data: Buffer, now: float) -> bytes:
        way = self._ways[direction]
        way.buffer += data
        out = self._due(way, now)
        while not self.cut:
            pdu = self._next_pdu(way.buffer)
            if pdu is None:
                break
            way.count += 1
            pieces = self._suffer(direction, way, pdu, now)
            if way.late:  # nothing overtakes what is delayed
                when = way.late[-1][0]
                way.late += [(when, piece) for piece in pieces]
            else:
                out += b"".join(pieces)
        return out

    def _next_pdu(self, buffer: bytearray) -> bytes | None:
        if len(buffer) < BHS_LENGTH:
            return None
        length = int.from_bytes(buffer[5:8], "big")
        end = BHS_LENGTH + buffer[4] * 4 + (DIGEST_LENGTH if self.header_digest else 0)
        if length:
            end += padded(length) + (DIGEST_LENGTH if self.data_digest else 0)
        if len(buffer) < end:
            return None
        pdu = bytes(buffer[:end])
        del buffer[:end]
        return pdu

    def _fault(self, direction: str, pdu: bytes, number: int) -> str | None:
        faults = self.faults
        if direction not in faults.directions:
            return None
        if faults.choose is not None:
            chosen = faults.choose(direction, pdu[:BHS_LENGTH], number)
            if chosen is not None:
                return None if chosen == "none" else chosen
        opcode = pdu[0] & OPCODE_MASK
        if opcode in faults.spared or (faults.opcodes is not None and opcode not in faults.opcodes):
            return None
        for name in NAMES:
            chance = getattr(faults, name)
            if chance and self.chance.random() < chance:
                return name
        return None

    def _suffer(self, direction: str, way: _Direction, pdu: bytes, now: float) -> list[bytes]:
        """What becomes of one PDU."""
        fault = self._fault(direction, pdu, way.count)
        if fault == "corrupt_header" and not self.header_digest:
            fault = None
        if fault == "corrupt_data" and not (self.data_digest and pdu[5:8] != b"\0\0\0"):
            fault = None
        held, way.held = way.held, b""
        behind = [held] if held else []
        if fault is None:
            return [pdu, *behind]
        self.done[f"{direction} {fault}"] += 1
        if fault == "cut":
            self.cut = True
            return []
        if fault == "drop":
            return behind
        if fault == "duplicate":
            return [pdu, pdu, *behind]
        if fault == "reorder":
            way.held = pdu
            return behind
        if fault == "delay":
            way.late.append((now + self.faults.delay_seconds, pdu))
            return behind
        if fault in ("corrupt_header", "corrupt_data"):
            return [self._corrupt(pdu, fault == "corrupt_header"), *behind]
        msg = f"there is no fault {fault!r}: use one of {', '.join(NAMES)}"
        raise ValueError(msg)

    def _corrupt(self, pdu: bytes, header: bool) -> bytes:
        """One bit is wrong; the digest is what it was."""
        header_length = BHS_LENGTH + pdu[4] * 4
        if header:
            # not the opcode's byte and the lengths: whoever keeps the framing must be able to
            at = 8 + self.chance.randrange(header_length - 8)
        else:
            start = header_length + (DIGEST_LENGTH if self.header_digest else 0)
            at = start + self.chance.randrange(int.from_bytes(pdu[5:8], "big"))
        return pdu[:at] + bytes((pdu[at] ^ 1 << self.chance.randrange(8),)) + pdu[at + 1 :]
