"""``tcm-ctl``: looks at a running tcm-run and changes it, by its control socket. Without a command: a shell.

This file is longer than most because it has a function for each command.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import time
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click

from tcm.backstore import ConfigError
from tcm.cli.state import CONTROL, default_directory
from tcm.command_line import errors
from tcm.failure import RuntimeFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from tcm.control.client import Client, Refused

PROGRAM = "tcm-ctl"
ENVIRONMENT = "TCM_CONTROL"

_EPILOG = """\b
Examples:
  tcm-ctl                                          a shell, with completion
  tcm-ctl ls                                       what is served to whom
  tcm-ctl ls core/fileio_0/disk0 --depth -1
  tcm-ctl get core/fileio_0/disk0/attrib
  tcm-ctl set core/fileio_0/disk0/attrib emulate_tpu=1 is_nonrot=1
  tcm-ctl create iscsi/IQN/tpgt_1/acls/INITIATOR
  tcm-ctl link iscsi/IQN/tpgt_1/lun/lun_1/d1 core/fileio_0/disk1
  tcm-ctl delete -r iscsi/IQN/tpgt_1/acls/INITIATOR
  tcm-ctl save; tcm-ctl diff saveconfig.json; tcm-ctl apply saveconfig.json
  tcm-ctl targetcli ls

Paths are those below /sys/kernel/config/target of LIO.

\b
Environment:
  TCM_CONTROL     path of the control socket; the same as --control
  XDG_STATE_HOME  where the state directory with the socket is, otherwise
  NO_COLOR        if set, nothing is coloured

