"""The examples of docs/initiator.md and of the package run, against a tcm-run of their own; the page's tables are complete."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tcm_iscsi.initiator
from support.daemon import running
from support.documents import ROOT, example_of_package, example_of_page, prints
from tcm_iscsi.initiator import Faults, Recovery

PAGE = (ROOT / "docs/initiator.md").read_text(encoding="utf-8")
TARGET = ("--lun", "ramdisk:size=4M", "--param", "MaxConnections=8", "--param", "ErrorRecoveryLevel=2")


def test_the_example_of_the_page(tmp_path: Path) -> None:
    example = example_of_page(PAGE)
    with running(tmp_path, *TARGET) as daemon:
        assert "LIO-ORG" in prints(f"url = {daemon.url.text!r}\n{example}")


def test_the_example_of_the_package(tmp_path: Path) -> None:
    example = example_of_package(tcm_iscsi.initiator.__doc__ or "")
    with running(tmp_path, *TARGET) as daemon:
        example = example.replace("iscsi://127.0.0.1:3260/iqn.2003-01.org.example:t/0", daemon.url.text)
        assert "LIO-ORG" in prints(example.replace("iscsi://127.0.0.1:3260", f"iscsi://{daemon.url.portal}"))


def test_the_page_names_what_there_is() -> None:
    for name in ("progress_timeout", "connection_timeout", "task_timeout", "session_recovery", "by_logout", "automatic"):
        assert name in {field.name for field in dataclasses.fields(Recovery)}
        assert name in PAGE
    for name in ("drop", "duplicate", "reorder", "delay", "cut", "opcodes", "directions", "spared", "choose"):
        assert name in {field.name for field in dataclasses.fields(Faults)}
        assert name in PAGE
    for path in (ROOT / "fabrics/iscsi/tcm_iscsi/initiator").glob("*.py"):
        if path.stem not in ("__init__", "__main__", "commands", "options", "results", "url"):
            assert f"tcm_iscsi/initiator/{path.name}" in PAGE


def test_everything_public_has_a_docstring() -> None:
    for name in tcm_iscsi.initiator.__all__:
        thing = getattr(tcm_iscsi.initiator, name)
        if callable(thing):
            assert thing.__doc__, name
