"""``python -m tcm_iscsi.initiator``: list, inquire, read, write and bench iSCSI targets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from tcm.command_line.running import CONTEXT, run_async
from tcm.command_line.running import run_command as run
from tcm.failure import ConfigError
from tcm.initiator.cli import Initiator
from tcm_iscsi.initiator.cli.arguments import OPTIONS, PROGRAM, session_options
from tcm_iscsi.initiator.driver import InitiatorSession, connect, discover
from tcm_iscsi.initiator.tasks import ScsiTask
from tcm_iscsi.initiator.url import Url, parse_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tcm.initiator.cli.bench import Bench

_EPILOG = f"""\b
Examples:
  {PROGRAM} list iscsi://127.0.0.1:3260
  {PROGRAM} inquire iscsi://127.0.0.1:3260/iqn.2003-01.org.example:t/0
  {PROGRAM} read iscsi://127.0.0.1/iqn.2003-01.org.example:t/0 --blocks 2048 --output disk.img
  {PROGRAM} write iscsi://127.0.0.1/iqn.2003-01.org.example:t/0 --lba 2048 --input disk.img
  {PROGRAM} bench iscsi://127.0.0.1/iqn.2003-01.org.example:t/0 --depth 32 --connections 4
  {PROGRAM} bench URL --workload write --overwrite --header-digest CRC32C --error-recovery-level 2
  {PROGRAM} list iscsi://127.0.0.1 --chap alice --chap-secret-file secret

\b
Environment:
  TCM_CHAP_SECRET         the secret of --chap
  TCM_CHAP_MUTUAL_SECRET  the secret of --chap-mutual

\b
Exit codes: 0 done, 1 failed at run time, 2 bad usage.
"""


class IscsiInitiator(Initiator[Url, InitiatorSession]):
    """Units by URL."""

    program = PROGRAM
    example = "iscsi://127.0.0.1/iqn.2003-01.org.example:t/0"
    metavar = "URL"
    options = OPTIONS
    bench_options = (
        click.option(
            "--connections", type=click.IntRange(1, 64), default=1, show_default=True, help="Connections of the session (MC/S)."
        ),
    )
    task = ScsiTask

    def parse(self, text: str) -> Url:
        """See :func:`parse_url`."""
        return parse_url(text)

    def connect(self, address: Url, given: dict[str, Any]) -> AbstractAsyncContextManager[InitiatorSession]:
        """A session with the target of the URL. Raises ConfigError."""
        if not address.target:
            raise ConfigError(
                f"{address}: name the target as well, as in {address}/iqn.2003-01.org.example:t/0; `list` shows them"
            )
        return connect(address, session_options(address, given), connections=given.get("connections", 1))

    def facts(self, unit: InitiatorSession) -> list[tuple[str, str]]:
        """What was negotiated."""
        core = unit.core
        connection = next(iter(core.connections.values()))
        digests = ["header"] * connection.header_digest + ["data"] * connection.data_digest
        return [
            ("session", f"ISID 0x{core.isid.hex()}, TSIH {core.tsih}"),
            ("error recovery level", str(core.error_recovery_level)),
            ("most connections", str(core.parameters.max_connections)),
            ("digests", " and ".join(digests) or "none"),
            ("command window", str(core.max_cmd_sn - core.cmd_sn + 1 & 0xFFFFFFFF)),
            ("first burst, burst", f"{core.parameters.first_burst_length}, {core.parameters.max_burst_length} bytes"),
            ("data segments", f"{connection.max_send} bytes out, {connection.max_recv} in"),
        ]

    def meter(self, unit: InitiatorSession) -> Callable[[Bench], list[tuple[str, str]]]:
        """The session that it was, and what was lost."""

        def rows(_: Bench) -> list[tuple[str, str]]:
            core = unit.core
            digests = core.header_digest_errors + core.data_digest_errors
            return [
                ("connections", str(len(core.connections))),
                ("error recovery level", str(core.error_recovery_level)),
                ("recoveries", f"{digests} wrong digests, {core.snacks} SNACK, {unit.recoveries} reconnections"),
            ]

        return rows


initiator = IscsiInitiator()


def list_targets(address: Url, **given: Any) -> None:
    """The targets of a portal, and the addresses of each (SendTargets)."""
    options = session_options(address, given)

    async def show() -> None:
        found = await discover(address, options)
        for name, addresses in found.items():
            click.echo("\t".join([name, *addresses]))

    run_async(show)


@click.group(PROGRAM, epilog=_EPILOG, context_settings=CONTEXT)
def command() -> None:
    """An iSCSI initiator. A URL is iscsi://[user@]host[:port][/target-name[/lun]]."""


command.add_command(initiator.command(list_targets, "list iscsi://127.0.0.1:3260", name="list"))
for each in initiator.commands():
    command.add_command(each)


def main() -> None:
    """Run the command and end the process with its exit code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """The exit code of these arguments. Errors are one line on standard error."""
    return run(command, PROGRAM, arguments)
