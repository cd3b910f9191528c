"""A logical unit's clock (SPC-4 5.2): the host's, until SET TIMESTAMP sets it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tcm.scsi.timestamp import MODULUS, TimestampOrigin

if TYPE_CHECKING:
    from collections.abc import Callable

_MILLISECOND = 1_000_000


class DeviceClock:
    """Counts milliseconds since 1970-01-01 00:00 UT. No reset stops it; when the process ends, what was set is forgotten.

    :param wall: the host's idea of the time, ns since that moment; it may jump.
    :param monotonic: what goes on counting when that jumps, ns since whenever.
    """

    def __init__(self, wall: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset: int | None = None

    @property
    def origin(self) -> TimestampOrigin:
        """Who set the clock."""
        return TimestampOrigin.OTHER if self._offset is None else TimestampOrigin.SET_TIMESTAMP

    def timestamp(self) -> int:
        """Now, in ms."""
        if self._offset is None:
            return self._wall() // _MILLISECOND % MODULUS
        return (self._monotonic() + self._offset) // _MILLISECOND % MODULUS

    def set(self, timestamp: int) -> None:
        """SET TIMESTAMP: the clock goes on from there, in ms."""
        self._offset = timestamp * _MILLISECOND - self._monotonic()
