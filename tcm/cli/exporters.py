"""What ``tcm-run`` tells others about itself while it serves: ``--metrics``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm.target.device import NetworkPortal

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from tcm.statistics.registry import Statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporters:
    """Those that the command line asks for."""

    metrics: NetworkPortal | None = None

    @classmethod
    def check(cls, *, metrics: str | None) -> Exporters:
        """From the command line. Raises :class:`tcm.backstore.ConfigError`."""
        if metrics is None:
            return cls()
        from tcm.statistics.metrics import check

        return cls(metrics=check(metrics))

    async def start(self, tasks: TaskGroup, statistics: Statistics) -> None:
        """All of them, until the task group is cancelled. Raises :class:`tcm.backstore.ConfigError` for what cannot be."""
        if self.metrics is not None:
            from tcm.statistics.metrics import serve

            await tasks.start(serve, self.metrics, statistics)
