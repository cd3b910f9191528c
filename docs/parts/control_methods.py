"""The methods of the control socket, for docs/control-protocol.md."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING

from parts.markdown import markdown, table
from tcm.control.methods import Methods

if TYPE_CHECKING:
    from collections.abc import Callable


def control_methods() -> list[str]:
    """A row a method of the control socket."""
    rows = []
    for name, method in inspect.getmembers(Methods, inspect.iscoroutinefunction):
        if not name.startswith("_") and name != "call":
            parameters = [
                f"`{each.name}`" if each.default is each.empty else f"`{each.name}` ({json.dumps(each.default)})"
                for each in inspect.signature(method).parameters.values()
                if each.name != "self"
            ]
            rows.append((f"`{name}`", ", ".join(parameters), " ".join(markdown(method.__doc__ or ""))))
    return table(("method", "parameters (default)", "result"), rows)


PARTS: dict[str, Callable[[], list[str]]] = {"control-methods": control_methods}
