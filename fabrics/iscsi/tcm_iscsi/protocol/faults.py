"""LIO's fault attributes of a node ACL: what it sends out of order, on purpose (lio-configfs 4.3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_iscsi.protocol.parameters import SessionParameters


class Attributes(Protocol):
    """Those of the node ACL."""

    @property
    def random_datain_pdu_offsets(self) -> bool:
        """Data-In PDUs of a sequence in random order."""

    @property
    def random_datain_seq_offsets(self) -> bool:
        """Data-In sequences in random order."""

    @property
    def random_r2t_offsets(self) -> bool:
        """R2Ts in random order."""


class Faults:
    """Orders that DataPDUInOrder=No and DataSequenceInOrder=No allow and few targets use.

    :param shuffle: puts a list in random order, in place.
    """

    __slots__ = ("pdus", "r2ts", "sequences", "shuffle")

    def __init__(
        self, shuffle: Callable[[list[Any]], None], *, pdus: bool = False, sequences: bool = False, r2ts: bool = False
    ) -> None:
        self.shuffle = shuffle
        self.pdus = pdus
        self.sequences = sequences
        self.r2ts = r2ts

    @classmethod
    def chosen(
        cls, parameters: SessionParameters, attributes: Attributes, shuffle: Callable[[list[Any]], None]
    ) -> Faults | None:
        """What the node ACL asks for, as far as the session's parameters allow it; None: everything in order."""
        pdus = attributes.random_datain_pdu_offsets and not parameters.data_pdu_in_order
        sequences = attributes.random_datain_seq_offsets and not parameters.data_sequence_in_order
        r2ts = attributes.random_r2t_offsets and not parameters.data_sequence_in_order
        return cls(shuffle, pdus=pdus, sequences=sequences, r2ts=r2ts) if pdus or sequences or r2ts else None

    def order_data_in(self, sequences: list[list[tuple[int, int]]]) -> None:
        """The Data-In of one command: its PDUs within their sequences, and the sequences."""
        if self.pdus:
            for sequence in sequences:
                self.shuffle(sequence)
        if self.sequences:
            self.shuffle(sequences)

    def order_r2ts(self, bursts: list[tuple[int, int]]) -> None:
        """What R2Ts ask for: (start, end), each at most a burst."""
        if self.r2ts:
            self.shuffle(bursts)
