"""How an exchange begins: FCP_CMND that is no READ for the express lane (FCP-4 9.2), and what is refused at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.sense import Sense, SenseKey, Status
from tcm_fcoe.protocol.fcp import (
    COMMAND_10,
    COMMAND_16,
    Command,
    FcpError,
    Response,
    ResponseCode,
    TaskAttribute,
    TaskManagementFlag,
)
from tcm_fcoe.protocol.fcp_exchange import Exchange, Management
from tcm_fcoe.protocol.fcp_nexus import EXCHANGES_LIMIT, GRANT_LIMIT

if TYPE_CHECKING:
    from tcm_fcoe.protocol.fcp_nexus import FcpNexus
    from tcm_fcoe.protocol.fcp_target import FcpTarget
    from tcm_fcoe.protocol.frame import Frame

PORT_EXCHANGES_LIMIT = 8192
"""Exchanges of all initiators of the port that may be open; more commands end in BUSY."""
RESERVED_EXCHANGES = 64
"""Exchanges that each initiator may have open, whatever the others do."""
OVERLAPPED = Sense(key=SenseKey.ABORTED_COMMAND, asc=0x4E, ascq=0x00)
_ATTRIBUTES = frozenset((TaskAttribute.SIMPLE, TaskAttribute.HEAD_OF_QUEUE, TaskAttribute.ORDERED, TaskAttribute.ACA, 5))
_FLAGS = frozenset(int(flag) for flag in TaskManagementFlag)
WRITE_10, WRITE_16 = 0x2A, 0x8A


def begin(target: FcpTarget, nexus: FcpNexus, frame: Frame, rx_id: int) -> None:
    """FCP_CMND of any kind, which has not come before."""
    counters = target.counters
    ox_id = frame.ox_id
    there = nexus.exchanges.get(ox_id)
    try:
        command = Command.unpack(frame.payload)
    except FcpError:
        _invalid(target, nexus, frame, rx_id)
        return
    if command.management:
        _manage(target, nexus, frame, rx_id, command)
        return
    nexus.cmd_ius += 1
    counters.commands += 1
    both = command.read_data and command.write_data
    if both or command.attribute not in _ATTRIBUTES:
        _invalid(target, nexus, frame, rx_id)
        return
    length = command.data_length
    exchange = Exchange(
        nexus,
        ox_id,
        rx_id,
        frame.seq_id,
        bytes(frame.payload),
        command.lun,
        length if command.write_data else 0,
        cdb=command.cdb,
        attribute=TaskAttribute.SIMPLE if command.attribute == TaskAttribute.UNTAGGED else command.attribute,
        priority=command.priority,
        read_length=length if command.read_data else 0,
    )
    if exchange.write_length and exchange.attribute == TaskAttribute.SIMPLE and there is None:
        exchange.lba, exchange.blocks = _ordinary_write(nexus, frame.payload, command)
    if there is not None:
        _overlapped(nexus, there, exchange)
        return
    limit = EXCHANGES_LIMIT if target.open_exchanges < PORT_EXCHANGES_LIMIT else RESERVED_EXCHANGES
    if len(nexus.exchanges) >= limit:
        _refuse(target, nexus, exchange)
        return
    nexus.keep(exchange)
    _start(target, nexus, exchange)


def _start(target: FcpTarget, nexus: FcpNexus, exchange: Exchange) -> None:
    """Where a new command goes first: data before the core, in line, or to the core."""
    length = exchange.write_length
    if exchange.attribute != TaskAttribute.SIMPLE and nexus.collecting:
        nexus.submit_collecting()
    if length and nexus in target.unsolicited:
        if length > GRANT_LIMIT or not nexus.data_out.has_room(length):
            # it comes unasked, so it cannot be told to wait
            nexus.forget(exchange)
            _refuse(target, nexus, exchange)
            return
        nexus.give(exchange, length, unsolicited=nexus.burst_sizes(exchange.lun).first or length)
        if exchange.attribute == TaskAttribute.SIMPLE:
            nexus.collecting[exchange.ox_id] = exchange
            return
    elif exchange.blocks:
        nexus.collecting[exchange.ox_id] = exchange
        exchange.want(length)
        return
    if not nexus.hold_back(exchange):
        exchange.submit()


def _ordinary_write(nexus: FcpNexus, payload: memoryview, command: Command) -> tuple[int, int]:
    """LBA and blocks of a WRITE (10) or (16) that may take the express lane; (0, 0) of others."""
    if len(payload) != 32 or nexus.backlog:
        return 0, 0
    op = payload[12]
    if op == WRITE_10:
        lun, _, _, _, _, bits, lba, group, blocks, control, length = COMMAND_10(payload)
    elif op == WRITE_16:
        lun, _, _, _, _, bits, lba, blocks, group, control, length = COMMAND_16(payload)
    else:
        return 0, 0
    itl = nexus.luns.get(lun)
    if bits or group or control or command.priority or itl is None or itl.express_write is None:
        return 0, 0
    return (lba, blocks) if length <= GRANT_LIMIT and blocks << itl.block_shift == length else (0, 0)


def _invalid(target: FcpTarget, nexus: FcpNexus, frame: Frame, rx_id: int) -> None:
    """FCP_CMND that cannot be, or asks for data both ways, which no command here wants (9.5.13)."""
    target.counters.invalid_commands += 1
    response = Response(code=ResponseCode.FCP_CMND_FIELDS_INVALID).pack()
    target.fresh[nexus.d_id << 16 | frame.ox_id] = bytes(frame.payload)
    nexus.put_response(frame.ox_id, rx_id, 1, response)


def _refuse(target: FcpTarget, nexus: FcpNexus, exchange: Exchange) -> None:
    """Too many exchanges: TASK SET FULL, or BUSY for who has none whose end could be waited for (SAM-5 5.3.1)."""
    target.counters.refused_commands += 1
    length = exchange.read_length or exchange.write_length
    status = Status.TASK_SET_FULL if nexus.exchanges else Status.BUSY
    exchange.response = Response(status=status, residual=length).pack()
    nexus.send_response(exchange)


def _overlapped(nexus: FcpNexus, there: Exchange | Management, exchange: Exchange) -> None:
    """An OX_ID that is in use: tasks of the I_T_L nexus are aborted, and this one is told so (SAM-5 5.11)."""
    nexus.submit_collecting()
    if there.done or there.abort():
        # nothing of it is left that the core could find
        nexus.keep(exchange)
        task = nexus.make_task(exchange, b"")
        exchange.task, exchange.submitted = task, True
        nexus.port.nexus.refuse(task, OVERLAPPED)
        return
    nexus.keep(exchange)
    exchange.submit()


def _manage(target: FcpTarget, nexus: FcpNexus, frame: Frame, rx_id: int, command: Command) -> None:
    """FCP_CMND with task management flags: one function, or none that is known (9.2.2.6)."""
    target.counters.task_management_functions += 1
    flag = command.management
    if flag not in _FLAGS:
        _invalid(target, nexus, frame, rx_id)
        return
    if frame.ox_id in nexus.exchanges or len(nexus.exchanges) >= EXCHANGES_LIMIT + 64:
        _invalid(target, nexus, frame, rx_id)
        return
    management = Management(nexus, frame, rx_id, command.lun, flag)
    nexus.keep(management)
    if flag == TaskManagementFlag.QUERY_TASK_SET:
        nexus.submit_collecting()  # for the core to find them; it asks for those that it aborts
    nexus.port.manage(flag, command.lun, management)