Exit codes: 0 done, 1 refused or failed, 2 bad usage.
"""


class Ctl:
    """What the commands have in common: the connection, the current group of the shell, and how to print."""

    def __init__(self, control: str | None, *, as_json: bool = False) -> None:
        self._control = control
        self.as_json = as_json
        self.here = ""
        """The group that relative paths start from."""
        self._client: Client | None = None

    @property
    def control(self) -> str:
        """Path of the control socket."""
        return self._control or os.environ.get(ENVIRONMENT) or os.path.join(default_directory(), CONTROL)

    def call(self, method: str, **params: Any) -> Any:
        """Calls a method of the process. Raises ClientError, Refused."""
        from tcm.control.client import Client, ClientError, Refused

        fresh = self._client is None
        if self._client is None:
            self._client = Client(self.control)
        try:
            return self._client.call(method, **params)
        except Refused as error:
            raise self._with_suggestion(error) from None
        except ClientError:
            self._client.close()
            self._client = None
            # the shell outlives a restart of tcm-run; what only looks can be asked again
            if fresh or method not in _LOOKING:
                raise
            self._client = Client(self.control)
            return self._client.call(method, **params)

    def _with_suggestion(self, error: Refused) -> Refused:
        """What is not there may be there in another spelling."""
        from tcm.control.client import ClientError, Refused
        from tcm.options import suggestion

        missing = _MISSING.search(str(error)) if error.name == "ENOENT" else None
        if missing is None or self._client is None:
            return error
        try:
            there = self._client.call("list", path=missing["where"], depth=1)["children"]
        except (Refused, ClientError):
            return error
        return Refused(error.number, f"{error}{suggestion(missing['name'], there)}")

    def wait_longer(self, seconds: float) -> None:
        """The next call takes so much time."""
        if self._client is not None:
            self._client.wait_longer(seconds)

    def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            self._client.close()

    def path(self, text: str) -> str:
        """A path from the root, of one that may be relative to the shell's group."""
        absolute = text.startswith("/")
        text = text.removeprefix("/sys/kernel/config/target")
        names = [] if absolute or not self.here else self.here.split("/")
        for name in text.split("/"):
            if name == "..":
                names = names[:-1]
            elif name not in {"", "."}:
                names.append(name)
        return "/".join(names)

    @functools.cached_property
    def console(self) -> Console:
        """Where tables go: colours on a terminal only; in a pipe as wide as they are."""
        from rich.console import Console

        if sys.stdout.isatty():
            return Console(highlight=False, soft_wrap=False)
        return Console(highlight=False, no_color=True, width=max(int(os.environ.get("COLUMNS", "0") or 0), 200))

    def show_plan(self, operations: Any, *, done: bool = False) -> None:
        """What is to be done, or has been done: in a pipe with whole paths."""
        from tcm.cli import ctl_output

        # a path is never broken up: whoever copies it gets all of it
        self.console.print(ctl_output.plan(operations, done=done, headings=self.console.is_terminal), soft_wrap=True)

    def show(self, value: Any, people: Callable[[Any], None]) -> None:
        """As JSON, or for people."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2))
        else:
            people(value)


_MISSING = re.compile(r": '(?P<name>[^']+)' is not in /(?P<where>\S*)$")
_LOOKING = {"version", "read", "stat", "list", "sessions", "units", "statistics", "changes", "export", "diff"}


class _Commands(click.Group):
    """Every command's help has examples; unknown commands get a suggestion."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        from tcm.cli.ctl_examples import epilog

        cmd.epilog = epilog(name or cmd.name or "")
        super().add_command(cmd, name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            import difflib

            close = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f"did you mean {close[0]}" if close else f"there are {', '.join(self.list_commands(ctx))}"
            raise click.UsageError(f"no command {args[0]!r}; {hint}") from None


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(PROGRAM, cls=_Commands, invoke_without_command=True, epilog=_EPILOG, context_settings=_SETTINGS)
@click.option("--control", metavar="PATH", help="The control socket.  [default: control.sock in the state directory]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(context: click.Context, control: str | None, as_json: bool) -> None:
    """Look at a running tcm-run, and change it. Without a command: a shell."""
    if not isinstance(context.obj, Ctl):
        context.obj = Ctl(control, as_json=as_json)
        context.call_on_close(context.obj.close)
    elif as_json:
        context.obj.as_json = True
    if context.invoked_subcommand is None:
        from tcm.cli.ctl_shell import run_shell

        code = run_shell(context.obj)
        if code:
            raise click.exceptions.Exit(code)


def _with_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json`` may stand behind the command as well; the function gets the :class:`Ctl`."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.pass_obj
    @functools.wraps(function)
    def with_json(ctl: Ctl, /, *args: Any, as_json: bool, **kwargs: Any) -> Any:
        before = ctl.as_json
        ctl.as_json = before or as_json
        try:
            return function(ctl, *args, **kwargs)
        finally:
            ctl.as_json = before

    return with_json


# looking


@command.command()
@click.argument("path", default="")
@click.option("--depth", type=int, default=1, show_default=True, help="Levels to show; -1: all.")
@click.option("--statistics", is_flag=True, help="Show the groups of counters too.")
@_with_json
def ls(ctl: Ctl, path: str, depth: int, statistics: bool) -> None:
    """Show what is served to whom; with PATH, a part of the tree."""
    from tcm.cli import ctl_output

    whole = not path and not ctl.here
    if whole and not ctl.as_json:
        listing = ctl.call("list", path="", depth=-1, values=True, statistics=False)
        ctl.console.print(ctl_output.overview(listing, ctl.call("sessions")))
        return
    where = ctl.path(path)
    listing = ctl.call(
        "list", path=where, depth=depth, values=True, statistics=statistics or bool(set(where.split("/")) & _COUNTED)
    )
    ctl.show(listing, lambda value: ctl.console.print(ctl_output.tree(value, where)))


_COUNTED = {"statistics", "fabric_statistics"}


@command.command()
@click.argument("path")
@click.argument("names", metavar="[ATTRIBUTE]...", nargs=-1)
@_with_json
def get(ctl: Ctl, path: str, names: tuple[str, ...]) -> None:
    """Show an attribute, or ATTRIBUTEs of a group, or all of them."""
    where = ctl.path(path)
    found = ctl.call("list", path=where, depth=1, values=True)
    if found["kind"] == "link":
        found = ctl.call("list", path=found["target"], depth=1, values=True)
    if found["kind"] == "attribute":
        if names:
            raise click.UsageError(f"{where} is an attribute itself; write tcm-ctl get {where}")
        _check_readable(found, where)
        ctl.show(
            {where.rpartition("/")[2]: found["value"].rstrip("\n")}, lambda _: click.echo(_shown(found["value"]), nl=False)
        )
        return
    there = {name: each for name, each in found["children"].items() if each["kind"] == "attribute"}
    for name in names:
        if name not in there:
            raise RuntimeFailure(f"{where}: no attribute {name!r}; there are {', '.join(there) or 'none'}")
        _check_readable(there[name], f"{where}/{name}")
    shown = {name: there[name] for name in (names or there) if "value" in there[name]}
    if not shown and not names:
        groups = ", ".join(name for name, each in found["children"].items() if each["kind"] == "group")
        raise RuntimeFailure(f"{where or '/'} has no attributes that can be read; its groups are {groups or 'none'}")
    values = {name: each["value"].rstrip("\n") for name, each in shown.items()}
    ctl.show(values, lambda each: click.echo("\n".join(f"{name}={_indented(_shown(text))}" for name, text in each.items())))


def _check_readable(node: dict[str, Any], where: str) -> None:
    if "value" not in node:
        raise RuntimeFailure(node["error"]["message"] if "error" in node else f"{where}: can only be written")


def _shown(text: str) -> str:
    """In a pipe it is what it is."""
    return errors.printable(text) if sys.stdout.isatty() else text


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


@command.command()
@_with_json
def sessions(ctl: Ctl) -> None:
    """Who is logged in where, and with what."""
    from tcm.cli import ctl_output

    found = ctl.call("sessions")
    ctl.show(
        found,
        lambda value: ctl.console.print(ctl_output.sessions(value, ctl.console.width) if value else "nobody is logged in"),
    )


@command.command()
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds between two looks.")
@click.option("--count", type=click.IntRange(min=1), help="Looks before it ends; otherwise Ctrl-C ends it.")
@_with_json
def top(ctl: Ctl, interval: float, count: int | None) -> None:
    """Live: IOPS, bandwidth, latency, queue of LUNs and sessions."""
    from tcm.cli.ctl_top import run

    run(ctl, interval, count)


@command.command()
@click.option("--since", type=int, default=0, help="Only changes after this revision.")
@_with_json
def log(ctl: Ctl, since: int) -> None:
    """Who changed what and when, the latest last."""

    def lines(value: dict[str, Any]) -> None:
        for each in value["changes"]:
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each["time"]))
            click.echo(errors.printable(f"{moment} {each['revision']:>6}  {each['who']}  {each['what']}"))

    ctl.show(ctl.call("changes", since=since), lines)


