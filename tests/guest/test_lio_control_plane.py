"""The control plane beside LIO, in one boot of a guest: the same steps of targetcli, a configuration that goes to us and back,
and a change of one ACL among a thousand LUNs that an initiator does not notice.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.controlled import Ctl, controlled
from support.daemon import wait_until
from support.guest import HERE, Guest
from support.large_config import large_config
from support.lio_comparison import ADDED, SKIPPED, compared, steps, unexplained
from support.namespaced import needs_namespace
from support.programs import free_port, program
from support.tcm_process import TcmProcess
from support.watch import Watch

pytestmark = [pytest.mark.interop, pytest.mark.guest]
needs_namespace()

CHANGES = 4
"""Applied while fio runs."""


@dataclass
class Told:
    """What came of it all."""

    theirs: list[dict[str, Any]]
    """Of LIO after each step."""
    ours: list[dict[str, Any]]
    saved: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Configurations: ``lio``, ``ours``, ``again``, ``targetcli``."""
    restored: str = ""
    """What targetcli said when LIO restored ours."""
    fio: list[dict[str, Any]] = field(default_factory=list)
    applied: list[float] = field(default_factory=list)
    """Seconds that each change took, fio beside it."""
    sessions: list[Any] = field(default_factory=list)
    """Before and after the changes."""
    kernel: str = ""


@contextmanager
def empty(folder: Path) -> Iterator[Ctl]:
    """A tcm-run with nothing in it."""
    folder.mkdir()
    with TcmProcess(folder, "--fabric", "iscsi", "--empty", "--state-dir", str(folder / "state")) as tcm:
        tcm.wait_for("no targets", in_log=True)
        yield Ctl(None, folder)  # type: ignore[arg-type]
        assert tcm.stop() == 0
        assert "Traceback" not in tcm.err


@contextmanager
def exported(folder: Path) -> Iterator[Path]:
    """Where the exported files are, with a block device among them."""
    folder.mkdir()
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    device = subprocess.check_output([program("losetup"), "--find", "--show", str(image)], text=True).strip()
    try:
        (folder / "disk").symlink_to(device)
        yield folder
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def meet(guest: Guest, name: str, seconds: float) -> None:
    """Until the guest has made that file."""
    path = guest.share / name
    wait_until(lambda: path.exists() or guest.process.poll() is not None, seconds, name, 0.2)
    assert path.exists(), guest.report()


def restored_and_saved(folder: Path, lio: Path) -> dict[str, Any]:
    """Of LIO's file, by a fresh tcm-run."""
    with empty(folder) as ctl:
        ctl.run("restore", str(lio))
        path = folder / "ours.json"
        ctl.run("save", str(path))
        saved: dict[str, Any] = json.loads(path.read_text())
    return saved


def by_targetcli(folder: Path, lio: Path) -> dict[str, Any]:
    """The same, restored and saved by targetcli on our tree."""
    with empty(folder) as ctl:
        said = ctl.run("targetcli", "restoreconfig", str(lio))
        assert "skipped" not in said, said
        path = folder / "targetcli.json"
        ctl.run("targetcli", "saveconfig", str(path))
        saved: dict[str, Any] = json.loads(path.read_text())
    return saved


def change_beside_fio(told: Told, ctl: Ctl, guest: Guest, large: dict[str, Any], folder: Path) -> None:
    """One attribute of one node ACL, again and again."""
    # what a slow I/O is must not be the machine's: it is told from the daemon's processor time
    with Watch(ctl.daemon, growth=256 << 20):
        told.sessions.append(ctl.json("sessions"))
        for number in range(CHANGES):
            large["targets"][100]["tpgs"][0]["node_acls"][0]["attributes"]["nopin_timeout"] = 5 + number
            path = folder / "changed.json"
            path.write_text(json.dumps(large))
            begin = time.monotonic()
            (change,) = ctl.json("apply", str(path))
            told.applied.append(time.monotonic() - begin)
            assert change["value"] == str(5 + number)
        told.sessions.append(ctl.json("sessions"))


