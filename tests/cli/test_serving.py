"""The real process: what it prints, how it ends, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.distributions import make_distribution
from support.misbehaving import SOURCE
from support.tcm_process import TcmProcess

DISK = ("--lun", "fileio:path=disk.img,size=1M", "--filter", "0=log")
RAM = ("--lun", "ramdisk:size=1M", "--filter", "0=log")
IQN = re.compile(r"iscsi://127\.0\.0\.1:(\d+)/(iqn\.2003-01\.org\.linux-iscsi\.[a-z0-9.-]+\.[a-z0-9]+:sn\.[0-9a-f]{12})/0")


@pytest.fixture
def plugins(tmp_path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    make_distribution(folder, "misbehaving-things", SOURCE)
    return folder


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_loopback_stays_up_until_a_signal(tmp_path, loop, number):
    with TcmProcess(tmp_path, "--fabric", "loopback", *DISK, "--event-loop", loop) as tcm:
        tcm.serving()
        url, hint = tcm.out.splitlines()
        assert re.fullmatch(r"loopback://naa\.5001405[0-9a-f]{9}/1/0", url)
        assert hint.startswith("    no network")
        tcm.signal(number)
        assert tcm.exit_code() == 0
        operations = re.findall(r"tcm\.filter\.log: (open|flush|close)", tcm.err)
        assert operations == ["open", "flush", "close"]
        assert "Traceback" not in tcm.err


@pytest.fixture
def hang_up():
    """Children get SIGHUP's default, also where these tests run under nohup; the fixture's value changes what they get."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield lambda action: signal.signal(signal.SIGHUP, action)
    signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_goes_away_ends_it_in_good_order(tmp_path, hang_up):
    with TcmProcess(tmp_path, "--fabric", "loopback", *DISK) as tcm:
        tcm.serving().signal(signal.SIGHUP)
        assert tcm.exit_code() == 0
        assert re.findall(r"tcm\.filter\.log: (open|flush|close)", tcm.err) == ["open", "flush", "close"]


def test_with_nohup_it_stays(tmp_path, hang_up):
    hang_up(signal.SIG_IGN)
    with TcmProcess(tmp_path, "--fabric", "loopback", *RAM) as tcm:
        tcm.serving().signal(signal.SIGHUP)
        time.sleep(0.3)
        assert tcm.stop() == 0
        assert "SIGHUP" not in tcm.err


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_place_for_sockets(tmp_path, closed):
    image = tmp_path / "disk.img"
    arguments = f"--fabric iscsi --portal 127.0.0.1:0 --lun fileio:path={image},size=1M --state-dir {tmp_path}/state"
    script = f"exec {sys.executable} -c 'from tcm.cli.run import main; main()' {arguments} {closed}"
    with subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 20
        listening: list[str] = []
        while not listening:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
            descriptors = [os.readlink(each) for each in Path(f"/proc/{process.pid}/fd").iterdir() if each.exists()]
            listening = [each for each in descriptors if image.exists() and each.startswith("socket:")]
        for number in range(3):
            assert not os.readlink(f"/proc/{process.pid}/fd/{number}").startswith(("socket:", "anon_inode:", str(image)))
        process.terminate()
        assert process.wait(60) == 0


def test_a_path_in_bytes_that_are_no_text(tmp_path):
    path = os.fsdecode(bytes(tmp_path) + b"/\xff.img")
    with TcmProcess(tmp_path, "--fabric", "loopback", "--lun", f"fileio:path={path},size=1M", "--log-format", "json") as tcm:
        tcm.serving()
        assert os.path.getsize(path) == 1 << 20
        assert tcm.stop() == 0
        assert all(json.loads(line) for line in tcm.err.splitlines())


