"""Distributions made on the spot: a folder with a module and a ``dist-info``, as an installer would leave it."""

from __future__ import annotations

from pathlib import Path

MINIMAL = """
from tcm.hookspecs import hookimpl
from tcm.plugin_types import API_VERSION, BackstoreType
from tcm_backstores.null import NULL


@hookimpl
def tcm_backstores():
    return [BackstoreType(name={name!r}, api_version={api_version}, options=NULL.options, factory=NULL.factory)]
"""
"""A plug-in with one backstore, to be formatted with ``name`` and ``api_version``."""


def make_distribution(folder: Path, name: str, source: str, version: str = "1.0", entry_point: str = "") -> None:
    """Adds a distribution to ``folder``, which the caller puts on the path.

    :param source: of its only module, which is named like the distribution.
    """
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[tcm]\n{entry_point or module} = {module}\n")
