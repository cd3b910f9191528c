"""What has to be done to make one configuration of another, and how to take it back. Pure: no tree is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tcm.configfs.comparable import comparable
from tcm.configfs.script import Json, Script, Step, fabrics_of
from tcm.configfs.unchanged import Unchanged

if TYPE_CHECKING:
    from collections.abc import Mapping

HIDDEN = "***"
"""Shown instead of a secret."""


class Operation(NamedTuple):
    """One call of the tree: ``make``, ``remove``, ``write``, ``link``, ``unlink``."""

    action: str
    path: str
    value: str = ""
    before: str | None = None
    """The value that is replaced."""
    secret: bool = False
    soft: bool = False
    """If it is refused, it stays as it is."""

    def to_json(self) -> dict[str, Any]:
        """For people: no secrets."""
        found: dict[str, Any] = {"action": self.action, "path": self.path}
        if self.action in {"write", "link"}:
            found["value"] = HIDDEN if self.secret else self.value
        if self.before is not None:
            found["before"] = HIDDEN if self.secret else self.before
        return found


class Move(NamedTuple):
    """One operation and what takes it back; either may be nothing."""

    do: Operation | None
    undo: Operation | None


class _State:
    """The steps of a configuration, found by path."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.groups = {step.path for step in steps if step.action == "make"}
        self.values: dict[str, Step] = {}
        self.links: dict[str, Step] = {}
        """By the group that they are in."""
        self.fixed: dict[str, dict[str, str]] = {}
        self.sizes: dict[str, Step] = {}
        """Those that can become greater, by the group that they are of."""
        for step in steps:
            if step.action == "link":
                self.links[step.group] = step
            elif step.action == "write":
                self.values[step.path] = step
                if step.grows:
                    self.sizes[step.group] = step
                if step.fixed:
                    self.fixed.setdefault(step.group, {})[step.key] = step.value

    def size(self, group: str) -> int:
        """In bytes; 0 if it has none, or nobody said."""
        step = self.sizes.get(group)
        return int(step.value.partition("=")[2]) if step is not None else 0


def plan(desired: Json, current: Json, places: Mapping[str, str]) -> list[Move]:
    """The moves from ``current`` to ``desired``, each a saveconfig.json.

    Groups that stay are not touched but for the values that differ; values that ``desired`` does not name stay. What can be
    given only once and differs has its group made anew, with all that hangs on it; what is taken only while no LUN leads there
    has the LUNs made anew.

    :param places: where the storage objects of ``current`` are in the tree.
    """
    trimmed = comparable(current, desired)
    running = fabrics_of(trimmed)
    unchanged = Unchanged(trimmed, desired, places)
    now = _State(list(Script(unchanged.left_out(trimmed), places, running).steps()))
    then = _State(list(Script(unchanged.left_out(desired), places, running).steps()))
    anew = _made_anew(now, then)
    if anew or not now.groups <= then.groups:
        # what goes may have to come back as it was
        now = _State(list(Script(unchanged.left_out(current), places, running).steps()))
    # last, when nothing else can be refused: it cannot be taken back
    return [*_removals(now, then, anew), *_additions(now, then, anew), *_growth(now, then)]


def _growth(now: _State, then: _State) -> list[Move]:
    moves = []
    for group, step in then.sizes.items():
        if _grows(now, then, group):
            before = now.sizes[group].value
            moves.append(Move(Operation("write", step.path, step.value, before), Operation("write", step.path, before)))
    return moves


def _grows(now: _State, then: _State, group: str) -> bool:
    """The same file is to have more."""
    name = f"{group}/control fd_dev_name"
    same = now.fixed.get(group, {}).get(name) == then.fixed.get(group, {}).get(name)
    return same and 0 < now.size(group) < then.size(group)


def _made_anew(now: _State, then: _State) -> set[str]:
    """Groups that are in both and cannot stay. A group comes after what it hangs on, so one pass finds all."""
    anew: set[str] = set()
    unexported = {
        step.group
        for step in then.steps
        if step.unexported and step.path in now.values and now.values[step.path].value != step.value
    }
    for step in now.steps:
        if step.action == "make" and step.path in then.groups:
            parent = step.path.rpartition("/")[0]
            if _under(step.path, anew) or _differ(now, then, step.path):
                anew.add(step.path)
            elif step.path in now.links:
                target = now.links[step.path].value
                link = then.links.get(step.path)
                if target in anew or target in unexported or link is None or link.value != target:
                    anew.add(step.path)
            elif parent in anew:
                anew.add(step.path)
    return anew


def _differ(now: _State, then: _State, group: str) -> bool:
    """What the file leaves out (a serial, the size of a file that is there) is as it is."""
    before = now.fixed.get(group, {})
    grown = then.sizes[group].key if _grows(now, then, group) else None
    return any(before.get(key) != value and key != grown for key, value in then.fixed.get(group, {}).items())


def _under(path: str, anew: set[str]) -> bool:
    if not anew:
        return False
    while path := path.rpartition("/")[0]:
        if path in anew:
            return True
    return False


def _removals(now: _State, then: _State, anew: set[str]) -> list[Move]:
    moves = []
    for step in reversed(now.steps):
        goes = _goes(step, then, anew)
        if not goes or (step.action == "make" and "/" not in step.path):
            # the directory of a fabric stays, once it is there
            continue
        if step.action == "make":
            moves.append(Move(Operation("remove", step.path), Operation("make", step.path)))
        elif step.action == "link":
            moves.append(Move(Operation("unlink", step.path), Operation("link", step.path, step.value)))
        else:
            back = Operation("write", step.path, step.value, secret=step.secret)
            disable = step.path.endswith("/enable") and step.value == "1" and not step.fixed
            # nobody logs in to a portal group that is half gone
            moves.append(Move(Operation("write", step.path, "0", "1") if disable else None, back))
    return moves


def _goes(step: Step, then: _State, anew: set[str]) -> bool:
    group = step.path if step.action == "make" else step.group
    return group in anew or group not in then.groups


def _additions(now: _State, then: _State, anew: set[str]) -> list[Move]:
    moves = []
    for step in then.steps:
        group = step.path if step.action == "make" else step.group
        fresh = group in anew or group not in now.groups
        if step.action == "make":
            if fresh:
                keep = "/" not in step.path
                moves.append(Move(Operation("make", step.path), None if keep else Operation("remove", step.path)))
        elif step.action == "link":
            if fresh or group not in now.links:
                moves.append(Move(Operation("link", step.path, step.value), Operation("unlink", step.path)))
        elif fresh:
            disable = step.path.endswith("/enable") and step.value == "1" and not step.fixed
            undo = Operation("write", step.path, "0") if disable else None
            # what is made anew has the size that it had, and grows like what stays
            value = now.sizes[group].value if step.grows and _grows(now, then, group) else step.value
            if value or not step.fixed:
                moves.append(Move(Operation("write", step.path, value, secret=step.secret, soft=step.soft), undo))
        elif step.fixed:
            pass  # it is as it should be: otherwise the group would be made anew
        else:
            was = now.values.get(step.path)
            if was is None or was.value != step.value:
                before = step.initial if was is None else was.value
                undo = None if before is None else Operation("write", step.path, before, secret=step.secret)
                moves.append(Move(Operation("write", step.path, step.value, before, step.secret, step.soft), undo))
    return moves
