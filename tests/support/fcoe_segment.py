"""FCoE controllers on one Ethernet segment, in memory: a clock that is set, and all frames kept."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from tcm_fcoe.protocol import fip
from tcm_fcoe.protocol.controller import COUNTERS, FCP_INITIATOR, FCP_TARGET, Controller
from tcm_fcoe.protocol.fcoe import COUNTERS as FCOE_COUNTERS
from tcm_fcoe.protocol.fcoe import FcoeError, decapsulate
from tcm_fcoe.protocol.fip import FipPdu
from tcm_fcoe.protocol.frame import Frame

BOTH = FCP_INITIATOR | FCP_TARGET


@dataclass(eq=False)
class Fcp:
    service_parameters: int = BOTH


@dataclass(eq=False)
class Port:
    """A local N_Port that takes down what it is told."""

    port_name: bytes
    node_name: bytes
    fc4: Fcp = field(default_factory=Fcp)
    fc_id: int = 0
    fabric: bool = False
    remotes: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)


class Services:
    """The station of one controller."""

    def __init__(self) -> None:
        self.sent: deque[bytes] = deque()
        self.untagged: list[bytes] = []
        self.counters: Counter[str] = Counter()
        self.moved: list[Port] = []
        self.reports: list[str] = []
        self.vlan: int | None = None
        self.strict = True
        """Remote ports go down that have come up, and no others. An FCF does not know which of them a port has met."""

    def transmit(self, frame: bytes) -> None:
        assert len(frame) >= 60
        self.sent.append(frame)

    def transmit_untagged(self, frame: bytes) -> None:
        self.untagged.append(frame)
        self.transmit(frame)

    def interface_errors(self) -> tuple[int, int, int, int]:
        return 7, 0, 0, 3

    def count(self, counter: str) -> None:
        assert counter in COUNTERS or counter in FCOE_COUNTERS, counter
        self.counters[counter] += 1

    def port_up(
        self, port: Any, fc_id: int, *, fabric: bool, e_d_tov: float, r_a_tov: float, receive_size: int, now: float
    ) -> None:
        assert not port.fc_id
        assert 0 < fc_id < 0xFFFC00
        assert e_d_tov > 0
        assert r_a_tov > 0
        assert 256 <= receive_size <= 2112
        port.fc_id, port.fabric = fc_id, fabric
        port.events.append(("up", fc_id))

    def port_down(self, port: Any, reason: str, now: float) -> None:
        assert port.fc_id
        assert reason
        port.fc_id = 0
        port.remotes.clear()
        port.events.append(("down", reason))

    def remote_up(self, port: Any, fc_id: int, port_name: bytes, node_name: bytes, now: float) -> None:
        assert port.fc_id
        assert fc_id not in port.remotes
        assert fc_id != port.fc_id
        port.remotes[fc_id] = (port_name, node_name)
        port.events.append(("remote up", fc_id))

    def remote_down(self, port: Any, fc_id: int, reason: str, now: float) -> None:
        assert reason
        if self.strict:
            del port.remotes[fc_id]
        port.events.append(("remote down", fc_id, reason))

    def routes_changed(self, port: Any) -> None:
        self.moved.append(port)

    def report(self, text: str) -> None:
        assert "\n" not in text
        self.reports.append(text)

    def vlan_found(self, vlan: int) -> None:
        self.vlan = vlan

    def received(self, port: Any, frame: Frame, now: float) -> None:
        port.frames.append(frame)


def mac_of(number: int) -> bytes:
    return bytes.fromhex("525400") + number.to_bytes(3, "big")


def port_of(mac: bytes, *, qualifier: int = 0, parameters: int = BOTH) -> Port:
    """Names as Linux makes them from a MAC address."""
    return Port((0x2000 | qualifier).to_bytes(2, "big") + mac, b"\x10\0" + mac, Fcp(parameters))


def decoded(frame: bytes) -> FipPdu:
    return fip.decode(memoryview(frame)[14:])


class Station:
    """One controller and its ports."""

    def __init__(self, kind: type[Controller], mac: bytes, *, seed: int = 1, **options: Any) -> None:
        self.services = Services()
        self.mac = mac
        self.controller = kind(self.services, mac, rng=random.Random(seed), **options)
        self.ports: list[Port] = []

    def receive(self, ethernet: bytes, now: float) -> Port | None:
        """As the interface and the station do."""
        destination, source, ether_type = ethernet[:6], ethernet[6:12], ethernet[12:14]
        if destination != self.mac and destination not in self.controller.addresses():
            return None
        if ether_type == fip.ETHERTYPE:
            self.controller.receive_fip(destination, source, memoryview(ethernet)[14:], now)
            return None
        try:
            sof, fc, eof = decapsulate(memoryview(ethernet)[14:])
            frame = Frame.unpack(fc, sof, eof)
        except FcoeError as e:
            self.services.count(e.counter)
            return None
        port = self.controller.receive_fcoe(destination, source, frame, now)
        if port is not None:
            port.frames.append(frame)
        return port


class Segment:
    """All stations hear all frames, in order, at once."""

    def __init__(self, *stations: Station) -> None:
        self.stations = list(stations)
        self.now = 100.0
        self.frames: list[bytes] = []
        """All that were sent."""
        self.lose: Any = None
        """Says of a frame whether it gets lost."""

    def up(self, *stations: Station) -> None:
        for station in stations or self.stations:
            for port in station.ports:
                if port.port_name not in station.controller.ports:
                    station.controller.add_port(port, self.now)
            station.controller.link_up(self.now)
        self.deliver()

    def deliver(self) -> None:
        """Until nobody says anything more."""
        for _ in range(10000):
            sender = next((each for each in self.stations if each.services.sent), None)
            if sender is None:
                return
            frame = sender.services.sent.popleft()
            self.frames.append(frame)
            if self.lose is not None and self.lose(frame):
                continue
            for station in self.stations:
                if station is not sender:
                    station.receive(frame, self.now)
        raise AssertionError("they never stop talking")

    def inject(self, frame: bytes) -> None:
        """A frame of nobody here."""
        for station in self.stations:
            station.receive(frame, self.now)
        self.deliver()

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        self.deliver()
        for _ in range(100000):
            following = min(each.controller.next_timer for each in self.stations)
            if following > end:
                break
            self.now = max(self.now, following)
            for station in self.stations:
                if station.controller.next_timer <= self.now:
                    station.controller.handle_timer(self.now)
                    assert station.controller.next_timer > self.now
            self.deliver()
        else:
            raise AssertionError("time stands still")
        self.now = end

    def pdus(self, source: Station | None = None) -> list[FipPdu]:
        """FIP PDUs that were sent, by one station only if it is given (by its own MAC address)."""
        return [
            decoded(frame)
            for frame in self.frames
            if frame[12:14] == fip.ETHERTYPE
            and (
                source is None or frame[6:12] == source.mac or decoded(frame).find(fip.MacAddress) == fip.MacAddress(source.mac)
            )
        ]
