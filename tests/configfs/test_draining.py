"""Removal that waits for what is under way: LUNs, mapped LUNs, node ACLs, portal groups, portals, and all of a target."""

from __future__ import annotations

import anyio
import pytest
from support.lio_tree import IQN, NAA, serving
from support.programs import free_port
from tcm_backstores.filters.delay import DelayFilter
from tcm_iscsi.initiator.driver import connect
from tcm_iscsi.initiator.options import Options, Recovery
from tcm_iscsi.initiator.results import InitiatorError, LoginFailed
from tcm_loopback.commands import ApplicationClient

from tcm.configfs.node import TreeError
from tcm.scsi.sense import Status

pytestmark = pytest.mark.anyio
TARGET = f"iscsi/{IQN}"
GROUP = f"{TARGET}/tpgt_1"
NAME = "iqn.2005-03.org.open-iscsi:abc"
ACL = f"{GROUP}/acls/{NAME}"
OPTIONS = Options(initiator_name=NAME, recovery=Recovery(automatic=False))
READ = bytes((0x28, *bytes(7), 1, 0))


class Gate:
    """Reads wait until it is opened, however long a test takes on a busy machine."""

    def __init__(self):
        self.opened = anyio.Event()

    async def wait(self, _seconds):
        await self.opened.wait()

    def open(self):
        self.opened.set()


@pytest.fixture
async def gate(monkeypatch):
    made = Gate()
    monkeypatch.setattr(DelayFilter.__init__, "__defaults__", (made.wait,))
    return made


async def until(condition):
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(0.005)


def draining(site):
    """New commands of somebody end in BUSY."""
    nexuses = [itl for unit in site.runtime.logical_units.values() for itl in unit.itl_nexuses]
    return any(itl.draining is not None or itl.nexus.draining for itl in nexuses)


async def slow_target(site, *, luns=1, port=0):
    """Reads take their time; returns the port."""
    await site.make_all("core/rd_mcp_0/slow")
    await site.write("core/rd_mcp_0/slow/control", "rd_pages=256")
    await site.write("core/rd_mcp_0/slow/tcm_filters", "delay:read=1")
    await site.write("core/rd_mcp_0/slow/enable", "1")
    await site.make_all(GROUP)
    await site.write(f"{GROUP}/attrib/authentication", "0")
    for number in range(luns):
        await site.make_all(f"{GROUP}/lun/lun_{number}", f"{ACL}/lun_{number}")
        await site.link(f"{GROUP}/lun/lun_{number}/link", "core/rd_mcp_0/slow")
        await site.link(f"{ACL}/lun_{number}/link", f"{GROUP}/lun/lun_{number}")
    port = port or free_port()
    await site.make(f"{GROUP}/np/127.0.0.1:{port}")
    await site.write(f"{GROUP}/enable", "1")
    return port


class Reading:
    """A read under way."""

    def __init__(self, session, lun=0):
        self._session = session
        self._lun = lun
        self.status = None
        self.error = None

    async def run(self):
        try:
            self.status = (await self._session.execute(READ, self._lun, read_length=512)).status
        except InitiatorError as error:
            self.error = error


async def begun(tasks, site, session, lun=0):
    """A read that the target has begun."""
    # what nobody has written is read without the medium
    await session.write(0, bytes(512), lun)
    reading = Reading(session, lun)
    tasks.start_soon(reading.run)
    unit = next(iter(site.runtime.logical_units.values()))
    await until(lambda: any(task.itl is not None and task.itl.lun_number == lun for task in unit.task_set))
    return reading


async def status(session, lun=0):
    return (await session.execute(READ, lun, read_length=512)).status


