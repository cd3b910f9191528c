"""Docstrings, tables and dataclasses as lines of Markdown."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROLE = re.compile(r":(?:meth|class|func|mod|attr|data):`~?(?:[\w.]+\.)?(\w+)`")


def markdown(docstring: str) -> list[str]:
    """A docstring as lines of Markdown: a paragraph a line, ``:param`` lines as a list, ``::`` blocks as Python."""
    lines: list[str] = []
    code = joining = False
    for line in inspect.cleandoc(docstring).splitlines():
        if code and line and not line.startswith("    "):
            while not lines[-1]:
                lines.pop()
            lines += ["```", ""]
            code = False
        if code:
            if line or lines[-1] != "```python":
                lines.append(line[4:])
        elif line.endswith("::"):
            lines.append("```python")
            code, joining = True, False
        else:
            text = ROLE.sub(r"`\1`", line).replace("``", "`").strip()
            text = re.sub(r"^:param (\w+): ", r"- `\1`: ", text).replace("If omitted:", "*If omitted:*")
            if joining and text and not text.startswith("- "):
                lines[-1] += f" {text}"
            else:
                lines.append(text)
            joining = bool(text)
    return [*lines, "```"] if code else lines


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def described_fields(cls: type[Any]) -> list[str]:
    """A dataclass's fields, with their defaults and the strings below them."""
    source = inspect.getsource(cls)
    rows = []
    for field in dataclasses.fields(cls):
        found = re.search(rf'^    {field.name}: .*\n(?:    """((?:.|\n)*?)""")?', source, re.MULTILINE)
        text = " ".join(markdown((found and found[1]) or ""))
        if field.default is dataclasses.MISSING:
            default = "required"
        elif inspect.isclass(field.default):
            default = f"`{field.default.__name__}`"
        else:
            default = f"`{field.default!s}`" if field.default != "" else "empty"
        rows.append((f"`{field.name}`", default, text))
    return table(("field", "default", "meaning"), rows)
