"""Somebody on the segment who means ill: frames in the names of others, floods, and all that a login of its own allows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tcm_fcoe.protocol import ethernet, fip
from tcm_fcoe.protocol.controller import els_request
from tcm_fcoe.protocol.ct_names import (
    ByPort,
    ByType,
    NameServerCommand,
    RegisterFeatures,
    RegisterName,
    RegisterTypes,
    request_iu,
)
from tcm_fcoe.protocol.els import ExchangeQuery, Logo, Rscn, Srr
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.els_login import Login, ProcessLogin, ServicePage
from tcm_fcoe.protocol.fcoe import EOF_N, EOF_T, SOF_I3, SOF_N3, encapsulate
from tcm_fcoe.protocol.fcp import Command
from tcm_fcoe.protocol.fip import FipPdu, Flag, Pdu
from tcm_fcoe.protocol.frame import pack_header
from tcm_fcoe.protocol.logins import service_parameters
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import DEFAULT_FC_MAP, VN2VN_FC_MAP, WellKnownAddress, fabric_provided_mac, name_from_mac
from tcm_fcoe.protocol.vn2vn_neighbours import fc4_attributes

from tcm.scsi.cdb import write_16

DIRECTORY, F_PORT = int(WellKnownAddress.DIRECTORY_SERVER), int(WellKnownAddress.FABRIC_LOGIN_SERVER)
CONTROLLER = int(WellKnownAddress.FABRIC_CONTROLLER)
MACS = 10_000
"""MAC addresses that it speaks from, besides its own."""


def mac_of(number: int) -> bytes:
    return b"\x52\x54\x01" + (number % MACS).to_bytes(3)


@dataclass(frozen=True)
class Station:
    """A port that the attacker knows of."""

    mac: bytes
    fc_id: int

    @property
    def name(self) -> bytes:
        return name_from_mac(self.mac)

    @property
    def node(self) -> bytes:
        return name_from_mac(self.mac, naa=1)


class Attacker:
    """``own`` is the attacker's interface; its FC_ID is 0 without a login.

    :param fcf: the target is the switch; otherwise the segment has none.
    """

    def __init__(self, own: Station, target: Station, victim: Station, *, fcf: bool) -> None:
        self.own, self.target, self.victim, self.fcf = own, target, victim, fcf
        self.fc_map = DEFAULT_FC_MAP if fcf else VN2VN_FC_MAP
        self.chance = random.Random(1)

    def mac(self, station: Station) -> bytes:
        return fabric_provided_mac(station.fc_id, self.fc_map)

    def frame(
        self, r_ctl: int, fc_type: int, payload: bytes, *, s_id: int, source: bytes, d_id: int | None = None,
        ox_id: int = 0x7777, rx_id: int = 0xFFFF, f_ctl: int = 0x290000, seq_cnt: int = 0, eof: int = EOF_T,
    ) -> bytes:  # fmt: skip
        """To the target, or by way of it where it is the switch."""
        to = self.target.mac if self.fcf else self.mac(self.target)
        d_id = self.target.fc_id if d_id is None else d_id
        header = pack_header(r_ctl, d_id, s_id, fc_type, f_ctl | -len(payload) & 3, 0, 0, seq_cnt, ox_id, rx_id, 0)
        return encapsulate(to + source + b"\x89\x06", SOF_N3 if seq_cnt else SOF_I3, header, payload, eof)

    def fip(self, pdu: Pdu, *descriptors: fip.Descriptor, to: bytes, source: bytes, flags: Flag = Flag.FPMA) -> bytes:
        return to + source + fip.ETHERTYPE + fip.encode(FipPdu(pdu, descriptors, flags))

    def rounds(self, port: NPort | None) -> Iterator[list[bytes]]:
        """Batches without end; with a login of the attacker's also what that allows."""
        number = 0
        while True:
            batch = self.spoofed(number)
            batch += self.vlans(batch[0])
            batch += self.fcf_frames(number) if self.fcf else self.vn2vn_frames(number)
            batch.append(self.nonsense(batch))
            if port is not None:
                batch += self.logged_in(port, number)
            yield batch
            number += 1

    def spoofed(self, number: int) -> list[bytes]:
        """Aborts, resets, logouts and data in the victim's name, and in the target's to the victim."""
        victim, fc_id = self.victim, self.victim.fc_id
        source = (self.own.mac, mac_of(number), self.mac(Station(b"", 0x6666)))[number % 3]
        ox_id, page = 0x1000 + number % 256, ServicePage(flags=0)
        answer: dict[str, Any] = {"s_id": self.target.fc_id, "d_id": fc_id, "source": source, "ox_id": ox_id}
        return [
            self.frame(0x81, 0, b"", f_ctl=0x090000, ox_id=ox_id, s_id=fc_id, source=source),
            self.frame(0x22, 1, Logo(fc_id, victim.name).pack(), s_id=fc_id, source=source),
            self.frame(0x22, 1, ProcessLogin(ElsCommand.PRLO, (page,)).pack(), s_id=fc_id, source=source),
            self.frame(6, 8, Command(lun=bytes(8), cdb=bytes(16), management=0x20).pack(), s_id=fc_id, source=source),
            self.frame(1, 8, b"\xee" * 2048, f_ctl=0x090008, ox_id=ox_id, s_id=fc_id, source=source),
            self.frame(1, 8, b"\xee" * 2048, f_ctl=0x880008, **answer),
            self.frame(7, 8, bytes(24), f_ctl=0x980000, **answer),
        ]

    def vlans(self, frame: bytes) -> list[bytes]:
        """The same with tags: priority only, of VLANs, two of them."""
        tags = [b"\x81\0" + tag.to_bytes(2) for tag in (0, 1, 100, 4095)]
        tags += [b"\x81\0\0\x64\x81\0\0\0", b"\x88\xa8\0\x64\x81\0\0\0"]
        return [frame[:12] + tag + frame[12:] for tag in tags]

    def nonsense(self, frames: list[bytes]) -> bytes:
        """One of them cut, longer, or with a wrong bit."""
        frame, chance = bytearray(self.chance.choice(frames)), self.chance
        kind = chance.randrange(3)
        if kind == 0:
            return bytes(frame[: chance.randrange(14, len(frame))])
        if kind == 1:
            return bytes(frame) + chance.randbytes(chance.randrange(1, 200))
        frame[chance.randrange(14, len(frame))] ^= 1 << chance.randrange(8)
        return bytes(frame)

    def vn2vn_frames(self, number: int) -> list[bytes]:
        """Floods of neighbours; claims of the victim's and the target's addresses and names; logins and logouts in its name."""
        own, target, victim, stranger = self.own, self.target, self.victim, mac_of(number)
        greater = b"\x2f" + own.mac + b"\1"

        def claim(
            pdu: Pdu, enode: bytes, fc_id: int, name: bytes, to: bytes = ethernet.ALL_VN2VN_ENODE_MACS, source: bytes = b""
        ) -> bytes:
            identity = fip.VxPort(fabric_provided_mac(fc_id, VN2VN_FC_MAP), fc_id, name)
            more = (fc4_attributes(2), fip.MaxFcoeSize(2158)) if pdu in (Pdu.CLAIM_NOTIFICATION, Pdu.CLAIM_RESPONSE) else ()
            names = fip.MacAddress(enode), fip.NameIdentifier(b"\x10" + name[1:])
            return self.fip(pdu, *names, identity, *more, to=to, source=source or enode, flags=fip.NO_FLAGS)

        flogi = Login(command=ElsCommand.FLOGI, port_name=victim.name, node_name=victim.node)
        requests = (
            fip.Flogi(els_request(target.fc_id, victim.fc_id, 9, flogi)),
            fip.Logo(els_request(target.fc_id, victim.fc_id, 9, Logo(victim.fc_id, victim.name))),
        )
        return [
            *(
                claim(pdu, stranger, 0x2000 + number % MACS, name_from_mac(stranger))
                for pdu in (Pdu.PROBE_REQUEST, Pdu.CLAIM_NOTIFICATION, Pdu.BEACON)
            ),
            *(
                self.fip(Pdu.VIRTUAL_LINK_REQUEST, request, fip.MacAddress(self.mac(victim)), to=target.mac, source=source)
                for request in requests
                for source in (own.mac, stranger, self.mac(Station(b"", 0x6666)))
            ),
            claim(Pdu.CLAIM_NOTIFICATION, own.mac, 0x7001, victim.name),
            claim(Pdu.CLAIM_NOTIFICATION, victim.mac, 0x7002, victim.name, source=fabric_provided_mac(0x7002, VN2VN_FC_MAP)),
            *(
                claim(pdu, own.mac, fc_id, greater, target.mac)
                for pdu in (Pdu.CLAIM_NOTIFICATION, Pdu.CLAIM_RESPONSE, Pdu.BEACON, Pdu.PROBE_REPLY)
                for fc_id in (victim.fc_id, target.fc_id)
            ),
            claim(Pdu.PROBE_REQUEST, own.mac, target.fc_id, greater),
            claim(Pdu.CLAIM_NOTIFICATION, own.mac, target.fc_id, target.name, target.mac),
        ]  # fmt: skip

    def fcf_frames(self, number: int) -> list[bytes]:
        """Floods of logins; the victim's name, its LOGO, its keep-alives, and Clear Virtual Links to it."""
        own, target, victim, stranger = self.own, self.target, self.victim, mac_of(number)
        flogi = Login(command=ElsCommand.FLOGI, port_name=name_from_mac(stranger), node_name=name_from_mac(stranger, naa=1))
        logo = fip.Logo(els_request(F_PORT, victim.fc_id, 9, Logo(victim.fc_id, victim.name)))
        switch = fip.MacAddress(target.mac), fip.NameIdentifier(name_from_mac(target.mac, qualifier=0xFFF))
        identity = fip.VxPort(self.mac(victim), victim.fc_id, victim.name)
        request, keep_alive, no_mac = Pdu.VIRTUAL_LINK_REQUEST, Pdu.KEEP_ALIVE, fip.MacAddress(bytes(6))
        return [
            self.fip(request, fip.Flogi(els_request(F_PORT, 0, 9, flogi)), no_mac, to=target.mac, source=stranger),
            *(
                self.fip(request, kind(els_request(F_PORT, 0, 9, each)), no_mac, to=target.mac, source=mac_of(0))
                for kind, code in ((fip.Flogi, ElsCommand.FLOGI), (fip.Fdisc, ElsCommand.FDISC))
                for each in (replace(flogi, command=code, port_name=name) for name in (victim.name, target.name))
            ),
            self.fip(request, logo, fip.MacAddress(self.mac(victim)), to=target.mac, source=own.mac),
            self.fip(keep_alive, fip.MacAddress(victim.mac), to=target.mac, source=own.mac),
            self.fip(keep_alive, fip.MacAddress(victim.mac), identity, to=target.mac, source=own.mac),
            self.fip(Pdu.VLAN_REQUEST, fip.MacAddress(own.mac), to=ethernet.ALL_FCF_MACS, source=own.mac),
            self.fip(Pdu.CLEAR_VIRTUAL_LINKS, *switch, to=victim.mac, source=own.mac, flags=Flag.FCF),
            self.fip(Pdu.CLEAR_VIRTUAL_LINKS, *switch, identity, to=victim.mac, source=own.mac, flags=Flag.FCF),
        ]  # fmt: skip

    def logged_in(self, port: NPort, number: int) -> list[bytes]:
        """Others' exchanges, sequences that never end, exchanges that stay open, the victim's name; as one who may come in."""
        own, victim = self.own, self.victim
        me: dict[str, Any] = {"s_id": own.fc_id, "source": self.mac(own)}
        batch = []
        for ox_id in (0x1000 + number % 256, number * 7 & 0xFFF7):
            batch += [
                self.frame(0x81, 0, b"", f_ctl=0x090000, ox_id=ox_id, **me),
                *(
                    self.frame(0x22, 1, ExchangeQuery(originator, ox_id, 0xFFFF, command).pack(), **me)
                    for originator in (own.fc_id, victim.fc_id)
                    for command in (ElsCommand.REC, ElsCommand.RRQ)
                ),
                *(self.frame(0x32, 8, Srr(ox_id, 0xFFFF, 0, what).pack(), **me) for what in (1, 5, 7)),
                self.frame(1, 8, b"\xee" * 2048, f_ctl=0x090008, ox_id=ox_id, rx_id=number & 0xFF, **me),
            ]
        write = Command(lun=bytes(8), cdb=write_16(0x10000, 128), write_data=True, data_length=65536).pack()
        plogi = service_parameters(port, ElsCommand.PLOGI)
        batch += [
            *(self.frame(6, 8, write, ox_id=0x2000 + (number * 3 + each) % 0xC000, **me) for each in range(3)),
            self.frame(0x22, 1, bytes(2048), f_ctl=0x200000, ox_id=number & 0xFFF, eof=EOF_N, **me),
            self.frame(0x22, 1, bytes(2048), f_ctl=0x200000, ox_id=number & 0xFFF, seq_cnt=5, eof=EOF_N, **me),
            self.frame(0x22, 1, replace(plogi, port_name=victim.name).pack(), **me),
        ]
        if self.fcf:
            batch += self.services(number, me)
        return batch

    def services(self, number: int, me: dict[str, Any]) -> list[bytes]:
        """Others' objects in the directory, and state changes in the fabric controller's name."""
        own, target, victim, command = self.own, self.target, self.victim, NameServerCommand
        requests = [
            *(request_iu(command.DA_ID, ByPort(fc_id)) for fc_id in (target.fc_id, victim.fc_id, own.fc_id)),
            request_iu(command.RFT_ID, RegisterTypes(target.fc_id, bytes(32))),
            request_iu(command.RFF_ID, RegisterFeatures(target.fc_id, 2)),
            request_iu(command.RNN_ID, RegisterName(own.fc_id, target.node)),
            request_iu(command.RPN_ID, RegisterName(own.fc_id, target.name)),
            request_iu(command.GPN_FT, ByType()),
        ]
        rscn = Rscn(pages=((0, target.fc_id),)).pack()
        return [
            *(self.frame(2, 0x20, iu.pack(), d_id=DIRECTORY, ox_id=number & 0xFFFF, **me) for iu in requests),
            self.frame(0x22, 1, rscn, d_id=victim.fc_id, **me),
            self.frame(0x22, 1, rscn, d_id=victim.fc_id, s_id=CONTROLLER, source=self.mac(own)),
        ]
