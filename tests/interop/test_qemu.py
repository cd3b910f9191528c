"""qemu's iSCSI driver (libiscsi): a real file-system image goes onto a LUN and comes back the same."""

from __future__ import annotations

import filecmp
import os
import subprocess
from pathlib import Path

import pytest
from support.daemon import Daemon, Url, running
from support.programs import program
from support.relay import Relay

pytestmark = pytest.mark.interop

SECRET = "sixteen-byte-key"
SIZE = 64 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 file system with files in it."""
    directory = tmp_path_factory.mktemp("image")
    tree = directory / "tree"
    tree.mkdir()
    for number in range(40):
        (tree / f"file{number}").write_bytes(os.urandom(number * 10_007))
    (tree / "zeroes").write_bytes(bytes(3 << 20))
    path = directory / "ext4.img"
    command = [program("mkfs.ext4"), "-q", "-F", "-d", str(tree), str(path), str(SIZE >> 10)]
    subprocess.run(command, check=True, timeout=60)
    return path


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("qemu")
    with running(directory, "--lun", f"fileio:path={directory / 'lun0.img'},size={SIZE}") as daemon:
        yield daemon


def qemu(*command: str, timeout: float = 120, **environment: str) -> str:
    done = subprocess.run(
        [program(command[0]), *command[1:]],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def options(url: Url, **more: str) -> str:
    """The LUN as qemu's block options."""
    keys = {"driver": "iscsi", "transport": "tcp", "portal": url.portal, "target": url.target, "lun": str(url.lun), **more}
    return ",".join(f"{key.replace('_', '-')}={value}" for key, value in keys.items())


def there_and_back(image: Path, directory: Path, lun: str, *objects: str) -> None:
    """Copy the image onto the LUN and back with qemu-img, and compare; check the file system."""
    back = directory / "back.img"
    plain = "driver=file,filename="
    common = ("qemu-img", "convert", *objects, "--image-opts", "--target-image-opts", "-n")
    qemu(*common, plain + str(image), lun)
    back.touch()
    os.truncate(back, SIZE)
    qemu(*common, lun, plain + str(back))
    assert filecmp.cmp(image, back, shallow=False), "what came back differs"
    subprocess.run([program("e2fsck"), "-fn", str(back)], check=True, capture_output=True, timeout=60)


def test_convert(daemon: Daemon, image: Path, tmp_path: Path) -> None:
    there_and_back(image, tmp_path, options(daemon.url))


def test_convert_header_digest(daemon: Daemon, image: Path, tmp_path: Path) -> None:
    with Relay(daemon.url.host, daemon.url.port) as relay:
        there_and_back(image, tmp_path, options(daemon.url, header_digest="crc32c", portal=f"127.0.0.1:{relay.port}"))
    assert relay.from_target
    assert all(b"HeaderDigest=CRC32C" in said for said in relay.from_target)


def test_convert_by_url(daemon: Daemon, image: Path, tmp_path: Path) -> None:
    """The URL as tcm-run prints it, pasted."""
    back = tmp_path / "back.img"
    qemu("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), daemon.url.text)
    qemu("qemu-img", "convert", "-f", "raw", "-O", "raw", daemon.url.text, str(back))
    assert filecmp.cmp(image, back, shallow=False)
    assert "identical" in qemu("qemu-img", "compare", "-f", "raw", "-F", "raw", str(image), daemon.url.text)


def test_convert_chap(image: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    lun = f"fileio:path={tmp_path / 'lun0.img'},size={SIZE}"
    with running(tmp_path / "run", "--lun", lun, "--chap", "alice", env={"TCM_CHAP_SECRET": SECRET}) as daemon:
        with_secret = options(daemon.url, user="alice", password_secret="s0", header_digest="crc32c")
        there_and_back(image, tmp_path, with_secret, "--object", f"secret,id=s0,file={secret}")
        # the same through the URL and the environment, and a refusal of a wrong secret
        assert "raw" in qemu("qemu-img", "info", daemon.url.with_user("alice", SECRET))
        assert "raw" in qemu("qemu-img", "info", daemon.url.text, LIBISCSI_CHAP_USERNAME="alice", LIBISCSI_CHAP_PASSWORD=SECRET)
        wrong = daemon.url.with_user("alice", "not-the-same-key")
        done = subprocess.run([program("qemu-img"), "info", wrong], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert "Authentication failure" in done.stderr


@pytest.mark.parametrize("how", [("-w",), (), ("-w", "--flush-interval=64")], ids=["write", "read", "flush"])
def test_bench(daemon: Daemon, how: tuple[str, ...]) -> None:
    common = ("-f", "raw", "-t", "none", "-c", "4000", "-d", "32", "-s", "4096", "-S", "16384")
    assert "Run completed" in qemu("qemu-img", "bench", *common, *how, daemon.url.text)


def test_qemu_io(daemon: Daemon) -> None:
    """Writes with FUA, zeroes with and without unmap, discard, flush: each read back as a pattern."""
    script = (
        "write -P 0x11 0 4M", "write -f -P 0x22 1M 64k", "flush", "read -P 0x11 0 1M", "read -P 0x22 1M 64k",
        "write -z 2M 512k", "read -P 0 2M 512k", "write -z -u 3M 512k", "read -P 0 3M 512k",
        "discard 0 1M", "read -P 0x11 3584k 512k",
        "aio_write -P 0x33 8M 1M", "aio_write -P 0x44 9M 1M", "aio_flush", "read -P 0x33 8M 1M", "read -P 0x44 9M 1M",
    )  # fmt: skip
    commands = [word for line in script for word in ("-c", line)]
    output = qemu("qemu-io", "-f", "raw", "-t", "none", "-d", "unmap", *commands, daemon.url.text)
    assert "Pattern verification failed" not in output, output
    assert "error" not in output.lower(), output
