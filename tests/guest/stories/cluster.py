"""The two nodes that the stories are about, and where they find their logical units."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stories.initiator import Session

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Cluster:
    """Node A is logged in to portal group 1, node B to portal group 2 of one target."""

    target: str
    portals: tuple[str, str]
    relayed: str
    """The first portal again, by a relay that the host cuts as long as there is a file ``/share/cut``."""
    luns: Mapping[str, int]
    serials: Mapping[str, str]
    """Unit serial numbers, by the LUN's name."""
    a: Session
    b: Session

    def lun(self, name: str) -> int:
        return self.luns[name]

    @classmethod
    def join(cls, description: Path) -> Cluster:
        """Log both in. ``description`` is what the test has left: JSON of all but the sessions."""
        told = json.loads(description.read_text())
        first, second = told["portals"]
        return cls(
            target=told["target"],
            portals=(first, second),
            relayed=told["relayed"],
            luns=told["luns"],
            serials=told["serials"],
            a=Session(told["target"], first, 1, "iqn.2025-01.test.vm:node-a").login(),
            b=Session(told["target"], second, 2, "iqn.2025-01.test.vm:node-b").login(),
        )
