"""Requests of full feature phase other than commands and their data (RFC 7143 11.5, 11.10, 11.14, 11.18)."""

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
from tcm_iscsi.protocol.serial import serial_less
from tcm_iscsi.protocol.snack import snack
from tcm_iscsi.protocol.unacknowledged import KEPT_RESPONSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.target.task_management import TaskManagementRequest
    from tcm_iscsi.protocol.full_feature import FullFeaturePhase
    from tcm_iscsi.protocol.session import Session

BASIC = Struct(">BBxxI8sIIII").unpack_from
"""opcode, flags, lengths, LUN, ITT, bytes 20-23 (TTT, referenced task tag), CmdSN, ExpStatSN."""
OF_LOGICAL_UNIT = frozenset({2, 4, 5})
OF_TARGET = frozenset({6, 7})
"""Functions that abort more than one task (RFC 7143 4.2.3)."""
MULTI_TASK = OF_LOGICAL_UNIT | OF_TARGET | {11}
TASK_MANAGEMENT = Struct(">16xIII").unpack_from
"""ITT, Referenced Task Tag, CmdSN."""
LOGOUT_RESPONSE = Struct(">BBBxI8xI4xIII4xHH4x").pack


def nop_out(phase: FullFeaturePhase, pdu: bytes, data: memoryview) -> None:
    """NOP-Out: the initiator's ping, or the answer to ours (RFC 7143 11.18)."""
    _, _, _, _, itt, ttt, _, _ = BASIC(pdu)
    phase.session.nops_received += 1
    if itt == RESERVED_TAG:
        if ttt == phase.ping:
            phase.ping = 0
        return
    echo = bytes(data[: phase.parameters.send_limit])
    session = phase.session
    session.nops_sent += 1
    phase.emit_status(
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
    flags, lun, itt, referenced, cmd_sn = pdu[1], pdu[8:16], *TASK_MANAGEMENT(pdu)
    session = phase.session
    if session.port is None:
        phase.reject(RejectReason.PROTOCOL_ERROR, pdu[:48])
        return
    function = flags & 0x7F
    context = TaskManagement(phase, itt, function)
    if function == TaskManagementFunctionCode.TASK_REASSIGN:
        exp_data_sn = int.from_bytes(pdu[36:40], "big")
        if phase.unacknowledged is None or not phase.unacknowledged.full:
            context.reassign(referenced, exp_data_sn)
        elif len(phase.reassignments) < KEPT_RESPONSES:
            phase.reassignments.append(lambda: context.reassign(referenced, exp_data_sn))
            phase.solicit()
        else:
            phase.reject(RejectReason.IMMEDIATE_COMMAND_REJECT, pdu[:48])
        return
    if session.managing >= session.depth:
        phase.reject(RejectReason.IMMEDIATE_COMMAND_REJECT, pdu[:48])
        return
    session.managing += 1
    if function == TaskManagementFunctionCode.ABORT_TASK:
        context.abort_task(lun, referenced, cmd_sn, int.from_bytes(pdu[32:36], "big"))
    elif function in OF_LOGICAL_UNIT or function in OF_TARGET:
        if function in OF_TARGET:  # what has not arrived need not be waited for (4.2.3.3)
            session.plug(cmd_sn)
        session.once_arrived(cmd_sn, lambda: context.abort_tasks(lun, cmd_sn))
        session.deliver_deferred()
    else:
        context.manage(lun, referenced)


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
    phase.emit_status(header, answer.data)
    if answer.max_recv_data_segment_length is not None:
        phase.parameters.max_recv_data_segment_length = answer.max_recv_data_segment_length
        # what is on its way already may be as long as it was allowed to be
        phase.max_segment = max(phase.max_segment, answer.max_recv_data_segment_length)
    if answer.initiator_max_recv_data_segment_length is not None:
        phase.parameters.initiator_max_recv_data_segment_length = answer.initiator_max_recv_data_segment_length
        phase.limit_sending()


def logout_request(phase: FullFeaturePhase, pdu: bytes, _: memoryview) -> None:
    """Logout Request (RFC 7143 11.14)."""
    _, flags, _, _, itt, _, _, _ = BASIC(pdu)
    cid = int.from_bytes(pdu[20:22], "big")
    session, reason = phase.session, flags & 0x7F
    leave = LOGOUTS.get(reason)
    if leave is None:
        phase.reject(RejectReason.INVALID_PDU_FIELD, pdu[:48])
        return
    if session.port is not None:
        session.port.logout(LogoutReason(reason))
    leaving: list[FullFeaturePhase] = []
    response = leave(session, cid, leaving)
    p = session.parameters
    phase.emit_status(
        LOGOUT_RESPONSE(
            Opcode.LOGOUT_RESPONSE, FINAL, response, 0, itt, phase.next_stat_sn(), session.exp_cmd_sn, session.max_cmd_sn,
            p.default_time2wait, p.default_time2retain,
        )
    )  # fmt: skip
    for connection in leaving:
        connection.logout = reason
        connection.closing = True
        if connection is not phase:
            connection.wake()


def _close_session(session: Session, _: int, leaving: list[FullFeaturePhase]) -> LogoutResponse:
    """All connections, those that are lost too; their tasks end with them."""
    for lost in list(session.lost):
        session.give_up(lost)
    leaving.extend(session.connections.values())
    for connection in leaving:
        session.terminate(connection)
    return LogoutResponse.CLOSED


def _close_connection(session: Session, cid: int, leaving: list[FullFeaturePhase]) -> LogoutResponse:
    """One connection, be it this one, another, or one that is lost; its tasks end with it."""
    found = [lost for lost in session.lost if lost.cid == cid]
    for lost in found:
        session.give_up(lost)
    connection = session.connections.get(cid)
    if connection is not None:
        leaving.append(connection)
        session.terminate(connection)
    return LogoutResponse.CLOSED if found or leaving else LogoutResponse.CID_NOT_FOUND


def _remove_for_recovery(session: Session, cid: int, leaving: list[FullFeaturePhase]) -> LogoutResponse:
    """One connection, whose tasks may be reassigned from now on."""
    if session.parameters.error_recovery_level < 2:
        return LogoutResponse.RECOVERY_NOT_SUPPORTED
    connection = session.connections.get(cid)
    if connection is not None:
        leaving.append(connection)
    return LogoutResponse.CLOSED if session.remove_for_recovery(cid) else LogoutResponse.CID_NOT_FOUND


LOGOUTS: dict[int, Callable[[Session, int, list[FullFeaturePhase]], LogoutResponse]] = {
    LogoutReason.CLOSE_SESSION: _close_session,
    LogoutReason.CLOSE_CONNECTION: _close_connection,
    LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY: _remove_for_recovery,
}
"""By reason (RFC 7143 11.14.1): what it does, and the connections that are to be closed."""


class TaskManagement:
    """A task management function in progress."""

    __slots__ = ("connection", "function", "itt")

    def __init__(self, connection: FullFeaturePhase, itt: int, function: int) -> None:
        self.connection = connection
        self.itt = itt
        self.function = function

    def abort_task(self, lun: bytes, referenced: int, cmd_sn: int, ref_cmd_sn: int) -> None:
        """ABORT TASK: of a task there is, or of one that is still on its way (RFC 7143 11.5.5)."""
        session = self.connection.session
        command = session.commands.get(referenced)
        if command is None:
            done = session.in_window(ref_cmd_sn) and serial_less(ref_cmd_sn, cmd_sn) and ref_cmd_sn not in session.deferred
            if done:
                session.void(ref_cmd_sn)
                session.deliver_deferred()
        else:
            if command.lun == lun:
                command.forget()
            done = command.done
        if done:
            session.managing -= 1
            self.respond(TaskManagementResponseCode.FUNCTION_COMPLETE)
        else:
            self.manage(lun, referenced)

    def abort_tasks(self, lun: bytes, cmd_sn: int) -> None:
        """A function of a whole logical unit or target: what the core has not seen yet, and what it has."""
        for command in list(self.connection.session.commands.values()):
            affected = command.lun == lun or self.function in OF_TARGET
            if affected and (command.submitted or serial_less(command.cmd_sn, cmd_sn)):
                command.forget()
        self.manage(lun, RESERVED_TAG)

    def manage(self, lun: bytes, referenced: int) -> None:
        """To the core."""
        session = self.connection.session
        assert session.port is not None
        session.issuing = self.connection
        if not session.port.manage(self.function, lun, referenced, self):
            self._carried_out()
            session.managing -= 1
            self.respond(TaskManagementResponseCode.FUNCTION_NOT_SUPPORTED)

    def executed(self, request: TaskManagementRequest) -> None:
        """The core has answered."""
        session = self._carried_out()
        port = session.port
        if port is None:
            return
        response, additional = port.response_code(request)
        others = [c for c in session.connections.values() if c is not self.connection]
        fenced = self.function in MULTI_TASK and session.parameters.task_reporting != "RFC3720"
        marks = [(c, c.stat_sn) for c in others if fenced and serial_less(c.exp_stat_sn, c.stat_sn)]

        def go() -> bool:
            """The initiator has all responses that went before by other connections (4.2.2.3.3)."""
            if any(not c.closed and serial_less(c.exp_stat_sn, mark) for c, mark in marks):
                return False
            session.managing -= 1
            self.respond(response, additional)
            port.managed(request)
            return True

        for connection, _ in marks:
            connection.solicit()
            connection.wake()
        session.fence(go)

    def _carried_out(self) -> Session:
        session = self.connection.session
        if session.issuing is self.connection:
            session.issuing = None
        return session

    def reassign(self, referenced: int, exp_data_sn: int) -> None:
        """TASK REASSIGN (7.2.2), which has no LUN (11.5.3): the response goes before what the task still has to send."""
        phase = self.connection
        session = phase.session
        if session.parameters.error_recovery_level < 2:
            self.respond(TaskManagementResponseCode.TASK_ALLEGIANCE_REASSIGNMENT_NOT_SUPPORTED)
            return
        command = session.commands.get(referenced) or session.find_unacknowledged(referenced)
        lost = session.lost.get(command.connection) if command is not None else None
        if command is None or (lost is None and command.connection.closed):  # its time is over, if not its end
            self.respond(TaskManagementResponseCode.TASK_DOES_NOT_EXIST)
            return
        if lost is None or not lost.released:
            self.respond(TaskManagementResponseCode.TASK_STILL_ALLEGIANT)
            return
        self.respond(TaskManagementResponseCode.FUNCTION_COMPLETE)
        lost.take(command)
        command.reassign(phase, exp_data_sn)
        session.settle(lost)

    def respond(self, response: int, additional: bytes = bytes(3)) -> None:
        """Task Management Function Response (RFC 7143 11.6)."""
        connection = self.connection
        session = connection.session
        if not connection.closed:
            connection.emit_status(
                TASK_MANAGEMENT_RESPONSE.pack(
                    Opcode.TASK_MANAGEMENT_RESPONSE, FINAL, response, 0, additional, self.itt, connection.next_stat_sn(),
                    session.exp_cmd_sn, session.max_cmd_sn,
                )
            )  # fmt: skip
            connection.wake()


REQUESTS: dict[int, Callable[[FullFeaturePhase, bytes, memoryview], None]] = {
    Opcode.NOP_OUT: nop_out,
    Opcode.TASK_MANAGEMENT_REQUEST: task_management,
    Opcode.TEXT_REQUEST: text_request,
    Opcode.LOGOUT_REQUEST: logout_request,
    Opcode.SNACK_REQUEST: snack,
}
