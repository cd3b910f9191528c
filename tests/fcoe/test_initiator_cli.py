"""``python -m tcm_fcoe.initiator`` against a tcm-run of its own, over Unix sockets: every command; errors are one line."""

from __future__ import annotations

import random
import re

import pytest
from support.fcoe_daemon import FcoeDaemon, fcoe_running
from support.tshark import complaints
from tcm_fcoe.decode import run_command as decode
from tcm_fcoe.initiator.cli import run_command

BLOCK = 512
LUNS = ("--lun", "ramdisk:size=8M", "--lun", "ramdisk:size=1M,block_size=4096")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    with fcoe_running(tmp_path_factory.mktemp("target"), *LUNS, urls=2) as running:
        yield running


def target(daemon: FcoeDaemon, lun: int = 0) -> str:
    return f"{daemon.address}/{daemon.url.target}/{lun}"


def test_list(daemon):
    line = daemon.initiator("list").decode()
    assert re.fullmatch(rf"{daemon.url.target}\t00\.[0-9a-f.]{{5}}\tLUNs 0,1\n", line)


def test_inquire(daemon):
    shown = daemon.initiator("inquire", address=target(daemon, 1)).decode()
    for name, value in (
        ("vendor", "LIO-ORG"),
        ("block size", "4096"),
        ("bytes", str(1 << 20)),
        ("LUNs of the target", "0, 1"),
        ("target", daemon.url.target),
        ("agreed", "confirmed completion, sequence level recovery"),
        ("frames", "2112 bytes out, 2112 in"),
    ):
        assert re.search(rf"^{name} +{re.escape(value)}", shown, re.MULTILINE), shown


def test_agreements_can_be_declined(daemon):
    assert "nothing beyond" in daemon.initiator("inquire", "--no-recovery").decode()


def test_what_is_written_is_read(daemon, tmp_path):
    data = random.Random(1).randbytes(3 * BLOCK * 1000 + 100)
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(data)
    daemon.initiator("write", "--lba", "5", "--input", str(source), address=target(daemon))
    daemon.initiator("read", "--lba", "5", "--blocks", "3001", "--output", str(copy), address=target(daemon))
    assert copy.read_bytes() == data + bytes(3001 * BLOCK - len(data))
    assert daemon.initiator("read", "--lba", "6", "--blocks", "1") == data[BLOCK : 2 * BLOCK]


def test_bench_and_its_capture(daemon, tmp_path):
    """Wireshark has no complaint about a session of ours, and the decoder understands all of it."""
    path = tmp_path / "frames.pcap"
    out = daemon.initiator(
        "bench", "--seconds", "0.5", "--workload", "mixed", "--overwrite", "--block-size", "16K", "--depth", "4",
        "--pcap", str(path),
    ).decode()  # fmt: skip
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    assert int(rows["requests"]) > 10
    assert rows["recoveries"] == "0 REC, 0 SRR, 0 ABTS, 0 retries"
    assert complaints(path) == []


def test_a_capture_as_a_ladder(daemon, tmp_path, capsys):
    path = tmp_path / "frames.pcap"
    daemon.initiator("read", "--blocks", "8", "--output", str(tmp_path / "data"), "--pcap", str(path))
    assert decode(["--fold", str(path)]) == 0
    ladder = capsys.readouterr().out
    assert "BROKEN" not in ladder
    for text in (
        "FIP VN2VN Beacon", "FIP FLOGI", "PLOGI", "LS_ACC (PRLI)", "READ CAPACITY (16)", "UNIT ATTENTION 29h",
        "READ (16), LBA 0, 8 blocks, 4096 bytes in", "offset 0, 4096 bytes in 2 frames", "FCP_RSP READ (16), GOOD", "LOGO",
    ):  # fmt: skip
        assert text in ladder, ladder


def test_a_capture_of_the_target(tmp_path, capsys):
    """``--fabric fcoe:pcap=FILE``: the same frames, seen from the other end."""
    paths = tmp_path / "target.pcap", tmp_path / "initiator.pcap"
    with fcoe_running(tmp_path / "state", "--lun", "ramdisk:size=1M", fabric=f"fcoe:pcap={paths[0]}") as daemon:
        daemon.initiator("read", "--blocks", "300", "--output", str(tmp_path / "data"), "--pcap", str(paths[1]))
    ladders = []
    for path in paths:
        assert complaints(path) == []
        assert decode([str(path)]) == 0
        ladders.append([line.split(maxsplit=2)[2] for line in capsys.readouterr().out.splitlines() if "FCP_DATA" in line])
    assert ladders[0] == ladders[1]
    assert len(ladders[0]) > 70


