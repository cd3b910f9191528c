"""The initiator's side of the golden trace, given to our target frame by frame; what we answer, beside what LIO did.

The clock is the trace's. What each side draws for itself is translated on the way in: OX_ID of replies to us, RX_ID of an
exchange.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

from anyio.lowlevel import checkpoint
from support.fcoe_capture import FIP, TARGET, Captured, captured
from support.fcp_session import FcpSite
from support.scsi import make_lu, ramdisk
from tcm_fcoe.protocol import fip
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3, decapsulate, encapsulate
from tcm_fcoe.protocol.fcp import InformationUnit, Response
from tcm_fcoe.protocol.fcp_target import FcpTarget
from tcm_fcoe.protocol.fip import FipPdu
from tcm_fcoe.protocol.frame import F_CTL_EXCHANGE_RESPONDER, NO_EXCHANGE, FcType, Frame, RCtl
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import colon_form, name_from_mac
from tcm_fcoe.protocol.station import Station

from tcm.target.device import TargetDevice

TARGET_MAC = bytes.fromhex("5254002ffc00")
SERIAL = "ce7d4c49-1f47-4fe7-b41b-a992ee3f3be1"
SIZE = 64 << 20
EARLIER = 1000.0
"""Our clock when the trace begins."""
TURNS = 64
"""Of the event loop, in which the core has done whatever it does."""

Conversation = tuple[str, int]
"""What a frame belongs to, and the how-manieth of its kind that is."""


@dataclass(frozen=True)
class Said:
    """One frame of a target."""

    ethernet: bytes
    number: int
    """In the trace; of ours: of the frame after which it came."""

    @property
    def is_fip(self) -> bool:
        return int.from_bytes(self.ethernet[12:14], "big") == FIP

    @property
    def pdu(self) -> FipPdu:
        return fip.decode(memoryview(self.ethernet)[14:])

    @property
    def frame(self) -> Frame:
        return fc_frame(self.ethernet)


def fc_frame(ethernet: bytes) -> Frame:
    sof, fc, eof = decapsulate(memoryview(ethernet)[14:])
    return Frame.unpack(fc, sof, eof)


def els_in(pdu: FipPdu) -> Frame | None:
    """The frame that a FIP PDU has in it."""
    descriptor = pdu.find(fip.Encapsulated)
    return Frame.unpack(memoryview(descriptor.frame), SOF_I3, EOF_T) if descriptor is not None else None


Frames = dict[Conversation, list[Said]]


class Book:
    """Which frame belongs to which exchange, of one target; both sides' frames pass by in order."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = defaultdict(int)
        self._asked: dict[int, Conversation] = {}
        """By OX_ID: what the initiator asked last."""
        self._commands: dict[int, bytes] = {}
        self.asking: dict[tuple[int, int], str] = {}
        """Requests of the target: by OX_ID and whether it was in FIP."""
        self.said: dict[Conversation, list[Said]] = defaultdict(list)
        self.rx_ids: dict[Conversation, int] = {}

    def _begin(self, what: str) -> Conversation:
        self._begun[what] += 1
        return what, self._begun[what]

    def heard(self, frame: Frame) -> Conversation | None:
        """A frame of the initiator; the exchange of its own that it belongs to."""
        if frame.f_ctl & F_CTL_EXCHANGE_RESPONDER:
            return None
        if frame.r_ctl == InformationUnit.FCP_CMND:
            self._asked[frame.ox_id] = self._begin(command_text(bytes(frame.payload)))
        elif frame.r_ctl == RCtl.EXTENDED_LINK_REQUEST:
            self._asked[frame.ox_id] = self._begin(ElsCommand(frame.payload[0]).name)
        return self._asked[frame.ox_id]

    def say(self, said: Said) -> None:
        """A frame of the target."""
        self.said[self._conversation(said)].append(said)

    def _conversation(self, said: Said) -> Conversation:
        if said.is_fip:
            pdu = said.pdu
            inside = els_in(pdu)
            if inside is not None and not inside.f_ctl & F_CTL_EXCHANGE_RESPONDER:
                self.asking[inside.ox_id, True] = ElsCommand(inside.payload[0]).name
            name = pdu.pdu.name.replace("_", " ")
            return f"FIP {name.capitalize()}" + (f" ({ElsCommand(inside.payload[0]).name})" if inside else ""), 0
        frame = said.frame
        if not frame.f_ctl & F_CTL_EXCHANGE_RESPONDER:
            name = ElsCommand(frame.payload[0]).name
            self.asking[frame.ox_id, False] = name
            return f"{name} of the target's", 0
        found = self._asked[frame.ox_id]
        self.rx_ids[found] = frame.rx_id
        return found


def command_text(payload: bytes) -> str:
    """A command without its numbers: what we do does not depend on them."""
    cdb = payload[12:28]
    if payload[10]:
        return "LOGICAL UNIT RESET"
    name = COMMANDS[cdb[0]]
    if cdb[0] == 0x12 and cdb[1]:
        return f"{name} page {cdb[2]:02X}h"
    return f"{name} page {cdb[2] & 0x3F:02X}h" if cdb[0] == 0x1A else name


