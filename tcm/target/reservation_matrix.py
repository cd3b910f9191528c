"""Which commands a persistent reservation stops, as the standards print it: ``python -m tcm.target.reservation_matrix``.

The rows are the command table's; what stands in them is what the code decides by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tcm.scsi.check_condition import CheckCondition, ReservationConflict
from tcm.scsi.command import PersistentReservation
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.persistent_reservations import OutAction, OutParameters, ReservationType
from tcm.target.persistent_reservations import NexusName, Registration, Request, State, change

if TYPE_CHECKING:
    from tcm.scsi.command import Command

COLUMNS = (
    # heading, type, whether the sender is registered
    ("Write Exclusive", ReservationType.WRITE_EXCLUSIVE, False),
    ("Exclusive Access", ReservationType.EXCLUSIVE_ACCESS, False),
    ("registered, RR all types", ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY, True),
    ("not registered, Write Exclusive RR", ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS, False),
    ("not registered, Exclusive Access RR", ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS, False),
)
"""SPC-4 table 65, SBC-4 table 13: another I_T nexus holds the reservation. RR: registrants only or all registrants."""
_HARMLESS = {
    # the command with and without what its row calls harmless
    "START STOP UNIT": ("with START one and POWER CONDITION 0h", "otherwise"),
    "PREVENT ALLOW MEDIUM REMOVAL": ("with PREVENT zero", "with PREVENT not zero"),
}
_HOLDER, _SENDER = (NexusName(name, None, "target", 1) for name in ("holder", "sender"))


class Row(NamedTuple):
    """A line of the matrix."""

    name: str
    allowed: tuple[bool, ...]
    """For each of :data:`COLUMNS`, or for a registered and an unregistered sender."""


def state(kind: ReservationType | None, *, registered: bool) -> State:
    """Another I_T nexus holds a reservation of that type (``None``: is registered); the sender is registered or not."""
    names = {_HOLDER: 1, _SENDER: 2} if registered else {_HOLDER: 1}
    registrations = {
        name: Registration(key=key, fabric="loopback", transport_id=b"", relative_port=1) for name, key in names.items()
    }
    return State(registrations=registrations, kind=kind, holder=None if kind is None or kind.all_registrants else _HOLDER)


def commands() -> list[Row]:
    """Every command that does not go by rules of its own."""
    rows = []
    for command in COMMANDS:
        if command.persistent_reservation is PersistentReservation.OWN_RULES:
            continue
        for name, cdb in _forms(command):
            allowed = tuple(
                state(kind, registered=registered).has_part(_SENDER)
                or not command.conflicts_persistently(cdb, exclusive_access=kind.exclusive_access)
                for _, kind, registered in COLUMNS
            )
            rows.append(Row(name, allowed))
    return rows


def _forms(command: Command) -> list[tuple[str, bytes]]:
    cdb = bytearray(command.length)
    if command.harmless is None:
        return [(command.name, bytes(cdb))]
    byte, mask, value = command.harmless
    cdb[byte] = value
    other = bytearray(cdb)
    other[byte] = value ^ mask
    return [(f"{command.name} {how}", bytes(each)) for how, each in zip(_HARMLESS[command.name], (cdb, other), strict=True)]


def service_actions() -> list[Row]:
    """PERSISTENT RESERVE OUT, from a registered sender and from one that is not (SPC-4 table 66).

    REPLACE LOST RESERVATION is refused in other ways where nothing is lost.
    """
    return [
        Row(action.name.replace("_", " "), (_taken(action, registered=True), _taken(action, registered=False)))
        for action in OutAction
        if action is not OutAction.REPLACE_LOST_RESERVATION
    ]


def _taken(action: OutAction, *, registered: bool) -> bool:
    kind = ReservationType.EXCLUSIVE_ACCESS
    own = 2 if registered else 0
    registration = Registration(key=3, fabric="loopback", transport_id=b"", relative_port=1)
    request = Request(
        action=action,
        kind=kind,
        parameters=OutParameters(key=own, new_key=1),
        sender=_SENDER,
        others=lambda: {_SENDER: registration},
    )
    try:
        change(state(kind, registered=registered), request)
    except ReservationConflict:
        return False
    except CheckCondition:
        pass  # what it is refused for is no conflict
    return True


def text() -> str:
    """Both tables."""
    width = max(len(row.name) for row in commands())
    word = {True: "Allowed", False: "Conflict"}
    lines = [f"{name}: {heading}" for name, (heading, _, _) in zip("ABCDE", COLUMNS, strict=True)]
    lines += ["", f"{'':{width}} " + " ".join(f"{name:8}" for name in "ABCDE")]
    lines += [f"{row.name:{width}} " + " ".join(f"{word[each]:8}" for each in row.allowed) for row in commands()]
    lines += ["", f"{'PERSISTENT RESERVE OUT':{width}} registered  not registered"]
    lines += [f"{row.name:{width}} {word[row.allowed[0]]:11} {word[row.allowed[1]]}" for row in service_actions()]
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    print(text())
