"""``python -m tcm_iscsi.initiator``: list, inquire, read, write and bench iSCSI targets."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import anyio
import click

from tcm_iscsi.initiator.cli.arguments import PROGRAM, Usage, WorkloadOptions, login_options, session_options
from tcm_iscsi.initiator.driver import connect, discover
from tcm_iscsi.initiator.results import InitiatorError
from tcm_iscsi.initiator.url import Url, parse_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tcm_iscsi.initiator.driver import InitiatorSession
    from tcm_iscsi.initiator.options import Options

OK, FAILED, USAGE = 0, 1, 2
CHUNK = 256 << 10
"""Bytes of one READ or WRITE of `read` and `write`."""
DEPTH = 8
"""Of those at a time."""

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
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class _Address(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Url:
        if isinstance(value, Url):
            return value
        try:
            return parse_url(value)
        except ValueError as e:
            self.fail(str(e), param, ctx)


_URL = click.argument("url", type=_Address(), metavar="URL")


@click.group(PROGRAM, epilog=_EPILOG, context_settings=_CONTEXT)
def command() -> None:
    """An iSCSI initiator. A URL is iscsi://[user@]host[:port][/target-name[/lun]]."""


def _run(function: Callable[[], Awaitable[None]]) -> None:
    # a faster event loop where there is one
    anyio.run(function, backend_options={"use_uvloop": importlib.util.find_spec("uvloop") is not None})


def _unit(url: Url) -> None:
    if not url.target:
        raise Usage(f"{url}: name the target as well, as in {url}/iqn.2003-01.org.example:t/0; `list` shows them")


@command.command("list", epilog="\b\nExample:\n  " + f"{PROGRAM} list iscsi://127.0.0.1:3260", context_settings=_CONTEXT)
@_URL
@login_options
def list_targets(url: Url, **given: Any) -> None:
    """The targets of a portal, and the addresses of each (SendTargets)."""
    options = session_options(url, given)

    async def run() -> None:
        found = await discover(url, options)
        for name, addresses in found.items():
            click.echo("\t".join([name, *addresses]))

    _run(run)


@command.command(
    epilog="\b\nExample:\n  " + f"{PROGRAM} inquire iscsi://127.0.0.1/iqn.2003-01.org.example:t/0", context_settings=_CONTEXT
)
@_URL
@login_options
def inquire(url: Url, **given: Any) -> None:
    """What a logical unit says of itself, and what was negotiated."""
    _unit(url)
    options = session_options(url, given)

    async def run() -> None:
        async with connect(url, options) as session:
            from tcm_iscsi.initiator.cli.inquire import facts
            from tcm_iscsi.initiator.cli.output import table

            click.echo(table(None, await facts(session)), nl=False)

    _run(run)


@command.command(
    epilog="\b\nExample:\n  " + f"{PROGRAM} read iscsi://127.0.0.1/iqn.2003-01.org.example:t/0 --blocks 8 | xxd",
    context_settings=_CONTEXT,
)
@_URL
@click.option("--lba", type=click.IntRange(0), default=0, show_default=True, help="The first logical block.")
@click.option("--blocks", type=click.IntRange(1), help="How many.  [default: all from there on]")
@click.option("--output", type=click.File("wb"), default="-", help="Where to.  [default: standard output]")
@login_options
def read(url: Url, lba: int, blocks: int | None, output: BinaryIO, **given: Any) -> None:
    """Read logical blocks."""
    _unit(url)
    options = session_options(url, given)

    async def run() -> None:
        async with connect(url, options) as session:
            total, size = await session.capacity()
            if lba >= total or (blocks or 0) > total - lba:
                raise Usage(f"the logical unit has {total} blocks of {size} bytes: ask for less")
            await _copy_out(session, lba, blocks if blocks is not None else total - lba, size, output)

    _run(run)


