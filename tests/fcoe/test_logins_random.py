"""Logins under loss, duplication, disorder, links that come and go: in the end all have image pairs, and nothing is left."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fcoe_stations import INITIATOR, TARGET, NotingFc4, Segment, station_of
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.remote_port import State

BOTH = TARGET | INITIATOR
ROLES = st.sampled_from([(TARGET, INITIATOR), (INITIATOR, TARGET), (BOTH, BOTH), (BOTH, INITIATOR), (TARGET, BOTH)])


class BadSegment(Segment):
    """Loses, doubles and turns around FCoE frames, with the chance ``rate`` each."""

    def __init__(self, *stations, rng: random.Random) -> None:
        super().__init__(*stations)
        self.rng = rng
        self.rate = 0.0

    def exchange(self) -> None:
        for _ in range(10_000):
            sent = False
            for station in self.stations:
                frames = list(station.outbox)
                station.outbox.clear()
                sent = sent or bool(frames)
                kept = []
                for frame in frames:
                    if self.rng.random() < self.rate:
                        continue
                    kept.append(memoryview(frame))
                    if self.rng.random() < self.rate:
                        kept.append(memoryview(frame))
                if self.rng.random() < self.rate:
                    self.rng.shuffle(kept)
                for other in self.stations:
                    if other is not station:
                        other.receive(kept, self.now)
            if not sent:
                return
        raise AssertionError("they never stop talking")


def consistent(port: NPort, fc4: NotingFc4) -> None:
    """What the FC-4 was told is what the port knows."""
    paired: set[int] = set()
    for event in fc4.events:
        if event[0] == "login":
            paired.add(event[1])
        elif event[0] == "logout":
            assert event[1] in paired, "a logout of a port that was not logged in"
            paired.remove(event[1])
    assert paired == port.logins.image_pairs.keys()
    assert paired == {fc_id for fc_id, remote in port.remotes.items() if remote.state is State.READY}
    for fc_id, remote in port.remotes.items():
        assert remote.fc_id == fc_id


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), roles=ROLES, swapped=st.booleans(), mode=st.sampled_from(["vn2vn", "p2p"]))
def test_a_target_that_logs_out_is_logged_in_again_whatever_is_lost(seed, roles, swapped, mode):
    """LOGO, PRLO and frames that are lost are nobody's end, while discovery says that both are there."""
    rng = random.Random(seed)
    numbers = (0x200, 0x100) if swapped else (0x100, 0x200)
    made = [station_of(number, role, mode=mode) for number, role in zip(numbers, roles, strict=True)]
    segment = BadSegment(*(station for station, _port, _fc4 in made), rng=rng)
    segment.up(5.0)
    for _ in range(6):
        segment.rate = 0.4
        segment.run(rng.choice((0.01, 0.5, 3.0, 20.0)))
        port = next((port for _station, port, fc4 in made if fc4.service_parameters == TARGET), made[0][1])
        for remote in list(port.remotes.values()):
            rng.choice((port.process_logout, port.logout))(remote, segment.now)
        segment.rate = 0.0
        segment.run(200.0)
        for _station, each, fc4 in made:
            consistent(each, fc4)
            assert [remote.state for remote in each.remotes.values()] == [State.READY]


MODES = [("vn2vn", "vn2vn"), ("p2p", "p2p"), ("fcf", "fabric")]


@pytest.mark.parametrize("modes", MODES, ids="-".join)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), roles=ROLES, swapped=st.booleans(), rate=st.sampled_from([0.01, 0.1, 0.3]))
def test_everybody_is_logged_in_in_the_end(modes, seed, roles, swapped, rate):
    rng = random.Random(seed)
    if modes[0] == "fcf":  # a port in the switch does not look for others
        roles = (TARGET, INITIATOR)
    numbers = (0x200, 0x100) if swapped else (0x100, 0x200)
    made = [station_of(number, role, mode=mode) for number, role, mode in zip(numbers, roles, modes, strict=True)]
    segment = BadSegment(*(station for station, _port, _fc4 in made), rng=rng)
    segment.up(1.0)
    segment.rate = rate
    for _ in range(12):
        segment.run(rng.choice((0.01, 0.5, 3.0, 20.0)))
        station, port, _fc4 = rng.choice(made)
        remotes = list(port.remotes.values())
        action = rng.randrange(6)
        if action == 0:
            station.link_down(segment.now)
            segment.run(rng.random())
            station.link_up(segment.now)
        elif action == 1 and remotes:
            port.process_logout(rng.choice(remotes), segment.now)
        elif action == 2 and remotes:
            port.logout(rng.choice(remotes), segment.now)
        elif action == 3 and remotes:
            fc_id = rng.choice(remotes).fc_id
            port.aborts.abort(fc_id, rng.randrange(0x1000, 0x2000), 0xFFFF, segment.now)
        for _station, each, fc4 in made:
            consistent(each, fc4)
    segment.rate = 0.0
    for station in segment.stations:  # as after an administrator's: neither waits for the other to begin
        station.link_down(segment.now)
    segment.run(200.0)
    for station in segment.stations:
        station.link_up(segment.now)
    segment.run(200.0)
    for _station, port, fc4 in made:
        consistent(port, fc4)
        assert [remote.state for remote in port.remotes.values()] == [State.READY]
        assert len(port.exchanges) == len(port.aborts) == len(port.sequences) == len(port.qualifiers) == 0
        assert len(port.timers) == 0
