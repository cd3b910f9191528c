"""Connections that have not logged in: how many, and who gives way."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
from support.iscsi_site import apart, served
from tcm_iscsi.logins import LoginQueue


def test_the_oldest_of_the_biggest_crowd_goes() -> None:
    """A flood from one address costs its own connections; what is alone at its address stays."""
    queue: LoginQueue[str] = LoginQueue(lambda _: True, limit=4)
    assert [queue.enter(name, name[0]) for name in ("a1", "b1", "a2", "a3")] == [None] * 4
    assert queue.enter("a4", "a") == "a1"
    assert queue.enter("c1", "c") == "a2"
    assert queue.enter("b2", "b") == "a3"
    assert len(queue) == 4
    queue.leave("b1")
    queue.leave("b1")
    assert queue.enter("d1", "d") is None


def test_who_has_logged_in_does_not_count() -> None:
    """They are forgotten when the room is needed."""
    logged_in: set[int] = set()
    queue: LoginQueue[int] = LoginQueue(lambda number: number not in logged_in, limit=8)
    for number in range(1000):
        assert queue.enter(number, "a") is None
        logged_in.add(number)
    assert len(queue) <= 8


@pytest.mark.anyio
async def test_flood() -> None:
    """Connections that say nothing do not keep others out: the oldest of them goes, sessions stay."""
    async with served() as t:
        t.fabric.server.logins._limit = 5

        def work() -> None:
            with t.login() as session:
                silent = [t.connect() for _ in range(8)]
                with t.login() as another:
                    assert another.read(0, 1).status == session.read(0, 1).status == 0
                closed = 0
                for each in silent:
                    each.socket.settimeout(0.2)
                    with each, suppress(TimeoutError):
                        closed += each.socket.recv(1) == b""
                assert closed in (3, 4)  # trio: one may have come later than the newcomer, who had logged in

        await apart(work)
        with anyio.fail_after(60):
            while t.fabric.server.links:
                await anyio.sleep(0.01)
        assert not len(t.fabric.server.logins)
