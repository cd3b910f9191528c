"""What a link is to those who use it: batches of Ethernet frames in and out, addresses, MTU, whether it is up, counters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm.failure import ConfigError
from tcm_fcoe.protocol.ethernet import FULL_MTU, MIN_MTU, receive_data_field_size

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from tcm_fcoe.protocol.fcp_frames import Rooms

BATCH = 64
"""Frames that :meth:`Link.receive` gives at most."""
ROOM = 2304
"""Bytes for the longest frame, with what the kernel puts before it."""


@dataclass(slots=True)
class LinkCounters:
    """Of one link, since it was opened."""

    frames_in: int = 0
    octets_in: int = 0
    frames_out: int = 0
    octets_out: int = 0
    kernel_drops: int = 0
    """Frames that came while there was no room for them; as of :meth:`Link.refresh`."""
    oversize_frames: int = 0
    """Dropped, either way: longer than the MTU or any FCoE frame."""
    discarded_frames: int = 0
    """Dropped on the way out: the link was down."""
    frame_check_errors: int = 0
    """Frames of any kind that the interface dropped for their frame check sequence; likewise."""
    congestions: int = 0
    """Times that the kernel took no more frames for a while."""


class Link(ABC):
    """One Ethernet link. Frames are whole, from the destination address on, with their 802.1Q tags, without the check sequence.

    Only FCoE and FIP frames come in, tagged or not, and only those to :meth:`set_addresses`. A link belongs to one event loop;
    nothing may wait for it when it is closed.
    """

    name: str
    """As the user wrote it."""
    address: bytes
    """MAC address of the interface."""
    mtu: int
    """Bytes after the Ethernet header and tag."""
    up: bool = False
    downs: int = 0
    """Times that the link went down: also tells a link that is up again before anybody looked."""
    notices: tuple[str, ...] = ()
    """What the user should know, a line each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counters = LinkCounters()

    @property
    def rooms(self) -> Rooms | None:
        """Memory in which frames may be made, which :meth:`send` then takes with the others; ``None``: there is no such."""
        return None

    @abstractmethod
    def fileno(self) -> int:
        """The file descriptor that frames come from."""

    @abstractmethod
    def receive(self) -> Sequence[memoryview]:
        """The frames that have come, at most :data:`BATCH`; none if there are none now, or the link is down.

        They are valid until the next call of this or of :meth:`wait_readable`.
        """

    @abstractmethod
    def send(self, frames: deque[bytes]) -> bool:
        """Take frames from the left as long as the kernel does. While the link is down they are discarded.

        :return: whether all are on their way. If not, :meth:`wait_writable` and call it again, even with nothing more to send.
        """

    @abstractmethod
    async def wait_readable(self) -> None:
        """Until there may be frames."""

    @abstractmethod
    async def wait_writable(self) -> None:
        """Until the kernel may take frames again."""

    @abstractmethod
    async def wait_change(self) -> None:
        """Until :attr:`up`, :attr:`downs`, :attr:`mtu` or :attr:`address` is another than when this was last asked."""

    @abstractmethod
    def set_addresses(self, addresses: frozenset[bytes]) -> None:
        """The MAC addresses, unicast and multicast, whose frames are to come in; those to the link's own always do."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; may be called again."""

    @abstractmethod
    def refresh(self) -> None:
        """Bring :attr:`counters` up to date with what the kernel counts."""


def mtu_notices(option: str, mtu: int, remedy: str) -> tuple[str, ...]:
    """What a user should know of an MTU.

    :param option: what the user wrote, for the message.
    :param remedy: how to raise it.
    :raises ConfigError: no FC frame fits.
    """
    if mtu < MIN_MTU:
        raise ConfigError(f"{option}: MTU {mtu} carries no FC frame, which needs {MIN_MTU} at least; {remedy}")
    if mtu >= FULL_MTU:
        return ()
    size = receive_data_field_size(mtu)
    return (
        f"{option}: MTU {mtu} is too small for full FC frames, which need {FULL_MTU}: receive data field size {size}; {remedy}",
    )
