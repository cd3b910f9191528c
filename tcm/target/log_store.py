"""Where log parameters that application clients have written survive a restart."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Protocol

from tcm.scsi.log_pages import GENERAL_USAGE_LENGTH, GENERAL_USAGE_PARAMETERS
from tcm.target.state_file import replace_json, state_path

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


class LogStore(Protocol):
    """Keeps the general usage parameters of the Application Client log page, by parameter code."""

    def load(self) -> Mapping[int, bytes]:
        """What :meth:`save` was last given; empty if there is nothing, or nothing that can be read."""

    def save(self, parameters: Mapping[int, bytes]) -> None:
        """Keep them; they are durable when this returns. May block: called in a worker thread. Raises ``OSError``."""


class LogFile:
    """A :class:`LogStore` in a JSON file, replaced as a whole."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def of(cls, directory: str, serial: str) -> LogFile:
        """The file of the logical unit with that unit serial number; :meth:`save` makes the directory."""
        return cls(state_path(directory, serial))

    def load(self) -> Mapping[int, bytes]:
        """See :meth:`LogStore.load`."""
        try:
            with open(self.path, encoding="ascii") as file:
                content = json.load(file)
            parameters = {int(code): bytes.fromhex(text) for code, text in content.items()}
            for code, value in parameters.items():
                if not 0 <= code < GENERAL_USAGE_PARAMETERS or len(value) != GENERAL_USAGE_LENGTH:
                    raise ValueError(f"parameter {code} with {len(value)} bytes")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            log.warning("%s: saved log parameters are ignored: %s", self.path, error)
            return {}
        return parameters

    def save(self, parameters: Mapping[int, bytes]) -> None:
        """See :meth:`LogStore.save`."""
        replace_json(self.path, {str(code): value.hex() for code, value in sorted(parameters.items())})
