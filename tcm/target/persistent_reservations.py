"""Persistent reservations of a logical unit (SPC-5 5.14): what is registered, who holds what, and how a command changes it.

A state never changes: a service action makes a new one, which takes effect as a whole once it is kept where it has to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from tcm.scsi.check_condition import (
    InsufficientRegistrationResources,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    InvalidReleaseOfPersistentReservation,
    ReservationConflict,
)
from tcm.scsi.persistent_reservations import OutAction, OutParameters, ReservationType
from tcm.target.unit_attention import REGISTRATIONS_PREEMPTED, RESERVATIONS_PREEMPTED, RESERVATIONS_RELEASED, UnitAttention

if TYPE_CHECKING:
    from collections.abc import Iterable

MAXIMUM_REGISTRATIONS = 10_000
"""I_T nexuses registered with one logical unit; then INSUFFICIENT REGISTRATION RESOURCES."""

_KEY, _NEW_KEY, _FLAGS, _TRANSPORT_ID = 0, 8, 20, 24
_KEY_IS_THEIRS = {
    OutAction.REGISTER,
    OutAction.REGISTER_AND_IGNORE_EXISTING_KEY,
    OutAction.REPLACE_LOST_RESERVATION,
}
"""Service actions that have rules of their own about RESERVATION KEY; all others want the sender's (SPC-4 6.16.3)."""


class NexusName(NamedTuple):
    """An I_T nexus, whether it is there now or not."""

    initiator: str
    isid: bytes | None
    """iSCSI, unless ``enforce_pr_isids`` is off."""
    target: str
    tag: int
    """Target portal group: with the target's name, the target port, also after a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What is known of a registered I_T nexus."""

    key: int
    fabric: str
    transport_id: bytes
    relative_port: int
    lun: int = 0
    """The number that the target port exports the logical unit under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Registrations and reservation at one moment."""

    registrations: Mapping[NexusName, Registration] = field(default_factory=dict)
    kind: ReservationType | None = None
    """The reservation's type; ``None``: there is no reservation."""
    holder: NexusName | None = None
    """Who holds it; ``None`` if nobody or every registered I_T nexus does."""
    generation: int = 0
    """PRGENERATION."""
    aptpl: bool = False
    """To be kept through a loss of power."""

    def holds(self, name: NexusName) -> bool:
        """Whether that I_T nexus is a persistent reservation holder."""
        if self.kind is None:
            return False
        return name in self.registrations if self.kind.all_registrants else name == self.holder

    def has_part(self, name: NexusName) -> bool:
        """Whether the reservation, if there is one, lets that I_T nexus do everything."""
        kind = self.kind
        if kind is None:
            return True
        return name in self.registrations if kind.for_registrants else name == self.holder

    @property
    def reservation(self) -> tuple[int, ReservationType] | None:
        """Key (zero for all registrants types) and type, as READ RESERVATION tells."""
        if self.kind is None:
            return None
        return (self.registrations[self.holder].key if self.holder else 0), self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A PERSISTENT RESERVE OUT command."""

    action: OutAction
    kind: ReservationType | None
    """TYPE; ``None`` where it is ignored."""
    parameters: OutParameters
    sender: NexusName
    others: Callable[[], Mapping[NexusName, Registration]]
    """What REGISTER would register, the sender and others; whom REGISTER AND MOVE moves to; with the new key. Asked for
    once the command is known not to conflict. Raises :class:`tcm.scsi.check_condition.CheckCondition`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What comes of a request."""

    state: State
    attentions: Mapping[NexusName, UnitAttention] = field(default_factory=dict)
    preempted: tuple[NexusName, ...] = ()
    """Whose tasks PREEMPT AND ABORT aborts."""


def change(state: State, request: Request) -> Change:
    """Carry a service action out. Raises :class:`ReservationConflict`, :class:`tcm.scsi.check_condition.CheckCondition`."""
    if request.action not in _KEY_IS_THEIRS:
        own = state.registrations.get(request.sender)
        if own is None or request.parameters.key != own.key:
            raise ReservationConflict
    done = _ACTIONS[request.action](state, request)
    if len(done.state.registrations) > MAXIMUM_REGISTRATIONS:
        raise InsufficientRegistrationResources
    return done


def attentions_between(before: State, after: State) -> dict[NexusName, UnitAttention]:
    """Whom a change that another node has made concerns, as far as the two states tell."""
    preempted = REGISTRATIONS_PREEMPTED if after.registrations else RESERVATIONS_PREEMPTED
    told = dict.fromkeys((name for name in before.registrations if name not in after.registrations), preempted)
    kind = before.kind
    if kind is not None and kind is not after.kind and (kind.for_registrants or after.kind is not None):
        told |= dict.fromkeys((name for name in before.registrations if name in after.registrations), RESERVATIONS_RELEASED)
    return told


def without_isids(state: State) -> State:
    """As if an iSCSI initiator's sessions had always been one I_T nexus; the first key counts."""
    registrations: dict[NexusName, Registration] = {}
    for name, each in state.registrations.items():
        registrations.setdefault(name._replace(isid=None), each)
    return replace(state, registrations=registrations, holder=state.holder and state.holder._replace(isid=None))


