"""A session at error recovery level 2 that loses, damages and delays PDUs and connections: every byte is verified.

Run for minutes by ``tools/fault-soak``, and for less by a test. The target is a tcm-run of its own.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
from support import soak
from support.daemon import Daemon, running, wait_until
from support.initiator_stories import DIGESTS, nothing_outstanding
from tcm_iscsi.initiator import Faults, Options, Recovery, connect

from tcm.initiator.results import Result

LIMITS = {"MaxBurstLength": "65536", "FirstBurstLength": "32768", "MaxRecvDataSegmentLength": "8192"}
TARGET = (
    "--param=ErrorRecoveryLevel=2", "--param=MaxConnections=8", "--param=DefaultTime2Wait=0", "--param=DefaultTime2Retain=3600",
    "--param=MaxRecvDataSegmentLength=8192", "--attribute=dataout_timeout=2", "--attribute=dataout_timeout_retries=15",
    "--attribute=login_timeout=30", "--attribute=nopin_response_timeout=60", "--log-level=error",
)  # fmt: skip
LATE = 600.0
"""Seconds: a machine that stands still for a while is no fault of what runs on it."""


@dataclass
class Tally(soak.Tally):
    """What happened."""

    retries: int = 0
    reconnections: int = 0

    def take(self, result: Result) -> None:
        self.retries += result.retries

    def recovered(self) -> str:
        return f"{self.reconnections} connections brought back, {self.retries} tasks retried or reassigned"


async def exercise(
    daemon: Daemon, seconds: float, seed: int, *, rate: float, enough: Callable[[Tally], bool], connections: int = 4
) -> Tally:
    """PDUs are dropped, damaged, late, or their connection cut, with chance ``rate`` each. Every command is done once."""
    tally = Tally()
    keys = {"ErrorRecoveryLevel": "2", "DefaultTime2Wait": "0", "DefaultTime2Retain": "3600", **DIGESTS, **LIMITS}
    recovery = Recovery(progress_timeout=0.3, connection_timeout=3.0, task_timeout=0)
    options = Options(keys=keys, recovery=recovery, login_timeout=LATE)
    faults, chance = Faults.all(rate, delay_seconds=0.02), random.Random(seed)
    patience = Recovery(connection_timeout=LATE, task_timeout=0)
    quiet = Options(keys={"HeaderDigest": "CRC32C"}, recovery=patience, login_timeout=LATE)
    async with connect(daemon.url.text, quiet) as observer:
        await soak.clear(observer)
        before = await soak.counted(observer)
        async with connect(daemon.url.text, options, connections=connections, faults=faults, chance=chance) as session:
            await session.test_unit_ready()

            def satisfied() -> bool:
                tally.reconnections = session.recoveries
                tally.faults = Counter(session.fault_counts)
                for wire in session.wires.values():
                    tally.faults += wire.faults.done if wire.faults is not None else Counter()
                return enough(tally)

            await soak.churn(session, daemon, tally, seconds=seconds, seed=seed, enough=satisfied)
            satisfied()
            await nothing_outstanding(session)
        soak.check_counts(before, await soak.counted(observer), tally)
    return tally


def run(seconds: float, seed: int, rate: float, *, enough: Callable[[Tally], bool] = soak.always) -> Tally:
    """One soak with a tcm-run of its own; AssertionError for anything that is not as it should be.

    :param seconds: how long at least; longer until ``enough`` of what happened.
    """
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), "--lun", soak.DISK, *TARGET) as daemon:
        files = daemon.file_descriptors()
        tally = anyio.run(lambda: exercise(daemon, seconds, seed, rate=rate, enough=enough))
        wait_until(lambda: daemon.file_descriptors() <= files, 60, "all connections are closed")
        soak.check_memory(tally)
        return tally


if __name__ == "__main__":
    soak.command_line("tools/fault-soak", __doc__, run, seeds=[1, 2], unit="PDU")
