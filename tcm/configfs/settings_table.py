"""Tables made of dataclasses: attributes, negotiation parameters and CHAP of fabrics (lio-configfs 4.3.3 to 4.3.6)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tcm.options import convert, options_of, parse_bool
from tcm.target.node_acl import Authentication
from tcm.tree_types import Table, TreeAttribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NULL = "NULL"
"""Written to clear a name, a secret or a nexus."""
SECRET_BYTES = 255


def table_of(
    cls: type[Any],
    names: Iterable[str],
    get: Callable[[Any], Any],
    put: Callable[[Any, Any, str], None],
    *,
    yes_no: bool = False,
) -> Table:
    """A file for each of some fields.

    :param get: the instance, of what the table is called with.
    :param put: makes another instance the one in force; told of the field's name too.
    :param yes_no: booleans are Yes and No, as text keys write them, not 1 and 0.
    """
    options = options_of(cls)

    def attribute(name: str) -> TreeAttribute:
        option = options[name]

        def show(subject: Any) -> str:
            value = getattr(get(subject), name)
            if isinstance(value, bool):
                return ("Yes" if value else "No") if yes_no else f"{value:d}"
            return "\n".join(map(str, value)) if option.many else str(value)

        def store(subject: Any, text: str) -> None:
            if option.many:
                value: Any = tuple(line.strip() for line in text.splitlines() if line.strip())
            else:
                value = parse_bool(text) if option.type is bool else convert(option, text, name)
            put(subject, dataclasses.replace(get(subject), **{name: value}), name)

        return TreeAttribute(show, store)

    return {name: attribute(name) for name in sorted(names)}


def authentication_table() -> Table:
    """``auth/``, called with a portal group or a node ACL."""

    def attribute(name: str) -> TreeAttribute:
        def store(owner: Any, text: str) -> None:
            value = "" if text == NULL else text
            if len(value.encode()) > SECRET_BYTES:
                raise ValueError(f"write at most {SECRET_BYTES} bytes")
            changed = dataclasses.replace(owner.authentication, **{name: value})
            if changed.password and changed.password == changed.password_mutual:
                raise ValueError("both directions would have the same CHAP secret (RFC 7143 9.2.1 forbids it); write another")
            owner.authentication = changed

        return TreeAttribute(lambda owner: str(getattr(owner.authentication, name)), store, exact=True)

    names = sorted(field.name for field in dataclasses.fields(Authentication))
    shown = TreeAttribute(lambda owner: f"{owner.authentication.authenticate_target:d}")
    return {"authenticate_target": shown, **{name: attribute(name) for name in names}}


AUTHENTICATION = authentication_table()
