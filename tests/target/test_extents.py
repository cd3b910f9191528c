"""ExtentLocks: what may be held at once, and in which order it is granted."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.target.extents import ExtentLocks

pytestmark = pytest.mark.anyio


@dataclass(eq=False)
class Request:
    first: int
    blocks: int
    exclusive: bool
    scope: anyio.CancelScope
    state: str = "waiting"

    def conflicts(self, other: Request) -> bool:
        overlap = self.first < other.first + other.blocks and other.first < self.first + self.blocks
        return overlap and (self.exclusive or other.exclusive)


async def settle() -> None:
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


def check(requests: list[Request]) -> None:
    alive = [request for request in requests if request.state in {"waiting", "held"}]
    for i, request in enumerate(alive):
        older = alive[:i]
        blocked = any(request.conflicts(other) for other in older)
        if request.state == "held":
            assert not any(request.conflicts(other) for other in alive if other is not request and other.state == "held")
        # nobody waits for nothing, and nobody overtakes one that it conflicts with
        assert (request.state == "waiting") is blocked


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 12), st.integers(1, 6), st.booleans()),
        st.tuples(st.just("leave"), st.integers(0, 20)),
    ),
    max_size=25,
)


@given(STEPS)
def test_extents_against_a_model(steps: list[tuple[object, ...]]) -> None:
    """Overlapping ranges are granted in order of arrival, others at once; a waiter that gives up is forgotten."""

    async def run() -> None:
        exclusive: list[bool] = []
        locks = ExtentLocks(exclusive.append)
        requests: list[Request] = []
        done: dict[Request, anyio.Event] = {}

        async def hold(request: Request) -> None:
            with request.scope:
                async with locks.lock(request, request.first, request.blocks, exclusive=request.exclusive):
                    request.state = "held"
                    await done[request].wait()
            request.state = "gone"

        async with anyio.create_task_group() as group:
            for step in steps:
                if step[0] == "ask":
                    _, first, blocks, alone = step
                    assert isinstance(first, int)
                    assert isinstance(blocks, int)
                    request = Request(first, blocks, bool(alone), anyio.CancelScope())
                    requests.append(request)
                    done[request] = anyio.Event()
                    free = locks.is_free(first, blocks, exclusive=bool(alone))
                    group.start_soon(hold, request)
                    await settle()
                    assert (request.state == "held") is free
                elif requests:
                    assert isinstance(step[1], int)
                    request = requests.pop(step[1] % len(requests))
                    if request.state == "held":
                        done[request].set()
                    else:
                        request.scope.cancel()
                    await settle()
                    assert request.state == "gone"
                check(requests)
                assert locks.exclusive == sum(request.exclusive for request in requests)
            group.cancel_scope.cancel()
        assert locks.exclusive == 0
        assert exclusive == [index % 2 == 0 for index in range(len(exclusive))]
        assert locks.is_free(0, 100, exclusive=True)

    anyio.run(run)


async def test_strand() -> None:
    """A holder that was aborted keeps everybody else out until it is gone; those who were in stay in."""
    locks = ExtentLocks()
    doomed = await locks.acquire("doomed", 0, 8, exclusive=False)
    neighbour = await locks.acquire("neighbour", 4, 8, exclusive=False)
    locks.strand("doomed")
    assert not locks.is_free(7, 1, exclusive=False)
    assert locks.is_free(8, 1, exclusive=False)
    assert locks.exclusive == 1
    locks.strand("doomed")
    assert locks.exclusive == 1
    locks.release(neighbour)
    assert not locks.is_free(7, 1, exclusive=False)
    locks.release(doomed)
    assert locks.exclusive == 0
    assert locks.is_free(0, 16, exclusive=True)