@command.command()
@_with_json
def version(ctl: Ctl) -> None:
    """The version of tcm-run that answers."""
    found = ctl.call("version")
    ctl.show(found, lambda each: click.echo(f"tcm-run {each['version']}, process {each['pid']}, revision {each['revision']}"))


@command.command()
@_with_json
def statistics(ctl: Ctl) -> None:
    """All counters, as JSON."""
    click.echo(json.dumps(ctl.call("statistics"), indent=2))


# changing


@command.command("set")
@click.argument("path")
@click.argument("values", metavar="VALUE | ATTRIBUTE=VALUE...", nargs=-1, required=True)
@click.option("--revision", type=int, help="Refuse if the tree has changed since this revision.")
@_with_json
def set_(ctl: Ctl, path: str, values: tuple[str, ...], revision: int | None) -> None:
    """Set the attribute PATH, or ATTRIBUTEs of the group PATH.

    password=- asks for it, or reads a line: others see the arguments of a command.
    """
    where = ctl.path(path)
    kind = ctl.call("stat", path=where)["kind"]
    if kind == "attribute":
        if len(values) > 1:
            raise click.UsageError(f"{where} is an attribute; write one value")
        pairs = [(where, _asked((where.rpartition("/")[2], values[0]))[1])]
    else:
        pairs = [(f"{where}/{name}", value) for name, value in map(_asked, map(_pair, values))]
    done: dict[str, Any] = {}
    for place, value in pairs:
        done = ctl.call("write", path=place, value=value, revision=revision)
        revision = done["revision"] if revision is not None else None
        if not ctl.as_json:
            _tell_if_it_differs(ctl, place, value)
    ctl.show(done, lambda _: None)


