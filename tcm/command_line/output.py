"""Tables for people and for other programs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH = 10_000
"""Columns: nothing is cut off or wrapped, so that other programs can read it."""


def table(heads: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> str:
    """Columns two spaces apart."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(*(heads or ()), box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=heads is not None)
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    stream = io.StringIO()
    Console(file=stream, width=WIDTH, color_system=None).print(made)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())
