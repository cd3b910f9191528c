"""IPS-AUTH-MIB (RFC 4545): the tables of identities, which rows of ISCSI-MIB point to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.statistics.mib import Module, Oid, Table, columns, constant, nowhere
from tcm.statistics.mib_writing import STATUS
from tcm_iscsi.ips_auth_rows import ADDRESS_FAMILIES, IPS_AUTH_MIB, METHOD_CHAP, OBJECTS, Address, Credential, Identity
from tcm_iscsi.ips_auth_writing import AuthWriting
from tcm_iscsi.mib_rows import ACTIVE, IDENTIFIER, INSTANCE, INTEGER, OCTETS, STORAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcm.statistics.mib_state import MibState
    from tcm_iscsi.ips_auth_rows import Identities

OTHER_METHODS = (
    nowhere(
        "ipsAuthCredSrpAttributesTable",
        (*OBJECTS, 8, 1),
        (
            (1, "ipsAuthCredSrpUserName", OCTETS),
            (2, "ipsAuthCredSrpRowStatus", INTEGER),
            (3, "ipsAuthCredSrpStorageType", INTEGER),
        ),
    ),
    nowhere(
        "ipsAuthCredKerbAttributesTable",
        (*OBJECTS, 9, 1),
        (
            (1, "ipsAuthCredKerbPrincipal", OCTETS),
            (2, "ipsAuthCredKerbRowStatus", INTEGER),
            (3, "ipsAuthCredKerbStorageType", INTEGER),
        ),
    ),
)
"""Of what AuthMethod cannot name here."""


class IpsAuthMib:
    """The module's rows."""

    def __init__(self, identities: Identities, state: MibState) -> None:
        self.identities = identities
        self.state = state
        self.writing = AuthWriting(identities, state)

    # rows

    def _identities(self) -> Iterator[tuple[Oid, Identity]]:
        for index, each in self.identities.all().items():
            yield (INSTANCE, index), each

    def _names(self) -> Iterator[tuple[Oid, Identity]]:
        for index, each in self._identities():
            if each.name:
                yield (*index, each.name_index), each

    def _addresses(self) -> Iterator[tuple[Oid, Address]]:
        for index, each in self._identities():
            for number, address in self.identities.addresses(each).items():
                yield (*index, number), address

    def _credentials(self) -> Iterator[tuple[Oid, Credential]]:
        for index, each in self._identities():
            for number, credential in self.identities.credentials(each).items():
                yield (*index, number), credential

    def _users(self) -> Iterator[tuple[Oid, Credential]]:
        return (found for found in self._credentials() if found[1].user)

    # tables

    def module(self) -> Module:
        """The whole of it; it has no notifications."""
        return Module("IPS-AUTH-MIB", IPS_AUTH_MIB, (*self._who(), *self._proofs(), *OTHER_METHODS))

    def _storage(self, _: Any) -> int:
        return self.state.storage

    def _who(self) -> tuple[Table, ...]:
        writing = self.writing
        return (
            Table(
                "ipsAuthInstanceAttributesTable",
                (*OBJECTS, 2, 2),
                lambda: [((INSTANCE,), INSTANCE)],
                columns(
                    (2, "ipsAuthInstDescr", OCTETS, lambda _: self.state.own["authorization"].encode(), writing.instance),
                    (3, "ipsAuthInstStorageType", INTEGER, self._storage, STORAGE),
                ),
            ),
            Table(
                "ipsAuthIdentAttributesTable",
                (*OBJECTS, 3, 1),
                self._identities,
                columns(
                    (2, "ipsAuthIdentDescription", OCTETS, lambda row: row.description.encode(), writing.description),
                    (3, "ipsAuthIdentRowStatus", INTEGER, constant(ACTIVE), STATUS),
                    (4, "ipsAuthIdentStorageType", INTEGER, self._storage, STORAGE),
                ),
                writing.identities,
            ),
            Table(
                "ipsAuthIdentNameAttributesTable",
                (*OBJECTS, 4, 1),
                self._names,
                columns(
                    (2, "ipsAuthIdentName", OCTETS, lambda row: row.name.encode(), writing.name),
                    (3, "ipsAuthIdentNameRowStatus", INTEGER, constant(ACTIVE), STATUS),
                    (4, "ipsAuthIdentNameStorageType", INTEGER, self._storage, STORAGE),
                ),
                writing.names,
            ),
            Table(
                "ipsAuthIdentAddrAttributesTable",
                (*OBJECTS, 5, 1),
                self._addresses,
                columns(
                    (2, "ipsAuthIdentAddrType", INTEGER, lambda row: ADDRESS_FAMILIES[row.network.version], writing.family),
                    (3, "ipsAuthIdentAddrStart", OCTETS, lambda row: row.network.network_address.packed, writing.address),
                    (4, "ipsAuthIdentAddrEnd", OCTETS, lambda row: row.network.broadcast_address.packed, writing.address),
                    (5, "ipsAuthIdentAddrRowStatus", INTEGER, constant(ACTIVE), STATUS),
                    (6, "ipsAuthIdentAddrStorageType", INTEGER, self._storage, STORAGE),
                ),
                writing.addresses,
            ),
        )

    def _proofs(self) -> tuple[Table, ...]:
        writing = self.writing
        return (
            Table(
                "ipsAuthCredentialAttributesTable",
                (*OBJECTS, 6, 1),
                self._credentials,
                columns(
                    (2, "ipsAuthCredAuthMethod", IDENTIFIER, constant(METHOD_CHAP), writing.method),
                    (3, "ipsAuthCredRowStatus", INTEGER, constant(ACTIVE), STATUS),
                    (4, "ipsAuthCredStorageType", INTEGER, self._storage, STORAGE),
                ),
                writing.credentials,
            ),
            Table(
                "ipsAuthCredChapAttributesTable",
                (*OBJECTS, 7, 1),
                self._users,
                columns(
                    (1, "ipsAuthCredChapUserName", OCTETS, lambda row: row.user.encode(), writing.user),
                    (2, "ipsAuthCredChapRowStatus", INTEGER, constant(ACTIVE), STATUS),
                    (3, "ipsAuthCredChapStorageType", INTEGER, self._storage, STORAGE),
                ),
                writing.users,
            ),
        )
