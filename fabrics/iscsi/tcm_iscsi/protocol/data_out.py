"""Data-Out of one command: unsolicited, then what R2Ts ask for, and what is asked for again (RFC 7143 7.2, 11.7, 11.8).

At ERL 0 data that is lost or not what was agreed fails the command. Above, what is missing at the end of a sequence, or when
nothing has come for a while, is asked for by recovery R2Ts.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from typing import TYPE_CHECKING, Any

from tcm.scsi.sense import Sense, SenseKey
from tcm_iscsi.protocol.pdu import FINAL, R2T, RESERVED_TAG

if TYPE_CHECKING:
    from tcm_iscsi.protocol.scsi_command import ScsiCommand

RECOVERY_LIMIT = 256
"""Sequences of one command that may end with data missing, not by the loss of a connection; then the command fails."""
ISLANDS_LIMIT = 2048
"""Pieces of one sequence that wait for what is missing between them; with more the command fails."""
GAPS_LIMIT = 64
"""Gaps of a sequence that has ended that are asked for one by one; the rest of it as a whole."""
RETIRED_LIMIT = 1024
"""Sequences of one command that are remembered after their end; data for older ones drops the connection."""
INCORRECT_AMOUNT_OF_DATA = Sense(key=SenseKey.ABORTED_COMMAND, asc=0x0C, ascq=0x0D)
PROTOCOL_SERVICE_CRC_ERROR = Sense(key=SenseKey.ABORTED_COMMAND, asc=0x47, ascq=0x05)


class Sequence:
    """A run of Data-Out PDUs: the unsolicited one, or what one R2T asked for."""

    __slots__ = ("data_sn", "end", "islands", "lossy", "offset", "r2t_sn", "start")

    def __init__(self, offset: int, end: int, r2t_sn: int | None = None) -> None:
        self.start = offset
        self.end = end
        self.r2t_sn = r2t_sn
        """Of the R2T that asked for it; None: unsolicited."""
        self.offset = offset
        """All before it is there."""
        self.islands: list[tuple[int, int]] = []
        """What is there beyond it: disjoint, in order, not touching."""
        self.data_sn = 0
        """Of the next PDU."""
        self.lossy = False
        """PDUs of it have been lost or were damaged."""

    def add(self, start: int, end: int) -> None:
        """Bytes ``start`` to ``end`` are there."""
        islands = self.islands
        if start == self.offset and not islands:
            self.offset = end
            return
        if start == end:
            return
        # those that it touches
        first = bisect_left(islands, start, key=lambda island: island[1])
        after = bisect_right(islands, end, key=lambda island: island[0])
        if first < after:
            start, end = min(start, islands[first][0]), max(end, islands[after - 1][1])
        islands[first:after] = [(start, end)]
        if islands[0][0] <= self.offset:
            self.offset = max(self.offset, islands.pop(0)[1])

    def missing(self) -> list[tuple[int, int]]:
        """The gaps, in order."""
        gaps = []
        at = self.offset
        for start, end in self.islands:
            gaps.append((at, start))
            at = end
        if at < self.end:
            gaps.append((at, self.end))
        return gaps


class DataOut:
    """What a command gets from its initiator."""

    __slots__ = (
        "buffer", "command", "failure", "pending", "r2t_sn", "recoveries", "retired", "sequences", "unsolicited_end", "wanted",
    )  # fmt: skip

    def __init__(self, command: ScsiCommand) -> None:
        self.command = command
        self.buffer: bytearray | None = None
        self.sequences: dict[int, Sequence] = {}
        """By Target Transfer Tag; the unsolicited one under the reserved tag."""
        self.retired: dict[int, Sequence] = {}
        """Ended or given up, at ERL 1 and 2: what comes for them is dropped, what is asked of them can be answered."""
        self.pending: deque[tuple[int, int]] = deque()
        """What is still to be asked for."""
        self.unsolicited_end = 0
        self.wanted = 0
        """Bytes that the core waits for; 0: it does not."""
        self.r2t_sn = 0
        self.recoveries = 0
        self.failure: Sense | None = None

    def expect_unsolicited(self, received: memoryview, end: int) -> None:
        """Unsolicited Data-Out PDUs up to ``end`` follow the command, which carried ``received``."""
        self.buffer = bytearray(end)
        self.buffer[: len(received)] = received
        self.sequences[RESERVED_TAG] = Sequence(len(received), end)
        self.unsolicited_end = end

    def want(self, wanted: int) -> None:
        """The core wants so many bytes: what has not come unasked is asked for."""
        command = self.command
        self.wanted = wanted
        if self.buffer is None:
            self.unsolicited_end = len(command.task.data_out)
        # gaps of the unsolicited data were found before it was known how much of it is wanted
        self.pending = deque((start, min(end, wanted)) for start, end in self.pending if start < wanted)
        faults = command.connection.session.faults
        if self.unsolicited_end < wanted:
            if faults is None or not faults.r2ts:
                self.pending.append((self.unsolicited_end, wanted))
            else:
                burst = command.connection.session.parameters.max_burst_length
                bursts = [(at, min(at + burst, wanted)) for at in range(self.unsolicited_end, wanted, burst)]
                faults.order_r2ts(bursts)
                self.pending.extend(bursts)
        if RESERVED_TAG not in self.sequences:
            self.advance()

    def advance(self) -> None:
        """Ask for more, or tell the core that everything is there, or that it never will be."""
        command = self.command
        if self.failure is not None:
            if not self.sequences and self.wanted:
                self.wanted = 0
                command.task.nexus.data_out_failed(command.task, self.failure)
            return
        if not self.wanted:
            return
        if self.pending:
            command.connection.request_data(command)
        elif not self.sequences:
            assert self.buffer is not None
            command.task.data_out = memoryview(self.buffer)[: self.wanted]
            self.wanted = 0
            command.task.nexus.data_out_received(command.task)

    def send_r2ts(self) -> None:
        """R2Ts up to MaxOutstandingR2T, each for up to MaxBurstLength (RFC 7143 11.8)."""
        session = self.command.connection.session
        p = session.parameters
        had = self.command.task.data_out if self.buffer is None else self.buffer
        if self.buffer is None or len(had) < self.wanted:
            self.buffer = bytearray(self.wanted)
            self.buffer[: len(had)] = had
        while self.pending and len(self.sequences) < p.max_outstanding_r2t:
            start, end = self.pending.popleft()
            if end - start > p.max_burst_length:
                self.pending.appendleft((start + p.max_burst_length, end))
                end = start + p.max_burst_length
            ttt = session.new_ttt()
            self.sequences[ttt] = sequence = Sequence(start, end, self.r2t_sn)
            self.r2t_sn += 1
            self._send_r2t(ttt, sequence)

    def _send_r2t(self, ttt: int, sequence: Sequence) -> None:
        command = self.command
        connection, session = command.connection, command.connection.session
        connection.emit(
            R2T.pack(
                0x31, FINAL, 0, command.lun, command.itt, ttt, connection.stat_sn, session.exp_cmd_sn, session.max_cmd_sn,
                sequence.r2t_sn, sequence.start, sequence.end - sequence.start,
            )
        )  # fmt: skip

    def receive(self, ttt: int, data_sn: int, offset: int, data: Any, *, final: bool, intact: bool) -> str | None:
        """One Data-Out PDU (11.7). Returns why the connection must be dropped, or ``None``.

        :param intact: its data digest was right; ``data`` counts only by its length otherwise.
        """
        sequence = self.sequences.get(ttt)
        if sequence is None:
            return None if ttt in self.retired else "Data-Out with a Target Transfer Tag that is not outstanding"
        p = self.command.connection.session.parameters
        recovers = p.error_recovery_level > 0
        end = offset + len(data)
        fits = sequence.start <= offset and end <= sequence.end
        misplaced = offset != sequence.offset and p.data_pdu_in_order and not recovers
        if misplaced or not (fits or ttt == RESERVED_TAG):
            return (
                f"Data-Out at offset {offset} length {len(data)}, expected {sequence.offset} up to {sequence.end}"
                if p.data_pdu_in_order
                else f"Data-Out at offset {offset} length {len(data)} outside of {sequence.start} to {sequence.end}"
            )
        lost = data_sn != sequence.data_sn or not intact
        if lost:
            sequence.lossy = True
        sequence.data_sn = data_sn + 1 & 0xFFFFFFFF
        if lost and not recovers:
            self.failure = self.failure or (INCORRECT_AMOUNT_OF_DATA if intact else PROTOCOL_SERVICE_CRC_ERROR)
        elif not fits:
            self.failure = self.failure or INCORRECT_AMOUNT_OF_DATA
        if intact or not recovers:
            if fits and self.buffer is not None and self.failure is None:
                self.buffer[offset:end] = data
            if len(sequence.islands) < ISLANDS_LIMIT:
                sequence.add(offset, end)
            else:
                self.failure = self.failure or INCORRECT_AMOUNT_OF_DATA
        if final:
            self._end(ttt, sequence)
        elif sequence.offset == sequence.end and ttt != RESERVED_TAG and not sequence.lossy:
            return "Data-Out fills its sequence without the F bit"
        return None

    def _end(self, ttt: int, sequence: Sequence) -> None:
        """The PDU with F has come: whatever is missing now was lost, or never sent."""
        missing = sequence.missing()
        if missing and not sequence.lossy:
            self.failure = self.failure or INCORRECT_AMOUNT_OF_DATA
        self._count(missing)
        self._retire(ttt, sequence, missing)
        self.command.advance_transfer()

    def _count(self, missing: list[tuple[int, int]]) -> None:
        if missing:
            self.recoveries += 1
            if self.recoveries > RECOVERY_LIMIT:
                self.failure = self.failure or PROTOCOL_SERVICE_CRC_ERROR

    def _retire(self, ttt: int, sequence: Sequence, missing: list[tuple[int, int]]) -> None:
        del self.sequences[ttt]
        sequence.islands = []
        if self.command.connection.session.parameters.error_recovery_level > 0:
            self.retired[ttt] = sequence
            if len(self.retired) > RETIRED_LIMIT:
                del self.retired[next(iter(self.retired))]
        if len(missing) > GAPS_LIMIT:
            missing[GAPS_LIMIT - 1 :] = [(missing[GAPS_LIMIT - 1][0], missing[-1][1])]
        if self.failure is None and self.buffer is not None:
            self.pending.extendleft(reversed([(s, e) for s, e in missing if not self.wanted or s < self.wanted]))

    # recovery

    def progress(self) -> object:
        """Compares unequal to what it was, if something has come meanwhile."""
        return tuple((ttt, s.offset, s.data_sn, len(s.islands)) for ttt, s in self.sequences.items())

    def recover(self, attempt: int) -> None:
        """Nothing has come for a while: ask again (7.9: sequence errors).

        Where nothing at all has come the R2T may have been lost, or all the data: the same R2T first, then, should the
        initiator take that for a duplicate, a new one.

        :param attempt: how often that has happened in a row, from 1.
        """
        for ttt, sequence in list(self.sequences.items()):
            untouched = not sequence.data_sn and sequence.offset == sequence.start and not sequence.islands
            if untouched and attempt % 2 and sequence.r2t_sn is not None and not self.failure and not self.command.held:
                self._send_r2t(ttt, sequence)
            else:
                missing = sequence.missing()
                self._count(missing)
                self._retire(ttt, sequence, missing)
        if not self.sequences or self.pending:
            self.command.advance_transfer()

    def resend_r2ts(self, first: int, count: int) -> bool:
        """SNACK: R2Ts again (11.16). False if one of the run was never sent, or its data is all there.

        :param count: 0 for all from ``first`` on.
        """
        after = first + count if count else self.r2t_sn
        if not first < after <= self.r2t_sn:
            return False
        run = range(first, after)
        everything = [*self.sequences.items(), *self.retired.items()]
        found = sorted(
            ((ttt, s) for ttt, s in everything if s.r2t_sn in run and s.missing()), key=lambda item: item[1].r2t_sn or 0
        )
        for ttt, sequence in found:
            self._send_r2t(ttt, sequence)
        return bool(found)

    def restart(self) -> None:
        """Allegiance has moved (7.2.2): what has not come is asked for by the new connection.

        R2TSNs go on where R2Ts were fulfilled.
        """
        open_sequences = list(self.sequences.items())
        numbers = [s.r2t_sn for _, s in open_sequences if s.r2t_sn is not None]
        if numbers:
            self.r2t_sn = min(numbers)
        for ttt, sequence in reversed(open_sequences):
            self._retire(ttt, sequence, sequence.missing())
        self.retired.clear()
        self.command.advance_transfer()
