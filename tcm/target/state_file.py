"""Files in which logical units keep what has to survive a restart: JSON, replaced as a whole."""

from __future__ import annotations

import json
import os
from urllib.parse import quote

from tcm.target import durable


def state_path(directory: str, serial: str) -> str:
    """The file of the logical unit with that unit serial number."""
    return os.path.join(directory, f"{quote(serial, safe='')}.json")


def replace_json(path: str, content: object) -> None:
    """Write ``content``, durable when this returns; makes the directory. Blocks. Raises ``OSError``: the old file stays."""
    durable.replace(path, json.dumps(content, indent=1))