def test_with_chap_it_says_where_initiators_take_the_secret_from(tmp_path):
    environment = {"TCM_CHAP_SECRET": "a secret that is long enough", "TCM_CHAP_MUTUAL_SECRET": "another one, also long"}
    arguments = ("--fabric", "iscsi", "--portal", "127.0.0.1:0", *RAM, "--chap", "al ice", "--chap-mutual", "bob")
    with TcmProcess(tmp_path, *arguments, **environment) as tcm:
        hint = next(line for line in tcm.serving().out.splitlines() if "CHAP first" in line)
        assert "LIBISCSI_CHAP_USERNAME='al ice' LIBISCSI_CHAP_PASSWORD=\"$(head -n 1 SECRET-FILE)\"" in hint
        assert "LIBISCSI_CHAP_TARGET_USERNAME=bob LIBISCSI_CHAP_TARGET_PASSWORD=" in hint
        assert tcm.stop() == 0
        assert "long" not in tcm.out + tcm.err


def test_the_default_target_is_the_same_after_a_restart(tmp_path):
    found = []
    for _ in range(2):
        with TcmProcess(tmp_path, "--fabric", "iscsi", "--portal", "127.0.0.1:0") as tcm:
            tcm.serving()
            url = tcm.out.splitlines()[0]
            match = IQN.fullmatch(url)
            assert match, url
            serial = re.search(r"serial ([0-9a-f-]{36})", tcm.err)
            assert serial
            assert f" lun0: fileio {tmp_path}/state/tcm/lun0.img, 1G, blocks of 512, " in tcm.err
            found.append((match[2], serial[1]))
            assert all(line.startswith("    ") for line in tcm.out.splitlines()[1:])
            assert f"iscsi-inq {url}" in tcm.out
            socket.create_connection(("127.0.0.1", int(match[1])), 5).close()
            assert tcm.stop() == 0
    assert found[0] == found[1]
    image = tmp_path / "state" / "tcm" / "lun0.img"
    assert image.stat().st_size == 1 << 30
    assert image.stat().st_blocks * 512 < 1 << 20
    assert image.stat().st_mode & 0o077 == 0


def test_ipv6_and_several_portals_and_luns(tmp_path):
    arguments = ("--portal", "127.0.0.1:0", "--portal", "[::1]:0", "--lun", "3=null:size=1G", "--lun", "ramdisk:size=1M")
    with TcmProcess(tmp_path, "--fabric", "iscsi", "--target", "iqn.2003-01.org.example:x", *arguments) as tcm:
        tcm.serving()
        urls = [line for line in tcm.out.splitlines() if line.startswith("iscsi://")]
        assert len(set(urls)) == len(urls) == 4
        assert {url.rpartition("/")[2] for url in urls} == {"0", "3"}
        six = next(re.match(r"iscsi://\[::1\]:(\d+)/iqn\.2003-01\.org\.example:x/0", url) for url in urls if "[" in url)
        assert six
        socket.create_connection(("::1", int(six[1])), 5).close()
        assert "WARNING" not in tcm.err
        assert tcm.stop() == 0


def test_a_portal_that_everybody_reaches_is_a_loud_warning(tmp_path):
    with TcmProcess(tmp_path, "--fabric", "iscsi", "--portal", "0.0.0.0:0", *RAM) as tcm:
        assert "WARNING: portal 0.0.0.0:0 of iqn." in tcm.serving().err
    environment = {"TCM_CHAP_SECRET": "a secret that is long enough"}
    with TcmProcess(tmp_path, "--fabric", "iscsi", "--portal", "0.0.0.0:0", *RAM, "--chap", "alice", **environment) as tcm:
        assert "WARNING" not in tcm.serving().err


def test_a_short_secret_is_a_warning(tmp_path):
    with TcmProcess(
        tmp_path, "--fabric", "iscsi", "--portal", "127.0.0.1:0", *RAM, "--chap", "alice", TCM_CHAP_SECRET="short"
    ) as tcm:
        assert "--chap: the CHAP secret of 'alice' is shorter than 12 bytes" in tcm.serving().err


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        portal = f"127.0.0.1:{taken.getsockname()[1]}"
        with TcmProcess(tmp_path, "--fabric", "iscsi", "--portal", portal, "--lun", "null:size=1G") as tcm:
            assert tcm.exit_code() == 2
            assert tcm.err.count("\n") == 1
            assert tcm.err.startswith("tcm-run: error: ")
            assert portal in tcm.err
            assert "taken" in tcm.err


