"""The logical units that conformance tests are about."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support import scsi
from tcm_loopback.commands import ApplicationClient

Pair = tuple[ApplicationClient, ApplicationClient]


@pytest.fixture
async def disk() -> AsyncIterator[ApplicationClient]:
    """A thin 2 MiB disk of 4096 blocks of 512 bytes."""
    async with scsi.one_initiator() as client:
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
