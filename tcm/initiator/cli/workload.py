"""What ``bench`` does, from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tcm.failure import ConfigError
from tcm.options import parse_size, size_text

if TYPE_CHECKING:
    from collections.abc import Callable


def bytes_of(flag: str, text: str, longest: int, *, least: int = 0) -> int:
    """Bytes, with a binary unit. Raises ConfigError."""
    try:
        size = parse_size(text)
    except ValueError:
        size = -1
    if not least <= size <= longest:
        raise ConfigError(f"{flag} {text}: write a number of bytes up to {size_text(longest)}, such as 512, 4K or 1M")
    return size


def options(deepest: int) -> tuple[Callable[[Any], Any], ...]:
    """The options of :meth:`Workload.take`."""
    return (
        click.option(
            "--workload", type=click.Choice(["read", "write", "mixed"]), default="read", show_default=True, help="What to do."
        ),
        click.option("--sequential", is_flag=True, help="One block after the other.  [default: at random]"),
        click.option(
            "--block-size", default="4K", show_default=True, metavar="BYTES", help="Of one request, such as 512, 4K, 1M."
        ),
        click.option(
            "--depth", type=click.IntRange(1, deepest), default=32, show_default=True, help="Requests outstanding at a time."
        ),
        click.option("--seconds", type=click.FloatRange(0.1), default=5.0, show_default=True, help="How long."),
        click.option("--seed", type=int, default=1, show_default=True, help="Of the random addresses."),
        click.option("--overwrite", is_flag=True, help="Writing destroys what is on the logical unit: say that it may."),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What ``bench`` does."""

    workload: str
    sequential: bool
    block_size: int
    """Bytes."""
    depth: int
    seconds: float
    seed: int

    @classmethod
    def take(cls, given: dict[str, Any], longest: int) -> Workload:
        """From the command line, whose other options stay in ``given``. Raises ConfigError.

        :param longest: bytes of one request.
        """
        if not given.pop("overwrite") and given["workload"] != "read":
            raise ConfigError(
                f"--workload {given['workload']} destroys what is on the logical unit: write --overwrite if it may"
            )
        values = {name: given.pop(name) for name in cls.__dataclass_fields__}
        return cls(**{**values, "block_size": bytes_of("--block-size", values["block_size"], longest, least=1)})
