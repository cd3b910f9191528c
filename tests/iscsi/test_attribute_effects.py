"""What each attribute and parameter of LIO's, and of ours, does: a test each (lio-configfs 4.3.3 to 4.3.6).

``test_tpg_NAME``, ``test_acl_NAME`` and ``test_param_NAME``; docs/iscsi-attributes.md lists them. What full feature phase
does with them (timers, faults, recovery) is tested where it is.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import anyio
import pytest
from support import pdus, raw_iscsi
from support.iscsi_login import (
    FULL_FEATURE,
    IDENTITY,
    OPEN_ISCSI_KEYS,
    OPERATIONAL,
    SECURITY,
    Initiator,
    chap_answer,
)
from support.iscsi_site import Site, apart, served
from tcm_iscsi.attributes import AclAttributes, TpgParameters
from tcm_iscsi.protocol.pdu import LoginStatus

from tcm.target.node_acl import Authentication

OTHER = "iqn.1993-08.org.debian:01:other"
DENIED, NOT_PROVED = LoginStatus.AUTHORIZATION_FAILURE, LoginStatus.AUTHENTICATION_FAILURE
SECRET = "initiatorsecret"


def proved(site: Site, name: str = "alice", secret: str = SECRET, *, offer: str = "CHAP,None") -> Initiator:
    """A login that does CHAP if the target takes it."""
    initiator = site.initiator()
    answer = initiator.exchange(SECURITY, None, {**IDENTITY, "AuthMethod": offer})
    if answer.keys.get("AuthMethod") == "CHAP":
        challenge = initiator.exchange(SECURITY, None, {"CHAP_A": "7,5"})
        initiator.exchange(SECURITY, OPERATIONAL, chap_answer(challenge.keys, name, secret))
    elif initiator.event is None:
        initiator.exchange(SECURITY, OPERATIONAL)
    if initiator.event is None:
        initiator.exchange(OPERATIONAL, FULL_FEATURE, OPEN_ISCSI_KEYS)
    return initiator


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server looks at its timers more often."""
    monkeypatch.setattr("tcm_iscsi.server.TICK", 0.02)


# attributes of the portal group


def test_tpg_authentication() -> None:
    """On: CHAP or nothing, and nothing at all without a user. Off: AuthMethod=None is enough."""
    site = Site(authentication=True)
    assert site.status(auth="None") is NOT_PROVED
    assert site.status(auth="CHAP") is NOT_PROVED, "there is no user"
    for where in (site.group, site.acl()):
        where.authentication = Authentication(userid="alice")
        assert proved(site, secret="").failed().status is NOT_PROVED, "a user without a secret"
        where.authentication = Authentication()
    site.chap()
    assert site.status(auth="None") is NOT_PROVED
    assert proved(site).completed().authenticated_name == "alice"
    assert proved(site, secret="wrong").failed().status is NOT_PROVED
    assert Site(authentication=False).chap().status(auth="None") is LoginStatus.SUCCESS


@pytest.mark.anyio
@pytest.mark.usefixtures("ticking")
async def test_tpg_login_timeout() -> None:
    """A login that dribbles in byte by byte is cut off when its time is over, however lately something came."""
    async with served(login_timeout=5) as t:
        clock = [t.fabric.server.clock()]
        t.fabric.server.clock = lambda: clock[0]

        def dribble() -> tuple[socket.socket, bytes]:
            initiator = t.connect()
            return initiator.socket, initiator.encode(*initiator.login_pdu(IDENTITY, (0, 1)))

        sock, request = await apart(dribble)
        with sock:
            for byte in request[:9]:
                await apart(sock.sendall, bytes([byte]))
                clock[0] += 0.5
                await anyio.sleep(0.01)
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            sock.setblocking(True)
            clock[0] += 1.0
            assert await apart(sock.recv, 1) == b""


