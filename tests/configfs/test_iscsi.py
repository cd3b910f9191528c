"""iSCSI through the tree, while initiators are logged in: portals, portal groups, node ACLs, CHAP, parameters."""

from __future__ import annotations

import socket
from contextlib import closing

import anyio
import pytest
from support.lio_tree import IQN, serving
from support.programs import free_port
from tcm_iscsi.initiator.driver import connect, discover
from tcm_iscsi.initiator.options import Credentials, Options, Recovery
from tcm_iscsi.initiator.results import InitiatorError, LoginFailed, ScsiError

from tcm.configfs.node import TreeError

pytestmark = pytest.mark.anyio
TARGET = f"iscsi/{IQN}"
GROUP = f"{TARGET}/tpgt_1"
NAME = "iqn.2005-03.org.open-iscsi:abc"
ACL = f"{GROUP}/acls/{NAME}"
ONCE = Recovery(automatic=False)


def options(**more):
    return Options(initiator_name=NAME, recovery=ONCE, **more)


def listens(port, address="127.0.0.1"):
    with closing(socket.socket()) as sock:
        return sock.connect_ex((address, port)) == 0


async def target(site, *, port=None, acl=True):
    """A target with a RAM disk as LUN 0, a portal and a node ACL that maps it; returns the port."""
    port = port or free_port()
    device = await site.ramdisk()
    await site.make_all(f"{GROUP}/lun/lun_0", f"{GROUP}/np/127.0.0.1:{port}")
    await site.link(f"{GROUP}/lun/lun_0/link", device)
    await site.write(f"{GROUP}/attrib/authentication", "0")
    if acl:
        await site.make_all(f"{ACL}/lun_0")
        await site.link(f"{ACL}/lun_0/link", f"{GROUP}/lun/lun_0")
    await site.write(f"{GROUP}/enable", "1")
    return port


async def until(condition):
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(0.01)


async def test_portals_listen_and_close(tmp_path):
    """Several groups may be behind one portal; it is closed with the last of them; sessions stay."""
    async with serving(tmp_path) as site:
        port = await target(site)
        url = f"iscsi://127.0.0.1:{port}/{IQN}/0"
        async with connect(url, options()) as session:
            await session.test_unit_ready()
            other = "iscsi/iqn.2003-01.org.example:t2/tpgt_1"
            await site.make_all(f"{other}/np/127.0.0.1:{port}")
            with pytest.raises(TreeError) as error:
                await site.make_all(f"{TARGET}/tpgt_2/np/127.0.0.1:{port}")
            assert site.refused(error) == "EEXIST"
            await site.remove(f"{GROUP}/np/127.0.0.1:{port}")
            assert listens(port)
            await session.test_unit_ready()
            with pytest.raises(InitiatorError):
                async with connect(url, options()):
                    pass
            await site.remove(f"{other}/np/127.0.0.1:{port}")
            assert not listens(port)
            await session.test_unit_ready()
            second = free_port()
            await site.make(f"{GROUP}/np/127.0.0.1:{second}")
            async with connect(f"iscsi://127.0.0.1:{second}/{IQN}/0", options()) as more:
                await more.test_unit_ready()


