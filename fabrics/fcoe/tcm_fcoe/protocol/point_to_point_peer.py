"""Mode ``p2p``: the other N_Port, as far as it is known; and what is kept of it for another process."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tcm_fcoe.protocol.frame import Frame
from tcm_fcoe.protocol.names import FIRST_WELL_KNOWN_ADDRESS, MAC_LENGTH, fabric_provided_mac, is_multicast, is_valid_name

NO_MAC = bytes(MAC_LENGTH)


@dataclass(slots=True, eq=False)
class Peer:
    """The other N_Port."""

    fc_id: int
    port_name: bytes
    node_name: bytes
    mac: bytes
    receive_size: int
    own_fc_id: int
    """What we are for it."""
    heard: float
    """When its last frame came."""
    request: Frame | None = None
    """Its FLOGI."""
    data_mac: bytes = b""
    """By what MAC address its frames come, once one has."""

    @property
    def macs(self) -> tuple[bytes, ...]:
        """What it may send by: the address of its FLOGI, and one that libfc changes to: made of its FC_ID, or, in 6.1, none."""
        return self.mac, self.data_mac or fabric_provided_mac(self.fc_id), self.data_mac or NO_MAC

    def is_its(self, source: bytes, frame: Frame) -> bool:
        """Whether a frame is of this peer, and for us."""
        return frame.s_id == self.fc_id and frame.d_id == self.own_fc_id and source in self.macs

    def to_text(self) -> str:
        """What another process has to know to tell it that it is logged out, in JSON."""
        names = {name: getattr(self, name).hex() for name in ("port_name", "node_name", "mac")}
        return json.dumps({"fc_id": self.fc_id, "own_fc_id": self.own_fc_id, **names})

    @classmethod
    def of_text(cls, text: str) -> Peer | None:
        """The same, read; ``None``: it is damaged, or names nobody who could be on this link."""
        try:
            found = json.loads(text)
            fc_id, own = found["fc_id"], found["own_fc_id"]
            port_name, node_name, mac = (bytes.fromhex(found[name]) for name in ("port_name", "node_name", "mac"))
        except (ValueError, KeyError, TypeError):
            return None
        ids = all(type(each) is int and 0 < each < FIRST_WELL_KNOWN_ADDRESS for each in (fc_id, own))
        if not ids or not is_valid_name(port_name) or len(mac) != MAC_LENGTH or mac == NO_MAC or is_multicast(mac):
            return None
        return cls(fc_id, port_name, node_name, mac, 0, own, 0.0)
