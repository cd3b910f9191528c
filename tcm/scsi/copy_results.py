"""Parameter data of the RECEIVE COPY commands (SPC-4 6.22 to 6.26)."""

from __future__ import annotations

import enum
import struct

from tcm.scsi.layout import Layout, bits, number
from tcm.scsi.sense import Status

NO_MORE_UPDATES = 0xFFFF_FFFE
"""ESTIMATED STATUS UPDATE DELAY of what has ended."""
FAILURE_DETAILS = 60
"""Bytes of failure details before the sense data."""


class CopyStatus(enum.IntEnum):
    """COPY OPERATION STATUS (SPC-4 table 249)."""

    COMPLETED = 0x01
    FAILED = 0x02
    PARTIAL_TOKEN = 0x03
    RESIDUAL = 0x04
    FOREGROUND = 0x11
    BACKGROUND = 0x12
    TERMINATED = 0x60


class CountUnits(enum.IntEnum):
    """TRANSFER COUNT UNITS (SPC-4 table 251); those that are used here."""

    BYTES = 0x00
    MEBIBYTES = 0x02
    BLOCKS = 0xF1
    """Of the copy destination."""


_UNDER_WAY = frozenset({CopyStatus.FOREGROUND, CopyStatus.BACKGROUND})
_LID1_STATUS = {CopyStatus.COMPLETED: 1, CopyStatus.FOREGROUND: 0, CopyStatus.BACKGROUND: 0}

_SHARED_HEADER = Layout(
    32,
    (
        number("available_data", 0, 3),
        bits("response_to_service_action", 4, 4, 0),
        bits("copy_operation_status", 5, 6, 0),
        number("operation_counter", 6, 7),
        number("estimated_status_update_delay", 8, 11),
        number("extended_copy_completion_status", 12, 12),
        number("length_of_sense_data_field", 13, 13),
        number("sense_data_length", 14, 14),
        number("transfer_count_units", 15, 15),
        number("transfer_count", 16, 23),
        number("segments_processed", 24, 25),
    ),
)


def copy_status_lid4(
    *,
    service_action: int,
    status: CopyStatus,
    completion: Status,
    sense: bytes,
    count: int,
    units: CountUnits = CountUnits.BYTES,
    segments: int = 0,
    operations: int = 0,
    update_delay: int = 100,
    more: bytes = b"",
) -> bytes:
    """RECEIVE COPY STATUS (LID4), which is also the beginning of RECEIVE ROD TOKEN INFORMATION (SPC-4 6.24, 6.26).

    :param completion: status of the copy operation, used if it has ended by itself.
    :param sense: its sense data; told only then.
    :param count: TRANSFER COUNT, in ``units``.
    :param update_delay: ms until it is worth asking again.
    :param more: what follows the sense data.
    """
    told = b"" if status in _UNDER_WAY or status is CopyStatus.TERMINATED else sense[:252]
    padded = told + bytes(-len(told) % 4)
    ended = Status.TASK_ABORTED if status is CopyStatus.TERMINATED else completion
    header = _SHARED_HEADER.pack(
        {
            "available_data": _SHARED_HEADER.length - 4 + len(padded) + len(more),
            "response_to_service_action": service_action,
            "copy_operation_status": status,
            "operation_counter": operations & 0xFFFF,
            "estimated_status_update_delay": update_delay if status in _UNDER_WAY else NO_MORE_UPDATES,
            "extended_copy_completion_status": 0 if status in _UNDER_WAY else ended,
            "length_of_sense_data_field": len(padded),
            "sense_data_length": len(told),
            "transfer_count_units": units,
            "transfer_count": count,
            "segments_processed": segments,
        }
    )
    return header + padded + more


def copy_status_lid1(*, status: CopyStatus, transferred: int, segments: int) -> bytes:
    """RECEIVE COPY STATUS (LID1) (SPC-4 6.25).

    :param transferred: bytes; told in mebibytes if there are too many for the field.
    """
    units, count = (CountUnits.BYTES, transferred) if transferred < 1 << 32 else (CountUnits.MEBIBYTES, transferred >> 20)
    return struct.pack(">IBHBI", 8, _LID1_STATUS.get(status, 2), segments, units, count)


def failure_details(status: Status, sense: bytes) -> bytes:
    """RECEIVE COPY FAILURE DETAILS (LID1) of an operation that failed (SPC-4 6.23)."""
    data = bytes(52) + bytes((status, 0)) + len(sense).to_bytes(2) + sense
    return len(data).to_bytes(4) + data


NO_FAILURE_DETAILS = bytes(4)
"""Of one that did not fail."""
