"""The exceptions that end a command: a status (SAM-5 5.3.1), and for CHECK CONDITION the sense data by name (SPC-5 4.5)."""

from __future__ import annotations

from typing import ClassVar

from tcm.scsi.sense import FieldPointer, Sense, SenseKey, Status


class CommandTerminated(Exception):
    """A command ends with a status other than GOOD."""

    status: Status

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class ReservationConflict(CommandTerminated):
    """RESERVATION CONFLICT status; no sense data."""

    def __init__(self) -> None:
        super().__init__(Status.RESERVATION_CONFLICT)


class CheckCondition(CommandTerminated):
    """CHECK CONDITION with sense data. Subclasses name the usual pairs of ASC and ASCQ."""

    key: ClassVar[SenseKey] = SenseKey.HARDWARE_ERROR
    asc: ClassVar[int] = 0x44
    ascq: ClassVar[int] = 0x00

    def __init__(
        self,
        *,
        information: int | None = None,
        command_specific: int | None = None,
        field: FieldPointer | None = None,
        sense: Sense | None = None,
    ) -> None:
        super().__init__(Status.CHECK_CONDITION)
        self.sense = sense or Sense(
            key=self.key,
            asc=self.asc,
            ascq=self.ascq,
            information=information,
            command_specific=command_specific,
            sense_key_specific=field.sense_key_specific() if field else None,
        )


class InternalTargetFailure(CheckCondition):
    """HARDWARE ERROR, INTERNAL TARGET FAILURE."""


class PersistentReservationInformationLost(CheckCondition):
    """DATA PROTECT, PERSISTENT RESERVATION INFORMATION LOST (SPC-4 5.13.5.3.2: recoverable)."""

    key, asc, ascq = SenseKey.DATA_PROTECT, 0x44, 0x01


class InvalidOpcode(CheckCondition):
    """ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x20, 0x00


class LbaOutOfRange(CheckCondition):
    """ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x21, 0x00


class InvalidFieldInCdb(CheckCondition):
    """ILLEGAL REQUEST, INVALID FIELD IN CDB."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x24, 0x00

    @classmethod
    def at(cls, byte: int, bit: int | None = None) -> InvalidFieldInCdb:
        """With a field pointer to ``byte`` (and ``bit``) of the CDB."""
        return cls(field=FieldPointer(in_cdb=True, byte=byte, bit=bit))


class LogicalUnitNotSupported(CheckCondition):
    """ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x25, 0x00


class InvalidFieldInParameterList(CheckCondition):
    """ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x26, 0x00

    @classmethod
    def at(cls, byte: int, bit: int | None = None) -> InvalidFieldInParameterList:
        """With a field pointer to ``byte`` (and ``bit``) of the parameter list."""
        return cls(field=FieldPointer(in_cdb=False, byte=byte, bit=bit))


class ParameterListLengthError(CheckCondition):
    """ILLEGAL REQUEST, PARAMETER LIST LENGTH ERROR."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x1A, 0x00


class InvalidFieldInCommandInformationUnit(CheckCondition):
    """ILLEGAL REQUEST, INVALID FIELD IN COMMAND INFORMATION UNIT (EDTL that cannot be)."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x0E, 0x03


class CommandSequenceError(CheckCondition):
    """ILLEGAL REQUEST, COMMAND SEQUENCE ERROR."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x2C, 0x00


class TooManyTargetDescriptors(CheckCondition):
    """ILLEGAL REQUEST, TOO MANY TARGET DESCRIPTORS (CSCD descriptors, that is)."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x26, 0x06


class UnsupportedTargetDescriptorTypeCode(InvalidFieldInParameterList):
    """ILLEGAL REQUEST, UNSUPPORTED TARGET DESCRIPTOR TYPE CODE."""

    asc, ascq = 0x26, 0x07


class TooManySegmentDescriptors(CheckCondition):
    """ILLEGAL REQUEST, TOO MANY SEGMENT DESCRIPTORS."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x26, 0x08


class UnsupportedSegmentDescriptorTypeCode(InvalidFieldInParameterList):
    """ILLEGAL REQUEST, UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE."""

    asc, ascq = 0x26, 0x09


class InlineDataLengthExceeded(CheckCondition):
    """ILLEGAL REQUEST, INLINE DATA LENGTH EXCEEDED."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x26, 0x0B


class OperationInProgress(CheckCondition):
    """ILLEGAL REQUEST, OPERATION IN PROGRESS: a list identifier that is in use."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x00, 0x16


class CommandsClearedByDeviceServer(CheckCondition):
    """COPY ABORTED, COMMANDS CLEARED BY DEVICE SERVER: COPY OPERATION ABORT."""

    key, asc, ascq = SenseKey.COPY_ABORTED, 0x2F, 0x02


class EchoBufferOverwritten(CheckCondition):
    """ABORTED COMMAND, ECHO BUFFER OVERWRITTEN."""

    key, asc, ascq = SenseKey.ABORTED_COMMAND, 0x3F, 0x0F


class SavingParametersNotSupported(CheckCondition):
    """ILLEGAL REQUEST, SAVING PARAMETERS NOT SUPPORTED."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x39, 0x00


class LogicalUnitFailedSelfTest(CheckCondition):
    """HARDWARE ERROR, LOGICAL UNIT FAILED SELF-TEST."""

    key, asc, ascq = SenseKey.HARDWARE_ERROR, 0x3E, 0x03


class WriteProtected(CheckCondition):
    """DATA PROTECT, WRITE PROTECTED."""

    key, asc, ascq = SenseKey.DATA_PROTECT, 0x27, 0x00


class SpaceAllocationFailed(CheckCondition):
    """DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT."""

    key, asc, ascq = SenseKey.DATA_PROTECT, 0x27, 0x07


class InvalidReleaseOfPersistentReservation(CheckCondition):
    """ILLEGAL REQUEST, INVALID RELEASE OF PERSISTENT RESERVATION."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x26, 0x04


