"""What docs/generate.py writes is what the pages hold."""

from __future__ import annotations

import re

import generate
import pytest
from support.documents import ROOT


@pytest.mark.parametrize("page", generate.PAGES)
def test_pages_are_up_to_date(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text == generate.generated(text), f"{page} differs from the code: run python docs/generate.py"


def test_every_part_has_a_place():
    placed = [
        name for page in generate.PAGES for name in re.findall(r"<!-- generated: ([\w-]+) -->", (ROOT / page).read_text())
    ]
    assert sorted(placed) == sorted(generate.PARTS)


def test_a_changed_page_is_noticed():
    text = "<!-- generated: errors -->\nsomething else\n<!-- end -->\n"
    assert generate.generated(text) != text
    assert "ENOSPC" in generate.generated(text)


@pytest.mark.parametrize("part", ["tpg-attributes", "acl-attributes", "tpg-parameters"])
def test_every_iscsi_attribute_has_a_test(part):
    rows = [line.strip("| ").split(" | ") for line in generate.PARTS[part]()[2:]]
    assert [row[0] for row in rows if len(row) < 4] == []
