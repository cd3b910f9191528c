"""A network interface as a link, by AF_PACKET (packet(7)): CAP_NET_RAW is enough."""

from __future__ import annotations

import errno
import logging
import socket
import time
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING

import anyio

from tcm.failure import ConfigError
from tcm_fcoe.link.base import Link, mtu_notices
from tcm_fcoe.link.interface import MAX_NAME_LENGTH, Interface, LinkMonitor, look
from tcm_fcoe.link.rings import SOL_PACKET, Rings
from tcm_fcoe.link.socket_filter import attach, program
from tcm_fcoe.protocol.ethernet import HEADER_LENGTH, MAX_FRAME_LENGTH, MIN_MTU, TAG_LENGTH

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

log = logging.getLogger("tcm.fcoe")

ETH_P_ALL = 3
PACKET_ADD_MEMBERSHIP, PACKET_DROP_MEMBERSHIP, PACKET_IGNORE_OUTGOING = 1, 2, 23
PACKET_MR_MULTICAST, PACKET_MR_PROMISC, PACKET_MR_UNICAST = 0, 1, 3
SO_SNDBUFFORCE = 32
SEND_BUFFER = 4 << 20
PAUSE = 0.0005
"""Seconds to wait when a queue is full that nobody can wait for."""

PATIENCE = 0.5
"""Seconds that one frame may come back from the kernel before it is dropped: a pause is shorter (IEEE 802.1Qbb), and a virtual
cable whose other end has a lesser MTU gives long frames back for ever."""

_MEMBERSHIP = Struct("iHH8s")
_GONE = frozenset((errno.ENETDOWN, errno.ENXIO, errno.ENODEV))
_FULL = frozenset((errno.EAGAIN, errno.ENOBUFS))


