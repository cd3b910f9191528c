"""All pages: links lead somewhere, the index is complete, file names are true."""

from __future__ import annotations

import re

import pytest
from support.documents import ROOT

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("docs/*.md"), ROOT / "plugins.md"])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8")):
        assert link.startswith("http") or (folder / link).exists(), f"{page} leads to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tcm|tests|docs|tools|fabrics|backstores|tcm_iscsi|tcm_fcoe)/[\w/.-]+\.(?:py|md))`", text):
        fabric = {"tcm_iscsi": "fabrics/iscsi/", "tcm_fcoe": "fabrics/fcoe/"}.get(name.partition("/")[0], "")
        path = ROOT / (fabric + name)
        assert path.exists(), f"{page} names {name}"


def test_the_index_names_every_page():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for path in ROOT.glob("docs/*.md"):
        assert path.name == "README.md" or f"]({path.name})" in index
