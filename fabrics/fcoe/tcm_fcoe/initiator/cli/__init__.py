"""``python -m tcm_fcoe.initiator``: list, inquire, read, write and bench FCoE targets."""

from __future__ import annotations

import random
import sys
import time
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from tcm.command_line.running import CONTEXT, run_async
from tcm.command_line.running import run_command as run
from tcm.initiator.cli import Initiator
from tcm_fcoe.initiator.address import Address, parse_address
from tcm_fcoe.initiator.cli.arguments import LONGEST, OPTIONS, PROGRAM, Attachment
from tcm_fcoe.initiator.driver import Target, attach
from tcm_fcoe.initiator.options import QUEUE_DEPTH
from tcm_fcoe.initiator.tasks import FcpTask
from tcm_fcoe.protocol.fcp import ServiceParameters
from tcm_fcoe.protocol.names import colon_form, format_fc_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from tcm.initiator.cli.bench import Bench
    from tcm_fcoe.initiator.driver import InitiatorPort

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
_AGREED = {
    ServiceParameters.CONFIRMED_COMPLETION_ALLOWED: "confirmed completion",
    ServiceParameters.RETRY: "sequence level recovery",
    ServiceParameters.WRITE_FCP_XFER_RDY_DISABLED: "first burst",
    ServiceParameters.TASK_RETRY_IDENTIFICATION_REQUESTED: "task retry identification",
}


@asynccontextmanager
async def _port(address: Address, how: Attachment) -> AsyncIterator[InitiatorPort]:
    with ExitStack() as stack:
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


@asynccontextmanager
async def _unit(address: Address, how: Attachment) -> AsyncIterator[Target]:
    async with _port(address, how) as port:
        target = await port.target(address.target, timeout=how.login_timeout)
        target.default_lun = address.lun
        yield target


class FcoeInitiator(Initiator[Address, Target]):
    """Units by interface, port name and LUN."""

    program = PROGRAM
    example = TARGET
    metavar = "ADDRESS"
    options = OPTIONS
    task = FcpTask
    longest = LONGEST
    deepest = QUEUE_DEPTH

    def parse(self, text: str) -> Address:
        """See :func:`parse_address`."""
        return parse_address(text)

    def connect(self, address: Address, given: dict[str, Any]) -> AbstractAsyncContextManager[Target]:
        """A port that has logged in to the target. Raises ConfigError."""
        return _unit(address, Attachment.take(given))

    def facts(self, unit: Target) -> list[tuple[str, str]]:
        """What PRLI has agreed on, and between whom."""
        port, nexus = unit.initiator, unit.nexus
        agreed = [text for flag, text in _AGREED.items() if nexus.agreed & flag]
        return [
            ("target", f"{colon_form(unit.port_name)}, node {colon_form(unit.node_name)}, {format_fc_id(nexus.d_id)}"),
            ("initiator", f"{colon_form(port.port.port_name)}, {format_fc_id(port.port.fc_id)}"),
            ("interface", f"{port.link.name}, {colon_form(port.link.address)}, mode {port.mode}"),
            ("agreed", ", ".join(agreed) or "nothing beyond what everybody must do"),
            ("frames", f"{nexus.max_payload} bytes out, {port.port.receive_size} in"),
        ]

    def meter(self, unit: Target) -> Callable[[Bench], list[tuple[str, str]]]:
        """Frames, what each costs, and what was lost."""
        counters, frames_of = unit.initiator.fcp.counters, unit.initiator.link.counters
        frames_before, processor_before = frames_of.frames_in + frames_of.frames_out, time.process_time()

        def rows(bench: Bench) -> list[tuple[str, str]]:
            frames = frames_of.frames_in + frames_of.frames_out - frames_before
            processor = time.process_time() - processor_before
            return [
                ("frames/s", f"{frames / bench.seconds:.0f}"),
                ("processor, this side", f"{processor / max(frames, 1) * 1e6:.2f} us a frame"),
                (
                    "recoveries",
                    f"{counters.recs} REC, {counters.srrs} SRR, {counters.aborts} ABTS, {counters.retries} retries",
                ),
            ]

        return rows


initiator = FcoeInitiator()


def list_targets(address: Address, **given: Any) -> None:
    """The targets that can be reached, their FC_IDs and LUNs."""
    how = Attachment.take(given)

    async def show() -> None:
        async with _port(address, how) as port:
            for target in await port.settle(timeout=how.login_timeout):
                luns = ",".join(str(lun) for lun in await target.lun_numbers()) or "-"
                click.echo(f"{colon_form(target.port_name)}\t{format_fc_id(target.nexus.d_id)}\tLUNs {luns}")

    run_async(show)


@click.group(PROGRAM, epilog=_EPILOG, context_settings=CONTEXT)
def command() -> None:
    """An FCoE initiator. An ADDRESS is fcoe://INTERFACE[/WWPN[/LUN]]; without a WWPN the first target that there is."""


command.add_command(initiator.command(list_targets, "list fcoe://eth1", name="list"))
for each in initiator.commands():
    command.add_command(each)


def main() -> None:
    """Run the command and end the process with its exit code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """The exit code of these arguments. Errors are one line on standard error."""
    return run(command, PROGRAM, arguments)
