"""Names and options of the FCoE fabric, and what LIO's ``attrib/`` would hold for it (LIO's ``tcm_fc`` has none there)."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Literal

from tcm.failure import ConfigError
from tcm.plugin_types import option
from tcm_fcoe.protocol.ethernet import DEFAULT_PRIORITY, MAX_VLAN_ID, MIN_VLAN_ID
from tcm_fcoe.protocol.names import InvalidName, colon_form, name_from_mac, parse_mac, parse_name

Mode = Literal["vn2vn", "fabric", "fcf", "p2p"]

_UNIX = "unix:"
_LOCAL, _GROUP = 0x02, 0x01
"""Bits of a MAC address's first byte: locally administered, group."""
_RANGES = {
    "vlan": (MIN_VLAN_ID, MAX_VLAN_ID),
    "priority": (0, 7),
    "domain": (1, 239),
    "fcf_priority": (0, 255),
    "poll": (0, 1_000_000),
    "burst": (512, 1 << 24),
    "data_out_timeout": (0, 600),
}
_OF_MODE = {"spma": "fabric", "domain": "fcf", "fcf_priority": "fcf", "fc_map": "fcf"}
"""Options that only one mode has a use for."""
_FC_MAP = re.compile(r"(?:0x)?0efc[0-9a-f]{2}", re.IGNORECASE)


def check_name(name: str) -> str:
    """A WWPN as eight pairs of hex digits, from any of its spellings. Raises :class:`ConfigError`."""
    try:
        return colon_form(parse_name(name))
    except InvalidName as e:
        raise ConfigError(str(e)) from None


def default_name(host: str, unique: str) -> str:
    """A WWPN made of a locally administered MAC address (NAA 2, as Linux makes them)."""
    del host  # there is no room for it
    mac = bytearray.fromhex(unique)
    mac[0] = (mac[0] | _LOCAL) & ~_GROUP
    return colon_form(name_from_mac(bytes(mac)))


def node_name(port_name: bytes) -> bytes:
    """The WWNN that goes with a WWPN: NAA 1 with the same MAC address, as Linux has it, or else the same name."""
    return name_from_mac(port_name[2:], naa=1) if port_name[0] >> 4 == 2 else port_name


@dataclass(frozen=True)
class FcoeOptions:
    """Options of ``--fabric fcoe:...``."""

    interface: tuple[str, ...] = option(
        "network interface, or unix:LOCAL,PEER for one frame a datagram; more than once for several, the nth target is on the"
        " nth, further ones on the last",
        (),
    )
    mode: Mode = option(
        "vn2vn: other ports on the same segment, no switch; fabric: log in to the switch (FCF) there; fcf: be the switch;"
        " p2p: one other port at the end of the cable",
        "vn2vn",
    )
    vlan: int | None = option(
        "802.1Q VLAN, 1 to 4094; default: none, and in mode fabric the one that FIP VLAN discovery finds", None
    )
    priority: int = option("802.1Q priority of frames with a tag, 0 to 7", DEFAULT_PRIORITY)
    spma: bool = option("mode fabric: offer to use the interface's own MAC address (SPMA) where the FCF asks for that", False)
    domain: int = option("mode fcf: Domain_ID, the first byte of all FC_IDs, 1 to 239", 1)
    fcf_priority: int = option("mode fcf: ENodes take the FCF with the least of these, 0 to 255", 128)
    fc_map: str = option("mode fcf: first three bytes of all fabric-provided MAC addresses, 0efc00 to 0efcff", "0efc00")
    mac: str | None = option("MAC address of a unix: interface; default: made of its path", None)
    promiscuous: bool = option("take frames to any MAC address from the interface, for cards that filter wrongly", False)
    burst: int = option("bytes of a burst, either way, in steps of 512, until MODE SELECT changes it", 256 << 10, kind="size")
    first_burst: bool = option("offer initiators to send write data unasked (WRITE FCP_XFER_RDY DISABLED)", False)
    retry: bool = option("offer initiators to recover lost frames by REC and SRR instead of aborting commands (RETRY)", True)
    data_out_timeout: int = option(
        "seconds without a frame of the data of a write that was asked for until the command is given up, so that it holds"
        " nobody else up; 0: three times R_A_TOV, which is 30 in a fabric and 12 without one",
        0,
    )
    pcap: str | None = option("file for a capture (pcap) of all frames, made anew; that costs throughput", None)
    poll: int = option(
        "microseconds to keep polling an interface after its last frame before sleeping; 0 sleeps at once and saves CPU", 200
    )


def check_config(options: FcoeOptions) -> None:
    """Raises :class:`ConfigError` for options that cannot work."""
    if not options.interface:
        raise ConfigError("interface: missing; write --interface eth1, or --interface unix:LOCAL,PEER")
    for name in options.interface:
        local, _, peer = name.removeprefix(_UNIX).partition(",")
        if not name.strip() or (name.startswith(_UNIX) and not (local and peer)):
            raise ConfigError(f"interface: {name!r} is none; write a network interface such as eth1, or unix:LOCAL,PEER")
        if options.interface.count(name) > 1:
            raise ConfigError(
                f"interface: {name} stands there twice; write it once, all targets beyond the others are on the last"
            )
    for each in fields(options):
        value = getattr(options, each.name)
        lowest, highest = _RANGES.get(each.name, (0, 0))
        if highest and value is not None and not lowest <= value <= highest:
            raise ConfigError(f"{each.name}: {value} is out of range; write {lowest} to {highest}")
        mode = _OF_MODE.get(each.name)
        if mode not in {None, options.mode} and value != each.default:
            raise ConfigError(f"{each.name}: mode {options.mode} has no use for it; write mode={mode}, or leave it out")
    if not _FC_MAP.fullmatch(options.fc_map):
        raise ConfigError(f"fc_map: {options.fc_map!r} is none; write six hex digits from 0efc00 to 0efcff")
    if options.mac is not None:
        try:
            mac = parse_mac(options.mac)
        except InvalidName as e:
            raise ConfigError(f"mac: {e}") from None
        if mac[0] & _GROUP or not any(mac):
            raise ConfigError(f"mac: {options.mac} is no address of one interface; write one such as 52:54:00:2f:fc:00")
        if not all(name.startswith(_UNIX) for name in options.interface):
            raise ConfigError("mac: a network interface has an address of its own; leave it out")
        if len(options.interface) > 1:
            raise ConfigError("mac: of which interface? with several, each has the one made of its path; leave it out")


def controller_options(options: FcoeOptions) -> dict[str, Any]:
    """What the FCoE controller of the mode takes besides, by its names."""
    if options.mode == "fcf":
        return {"fc_map": int(options.fc_map, 16), "priority": options.fcf_priority, "domain": options.domain}
    return {"discover_vlan": options.vlan is None, "spma": options.spma} if options.mode == "fabric" else {}


def default_targets(options: FcoeOptions) -> int:
    """One target for each interface."""
    return len(options.interface)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpgAttributes:
    """``attrib/`` of a target portal group: LIO's names of demo mode, which its ``tcm_fc`` does not have."""

    generate_node_acls: bool = False
    """Demo mode: initiators without a node ACL get a dynamic one."""
    cache_dynamic_acls: bool = False
    """Dynamic node ACLs stay after the initiator has left."""
    demo_mode_write_protect: bool = True
    """LUNs of dynamic node ACLs cannot be written."""
    prod_mode_write_protect: bool = False
    """LUNs of configured node ACLs cannot be written, unless mapped otherwise."""
