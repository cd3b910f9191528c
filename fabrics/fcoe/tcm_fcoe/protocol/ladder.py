"""A capture as a ladder: who says what to whom, a row a frame (sans-IO: frames and times in, rows out).

The left of a row is the exchange's originator, so that requests point right and answers left. Names are learnt from logins and
FIP; until then a port is its FC_ID, an interface its MAC address. What is kept is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scapy.layers.l2 import Dot1Q, Ether

from tcm_fcoe.protocol import link_service_layers as link_services
from tcm_fcoe.protocol.ladder_frames import information_unit
from tcm_fcoe.protocol.ladder_text import (
    CONTROL_NAMES,
    address,
    ct_text,
    descriptor_text,
    els_text,
    fcp_text,
    group_name,
    name_text,
)
from tcm_fcoe.protocol.layers import (
    EOF,
    FC,
    FCOE,
    FIP_OPERATIONS,
    FIP_SUBCODES,
    FIP_TYPE,
    INFORMATION_CATEGORIES,
    MINIMUM,
    SOF,
    FCoE,
    Fip,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scapy.packet import Packet

    from tcm_fcoe.protocol.frame import Frame

EXCHANGES_KEPT = 1 << 16
"""Exchanges whose request is remembered; the oldest gives way."""
NAMES_KEPT = 1 << 14
"""Ports and interfaces whose name is remembered; then no more are learnt."""
RESPONDER = 1 << 23
UNTIMED = (1, 5)
"""R_CTL of what ends nothing: FCP_DATA, FCP_XFER_RDY."""
LOGINS = (0x03, 0x04, 0x50, 0x51)
ABTS = 0x81
NO_MACS = "", ""
"""Of an FCP frame, which is told from others by its FC_IDs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One frame."""

    number: int
    """Of the frame in its capture, from 1."""
    time: float
    """Seconds since the first frame."""
    left: str
    """FC_ID or MAC address of the exchange's originator, or of a FIP frame's sender."""
    right: str
    left_name: str = ""
    """Its port name, once that is known."""
    right_name: str = ""
    to_right: bool = True
    """The left one is the sender."""
    ox_id: int | None = None
    rx_id: int | None = None
    seq_id: int | None = None
    vlan: int | None = None
    what: str
    """Name of the frame: ``PLOGI``, ``FCP_CMND`` ..."""
    detail: str = ""
    problem: str = ""
    """What is wrong with it, if anything is."""
    failed: bool = False
    """It carries a refusal, or a status that is not GOOD."""
    elapsed: float | None = None
    """Seconds since the request that this answers."""
    offset: int | None = None
    """Of FCP_DATA."""
    length: int | None = None
    """Of FCP_DATA, in bytes."""
    frames: int = 1
    """FCP_DATA frames that are in this row."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what has a value."""
        values = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        return {
            name: value for name, value in values if name == "to_right" or not (value is None or value is False or value == "")
        }


@dataclass(slots=True)
class _Exchange:
    """What is remembered of a request."""

    time: float
    command: int = 0
    """ELS command code, or CT command."""
    port_name: int = 0
    """Of a login."""
    text: str = ""
    """Of an FCP_CMND: the command's name."""
    expected: int = 0
    """FCP_DL."""


