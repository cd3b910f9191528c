"""One target as an initiator has it: commands that it has been sent or that wait, and the frames to it (FCP-4 4.2, 9)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tcm_fcoe.protocol.fcoe import EOF_N, EOF_T, MAX_DATA_FIELD, SOF_I3, SOF_N3, encapsulate
from tcm_fcoe.protocol.fcp import TYPE_FCP, InformationUnit, ServiceParameters
from tcm_fcoe.protocol.frame import (
    F_CTL_END_SEQUENCE,
    F_CTL_FIRST_SEQUENCE,
    F_CTL_LAST_SEQUENCE,
    F_CTL_RELATIVE_OFFSET,
    F_CTL_REQUEST,
    F_CTL_SEQUENCE_INITIATIVE,
    HEADER,
    NO_EXCHANGE,
)

if TYPE_CHECKING:
    from tcm_fcoe.initiator.fcp_initiator import FcpInitiator
    from tcm_fcoe.initiator.tasks import FcpTask
    from tcm_fcoe.protocol.remote_port import RemotePort

_pack = HEADER.pack
FCP = TYPE_FCP << 24
COMMAND = FCP | F_CTL_REQUEST
"""TYPE and F_CTL of FCP_CMND; the initiative stays here if a first burst follows."""
COMMAND_AND_BURST = FCP | F_CTL_FIRST_SEQUENCE | F_CTL_END_SEQUENCE
DATA_GOES_ON = FCP | F_CTL_RELATIVE_OFFSET
DATA_ENDS = FCP | F_CTL_RELATIVE_OFFSET | F_CTL_END_SEQUENCE | F_CTL_SEQUENCE_INITIATIVE
CONFIRMATION = FCP | F_CTL_LAST_SEQUENCE | F_CTL_END_SEQUENCE | F_CTL_SEQUENCE_INITIATIVE


class TargetNexus:
    """A target that has accepted our PRLI, or sent its own.

    :param parameters: its PRLI flags.
    """

    __slots__ = (
        "agreed", "commands_sent", "d_id", "initiator", "max_payload", "outstanding", "parameters", "queue", "recovers",
        "remote", "s_id", "word_command", "word_confirmation", "word_data",
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
        self.max_payload = min(remote.max_frame, MAX_DATA_FIELD) & ~3
        self.word_command = InformationUnit.FCP_CMND << 24 | self.d_id
        self.word_data = InformationUnit.FCP_DATA << 24 | self.d_id
        self.word_confirmation = InformationUnit.FCP_CONF << 24 | self.d_id
        self.outstanding = 0
        """Commands that have an exchange."""
        self.queue: deque[FcpTask] = deque()
        """Those that wait for their turn."""
        self.commands_sent = 0

    def send_command(self, task: FcpTask) -> None:
        """FCP_CMND, and the first burst if it may come unasked."""
        initiator = self.initiator
        self.commands_sent = number = self.commands_sent + 1
        payload = task.payload(number % 255 + 1 if initiator.options.command_reference_numbers else 0)
        # so that an OX_ID that is used again does not look like the same command once more
        task.seq_id = seq_id = number & 0xFF
        burst = 0
        if task.write_length and self.agreed & ServiceParameters.WRITE_FCP_XFER_RDY_DISABLED:
            burst = min(task.write_length, initiator.options.first_burst)
        task.seq_cnt = 1
        prefix = self.remote.prefix
        if prefix is None:
            return  # as if it had been lost
        header = _pack(
            self.word_command, self.s_id, COMMAND_AND_BURST if burst else COMMAND, seq_id, 0, 0, task.ox_id, NO_EXCHANGE, 0
        )
        initiator.outbox.append(encapsulate(prefix, SOF_I3, header, payload, EOF_T))
        if burst:
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
        prefix = self.remote.prefix
        if prefix is None:
            return True
        append, data, size = self.initiator.outbox.append, task.data_out, self.max_payload
        word_0, s_id, seq_id, ox_id, rx_id = self.word_data, self.s_id, task.seq_id, task.ox_id, task.rx_id
        at, end, seq_cnt = task.burst_at, task.burst_end, task.seq_cnt
        stop = min(end, at + room * size)
        sof = SOF_N3 if seq_cnt else SOF_I3
        while at < stop:
            after = at + size
            if after < end:
                header = _pack(word_0, s_id, DATA_GOES_ON, seq_id, 0, seq_cnt & 0xFFFF, ox_id, rx_id, at)
                append(encapsulate(prefix, sof, header, data[at:after], EOF_N))
            else:
                header = _pack(word_0, s_id, DATA_ENDS | at - end & 3, seq_id, 0, seq_cnt & 0xFFFF, ox_id, rx_id, at)
                append(encapsulate(prefix, sof, header, data[at:end], EOF_T))
            sof = SOF_N3
            seq_cnt += 1
            at = after
        task.burst_at, task.seq_cnt = at, seq_cnt
        return at >= end

    def send_confirmation(self, task: FcpTask) -> None:
        """FCP_CONF, which ends the exchange."""
        prefix = self.remote.prefix
        if prefix is None:
            return
        task.seq_id = task.seq_id + 1 & 0xFF
        header = _pack(self.word_confirmation, self.s_id, CONFIRMATION, task.seq_id, 0, 0, task.ox_id, task.rx_id, 0)
        self.initiator.outbox.append(encapsulate(prefix, SOF_I3, header, b"", EOF_T))
