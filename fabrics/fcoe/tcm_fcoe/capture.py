"""Capture files (pcap, nanoseconds) of the frames that an interface has sent and received."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Self

from scapy.data import DLT_EN10MB
from scapy.utils import RawPcapWriter

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from tcm_fcoe.link import Link
    from tcm_fcoe.protocol.fcoe import Buffer

NANOSECONDS = 10**9


class CaptureFile:
    """One file, which is made anew.

    :raises OSError: it cannot be made.
    """

    def __init__(self, path: str) -> None:
        self._writer = RawPcapWriter(path, linktype=DLT_EN10MB, nano=True)
        self._writer.write_header(None)
        self.frames = 0

    def write(self, frame: Buffer, nanoseconds: int) -> None:
        """A whole Ethernet frame.

        :param nanoseconds: since 1970, UTC.
        """
        seconds, rest = divmod(nanoseconds, NANOSECONDS)
        self._writer.write_packet(bytes(frame), sec=seconds, usec=rest)
        self.frames += 1

    def write_all(self, frames: Iterable[Buffer]) -> None:
        """Frames that go over the link now."""
        stamp = time.time_ns()
        for frame in frames:
            self.write(frame, stamp)

    def receive(self, link: Link) -> Sequence[memoryview]:
        """:meth:`Link.receive`, and keep what came."""
        frames = link.receive()
        self.write_all(frames)
        return frames

    def send(self, link: Link, frames: deque[bytes]) -> bool:
        """:meth:`Link.send`, and keep what was taken."""
        there = list(frames)
        complete = link.send(frames)
        self.write_all(islice(there, len(there) - len(frames)))
        return complete

    def flush(self) -> None:
        """What was written is in the file, so that others can read it."""
        self._writer.flush()

    def close(self) -> None:
        """What was written is in the file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
