"""Invariant: whatever frames arrive from other MAC addresses, in whatever mode, a station raises nothing, holds a bounded
amount of everything, asks for no timer that has passed, and stays logged in with the port it was logged in with, both ways.

Run it by itself for as long as you like:  python tests/fuzz/fuzz_fcoe.py SECONDS [SEED]
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.fcoe_capture import captured
from support.fcoe_stations import INITIATOR, TARGET, Segment, mac_of, station_of
from tcm_fcoe.protocol import ethernet, fip
from tcm_fcoe.protocol.ct import CtIu
from tcm_fcoe.protocol.ct_names import NameServerCommand
from tcm_fcoe.protocol.els_codes import KNOWN_COMMANDS, ElsCommand
from tcm_fcoe.protocol.els_login import Login, ProcessLogin, ServicePage
from tcm_fcoe.protocol.enode_fcfs import MAX_FCFS
from tcm_fcoe.protocol.fcoe import Eof, Sof, encapsulate
from tcm_fcoe.protocol.fip import CONTENTS, LAYOUTS, FipPdu, Flag, Pdu
from tcm_fcoe.protocol.frame import fill, pack_header
from tcm_fcoe.protocol.names import DEFAULT_FC_MAP, VN2VN_FC_MAP, fabric_provided_mac
from tcm_fcoe.protocol.point_to_point import F_PORT_MAC, NO_MAC
from tcm_fcoe.protocol.remote_port import State
from tcm_fcoe.protocol.station import Station
from tcm_fcoe.protocol.switch import MAX_PORTS
from tcm_fcoe.protocol.vn2vn_neighbours import MAX_NEIGHBOURS

MODES = (("vn2vn", "vn2vn"), ("fcf", "fabric"), ("p2p", "p2p"), ("fabric", "fabric"))
"""Of a target and its initiator; if both are behind an FCF, there is one."""
FOES = tuple(mac_of(number) for number in range(0x6661, 0x6665))
GROUPS = (
    ethernet.ALL_ENODE_MACS,
    ethernet.ALL_FCF_MACS,
    ethernet.ALL_VN2VN_ENODE_MACS,
    ethernet.ALL_P2P_ENODE_MACS,
    F_PORT_MAC,
    ethernet.BROADCAST,
)
SERVICES = (0xFFFFFC, 0xFFFFFD, 0xFFFFFE, 0xFFFFFA, 0xFFFFFB)
MAX_OUTBOX = 20000
"""Frames that one burst may be answered with."""


class Site:
    """A target and an initiator that are logged in with each other, and strangers on their segment."""

    def __init__(self, modes: tuple[str, str], rng: random.Random) -> None:
        self.rng = rng
        self.target, self.target_port, self.target_fc4 = station_of(0x100, TARGET, mode=modes[0])
        self.initiator, self.initiator_port, self.initiator_fc4 = station_of(0x200, INITIATOR, mode=modes[1])
        forwarders = [Station("fcf", mac_of(0xFCF), rng=random.Random(1))] if modes == MODES[-1] else []
        self.segment = Segment(self.target, self.initiator, *forwarders)
        self.segment.up(25.0)
        self.stations = ((self.target, self.target_port), (self.initiator, self.initiator_port))
        assert self.linked(), modes
        self.speak()
        own = [port.fc_id for _, port in self.stations]
        self.fc_ids = [*own, 0, 0x010003, 0x010101, 0x6661, 0x6662, 0xFFFFFF, *SERVICES]
        # names that lose against those of the two: the protocol gives an address that two want to the greater name
        self.names = [b"\x10\0" + mac for mac in FOES] + [port.port_name for _, port in self.stations] + [bytes(8)]
        macs = [station.address for station in self.segment.stations]
        fpmas = [fabric_provided_mac(each, fc_map) for each in self.fc_ids for fc_map in (DEFAULT_FC_MAP, VN2VN_FC_MAP)]
        self.destinations = [*macs * 8, *GROUPS, *fpmas[:4] * 4, *fpmas[4:]]
        self.macs = [*macs, *FOES, *fpmas, bytes(6)]
        friends = {NO_MAC, *macs, *(each for station in self.segment.stations for each in station.controller.addresses())}
        self.sources = [each for each in (*FOES * 8, *self.macs) if each not in friends]

    def linked(self) -> bool:
        """Each has an image pair with the other."""
        theirs = self.target_port.remotes.get(self.initiator_port.fc_id)
        ours = self.initiator_port.remotes.get(self.target_port.fc_id)
        return theirs is not None and ours is not None and theirs.state is ours.state is State.READY

    # Frames of strangers

    def frame(self) -> bytes:
        """A whole Ethernet frame that is nearly right."""
        rng = self.rng
        kind = rng.randrange(10)
        if kind < 4:
            data = rng.choice((fip.ETHERTYPE, fip.ETHERTYPE, fip.ETHERTYPE, b"\x89\x06")) + self.fip_pdu()
        elif kind < 8:
            data = self.fcoe()
        elif kind == 8:
            data = rng.choice((self.segment.seen[-50:], [each.ethernet for each in captured()[:140]])[rng.randrange(2)])[12:]
        else:
            data = rng.choice((b"\x89\x14", b"\x89\x06", b"\x81\0\0\0\x89\x06")) + rng.randbytes(rng.randrange(200))
        if rng.random() < 0.3 and len(data) > 2:
            broken = bytearray(data)
            for _ in range(rng.randrange(1, 4)):
                broken[rng.randrange(2, len(broken))] = rng.getrandbits(8)
            data = bytes(broken)
        if rng.random() < 0.1:
            data = data[: rng.randrange(len(data))]
        return rng.choice(self.destinations) + rng.choice(self.sources) + data

    def descriptor(self, kind: int) -> fip.Descriptor:
        rng = self.rng
        mac, name, fc_id = rng.choice(self.macs), rng.choice(self.names), rng.choice(self.fc_ids)
        if kind == fip.VxPort.code:
            fc_map = rng.choice((VN2VN_FC_MAP, DEFAULT_FC_MAP))
            return fip.VxPort(fabric_provided_mac(fc_id, fc_map) if rng.random() < 0.8 else mac, fc_id, name)
        made: dict[int, fip.Descriptor] = {
            fip.Priority.code: fip.Priority(rng.getrandbits(8)),
            fip.MacAddress.code: fip.MacAddress(mac),
            fip.FcMap.code: fip.FcMap(DEFAULT_FC_MAP),
            fip.NameIdentifier.code: fip.NameIdentifier(name),
            fip.Fabric.code: fip.Fabric(0, DEFAULT_FC_MAP, name),
            fip.MaxFcoeSize.code: fip.MaxFcoeSize(rng.choice((0, 256, 1500, 2158, 65535))),
            fip.FkaAdvPeriod.code: fip.FkaAdvPeriod(rng.choice((0, 250, 8000, 0xFFFFFFFF)), rng.random() < 0.5),
            fip.VendorId.code: fip.VendorId(rng.randbytes(8)),
            fip.Vlan.code: fip.Vlan(rng.getrandbits(12)),
            fip.Fc4Attributes.code: fip.Fc4Attributes(rng.randbytes(32), rng.randbytes(128)),
        }
        if kind in made:
            return made[kind]
        layout = LAYOUTS[kind].kind
        assert issubclass(layout, fip.Encapsulated)
        return layout(self.els())

    def fip_pdu(self) -> bytes:
        rng = self.rng
        pdu = rng.choice(list(Pdu))
        contents = CONTENTS[pdu]
        kinds = [*contents.required, *([rng.choice(sorted(contents.any_of))] if contents.any_of else [])]
        kinds += [each for each in contents.optional | contents.repeated if rng.random() < 0.5]
        kinds.sort()
        if rng.random() < 0.1:
            kinds.append(rng.choice(sorted(LAYOUTS)))
        flags = Flag(rng.choice((0, 0x8000, 0x8001, 0x8007, 0xC000, 8, rng.getrandbits(16))))
        return fip.encode(FipPdu(pdu, tuple(map(self.descriptor, kinds)), flags))

    def payload(self) -> bytes:
        rng = self.rng
        command = rng.choice((*KNOWN_COMMANDS, ElsCommand.PLOGI, ElsCommand.FLOGI, ElsCommand.LS_ACC, ElsCommand.LOGO))
        if command in (ElsCommand.PLOGI, ElsCommand.FLOGI, ElsCommand.FDISC, ElsCommand.LS_ACC):
            name = rng.choice(self.names)
            data = Login(
                command=command,
                port_name=name,
                node_name=name,
                features=rng.getrandbits(16),
                receive_size=2112,
                class_3=rng.randbytes(16),
            ).pack()
        elif command in (ElsCommand.PRLI, ElsCommand.PRLO):
            data = ProcessLogin(command, (ServicePage(parameters=rng.getrandbits(8)),)).pack()
        else:
            fc_id = rng.choice(self.fc_ids).to_bytes(4, "big")
            data = bytes((command, 0, 0, 0)) + fc_id + rng.choice(self.names) + rng.randbytes(rng.randrange(40))
        return data if rng.random() < 0.8 else data[: rng.randrange(len(data) + 1)]

    def els(self) -> bytes:
        """An FC frame, as FIP has it."""
        rng, data = self.rng, self.payload()
        r_ctl, f_ctl = rng.choice(((0x22, 0x290000), (0x23, 0x980000)))
        s_id, d_id = rng.choice((0, *self.fc_ids)), rng.choice((0xFFFFFE, *self.fc_ids))
        header = pack_header(r_ctl, d_id, s_id, 1, f_ctl | fill(data), 0, 0, 0, rng.randrange(4), 0xFFFF, 0)
        return header + data + bytes(fill(data) + 4 * (not data))

    def fcoe(self) -> bytes:
        rng = self.rng
        r_ctl, fc_type, f_ctl = rng.choice(
            (
                (0x22, 1, 0x290000),
                (0x22, 1, 0x290000),
                (0x23, 1, 0x980000),
                (0x02, 0x20, 0x290000),
                (0x03, 0x20, 0x980000),
                (0x06, 8, 0x290000),
                (0x01, 8, 0x880008),
                (0x81, 0, 0x290000),
                (rng.getrandbits(8), rng.getrandbits(8), rng.getrandbits(24) & ~3),
            )
        )
        if fc_type == 0x20:
            data = CtIu(rng.choice((*NameServerCommand, 0x8001, 0x8002, 0)), rng.randbytes(rng.randrange(60))).pack()
        elif r_ctl == 0x06:
            data = rng.randbytes(32)
        else:
            data = self.payload()
        header = pack_header(
            r_ctl,
            rng.choice(self.fc_ids),
            rng.choice(self.fc_ids),
            fc_type,
            f_ctl | fill(data),
            rng.randrange(3),
            rng.choice((0, 0, 0, 0, 0x20)),
            rng.choice((0, 0, 0, 1, 2)),
            rng.randrange(4),
            rng.choice((0xFFFF, 0, 1)),
            rng.choice((0, 0, 4096)),
        )
        sof = rng.choice((Sof.I3, Sof.I3, Sof.I3, Sof.N3, Sof.F))
        return encapsulate(b"\x89\x06", sof, header, data, rng.choice((Eof.T, Eof.T, Eof.N, Eof.A)))

    # The invariant

    def burst(self) -> int:
        """Frames of strangers, and a little time; how many that were."""
        frames = [self.frame() for _ in range(self.rng.randrange(1, 60))]
        for station in self.segment.stations:
            station.receive([memoryview(each) for each in frames], self.segment.now)
            assert len(station.outbox) <= MAX_OUTBOX
        self.segment.run(self.rng.choice((0.0, 0.0, 0.01, 0.3, 2.0)))
        del self.segment.seen[:-200]
        self.check()
        self.speak()
        return len(frames)

    def check(self) -> None:
        for _, port in self.stations:
            assert len(port.remotes) <= port.limits.remote_ports
            assert len(port.timers._heap) < 50000
        for station in self.segment.stations:
            assert station.next_timer > self.segment.now
            controller = station.controller
            for table, limit in (("neighbours", MAX_NEIGHBOURS), ("fcfs", MAX_FCFS), ("enodes", MAX_PORTS)):
                assert len(getattr(controller, table, ())) <= limit
            for vn_port in getattr(controller, "vn_ports", {}).values():
                assert len(getattr(vn_port, "links", ())) <= MAX_NEIGHBOURS
            if (switch := getattr(controller, "switch", None)) is not None:
                assert len(switch.ports) == len(switch.by_name) == len(switch.name_server.entries) <= MAX_PORTS
            assert len(controller.history) <= 32
        assert self.linked(), list(self.target.controller.history) + list(self.initiator.controller.history)

    def speak(self) -> None:
        """A frame of FCP each way."""
        for (station, port), (_, other), fc4 in (
            (*self.stations, self.initiator_fc4),
            (*self.stations[::-1], self.target_fc4),
        ):
            prefix = port.remotes[other.fc_id].prefix
            assert prefix is not None
            fc4.frames.clear()
            header = pack_header(0x06, other.fc_id, port.fc_id, 8, 0x290000, 0, 0, 0, 0x7777, 0xFFFF, 0)
            station.outbox.append(encapsulate(prefix, Sof.I3, header, b"undisturbed.", Eof.T))
            self.segment.exchange()
            assert (port.fc_id, 0x7777, b"undisturbed.") in fc4.frames
            fc4.events.clear()


def fuzz(seconds: float, seed: int) -> int:
    """Attack for so long; returns how many frames that were."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    done = 0
    while time.monotonic() < end:
        site = Site(rng.choice(MODES), rng)
        try:
            for _ in range(200):
                done += site.burst()
                if time.monotonic() >= end:
                    break
        except Exception:
            print(f"seed {seed}, {done} frames, mode {site.target.mode}", file=sys.stderr)
            raise
    return done


if __name__ == "__main__":
    how_long = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    which = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().getrandbits(32)
    print(f"seed {which}")
    print(f"{fuzz(how_long, which)} frames")
