"""Rows of IPS-AUTH-MIB (RFC 4545): the identities that initiators have by their names, with what proves them.

An identity is an initiator's name. It is known from the node ACLs of that name in all targets, from demo mode, and from what
managers have made and not given to a target yet, which is kept beside the tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tcm.statistics.mib import ZERO_DOT_ZERO, Oid
from tcm.statistics.mib_edits import port_index
from tcm.statistics.mib_state import TRANSIENT
from tcm.statistics.mib_writing import Document
from tcm_iscsi.access import Network, network
from tcm_iscsi.mib_rows import INSTANCE, AuthorizedInitiator

if TYPE_CHECKING:
    from tcm.statistics.mib_state import MibState
    from tcm.target.portal_group import TargetPortalGroup
    from tcm_iscsi.sessions import Registry

IPS_AUTH_MIB: Oid = (1, 3, 6, 1, 2, 1, 141)
OBJECTS = (*IPS_AUTH_MIB, 1)
METHOD_CHAP = (*OBJECTS, 1, 1, 3)
"""ipsAuthMethodChap."""
ADDRESS_FAMILIES = {4: 1, 6: 2}
"""AddressFamilyNumbers, by the version of IP."""
IDENTITY = "identity"
"""The kind of the indexes of identities."""
_IDENTITIES = (*OBJECTS, 3, 1, 1, 2, INSTANCE)
_CREDENTIALS = (*OBJECTS, 6, 1, 1, 2, INSTANCE)


@dataclass(frozen=True, slots=True)
class Identity:
    """An initiator by its name."""

    index: int
    name: str
    """Empty: it has got none yet."""
    own: Document | None
    """What is kept of it beside the tree: see :func:`tcm.statistics.mib_state.no_identity`."""
    acls: tuple[AuthorizedInitiator, ...] = ()
    """Its node ACLs, but those of demo mode."""
    dynamic: tuple[AuthorizedInitiator, ...] = ()
    """Those of demo mode."""

    @property
    def known(self) -> bool:
        """By more than demo mode."""
        return self.own is not None or bool(self.acls)

    @property
    def description(self) -> str:
        """For people."""
        return str(self.own["description"]) if self.own is not None else ""

    @property
    def name_index(self) -> int:
        """ipsAuthIdentNameIndex: there is one name."""
        return int(self.own["name_index"]) if self.own is not None else 1


class Credential(NamedTuple):
    """A CHAP user that proves an identity."""

    identity: Identity
    user: str
    """Empty: it has got no row in the table of CHAP yet."""
    group: TargetPortalGroup | None
    """Whose user it is, for want of one of the initiator's own."""


class Address(NamedTuple):
    """Where an identity may come from."""

    identity: Identity
    network: Network


def identity_row(index: int) -> Oid:
    """RowPointer to an identity."""
    return (*_IDENTITIES, index)


def identity_of_row(pointer: Oid) -> int | None:
    """The other way round; ``None``: it points to something else."""
    return pointer[-1] if pointer[:-1] == _IDENTITIES else None


def credential_kind(name: str) -> str:
    """Of the indexes of an identity's credentials."""
    return f"credential {name}"


def address_kind(name: str) -> str:
    """Of the indexes of an identity's addresses."""
    return f"address {name}"


def unnamed(index: int) -> str:
    """What the index of an identity without a name is kept under; no name of an initiator looks like this."""
    return f"#{index}"


def allowed(place: AuthorizedInitiator) -> tuple[str, ...]:
    """``allowed_addresses`` of a node ACL, as they are written there."""
    return tuple(getattr(place.acl.attributes, "allowed_addresses", ()))


class Identities:
    """What there is of each."""

    def __init__(self, registry: Registry, state: MibState) -> None:
        self._registry = registry
        self._state = state

    def all(self) -> dict[int, Identity]:
        """By index."""
        indexes = self._state.indexes
        acls: dict[str, list[AuthorizedInitiator]] = {}
        dynamic: dict[str, list[AuthorizedInitiator]] = {}
        for target in self._registry.targets:
            for group in target.portal_groups.values():
                for acl in group.node_acls.values():
                    where = dynamic if acl.dynamic else acls
                    where.setdefault(acl.initiator_name, []).append(AuthorizedInitiator(group, acl))
        found: dict[int, Identity] = {}
        for text, own in self._state.own["identities"].items():
            index, name = int(text), own["name"]
            if indexes.name(IDENTITY, index) != (name or unnamed(index)):
                indexes.assign(IDENTITY, name or unnamed(index), index, steal=True)
            found[index] = Identity(index, name, own, tuple(acls.pop(name, ())), tuple(dynamic.pop(name, ())))
        for name, places in acls.items():
            index = indexes.of(IDENTITY, name)
            found[index] = Identity(index, name, None, tuple(places), tuple(dynamic.pop(name, ())))
        for name, index in self._state.transients.of_all(dynamic).items():
            found[index] = Identity(index, name, None, (), tuple(dynamic[name]))
        return found

    def by_name(self) -> dict[str, Identity]:
        """Those that have a name."""
        return {each.name: each for each in self.all().values() if each.name}

    def credentials(self, identity: Identity) -> dict[int, Credential]:
        """By index."""
        indexes, own = self._state.indexes, identity.own
        users = {place.acl.authentication.userid: None for place in identity.acls if place.acl.authentication.userid}
        kind = credential_kind(identity.name)
        found = {indexes.of(kind, user): Credential(identity, user, None) for user in users}
        if own is not None and own["credential"] and not (identity.acls and own["user"]):
            found.setdefault(own["credential"], Credential(identity, own["user"], None))
        for place in (*identity.acls, *identity.dynamic):
            group = place.group
            if group.authentication.userid and (place.acl.dynamic or not place.acl.authentication.userid):
                found[self._shared(group)] = Credential(identity, group.authentication.userid, group)
        return found

    def _shared(self, group: TargetPortalGroup) -> int:
        """The index of a portal group's user."""
        return TRANSIENT + port_index(self._state.indexes, group)

    def credential_row(self, identity: Identity | None, group: TargetPortalGroup, user: str) -> Oid:
        """RowPointer to that by which an initiator has proved itself to a portal group."""
        if identity is not None and user:
            for index, each in self.credentials(identity).items():
                if each.user == user and each.group in {None, group}:
                    return (*_CREDENTIALS, identity.index, index)
        return ZERO_DOT_ZERO

    def addresses(self, identity: Identity) -> dict[int, Address]:
        """By index."""
        if identity.acls:
            texts = {str(network(text)): None for place in identity.acls for text in allowed(place)}
            kind = address_kind(identity.name)
            return {self._state.indexes.of(kind, text): Address(identity, network(text)) for text in texts}
        kept = identity.own["addresses"] if identity.own is not None else {}
        return {int(index): Address(identity, network(text)) for index, text in kept.items()}
