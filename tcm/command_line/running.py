"""From arguments to an exit code, for programs that do one thing and end."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

import click

from tcm.command_line.errors import FAILED, OK, USAGE, complain, report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
"""Settings of a command."""


def run_command(command: click.Command, program: str, arguments: list[str]) -> int:
    """The exit code of a command with these arguments. Errors are one line on standard error."""
    try:
        with command.make_context(program, arguments) as context:
            command.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as shown:
        click.echo(shown.format_message())
        return USAGE
    except click.ClickException as error:
        text = error.format_message()
        complain(program, f"{text}{'' if text.endswith(('.', '?')) else '.'} Run {program} --help for all options.")
        return USAGE
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        # nobody reads on: what is still buffered must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # noqa: BLE001  # nobody gets to see a traceback
        return report(program, error, hint="")
    return OK


def run_async(function: Callable[[], Awaitable[None]]) -> None:
    """In an event loop, a faster one where there is one."""
    import anyio

    anyio.run(function, backend_options={"use_uvloop": importlib.util.find_spec("uvloop") is not None})
