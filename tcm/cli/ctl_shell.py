"""The shell of ``tcm-ctl``: the same commands, a current group, completion, history."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from tcm.cli.ctl_session import PROGRAM
from tcm.cli.state import default_directory
from tcm.command_line import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcm.cli.ctl_session import Ctl

_HISTORY = "ctl_history"
_HISTORY_LENGTH = 1000
_OWN = {
    "cd": "cd [PATH]          go to a group; without PATH to the root",
    "pwd": "pwd                show the group where you are",
    "help": "help [COMMAND]     this, or what a command takes",
    "exit": "exit               leave (or Ctrl-D)",
}
_EXAMPLES = """\
Examples:
  ls                                         what is served to whom
  cd core/fileio_0/disk0/attrib              Tab completes paths and attributes
  ls
  set . emulate_tpu=1 is_nonrot=1            "." is where you are
  get . emulate_tpu
  cd /iscsi/IQN/tpgt_1
  create acls/INITIATOR
  link acls/INITIATOR/lun_0/l lun/lun_0
  sessions
  save
"""
_FILES = {"apply", "diff", "restore", "save"}
"""Commands whose argument is a file."""
_NO_PATHS = {"sessions", "top", "log", "version", "statistics", "reload", "clear"}


def run_shell(ctl: Ctl) -> int:
    """Reads commands until the end of the input. Not from a terminal: ends at the first that fails, with its exit code."""
    interactive = sys.stdin.isatty()
    # nobody wants to type a screenful before hearing that nobody listens
    version = ctl.call("version")
    if not interactive:
        for line in sys.stdin:
            code = _run_line(ctl, line)
            if code:
                return max(code, 0)
        return errors.OK
    print(f"tcm-run {version['version']}, process {version['pid']}. help shows the commands, Ctrl-D leaves.")
    with _readline(ctl) as prompt:
        while True:
            try:
                line = input(prompt())
            except EOFError:
                print()
                return errors.OK
            except KeyboardInterrupt:
                print()
                continue
            _forget_secrets(line)
            if _run_line(ctl, line) < 0:
                return errors.OK


def _forget_secrets(line: str) -> None:
    """A line with a password in it is not kept."""
    readline = sys.modules.get("readline")
    if "password" in line and readline is not None and (length := readline.get_current_history_length()):
        readline.remove_history_item(length - 1)


def _run_line(ctl: Ctl, line: str) -> int:
    """The exit code of a line; -1: leave."""
    from tcm.cli.ctl import run_command

    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        errors.complain(PROGRAM, f"{error}; write the other quote too")
        return errors.USAGE
    if not words:
        return errors.OK
    if words[0] in {"exit", "quit"}:
        return -1
    if words[0] == "cd":
        return _cd(ctl, words[1:])
    if words[0] == "pwd":
        print(f"/{ctl.here}")
        return errors.OK
    if words[0] == "help":
        return _help(words[1:])
    return run_command(words, ctl)


def _cd(ctl: Ctl, words: list[str]) -> int:
    from tcm.control.client import ClientError, Refused

    where = ctl.path(words[0]) if words else ""
    try:
        found = ctl.call("stat", path=where)
        if found["kind"] == "link":
            where = found["target"].strip("/")
        elif found["kind"] == "attribute":
            errors.complain(PROGRAM, f"{where}: an attribute; write get {where}")
            return errors.FAILED
    except (Refused, ClientError) as error:
        errors.complain(PROGRAM, str(error))
        return errors.FAILED
    ctl.here = where
    return errors.OK


def _help(words: list[str]) -> int:
    from tcm.cli.ctl import command, run_command

    if words and words[0] in command.commands:
        return run_command([words[0], "--help"])
    for name, each in command.commands.items():
        print(f"  {name:<12} {each.get_short_help_str(90)}")
    for text in _OWN.values():
        print(f"  {text}")
    print(f"\n{_EXAMPLES}", end="")
    return errors.OK


class Completer:
    """What may come next in a line."""

    def __init__(self, ctl: Ctl) -> None:
        self._ctl = ctl

    def candidates(self, line: str, word: str) -> list[str]:
        """Whole words to put for ``word``, the last one of ``line``."""
        from tcm.cli.ctl import command

        before = line[: len(line) - len(word)].split()
        if not before:
            names = [*command.commands, *_OWN]
            return [f"{name} " for name in sorted(names) if name.startswith(word)]
        name = before[0]
        if word.startswith("-"):
            known = command.commands.get(name)
            options = [text for each in (known.params if known else []) for text in each.opts if text.startswith("--")]
            return [f"{text} " for text in options if text.startswith(word)]
        if name == "help":
            return [each for each in sorted(command.commands) if each.startswith(word)]
        if name in _FILES:
            return _files(word)
        if name in _NO_PATHS:
            return []
        arguments = [each for each in before[1:] if not each.startswith("-")]
        if arguments and name in {"get", "set", "create"}:
            return self._attributes(arguments[0], word, equals=name != "get", writable=name != "get")
        return self._paths(word, groups_only=name in {"cd", "create"})

    def _children(self, path: str) -> dict[str, Any]:
        from tcm.control.client import ClientError, Refused

        try:
            found = self._ctl.call("list", path=path, depth=1, values=True)
            if found["kind"] == "link":
                found = self._ctl.call("list", path=found["target"], depth=1, values=True)
        except (Refused, ClientError):
            return {}
        children: dict[str, Any] = found.get("children", {})
        return children

    def _paths(self, word: str, *, groups_only: bool) -> list[str]:
        folder, slash, start = word.rpartition("/")
        children = self._children(self._ctl.path(folder + slash))
        ends = {"group": "/", "link": "/", "attribute": " "}
        return [
            f"{folder}{slash}{name}{ends[each['kind']]}"
            for name, each in children.items()
            if name.startswith(start) and not (groups_only and each["kind"] == "attribute")
        ]

    def _attributes(self, path: str, word: str, *, equals: bool, writable: bool) -> list[str]:
        children = self._children(self._ctl.path(path))
        wanted = 0o200 if writable else 0o400
        found = {name: each for name, each in children.items() if each["kind"] == "attribute" and each["mode"] & wanted}
        name, sign, _ = word.partition("=")
        if sign:
            # the value that it has, to edit
            value = found.get(name, {}).get("value", "").rstrip("\n")
            return [f"{name}={value}"] if value and "\n" not in value and " " not in value else []
        return [f"{each}{'=' if equals else ' '}" for each in found if each.startswith(word)]


def _files(word: str) -> list[str]:
    folder, slash, start = word.rpartition("/")
    try:
        names = sorted(os.listdir(folder + slash or "."))
    except OSError:
        return []
    found = [f"{folder}{slash}{name}" for name in names if name.startswith(start)]
    return [f"{each}/" if os.path.isdir(each) else f"{each} " for each in found]


@contextlib.contextmanager
def _readline(ctl: Ctl) -> Iterator[Any]:
    """Completion and history where readline is there; gives the function that makes the prompt."""
    try:
        import readline
    except ImportError:
        yield lambda: f"tcm:/{ctl.here}> "
        return
    completer = Completer(ctl)
    found: list[str] = []

    def complete(word: str, state: int) -> str | None:
        if state == 0:
            found[:] = completer.candidates(readline.get_line_buffer()[: readline.get_endidx()], word)
        return found[state] if state < len(found) else None

    history = os.path.join(default_directory(), _HISTORY)
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(_HISTORY_LENGTH)
    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n")
    readline.parse_and_bind("tab: complete")
    readline.parse_and_bind("set completion-query-items 200")
    try:
        # \001 and \002 tell readline what has no width
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        start, end = ("\001\033[1;34m\002", "\001\033[0m\002") if colour else ("", "")
        yield lambda: f"tcm:{start}/{ctl.here}{end}> "
    finally:
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(history), mode=0o700, exist_ok=True)
            before = os.umask(0o077)
            try:
                readline.write_history_file(history)
            finally:
                os.umask(before)
