"""Where our FCoE target answers otherwise than LIO's, for docs/fcoe.md."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

from parts.markdown import table

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = Path(__file__).parents[2] / "tests/support/fcoe_lio_differences.py"
"""What ``tests/fcoe/test_golden_trace.py`` holds to."""


def fcoe_differences(name: str) -> list[str]:
    """One of the lists there."""
    rows = runpy.run_path(str(ROWS))[name]
    return table(("where", "LIO and libfc", "tcm", "clause, and why"), [row[:4] for row in rows])


PARTS: dict[str, Callable[[], list[str]]] = {
    "fcoe-lio": lambda: fcoe_differences("ROWS"),
    "fcoe-lio-not-seen": lambda: fcoe_differences("NOT_SEEN"),
}
