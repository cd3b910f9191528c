"""Requests of full feature phase other than commands and their data (RFC 7143 11.5, 11.10, 11.14, 11.16, 11.18)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from tcm_iscsi.protocol.pdu import (
    FINAL,
    LUN_NONE,
    NOP_IN,
    RESERVED_TAG,
    TASK_MANAGEMENT_RESPONSE,
    TEXT_RESPONSE,
    LogoutReason,
    LogoutResponse,
    Opcode,
    RejectReason,
    TaskManagementFunctionCode,
    TaskManagementResponseCode,
)
from tcm_iscsi.protocol.session import serial_less

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.target.task_management import TaskManagementRequest
    from tcm_iscsi.protocol.full_feature import FullFeaturePhase

BASIC = Struct(">BBxxI8sIIII").unpack_from
"""opcode, flags, lengths, LUN, ITT, bytes 20-23 (TTT, referenced task tag), CmdSN, ExpStatSN."""
OF_LOGICAL_UNIT = frozenset({2, 4, 5})
OF_TARGET = frozenset({6, 7})
"""Functions that abort more than one task (RFC 7143 4.2.3)."""
LOGOUT_RESPONSE = Struct(">BBBxI8xI4xIII4xHH4x").pack


def nop_out(phase: FullFeaturePhase, pdu: bytes, data: memoryview) -> None:
    """NOP-Out: the initiator's ping, or the answer to ours (RFC 7143 11.18)."""
    _, _, _, _, itt, ttt, _, _ = BASIC(pdu)
    if itt == RESERVED_TAG:
        if ttt == phase.ping:
            phase.ping = 0
        return
    echo = bytes(data[: phase.parameters.send_limit])
    session = phase.session
    phase.emit(
        NOP_IN.pack(
            Opcode.NOP_IN,
            FINAL,
            len(echo),
            LUN_NONE,
            itt,
            RESERVED_TAG,
            phase.next_stat_sn(),
            session.exp_cmd_sn,
            session.max_cmd_sn,
        ),
        echo,
    )


def task_management(phase: FullFeaturePhase, pdu: bytes, _: memoryview) -> None:
    """Task Management Function Request (RFC 7143 11.5)."""
    _, flags, _, lun, itt, referenced, cmd_sn, _ = BASIC(pdu)
    session = phase.session
    if session.port is None:
        phase.reject(RejectReason.PROTOCOL_ERROR, pdu[:48])
        return
    function = flags & 0x7F
    ref_cmd_sn = int.from_bytes(pdu[32:36], "big")
    context = TaskManagement(phase, itt)
    if function == TaskManagementFunctionCode.TASK_REASSIGN:  # needs ERL 2
        context.respond(TaskManagementResponseCode.TASK_ALLEGIANCE_REASSIGNMENT_NOT_SUPPORTED)
        return
    if session.managing >= session.depth:
        phase.reject(RejectReason.IMMEDIATE_COMMAND_REJECT, pdu[:48])
        return
    if function == TaskManagementFunctionCode.ABORT_TASK:
        command = session.commands.get(referenced)
        if command is None:
            # already done, or still on its way with a CmdSN before ours (RFC 7143 11.5.5)
            ahead = session.in_window(ref_cmd_sn) and serial_less(ref_cmd_sn, cmd_sn)
            done = ahead and ref_cmd_sn not in session.deferred
            if done:
                session.void(ref_cmd_sn)
                session.deliver_deferred()
        else:
            if command.lun == lun:
                command.forget()
            done = command.done
        if done:
            context.respond(TaskManagementResponseCode.FUNCTION_COMPLETE)
            return
    elif function in OF_LOGICAL_UNIT or function in OF_TARGET:
        for command in list(session.commands.values()):
            if (command.lun == lun or function in OF_TARGET) and (command.submitted or serial_less(command.cmd_sn, cmd_sn)):
                command.forget()
    session.managing += 1
    if not session.port.manage(function, lun, referenced, context):
        session.managing -= 1
        context.respond(TaskManagementResponseCode.FUNCTION_NOT_SUPPORTED)


