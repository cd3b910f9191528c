"""``tcm-ctl targetcli`` and ``exec``: a program that finds the tree at /sys/kernel/config, in a mount namespace of its own.

``run`` starts unshare(1), which starts this module again inside: it mounts the tree, starts a D-Bus daemon for the program,
runs the program, and takes all of it down again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from tcm.cli.state import default_directory
from tcm.failure import ConfigError, RuntimeFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONFIGFS = "/sys/kernel/config"
SAVED = ("/etc/target", "/etc/rtslib-fb-target")
"""Where targetcli saves; the second one is Debian's."""
_READY = 15.0
"""Seconds that the mount may take."""
_INSIDE = "tcm.cli.ctl_targetcli"
_PROGRAM_SEES = """import os
import stat
import sys

_chmod = os.chmod


def chmod(path, mode, **how):
    '''Nobody takes the right to search from a folder: targetcli does, from whichever it saves to.'''
    searched = isinstance(path, int) or mode & 0o100
    if searched or not stat.S_ISDIR(os.stat(path, dir_fd=how.get("dir_fd")).st_mode):
        _chmod(path, mode, **how)


os.chmod = chmod
sys.path.remove(os.path.dirname(__file__))
del sys.modules["sitecustomize"]
try:
    import sitecustomize
except ImportError:
    pass
"""
_BUS = """<busconfig>
  <type>system</type><auth>EXTERNAL</auth><listen>unix:path={}/bus</listen>
  <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy>
</busconfig>
"""


def run(control: str, program: str, arguments: Sequence[str]) -> int:
    """Runs it and returns its exit code. Raises :class:`ConfigError` if something is not installed."""
    package = {"targetcli": "targetcli-fb"}.get(program)
    found = shutil.which(program)
    if found is None:
        fix = f"apt-get install {package}" if package else "write the whole path"
        raise ConfigError(f"{program}: not found; {fix}")
    if shutil.which("unshare") is None:
        raise ConfigError("unshare: not found; apt-get install util-linux")
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    saved = os.path.join(default_directory(), "targetcli")
    os.makedirs(saved, mode=0o700, exist_ok=True)
    inside = [sys.executable, "-m", _INSIDE, os.path.abspath(control), saved, found, *arguments]
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the program's
    try:
        done = subprocess.run(["unshare", "--mount", "--propagation", "private", *as_root, "--", *inside], check=False)
    finally:
        signal.signal(signal.SIGINT, ignored)
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def main(arguments: Sequence[str]) -> int:
    """Inside of the namespace."""
    control, saved, program, *rest = arguments
    with contextlib.ExitStack() as stack:
        _prepare_folders(saved)
        stack.enter_context(_mounted(control))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tcm-ctl"))
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (_shim(folder), environment.get("PYTHONPATH"))))
        # any program may be one that runs targetcli, as Pacemaker's agents do
        if shutil.which("dbus-daemon") is not None:
            stack.enter_context(_bus(folder))
            environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={folder}/bus"
            # its history and preferences are made below HOME
            environment.setdefault("HOME", folder)
        elif os.path.basename(program) == "targetcli":
            raise ConfigError("dbus-daemon: not found, and targetcli wants a bus; apt-get install dbus")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        child = subprocess.Popen([program, *rest], env=environment, preexec_fn=_take_signals)  # noqa: PLW1509 - one thread
        code = child.wait()
        return code if code >= 0 else 128 - code


def _take_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _prepare_folders(saved: str) -> None:
    if not os.path.isdir(CONFIGFS):
        # a kernel without ConfigFS has no such folder, and nobody can make one in sysfs
        _mount("-t", "tmpfs", "-o", "mode=755", "tcm", os.path.dirname(CONFIGFS))
        os.mkdir(CONFIGFS)
    missing = [folder for folder in SAVED if not os.path.isdir(folder)]
    if missing:
        _show(missing)
    for folder in SAVED:
        # what LIO on this machine has there stays as it is
        _mount("--bind", saved, folder)
    if not os.access("/run", os.W_OK):
        _mount("-t", "tmpfs", "-o", "mode=755", "tcm", "/run")


def _show(missing: Sequence[str]) -> None:
    """Folders that are not there are seen inside: made in /etc itself, they would stay."""
    with tempfile.TemporaryDirectory(prefix="tcm-ctl") as above:
        _mount("-t", "tmpfs", "-o", "mode=755", "tcm", above)
        for folder in missing:
            os.mkdir(os.path.join(above, os.path.basename(folder)))
        _mount("-t", "overlay", "-o", f"lowerdir={above}:/etc", "tcm", "/etc")
        _mount("-l", above, program="umount")


def _shim(folder: str) -> str:
    """The folder that Python programs look into first."""
    path = os.path.join(folder, "python")
    os.mkdir(path)
    with open(os.path.join(path, "sitecustomize.py"), "w", encoding="utf-8") as file:
        file.write(_PROGRAM_SEES)
    return path


def _mount(*arguments: str, program: str = "mount") -> None:
    done = subprocess.run([program, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeFailure(
            f"{done.stderr.strip() or f'{program} failed'}; run it as root, where user namespaces are not allowed"
        )


@contextlib.contextmanager
def _mounted(control: str) -> Iterator[None]:
    code = "from tcm.cli.ctl import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, "--control", control, "mount", "--own-dbroot", CONFIGFS],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + _READY
        while not os.path.ismount(CONFIGFS):
            if child.poll() is not None:
                raise RuntimeFailure("the tree could not be mounted, see above")
            if time.monotonic() > end:
                raise RuntimeFailure(f"the tree was not mounted within {_READY:g} s")
            time.sleep(0.02)
        yield
    finally:
        child.terminate()
        child.wait()


@contextlib.contextmanager
def _bus(folder: str) -> Iterator[None]:
    """Targetcli talks to a system bus and fails without one; this one has nobody on it."""
    config = os.path.join(folder, "bus.conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write(_BUS.format(folder))
    child = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + _READY
        while not os.path.exists(f"{folder}/bus") and child.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        yield
    finally:
        child.terminate()
        child.wait()


if __name__ == "__main__":
    from tcm.command_line import errors

    try:
        sys.exit(main(sys.argv[1:]))
    except (ConfigError, RuntimeFailure, OSError) as failure:
        sys.exit(errors.report("tcm-ctl", failure))
