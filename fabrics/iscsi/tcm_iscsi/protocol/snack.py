"""SNACK Request: what the initiator wants again, and what it need not have again (RFC 7143 11.16)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from tcm_iscsi.protocol.pdu import RESERVED_TAG, RejectReason, SnackType

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_iscsi.protocol.full_feature import FullFeaturePhase
    from tcm_iscsi.protocol.scsi_command import ScsiCommand

SNACK = Struct(">16xII16xII").unpack_from
"""ITT, Target Transfer Tag or SNACK Tag, BegRun, RunLength."""


def snack(phase: FullFeaturePhase, pdu: bytes, _: memoryview) -> None:
    """SNACK Request: answered by the PDUs themselves, or by a Reject. Needs ERL 1."""
    itt, tag, first, count = SNACK(pdu)
    answer = SNACKS.get(pdu[1] & 0x0F) if phase.unacknowledged is not None else _unsupported
    reason = answer(phase, itt, tag, first, count) if answer is not None else RejectReason.INVALID_PDU_FIELD
    if reason is not None:
        command = _find(phase, itt) if answer is _data_or_r2t else None
        phase.reject(reason, pdu[:48], command.next_data_sn if command is not None else 0)


def _unsupported(*_: object) -> RejectReason:
    return RejectReason.SNACK_REJECT


def _find(phase: FullFeaturePhase, itt: int) -> ScsiCommand | None:
    """A task allegiant to this connection, in progress or with a status that is not acknowledged."""
    assert phase.unacknowledged is not None
    command = phase.session.commands.get(itt)
    if command is not None and command.connection is phase:
        return command
    return phase.unacknowledged.by_itt.get(itt)


def _data_or_r2t(phase: FullFeaturePhase, itt: int, _: int, first: int, count: int) -> RejectReason | None:
    """Data-In or R2T PDUs again. Those never sent, or acknowledged: Protocol Error."""
    command = _find(phase, itt)
    if command is None:
        return RejectReason.PROTOCOL_ERROR
    sent = command.resend_data(first, count)
    if sent is None:  # cut for another MaxRecvDataSegmentLength: only R-Data helps (11.16.3)
        return RejectReason.SNACK_REJECT
    return None if sent else RejectReason.PROTOCOL_ERROR


def _status(phase: FullFeaturePhase, itt: int, _: int, first: int, count: int) -> RejectReason | None:
    """Responses again."""
    assert phase.unacknowledged is not None
    if itt != RESERVED_TAG:
        return RejectReason.INVALID_PDU_FIELD
    everything = not first and not count
    responses = phase.unacknowledged.run(first, count)
    for response in responses:
        phase.emit_again(response.bhs, response.data)
    return None if responses or everything else RejectReason.PROTOCOL_ERROR


def _data_ack(phase: FullFeaturePhase, _: int, tag: int, first: int, count: int) -> RejectReason | None:
    """Data-In before ``first`` has arrived: it need not be kept. What has been acknowledged otherwise is no fault."""
    assert phase.unacknowledged is not None
    if count:
        return RejectReason.INVALID_DATA_ACK
    for command in phase.unacknowledged.commands():
        data_in = command.data_in
        if data_in is not None and tag in data_in.tags:
            if not first <= len(data_in.pdus):
                return RejectReason.INVALID_DATA_ACK
            if first > data_in.acknowledged:
                phase.unacknowledged.data_acknowledged(command, first)
            return None
    return None if 0 < tag < phase.session.next_ttt else RejectReason.INVALID_DATA_ACK


def _r_data(phase: FullFeaturePhase, itt: int, tag: int, first: int, count: int) -> RejectReason | None:
    """All Data-In that is not acknowledged, cut for today's MaxRecvDataSegmentLength, and the response with the SNACK Tag."""
    assert phase.unacknowledged is not None
    if first or count or tag in {0, RESERVED_TAG}:
        return RejectReason.INVALID_PDU_FIELD
    command = _find(phase, itt)
    if command is None or not command.resend_all_data(tag):
        return RejectReason.PROTOCOL_ERROR
    response = phase.unacknowledged.renew(command)
    if response is not None:
        phase.emit(response.bhs, *response.data)
    return None


SNACKS: dict[int, Callable[[FullFeaturePhase, int, int, int, int], RejectReason | None]] = {
    SnackType.DATA_OR_R2T: _data_or_r2t,
    SnackType.STATUS: _status,
    SnackType.DATA_ACK: _data_ack,
    SnackType.R_DATA: _r_data,
}
"""By type (11.16.1): sends what is asked for, or says why it is rejected."""