def _tell_if_it_differs(ctl: Ctl, place: str, value: str) -> None:
    """What LIO takes and ignores, and what the backstore has a say in, is another number afterwards."""
    from tcm.control.client import Refused

    if not value.isdecimal():
        return
    try:
        now = ctl.call("read", path=place)["value"].strip()
    except Refused:  # it can only be written
        return
    if now.isdecimal() and int(now) != int(value):
        errors.say(f"{PROGRAM}: note: {place}: {value} was taken, and it is {now}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{text!r}: write ATTRIBUTE=VALUE")
    return name, value


def _asked(pair: tuple[str, str]) -> tuple[str, str]:
    """With the secret for which ``-`` stands."""
    from tcm.cli.ctl_output import hidden

    name, value = pair
    if value != "-" or not hidden(name):
        return pair
    if sys.stdin.isatty():
        return name, click.prompt(name, hide_input=True, err=True)
    line = sys.stdin.readline()
    if not line:
        raise click.UsageError(f"{name}=-: there is no line to read; write it to standard input")
    return name, line.rstrip("\n")


@command.command()
@click.argument("path")
@click.argument("values", metavar="[ATTRIBUTE=VALUE]...", nargs=-1)
@click.option("-p", "--parents", is_flag=True, help="Make the groups above it that are missing, too.")
@_with_json
def create(ctl: Ctl, path: str, values: tuple[str, ...], parents: bool) -> None:
    """Make the group PATH and set its ATTRIBUTEs.

    If one is refused, nothing is left of it.
    """
    from tcm.control.client import Refused

    where = ctl.path(path)
    pairs = [_asked(_pair(each)) for each in values]
    names = where.split("/")
    made: list[str] = []
    try:
        for length in range(1 if parents else len(names), len(names) + 1):
            each = "/".join(names[:length])
            try:
                ctl.call("make", path=each)
            except Refused as error:
                if error.name == "ENOENT" and not parents:
                    raise Refused(error.number, f"{error}; create -p makes what is missing") from None
                if length == len(names) or error.name not in {"EEXIST", "EPERM"}:
                    raise
            else:
                made.append(each)
        for name, value in pairs:
            ctl.call("write", path=f"{where}/{name}", value=value)
    except Refused:
        for each in reversed(made):
            ctl.call("remove", path=each)
        raise
    ctl.show({"made": made}, lambda _: None)


@command.command()
@click.argument("path")
@click.option("-r", "--recursive", is_flag=True, help="And everything in it.")
@click.option("--drain", is_flag=True, help="Let commands end first; new ones get BUSY, and initiators are asked to log out.")
@click.option("--timeout", type=click.FloatRange(0, 3600), default=30.0, show_default=True, help="Seconds for --drain.")
@_with_json
def delete(ctl: Ctl, path: str, recursive: bool, drain: bool, timeout: float) -> None:
    """Remove the group or link PATH.

    Without --drain commands that are under way there are aborted. With it they get --timeout seconds to end, and if they
    have not, nothing is removed.
    """
    from tcm.control.client import Refused

    where = ctl.path(path)
    if drain:
        ctl.show({"removed": _drain(ctl, where, timeout, recursive=recursive)}, lambda _: None)
        return
    found = ctl.call("list", path=where, depth=-1 if recursive else 0, statistics=False)
    if found["kind"] == "attribute":
        raise RuntimeFailure(f"{where}: an attribute cannot be removed; set it instead")
    removed: list[str] = []

    def remove(each: str, node: dict[str, Any], *, ours: bool) -> None:
        for name, child in reversed([*node.get("children", {}).items()]):
            if child["kind"] != "attribute":
                remove(f"{each}/{name}", child, ours=False)
        try:
            ctl.call("unlink" if node["kind"] == "link" else "remove", path=each)
        except Refused as error:
            # what the tree made itself goes with what is above it
            if ours or error.name not in {"EPERM", "EACCES", "ENOENT"}:
                raise
        else:
            removed.append(each)

    remove(where, found, ours=True)
    ctl.show({"removed": removed}, lambda _: None)


