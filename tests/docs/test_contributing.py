"""CONTRIBUTING.md: its table of folders is the one that tests/test_imports.py holds to."""

from __future__ import annotations

import re

from support.documents import ROOT
from test_imports import LAYERS, layer

ROWS = re.findall(r"^\| (`tcm/.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
TABLE = [[f"tcm.{name}" for name in re.findall(r"`(?:tcm/)?(\w+)(?:/|\.py)`", row)] for row in ROWS]
"""The modules and packages of each row of ours."""


def test_all_of_the_core_is_in_the_table():
    there = {path.stem for path in (ROOT / "tcm").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(name for row in TABLE for name in row) == sorted(f"tcm.{name}" for name in there - {"__init__"})


def test_each_row_may_import_those_above():
    layers = [{layer(name) for name in row} for row in TABLE]
    assert all(len(each) == 1 for each in layers), "a row is of one layer"
    assert [index for each in layers for index in each] == sorted(index for each in layers for index in each)
    assert {index for each in layers for index in each} == set(range(len(LAYERS)))
