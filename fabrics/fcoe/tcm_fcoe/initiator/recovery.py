"""What an initiator does about frames that stay away (FCP-4 clause 12): REC, SRR, ABTS, and the command again.

The decisions are tables: what REC has told, and what then is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm_fcoe.initiator.results import RequestFailed, TargetLost, TaskAborted
from tcm_fcoe.protocol.els import (
    E_STAT_COMPLETE,
    E_STAT_SEQUENCE_INITIATIVE,
    ExchangeQuery,
    ExchangeStatus,
    Reject,
    Srr,
    parse_reply,
)
from tcm_fcoe.protocol.els_codes import ElsCommand, Reason
from tcm_fcoe.protocol.els_payload import ElsError
from tcm_fcoe.protocol.fcp import TYPE_FCP, InformationUnit
from tcm_fcoe.protocol.frame import NO_EXCHANGE, RCtl

if TYPE_CHECKING:
    from tcm_fcoe.initiator.fcp_initiator import FcpInitiator
    from tcm_fcoe.initiator.nexus import TargetNexus
    from tcm_fcoe.initiator.tasks import FcpTask
    from tcm_fcoe.protocol.basic import BasicAccept, BasicReject

LS_ACC = 0x02
LONGEST_TIMEOUT = 16
"""Of the answer to REC and SRR, times REC_TOV."""
ABTS_ROUNDS = 3
"""How often an exchange is aborted, ABTS being sent twice each time, before a target is held to be gone."""
FCP_DATA, FCP_XFER_RDY, FCP_RSP = InformationUnit.FCP_DATA, InformationUnit.FCP_XFER_RDY, InformationUnit.FCP_RSP


class Recoveries:
    """Those of one initiator."""

    def __init__(self, initiator: FcpInitiator) -> None:
        self._initiator = initiator
        self._patience = initiator.options.recovery
        self.aborting: dict[int, FcpTask] = {}
        """Commands whose ABTS has no answer yet, by OX_ID."""

    def forget(self, nexus: TargetNexus) -> list[FcpTask]:
        """A logout ends what is being aborted; who waits for it is told by the caller."""
        lost = [ox_id for ox_id, task in self.aborting.items() if task.nexus is nexus]
        return [self.aborting.pop(ox_id) for ox_id in lost]

    def look(self, now: float) -> None:
        """Find the commands that have heard nothing for too long."""
        patience = self._patience
        for task in list(self._initiator.tasks.values()):
            if task.asking or task.finished or task.nexus is None:
                continue
            if patience.command_timeout and now - task.started > patience.command_timeout:
                self.abort(task, TaskAborted(f"no response within {patience.command_timeout:g} s"))
            elif task.response is not None:
                if now - task.progress > patience.gap_timeout:
                    self._request(task, FCP_DATA, task.received, now)
            elif now - task.progress > self._timeout(task):
                self._ask(task, now)

    def _timeout(self, task: FcpTask) -> float:
        """How long to wait for an answer: longer each time, since a link that is crowded answers late."""
        return self._patience.rec_timeout * min(1 << task.attempts, LONGEST_TIMEOUT)

    # REC

    def _ask(self, task: FcpTask, now: float) -> None:
        """What has become of it?"""
        nexus = task.nexus
        assert nexus is not None
        if not nexus.recovers or task.attempts >= self._patience.attempts:
            self._give_up(task, f"silence, {task.attempts} questions have brought nothing" if nexus.recovers else "silence")
            return
        task.asking = True
        task.attempts += 1
        self._initiator.counters.recs += 1
        query = ExchangeQuery(self._initiator.port.fc_id, task.ox_id, task.rx_id, ElsCommand.REC)
        ox_id = task.ox_id
        self._initiator.port.exchanges.request(
            nexus.d_id, query.pack(), lambda reply, then: self._told(task, ox_id, now, reply, then), now,
            timeout=self._timeout(task), attempts=1, parameter=task.identifier,
        )  # fmt: skip

    def _told(self, task: FcpTask, ox_id: int, asked: float, reply: bytes | None, now: float) -> None:
        """The answer to REC."""
        if not self._is_news(task, ox_id, asked, reply, now) or reply is None:
            return
        try:
            answer = parse_reply(ElsCommand.REC, reply)
        except ElsError:
            return
        if isinstance(answer, Reject):
            if answer.reason == Reason.LOGICAL_BUSY:
                task.progress, task.attempts = now, 0
            else:
                self._give_up(task, f"LS_RJT to REC, {answer.reason:02x}h/{answer.explanation:02x}h")
            return
        if isinstance(answer, ExchangeStatus):
            self._decide(task, answer, now)

    def _is_news(self, task: FcpTask, ox_id: int, asked: float, reply: bytes | None, now: float) -> bool:
        """Whether an answer still matters: not if none came, or if something of the exchange itself came meanwhile."""
        initiator = self._initiator
        if task.ox_id != ox_id or initiator.tasks.get(ox_id) is not task:
            return False
        task.asking = False
        initiator.now = now
        return reply is not None and task.progress <= asked

    def _decide(self, task: FcpTask, status: ExchangeStatus, now: float) -> None:
        """FCP-4 12.4: what was lost, by direction, completeness, initiative and the bytes transferred."""
        if task.rx_id == NO_EXCHANGE:
            if status.rx_id == self._initiator.last_rx_ids[task.ox_id]:
                self._give_up(task, "the target knows the OX_ID from the exchange before only")
                return
            task.rx_id = status.rx_id
        complete, transferred = bool(status.status & E_STAT_COMPLETE), status.fc4_value
        if not complete and status.status & E_STAT_SEQUENCE_INITIATIVE:
            task.progress, task.attempts = now, 0  # the target is at work
            return
        writes = bool(task.write_length)
        if writes and not complete and transferred < task.write_length:
            # FCP_XFER_RDY, or some of the data that it had asked for
            self._request(task, FCP_XFER_RDY, transferred, now)
        elif not writes and task.received < min(transferred, task.read_length):
            self._request(task, FCP_DATA, task.received, now)
        else:
            self._request(task, FCP_RSP, 0, now)

    # SRR

    def _request(self, task: FcpTask, what: InformationUnit, offset: int, now: float) -> None:
        """Ask for a part of it again."""
        nexus = task.nexus
        assert nexus is not None
        if not nexus.recovers or task.attempts >= self._patience.attempts:
            self._give_up(task, f"{task.attempts} requests have brought nothing")
            return
        task.asking = True
        task.attempts += 1
        task.recoveries += 1
        self._initiator.counters.srrs += 1
        request = Srr(task.ox_id, task.rx_id, offset, what)
        ox_id = task.ox_id
        self._initiator.port.exchanges.request(
            nexus.d_id, request.pack(), lambda reply, then: self._granted(task, ox_id, now, reply, then), now,
            r_ctl=RCtl.FC4_LINK_REQUEST, fc_type=TYPE_FCP, timeout=self._timeout(task), attempts=1,
            parameter=task.identifier,
        )  # fmt: skip

    def _granted(self, task: FcpTask, ox_id: int, asked: float, reply: bytes | None, now: float) -> None:
        """The answer to SRR."""
        if not self._is_news(task, ox_id, asked, reply, now) or reply is None:
            return
        if reply[:1] == bytes((LS_ACC,)):
            task.progress = now
        elif task.write_length:
            task.progress = now  # it has gone on while we asked: REC will tell
        else:
            self._give_up(task, f"FCP_RJT to SRR, {bytes(reply[5:7]).hex('/')}")

    # ABTS

    def _give_up(self, task: FcpTask, why: str) -> None:
        """The exchange cannot be saved: the command again, in a new one, or the end of it."""
        patience = self._patience
        harmless = task.rx_id == NO_EXCHANGE or (task.read_length and not task.write_length) or patience.repeat
        if task.retries < patience.retries and harmless and not task.management:
            self.abort(task, None)
        else:
            self.abort(task, TaskAborted(f"its exchange could not be recovered, and was aborted: {why}"))

    def abort(self, task: FcpTask, error: RequestFailed | None) -> None:
        """ABTS; ``error``: what it ends with then. None: it is sent again."""
        initiator = self._initiator
        ox_id, nexus = task.ox_id, task.nexus
        if initiator.tasks.get(ox_id) is not task or nexus is None:
            return
        initiator._forget(task)
        task.error = error
        task.attempts = 0
        self._send_abts(task, ox_id, nexus)

    def _send_abts(self, task: FcpTask, ox_id: int, nexus: TargetNexus) -> None:
        initiator = self._initiator
        self.aborting[ox_id] = task
        task.attempts += 1
        initiator.counters.aborts += 1
        initiator.port.aborts.abort(
            nexus.d_id, ox_id, task.rx_id, initiator.now, seq_id=task.seq_id, seq_cnt=task.seq_cnt & 0xFFFF,
            answered=lambda reply, now: self._aborted(ox_id, reply, now),
        )  # fmt: skip

    def _aborted(self, ox_id: int, reply: BasicAccept | BasicReject | None, now: float) -> None:
        """BA_ACC and BA_RJT alike: there is no such exchange any more. None: nobody answers."""
        initiator = self._initiator
        task = self.aborting.pop(ox_id, None)
        if task is None or task.nexus is None:
            return
        initiator.now = now
        nexus = task.nexus
        if reply is None and task.attempts < ABTS_ROUNDS:
            self._send_abts(task, ox_id, nexus)
            return
        if reply is None and task.error is None:
            task.error = TargetLost("the target does not answer, not even to ABTS")
        if task.error is not None:
            initiator.finish(task)
        else:
            task.retries += 1
            initiator.counters.retries += 1
            task.reset()
            task.progress = now
            initiator.start(task)
        initiator.go_on(nexus)
