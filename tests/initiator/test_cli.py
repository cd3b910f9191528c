"""``python -m tcm_iscsi.initiator`` as a process, against a tcm-run of its own."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, running

PROGRAM = (sys.executable, "-W", "error", "-m", "tcm_iscsi.initiator")
CHAP = {"TCM_CHAP_SECRET": "initiatorsecret", "TCM_CHAP_MUTUAL_SECRET": "targetsecret12"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(
        tmp_path_factory.mktemp("cli"),
        "--lun=ramdisk:size=16M",
        "--param=MaxConnections=8",
        "--param=ErrorRecoveryLevel=2",
        "--chap=alice",
        "--chap-mutual=bob",
        "--chap-discovery",
        env=CHAP,
    ) as found:
        yield found


def run(
    *arguments: object, stdin: bytes = b"", environment: dict[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    found = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, **(CHAP if environment is None else environment)},
    )
    assert found.returncode == code, (found.returncode, found.stdout[-500:], found.stderr[-2000:])
    return found


def complaint(*arguments: object, code: int, environment: dict[str, str] | None = None) -> str:
    """What is said on standard error: one line."""
    found = run(*arguments, code=code, environment=environment)
    text = found.stderr.decode()
    assert text.count("\n") == 1, text
    assert text.startswith("python -m tcm_iscsi.initiator: error: ")
    assert "Traceback" not in text
    return text


USER = ("--chap", "alice")


def test_list(daemon: Daemon) -> None:
    text = run("list", f"iscsi://{daemon.url.portal}", *USER).stdout.decode()
    assert text == f"{daemon.url.target}\t{daemon.url.portal},1\n"


def test_inquire(daemon: Daemon) -> None:
    text = run("inquire", daemon.url.text, *USER, "--error-recovery-level", 2, "--data-digest", "crc32c").stdout.decode()
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines())
    assert rows["vendor"] == "LIO-ORG"
    assert (rows["logical blocks"], rows["block size"], rows["bytes"]) == ("32768", "512", str(16 << 20))
    assert (rows["error recovery level"], rows["digests"], rows["most connections"]) == ("2", "data", "8")
    assert rows["LUNs of the target"] == "0"


def test_write_and_read_back(daemon: Daemon, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(5_000_000)
    source, copy = tmp_path / "in", tmp_path / "out"
    source.write_bytes(data)
    run("write", daemon.url.text, *USER, "--lba", 7, "--input", source)
    run("read", daemon.url.text, *USER, "--lba", 7, "--blocks", 9766, "--output", copy)
    assert copy.read_bytes() == data.ljust(9766 * 512, b"\0")
    piped = run("read", daemon.url.text, *USER, "--lba", 7, "--blocks", 3, "--mutual", code=2)
    assert b"--mutual" in piped.stderr
    assert run("read", daemon.url.text, *USER, "--lba", 7, "--blocks", 3).stdout == data[:1536]
    run("write", daemon.url.text, *USER, stdin=b"through a pipe")
    assert run("read", daemon.url.text, *USER, "--blocks", 1).stdout == b"through a pipe".ljust(512, b"\0")


@pytest.mark.parametrize(
    "more", [(), ("--workload", "write", "--overwrite"), ("--workload", "mixed", "--overwrite", "--sequential")]
)
def test_bench(daemon: Daemon, more: tuple[str, ...]) -> None:
    text = run(
        "bench", daemon.url.text, *USER, "--seconds", 0.5, "--connections", 2, "--depth", 8, "--block-size", "8K", *more
    ).stdout.decode()
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines())
    requests, rate = int(rows["requests"]), int(rows["requests/s"])
    assert requests > 10
    assert rows["connections"] == "2"
    assert rows["recoveries"] == "0 wrong digests, 0 SNACK, 0 reconnections"
    assert abs(float(rows["MB/s"]) - rate * 8192 / 1e6) < 0.1 + rate * 8192 / 1e6 * 0.01
    latencies = [int(rows[f"latency, {p}%"].split()[0]) for p in ("50", "90", "99", "99.9")]
    assert latencies == sorted(latencies)


def test_secrets_come_from_files_too(daemon: Daemon, tmp_path: Path) -> None:
    secret, mutual = tmp_path / "secret", tmp_path / "mutual"
    secret.write_text("initiatorsecret\nnot this\n")
    mutual.write_text("targetsecret12\n")
    secret.chmod(0o600)
    mutual.chmod(0o604)
    files = ("--chap-secret-file", secret, "--chap-mutual", "bob", "--chap-mutual-secret-file", mutual)
    found = run("list", f"iscsi://{daemon.url.portal}", *USER, *files, environment={}).stderr.decode()
    assert found.count("\n") == 1
    assert f"chmod 600 {mutual}" in found
    mutual.chmod(0o600)
    url = daemon.url.text.replace("iscsi://", "iscsi://alice@")
    run("inquire", url, "--chap-secret-file", secret, environment={})
    mutual.write_text("another secret\n")
    assert "mutual name or secret" in complaint("list", f"iscsi://{daemon.url.portal}", *USER, *files, environment={}, code=1)


NOBODY = "iscsi://127.0.0.1:1/iqn.2003-01.org.example:t/0"
BAD_USAGE = [
    ((), "Usage"),
    (("frobnicate", NOBODY), "No such command"),
    (("read",), "URL"),
    (("read", "http://x"), "no iSCSI URL"),
    (("inquire", "iscsi://127.0.0.1"), "name the target"),
    (("read", NOBODY, "--lba", "-1"), "--lba"),
    (("bench", NOBODY, "--block-size", "huge"), "--block-size huge"),
    (("bench", NOBODY, "--workload", "write"), "--overwrite"),
    (("bench", NOBODY, "--connections", "0"), "--connections"),
    (("list", NOBODY, "--key", "MaxBurstLength"), "KEY=VALUE"),
    (("list", NOBODY, "--key", "MaxBurstLength=1"), "MaxBurstLength"),
    (("list", NOBODY, "--error-recovery-level", "3"), "--error-recovery-level"),
    (("list", NOBODY, "--initiator-name", "me"), "--initiator-name"),
    (("list", NOBODY, "--chap", "alice"), "TCM_CHAP_SECRET"),
    (("list", NOBODY, "--chap-mutual", "alice"), "--chap USER"),
    (("list", NOBODY, "--chap", "alice", "--chap-secret-file", "/nowhere"), "No such file"),
    (("list", "iscsi://alice%geheim@127.0.0.1"), "a secret does not belong"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), BAD_USAGE, ids=lambda value: " ".join(value) if isinstance(value, tuple) else None
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments: tuple[str, ...], says: str) -> None:
    found = run(*arguments, environment={}, code=2)
    text = found.stderr.decode() + (found.stdout.decode() if not arguments else "")
    assert says in text
    assert "geheim" not in text
    if arguments:
        assert text.count("\n") == 1, text


def test_what_fails_at_run_time_is_one_line_and_exit_code_1(daemon: Daemon) -> None:
    assert "nobody listens there" in complaint("inquire", NOBODY, code=1)
    assert "authentication failure, no CHAP user and secret" in complaint("inquire", daemon.url.text, code=1)
    nobody = daemon.url.text.replace(daemon.url.target, "iqn.2003-01.org.example:nobody")
    assert "not found" in complaint("read", nobody, *USER, code=1)
    assert "8 connections" in complaint("bench", daemon.url.text, *USER, "--connections", 9, code=1)
    assert "does not fit" in complaint("write", daemon.url.text, *USER, "--lba", 32767, "--input", sys.executable, code=1)
    assert "ask for less" in complaint("read", daemon.url.text, *USER, "--blocks", 100_000, code=2)
    assert "--block-size" in complaint("bench", daemon.url.text, *USER, "--block-size", 1000, code=2)


@pytest.mark.parametrize("command", ["", "list", "inquire", "read", "write", "bench"])
def test_help_has_examples(command: str) -> None:
    text = run(*([command] if command else []), "--help", environment={}).stdout.decode()
    assert "Example" in text
    assert "python -m tcm_iscsi.initiator" in text


def test_secrets_are_not_options() -> None:
    text = run("list", "--help", environment={}).stdout.decode()
    assert not re.search(r"--chap-(mutual-)?secret\b(?!-file)", text)
