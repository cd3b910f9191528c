"""Files in which logical units keep what has to survive a restart: JSON, replaced as a whole."""

from __future__ import annotations

import json
import os
from urllib.parse import quote


def state_path(directory: str, serial: str) -> str:
    """The file of the logical unit with that unit serial number."""
    return os.path.join(directory, f"{quote(serial, safe='')}.json")


def replace_json(path: str, content: object) -> None:
    """Write ``content``, durable when this returns; makes the directory. Blocks. Raises ``OSError``: the old file stays."""
    directory = os.path.dirname(path) or "."
    os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = path + ".new"
    with open(temporary, "w", encoding="ascii") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
