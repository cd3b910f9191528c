"""Folders that options name: one that is missing is a typing error more often than it is new."""

from __future__ import annotations

import os

from tcm.failure import ConfigError


def check_folder_of(flag: str, path: str, what: str) -> None:
    """The folder that ``path`` is to be in must be there: nothing is made but what the option names.

    :param flag: for the message; :param what: what to write, such as ``--control PATH``.

    Raises :class:`ConfigError`.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(folder):
        return
    there = folder
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if os.path.isdir(there):
        missing = os.path.join(there, os.path.relpath(folder, there).split(os.sep)[0])
        raise ConfigError(f"{flag}: {path}: there is no folder {missing}; make it, or write {what} in a folder that is there")
    raise ConfigError(f"{flag}: {path}: {there} is not a folder; write {what} in a folder that is there")
