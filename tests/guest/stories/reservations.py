"""Two nodes, each an I_T nexus on a target port of its own, walk through persistent reservations with sg_persist."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from stories.machine import log, run, same
from stories.persist import (
    ILLEGAL_REQUEST,
    RESERVATION_CONFLICT,
    TYPES,
    Registrant,
    full_status,
    generation,
    keys,
    out,
    quiet,
    reservation,
    told,
)

if TYPE_CHECKING:
    from stories.cluster import Cluster
    from stories.initiator import Disk

KEY_A, KEY_B, KEY_C = 0xA11CE, 0xB0B, 0xC0FFEE
CONFLICT = errno.EBADE
"""What Linux makes of RESERVATION CONFLICT."""
WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS, WRITE_EXCLUSIVE_REGISTRANTS, EXCLUSIVE_ACCESS_ALL = 1, 3, 5, 8
RELEASED, PREEMPTED, KEYS_PREEMPTED = "Reservations released", "Reservations preempted", "Registrations preempted"


def story(cluster: Cluster) -> None:
    """Every service action and type."""
    a, b = (node.disk(cluster.lun("reservations")) for node in (cluster.a, cluster.b))
    quiet(a)
    quiet(b)
    capabilities(a)
    registering(cluster, a, b)
    for kind in TYPES:
        reserving(kind, a, b)
    clearing(a, b)
    for kind in TYPES:
        preempting(kind, a, b)
    moving(cluster, a, b)
    several_at_once(cluster, a, b)
    losing_nothing(a)
    same(keys(a), [], "keys in the end")


def _both_registered(a: Disk, b: Disk) -> None:
    out(a, "register-ignore", new=KEY_A)
    out(b, "register-ignore", new=KEY_B)
    same(keys(a), [KEY_B, KEY_A], "keys")


def _cleared(disk: Disk, key: int, *others: Disk) -> None:
    out(disk, "clear", key=key)
    for other in others:
        told(other, PREEMPTED)
    same((keys(disk), reservation(disk)), ([], None), "after CLEAR")


def _access(disk: Disk, *, reads: bool, writes: bool, what: str) -> None:
    data = disk.read(0)
    same(data == CONFLICT, not reads, f"{what}: reads conflict")
    same(disk.write(8, bytes(4096)), 0 if writes else CONFLICT, f"{what}: writes")


def capabilities(a: Disk) -> None:
    """REPORT CAPABILITIES says that all of it is there."""
    said = run("sg_persist", "--no-inquiry", "--in", "--report-capabilities", a)
    for bit in ("RLR_C", "CRH", "SIP_C", "ATP_C", "PTPL_C", "TMV"):
        said.has(f"({bit}): 1")
    for name in TYPES.values():
        said.has(f"{name}: 1")


def registering(cluster: Cluster, a: Disk, b: Disk) -> None:
    """REGISTER, REGISTER AND IGNORE EXISTING KEY, and who may; PRGENERATION counts what succeeds."""
    before = generation(a)
    out(a, "register", key=KEY_C, new=KEY_A, code=RESERVATION_CONFLICT)  # not registered: the key has to be zero
    same(keys(a), [], "keys after a conflict")
    out(a, "register", new=KEY_A)
    out(a, "register", new=KEY_C, code=RESERVATION_CONFLICT)  # registered: it has to be its own
    out(a, "register", key=KEY_A, new=KEY_C)
    out(b, "reserve", key=KEY_B, kind=1, code=RESERVATION_CONFLICT)  # not registered
    out(b, "register-ignore", key=0x123, new=KEY_B)
    same(keys(b), [KEY_B, KEY_C], "keys")
    same(generation(b) - before, 3, "registrations that PRGENERATION counts")
    registered = [
        Registrant(KEY_B, False, 2, None, f"{cluster.b.initiator},i,0x{cluster.b.isid}"),
        Registrant(KEY_C, False, 1, None, f"{cluster.a.initiator},i,0x{cluster.a.isid}"),
    ]
    same(full_status(a), registered, "full status")
    out(b, "register", key=KEY_B)
    out(a, "register", key=KEY_C)
    same((keys(a), generation(a) - before), ([], 5), "after both have left")
    told(a)
    told(b)


def reserving(kind: int, a: Disk, b: Disk) -> None:
    """RESERVE and RELEASE: what others may do, registered or not, and what they are told."""
    name = TYPES[kind]
    write_exclusive, registrants, everybody = kind in {1, 5, 7}, kind in {5, 6, 7, 8}, kind in {7, 8}
    out(a, "register", new=KEY_A)
    before = generation(a)
    out(a, "reserve", key=KEY_B, kind=kind, code=RESERVATION_CONFLICT)
    out(a, "reserve", key=KEY_A, kind=kind)
    out(a, "reserve", key=KEY_A, kind=kind)  # again, the same: nothing happens
    out(a, "reserve", key=KEY_A, kind=3 if kind == 1 else 1, code=RESERVATION_CONFLICT)
    same(reservation(b), (0 if everybody else KEY_A, name), "reservation")
    same([each.holder for each in full_status(b)], [name], "holder")
    _access(a, reads=True, writes=True, what=f"{name}: holder")
    _access(b, reads=write_exclusive, writes=False, what=f"{name}: not registered")

    out(b, "register", new=KEY_B)
    _access(a, reads=True, writes=True, what=f"{name}: holder")
    _access(b, reads=write_exclusive or registrants, writes=registrants, what=f"{name}: registered")
    holders = {KEY_B: name if everybody else None, KEY_A: name}
    same({each.key: each.holder for each in full_status(b)}, holders, "holders")

    out(a, "release", key=KEY_A, kind=3 if kind == 1 else 1, code=ILLEGAL_REQUEST)
    same(reservation(a), (0 if everybody else KEY_A, name), "reservation after a release of another type")
    if not everybody:
        out(b, "release", key=KEY_B, kind=kind)  # does not hold it: GOOD, and nothing happens
        same(reservation(a), (KEY_A, name), "reservation after another's release")
    out(a, "release", key=KEY_A, kind=kind)
    same((reservation(a), generation(a) - before), (None, 1), "after RELEASE")
    told(a)
    told(b, *([RELEASED] if registrants else []))

    # a holder who leaves takes the reservation along, unless all registrants hold it
    out(a, "reserve", key=KEY_A, kind=kind)
    out(a, "register", key=KEY_A)
    told(b, *([RELEASED] if registrants and not everybody else []))
    same(reservation(b), (0, name) if everybody else None, "reservation after its holder has left")
    out(b, "register", key=KEY_B)
    same((keys(b), reservation(b)), ([], None), "after both have left")
    log(f"reservations: {name}: reserved, in force, released")


def clearing(a: Disk, b: Disk) -> None:
    """CLEAR, by one who does not hold the reservation."""
    _both_registered(a, b)
    out(a, "reserve", key=KEY_A, kind=EXCLUSIVE_ACCESS)
    _access(b, reads=False, writes=False, what="before CLEAR")
    out(b, "clear", key=KEY_A, code=RESERVATION_CONFLICT)
    before = generation(b)
    _cleared(b, KEY_B, a)
    same(generation(b) - before, 1, "PRGENERATION after CLEAR")
    told(b)
    _access(a, reads=True, writes=True, what="after CLEAR")
    _access(b, reads=True, writes=True, what="after CLEAR")


def preempting(kind: int, a: Disk, b: Disk) -> None:
    """PREEMPT and PREEMPT AND ABORT: of the reservation, and of a registration only."""
    name, everybody = TYPES[kind], kind in {7, 8}
    for action in ("preempt", "preempt-abort"):
        _both_registered(a, b)
        out(a, "reserve", key=KEY_A, kind=kind)
        out(b, action, key=KEY_A, new=KEY_A, kind=kind, code=RESERVATION_CONFLICT)  # not its own key
        before = generation(b)
        # for all registrants the holders have no one key: zero means everybody else
        out(b, action, key=KEY_B, new=0 if everybody else KEY_A, kind=kind)
        same((keys(b), reservation(b)), ([KEY_B], (0 if everybody else KEY_B, name)), f"after {action}")
        same(generation(b) - before, 1, f"PRGENERATION after {action}")
        told(a, *([KEYS_PREEMPTED]))
        told(b)
        _access(a, reads=kind in {1, 5, 7}, writes=False, what=f"{action}: the loser")
        _access(b, reads=True, writes=True, what=f"{action}: the winner")
        out(a, "reserve", key=KEY_A, kind=kind, code=RESERVATION_CONFLICT)  # it has been put out

        # a registration only: the reservation stays with its holder
        out(a, "register", new=KEY_A)
        out(b, action, key=KEY_B, new=KEY_A, kind=kind)
        same((keys(b), reservation(b)), ([KEY_B], (0 if everybody else KEY_B, name)), f"after {action} of a registration")
        told(a, KEYS_PREEMPTED)
        out(b, action, key=KEY_B, new=KEY_C, kind=kind, code=RESERVATION_CONFLICT)  # nobody has this key
        _cleared(b, KEY_B)
    log(f"reservations: {name}: preempted")


def moving(cluster: Cluster, a: Disk, b: Disk) -> None:
    """REGISTER AND MOVE: to the other node's nexus on the other port, with and without leaving oneself."""
    name = f"{cluster.b.initiator},i,0x{cluster.b.isid}"
    target = ("--relative-target-port=2", f"--transport-id={name}")
    out(a, "register", new=KEY_A)
    out(a, "register-move", *target, key=KEY_A, new=KEY_B, code=ILLEGAL_REQUEST)  # there is nothing to move
    out(a, "reserve", key=KEY_A, kind=WRITE_EXCLUSIVE)
    out(a, "register-move", "--relative-target-port=99", target[1], key=KEY_A, new=KEY_B, code=ILLEGAL_REQUEST)
    before = generation(a)
    out(a, "register-move", *target, key=KEY_A, new=KEY_B)
    same(reservation(a), (KEY_B, TYPES[WRITE_EXCLUSIVE]), "reservation after the move")
    same(generation(a) - before, 1, "PRGENERATION after REGISTER AND MOVE")
    same([(each.key, each.port, bool(each.holder)) for each in full_status(a)], [(KEY_B, 2, True), (KEY_A, 1, False)], "moved")
    _access(b, reads=True, writes=True, what="who it was moved to")
    _access(a, reads=True, writes=False, what="who moved it")
    back = ("--relative-target-port=1", f"--transport-id={cluster.a.initiator},i,0x{cluster.a.isid}", "--unreg")
    out(b, "register-move", *back, key=KEY_B, new=KEY_A)
    same((keys(a), reservation(a)), ([KEY_A], (KEY_A, TYPES[WRITE_EXCLUSIVE])), "after moving back and leaving")
    _cleared(a, KEY_A)