class PacketLink(Link):
    """An interface of this machine (of the network namespace that opens it).

    :param promiscuous: take frames to any address, which also puts the interface in promiscuous mode.
    :raises ConfigError: there is no such interface, it is down, it cannot carry FC frames, or we may not use it.
    """

    def __init__(self, name: str, *, promiscuous: bool = False) -> None:
        super().__init__(name)
        self.promiscuous = promiscuous
        self.wanted: frozenset[bytes] = frozenset()
        self.joined: dict[bytes, int] = {}
        """Addresses that the interface takes for us, with its index."""
        self.congested = False
        self.refused = -1, 0.0
        """Slot of the frame that the kernel has given back, and since when."""
        self.told: tuple[object, ...] = ()
        self.monitor = LinkMonitor()
        self.option = f"--interface {name}"
        try:
            found = self._usable()
            self.notices = self._mtu_notices(found.mtu)
            self.sock = self._socket()
            try:
                self.rings = self._rings()
                self._bind(found)
            except BaseException:
                self.sock.close()
                raise
        except BaseException:
            self.monitor.close()
            raise
        self.told = self._state()

    def _usable(self) -> Interface:
        name = self.name
        known = 0 < len(name.encode()) <= MAX_NAME_LENGTH and "\0" not in name
        found = look(name, self.monitor.sock) if known else None
        if found is None:
            raise ConfigError(
                f"{self.option}: there is no such interface; `ip link` lists those there are, and unix:LOCAL,PEER needs none"
            )
        if not found.ethernet:
            raise ConfigError(f"{self.option}: not an Ethernet interface; write one that `ip link` shows with link/ether")
        if not found.enabled:
            raise ConfigError(f"{self.option}: the interface is down; run `ip link set {name} up` first")
        return found

    def _mtu_notices(self, mtu: int) -> tuple[str, ...]:
        return mtu_notices(self.option, mtu, f"`ip link set {self.name} mtu 2500` allows them if the hardware does")

    def _socket(self) -> socket.socket:
        try:
            # protocol 0: nothing comes before the filter is there
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except PermissionError as e:
            raise ConfigError(
                f"{self.option}: raw frames need the capability CAP_NET_RAW; run as root, or give it to the interpreter: "
                "`setcap cap_net_raw+ep` and the path of the real python3 binary"
            ) from e
        try:
            sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        except OSError as e:
            sock.close()
            raise ConfigError(
                f"{self.option}: this kernel cannot leave out what we send ourselves; Linux 4.20 or later can"
            ) from e
        for option in (SO_SNDBUFFORCE, socket.SO_SNDBUF):  # the first takes more, and CAP_NET_ADMIN
            with suppress(PermissionError):
                sock.setsockopt(socket.SOL_SOCKET, option, SEND_BUFFER)
                break
        return sock

    def _rings(self) -> Rings:
        try:
            return Rings(self.sock, self.counters)
        except OSError as e:
            raise ConfigError(f"{self.option}: no rings for its frames: {e.strerror}; they take 9 MiB of memory") from e

    def _bind(self, found: Interface) -> None:
        """Use the interface from now on; it may be another one of the same name."""
        attach(self.sock, program(None if self.promiscuous else self.wanted | {found.address}))
        self.sock.bind((self.name, ETH_P_ALL))
        self.index, self.address, self.mtu = found.index, found.address, found.mtu
        self.up = found.running and found.mtu >= MIN_MTU
        self._set_limit()
        self._join()

    def set_addresses(self, addresses: frozenset[bytes]) -> None:
        if addresses == self.wanted:
            return
        self.wanted = addresses
        if not self.promiscuous:
            attach(self.sock, program(addresses | {self.address}))
        if self.index:
            self._join()

    def _join(self) -> None:
        """Have the hardware's own filter let pass what ours does."""
        gone = [each for each, index in self.joined.items() if each not in self.wanted or index != self.index]
        for address in gone:
            with suppress(OSError):  # went with its interface
                self._membership(PACKET_DROP_MEMBERSHIP, address, self.joined.pop(address))
        for address in self.wanted - self.joined.keys() - {self.address}:
            try:
                self._membership(PACKET_ADD_MEMBERSHIP, address, self.index)
            except OSError as e:
                log.warning("%s: the interface does not take frames to %s: %s", self.name, address.hex(":"), e.strerror)
            else:
                self.joined[address] = self.index
        if self.promiscuous and self.joined.get(b"") != self.index:
            with suppress(OSError):
                self._membership(PACKET_ADD_MEMBERSHIP, b"", self.index)
                self.joined[b""] = self.index

    def _membership(self, action: int, address: bytes, index: int) -> None:
        kind = PACKET_MR_PROMISC if not address else PACKET_MR_MULTICAST if address[0] & 1 else PACKET_MR_UNICAST
        self.sock.setsockopt(SOL_PACKET, action, _MEMBERSHIP.pack(index, kind, len(address), address))

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def rooms(self) -> Rings:
        return self.rings

    def receive(self) -> Sequence[memoryview]:
        return self.rings.receive()

    def send(self, frames: deque[bytes]) -> bool:
        rings = self.rings
        if not self.up:
            self.counters.discarded_frames += len(frames) + rings.forget_unsent()
            frames.clear()
            return True
        while True:
            if frames:
                rings.fill(frames)
            if not rings.unsent:
                return not frames
            rings.request()
            try:
                self.sock.send(b"")
            except OSError as e:
                if e.errno in _FULL:
                    self.congested = True
                    self.counters.congestions += 1
                    if e.errno == errno.ENOBUFS and self._given_back():
                        continue
                    return False
                self._failed(e)
                frames.clear()
                return True
            rings.unsent = 0
            self.refused = -1, 0.0
            if not frames:
                return True
            if rings.full:
                return False

    def _given_back(self) -> bool:
        """Whether the frame that the kernel did not take has been dropped, after long enough."""
        place, now = self.rings.oldest, time.monotonic()
        if place != self.refused[0]:
            self.refused = place, now
        elif now - self.refused[1] > PATIENCE:
            self.refused = -1, 0.0
            self.counters.discarded_frames += self.rings.drop_oldest()
            return True
        return False

    def _failed(self, error: OSError) -> None:
        """What could not be sent is lost, as on a wire."""
        if error.errno not in _GONE:
            log.warning("%s: cannot send: %s", self.name, error.strerror)
        self.counters.discarded_frames += self.rings.forget_unsent()
        if self.up:
            self.up = False
            self.downs += 1
            self._set_limit()

    def _set_limit(self) -> None:
        """Of the length of frames, as the MTU and the state of the link have it now."""
        self.rings.limit = min(self.mtu + HEADER_LENGTH + TAG_LENGTH, MAX_FRAME_LENGTH) if self.up else 0

    async def wait_readable(self) -> None:
        self.rings.release()
        await anyio.wait_readable(self.sock)
        self._clear_error()

    def _clear_error(self) -> None:
        """That the interface was down wakes us and refuses what we send until it has been read. The monitor tells better."""
        self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    async def wait_writable(self) -> None:
        if self.congested:
            self.congested = False
            await anyio.sleep(PAUSE)
        else:
            await anyio.wait_writable(self.sock)

    def _state(self) -> tuple[object, ...]:
        return self.up, self.downs, self.mtu, self.address

    async def wait_change(self) -> None:
        while self._state() == self.told:
            await anyio.wait_readable(self.monitor.sock)
            self._look()
        self.told = self._state()

    def _look(self) -> None:
        """Bring everything up to date with what the kernel says."""
        was_down = self.monitor.drain(self.index)
        found = look(self.name, self.monitor.sock)
        usable = found is not None and found.running and found.mtu >= MIN_MTU
        if self.up and (was_down or not usable):
            self.downs += 1
            self.counters.discarded_frames += self.rings.forget_unsent()
        if found is not None and found.mtu != self.mtu:
            try:
                self.notices = self._mtu_notices(found.mtu)
            except ConfigError as e:
                self.notices = (str(e),)
        self.up = usable
        if found is None:
            self.index = 0
        elif found.index != self.index:
            self._bind(found)
        else:
            if found.address != self.address:
                self.address = found.address
                attach(self.sock, program(None if self.promiscuous else self.wanted | {found.address}))
                self._join()
            self.mtu = found.mtu
        self._set_limit()
        self._clear_error()

    def refresh(self) -> None:
        self.rings.refresh()
        with suppress(OSError):  # the interface is gone
            self.counters.frame_check_errors = self.monitor.frame_check_errors(self.index)

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            self.rings.close()
            self.sock.close()
            self.monitor.close()