async def _copy_out(session: InitiatorSession, lba: int, blocks: int, size: int, output: BinaryIO) -> None:
    step = max(1, CHUNK // size)
    for first in range(lba, lba + blocks, step * DEPTH):
        pieces: dict[int, bytes] = {}

        async def fetch(at: int, pieces: dict[int, bytes] = pieces) -> None:
            pieces[at] = await session.read(at, min(step, lba + blocks - at))

        async with anyio.create_task_group() as group:
            for at in range(first, min(first + step * DEPTH, lba + blocks), step):
                group.start_soon(fetch, at)
        for at in sorted(pieces):
            output.write(pieces[at])
    output.flush()


@command.command(
    epilog="\b\nExample:\n  " + f"{PROGRAM} write iscsi://127.0.0.1/iqn.2003-01.org.example:t/0 --input disk.img",
    context_settings=_CONTEXT,
)
@_URL
@click.option("--lba", type=click.IntRange(0), default=0, show_default=True, help="The first logical block.")
@click.option("--input", "source", type=click.File("rb"), default="-", help="Where from.  [default: standard input]")
@login_options
def write(url: Url, lba: int, source: BinaryIO, **given: Any) -> None:
    """Write logical blocks, the last one filled up with zeros; flushed at the end."""
    _unit(url)
    options = session_options(url, given)

    async def run() -> None:
        async with connect(url, options) as session:
            total, size = await session.capacity()
            step = max(1, CHUNK // size) * size
            at = lba
            while data := source.read(step * DEPTH):
                data = data.ljust(-(-len(data) // size) * size, b"\0")
                if at + len(data) // size > total:
                    raise InitiatorError(f"the logical unit has {total} blocks of {size} bytes: the data does not fit")
                async with anyio.create_task_group() as group:
                    for offset in range(0, len(data), step):
                        group.start_soon(session.write, at + offset // size, data[offset : offset + step])
                at += len(data) // size
            await session.synchronize_cache()

    _run(run)


@command.command(
    epilog="\b\nExample:\n  " + f"{PROGRAM} bench iscsi://127.0.0.1/iqn.2003-01.org.example:t/0 --depth 32",
    context_settings=_CONTEXT,
)
@_URL
@click.option(
    "--workload", type=click.Choice(["read", "write", "mixed"]), default="read", show_default=True, help="What to do."
)
@click.option("--sequential", is_flag=True, help="One block after the other.  [default: at random]")
@click.option("--block-size", default="4K", show_default=True, metavar="BYTES", help="Of one request, such as 512, 4K, 1M.")
@click.option("--depth", type=click.IntRange(1, 4096), default=32, show_default=True, help="Requests outstanding at a time.")
@click.option(
    "--connections", type=click.IntRange(1, 64), default=1, show_default=True, help="Connections of the session (MC/S)."
)
@click.option("--seconds", type=click.FloatRange(0.1), default=5.0, show_default=True, help="How long.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the random addresses.")
@click.option("--overwrite", is_flag=True, help="Writing destroys what is on the logical unit: say that it may.")
@login_options
def bench(url: Url, **given: Any) -> None:
    """Measure: requests and bytes per second, and the latency's distribution."""
    _unit(url)
    work = WorkloadOptions.take(given)
    options = session_options(url, given)
    _run(lambda: _bench(url, options, work))


async def _bench(url: Url, options: Options, work: WorkloadOptions) -> None:
    from tcm_iscsi.initiator.cli.bench import Bench

    async with connect(url, options, connections=work.connections) as session:
        measured = Bench(session, work)
        await measured.run()
        click.echo(measured.report(), nl=False)


def main() -> None:
    """Run the command and end the process with its exit code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """The exit code of these arguments. Errors are one line on standard error."""
    try:
        with command.make_context(PROGRAM, arguments) as context:
            command.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as shown:
        click.echo(shown.format_message())
        return USAGE
    except click.ClickException as error:
        text = error.format_message()
        _complain(f"{text}{'' if text.endswith(('.', '?')) else '.'} Run {PROGRAM} --help for all options.")
        return USAGE
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        return FAILED
    except Exception as error:  # noqa: BLE001  # nobody gets to see a traceback
        return _report(error)
    return OK


def _report(error: BaseException) -> int:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, click.ClickException):
        _complain(error.format_message())
        return USAGE
    if isinstance(error, InitiatorError):
        _complain(str(error))
    elif isinstance(error, OSError):
        _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    else:
        _complain(f"{type(error).__name__}: {error}")
    return FAILED


def _complain(text: str) -> None:
    # if nobody reads it any more, the exit code still tells
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{PROGRAM}: error: {' '.join(text.split())}\n")
        sys.stderr.flush()
