"""What an erasure of a whole medium is to do, how far it is, and the file where that outlives the process."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, replace
from typing import Protocol
from urllib.parse import quote

from tcm.target import durable

log = logging.getLogger(__name__)

OVERWRITE, BLOCK_ERASE, CRYPTOGRAPHIC_ERASE, FORMAT = "overwrite", "block-erase", "cryptographic-erase", "format"
MAXIMUM_PASSES = 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """One SANITIZE or FORMAT UNIT, from its start until its end has been told."""

    kind: str
    passes: int = 1
    invert: bool = False
    """Every second pass of an overwrite writes the complement."""
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
"""What a file that cannot be read stands for: nobody gets at the medium before it has been sanitized."""


class ErasureStore(Protocol):
    """Where an erasure survives a restart. All may block; :meth:`save` is called in a worker thread."""

    def load(self) -> Erasure | None:
        """What :meth:`save` was last given; :data:`UNKNOWN` if there is something that cannot be read."""

    def save(self, erasure: Erasure | None) -> None:
        """Durable when this returns. ``None``: there is none any more. Raises ``OSError``."""


class ErasureFile:
    """An :class:`ErasureStore` in a JSON file, which is there only while there is something to say."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def of(cls, directory: str, serial: str) -> ErasureFile:
        """The file of the logical unit with that unit serial number."""
        return cls(os.path.join(directory, f"{quote(serial, safe='')}.erasure"))

    def load(self) -> Erasure | None:
        """See :meth:`ErasureStore.load`."""
        try:
            with open(self.path, encoding="ascii") as file:
                content = json.load(file)
            return _checked(replace(Erasure(**content), block=bytes.fromhex(content["block"])))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.error("%s: cannot be read, so the medium counts as one whose sanitizing failed: %s", self.path, error)
            return UNKNOWN

    def save(self, erasure: Erasure | None) -> None:
        """See :meth:`ErasureStore.save`."""
        if erasure is None:
            durable.remove(self.path)
        else:
            durable.replace(self.path, json.dumps(asdict(erasure) | {"block": erasure.block.hex()}, indent=1))


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