def text_request(phase: FullFeaturePhase, pdu: bytes, data: memoryview) -> None:
    """Text Request (RFC 7143 11.10)."""
    _, flags, _, lun, itt, ttt, _, _ = BASIC(pdu)
    session = phase.session
    answer = phase.text.request(flags, itt, ttt, bytes(data))
    if answer.reject is not None:
        phase.reject(answer.reject, pdu[:48])
        return
    header = TEXT_RESPONSE.pack(
        Opcode.TEXT_RESPONSE,
        answer.flags,
        len(answer.data),
        lun,
        itt,
        answer.ttt,
        phase.next_stat_sn(),
        session.exp_cmd_sn,
        session.max_cmd_sn,
    )
    phase.emit(header, answer.data)
    if answer.initiator_max_recv_data_segment_length is not None:
        phase.parameters.initiator_max_recv_data_segment_length = answer.initiator_max_recv_data_segment_length
        phase.send_limit = min(phase.parameters.send_limit, session.parameters.max_burst_length)


def logout_request(phase: FullFeaturePhase, pdu: bytes, _: memoryview) -> None:
    """Logout Request (RFC 7143 11.14)."""
    _, flags, _, _, itt, _, _, _ = BASIC(pdu)
    cid = int.from_bytes(pdu[20:22], "big")
    session, reason = phase.session, flags & 0x7F
    response = LogoutResponse.CLOSED
    if reason == LogoutReason.CLOSE_CONNECTION and cid != phase.cid:
        response = LogoutResponse.CID_NOT_FOUND
    elif reason == LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY:
        response = LogoutResponse.RECOVERY_NOT_SUPPORTED
    elif reason > LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY:
        phase.reject(RejectReason.INVALID_PDU_FIELD, pdu[:48])
        return
    if response == LogoutResponse.CLOSED:
        phase.logout = reason
        phase.closing = True
        if session.port is not None:
            session.abort_commands(phase)
    p = session.parameters
    phase.emit(
        LOGOUT_RESPONSE(
            Opcode.LOGOUT_RESPONSE, FINAL, response, 0, itt, phase.next_stat_sn(), session.exp_cmd_sn, session.max_cmd_sn,
            p.default_time2wait, p.default_time2retain,
        )
    )  # fmt: skip


def snack(phase: FullFeaturePhase, pdu: bytes, _: memoryview) -> None:
    """SNACK needs ERL 1 (RFC 7143 11.16)."""
    phase.reject(RejectReason.SNACK_REJECT, pdu[:48])


class TaskManagement:
    """A task management function in progress."""

    __slots__ = ("connection", "itt")

    def __init__(self, connection: FullFeaturePhase, itt: int) -> None:
        self.connection = connection
        self.itt = itt

    def executed(self, request: TaskManagementRequest) -> None:
        """The core has answered."""
        self.connection.session.managing -= 1
        port = self.connection.session.port
        if port is not None:
            self.respond(*port.response_code(request))
            port.managed(request)

    def respond(self, response: int, additional: bytes = bytes(3)) -> None:
        """Task Management Function Response (RFC 7143 11.6)."""
        connection = self.connection
        session = connection.session
        if not connection.closed:
            connection.emit(
                TASK_MANAGEMENT_RESPONSE.pack(
                    Opcode.TASK_MANAGEMENT_RESPONSE,
                    FINAL,
                    response,
                    0,
                    additional,
                    self.itt,
                    connection.next_stat_sn(),
                    session.exp_cmd_sn,
                    session.max_cmd_sn,
                )
            )
            connection.wake()


REQUESTS: dict[int, Callable[[FullFeaturePhase, bytes, memoryview], None]] = {
    Opcode.NOP_OUT: nop_out,
    Opcode.TASK_MANAGEMENT_REQUEST: task_management,
    Opcode.TEXT_REQUEST: text_request,
    Opcode.LOGOUT_REQUEST: logout_request,
    Opcode.SNACK_REQUEST: snack,
}
