"""All pages: links lead somewhere, the index is complete, file names are true."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
from support.documents import ROOT

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "fabrics/*/README.md", "backstores/README.md")
    for path in ROOT.glob(pattern)
)
FOLDERS = {
    "tcm_iscsi": "fabrics/iscsi/",
    "tcm_fcoe": "fabrics/fcoe/",
    "tcm_loopback": "fabrics/loopback/",
    "tcm_backstores": "backstores/",
}
PACKAGES = ("tcm", *FOLDERS)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8")):
        assert link.startswith("http") or (folder / link).exists(), f"{page} leads to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(rf"`((?:{'|'.join(PACKAGES)}|tests|docs|tools|fabrics|backstores|\\.ci)/[\w/.*-]*)`", text):
        assert list(ROOT.glob(FOLDERS.get(name.partition("/")[0], "") + name.rstrip("/"))), f"{page} names {name}"


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_in_code_exists(page):
    """``tcm.target.nexus.ITNexus.submit``, ``tcm_iscsi.tls:CHUNK``."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+(?::[\w.]+)?)(?:\(\))?`", text):
        assert found(name), f"{page} names {name}"


def found(name: str) -> bool:
    module, _, inside = name.partition(":")
    parts, attributes = module.split("."), inside.split(".") if inside else []
    while parts:
        try:
            owner: object = import_module(".".join(parts))
        except ModuleNotFoundError:
            attributes.insert(0, parts.pop())
            continue
        for attribute in attributes:
            if not hasattr(owner, attribute):  # a field without a default
                return attribute in getattr(owner, "__annotations__", {})
            owner = getattr(owner, attribute)
        return True
    return False


def test_the_index_names_every_page():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for path in ROOT.glob("docs/*.md"):
        assert path.name == "README.md" or f"]({path.name})" in index
