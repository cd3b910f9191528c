"""Small files that survive a crash: replaced as a whole, and durable once the call returns."""

from __future__ import annotations

import os


def replace(path: str, text: str) -> None:
    """Make ``text`` the file's whole content; the directory is made if it is not there. Raises ``OSError``."""
    directory = os.path.dirname(path) or "."
    os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = path + ".new"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync(directory)


def remove(path: str) -> None:
    """Remove the file, if it is there. Raises ``OSError``."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    _sync(os.path.dirname(path) or ".")


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