async def test_a_portal_that_is_taken(tmp_path):
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        async with serving(tmp_path) as site:
            await site.make_all(GROUP)
            with pytest.raises(TreeError) as error:
                await site.make(f"{GROUP}/np/127.0.0.1:{port}")
            assert site.refused(error) == "EADDRINUSE"
            with pytest.raises(TreeError) as error:
                await site.make(f"{GROUP}/np/192.0.2.77:{port}")
            assert site.refused(error) == "EADDRNOTAVAIL"
            assert not dict(site.tree.group(f"{GROUP}/np").children())
            for name in ("127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "nowhere:3260", "::1:3260", "[::1", "127.0.0.1:3260:1"):
                with pytest.raises(TreeError) as error:
                    await site.make(f"{GROUP}/np/{name}")
                assert site.refused(error) == "EINVAL", name


async def test_disabled_groups_admit_nobody(tmp_path):
    async with serving(tmp_path) as site:
        port = await target(site)
        url = f"iscsi://127.0.0.1:{port}/{IQN}/0"
        (group,) = site.runtime.targets[0].portal_groups.values()
        async with connect(url, options()) as session:
            await session.test_unit_ready()
            assert len(group.nexuses) == 1
            await site.write(f"{GROUP}/enable", "0")
            assert not group.nexuses
            with pytest.raises(InitiatorError):
                await session.test_unit_ready()
        with pytest.raises(LoginFailed):
            async with connect(url, options()):
                pass
        assert await discover(f"iscsi://127.0.0.1:{port}", options()) == {}
        await site.write(f"{GROUP}/enable", "1")
        async with connect(url, options()) as session:
            await session.test_unit_ready()
        assert list(await discover(f"iscsi://127.0.0.1:{port}", options())) == [IQN]


async def test_node_acls_come_and_go(tmp_path):
    async with serving(tmp_path) as site:
        port = await target(site, acl=False)
        url = f"iscsi://127.0.0.1:{port}/{IQN}/0"
        with pytest.raises(LoginFailed):
            async with connect(url, options()):
                pass
        await site.make_all(f"{ACL}/lun_0", f"{ACL}/lun_5")
        async with connect(url, options()) as session:
            assert len(await session.report_luns()) == 0
            await site.link(f"{ACL}/lun_5/link", f"{GROUP}/lun/lun_0")
            assert len(await session.report_luns()) == 1
            await session.test_unit_ready(5)
            await site.link(f"{ACL}/lun_0/link", f"{GROUP}/lun/lun_0")
            await session.checked(bytes((0x2A, *bytes(7), 1, 0)), 0, data_out=bytes(512))
            await site.write(f"{ACL}/lun_0/write_protect", "1")
            with pytest.raises(ScsiError):
                await session.checked(bytes((0x2A, *bytes(7), 1, 0)), 0, data_out=bytes(512))
            await session.checked(bytes((0x2A, *bytes(7), 1, 0)), 5, data_out=bytes(512))
            await site.write(f"{ACL}/lun_0/write_protect", "0")
            await session.checked(bytes((0x2A, *bytes(7), 1, 0)), 0, data_out=bytes(512))
            for path, name in ((f"{GROUP}/lun/lun_0", "EBUSY"), (ACL, "ENOTEMPTY"), (f"{ACL}/lun_0", "ENOTEMPTY")):
                with pytest.raises(TreeError) as error:
                    await site.remove(path)
                assert site.refused(error) == name
            for number in (0, 5):
                await site.unlink(f"{ACL}/lun_{number}/link")
                await site.remove(f"{ACL}/lun_{number}")
            with pytest.raises(ScsiError):
                await session.test_unit_ready(5)
            await site.remove(ACL)
            with pytest.raises(InitiatorError):
                await session.test_unit_ready(0)
        assert not site.runtime.targets[0].portal_groups[1].nexuses


async def test_mapped_luns_stay_in_their_portal_group(tmp_path):
    async with serving(tmp_path) as site:
        await target(site)
        two = f"{TARGET}/tpgt_2"
        await site.make_all(f"{two}/acls/{NAME}/lun_0", f"{two}/lun/lun_0", f"{two}/lun/lun_1")
        await site.link(f"{two}/lun/lun_0/link", "core/rd_mcp_0/ram0")
        for aim in (f"{GROUP}/lun/lun_0", f"{two}/lun/lun_1", "core/rd_mcp_0/ram0", f"{two}/lun"):
            with pytest.raises(TreeError) as error:
                await site.link(f"{two}/acls/{NAME}/lun_0/link", aim)
            assert site.refused(error) == "EINVAL", aim
        await site.link(f"{two}/acls/{NAME}/lun_0/link", f"{two}/lun/lun_0")
        assert site.tree.find(f"{two}/acls/{NAME}/lun_0/link").target == f"/{two}/lun/lun_0"
        # a LUN that is taken away is mapped no more, and can be linked anew
        await site.unlink(f"{two}/lun/lun_0/link")
        assert "link" not in site.tree.group(f"{two}/acls/{NAME}/lun_0").children()


async def test_an_acl_for_whom_demo_mode_has_let_in(tmp_path):
    """LIO: it takes the session over with the LUNs that demo mode has mapped, and shows none; each can be linked as it is."""
    async with serving(tmp_path) as site:
        port = await target(site, acl=False)
        for name, value in (("generate_node_acls", "1"), ("demo_mode_write_protect", "0")):
            await site.write(f"{GROUP}/attrib/{name}", value)
        await site.make(f"{GROUP}/lun/lun_1")
        await site.link(f"{GROUP}/lun/lun_1/link", "core/rd_mcp_0/ram0")
        async with connect(f"iscsi://127.0.0.1:{port}/{IQN}/0", options()) as session:
            await session.test_unit_ready(0)
            await site.make(ACL)
            assert [name for name in site.tree.group(ACL).children() if name.startswith("lun_")] == []
            assert len(await session.report_luns()) == 2
            await site.make(f"{ACL}/lun_0")
            assert "link" not in site.tree.group(f"{ACL}/lun_0").children()
            with pytest.raises(TreeError, match="taken by LUN 0") as error:
                await site.link(f"{ACL}/lun_0/link", f"{GROUP}/lun/lun_1")
            assert site.refused(error) == "EINVAL"
            await site.link(f"{ACL}/lun_0/link", f"{GROUP}/lun/lun_0")
            with pytest.raises(TreeError) as error:
                await site.remove(f"{GROUP}/lun/lun_0")
            assert site.refused(error) == "EBUSY"
            await session.test_unit_ready(0)
            assert len(await session.report_luns()) == 2
            await site.write(f"{ACL}/lun_0/write_protect", "1")
            with pytest.raises(ScsiError):
                await session.checked(bytes((0x2A, *bytes(7), 1, 0)), 0, data_out=bytes(512))
            await session.checked(bytes((0x2A, *bytes(7), 1, 0)), 1, data_out=bytes(512))
            await site.unlink(f"{ACL}/lun_0/link")
            assert len(await session.report_luns()) == 1
            # what demo mode has mapped goes with its LUN
            await site.unlink(f"{GROUP}/lun/lun_1/link")
            assert len(await session.report_luns()) == 0


async def test_chap_of_groups_acls_and_discovery(tmp_path):
    async with serving(tmp_path) as site:
        port = await target(site)
        url = f"iscsi://127.0.0.1:{port}/{IQN}/0"
        right = Credentials(name="joe", secret="secretsecret1")

        async def refused(**more):
            with pytest.raises(LoginFailed):
                async with connect(url, options(**more)):
                    pass

        await site.write(f"{GROUP}/attrib/authentication", "1")
        assert site.read(f"{GROUP}/param/AuthMethod") == "CHAP\n"
        await refused(chap=right)
        await site.write(f"{ACL}/auth/userid", "joe\n")
        await site.write(f"{ACL}/auth/password", "secretsecret1\n")
        await refused()
        async with connect(url, options(chap=right)) as session:
            await session.test_unit_ready()
            await site.write(f"{ACL}/auth/password", "othersecret12")
            await session.test_unit_ready()
        await refused(chap=right)
        await site.write(f"{ACL}/auth/userid_mutual", "tgt")
        assert site.read(f"{ACL}/auth/authenticate_target") == "0\n"
        with pytest.raises(TreeError, match="both directions") as error:
            await site.write(f"{ACL}/auth/password_mutual", "othersecret12")
        assert "othersecret12" not in str(error.value)
        await site.write(f"{ACL}/auth/password_mutual", "mutualsecret1")
        assert site.read(f"{ACL}/auth/authenticate_target") == "1\n"
        for name in ("userid", "password", "userid_mutual", "password_mutual"):
            await site.write(f"{ACL}/auth/{name}", "NULL")
            assert site.read(f"{ACL}/auth/{name}") == ""
        await site.write(f"{ACL}/attrib/authentication", "0")
        async with connect(url, options()):
            pass
        assert len(await discover(f"iscsi://127.0.0.1:{port}", options())) == 1
        await site.write("iscsi/discovery_auth/enforce_discovery_auth", "1")
        with pytest.raises(LoginFailed):
            await discover(f"iscsi://127.0.0.1:{port}", options())
        await site.write("iscsi/discovery_auth/userid", "joe")
        await site.write("iscsi/discovery_auth/password", "secretsecret1")
        assert len(await discover(f"iscsi://127.0.0.1:{port}", options(chap=right))) == 1
        await site.write("iscsi/discovery_auth/enforce_discovery_auth", "0")
        assert len(await discover(f"iscsi://127.0.0.1:{port}", options())) == 1


async def test_what_an_acl_tells_of_its_session(tmp_path):
    """``info`` in the form that rtslib takes apart, ``param`` as negotiated, statistics, ``dynamic_sessions``."""
    async with serving(tmp_path) as site:
        port = await target(site)
        await site.write(f"{GROUP}/param/MaxConnections", "4")
        await site.write(f"{GROUP}/param/MaxBurstLength", "524288")
        assert site.read(f"{ACL}/info") == f"No active iSCSI Session for Initiator Endpoint: {NAME}\n"
        assert site.read(f"{ACL}/param/MaxConnections") == "No Active iSCSI Session\n"
        assert site.read(f"{ACL}/fabric_statistics/iscsi_sess_stats/cmd_pdus") == ""
        url = f"iscsi://127.0.0.1:{port}/{IQN}/0"
        keys = {"MaxConnections": "2", "MaxBurstLength": "1048576"}
        async with connect(url, options(keys=keys, initiator_alias="me"), connections=2) as session:
            await session.test_unit_ready()
            lines = site.read(f"{ACL}/info").splitlines()
            assert lines[0] == f"InitiatorName: {NAME}"
            assert lines[1] == "InitiatorAlias: me"
            assert lines[2].startswith("LIO Session ID: ")
            assert lines[2].endswith("SessionType: Normal")
            assert lines[3] == "Session State: TARG_SESS_STATE_LOGGED_IN"
            assert [line.split()[1] for line in lines if line.startswith("CID:")] == ["0", "1"]
            assert sum(line.startswith("   Address 127.0.0.1 TCP  StatSN: 0x") for line in lines) == 2
            assert site.read(f"{ACL}/param/MaxConnections") == "2\n"
            assert site.read(f"{ACL}/param/MaxBurstLength") == "524288\n"
            assert int(site.read(f"{ACL}/fabric_statistics/iscsi_sess_stats/cmd_pdus")) > 0
            assert int(site.read(f"{ACL}/lun_0/statistics/scsi_auth_intr/num_cmds")) > 0
            assert site.read(f"{GROUP}/dynamic_sessions") == ""
            await site.write(f"{ACL}/cmdsn_depth", "16")
            await until(lambda: site.read(f"{ACL}/info").startswith("No active"))
        async with connect(url, options()) as session:
            await session.test_unit_ready()
            (nexus,) = site.runtime.targets[0].portal_groups[1].nexuses
            assert nexus.services.depth == 16
        await site.write(f"{GROUP}/attrib/generate_node_acls", "1")
        async with connect(url, Options(initiator_name="iqn.2005-03.org.open-iscsi:demo")):
            assert site.read(f"{GROUP}/dynamic_sessions") == "iqn.2005-03.org.open-iscsi:demo\n"


async def test_changed_parameters_are_negotiated_with_those_who_are_logged_in(tmp_path):
    """RFC 7143 11.9.1, event 4, and 13.12: what may be declared at any time is, and only to those whom it concerns."""
    async with serving(tmp_path) as site:
        port = await target(site)
        other = "iqn.2005-03.org.open-iscsi:other"
        await site.write(f"{GROUP}/param/MaxConnections", "2")
        await site.make_all(f"{GROUP}/acls/{other}/lun_0")
        await site.link(f"{GROUP}/acls/{other}/lun_0/link", f"{GROUP}/lun/lun_0")
        url = f"iscsi://127.0.0.1:{port}/{IQN}/0"
        async with (
            connect(url, options(keys={"MaxConnections": "2"}), connections=2) as session,
            connect(url, Options(initiator_name=other, recovery=ONCE)) as second,
        ):
            both = [*session.core.connections.values(), *second.core.connections.values()]
            assert [each.max_send for each in both] == [262144] * 3
            await site.write(f"{GROUP}/param/MaxRecvDataSegmentLength", "65536")
            await until(lambda: [each.max_send for each in both] == [65536] * 3)
            await session.write(0, bytes(512 << 8))
            # of one initiator alone
            await site.write(f"{ACL}/tcm_param/MaxRecvDataSegmentLength", "1048576")
            await until(lambda: [each.max_send for each in both] == [1048576, 1048576, 65536])
            await session.write(0, bytes(512 << 11))
            await site.write(f"{ACL}/tcm_param/MaxRecvDataSegmentLength", "NULL")
            await until(lambda: [each.max_send for each in both] == [65536] * 3)
            # the target's own business, at once
            await site.write(f"{GROUP}/param/MaxXmitDataSegmentLength", "4096")
            (group,) = site.runtime.targets[0].portal_groups.values()
            assert {c.send_limit for nexus in group.nexuses for c in nexus.services.connections.values()} == {4096}
            assert await session.read(0, 64) == bytes(512 * 64)
            # what only a login can change asks nobody
            numbers = [c.stat_sn for nexus in group.nexuses for c in nexus.services.connections.values()]
            await site.write(f"{GROUP}/param/MaxBurstLength", "524288")
            await site.write(f"{GROUP}/attrib/authentication", "1")
            assert [c.stat_sn for nexus in group.nexuses for c in nexus.services.connections.values()] == numbers


async def test_what_parameters_and_attributes_cannot_be(tmp_path):
    async with serving(tmp_path) as site:
        await site.make_all(ACL)
        for path, text in (
            ("param/MaxConnections", "0"),
            ("param/MaxBurstLength", "511"),
            ("param/FirstBurstLength", "16777216"),
            ("param/HeaderDigest", "MD5"),
            ("param/InitialR2T", "perhaps"),
            ("param/IFMarker", "Yes"),
            ("param/TargetAlias", "x" * 256),
            ("attrib/login_timeout", "4"),
            ("attrib/default_erl", "3"),
            ("attrib/fabric_prot_type", "2"),
            ("attrib/generate_node_acls", "perhaps"),
            ("tcm_attrib/allowed_addresses", "nonsense"),
            (f"acls/{NAME}/attrib/nopin_timeout", "2"),
            (f"acls/{NAME}/attrib/dataout_timeout", "61"),
            (f"acls/{NAME}/cmdsn_depth", "513"),
            (f"acls/{NAME}/tag", "x" * 64),
            (f"acls/{NAME}/auth/userid", "x" * 256),
            ("auth/password", "x" * 256),
            ("enable", "2"),
            ("rtpi", "0"),
            ("rtpi", "65536"),
        ):
            before = site.read(f"{GROUP}/{path}")
            with pytest.raises(TreeError) as error:
                await site.write(f"{GROUP}/{path}", text)
            assert site.refused(error) == "EINVAL", path
            assert site.read(f"{GROUP}/{path}") == before
        await site.write(f"{GROUP}/tcm_attrib/allowed_addresses", "10.0.0.0/8\n192.0.2.7\n")
        assert site.read(f"{GROUP}/tcm_attrib/allowed_addresses") == "10.0.0.0/8\n192.0.2.7\n"
        await site.write(f"{GROUP}/rtpi", "700")
        await site.make(f"{TARGET}/tpgt_2")
        with pytest.raises(TreeError):
            await site.write(f"{TARGET}/tpgt_2/rtpi", "700")
        await site.write(f"{GROUP}/enable", "1")
        with pytest.raises(TreeError, match="disable"):
            await site.write(f"{GROUP}/rtpi", "701")


async def test_a_portal_group_goes_with_its_sessions(tmp_path):
    async with serving(tmp_path) as site:
        port = await target(site)
        await site.write(f"{GROUP}/attrib/generate_node_acls", "1")
        url = f"iscsi://127.0.0.1:{port}/{IQN}/0"
        async with connect(url, Options(initiator_name="iqn.2005-03.org.open-iscsi:demo", recovery=ONCE)) as session:
            await session.test_unit_ready()
            for path in (f"{ACL}/lun_0/link", f"{GROUP}/lun/lun_0/link"):
                await site.unlink(path)
            for path in (f"{ACL}/lun_0", ACL, f"{GROUP}/lun/lun_0", f"{GROUP}/np/127.0.0.1:{port}", GROUP, TARGET, "iscsi"):
                await site.remove(path)
            with pytest.raises(InitiatorError):
                await session.test_unit_ready()
        assert not site.runtime.targets
        assert not listens(port)
