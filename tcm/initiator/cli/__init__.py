"""The command line of an initiator: inquire, read, write and bench, for a fabric that says how its units are reached."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Generic, TypeVar

import click

from tcm.command_line.output import table
from tcm.command_line.running import CONTEXT, run_async
from tcm.initiator.cli import workload
from tcm.initiator.commands import Commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from tcm.initiator.cli.bench import Bench

Address = TypeVar("Address")
UnitType = TypeVar("UnitType", bound=Commands)
_LBA = click.option("--lba", type=click.IntRange(0), default=0, show_default=True, help="The first logical block.")


class _AddressType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self.parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as e:
            self.fail(str(e), param, ctx)


class Initiator(ABC, Generic[Address, UnitType]):
    """What a fabric says; :meth:`commands` makes the commands of it."""

    program: ClassVar[str]
    """What is typed to run it."""
    example: ClassVar[str]
    """An address of a logical unit."""
    metavar: ClassVar[str]
    """What an address is called."""
    options: ClassVar[Sequence[Callable[[Any], Any]]]
    """Of every command."""
    bench_options: ClassVar[Sequence[Callable[[Any], Any]]] = ()
    """Of bench alone; all others get to :meth:`connect` too."""
    task: ClassVar[Callable[..., Any]]
    """Makes a task of :meth:`submit` of a unit."""
    longest: ClassVar[int] = 256 << 20
    """Bytes of one request."""
    deepest: ClassVar[int] = 4096
    """Requests outstanding at a time."""

    @abstractmethod
    def parse(self, text: str) -> Address:
        """An address. Raises ValueError."""

    @abstractmethod
    def connect(self, address: Address, given: dict[str, Any]) -> AbstractAsyncContextManager[UnitType]:
        """A logical unit by its address, with these options. Raises ConfigError, before anything is connected."""

    @abstractmethod
    def facts(self, unit: UnitType) -> Iterable[tuple[str, str]]:
        """What the transport knows of a unit, for inquire."""

    @abstractmethod
    def meter(self, unit: UnitType) -> Callable[[Bench], Iterable[tuple[str, str]]]:
        """What the transport has to say of a measurement that begins now; called when it has ended."""

    def command(
        self, function: Callable[..., None], example: str, *more: Callable[[Any], Any], name: str | None = None
    ) -> click.Command:
        """A command with an address and the options of all; its help is the function's docstring.

        :param example: what stands behind the program's name.
        """
        argument = click.argument("address", type=_AddressType(self.metavar.lower(), self.parse), metavar=self.metavar)
        for option in reversed((argument, *more, *self.options)):
            function = option(function)
        return click.command(name, epilog=f"\b\nExample:\n  {self.program} {example}", context_settings=CONTEXT)(function)

    def commands(self) -> Iterable[click.Command]:
        """Those that every initiator has."""
        yield self._inquire()
        yield self._read()
        yield self._write()
        yield self._bench()

    def _inquire(self) -> click.Command:
        def inquire(address: Address, **given: Any) -> None:
            """What a logical unit says of itself, and what was agreed with its target."""
            connected = self.connect(address, given)

            async def run() -> None:
                from tcm.initiator.cli.inquire import facts

                async with connected as unit:
                    click.echo(table(None, await facts(unit, self.facts(unit))), nl=False)

            run_async(run)

        return self.command(inquire, f"inquire {self.example}")

    def _read(self) -> click.Command:
        def read(address: Address, lba: int, blocks: int | None, output: BinaryIO, **given: Any) -> None:
            """Read logical blocks."""
            connected = self.connect(address, given)

            async def run() -> None:
                from tcm.initiator.cli.copying import copy_out

                async with connected as unit:
                    await copy_out(unit, lba, blocks, output)

            run_async(run)

        return self.command(
            read,
            f"read {self.example} --blocks 8 | xxd",
            _LBA,
            click.option("--blocks", type=click.IntRange(1), help="How many.  [default: all from there on]"),
            click.option("--output", type=click.File("wb"), default="-", help="Where to.  [default: standard output]"),
        )

    def _write(self) -> click.Command:
        def write(address: Address, lba: int, source: BinaryIO, **given: Any) -> None:
            """Write logical blocks, the last one filled up with zeros; flushed at the end."""
            connected = self.connect(address, given)

            async def run() -> None:
                from tcm.initiator.cli.copying import copy_in

                async with connected as unit:
                    await copy_in(unit, lba, source)

            run_async(run)

        source = click.option(
            "--input", "source", type=click.File("rb"), default="-", help="Where from.  [default: standard input]"
        )
        return self.command(write, f"write {self.example} --input disk.img", _LBA, source)

    def _bench(self) -> click.Command:
        def bench(address: Address, **given: Any) -> None:
            """Measure: requests and bytes per second, and the latency's distribution."""
            work = workload.Workload.take(given, self.longest)
            connected = self.connect(address, given)

            async def run() -> None:
                from tcm.initiator.cli.bench import Bench

                async with connected as unit:
                    measured = Bench(unit, self.task, work)
                    await unit.capacity()
                    results = self.meter(unit)
                    await measured.run()
                    click.echo(table(None, measured.rows(results(measured))), nl=False)

            run_async(run)

        options = (*workload.options(self.deepest), *self.bench_options)
        return self.command(bench, f"bench {self.example} --depth 32", *options)
