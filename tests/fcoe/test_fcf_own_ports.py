"""Ports of the station that is the switch: they use its services as N_Ports at the end of a wire do."""

from __future__ import annotations

from support.fcoe_stations import INITIATOR, TARGET, NotingFc4, Segment, mac_of, station_of
from tcm_fcoe.protocol.ct_names import FEATURE_TARGET
from tcm_fcoe.protocol.fcf import FcfController
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import name_from_mac
from tcm_fcoe.protocol.station import Station


def ready(port: NPort) -> set[bytes]:
    return {remote.port_name for remote in port.remotes.values() if remote.ready}


def switch_of(station: Station) -> FcfController:
    assert isinstance(station.controller, FcfController)
    return station.controller


def test_an_initiator_of_the_fcf_finds_targets():
    """GID_FT at the start, RSCN for who comes later, comes back, or is gone (FC-GS 5.2, FC-LS-2 4.2.27)."""
    fcf, port, fc4 = station_of(0x10, INITIATOR, mode="fcf")
    first, first_port, _ = station_of(0x20, TARGET, mode="fabric")
    late, late_port, _ = station_of(0x30, TARGET, mode="fabric")
    segment = Segment(fcf, first)
    segment.up(5.0)
    assert port.name_client.registered
    assert ready(port) == {first_port.port_name}
    segment.stations.append(late)
    late.link_up(segment.now)
    segment.run(5.0)
    assert ready(port) == {first_port.port_name, late_port.port_name}
    first.stop(segment.now)
    segment.run(1.0)
    assert ready(port) == {late_port.port_name}
    first.link_up(segment.now)
    segment.run(5.0)
    assert ready(port) == {first_port.port_name, late_port.port_name}
    assert [event[0] for event in fc4.events if event[0] != "resume"] == ["login", "login", "logout", "login"]


def test_it_registers_itself():
    """Others see its names, which come from the port, not from the switch."""
    fcf, port, _ = station_of(0x10, TARGET, mode="fcf")
    port.symbolic_name = "a tape"
    Segment(fcf).up(1.0)
    entry = switch_of(fcf).switch.name_server.entries[port.fc_id]
    assert (entry.symbolic_port_name, entry.symbolic_node_name) == (b"a tape", b"a tape")
    assert entry.features == {8: FEATURE_TARGET}


def test_what_is_said_to_services_is_on_no_wire():
    fcf, port, _ = station_of(0x10, INITIATOR, mode="fcf")
    segment = Segment(fcf)
    segment.up(5.0)
    assert port.name_client.registered
    assert segment.fc_frames() == []
    assert fcf.counters.fcoe_no_route == 0


def test_two_ports_of_the_fcf_leave_each_other_alone():
    """There is no wire between them: no PLOGI is sent that nobody would carry."""
    fcf, initiator, _ = station_of(0x10, INITIATOR, mode="fcf")
    target = NPort(name_from_mac(mac_of(0x11)), name_from_mac(mac_of(0x11), naa=1), NotingFc4(TARGET))
    fcf.add_port(target, 0.0)
    segment = Segment(fcf)
    segment.up(60.0)
    assert initiator.name_client.registered
    assert target.name_client.registered
    assert not initiator.remotes
    assert not target.remotes
    assert fcf.counters.fcoe_no_route == 0


def test_the_link_of_the_fcf_goes_down_and_up():
    fcf, port, _ = station_of(0x10, INITIATOR, mode="fcf")
    other, other_port, _ = station_of(0x20, TARGET, mode="fabric")
    segment = Segment(fcf, other)
    segment.up(5.0)
    for station in segment.stations:
        station.link_down(segment.now)
    assert not port.is_up
    assert not port.remotes
    segment.up(5.0)
    assert ready(port) == {other_port.port_name}
    fcf.remove_port(port, segment.now)
    segment.run(1.0)
    assert not other_port.remotes
    assert switch_of(fcf).switch.ports.keys() == {other_port.fc_id}
