"""Runs a :class:`~tcm.runtime.Runtime` until a signal: what ``tcm-run`` does once its arguments are understood."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import resource
import signal
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from tcm import saveconfig
from tcm.cli.control_plane import ControlPlane, Ways
from tcm.command_line.errors import FAILED
from tcm.configfs.export import export
from tcm.configfs.lio import LioTree
from tcm.configfs.node import TreeError
from tcm.configfs.settings import Settings
from tcm.configuration import portal_text
from tcm.control import snapshot
from tcm.control.methods import Methods, Sources
from tcm.control.notify import notify
from tcm.control.saved import write_config
from tcm.failure import ConfigError
from tcm.options import one_line, options_of, size_text
from tcm.probing import unfit
from tcm.runtime import Runtime
from tcm.scsi.asymmetric_access import AccessState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from anyio.abc import TaskGroup, TaskStatus

    from tcm.cli.exporters import Exporters
    from tcm.configuration import Configuration, StorageObject
    from tcm.plugins import PluginManager
    from tcm.target.logical_unit import LogicalUnit

log = logging.getLogger(__name__)

PORTAL_INTERVAL = 5.0
"""Seconds between two tries to listen at portals that are left out."""
ONE_SIGNAL = 0.2
"""Seconds within which signals count as one: timeout(1) and terminals signal a process and its group at the same time."""


def run(
    configuration: Configuration,
    plugins: PluginManager,
    ways: Ways,
    *,
    drain_timeout: float,
    event_loop: str,
    exporters: Exporters,
) -> None:
    """Serves until SIGINT, SIGTERM or SIGHUP. Raises what :meth:`Runtime.serve` and :class:`ControlPlane` raise."""
    backend, backend_options = backend_of(event_loop)
    for sentence in configuration.exposed():
        log.warning("WARNING: %s; give it --chap, or node ACLs in a --config file, or listen at 127.0.0.1", sentence)
    runtime = Runtime(configuration, plugins, drain_timeout=drain_timeout)
    _raise_file_limit()
    control = ControlPlane(ways)
    try:
        anyio.run(_serve, runtime, control, exporters, backend=backend, backend_options=backend_options)
    finally:
        control.close()


def backend_of(event_loop: str) -> tuple[str, dict[str, Any]]:
    """The backend and its options, for ``anyio.run``. Raises :class:`ConfigError` if it is not installed."""
    if event_loop in {"uvloop", "trio"} and importlib.util.find_spec(event_loop) is None:
        raise ConfigError(
            f"--event-loop: {event_loop} is not installed; pip install {event_loop}, or write --event-loop asyncio"
        )
    if event_loop == "trio":
        return "trio", {}
    wanted = event_loop == "uvloop" or (event_loop == "auto" and importlib.util.find_spec("uvloop") is not None)
    return "asyncio", {"use_uvloop": wanted}


async def _serve(runtime: Runtime, control: ControlPlane, exporters: Exporters) -> None:
    async with anyio.create_task_group() as tasks:
        started = anyio.Event()
        answers: list[Methods] = []
        await tasks.start(_signals, runtime, started, tasks, answers)
        agent = await exporters.start(tasks, runtime.statistics, runtime.configuration.state_directory)
        async with anyio.create_task_group() as serving:
            await serving.start(_serve_runtime, runtime, tasks.cancel_scope)
            tree = LioTree(runtime)
            changes = settings(tree, runtime, control)
            answers.append(methods(tree, changes, runtime))
            if agent is not None:
                agent.configurator = changes
            await tasks.start(control.run, answers[0])
            tasks.start_soon(_retry_portals, changes)
            started.set()
            _quieten_collector()
            announce(runtime)
            notify("READY=1")


async def _retry_portals(changes: Settings) -> None:
    """An address may come later, and is the same then; a disk waits for somebody who knows that it is the same."""
    while True:
        await anyio.sleep(PORTAL_INTERVAL)
        await changes.retry_portals()


async def _serve_runtime(runtime: Runtime, scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    """When it ends in good order, so does all else."""
    await runtime.serve(task_status=task_status)
    scope.cancel()


def settings(tree: LioTree, runtime: Runtime, control: ControlPlane) -> Settings:
    """Whole configurations of a runtime that serves."""

    async def unfit_now(config: Mapping[str, Any], names: Collection[str]) -> dict[str, str]:
        bound = {portal_text(portal) for group in runtime.statistics.groups() for portal in group.portals}
        parsed = await to_thread.run_sync(saveconfig.parse, config, runtime.plugins)
        return await unfit(parsed, runtime.plugins, runtime.make_backstore, {*names} - bound)

    return Settings(
        tree,
        export,
        check=lambda config, absent: saveconfig.check(config, runtime.plugins, absent),
        read=saveconfig.read,
        write=write_config,
        path=control.ways.saved,
        renew=runtime.live.reload,
        left_out=runtime.left_out,
        unfit=unfit_now,
        configured=control.ways.config is not None,
    )


def methods(tree: LioTree, changes: Settings, runtime: Runtime) -> Methods:
    """What people can do to a runtime that serves."""
    sources = Sources(
        version=version("tcm-target"),
        settings=changes,
        sessions=lambda: snapshot.sessions(runtime.targets),
        units=lambda: snapshot.units(runtime.logical_units),
        statistics=lambda: snapshot.statistics(runtime.statistics),
    )
    return Methods(tree, sources)


async def _signals(
    runtime: Runtime, started: anyio.Event, tasks: TaskGroup, answers: list[Methods], *, task_status: TaskStatus[None]
) -> None:
    """First signal: end in good order. Second signal: at once. SIGHUP of a service manager: reload."""
    managed = bool(os.environ.get("NOTIFY_SOCKET"))
    first: float | None = None
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # the terminal is gone, and nobody said nohup
        numbers.append(signal.SIGHUP)
    with anyio.open_signal_receiver(*numbers) as received:
        task_status.started()
        async for number in received:
            name = signal.Signals(number).name
            if managed and number == signal.SIGHUP:
                if answers:
                    tasks.start_soon(_reload, answers[0])
                continue
            if first is not None:
                if anyio.current_time() - first < ONE_SIGNAL:
                    continue
                log.error("%s again: ending at once", name)
                sys.stderr.flush()
                # worker threads may be stuck in a write: no ordinary exit would get past them
                os._exit(FAILED)
            first = anyio.current_time()
            log.info("%s: stopping (once more to end at once)", name)
            notify("STOPPING=1")
            runtime.stop()
            if not started.is_set():
                tasks.cancel_scope.cancel()


async def _reload(answers: Methods) -> None:
    """As ``tcm-ctl reload``."""
    try:
        done = await answers.reload(who="SIGHUP")
    except (TreeError, ConfigError, OSError) as error:
        log.error("SIGHUP: %s", one_line(error))
    else:
        log.info("SIGHUP: reloaded, %d operations", len(done))


def _raise_file_limit() -> None:
    """A session is a file descriptor, and the usual soft limit of 1024 is there for select(), which nobody here calls."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _quieten_collector() -> None:
    """What start-up made lives as long as the process: frozen, and collected for less often, it never delays a command."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def announce(runtime: Runtime) -> None:
    """One line a LUN and portal on standard output, exactly the URL; below a fabric's first, how to attach."""
    lines = []
    for fabric in runtime.fabrics.values():
        hints: tuple[str, ...] = ()
        for endpoint in fabric.endpoints():
            lines.append(endpoint.url)
            hints = hints or endpoint.hints
        lines.extend(f"    {hint}" for hint in hints)
    for config in runtime.configuration.storage_objects:
        unit = runtime.logical_units[config.path]
        kinds = options_of(type(config.options)).values()
        what = " ".join([config.type, *(str(getattr(config.options, each.name)) for each in kinds if each.kind == "path")])
        size = size_text(unit.blocks * unit.block_size)
        log.info(
            "%s: %s, %s, blocks of %d, serial %s%s", unit.name, what, size, unit.block_size, unit.serial, _besides(unit, config)
        )
    if not runtime.targets:
        log.info("nothing is served yet: there are no targets")
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except OSError:
        # whoever read it has gone (tcm-run ... | head -1); initiators are still served, and the last flush must not fail
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _besides(unit: LogicalUnit, config: StorageObject) -> str:
    """What an administrator has to know of a unit that differs from an ordinary disk."""
    ports = [
        f"{group.state.name.lower().replace('_', ' ')} through target port group {group.name}"
        for group in unit.asymmetric_access.reported_groups()
        if group.state is not AccessState.ACTIVE_OPTIMIZED
    ]
    parts = [
        "read-only" if unit.read_only else "",
        f"protection information of type {unit.protection.kind:d}" if unit.protection.kind else "",
        f"filters {' '.join(each.type for each in config.filters)}" if config.filters else "",
        *ports,
    ]
    return "".join(f", {part}" for part in parts if part)