def test_tpg_generate_node_acls() -> None:
    """Demo mode: strangers get in, and a node ACL that is dynamic."""
    site = Site(generate_node_acls=False)
    assert site.status() is DENIED
    site.acl()
    assert site.status() is LoginStatus.SUCCESS
    assert Site(generate_node_acls=True).status() is LoginStatus.SUCCESS


@pytest.mark.anyio
@pytest.mark.parametrize("cache", [False, True])
async def test_tpg_cache_dynamic_acls(cache: bool) -> None:
    """A dynamic node ACL goes with its last session, or stays."""
    async with served(cache_dynamic_acls=cache) as t:

        def work() -> int:
            with t.login() as i:
                return i.logout()

        assert await apart(work) == 0
        with anyio.fail_after(60):
            while t.group.nexuses:
                await anyio.sleep(0.01)
        assert [acl.dynamic for acl in t.group.node_acls.values()] == [True] * cache


async def write_status(acl: dict[str, Any] | None = None, **attributes: Any) -> tuple[int, int]:
    """Status and sense key of a WRITE."""
    async with served(acl, **attributes) as t:

        def work() -> tuple[int, int]:
            with t.login() as i:
                outcome = i.write(0, bytes(512))
                return outcome.status, outcome.sense_key

        return await apart(work)


@pytest.mark.anyio
async def test_tpg_demo_mode_write_protect() -> None:
    """DATA PROTECT for those whom demo mode let in, and for nobody else."""
    assert await write_status(demo_mode_write_protect=True) == (2, 7)
    assert await write_status(demo_mode_write_protect=False) == (0, 0)
    assert await write_status({}, demo_mode_write_protect=True) == (0, 0)


@pytest.mark.anyio
async def test_tpg_prod_mode_write_protect() -> None:
    """DATA PROTECT for those with a node ACL whose mapped LUN does not say otherwise."""
    assert await write_status({}, prod_mode_write_protect=True) == (2, 7)
    assert await write_status({}, prod_mode_write_protect=False) == (0, 0)
    assert await write_status(prod_mode_write_protect=True, demo_mode_write_protect=False) == (0, 0)


def test_tpg_demo_mode_discovery() -> None:
    """Off: SendTargets shows the target to those with a node ACL only, or to those whom demo mode lets in."""
    site = Site(generate_node_acls=False, demo_mode_discovery=False)
    site.acl()
    assert (site.seen(), site.seen(OTHER)) == ([1], [])
    assert Site(generate_node_acls=False, demo_mode_discovery=True).seen(OTHER) == [1]
    assert Site(generate_node_acls=True, demo_mode_discovery=False).seen(OTHER) == [1]


@pytest.mark.parametrize(("only_enabled", "seen"), [(True, []), (False, [1])])
def test_tpg_tpg_enabled_sendtargets(only_enabled: bool, seen: list[int]) -> None:
    """Whether SendTargets shows a disabled portal group, where nobody can log in."""
    site = Site(tpg_enabled_sendtargets=only_enabled)
    site.group.enabled = False
    assert site.seen() == seen
    assert site.status() is LoginStatus.SERVICE_UNAVAILABLE


@pytest.mark.parametrize("workaround", [True, False])
def test_tpg_login_keys_workaround(workaround: bool) -> None:
    """Off: what the initiator has not brought up is offered, and has to be answered before full feature phase."""
    initiator = Site(login_keys_workaround=workaround).initiator()
    answer = initiator.exchange(OPERATIONAL, FULL_FEATURE, IDENTITY)
    assert ("MaxBurstLength" in answer.keys) is not workaround
    assert answer.transit is workaround


def test_tpg_default_cmdsn_depth() -> None:
    """The command window: MaxCmdSN - ExpCmdSN + 1 (RFC 7143 4.2.2.1)."""
    for depth in (1, 64, 512):
        event = Site(default_cmdsn_depth=depth).log_in()
        assert event.max_cmd_sn - event.cmd_sn + 1 == depth