class Ladder:
    """Takes frames in the order of a capture."""

    def __init__(self) -> None:
        self.names: dict[tuple[int | None, int | str], int] = {}
        """Port names by (VLAN, FC_ID) and (VLAN, MAC address)."""
        self.skipped = 0
        """Frames that are neither FCoE nor FIP."""
        self._exchanges: dict[tuple[Any, ...], _Exchange] = {}
        self._count = 0
        self._start: float | None = None

    def take(self, data: bytes, time: float) -> Row | None:
        """One Ethernet frame, and when it was seen, in seconds; None: it is of another protocol."""
        self._count += 1
        if self._start is None:
            self._start = time
        time -= self._start
        if (unit := information_unit(data)) is not None:
            vlan, frame, content = unit
            return self._frame(frame, content, NO_MACS, vlan, time)
        try:
            ethernet = Ether(data)
            kind, body = ethernet.type, ethernet.payload
            vlan = None
            if isinstance(body, Dot1Q):
                kind, vlan, body = body.type, int(body.vlan), body.payload
        except Exception:  # noqa: BLE001  # whatever scapy meets in bytes that are no frame
            return self._row(time, None, left="?", right="?", what="?", problem=f"{len(data)} bytes are no Ethernet frame")
        if kind not in (FCOE, FIP_TYPE):
            self.skipped += 1
            return None
        macs = str(ethernet.src), str(ethernet.dst)
        try:
            if kind == FIP_TYPE:
                return self._fip(body, macs, vlan, time)
            return self._fcoe(body, macs, vlan, time)
        except Exception as e:  # noqa: BLE001  # one broken frame is one row
            what = "FIP" if kind == FIP_TYPE else "FCoE"
            return self._row(time, vlan, left=macs[0], right=macs[1], what=what, problem=f"broken: {type(e).__name__}: {e}")

    # FIP

    def _fip(self, fip: Packet, macs: tuple[str, str], vlan: int | None, time: float) -> Row:
        ends = {"left": macs[0], "right": group_name(macs[1]) or macs[1]}
        if not isinstance(fip, Fip):
            return self._row(time, vlan, **ends, what="FIP", problem=f"{len(fip)} bytes are no FIP operation")
        key = int(fip.operation), int(fip.subcode)
        what = "FIP " + (FIP_OPERATIONS.get(key[0]) or f"operation {key[0]:04x}h")
        title = FIP_SUBCODES.get(key) or f"subcode {key[1]:02x}h"
        problem = ""
        listed = sum(4 * int(each.words or 0) for each in fip.descriptors)
        if listed != 4 * fip.words:
            problem = f"its descriptor list says {4 * fip.words} bytes, of which {listed} can be read"
        details = [title]
        for each in fip.descriptors:
            number = int(each.descriptor)
            if 7 <= number <= 10 and hasattr(each, "frame"):
                return self._link_service(each.frame, fip, macs, vlan, time, problem)
            if number == 11 and hasattr(each, "wwn"):
                self._learn(vlan, int(each.fc_id), int(each.wwn))
                self._learn(vlan, macs[0], int(each.wwn))
                self._learn(vlan, str(each.mac), int(each.wwn))
            details.append(descriptor_text(each))
        return self._row(time, vlan, **ends, what=what, detail=", ".join(filter(None, details)), problem=problem)

    def _link_service(
        self, frame: bytes, fip: Packet, macs: tuple[str, str], vlan: int | None, time: float, problem: str
    ) -> Row:
        """An ELS that travels in a FIP descriptor, beside what else is there."""
        beside = [descriptor_text(each) for each in fip.descriptors if not hasattr(each, "frame")]
        if len(frame) < FC.HEADER:
            return self._row(
                time, vlan, left=macs[0], right=macs[1], what="FIP Link Service",
                problem=f"{len(frame)} bytes are no FC frame",
            )  # fmt: skip
        fc = FC(frame)
        return self._frame(
            fc,
            fc.payload,
            macs,
            vlan,
            time,
            prefix="FIP ",
            beside=", ".join(filter(None, beside)),
            problems=filter(None, (problem,)),
        )

    # FCoE

    def _fcoe(self, fcoe: Packet, macs: tuple[str, str], vlan: int | None, time: float) -> Row:
        if not isinstance(fcoe, FCoE) or not isinstance(fcoe.payload, FC):
            return self._row(
                time, vlan, left=macs[0], right=macs[1], what="FCoE", problem="too short for a Fibre Channel frame"
            )
        problems = []
        if fcoe.version:
            problems.append(f"FCoE version {fcoe.version}")
        if fcoe.sof not in SOF:
            problems.append(f"SOF {fcoe.sof:02x}h")
        if fcoe.eof not in EOF:
            problems.append(f"EOF {fcoe.eof:02x}h")
        sound = fcoe.copy()
        sound.crc = None
        right = int.from_bytes(bytes(sound)[-FCoE.TRAILER : -4], "little")
        if right != fcoe.crc:
            problems.append(f"CRC {fcoe.crc:08x}h, not {right:08x}h")
        return self._frame(fcoe.payload, fcoe.payload.payload, macs, vlan, time, problems=problems)

    def _frame(
        self, fc: Frame | FC, body: Any, macs: tuple[str, str], vlan: int | None, time: float, *, prefix: str = "",
        beside: str = "", problems: Iterable[str] = (),
    ) -> Row:  # fmt: skip
        s_id, d_id, ox_id = int(fc.s_id), int(fc.d_id), int(fc.ox_id)
        answer = bool(int(fc.f_ctl) & RESPONDER)
        left, right = (d_id, s_id) if answer else (s_id, d_id)
        problems = list(problems)
        key: tuple[Any, ...]
        what, detail, failed = f"R_CTL {fc.r_ctl:02x}h, TYPE {fc.type:02x}h", f"{len(body)} bytes", False
        more: dict[str, int] = {}
        request = None
        if fc.type == 0x08 and fc.r_ctl in INFORMATION_CATEGORIES:
            what = INFORMATION_CATEGORIES[fc.r_ctl]
            key = (vlan, left, right, ox_id)
            short = len(body) < MINIMUM.get(fc.r_ctl, 0)
            if fc.r_ctl == 6 and not short:
                name, detail = fcp_text(fc, body, "")
                self._remember(key, _Exchange(time, text=name, expected=int(body.fcp_dl)))
            else:
                request = self._exchanges.get(key)
                detail = f"{len(body)} bytes"
                if not short:
                    name, detail = fcp_text(fc, body, request.text if request else "")
                    failed = name == "failed"
                if fc.r_ctl == 1:
                    more = {"offset": int(fc.parameter), "length": len(body)}
            if short:
                problems.append(f"{len(body)} bytes are too few")
        elif fc.r_ctl in (0x22, 0x23, 0x32, 0x33):
            what, detail, failed, request = self._els(body, macs, vlan, time, (s_id, d_id, ox_id), answer)
        elif fc.r_ctl in link_services.BASIC:
            what = link_services.BASIC_NAMES[fc.r_ctl]
            key = (vlan, left, right, ox_id)
            request = self._exchanges.get((*key, "ABTS"))
            detail, failed = els_text(body), what == "BA_RJT"
            if fc.r_ctl == ABTS:
                aborted = self._exchanges.get(key)
                detail = f"of {aborted.text}" if aborted and aborted.text else ""
                self._remember((*key, "ABTS"), _Exchange(time))
                request = None
        elif isinstance(body, link_services.CommonTransport):
            key = (vlan, left, right, ox_id, "CT")
            request = self._exchanges.get(key) if answer else None
            what, detail, failed = ct_text(body, request.command if request else 0)
            if not answer:
                self._remember(key, _Exchange(time, command=int(body.code)))
        elif fc.r_ctl in CONTROL_NAMES:
            what = CONTROL_NAMES[fc.r_ctl]
        return self._row(
            time, vlan, left=address(left), right=address(right), left_name=self._name(vlan, left),
            right_name=self._name(vlan, right), to_right=not answer, ox_id=ox_id, rx_id=int(fc.rx_id), seq_id=int(fc.seq_id),
            what=prefix + what, detail=", ".join(filter(None, (detail, beside))), problem="; ".join(problems), failed=failed,
            elapsed=time - request.time if request and answer and fc.r_ctl not in UNTIMED else None, **more,
        )  # fmt: skip

    def _els(
        self, body: Packet, macs: tuple[str, str], vlan: int | None, time: float, ids: tuple[int, int, int], answer: bool
    ) -> tuple[str, str, bool, _Exchange | None]:
        """Name, detail, whether it refuses, and the request that it answers."""
        s_id, d_id, ox_id = ids
        data = bytes(body)
        if not data:
            return "ELS", "without a command", True, None
        command = data[0]
        if not answer:
            exchange = _Exchange(time, command=command)
            if command in LOGINS and hasattr(body, "port_name"):
                exchange.port_name = body.getfieldval("port_name")
                self._learn(vlan, s_id, exchange.port_name)
            self._remember((vlan, "ELS", s_id, d_id, ox_id), exchange)
            if not s_id:  # who has no FC_ID yet gets its answer by its MAC address
                self._remember((vlan, "ELS", macs[0], ox_id), exchange)
            return link_services.COMMANDS.get(command, f"ELS {command:02x}h"), els_text(body), False, None
        request = self._exchanges.get((vlan, "ELS", d_id, s_id, ox_id)) or self._exchanges.get((vlan, "ELS", macs[1], ox_id))
        name = link_services.COMMANDS.get(command, f"ELS {command:02x}h")
        if request is None:
            return name, els_text(body), command == link_services.LS_RJT, None
        asked = link_services.COMMANDS.get(request.command, f"ELS {request.command:02x}h")
        if command == link_services.LS_ACC:
            body = link_services.accept_of(request.command, data)
            if request.port_name:
                self._learn(vlan, d_id, request.port_name)
                if s_id < 0xFFFC00:
                    self._learn(vlan, s_id, getattr(body, "port_name", 0))
        detail = els_text(body)
        return f"{name} ({asked})", detail, command == link_services.LS_RJT, request

    # memory

    def _learn(self, vlan: int | None, who: int | str, name: int) -> None:
        if who and name and (len(self.names) < NAMES_KEPT or (vlan, who) in self.names):
            self.names[vlan, who] = name

    def _name(self, vlan: int | None, who: int | str) -> str:
        name = self.names.get((vlan, who))
        return name_text(name) if name else ""

    def _remember(self, key: tuple[Any, ...], exchange: _Exchange) -> None:
        self._exchanges.pop(key, None)
        self._exchanges[key] = exchange
        if len(self._exchanges) > EXCHANGES_KEPT:
            del self._exchanges[next(iter(self._exchanges))]

    def _row(self, time: float, vlan: int | None, **fields: Any) -> Row:
        if "left_name" not in fields:
            fields["left_name"], fields["right_name"] = self._name(vlan, fields["left"]), self._name(vlan, fields["right"])
        return Row(number=self._count, time=time, vlan=vlan, **fields)


def folded(rows: Iterable[Row]) -> Iterator[Row]:
    """The same with all FCP_DATA frames that follow one another in a sequence as one row."""
    held: Row | None = None
    for row in rows:
        if held is not None and _continues(held, row):
            held = _joined(held, row)
            continue
        if held is not None:
            yield held
        held = row
    if held is not None:
        yield held


def _continues(held: Row, row: Row) -> bool:
    if held.length is None or row.length is None or held.offset is None or held.problem or row.problem:
        return False
    same = ("left", "right", "to_right", "ox_id", "rx_id", "seq_id", "vlan")
    return all(getattr(held, name) == getattr(row, name) for name in same) and row.offset == held.offset + held.length


def _joined(held: Row, row: Row) -> Row:
    fields = {name: getattr(held, name) for name in Row.__dataclass_fields__}
    fields["length"] = held.length + row.length  # type: ignore[operator]  # both are FCP_DATA
    fields["frames"] = held.frames + 1
    fields["detail"] = f"offset {held.offset}, {fields['length']} bytes in {fields['frames']} frames"
    return Row(**fields)
