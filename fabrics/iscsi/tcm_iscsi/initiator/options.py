"""What an initiator can be told: who it is, what it offers, when it loses patience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tcm_iscsi.protocol.keys import BY_NAME
from tcm_iscsi.protocol.login_interface import Credentials
from tcm_iscsi.protocol.text import TextError

INITIATOR_NAME = "iqn.2003-01.org.linux-iscsi.tcm:initiator"

OFFERS: Mapping[str, str] = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "MaxRecvDataSegmentLength": "262144",
    "ErrorRecoveryLevel": "0",
    "DefaultTime2Wait": "0",
    "DefaultTime2Retain": "20",
    "MaxConnections": "64",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxBurstLength": "1048576",
    "FirstBurstLength": "262144",
    "MaxOutstandingR2T": "8",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
}
"""What is offered (or declared) unless :attr:`Options.keys` says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """When and how lost PDUs and connections are dealt with. Seconds."""

    automatic: bool = True
    """No: nothing is recovered but by the methods that say so; events and gaps are only told."""
    progress_timeout: float = 1.0
    """A request without progress for this long makes the initiator ask: NOP-Out, then SNACK, or the command again."""
    connection_timeout: float = 10.0
    """A connection on which nothing came for this long, though something was asked, is lost."""
    task_timeout: float = 60.0
    """A task that has no response after this is ended by ABORT TASK. 0: never."""
    attempts: int = 8
    """How often the same thing is asked for again before the next class of recovery is tried."""
    retain: float | None = None
    """How long to try to bring back a connection at error recovery level 2; None: Time2Wait + Time2Retain."""
    by_logout: bool = False
    """Level 2, while other connections are up: log the lost one out for recovery on one of them (reason 2) and reassign its
    tasks there. No: the login of a new connection with the same CID does that implicitly (RFC 7143 6.3.4)."""
    session_recovery: bool = False
    """Log in anew with the same ISID once the session is lost (session reinstatement, clause 6.3.5). What was outstanding
    fails all the same: it is for the caller to say whether it may be done twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything about a session except the address of the target.

    :raises ValueError: a key that is no key, or a value that its row in :mod:`tcm_iscsi.protocol.keys` does not allow.
    """

    target_name: str = ""
    """Empty: a discovery session."""
    initiator_name: str = INITIATOR_NAME
    initiator_alias: str = ""
    isid: bytes | None = None
    """Six bytes; None: random ones (type 10b)."""
    chap: Credentials | None = None
    """With ``mutual_secret`` the target has to prove itself too (and to be ``mutual_name``, if that is set). The order of
    ``algorithms`` is the order in which they are offered."""
    keys: Mapping[str, str | None] = field(default_factory=dict)
    """Offers in place of those in :data:`OFFERS`, in this spelling; None: the key is not brought up. ``X-`` keys and
    others that the table does not have are sent as they are."""
    security_stage: bool | None = None
    """Whether the login begins in security negotiation; None: if there is a CHAP secret."""
    cmd_sn: int = 1
    """The first CmdSN."""
    unsolicited: bool = True
    """Send immediate and unsolicited data as far as was negotiated. No: wait for R2Ts."""
    data_out_reversed: bool = False
    """Data-Out PDUs of a sequence from the last to the first, where DataPDUInOrder=No allows it."""
    login_timeout: float = 15.0
    """Seconds."""
    redirects: int = 3
    """How many redirections of a login are followed."""
    recovery: Recovery = Recovery()

    def __post_init__(self) -> None:
        if self.isid is not None and len(self.isid) != 6:
            raise ValueError("an ISID has six bytes")
        for name, value in self.keys.items():
            key = BY_NAME.get(name)
            if key is not None and value is not None:
                try:
                    key.parse(value)
                except TextError as e:
                    raise ValueError(str(e)) from None

    def offer(self, name: str) -> str | None:
        """What is offered for a key; None: nothing."""
        return self.keys[name] if name in self.keys else OFFERS.get(name)