@pytest.mark.parametrize(
    ("group", "parameter", "acl", "wanted", "level"),
    [
        (0, 0, None, 2, 0),
        (2, 0, None, 2, 2),
        (2, 0, None, 1, 1),
        (0, 2, None, 2, 2),
        (2, 1, -1, 2, 2),
        (2, 0, 0, 2, 0),
        (0, 0, 1, 2, 1),
        (0, 1, 0, 2, 1),
    ],
)
def test_tpg_default_erl(group: int, parameter: int, acl: int | None, wanted: int, level: int) -> None:
    """What ErrorRecoveryLevel is agreed on: the initiator's, at most that of the node ACL, else of the group."""
    site = Site({"ErrorRecoveryLevel": parameter}, default_erl=group)
    if acl is not None:
        site.acl(default_erl=acl)
    assert site.parameters(ErrorRecoveryLevel=str(wanted)).error_recovery_level == level


def test_tpg_allowed_addresses() -> None:
    """More in test_access.py."""
    site = Site(allowed_addresses=("203.0.113.0/24",))
    assert site.status() is DENIED
    assert site.status(peer=("203.0.113.1", 1)) is LoginStatus.SUCCESS


def test_tpg_allowed_initiators() -> None:
    """More in test_access.py."""
    site = Site(allowed_initiators=("*:initiator",))
    assert (site.status(), site.status(OTHER)) == (LoginStatus.SUCCESS, DENIED)


def test_tpg_redirect_temporarily() -> None:
    """More in test_access.py."""
    assert Site(redirect_temporarily=("192.0.2.2",)).status() is LoginStatus.TARGET_MOVED_TEMPORARILY


def test_tpg_redirect_permanently() -> None:
    """More in test_access.py."""
    assert Site(redirect_permanently=("192.0.2.2",)).status() is LoginStatus.TARGET_MOVED_PERMANENTLY


@pytest.mark.parametrize("name", ["t10_pi", "fabric_prot_type", "netif_timeout"])
def test_tpg_without_effect(name: str) -> None:
    """As LIO over TCP: a login agrees on the same, whatever these say."""
    usual, other = Site().log_in(), Site(**{name: 3}).log_in()
    assert usual.session_parameters == other.session_parameters
    assert usual.connection_parameters == other.connection_parameters


# attributes of a node ACL


def test_acl_authentication() -> None:
    """1 and 0 instead of what the group says; -1 leaves it to the group."""
    for group, own, status in ((True, 0, LoginStatus.SUCCESS), (False, 1, NOT_PROVED), (True, -1, NOT_PROVED)):
        site = Site(authentication=group).chap()
        site.acl(authentication=own)
        assert site.status(auth="None") is status
    assert site.status(OTHER, auth="None") is NOT_PROVED
    site = Site({"AuthMethod": "CHAP"}, authentication=True).chap()  # as LIO saves it
    site.acl(authentication=0)
    assert site.status(auth="None") is LoginStatus.SUCCESS
    assert proved(site).completed().authenticated_name == "alice"


def test_acl_default_erl() -> None:
    """More in test_tpg_default_erl."""
    site = Site(default_erl=2)
    site.acl(default_erl=1)
    assert site.parameters(ErrorRecoveryLevel="2").error_recovery_level == 1


def test_acl_cmdsn_depth() -> None:
    """The command window of this initiator; 0: as the group says."""
    site = Site(default_cmdsn_depth=8)
    site.acl(cmdsn_depth=3)
    site.acl(OTHER)
    own, other = site.log_in(), site.log_in(OTHER)
    assert (own.max_cmd_sn - own.cmd_sn + 1, other.max_cmd_sn - other.cmd_sn + 1) == (3, 8)


def test_acl_allowed_addresses() -> None:
    """More in test_access.py."""
    site = Site()
    site.acl(allowed_addresses=("203.0.113.1",))
    assert (site.status(), site.status(OTHER)) == (DENIED, LoginStatus.SUCCESS)


