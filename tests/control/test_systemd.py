"""systemd's side, played by the test: readiness, a socket that is passed; and the units, by systemd-analyze where it is."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tcm.control.client import Client

UNITS = Path(__file__).parents[2] / "docs" / "systemd"
RUN = "from tcm.cli.run import main; main()"
SERVED = ("--fabric", "loopback", "--lun", "ramdisk:size=1M")


@pytest.fixture
def notified(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(20)
        yield made


def start(folder, *arguments, before="", **kwargs):
    environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "XDG_STATE_HOME": str(folder / "state")}
    code = f"import os, sys\n{before}\nos.execv(sys.executable, [sys.executable, '-W', 'error', '-c', {RUN!r}, *sys.argv[1:]])"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.DEVNULL, **kwargs)


def test_readiness_is_told_when_it_serves_and_the_end_when_it_begins(tmp_path, notified):
    with start(tmp_path, *SERVED) as process:
        assert notified.recv(100) == b"READY=1"
        with Client(str(tmp_path / "state" / "tcm" / "control.sock")) as client:
            assert client.call("version")["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert notified.recv(100) == b"STOPPING=1"
        assert process.wait(60) == 0


def test_the_control_socket_may_be_systemds(tmp_path, notified):
    path = tmp_path / "activated.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        # somebody comes before the process is there
        early = Client(str(path), 30)
        number = listening.fileno()
        before = (
            f"os.dup2({number}, 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='control')"
        )
        with start(tmp_path, *SERVED, before=before, pass_fds=(number,)) as process:
            assert notified.recv(100) == b"READY=1"
            assert early.call("version")["pid"] == process.pid
            early.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    assert stat.S_ISSOCK(path.stat().st_mode), "it is not ours to remove"
    assert not (tmp_path / "state" / "tcm" / "control.sock").exists()


def test_variables_for_another_process_are_left_alone(tmp_path, notified):
    before = "os.environ.update(LISTEN_PID='1', LISTEN_FDS='1')"
    with start(tmp_path, *SERVED, before=before) as process:
        assert notified.recv(100) == b"READY=1"
        assert (tmp_path / "state" / "tcm" / "control.sock").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="not installed: systemd")
def test_the_units_are_understood(tmp_path):
    for name in ("tcm.service", "tcm.socket"):
        text = (
            (UNITS / name)
            .read_text()
            .replace("/usr/local/bin/tcm-run", "/bin/true")
            .replace("/usr/local/bin/tcm-ctl", "/bin/true")
        )
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "tcm.service"), str(tmp_path / "tcm.socket")],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "tcm." in line]
    assert ours == []