def _drain(ctl: Ctl, where: str, timeout: float, *, recursive: bool) -> list[str]:
    """Removes it once nothing runs there; the paths."""
    kind = ctl.call("stat", path=where)["kind"]
    if kind == "attribute":
        raise RuntimeFailure(f"{where}: an attribute cannot be removed; set it instead")
    ctl.wait_longer(timeout)
    if kind == "link":
        ctl.call("unlink", path=where, drain=timeout)
        return [where]
    found: list[str] = ctl.call("remove", path=where, recursive=recursive, drain=timeout)["removed"]
    return found


@command.command()
@click.argument("path")
@click.argument("target")
@_with_json
def link(ctl: Ctl, path: str, target: str) -> None:
    """Make a link at PATH to TARGET: a device becomes a LUN, a LUN is mapped.

    PATH is a name in a LUN of a portal group, and TARGET a device; or PATH is one in a LUN of a node ACL, and TARGET a LUN.
    """
    ctl.show(ctl.call("link", path=ctl.path(path), target=ctl.path(target)), lambda _: None)


# whole configurations


@command.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@_with_json
def save(ctl: Ctl, file: str | None) -> None:
    """Save what runs, to FILE or to where tcm-run keeps it.

    The one before goes to backup/ beside it, ten at most.
    """
    if file is None:
        found = ctl.call("save")
    else:
        from tcm.cli.folders import check_folder_of
        from tcm.control.saved import write_config

        check_folder_of("save", file, "a FILE")
        write_config(file, ctl.call("export"))
        found = {"path": os.path.abspath(file)}
    ctl.show(found, lambda value: click.echo(f"saved to {value['path']}"))


def read_config(file: str) -> dict[str, Any]:
    """The content of a saveconfig.json. Raises :class:`ConfigError`: one line."""
    from tcm.json_reader import read_json

    value = read_json(file).value
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: write an object, as targetcli saveconfig does")
    return value


@command.command()
@click.argument("file", type=click.Path(dir_okay=False))
@_with_json
def diff(ctl: Ctl, file: str) -> None:
    """Show what FILE would change. Exit code 1 if there is anything."""
    plan = ctl.call("diff", config=read_config(file))
    ctl.show(plan, ctl.show_plan)
    if plan:
        raise click.exceptions.Exit(errors.FAILED)


@command.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@_with_json
def apply(ctl: Ctl, file: str, dry_run: bool) -> None:
    """Make what FILE says out of what runs: whole, or not at all."""
    plan = ctl.call("diff" if dry_run else "apply", config=read_config(file))
    ctl.show(plan, functools.partial(ctl.show_plan, done=not dry_run))


@command.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@_with_json
def restore(ctl: Ctl, file: str | None) -> None:
    """Make what was saved out of what runs.

    What was saved to FILE, or to where tcm-run keeps it: whole, or not at all.
    """
    plan = ctl.call("reload") if file is None else ctl.call("apply", config=read_config(file))
    ctl.show(plan, functools.partial(ctl.show_plan, done=True))


@command.command()
@_with_json
def reload(ctl: Ctl) -> None:
    """Have tcm-run read its --config file again.

    It is applied: whole, or not at all.
    """
    ctl.show(ctl.call("reload"), functools.partial(ctl.show_plan, done=True))


