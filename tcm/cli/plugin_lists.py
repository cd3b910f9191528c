"""``--list-plugins``, ``--dump-plugin`` and ``--version``."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import itertools
import platform
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, cast

from tcm.cli.arguments import LunOptions
from tcm.command_line.output import WIDTH, table
from tcm.failure import ConfigError
from tcm.options import Option, options_of, suggestion
from tcm.plugin_types import API_VERSION
from tcm.target.attributes import DeviceAttributes

if TYPE_CHECKING:
    from tcm.plugins import PluginManager

FABRIC_FAMILIES = (
    ("--attribute KEY=VALUE (attributes of the portal group):", "tpg_attributes"),
    ("--attribute KEY=VALUE (of node ACLs: those above of the same name go first):", "acl_attributes"),
    ("--param KEY=VALUE (offered in negotiation):", "tpg_parameters"),
)
NARROWEST = 40
"""Columns that a terminal is taken to have at least."""


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; ``None`` if it is none."""
    return max(shutil.get_terminal_size().columns, NARROWEST) if sys.stdout.isatty() else None


def version_text() -> str:
    """Version of this distribution and what it runs on."""
    own = importlib.metadata.version("tcm-target")
    return f"{own} (plug-in API {API_VERSION}, Python {platform.python_version()}, anyio {importlib.metadata.version('anyio')})"


def listing(plugins: PluginManager) -> str:
    """One line a fabric, backstore and filter, and one a plug-in that does not work."""
    return table(
        ("NAME", "KIND", "DISTRIBUTION", "VERSION", "API", "STATE"),
        [(row.name, row.kind, row.distribution, row.version, str(row.api_version or "-"), row.state) for row in plugins.rows()],
    )


def dump(plugins: PluginManager, name: str, width: int | None = None) -> str:
    """What a plug-in is, and each of its options with type, default and help.

    :param width: columns of the terminal that shows it: a table that is wider becomes paragraphs.
    """
    found = plugins.find(name)
    if not found:
        names = [row.name for row in plugins.rows() if row.state == "ok"]
        raise ConfigError(
            f"--dump-plugin: there is no plug-in {name!r}{suggestion(name, names)}; installed: {', '.join(names)}"
        )
    parts: list[str] = []
    for kind, descriptor, row in found:
        first = f"{name}: {kind} of {row.distribution} {row.version}, API {descriptor.api_version}, {row.state}"
        parts.extend(f"{line}\n" for each in (first, descriptor.description) for line in _wrapped(each, width))
        syntax = {"fabric": "--fabric NAME", "backstore": "--lun [N=]NAME", "filter": "--filter N=NAME"}[kind]
        parts.append(_options(f"{syntax.replace('NAME', name)}[:key=value,...]", descriptor.options, width))
        for head, family in FABRIC_FAMILIES if kind == "fabric" else ():
            if options_of(getattr(descriptor, family)):
                parts.append(_options(head, getattr(descriptor, family), width))
        if kind == "backstore":
            parts.append(_options("Every --lun also takes:", LunOptions, width))
            parts.append(_options("and LIO's device attributes:", DeviceAttributes, width))
    return "".join(parts)


def _options(head: str, cls: type[object], width: int | None) -> str:
    options = [each for each in options_of(cls).values() if each.settable]
    if not options:
        return f"\n{head.partition('[:')[0]}\n  (takes no options)\n"
    explained = field_docstrings(cls)
    rows = [_row(each, explained) for each in options]
    lines = table(("KEY", "VALUE", "DEFAULT", "MEANING"), rows).splitlines()
    if width is not None and any(len(line) + 2 > width for line in lines):
        lines = [line for row in rows for line in _paragraph(row, width - 2)]
    return "".join(f"{line}\n" for line in ["", *_wrapped(head, width), *(f"  {line}" for line in lines)])


def _wrapped(text: str, width: int | None) -> list[str]:
    return textwrap.wrap(text, width or WIDTH, break_on_hyphens=False)


def _paragraph(row: tuple[str, ...], width: int) -> list[str]:
    key, value, default, meaning = row
    shown = f"{key}={value.replace('|', ' | ')}"
    if default:
        shown += f"  ({default})" if default == "required" else f"  (default: {default})"
    head = textwrap.wrap(shown, width, subsequent_indent=" " * (len(key) + 1), break_on_hyphens=False)
    return [*head, *textwrap.wrap(meaning, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)]


def _row(option: Option, explained: dict[str, str]) -> tuple[str, ...]:
    repeatable = " (repeatable)" if option.many else ""
    meaning = option.help or explained.get(option.key.replace("-", "_"), "")
    return (option.key, option.type_text + repeatable, option.default_text, meaning)


def field_docstrings(cls: type[object]) -> dict[str, str]:
    """What stands in the source below each field of a dataclass, in one line without markup; empty if there is no source."""
    try:
        tree = ast.parse(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    found = {}
    body = cast("ast.ClassDef", tree.body[0]).body
    for field, text in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            words = " ".join(str(text.value.value).replace("``", "").split())
            found[field.target.id] = words.replace(" None:", " Left out:")
    return found
