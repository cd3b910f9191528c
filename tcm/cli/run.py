"""``tcm-run``: serve storage objects to initiators, from the command line or from a saveconfig.json."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from tcm.cli.logs import FORMATS, LEVELS, set_up

PROGRAM = "tcm-run"

_EPILOG = """\b
Examples:
  tcm-run --fabric iscsi
  tcm-run --fabric iscsi --portal '[::]:3260' \\
      --chap alice --chap-secret-file secret
  tcm-run --fabric iscsi --lun ramdisk:size=64M \\
      --lun 1=fileio:path=disk.img,size=1G,removable=yes
  tcm-run --fabric iscsi --lun ramdisk:size=64M \\
      --filter 0=log --filter 0=delay:read=10
  tcm-run --fabric fcoe --interface eth1 --lun ramdisk:size=64M
  tcm-run --config /etc/target/saveconfig.json
  tcm-run --empty --configfs /run/tcm; tcm-ctl targetcli
  tcm-run --dump-plugin fileio

\b
Options of a fabric, LUN or filter are key=value pairs separated by commas;
those of a fabric are long options too (tcm-run --fabric NAME --help).
Keys are written with - or _; sizes in bytes or with a binary unit (64M, 1G);
yes/no as yes, on, true or 1 and no, off, false or 0; a comma inside a value
as \\,.

\b
Environment:
  TCM_CHAP_SECRET         the secret of --chap
  TCM_CHAP_MUTUAL_SECRET  the secret of --chap-mutual
  TCM_EVENT_LOOP          the same as --event-loop
  XDG_STATE_HOME          where the state directory is, without --state-dir
  NO_COLOR                if set, the log is never coloured

