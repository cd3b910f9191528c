"""ASCII fields of fixed length (SPC-5 4.3.1)."""

from __future__ import annotations


def left_aligned(text: str, length: int) -> bytes:
    """``length`` bytes: the text, cut or padded with spaces; anything but graphic ASCII becomes a space."""
    return "".join(character if " " <= character <= "~" else " " for character in text)[:length].ljust(length).encode("ascii")
