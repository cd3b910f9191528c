"""Allow lists by name and by address, and login redirection (RFC 7143 11.13.5, 13.8), with the real registry."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.iscsi_login import INITIATOR, SECURITY, TARGET
from support.iscsi_site import HERE, THERE, Site
from tcm_iscsi.access import Arrival, address_of, name_pattern, named, network, redirection, within
from tcm_iscsi.attributes import AclAttributes, TpgParameters
from tcm_iscsi.protocol.discovery import send_targets
from tcm_iscsi.protocol.login_interface import LoginFailed
from tcm_iscsi.protocol.pdu import LoginStatus
from tcm_iscsi.sessions import PortalBinding

from tcm.failure import ConfigError

DENIED = LoginStatus.AUTHORIZATION_FAILURE
MOVED, MOVED_FOR_GOOD = LoginStatus.TARGET_MOVED_TEMPORARILY, LoginStatus.TARGET_MOVED_PERMANENTLY
B, C = ("192.0.2.2", 3260), ("192.0.2.3", 3261)

# addresses


@pytest.mark.parametrize(
    ("address", "networks", "inside"),
    [
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8"], False),
        ("11.1.2.3", ["10.0.0.0/8", "11.1.2.3"], True),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),
        ("10.1.2.3", ["::ffff:10.0.0.0/104"], True),
        ("11.1.2.3", ["::ffff:10.0.0.0/104"], False),
        ("10.1.2.3", ["::/0"], False),
        ("2001:db8::7", ["2001:db8::/32"], True),
        ("2001:db9::7", ["2001:db8::/32"], False),
        ("2001:db8::7", ["0.0.0.0/0"], False),
        ("fe80::1%eth0", ["fe80::/10"], True),
        ("", ["0.0.0.0/0", "::/0"], False),
        ("a-host", ["0.0.0.0/0", "::/0"], False),
    ],
)
def test_within(address: str, networks: list[str], inside: bool) -> None:
    """An IPv4 address in IPv6 clothes is an IPv4 address, in a rule as well as on a socket; zones do not matter."""
    assert within(address, networks) is inside


@given(st.text(max_size=40))
def test_rules_of_any_text(text: str) -> None:
    """Invariant: a rule is taken or refused; nothing else is raised."""
    for read in (network, name_pattern, redirection):
        with suppress(ConfigError):
            assert read(text) is not None


# names


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("iqn.2001-04.com.example:*", "iqn.2001-04.com.example:a", True),
        ("iqn.2001-04.com.example:*", "iqn.2001-04.com.example", False),
        ("iqn.2001-04.com.example:*", "iqn.2001-04.com.example.evil:a", False),
        ("iqn.2001-04.com.example:?", "iqn.2001-04.com.example:ab", False),
        ("IQN.2001-04.com.EXAMPLE:*", "iqn.2001-04.com.example:a", True),
        ("*", "eui.02004567a425678d", True),
        ("eui.02004567A425678D", "eui.02004567a425678d", True),
        ("iqn.2001-04.com.example:a", "iqn.2001-04xcom.example:a", False),
        ("iqn.2001-04.com.*[a]", "iqn.2001-04.com.example:a", False),
    ],
)
def test_named(pattern: str, name: str, fits: bool) -> None:
    """Only * and ? are wild; the whole name has to fit, whatever its case."""
    assert named(name, [pattern]) is fits


# allow lists


@pytest.mark.parametrize(
    ("group", "acl", "peer", "status"),
    [
        ({}, None, "198.51.100.7", LoginStatus.SUCCESS),
        ({"allowed_addresses": ("198.51.100.0/24",)}, None, "198.51.100.7", LoginStatus.SUCCESS),
        ({"allowed_addresses": ("198.51.100.0/24",)}, None, "::ffff:198.51.100.7", LoginStatus.SUCCESS),
        ({"allowed_addresses": ("198.51.100.0/24",)}, None, "198.51.101.7", DENIED),
        ({"allowed_addresses": ("198.51.100.0/24",)}, None, "2001:db8::7", DENIED),
        ({"allowed_addresses": ("198.51.100.0/24",)}, {}, "198.51.101.7", DENIED),
        (
            {"allowed_addresses": ("198.51.100.0/24",)},
            {"allowed_addresses": ("198.51.101.7",)},
            "198.51.101.7",
            LoginStatus.SUCCESS,
        ),
        ({"allowed_addresses": ("198.51.100.0/24",)}, {"allowed_addresses": ("198.51.101.7",)}, "198.51.100.7", DENIED),
        ({}, {"allowed_addresses": ("198.51.101.7",)}, "198.51.100.7", DENIED),
        ({"allowed_initiators": ("iqn.1993-08.org.debian:*",)}, None, "198.51.100.7", LoginStatus.SUCCESS),
        ({"allowed_initiators": ("iqn.1994-05.com.redhat:*", INITIATOR)}, None, "198.51.100.7", LoginStatus.SUCCESS),
        ({"allowed_initiators": ("iqn.1994-05.com.redhat:*",)}, None, "198.51.100.7", DENIED),
        ({"allowed_initiators": ("iqn.1994-05.com.redhat:*",)}, {}, "198.51.100.7", LoginStatus.SUCCESS),
    ],
)
def test_allow_lists(group: dict[str, Any], acl: dict[str, Any] | None, peer: str, status: LoginStatus) -> None:
    """Refused with 0202, before authentication, and hidden from discovery. A node ACL's own list counts instead of its
    group's; allowed_initiators are for demo mode."""
    site = Site(**group)
    if acl is not None:
        site.acl(**acl)
    initiator = site.initiator(peer=(peer, 1))
    assert initiator.exchange(SECURITY, 1, {"InitiatorName": INITIATOR, "TargetName": TARGET}).status is status
    if status is DENIED:
        event = initiator.failed()
        assert isinstance(event, LoginFailed)
        assert event.reason.startswith((peer.removeprefix("::ffff:"), "the name is not"))
        assert site.seen(peer=peer) == []
    else:
        assert site.seen(peer=peer) == [1]


