"""Options that every command has, and what is made of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tcm_fcoe.initiator.faults import NAMES, Faults
from tcm_fcoe.initiator.options import Options, Recovery
from tcm_fcoe.protocol.names import InvalidName, parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROGRAM = "python -m tcm_fcoe.initiator"
MODES = ("vn2vn", "fabric", "p2p", "fcf")
_SIZE = re.compile(r"(\d+)([KMG]?)")
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30}
LONGEST = 1 << 26
_CHANCE = click.FloatRange(0, 0.5)


class Usage(click.ClickException):
    """Bad usage: one line, exit code 2."""

    exit_code = 2


_COMMON: tuple[Callable[[Any], Any], ...] = (
    click.option("--mode", type=click.Choice(MODES), default="vn2vn", show_default=True, help="How the other side works."),
    click.option("--vlan", type=click.IntRange(1, 4094), help="Tag all frames."),
    click.option("--wwpn", metavar="NAME", help="Our port name.  [default: from the MAC address]"),
    click.option("--wwnn", metavar="NAME", help="Our node name.  [default: from the MAC address]"),
    click.option("--login-timeout", type=click.FloatRange(0.1), default=15.0, show_default=True, help="Seconds."),
    click.option("--no-recovery", is_flag=True, help="Offer neither sequence level recovery nor confirmed completion."),
    click.option("--first-burst", default="0", metavar="BYTES", help="Of a write, sent unasked where the target allows it."),
    click.option(
        "--rec-timeout", type=click.FloatRange(0.01), default=3.0, show_default=True, help="Seconds of silence until REC."
    ),
    click.option("--pcap", metavar="FILE", help="Write all frames to a capture file."),
    click.option("--drop", type=_CHANCE, default=0.0, help="Misbehave: lose frames with this chance, both ways."),
    click.option("--duplicate", type=_CHANCE, default=0.0, help="Misbehave: double frames."),
    click.option("--reorder", type=_CHANCE, default=0.0, help="Misbehave: let the next frame pass."),
    click.option("--corrupt", type=_CHANCE, default=0.0, help="Misbehave: damage frames."),
    click.option("--fault-seed", type=int, default=1, show_default=True, help="Of that chance."),
)


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of :class:`Attachment`, on a command."""
    for option in reversed(_COMMON):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """How to get at the targets."""

    mode: str
    vlan: int | None
    port_name: bytes | None
    node_name: bytes | None
    login_timeout: float
    pcap: str | None
    options: Options
    faults: Faults
    fault_seed: int

    @classmethod
    def take(cls, given: Mapping[str, Any]) -> Attachment:
        """From the command line. Raises Usage."""
        return cls(
            mode=given["mode"],
            vlan=given["vlan"],
            port_name=_name("--wwpn", given["wwpn"]),
            node_name=_name("--wwnn", given["wwnn"]),
            login_timeout=given["login_timeout"],
            pcap=given["pcap"],
            options=Options(
                confirm=not given["no_recovery"],
                retry=not given["no_recovery"],
                first_burst=parse_size("--first-burst", given["first_burst"]),
                recovery=Recovery(rec_timeout=given["rec_timeout"]),
            ),
            faults=Faults(**{name: given[name] for name in NAMES}),
            fault_seed=given["fault_seed"],
        )


def _name(flag: str, text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return parse_name(text)
    except InvalidName as e:
        raise Usage(f"{flag}: {e}") from None


def parse_size(flag: str, text: str) -> int:
    """Bytes, with a binary unit. Raises Usage."""
    found = _SIZE.fullmatch(text.upper())
    size = int(found[1]) << _UNITS[found[2]] if found else -1
    if not 0 <= size <= LONGEST:
        raise Usage(f"{flag} {text}: write a number of bytes up to 64M, such as 512, 4K or 1M")
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadOptions:
    """What ``bench`` does."""

    workload: str
    sequential: bool
    block_size: int
    depth: int
    seconds: float
    seed: int

    @classmethod
    def take(cls, given: dict[str, Any]) -> WorkloadOptions:
        """From the command line, whose other options stay in ``given``. Raises Usage."""
        if given["workload"] != "read" and not given["overwrite"]:
            raise Usage(f"--workload {given['workload']} destroys what is on the logical unit: write --overwrite if it may")
        given.pop("overwrite")
        values = {name: given.pop(name) for name in cls.__dataclass_fields__}
        size = parse_size("--block-size", values["block_size"])
        if not size:
            raise Usage("--block-size 0: write a number of bytes up to 64M, such as 512, 4K or 1M")
        return cls(**{**values, "block_size": size})
