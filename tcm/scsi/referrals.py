"""Referrals: user data segments and the target port groups they are reached through (SBC-4 4.18.4, 4.26, 5.28)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm.scsi.asymmetric_access import AccessState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAXIMUM_SEGMENTS = 1024
"""Lines of an LBA map."""
_MAXIMUM_LENGTH = 0xFFFF
_MAXIMUM_LBA = (1 << 64) - 1
_LETTERS = {
    "O": AccessState.ACTIVE_OPTIMIZED,
    "A": AccessState.ACTIVE_NON_OPTIMIZED,
    "S": AccessState.STANDBY,
    "U": AccessState.UNAVAILABLE,
}
"""LIO's letters (lio-configfs 3)."""
_MEMBER = re.compile(r"(\d{1,5}):([OASU])", re.IGNORECASE)
_SENSE_DESCRIPTOR = 0x0B
_SENSE_ROOM = 244 - 4
"""Bytes for user data segment referral descriptors in sense data (SPC-4: 252 at most, 8 of header)."""


@dataclass(frozen=True, slots=True, eq=False)
class UserDataSegment:
    """One line of an LBA map: a run of user data segments with the same access."""

    first: int
    last: int
    """The last LBA, inclusive, of the last segment."""
    states: Mapping[int, AccessState]
    """By target port group. Through a group that is not named, the segment cannot be reached."""

    def pack(self) -> bytes:
        """User data segment referral descriptor (SBC-4 table 18)."""
        groups = b"".join(bytes((state, 0)) + group.to_bytes(2, "big") for group, state in self.states.items())
        return bytes((0, 0, 0, len(self.states))) + self.first.to_bytes(8, "big") + self.last.to_bytes(8, "big") + groups


@dataclass(frozen=True, slots=True)
class LbaMap:
    """Where the logical blocks of a unit are: lines that follow each other from LBA 0 on, or that take turns."""

    segment_size: int
    """Logical blocks; 0: each line is one segment, as long as it says."""
    segment_multiplier: int
    """Segments from the beginning of one segment of a line to the next one of it, which is the number of lines; or 0."""
    segments: tuple[UserDataSegment, ...]
    """In ascending order of their first LBA."""

    def pieces(self, lba: int, blocks: int) -> Iterator[tuple[int, UserDataSegment | None]]:
        """The lines that a range touches, each with the first LBA of the range in it; ``None`` for what lies behind the map."""
        if not blocks:
            return
        end = lba + blocks
        mapped = max(segment.last for segment in self.segments) + 1
        if self.segment_size:
            at = lba
            while at < min(end, mapped, lba + self.segment_size * self.segment_multiplier):
                turn = at // self.segment_size
                yield at, self.segments[turn % self.segment_multiplier]
                at = (turn + 1) * self.segment_size
        else:
            for segment in self.segments:
                if segment.first < end and lba <= segment.last:
                    yield max(lba, segment.first), segment
        if end > mapped:
            yield max(lba, mapped), None


def parse_lba_map(text: str) -> LbaMap:
    """LIO's form (lio-configfs 3): ``size multiplier``, then lines of ``first last group:state ...``.

    Raises ``ValueError``, one line that says in which line what is wrong.
    """
    lines = [line.split() for line in text.strip().splitlines()]
    if not lines or len(lines[0]) != 2:
        raise ValueError("line 1: segment size and multiplier are wanted, such as 0 0")
    size, multiplier = (_number(word, 1, 0xFFFFFFFF) for word in lines[0])
    if bool(size) is not bool(multiplier):
        raise ValueError("line 1: segment size and multiplier are both zero or both not")
    if not 2 <= len(lines) <= MAXIMUM_SEGMENTS + 1:
        raise ValueError(f"1 to {MAXIMUM_SEGMENTS} lines of segments are wanted")
    segments = [_segment(words, place) for place, words in enumerate(lines[1:], 2)]
    first = 0
    for place, each in enumerate(segments, 2):
        if len(each.states) != len(segments[0].states):
            raise ValueError(f"line {place}: every line names as many groups")
        if each.first != first:
            raise ValueError(f"line {place}: its first LBA is not {first}: there is a gap or an overlap")
        first = first + size if size else each.last + 1
    if size and len(segments) != multiplier:
        raise ValueError(f"there are {len(segments)} lines, not {multiplier} as the segment multiplier says")
    if sum(len(each.pack()) for each in segments) > _MAXIMUM_LENGTH:
        raise ValueError("too many groups in too many lines: REPORT REFERRALS returns at most 65535 bytes")
    return LbaMap(size, multiplier, tuple(segments))


def _segment(words: list[str], place: int) -> UserDataSegment:
    if len(words) < 3:
        raise ValueError(f"line {place}: first LBA, last LBA and at least one group:state are wanted, such as 0 99 1:O")
    first, last = (_number(word, place, _MAXIMUM_LBA) for word in words[:2])
    if last < first:
        raise ValueError(f"line {place}: the last LBA {last} is before the first")
    states: dict[int, AccessState] = {}
    for word in words[2:]:
        match = _MEMBER.fullmatch(word)
        group = int(match[1]) if match else 0x10000
        if match is None or group > 0xFFFF or group in states or len(states) == 0xFF:
            raise ValueError(f"line {place}: {word!r}: each group once, as group:state with state O, A, S or U")
        states[group] = _LETTERS[match[2].upper()]
    return UserDataSegment(first, last, states)


def _number(word: str, place: int, most: int) -> int:
    if not word.isascii() or not word.isdigit() or len(word) > 20 or int(word) > most:
        raise ValueError(f"line {place}: {word!r} is not a number from 0 to {most}")
    return int(word)


def lba_map_text(lba_map: LbaMap) -> str:
    """The same form again."""
    letters = {state: letter for letter, state in _LETTERS.items()}
    lines = [f"{lba_map.segment_size} {lba_map.segment_multiplier}"]
    for each in lba_map.segments:
        groups = " ".join(f"{group}:{letters[state]}" for group, state in each.states.items())
        lines.append(f"{each.first} {each.last} {groups}")
    return "\n".join(lines) + "\n"


def report_referrals_data(segments: Iterable[UserDataSegment]) -> bytes:
    """REPORT REFERRALS parameter data (SBC-4 5.28.2)."""
    body = b"".join(segment.pack() for segment in segments)
    return bytes(2) + len(body).to_bytes(2, "big") + body


def referral_sense_descriptor(segments: Iterable[UserDataSegment]) -> bytes:
    """User data segment referral sense data descriptor, as many whole segments as fit (SBC-4 4.18.4)."""
    body, left = b"", 0
    for segment in segments:
        packed = segment.pack()
        if left or len(body) + len(packed) > _SENSE_ROOM:
            left += 1
        else:
            body += packed
    return bytes((_SENSE_DESCRIPTOR, len(body) + 2, int(bool(left)), 0)) + body
