"""What an FCP initiator counts."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class InitiatorCounters:
    """Plain integers, each named after what was counted."""

    commands: int = 0
    responses: int = 0
    data_in_bytes: int = 0
    data_out_bytes: int = 0
    transfer_readies: int = 0
    confirmations: int = 0
    out_of_order_frames: int = 0
    """FCP_DATA that did not continue where the last one had ended."""
    duplicate_frames: int = 0
    unexpected_frames: int = 0
    """For exchanges that there are not, or that they have no use for."""
    wrong_frames: int = 0
    """Frames that FCP-4 does not allow; their command is aborted."""
    recs: int = 0
    srrs: int = 0
    aborts: int = 0
    retries: int = 0
    logins: int = 0
    logouts: int = 0

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}
