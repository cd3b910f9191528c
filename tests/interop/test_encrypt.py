"""The ``encrypt`` filter in the real tcm-run, when its key file is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.daemon import Daemon, running

pytestmark = pytest.mark.interop


def test_a_lost_key_file_ends_the_start(tmp_path: Path) -> None:
    """One line that says what to do, exit code 2, and nothing touched; who insists gets a new key, which no log shows."""
    image, key = tmp_path / "disk.img", tmp_path / "key"
    lun, encrypt = f"fileio:path={image},size=1M", f"0=encrypt:key-file={key}"
    image.write_bytes(b"data" * (1 << 18))
    daemon = Daemon(tmp_path / "run", "--lun", lun, "--filter", encrypt)
    with pytest.raises(AssertionError, match="tcm-run ended with 2"):
        daemon.start()
    [line] = daemon.log().splitlines()
    assert f"{key} does not exist" in line
    assert "restore the key, or write create=yes" in line
    assert not key.exists()
    assert image.read_bytes() == b"data" * (1 << 18)
    with running(tmp_path / "again", "--lun", lun, "--filter", encrypt + ",create=yes", "--log-level", "debug") as daemon:
        secret = key.read_bytes()
    assert "a new key was made" in daemon.log()
    assert secret.hex()[:16] not in daemon.log()
    assert repr(secret)[2:20] not in daemon.log()
