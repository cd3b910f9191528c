"""Names and options of the loopback fabric (LIO's ``tcm_loop``)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tcm.failure import ConfigError
from tcm.plugin_types import option

DEFAULT_INITIATOR = "naa.5001405000000001"
"""The initiator port that connects when nobody names one."""

_NAA = re.compile(r"[125c-f][0-9a-f]{15}")


def check_name(name: str) -> str:
    """``naa.`` and 16 hex digits in lower case, from any of the usual spellings (``0x5001-4050:...``).

    Raises :class:`ConfigError` if the NAA is not 1, 2, 5 or c to f, or the length is not 16 digits.
    """
    digits = name.strip().lower().removeprefix("naa.").removeprefix("0x").replace("-", "").replace(":", "")
    if not _NAA.fullmatch(digits):
        raise ConfigError(
            f"loopback name {name!r} is not an NAA name: write naa. and 16 hex digits, such as {DEFAULT_INITIATOR}"
        )
    return f"naa.{digits}"


def default_name(host: str, unique: str) -> str:
    """The target port of an embedded default: LIO's company identifier and 9 of the 12 hex digits of ``unique``."""
    del host  # an NAA name has no room for it
    return f"naa.5001405{unique[-9:]:0>9}"


@dataclass(frozen=True)
class LoopbackOptions:
    """Options of the whole fabric."""

    nexus: str = option(
        "name of an initiator port to log in to every portal group when it starts (LIO's nexus attribute)", DEFAULT_INITIATOR
    )


def check_config(options: LoopbackOptions) -> None:
    """Raises :class:`ConfigError` if the initiator port's name is none."""
    if options.nexus:
        check_name(options.nexus)


@dataclass
class TpgAttributes:
    """``attrib/`` of a loopback target portal group."""

    fabric_prot_type: int = 0
    """0, 1 or 3; without effect: commands carry protection information, and a fabric inside a process adds none."""

    def __post_init__(self) -> None:
        if self.fabric_prot_type not in {0, 1, 3}:
            raise ConfigError(f"fabric_prot_type={self.fabric_prot_type}: write 0, 1 or 3")
