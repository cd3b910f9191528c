"""The one table from backstore failures to sense data."""

from __future__ import annotations

import errno

import pytest

from tcm.backstore import BackstoreError, BackstoreErrorKind
from tcm.scsi.check_condition import (
    CheckCondition,
    InternalTargetFailure,
    MediumNotPresent,
    MiscompareDuringVerify,
    NotReady,
    SpaceAllocationFailed,
    UnrecoveredReadError,
    WriteError,
    WriteProtected,
)
from tcm.scsi.sense import Status
from tcm.target.errors import is_backstore_failure, to_check_condition

BOTH = pytest.mark.parametrize("write", [False, True])


def convert(error: BaseException, write: bool, block_size: int = 512) -> CheckCondition:
    result = to_check_condition(error, write=write, block_size=block_size)
    assert isinstance(result, CheckCondition)
    return result


@pytest.mark.parametrize(
    ("number", "reading", "writing"),
    [
        (errno.EIO, UnrecoveredReadError, WriteError),
        (errno.EBADMSG, UnrecoveredReadError, WriteError),
        (errno.ENOSPC, UnrecoveredReadError, SpaceAllocationFailed),
        (errno.EDQUOT, UnrecoveredReadError, SpaceAllocationFailed),
        (errno.EFBIG, UnrecoveredReadError, SpaceAllocationFailed),
        (errno.EROFS, UnrecoveredReadError, WriteProtected),
        (errno.EACCES, UnrecoveredReadError, WriteProtected),
        (errno.ENODEV, NotReady, NotReady),
        (errno.ETIMEDOUT, NotReady, NotReady),
        (errno.ENOMEDIUM, MediumNotPresent, MediumNotPresent),
    ],
)
def test_oserror(number: int, reading: type[CheckCondition], writing: type[CheckCondition]) -> None:
    error = OSError(number, "no")
    assert is_backstore_failure(error)
    assert type(convert(error, write=False)) is reading
    assert type(convert(error, write=True)) is writing


@BOTH
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EAGAIN, errno.EBUSY])
def test_busy(number: int, write: bool) -> None:
    """What may work later is BUSY status, without sense data."""
    for error in (OSError(number, "later"), BackstoreError(BackstoreErrorKind.BUSY)):
        result = to_check_condition(error, write=write, block_size=512)
        assert result.status is Status.BUSY
        assert not isinstance(result, CheckCondition)


@BOTH
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (BackstoreErrorKind.MEDIUM_READ, UnrecoveredReadError),
        (BackstoreErrorKind.MEDIUM_WRITE, WriteError),
        (BackstoreErrorKind.NOT_READY, NotReady),
    ],
)
def test_backstore_error(kind: BackstoreErrorKind, expected: type[CheckCondition], write: bool) -> None:
    assert type(convert(BackstoreError(kind), write)) is expected


@pytest.mark.parametrize("kind", list(BackstoreErrorKind))
def test_every_kind_has_a_row(kind: BackstoreErrorKind) -> None:
    assert to_check_condition(BackstoreError(kind), write=True, block_size=512).status in {Status.CHECK_CONDITION, Status.BUSY}


@pytest.mark.parametrize(("block_size", "lba"), [(512, 80), (4096, 10)])
def test_information(block_size: int, lba: int) -> None:
    """SBC-4 4.18.1: INFORMATION is the LBA of the block that failed."""
    error = BackstoreError(BackstoreErrorKind.MEDIUM_READ, "bad sector", offset=40960 + 100)
    assert convert(error, write=False, block_size=block_size).sense.information == lba
    assert convert(BackstoreError(BackstoreErrorKind.MEDIUM_READ), write=False).sense.information is None


@pytest.mark.parametrize("offset", [-1, 1 << 80])
def test_information_that_cannot_be(offset: int) -> None:
    """A backstore's nonsense does not break the sense data."""
    error = BackstoreError(BackstoreErrorKind.MEDIUM_READ, "bad sector", offset=offset)
    assert convert(error, write=False).sense.information is None


@BOTH
def test_anything_else(write: bool) -> None:
    """A programmer's mistake is INTERNAL TARGET FAILURE; a termination is what it is."""
    assert not is_backstore_failure(ValueError())
    assert type(convert(ValueError("bug"), write)) is InternalTargetFailure
    miscompare = MiscompareDuringVerify(information=3)
    assert to_check_condition(miscompare, write=write, block_size=512) is miscompare
