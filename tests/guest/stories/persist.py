"""sg_persist: its options for every service action, and its output as values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stories.machine import Failed, Outcome, attempt, run

if TYPE_CHECKING:
    from stories.initiator import Disk

# sg3_utils' exit codes
GOOD, ILLEGAL_REQUEST, UNIT_ATTENTION, RESERVATION_CONFLICT = 0, 5, 6, 24

TYPES = {
    1: "Write Exclusive",
    3: "Exclusive Access",
    5: "Write Exclusive, registrants only",
    6: "Exclusive Access, registrants only",
    7: "Write Exclusive, all registrants",
    8: "Exclusive Access, all registrants",
}


@dataclass(frozen=True)
class Registrant:
    """A descriptor of READ FULL STATUS."""

    key: int
    all_ports: bool
    port: int
    holder: str | None
    """The reservation's type, for one who holds it."""
    transport_id: str


def _read(disk: Disk, option: str) -> Outcome:
    return run("sg_persist", "--no-inquiry", "--in", option, disk)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise Failed(f"no {pattern!r} in\n{text}")
    return int(found[1], 16)


def generation(disk: Disk) -> int:
    """PRGENERATION."""
    return _number(r"PR generation=0x([0-9a-f]+)", _read(disk, "--read-keys").text)


def keys(disk: Disk) -> list[int]:
    """READ KEYS, in order of magnitude."""
    return sorted(int(key, 16) for key in re.findall(r"^    0x([0-9a-f]+)$", _read(disk, "--read-keys").text, re.MULTILINE))


def reservation(disk: Disk) -> tuple[int, str] | None:
    """READ RESERVATION: key and type."""
    said = _read(disk, "--read-reservation")
    if "there is NO reservation held" in said.text:
        return None
    found = re.search(r"scope: LU_SCOPE,  type: (.*)$", said.has("Reservation follows").text, re.MULTILINE)
    if found is None:
        raise Failed(f"no type in\n{said.text}")
    return _number(r"Key=0x([0-9a-f]+)", said.text), found[1]


def full_status(disk: Disk) -> list[Registrant]:
    """READ FULL STATUS, by key and port."""
    found = []
    for part in _read(disk, "--read-full-status").text.split("    Key=")[1:]:
        holder = re.search(r"<< Reservation holder >>\s+scope: LU_SCOPE,  type: (.*)$", part, re.MULTILINE)
        name = re.search(r"iSCSI (?:world wide unique port id|name): (\S+)", part)
        found.append(
            Registrant(
                key=int(part.split()[0], 16),
                all_ports="All target ports bit set" in part,
                port=0 if "All target ports bit set" in part else _number(r"Relative port address: 0x([0-9a-f]+)", part),
                holder=holder[1] if holder else None,
                transport_id=name[1] if name else part,
            )
        )
    return sorted(found, key=lambda each: (each.key, each.port))


def out(
    disk: Disk, action: str, *options: object, key: int = 0, new: int = 0, kind: int | None = None, code: int = GOOD
) -> Outcome:
    """PERSISTENT RESERVE OUT.

    :param action: sg_persist's name of the service action.
    :param key: RESERVATION KEY.
    :param new: SERVICE ACTION RESERVATION KEY.
    :param kind: TYPE.
    :param code: how sg_persist has to end.
    """
    keys = (f"--param-rk={key:#x}", f"--param-sark={new:#x}")
    typed = () if kind is None else (f"--prout-type={kind}",)
    return run("sg_persist", "--no-inquiry", "--out", f"--{action}", *keys, *typed, *options, disk, code=code)


def told(disk: Disk, *sense: str) -> None:
    """TEST UNIT READY reports these unit attentions, one a time, and then none."""
    for text in sense:
        run("sg_turs", "--verbose", disk, code=UNIT_ATTENTION).has(text)
    run("sg_turs", disk)


def quiet(disk: Disk) -> None:
    """Take whatever unit attentions there are."""
    while attempt("sg_turs", disk).code == UNIT_ATTENTION:
        pass