def next_generation(generation: int) -> int:
    """PRGENERATION after a change."""
    return (generation + 1) & 0xFFFFFFFF


def unregister(state: State, names: Iterable[NexusName]) -> Change:
    """Who may not come any more is unregistered, as if by itself (SPC-4 5.13.11.2.3)."""
    after = replace(_without(state, names), generation=next_generation(state.generation))
    released = state.kind is not None and after.kind is None and state.kind.for_registrants
    return Change(state=after, attentions=dict.fromkeys(after.registrations if released else (), RESERVATIONS_RELEASED))


def _others(state: State, *but: NexusName) -> list[NexusName]:
    return [name for name in state.registrations if name not in but]


def _without(state: State, names: Iterable[NexusName]) -> State:
    """The registrations are gone, and the reservation if nobody is left who holds it."""
    gone = set(names)
    left = {name: each for name, each in state.registrations.items() if name not in gone}
    if state.holder in gone or not left:
        return replace(state, registrations=left, kind=None, holder=None)
    return replace(state, registrations=left)


def _reserved(state: State, kind: ReservationType, holder: NexusName) -> State:
    return replace(state, kind=kind, holder=None if kind.all_registrants else holder)


def _register(state: State, request: Request) -> Change:
    """SPC-4 tables 67 and 68; ALL_TG_PT as if the command had come through each target port (SPC-4 6.16.3)."""
    parameters, sender = request.parameters, request.sender
    own = state.registrations.get(sender)
    ignores_key = request.action is OutAction.REGISTER_AND_IGNORE_EXISTING_KEY
    if not ignores_key and parameters.key != (own.key if own is not None else 0):
        raise ReservationConflict
    if own is None and not parameters.new_key:
        return Change(state=state)
    if own is not None and parameters.spec_i_pt:
        raise InvalidFieldInParameterList.at(_FLAGS, 3)
    concerned = request.others()
    before = [name for name in concerned if name in state.registrations]
    if not ignores_key and any(state.registrations[name].key != parameters.key for name in before):
        raise ReservationConflict
    state = replace(state, aptpl=parameters.aptpl)
    if not parameters.new_key:
        return unregister(state, before)
    generation = next_generation(state.generation)
    return Change(state=replace(state, registrations={**state.registrations, **concerned}, generation=generation))


def _reserve(state: State, request: Request) -> Change:
    assert request.kind is not None
    if state.kind is None:
        return Change(state=_reserved(state, request.kind, request.sender))
    if state.holds(request.sender) and state.kind is request.kind:
        return Change(state=state)
    raise ReservationConflict


