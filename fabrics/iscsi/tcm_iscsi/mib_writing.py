"""What managers may set in ISCSI-MIB (RFC 7147): parameters of nodes, portals, and node ACLs of IPS-AUTH-MIB's identities."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from tcm.statistics.agentx import Error
from tcm.statistics.mib_edits import (
    add_node_acl,
    claim_acl,
    device_index,
    group_of,
    in_tree,
    own,
    remove_node_acl,
    tagged,
    target_of,
)
from tcm.statistics.mib_state import TRANSIENT
from tcm.statistics.mib_writing import TRUTH, Assign, Creation, Edit, Refused, Writer
from tcm_iscsi.ips_auth_rows import address_kind, allowed, credential_kind, identity_of_row
from tcm_iscsi.mib_rows import INSTANCE, TARGET_ROLE, TCP, TRUE, Authorization, Node, digest_choice, portal_parameters
from tcm_iscsi.sessions import PortalBinding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tcm.statistics.mib import Oid
    from tcm.statistics.mib_state import MibState
    from tcm.statistics.mib_writing import Document
    from tcm.target.device import TargetDevice
    from tcm.target.portal_group import TargetPortalGroup
    from tcm_iscsi.ips_auth_rows import Identities, Identity
    from tcm_iscsi.sessions import Registry

PORT = 3260
"""Of a portal that is made: a manager can set another one once it is there."""
_ADDRESS_TYPES = {1: 4, 2: 16}
"""InetAddressType: ipv4, ipv6; how many bytes an address has."""


class TargetPortal(NamedTuple):
    """A portal of a node."""

    binding: PortalBinding
    group: TargetPortalGroup


def portal_name(address: str, port: int) -> str:
    """What a portal's index is kept under."""
    return f"{address} {port}"


def _parameter(name: str, text: Any) -> Any:
    def edits(row: Node, value: int) -> list[Edit]:
        def change(document: Document) -> None:
            for group in target_of(document, row.target)["tpgs"]:
                group["parameters"][name] = text(value)

        return [in_tree(change, row.target)]

    return edits


def truth_parameter(name: str) -> Writer:
    """A parameter of all portal groups of a node that is Yes or No."""
    return Writer(_parameter(name, lambda value: "Yes" if value == TRUE else "No"), choices=TRUTH)


def number_parameter(name: str, minimum: int, maximum: int) -> Writer:
    """A parameter of all portal groups of a node that is a number."""
    return Writer(_parameter(name, str), minimum, maximum)


def _is(portal: Document, binding: PortalBinding) -> bool:
    """Whether a portal in the tree is that one; the port of one that takes any free port is 0 there."""
    return portal["ip_address"] == binding.address and portal["port"] in {binding.port, 0}


def _refuse(name: str, why: str) -> Refused:
    return Refused(Error.INCONSISTENT_VALUE, why, name)


