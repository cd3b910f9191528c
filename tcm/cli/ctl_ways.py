"""The commands of ``tcm-ctl`` for other ways in: a mount, and programs for LIO."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tcm.cli.ctl_session import Ctl


@click.command()
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


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
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


@click.command("exec", context_settings={"ignore_unknown_options": True, "help_option_names": []})
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


COMMANDS = (mount, targetcli, exec_)
