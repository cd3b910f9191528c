"""What the FCP target counts: plain integers, each named after what was counted."""

from __future__ import annotations


class FcpCounters:
    """Of one N_Port; :mod:`tcm_fcoe.statistics` reads them."""

    NAMES = (
        "commands", "express_reads", "express_writes", "task_management_functions", "responses", "transfer_readies",
        "data_in_bytes", "data_out_bytes", "data_frames_received", "duplicate_frames", "unexpected_frames", "invalid_commands",
        "refused_commands", "wrong_data", "sequence_errors", "stalled_transfers", "aborts", "confirmations", "recs", "srrs",
        "srrs_refused", "logins", "logins_refused", "logouts",
    )  # fmt: skip
    __slots__ = NAMES

    commands: int
    """FCP_CMND without task management flags."""
    express_reads: int
    express_writes: int
    task_management_functions: int
    responses: int
    """FCP_RSP sent."""
    transfer_readies: int
    """FCP_XFER_RDY sent."""
    data_in_bytes: int
    data_out_bytes: int
    data_frames_received: int
    duplicate_frames: int
    unexpected_frames: int
    """For exchanges that there are not, or data that nobody has asked for."""
    invalid_commands: int
    """FCP_CMND fields invalid."""
    refused_commands: int
    """TASK SET FULL or BUSY because the port has too many exchanges open."""
    wrong_data: int
    """FCP_DATA of another length or offset than asked for."""
    sequence_errors: int
    """Sequences of which frames have not come in time."""
    stalled_transfers: int
    """Commands given up because their data has not come for long."""
    aborts: int
    """ABTS for exchanges of ours."""
    confirmations: int
    """FCP_CONF received."""
    recs: int
    srrs: int
    srrs_refused: int
    logins: int
    logins_refused: int
    logouts: int

    def __init__(self) -> None:
        for name in self.NAMES:
            setattr(self, name, 0)
