"""What managers may set in IPS-AUTH-MIB (RFC 4545): initiators' names, where they may come from, and their CHAP users.

Never a secret: the MIB has none. What belongs to an identity that is authorized somewhere is changed in all its node ACLs; of
all others it is kept beside the tree until :mod:`tcm_iscsi.mib_writing` makes it a node ACL.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from tcm.statistics.agentx import Error
from tcm.statistics.mib_edits import acl_index, acl_kind, acl_name, group_of, in_tree, node_acl_of, own, set_own
from tcm.statistics.mib_state import TRANSIENT, no_identity
from tcm.statistics.mib_writing import Assign, Creation, Edit, Refused, Writer, unchanging
from tcm_iscsi.access import Network, network
from tcm_iscsi.ips_auth_rows import (
    ADDRESS_FAMILIES,
    IDENTITY,
    METHOD_CHAP,
    Address,
    Credential,
    Identity,
    address_kind,
    credential_kind,
    unnamed,
)
from tcm_iscsi.mib_rows import INSTANCE
from tcm_iscsi.protocol.names import InvalidName, normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tcm.statistics.mib import Oid
    from tcm.statistics.mib_state import MibState
    from tcm.statistics.mib_writing import Document
    from tcm_iscsi.ips_auth_rows import Identities

MAXIMUM_IDENTITIES = 1000
"""That are kept beside the tree."""
MAXIMUM_ADDRESSES = 64
"""Of one of them."""
TEXT = 255
"""Bytes of an SnmpAdminString."""
_LENGTHS = {1: 4, 2: 16}
"""Bytes of an address, by its AddressFamilyNumbers."""


def _refuse(column: str, why: str, error: Error = Error.INCONSISTENT_VALUE) -> Refused:
    return Refused(error, why, column)


def _place(index: Oid, depth: int) -> Oid:
    """An index of so many numbers after the instance."""
    if len(index) != depth + 1 or index[0] != INSTANCE or not all(0 < each < TRANSIENT for each in index):
        raise Refused(Error.NO_CREATION, f"there is no such instance, or no such index: 1 to {TRANSIENT - 1}")
    return index[1:]


class AuthWriting:
    """Writers of the module's columns, and how its rows are made."""

    def __init__(self, identities: Identities, state: MibState) -> None:
        self._identities = identities
        self._state = state
        self.instance = Writer(lambda _, value: [set_own("authorization", value.decode())], maximum=TEXT, text=True)
        self.description = Writer(self._describe, maximum=TEXT, text=True)
        self.identities = Creation("ipsAuthIdentRowStatus", ("ipsAuthIdentDescription",), self._add, self._remove)
        self.name = Writer(self._rename, maximum=TEXT, text=True)
        self.names = Creation("ipsAuthIdentNameRowStatus", ("ipsAuthIdentName",), self._add_name, self._remove_name)
        self.family = unchanging(choices=frozenset(ADDRESS_FAMILIES.values()))
        self.address = unchanging(maximum=255)
        self.addresses = Creation(
            "ipsAuthIdentAddrRowStatus",
            ("ipsAuthIdentAddrType", "ipsAuthIdentAddrStart", "ipsAuthIdentAddrEnd"),
            self._add_address,
            self._remove_address,
        )
        self.method = unchanging()
        self.credentials = Creation("ipsAuthCredRowStatus", ("ipsAuthCredAuthMethod",), self._add_method, self._remove_method)
        self.user = Writer(self._rename_user, minimum=1, maximum=TEXT, text=True)
        self.users = Creation("ipsAuthCredChapRowStatus", ("ipsAuthCredChapUserName",), self._add_user, self._remove_user)

    def _find(self, index: int) -> Identity | None:
        return self._identities.all().get(index)

    def _keep(self, index: int, change: Callable[[Document], None]) -> Edit:
        """A change of what is kept of an identity; there may be nothing yet if it has node ACLs."""

        def apply(document: Document) -> None:
            kept = document["identities"]
            if str(index) not in kept:
                found = self._find(index)
                if found is None or not found.acls:
                    raise Refused(Error.INCONSISTENT_NAME, "there is no such identity but that of demo mode")
                _bound(len(kept), MAXIMUM_IDENTITIES)
                kept[str(index)] = {**no_identity(), "name": found.name}
            change(kept[str(index)])

        return own(apply)

    @staticmethod
    def _in_acls(identity: Identity, change: Callable[[Document], None]) -> Edit:
        """A change of all its node ACLs."""

        def apply(document: Document) -> None:
            for group, acl in identity.acls:
                change(node_acl_of(document, group, acl.initiator_name))

        return in_tree(apply, *(group.target for group, _ in identity.acls))

    # identities

    def _describe(self, row: Identity, value: bytes) -> list[Edit]:
        return [self._keep(row.index, lambda kept: kept.__setitem__("description", value.decode()))]

    def _add(self, index: Oid, values: Mapping[str, Any]) -> list[Edit]:
        (number,) = _place(index, 1)
        self._check_storage(values, "ipsAuthIdentStorageType")

        def change(document: Document) -> None:
            kept = document["identities"]
            _bound(len(kept), MAXIMUM_IDENTITIES)
            kept[str(number)] = {**no_identity(), "description": values["ipsAuthIdentDescription"].decode()}

        return [Assign(IDENTITY, unnamed(number), number), own(change)]

    @staticmethod
    def _remove(_: Oid, row: Identity) -> list[Edit]:
        if row.acls:
            raise _refuse("ipsAuthIdentRowStatus", f"{row.name} is authorized: its rows of iscsiTgtAuth... go first")
        if row.own is None:
            raise _refuse("ipsAuthIdentRowStatus", f"only demo mode knows {row.name}, for as long as it stays")
        return [own(lambda document: document["identities"].pop(str(row.index), None))]

    def _check_storage(self, values: Mapping[str, Any], column: str) -> None:
        if values.get(column, self._state.storage) != self._state.storage:
            raise _refuse(column, "it is scsiInstStorageType's")

    # names

    def _check_name(self, value: bytes, holder: int) -> str:
        try:
            name = value.decode()
            normal = normalize(name, strict=True)
        except (UnicodeDecodeError, InvalidName) as error:
            raise _refuse("ipsAuthIdentName", f"no initiator's name: {error}") from None
        if normal != name:
            raise _refuse("ipsAuthIdentName", f"write {normal}")
        other = self._identities.by_name().get(name)
        if other is not None and other.known and other.index != holder:
            raise _refuse("ipsAuthIdentName", f"{name} is the name of identity {other.index}")
        return name

    @staticmethod
    def _put_name(document: Document, number: int, name: str) -> None:
        """In what is kept of an identity."""
        kept = document["identities"]
        if any(each["name"] == name for index, each in kept.items() if index != str(number)):
            raise _refuse("ipsAuthIdentName", f"another identity has the name {name}")
        kept[str(number)]["name"] = name

    def _add_name(self, index: Oid, values: Mapping[str, Any]) -> list[Edit]:
        number, place = _place(index, 2)
        self._check_storage(values, "ipsAuthIdentNameStorageType")
        name = self._check_name(values["ipsAuthIdentName"], number)

        def change(document: Document) -> None:
            kept = document["identities"].get(str(number))
            if kept is None or kept["name"]:
                raise Refused(Error.INCONSISTENT_NAME, "there is no such identity, or it has its name")
            self._put_name(document, number, name)
            kept["name_index"] = place

        return [own(change), Assign(IDENTITY, name, number)]

    @staticmethod
    def _remove_name(_: Oid, row: Identity) -> list[Edit]:
        if row.acls or row.own is None:
            raise _refuse("ipsAuthIdentNameRowStatus", f"{row.name} is authorized: its rows of iscsiTgtAuth... go first")
        return [
            own(lambda document: document["identities"][str(row.index)].__setitem__("name", "")),
            Assign(IDENTITY, unnamed(row.index), row.index),
        ]

    def _rename(self, row: Identity, value: bytes) -> list[Edit]:
        """Its node ACLs, with all that is theirs; sessions of the old name end."""
        if value.decode() == row.name:
            return []
        if not row.known:
            raise _refuse("ipsAuthIdentName", "only demo mode knows it")
        name, indexes = self._check_name(value, row.index), self._state.indexes
        edits: list[Edit] = [Assign(IDENTITY, name, row.index)]
        if row.own is not None:
            edits.append(own(lambda document: self._put_name(document, row.index, name)))
        if not row.acls:
            return edits

        def change(document: Document) -> None:
            for group, _ in row.acls:
                if any(each["node_wwn"] == name for each in group_of(document, group)["node_acls"]):
                    raise _refuse("ipsAuthIdentName", f"{name} has a node ACL already")
                node_acl_of(document, group, row.name)["node_wwn"] = name

        edits.append(in_tree(change, *(group.target for group, _ in row.acls)))
        for group, acl in row.acls:
            edits.append(Assign(acl_kind(group.target), acl_name(group, name), acl_index(indexes, group, acl)))
        for kind in (credential_kind, address_kind):
            edits += [Assign(kind(name), each, place) for each, place in indexes.given.get(kind(row.name), {}).items()]
        return edits

    # addresses

    def _add_address(self, index: Oid, values: Mapping[str, Any]) -> list[Edit]:
        number, place = _place(index, 2)
        self._check_storage(values, "ipsAuthIdentAddrStorageType")
        text = str(_network(values))
        identity = self._find(number)
        if identity is not None and identity.acls:
            if any(str(each.network) == text for each in self._identities.addresses(identity).values()):
                raise _refuse("ipsAuthIdentAddrStart", f"{text} is there already")

            def allow(acl: Document) -> None:
                attributes = acl.setdefault("tcm_attributes", {})
                attributes["allowed_addresses"] = [*attributes.get("allowed_addresses", ()), text]

            return [self._in_acls(identity, allow), Assign(address_kind(identity.name), text, place)]

        def keep(kept: Document) -> None:
            if text in kept["addresses"].values():
                raise _refuse("ipsAuthIdentAddrStart", f"{text} is there already")
            _bound(len(kept["addresses"]), MAXIMUM_ADDRESSES)
            kept["addresses"][str(place)] = text

        return [self._keep(number, keep)]

    def _remove_address(self, index: Oid, row: Address) -> list[Edit]:
        if not row.identity.acls:
            return [self._keep(index[1], lambda kept: kept["addresses"].pop(str(index[2]), None))]

        def forbid(acl: Document) -> None:
            attributes = acl.get("tcm_attributes", {})
            rest = [each for each in attributes.get("allowed_addresses", ()) if network(each) != row.network]
            attributes["allowed_addresses"] = rest

        return [self._in_acls(row.identity, forbid)]

    # credentials

    def _add_method(self, index: Oid, values: Mapping[str, Any]) -> list[Edit]:
        number, place = _place(index, 2)
        self._check_storage(values, "ipsAuthCredStorageType")
        if values["ipsAuthCredAuthMethod"] != METHOD_CHAP:
            raise _refuse("ipsAuthCredAuthMethod", "CHAP is what there is; whether it is asked for is the portal group's")
        identity = self._find(number)
        if identity is not None and any(each.group is None for each in self._identities.credentials(identity).values()):
            raise Refused(Error.INCONSISTENT_NAME, "an initiator has one CHAP user")

        def change(kept: Document) -> None:
            if kept["credential"]:
                raise Refused(Error.INCONSISTENT_NAME, "an initiator has one CHAP user")
            kept["credential"], kept["user"] = place, ""

        return [self._keep(number, change)]

    def _remove_method(self, _: Oid, row: Credential) -> list[Edit]:
        return [*self._clear(row, "ipsAuthCredRowStatus"), *self._keep_user(row, 0, "")]

    def _add_user(self, index: Oid, values: Mapping[str, Any]) -> list[Edit]:
        number, place = _place(index, 2)
        self._check_storage(values, "ipsAuthCredChapStorageType")
        user = values["ipsAuthCredChapUserName"].decode()
        identity = self._find(number)
        authorized = identity is not None and bool(identity.acls)

        def change(kept: Document) -> None:
            if kept["credential"] != place or kept["user"]:
                raise Refused(Error.INCONSISTENT_NAME, "there is no such credential that wants a user of CHAP")
            kept["credential"], kept["user"] = (0, "") if authorized else (place, user)

        edits = [self._keep(number, change)]
        if identity is not None and identity.acls:

            def name(acl: Document) -> None:
                if not acl.get("chap_userid"):
                    acl["chap_userid"] = user
                    acl.pop("chap_password", None)  # that was nobody's, and is not this one's

            edits += [self._in_acls(identity, name), Assign(credential_kind(identity.name), user, place)]
        return edits

    def _rename_user(self, row: Credential, value: bytes) -> list[Edit]:
        user = value.decode()
        if user == row.user:
            return []
        _check_own(row, "ipsAuthCredChapUserName")
        identity = row.identity
        if not identity.acls:
            return [self._keep(identity.index, lambda kept: kept.__setitem__("user", user))]
        if any(each.user == user for each in self._identities.credentials(identity).values()):
            raise _refuse("ipsAuthCredChapUserName", f"another credential of {identity.name} has this user")

        def change(acl: Document) -> None:
            if acl.get("chap_userid") == row.user:
                acl["chap_userid"] = user

        kind = credential_kind(identity.name)
        return [self._in_acls(identity, change), Assign(kind, user, self._state.indexes.of(kind, row.user))]

    def _remove_user(self, index: Oid, row: Credential) -> list[Edit]:
        """The credential stays, and wants another user."""
        return [*self._clear(row, "ipsAuthCredChapRowStatus"), *self._keep_user(row, index[2], "")]

    def _keep_user(self, row: Credential, credential: int, user: str) -> list[Edit]:
        """In what is kept beside the tree, which there need not be."""
        index = row.identity.index

        def change(kept: Document) -> None:
            kept["credential"], kept["user"] = credential, user

        kept = row.identity.own
        return [self._keep(index, change)] if credential or (kept is not None and kept["credential"]) else []

    def _clear(self, row: Credential, column: str) -> list[Edit]:
        """Name and secret, from all node ACLs that have this one."""
        _check_own(row, column)
        if not row.identity.acls or not row.user:
            return []

        def change(acl: Document) -> None:
            if acl.get("chap_userid") == row.user:
                acl.pop("chap_userid", None)
                acl.pop("chap_password", None)

        return [self._in_acls(row.identity, change)]


