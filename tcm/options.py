"""Options dataclasses, and the checked conversion of values into them.

Every error is one line: where, what, and what to write instead.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import functools
import math
import os
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from tcm.failure import ConfigError

if typing.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""What a fabric, a backstore or a filter may be called."""

_UNITS: dict[str, int] = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGTPE]?)(?:i?B)?", re.IGNORECASE)
_TRUE = frozenset(("yes", "on", "true", "1", "y"))
_FALSE = frozenset(("no", "off", "false", "0", "n"))


_is_dataclass = functools.lru_cache(maxsize=1024)(dataclasses.is_dataclass)
"""Asked for each option of each thing of a configuration."""


@dataclass(frozen=True, slots=True)
class Option:
    """One field of an options dataclass, as people see it."""

    name: str
    """The field's name, with underscores."""
    type: Any
    """The value's type without ``None`` and without the tuple around it."""
    optional: bool
    """``None`` is allowed."""
    many: bool
    """A tuple: the key may be given more than once."""
    required: bool
    default: Any
    help: str
    secret: bool
    kind: str | None

    @property
    def key(self) -> str:
        """How the command line writes it: dashes instead of underscores."""
        return self.name.replace("_", "-")

    @property
    def settable(self) -> bool:
        """False for a field that holds another dataclass, which only a program can fill in."""
        return not _is_dataclass(self.type)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values to choose from; empty if there is no such list."""
        if typing.get_origin(self.type) is Literal:
            return tuple(str(choice) for choice in typing.get_args(self.type))
        if isinstance(self.type, type) and issubclass(self.type, enum.Enum):
            return tuple(str(member.value) for member in self.type)
        return ()

    @property
    def type_text(self) -> str:
        """What to write, in a word or two."""
        if self.kind is not None:
            return self.kind
        if self.choices:
            return "|".join(self.choices)
        names: dict[Any, str] = {bool: "yes|no", int: "integer", float: "number", str: "text", Path: "path"}
        return names.get(self.type, getattr(self.type, "__name__", str(self.type)))

    @property
    def default_text(self) -> str:
        """The default as the command line would write it; empty for none, ``required`` if there is no default."""
        if self.required:
            return "required"
        value = self.default
        if value is None or value in ("", ()) or not self.settable:
            return ""
        if self.secret:
            return "***"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if self.kind == "size":
            return size_text(value)
        if isinstance(value, enum.Enum):
            return str(value.value)
        if isinstance(value, tuple):
            return ",".join(map(str, value))
        return str(value)


_known: dict[type[Any], dict[str, Option]] = {}


def options_of(cls: type[Any]) -> dict[str, Option]:
    """The options that a dataclass declares, by field name."""
    found = _known.get(cls)
    if found is None:
        # resolving type hints takes longer than all the rest of reading a configuration
        found = _known[cls] = _read_options(cls)
    return dict(found)


def _read_options(cls: type[Any]) -> dict[str, Option]:
    try:
        hints = typing.get_type_hints(cls)
    except Exception as error:
        raise ConfigError(
            f"options class {cls.__module__}.{cls.__qualname__} has a type that cannot be resolved: {error}"
        ) from error
    found = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        kind, optional, many = hints[field.name], False, False
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
            members = [member for member in typing.get_args(kind) if member is not types.NoneType]
            optional = len(members) < len(typing.get_args(kind))
            kind = members[0] if len(members) == 1 else str
        if typing.get_origin(kind) is tuple:
            kind, many = typing.get_args(kind)[0], True
        if field.default_factory is not dataclasses.MISSING:
            default: Any = field.default_factory()
        else:
            default = field.default
        found[field.name] = Option(
            name=field.name,
            type=kind,
            optional=optional,
            many=many,
            required=default is dataclasses.MISSING,
            default=default,
            help=field.metadata.get("help", ""),
            secret=field.metadata.get("secret", False),
            kind=field.metadata.get("kind"),
        )
    return found


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)``, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What to say of a key that does not exist."""
    names = sorted(known)
    there = f"keys are {', '.join(names)}" if names else "it takes no keys"
    return f"unknown key{suggestion(key, names)}; {there}"


def parse_size(text: str) -> int:
    """Bytes of ``64M``, ``1G``, ``1.5T``, ``512``; binary units. Raises ``ValueError``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a size")
    whole, _, fraction = match[1].partition(".")
    shift = _UNITS[match[2].upper()]
    scale: int = 10 ** len(fraction)
    scaled = int(whole + fraction) << shift
    if scaled % scale:
        raise ValueError("not a whole number of bytes")
    return scaled // scale


def size_text(size: int) -> str:
    """The shortest exact spelling that :func:`parse_size` takes back."""
    for unit, shift in reversed(_UNITS.items()):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def parse_bool(value: object) -> bool:
    """yes/no, on/off, true/false, 1/0 in any case; also JSON's true, false, 1 and 0. Raises ``ValueError``."""
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{str(value)[:40]!r} is neither yes nor no; write yes or no, 1 or 0")


