"""Misbehaviour between a station and its link, sans-IO: frames that are lost, doubled, out of order or damaged.

By chance with a seed, or by a rule.

A :class:`FaultyPath` is one direction: frames in, frames out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

ETHER_TYPE = slice(12, 14)
TAG, FCOE = b"\x81\x00", b"\x89\x06"
HEADER, TAGGED_HEADER = 14, 18
NAMES = ("drop", "duplicate", "reorder", "corrupt")


class Chance(Protocol):
    """What of :class:`random.Random` is used."""

    def random(self) -> float:
        """From 0 to 1."""

    def randrange(self, stop: int, /) -> int:
        """Below ``stop``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How likely each fault is, per frame, from 0 to 1. Everything 0: a path that does nothing.

    What ``choose`` says comes first.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    """The frame comes twice."""
    reorder: float = 0.0
    """The frame comes after the next one, or after ``hold_seconds`` if there is none."""
    corrupt: float = 0.0
    """One bit behind the Ethernet header is wrong. FCoE frames only, which have a CRC: others rely on Ethernet's."""
    hold_seconds: float = 0.02
    choose: Callable[[bytes, int], str | None] | None = field(default=None, compare=False)
    """``choose(frame, number of the frame)``: the name of a fault, ``"none"``, or None: let chance decide."""

    @classmethod
    def all(cls, chance: float) -> Faults:
        """Every fault with this chance."""
        return cls(drop=chance, duplicate=chance, reorder=chance, corrupt=chance)

    def __bool__(self) -> bool:
        return self.choose is not None or any(getattr(self, name) for name in NAMES)


class FaultyPath:
    """One direction of a link.

    :param chance: a :class:`random.Random` with a seed.
    """

    def __init__(self, faults: Faults, chance: Chance) -> None:
        self.faults = faults
        self.chance = chance
        self.count = 0
        self.done: Counter[str] = Counter()
        """Faults, by name."""
        self._held: bytes | None = None
        self._due = inf
        self._chances = [(name, getattr(faults, name)) for name in NAMES]

    def take(self, frames: Iterable[bytes | memoryview], now: float) -> list[bytes | memoryview]:
        """What becomes of these frames."""
        out: list[bytes | memoryview] = []
        for frame in frames:
            self.count += 1
            fault = self._fault(frame)
            if fault is None:
                out.append(frame)
                if self._held is not None:
                    out.append(self._release())
                continue
            self.done[fault] += 1
            if fault == "drop":
                continue
            if fault == "reorder":
                if self._held is not None:
                    out.append(self._release())
                self._held, self._due = bytes(frame), now + self.faults.hold_seconds
                continue
            if fault == "corrupt":
                out.append(self._damage(bytes(frame)))
            elif fault == "duplicate":
                out += (frame, frame)
            else:
                msg = f"there is no fault {fault!r}: use one of {', '.join(NAMES)}"
                raise ValueError(msg)
            if self._held is not None:
                out.append(self._release())
        return out

    def handle_timer(self, now: float) -> list[bytes | memoryview]:
        """The frame that was held back, if no other has come for it to follow."""
        return [self._release()] if self._held is not None and self._due <= now else []

    @property
    def next_timer(self) -> float:
        """When :meth:`handle_timer` has something to do; ``inf``: nothing is held."""
        return self._due

    def _release(self) -> bytes:
        held, self._held, self._due = self._held, None, inf
        assert held is not None
        return held

    def _fault(self, frame: bytes | memoryview) -> str | None:
        faults = self.faults
        if faults.choose is not None and (chosen := faults.choose(bytes(frame), self.count)) is not None:
            return None if chosen == "none" else chosen
        for name, chance in self._chances:
            if chance and self.chance.random() < chance:
                if name == "corrupt" and not _has_crc(frame):
                    continue
                return name
        return None

    def _damage(self, frame: bytes) -> bytes:
        start = TAGGED_HEADER if frame[ETHER_TYPE] == TAG else HEADER
        at = start + self.chance.randrange(len(frame) - start)
        return frame[:at] + bytes((frame[at] ^ 1 << self.chance.randrange(8),)) + frame[at + 1 :]


def _has_crc(frame: bytes | memoryview) -> bool:
    kind = bytes(frame[ETHER_TYPE])
    return (bytes(frame[16:18]) if kind == TAG else kind) == FCOE
