"""The table of docs/iscsi-ffp.md: every test of the full feature phase suite, what it shows, and where LIO differs.

From the docstrings of ``tests/conformance/test_iscsi_ffp_*.py`` and the differences of ``tests/support/ffp_lio.py``.
"""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from parts.markdown import table

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).parents[2] / "tests"
DOCSTRING = re.compile(r"Tests? (?P<numbers>[\d., and to]+), (?P<clauses>(?:clauses?|appendix) [^:]+): (?P<says>.+)")
NUMBER = re.compile(r"\d+(?:\.\d+)+")


class FfpTest(NamedTuple):
    """A test function."""

    name: str
    numbers: tuple[str, ...]
    """Of the plan."""
    clauses: str
    """Of RFC 7143."""
    says: str


def numbers(text: str) -> tuple[str, ...]:
    """``15.1.1 to 15.1.4`` has four, ``11.4 and 11.5`` two."""
    found = NUMBER.findall(text)
    if " to " not in text:
        return tuple(found)
    stem, _, first = found[0].rpartition(".")
    return tuple(f"{stem}.{n}" for n in range(int(first), int(found[1].rpartition(".")[2]) + 1))


def ffp_tests() -> list[FfpTest]:
    """In the plan's order. Raises ValueError for a docstring of another form."""
    found = []
    for path in sorted((TESTS / "conformance").glob("test_iscsi_ffp_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_"):
                text = " ".join((ast.get_docstring(node) or "").split())
                match = DOCSTRING.fullmatch(text)
                if match is None:
                    msg = f"{path.name}: {node.name}: the docstring is not 'Test 1.1, clause 4.2.2.1: ...' but {text!r}"
                    raise ValueError(msg)
                found.append(FfpTest(node.name, numbers(match["numbers"]), match["clauses"], match["says"]))
    return sorted(found, key=lambda test: [int(part) for part in test.numbers[0].split(".")])


def lio_differences() -> dict[str, str]:
    """By test function, with its parameters' id if only that differs: what LIO does instead."""
    found: dict[str, dict[str, str]] = runpy.run_path(str(TESTS / "support" / "ffp_lio.py"))
    return found["DIFFERENCES"]


def rows() -> list[tuple[str, str, str, str, str]]:
    """Rows: numbers, what is shown, tcm, LIO, clauses."""
    differences = lio_differences()
    found = []
    for test in ffp_tests():
        named = {key: what for key, what in differences.items() if key.partition("[")[0] == test.name}
        by_what = {what: [key.partition("[")[2].rstrip("]") for key in named if named[key] == what] for what in named.values()}
        lio = "; ".join(what + (f" (`{'`, `'.join(ids)}`)" if ids[0] else "") for what, ids in by_what.items())
        shown = ", ".join(test.numbers)
        clauses = test.clauses if test.clauses.startswith("appendix") else test.clauses.partition(" ")[2]
        found.append((shown, test.says, "passes", lio or "passes", clauses))
    return found


PARTS: dict[str, Callable[[], list[str]]] = {"ffp": lambda: table(("test", "shown", "tcm", "LIO", "RFC 7143"), rows())}