def several_at_once(cluster: Cluster, a: Disk, b: Disk) -> None:
    """SPEC_I_PT registers others as well, ALL_TG_PT through every target port; APTPL is told by REPORT CAPABILITIES."""
    name = f"{cluster.b.initiator},i,0x{cluster.b.isid}"
    out(a, "register", f"--transport-id={name}", new=KEY_C)
    # B's initiator port, through the port that the command came by
    same([(each.key, each.port) for each in full_status(a)], [(KEY_C, 1), (KEY_C, 1)], "SPEC_I_PT")
    same({each.transport_id for each in full_status(a)}, {name, f"{cluster.a.initiator},i,0x{cluster.a.isid}"}, "SPEC_I_PT")
    _cleared(a, KEY_C)

    out(b, "register", "--param-alltgpt", new=KEY_B)
    same([(each.key, each.port) for each in full_status(a)], [(KEY_B, 1), (KEY_B, 2)], "ALL_TG_PT")
    _cleared(b, KEY_B)

    out(a, "register", "--param-alltgpt", f"--transport-id={name}", new=KEY_C)
    same([(each.key, each.port) for each in full_status(a)], [(KEY_C, 1), (KEY_C, 1), (KEY_C, 2), (KEY_C, 2)], "both")
    out(a, "reserve", key=KEY_C, kind=WRITE_EXCLUSIVE_REGISTRANTS)
    _access(b, reads=True, writes=True, what="registered by the other node")
    _cleared(a, KEY_C, b)

    def active() -> bool:
        return "PTPL_A): 1" in run("sg_persist", "--no-inquiry", "--in", "--report-capabilities", a).text

    same(active(), False, "PTPL_A")
    out(a, "register", "--param-aptpl", new=KEY_A)
    same(active(), True, "PTPL_A with APTPL")
    out(a, "register-ignore", new=KEY_B)
    same(active(), False, "PTPL_A without")
    _cleared(a, KEY_B)


def losing_nothing(a: Disk) -> None:
    """REPLACE LOST RESERVATION is for a reservation that was lost; none was."""
    out(a, "replace-lost", new=KEY_A, kind=EXCLUSIVE_ACCESS_ALL, code=ILLEGAL_REQUEST)
    same((keys(a), reservation(a)), ([], None), "after REPLACE LOST RESERVATION")
