"""The logical units that conformance tests are about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import scsi
from support.ffp_fixtures import dut, lio_target, tcm_run_target
from tcm_backstores.fileio import FileBackstore
from tcm_loopback.commands import ApplicationClient

from tcm.target.directory_store import DirectoryStore

__all__ = ["dut", "lio_target", "tcm_run_target"]
Pair = tuple[ApplicationClient, ApplicationClient]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_backstore: `disk` is each of our backstores in turn, not just a ramdisk")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("every_backstore"):
        metafunc.parametrize("disk", ["ramdisk", "fileio"], indirect=True)


@pytest.fixture
async def disk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ApplicationClient]:
    """A thin 2 MiB disk of 4096 blocks of 512 bytes, with a place for what it keeps."""
    store = FileBackstore(str(tmp_path / "disk"), scsi.SIZE) if getattr(request, "param", "") == "fileio" else None
    state = DirectoryStore(str(tmp_path / "store"))
    async with scsi.one_initiator(store, directory=tmp_path / "state", store=state) as client:
        yield client


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Two initiators on one such disk."""
    async with scsi.two_initiators() as clients:
        yield clients


@pytest.fixture
async def removable() -> AsyncIterator[ApplicationClient]:
    """A disk with a medium that can be ejected."""
    async with scsi.one_initiator(removable=True) as client:
        yield client


@pytest.fixture
async def removable_pair() -> AsyncIterator[Pair]:
    async with scsi.two_initiators(removable=True) as clients:
        yield clients


@pytest.fixture
async def read_only() -> AsyncIterator[ApplicationClient]:
    """A write-protected disk."""
    async with scsi.one_initiator(read_only=True) as client:
        yield client