class InsufficientRegistrationResources(CheckCondition):
    """ILLEGAL REQUEST, INSUFFICIENT REGISTRATION RESOURCES."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x55, 0x04


class MiscompareDuringVerify(CheckCondition):
    """MISCOMPARE, MISCOMPARE DURING VERIFY OPERATION; INFORMATION is the offset of the first byte that differs."""

    key, asc, ascq = SenseKey.MISCOMPARE, 0x1D, 0x00


class LogicalBlockGuardCheckFailed(CheckCondition):
    """ABORTED COMMAND, LOGICAL BLOCK GUARD CHECK FAILED; INFORMATION is the LBA."""

    key, asc, ascq = SenseKey.ABORTED_COMMAND, 0x10, 0x01


class LogicalBlockApplicationTagCheckFailed(CheckCondition):
    """ABORTED COMMAND, LOGICAL BLOCK APPLICATION TAG CHECK FAILED; INFORMATION is the LBA."""

    key, asc, ascq = SenseKey.ABORTED_COMMAND, 0x10, 0x02


class LogicalBlockReferenceTagCheckFailed(CheckCondition):
    """ABORTED COMMAND, LOGICAL BLOCK REFERENCE TAG CHECK FAILED; INFORMATION is the LBA."""

    key, asc, ascq = SenseKey.ABORTED_COMMAND, 0x10, 0x03


class UnrecoveredReadError(CheckCondition):
    """MEDIUM ERROR, UNRECOVERED READ ERROR."""

    key, asc, ascq = SenseKey.MEDIUM_ERROR, 0x11, 0x00


class WriteError(CheckCondition):
    """MEDIUM ERROR, WRITE ERROR."""

    key, asc, ascq = SenseKey.MEDIUM_ERROR, 0x0C, 0x00


class NotReady(CheckCondition):
    """NOT READY, LOGICAL UNIT NOT READY, CAUSE NOT REPORTABLE."""

    key, asc, ascq = SenseKey.NOT_READY, 0x04, 0x00


class InitializingCommandRequired(CheckCondition):
    """NOT READY, LOGICAL UNIT NOT READY, INITIALIZING COMMAND REQUIRED (a stopped unit)."""

    key, asc, ascq = SenseKey.NOT_READY, 0x04, 0x02


class MediumNotPresent(CheckCondition):
    """NOT READY, MEDIUM NOT PRESENT."""

    key, asc, ascq = SenseKey.NOT_READY, 0x3A, 0x00


class FormatInProgress(CheckCondition):
    """NOT READY, LOGICAL UNIT NOT READY, FORMAT IN PROGRESS."""

    key, asc, ascq = SenseKey.NOT_READY, 0x04, 0x04


class SanitizeInProgress(CheckCondition):
    """NOT READY, LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS."""

    key, asc, ascq = SenseKey.NOT_READY, 0x04, 0x1B


class AccessStateTransition(CheckCondition):
    """NOT READY, LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION."""

    key, asc, ascq = SenseKey.NOT_READY, 0x04, 0x0A


class TargetPortInStandbyState(CheckCondition):
    """NOT READY, LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN STANDBY STATE."""

    key, asc, ascq = SenseKey.NOT_READY, 0x04, 0x0B


class TargetPortInUnavailableState(CheckCondition):
    """NOT READY, LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN UNAVAILABLE STATE."""

    key, asc, ascq = SenseKey.NOT_READY, 0x04, 0x0C


class LogicalUnitOffline(CheckCondition):
    """NOT READY, LOGICAL UNIT NOT READY, OFFLINE (LIO's answer through a port that is offline)."""

    key, asc, ascq = SenseKey.NOT_READY, 0x04, 0x12


class SetTargetPortGroupsCommandFailed(CheckCondition):
    """HARDWARE ERROR, SET TARGET PORT GROUPS COMMAND FAILED."""

    key, asc, ascq = SenseKey.HARDWARE_ERROR, 0x67, 0x0A


class InspectReferralsSenseDescriptors(CheckCondition):
    """ABORTED COMMAND, INSPECT REFERRALS SENSE DESCRIPTORS."""

    key, asc, ascq = SenseKey.ABORTED_COMMAND, 0x3F, 0x15


class MediumFormatCorrupted(CheckCondition):
    """MEDIUM ERROR, MEDIUM FORMAT CORRUPTED."""

    key, asc, ascq = SenseKey.MEDIUM_ERROR, 0x31, 0x00


class FormatCommandFailed(CheckCondition):
    """MEDIUM ERROR, FORMAT COMMAND FAILED."""

    key, asc, ascq = SenseKey.MEDIUM_ERROR, 0x31, 0x01


class SanitizeCommandFailed(CheckCondition):
    """MEDIUM ERROR, SANITIZE COMMAND FAILED."""

    key, asc, ascq = SenseKey.MEDIUM_ERROR, 0x31, 0x03


class MediumRemovalPrevented(CheckCondition):
    """ILLEGAL REQUEST, MEDIUM REMOVAL PREVENTED."""

    key, asc, ascq = SenseKey.ILLEGAL_REQUEST, 0x53, 0x02


class OverlappedCommandsAttempted(CheckCondition):
    """ABORTED COMMAND, OVERLAPPED COMMANDS ATTEMPTED."""

    key, asc, ascq = SenseKey.ABORTED_COMMAND, 0x4E, 0x00
