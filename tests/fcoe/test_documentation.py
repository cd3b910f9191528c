"""The examples of docs/fcoe.md and of the initiator's package run, against a tcm-run of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tcm_fcoe.initiator
from support.documents import ROOT, example_of_package, example_of_page, prints
from support.fcoe_daemon import fcoe_running
from tcm_fcoe.initiator import Faults

PAGE = (ROOT / "docs/fcoe.md").read_text(encoding="utf-8")


def test_the_example_of_the_page(tmp_path: Path) -> None:
    example = example_of_page(PAGE)
    with fcoe_running(tmp_path, "--lun", "ramdisk:size=1M") as daemon:
        assert "LIO-ORG" in prints(f"interface = {daemon.link!r}\n{example}")


def test_the_example_of_the_package(tmp_path: Path) -> None:
    example = example_of_package(tcm_fcoe.initiator.__doc__ or "")
    with fcoe_running(tmp_path, "--lun", "ramdisk:size=1M") as daemon:
        assert "LIO-ORG" in prints(example.replace("eth1", daemon.link))


def test_the_page_names_what_there_is() -> None:
    for name in ("drop", "duplicate", "reorder", "corrupt"):
        assert name in {field.name for field in dataclasses.fields(Faults)}
        assert f"--{name}" in PAGE


def test_everything_public_has_a_docstring() -> None:
    for name in tcm_fcoe.initiator.__all__:
        thing = getattr(tcm_fcoe.initiator, name)
        if callable(thing):
            assert thing.__doc__, name
