"""Why connections fail, as ISCSI-MIB counts it (RFC 7147: iscsiInstanceSsnErrorStatsTable)."""

from __future__ import annotations

import enum


class Failure(enum.IntEnum):
    """Columns of the table."""

    DIGEST = 1
    TIMEOUT = 2
    FORMAT = 3
    """A PDU that the protocol does not allow."""
    UNMAPPED = 4
    """The initiator may not reach the target any more."""


class ConnectionFailed(Exception):
    """The connection must be dropped; the message is for the log."""