def test_a_capture_that_cannot_be_made(tmp_path):
    daemon = FcoeDaemon(tmp_path, "--lun", "ramdisk:size=1M", fabric=f"fcoe:pcap={tmp_path}/no/such")
    with pytest.raises(AssertionError, match="ended with 2"):
        daemon.start()
    assert "pcap" in daemon.log()


def test_misbehaving_is_recovered_from(daemon, tmp_path):
    data = random.Random(2).randbytes(BLOCK * 2048)
    source = tmp_path / "source"
    source.write_bytes(data)
    faults = ("--drop", "0.01", "--duplicate", "0.01", "--reorder", "0.01", "--corrupt", "0.01", "--rec-timeout", "0.2")
    daemon.initiator("write", "--input", str(source), *faults)
    assert daemon.initiator("read", "--blocks", "2048", *faults, "--fault-seed", "3") == data


@pytest.mark.parametrize(("modes"), [("p2p", "p2p"), ("fcf", "fabric")], ids="-".join)
def test_other_modes(tmp_path, modes):
    with fcoe_running(tmp_path / "state", "--lun", "ramdisk:size=1M", mode=modes[0]) as daemon:
        shown = daemon.initiator("inquire", "--mode", modes[1]).decode()
        assert "LIO-ORG" in shown
        assert f"mode {modes[1]}" in shown


def test_a_vlan(tmp_path):
    with fcoe_running(tmp_path / "state", "--lun", "ramdisk:size=1M", "--vlan", "100") as daemon:
        assert "LIO-ORG" in daemon.initiator("inquire", "--vlan", "100").decode()
        done = daemon.initiator("inquire", "--vlan", "101", "--login-timeout", "2", check=False)
        assert done.returncode == 1
        assert b"frames of another VLAN than ours (--vlan 101) have come" in done.stderr


def error(capsys, *arguments: str, code: int) -> str:
    assert run_command(list(arguments)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("python -m tcm_fcoe.initiator: error: ")
    return lines[0]


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["list"], "Missing argument"),
        (["list", "iscsi://127.0.0.1"], "write fcoe://INTERFACE[/WWPN[/LUN]]"),
        (["list", "fcoe://eth1/20:00"], "what follows the interface is a WWPN and a LUN"),
        (["inquire", "fcoe://eth1/00:00:00:00:00:00:00:00/0"], "names nobody"),
        (["inquire", "fcoe://eth1/20:00:52:54:00:2f:fc:00/99999"], "a LUN is a number from 0 to 16383"),
        (["list", "fcoe://nosuchif0"], "there is no such interface"),
        (["list", "fcoe://eth1", "--mode", "loop"], "--mode"),
        (["list", "fcoe://eth1", "--vlan", "4095"], "--vlan"),
        (["list", "fcoe://eth1", "--wwpn", "20:00"], "--wwpn: '20:00' is not a name"),
        (["list", "fcoe://eth1", "--first-burst", "lots"], "--first-burst lots: write a number of bytes"),
        (["list", "fcoe://unix:only-one"], "paths of two sockets"),
        (["bench", "fcoe://eth1", "--workload", "write"], "--overwrite"),
        (["bench", "fcoe://eth1", "--block-size", "0"], "--block-size 0"),
        (["bench", "fcoe://eth1", "--drop", "2"], "--drop"),
        (["flood", "fcoe://eth1"], "No such command"),
    ],
)
def test_bad_usage_is_one_line(capsys, arguments, text):
    assert text in error(capsys, *arguments, code=2)


def test_nobody_there(capsys, tmp_path):
    from support.fcoe_daemon import FcoeDaemon

    daemon = FcoeDaemon(tmp_path)
    try:
        text = error(capsys, "list", daemon.address, "--login-timeout", "0.5", code=1)
        assert "is down: nobody is at the other end" in text
    finally:
        daemon.kill()


def test_another_target_is_asked_for(capsys, daemon):
    text = error(capsys, "inquire", f"{daemon.address}/20:00:00:00:00:00:00:99/0", "--login-timeout", "4", code=1)
    assert "no target 20:00:00:00:00:00:00:99" in text
    assert f"there are: {daemon.url.target}" in text


def test_run_time_failures_are_one_line(capsys, daemon, tmp_path):
    assert "ask for less" in error(capsys, "read", daemon.address, "--lba", "99999999", code=2)
    source = tmp_path / "source"
    source.write_bytes(bytes(9 << 20))
    assert "does not fit" in error(capsys, "write", daemon.address, "--input", str(source), code=1)
    assert "logical unit has 16384 blocks" in error(capsys, "bench", daemon.address, "--block-size", "100", code=2)
    assert "No such file" in error(capsys, "list", daemon.address, "--pcap", str(tmp_path / "no" / "such"), code=1)
    text = error(capsys, "read", f"{daemon.address}/{daemon.url.target}/7", "--blocks", "1", code=1)
    assert "ASC 25h/00h" in text
