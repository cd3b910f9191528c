"""Identifying information: what application clients call a logical unit, and where that is kept (SPC-4 5.6)."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import anyio

from tcm.scsi.check_condition import InternalTargetFailure, InvalidFieldInParameterList
from tcm.scsi.identifying_information import MAXIMUM_LENGTH, check_information
from tcm.target.kept import Kept

if TYPE_CHECKING:
    from tcm.target.logical_unit import LogicalUnit

log = logging.getLogger(__name__)


class IdentifyingInformation:
    """What one logical unit is called, by type. Neither a reset nor a restart changes it."""

    def __init__(self, logical_unit: LogicalUnit) -> None:
        self._kept = Kept(logical_unit, "information")
        self._information: dict[int, bytes] = {}
        self._changing = anyio.Lock()

    async def load(self) -> None:
        """Take up what was set, once the backstore is open; what cannot be read is as if it had never been."""
        try:
            text = await self._kept.load()
            self._information = {} if text is None else _parse(text)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError, InvalidFieldInParameterList) as error:
            log.warning("%s: identifying information is ignored: %s", self._kept, error)

    def get(self, code: int) -> bytes:
        """Empty if none was set."""
        return self._information.get(code, b"")

    async def set(self, code: int, information: bytes) -> None:
        """Durable when this returns. Raises INTERNAL TARGET FAILURE if it cannot be kept; nothing has changed then."""
        async with self._changing:  # there is one value for all types
            changed = {**self._information, code: information}
            if not information:
                del changed[code]
            try:
                await self._kept.save(json.dumps({str(each): data.hex() for each, data in changed.items()}, indent=1))
            except OSError as error:
                raise InternalTargetFailure from error
            self._information = changed


def _parse(text: str) -> dict[int, bytes]:
    information = {int(code): bytes.fromhex(data) for code, data in json.loads(text).items()}
    for code, data in information.items():
        if len(data) > MAXIMUM_LENGTH.get(code, 0):
            raise ValueError(f"type {code} with {len(data)} bytes")
        check_information(code, data)
    return information
