"""Sessions, counters and the live view of a real tcm-run under load."""

from __future__ import annotations

import json

import pytest
from support.controlled import Load, controlled

from tcm.cli.ctl_top import Rates


@pytest.fixture
def ctl(tmp_path):
    with controlled(tmp_path, "--lun", "ramdisk:size=4M", "--lun", "ramdisk:size=4M", urls=2) as made:
        yield made


def test_sessions_and_what_they_count(ctl):
    assert ctl.json("sessions") == []
    with Load(ctl.daemon.url, blocks=8) as load:
        (session,) = ctl.json("sessions")
        before = load.count
        assert session["initiator"] == "iqn.2025-01.test.raw:initiator"
        assert session["target"] == ctl.daemon.url.target
        assert session["address"].startswith("127.0.0.1:")
        assert [lun["lun"] for lun in session["luns"]] == [0, 1]
        (session,) = ctl.json("sessions")
        counted = session["luns"][0]
        assert counted["read_cmds"] >= before
        assert counted["read_bytes"] >= before * 4096
        assert "iqn.2025-01.test.raw:initiator" in ctl.run("sessions")
        assert "1 session" in ctl.run("ls")
    assert ctl.run("sessions") == "nobody is logged in\n"


def test_top_shows_rates(ctl):
    with Load(ctl.daemon.url):
        lines = ctl.run("--json", "top", "--count", "2", "--interval", "0.5").splitlines()
        first, second = map(json.loads, lines)
        shown = ctl.run("top", "--interval", "0.3")
    for each in (first, second):
        busy, idle = each["units"]
        assert busy["reads"] > 0
        assert busy["write_bytes"] >= busy["writes"] * 4095
        assert idle["reads"] == idle["writes"] == 0
        assert busy["latency"]["0.5"] <= busy["latency"]["0.99"] <= busy["latency"]["0.999"]
        assert idle["latency"]["0.5"] is None
        (session,) = each["sessions"]
        assert session["reads"] > 0
    assert "p99.9" in shown
    assert "iqn.2025-01.test.raw:initiator" in shown


def test_statistics_are_the_registrys(ctl):
    with Load(ctl.daemon.url):
        found = ctl.json("statistics")
    assert {each["path"] for each in found["units"]} == {"/backstores/ramdisk/lun0", "/backstores/ramdisk/lun1"}
    assert [each["initiator"] for each in found["nexuses"]] == ["iqn.2025-01.test.raw:initiator"]
    assert found["units"][0]["counted"]["read_cmds"] > 0
    assert "iscsi" in found["sessions"]


def _snapshot(time, reads, *, sessions=()):
    counted = {"read_cmds": reads, "write_cmds": 0, "other_cmds": 0, "read_bytes": reads * 512, "write_bytes": 0}
    latency = {"read": [0, reads, 0], "write": [0, 0, 0]}
    return {"time": time, "units": {"/u": {"queue": 0, "latency": latency, **counted}}, "sessions": list(sessions)}


def test_rates_of_counters_that_start_anew():
    rates = Rates()
    assert rates.add(_snapshot(0.0, 100))["units"][0]["reads"] == 0
    found = rates.add(_snapshot(2.0, 300))["units"][0]
    assert (found["reads"], found["read_bytes"], found["latency"]["0.5"]) == (100, 51200, 2)
    assert rates.add(_snapshot(3.0, 5))["units"][0]["reads"] == 0