@command.command()
@click.option("--confirm", is_flag=True, help="Yes, everything.")
@_with_json
def clear(ctl: Ctl, confirm: bool) -> None:
    """Remove every target and every storage object. The media themselves are left alone."""
    if not confirm:
        raise click.UsageError("this takes every LUN away from everybody; write tcm-ctl clear --confirm")
    ctl.show(ctl.call("clear"), functools.partial(ctl.show_plan, done=True))


# other ways in


@command.command()
@click.argument("path", type=click.Path())
@click.option("--own-dbroot", is_flag=True, help="What is written to dbroot there stays there.")
@click.pass_obj
def mount(ctl: Ctl, path: str, own_dbroot: bool) -> None:
    """Mount the tree at PATH, as LIO's ConfigFS.

    Ends when it is unmounted, or with tcm-run, or by a signal.
    """
    from tcm.cli.ctl_mount import run

    run(ctl.control, path, own_dbroot=own_dbroot)


def _help_if_asked(context: click.Context, words: tuple[str, ...]) -> None:
    """All options but a lone ``--help`` are the program's."""
    if words in {("--help",), ("-h",)}:
        click.echo(context.get_help())
        context.exit()


@command.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def targetcli(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Run targetcli on this tree, in a mount namespace of its own.

    ARGUMENTS are targetcli's; its own help is tcm-ctl targetcli help.
    """
    from tcm.cli.ctl_targetcli import run

    ctl: Ctl = context.obj
    _help_if_asked(context, arguments)
    raise click.exceptions.Exit(run(ctl.control, "targetcli", arguments))


@command.command("exec", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def exec_(context: click.Context, program: str, arguments: tuple[str, ...]) -> None:
    """Run a PROGRAM for LIO on this tree.

    It finds it at /sys/kernel/config, in a mount namespace of its own, as targetcli does.
    """
    from tcm.cli.ctl_targetcli import run

    ctl: Ctl = context.obj
    _help_if_asked(context, (program, *arguments))

    raise click.exceptions.Exit(run(ctl.control, program, arguments))


def main() -> None:
    """The entry point: runs the command and ends the process with its exit code."""
    from tcm.cli.run import open_standard_streams

    open_standard_streams()
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str], ctl: Ctl | None = None) -> int:
    """The exit code of ``tcm-ctl`` with these arguments. Prints errors in one line.

    :param ctl: the shell's.
    """
    from tcm.control.client import ClientError, Refused

    complain = errors.complain
    if (ctl is not None and ctl.as_json) or "--json" in takewhile(lambda word: word not in _OTHERS, arguments):
        complain = _complain_in_json
    try:
        with command.make_context(PROGRAM, arguments, obj=ctl) as context:
            command.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        text, where = error.format_message(), getattr(error, "ctx", None)
        usage = where.command_path if where is not None else PROGRAM
        complain(PROGRAM, text if ";" in text else f"{text.rstrip('.')}; {usage} --help tells more")
        return errors.USAGE
    except Refused as error:
        complain(PROGRAM, str(error), errno=error.number, name=error.name)
        return errors.FAILED
    except ClientError as error:
        complain(PROGRAM, str(error))
        return errors.FAILED
    except (KeyboardInterrupt, click.Abort):
        return errors.OK
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return errors.OK
    except BaseException as error:  # noqa: BLE001 - nobody gets to see a traceback who did not ask for it
        return errors.report(PROGRAM, error, tell=complain)
    return errors.OK


_OTHERS = {"--", "exec", "targetcli"}
"""What follows is somebody else's."""


def _complain_in_json(program: str, text: str, **more: object) -> None:
    """``{"error": {"message": ...}}`` on standard error; ``errno`` and ``name`` of what tcm-run refuses."""
    del program
    errors.say(json.dumps({"error": {"message": " ".join(text.split()), **more}}))
