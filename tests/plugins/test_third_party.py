"""A stranger's distribution in a fresh environment: pip installs it, tcm-run finds it and serves it, initiators use it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest
from support import raw_iscsi
from support.programs import unavailable

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
ACME = ROOT / "tests/fixtures/acme"
BLOCK = 512
DATA = bytes(range(1, 251)) * 33
DATA = DATA[: 16 * BLOCK]

_specification = importlib.util.spec_from_file_location("acme_client", ACME / "acme_tcm/client.py")
assert _specification is not None
assert _specification.loader is not None
acme_client = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(acme_client)


class Environment:
    """A virtual environment."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_TARGET"))}
        self.environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)

    def run(self, program: str, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.bin / program), *arguments],
            capture_output=True,
            text=True,
            env={**self.environment, **environment},
            cwd=self.bin,
            timeout=240,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def pip(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-m", "pip", "install", "--quiet", "--no-input", *arguments, check=False)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    made = Environment(tmp_path_factory.mktemp("third-party") / "venv")
    # one build backend for all, instead of an isolated environment for each
    if made.pip("hatchling").returncode:
        unavailable("hatchling cannot be had from the package index")
    sources = [ROOT, ROOT / "fabrics/iscsi", ROOT / "fabrics/fcoe", ROOT / "backstores", ACME]
    # fcoe's dependency is large, and nothing here needs it
    dependencies = [str(source) for source in sources if source.name != "fcoe"]
    for arguments in (dependencies, ["--no-deps", str(ROOT / "fabrics/fcoe")]):
        done = made.pip("--no-build-isolation", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return made


class Serving:
    """``tcm-run`` of that environment."""

    def __init__(self, environment: Environment, folder: Path, *arguments: str, **variables: str) -> None:
        self.log = folder / "log"
        self.out = folder / "out"
        with self.log.open("wb") as log, self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [str(environment.bin / "tcm-run"), "--state-dir", str(folder / "state"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env={**environment.environment, **variables},
                cwd=folder,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        end = time.monotonic() + 30
        while "://" not in self.out.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
        if kind is None:
            assert code == 0, self.log.read_text()
            assert "Traceback" not in self.log.read_text()

    @property
    def urls(self) -> list[str]:
        return [line for line in self.out.read_text().splitlines() if "://" in line and not line.startswith(" ")]


def read10(lba: int, blocks: int) -> bytes:
    return b"\x28\0" + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"


def write10(lba: int, blocks: int) -> bytes:
    return b"\x2a\0" + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"


def disk(folder: Path) -> list[str]:
    return ["--lun", f"chunks:path={folder}/disk,size=8M,chunk=64K", "--filter", "0=scramble:key=env:ACME_KEY"]


def test_list_plugins(environment):
    lines = environment.run("tcm-run", "--list-plugins").stdout.splitlines()
    rows = {tuple(line.split()) for line in lines}
    for name, kind in (("chunks", "backstore"), ("scramble", "filter"), ("lines", "fabric")):
        assert (name, kind, "acme-tcm", "1.2.0", "1", "ok") in rows
    assert ("iscsi", "fabric", "tcm-target-iscsi", "0.1.0", "1", "ok") in rows


def test_dump_plugin(environment):
    text = environment.run("tcm-run", "--dump-plugin", "chunks").stdout
    assert re.search(r"^  size +size +required +bytes, a multiple of 512", text, re.MULTILINE)
    assert re.search(r"^  chunk +size +1M ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--lun", "chunks:path=d,size=1000"], "size=1000 is not a disk's size"),
        (["--lun", "chunks:path=d"], "size: missing; write size=1G"),
        (["--lun", "chunks:path=d,size=1M,chnk=4K"], "did you mean 'chunk'?"),
        (["--lun", "chunks:path=d,size=1M", "--filter", "0=scramble:key=plain"], "write key=file:PATH or key=env:NAME"),
    ],
)
def test_bad_options_are_one_line(environment, tmp_path, arguments, what):
    done = environment.run(
        "tcm-run", "--state-dir", str(tmp_path), "--fabric", f"lines:path={tmp_path}/s", *arguments, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert what in done.stderr


def test_served_by_its_own_fabric(environment, tmp_path):
    socket = tmp_path / "s"
    arguments = ["--fabric", f"lines:path={socket}", *disk(tmp_path)]
    with Serving(environment, tmp_path, *arguments, ACME_KEY="secret") as serving:
        assert serving.urls == [f"acme+unix://{socket}?{serving.urls[0].partition('?')[2]}"]
        with acme_client.Client(str(socket)) as client:
            assert client.command(0, bytes(6)).sense[2] & 15 == 6
            assert client.command(0, bytes.fromhex("120000002400"), 36).data[16:22] == b"CHUNKS"
            assert client.command(0, bytes.fromhex("25000000000000000000"), 8).data == bytes.fromhex("00003fff00000200")
            assert client.command(0, write10(3, 16), data=DATA).status == 0
            assert client.command(0, write10(130, 16), data=DATA, ask=True).status == 0
            for lba in (3, 130):
                assert client.command(0, read10(lba, 16), len(DATA)) == (0, 0, b"", DATA)
            assert client.command(0, read10(0x4000, 1), 512).sense[12] == 0x21, "LOGICAL BLOCK ADDRESS OUT OF RANGE"
            assert client.command(0, bytes.fromhex("35000000000000000000")).status == 0
            assert client.manage("lu_reset", 0) == "FUNCTION COMPLETE"
    log = serving.log.read_text()
    assert "audit: target acme." in log
    assert re.search(r"audit: nexus \d+: acme.client came", log)
    assert re.search(r"audit: nexus \d+: acme.client left, 9 commands served", log)
    chunks = b"".join(path.read_bytes() for path in (tmp_path / "disk").glob("*.chunk"))
    assert chunks
    assert DATA[:64] not in chunks, "the filter was left out"
    # durable, and found again
    with (
        Serving(environment, tmp_path, *arguments, ACME_KEY="secret"),
        acme_client.Client(str(socket), "acme.other") as client,
    ):
        client.command(0, bytes(6))
        assert client.command(0, read10(130, 16), len(DATA)).data == DATA


def test_served_over_iscsi(environment, tmp_path):
    arguments = ["--fabric", "iscsi", "--portal", "127.0.0.1:0", *disk(tmp_path)]
    with Serving(environment, tmp_path, *arguments, ACME_KEY="secret") as serving:
        (url,) = serving.urls
        portal, target, _ = url.removeprefix("iscsi://").split("/")
        host, _, port = portal.partition(":")
        with raw_iscsi.Initiator(host, int(port)) as initiator:
            initiator.login(target)
            initiator.command(bytes(6))
            assert initiator.command(write10(7, 16), write=DATA).status == 0
            assert initiator.command(read10(7, 16), read=len(DATA)).data == DATA
        if shutil.which("iscsi-inq"):
            inquiry = subprocess.run(["iscsi-inq", url], capture_output=True, text=True, timeout=20, check=True).stdout
            assert "Product:CHUNKS" in inquiry
        if shutil.which("qemu-io"):
            commands = ["-c", "read 0 3584", "-c", "write -P 0x5a 1M 128k", "-c", "read -P 0x5a 1M 128k", "-c", "flush"]
            done = subprocess.run(
                ["qemu-io", "-f", "raw", *commands, url], capture_output=True, text=True, timeout=30, check=True
            )
            assert "Pattern verification failed" not in done.stdout
            assert "128 KiB" in done.stdout


def test_its_own_tests(tmp_path):
    """The contracts of tcm.testing, subclassed by the distribution itself. They need pytest, so they run here."""
    folders = ["-c", str(ACME / "pyproject.toml"), "--rootdir", str(ACME), "--confcutdir", str(ACME)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *folders, "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t"), ACME / "tests"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert re.search(r"\d\d passed", done.stdout)
