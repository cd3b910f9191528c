"""docs/code-roadmap.md: every function it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from support.documents import ROOT

ROW = re.compile(r"^\| `([\w/]+\.py)` \| `([\w.]+)` \| (.+) \|$", re.MULTILINE)
PAGE = (ROOT / "docs/code-roadmap.md").read_text(encoding="utf-8")
NAMED = sorted({(found[1], found[2]) for found in ROW.finditer(PAGE)})


@cache
def names(path: str) -> frozenset[str]:
    """Functions, classes and methods of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return frozenset(found)


@pytest.mark.parametrize(("path", "function"), NAMED)
def test_named_functions_exist(path, function):
    assert (ROOT / path).is_file(), f"there is no {path}"
    assert function in names(path), f"{path} has no {function}"


def test_every_row_is_understood():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(ROW.findall(PAGE))


def test_both_ways_of_both_commands_are_there():
    for heading in ("READ, express lane", "READ, general path", "WRITE, express lane", "WRITE, general path"):
        section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        assert len(ROW.findall(section)) >= 5, heading
