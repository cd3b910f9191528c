"""What an initiator does about exchanges that went wrong: ABTS, REC and SRR (FCP-4 clause 12, FC-LS-2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm_fcoe.protocol.basic import UNKNOWN_EXCHANGE, BasicAccept
from tcm_fcoe.protocol.els import (
    E_STAT_COMPLETE,
    E_STAT_RESPONDER,
    E_STAT_SEQUENCE_INITIATIVE,
    Reject,
    Srr,
)
from tcm_fcoe.protocol.els_codes import Explanation, Reason
from tcm_fcoe.protocol.els_payload import ElsError
from tcm_fcoe.protocol.fc4 import ExchangeState
from tcm_fcoe.protocol.fcp import InformationUnit
from tcm_fcoe.protocol.fcp_exchange import Exchange
from tcm_fcoe.protocol.frame import NO_EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.target.task_management import TaskManagementRequest
    from tcm_fcoe.protocol.basic import Abts
    from tcm_fcoe.protocol.fc4 import BasicReply
    from tcm_fcoe.protocol.fcp_exchange import Management
    from tcm_fcoe.protocol.fcp_nexus import FcpNexus
    from tcm_fcoe.protocol.fcp_target import FcpTarget


class Aborting:
    """ABTS of a command that runs: answered when the core has let go of it."""

    __slots__ = ("answer", "reply")

    def __init__(self, answer: BasicAccept, reply: Callable[[BasicReply], None]) -> None:
        self.answer = answer
        self.reply = reply

    def executed(self, request: TaskManagementRequest) -> None:
        """The task is gone, maybe because it has ended meanwhile."""
        del request
        self.reply(self.answer)


def abort(target: FcpTarget, fc_id: int, abts: Abts, reply: Callable[[BasicReply], None]) -> BasicReply | None:
    """ABTS for an exchange that the remote port originated (FCP-4 12.3): the answer, or ``None``: ``reply`` brings it."""
    nexus = target.nexuses.get(fc_id)
    exchange = nexus.exchanges.get(abts.ox_id) if nexus is not None else None
    if nexus is None:
        return UNKNOWN_EXCHANGE
    if exchange is None or abts.rx_id not in (exchange.rx_id, NO_EXCHANGE):
        answered = nexus.answered.find(abts.ox_id, abts.rx_id)
        if answered is None:
            return UNKNOWN_EXCHANGE
        nexus.answered.release(abts.ox_id)
        target.counters.aborts += 1
        return BasicAccept(abts.ox_id, answered.rx_id)
    target.counters.aborts += 1
    accept = BasicAccept(abts.ox_id, exchange.rx_id)
    if abts.sequence_only and exchange.data_out is not None and exchange.data_out.active:
        # what has come of the sequence stays where it is: it is asked for again, with SRR, or the exchange is aborted
        exchange.data_out.restart()
        return accept
    if exchange.abort():
        return accept
    nexus.port.abort_task(exchange.lun, exchange.ox_id, Aborting(accept, reply))
    return None


def _meant(nexus: FcpNexus, ox_id: int, rx_id: int, identifier: int) -> int | None:
    """The RX_ID by which an exchange is to be found; ``None``: its task retry identifier is not that of the request."""
    return rx_id if nexus.identifiers is None else nexus.identifiers.rx_id(ox_id, rx_id, identifier)


def rec(target: FcpTarget, fc_id: int, ox_id: int, rx_id: int, identifier: int = 0) -> ExchangeState | None:
    """REC for an exchange that the remote port originated (FCP-4 12.2); ``None``: there is no such exchange."""
    nexus = target.nexuses.get(fc_id)
    meant = _meant(nexus, ox_id, rx_id, identifier) if nexus is not None else None
    if nexus is None or meant is None:
        return None
    exchange = nexus.exchanges.get(ox_id)
    if exchange is not None and meant in (exchange.rx_id, NO_EXCHANGE):
        _note(exchange, target.now)
        initiative = E_STAT_SEQUENCE_INITIATIVE if exchange.has_initiative else 0
        return ExchangeState(exchange.rx_id, _transferred(exchange), E_STAT_RESPONDER | initiative)
    answered = nexus.answered.find(ox_id, meant)
    if answered is not None:
        nexus.answered.asked(ox_id, target.now)
        return ExchangeState(answered.rx_id, answered.length, E_STAT_RESPONDER | E_STAT_COMPLETE)
    return None


def _note(exchange: Exchange | Management, now: float) -> None:
    """Data that is lost is being recovered, which may take several tries."""
    if exchange.data_out is not None:
        exchange.data_out.inquired = now


def _transferred(exchange: Exchange | Management) -> int:
    if exchange.data_out is not None:
        return exchange.data_out.filled
    if isinstance(exchange, Exchange) and exchange.data_in is not None:
        return min(exchange.sent, len(exchange.data_in))
    return 0


_CANNOT = Reject(Reason.UNABLE_TO_PERFORM, Explanation.UNABLE_TO_SUPPLY_REQUESTED_DATA)


def srr(target: FcpTarget, fc_id: int, payload: bytes | memoryview, identifier: int = 0) -> Callable[[], None] | Reject:
    """SRR (FCP-4 12.4): what sends it again, to be called after FCP_ACC; or FCP_RJT."""
    nexus = target.nexuses.get(fc_id)
    if nexus is None or not nexus.retries:
        return Reject(Reason.COMMAND_NOT_SUPPORTED)
    try:
        request = Srr.parse(payload)
    except ElsError as error:
        return Reject(error.reason, error.explanation)
    exchange = nexus.exchanges.get(request.ox_id)
    rx_id = _meant(nexus, request.ox_id, request.rx_id, identifier)
    if exchange is not None and rx_id in (exchange.rx_id, NO_EXCHANGE):
        _note(exchange, target.now)
        return _go_on(exchange, request) or _CANNOT
    if rx_id is None or nexus.answered.find(request.ox_id, rx_id) is None:
        return Reject(Reason.LOGICAL_ERROR, Explanation.INVALID_OX_ID_RX_ID)
    return _again(nexus, request) or _CANNOT


def _go_on(exchange: Exchange | Management, request: Srr) -> Callable[[], None] | None:
    """The exchange has not been answered."""
    if not isinstance(exchange, Exchange):
        return None
    data_in, offset = exchange.data_in, request.relative_offset
    if request.r_ctl == InformationUnit.FCP_XFER_RDY and exchange.can_retry_data(offset):
        return lambda: exchange.retry_data(offset)
    if request.r_ctl == InformationUnit.FCP_DATA and data_in is not None and offset <= len(data_in):
        return lambda: exchange.retry_data_in(offset)
    return None


def _again(nexus: FcpNexus, request: Srr) -> Callable[[], None] | None:
    """FCP_RSP was sent: once more, with the Data-In from an offset on or without."""
    ox_id, offset = request.ox_id, request.relative_offset
    if request.r_ctl == InformationUnit.FCP_DATA and nexus.answered.has_data(ox_id, offset):
        return lambda: nexus.answer_again(ox_id, offset)
    if request.r_ctl == InformationUnit.FCP_RSP:
        return lambda: nexus.respond_again(ox_id)
    return None
