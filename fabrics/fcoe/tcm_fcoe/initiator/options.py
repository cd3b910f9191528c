"""What an FCP initiator offers, and when it loses patience."""

from __future__ import annotations

from dataclasses import dataclass

from tcm_fcoe.protocol.fcp import ServiceParameters

QUEUE_DEPTH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Of lost frames (FCP-4 clause 12). Seconds."""

    rec_timeout: float = 3.0
    """REC_TOV: an exchange without a frame for this long makes the initiator ask (REC); at least E_D_TOV and a second by the
    standard, less where the link is known to be short."""
    gap_timeout: float = 0.05
    """FCP_RSP is there but data is missing: how long late frames are waited for before they are asked for (SRR)."""
    command_timeout: float = 60.0
    """A command that has no response after this is aborted, and fails. 0: never."""
    attempts: int = 16
    """REC and SRR in a row that bring nothing new; then the exchange is aborted."""
    retries: int = 4
    """How often a command is sent again in a new exchange after its old one was aborted or never arrived."""
    repeat: bool = False
    """That too if the target had begun it, and it does more than read. No: it fails, because only its sender knows whether it
    may be done twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Of one initiator port."""

    function: bool = True
    """Be an FCP initiator: log in to every target. No: an N_Port that does no FCP, and logs in to whom it is told only."""
    confirm: bool = True
    """Offer confirmed completion (FCP_CONF)."""
    retry: bool = True
    """Offer sequence level recovery (REC and SRR)."""
    first_burst: int = 0
    """Bytes of a write that are sent without waiting for FCP_XFER_RDY, where the target allows that; 0: none, and it is not
    offered. No more than the FIRST BURST SIZE of the target's disconnect-reconnect mode page."""
    task_retry_identification: bool = False
    """Ask for it (FCP-4 4.7): FCP_CMND, REC and SRR of a command have a number in their Parameter field, where the target
    agrees."""
    command_reference_numbers: bool = True
    """Number the commands from 1 to 255 (CRN, FCP-4 9.2.2.2), so that a target can tell one that comes twice from a new one."""
    queue_depth: int = QUEUE_DEPTH
    """Commands that one target has at a time; more wait."""
    recovery: Recovery = Recovery()

    def service_parameters(self) -> int:
        """What PRLI offers (FCP-4 6.3.2)."""
        if not self.function:
            return 0
        flags = ServiceParameters.INITIATOR_FUNCTION | ServiceParameters.READ_FCP_XFER_RDY_DISABLED
        if self.confirm:
            flags |= ServiceParameters.CONFIRMED_COMPLETION_ALLOWED
        if self.retry:
            flags |= ServiceParameters.RETRY | ServiceParameters.REC_SUPPORT
        if self.task_retry_identification:
            flags |= ServiceParameters.TASK_RETRY_IDENTIFICATION_REQUESTED
        if self.first_burst:
            flags |= ServiceParameters.WRITE_FCP_XFER_RDY_DISABLED
        return int(flags)
