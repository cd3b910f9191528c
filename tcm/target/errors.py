"""What a backstore's failure is to an initiator: one table."""

from __future__ import annotations

import errno

from tcm.backstore import BackstoreError, BackstoreErrorKind
from tcm.scsi.check_condition import (
    CheckCondition,
    CommandTerminated,
    InternalTargetFailure,
    LbaOutOfRange,
    MediumNotPresent,
    NotReady,
    SpaceAllocationFailed,
    UnrecoveredReadError,
    WriteError,
    WriteProtected,
)
from tcm.scsi.sense import Status

ERRNO_KINDS: dict[int, BackstoreErrorKind | None] = {
    errno.ENOSPC: BackstoreErrorKind.NO_SPACE,
    errno.EDQUOT: BackstoreErrorKind.NO_SPACE,
    errno.EFBIG: BackstoreErrorKind.NO_SPACE,
    errno.EROFS: BackstoreErrorKind.READ_ONLY,
    errno.EPERM: BackstoreErrorKind.READ_ONLY,
    errno.EACCES: BackstoreErrorKind.READ_ONLY,
    errno.EIO: None,  # MEDIUM ERROR of the operation's direction, as for all that are not listed
    errno.ENOMEM: BackstoreErrorKind.BUSY,
    errno.EAGAIN: BackstoreErrorKind.BUSY,
    errno.EBUSY: BackstoreErrorKind.BUSY,
    errno.EINTR: BackstoreErrorKind.BUSY,
    errno.ENXIO: BackstoreErrorKind.NOT_READY,
    errno.ENODEV: BackstoreErrorKind.NOT_READY,
    errno.ESHUTDOWN: BackstoreErrorKind.NOT_READY,
    errno.ENOTCONN: BackstoreErrorKind.NOT_READY,
    errno.ECONNRESET: BackstoreErrorKind.NOT_READY,
    errno.ECONNREFUSED: BackstoreErrorKind.NOT_READY,
    errno.EPIPE: BackstoreErrorKind.NOT_READY,
    errno.ETIMEDOUT: BackstoreErrorKind.NOT_READY,
    errno.EHOSTUNREACH: BackstoreErrorKind.NOT_READY,
    errno.ENETUNREACH: BackstoreErrorKind.NOT_READY,
}
"""``OSError`` numbers that say more than "the medium failed"; EROFS and its like while reading are a medium that failed."""

SENSES: dict[BackstoreErrorKind, type[CheckCondition]] = {
    BackstoreErrorKind.MEDIUM_READ: UnrecoveredReadError,
    BackstoreErrorKind.MEDIUM_WRITE: WriteError,
    BackstoreErrorKind.NO_SPACE: SpaceAllocationFailed,
    BackstoreErrorKind.NOT_READY: NotReady,
    BackstoreErrorKind.RESIZED: LbaOutOfRange,
    BackstoreErrorKind.READ_ONLY: WriteProtected,
}
_NO_MEDIUM = errno.ENOMEDIUM
_ONLY_WRITING = {BackstoreErrorKind.READ_ONLY, BackstoreErrorKind.NO_SPACE}


def is_backstore_failure(error: BaseException) -> bool:
    """Whether :func:`to_check_condition` has a row for it; anything else is a bug, with a traceback in the log."""
    return isinstance(error, (OSError, BackstoreError, CommandTerminated))


def to_check_condition(error: BaseException, *, write: bool, block_size: int) -> CommandTerminated:
    """The status and sense data for an exception that a backstore raised.

    :param write: the operation changes the medium.
    :param block_size: bytes; turns the failing byte offset into the LBA of the INFORMATION field (SBC-4 4.18.1).
    :returns: CHECK CONDITION, or BUSY status without sense data; HARDWARE ERROR / INTERNAL TARGET FAILURE for what is unknown.
    """
    if isinstance(error, CommandTerminated):
        return error
    if isinstance(error, BackstoreError):
        kind: BackstoreErrorKind | None = error.kind
        information = _lba(error.offset, block_size)
    elif isinstance(error, OSError):
        if error.errno == _NO_MEDIUM:
            return MediumNotPresent()
        kind = ERRNO_KINDS.get(error.errno or 0)
        information = None
    else:
        return InternalTargetFailure()
    if kind is BackstoreErrorKind.BUSY:
        return CommandTerminated(Status.BUSY)
    if kind is None or (kind in _ONLY_WRITING and not write):
        kind = BackstoreErrorKind.MEDIUM_WRITE if write else BackstoreErrorKind.MEDIUM_READ
    return SENSES[kind](information=information)


def _lba(offset: int | None, block_size: int) -> int | None:
    """The block of a byte offset, if that is one: what does not fit the field would break the sense data."""
    return offset // block_size if offset is not None and 0 <= offset < 1 << 63 else None