def test_discovery_session_itself_is_for_everybody() -> None:
    """Who may see nothing is told nothing, and not that there is something."""
    site = Site(allowed_addresses=("203.0.113.0/24",))
    initiator = site.initiator()
    answer = initiator.exchange(SECURITY, 3, {"InitiatorName": INITIATOR, "SessionType": "Discovery", "AuthMethod": "None"})
    assert answer.status is LoginStatus.SUCCESS
    assert site.seen() == []


def test_parameters_and_depth_of_a_node_acl() -> None:
    """Each initiator is offered its own values; others those of the group."""
    site = Site({"MaxBurstLength": 65536, "FirstBurstLength": 4096, "TargetAlias": "all"}, default_cmdsn_depth=32)
    special = "iqn.1993-08.org.debian:01:special"
    acl = site.acl(special, TpgParameters(MaxBurstLength=16384, FirstBurstLength=512, TargetAlias="one"), cmdsn_depth=3)
    assert acl.cmdsn_depth == 3
    usual, own = site.log_in(), site.log_in(special)
    assert (usual.session_parameters.max_burst_length, own.session_parameters.max_burst_length) == (65536, 16384)
    assert (usual.target.alias, own.target.alias) == ("all", "one")
    assert usual.max_cmd_sn - usual.cmd_sn == 31
    assert own.max_cmd_sn - own.cmd_sn == 2


# redirection


def test_redirection_is_read() -> None:
    """The port is 3260 unless written; IPv6 addresses stand in brackets, in one form."""
    assert redirection("192.0.2.7").target_address == "192.0.2.7:3260"
    assert redirection("[2001:DB8:0::7]:860").target_address == "[2001:db8::7]:860"
    assert redirection("disks.example.com:3261").target_address == "disks.example.com:3261"
    rule = redirection(" 192.0.2.7  initiator=iqn.*:a address=10.0.0.0/8 portal=[::1]:3260 ")
    assert (rule.initiators, rule.addresses, rule.portal) == ("iqn.*:a", "10.0.0.0/8", ("::1", 3260))


