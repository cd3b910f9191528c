"""JSON with addresses: every value knows its path, so that an error can say where it stands (``targets[0].tpgs[1].tag``)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcm.failure import ConfigError
from tcm.options import one_line, parse_bool, unknown_key

if TYPE_CHECKING:
    from collections.abc import Iterable

MAXIMUM_FILE = 64 << 20
"""Bytes of a file; more is no configuration, but a disk whose name was mistaken, or a device without an end."""
_NAMES = {dict: "an object {...}", list: "a list [...]", str: "a string", bool: "true or false", int: "a whole number"}


@dataclass(frozen=True, slots=True)
class Node:
    """A JSON value and its path. Methods raise :class:`ConfigError` that begins with the path."""

    value: Any
    path: str

    def object(self) -> dict[str, Any]:
        """The value, which must be an object."""
        return self._checked(dict, self.value, self.path)  # type: ignore[no-any-return]  # checked there

    def keys(self, known: Iterable[str]) -> None:
        """Refuses a key that is not among ``known``."""
        names = set(known)
        for key in self.object():
            if key not in names:
                raise ConfigError(f"{self._at(key)}: {unknown_key(key, names)}")

    def child(self, key: str) -> Node:
        """The object at ``key``; an empty one if there is none."""
        return Node(self.object().get(key, {}), self._at(key))

    def items(self, key: str | None = None) -> list[Node]:
        """The elements of the list at ``key``, none if there is no such key; without ``key``, the elements of this list."""
        place = self.path if key is None else self._at(key)
        value = (self.value or []) if key is None else self.object().get(key, [])
        return [Node(element, f"{place}[{index}]") for index, element in enumerate(self._checked(list, value, place))]

    def text(self, key: str, *, required: bool = False, default: str = "") -> str:
        """A string."""
        return self._scalar(key, str, required, default)  # type: ignore[no-any-return]  # checked there

    def integer(
        self, key: str, *, required: bool = False, default: int = 0, minimum: int | None = None, maximum: int | None = None
    ) -> int:
        """A whole number, between the limits."""
        value: int = self._scalar(key, int, required, default)
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            wanted = f"{minimum} to {maximum}" if minimum != maximum else minimum
            raise ConfigError(f"{self._at(key)}: {value} is out of range; write {wanted}")
        return value

    def boolean(self, key: str, *, default: bool = False) -> bool:
        """True or false; also 0 and 1, which LIO writes in places."""
        value = self.object().get(key, default)
        try:
            if isinstance(value, bool | int):
                return parse_bool(value)
        except ValueError:
            pass
        raise ConfigError(f"{self._at(key)}: {shown(value)} is not true or false; write one of them")

    def _scalar(self, key: str, kind: type[Any], required: bool, default: Any) -> Any:
        if key not in self.object():
            if required:
                raise ConfigError(f"{self._at(key)}: missing; write {_NAMES[kind]}")
            return default
        return self._checked(kind, self.value[key], self._at(key))

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    @staticmethod
    def _checked(kind: type[Any], value: Any, place: str) -> Any:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{place or 'the file'}: {shown(value)} is not {_NAMES[kind]}; write {_NAMES[kind]}")
        return value


def shown(value: Any) -> str:
    """A value as JSON, short enough for an error line."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_text(node: Node) -> None:
    """JSON can write halves of characters, which no file, name or secret can have. Raises :class:`ConfigError`."""
    try:
        json.dumps(node.value, ensure_ascii=False, check_circular=False).encode()
    except UnicodeEncodeError:
        _check_text(node.value, node.path)
        raise


def _check_text(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            _check_text(key, place)
            _check_text(each, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            _check_text(each, f"{place}[{index}]")
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{place or 'the file'}: {shown(value)} has half a character in it; write whole ones") from None


def read_json(path: str) -> Node:
    """The file's value. Raises :class:`ConfigError` (which begins with the file's name) if there is none."""
    if not path:
        raise ConfigError("--config: empty; write the path of a saveconfig.json")
    try:
        with open(path, "rb") as file:
            data = file.read(MAXIMUM_FILE + 1)
        if len(data) > MAXIMUM_FILE:
            raise ConfigError(f"{path}: longer than {MAXIMUM_FILE >> 20} MiB; write the path of a saveconfig.json")
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; write the path of a saveconfig.json") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; write JSON as UTF-8 text") from None
    try:
        return Node(json.loads(text, object_pairs_hook=_object, parse_constant=_constant), "")
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno} column {error.colno}: {error.msg}; write valid JSON") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {one_line(error)}; write a smaller number") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply; write a saveconfig.json") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ConfigError(f"key {twice!r} stands twice in one object; write it once")
    return made


def _constant(name: str) -> Any:
    raise ConfigError(f"{name} is not JSON; write a number")
