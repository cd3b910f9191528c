"""The device server: what each command does. ``HANDLERS`` has a pair of functions for each name in the command table."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcm.target.device_server.handler import Handler

_MODULES = (
    "cache",
    "capacity",
    "compare_and_write",
    "defects",
    "diagnostic",
    "log",
    "medium",
    "mode",
    "read_write",
    "report_supported",
    "reserve",
    "spc",
    "unmap",
    "verify",
    "write_same",
)

HANDLERS: dict[str, Handler] = {}
for _name in _MODULES:
    try:
        HANDLERS |= import_module(f"{__name__}.{_name}").HANDLERS
    except ModuleNotFoundError:
        continue
