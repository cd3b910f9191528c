"""Long options that the chosen fabrics bring to ``tcm-run``: ``--interface X`` is ``--fabric fcoe:interface=X``.

They are the fields of the fabrics' options dataclasses, and other names of ``--target``: no fabric is known here by name.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import click

from tcm.failure import ConfigError
from tcm.options import Option, options_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcm.plugin_types import FabricType
    from tcm.plugins import PluginManager

_FABRIC = "--fabric"
_PREFIX = "fabric_option_"
_TARGET = "--target"


def chosen(arguments: Sequence[str]) -> list[str]:
    """The fabrics that ``--fabric`` names, before anything is parsed."""
    names = []
    for at, argument in enumerate(arguments):
        if argument == "--":
            break
        spec = arguments[at + 1] if argument == _FABRIC and at + 1 < len(arguments) else ""
        if argument.startswith(f"{_FABRIC}="):
            spec = argument.removeprefix(f"{_FABRIC}=")
        name = spec.partition(":")[0].strip()
        if name and name not in names:
            names.append(name)
    return names


def extended(command: click.Command, plugins: PluginManager, names: Sequence[str]) -> click.Command:
    """The command with the long options of these fabrics; what is no fabric is for the command to complain about."""
    kinds = [plugins.fabric(name) for name in names if name in plugins.names("fabric")]
    taken = {flag for parameter in command.params for flag in parameter.opts}
    brought: dict[str, list[tuple[FabricType, Option]]] = {}
    for kind in kinds:
        for option in options_of(kind.options).values():
            if option.settable and not option.secret and f"--{option.key}" not in taken:
                brought.setdefault(option.name, []).append((kind, option))
    wider = copy.copy(command)
    flags = [f"--{flag}" for kind in kinds for flag in kind.target_flags]
    wider.params = [
        *(_also_called(each, flags) if _TARGET in each.opts else each for each in command.params),
        *(_long_option(name, those) for name, those in brought.items()),
    ]
    return wider


def _also_called(parameter: click.Parameter, flags: Sequence[str]) -> click.Parameter:
    other = copy.copy(parameter)
    other.opts = [*parameter.opts, *dict.fromkeys(flags)]
    return other


def _long_option(name: str, those: list[tuple[FabricType, Option]]) -> click.Option:
    option = those[0][1]
    whose = ", ".join(kind.name for kind, _ in those)
    default = f"  [default: {option.default_text}]" if option.default_text and not option.required else ""
    text = option.help[:1].upper() + option.help[1:]
    # a switch may be written without its value
    switch: dict[str, Any] = {"is_flag": False, "flag_value": "yes"} if option.type is bool else {}
    return click.Option(
        (f"--{option.key}", f"{_PREFIX}{name}"),
        multiple=True,
        metavar=option.type_text.upper() if "|" not in option.type_text else option.type_text,
        help=f"Of fabric {whose}: {text}{'' if text.endswith('.') else '.'}{default}",
        **switch,
    )


def take(rest: dict[str, Any]) -> dict[str, Any]:
    """Removes what these options were given from the command's arguments: values by field, many as a tuple."""
    found = {}
    for name in [each for each in rest if each.startswith(_PREFIX)]:
        values = rest.pop(name)
        if values:
            found[name.removeprefix(_PREFIX)] = values if len(values) > 1 else values[0]
    return found


def give(values: dict[str, Any], plugins: PluginManager, fabrics: dict[str, dict[str, Any]]) -> None:
    """Hands them to the fabrics that have them. Raises :class:`ConfigError` for what stands in ``--fabric`` too."""
    for name, value in values.items():
        for fabric, given in fabrics.items():
            if name not in options_of(plugins.fabric(fabric).options):
                continue
            if name in given:
                raise ConfigError(f"--{name.replace('_', '-')}: stands in --fabric too; write it once")
            given[name] = value
