"""What plugins.md says of the contracts: methods, descriptors, hooks, errors."""

from __future__ import annotations

import errno
import inspect
from typing import TYPE_CHECKING, Any

from parts.markdown import described_fields, markdown, table
from tcm import hookspecs
from tcm.backstore import Backstore, BackstoreError, BackstoreErrorKind, Capabilities
from tcm.fabric import Fabric, TransportServices
from tcm.plugin_types import BackstoreType, FabricType, FilterType
from tcm.scsi.check_condition import CheckCondition
from tcm.target.errors import ERRNO_KINDS, SENSES, to_check_condition

if TYPE_CHECKING:
    from collections.abc import Callable


def signature(name: str, function: Callable[..., Any]) -> str:
    """``async writev(buffers, offset, fua=False)``."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]
    arguments = str(inspect.Signature(parameters))
    return f"{'async ' if inspect.iscoroutinefunction(function) else ''}{name}{arguments}"


def methods(cls: type[Any]) -> dict[str, Callable[..., Any]]:
    """Public methods in the order of the source."""
    return {name: value for name, value in vars(cls).items() if inspect.isfunction(value) and not name.startswith("_")}


def required(cls: type[Any]) -> dict[str, Callable[..., Any]]:
    """Those that have to be there."""
    abstract: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset())
    return {name: function for name, function in methods(cls).items() if name in abstract}


def optional(cls: type[Any]) -> dict[str, Callable[..., Any]]:
    """The others."""
    abstract: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset())
    return {name: function for name, function in methods(cls).items() if name not in abstract}


def entry(name: str, function: Callable[..., Any]) -> list[str]:
    """A heading and the docstring."""
    assert function.__doc__, name
    return [f"**`{signature(name, function)}`**", "", *markdown(function.__doc__), ""]


def entries(functions: dict[str, Callable[..., Any]]) -> list[str]:
    """All of them."""
    return [line for name, function in functions.items() for line in entry(name, function)]


def sense_name(error: object) -> str:
    """What an initiator is told."""
    if isinstance(error, CheckCondition):
        sense, name = error.sense, type(error).__doc__ or ""
        return f"{name.rstrip('.')} ({sense.key:X}h {sense.asc:02X}h/{sense.ascq:02X}h)"
    return "BUSY status"


def errors() -> list[str]:
    """Every exception of a backstore that has a meaning of its own."""

    def both(error: BaseException) -> tuple[str, str]:
        reading, writing = (sense_name(to_check_condition(error, write=write, block_size=512)) for write in (False, True))
        return reading, "the same" if reading == writing else writing

    rows: list[tuple[str, str, str]] = []
    for kind in BackstoreErrorKind:
        assert kind in SENSES or kind is BackstoreErrorKind.BUSY
        rows.append((f"`BackstoreError(BackstoreErrorKind.{kind.name})`", *both(BackstoreError(kind))))
    numbers: dict[tuple[str, str], list[str]] = {}
    for number in (*ERRNO_KINDS, errno.ENOMEDIUM):
        numbers.setdefault(both(OSError(number, "")), []).append(f"`{errno.errorcode[number]}`")
    rows += [(f"`OSError` with errno {', '.join(names)}", *senses) for senses, names in numbers.items()]
    rows.append(("`OSError`, any other", *both(OSError(errno.ENOTTY, ""))))
    rows.append(("anything else", *both(KeyError())))
    return table(("raised", "while reading", "while writing, flushing, unmapping"), rows)


def hooks() -> list[str]:
    """Every hook specification."""
    return entries({name: value for name, value in vars(hookspecs).items() if name.startswith("tcm_")})


PARTS: dict[str, Callable[[], list[str]]] = {
    "backstore-required": lambda: entries(required(Backstore)),
    "backstore-optional": lambda: entries(optional(Backstore)),
    "capabilities": lambda: described_fields(Capabilities),
    "backstore-type": lambda: described_fields(BackstoreType),
    "filter-type": lambda: described_fields(FilterType),
    "fabric-type": lambda: described_fields(FabricType),
    "errors": errors,
    "transport-services": lambda: entries(methods(TransportServices)),
    "fabric-required": lambda: entries(required(Fabric)),
    "fabric-optional": lambda: entries(optional(Fabric)),
    "hooks": hooks,
}