def _check_own(row: Credential, column: str) -> None:
    if row.group is not None:
        raise _refuse(column, f"it is the user of {row.group.target.name}, portal group {row.group.tag}")


def _bound(count: int, maximum: int) -> None:
    if count >= maximum:
        raise Refused(Error.RESOURCE_UNAVAILABLE, f"there are {maximum} already")


def _network(values: Mapping[str, Any]) -> Network:
    """The range that is given, which has to be a network of a prefix."""
    start, end = values["ipsAuthIdentAddrStart"], values["ipsAuthIdentAddrEnd"]
    if {len(start), len(end)} != {_LENGTHS[values["ipsAuthIdentAddrType"]]}:
        raise _refuse("ipsAuthIdentAddrStart", "an IPv4 address has 4 bytes, an IPv6 address 16")
    first, last = ipaddress.ip_address(start), ipaddress.ip_address(end)
    if first.version != last.version or int(first) > int(last):
        raise _refuse("ipsAuthIdentAddrEnd", "a range ends before it begins")
    found: list[Network] = list(ipaddress.summarize_address_range(first, last))
    if len(found) != 1:
        raise _refuse("ipsAuthIdentAddrEnd", f"{first} to {last} is no network; give a row to each of {len(found)}")
    return network(str(found[0]))
