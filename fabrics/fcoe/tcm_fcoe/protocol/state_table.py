"""State machines as tables: a row for what can happen, drawn and run from one source."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

State = TypeVar("State", bound=enum.Enum)
Event = TypeVar("Event", bound=enum.Enum)


class Step(NamedTuple, Generic[State]):
    """What an event does in a state."""

    state: State
    """The next one."""
    action: str = ""
    """Name of the method that does it, without its underscore; empty: nothing is done."""


Table = Mapping[tuple[State, Event], Step[State]]
"""A pair that is not in it changes nothing and does nothing."""


def drawing(table: Table[State, Event]) -> str:
    """The table as a Mermaid state diagram, for documentation."""
    lines = ["stateDiagram-v2"]
    for (state, event), step in table.items():
        text = event.value + (f" / {step.action.replace('_', ' ')}" if step.action else "")
        lines.append(f"    {state.name} --> {step.state.name}: {text}")
    return "\n".join(lines)
