"""An FCP nexus's way to the core: tasks, task management functions, and what the core's answers are in FCP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.target.latency import ExpressTimer
from tcm.target.task import Task, TaskAttribute
from tcm.target.task_management import TaskManagementFunction, TaskManagementRequest, TaskManagementResponse
from tcm_fcoe.protocol.fcp import ResponseCode, TaskManagementFlag
from tcm_fcoe.protocol.fcp import TaskAttribute as FcpAttribute

if TYPE_CHECKING:
    from tcm.target.nexus import ITNexus
    from tcm.target.portal_group import TargetPortalGroup

FUNCTIONS = {
    TaskManagementFlag.QUERY_TASK_SET: TaskManagementFunction.QUERY_TASK_SET,
    TaskManagementFlag.ABORT_TASK_SET: TaskManagementFunction.ABORT_TASK_SET,
    TaskManagementFlag.CLEAR_TASK_SET: TaskManagementFunction.CLEAR_TASK_SET,
    TaskManagementFlag.QUERY_ASYNCHRONOUS_EVENT: TaskManagementFunction.QUERY_ASYNCHRONOUS_EVENT,
    TaskManagementFlag.LOGICAL_UNIT_RESET: TaskManagementFunction.LOGICAL_UNIT_RESET,
    TaskManagementFlag.TARGET_RESET: TaskManagementFunction.TARGET_WARM_RESET,
    TaskManagementFlag.CLEAR_ACA: TaskManagementFunction.CLEAR_ACA,
}
"""FCP-4 9.2.2.6. ABORT TASK is ABTS, QUERY TASK is REC, I_T NEXUS RESET is a new PRLI."""
RESPONSES = {
    TaskManagementResponse.FUNCTION_COMPLETE: ResponseCode.TASK_MANAGEMENT_FUNCTION_COMPLETE,
    TaskManagementResponse.TASK_DOES_NOT_EXIST: ResponseCode.TASK_MANAGEMENT_FUNCTION_COMPLETE,
    TaskManagementResponse.LUN_DOES_NOT_EXIST: ResponseCode.TASK_MANAGEMENT_FUNCTION_INCORRECT_LUN,
    TaskManagementResponse.NOT_SUPPORTED: ResponseCode.TASK_MANAGEMENT_FUNCTION_REJECTED,
    TaskManagementResponse.FUNCTION_SUCCEEDED: ResponseCode.TASK_MANAGEMENT_FUNCTION_SUCCEEDED,
    TaskManagementResponse.FUNCTION_REJECTED: ResponseCode.TASK_MANAGEMENT_FUNCTION_REJECTED,
    TaskManagementResponse.SERVICE_DELIVERY_FAILURE: ResponseCode.TASK_MANAGEMENT_FUNCTION_FAILED,
}
"""FCP-4 9.5.13."""
ATTRIBUTES = {
    FcpAttribute.SIMPLE: TaskAttribute.SIMPLE,
    FcpAttribute.HEAD_OF_QUEUE: TaskAttribute.HEAD_OF_QUEUE,
    FcpAttribute.ORDERED: TaskAttribute.ORDERED,
    FcpAttribute.ACA: TaskAttribute.ACA,
}
"""FCP-4 9.2.2.5."""


class Port:
    """A nexus's way to the core (:class:`tcm_fcoe.protocol.fcp_nexus.ScsiPort`)."""

    nexus: ITNexus

    def __init__(self, group: TargetPortalGroup) -> None:
        self.group = group

    def make_timer(self) -> ExpressTimer:
        """See :class:`ScsiPort`."""
        return ExpressTimer(self.nexus)

    def make_task(
        self,
        lun: bytes,
        tag: int,
        cdb: bytes,
        attribute: int,
        priority: int,
        read_length: int,
        write_length: int,
        data: Any,
        context: Any,
    ) -> Task:
        """See :class:`ScsiPort`."""
        sam = ATTRIBUTES[FcpAttribute(attribute)]
        return Task(self.nexus, lun, tag, cdb, sam, read_length, write_length, data, context, priority)

    def manage(self, flag: int, lun: bytes, context: Any) -> None:
        """See :class:`ScsiPort`."""
        self.nexus.manage(TaskManagementRequest(FUNCTIONS[TaskManagementFlag(flag)], lun, context=context))

    def abort_task(self, lun: bytes, tag: int, context: Any) -> None:
        """See :class:`ScsiPort`."""
        self.nexus.manage(TaskManagementRequest(TaskManagementFunction.ABORT_TASK, lun, tag, context))

    def response_code(self, request: TaskManagementRequest) -> tuple[int, bytes]:
        """See :class:`ScsiPort`."""
        response = request.response or TaskManagementResponse.FUNCTION_REJECTED
        return RESPONSES[response], request.additional
