"""``tcm-ctl``: looks at a running tcm-run and changes it, by its control socket. Without a command: a shell."""

from __future__ import annotations

import json
import os
import sys
from itertools import takewhile
from typing import Any

import click

from tcm.cli import ctl_changing, ctl_configurations, ctl_looking, ctl_ways
from tcm.cli.ctl_session import PROGRAM, Ctl
from tcm.command_line import errors

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

Exit codes: 0 done, 1 refused or failed, 2 bad usage; of diff: 0 nothing to
change, 1 something, 2 everything else.
"""


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
    ctl: Ctl = context.obj
    if control is not None:
        ctl.use(control)
    ctl.as_json = ctl.as_json or as_json
    if context.invoked_subcommand is None:
        from tcm.cli.ctl_shell import run_shell

        code = run_shell(ctl)
        if code:
            raise click.exceptions.Exit(code)


for _each in (*ctl_looking.COMMANDS, *ctl_changing.COMMANDS, *ctl_configurations.COMMANDS, *ctl_ways.COMMANDS):
    command.add_command(_each)


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
    session = ctl or Ctl()
    session.answer = None
    if session.as_json or "--json" in takewhile(lambda word: word not in _OTHERS, arguments):
        complain = _complain_in_json
    try:
        with command.make_context(PROGRAM, arguments, obj=session) as context:
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
        return _code(session, errors.FAILED)
    except ClientError as error:
        complain(PROGRAM, str(error))
        return _code(session, errors.FAILED)
    except (KeyboardInterrupt, click.Abort):
        return _code(session, errors.OK)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _code(session, errors.OK)
    except BaseException as error:  # noqa: BLE001 - nobody gets to see a traceback who did not ask for it
        return _code(session, errors.report(PROGRAM, error, tell=complain))
    finally:
        if ctl is None:
            session.close()
    return errors.OK


def _code(session: Ctl, code: int) -> int:
    return code if session.answer is None else session.answer


_OTHERS = {"--", "exec", "targetcli"}
"""What follows is somebody else's."""


def _complain_in_json(program: str, text: str, **more: object) -> None:
    """``{"error": {"message": ...}}`` on standard error; ``errno`` and ``name`` of what tcm-run refuses."""
    del program
    errors.say(json.dumps({"error": {"message": " ".join(text.split()), **more}}))
