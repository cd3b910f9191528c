"""Task management functions (SAM-5 clause 7): what a fabric asks for and what it is told."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class TaskManagementFunction(enum.Enum):
    """SAM-5 table 50, and iSCSI's two target resets."""

    ABORT_TASK = "ABORT TASK"
    ABORT_TASK_SET = "ABORT TASK SET"
    CLEAR_ACA = "CLEAR ACA"
    CLEAR_TASK_SET = "CLEAR TASK SET"
    LOGICAL_UNIT_RESET = "LOGICAL UNIT RESET"
    TARGET_WARM_RESET = "TARGET WARM RESET"
    TARGET_COLD_RESET = "TARGET COLD RESET"
    I_T_NEXUS_RESET = "I_T NEXUS RESET"
    QUERY_TASK = "QUERY TASK"
    QUERY_TASK_SET = "QUERY TASK SET"
    QUERY_ASYNCHRONOUS_EVENT = "QUERY ASYNCHRONOUS EVENT"


class TaskManagementResponse(enum.Enum):
    """Service responses (SAM-5 7.1)."""

    FUNCTION_COMPLETE = "FUNCTION COMPLETE"
    FUNCTION_SUCCEEDED = "FUNCTION SUCCEEDED"
    FUNCTION_REJECTED = "FUNCTION REJECTED"
    TASK_DOES_NOT_EXIST = "task does not exist"
    """FUNCTION COMPLETE to SAM; iSCSI and others tell it apart."""
    LUN_DOES_NOT_EXIST = "INCORRECT LOGICAL UNIT NUMBER"
    NOT_SUPPORTED = "FUNCTION REJECTED: not supported"
    SERVICE_DELIVERY_FAILURE = "SERVICE DELIVERY OR TARGET FAILURE"


@dataclass(slots=True, eq=False)
class TaskManagementRequest:
    """One task management function on its way through the target.

    Set by the fabric: function, lun, tag, context. Set by the core: response, additional.
    """

    function: TaskManagementFunction
    lun: bytes = bytes(8)
    """8 bytes; ignored by the functions that concern the whole nexus or target."""
    tag: int = 0
    """The task that ABORT TASK and QUERY TASK refer to."""
    context: Any = None
    """The fabric's own; the core never looks at it."""
    response: TaskManagementResponse | None = None
    additional: bytes = bytes(3)
    """Additional response information of QUERY ASYNCHRONOUS EVENT (SAM-5 7.10)."""