COMMANDS = {
    0x00: "TEST UNIT READY",
    0x12: "INQUIRY",
    0x1A: "MODE SENSE (6)",
    0x28: "READ (10)",
    0x2A: "WRITE (10)",
    0x9E: "READ CAPACITY (16)",
    0xA0: "REPORT LUNS",
    0xA3: "REPORT SUPPORTED OPERATION CODES",
}


def lio() -> Frames:
    """What LIO said."""
    book = Book()
    for number, each in enumerate(captured(), 1):
        if is_targets(each):
            book.say(Said(each.ethernet, number))
        elif int.from_bytes(each.ethernet[12:14], "big") != FIP:
            book.heard(fc_frame(each.ethernet))
    return dict(book.said)


def is_targets(each: Captured) -> bool:
    source = each.ethernet[6:12]
    return source in (TARGET_MAC, b"\x0e\xfd\0" + TARGET.to_bytes(3, "big"))


class Replay:
    """Our target, and the trace's initiator."""

    def __init__(self, site: FcpSite) -> None:
        self.station = Station("vn2vn", TARGET_MAC, rng=random.Random(1))
        self.port = NPort(name_from_mac(TARGET_MAC), name_from_mac(TARGET_MAC, naa=1))
        self.port.attach(self.station)
        site.target = self.port.fc4 = FcpTarget(self.port, site)
        self.book = Book()
        self.theirs = Book()
        self.now = EARLIER
        self.number = 0
        self.skipped: list[int] = []
        """Frames that answer what we have not asked."""

    async def run(self) -> None:
        """The whole trace."""
        self.station.add_port(self.port, self.now)
        self.station.link_up(self.now)
        for self.number, each in enumerate(captured(), 1):
            await self._until(EARLIER + each.time)
            if is_targets(each):
                self.theirs.say(Said(each.ethernet, self.number))
            else:
                ethernet = self._translated(each)
                if ethernet is not None:
                    self.station.receive([memoryview(ethernet)], self.now)
            await self._settle()

    async def _until(self, moment: float) -> None:
        while self.station.next_timer <= moment:
            self.now = max(self.now, self.station.next_timer)
            self.station.handle_timer(self.now)
            await self._settle()
        self.now = moment

    async def _settle(self) -> None:
        """The link takes what there is; the core does what it does in tasks."""
        idle = 0
        while idle < TURNS:
            self.station.resume(self.now)
            outbox = self.station.outbox
            idle = 0 if outbox else idle + 1
            while outbox:
                self.book.say(Said(bytes(outbox.popleft()), self.number))
            await checkpoint()

    def _translated(self, each: Captured) -> bytes | None:
        """A frame of the initiator, as it would have been sent to us; ``None``: it would not."""
        if int.from_bytes(each.ethernet[12:14], "big") == FIP:
            return self._translated_fip(each.ethernet)
        frame = fc_frame(each.ethernet)
        self.theirs.heard(frame)
        conversation = self.book.heard(frame)
        if conversation is None:
            asked = self.theirs.asking[frame.ox_id, False]
            ours = [ox_id for (ox_id, in_fip), name in self.book.asking.items() if name == asked and not in_fip]
            if not ours:
                self.skipped.append(self.number)
                return None
            frame.ox_id = ours[-1]
        elif frame.rx_id != NO_EXCHANGE:
            frame.rx_id = self.book.rx_ids[conversation]
        packed = frame.pack()
        return encapsulate(each.ethernet[:14], frame.sof, packed[:24], packed[24:], frame.eof)

    def _translated_fip(self, ethernet: bytes) -> bytes:
        pdu = fip.decode(memoryview(ethernet)[14:])
        inside = els_in(pdu)
        if inside is None or not inside.f_ctl & F_CTL_EXCHANGE_RESPONDER:
            return ethernet
        asked = self.theirs.asking[inside.ox_id, True]
        inside.ox_id = next(ox_id for (ox_id, in_fip), name in self.book.asking.items() if name == asked and in_fip)
        descriptors = tuple(
            type(each)(inside.pack()) if isinstance(each, fip.Encapsulated) else each for each in pdu.descriptors
        )
        return ethernet[:14] + fip.encode(replace(pdu, descriptors=descriptors))


@asynccontextmanager
async def replayed() -> AsyncIterator[Replay]:
    """All of it done."""
    device = TargetDevice(colon_form(name_from_mac(TARGET_MAC)), "fcoe")
    group = device.add_portal_group(1)
    group.access = replace(group.access, generate_node_acls=True, demo_mode_write_protect=False)
    async with AsyncExitStack() as stack:
        unit = await stack.enter_async_context(make_lu(ramdisk(SIZE), name="ram0", serial=SERIAL))
        unit.identity = replace(unit.identity, product="ram0", revision="4.0")
        group.add_lun(0, unit)
        site = FcpSite(group)
        replay = Replay(site)
        try:
            await replay.run()
            yield replay
        finally:
            for fc_id in list(site.target.nexuses):
                site.target.end(fc_id)