class IscsiWriting:
    """Writers of the module's columns, and how its rows are made."""

    def __init__(self, registry: Registry, identities: Identities, state: MibState) -> None:
        self._registry = registry
        self._identities = identities
        self._state = state
        self.portals = Creation(
            "iscsiPortalRowStatus", ("iscsiPortalRoles", "iscsiPortalAddr"), self._add_portal, self._remove_portal
        )
        self.port = Writer(self._set_port, 1, 65535)
        self.tag = Writer(self._set_tag, 1, 65535)
        self.authorized = Creation("iscsiTgtAuthRowStatus", ("iscsiTgtAuthIdentity",), self._authorize, self._withdraw)

    # portals

    def _add_portal(self, index: Oid, values: Mapping[str, Any]) -> list[Edit]:
        """In the first portal group of every node."""
        if len(index) != 2 or index[0] != 1 or not 0 < index[1] < TRANSIENT:
            raise Refused(Error.NO_CREATION, f"there is no such instance, or no such index: 1 to {TRANSIENT - 1}")
        address = self._address(values)
        groups = [target.portal_groups[min(target.portal_groups)] for target in self._registry.targets if target.portal_groups]
        if not groups:
            raise _refuse("iscsiPortalRowStatus", "there is no node that could have a portal")
        self._check_rest(PortalBinding(address, PORT, groups), values)
        if any((each.address, each.port) == (address, PORT) for each in self._registry.bindings):
            raise _refuse("iscsiPortalAddr", f"there is a portal at {address} and port {PORT} already")

        def change(document: Document) -> None:
            for group in groups:
                group_of(document, group)["portals"].append(_portal(address, PORT))

        return [Assign("portal", portal_name(address, PORT), index[1]), in_tree(change, *(each.target for each in groups))]

    @staticmethod
    def _address(values: Mapping[str, Any]) -> str:
        packed: bytes = values["iscsiPortalAddr"]
        if _ADDRESS_TYPES.get(values.get("iscsiPortalAddrType", 1)) != len(packed):
            raise _refuse("iscsiPortalAddr", "an IPv4 address has 4 bytes, an IPv6 address 16")
        return str(ip_address(packed))

    def _check_rest(self, binding: PortalBinding, values: Mapping[str, Any]) -> None:
        """What is of the node, not of its portals, cannot be given another value with one of them."""
        allowed = {
            "iscsiPortalRoles": TARGET_ROLE,
            "iscsiPortalProtocol": TCP,
            "iscsiPortalMaxRecvDataSegLength": portal_parameters(binding).MaxRecvDataSegmentLength,
            "iscsiPortalPrimaryHdrDigest": digest_choice("HeaderDigest", 0)(binding),
            "iscsiPortalPrimaryDataDigest": digest_choice("DataDigest", 0)(binding),
            "iscsiPortalSecondaryHdrDigest": digest_choice("HeaderDigest", 1)(binding),
            "iscsiPortalSecondaryDataDigest": digest_choice("DataDigest", 1)(binding),
            "iscsiPortalStorageType": self._state.storage,
        }
        for name, value in allowed.items():
            given = values.get(name, value)
            # BITS may come with bits that nobody has named
            if (given.rstrip(b"\0") if isinstance(given, bytes) else given) != value:
                raise _refuse(name, f"a portal here has {value!r}")

    @staticmethod
    def _remove_portal(_: Oid, binding: PortalBinding) -> list[Edit]:
        groups = list(binding.groups)

        def change(document: Document) -> None:
            for group in groups:
                found = group_of(document, group)
                found["portals"] = [each for each in found["portals"] if not _is(each, binding)]

        return [in_tree(change, *(each.target for each in groups))]

    def _set_port(self, row: TargetPortal, port: int) -> list[Edit]:
        """The node listens there instead; a portal of this node alone keeps its index."""
        binding, group = row
        if port == binding.port:
            return []

        def change(document: Document) -> None:
            found = group_of(document, group)
            rest = [each for each in found["portals"] if not _is(each, binding)]
            found["portals"] = [*rest, _portal(binding.address, port)]

        edits: list[Edit] = [in_tree(change, group.target)]
        there = any((each.address, each.port) == (binding.address, port) for each in self._registry.bindings)
        if binding.groups == [group] and not there:
            index = self._state.indexes.of("portal", portal_name(binding.address, binding.port))
            edits.append(Assign("portal", portal_name(binding.address, port), index))
        return edits

    @staticmethod
    def _set_tag(row: TargetPortal, tag: int) -> list[Edit]:
        """The portal is another portal group's of the same node."""
        binding, group = row
        if tag == group.tag:
            return []
        target: TargetDevice = group.target

        def change(document: Document) -> None:
            found = target_of(document, target)
            before, after = tagged(found, group.tag), tagged(found, tag)
            moved = [each for each in before["portals"] if _is(each, binding)]
            before["portals"] = [each for each in before["portals"] if each not in moved]
            after["portals"] = [*after["portals"], *moved]

        return [in_tree(change, target)]

    # node ACLs

    def _authorize(self, index: Oid, values: Mapping[str, Any]) -> list[Edit]:
        """In the first portal group of the node, with what proves the identity elsewhere."""
        nodes = {device_index(self._state.indexes, each): each for each in self._registry.targets}
        target = nodes.get(index[1]) if len(index) == 3 and index[0] == INSTANCE else None
        if target is None or not target.portal_groups:
            raise Refused(Error.NO_CREATION, "there is no such node, or it has no portal group")
        if values.get("iscsiTgtAuthStorageType", self._state.storage) != self._state.storage:
            raise _refuse("iscsiTgtAuthStorageType", "it is scsiInstStorageType's")
        number = identity_of_row(values["iscsiTgtAuthIdentity"])
        identity = self._identities.all().get(number) if number is not None else None
        if identity is None or not identity.name:
            raise _refuse("iscsiTgtAuthIdentity", "it does not point to a row of ipsAuthIdentAttributesTable that has a name")
        group = target.portal_groups[min(target.portal_groups)]
        more, edits = self._proof(identity)
        return [
            claim_acl(self._state.indexes, group, identity.name, index[2]),
            add_node_acl(group, identity.name, more),
            *edits,
        ]

    def _proof(self, identity: Identity) -> tuple[Document, list[Edit]]:
        """User, secret and addresses for one more node ACL of an identity; once there is one, they are kept in it."""
        known = {(each.acl.authentication.userid, each.acl.authentication.password, allowed(each)) for each in identity.acls}
        if len(known) > 1:
            raise _refuse("iscsiTgtAuthIdentity", f"node ACLs of {identity.name} have different users, secrets or addresses")
        edits: list[Edit] = []
        user, secret, addresses = known.pop() if known else ("", "", ())
        if not identity.acls and identity.own is not None:
            kept, name, index = identity.own, identity.name, str(identity.index)
            user, addresses = kept["user"], tuple(kept["addresses"].values())

            def change(document: Document) -> None:
                document["identities"][index].update({"user": "", "addresses": {}} | ({"credential": 0} if user else {}))

            edits.append(own(change))
            edits += [Assign(address_kind(name), text, int(place)) for place, text in kept["addresses"].items()]
            edits += [Assign(credential_kind(name), user, kept["credential"])] if user else []
        more = {key: value for key, value in (("chap_userid", user), ("chap_password", secret)) if value}
        return more | ({"tcm_attributes": {"allowed_addresses": list(addresses)}} if addresses else {}), edits

    @staticmethod
    def _withdraw(_: Oid, row: Authorization) -> list[Edit]:
        return [remove_node_acl(row.group, row.acl)]


def _portal(address: str, port: int) -> Document:
    return {"ip_address": address, "port": port, "iser": False, "offload": False}
