"""What a row of the command table says (architecture: one command table)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

SERVICE_ACTION_BYTE = 1
"""Byte of a CDB that holds the SERVICE ACTION field (SPC-5 4.2.2.4), bits 4 to 0, of all operation codes but 7Fh."""
SERVICE_ACTION_MASK = 0x1F
VARIABLE_LENGTH = 0x7F
"""The operation code of CDBs that say how long they are; their SERVICE ACTION has two bytes (SPC-5 4.2.3)."""
ADDITIONAL_LENGTH_BYTE, VARIABLE_ACTION_BYTE = 7, 8
ADDITIONAL_LENGTH_OFFSET = 8
"""The ADDITIONAL CDB LENGTH does not count the bytes before the service action."""


class Direction(enum.Enum):
    """Which way a command's data goes, seen from the initiator."""

    NONE = "none"
    DATA_IN = "data-in"
    DATA_OUT = "data-out"


class Access(enum.Enum):
    """What a command does to the medium: the basis of reservation rules, write protection and readiness."""

    NONE = "none"
    """Does not touch the medium (INQUIRY, REPORT LUNS, MODE SENSE ...)."""
    READ = "read"
    WRITE = "write"


class Reservation(enum.Enum):
    """What happens when another I_T nexus holds an SPC-2 reservation (SPC-2 5.5.1, SBC-4 4.17 for block commands)."""

    ALLOWED = "allowed"
    CONFLICT = "conflict"


class PersistentReservation(enum.Enum):
    """What happens to a command of an I_T nexus that has no part in a persistent reservation (SPC-5 table 66, SBC-4 4.17).

    Holders conflict with nothing; nor do registered I_T nexuses with registrants only and all registrants types.
    """

    ALLOWED = "allowed"
    WRITE_EXCLUSIVE = "conflict with Exclusive Access"
    """Goes through the Write Exclusive types: it only reads."""
    CONFLICT = "conflict"
    OWN_RULES = "by its own rules"
    """The handler looks at keys and holders (PERSISTENT RESERVE OUT; RESERVE and RELEASE: SPC-4 5.12.3)."""


class Attention(enum.Enum):
    """What a pending unit attention condition does to the command (SAM-5 5.14.2)."""

    REPORT = "report"
    """The command is not executed and ends in CHECK CONDITION, UNIT ATTENTION."""
    IGNORE = "ignore"
    """The command is executed and the condition stays (INQUIRY, REPORT LUNS)."""
    SENSE_DATA = "sense-data"
    """The command is executed and itself returns the condition as its data (REQUEST SENSE)."""


class Readiness(enum.Enum):
    """Whether the command needs a unit that is started and has its medium."""

    ANY = "any"
    READY = "ready"


class WhileErasing(enum.Enum):
    """What becomes of the command while SANITIZE or FORMAT UNIT is under way, or has failed (SBC-4 4.11.2, 4.33.2)."""

    REFUSED = "refused"
    ALLOWED = "allowed"
    SANITIZING = "allowed while sanitizing"
    """And after SANITIZE has failed; refused while formatting. Of MODE SENSE some pages only, which its handler knows."""
    SANITIZES = "after a failure"
    """Refused while one is under way, taken after a failure: the way out of it."""
    FORMATS = "after a failed format"
    """Likewise, but not after SANITIZE has failed."""


class AccessStates(enum.Enum):
    """Through target ports in which asymmetric access states the command is taken (SPC-4 5.16.2.4, 5.16.2.5)."""

    ACTIVE = "active"
    """Active/optimized, active/non-optimized, and logical block dependent as far as the blocks' own states let it."""
    STANDBY = "active, standby"
    SETTLED = "all but transitioning"
    """SET TARGET PORT GROUPS: unavailable and offline too."""
    ANY = "all"


class Feature(enum.Enum):
    """What a logical unit may lack: a command that needs it is then neither executed nor reported as supported."""

    UNMAP = "unmap"
    """Thin provisioning (LIO: ``emulate_tpu``)."""
    COMPARE_AND_WRITE = "compare-and-write"
    """LIO: ``emulate_caw``."""
    ATOMIC_WRITE = "atomic-write"
    RESERVE = "reserve"
    """Reservations, SPC-2's and persistent ones (LIO: ``emulate_pr``)."""
    BLOCK_ERASE = "block-erase"
    """SANITIZE BLOCK ERASE: thin provisioning."""
    CRYPTOGRAPHIC_ERASE = "cryptographic-erase"
    """SANITIZE CRYPTOGRAPHIC ERASE: a backstore that encrypts and can throw away its key."""
    REPORT_SUPPORTED = "report-supported"
    """REPORT SUPPORTED OPERATION CODES (LIO: ``emulate_rsoc``)."""
    THIRD_PARTY_COPY = "third-party-copy"
    """EXTENDED COPY, tokens and what belongs to them (LIO: ``emulate_3pc``)."""
    IDENTIFYING_INFORMATION = "identifying-information"
    """A place to keep it."""
    EXPLICIT_ACCESS = "explicit-access"
    """SET TARGET PORT GROUPS: a target port group whose access type is explicit."""
    REFERRALS = "referrals"
    """An LBA map."""
    TYPE_2_PROTECTION = "type-2-protection"
    """A medium formatted with type 2 protection: nothing else admits the 32-byte reads and writes (SBC-4 4.21.2)."""