@pytest.mark.parametrize(("how", "status"), [("redirect_temporarily", MOVED), ("redirect_permanently", MOVED_FOR_GOOD)])
def test_redirected(how: str, status: LoginStatus) -> None:
    """11.13.5: 0101h or 0102h with TargetAddress, which has no portal group tag (13.8); the connection is then closed."""
    site = Site(**{how: ("192.0.2.2:3260",)})
    answer = site.answer()
    assert (answer.status, answer.keys, answer.transit) == (status, {"TargetAddress": "192.0.2.2:3260"}, False)
    initiator = site.initiator()
    initiator.exchange(SECURITY, 1, {"InitiatorName": INITIATOR, "TargetName": TARGET})
    assert initiator.failed().redirected
    assert site.seen() == [1], "discovery is not affected"


@pytest.mark.parametrize(
    ("rules", "local", "peer", "name", "to"),
    [
        (["192.0.2.2"], HERE, THERE, INITIATOR, "192.0.2.2:3260"),
        (["192.0.2.2"], B, THERE, INITIATOR, None),
        (["192.0.2.2"], ("::ffff:192.0.2.2", 3260, 0, 0), THERE, INITIATOR, None),
        (["192.0.2.2:3261"], B, THERE, INITIATOR, "192.0.2.2:3261"),
        (["192.0.2.2", "192.0.2.3:3261"], HERE, THERE, INITIATOR, "192.0.2.2:3260"),
        (["192.0.2.2", "192.0.2.3:3261"], B, THERE, INITIATOR, None),
        (["192.0.2.2", "192.0.2.3:3261"], C, THERE, INITIATOR, None),
        (["192.0.2.2 portal=192.0.2.1"], HERE, THERE, INITIATOR, "192.0.2.2:3260"),
        (["192.0.2.2 portal=192.0.2.1:3260"], HERE, THERE, INITIATOR, "192.0.2.2:3260"),
        (["192.0.2.2 portal=192.0.2.1:3261"], HERE, THERE, INITIATOR, None),
        (["192.0.2.2 portal=192.0.2.9"], HERE, THERE, INITIATOR, None),
        (["192.0.2.2 portal=192.0.2.1", "192.0.2.1 portal=192.0.2.2"], HERE, THERE, INITIATOR, None),
        (["192.0.2.2 initiator=iqn.1993-08.org.debian:*"], HERE, THERE, INITIATOR, "192.0.2.2:3260"),
        (["192.0.2.2 initiator=iqn.1993-08.org.debian:*"], HERE, THERE, "iqn.2001-04.com.example", None),
        (["192.0.2.2 address=198.51.100.0/24"], HERE, THERE, INITIATOR, "192.0.2.2:3260"),
        (["192.0.2.2 address=198.51.101.0/24"], HERE, THERE, INITIATOR, None),
        (["192.0.2.2 address=198.51.101.0/24", "[2001:db8::1]:860"], HERE, THERE, INITIATOR, "[2001:db8::1]:860"),
        (["192.0.2.2 address=198.51.101.0/24", "192.0.2.3"], B, THERE, INITIATOR, "192.0.2.3:3260"),
    ],
)
def test_redirection_rules(rules: list[str], local: Any, peer: Any, name: str, to: str | None) -> None:
    """The first rule whose conditions are met; nobody is sent on from a portal that a rule for him leads to."""
    answer = Site(redirect_temporarily=tuple(rules)).answer(name, local=local, peer=peer)
    assert answer.status is (LoginStatus.SUCCESS if to is None else MOVED)
    assert answer.keys.get("TargetAddress") == to


def test_permanent_comes_first() -> None:
    """Both kinds together."""
    site = Site(redirect_temporarily=("192.0.2.2",), redirect_permanently=("192.0.2.3 address=203.0.113.0/24", "192.0.2.4"))
    assert site.answer().keys["TargetAddress"] == "192.0.2.4:3260"


def test_who_is_refused_is_not_redirected() -> None:
    """The new address is for those who would be let in."""
    site = Site(generate_node_acls=False, redirect_temporarily=("192.0.2.2",))
    assert site.status() is DENIED
    assert "TargetAddress" not in site.answer().keys
    site.acl()
    assert site.status() is MOVED