@pytest.mark.anyio
@pytest.mark.usefixtures("ticking")
async def test_acl_nopin_timeout() -> None:
    """An initiator that says nothing is pinged after so long; with 0 never."""
    for seconds, pinged in ((3, True), (0, False)):
        async with served({"nopin_timeout": seconds}) as t:
            initiator = await apart(t.login)
            offset = 20.0
            t.fabric.server.clock = lambda later=offset: time.monotonic() + later  # type: ignore[misc]
            initiator.socket.settimeout(60 if pinged else 0.3)
            if pinged:
                assert (await apart(initiator.receive)).opcode == pdus.NOP_IN
            else:
                with pytest.raises(TimeoutError):
                    await apart(initiator.receive)
            initiator.close()


@pytest.mark.anyio
@pytest.mark.usefixtures("ticking")
async def test_acl_nopin_response_timeout() -> None:
    """Who does not answer a ping within so long is dropped."""
    async with served({"nopin_timeout": 3, "nopin_response_timeout": 10}) as t:
        clock = [t.fabric.server.clock()]
        t.fabric.server.clock = lambda: clock[0]
        initiator = await apart(t.login)
        clock[0] += 4
        assert (await apart(initiator.receive)).opcode == pdus.NOP_IN
        clock[0] += 7
        initiator.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            await apart(initiator.receive)
        clock[0] += 4
        initiator.socket.settimeout(60)
        with pytest.raises(ConnectionError):
            await apart(initiator.receive)
        initiator.close()


@pytest.mark.anyio
@pytest.mark.usefixtures("ticking")
async def test_acl_dataout_timeout_retries() -> None:
    """At ERL 0 a WRITE whose data does not come ends its connection after so many times ``dataout_timeout``."""
    async with served({"dataout_timeout": 2, "dataout_timeout_retries": 3, "nopin_timeout": 0}) as t:
        clock = [t.fabric.server.clock()]
        t.fabric.server.clock = lambda: clock[0]

        def ask() -> raw_iscsi.Initiator:
            initiator = t.login(InitialR2T="Yes", ImmediateData="No")
            initiator.send(initiator.command_pdu(bytes.fromhex("2a000000000000000800"), write=4096))
            assert initiator.receive().opcode == raw_iscsi.R2T
            return initiator

        with await apart(ask) as initiator:
            clock[0] += 5
            initiator.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                await apart(initiator.receive)

            async def pass_time() -> None:
                while True:
                    clock[0] += 1
                    await anyio.sleep(0.05)

            initiator.socket.settimeout(60)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pass_time)
                with pytest.raises(ConnectionError):
                    await apart(initiator.receive)
                tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_attributes_of_dynamic_node_acls() -> None:
    """What ``tcm_acl_attributes`` and ``--attribute`` say holds for those whom demo mode lets in."""
    async with served() as t:
        t.group.dynamic_acl_attributes = AclAttributes(nopin_timeout=3)
        with await apart(t.login):
            (session,) = t.fabric.registry.sessions.values()
            assert t.fabric.registry.nopin_timeouts(session) == (3, 30)


# auth/


def test_credentials_of_a_node_acl() -> None:
    """The node ACL's user and secret, where it has them, instead of the group's."""
    site = Site(authentication=True).chap()
    site.acl().authentication = Authentication("bob", "anothersecret12")
    assert proved(site, "bob", "anothersecret12").completed().authenticated_name == "bob"
    assert proved(site).failed().status is NOT_PROVED
    site.acl().authentication = Authentication()
    assert proved(site).completed().authenticated_name == "alice"


# parameters


