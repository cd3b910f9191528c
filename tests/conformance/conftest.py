"""The logical units that conformance tests are about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import scsi
from tcm_backstores.fileio import FileBackstore
from tcm_loopback.commands import ApplicationClient

Pair = tuple[ApplicationClient, ApplicationClient]


ON_EVERY_BACKSTORE = {"test_read", "test_write", "test_verify", "test_write_same", "test_unmap", "test_compare_and_write"}
"""Modules whose ``disk`` is each of our backstores in turn; elsewhere it is a ramdisk."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "disk" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in ON_EVERY_BACKSTORE:
        metafunc.parametrize("disk", ["ramdisk", "fileio"], indirect=True)


@pytest.fixture
async def disk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ApplicationClient]:
    """A thin 2 MiB disk of 4096 blocks of 512 bytes."""
    store = FileBackstore(str(tmp_path / "disk"), scsi.SIZE) if getattr(request, "param", "") == "fileio" else None
    async with scsi.one_initiator(store) as client:
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
