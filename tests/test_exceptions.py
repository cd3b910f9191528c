"""Whoever makes an exception to a rule of this repository says why, where it is made."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
CODE = ("tcm", "fabrics", "backstores", "docs", "tools")
LONG = 500
"""Lines of a file that need no explanation."""
WHY_LONG = re.compile(r"onger than most( files)?\s+because")
EXCEPTION = re.compile(r"#\s*(?:ruff: )?(?:noqa: [A-Z0-9, ]+?|type: ignore\[[a-z, -]+\])(?P<rest>\s.*|)$")


def files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (ROOT / folder).rglob("*.py")


def test_noqa_and_ignored_types_carry_their_reason() -> None:
    silent = []
    for path in files(*CODE):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = EXCEPTION.search(line)
            if found and not re.search(r"[a-z]{2}", re.sub(r"# *(noqa: [A-Z0-9, ]+|type: ignore\[.*?\])", "", found["rest"])):
                silent.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not silent


def test_long_files_say_why_they_are_long() -> None:
    silent = []
    for path in files(*CODE, "tests"):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > LONG and not WHY_LONG.search(ast.get_docstring(ast.parse(text)) or ""):
            silent.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
    assert not silent
