"""Whether what a configuration names can be served on this machine, now: media and addresses. Nothing is left open."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio

from tcm.configuration import portal_text
from tcm.failure import ConfigError
from tcm.options import one_line, options_of
from tcm.reasons import reason_of, why_not_bound

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from tcm.backstore import Backstore
    from tcm.configuration import Configuration, StorageObject
    from tcm.plugins import PluginManager
    from tcm.target.portal_group import NetworkPortal

log = logging.getLogger(__name__)


async def unfit(
    configuration: Configuration,
    plugins: PluginManager,
    make: Callable[[StorageObject], Backstore],
    names: Collection[str] | None = None,
) -> dict[str, str]:
    """What cannot be served, and why: storage objects by path, portals as :func:`tcm.configuration.portal_text` has them.

    :param make: the backstore of a storage object, with its filters.
    :param names: only these are looked at; ``None``: all.
    """
    found: dict[str, str] = {}

    async def look(config: StorageObject) -> None:
        reason = _missing(config, plugins) or await _refusal(config, make)
        if reason is not None:
            found[config.path] = reason

    objects = [each for each in configuration.storage_objects if names is None or each.path in names]
    async with anyio.create_task_group() as tasks:
        for each in objects:
            tasks.start_soon(look, each)
    portals = [each for each in _portals(configuration, plugins) if names is None or portal_text(each) in names]
    # in the order of the file
    return {**{each.path: found[each.path] for each in objects if each.path in found}, **unfit_portals(portals)}


def _missing(config: StorageObject, plugins: PluginManager) -> str | None:
    """What can be said without opening it."""
    for each in options_of(type(config.options)).values():
        path = getattr(config.options, each.name)
        if each.kind == "path" and path and not os.path.exists(path):
            # even if it could be made: that would be an empty disk where initiators had a full one
            return f"{path} is not there; mount or attach it, or put it back"
    checks = [(plugins.backstore(config.type).check_config, config.options)]
    checks += [(plugins.filter(each.type).check_config, each.options) for each in config.filters]
    try:
        for check, options in checks:
            if check is not None:
                check(options)
    except ConfigError as error:
        return one_line(error)
    return None


async def _refusal(config: StorageObject, make: Callable[[StorageObject], Backstore]) -> str | None:
    try:
        backstore = make(config)
        try:
            await backstore.open()
            backstore.capabilities()
            backstore.size()
        finally:
            with anyio.CancelScope(shield=True):
                await backstore.aclose()
    except Exception as error:
        log.debug("opening %s failed", config.path, exc_info=True)
        return reason_of(error)
    return None


def _portals(configuration: Configuration, plugins: PluginManager) -> Iterator[NetworkPortal]:
    for target in configuration.targets:
        if plugins.fabric(target.fabric).uses_portals:
            for group in target.portal_groups:
                yield from group.portals


def unfit_portals(portals: Iterable[NetworkPortal]) -> dict[str, str]:
    """Those where nobody can listen, and why."""
    found: dict[str, str] = {}
    with ExitStack() as sockets:
        for portal in dict.fromkeys(portals):
            family = socket.AF_INET6 if ":" in portal.address else socket.AF_INET
            sock = sockets.enter_context(socket.socket(family, socket.SOCK_STREAM))
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((portal.address, portal.port))
            except (OSError, OverflowError) as error:
                found[portal_text(portal)] = why_not_bound(error)
    return found
