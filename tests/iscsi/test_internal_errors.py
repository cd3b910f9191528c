"""A bug in what one connection or session asks for ends that one, with a traceback in the log; all others are served."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from iscsi.test_server import Served, apart, served
from support.raw_iscsi import Initiator
from tcm_iscsi import isns_client, server
from tcm_iscsi.connection import Connection
from tcm_iscsi.isns_client import IsnsService
from tcm_iscsi.link import Link
from tcm_iscsi.protocol.failure import ConnectionFailed

pytestmark = pytest.mark.anyio


class Bug(Exception):
    """What nobody expects."""


def stumble(*_: object) -> Any:
    raise Bug("a bug")


def link_of(t: Served, initiator: Initiator) -> Link:
    host, port = initiator.socket.getsockname()
    return next(each for each in t.fabric.server.links if each.connection and each.connection.peer == f"{host}:{port}")


def connection_of(t: Served, initiator: Initiator) -> Connection:
    connection = link_of(t, initiator).connection
    assert connection is not None
    return connection


@pytest.fixture
def unhandled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Timers every 50 ms; where bugs were met."""
    monkeypatch.setattr(server, "TICK", 0.05)
    return []


def watch(t: Served, unhandled: list[str]) -> None:
    t.fabric.registry.on_error = lambda where, _: unhandled.append(where)


async def test_timer(unhandled: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of a connection: it is closed, once and with a traceback; the timers of the other one go on."""
    async with served() as t:
        watch(t, unhandled)
        with await apart(t.login) as broken, await apart(t.login) as other:
            monkeypatch.setattr(connection_of(t, broken), "handle_timer", stumble)
            assert await apart(broken.socket.recv, 1) == b""
            looks: list[float] = []
            monkeypatch.setattr(connection_of(t, other), "handle_timer", looks.append)
            with anyio.fail_after(60):
                while len(looks) < 2:
                    await anyio.sleep(0.01)
            assert (await apart(other.read, 0, 1)).status == 0
    (where,) = unhandled
    assert "iqn." in where
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is Bug


async def test_session_timer(unhandled: list[str]) -> None:
    """Of a session: it is dropped, the timers of the other one go on."""
    async with served() as t:
        watch(t, unhandled)
        with await apart(t.login) as broken, await apart(t.login) as other:
            phase = connection_of(t, broken).phase
            assert phase is not None
            broken_one: Any = type("Lost", (), {"expired": stumble})()
            phase.session.lost[phase] = broken_one
            with anyio.fail_after(60):
                while not unhandled:
                    await anyio.sleep(0.01)
            assert (await apart(other.read, 0, 1)).status == 0
            with anyio.fail_after(60):
                while len(t.group.nexuses) > 1:
                    await anyio.sleep(0.01)


@pytest.mark.parametrize("error", [Bug("a bug"), ConnectionFailed("it does not answer")])
async def test_wake(error: Exception, unhandled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a backstore's task or another connection wakes: who calls never hears of it."""
    async with served() as t:
        watch(t, unhandled)
        with await apart(t.login) as broken, await apart(t.login) as other:

            def fail() -> None:
                raise error

            link = link_of(t, broken)
            monkeypatch.setattr(connection_of(t, broken), "resume", fail)
            link.wake()
            assert await apart(broken.socket.recv, 1) == b""
            assert (await apart(other.read, 0, 1)).status == 0
    assert len(unhandled) == isinstance(error, Bug)


async def test_accept(unhandled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that cannot be made is closed; the next one comes through."""
    async with served() as t:
        watch(t, unhandled)
        with await apart(t.login) as before:
            with monkeypatch.context() as patch:
                patch.setattr(t.fabric.registry, "policy", stumble)
                with await apart(t.connect) as broken:
                    assert await apart(broken.socket.recv, 1) == b""
            with await apart(t.login) as after:
                assert (await apart(after.read, 0, 1)).status == 0
            assert (await apart(before.read, 0, 1)).status == 0
    assert unhandled == ["accept"]


async def test_drain(unhandled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One initiator that cannot be asked to log out: the other one is."""
    async with served() as t:
        watch(t, unhandled)
        with await apart(t.login) as broken, await apart(t.login) as other:
            monkeypatch.setattr(connection_of(t, broken), "request_logout", stumble)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(t.fabric.server.drain, 5)
                assert await apart(broken.socket.recv, 1) == b""
                assert (await apart(other.socket.recv, 48))[0] == 0x32  # Async Message
                other.socket.close()
    assert len(unhandled) == 1


async def test_isns(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A failure before anything was waited for is no busy loop, and leaving is still possible."""
    monkeypatch.setattr(isns_client, "TROUBLE_SECONDS", 0.05)
    service = IsnsService("127.0.0.1", 1, stumble, entity="e", period=0, esi_interval=0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        await anyio.sleep(0.2)
        with anyio.fail_after(60):
            await service.leave()
    assert 1 <= len([each for each in caplog.records if each.exc_info]) <= 6
