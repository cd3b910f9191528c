"""The express lane: an ordinary READ or WRITE (10) or (16) of a port that has room, without a task (FCP-4 4.2), and its data.

A READ is done and answered inside the call. A WRITE gets an exchange and FCP_XFER_RDY, and is done when its data is there
(:meth:`tcm_fcoe.protocol.fcp_exchange.Exchange.express_write`). What is not ordinary in any way goes the general way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm_fcoe.protocol.data_out import DataOut
from tcm_fcoe.protocol.fcoe import SOF_I3
from tcm_fcoe.protocol.fcp import (
    EXPRESS_10,
    EXPRESS_16,
    FCP_CMND_LENGTH,
    GOOD_RESPONSE,
    READ_DATA,
    WRITE_DATA,
)
from tcm_fcoe.protocol.fcp_answered import answered_by
from tcm_fcoe.protocol.fcp_command import PORT_EXCHANGES_LIMIT
from tcm_fcoe.protocol.fcp_exchange import Exchange
from tcm_fcoe.protocol.fcp_memory import USED_AGAIN
from tcm_fcoe.protocol.fcp_nexus import (
    EXCHANGES_LIMIT,
    GRANT_LIMIT,
    OUTBOX_LIMIT,
    READ_LIMIT,
)
from tcm_fcoe.protocol.frame import F_CTL_END_SEQUENCE, F_CTL_EXCHANGE_RESPONDER, F_CTL_RELATIVE_OFFSET, NO_EXCHANGE

if TYPE_CHECKING:
    from tcm_fcoe.protocol.fcp_nexus import FcpNexus
    from tcm_fcoe.protocol.fcp_target import FcpTarget
    from tcm_fcoe.protocol.remote_port import RemotePort

EXPRESS_LIMIT = 65536
"""Bytes of Data-In that are put into frames at once."""
_DIRECTIONS = {0x2800: READ_DATA, 0x8800: READ_DATA, 0x2A00: WRITE_DATA, 0x8A00: WRITE_DATA}
"""By operation code, and byte 1, in which no bit may be set."""
_SIXTEEN = 0x8000
"""Operation codes from here on are of CDBs of 16 bytes."""


def begin(
    target: FcpTarget,
    remote: RemotePort,
    payload: memoryview,
    sof: int,  # noqa: ARG001 - of data only
    f_ctl: int,
    seq_id: int,
    seq_cnt: int,  # noqa: ARG001 - likewise
    ox_id: int,
    rx_id: int,  # noqa: ARG001 - we give it
    parameter: int,  # noqa: ARG001 - no relative offset
    now: float,
) -> bool:
    """FCP_CMND, if it is for the express lane; False: nothing has happened."""
    if len(payload) != FCP_CMND_LENGTH or f_ctl & F_CTL_EXCHANGE_RESPONDER or ox_id == NO_EXCHANGE:
        return False
    lun, flags, op, lba, blocks, tail, length = EXPRESS_16(payload)
    wanted = _DIRECTIONS.get(op)
    if wanted is None:
        return False
    if op < _SIXTEEN:
        lun, flags, op, lba, group, blocks, control, length = EXPRESS_10(payload)
        tail = group | control
    nexus = target.nexuses.get(remote.fc_id)
    if nexus is None or flags & 0xFFFFFF != wanted or tail or not blocks or ox_id in nexus.exchanges or nexus.backlog:
        return False
    itl = nexus.luns.get(lun)
    if itl is None or blocks << itl.block_shift != length:
        return False
    if wanted == READ_DATA:
        if itl.express_read is None or length > READ_LIMIT or (target.data_in.used and not nexus.data_in.has_room(length)):
            return False
    elif (
        itl.express_write is None
        or length > GRANT_LIMIT
        or nexus.grant_queue
        or not nexus.data_out.has_room(length)
        or len(nexus.exchanges) >= EXCHANGES_LIMIT
        or target.open_exchanges >= PORT_EXCHANGES_LIMIT
        or nexus in target.unsolicited
    ):
        return False
    if now != target.now:
        target.begin_batch(now)
    command, answered = bytes(payload), nexus.answered
    known = ox_id in answered.young or ox_id in answered.old or ox_id in answered.unconfirmed or ox_id in answered.exchanges
    if (known and answered.repeats(ox_id, command, target.batch)) or (
        target.fresh and target.fresh.get(nexus.d_id << 16 | ox_id) == command
    ):
        target.counters.duplicate_frames += 1
        return True
    if wanted == READ_DATA:
        if not nexus.watched:
            target.watch(nexus)
        view = target.buffers.take(length) if length >= USED_AGAIN else memoryview(bytearray(length))
        if not itl.express_read(lba, blocks, (view,)):  # type: ignore[misc]  # seen above
            target.buffers.give_back(view)
            return False
        if known:
            answered.release(ox_id)
        _answer_read(target, nexus, ox_id, seq_id, command, lun, view)
    else:
        if known:
            answered.release(ox_id)
        target.receiving = True
        try:
            _begin_write(target, nexus, Exchange(nexus, ox_id, target.take_rx_id(), seq_id, command, lun, length, lba, blocks))
        finally:
            target.receiving = False
    return True


def _answer_read(
    target: FcpTarget, nexus: FcpNexus, ox_id: int, seq_id: int, command: bytes, lun: bytes, data: memoryview
) -> None:
    """FCP_DATA and FCP_RSP: at once if that is not much, or as the link takes them."""
    length = len(data)
    rx_id = target.next_rx_id
    target.next_rx_id = rx_id + 1 if rx_id < 0xFFFE else 0
    counters = target.counters
    counters.commands += 1
    counters.express_reads += 1
    counters.data_in_bytes += length
    nexus.cmd_ius += 1
    nexus.tx_bytes += length
    outbox = target.outbox
    if length > target.express_limit or nexus.bursts or target.sending or len(outbox) > OUTBOX_LIMIT:
        target.fresh[nexus.d_id << 16 | ox_id] = command
        exchange = Exchange(nexus, ox_id, rx_id, seq_id, command, lun)
        exchange.submitted = exchange.borrowed = True
        exchange.data_in = data
        exchange.response = GOOD_RESPONSE
        exchange.reading = length
        nexus.data_in.take(length)
        nexus.keep(exchange)
        target.sending.append(exchange)
        target.pump()
        return
    counters.responses += 1
    nexus.rsp_ius += 1
    nexus.frames.put_read(outbox, target.rooms, ox_id, rx_id, data)
    if length < USED_AGAIN and nexus.retries:
        nexus.answered.remember_read(ox_id, rx_id, data, target.now, command, target.batch)
        return
    target.fresh[nexus.d_id << 16 | ox_id] = command
    if nexus.retries:
        answered = answered_by((rx_id, length, GOOD_RESPONSE, 3, target.now, command, True))
        nexus.answered.remember(ox_id, answered, data, confirmed=False)
    else:
        target.buffers.give_back(data)


def _begin_write(target: FcpTarget, nexus: FcpNexus, exchange: Exchange) -> None:
    """Memory for its data, and FCP_XFER_RDY."""
    target.counters.commands += 1
    nexus.cmd_ius += 1
    ox_id, length = exchange.ox_id, exchange.write_length
    target.open_exchanges += 1
    nexus.exchanges[ox_id] = nexus.collecting[ox_id] = exchange
    exchange.wanted = exchange.granted = length
    nexus.data_out.take(length)
    burst = min(length, (nexus.burst_sizes(exchange.lun) if nexus.bursts else target.burst_sizes).maximum or length)
    exchange.data_out = data_out = DataOut(length, view=target.buffers.take(length))
    data_out.burst_end, data_out.active, data_out.since = burst, True, target.now
    nexus.send_transfer_ready(exchange, 0, burst)


def receive_data(
    target: FcpTarget,
    remote: RemotePort,
    payload: memoryview,
    sof: int,
    f_ctl: int,
    seq_id: int,
    seq_cnt: int,
    ox_id: int,
    rx_id: int,
    offset: int,
    now: float,
) -> bool:
    """FCP_DATA that continues where the last one ended, of what was asked for; False: nothing has happened.

    It does what :meth:`tcm_fcoe.protocol.data_out.DataOut.receive` does with such a frame.
    """
    nexus = target.nexuses.get(remote.fc_id)
    if nexus is None:
        return False
    exchange = nexus.exchanges.get(ox_id)
    if exchange is None or exchange.rx_id != rx_id:
        return False
    data_out = exchange.data_out
    if (
        data_out is None
        or offset != data_out.filled
        or not data_out.active
        or data_out.islands
        or exchange.discarding  # type: ignore[union-attr]  # a task management function has no data
        or f_ctl & (F_CTL_RELATIVE_OFFSET | F_CTL_EXCHANGE_RESPONDER) != F_CTL_RELATIVE_OFFSET
    ):
        return False
    ends = f_ctl & F_CTL_END_SEQUENCE
    size = len(payload)
    end = offset + size
    if end > data_out.burst_end or (ends and (end != data_out.burst_end or exchange.wanted < 0)) or data_out.ended:  # type: ignore[union-attr]  # likewise
        return False
    if seq_id != data_out.seq_id:
        if data_out.seq_id >= 0 or seq_id == data_out.void:
            return False
        data_out.seq_id = seq_id
    data_out.view[offset:end] = payload
    data_out.filled = end
    data_out.frames += 1
    if now != target.now:
        target.begin_batch(now)
    data_out.since = now
    target.counters.data_frames_received += 1
    nexus.rx_bytes += size
    if sof == SOF_I3:
        data_out.first_count = seq_cnt
    if ends:
        data_out.ended = True
        data_out.last_count = seq_cnt
        data_out.active = False
        target.counters.data_out_bytes += end - data_out.burst_start
        target.receiving = True
        try:
            exchange.advance()  # type: ignore[union-attr]  # likewise
        finally:
            target.receiving = False
    return True


def confirm(
    target: FcpTarget,
    remote: RemotePort,
    payload: memoryview,  # noqa: ARG001 - there is none
    sof: int,  # noqa: ARG001 - of data only
    f_ctl: int,  # noqa: ARG001 - likewise
    seq_id: int,  # noqa: ARG001 - likewise
    seq_cnt: int,  # noqa: ARG001 - likewise
    ox_id: int,
    rx_id: int,  # noqa: ARG001 - the OX_ID is not used again before
    parameter: int,  # noqa: ARG001 - of data only
    now: float,  # noqa: ARG001 - nothing is kept
) -> bool:
    """FCP_CONF of an exchange that has been answered; False: nothing has happened."""
    nexus = target.nexuses.get(remote.fc_id)
    if nexus is None or ox_id in nexus.exchanges:
        return False
    answered = nexus.answered
    # what has no data has nothing to give back
    plain = ox_id not in answered.data and answered.exchanges.pop(ox_id, None) is not None
    if not plain and not answered.release(ox_id):
        return False
    target.counters.confirmations += 1
    return True