\b
Signals: SIGINT, SIGTERM or SIGHUP asks initiators to log out, flushes, and
ends; a second one ends at once. With nohup, SIGHUP does nothing; under systemd
it is the same as tcm-ctl reload.
Exit codes: 0 ended by a signal, 1 failed at run time, 2 bad usage or
configuration.
"""


class _Seconds(click.FloatRange):
    name = "number of seconds"


@click.command(PROGRAM, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--fabric", "fabrics", metavar="NAME[:key=value,...]", multiple=True, help="Fabric to serve; repeatable.")
@click.option(
    "--portal",
    "portals",
    metavar="ADDR:PORT",
    multiple=True,
    help="Where to listen; repeatable. [V6]:PORT for IPv6; port 0 is any free one.  [default: 127.0.0.1 and the fabric's port]",
)
@click.option(
    "--target",
    "targets",
    metavar="NAME",
    multiple=True,
    help="The target's name; repeatable, each has all LUNs.  [default: made once and kept in the state directory]",
)
@click.option(
    "--lun",
    "luns",
    metavar="[N=]TYPE[:key=value,...]",
    multiple=True,
    help="A logical unit; repeatable.  [default: a sparse 1 GiB file in the state directory]",
)
@click.option(
    "--filter",
    "filters",
    metavar="N=TYPE[:key=value,...]",
    multiple=True,
    help="A filter around LUN N; repeatable, the first is outermost.",
)
@click.option(
    "--attribute",
    "attributes",
    metavar="NAME=VALUE",
    multiple=True,
    help="Sets an attribute of the target's portal group, or of what initiators get there; repeatable. --dump-plugin FABRIC"
    " lists them.",
)
@click.option(
    "--param",
    "params",
    metavar="NAME=VALUE",
    multiple=True,
    help="Sets what the target offers in negotiation, such as MaxConnections=4; repeatable. Listed likewise.",
)
@click.option("--chap", metavar="USER", help="Initiators must know this user's secret. Never write the secret itself here.")
@click.option("--chap-secret-file", metavar="FILE", help="File whose first line is the secret; else TCM_CHAP_SECRET.")
@click.option("--chap-mutual", metavar="USER", help="The target proves itself to initiators as this user.")
@click.option("--chap-mutual-secret-file", metavar="FILE", help="The same for it; else TCM_CHAP_MUTUAL_SECRET.")
@click.option("--chap-discovery", is_flag=True, help="Ask for the --chap secret in discovery sessions too.")
@click.option("--tls-cert", metavar="FILE", help="Portals take TLS, with the certificate in this PEM file, and nothing else.")
@click.option("--tls-key", metavar="FILE", help="PEM file with the certificate's private key.")
@click.option("--read-only", is_flag=True, help="No LUN can be written.")
@click.option("--config", metavar="FILE", help="A saveconfig.json with everything in it, as targetcli writes it.")
@click.option(
    "--keep-going",
    is_flag=True,
    help="Serve what can be served of --config: disks, files and addresses that are missing are left out, and kept.",
)
@click.option("--empty", is_flag=True, help="Begin without targets and LUNs: they are made while it runs.")
@click.option("--control", metavar="PATH", help="Socket for tcm-ctl.  [default: control.sock in the state directory]")
@click.option("--configfs", metavar="PATH", help="Mount LIO's ConfigFS tree there, by FUSE: for targetcli and the like.")
@click.option(
    "--state-dir", metavar="DIR", help="For what must survive a restart.  [default: $XDG_STATE_HOME/tcm or ~/.local/state/tcm]"
)
@click.option(
    "--drain-timeout",
    type=_Seconds(0, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long initiators may take to log out when stopping.",
)
@click.option(
    "--metrics",
    metavar="ADDR:PORT",
    help="Serve Prometheus metrics at http://ADDR:PORT/metrics. [V6]:PORT for IPv6; port 0 is any free one.",
)
@click.option(
    "--agentx",
    metavar="SOCKET",
    help="Be a sub-agent of the SNMP agent at this Unix socket, or ADDR:PORT: SCSI-MIB and ISCSI-MIB.",
)
@click.option(
    "--event-loop",
    type=click.Choice(["auto", "uvloop", "asyncio", "trio"]),
    default="auto",
    show_default=True,
    envvar="TCM_EVENT_LOOP",
    help="auto: uvloop if it is installed, else asyncio.",
)
@click.option(
    "--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="Least that is logged (on stderr)."
)
@click.option("--log-format", type=click.Choice(FORMATS), default="text", show_default=True, help="json: one object a line.")
@click.option("--list-plugins", is_flag=True, help="Show all fabrics, backstores and filters, and exit.")
@click.option("--dump-plugin", metavar="NAME", help="Show a plug-in's options, and exit.")
@click.option("--version", is_flag=True, help="Show the version, and exit.")
def command(
    *,
    drain_timeout: float,
    metrics: str | None,
    agentx: str | None,
    event_loop: str,
    log_level: str,
    log_format: str,
    list_plugins: bool,
    dump_plugin: str | None,
    version: bool,
    control: str | None,
    configfs: str | None,
    **rest: Any,
) -> None:
    """Serve disks over iSCSI and other SCSI transports, from user space.

    On standard output stands one line for each LUN and portal: the URL that an initiator takes as it is.
    """
    set_up(log_level, log_format)
    if version:
        from tcm.cli.plugin_lists import version_text

        click.echo(f"{PROGRAM} {version_text()}")
        return
    plugins = click.get_current_context().obj
    if plugins is None:
        from tcm.plugins import PluginManager

        plugins = PluginManager()
    if list_plugins or dump_plugin is not None:
        from tcm.cli import plugin_lists

        if list_plugins:
            click.echo(plugin_lists.listing(plugins), nl=False)
        else:
            click.echo(plugin_lists.dump(plugins, dump_plugin or "", plugin_lists.terminal_width()), nl=False)
        return
    plugins.check()
    from tcm.cli import fabric_options
    from tcm.cli.arguments import Arguments, configuration
    from tcm.cli.control_plane import Ways
    from tcm.cli.exporters import Exporters
    from tcm.cli.serve import run

    exporters = Exporters.check(metrics=metrics, agentx=agentx)
    of_fabrics = fabric_options.take(rest)
    wanted = configuration(Arguments(**rest, fabric_options=of_fabrics), plugins)
    ways = Ways(control=control, configfs=configfs, state_directory=wanted.state_directory, config=rest["config"])
    run(wanted, plugins, ways, drain_timeout=drain_timeout, event_loop=event_loop, exporters=exporters)


def main() -> None:
    """The entry point: runs the command and ends the process with its exit code."""
    open_standard_streams()
    sys.exit(run_command(sys.argv[1:]))


def open_standard_streams() -> None:
    """Whoever started us may have closed some (``>&-``): no socket may get their numbers, and printing must not fail."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process


def _with_fabrics(arguments: list[str]) -> tuple[click.Command, Any]:
    """The command with the options of the fabrics that are chosen, and the plug-ins if they had to be looked at."""
    from tcm.cli import fabric_options

    names = fabric_options.chosen(arguments)
    if not names:
        return command, None
    from tcm.plugins import PluginManager

    plugins = PluginManager()
    plugins.check()
    return fabric_options.extended(command, plugins, names), plugins


def run_command(arguments: list[str]) -> int:
    """The exit code of ``tcm-run`` with these arguments. Prints errors in one line."""
    from tcm.command_line import errors

    set_up()
    try:
        wider, plugins = _with_fabrics(arguments)
        with wider.make_context(PROGRAM, arguments, obj=plugins) as context:
            wider.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        text = error.format_message()
        stop = "" if text.endswith((".", "?", "?)")) else "."
        errors.complain(PROGRAM, f"{text}{stop} Run {PROGRAM} --help for all options.")
        return errors.USAGE
    except KeyboardInterrupt:
        return errors.OK
    except BrokenPipeError:  # head(1) has seen enough
        return errors.FAILED
    except BaseException as error:  # noqa: BLE001 - nobody gets to see a traceback who did not ask for it
        return errors.report(PROGRAM, error)
    return errors.OK
