"""The commands of ``tcm-ctl`` that only look."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from tcm.cli.ctl_session import Ctl, with_json
from tcm.command_line import errors
from tcm.failure import RuntimeFailure


@click.command()
@click.argument("path", default="")
@click.option("--depth", type=int, default=1, show_default=True, help="Levels to show; -1: all.")
@click.option("--statistics", is_flag=True, help="Show the groups of counters too.")
@with_json
def ls(ctl: Ctl, path: str, depth: int, statistics: bool) -> None:
    """Show what is served to whom; with PATH, a part of the tree."""
    from tcm.cli import ctl_output

    whole = not path and not ctl.here
    if whole and not ctl.as_json:
        listing = ctl.call("list", path="", depth=-1, values=True, statistics=False)
        ctl.console.print(ctl_output.overview(listing, ctl.call("sessions"), ctl.call("left_out")))
        return
    where = ctl.path(path)
    listing = ctl.call(
        "list", path=where, depth=depth, values=True, statistics=statistics or bool(set(where.split("/")) & _COUNTED)
    )
    ctl.show(listing, lambda value: ctl.console.print(ctl_output.tree(value, where)))


_COUNTED = {"statistics", "fabric_statistics"}


@click.command()
@click.argument("path")
@click.argument("names", metavar="[ATTRIBUTE]...", nargs=-1)
@with_json
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


@click.command()
@with_json
def sessions(ctl: Ctl) -> None:
    """Who is logged in where, and with what."""
    from tcm.cli import ctl_output

    found = ctl.call("sessions")
    ctl.show(
        found,
        lambda value: ctl.console.print(ctl_output.sessions(value, ctl.console.width) if value else "nobody is logged in"),
    )


@click.command()
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds between two looks.")
@click.option("--count", type=click.IntRange(min=1), help="Looks before it ends; otherwise Ctrl-C ends it.")
@with_json
def top(ctl: Ctl, interval: float, count: int | None) -> None:
    """Live: IOPS, bandwidth, latency, queue of LUNs and sessions."""
    from tcm.cli.ctl_top import run

    run(ctl, interval, count)


@click.command()
@click.option("--since", type=int, default=0, help="Only changes after this revision.")
@with_json
def log(ctl: Ctl, since: int) -> None:
    """Who changed what and when, the latest last."""

    def lines(value: dict[str, Any]) -> None:
        for each in value["changes"]:
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each["time"]))
            click.echo(errors.printable(f"{moment} {each['revision']:>6}  {each['who']}  {each['what']}"))

    ctl.show(ctl.call("changes", since=since), lines)


@click.command()
@with_json
def version(ctl: Ctl) -> None:
    """The version of tcm-run that answers."""
    found = ctl.call("version")
    ctl.show(found, lambda each: click.echo(f"tcm-run {each['version']}, process {each['pid']}, revision {each['revision']}"))


@click.command()
@with_json
def statistics(ctl: Ctl) -> None:
    """All counters, as JSON."""
    click.echo(json.dumps(ctl.call("statistics"), indent=2))


COMMANDS = (ls, get, sessions, top, log, version, statistics)
