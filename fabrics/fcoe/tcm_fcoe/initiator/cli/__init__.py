"""``python -m tcm_fcoe.initiator``: list, inquire, read, write and bench FCoE targets."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import anyio
import click

from tcm.backstore import ConfigError
from tcm_fcoe.initiator.address import Address, parse_address
from tcm_fcoe.initiator.cli.arguments import PROGRAM, Attachment, Usage, WorkloadOptions, common_options
from tcm_fcoe.initiator.driver import attach
from tcm_fcoe.initiator.results import InitiatorError
from tcm_fcoe.protocol.names import colon_form, format_fc_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tcm_fcoe.initiator.driver import InitiatorPort, Target

OK, FAILED, USAGE = 0, 1, 2
CHUNK = 256 << 10
"""Bytes of one READ or WRITE of `read` and `write`."""
DEPTH = 8
"""Of those at a time."""
TARGET = "fcoe://eth1/20:00:52:54:00:2f:fc:00/0"

_EPILOG = f"""\b
Examples:
  {PROGRAM} list fcoe://eth1
  {PROGRAM} list fcoe://eth1 --mode fabric --vlan 100
  {PROGRAM} inquire {TARGET}
  {PROGRAM} read {TARGET} --blocks 2048 --output disk.img
  {PROGRAM} write {TARGET} --lba 2048 --input disk.img
  {PROGRAM} bench {TARGET} --depth 32
  {PROGRAM} bench {TARGET} --block-size 256K --depth 8 --workload write --overwrite
  {PROGRAM} bench fcoe://unix:initiator.sock,target.sock --drop 0.01 --pcap frames.pcap

\b
Exit codes: 0 done, 1 failed at run time, 2 bad usage.
"""
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class _Address(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            return parse_address(value)
        except ValueError as e:
            self.fail(str(e), param, ctx)


_ADDRESS = click.argument("address", type=_Address(), metavar="ADDRESS")


@click.group(PROGRAM, epilog=_EPILOG, context_settings=_CONTEXT)
def command() -> None:
    """An FCoE initiator. An ADDRESS is fcoe://INTERFACE[/WWPN[/LUN]]; without a WWPN the first target that there is."""


def _run(function: Callable[[], Awaitable[None]]) -> None:
    # a faster event loop where there is one
    anyio.run(function, backend_options={"use_uvloop": importlib.util.find_spec("uvloop") is not None})


@contextlib.asynccontextmanager
async def _port(address: Address, how: Attachment) -> AsyncIterator[InitiatorPort]:
    with contextlib.ExitStack() as stack:
        capture = None
        if how.pcap is not None:
            from tcm_fcoe.capture import CaptureFile

            capture = stack.enter_context(CaptureFile(how.pcap))
        async with attach(
            address.interface,
            mode=how.mode,
            vlan=how.vlan,
            port_name=how.port_name,
            node_name=how.node_name,
            options=how.options,
            faults=how.faults,
            chance=random.Random(how.fault_seed),
            capture=capture,
        ) as port:
            for notice in port.link.notices:
                click.echo(f"{PROGRAM}: {notice}", err=True)
            yield port


@contextlib.asynccontextmanager
async def _unit(address: Address, how: Attachment) -> AsyncIterator[Target]:
    async with _port(address, how) as port:
        target = await port.target(address.target, timeout=how.login_timeout)
        target.default_lun = address.lun
        yield target


def _example(text: str) -> str:
    return f"\b\nExample:\n  {PROGRAM} {text}"


@command.command("list", epilog=_example("list fcoe://eth1"), context_settings=_CONTEXT)
@_ADDRESS
@common_options
def list_targets(address: Address, **given: Any) -> None:
    """The targets that can be reached, their FC_IDs and LUNs."""
    how = Attachment.take(given)

    async def run() -> None:
        async with _port(address, how) as port:
            for target in await port.settle(timeout=how.login_timeout):
                luns = [int.from_bytes(lun[:2], "big") & 0x3FFF for lun in await target.report_luns()]
                shown = ",".join(str(lun) for lun in sorted(luns)) or "-"
                click.echo(f"{colon_form(target.port_name)}\t{format_fc_id(target.nexus.d_id)}\tLUNs {shown}")

    _run(run)