def test_a_medium_that_another_tcm_run_holds_is_refused(tmp_path):
    with TcmProcess(tmp_path, "--fabric", "loopback") as first:
        first.serving()
        (tmp_path / "second").mkdir()
        state = str(tmp_path / "state")
        with TcmProcess(tmp_path / "second", "--fabric", "loopback", XDG_STATE_HOME=state) as second:
            assert second.exit_code() in {1, 2}
            assert second.err.count("\n") == 1
            assert re.search(r"/backstores/fileio/lun0.* process \d+ ", second.err)
        lun = f"fileio:path={state}/tcm/lun0.img"
        with TcmProcess(tmp_path / "second", "--fabric", "loopback", "--lun", lun) as second:
            assert second.exit_code() == 2
            assert second.err.count("\n") == 1
            assert "lun0.img is in use by process " in second.err
        assert first.stop() == 0


def test_json_logs_are_one_object_a_line(tmp_path):
    with TcmProcess(tmp_path, "--fabric", "loopback", *RAM, "--log-format", "json", "--log-level", "debug") as tcm:
        tcm.serving()
        assert tcm.stop() == 0
        entries = [json.loads(line) for line in tcm.err.splitlines()]
    assert {"time", "level", "logger", "message"} <= set(entries[0])
    assert any(entry["logger"] == "tcm.runtime" and entry["level"] == "info" for entry in entries)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"]) for entry in entries)


def test_whoever_reads_the_urls_may_leave(tmp_path):
    """``tcm-run ... | head -1`` goes on serving, and ends cleanly."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", "from tcm.cli.run import main; main()", "--fabric", "loopback", *RAM],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        )
    finally:
        os.close(writer)
    assert process.stderr is not None
    with process.stderr:
        assert "tcm.filter.log: open" in process.stderr.readline()
        assert "lun0" in process.stderr.readline()
        time.sleep(0.2)
        process.terminate()
        rest = process.stderr.read()
        assert process.wait(60) == 0, rest
    assert "Traceback" not in rest
    assert "Exception ignored" not in rest


def test_drain_is_bounded_and_everything_is_flushed(tmp_path, plugins):
    arguments = ("--fabric", "misbehaving:fails=drain", *DISK, "--drain-timeout", "0.3")
    with TcmProcess(tmp_path, *arguments, path=plugins) as tcm:
        tcm.serving()
        assert tcm.stop() == 0
        assert "initiators are still logged in after 0.3 s" in tcm.err
        assert tcm.err.index("tcm.filter.log: flush") < tcm.err.index("tcm.filter.log: close")


def test_a_second_signal_ends_it_at_once(tmp_path, plugins):
    with TcmProcess(tmp_path, "--fabric", "misbehaving:fails=drain", *RAM, "--drain-timeout", "600", path=plugins) as tcm:
        tcm.serving()
        tcm.signal(signal.SIGTERM)
        tcm.wait_for("asking initiators to log out", in_log=True)
        time.sleep(0.3)
        tcm.signal(signal.SIGINT)
        assert tcm.exit_code() == 1
        assert "SIGINT again: ending at once" in tcm.err


def test_two_signals_at_the_same_moment_are_one(tmp_path, plugins):
    """timeout(1) signals its child and then the child's group."""
    with TcmProcess(tmp_path, "--fabric", "misbehaving:fails=drain", *RAM, "--drain-timeout", "0.3", path=plugins) as tcm:
        tcm.serving().signal(signal.SIGSTOP)
        tcm.signal(signal.SIGTERM)
        tcm.signal(signal.SIGINT)
        tcm.signal(signal.SIGCONT)  # for it they come at one moment, however busy the machine is
        assert tcm.exit_code() == 0


