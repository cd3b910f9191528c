"""RELATIVE TARGET PORT IDENTIFIERs of the process (SAM-5 4.6.5.2)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from tcm.target.portal_group import TargetPortalGroup


class PortIdentifiers:
    """RELATIVE TARGET PORT IDENTIFIERs, each of one port at a time (SAM-5 4.6.5.2)."""

    def __init__(self, last: int = 65535) -> None:
        self.last = last
        self._ports: WeakValueDictionary[int, TargetPortalGroup] = WeakValueDictionary()
        self._lowest = 1
        """None below it is free, unless its port is gone without a word."""

    def take(self, port: TargetPortalGroup, wanted: int | None = None) -> int:
        """The lowest that is free, or the one that is wanted. Raises :class:`ValueError` if all are taken."""
        if wanted is None:
            numbers = itertools.chain(range(self._lowest, self.last + 1), range(1, self._lowest))
            wanted = next((number for number in numbers if number not in self._ports), None)
            if wanted is None:
                raise ValueError(f"all {self.last} relative target port identifiers are taken")
            self._lowest = wanted + 1
        self._ports[wanted] = port
        return wanted

    def release(self, port: TargetPortalGroup, identifier: int) -> None:
        """The port has it no more."""
        if self._ports.get(identifier) is port:
            del self._ports[identifier]
            self._lowest = min(self._lowest, identifier)


PORT_IDENTIFIERS = PortIdentifiers()
"""Those of this process."""
