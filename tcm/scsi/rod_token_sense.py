"""Sense data of commands that make and use ROD tokens (SPC-5, Validation errors for generic ROD tokens)."""

from __future__ import annotations

from tcm.scsi.check_condition import CheckCondition
from tcm.scsi.sense import SenseKey


class InvalidTokenOperation(CheckCondition):
    """ILLEGAL REQUEST, INVALID TOKEN OPERATION, CAUSE NOT REPORTABLE; its subclasses name the cause."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x23, 0x00


class UnsupportedTokenType(InvalidTokenOperation):
    """The ROD TYPE is none that the copy manager takes."""

    ascq = 0x01


class TokenUnknown(InvalidTokenOperation):
    """No token that this process has made, or one that it has forgotten."""

    ascq = 0x04


class TokenCorrupt(InvalidTokenOperation):
    """A token that this process has made, but changed since."""

    ascq = 0x05


class TokenRevoked(InvalidTokenOperation):
    """An administrator has taken the logical unit away."""

    ascq = 0x06


class TokenExpired(InvalidTokenOperation):
    """Its lifetime or its inactivity timeout is over."""

    ascq = 0x07


class TokenCancelled(InvalidTokenOperation):
    """The data that it represents is not what it was, or may not be."""

    ascq = 0x08


class TokenDeleted(InvalidTokenOperation):
    """An application client has deleted it (DEL_TKN)."""

    ascq = 0x09


class InvalidTokenLength(InvalidTokenOperation):
    """The ROD TOKEN LENGTH is not that of 512 bytes."""

    ascq = 0x0A


class CopyTargetDeviceDataUnderrun(CheckCondition):
    """COPY ABORTED, COPY TARGET DEVICE DATA UNDERRUN; INFORMATION is the transfer count, which is not zero."""

    key, asc, ascq = SenseKey.COPY_ABORTED, 0x0D, 0x04


class NothingTransferred(CheckCondition):
    """ILLEGAL REQUEST, COPY TARGET DEVICE DATA UNDERRUN: the transfer count is zero."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x0D, 0x04


class InsufficientResourcesToCreateRodToken(CheckCondition):
    """ILLEGAL REQUEST, INSUFFICIENT RESOURCES TO CREATE ROD TOKEN."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x55, 0x0D