@pytest.mark.parametrize(
    ("fabric", "line"),
    [
        ("misbehaving:fails=start", "tcm-run: error: Cannot do that"),
        ("misbehaving:fails=later", "tcm-run: error: ValueError: it broke; run with --log-level debug for the traceback"),
        ("misbehaving:fails=ends", "tcm-run: error: fabric misbehaving ended by itself"),
    ],
)
def test_a_fabric_that_fails_ends_the_process_in_order(tmp_path, plugins, fabric, line):
    with TcmProcess(tmp_path, "--fabric", fabric, "--fabric", "loopback", *DISK, path=plugins) as tcm:
        assert tcm.exit_code() == 1
        assert tcm.err.splitlines()[-1] == line
        assert re.findall(r"tcm\.filter\.log: (open|flush|close)", tcm.err) == ["open", "flush", "close"]
        assert "Traceback" not in tcm.err


def test_a_fabric_that_cannot_drain_stops_nothing(tmp_path, plugins):
    with TcmProcess(tmp_path, "--fabric", "misbehaving:fails=draining", *RAM, path=plugins) as tcm:
        tcm.serving()
        assert tcm.stop() == 0
        assert "fabric misbehaving failed while draining" in tcm.err


def test_when_one_medium_cannot_be_opened_the_others_are_closed(tmp_path, plugins):
    with TcmProcess(tmp_path, "--fabric", "loopback", *RAM, "--lun", "badly:fails=open", path=plugins) as tcm:
        assert tcm.exit_code() == 1
        last = "tcm-run: error: cannot open /backstores/badly/lun1 (badly): Input/output error: /dev/broken"
        assert tcm.err.splitlines()[-1] == last
        assert "tcm.filter.log: close" in tcm.err
        assert tcm.out == ""


@pytest.mark.parametrize(
    ("when", "line"),
    [
        ("made", "cannot make /backstores/badly/lun0 (badly): KeyError: 'made'; run with --log-level debug for the traceback"),
        (
            "defect",
            "cannot open /backstores/badly/lun0 (badly): ZeroDivisionError: zero; run with --log-level debug for the traceback",
        ),
    ],
)
def test_a_defect_of_a_backstore_is_named(tmp_path, plugins, when, line):
    with TcmProcess(tmp_path, "--fabric", "loopback", "--lun", f"badly:fails={when}", path=plugins) as tcm:
        assert tcm.exit_code() == 1
        assert tcm.err.splitlines()[-1] == f"tcm-run: error: {line}"


@pytest.mark.parametrize("when", ["flush", "close"])
def test_a_medium_that_cannot_be_flushed_is_no_clean_end(tmp_path, plugins, when):
    with TcmProcess(tmp_path, "--fabric", "loopback", *RAM, "--lun", f"badly:fails={when}", path=plugins) as tcm:
        tcm.serving()
        assert tcm.stop() == 1
        assert "tcm-run: error: what was written last to /backstores/badly/lun1 may be lost" in tcm.err
        assert "tcm.filter.log: close" in tcm.err


def test_read_only_and_config(tmp_path):
    config = {
        "storage_objects": [
            {"name": "a", "plugin": "ramdisk", "size": 1 << 20, "tcm_filters": [{"type": "log"}], "removable": True},
        ],
        "targets": [
            {
                "wwn": "naa.5001405000000001",
                "fabric": "loopback",
                "tpgs": [{"tag": 1, "luns": [{"index": 5, "storage_object": "/backstores/ramdisk/a"}]}],
            }
        ],
    }
    file = tmp_path / "saveconfig.json"
    file.write_text(json.dumps(config))
    with TcmProcess(tmp_path, "--config", str(file), "--read-only") as tcm:
        tcm.serving()
        assert tcm.out.splitlines()[0] == "loopback://naa.5001405000000001/1/5"
        assert tcm.stop() == 0
        assert re.findall(r"tcm\.filter\.log: (open|flush|close)", tcm.err) == ["open", "close"]


def test_the_limit_of_open_files_is_the_hard_one(tmp_path):
    """A thousand sessions are more than the usual soft limit of 1024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        with TcmProcess(tmp_path, "--fabric", "loopback", *DISK) as tcm:
            tcm.serving()
            assert resource.prlimit(tcm.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
            assert tcm.stop() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
