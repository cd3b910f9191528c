"""A session's way to the core: tasks, task management functions, and what the core's answers are in iSCSI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.target.task import Task, TaskAttribute
from tcm.target.task_management import TaskManagementFunction, TaskManagementRequest, TaskManagementResponse
from tcm.target.unit_attention import UnitAttention

if TYPE_CHECKING:
    from tcm.target.nexus import ITNexus
    from tcm.target.portal_group import TargetPortalGroup
    from tcm_iscsi.protocol.pdu import LogoutReason
    from tcm_iscsi.sessions import Registry

SOME_COMMANDS_CLEARED_BY_ISCSI_PROTOCOL_EVENT = UnitAttention(0x47, 0x7F, "SOME COMMANDS CLEARED BY ISCSI PROTOCOL EVENT")
"""RFC 7143 7.6."""
FUNCTIONS = {
    1: TaskManagementFunction.ABORT_TASK,
    2: TaskManagementFunction.ABORT_TASK_SET,
    3: TaskManagementFunction.CLEAR_ACA,
    4: TaskManagementFunction.CLEAR_TASK_SET,
    5: TaskManagementFunction.LOGICAL_UNIT_RESET,
    6: TaskManagementFunction.TARGET_WARM_RESET,
    7: TaskManagementFunction.TARGET_COLD_RESET,
}
"""RFC 7143 11.5.1."""
LEVEL_2_FUNCTIONS = {
    9: TaskManagementFunction.QUERY_TASK,
    10: TaskManagementFunction.QUERY_TASK_SET,
    11: TaskManagementFunction.I_T_NEXUS_RESET,
    12: TaskManagementFunction.QUERY_ASYNCHRONOUS_EVENT,
}
"""RFC 7144 4.2: only if iSCSIProtocolLevel 2 was negotiated."""
RESPONSES = {
    TaskManagementResponse.FUNCTION_COMPLETE: 0,
    TaskManagementResponse.TASK_DOES_NOT_EXIST: 1,
    TaskManagementResponse.LUN_DOES_NOT_EXIST: 2,
    TaskManagementResponse.NOT_SUPPORTED: 5,
    TaskManagementResponse.FUNCTION_SUCCEEDED: 7,
    TaskManagementResponse.FUNCTION_REJECTED: 255,
    TaskManagementResponse.SERVICE_DELIVERY_FAILURE: 255,
}
"""RFC 7143 11.6.1, RFC 7144 4.3."""
ATTRIBUTES = (
    TaskAttribute.UNTAGGED,
    TaskAttribute.SIMPLE,
    TaskAttribute.ORDERED,
    TaskAttribute.HEAD_OF_QUEUE,
    TaskAttribute.ACA,
    TaskAttribute.SIMPLE,
    TaskAttribute.SIMPLE,
    TaskAttribute.SIMPLE,
)
"""ATTR field; the reserved values are treated as SIMPLE (RFC 7143 11.3.1.1)."""


class Port:
    """A session's way to the core (:class:`tcm_iscsi.protocol.session.ScsiPort`)."""

    nexus: ITNexus

    def __init__(self, group: TargetPortalGroup, registry: Registry) -> None:
        self.group = group
        self.registry = registry
        self.level = 1

    def make_task(
        self, lun: bytes, itt: int, cdb: bytes, attribute: int, read_length: int, write_length: int, data: Any, context: Any
    ) -> Task:
        """See :class:`ScsiPort`."""
        return Task(self.nexus, lun, itt, cdb, ATTRIBUTES[attribute], read_length, write_length, data, context)

    def manage(self, function: int, lun: bytes, referenced_tag: int, context: Any) -> bool:
        """See :class:`ScsiPort`."""
        code = FUNCTIONS.get(function) or (LEVEL_2_FUNCTIONS.get(function) if self.level >= 2 else None)
        if code is None:
            return False
        self.nexus.manage(TaskManagementRequest(code, lun, referenced_tag, context))
        return True

    def managed(self, request: TaskManagementRequest) -> None:
        """A cold reset ends every session of the target (RFC 7143 11.5.1)."""
        if request.function is TaskManagementFunction.TARGET_COLD_RESET:
            self.registry.drop_sessions(self.group.target)

    def logout(self, reason: LogoutReason) -> None:
        """See :class:`ScsiPort`."""
        self.registry.counters.of(self.group.target.name).logouts[reason] += 1

    def terminate(self, tasks: list[Task], luns: set[bytes]) -> None:
        """See :class:`ScsiPort`."""
        self.nexus.abort(tasks)
        for lun in luns:
            itl = self.nexus.find_lun(lun)
            if itl is not None:
                itl.establish_attention(SOME_COMMANDS_CLEARED_BY_ISCSI_PROTOCOL_EVENT)

    def response_code(self, request: TaskManagementRequest) -> tuple[int, bytes]:
        """See :class:`ScsiPort`."""
        response = request.response or TaskManagementResponse.FUNCTION_REJECTED
        return RESPONSES[response], request.additional
