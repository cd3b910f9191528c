"""Options of the FCoE fabric, and how fabrics' options become long ones: exit code 2 and one line for what cannot work."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from support.daemon import running

FCOE = ("--fabric", "fcoe", "--lun", "null:size=1G")
ETH = (*FCOE, "--interface", "eth1")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (FCOE, "--fabric fcoe: interface: missing; write --interface eth1, or --interface unix:LOCAL,PEER"),
        ((*FCOE, "--interface", ""), "--fabric fcoe: interface: '' is none; write a network interface such as eth1"),
        ((*FCOE, "--interface", "unix:a"), "--fabric fcoe: interface: 'unix:a' is none; write"),
        ((*ETH, "--interface", "eth1"), "--fabric fcoe: interface: eth1 stands there twice; write it once"),
        ((*FCOE, "--interface", "none0"), "--interface none0: "),
        ((*ETH, "--mode", "switch"), "--fabric fcoe: mode: 'switch' is not one of vn2vn|fabric|fcf|p2p"),
        ((*ETH, "--mode", "fcf", "--mode", "p2p"), "--fabric fcoe: mode: given 2 times; write it once"),
        ((*ETH, "--vlan", "0"), "--fabric fcoe: vlan: 0 is out of range; write 1 to 4094"),
        ((*ETH, "--vlan", "4095"), "--fabric fcoe: vlan: 4095 is out of range; write 1 to 4094"),
        ((*ETH, "--vlan", "x"), "--fabric fcoe: vlan: 'x' is not an integer"),
        ((*ETH, "--domain", "2"), "--fabric fcoe: domain: mode vn2vn has no use for it; write mode=fcf, or leave it out"),
        ((*ETH, "--mode", "fcf", "--domain", "240"), "--fabric fcoe: domain: 240 is out of range; write 1 to 239"),
        ((*ETH, "--mode", "fcf", "--fc-map", "0efd00"), "--fabric fcoe: fc_map: '0efd00' is none; write six hex digits"),
        (
            (*FCOE, "--interface", "unix:a,b", "--mode", "p2p", "--wwpn", "1" * 16, "--wwpn", "2" * 16),
            "--fabric fcoe: 2 targets, and in mode p2p an interface has one port",
        ),
        ((*ETH, "--priority", "8"), "--fabric fcoe: priority: 8 is out of range; write 0 to 7"),
        ((*ETH, "--burst", "100"), "--fabric fcoe: burst: 100 is out of range; write 512 to 16777216"),
        ((*ETH, "--retry", "perhaps"), "--fabric fcoe: retry: 'perhaps' is not yes or no"),
        ((*ETH, "--mac", "52:54:00:2f:fc:00"), "--fabric fcoe: mac: a network interface has an address of its own"),
        ((*FCOE, "--interface", "unix:a,b", "--mac", "x"), "--fabric fcoe: mac: 'x' is not a MAC address"),
        (
            (*FCOE, "--interface", "unix:a,b", "--mac", "01:00:00:00:00:01"),
            "--fabric fcoe: mac: 01:00:00:00:00:01 is no address of one interface",
        ),
        ((*ETH, "--wwpn", "x"), "--wwpn: 'x' is not a name; write eight pairs of hex digits, such as 20:00:"),
        ((*ETH, "--wwpn", "0" * 16), "--wwpn: '0000000000000000' names nobody"),
        (
            (*ETH, "--wwpn", "naa.20005254002ffc00", "--target", "20:00:52:54:00:2f:fc:00"),
            "--wwpn: target 20:00:52:54:00:2f:fc:00 is already at --wwpn; write another one",
        ),
        ((*ETH, "--portal", "127.0.0.1:0"), "--portal: fabric fcoe has no portals; leave it out"),
        (
            ("--fabric", "fcoe:interface=eth1", "--lun", "null:size=1G", "--interface", "eth2"),
            "--interface: stands in --fabric too; write it once",
        ),
        (("--fabric", "loopback", "--lun", "null:size=1G", "--interface", "eth1"), "No such option '--interface'"),
        (("--fabric", "iscsi", "--lun", "null:size=1G", "--poll", "soon"), "--fabric iscsi: poll: 'soon' is not an integer"),
        (("--fabric", "fcoex", "--interface", "eth1"), "No such option"),
    ],
)
def test_bad_usage(tcm_run, arguments, what):
    assert what in tcm_run(*arguments).error


def test_help_shows_the_options_of_the_fabric(tcm_run):
    plain, wider = tcm_run("--help").out, tcm_run("--fabric", "fcoe", "--help").out
    assert "--wwpn" not in plain
    assert "--interface" not in plain.replace("--interface eth1", "")
    assert "--target, --wwpn NAME" in wider
    words = " ".join(wider.split())
    assert "--mode vn2vn|fabric|fcf|p2p Of fabric fcoe: Vn2vn: other ports" in words
    assert "--retry YES|NO" in wider or "--retry yes|no" in wider


def test_one_value_for_all_fabrics_that_have_it(tcm_run):
    error = tcm_run("--fabric", "iscsi", "--fabric", "fcoe:interface=eth1", "--poll", "x").error
    assert error.startswith("--fabric iscsi: poll: 'x' is not an integer")


def test_it_says_how_to_attach(tmp_path):
    """One URL on standard output, what to run on the initiator below it, and in the log the port as it comes up."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    options = ("--interface", f"unix:{ours},{theirs}", "--wwpn", "naa.20005254002ffc00", "--lun", "ramdisk:size=1M")
    with running(tmp_path, *options, urls=0, portals=(), target=None, fabric="fcoe") as daemon:
        deadline = time.monotonic() + 20
        while len(daemon.output) < 2:
            assert time.monotonic() < deadline, daemon.log()
            time.sleep(0.05)
        url, hint = daemon.output
        assert url == f"fcoe://unix:{ours},{theirs}/20:00:52:54:00:2f:fc:00/0"
        command = hint.removeprefix("    tcm's own:   ").split()
        assert command[:4] == ["python", "-m", "tcm_fcoe.initiator", "inquire"]
        done = subprocess.run(
            [sys.executable, *command[1:]], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "20:00:52:54:00:2f:fc:00, node 10:00:52:54:00:2f:fc:00" in done.stdout
        log = daemon.log()
        assert "20:00:52:54:00:2f:fc:00 (WWNN 10:00:52:54:00:2f:fc:00) is up: mode vn2vn, MAC 02:fc:" in log
        assert ", FC_ID 00.fc.00" in log
        assert "logged in to 20:00:52:54:00:2f:fc:00 (FC_ID " in log
