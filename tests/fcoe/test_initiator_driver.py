"""The initiator for programs, on asyncio and trio, against a tcm-run of its own."""

from __future__ import annotations

import random
from functools import partial

import anyio
import pytest
from support.fcoe_daemon import FcoeDaemon, fcoe_running
from tcm_fcoe.initiator import (
    Faults,
    FcpTask,
    LoginFailed,
    Options,
    Recovery,
    ScsiError,
    TargetLost,
    attach,
    read_16,
    write_16,
)
from tcm_fcoe.protocol.fcp import TaskManagementFlag
from tcm_fcoe.protocol.names import parse_name

pytestmark = pytest.mark.anyio
BLOCK = 512


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    with fcoe_running(tmp_path_factory.mktemp("target"), "--lun", "ramdisk:size=8M") as running:
        yield running


async def test_many_commands_at_once(daemon: FcoeDaemon):
    chance = random.Random(1)
    async with attach(daemon.link) as port:
        target = await port.target(parse_name(daemon.url.target))
        assert await target.capacity() == (16384, BLOCK)
        pieces = {at: chance.randbytes(64 * BLOCK) for at in range(0, 4096, 64)}
        async with anyio.create_task_group() as group:
            for at, data in pieces.items():
                group.start_soon(target.write, at, data)
        for at, data in pieces.items():
            assert await target.read(at, 64) == data
        with pytest.raises(ScsiError, match="ASC 21h/00h"):
            await target.read(16380, 64)


async def test_callbacks_instead_of_tasks(daemon: FcoeDaemon):
    async with attach(daemon.link) as port:
        target = await port.target()
        await target.test_unit_ready()
        event = anyio.Event()
        left = 200

        def done(task: FcpTask) -> None:
            nonlocal left
            assert task.result.good
            left -= 1
            if left:
                target.submit(FcpTask(read_16(left, 1), read_length=BLOCK, done=done))
            else:
                event.set()

        target.submit(FcpTask(read_16(0, 1), read_length=BLOCK, done=done))
        with anyio.fail_after(60):
            await event.wait()


async def test_task_management_and_sense(daemon: FcoeDaemon):
    async with attach(daemon.link) as port:
        target = await port.target()
        await target.test_unit_ready()
        assert await target.task_management(TaskManagementFlag.LOGICAL_UNIT_RESET) == 0
        result = await target.execute(bytes(6))
        assert (result.status, result.sense_key) == (2, 6)
        assert await target.task_management(TaskManagementFlag.LOGICAL_UNIT_RESET, 5) == 9


async def test_a_cancelled_command_is_aborted(daemon: FcoeDaemon):
    """Its FCP_DATA is lost on the way; ABTS frees the exchange at the target."""
    recovery = Recovery(rec_timeout=100.0)
    lost = anyio.Event()

    def choose(frame: bytes, _number: int) -> str:
        if frame[12:14] != b"\x89\x06" or frame[28] != 1:
            return "none"
        lost.set()
        return "drop"

    lose_data = Faults(choose=choose)
    async with attach(daemon.link, options=Options(recovery=recovery), faults=lose_data) as port:
        target = await port.target()
        await target.test_unit_ready()
        async with anyio.create_task_group() as group:
            group.start_soon(partial(target.execute, write_16(0, 8), data_out=bytes(4096)))
            await lost.wait()
            group.cancel_scope.cancel()
        with anyio.fail_after(60):
            while port.fcp.recoveries.aborting:
                await anyio.sleep(0.01)
        assert port.fcp.counters.aborts == 1
        assert not port.fcp.tasks
        await target.test_unit_ready()


async def test_a_target_that_comes_back(tmp_path):
    """What was outstanding fails with TargetLost; the same Target works once tcm-run is there again."""
    with fcoe_running(tmp_path / "state", "--lun", "ramdisk:size=1M") as daemon:
        lose_data = False

        def choose(frame: bytes, _number: int) -> str:
            return "drop" if lose_data and frame[12:14] == b"\x89\x06" and frame[28] == 1 else "none"

        async with attach(daemon.link, faults=Faults(choose=choose)) as port:
            target = await port.target()
            await target.test_unit_ready()
            failures = []

            async def fail() -> None:
                try:
                    await target.write(0, bytes(4096))
                except TargetLost as e:
                    failures.append(str(e))

            lose_data = True
            async with anyio.create_task_group() as group:
                group.start_soon(fail)
                await anyio.sleep(0.1)
                await anyio.to_thread.run_sync(daemon.stop)
            lose_data = False
            assert len(failures) == 1
            assert not target.logged_in
            with pytest.raises(LoginFailed):
                await port.target(timeout=0.3)
            await anyio.to_thread.run_sync(daemon.start)
            assert await port.target(timeout=20) is target
            await target.write(0, b"again".ljust(BLOCK, b"!"))
            assert (await target.read(0, 1))[:5] == b"again"


async def test_two_attachments_need_two_links(daemon: FcoeDaemon):
    from tcm.failure import ConfigError

    async with attach(daemon.link) as port:
        await port.target()
        with pytest.raises(ConfigError):
            async with attach(daemon.link):
                pass


async def test_faults_are_counted(daemon: FcoeDaemon):
    options = Options(recovery=Recovery(rec_timeout=0.2))
    data = random.Random(3).randbytes(512 * BLOCK)
    async with attach(daemon.link, options=options, faults=Faults.all(0.02), chance=random.Random(5)) as port:
        target = await port.target()
        await target.write(0, data)
        assert await target.read(0, 512) == data
        assert {name.split()[1] for name in port.fault_counts} == {"drop", "duplicate", "reorder", "corrupt"}
        assert port.fcp.counters.recs + port.fcp.counters.srrs > 0


async def test_settle_names_every_target(daemon: FcoeDaemon):
    async with attach(daemon.link) as port:
        (target,) = await port.settle(0.2)
        assert target.port_name == parse_name(daemon.url.target)
