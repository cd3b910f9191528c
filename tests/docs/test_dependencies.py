"""docs/dependencies.md has a row for whatever the distributions depend on."""

from __future__ import annotations

import re
import tomllib

import pytest
from support.documents import ROOT

PROJECTS = [ROOT, *(ROOT / "fabrics" / name for name in ("iscsi", "fcoe", "loopback")), ROOT / "backstores"]
PAGE = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")


def named() -> dict[str, str]:
    """Package name to the file that names it."""
    found = {}
    for folder in PROJECTS:
        path = folder / "pyproject.toml"
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        project = content["project"]
        groups = [
            content["build-system"]["requires"],
            project["dependencies"],
            *project.get("optional-dependencies", {}).values(),
        ]
        for requirement in (each for group in groups for each in group):
            found[re.split(r"[^\w-]", requirement)[0]] = str(path.relative_to(ROOT))
    for path in ROOT.glob("requirements*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line[:1].isalpha():
                found[re.split(r"[^\w-]", line)[0]] = path.name
    return found


@pytest.mark.parametrize(("package", "where"), named().items())
def test_every_dependency_is_explained(package, where):
    assert re.search(rf"^\| `{package}` \| [^|]*\w", PAGE, re.MULTILINE), (
        f"{where} names {package}, docs/dependencies.md does not"
    )


def test_nothing_is_explained_that_is_not_needed():
    rows = set(re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE))
    assert rows == set(named())
