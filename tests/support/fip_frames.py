"""The golden FIP frames, and FIP frames made for tests."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parents[1] / "data" / "fcoe-vn2vn-fip.txt"


def golden_frames() -> dict[int, bytes]:
    """Whole Ethernet frames by their number in the capture."""
    frames = {}
    for line in DATA.read_text().splitlines():
        number, data, *zeros = line.split()
        frames[int(number)] = bytes.fromhex(data) + bytes(int(zeros[0].removeprefix("00*")) if zeros else 0)
    return frames