def test_param_AuthMethod() -> None:
    """With ``authentication`` off, CHAP for those who want it, for all, or for nobody; with it on, nothing without CHAP."""
    offered = {"CHAP,None": ("alice", LoginStatus.SUCCESS), "None": (None, LoginStatus.SUCCESS), "CHAP": ("alice", NOT_PROVED)}
    for methods, (proof, without) in offered.items():
        site = Site({"AuthMethod": methods}).chap()
        assert proved(site).completed().authenticated_name == proof
        assert site.status(auth="None") is without
    assert proved(Site().chap(), offer="None,CHAP").completed().authenticated_name is None
    assert proved(Site().chap(), secret="wrong").failed().status is NOT_PROVED
    assert Site().status(auth="CHAP,None") is LoginStatus.SUCCESS
    assert Site({"AuthMethod": "None"}, authentication=True).chap().status(auth="CHAP") is NOT_PROVED


def test_optional_chap_has_to_be_finished() -> None:
    """Whoever chose CHAP does not get on without it, in whatever stage he tries."""
    site = Site().chap()
    initiator = site.initiator()
    initiator.exchange(SECURITY, None, {**IDENTITY, "AuthMethod": "CHAP"})
    assert not initiator.exchange(SECURITY, OPERATIONAL).transit
    assert not initiator.exchange(SECURITY, FULL_FEATURE).transit
    assert initiator.exchange(OPERATIONAL, FULL_FEATURE).status is LoginStatus.INITIATOR_ERROR


@pytest.mark.parametrize("name", ["HeaderDigest", "DataDigest"])
def test_param_digests(name: str) -> None:
    """What is allowed; of that, the first in the initiator's list."""
    field = {"HeaderDigest": "header_digest", "DataDigest": "data_digest"}[name]
    for allowed, on in (("None,CRC32C", True), ("None", False), ("CRC32C", True)):
        event = Site({name: allowed}).log_in(**{name: "CRC32C,None"})
        assert getattr(event.connection_parameters, field) is on


def test_param_TargetAlias() -> None:
    """Sent with the first answer, unless it is empty."""
    assert Site({"TargetAlias": "Büro"}).answer().keys["TargetAlias"] == "Büro"
    assert "TargetAlias" not in Site().answer().keys


@pytest.mark.parametrize(
    ("name", "field", "ours", "theirs", "agreed"),
    [
        ("MaxConnections", "max_connections", 8, "65535", 8),
        ("MaxConnections", "max_connections", 65535, "4", 4),
        ("InitialR2T", "initial_r2t", True, "No", True),
        ("InitialR2T", "initial_r2t", False, "No", False),
        ("ImmediateData", "immediate_data", False, "Yes", False),
        ("ImmediateData", "immediate_data", True, "Yes", True),
        ("MaxBurstLength", "max_burst_length", 524288, "16776192", 524288),
        ("FirstBurstLength", "first_burst_length", 8192, "262144", 8192),
        ("DefaultTime2Wait", "default_time2wait", 7, "2", 7),
        ("DefaultTime2Retain", "default_time2retain", 30, "60", 30),
        ("MaxOutstandingR2T", "max_outstanding_r2t", 2, "16", 2),
        ("DataPDUInOrder", "data_pdu_in_order", False, "No", False),
        ("DataPDUInOrder", "data_pdu_in_order", True, "No", True),
        ("DataSequenceInOrder", "data_sequence_in_order", False, "No", False),
        ("DataSequenceInOrder", "data_sequence_in_order", True, "No", True),
        ("ErrorRecoveryLevel", "error_recovery_level", 2, "2", 2),
        ("ErrorRecoveryLevel", "error_recovery_level", 0, "2", 0),
    ],
)
def test_param_negotiated(name: str, field: str, ours: Any, theirs: str, agreed: Any) -> None:
    """Our side of a negotiation, for all initiators or for one."""
    assert getattr(Site({name: ours}).parameters(**{name: theirs}), field) == agreed
    site = Site()
    site.acl(parameters=TpgParameters(**{name: ours}))
    assert getattr(site.parameters(**{name: theirs}), field) == agreed


def test_param_MaxRecvDataSegmentLength() -> None:
    """Declared as it is, once the initiator has come to the operational stage."""
    assert Site({"MaxRecvDataSegmentLength": 65536}).log_in().connection_parameters.max_recv_data_segment_length == 65536
