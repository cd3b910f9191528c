"""How many connections may be on their way through login, and which of them gives way to a new one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

MAXIMUM_LOGINS = 1024
"""Connections that have not logged in yet. Each holds at most a logical text (:data:`~tcm_iscsi.protocol.text.MAX_TEXT_LENGTH`)
and a PDU."""

T = TypeVar("T")


class LoginQueue(Generic[T]):
    """Connections in login, in the order in which they came.

    :param in_login: whether a connection is still at it; who has logged in counts no more.
    """

    def __init__(self, in_login: Callable[[T], bool], limit: int = MAXIMUM_LOGINS) -> None:
        self._in_login = in_login
        self._limit = limit
        self._addresses: dict[T, str] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def enter(self, connection: T, address: str) -> T | None:
        """A connection has come from ``address``. If there are too many, says which one has to go.

        That is the oldest of the address that has most of them: whoever logs in without delay is safe from one who does not,
        even if both come from behind one address.
        """
        gone: T | None = None
        if len(self._addresses) >= self._limit:
            self._addresses = {each: where for each, where in self._addresses.items() if self._in_login(each)}
        if len(self._addresses) >= self._limit:
            crowd = Counter(self._addresses.values()).most_common(1)[0][0]
            gone = next(each for each, where in self._addresses.items() if where == crowd)
            del self._addresses[gone]
        self._addresses[connection] = address
        return gone

    def leave(self, connection: T) -> None:
        """A connection has ended."""
        self._addresses.pop(connection, None)
