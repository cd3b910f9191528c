"""Writes the generated parts of the documentation: ``python docs/generate.py``, or ``--check`` to only compare.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. It is made of the code's docstrings, tables
and constants by a module of ``docs/parts``, so that the two cannot disagree; ``tests/docs/test_generated.py`` compares them.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
PAGES = (
    "plugins.md",
    "docs/conformance.md",
    "docs/conformance-tests.md",
    "docs/control-protocol.md",
    "docs/fcoe.md",
    "docs/iscsi-attributes.md",
    "docs/iscsi-ffp.md",
    "docs/limits.md",
    "docs/negotiation.md",
    "docs/reservations.md",
    "docs/state-machines.md",
)
PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)

sys.path.insert(0, str(Path(__file__).parent))  # for whoever loads this file by its path
MODULES = (
    "commands",
    "contracts",
    "control_methods",
    "fcoe_differences",
    "fcoe_pictures",
    "ffp_table",
    "iscsi_tables",
    "limits",
    "task_states",
)
PARTS: dict[str, Callable[[], list[str]]] = {
    name: part for module in MODULES for name, part in import_module(f"parts.{module}").PARTS.items()
}


def generated(text: str) -> str:
    """A page with its generated parts made anew."""
    return PART.sub(lambda match: match[1] + "\n".join(PARTS[match[2]]()).rstrip("\n") + "\n" + match[3], text)


def main() -> int:
    """0, or 1 if ``--check`` finds a difference."""
    check = "--check" in sys.argv[1:]
    differing = 0
    for page in PAGES:
        path = ROOT / page
        before = path.read_text(encoding="utf-8")
        after = generated(before)
        if before == after:
            continue
        differing = 1
        if not check:
            path.write_text(after, encoding="utf-8")
        print(f"{page}: {'differs; run python docs/generate.py' if check else 'written'}")
    return differing if check else 0


if __name__ == "__main__":
    sys.exit(main())
