"""What the kernel says of a network interface, and when that has changed (netdevice(7), rtnetlink(7))."""

from __future__ import annotations

import errno
import fcntl
import socket
from dataclasses import dataclass
from struct import Struct, error

SIOCGIFFLAGS, SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX = 0x8913, 0x8921, 0x8927, 0x8933
IFF_UP, IFF_RUNNING = 0x1, 0x40
ARPHRD_ETHER = 1
MAX_NAME_LENGTH = 15
RTMGRP_LINK = 1
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
NLM_F_REQUEST = 1
IFLA_STATS64 = 23

_REQUEST = Struct("16s24s")
_INT = Struct("i")
_SHORT = Struct("H")
_HARDWARE = Struct("H6s")
_MESSAGE = Struct("=IHHII")
_LINK = Struct("=BBHiII")
_ALIGNMENT = 4
_ATTRIBUTE = Struct("=HH")
_STATISTICS = Struct("=13Q")
"""``rtnl_link_stats64`` up to its ``rx_crc_errors``."""


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as it was when we looked."""

    name: str
    index: int
    address: bytes
    mtu: int
    enabled: bool
    """The administrator wants it up."""
    running: bool
    """It is, and there is somebody at the other end of the cable."""
    ethernet: bool


def look(name: str, sock: socket.socket) -> Interface | None:
    """The interface of this name in the socket's network namespace; ``None``: there is none."""

    def ask(request: int) -> bytes:
        return fcntl.ioctl(sock, request, _REQUEST.pack(name.encode(), b""))[16:]

    try:
        (flags,) = _SHORT.unpack_from(ask(SIOCGIFFLAGS))
        kind, address = _HARDWARE.unpack_from(ask(SIOCGIFHWADDR))
        return Interface(
            name=name,
            index=_INT.unpack_from(ask(SIOCGIFINDEX))[0],
            address=address,
            mtu=_INT.unpack_from(ask(SIOCGIFMTU))[0],
            enabled=bool(flags & IFF_UP),
            running=flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING,
            ethernet=kind == ARPHRD_ETHER,
        )
    except OSError as e:
        if e.errno in {errno.ENODEV, errno.ENXIO}:
            return None
        raise


def parse_frame_check_errors(message: bytes) -> int:
    """``rx_crc_errors`` of an RTM_NEWLINK message; 0 if there are no statistics in it."""
    if len(message) < _MESSAGE.size or _MESSAGE.unpack_from(message)[1] != RTM_NEWLINK:
        return 0
    offset = _MESSAGE.size + _LINK.size
    while offset + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if kind == IFLA_STATS64 and length >= _ATTRIBUTE.size + _STATISTICS.size <= len(message) - offset:
            return int(_STATISTICS.unpack_from(message, offset + _ATTRIBUTE.size)[12])
        offset += max(length, _ATTRIBUTE.size) + _ALIGNMENT - 1 & -_ALIGNMENT
    return 0


class LinkMonitor:
    """A socket that tells of interfaces that change."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self.sock.bind((0, RTMGRP_LINK))
        self.questions = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)

    def frame_check_errors(self, index: int) -> int:
        """How many frames an interface has dropped for their frame check sequence. Raises ``OSError`` if it is gone."""
        length = _MESSAGE.size + _LINK.size
        question = _MESSAGE.pack(length, RTM_GETLINK, NLM_F_REQUEST, 1, 0) + _LINK.pack(socket.AF_UNSPEC, 0, 0, index, 0, 0)
        self.questions.send(question)
        return parse_frame_check_errors(self.questions.recv(65536))  # the answer is there as soon as the question is sent

    def drain(self, index: int) -> bool:
        """Read what it has told.

        :return: whether the interface of this index was down or gone for a moment, however short.
        """
        down = False
        while True:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return down
            except OSError as e:
                if e.errno != errno.ENOBUFS:  # it has had to drop messages: nothing is known of the time between
                    raise
                continue
            offset = 0
            while offset + _MESSAGE.size <= len(data):
                length, kind, *_ = _MESSAGE.unpack_from(data, offset)
                try:
                    _, _, _, number, flags, _ = _LINK.unpack_from(data, offset + _MESSAGE.size)
                except error:
                    break
                if number == index and (kind == RTM_DELLINK or (kind == RTM_NEWLINK and not flags & IFF_RUNNING)):
                    down = True
                offset += max(length, _MESSAGE.size) + _ALIGNMENT - 1 & -_ALIGNMENT

    def close(self) -> None:
        self.sock.close()
        self.questions.close()
