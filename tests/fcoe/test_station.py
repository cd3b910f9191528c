"""Stations on one segment: they find each other, log in, speak FCP, and part; frames that nobody can read are counted."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fcoe_capture import FCOE, captured
from support.fcoe_stations import INITIATOR, TARGET, NotingFc4, Segment, mac_of, station_of
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.ethernet import insert_tag, vlan_tag
from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3, encapsulate
from tcm_fcoe.protocol.fcp import InformationUnit
from tcm_fcoe.protocol.frame import Frame, pack_header
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import name_from_mac
from tcm_fcoe.protocol.remote_port import State
from tcm_fcoe.protocol.station import Station


def commands(segment: Segment) -> list[str]:
    return [f"{s_id:x} {ElsCommand(payload[0]).name}" for s_id, _ox_id, payload in segment.els()]


@pytest.mark.parametrize("target_is_greater", [True, False])
def test_a_target_and_an_initiator_log_in(target_is_greater):
    """PLOGI comes from the greater port name, PRLI from the initiator (golden trace, frames 13 to 18)."""
    numbers = (0x200, 0x100) if target_is_greater else (0x100, 0x200)
    target, target_port, target_fc4 = station_of(numbers[0], TARGET)
    initiator, initiator_port, initiator_fc4 = station_of(numbers[1], INITIATOR)
    segment = Segment(target, initiator)
    segment.up()
    first, second = ("200", "100")
    t, i = (f"{number:x}" for number in numbers)
    assert commands(segment) == [f"{first} PLOGI", f"{second} LS_ACC", f"{i} PRLI", f"{t} LS_ACC"]
    assert target_fc4.events == [("login", numbers[1], INITIATOR)]
    assert initiator_fc4.events == [("login", numbers[0], TARGET)]
    assert target_port.remotes[numbers[1]].state is State.READY
    remote = initiator_port.remotes[numbers[0]]
    assert remote.state is State.READY
    assert remote.max_frame == 2112
    assert remote.port_name == target_port.port_name
    assert "PLOGI" in remote.story()
    assert target.counters.as_dict()["prli_in"] == 1
    # FCP both ways: nothing is between the line and the FC-4
    prefix = remote.prefix
    assert prefix is not None
    header = pack_header(0x06, numbers[0], numbers[1], 0x08, 0x290000, 1, 0, 0, 0x1234, 0xFFFF, 0)
    initiator.outbox.append(encapsulate(prefix, SOF_I3, header, b"command.", EOF_T))
    segment.exchange()
    assert target_fc4.frames == [(numbers[1], 0x1234, b"command.")]


def test_two_initiators_and_two_targets_of_one_interface():
    target = Station("vn2vn", mac_of(0x300), rng=random.Random(3))
    ports = []
    for qualifier in (0, 1):
        fc4 = NotingFc4(TARGET)
        port = NPort(name_from_mac(mac_of(0x300 + qualifier), qualifier=qualifier), name_from_mac(mac_of(0x300), naa=1), fc4)
        target.add_port(port, 0.0)
        ports.append((port, fc4))
    others = [station_of(number, INITIATOR) for number in (0x100, 0x900)]
    segment = Segment(target, *(station for station, _port, _fc4 in others))
    segment.up()
    for port, fc4 in ports:
        assert sorted(event[:2] for event in fc4.events) == [("login", 0x100), ("login", 0x900)]
        assert len(port.remotes) == 2
    with pytest.raises(ValueError, match="in use"):
        target.add_port(NPort(ports[0][0].port_name, ports[0][0].node_name, NotingFc4(TARGET)), 0.0)
    gone = ports[0][0]
    target.remove_port(gone, segment.now)
    segment.run(1.0)
    assert ports[0][1].events[-1][0] == "logout"
    assert {each.fc_id for each in others[0][1].remotes.values() if each.ready} == {ports[1][0].fc_id}


def test_link_down_and_up_again():
    target, _port, target_fc4 = station_of(0x100, TARGET)
    initiator, _other, initiator_fc4 = station_of(0x200, INITIATOR)
    segment = Segment(target, initiator)
    segment.up()
    for station in segment.stations:
        station.link_down(segment.now)
    assert target_fc4.events[-1] == ("logout", 0x200, "link down")
    assert initiator_fc4.events[-1] == ("logout", 0x100, "link down")
    assert target.counters.link_failures == 1
    segment.up(30.0)
    assert [event[0] for event in target_fc4.events] == ["login", "logout", "login"]
    assert [event[0] for event in initiator_fc4.events] == ["login", "logout", "login"]


def test_a_station_that_stops_logs_out():
    target, _port, target_fc4 = station_of(0x100, TARGET)
    initiator, _other, initiator_fc4 = station_of(0x200, INITIATOR)
    segment = Segment(target, initiator)
    segment.up()
    target.stop(segment.now)
    segment.exchange()
    assert target_fc4.events[-1][0] == "logout"
    assert initiator_fc4.events[-1][0] == "logout"


def test_a_lost_frame_of_each_kind_does_not_keep_them_apart():
    """The first PLOGI, LS_ACC, PRLI, LS_ACC are lost, each once."""
    lost: list[bytes] = []

    def drop(frame: bytes) -> bool:
        if frame[12:14] == b"\x89\x06" and frame[28] in (0x22, 0x23):
            kind = frame[33:36] + frame[28:29] + frame[52:53]
            if kind not in lost:
                lost.append(kind)
                return True
        return False

    target, _port, target_fc4 = station_of(0x100, TARGET)
    initiator, _other, initiator_fc4 = station_of(0x200, INITIATOR)
    segment = Segment(target, initiator)
    segment.drop = drop
    segment.up(120.0)
    assert len(lost) == 3  # the initiator is the greater here
    assert target_fc4.events[-1] == ("login", 0x200, INITIATOR)
    assert initiator_fc4.events == [("login", 0x100, TARGET)]
    assert initiator.counters.els_timed_out >= 2


def test_a_vlan_is_the_only_one():
    target, target_port, _fc4 = station_of(0x100, TARGET, vlan=7)
    initiator, _other, _fc4_2 = station_of(0x200, INITIATOR, vlan=7)
    segment = Segment(target, initiator)
    segment.up()
    assert all(frame[12:16] == vlan_tag(7) for frame in segment.seen)
    assert target_port.remotes[0x200].ready
    frame = next(frame for frame in segment.seen if frame[16:18] == b"\x89\x06")
    untagged = frame[:12] + frame[16:]
    before = target.counters.other_vlans
    target.receive([memoryview(untagged), memoryview(insert_tag(untagged, vlan_tag(8)))], segment.now)
    assert target.counters.other_vlans == before + 2
    # a priority tag belongs to no VLAN
    plain, _plain_port, _ = station_of(0x100, TARGET)
    plain.link_up(0.0)
    plain.receive([memoryview(insert_tag(untagged, vlan_tag(0)))], 0.0)
    assert plain.counters.other_vlans == 0
    assert plain.counters.frames_in == 1


def test_a_small_mtu_makes_small_frames():
    target, target_port, _fc4 = station_of(0x100, TARGET, mtu=1500)
    initiator, initiator_port, _fc4_2 = station_of(0x200, INITIATOR, mtu=9000)
    segment = Segment(target, initiator)
    segment.up()
    assert target_port.receive_size == (1500 - 46) & ~3
    assert target_port.remotes[0x200].max_frame == initiator_port.remotes[0x100].max_frame == (1500 - 46) & ~3


def good_frame() -> bytes:
    header = pack_header(0x06, 0x100, 0x200, 0x08, 0x290000, 1, 0, 0, 0x1234, 0xFFFF, 0)
    prefix = bytes.fromhex("0efd000001000efd000002008906")
    return encapsulate(prefix, SOF_I3, header, bytes(36), EOF_T)


@pytest.fixture(scope="module")
def ready():
    target, _port, fc4 = station_of(0x100, TARGET)
    initiator, _other, _fc4 = station_of(0x200, INITIATOR)
    segment = Segment(target, initiator)
    segment.up()
    return target, fc4


def counted(station: Station, frame: bytes) -> dict[str, int]:
    """The counters that a frame changes, but that of all frames."""
    before = station.counters.as_dict()
    station.receive([memoryview(frame)], 2000.0)
    after = station.counters.as_dict()
    return {name: after[name] - before[name] for name in after if after[name] != before[name] and name != "frames_in"}


def test_the_frame_that_the_next_tests_spoil_is_good(ready):
    target, fc4 = ready
    assert counted(target, good_frame()) == {}
    assert fc4.frames[-1] == (0x200, 0x1234, bytes(36))


@pytest.mark.parametrize("length", range(len(good_frame())))
def test_a_frame_cut_at_every_byte(ready, length):
    target, fc4 = ready
    before = len(fc4.frames)
    (counter,) = counted(target, good_frame()[:length])
    assert counter == ("short_frames" if length < 14 else "bad_length" if length < 60 or length & 3 != 0 else counter)
    assert counter in {"short_frames", "bad_length", "bad_eof", "crc_errors"}
    assert len(fc4.frames) == before


@pytest.mark.parametrize("place", range(28, 92))
def test_a_byte_that_was_changed_on_the_way(ready, place):
    """Everything between SOF and EOF is under the CRC."""
    target, fc4 = ready
    frame = bytearray(good_frame())
    frame[place] ^= 0x40
    before = len(fc4.frames)
    assert counted(target, bytes(frame)) == {"crc_errors": 1}
    assert len(fc4.frames) == before


DELIMITERS = [
    (14, 0x10, "bad_version"),
    (27, 0x00, "bad_sof"),
    (27, 0x41, "bad_sof"),
    (27, 0x28, "unsupported_class"),
    (27, 0x2D, "unsupported_class"),
    (27, 0x35, "unsupported_class"),
    (27, 0x39, "unsupported_class"),
    (92, 0x00, "bad_eof"),
    (92, 0x2E, "bad_eof"),
    (92, 0x46, "bad_eof"),
    (92, 0x49, "aborted_frames"),
    (92, 0x4E, "aborted_frames"),
    (92, 0x50, "aborted_frames"),
]


@pytest.mark.parametrize("place, value, counter", DELIMITERS)
def test_wrong_delimiters(ready, place, value, counter):
    target, _fc4 = ready
    frame = bytearray(good_frame())
    frame[place] = value
    assert counted(target, bytes(frame)) == {counter: 1}


HEADERS = [
    ({"d_id": 0x101}, {"fcoe_not_for_us": 1}),
    ({"s_id": 0x201}, {"fcoe_spoofed": 1}),
    ({"r_ctl": 0x08}, {"unknown_type": 1}),
    ({"r_ctl": 0x50}, {"unsupported_headers": 1}),
    ({"r_ctl": 0xC0}, {"unknown_type": 1}),
    ({"r_ctl": 0xFF}, {"unknown_type": 1}),
    ({"fc_type": 0x05}, {"unknown_type": 1}),
    ({"fc_type": 0x20}, {"unknown_type": 1}),
    ({"df_ctl": 0x20}, {"unsupported_headers": 1}),
    ({"df_ctl": 0x40}, {"unsupported_headers": 1}),
    ({"r_ctl": 0x23, "fc_type": 0x01}, {"unknown_exchange": 1}),
    ({"r_ctl": 0x03, "fc_type": 0x20}, {"unknown_exchange": 1}),
    ({"r_ctl": 0x33}, {"unknown_exchange": 1}),
    ({"r_ctl": 0x84, "fc_type": 0x00}, {"unknown_exchange": 1}),
    ({"r_ctl": 0x85, "fc_type": 0x00}, {"unknown_exchange": 1}),
    ({"r_ctl": 0x80, "fc_type": 0x00}, {}),
    ({"r_ctl": 0x81, "fc_type": 0x00}, {"abts_in": 1, "abts_rejected": 1}),
    ({"r_ctl": 0x22, "fc_type": 0x01}, {"els_in": 1, "els_rejected": 1}),
]


@pytest.mark.parametrize("changes, counters", HEADERS)
def test_headers_that_nobody_understands(ready, changes, counters):
    target, fc4 = ready
    values = {"r_ctl": 0x06, "d_id": 0x100, "s_id": 0x200, "fc_type": 0x08, "df_ctl": 0, **changes}
    header = pack_header(
        values["r_ctl"], values["d_id"], values["s_id"], values["fc_type"], 0x290000, 1, values["df_ctl"], 0, 9, 0xFFFF, 0
    )
    before = len(fc4.frames)
    frame = encapsulate(good_frame()[:14], SOF_I3, header, bytes(36), EOF_T)
    assert counted(target, frame) == counters
    assert len(fc4.frames) == before


def test_other_ether_types_are_not_ours(ready):
    target, _fc4 = ready
    assert counted(target, bytes(12) + b"\x08\x00" + bytes(46)) == {"other_ether_types": 1}
    assert counted(target, bytes(12) + b"\x81\x00\x00\x00\x08\x00" + bytes(46)) == {"other_ether_types": 1}
    assert counted(target, bytes(12) + b"\x81\x00\x00") == {"other_vlans": 1}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"\x89\x06", b"\x89\x14", b"\x81\x00", b""]))
def test_any_bytes_are_counted_and_nothing_else_happens(data, ether_type):
    target, port, _fc4 = station_of(0x100, TARGET)
    target.link_up(0.0)
    before = sum(target.counters.as_dict().values())
    target.receive([memoryview(bytes.fromhex("0efd000001000efd00000200") + ether_type + data)], 0.0)
    assert sum(target.counters.as_dict().values()) > before
    assert not port.remotes


def test_the_golden_trace_goes_through_a_station():
    """Every FCoE frame that Linux and LIO exchanged is one that a station can read, if not one for it."""
    target, _port, _fc4 = station_of(0x100, TARGET)
    target.link_up(0.0)
    frames = [memoryview(each.ethernet) for each in captured() if each.ether_type == FCOE]
    target.receive(frames, 0.0)
    counters = {name: value for name, value in target.counters.as_dict().items() if value}
    assert counters == {"frames_in": len(frames), "fcoe_not_for_us": len(frames)}


def test_addresses_are_told_once_for_each_change():
    target, _port, _fc4 = station_of(0x100, TARGET)
    first = target.take_addresses()
    assert first is not None
    assert target.take_addresses() is None
    target.link_up(0.0)
    segment = Segment(target)
    segment.run(3.0)
    second = target.take_addresses()
    assert second is not None
    assert bytes.fromhex("0efd00000100") in second - first


FIELDS = [name for name in Frame.__slots__ if name != "payload"]


@settings(max_examples=200, deadline=None)
@given(
    st.binary(min_size=24, max_size=24),
    st.binary(max_size=300),
    st.sampled_from([0x2E, 0x36]),
    st.sampled_from([0x41, 0x42]),
    st.booleans(),
)
def test_the_two_ways_to_read_a_frame_agree(header, payload, sof, eof, tagged):
    """The one that takes frames apart at once, and the one by :mod:`tcm_fcoe.protocol.fcoe` and ``frame``."""
    station, _port, _fc4 = station_of(0x100, TARGET, **({"vlan": 7} if tagged else {}))
    header = header[:11] + bytes((header[11] & 0xFC | -len(payload) & 3,)) + header[12:]
    tag = b"\x81\x00\x80\x07" if tagged else b""
    frame = memoryview(encapsulate(mac_of(1) + mac_of(2) + tag + b"\x89\x06", sof, header, payload, eof))
    seen = []
    station.controller.receive_fcoe = lambda *arguments: seen.append(arguments)  # type: ignore[method-assign]
    station._receive(frame, 1.0)  # which also learns the priority that the others set
    slow = []
    station._receive = lambda *arguments: slow.append(arguments)  # type: ignore[method-assign]
    station.receive([frame], 1.0)
    assert slow == []
    (one, other) = seen
    assert one[:2] == other[:2] == (mac_of(1), mac_of(2))
    assert [getattr(one[2], name) for name in FIELDS] == [getattr(other[2], name) for name in FIELDS]
    assert one[2].payload == other[2].payload == payload
    assert station.counters.frames_in == 2


@pytest.mark.parametrize("modes", [("vn2vn", "vn2vn"), ("fcf", "fabric")])
def test_a_crowd(modes):
    """Twenty initiators come up at once, and each has an image pair with the target once."""
    target, port, fc4 = station_of(0x10, TARGET, mode=modes[0])
    others = [station_of(0x100 + number, INITIATOR, mode=modes[1]) for number in range(20)]
    segment = Segment(target, *(station for station, _port, _fc4 in others))
    segment.up(60.0)
    assert sorted(event[1] for event in fc4.events) == sorted(other.fc_id for _station, other, _fc4 in others)
    assert {event[0] for event in fc4.events} == {"login"}
    assert all(other.remotes[port.fc_id].ready for _station, other, _fc4 in others)
    assert target.counters.plogi_collisions == target.counters.els_timed_out == 0


def fcp_to(station: Station, port: NPort, remote_id: int, ox_id: int, r_ctl: int = 0x06, source: int | None = None) -> bytes:
    """A frame of FCP from ``remote_id``, by its own MAC address or by that of ``source``."""
    header = pack_header(r_ctl, port.fc_id, remote_id, 0x08, 0x290000, 1, 0, 0, ox_id, 0xFFFF, 0)
    macs = [b"\x0e\xfd\x00" + number.to_bytes(3, "big") for number in (port.fc_id, source or remote_id)]
    return encapsulate(macs[0] + macs[1] + b"\x89\x06", SOF_I3, header, b"command.", EOF_T)


def test_a_batch_is_no_short_way_round_anything():
    """Frames that follow others of their kind in one batch are looked at no less: addresses, logins, recovery qualifiers."""
    target, port, fc4 = station_of(0x300, TARGET)
    others = [station_of(number, INITIATOR) for number in (0x100, 0x200)]
    segment = Segment(target, *(station for station, _port, _fc4 in others))
    segment.up()

    def receive(*frames: bytes) -> list[tuple[int, int]]:
        fc4.frames.clear()
        target.receive([memoryview(frame) for frame in frames], segment.now)
        return [(s_id, ox_id) for s_id, ox_id, _payload in fc4.frames]

    first, second = (lambda n: fcp_to(target, port, 0x100, n)), (lambda n: fcp_to(target, port, 0x200, n))
    assert receive(first(1), second(2), first(3), first(4), second(5)) == [
        (0x100, 1), (0x200, 2), (0x100, 3), (0x100, 4), (0x200, 5),
    ]  # fmt: skip
    before = target.counters.as_dict()
    spoofed = fcp_to(target, port, 0x100, 7, source=0x200)
    assert receive(first(6), spoofed, first(8)) == [(0x100, 6), (0x100, 8)]
    after = target.counters.as_dict()
    assert after["frames_in"] - before["frames_in"] == 3
    assert after["fcoe_spoofed"] - before["fcoe_spoofed"] == 1
    broken = bytearray(first(9))
    broken[60] ^= 1
    assert receive(first(8), bytes(broken), first(10)) == [(0x100, 8), (0x100, 10)]
    assert target.counters.crc_errors == 1
    elsewhere = bytearray(first(11))
    elsewhere[14] = 0x10  # a version that there is not
    assert receive(first(10), bytes(elsewhere), first(12)) == [(0x100, 10), (0x100, 12)]
    assert target.counters.bad_version == 1
    # ABTS makes a recovery qualifier of the exchange, which all that comes of it is dropped by
    abts = pack_header(0x81, port.fc_id, 0x100, 0x00, 0x090000, 1, 0, 0, 0x21, 0xFFFF, 0)
    fc4.known.add(0x21)
    prefix = first(0)[:14]
    aborted = encapsulate(prefix, SOF_I3, abts, b"", EOF_T)
    assert receive(first(0x20), aborted, first(0x20), first(0x21), first(0x22)) == [
        (0x100, 0x20), (0x100, 0x20), (0x100, 0x22),
    ]  # fmt: skip
    # LOGO ends the image pair: nothing that follows it in the batch is delivered
    logo = pack_header(0x22, port.fc_id, 0x100, 0x01, 0x290000, 1, 0, 0, 0x31, 0xFFFF, 0)
    payload = b"\x05\0\0\0" + (0x100).to_bytes(4, "big") + others[0][1].port_name
    leaves = encapsulate(prefix, SOF_I3, logo, payload, EOF_T)
    assert receive(first(0x30), second(0x30), leaves, first(0x32), second(0x33)) == [
        (0x100, 0x30), (0x200, 0x30), (0x200, 0x33),
    ]  # fmt: skip


def test_data_by_the_short_way_only_while_it_is_taken():
    """A frame of FCP_DATA that the FC-4 does not take so comes to it as all others do."""
    target, port, fc4 = station_of(0x300, TARGET)
    segment = Segment(target, station_of(0x100, INITIATOR)[0])
    segment.up()
    taken: list[int] = []

    def receive_data(remote, payload, sof, f_ctl, seq_id, seq_cnt, ox_id, rx_id, offset, now):
        assert (remote.fc_id, bytes(payload), sof, f_ctl, seq_id, seq_cnt, rx_id, offset, now) == (
            0x100, b"command.", SOF_I3, 0x290000, 1, 0, 0xFFFF, 0, segment.now,
        )  # fmt: skip
        if ox_id % 2:
            return False
        taken.append(ox_id)
        return True

    fc4.short_ways = {InformationUnit.FCP_DATA: receive_data}
    frames = [fcp_to(target, port, 0x100, ox_id, r_ctl=0x01) for ox_id in range(10)]
    frames.append(fcp_to(target, port, 0x100, 10, r_ctl=0x00))
    before = target.counters.frames_in
    target.receive([memoryview(frame) for frame in frames], segment.now)
    assert taken == [2, 4, 6, 8]
    assert [ox_id for _s_id, ox_id, _payload in fc4.frames] == [0, 1, 3, 5, 7, 9, 10]
    assert target.counters.frames_in - before == len(frames)
