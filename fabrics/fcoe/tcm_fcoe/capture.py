"""Capture files (pcap, nanoseconds) of the frames that an interface has sent and received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from scapy.data import DLT_EN10MB
from scapy.utils import RawPcapWriter

if TYPE_CHECKING:
    from types import TracebackType

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

    def close(self) -> None:
        """What was written is in the file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
