"""The device server: what each command does. ``HANDLERS`` has a pair of functions for each name in the command table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.target.device_server import (
    buffers,
    cache,
    capacity,
    compare_and_write,
    defects,
    diagnostic,
    extended_copy,
    format_unit,
    identifying_information,
    log,
    medium,
    mode,
    persistent_reserve,
    protected,
    protected_verify,
    read_write,
    receive_copy,
    report_supported,
    reserve,
    rod_tokens,
    sanitize,
    security_protocol,
    spc,
    target_port_groups,
    timestamp,
    unmap,
    verify,
    write_same,
    write_using_token,
)

if TYPE_CHECKING:
    from tcm.target.device_server.handler import Handler

_MODULES = (
    buffers,
    cache,
    capacity,
    compare_and_write,
    defects,
    diagnostic,
    extended_copy,
    format_unit,
    identifying_information,
    log,
    medium,
    mode,
    persistent_reserve,
    read_write,
    receive_copy,
    report_supported,
    reserve,
    rod_tokens,
    sanitize,
    security_protocol,
    spc,
    target_port_groups,
    timestamp,
    unmap,
    verify,
    write_same,
    write_using_token,
)

HANDLERS: dict[str, Handler] = {name: handler for module in _MODULES for name, handler in module.HANDLERS.items()}
PROTECTED_HANDLERS: dict[str, Handler] = {**HANDLERS, **protected.HANDLERS, **protected_verify.HANDLERS}
"""The same for a unit with protection information."""