def parse_whole(text: str) -> int:
    """A whole number, decimal or ``0x``. Raises ``ValueError``."""
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError("write a whole number") from None


class _WriteInstead(Exception):
    """A value that is not of the option's type; the text says what to write instead."""


def _scalar(option: Option, value: object) -> Any:
    """One value of the option's type; raises :class:`_WriteInstead`, whose text says what to write instead."""
    kind = option.type
    if isinstance(value, float) and kind is not float:
        raise _WriteInstead(f"write {'a whole number' if kind is int else 'text'}")
    if option.kind == "size":
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise _WriteInstead("write a size such as 64M, 1G or 512")
        try:
            return value if isinstance(value, int) and value >= 0 else parse_size(str(value))
        except ValueError:
            raise _WriteInstead("write a size such as 64M, 1G or 512 (binary units K M G T P E)") from None
    if option.kind == "path" or kind is Path:
        if not isinstance(value, str | Path) or not str(value):
            raise _WriteInstead("write a path")
        if "\0" in str(value):
            raise _WriteInstead("write a path without NUL characters")
        path = os.path.abspath(os.path.expanduser(value))
        return Path(path) if kind is Path else path
    if kind is bool:
        try:
            return parse_bool(value)
        except ValueError:
            raise _WriteInstead("write yes or no") from None
    if option.choices:
        for choice, text in zip(
            typing.get_args(kind) if typing.get_origin(kind) is Literal else tuple(kind), option.choices, strict=True
        ):
            if str(value).lower().replace("-", "_") == text.lower().replace("-", "_"):
                return choice
        raise _WriteInstead(f"write one of {', '.join(option.choices)}{suggestion(str(value), option.choices)}")
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise _WriteInstead("write a whole number")
        try:
            return value if isinstance(value, int) else int(value, 16 if value.lower().startswith("0x") else 10)
        except ValueError:
            raise _WriteInstead("write a whole number") from None
    if kind is float:
        try:
            number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise _WriteInstead("write a number such as 0.5")
        return number
    if dataclasses.is_dataclass(kind):
        if isinstance(kind, type) and isinstance(value, kind):
            return value
        raise _WriteInstead("leave it out: it cannot be set here")
    if not isinstance(value, str):
        raise _WriteInstead("write text in quotes")
    return value


def convert(option: Option, value: object, place: str) -> Any:
    """``value`` as the option's type; :class:`ConfigError` begins with ``place``."""
    if option.optional and (value is None or value == "none"):
        return None
    if isinstance(value, tuple) and not option.many:
        raise ConfigError(f"{place}: given {len(value)} times; write it once")
    if option.many:
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(convert(dataclasses.replace(option, many=False), each, place) for each in values)
    try:
        return _scalar(option, value)
    except _WriteInstead as error:
        shown = "the value (kept secret)" if option.secret else repr(value)
        raise ConfigError(f"{place}: {shown} is not {_article(option.type_text)}; {error}") from None


def _article(noun: str) -> str:
    if noun in ("yes|no", "text") or "|" in noun:
        return noun.replace("|", " or ") if noun.count("|") == 1 else f"one of {noun}" if "|" in noun else noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def build(cls: type[T], values: Mapping[str, object], prefix: str, base: T | None = None) -> T:
    """An instance of the options dataclass ``cls``.

    :param values: by key, with dashes or underscores.
    :param prefix: where they come from, put before the key in errors: ``"--lun 0=fileio: "``, ``"storage_objects[0]."``.
    :param base: where the others' values come from; ``None``: their defaults.
    """
    options = options_of(cls)
    known = [option.name for option in options.values() if option.settable]
    given: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        option = options.get(name)
        if option is None:
            raise ConfigError(f"{prefix}{key}: {unknown_key(name, known)}")
        given[name] = convert(option, value, f"{prefix}{key}")
    if base is not None:
        given = {option.name: getattr(base, option.name) for option in options.values()} | given
    for option in options.values():
        if option.required and option.name not in given:
            example = {"path": "/some/where", "size": "1G"}.get(option.kind or "", option.type_text.upper())
            raise ConfigError(f"{prefix}{option.name}: missing; write {option.key}={example}")
    try:
        return cls(**given)
    except (ConfigError, ValueError, TypeError) as error:
        raise ConfigError(f"{prefix.rstrip(': .')}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """An exception's text without line ends; its type if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
