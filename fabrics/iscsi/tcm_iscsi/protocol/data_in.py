"""Data-In of one command: cut into PDUs, sent, and sent again (RFC 7143 11.7, 11.16).

The index of a PDU in :attr:`DataIn.pdus` is its DataSN. At ERL 0 it is forgotten once sent; above, kept until its status is
acknowledged, less what the initiator acknowledges before by DataACK or by the ExpDataSN of a TASK REASSIGN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm_iscsi.protocol.pdu import ACKNOWLEDGE, DATA_IN, FINAL, LUN_NONE, RESERVED_TAG

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tcm_iscsi.protocol.command_flow import CommandFlow
    from tcm_iscsi.protocol.faults import Faults

OutgoingPdu = tuple[int, int, int]
"""Buffer Offset, length, flags."""


class DataIn:
    """What one command sends: buffers, passed through uncopied, and the PDUs that they are cut into."""

    __slots__ = ("acknowledged", "base", "in_order", "pdus", "tag_of", "tags", "total", "views")

    def __init__(self, buffers: Iterable[Any]) -> None:
        self.views = [memoryview(b).cast("B") for b in buffers if len(b)]
        self.base = 0
        """Buffer Offset of the first view: those before have been acknowledged."""
        self.total = sum(map(len, self.views))
        """Bytes."""
        self.pdus: list[OutgoingPdu] = []
        self.acknowledged = 0
        """Data acknowledgement reference number: the first DataSN that the initiator has not acknowledged (11.5.6)."""
        self.tags: dict[int, int] = {}
        """Target Transfer Tags of PDUs with the A bit, and the DataSN of each."""
        self.tag_of: dict[int, int] = {}
        """The same by DataSN."""
        self.in_order = True

    @property
    def kept(self) -> int:
        """Bytes that are still held."""
        return self.total - self.base

    def segment(self, limit: int, burst: int, faults: Faults | None = None, *, acknowledge: bool = False) -> None:
        """Cut it: PDUs of at most ``limit`` bytes, in sequences of at most ``burst``, the last PDU of each with F.

        :param faults: puts PDUs and sequences out of order, if it wants to.
        :param acknowledge: ask for a DataACK after each sequence but the last (A bit; at ERL 1 and 2 only, 11.7.2).
        """
        sequences = [
            [(offset, min(limit, end - offset)) for offset in range(start, end, limit)]
            for start in range(0, self.total, burst)
            for end in (min(start + burst, self.total),)
        ]
        if faults is not None:
            faults.order_data_in(sequences)
            self.in_order = False
        last = len(sequences) - 1
        for number, sequence in enumerate(sequences):
            ends = FINAL | ACKNOWLEDGE if acknowledge and number < last else FINAL
            self._append(sequence, ends)

    def resegment(self, limit: int) -> None:
        """Cut what is not acknowledged anew, for another MaxRecvDataSegmentLength (11.16.3)."""
        old = self.pdus[self.acknowledged :]
        del self.pdus[self.acknowledged :]
        self.tags.clear()
        self.tag_of.clear()
        runs: list[tuple[int, int]] = []
        for offset, length, flags in old:
            if runs and sum(runs[-1]) == offset:
                runs[-1] = (runs[-1][0], runs[-1][1] + length)
            else:
                runs.append((offset, length))
            if flags & FINAL:
                self._append(
                    [(at, min(limit, start + size - at)) for start, size in runs for at in range(start, start + size, limit)],
                    flags,
                )
                runs.clear()

    def _append(self, sequence: Sequence[tuple[int, int]], ends: int) -> None:
        last = len(sequence) - 1
        self.pdus.extend((offset, length, ends if n == last else 0) for n, (offset, length) in enumerate(sequence))

    def fits(self, limit: int, first: int, after: int) -> bool:
        """Whether no PDU of the run is longer than ``limit``: then exact replicas can be sent."""
        return all(length <= limit for _, length, _ in self.pdus[first:after])

    def acknowledge(self, data_sn: int) -> None:
        """All before ``data_sn`` has arrived: it is not kept any longer."""
        for n in range(self.acknowledged, data_sn):
            tag = self.tag_of.pop(n, None)
            if tag is not None:
                del self.tags[tag]
        self.acknowledged = data_sn
        left = self.pdus[data_sn : data_sn + 1 if self.in_order else None]
        lowest = min((offset for offset, _, _ in left), default=self.total)
        while self.views and self.base + len(self.views[0]) <= lowest:
            self.base += len(self.views.pop(0))

    def send(
        self,
        connection: CommandFlow,
        itt: int,
        lun: bytes,
        first: int,
        after: int,
        *,
        final_flags: int = 0,
        residual: int = 0,
    ) -> None:
        """Queue PDUs ``first`` up to ``after``.

        :param final_flags: S, U and O for the very last PDU of all; with S it carries the status GOOD and ``residual``.
        """
        session = connection.session
        last = len(self.pdus) - 1
        for data_sn in range(first, after):
            offset, length, flags = self.pdus[data_sn]
            stat_sn, count, lun_field, ttt = 0, 0, LUN_NONE, RESERVED_TAG
            if final_flags and data_sn == last:
                flags |= final_flags
                stat_sn, count = connection.next_stat_sn(), residual
            elif flags & ACKNOWLEDGE:
                # the tag that it had when it was sent before: it goes as it was (11.16)
                lun_field, ttt = lun, self.tag_of.get(data_sn) or session.new_ttt()
                self.tags[ttt], self.tag_of[data_sn] = data_sn, ttt
            header = DATA_IN.pack(
                0x25, flags, 0, length, lun_field, itt, ttt, stat_sn, session.exp_cmd_sn, session.max_cmd_sn, data_sn, offset,
                count,
            )  # fmt: skip
            connection.emit(header, *self._pieces(offset, length))

    def _pieces(self, offset: int, length: int) -> Iterator[memoryview]:
        at = offset - self.base
        for view in self.views:
            size = len(view)
            if at < size:
                piece = view[at : at + length]
                yield piece
                length -= len(piece)
                if not length:
                    return
                at = 0
            else:
                at -= size
