"""The initiator over real sockets, against a tcm-run of its own."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from support import initiator_stories
from support.daemon import Daemon, running
from support.initiator_stories import STORIES, churn, options
from tcm_iscsi.initiator import (
    ConnectionLost,
    Credentials,
    Faults,
    InitiatorError,
    LoginFailed,
    Options,
    RequestFailed,
    ScsiError,
    ScsiTask,
    SessionEnded,
    connect,
    discover,
    parse_url,
    read_16,
)

pytestmark = pytest.mark.anyio

PARAMETERS = ("ErrorRecoveryLevel=2", "MaxConnections=8", "DefaultTime2Wait=0", "MaxOutstandingR2T=8")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    arguments = [word for parameter in PARAMETERS for word in ("--param", parameter)]
    with running(tmp_path_factory.mktemp("initiator"), "--lun", "ramdisk:size=64M", *arguments) as found:
        yield found


@pytest.fixture
def url(daemon: Daemon) -> str:
    return daemon.url.text


ELSEWHERE = ("storm", "Data-Out PDU is lost", "R2T is lost", "LIO")
"""Those that last as long as somebody's timer, and those of LIO's targets."""


@pytest.mark.parametrize("name", [name for name in STORIES if not any(word in name for word in ELSEWHERE)])
async def test_story(url: str, name: str) -> None:
    with anyio.fail_after(30):
        await STORIES[name](url)


async def test_a_short_storm(url: str) -> None:
    with anyio.fail_after(60):
        counts = await initiator_stories.storm(url, seconds=2.0)
    assert {name.split()[1] for name in counts} == {"cut", "drop", "delay", "corrupt_header", "corrupt_data"}


async def test_the_helpers_raise_what_the_unit_says(url: str) -> None:
    async with connect(url) as session:
        with pytest.raises(ScsiError, match="ASC 21h/00h") as caught:
            await session.read(1 << 40, 1)
        assert caught.value.result.sense_key == 5
        with pytest.raises(ValueError, match="no multiple"):
            await session.write(0, b"x")
        assert (await session.inquiry())[8:16] == b"LIO-ORG "
        assert (await session.inquiry(page=0x80))[1] == 0x80
        assert await session.report_luns() == [bytes(8)]
        assert await session.capacity() == (131072, 512)
        await session.test_unit_ready()
        await session.synchronize_cache()


async def test_a_cancelled_command_is_aborted_and_nothing_else(url: str) -> None:
    async with connect(url, options(1)) as session:
        with anyio.move_on_after(0):
            await session.read(0, 8)
        await churn(session, commands=20, depth=4)
        await initiator_stories.nothing_outstanding(session)


async def test_exceptions_come_through_as_they_are(url: str) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with connect(url):
            raise KeyError("mine")


async def test_thousands_at_once(url: str) -> None:
    async with connect(url, connections=2) as session:
        await session.test_unit_ready()
        done: list[ScsiTask] = []
        for n in range(3000):
            session.submit(ScsiTask(read_16(n, 1), read_length=512, done=done.append))
        with anyio.fail_after(60):
            while len(done) < 3000:
                await anyio.sleep(0.01)
        assert all(task.error is None and task.result.good for task in done)


async def test_events_can_be_awaited(url: str) -> None:
    async with connect(url, options(2)) as session:
        seen: list[Any] = []
        session.on_event = seen.append
        session.wires[0].end_now()
        with anyio.fail_after(60):
            event = await session.next_event(ConnectionLost)
        assert event.cid == 0  # type: ignore[union-attr]  # ConnectionLost
        await session.test_unit_ready()
        assert seen


async def test_the_end_is_told_to_all_that_wait(url: str) -> None:
    """ERL 0, no session recovery: every command fails, and later ones too."""
    async with connect(url) as session:
        failed = []

        async def wait(number: int) -> None:
            try:
                while True:
                    await session.read(number, 8)
            except RequestFailed as e:
                failed.append(e)

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(wait, number)
            await anyio.sleep(0.05)
            session.wires[0].end_now()
        assert len(failed) == 8
        assert isinstance(session.events[-1], SessionEnded)
        with pytest.raises(RequestFailed):
            await session.test_unit_ready()


async def test_who_cannot_be_reached() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    target = "iqn.2003-01.org.example:t"
    with pytest.raises(InitiatorError, match="nobody listens there"):
        async with connect(f"iscsi://127.0.0.1:{port}/{target}/0"):
            pass
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(LoginFailed, match=r"no login within 0\.3 s"):
            async with connect(f"iscsi://127.0.0.1:{silent.getsockname()[1]}/{target}/0", Options(login_timeout=0.3)):
                pass


async def test_a_target_that_does_not_exist(url: str) -> None:
    with pytest.raises(LoginFailed, match="not found"):
        async with connect(replace(parse_url(url), target="iqn.2003-01.org.example:nobody")):
            pass


async def test_more_connections_than_the_target_allows(url: str) -> None:
    with pytest.raises(InitiatorError, match="8 connections"):
        async with connect(url, connections=9):
            pass


async def test_ipv6(tmp_path: Path) -> None:
    with running(tmp_path, "--lun", "ramdisk:size=4M", portals=["[::1]:0"]) as daemon:
        assert daemon.url.target in await discover(daemon.url.text)
        async with connect(daemon.url.text) as session:
            await session.write(0, b"6" * 512)
            assert await session.read(0, 1) == b"6" * 512


async def test_chap_and_the_same_for_discovery(tmp_path: Path) -> None:
    chap = ("--chap", "alice", "--chap-mutual", "bob", "--chap-discovery")
    secrets = {"TCM_CHAP_SECRET": "initiatorsecret", "TCM_CHAP_MUTUAL_SECRET": "targetsecret12"}
    with running(tmp_path, "--lun", "ramdisk:size=4M", *chap, env=secrets) as daemon:
        mine = Credentials(name="alice", secret="initiatorsecret", mutual_name="bob", mutual_secret="targetsecret12")
        for algorithm in mine.algorithms:
            async with connect(daemon.url.text, Options(chap=replace(mine, algorithms=(algorithm,)))) as session:
                await session.test_unit_ready()
        assert await discover(daemon.url.text, Options(chap=mine))
        for wrong in (None, replace(mine, secret="wrong secret 1"), replace(mine, mutual_secret="wrong secret 2")):
            with pytest.raises(LoginFailed):
                async with connect(daemon.url.text, Options(chap=wrong)):
                    pass
        assert not any(word in daemon.log() for word in ("initiatorsecret", "targetsecret12", "wrong secret"))


async def test_redirection_is_followed(daemon: Daemon, tmp_path: Path) -> None:
    """11.13.5: TargetAddress of status 0101 and 0102; not for ever."""
    there = f"127.0.0.1:{daemon.url.port}"
    for kind in ("temporarily", "permanently"):
        with running(tmp_path / kind, "--lun", "ramdisk:size=4M", "--attribute", f"redirect-{kind}={there}") as here:
            async with connect(here.url.text) as session:
                assert (await session.capacity())[0] == 131072
                assert session.portals == {0: ("127.0.0.1", daemon.url.port)}
            with pytest.raises(LoginFailed):
                async with connect(here.url.text, Options(redirects=0)):
                    pass


async def test_the_target_asks_for_logout_and_gets_it(tmp_path: Path) -> None:
    """11.9.1: with everything that is outstanding done before."""
    daemon = Daemon(tmp_path, "--lun", "ramdisk:size=4M", "--param", "MaxConnections=4").start()
    try:
        async with connect(daemon.url.text, connections=2) as session:
            await session.test_unit_ready()
            with anyio.fail_after(60):
                await anyio.to_thread.run_sync(daemon.stop)
            assert session.core.ended is not None
        assert daemon.log().count("logged out") == 2
    finally:
        daemon.kill()


async def test_faults_with_one_seed_are_the_same(url: str) -> None:
    """The same PDUs meet with the same accidents, as far as the target answers in the same order."""
    counts = []
    for _ in range(2):
        faults = Faults(drop=0.2, opcodes=frozenset({0x01}))
        async with connect(url, options(1), faults=faults, chance=random.Random(11)) as session:
            await churn(session, commands=12, depth=1)
            counts.append(session.wires[0].faults.done["out drop"])  # type: ignore[union-attr]  # made above
    assert counts[0] == counts[1] > 0


async def test_many_sessions_of_different_initiators(url: str) -> None:
    async def one(number: int) -> None:
        name = f"iqn.2003-01.org.example:host{number}"
        async with connect(url, replace(options(2), initiator_name=name), connections=2) as session:
            await churn(session, commands=30, depth=2, sizes=(1,), seed=number, first=number * 100)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(partial(one, number))
