"""Secrets are nowhere but where they were put: not in the output, not in the log at its chattiest, not on a command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.programs import program
from support.tcm_process import TcmProcess

TARGET = "iqn.2003-01.org.example:secret"
SECRET = "correct-horse-battery"
MUTUAL = "staple-of-the-mutual"
SERVE = ("--fabric", "iscsi", "--portal", "127.0.0.1:0", "--lun", "ramdisk:size=1M", "--target", TARGET, "--log-level", "debug")


def inquiry(url: str, user: str, secret: str, folder: Path) -> int:
    """libiscsi's inquiry with CHAP; the URL's secret is this test's own business."""
    login = url.replace("iscsi://", f"iscsi://{user}%{secret}@")
    done = subprocess.run([program("iscsi-inq"), login], capture_output=True, text=True, cwd=folder, timeout=20, check=False)
    return done.returncode


def assert_silent(tcm: TcmProcess) -> None:
    for secret in (SECRET, MUTUAL):
        assert secret not in tcm.out
        assert secret not in tcm.err
    assert SECRET.encode() not in Path(f"/proc/{tcm.process.pid}/cmdline").read_bytes()


@pytest.mark.interop
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_good_and_bad_logins_leave_no_secret_behind(tmp_path, log_format):
    (tmp_path / "mutual").write_text(f"{MUTUAL}\n")
    arguments = (
        "--chap",
        "alice",
        "--chap-mutual",
        "target",
        "--chap-mutual-secret-file",
        "mutual",
        "--log-format",
        log_format,
    )
    with TcmProcess(tmp_path, *SERVE, *arguments, TCM_CHAP_SECRET=SECRET) as tcm:
        url = tcm.serving().out.splitlines()[0]
        assert inquiry(url, "alice", SECRET, tmp_path) == 0
        assert inquiry(url, "alice", "a wrong secret", tmp_path) != 0
        assert inquiry(url, "mallory", SECRET, tmp_path) != 0
        assert_silent(tcm)
        assert tcm.stop() == 0
        assert "Traceback" not in tcm.err
        assert "a wrong secret" not in tcm.err


def test_a_configuration_that_fails_leaves_no_secret_behind(tmp_path):
    """Even the debug traceback of a bad file shows none."""
    config = {
        "storage_objects": [],
        "targets": [
            {
                "wwn": TARGET,
                "fabric": "iscsi",
                "tpgs": [
                    {
                        "chap_userid": "alice",
                        "chap_password": SECRET,
                        "chap_mutual_userid": "target",
                        "chap_mutual_password": SECRET,
                    }
                ],
            }
        ],
    }
    (tmp_path / "c.json").write_text(json.dumps(config))
    with TcmProcess(tmp_path, "--config", "c.json", "--log-level", "debug") as tcm:
        assert tcm.exit_code() == 2
        assert "Traceback" in tcm.err
        assert "both directions have the same CHAP secret" in tcm.err
        assert SECRET not in tcm.err


def test_a_secret_file_that_everybody_reads_is_said(tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "secret").chmod(0o644)
    with TcmProcess(tmp_path, *SERVE, "--chap", "alice", "--chap-secret-file", "secret") as tcm:
        assert "secret: everybody on this machine can read it; chmod 600" in tcm.serving().err
    (tmp_path / "secret").chmod(0o600)
    with TcmProcess(tmp_path, *SERVE, "--chap", "alice", "--chap-secret-file", "secret") as tcm:
        assert "everybody" not in tcm.serving().err