def test_a_connection_that_joins_a_session_is_not_redirected() -> None:
    """6.3.1: it must arrive where its session is; there is no such session here."""
    site = Site(redirect_temporarily=("192.0.2.2",))
    initiator = site.initiator()
    initiator.tsih = 5
    answer = initiator.exchange(SECURITY, 1, {"InitiatorName": INITIATOR, "TargetName": TARGET})
    assert answer.status is LoginStatus.SESSION_DOES_NOT_EXIST


def test_redirections_are_counted() -> None:
    """By status, as refusals are."""
    site = Site(redirect_temporarily=("192.0.2.2",))
    initiator = site.initiator()
    initiator.exchange(SECURITY, 1, {"InitiatorName": INITIATOR, "TargetName": TARGET})
    site.registry.counters.login_refused(initiator.failed(), ("198.51.100.7", 40000))
    assert site.registry.counters.of(site.target.name).refused == {MOVED: 1}


# where it came in


@pytest.mark.parametrize(
    ("local", "peer", "arrival"),
    [
        ((), (), Arrival(("", 0), "")),
        (("192.0.2.1", 3260), ("198.51.100.7", 5), Arrival(HERE, "198.51.100.7")),
        (("::ffff:192.0.2.1", 3260, 0, 0), ("::ffff:198.51.100.7", 5, 0, 0), Arrival(HERE, "198.51.100.7")),
        (("fe80::1%eth0", 3260, 0, 2), ("fe80::2%eth0", 5, 0, 2), Arrival(("fe80::1", 3260), "fe80::2")),
    ],
)
def test_arrival(local: Any, peer: Any, arrival: Arrival) -> None:
    """In the form in which rules are compared."""
    assert Arrival.of(local, peer) == arrival
    assert address_of("localhost") is None


# discovery


def test_portals_of_all_groups_with_their_tags() -> None:
    """Appendix C: every portal of every enabled group, where the initiator may log in; wildcards are where it came in."""
    site = Site()
    second = site.add_group(2, {"allowed_addresses": ("203.0.113.0/24",)})
    disabled = site.add_group(3)
    disabled.enabled = False
    site.registry.bindings += [
        PortalBinding("0.0.0.0", 3261, [site.group]),
        PortalBinding("2001:db8::1", 3260, [second]),
        PortalBinding("192.0.2.5", 3260, [site.group, disabled]),
    ]
    assert site.seen() == [1, 1, 1]
    assert site.seen(peer="203.0.113.9") == [1, 1, 2, 1]
    disabled.attributes = type(disabled.attributes)(authentication=False, tpg_enabled_sendtargets=False)
    assert site.seen(peer="203.0.113.9") == [1, 1, 2, 1, 3]


def test_wildcards_may_stand_for_all_addresses() -> None:
    """``wildcard=all``: the address that was reached first, then the machine's, each once, of the families it listens to."""
    site = Site()
    site.registry.bindings = [PortalBinding("0.0.0.0", 3260, [site.group]), PortalBinding("::", 3261, [site.group])]
    site.registry.machine_addresses = lambda: ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    shown = [value for key, value in send_targets(site.registry.records(INITIATOR), "192.0.2.1") if key == "TargetAddress"]
    four = ["192.0.2.1:3260,1", "192.0.2.2:3260,1"]
    assert shown == [*four, *(each.replace("3260", "3261") for each in four), "[2001:db8::1]:3261,1"]
    site.registry.machine_addresses = list
    shown = [value for key, value in send_targets(site.registry.records(INITIATOR), "192.0.2.1") if key == "TargetAddress"]
    assert shown == ["192.0.2.1:3260,1", "192.0.2.1:3261,1"]


def test_node_acl_attributes_without_any() -> None:
    """A node ACL that was made at run time may have no attributes yet."""
    site = Site(allowed_addresses=("198.51.100.0/24",))
    acl = site.acl()
    acl.attributes = None
    assert site.status() is LoginStatus.SUCCESS
    acl.attributes = AclAttributes()
    assert site.status() is LoginStatus.SUCCESS