@pytest.mark.parametrize("what", ["the LUN's link", "the LUN", "the mapped LUN's link", "the mapped LUN"])
async def test_luns(tmp_path, what, gate):
    """The read that is under way ends well, new ones are answered with BUSY; other LUNs notice nothing."""
    async with serving(tmp_path) as site:
        port = await slow_target(site, luns=2)
        path = f"{GROUP}/lun/lun_0" if what.startswith("the LUN") else f"{ACL}/lun_0"
        recursive = not what.endswith("link")
        async with connect(f"iscsi://127.0.0.1:{port}/{IQN}/0", OPTIONS) as session, anyio.create_task_group() as tasks:
            await session.test_unit_ready(0)
            await session.test_unit_ready(1)
            reading = await begun(tasks, site, session)
            done = anyio.Event()

            async def remove():
                if recursive:
                    await site.remove(path, recursive=True, drain=60)
                else:
                    await site.unlink(f"{path}/link", drain=60)
                done.set()

            tasks.start_soon(remove)
            await until(lambda: draining(site))
            assert await status(session) == Status.BUSY
            assert (await session.inquiry(0))[:1] == b"\0", "INQUIRY is answered whatever there is"
            gate.open()
            assert await status(session, 1) == Status.GOOD
            await until(lambda: reading.status == Status.GOOD)
            with anyio.fail_after(60):
                await done.wait()
            assert (await session.execute(bytes(6), 0)).status == Status.CHECK_CONDITION
            with pytest.raises(TreeError) as error:
                site.tree.find(path if recursive else f"{path}/link")
            assert site.refused(error) == "ENOENT"


@pytest.mark.parametrize("what", ["LUN", "mapped LUN", "node ACL", "portal group", "portal", "target"])
async def test_not_in_time(tmp_path, what, gate):
    """One line says what is still under way; then all is as it was: commands and logins are taken again."""
    async with serving(tmp_path) as site:
        port = await slow_target(site)
        paths = {
            "LUN": f"{GROUP}/lun/lun_0",
            "mapped LUN": f"{ACL}/lun_0",
            "node ACL": ACL,
            "portal group": GROUP,
            "portal": f"{GROUP}/np/127.0.0.1:{port}",
            "target": TARGET,
        }
        url = f"iscsi://127.0.0.1:{port}/{IQN}/0"
        async with connect(url, OPTIONS) as session, anyio.create_task_group() as tasks:
            await session.test_unit_ready()
            before = site.entries()
            revision = site.tree.revision
            reading = await begun(tasks, site, session)
            with pytest.raises(TreeError, match=r"after 0\.2 s there are still .*nothing was removed") as error:
                await site.remove(paths[what], recursive=True, drain=0.2)
            assert reading.status is None
            gate.open()
            assert site.refused(error) == "EBUSY"
            assert site.tree.revision == revision
            assert await status(session) == Status.GOOD
            await until(lambda: reading.status == Status.GOOD)
            after = site.entries()
            assert {path for path in before if after.get(path) is None} == set()
            async with connect(url, Options(initiator_name=NAME, isid=bytes((0x80, 0, 0, 0, 0, 7)))) as other:
                await other.test_unit_ready()


@pytest.mark.parametrize("what", ["node ACL", "portal group", "target"])
async def test_initiators_are_asked_to_leave_and_do_not_come_back(tmp_path, what, gate):
    """RFC 7143 11.9.1, event 1; who tries to log in meanwhile is told that the service is not available (0301)."""
    async with serving(tmp_path) as site:
        port = await slow_target(site)
        path = {"node ACL": ACL, "portal group": GROUP, "target": TARGET}[what]
        url = f"iscsi://127.0.0.1:{port}/{IQN}/0"
        async with connect(url, OPTIONS) as session, anyio.create_task_group() as tasks:
            await session.test_unit_ready()
            reading = await begun(tasks, site, session)
            tasks.start_soon(lambda: site.remove(path, recursive=True, drain=60))
            await until(lambda: asked(session))
            assert [(each.event, each.parameters[2]) for each in asked(session)] == [(1, 60)]
            with pytest.raises(LoginFailed, match=r"(?i)0301|unavailable"):
                async with connect(url, Options(initiator_name=NAME, isid=bytes((0x80, 0, 0, 0, 0, 7)))):
                    pass
            assert await status(session) == Status.BUSY
            gate.open()
            await until(lambda: reading.status == Status.GOOD)
            await session.logout()
        with pytest.raises(TreeError):
            site.tree.find(path)
        groups = [group for target in site.runtime.targets for group in target.portal_groups.values()]
        assert not any(group.nexuses for group in groups)


def asked(session):
    """The asynchronous messages that have come."""
    return [each for each in session.events if hasattr(each, "event")]


