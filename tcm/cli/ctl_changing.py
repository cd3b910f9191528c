"""The commands of ``tcm-ctl`` that change one thing: attributes, groups, links."""

from __future__ import annotations

import sys
from typing import Any

import click

from tcm.cli.ctl_session import PROGRAM, Ctl, with_json
from tcm.command_line import errors
from tcm.failure import RuntimeFailure


@click.command("set")
@click.argument("path")
@click.argument("values", metavar="VALUE | ATTRIBUTE=VALUE...", nargs=-1, required=True)
@click.option("--revision", type=int, help="Refuse if the tree has changed since this revision.")
@with_json
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


@click.command()
@click.argument("path")
@click.argument("values", metavar="[ATTRIBUTE=VALUE]...", nargs=-1)
@click.option("-p", "--parents", is_flag=True, help="Make the groups above it that are missing, too.")
@with_json
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


@click.command()
@click.argument("path")
@click.option("-r", "--recursive", is_flag=True, help="And everything in it.")
@click.option("--drain", is_flag=True, help="Let commands end first; new ones get BUSY, and initiators are asked to log out.")
@click.option("--timeout", type=click.FloatRange(0, 3600), default=30.0, show_default=True, help="Seconds for --drain.")
@with_json
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
    _check_removable(where, found)
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


def _check_removable(where: str, node: dict[str, Any]) -> None:
    if node["kind"] == "attribute":
        raise RuntimeFailure(f"{where}: an attribute cannot be removed; set it instead")


def _drain(ctl: Ctl, where: str, timeout: float, *, recursive: bool) -> list[str]:
    """Removes it once nothing runs there; the paths."""
    there = ctl.call("stat", path=where)
    _check_removable(where, there)
    ctl.wait_longer(timeout)
    if there["kind"] == "link":
        ctl.call("unlink", path=where, drain=timeout)
        return [where]
    found: list[str] = ctl.call("remove", path=where, recursive=recursive, drain=timeout)["removed"]
    return found


@click.command()
@click.argument("path")
@click.argument("target")
@with_json
def link(ctl: Ctl, path: str, target: str) -> None:
    """Make a link at PATH to TARGET: a device becomes a LUN, a LUN is mapped.

    PATH is a name in a LUN of a portal group, and TARGET a device; or PATH is one in a LUN of a node ACL, and TARGET a LUN.
    """
    ctl.show(ctl.call("link", path=ctl.path(path), target=ctl.path(target)), lambda _: None)


COMMANDS = (set_, create, delete, link)
