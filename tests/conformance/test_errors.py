"""What backstores fail with, as sense data: SBC-4 4.18, 4.7.3.6, SPC-5 4.5; the unit goes on afterwards."""

from __future__ import annotations

import errno
import logging

import pytest
from support.memory import GatedMemory
from support.scsi import one_initiator, pattern
from tcm_loopback.commands import ApplicationClient, Expected

from tcm.backstore import BackstoreError, BackstoreErrorKind
from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InternalTargetFailure,
    NotReady,
    SpaceAllocationFailed,
    UnrecoveredReadError,
    WriteError,
    WriteProtected,
)
from tcm.scsi.sense import Status

pytestmark = pytest.mark.anyio
Kind = BackstoreErrorKind

WRITE_FAILURES: list[tuple[BaseException, Expected]] = [
    (OSError(errno.ENOSPC, "no space left on device"), SpaceAllocationFailed),
    (OSError(errno.EDQUOT, "quota exceeded"), SpaceAllocationFailed),
    (OSError(errno.EIO, "input/output error"), WriteError),
    (OSError(errno.EROFS, "read-only file system"), WriteProtected),
    (BackstoreError(Kind.NO_SPACE), SpaceAllocationFailed),
    (BackstoreError(Kind.MEDIUM_WRITE), WriteError),
    (BackstoreError(Kind.NOT_READY), NotReady),
    (BackstoreError(Kind.READ_ONLY), WriteProtected),
    (BackstoreError(Kind.BUSY), Status.BUSY),
]
READ_FAILURES: list[tuple[BaseException, Expected]] = [
    (OSError(errno.EIO, "input/output error"), UnrecoveredReadError),
    (BackstoreError(Kind.MEDIUM_READ), UnrecoveredReadError),
    (BackstoreError(Kind.NOT_READY), NotReady),
    (BackstoreError(Kind.BUSY), Status.BUSY),
]
WRITES = {
    "WRITE (6)": (cdb.write(6, 0, 1), 512),
    "WRITE (10)": (cdb.write(10, 0, 1), 512),
    "WRITE (16) FUA": (cdb.write(16, 0, 1, fua=True), 512),
    "WRITE AND VERIFY (10)": (cdb.write_and_verify(10, 0, 1), 512),
    "WRITE ATOMIC (16)": (cdb.write_atomic(0, 1), 512),
    "WRITE SAME (16)": (cdb.write_same(16, 0, 8), 512),
    "UNMAP": (cdb.unmap(24), 0),
}


@pytest.mark.parametrize(("failure", "expected"), WRITE_FAILURES, ids=str)
async def test_write_failure(failure: BaseException, expected: Expected) -> None:
    """SBC-4 4.18: the sense data of each kind of failure; the next write is fine."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.failure = failure
        await disk.write(10, 0, pattern(512), expect=expected)
        store.failure = None
        await disk.write(10, 0, pattern(512))


async def test_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Not SCSI: whoever looks after the storage learns who got which answer, of which LUN, where, and why."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        await disk.write(10, 7, pattern(512))
        assert not caplog.records
        store.failure = OSError(errno.ENOSPC, "no space left on device")
        await disk.write(10, 7, pattern(512), expect=SpaceAllocationFailed)
        store.failure = BackstoreError(Kind.BUSY, "too much to do")
        await disk.read(10, 3, 1, expect=Status.BUSY)
        assert disk.initiator.nexus is not None
        name = disk.initiator.nexus.initiator_port.name
    assert [(record.levelname, *record.getMessage().split(f" from {name} ")) for record in caplog.records] == [
        (
            "ERROR",
            "disk0 (LUN 0): WRITE (10) at LBA 7",
            "failed: no space left on device; answered CHECK_CONDITION DATA_PROTECT 27/07",
        ),
        ("WARNING", "disk0 (LUN 0): READ (10) at LBA 3", "failed: too much to do; answered BUSY"),
    ]


@pytest.mark.parametrize(("failure", "expected"), READ_FAILURES, ids=str)
async def test_read_failure(failure: BaseException, expected: Expected) -> None:
    """SBC-4 4.18: the sense data of each kind of failure, and no data; the next read is fine."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.failure = failure
        result = await disk.read(10, 0, 1, expect=expected)
        assert result.data_in == b""
        store.failure = None
        await disk.read(10, 0, 1)


@pytest.mark.parametrize("name", WRITES)
async def test_disk_full(name: str) -> None:
    """SBC-4 4.7.3.6: no room: DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT, from every command that writes."""
    store = GatedMemory()
    command, length = WRITES[name]
    data = pattern(length) if length else cdb.unmap_parameters((0, 8))
    async with one_initiator(store) as disk:
        store.failure = OSError(errno.ENOSPC, "no space left on device")
        await disk.execute(command, data, expect=SpaceAllocationFailed)
        store.failure = None
        await disk.execute(command, data)


async def test_read_failure_information() -> None:
    """SBC-4 4.18.1: INFORMATION is the LBA of the block that failed, if the backstore knows."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.failure = BackstoreError(Kind.MEDIUM_READ, "bad sector", offset=77 * 512 + 100)
        result = await disk.read(10, 70, 16, expect=UnrecoveredReadError)
        assert result.sense is not None
        assert result.sense.information == 77


@pytest.mark.parametrize("write", [False, True])
async def test_unexpected_exception(write: bool, caplog: pytest.LogCaptureFixture) -> None:
    """SPC-5 table 48: what nobody expected is HARDWARE ERROR, INTERNAL TARGET FAILURE, with a traceback in the log."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.failure = ZeroDivisionError("a bug in a plug-in")
        with caplog.at_level(logging.ERROR):
            if write:
                await disk.write(10, 0, pattern(512), expect=InternalTargetFailure)
            else:
                await disk.read(10, 0, 1, expect=InternalTargetFailure)
        assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)
        store.failure = None
        await disk.read(10, 0, 1)


async def test_compare_and_write_failure_between() -> None:
    """SBC-4 5.3: a write that fails after the comparison leaves the extent free for the next command."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.failure = OSError(errno.EIO, "input/output error")
        await disk.compare_and_write(0, bytes(512), pattern(512), expect=UnrecoveredReadError)
        store.failure = None
        await disk.compare_and_write(0, bytes(512), pattern(512))


async def test_data_out_longer_than_the_command(disk: ApplicationClient) -> None:
    """RFC 7143 11.4.5: Data-Out for a command that takes none is a residual underflow, and no error."""
    result = await disk.execute(cdb.read(10, 0, 1), bytes(512), read_length=512)
    assert result.status is Status.GOOD