# What differs

Difference = tuple[str, str, str, str]
"""Conversation, field, ours, LIO's."""

_DRAWN = frozenset(("ox_id", "rx_id", "seq_id"))
"""Identifiers that each side draws."""


def differences(
    ours: dict[Conversation, list[Said]], theirs: dict[Conversation, list[Said]]
) -> Iterator[tuple[int, Difference]]:
    """Every frame of ours beside LIO's; with the number of LIO's frame, or of the one before ours."""
    for conversation in dict.fromkeys((*theirs, *ours)):
        what = conversation[0]
        mine, others = ours.get(conversation, []), theirs.get(conversation, [])
        kinds = [[_kind(each) for each in frames] for frames in (mine, others)]
        for kind in dict.fromkeys((*kinds[1], *kinds[0])):
            same, theirs_of_it = ([each for each in frames if _kind(each) == kind] for frames in (mine, others))
            for one, other in zip(same, theirs_of_it, strict=False):
                for name, a, b in _compare(one, other):
                    yield other.number, (what, name, a, b)
            for extra in same[len(theirs_of_it) :]:
                yield extra.number, (what, "frame", kind, "none")
            for missing in theirs_of_it[len(same) :]:
                yield missing.number, (what, "frame", "none", kind)
        if sorted(kinds[0]) == sorted(kinds[1]) and kinds[0] != kinds[1]:
            yield others[0].number, (what, "order", " ".join(kinds[0]), " ".join(kinds[1]))


def _kind(said: Said) -> str:
    if said.is_fip:
        return "FIP"
    frame = said.frame
    return InformationUnit(frame.r_ctl).name if frame.type == FcType.FCP else ElsCommand(frame.payload[0]).name


def _compare(one: Said, other: Said) -> Iterator[tuple[str, str, str]]:
    if one.is_fip != other.is_fip:
        yield "EtherType", str(one.is_fip), str(other.is_fip)
        return
    if one.ethernet[:12] != other.ethernet[:12]:
        yield "MAC addresses", one.ethernet[:12].hex(), other.ethernet[:12].hex()
    if one.is_fip:
        yield from _compare_fip(one, other)
    else:
        yield from _compare_frames(one.frame, other.frame)


def _compare_fip(one: Said, other: Said) -> Iterator[tuple[str, str, str]]:
    a, b = one.pdu, other.pdu
    if a.flags != b.flags:
        yield "flags", f"{a.flags:04x}", f"{b.flags:04x}"
    kinds = [type(each).__name__ for each in a.descriptors], [type(each).__name__ for each in b.descriptors]
    if kinds[0] != kinds[1]:
        yield "descriptors", " ".join(kinds[0]), " ".join(kinds[1])
        return
    if len(one.ethernet) != len(other.ethernet):
        yield "length", str(len(one.ethernet)), str(len(other.ethernet))
    for mine, theirs in zip(a.descriptors, b.descriptors, strict=True):
        if isinstance(mine, fip.Encapsulated) and isinstance(theirs, fip.Encapsulated):
            inside = (Frame.unpack(memoryview(each.frame), SOF_I3, EOF_T) for each in (mine, theirs))
            yield from _compare_frames(*inside)
            continue
        yield from _compare_fields(type(mine).__name__, mine, theirs)


def _compare_fields(where: str, one: Any, other: Any) -> Iterator[tuple[str, str, str]]:
    for each in fields(one):
        a, b = getattr(one, each.name), getattr(other, each.name)
        if a != b:
            yield f"{where} {each.name}", _text(a), _text(b)


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _compare_frames(one: Frame, other: Frame) -> Iterator[tuple[str, str, str]]:
    if (one.r_ctl, one.type) == (other.r_ctl, other.type):
        where = InformationUnit(one.r_ctl).name if one.type == FcType.FCP else "ELS"
    else:
        where = "frame"
    for name in Frame.__slots__:
        a, b = getattr(one, name), getattr(other, name)
        if name == "payload" and where == "FCP_RSP":
            yield from _compare_fields(where, Response.unpack(bytes(a)), Response.unpack(bytes(b)))
        elif name == "payload":
            yield from _compare_bytes(f"{where} payload", bytes(a), bytes(b))
        elif a != b and name not in _DRAWN:
            yield f"{where} {name}", f"{a:x}", f"{b:x}"


def _compare_bytes(where: str, one: bytes, other: bytes) -> Iterator[tuple[str, str, str]]:
    """By runs of words that differ."""
    if len(one) != len(other):
        yield f"{where} length", str(len(one)), str(len(other))
    start = None
    shorter = min(len(one), len(other))
    for at in range(0, shorter + 4, 4):
        differs = at < shorter and one[at : at + 4] != other[at : at + 4]
        if differs and start is None:
            start = at
        elif not differs and start is not None:
            yield f"{where} {start}-{min(at, shorter) - 1}", one[start:at].hex(), other[start:at].hex()
            start = None