@command.command(epilog=_example(f"inquire {TARGET}"), context_settings=_CONTEXT)
@_ADDRESS
@common_options
def inquire(address: Address, **given: Any) -> None:
    """What a logical unit says of itself, and what was agreed with its target."""
    how = Attachment.take(given)

    async def run() -> None:
        async with _unit(address, how) as target:
            from tcm_fcoe.initiator.cli.inquire import facts
            from tcm_fcoe.initiator.cli.output import table

            click.echo(table(None, await facts(target)), nl=False)

    _run(run)


@command.command(epilog=_example(f"read {TARGET} --blocks 8 | xxd"), context_settings=_CONTEXT)
@_ADDRESS
@click.option("--lba", type=click.IntRange(0), default=0, show_default=True, help="The first logical block.")
@click.option("--blocks", type=click.IntRange(1), help="How many.  [default: all from there on]")
@click.option("--output", type=click.File("wb"), default="-", help="Where to.  [default: standard output]")
@common_options
def read(address: Address, lba: int, blocks: int | None, output: BinaryIO, **given: Any) -> None:
    """Read logical blocks."""
    how = Attachment.take(given)

    async def run() -> None:
        async with _unit(address, how) as target:
            total, size = await target.capacity()
            if lba >= total or (blocks or 0) > total - lba:
                raise Usage(f"the logical unit has {total} blocks of {size} bytes: ask for less")
            await _copy_out(target, lba, blocks if blocks is not None else total - lba, size, output)

    _run(run)


async def _copy_out(target: Target, lba: int, blocks: int, size: int, output: BinaryIO) -> None:
    step = max(1, CHUNK // size)
    for first in range(lba, lba + blocks, step * DEPTH):
        pieces: dict[int, bytes] = {}

        async def fetch(at: int, pieces: dict[int, bytes] = pieces) -> None:
            pieces[at] = await target.read(at, min(step, lba + blocks - at))

        async with anyio.create_task_group() as group:
            for at in range(first, min(first + step * DEPTH, lba + blocks), step):
                group.start_soon(fetch, at)
        for at in sorted(pieces):
            output.write(pieces[at])
    output.flush()


@command.command(epilog=_example(f"write {TARGET} --input disk.img"), context_settings=_CONTEXT)
@_ADDRESS
@click.option("--lba", type=click.IntRange(0), default=0, show_default=True, help="The first logical block.")
@click.option("--input", "source", type=click.File("rb"), default="-", help="Where from.  [default: standard input]")
@common_options
def write(address: Address, lba: int, source: BinaryIO, **given: Any) -> None:
    """Write logical blocks, the last one filled up with zeros; flushed at the end."""
    how = Attachment.take(given)

    async def run() -> None:
        async with _unit(address, how) as target:
            total, size = await target.capacity()
            step = max(1, CHUNK // size) * size
            at = lba
            while data := source.read(step * DEPTH):
                data = data.ljust(-(-len(data) // size) * size, b"\0")
                if at + len(data) // size > total:
                    raise InitiatorError(f"the logical unit has {total} blocks of {size} bytes: the data does not fit")
                async with anyio.create_task_group() as group:
                    for offset in range(0, len(data), step):
                        group.start_soon(target.write, at + offset // size, data[offset : offset + step])
                at += len(data) // size
            await target.synchronize_cache()

    _run(run)


@command.command(epilog=_example(f"bench {TARGET} --depth 32"), context_settings=_CONTEXT)
@_ADDRESS
@click.option(
    "--workload", type=click.Choice(["read", "write", "mixed"]), default="read", show_default=True, help="What to do."
)
@click.option("--sequential", is_flag=True, help="One block after the other.  [default: at random]")
@click.option("--block-size", default="4K", show_default=True, metavar="BYTES", help="Of one request, such as 512, 4K, 1M.")
@click.option("--depth", type=click.IntRange(1, 1024), default=32, show_default=True, help="Requests outstanding at a time.")
@click.option("--seconds", type=click.FloatRange(0.1), default=5.0, show_default=True, help="How long.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the random addresses.")
@click.option("--overwrite", is_flag=True, help="Writing destroys what is on the logical unit: say that it may.")
@common_options
def bench(address: Address, **given: Any) -> None:
    """Measure: requests and bytes per second, and the latency's distribution."""
    work = WorkloadOptions.take(given)
    how = Attachment.take(given)

    async def run() -> None:
        from tcm_fcoe.initiator.cli.bench import Bench

        async with _unit(address, how) as target:
            measured = Bench(target, work)
            await measured.run()
            click.echo(measured.report(), nl=False)

    _run(run)


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
    if isinstance(error, (click.ClickException, ConfigError)):
        _complain(error.format_message() if isinstance(error, click.ClickException) else str(error))
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