def _release(state: State, request: Request) -> Change:
    if not state.holds(request.sender):
        return Change(state=state)
    if state.kind is not request.kind:
        raise InvalidReleaseOfPersistentReservation
    told = _others(state, request.sender) if request.kind is not None and request.kind.for_registrants else ()
    return Change(state=replace(state, kind=None, holder=None), attentions=dict.fromkeys(told, RESERVATIONS_RELEASED))


def _clear(state: State, request: Request) -> Change:
    after = replace(state, registrations={}, kind=None, holder=None, generation=next_generation(state.generation))
    return Change(state=after, attentions=dict.fromkeys(_others(state, request.sender), RESERVATIONS_PREEMPTED))


def _preempt(state: State, request: Request) -> Change:
    """SPC-5 5.14.11.2: of the reservation if the key is its holder's, else of registrations only."""
    assert request.kind is not None
    key, sender = request.parameters.new_key, request.sender
    everybody = state.kind is not None and state.kind.all_registrants
    if not key and not everybody:
        raise InvalidFieldInParameterList.at(_NEW_KEY)
    named = [name for name, each in state.registrations.items() if each.key == key]
    after = replace(state, generation=next_generation(state.generation))
    holder_named = state.holder is not None and state.registrations[state.holder].key == key
    if holder_named or not key:
        gone = [name for name in named if name != sender] if key else _others(state, sender)
        after = _reserved(_without(after, gone), request.kind, sender)
        attentions = dict.fromkeys(_others(after, sender) if state.kind is not request.kind else (), RESERVATIONS_RELEASED)
        preempted = tuple(named) if key else tuple(state.registrations)
    elif named:
        gone = named
        after = _without(after, gone)
        attentions, preempted = {}, tuple(named)
    else:
        raise ReservationConflict
    attentions |= dict.fromkeys((name for name in gone if name != sender), REGISTRATIONS_PREEMPTED)
    return Change(state=after, attentions=attentions, preempted=preempted)


def _move(state: State, request: Request) -> Change:
    """SPC-4 table 70."""
    parameters, sender = request.parameters, request.sender
    if state.kind is None:
        raise InvalidFieldInCdb.at(1, 4)
    if state.kind.all_registrants or state.holder != sender:
        raise ReservationConflict
    if not parameters.new_key:
        raise InvalidFieldInParameterList.at(_NEW_KEY)
    destination = request.others()
    (target,) = destination
    if (target.initiator, target.isid) == (sender.initiator, sender.isid):
        raise InvalidFieldInParameterList.at(_TRANSPORT_ID)
    registrations = {**state.registrations, **destination}
    if parameters.unreg:
        del registrations[sender]
    after = replace(
        state,
        registrations=registrations,
        holder=target,
        generation=next_generation(state.generation),
        aptpl=parameters.aptpl,
    )
    return Change(state=after)


def _replace_lost(_state: State, request: Request) -> Change:
    """Everything is forgotten but the new reservation (SPC-4 5.13.11.3); that something was lost, the caller has checked."""
    assert request.kind is not None
    for at, wrong in ((_KEY, request.parameters.key), (_NEW_KEY, not request.parameters.new_key)):
        if wrong:
            raise InvalidFieldInParameterList.at(at)
    after = State(registrations=request.others(), aptpl=request.parameters.aptpl)
    return Change(state=_reserved(after, request.kind, request.sender))


_ACTIONS: dict[OutAction, Callable[[State, Request], Change]] = {
    OutAction.REGISTER: _register,
    OutAction.RESERVE: _reserve,
    OutAction.RELEASE: _release,
    OutAction.CLEAR: _clear,
    OutAction.PREEMPT: _preempt,
    OutAction.PREEMPT_AND_ABORT: _preempt,
    OutAction.REGISTER_AND_IGNORE_EXISTING_KEY: _register,
    OutAction.REGISTER_AND_MOVE: _move,
    OutAction.REPLACE_LOST_RESERVATION: _replace_lost,
}
