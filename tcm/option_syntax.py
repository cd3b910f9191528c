r"""How options are written on a command line: ``TYPE[:key=value,...]``, and where a secret is.

A comma inside a value is written ``\,`` and a backslash before a comma ``\\``; any other backslash stands for itself.
Every error is one line: where, what, and what to write instead.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from tcm.failure import ConfigError
from tcm.options import NAME, options_of

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


def split_pairs(text: str, place: str) -> dict[str, Any]:
    """``key=value,...`` as a dict; a key given twice becomes a tuple of its values, for the options that take many."""
    pieces = [""]
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\" and text[position + 1 : position + 2] in (",", "\\"):
            position += 1
            pieces[-1] += text[position]
        elif character == ",":
            pieces.append("")
        else:
            pieces[-1] += character
        position += 1
    values: dict[str, Any] = {}
    for piece in pieces:
        key, equals, value = piece.partition("=")
        name = key.strip().replace("-", "_")
        if not equals or not name:
            shown = repr(piece) if piece else "nothing between two commas"
            raise ConfigError(
                f"{place}: {shown} is not key=value; write for example removable=yes (and a comma in a value as \\,)"
            )
        if name in values:
            before = values[name] if isinstance(values[name], tuple) else (values[name],)
            values[name] = (*before, value)
        else:
            values[name] = value
    return values


def join_pairs(values: Mapping[str, str]) -> str:
    """The inverse of :func:`split_pairs`, for one value a key."""
    return ",".join(f"{key}={value.replace(chr(92), chr(92) * 2).replace(',', chr(92) + ',')}" for key, value in values.items())


def split_spec(text: str, place: str) -> tuple[str, dict[str, Any]]:
    """``TYPE[:key=value,...]`` as the type's name and its values, still text."""
    name, colon, rest = text.partition(":")
    name = name.strip()
    if not NAME.fullmatch(name):
        hint = f"{name.replace(',', ':', 1)}..." if "," in name else "TYPE:key=value,..."
        raise ConfigError(
            f"{place}: {name.partition('=')[0]!r} is not a type's name; write {hint}"
            if name
            else f"{place}: empty; write {hint}"
        )
    return name, split_pairs(rest, f"{place}{'' if place.endswith('=') else ' '}{name}") if colon and rest else {}


def read_secrets(cls: type[Any], values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Replaces ``file:PATH`` and ``env:NAME`` by the secret they lead to, in options marked ``secret``.

    Anything else is refused: whoever lists the processes of the machine reads its command lines.
    """
    options = options_of(cls)
    read = dict(values)
    for key, value in values.items():
        option = options.get(key)
        if option is None or not option.secret:
            continue
        scheme, _, name = str(value).partition(":")
        if scheme == "file" and name:
            read[key] = read_secret_file(name, f"{prefix}{key}")
        elif scheme == "env" and name in os.environ:
            read[key] = os.environ[name]
        else:
            raise ConfigError(
                f"{prefix}{key}: a secret on the command line can be read by everybody; write {key}=file:PATH or {key}=env:NAME"
            )
    return read


def read_secret_file(path: str, place: str) -> str:
    """The first line of a file, without its end."""
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            secret = file.readline(4096).rstrip("\r\n")
            if os.fstat(file.fileno()).st_mode & 0o004:
                log.warning("%s: %s: everybody on this machine can read it; chmod 600 %s", place, path, path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"{place}: cannot read {path}: {reason}; write the path of a file whose first line is the secret"
        ) from None
    if not secret:
        raise ConfigError(f"{place}: the first line of {path} is empty; write the secret there")
    return secret
