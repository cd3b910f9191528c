"""Task retry identification (FCP-4 4.7): the Parameter field of FCP_CMND names the command, those of REC and SRR ask for it.

With it an initiator can tell the exchange that it means from the one that had its OX_ID before, whatever was lost; and a target
can tell a command that comes twice from another one that looks the same. It is used where both sides have said so in PRLI: a
target grants it to who asks.

ABTS has none: the only bit of its Parameter field that FC-FS-3 16.3.2 knows says whether it is for a sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm_fcoe.protocol.frame import NO_EXCHANGE

if TYPE_CHECKING:
    from tcm_fcoe.protocol.fcp_nexus import FcpNexus

LIMIT = 8192
"""Identifiers that are kept before those are forgotten whose exchanges have been."""


class Identifiers:
    """Those of the commands of one initiator, by OX_ID."""

    def __init__(self, nexus: FcpNexus) -> None:
        self._nexus = nexus
        self._by_ox_id: dict[int, int] = {}

    def note(self, ox_id: int, identifier: int) -> None:
        """FCP_CMND has come."""
        known = self._by_ox_id
        if len(known) >= LIMIT:
            nexus = self._nexus
            kept = {each: known[each] for each in known if each in nexus.exchanges or nexus.answered.get(each) is not None}
            known.clear()
            known.update(kept)
        known[ox_id] = identifier

    def is_another(self, ox_id: int, identifier: int) -> bool:
        """The last command with the OX_ID was another one."""
        return self._by_ox_id.get(ox_id) != identifier

    def has_answered(self, ox_id: int, identifier: int, command: bytes) -> bool:
        """FCP_CMND has come twice, and has been answered: no command reference number is needed to see that."""
        answered = self._nexus.answered.get(ox_id)
        return answered is not None and answered.command == command and not self.is_another(ox_id, identifier)

    def rx_id(self, ox_id: int, rx_id: int, identifier: int) -> int | None:
        """What REC or SRR means: the RX_ID of the exchange, even if the initiator does not know it; ``None``: another one."""
        if self.is_another(ox_id, identifier):
            return None
        answered = self._nexus.answered.get(ox_id)
        if rx_id != NO_EXCHANGE or answered is None or ox_id in self._nexus.exchanges:
            return rx_id
        return answered.rx_id
