"""What an erasure of a whole medium is to do, how far it is, and its text, which outlives the process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

OVERWRITE, BLOCK_ERASE, CRYPTOGRAPHIC_ERASE, FORMAT = "overwrite", "block-erase", "cryptographic-erase", "format"
MAXIMUM_PASSES = 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """One SANITIZE or FORMAT UNIT, from its start until its end has been told."""

    kind: str
    passes: int = 1
    invert: bool = False
    """Every second pass of an overwrite, counted back from the last but one, writes the complement."""
    block: bytes = b""
    """What an overwrite writes, one logical block."""
    unrestricted: bool = False
    """AUSE: a failure can be left by EXIT FAILURE MODE."""
    protection: int = 0
    """What FORMAT UNIT leaves: protection information of that type, 1 to 3, or none."""
    failed: bool = False
    done: int = 0
    """Passes that are complete."""
    lba: int = 0
    """Where the pass that runs goes on."""


UNKNOWN = Erasure(kind=OVERWRITE, failed=True)
"""What a text that cannot be read stands for: nobody gets at the medium before it has been sanitized."""


def to_text(erasure: Erasure) -> str:
    """What :func:`from_text` takes."""
    return json.dumps(asdict(erasure) | {"block": erasure.block.hex()}, indent=1)


def from_text(text: str) -> Erasure:
    """Raises ``ValueError`` for what the core cannot have written."""
    try:
        content = json.loads(text)
        return _checked(replace(Erasure(**content), block=bytes.fromhex(content["block"])))
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _checked(erasure: Erasure) -> Erasure:
    """``erasure``, if the core could have made it. Raises ``ValueError``."""
    numbers = (erasure.passes, erasure.done, erasure.lba)
    flags = (erasure.invert, erasure.unrestricted, erasure.failed)
    if (
        erasure.kind not in {OVERWRITE, BLOCK_ERASE, CRYPTOGRAPHIC_ERASE, FORMAT}
        or any(type(number) is not int or number < 0 for number in numbers)
        or any(type(flag) is not bool for flag in flags)
        or type(erasure.protection) is not int
        or not 0 <= erasure.protection <= 3
        or not 0 < erasure.passes <= MAXIMUM_PASSES
    ):
        raise ValueError("not an erasure")
    return erasure
