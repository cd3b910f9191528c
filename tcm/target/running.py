"""What of a logical unit runs in the task group: commands that take their time, and what nobody waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from tcm.target import router
from tcm.target.task import Task, TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from anyio.abc import TaskGroup


class Running:
    """Commands and background work under way. False when there is none.

    :param name: for debuggers.
    :param on_unexpected: told of an exception that nobody can answer for: what it was, and the exception.
    """

    def __init__(self, name: str, on_unexpected: Callable[[str, Exception], None]) -> None:
        self._name = name
        self._on_unexpected = on_unexpected
        self._task_group: TaskGroup | None = None
        self._waiting: dict[object, list[Callable[[], None]]] = {}
        """Tasks (or coroutines, if there is no task) and what to call when they have ended."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, task: Task) -> bool:
        return task in self._waiting

    def start(self, task_group: TaskGroup) -> None:
        """Where to run."""
        self._task_group = task_group

    def spawn(self, task: Task, coroutine: Coroutine[Any, Any, None]) -> None:
        """Execute a command, cancelled through ``task.scope`` if it is aborted; ``router.ended`` follows."""
        assert self._task_group is not None, "LogicalUnit.start() comes first"
        if task.state is TaskState.ABORTED:
            coroutine.close()
            return
        self._waiting[task] = []
        self._task_group.start_soon(self._run, task, coroutine, name=(self._name, task.tag))

    def hold(self, task: Task, seconds: float) -> None:
        """Keep a task that has not been executed for a while; ``router.resume`` follows, at once if it is aborted."""
        assert self._task_group is not None, "LogicalUnit.start() comes first"
        self._waiting[task] = []
        self._task_group.start_soon(self._hold, task, seconds, name=(self._name, task.tag))

    def spawn_alone(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something that no task waits for (IMMED)."""
        assert self._task_group is not None, "LogicalUnit.start() comes first"
        self._waiting[coroutine] = []
        self._task_group.start_soon(self._run_alone, coroutine, name=self._name)

    def when_ended(self, task: Task, then: Callable[[], None]) -> None:
        """Call ``then`` once a task that is in here has ended."""
        self._waiting[task].append(then)

    async def until_tasks_end(self, *, but: Task | None) -> None:
        """Return when every command that runs now, except one, has ended."""
        for task in [each for each in self._waiting if isinstance(each, Task) and each is not but]:
            if task in self._waiting:
                ended = anyio.Event()
                self._waiting[task].append(ended.set)
                await ended.wait()

    async def until_idle(self) -> None:
        """Return when nothing runs any more."""
        while self._waiting:
            ended = anyio.Event()
            next(iter(self._waiting.values())).append(ended.set)
            await ended.wait()

    async def _run(self, task: Task, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            if task.state is TaskState.ABORTED:
                coroutine.close()
            else:
                with anyio.CancelScope() as task.scope:
                    await router.finish(task, coroutine)
        except BaseException:
            task.state = TaskState.ABORTED
            raise
        finally:
            waiting = self._waiting.pop(task)
            self._call([lambda: router.ended(task), *waiting])

    async def _hold(self, task: Task, seconds: float) -> None:
        try:
            if task.state is not TaskState.ABORTED:
                with anyio.CancelScope() as task.scope:
                    await anyio.sleep(seconds)
        except BaseException:
            task.state = TaskState.ABORTED
            raise
        finally:
            task.scope = None
            waiting = self._waiting.pop(task)
            self._call([lambda: router.resume(task), *waiting])

    async def _run_alone(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Exception as error:  # noqa: BLE001  # nobody is left to be told
            self._on_unexpected("a command with IMMED", error)
        except anyio.get_cancelled_exc_class() as error:
            await checkpoint_if_cancelled()
            stray = router.StrayCancellation().with_traceback(error.__traceback__)
            self._on_unexpected("a command with IMMED", stray)
        finally:
            self._call(self._waiting.pop(coroutine))

    def _call(self, functions: list[Callable[[], None]]) -> None:
        """Call them all; what one raises must not end the task group, which is everybody's."""
        for function in functions:
            try:
                function()
            except Exception as error:  # noqa: BLE001  # a fabric's callbacks must not raise, and one did
                self._on_unexpected("a fabric's callback", error)
