"""The commands of ``tcm-ctl`` for whole configurations."""

from __future__ import annotations

import functools
import os
from typing import Any

import click

from tcm.cli.ctl_session import Ctl, with_json
from tcm.command_line import errors
from tcm.failure import ConfigError

DIFFERENT = 1
"""Exit code of ``diff``, as that of diff(1)."""


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@with_json
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


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@with_json
def diff(ctl: Ctl, file: str) -> None:
    """Show what FILE would change.

    Exit code 0: nothing; 1: something; 2: it is refused, or cannot be told.
    """
    ctl.answer = errors.USAGE
    plan = ctl.call("diff", config=read_config(file))
    ctl.answer = DIFFERENT if plan else errors.OK
    ctl.show(plan, ctl.show_plan)
    raise click.exceptions.Exit(ctl.answer)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@with_json
def apply(ctl: Ctl, file: str, dry_run: bool) -> None:
    """Make what FILE says out of what runs: whole, or not at all."""
    plan = ctl.call("apply", config=read_config(file), dry_run=dry_run)
    _show(ctl, plan, done=not dry_run)


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@with_json
def restore(ctl: Ctl, file: str | None, dry_run: bool) -> None:
    """Make what was saved out of what runs.

    What was saved to FILE, or to where tcm-run keeps it: whole, or not at all.
    """
    method, params = ("reload", {}) if file is None else ("apply", {"config": read_config(file)})
    plan = ctl.call(method, **params, dry_run=dry_run)
    _show(ctl, plan, done=not dry_run)


@click.command()
@with_json
def reload(ctl: Ctl) -> None:
    """Have tcm-run read its --config file again.

    It is applied: whole, or not at all.
    """
    _show(ctl, ctl.call("reload"), done=True)


@click.command()
@click.option("--confirm", is_flag=True, help="Yes, everything.")
@with_json
def clear(ctl: Ctl, confirm: bool) -> None:
    """Remove every target and every storage object. The media themselves are left alone."""
    if not confirm:
        raise click.UsageError("this takes every LUN away from everybody; write tcm-ctl clear --confirm")
    _show(ctl, ctl.call("clear"), done=True)


@click.command("left-out")
@click.option("--retry", is_flag=True, help="Serve what is there by now.")
@click.option("--forget", metavar="NAME", help="Give it up: it is not saved any more, and its LUN numbers are free.")
@with_json
def left_out(ctl: Ctl, retry: bool, forget: str | None) -> None:
    """Show what of the --config file is not served, and why.

    tcm-run --keep-going has left it out at the start. It is saved nevertheless.
    """
    from tcm.cli import ctl_output

    if retry and forget is not None:
        raise click.UsageError("--retry and --forget: write one of them")
    if retry:
        _show(ctl, ctl.call("retry"), done=True)
    elif forget is not None:
        ctl.show(ctl.call("forget", name=forget), lambda _: None)
    else:
        ctl.show(ctl.call("left_out"), lambda missing: ctl.console.print(ctl_output.left_out(missing), soft_wrap=True))


def _show(ctl: Ctl, plan: Any, *, done: bool) -> None:
    ctl.show(plan, functools.partial(ctl.show_plan, done=done))


COMMANDS = (save, diff, apply, restore, reload, left_out, clear)
