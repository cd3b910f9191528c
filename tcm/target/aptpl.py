"""Persistent reservations as text, in the form of LIO's ``pr/aptpl_<unit serial>`` (lio-configfs 3.3)."""

from __future__ import annotations

from itertools import pairwise

from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.scsi.persistent_reservations import LU_SCOPE, ReservationType
from tcm.scsi.transport_id import TransportId
from tcm.target.access_metadata import FABRICS
from tcm.target.persistent_reservations import NexusName, Registration, State

NOTHING = "No Registrations or Reservations\n"

_OURS = {theirs: ours for ours, theirs in FABRICS.items()}
_FCP = {"fc", "tcm_fc", "qla2xxx", "efct", "fcoe"}
_START, _END = "PR_REG_START: ", "PR_REG_END: "
_KEYS = (
    "initiator_fabric", "initiator_node", "initiator_sid", "sa_res_key", "res_holder", "res_type", "res_scope", "res_all_tg_pt",
    "mapped_lun", "target_fabric", "target_node", "tpgt", "port_rtpi", "target_lun",
)  # fmt: skip
_MANDATORY = ("initiator_fabric", "initiator_node", "sa_res_key", "res_holder", "target_node", "tpgt", "port_rtpi")


def protocol_of(fabric: str) -> ProtocolIdentifier:
    """In which protocol a fabric's initiator ports have their TransportIDs; SAS for one that has no other."""
    if fabric in {"iscsi", FABRICS["iscsi"]}:
        return ProtocolIdentifier.ISCSI
    return ProtocolIdentifier.FCP if fabric in _FCP else ProtocolIdentifier.SAS


class Damaged(ValueError):
    """The text is none of ours; says in which line."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line


def to_text(state: State) -> str:
    """A block for each registration."""
    blocks = []
    for number, (name, each) in enumerate(state.registrations.items()):
        fabric = FABRICS.get(each.fabric, each.fabric)
        lines = [f"initiator_fabric={fabric}", f"initiator_node={name.initiator}"]
        if name.isid is not None:
            lines.append(f"initiator_sid={name.isid.hex()}")
        lines += [f"sa_res_key={each.key}", f"res_holder={state.holds(name):d}"]
        if state.kind is not None and state.holds(name):
            lines += [f"res_type={state.kind:02x}", f"res_scope={LU_SCOPE:02x}"]
        lines += ["res_all_tg_pt=0", f"mapped_lun={each.lun}"]
        lines += [f"target_fabric={fabric}", f"target_node={name.target}", f"tpgt={name.tag}"]
        lines += [f"port_rtpi={each.relative_port}", f"target_lun={each.lun}"]
        blocks.append("\n".join((f"{_START}{number}", *lines, f"{_END}{number}")) + "\n")
    return "".join(blocks) or NOTHING


def from_text(text: str) -> State:
    """The state that was written. PRGENERATION is zero, as after every power on. Raises :class:`Damaged`."""
    text = text.removesuffix("\0")  # LIO writes the string's end too
    if text in {NOTHING, NOTHING.rstrip("\n")}:
        return State()
    lines = text.split("\n")
    if lines.pop():
        raise Damaged(len(lines) + 1, "the last line is cut off")
    starts = [index for index, line in enumerate(lines) if line.startswith(_START)]
    if not starts or starts[0]:
        raise Damaged(1, f"{_START}0 is missing")
    registrations: dict[NexusName, Registration] = {}
    kind: ReservationType | None = None
    holder: NexusName | None = None
    for number, (start, end) in enumerate(pairwise((*starts, len(lines)))):
        values = _block(lines[start:end], number, start + 1)
        try:
            name, registration, held = _registration(values)
        except ValueError as error:
            raise Damaged(start + 1, f"registration {number}: {error}") from None
        if name in registrations:
            raise Damaged(start + 1, f"registration {number} is there twice")
        registrations[name] = registration
        if held is None:
            continue
        if kind is not None and not (kind is held and held.all_registrants):
            raise Damaged(start + 1, f"registration {number} is a second holder")
        kind = held
        holder = None if held.all_registrants else name
    return State(registrations=registrations, kind=kind, holder=holder, aptpl=True)


def _block(lines: list[str], number: int, first: int) -> dict[str, str]:
    if lines[0] != f"{_START}{number}":
        raise Damaged(first, f"{_START}{number} is missing")
    values: dict[str, str] = {}
    for at, line in enumerate(lines[1:-1], first + 1):
        key, separator, value = line.partition("=")
        if not separator or not value or key not in _KEYS or key in values:
            raise Damaged(at, f"{line!r} is not understood")
        values[key] = value
    if lines[-1] != f"{_END}{number}":
        raise Damaged(first + len(lines) - 1, f"{_END}{number} is missing")
    missing = [key for key in _MANDATORY if key not in values]
    if missing:
        raise Damaged(first, f"{', '.join(missing)} of registration {number} is missing")
    return values


def _number(values: dict[str, str], key: str, least: int, most: int, base: int = 10) -> int:
    try:
        number = int(values[key], base)
    except ValueError:
        number = -1
    if not least <= number <= most:
        raise ValueError(f"{key}={values[key]}")
    return number


def _registration(values: dict[str, str]) -> tuple[NexusName, Registration, ReservationType | None]:
    fabric = values["initiator_fabric"]
    initiator = values["initiator_node"]
    isid = bytes.fromhex(values["initiator_sid"].removeprefix("0x")) if "initiator_sid" in values else None
    protocol = protocol_of(fabric)
    if protocol is ProtocolIdentifier.ISCSI:
        transport_id = TransportId(protocol, initiator, isid)
    else:
        transport_id = TransportId(protocol, initiator.removeprefix("naa.").replace(":", ""))
    held: ReservationType | None = None
    if _number(values, "res_holder", 0, 1):
        if "res_type" not in values:
            raise ValueError("res_type is missing")
        held = ReservationType(_number(values, "res_type", 1, 15, 16))
    registration = Registration(
        key=_number(values, "sa_res_key", 1, (1 << 64) - 1),
        fabric=_OURS.get(fabric, fabric),
        transport_id=transport_id.pack(),
        relative_port=_number(values, "port_rtpi", 0, 0xFFFF),
        lun=_number(values, "target_lun", 0, (1 << 64) - 1) if "target_lun" in values else 0,
    )
    return NexusName(initiator, isid, values["target_node"], _number(values, "tpgt", 0, 0xFFFF)), registration, held
