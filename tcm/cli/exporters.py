"""What ``tcm-run`` tells others about itself while it serves: ``--metrics`` and ``--agentx``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm.target.portal_group import NetworkPortal

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from tcm.statistics.registry import Statistics
    from tcm.statistics.snmp import Agent


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporters:
    """Those that the command line asks for."""

    metrics: NetworkPortal | None = None
    agentx: str | None = None
    """The master agent's socket."""

    @classmethod
    def check(cls, *, metrics: str | None, agentx: str | None) -> Exporters:
        """From the command line. Raises :class:`tcm.failure.ConfigError`."""
        portal = None
        if metrics is not None:
            from tcm.statistics.metrics import check as check_metrics

            portal = check_metrics(metrics)
        if agentx is not None:
            from tcm.statistics.snmp import check as check_agentx

            agentx = check_agentx(agentx)
        return cls(metrics=portal, agentx=agentx)

    async def start(self, tasks: TaskGroup, statistics: Statistics, state_directory: str | None) -> Agent | None:
        """All of them, until the task group is cancelled. Raises :class:`tcm.failure.ConfigError` for what cannot be.

        What it returns can change nothing until it is given what can.
        """
        if self.metrics is not None:
            from tcm.statistics.metrics import serve

            await tasks.start(serve, self.metrics, statistics)
        if self.agentx is not None:
            from tcm.statistics.mib_state import MibState
            from tcm.statistics.snmp import Agent

            agent = Agent(self.agentx, statistics, MibState(state_directory))
            tasks.start_soon(agent.run)
            return agent
        return None
