"""What LIO's ``attrib/`` and ``param/`` directories hold for iSCSI: its names, its ranges (lio-configfs 4.3.3, 4.3.5, 4.3.6).

All raise :class:`tcm.failure.ConfigError` for values that cannot be, with what to write instead.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from tcm.failure import ConfigError
from tcm_iscsi import access
from tcm_iscsi.protocol.keys import BY_NAME, Kind
from tcm_iscsi.protocol.text import MAX_VALUE_LENGTH, TextError, format_boolean

if TYPE_CHECKING:
    from collections.abc import Callable

AUTHENTICATION_METHODS = ("CHAP", "None")
"""Of those that AuthMethod may name, those there are."""
_TPG_RANGES = {
    "login_timeout": (5, 30),
    "default_cmdsn_depth": (1, 512),
    "default_erl": (0, 2),
    "fabric_prot_type": (0, 3),
    "netif_timeout": (2, 15),
}
_ACL_RANGES = {
    "cmdsn_depth": (0, 512),
    "dataout_timeout": (2, 60),
    "dataout_timeout_retries": (1, 15),
    "default_erl": (-1, 2),
    "nopin_response_timeout": (3, 60),
    "authentication": (-1, 1),
}


def _check_ranges(attributes: object, ranges: dict[str, tuple[int, int]]) -> None:
    for name, (lowest, highest) in ranges.items():
        value = getattr(attributes, name)
        if not lowest <= value <= highest:
            raise ConfigError(f"{name}={value}: write a number from {lowest} to {highest}")


def _check_rules(attributes: object, rules: dict[str, Callable[[str], Any]]) -> None:
    for name, read in rules.items():
        for value in getattr(attributes, name):
            try:
                read(value)
            except ConfigError as e:
                raise ConfigError(f"{name}: {e}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TpgAttributes:
    """``attrib/`` of a target portal group; defaults are LIO's."""

    authentication: bool = True
    """Initiators must prove who they are by CHAP."""
    login_timeout: int = 15
    """Seconds from connecting to full feature phase, 5 to 30."""
    generate_node_acls: bool = False
    """Demo mode: initiators without a node ACL get a dynamic one."""
    cache_dynamic_acls: bool = False
    """Dynamic node ACLs stay after logout, as long as demo mode is on."""
    demo_mode_write_protect: bool = True
    """LUNs of dynamic node ACLs cannot be written."""
    prod_mode_write_protect: bool = False
    """LUNs of configured node ACLs cannot be written, unless mapped otherwise."""
    demo_mode_discovery: bool = True
    """Discovery shows the target to initiators that only demo mode lets in."""
    tpg_enabled_sendtargets: bool = True
    """Discovery shows enabled portal groups only."""
    login_keys_workaround: bool = True
    """Offer no key that the initiator has not brought up: some PXE ROMs do not answer."""
    default_cmdsn_depth: int = 64
    """Commands an initiator may have outstanding, 1 to 512, unless its node ACL says otherwise."""
    default_erl: int = 0
    """The highest error recovery level, 0 to 2, for initiators without one in their node ACL; see ErrorRecoveryLevel."""
    t10_pi: bool = False
    """Without effect, as in LIO over TCP (only iSER has it): protection information is the logical unit's."""
    fabric_prot_type: int = 0
    """0, 1 or 3; without effect, as in LIO without ``t10_pi``."""
    netif_timeout: int = 2
    """Seconds, 2 to 15; without effect, as in LIO."""
    # ours, which LIO lacks
    allowed_addresses: tuple[str, ...] = ()
    """Networks (``10.0.0.0/8``, ``2001:db8::7``) that initiators may come from; none: from anywhere."""
    allowed_initiators: tuple[str, ...] = ()
    """Names, or patterns with ``*`` and ``?``, of initiators that demo mode lets in; none: all."""
    redirect_temporarily: tuple[str, ...] = ()
    """Logins are sent to another portal: ``ADDR:PORT``, then if you like ``portal=ADDR:PORT`` (where the login arrives),
    ``initiator=PATTERN``, ``address=NETWORK``. The first that fits counts; who is at a destination is let in."""
    redirect_permanently: tuple[str, ...] = ()
    """The same for good: initiators may remember it. Comes before the temporary ones."""

    def __post_init__(self) -> None:
        _check_ranges(self, _TPG_RANGES)
        if self.fabric_prot_type == 2:
            raise ConfigError("fabric_prot_type=2: write 0, 1 or 3")
        _check_rules(
            self,
            {
                "allowed_addresses": access.network,
                "allowed_initiators": access.name_pattern,
                "redirect_temporarily": access.redirection,
                "redirect_permanently": access.redirection,
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TpgParameters:
    """``param/`` of a target portal group: what we offer in negotiation, by key name.

    Some defaults want throughput and differ from LIO's: unsolicited data is welcome, segments and bursts are long.
    """

    AuthMethod: str = "CHAP,None"
    """``CHAP``, ``None`` or both. With ``authentication`` on, initiators must do CHAP. With it off they may, if there is a user
    and this has CHAP; and must, if this has no None and their node ACL says nothing."""
    HeaderDigest: str = "CRC32C,None"
    """What is allowed. The initiator's order decides between them (RFC 7143 6.2.1)."""
    DataDigest: str = "CRC32C,None"
    """As HeaderDigest."""
    MaxConnections: int = 1
    """Connections of a session, 1 to 65535."""
    TargetAlias: str = ""
    """A name for people, at most 255 bytes; empty: none."""
    InitialR2T: bool = False
    """No: initiators may send the first burst without being asked."""
    ImmediateData: bool = True
    """Yes: data may come in the command's own PDU."""
    MaxRecvDataSegmentLength: int = 262144
    """Bytes of data segment that we take, 512 to 16777215."""
    MaxXmitDataSegmentLength: int = 262144
    """Bytes of data segment that we send, at most, whatever the initiator takes (LIO's own, not negotiated)."""
    MaxBurstLength: int = 1048576
    """Bytes of one Data-In sequence, and of what one R2T asks for, 512 to 16777215."""
    FirstBurstLength: int = 262144
    """Bytes of unsolicited data of one command, immediate data included, 512 to 16777215; no more than MaxBurstLength."""
    DefaultTime2Wait: int = 2
    """Seconds to wait before a session or its tasks are taken up again after a connection was lost, 0 to 3600."""
    DefaultTime2Retain: int = 20
    """Seconds after that for which they are kept, 0 to 3600."""
    MaxOutstandingR2T: int = 4
    """R2Ts of one command at a time, 1 to 65535."""
    DataPDUInOrder: bool = True
    """No: PDUs of a sequence may come in any order."""
    DataSequenceInOrder: bool = True
    """No: sequences of a command may come in any order."""
    ErrorRecoveryLevel: int = 0
    """The highest error recovery level, 0 to 2, if it is more than ``default_erl``. (LIO looks at that only.)"""
    IFMarker: bool = False
    """Obsolete; only No (RFC 7143 13.25)."""
    OFMarker: bool = False
    """As IFMarker."""
    IFMarkInt: str = "Reject"
    """Obsolete; only Reject."""
    OFMarkInt: str = "Reject"
    """As IFMarkInt."""

    def __post_init__(self) -> None:
        for name, value in self._texts().items():
            key = BY_NAME.get(name, BY_NAME["MaxRecvDataSegmentLength"] if name == "MaxXmitDataSegmentLength" else None)
            if key is None or key.kind is Kind.RANGE:
                continue
            try:
                parsed = key.parse(value)
            except TextError as e:
                numbers = f"write a number from {key.minimum} to {key.maximum}"
                why = numbers if key.kind is Kind.NUMBER else str(e).removeprefix(f"{key.name}: ")
                raise ConfigError(f"{name}={value}: {why}") from None
            unknown = [item for item in parsed if item not in key.values] if key.kind is Kind.LIST else []
            if unknown:
                raise ConfigError(f"{name}={value}: {unknown[0]!r} is unknown; write a list of {', '.join(key.values)}")
        if not set(self.methods) & set(AUTHENTICATION_METHODS):
            raise ConfigError(f"AuthMethod={self.AuthMethod}: there is none of it; write {','.join(AUTHENTICATION_METHODS)}")
        for name in ("IFMarker", "OFMarker", "IFMarkInt", "OFMarkInt"):
            if getattr(self, name) not in (False, "Reject"):
                raise ConfigError(f"{name}: markers are obsolete; write {'No' if name.endswith('er') else 'Reject'}")
        if not self.TargetAlias.isprintable() or len(self.TargetAlias.encode()) > MAX_VALUE_LENGTH:
            raise ConfigError(f"TargetAlias: write at most {MAX_VALUE_LENGTH} bytes without control characters")

    @property
    def methods(self) -> list[str]:
        """AuthMethod as a list."""
        return self.AuthMethod.split(",")

    def _texts(self) -> dict[str, str]:
        """All values as text keys write them."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: format_boolean(value) if isinstance(value, bool) else str(value) for name, value in values.items()}

    def declarations(self) -> dict[str, str]:
        """Those that the target may declare anew in full feature phase (RFC 7143 13.4 and 13.12: use ALL)."""
        texts = self._texts()
        return {name: texts[name] for name in ("MaxRecvDataSegmentLength", "TargetAlias")}

    def offers(self) -> dict[str, str]:
        """Our values of the keys that are negotiated in the operational stage, for LoginPolicy.offers."""
        texts = self._texts()
        skip = {"AuthMethod", "TargetAlias", "MaxXmitDataSegmentLength", "IFMarker", "OFMarker", "IFMarkInt", "OFMarkInt"}
        return {name: value for name, value in texts.items() if name not in skip}


@dataclass(frozen=True, slots=True, kw_only=True)
class AclAttributes:
    """``attrib/`` of a node ACL; defaults are LIO's."""

    dataout_timeout: int = 3
    """Seconds without Data-Out before it is asked for again, 2 to 60."""
    dataout_timeout_retries: int = 5
    """How often that, 1 to 15; then the connection is dropped. At ERL 0, which cannot ask again, after as long a time."""
    default_erl: int = -1
    """The highest error recovery level for this initiator, 0 to 2; -1: as the portal group says."""
    nopin_timeout: int = 15
    """Seconds of silence before the initiator is pinged: 0 for never, or 3 to 60."""
    nopin_response_timeout: int = 30
    """Seconds that it has to answer, 3 to 60."""
    random_datain_pdu_offsets: bool = False
    """Fault injection: Data-In PDUs of a sequence in random order; needs DataPDUInOrder=No."""
    random_datain_seq_offsets: bool = False
    """Fault injection: Data-In sequences in random order; needs DataSequenceInOrder=No."""
    random_r2t_offsets: bool = False
    """Fault injection: R2Ts in random order; needs DataSequenceInOrder=No."""
    authentication: int = -1
    """1 or 0: CHAP or not for this initiator; -1: as the portal group says."""
    # ours, which LIO lacks, or has beside ``attrib/``
    cmdsn_depth: int = 0
    """Commands this initiator may have outstanding, 1 to 512; 0: as ``default_cmdsn_depth`` of the portal group says."""
    allowed_addresses: tuple[str, ...] = ()
    """Networks that this initiator may come from; none: those of the portal group."""

    def __post_init__(self) -> None:
        _check_ranges(self, _ACL_RANGES)
        if self.nopin_timeout and not 3 <= self.nopin_timeout <= 60:
            raise ConfigError(f"nopin_timeout={self.nopin_timeout}: write 0 (never) or a number from 3 to 60")
        _check_rules(self, {"allowed_addresses": access.network})
