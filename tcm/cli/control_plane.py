"""What lets people look at a running tcm-run and change it: the control socket, and the tree by FUSE."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from tcm.cli.folders import check_folder_of
from tcm.cli.state import CONTROL
from tcm.control.notify import control_socket
from tcm.control.server import ControlServer, listen
from tcm.failure import ConfigError

if TYPE_CHECKING:
    from anyio.abc import Process, TaskGroup, TaskStatus

    from tcm.control.methods import Methods

log = logging.getLogger(__name__)

_MOUNTED = 15.0
"""Seconds that mounting may take."""
_UNMOUNTED = 5.0
_INTERVAL = 0.02


@dataclass(frozen=True)
class Ways:
    """Where the ways in are.

    :param control: path of the control socket; ``None``: in the state directory, or nowhere if that cannot be.
    :param configfs: where the tree is to be mounted.
    :param config: the saveconfig.json that was read at the start.
    """

    control: str | None = None
    configfs: str | None = None
    state_directory: str | None = None
    config: str | None = None

    def in_state_directory(self, path: str) -> bool:
        """That one is made if need be."""
        return self.state_directory == os.path.dirname(os.path.abspath(path))

    @property
    def saved(self) -> str | None:
        """Where what runs is saved unless somebody says otherwise."""
        if self.config is not None:
            return os.path.abspath(self.config)
        return os.path.join(self.state_directory, "saveconfig.json") if self.state_directory else None


class ControlPlane:
    """Opens a socket that was asked for at once, so that nobody is served if it cannot be had; answers when :meth:`run` runs.

    Raises :class:`ConfigError`.
    """

    def __init__(self, ways: Ways) -> None:
        self.ways = ways
        self.path = ways.control or (os.path.join(ways.state_directory, CONTROL) if ways.state_directory else None)
        self._ours = True
        self._listener = control_socket()
        if self._listener is not None:
            self._ours = False
            self.path = str(self._listener.getsockname())
        elif ways.control is not None:
            if not ways.in_state_directory(ways.control):
                check_folder_of("--control", ways.control, "--control PATH")
            self._listener = listen(ways.control)
        if ways.configfs is not None:
            check_folder_of("--configfs", ways.configfs, "--configfs PATH")
            _check_fuse(self.path)

    def _open(self) -> None:
        """The default one, if it can be had: who did not ask for it is served without."""
        if self._listener is None and self.path is not None:
            try:
                self._listener = listen(self.path)
            except ConfigError as error:
                if self.ways.configfs is not None:
                    raise
                log.warning("no control socket: %s", str(error).removeprefix("--control: "))

    async def run(self, methods: Methods, *, task_status: TaskStatus[None]) -> None:
        """Answers until cancelled. Raises :class:`ConfigError` if the tree cannot be mounted."""
        self._open()
        if self._listener is None or self.path is None:
            task_status.started()
            return
        async with anyio.create_task_group() as tasks:
            server = ControlServer(methods, self.path, listener=self._listener, owned=self._ours)
            await tasks.start(server.run)
            if self.ways.configfs is not None:
                await self._mount(tasks, self.ways.configfs)
            task_status.started()

    def close(self) -> None:
        """If it never ran."""
        if self._listener is not None:
            self._listener.close()
            if self._ours and self.path is not None and os.path.exists(self.path):
                os.unlink(self.path)

    async def _mount(self, tasks: TaskGroup, path: str) -> None:
        """In a process of its own, see :mod:`tcm.control.configfs_mount`."""
        code = "from tcm.cli.ctl import main; main()"
        command = [sys.executable, "-c", code, "--control", self.path or "", "mount", path]
        process = await anyio.open_process(command, stdin=subprocess.DEVNULL, stdout=None, stderr=None, start_new_session=True)
        await tasks.start(self._watch, process, path)

    async def _watch(self, process: Process, path: str, *, task_status: TaskStatus[None]) -> None:
        try:
            if not await to_thread.run_sync(_wait_for_mount, process, path):
                raise ConfigError(f"--configfs: {path} could not be mounted; write an empty folder of yours, or leave it out")
            log.info("the tree is mounted at %s", path)
            task_status.started()
            await process.wait()
            log.warning("%s is not mounted any more; tcm-ctl mount %s mounts it again", path, path)
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)


def _wait_for_mount(process: Process, path: str) -> bool:
    end = time.monotonic() + _MOUNTED
    while not (there := os.path.ismount(path)) and process.returncode is None and time.monotonic() < end:
        time.sleep(_INTERVAL)
    return there


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(_UNMOUNTED):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
    await process.aclose()


def _check_fuse(control: str | None) -> None:
    if control is None:
        raise ConfigError("--configfs: it wants a control socket; write --control PATH too")
    try:
        import tcm.control.configfs_mount  # noqa: F401 - whether it can be
    except ImportError:
        raise ConfigError("--configfs: mfusepy is not installed; pip install 'tcm-target[fuse]'") from None
    except OSError:
        raise ConfigError("--configfs: libfuse is not installed; apt-get install fuse3 libfuse3-3") from None
    if not os.path.exists("/dev/fuse"):
        raise ConfigError("--configfs: there is no /dev/fuse; load the module fuse, or use tcm-ctl without a mount")
