"""Options that every command has, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tcm.failure import ConfigError
from tcm.initiator.cli.workload import bytes_of
from tcm_fcoe.initiator.faults import NAMES, Faults
from tcm_fcoe.initiator.options import Options, Recovery
from tcm_fcoe.protocol.names import InvalidName, parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROGRAM = "python -m tcm_fcoe.initiator"
MODES = ("vn2vn", "fabric", "p2p", "fcf")
LONGEST = 64 << 20
"""Bytes of one request, and of a first burst."""
_CHANCE = click.FloatRange(0, 0.5)

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--mode", type=click.Choice(MODES), default="vn2vn", show_default=True, help="How the other side works."),
    click.option("--vlan", type=click.IntRange(1, 4094), help="Tag all frames. Mode fabric finds the VLAN by itself."),
    click.option("--wwpn", metavar="NAME", help="Our port name.  [default: from the MAC address]"),
    click.option("--wwnn", metavar="NAME", help="Our node name.  [default: from the MAC address]"),
    click.option("--login-timeout", type=click.FloatRange(0.1), default=15.0, show_default=True, help="Seconds."),
    click.option("--no-recovery", is_flag=True, help="Offer neither sequence level recovery nor confirmed completion."),
    click.option("--task-retry-identification", is_flag=True, help="Ask the target for it; it slows tcm's down."),
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
        """From the command line. Raises ConfigError."""
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
                task_retry_identification=given["task_retry_identification"],
                first_burst=bytes_of("--first-burst", given["first_burst"], LONGEST),
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
        raise ConfigError(f"{flag}: {e}") from None
