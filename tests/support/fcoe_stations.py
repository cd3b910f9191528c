"""Stations on one Ethernet segment, with a clock of their own, and an FC-4 that notes what it is told."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf

from tcm_fcoe.protocol.basic import UNKNOWN_EXCHANGE, Abts, BasicAccept, BasicReject
from tcm_fcoe.protocol.els import E_STAT_RESPONDER, Plain
from tcm_fcoe.protocol.fc4 import ExchangeState, ShortWays
from tcm_fcoe.protocol.fcoe import decapsulate
from tcm_fcoe.protocol.frame import Frame
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import name_from_mac
from tcm_fcoe.protocol.remote_port import RemotePort
from tcm_fcoe.protocol.station import Station

TARGET, INITIATOR = 0x12, 0x22
"""FCP service parameters: function, and READ FCP_XFER_RDY disabled."""
INTERFACE = bytes.fromhex("525400000000")


def mac_of(number: int) -> bytes:
    """A MAC address whose port name asks for FC_ID ``number`` in VN2VN mode."""
    return INTERFACE[:4] + number.to_bytes(2, "big")


class NotingFc4:
    """It has one exchange with everybody, of the OX_ID in ``known``, and notes what comes."""

    def __init__(self, parameters: int) -> None:
        self.service_parameters = parameters
        self.granted = 0
        self.short_ways: ShortWays = {}
        self.next_timer = inf
        self.events: list[tuple[object, ...]] = []
        self.frames: list[tuple[int, int, bytes]] = []
        """S_ID, OX_ID, payload of each FCP frame."""
        self.answer: int = True
        self.known: set[int] = set()
        self.late: list[Callable[[BasicAccept | BasicReject], None]] = []
        self.answers_late = False

    def process_login(self, remote: RemotePort, parameters: int, now: float) -> int:
        self.events.append(("login", remote.fc_id, parameters))
        return self.answer

    def process_logout(self, remote: RemotePort, reason: str, now: float) -> None:
        self.events.append(("logout", remote.fc_id, reason))

    def receive(self, remote: RemotePort, frame: Frame, now: float) -> None:
        self.frames.append((remote.fc_id, frame.ox_id, bytes(frame.payload)))

    def abort(
        self, remote: RemotePort, abts: Abts, reply: Callable[[BasicAccept | BasicReject], None], now: float
    ) -> BasicAccept | BasicReject | None:
        self.events.append(("abort", remote.fc_id, abts.ox_id))
        if abts.ox_id not in self.known:
            return UNKNOWN_EXCHANGE
        if self.answers_late:
            self.late.append(reply)
            return None
        return BasicAccept(abts.ox_id, 0x77)

    def rec(self, remote: RemotePort, ox_id: int, rx_id: int, identifier: int = 0) -> ExchangeState | None:
        return ExchangeState(0x77, 4096, E_STAT_RESPONDER) if ox_id in self.known else None

    def srr(self, remote: RemotePort, payload: bytes, now: float, identifier: int = 0) -> bytes:
        self.events.append(("srr", remote.fc_id, payload))
        return Plain().pack()

    def resume(self, now: float) -> None:
        self.events.append(("resume",))

    def handle_timer(self, now: float) -> None:
        self.events.append(("timer", now))
        self.next_timer = inf


class Segment:
    """Frames go from each station to all the others, at once and in order, but those that ``drop`` is for."""

    def __init__(self, *stations: Station) -> None:
        self.stations = list(stations)
        self.now = 1000.0
        self.drop: Callable[[bytes], bool] = lambda _frame: False
        self.seen: list[bytes] = []
        """Whole Ethernet frames, those that were dropped too."""

    def up(self, seconds: float = 3.0) -> None:
        """Links come up; enough time for everybody to have found everybody."""
        for station in self.stations:
            station.link_up(self.now)
        self.run(seconds)

    def exchange(self) -> None:
        """Let them talk as long as they have something to say without waiting."""
        for _ in range(10_000):
            sent = False
            for station in self.stations:
                frames = list(station.outbox)
                station.outbox.clear()
                sent = sent or bool(frames)
                self.seen += frames
                kept = [memoryview(frame) for frame in frames if not self.drop(frame)]
                for other in self.stations:
                    if other is not station:
                        other.receive(kept, self.now)
            if not sent:
                return
        raise AssertionError("they never stop talking")

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        self.exchange()
        while True:
            when = min(station.next_timer for station in self.stations)
            if when > end:
                break
            self.now = max(self.now, when)
            for station in self.stations:
                station.handle_timer(self.now)
            self.exchange()
        self.now = end

    def fc_frames(self) -> list[Frame]:
        """FCoE frames that went by."""
        found = []
        for frame in self.seen:
            if frame[12:14] == b"\x89\x06":
                sof, fc, eof = decapsulate(memoryview(frame)[14:])
                found.append(Frame.unpack(fc, sof, eof))
        return found

    def els(self) -> list[tuple[int, int, bytes]]:
        """(S_ID, OX_ID, payload) of the ELS frames that went by."""
        return [(frame.s_id, frame.ox_id, bytes(frame.payload)) for frame in self.fc_frames() if frame.r_ctl in (0x22, 0x23)]


def station_of(number: int, parameters: int, *, mode: str = "vn2vn", **options: object) -> tuple[Station, NPort, NotingFc4]:
    """A station with one port whose name ends in ``number``."""
    mac = mac_of(number)
    station = Station(mode, mac, rng=random.Random(number), **options)  # type: ignore[arg-type]
    fc4 = NotingFc4(parameters)
    port = NPort(name_from_mac(mac), name_from_mac(mac, naa=1), fc4)
    station.add_port(port, 0.0)
    return station, port, fc4
