"""Identifying information: what application clients call a logical unit, and where that is kept (SPC-4 5.6)."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio import to_thread

from tcm.scsi.identifying_information import MAXIMUM_LENGTH, check_information
from tcm.scsi.sense import InternalTargetFailure, InvalidFieldInParameterList
from tcm.target.state_file import replace_json, state_path

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


class InformationStore(Protocol):
    """Where identifying information survives a restart."""

    def load(self) -> Mapping[int, bytes]:
        """What :meth:`save` was last given, by type; empty if there is nothing, or nothing that can be read."""

    def save(self, information: Mapping[int, bytes]) -> None:
        """Keep it; it is durable when this returns. May block: called in a worker thread. Raises ``OSError``."""


class InformationFile:
    """An :class:`InformationStore` in a JSON file, replaced as a whole."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def of(cls, directory: str, serial: str) -> InformationFile:
        """The file of the logical unit with that unit serial number; :meth:`save` makes the directory."""
        return cls(state_path(directory, serial))

    def load(self) -> Mapping[int, bytes]:
        """See :meth:`InformationStore.load`."""
        try:
            with open(self.path, encoding="ascii") as file:
                content = json.load(file)
            information = {int(code): bytes.fromhex(text) for code, text in content.items()}
            for code, data in information.items():
                if len(data) > MAXIMUM_LENGTH.get(code, 0):
                    raise ValueError(f"type {code} with {len(data)} bytes")
                check_information(code, data)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError, InvalidFieldInParameterList) as error:
            log.warning("%s: identifying information is ignored: %s", self.path, error)
            return {}
        return information

    def save(self, information: Mapping[int, bytes]) -> None:
        """See :meth:`InformationStore.save`."""
        replace_json(self.path, {str(code): data.hex() for code, data in information.items()})


class IdentifyingInformation:
    """What one logical unit is called, by type. Neither a reset nor a restart changes it."""

    def __init__(self, store: InformationStore) -> None:
        self._store = store
        self._information = dict(store.load())
        self._saving = anyio.Lock()

    def get(self, code: int) -> bytes:
        """Empty if none was set."""
        return self._information.get(code, b"")

    async def set(self, code: int, information: bytes) -> None:
        """Durable when this returns. Raises INTERNAL TARGET FAILURE if it cannot be kept; nothing has changed then."""
        async with self._saving:  # there is one file for all types
            changed = {**self._information, code: information}
            if not information:
                del changed[code]
            try:
                await to_thread.run_sync(self._store.save, changed)
            except OSError as error:
                raise InternalTargetFailure from error
            self._information = changed