def large_one(port: int) -> dict[str, Any]:
    """200 targets and 1,000 LUNs, and one target that the guest may use."""
    config = large_config(port=port)
    config["targets"][0]["tpgs"][0]["node_acls"] = []
    config["targets"][0]["tpgs"][0]["attributes"] |= {"generate_node_acls": 1, "demo_mode_write_protect": 0}
    config["storage_objects"][0]["size"] = 32 << 20
    return config


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    directory = tmp_path_factory.mktemp("plane")
    port = free_port()
    large = large_one(port)
    with exported(directory / "exported") as folder:
        target = large["targets"][0]["wwn"]
        guest = Guest(
            directory,
            "control_plane.guest",
            str(folder),
            f"10.0.2.2:{port}",
            target,
            "0",
            timeout=900,
            files=("login.sh", "lio_steps.py"),
        )
        try:
            commands = guest.share / "steps.new"
            commands.write_text(json.dumps(steps(str(folder), [free_port(), free_port(), free_port()], block=True)))
            results = directory / "ours-after-each.json"
            shutil.copy(commands, guest.share / "steps.json")
            with empty(directory / "steps") as ctl:
                ctl.run("exec", "python3", str(HERE / "lio_steps.py"), str(commands), str(results), ctl.control, seconds=500)
            meet(guest, "stepped", 500)
            told = Told(json.loads((guest.share / "results.json").read_text()), json.loads(results.read_text()))
            lio = guest.share / "lio.json"
            told.saved["lio"] = json.loads(lio.read_text())
            told.saved["ours"] = restored_and_saved(directory / "restored", lio)
            (guest.share / "ours.json").write_text(json.dumps(told.saved["ours"]))
            (guest.share / "restore").touch()
            told.saved["targetcli"] = by_targetcli(directory / "targetcli", lio)
            meet(guest, "restored", 400)
            told.saved["again"] = json.loads((guest.share / "again.json").read_text())
            told.restored = (guest.share / "restored.txt").read_text()
            (directory / "large.json").write_text(json.dumps(large))
            arguments = ("--config", str(directory / "large.json"))
            with controlled(directory / "large", *arguments, portals=(), target=None) as ctl:
                (guest.share / "serving").touch()
                meet(guest, "writing", 400)
                change_beside_fio(told, ctl, guest, large, directory)
                (guest.share / "applied").touch()
                print(guest.finish())
            told.fio = [json.loads(path.read_text())["jobs"][0] for path in (guest.share / "fio").iterdir()]
            told.kernel = (guest.share / "dmesg.txt").read_text()
            yield told
        finally:
            guest.end()


def test_every_step(told: Told) -> None:
    """Whatever targetcli says and the tree has after each of its commands is what LIO says and has, but for what is listed."""
    assert len(told.ours) > 60
    assert list(compared(told.theirs, told.ours)) == []


def test_from_lio_to_us_and_back(told: Told) -> None:
    """LIO saves, we restore and save, LIO restores and saves: CHAP, ACLs, mapped LUNs, ALUA, attributes, loopback."""
    lio = told.saved["lio"]
    assert {each["plugin"] for each in lio["storage_objects"]} == {"block", "fileio", "ramdisk"}
    assert {each["fabric"] for each in lio["targets"]} == {"iscsi", "loopback"}
    assert unexplained(lio, told.saved["ours"], ADDED) == {}
    assert unexplained(lio, told.saved["again"]) == {}
    # and every exception is one
    for pattern in ADDED:
        assert unexplained(lio, told.saved["ours"], {other: "" for other in ADDED if other != pattern}), pattern
    first, *errors = [line for line in told.restored.splitlines() if line]
    assert re.fullmatch(rf"Configuration restored, {len(errors)} recoverable errors:", first), told.restored
    assert all(SKIPPED.fullmatch(line.strip()) for line in errors), told.restored


def test_from_lio_to_us_by_targetcli(told: Told) -> None:
    """The same if it is targetcli that restores and saves it on our tree: with the keys that it knows."""
    newer = {pattern: why for pattern, why in ADDED.items() if "attributes" in pattern}
    assert unexplained(told.saved["lio"], told.saved["targetcli"], newer) == {}


def test_one_acl_of_a_thousand_luns_changes_beside_fio(told: Told) -> None:
    """No error, the session is the one that it was, and open-iscsi, which pings after 5 s of silence, has noticed nothing."""
    assert {job["error"] for job in told.fio} == {0}
    assert sum(job["write"]["total_ios"] for job in told.fio) > 100
    assert sum(job["read"]["total_ios"] for job in told.fio) > 100, "verified"
    assert len(told.applied) == CHANGES
    before, after = told.sessions
    assert [each["isid"] for each in before] == [each["isid"] for each in after]
    assert [each["address"] for each in before] == [each["address"] for each in after]
    assert not re.search(r"conn error|I/O error|timed out|recovery", told.kernel), told.kernel
    slowest = max(job[each]["clat_ns"]["max"] for job in told.fio for each in ("read", "write")) / 1e6
    print(f"slowest I/O {slowest:.0f} ms, changes took {', '.join(f'{each:.1f}' for each in told.applied)} s")
