"""One target as an initiator has it: commands that it has been sent or that wait, and the frames to it (FCP-4 4.2, 9)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3, encapsulate
from tcm_fcoe.protocol.fcp import TYPE_FCP, InformationUnit, ServiceParameters
from tcm_fcoe.protocol.fcp_frames import DATA_ENDS_AND_ASKS, FcpFrames
from tcm_fcoe.protocol.frame import (
    F_CTL_END_SEQUENCE,
    F_CTL_FIRST_SEQUENCE,
    F_CTL_LAST_SEQUENCE,
    F_CTL_REQUEST,
    F_CTL_SEQUENCE_INITIATIVE,
    NO_EXCHANGE,
    pack_header,
)

if TYPE_CHECKING:
    from tcm_fcoe.initiator.fcp_initiator import FcpInitiator
    from tcm_fcoe.initiator.tasks import FcpTask
    from tcm_fcoe.protocol.remote_port import RemotePort

FCP = TYPE_FCP << 24
COMMAND = FCP | F_CTL_REQUEST
"""TYPE and F_CTL of FCP_CMND; the initiative stays here if a first burst follows."""
COMMAND_AND_BURST = FCP | F_CTL_FIRST_SEQUENCE | F_CTL_END_SEQUENCE
F_CTL_MASK = 0xFFFFFF
LAST_IDENTIFIER = 0xFFFFFFFF
CONFIRMATION = FCP | F_CTL_LAST_SEQUENCE | F_CTL_END_SEQUENCE | F_CTL_SEQUENCE_INITIATIVE


class TargetNexus:
    """A target that has accepted our PRLI, or sent its own.

    :param parameters: its PRLI flags.
    """

    __slots__ = (
        "agreed", "commands_sent", "d_id", "first_burst", "frames", "initiator", "max_payload", "numbers", "outstanding",
        "parameters", "queue", "recovers", "remote", "s_id", "word_command", "word_confirmation",
    )  # fmt: skip

    def __init__(self, initiator: FcpInitiator, remote: RemotePort, parameters: int) -> None:
        self.initiator = initiator
        self.remote = remote
        self.d_id = remote.fc_id
        self.s_id = initiator.port.fc_id
        self.parameters = parameters
        self.agreed = parameters & initiator.service_parameters
        self.recovers = bool(self.agreed & ServiceParameters.RETRY)
        """REC and SRR may be used."""
        self.frames = FcpFrames(remote, self.s_id, responder=0, data_ends=DATA_ENDS_AND_ASKS)
        self.max_payload = self.frames.max_payload
        self.word_command = InformationUnit.FCP_CMND << 24 | self.d_id
        self.word_confirmation = InformationUnit.FCP_CONF << 24 | self.d_id
        self.outstanding = 0
        """Commands that have an exchange."""
        self.queue: deque[FcpTask] = deque()
        """Those that wait for their turn."""
        self.commands_sent = 0
        options = initiator.options
        self.numbers = options.command_reference_numbers
        self.first_burst = options.first_burst if self.agreed & ServiceParameters.WRITE_FCP_XFER_RDY_DISABLED else 0
        """Bytes of a write that may come unasked."""

    def send_command(self, task: FcpTask) -> None:
        """FCP_CMND, and the first burst if it may come unasked."""
        self.commands_sent = number = self.commands_sent + 1
        # so that an OX_ID that is used again does not look like the same command once more
        task.seq_id = seq_id = number & 0xFF
        burst = min(task.write_length, self.first_burst) if self.first_burst else 0
        task.seq_cnt = 1
        self.frames.put(
            self.initiator.outbox, self.word_command, COMMAND_AND_BURST if burst else COMMAND, seq_id, task.ox_id, NO_EXCHANGE,
            task.payload(number % 255 + 1 if self.numbers else 0),
        )  # fmt: skip
        if burst and self.remote.prefix is not None:  # or it is as if it had been lost
            self.begin_burst(task, 0, burst)

    def begin_burst(self, task: FcpTask, offset: int, length: int) -> None:
        """Send so much of the data, as the link takes it."""
        task.seq_id = task.seq_id + 1 & 0xFF
        task.seq_cnt = 0
        task.burst_at, task.burst_end = offset, offset + length
        initiator = self.initiator
        initiator.sending.append(task)
        if len(initiator.sending) == 1:
            initiator.resume(initiator.now)

    def send_data(self, task: FcpTask, room: int) -> bool:
        """At most ``room`` frames of FCP_DATA of the burst; whether that was all of it."""
        if self.remote.prefix is None:
            return True
        at, end = task.burst_at, task.burst_end
        after = min(end, at + room * self.max_payload)
        task.seq_cnt = self.frames.put_data(
            self.initiator.outbox, self.initiator.rooms, task.ox_id, task.rx_id, task.seq_id, task.seq_cnt, task.data_out, at,
            after, end,
        )  # fmt: skip
        task.burst_at = after
        return after >= end

    def send_confirmation(self, task: FcpTask) -> None:
        """FCP_CONF, which ends the exchange."""
        task.seq_id = seq_id = task.seq_id + 1 & 0xFF
        self.frames.put(self.initiator.outbox, self.word_confirmation, CONFIRMATION, seq_id, task.ox_id, task.rx_id, b"")


class IdentifyingNexus(TargetNexus):
    """A target that has agreed on task retry identification (FCP-4 4.7)."""

    __slots__ = ()

    def send_command(self, task: FcpTask) -> None:
        """The same, with an identifier in the Parameter field that no other command of this login has had lately."""
        self.commands_sent = number = self.commands_sent + 1
        task.seq_id = number & 0xFF
        task.seq_cnt = 1
        task.identifier = number % LAST_IDENTIFIER + 1
        prefix = self.remote.prefix
        if prefix is None:  # it is as if it had been lost
            return
        burst = min(task.write_length, self.first_burst)
        payload = task.payload(number % 255 + 1 if self.numbers else 0)
        f_ctl = (COMMAND_AND_BURST if burst else COMMAND) & F_CTL_MASK | -len(payload) & 3
        header = pack_header(
            InformationUnit.FCP_CMND, self.d_id, self.s_id, TYPE_FCP, f_ctl, task.seq_id, 0, 0, task.ox_id, NO_EXCHANGE,
            task.identifier,
        )  # fmt: skip
        self.initiator.outbox.append(encapsulate(prefix, SOF_I3, header, payload, EOF_T))
        if burst:
            self.begin_burst(task, 0, burst)


def nexus_with(initiator: FcpInitiator, remote: RemotePort, parameters: int) -> TargetNexus:
    """The target's, by what PRLI has agreed on; ``parameters`` are its flags."""
    agreed = parameters & initiator.service_parameters
    identifies = agreed & ServiceParameters.TASK_RETRY_IDENTIFICATION_REQUESTED
    return (IdentifyingNexus if identifies else TargetNexus)(initiator, remote, parameters)