async def test_who_has_nothing_to_do_and_does_not_leave_is_not_waited_for_long(tmp_path, gate):
    async with serving(tmp_path) as site:
        port = await slow_target(site)
        async with connect(f"iscsi://127.0.0.1:{port}/{IQN}/0", OPTIONS) as session:
            await session.test_unit_ready()
            with anyio.fail_after(60):
                await site.remove(TARGET, recursive=True, drain=600)
            with pytest.raises(InitiatorError):
                await session.test_unit_ready()
        assert not site.runtime.targets


async def test_a_portal_stays_for_those_whose_commands_are_under_way(tmp_path, gate):
    async with serving(tmp_path) as site:
        port = await slow_target(site)
        url = f"iscsi://127.0.0.1:{port}/{IQN}/0"
        portal = f"{GROUP}/np/127.0.0.1:{port}"
        async with connect(url, OPTIONS) as session, anyio.create_task_group() as tasks:
            await session.test_unit_ready()
            reading = await begun(tasks, site, session)
            tasks.start_soon(lambda: site.remove(portal, drain=60))
            await anyio.sleep(0.1)
            with pytest.raises(LoginFailed):
                async with connect(url, Options(initiator_name=NAME, isid=bytes((0x80, 0, 0, 0, 0, 7)))):
                    pass
            assert site.tree.find(portal)
            gate.open()
            await until(lambda: reading.status is not None)
        with pytest.raises(TreeError):
            site.tree.find(portal)
        assert reading.status == Status.GOOD


async def test_refused_before_anybody_is_asked(tmp_path, gate):
    """What could not be removed anyway, a time that cannot be, and two at once."""
    async with serving(tmp_path) as site:
        port = await slow_target(site)
        async with connect(f"iscsi://127.0.0.1:{port}/{IQN}/0", OPTIONS) as session, anyio.create_task_group() as tasks:
            await session.test_unit_ready()
            for path, drain, name in (
                (GROUP, 10, "ENOTEMPTY"),
                (f"{GROUP}/lun/lun_0", 10, "EBUSY"),
                (f"{GROUP}/lun/lun_7", 10, "ENOENT"),
                (GROUP, -1, "EINVAL"),
                (GROUP, 1e9, "EINVAL"),
                (GROUP, float("nan"), "EINVAL"),
            ):
                with pytest.raises(TreeError) as error:
                    await site.remove(path, drain=drain)
                assert site.refused(error) == name, (path, drain)
            assert asked(session) == []
            reading = await begun(tasks, site, session)
            tasks.start_soon(lambda: site.unlink(f"{ACL}/lun_0/link", drain=60))
            await until(lambda: draining(site))
            with pytest.raises(TreeError, match="drained already") as error:
                await site.remove(ACL, recursive=True, drain=60)
            assert site.refused(error) == "EBUSY"
            # others may change the tree meanwhile
            await site.write(f"{GROUP}/attrib/login_timeout", "9")
            assert reading.status is None
            gate.open()
        assert reading.status == Status.GOOD


async def test_loopback_knows_no_logout_but_commands_are_waited_for(tmp_path, gate):
    async with serving(tmp_path, "loopback") as site:
        await site.make_all("core/rd_mcp_0/slow")
        await site.write("core/rd_mcp_0/slow/control", "rd_pages=256")
        await site.write("core/rd_mcp_0/slow/tcm_filters", "delay:read=1")
        await site.write("core/rd_mcp_0/slow/enable", "1")
        group = await site.loopback("core/rd_mcp_0/slow")
        client = ApplicationClient(site.connect())
        await client.identify()
        await client.write(10, 0, bytes(512))
        async with anyio.create_task_group() as tasks:
            read = []

            async def reading():
                read.append(await client.read(10, 0, 1))

            tasks.start_soon(reading)
            unit = next(iter(site.runtime.logical_units.values()))
            await until(lambda: any(task.itl is not None for task in unit.task_set))
            with pytest.raises(TreeError, match="1 command"):
                await site.remove(group, recursive=True, drain=0.1)
            gate.open()
            await site.remove(group, recursive=True, drain=60)
            assert len(read) == 1
        assert NAA not in str(site.entries().keys() & {f"loopback/{NAA}/tpgt_1"})