class Counted(enum.Enum):
    """What a command is to the statistics (SPC-5, General Statistics and Performance log pages)."""

    READ = "read command"
    """Logical blocks go to the initiator."""
    WRITE = "write command"
    """Logical blocks come from it."""
    OTHER = "neither"


class Extent(enum.Enum):
    """Which other commands must not overlap this one's logical blocks while it runs."""

    NONE = "none"
    SHARED = "shared"
    """An ordinary read or write: waits only for exclusive ones."""
    EXCLUSIVE = "exclusive"
    """Atomic to every other command (COMPARE AND WRITE, ORWRITE, WRITE ATOMIC, WRITE SAME ...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One operation code, or one service action of it."""

    name: str
    """The standard's name: ``READ (10)``."""
    operation_code: int
    service_action: int | None = None
    usage: bytes
    """CDB usage data as REPORT SUPPORTED OPERATION CODES returns it (SPC-5 6.29.3): its length is the CDB's; bits that are zero
    (other than in byte 0) are reserved or ignored. The service action stands in its field."""
    ignored: bytes = b""
    """Bits that may be one without effect, as many bytes as ``usage`` or none: obsolete bits and GROUP NUMBER. All bits that
    are zero here and in ``usage`` are reserved."""
    direction: Direction = Direction.NONE
    handler: str
    """Name of the pair of functions in :data:`tcm.target.device_server.HANDLERS`."""
    access: Access = Access.NONE
    reservation: Reservation = Reservation.CONFLICT
    """Read it through :meth:`conflicts`."""
    persistent_reservation: PersistentReservation = PersistentReservation.CONFLICT
    """Read it through :meth:`conflicts_persistently`."""
    harmless: tuple[int, int, int] | None = None
    """(byte, mask, value): a CDB with that value there does not conflict with a reservation (START, ALLOW)."""
    attention: Attention = Attention.REPORT
    readiness: Readiness = Readiness.ANY
    extent: Extent = Extent.NONE
    while_erasing: WhileErasing = WhileErasing.REFUSED
    access_states: AccessStates = AccessStates.ACTIVE
    feature: Feature | None = None
    """What the logical unit needs to have for this command to exist; ``None``: every one has it."""
    timeout: int = 30
    """Recommended timeout, seconds, for the timeouts descriptor (SPC-5 6.29.4)."""
    counted: Counted = field(init=False, repr=False)
    """Follows from the columns before."""
    reserved: int = field(init=False, repr=False)
    """The reserved bits, as a big-endian number of ``length`` bytes; what :func:`lookup` checks is not among them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "counted", self._counted())
        allowed = int.from_bytes(self.usage) | int.from_bytes(self.ignored)
        known = 0xFF << 8 * (self.length - 1)
        if self.operation_code == VARIABLE_LENGTH:
            known |= 0xFFFFFF << 8 * (self.length - 2 - VARIABLE_ACTION_BYTE)
        elif self.service_action is not None:
            known |= SERVICE_ACTION_MASK << 8 * (self.length - 1 - SERVICE_ACTION_BYTE)
        object.__setattr__(self, "reserved", ~(allowed | known) & (1 << 8 * self.length) - 1)

    def _counted(self) -> Counted:
        if self.extent is Extent.NONE:
            return Counted.OTHER
        moves = {(Access.READ, Direction.DATA_IN): Counted.READ, (Access.WRITE, Direction.DATA_OUT): Counted.WRITE}
        return moves.get((self.access, self.direction), Counted.OTHER)

    @property
    def length(self) -> int:
        """Bytes of the CDB."""
        return len(self.usage)

    @property
    def control_byte(self) -> int:
        """Where the CONTROL byte is: the last one, but for variable length CDBs (SPC-5 4.2.2, 4.2.3)."""
        return 1 if self.operation_code == VARIABLE_LENGTH else self.length - 1

    def conflicts(self, cdb: bytes) -> bool:
        """Whether another I_T nexus's SPC-2 reservation makes this CDB end in RESERVATION CONFLICT."""
        if self.reservation is Reservation.ALLOWED:
            return False
        return not self._is_harmless(cdb)

    def conflicts_persistently(self, cdb: bytes, *, exclusive_access: bool) -> bool:
        """Whether a persistent reservation that the sender has no part in makes this CDB end in RESERVATION CONFLICT.

        :param exclusive_access: the type is one of the Exclusive Access types, not of the Write Exclusive ones.
        """
        rule = self.persistent_reservation
        if rule is PersistentReservation.CONFLICT:
            return not self._is_harmless(cdb)
        return exclusive_access and rule is PersistentReservation.WRITE_EXCLUSIVE

    def _is_harmless(self, cdb: bytes) -> bool:
        if self.harmless is None:
            return False
        byte, mask, value = self.harmless
        return cdb[byte] & mask == value
