"""The command table: one row for each operation code and service action (SPC-5, SBC-4, and SPC-2 for RESERVE and RELEASE).

Reserved-bit checks, REPORT SUPPORTED OPERATION CODES, reservation conflicts, readiness, unit attentions and locking all read
these rows. Timeouts are for a disk that answers slowly, not for one that has gone.

The usage data are written as the standard's CDB tables are read, byte 0 first. RDPROTECT, WRPROTECT, ORPROTECT and VRPROTECT
are zero in them, but for 32-byte CDBs: a logical unit without protection information refuses the fields (SBC-4 4.21.2).
"""

from __future__ import annotations

from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidOpcode
from tcm.scsi.command import (
    ADDITIONAL_LENGTH_BYTE,
    ADDITIONAL_LENGTH_OFFSET,
    SERVICE_ACTION_BYTE,
    SERVICE_ACTION_MASK,
    VARIABLE_ACTION_BYTE,
    VARIABLE_LENGTH,
    Access,
    AccessStates,
    Attention,
    Command,
    Direction,
    Extent,
    Feature,
    PersistentReservation,
    Readiness,
    Reservation,
    WhileErasing,
)

NONE, IN, OUT = Direction.NONE, Direction.DATA_IN, Direction.DATA_OUT
OPEN, SANITIZING = WhileErasing.ALLOWED, WhileErasing.SANITIZING
STANDBY, SETTLED, ALWAYS = AccessStates.STANDBY, AccessStates.SETTLED, AccessStates.ANY
ALLOWED, CONFLICT = Reservation.ALLOWED, Reservation.CONFLICT
READS, OWN, PASSES = PersistentReservation.WRITE_EXCLUSIVE, PersistentReservation.OWN_RULES, PersistentReservation.ALLOWED

SHORT, MEDIUM, LONG, WHOLE = 30, 60, 600, 86400
"""Recommended timeouts, seconds: no medium access; as much of it as one transfer; as much as all of it; all of it written."""

# What CDBs of one shape have in common: obsolete FUA_NV and SYNC_NV, and the GROUP NUMBER field. GROUP NUMBER only asks for
# statistics to be collected (SBC-4 4.26), so without the grouping function it is ignored, not refused.
IGNORED_10 = "00 02 00 00 00 00 3f 00 00 00"
IGNORED_12 = "00 02 00 00 00 00 00 00 00 00 3f 00"
IGNORED_16 = "00 02 00 00 00 00 00 00 00 00 00 00 00 00 3f 00"
IGNORED_32 = "00 00 00 00 00 00 3f 00 00 00 02" + 21 * " 00"
GROUP_10 = "00 00 00 00 00 00 3f 00 00 00"
GROUP_12 = "00 00 00 00 00 00 00 00 00 00 3f 00"
GROUP_16 = "00 00 00 00 00 00 00 00 00 00 00 00 00 00 3f 00"
GROUP_32 = "00 00 00 00 00 00 3f" + 25 * " 00"
SYNC_NV_10 = "00 04 00 00 00 00 3f 00 00 00"
SYNC_NV_16 = "00 04 00 00 00 00 00 00 00 00 00 00 00 00 3f 00"
# READ CAPACITY's LOGICAL BLOCK ADDRESS and PMI are obsolete since SBC-3.
PMI_10 = "00 00 ff ff ff ff 00 00 01 00"
PMI_16 = "00 00 ff ff ff ff ff ff ff ff 00 00 00 00 01 00"

# ZNR is for zoned block devices, and ignored by all others (SBC-4 5.30.1).
ZNR = "00 40 00 00 00 00 00 00 00 00"


def _cdb_32(action: int, flags: int) -> str:
    """Usage data of a 32-byte block command: flags in byte 10, LBA, expected tags and their mask, length (SBC-4 5.19)."""
    return f"7f 00 00 00 00 00 00 18 {action:04x} {flags:02x} 00" + 20 * " ff"


def _service_action(cdb: bytes) -> int:
    if cdb[0] == VARIABLE_LENGTH:
        return int.from_bytes(cdb[VARIABLE_ACTION_BYTE : VARIABLE_ACTION_BYTE + 2])
    return cdb[SERVICE_ACTION_BYTE] & SERVICE_ACTION_MASK


def _row(
    name: str,
    usage: str,
    handler: str,
    direction: Direction = NONE,
    *,
    action: bool = False,
    ignored: str = "",
    access: Access = Access.NONE,
    reservation: Reservation = CONFLICT,
    persistent: PersistentReservation | None = None,
    harmless: tuple[int, int, int] | None = None,
    attention: Attention = Attention.REPORT,
    readiness: Readiness = Readiness.ANY,
    extent: Extent = Extent.NONE,
    while_erasing: WhileErasing = WhileErasing.REFUSED,
    states: AccessStates = AccessStates.ACTIVE,
    feature: Feature | None = None,
    timeout: int = SHORT,
) -> Command:
    data = bytes.fromhex(usage)
    return Command(
        name=name,
        operation_code=data[0],
        service_action=_service_action(data) if action else None,
        usage=data,
        ignored=bytes.fromhex(ignored),
        direction=direction,
        handler=handler,
        access=access,
        reservation=reservation,
        persistent_reservation=persistent or (PASSES if reservation is ALLOWED else PersistentReservation.CONFLICT),
        harmless=harmless,
        attention=attention,
        readiness=readiness,
        extent=extent,
        while_erasing=while_erasing,
        access_states=states,
        feature=feature,
        timeout=timeout,
    )


def _medium(
    name: str,
    usage: str,
    handler: str,
    direction: Direction = NONE,
    *,
    access: Access = Access.NONE,
    extent: Extent = Extent.NONE,
    action: bool = False,
    ignored: str = "",
    reservation: Reservation = CONFLICT,
    while_erasing: WhileErasing = WhileErasing.REFUSED,
    persistent: PersistentReservation | None = None,
    states: AccessStates = AccessStates.ACTIVE,
    feature: Feature | None = None,
    timeout: int = MEDIUM,
) -> Command:
    """A row of a command that needs its medium."""
    return _row(
        name,
        usage,
        handler,
        direction,
        access=access,
        extent=extent,
        action=action,
        ignored=ignored,
        reservation=reservation,
        while_erasing=while_erasing,
        persistent=persistent,
        states=states,
        feature=feature,
        timeout=timeout,
        readiness=Readiness.READY,
    )


def _read(
    name: str,
    usage: str,
    handler: str,
    direction: Direction = NONE,
    *,
    action: bool = False,
    ignored: str = "",
    feature: Feature | None = None,
) -> Command:
    """A row of a command that reads logical blocks."""
    return _medium(
        name,
        usage,
        handler,
        direction,
        access=Access.READ,
        extent=Extent.SHARED,
        action=action,
        ignored=ignored,
        persistent=READS,
        feature=feature,
    )


def _write(
    name: str,
    usage: str,
    handler: str,
    *,
    action: bool = False,
    ignored: str = "",
    extent: Extent = Extent.SHARED,
    feature: Feature | None = None,
    timeout: int = MEDIUM,
) -> Command:
    """A row of a command that changes logical blocks."""
    return _medium(
        name,
        usage,
        handler,
        OUT,
        access=Access.WRITE,
        extent=extent,
        action=action,
        ignored=ignored,
        feature=feature,
        timeout=timeout,
    )


ALONE = Extent.EXCLUSIVE
TYPE_2 = Feature.TYPE_2_PROTECTION

# fmt: off
COMMANDS: tuple[Command, ...] = (
    # -- SPC-5: what the unit is ---------------------------------------------------------------------------------------------
    _medium("TEST UNIT READY", "00 00 00 00 00 00", "test_unit_ready", persistent=PASSES, timeout=SHORT),
    _row("REQUEST SENSE", "03 01 00 00 ff 00", "request_sense", IN, reservation=ALLOWED, attention=Attention.SENSE_DATA,
         while_erasing=OPEN, states=ALWAYS),
    # LOGICAL UNIT NUMBER of SCSI-2: Linux fills it in when the first unit that it looks for on a target is not LUN 0
    _row("INQUIRY", "12 01 ff ff ff 00", "inquiry", IN, ignored="00 e0 00 00 00 00", reservation=ALLOWED,
         attention=Attention.IGNORE, while_erasing=OPEN, states=ALWAYS),
    _row("REPORT LUNS", "a0 00 ff 00 00 00 ff ff ff ff 00 00", "report_luns", IN,
         reservation=ALLOWED, attention=Attention.IGNORE, while_erasing=OPEN, states=ALWAYS),
    _row("REPORT SUPPORTED OPERATION CODES", "a3 0c 87 ff ff ff ff ff ff ff 00 00", "report_supported_operation_codes", IN,
         action=True, reservation=ALLOWED, persistent=READS, while_erasing=SANITIZING,
         feature=Feature.REPORT_SUPPORTED, states=STANDBY),
    _row("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", "a3 0d 80 00 00 00 ff ff ff ff 00 00",
         "report_supported_task_management_functions", IN, action=True, reservation=ALLOWED, persistent=READS,
         while_erasing=SANITIZING, states=STANDBY),
    # -- SPC-4: asymmetric logical unit access ---------------------------------------------------------------------------------
    _row("REPORT TARGET PORT GROUPS", "a3 ea 00 00 00 00 ff ff ff ff 00 00", "report_target_port_groups", IN, action=True,
         reservation=ALLOWED, states=ALWAYS),
    _row("SET TARGET PORT GROUPS", "a4 0a 00 00 00 00 ff ff ff ff 00 00", "set_target_port_groups", OUT, action=True,
         feature=Feature.EXPLICIT_ACCESS, states=SETTLED),
    # -- SPC-5: what it is called --------------------------------------------------------------------------------------------
    _row("REPORT IDENTIFYING INFORMATION", "a3 05 00 00 00 00 ff ff ff ff fe 00", "report_identifying_information", IN,
         action=True, reservation=ALLOWED, feature=Feature.IDENTIFYING_INFORMATION, states=STANDBY),
    _row("SET IDENTIFYING INFORMATION", "a4 06 00 00 00 00 ff ff ff ff fe 00", "set_identifying_information", OUT,
         action=True, feature=Feature.IDENTIFYING_INFORMATION),
    _row("REPORT TIMESTAMP", "a3 0f 00 00 00 00 ff ff ff ff 00 00", "report_timestamp", IN, action=True,
         reservation=ALLOWED, states=STANDBY),
    _row("SET TIMESTAMP", "a4 0f 00 00 00 00 ff ff ff ff 00 00", "set_timestamp", OUT, action=True),
    # -- SPC-5: buffers, security ----------------------------------------------------------------------------------------------
    _row("READ BUFFER (10)", "3c 1f ff ff ff ff ff ff ff 00", "read_buffer", IN, persistent=READS, states=ALWAYS),
    _row("WRITE BUFFER", "3b 1f ff ff ff ff ff ff ff 00", "write_buffer", OUT, states=ALWAYS),
    _row("SECURITY PROTOCOL IN", "a2 ff ff ff 80 00 ff ff ff ff 00 00", "security_protocol_in", IN,
         persistent=READS, states=STANDBY),
    # -- SPC-5: parameters ---------------------------------------------------------------------------------------------------
    _row("MODE SELECT (6)", "15 11 00 00 ff 00", "mode_select", OUT, states=STANDBY),
    _row("MODE SELECT (10)", "55 11 00 00 00 00 00 ff ff 00", "mode_select", OUT, states=STANDBY),
    _row("MODE SENSE (6)", "1a 08 ff ff ff 00", "mode_sense", IN, persistent=READS, while_erasing=SANITIZING, states=STANDBY),
    _row("MODE SENSE (10)", "5a 18 ff ff 00 00 00 ff ff 00", "mode_sense", IN, persistent=READS, while_erasing=SANITIZING,
         states=STANDBY),
    _row("LOG SELECT", "4c 03 ff ff 00 00 00 ff ff 00", "log_select", OUT, states=STANDBY),
    _row("LOG SENSE", "4d 01 ff ff 00 ff ff ff ff 00", "log_sense", IN, reservation=ALLOWED, states=STANDBY),
    _row("RECEIVE DIAGNOSTIC RESULTS", "1c 01 ff ff ff 00", "receive_diagnostic_results", IN, persistent=READS,
         states=STANDBY),
    _row("SEND DIAGNOSTIC", "1d 17 00 ff ff 00", "send_diagnostic", OUT, timeout=LONG, states=STANDBY),
    # -- SPC-2: reservations (third-party and extent reservations are refused as reserved bits, SPC-2 7.21) --------------------
    _row("RESERVE (6)", "16 00 00 00 00 00", "reserve", persistent=OWN, feature=Feature.RESERVE),
    _row("RELEASE (6)", "17 00 00 00 00 00", "release", reservation=ALLOWED, persistent=OWN, feature=Feature.RESERVE),
    _row("RESERVE (10)", "56 00 00 00 00 00 00 00 00 00", "reserve", persistent=OWN, feature=Feature.RESERVE),
    _row("RELEASE (10)", "57 00 00 00 00 00 00 00 00 00", "release", reservation=ALLOWED, persistent=OWN,
         feature=Feature.RESERVE),
    # -- SPC-5: persistent reservations (SCOPE and TYPE are ignored by REGISTER, REGISTER AND MOVE and CLEAR) ---------------
    *(_row(f"PERSISTENT RESERVE IN, {name}", f"5e {code:02x} 00 00 00 00 00 ff ff 00", f"prin_{name.lower().replace(' ', '_')}",
           IN, action=True, persistent=PASSES, feature=Feature.RESERVE, states=STANDBY)
      for code, name in enumerate(("READ KEYS", "READ RESERVATION", "REPORT CAPABILITIES", "READ FULL STATUS"))),
    *(_row(f"PERSISTENT RESERVE OUT, {name}", f"5f {code:02x} {'ff' if typed else '00'} 00 00 ff ff ff ff 00",
           "persistent_reserve_out", OUT, action=True, ignored="" if typed else "00 00 ff 00 00 00 00 00 00 00", persistent=OWN,
           feature=Feature.RESERVE, states=STANDBY)
      for code, (name, typed) in enumerate((
          ("REGISTER", False), ("RESERVE", True), ("RELEASE", True), ("CLEAR", False), ("PREEMPT", True),
          ("PREEMPT AND ABORT", True), ("REGISTER AND IGNORE EXISTING KEY", False), ("REGISTER AND MOVE", False),
          ("REPLACE LOST RESERVATION", True)))),
    # -- SPC-4: third-party copy ---------------------------------------------------------------------------------------------
    _row("EXTENDED COPY (LID1)", "83 00 00 00 00 00 00 00 00 00 ff ff ff ff 00 00", "extended_copy", OUT, action=True,
         feature=Feature.THIRD_PARTY_COPY, timeout=LONG),
    _row("EXTENDED COPY (LID4)", "83 01 00 00 00 00 00 00 00 00 ff ff ff ff 00 00", "extended_copy", OUT, action=True,
         feature=Feature.THIRD_PARTY_COPY, timeout=LONG),
    _row("COPY OPERATION ABORT", "83 1c ff ff ff ff 00 00 00 00 00 00 00 00 00 00", "copy_operation_abort", action=True,
         feature=Feature.THIRD_PARTY_COPY),
    *(_row(f"RECEIVE COPY {name}", f"84 {code:02x} {fields} ff ff ff ff 00 00", f"receive_copy_{handler}", IN, action=True,
           persistent=PASSES, feature=Feature.THIRD_PARTY_COPY)
      for code, name, fields, handler in (
          (0x00, "STATUS (LID1)", "ff 00 00 00 00 00 00 00", "status_lid1"),
          (0x03, "OPERATING PARAMETERS", "00 00 00 00 00 00 00 00", "operating_parameters"),
          (0x04, "FAILURE DETAILS (LID1)", "ff 00 00 00 00 00 00 00", "failure_details"),
          (0x05, "STATUS (LID4)", "ff ff ff ff 00 00 00 00", "status_lid4"))),
    # -- SBC-4: the medium ---------------------------------------------------------------------------------------------------
    _row("START STOP UNIT", "1b 01 00 0f f7 00", "start_stop_unit", harmless=(4, 0xF1, 0x01), timeout=LONG),
    _row("PREVENT ALLOW MEDIUM REMOVAL", "1e 00 00 00 03 00", "prevent_allow_medium_removal", harmless=(4, 0x03, 0x00)),
    _medium("READ CAPACITY (10)", "25 00 00 00 00 00 00 00 00 00", "read_capacity_10", IN, ignored=PMI_10,
            reservation=ALLOWED, while_erasing=SANITIZING, timeout=SHORT, states=STANDBY),
    _medium("READ CAPACITY (16)", "9e 10 00 00 00 00 00 00 00 00 ff ff ff ff 00 00", "read_capacity_16", IN, action=True,
            ignored=PMI_16, reservation=ALLOWED, while_erasing=SANITIZING, timeout=SHORT, states=STANDBY),
    _medium("GET LBA STATUS (16)", "9e 12 ff ff ff ff ff ff ff ff ff ff ff ff 00 00", "get_lba_status", IN, action=True,
            persistent=READS),
    _medium("GET LBA STATUS (32)", "7f 00 00 00 00 00 00 18 00 12 00 00" + 12 * " ff" + 4 * " 00" + 4 * " ff",
            "get_lba_status_32", IN, action=True, persistent=READS),
    _medium("REPORT REFERRALS", "9e 13 ff ff ff ff ff ff ff ff ff ff ff ff 01 00", "report_referrals", IN, action=True,
            reservation=ALLOWED, feature=Feature.REFERRALS, states=STANDBY, timeout=SHORT),
    _medium("READ DEFECT DATA (10)", "37 00 1f 00 00 00 00 ff ff 00", "read_defect_data", IN, persistent=READS),
    _medium("READ DEFECT DATA (12)", "b7 1f ff ff ff ff ff ff ff ff 00 00", "read_defect_data", IN, persistent=READS),
    _medium("SYNCHRONIZE CACHE (10)", "35 02 ff ff ff ff 00 ff ff 00", "synchronize_cache", ignored=SYNC_NV_10, timeout=LONG),
    _medium("SYNCHRONIZE CACHE (16)", "91 02 ff ff ff ff ff ff ff ff ff ff ff ff 00 00", "synchronize_cache",
            ignored=SYNC_NV_16, timeout=LONG),
    # -- SBC-4: reads --------------------------------------------------------------------------------------------------------
    _read("READ (6)", "08 1f ff ff ff 00", "read", IN),
    _read("READ (10)", "28 18 ff ff ff ff 00 ff ff 00", "read", IN, ignored=IGNORED_10),
    _read("READ (12)", "a8 18 ff ff ff ff ff ff ff ff 00 00", "read", IN, ignored=IGNORED_12),
    _read("READ (16)", "88 18 ff ff ff ff ff ff ff ff ff ff ff ff 00 00", "read", IN, ignored=IGNORED_16),
    _read("READ (32)", _cdb_32(0x0009, 0xF8), "read", IN, action=True, ignored=IGNORED_32, feature=TYPE_2),
    _read("PRE-FETCH (10)", "34 02 ff ff ff ff 00 ff ff 00", "pre_fetch", ignored=GROUP_10),
    _read("PRE-FETCH (16)", "90 02 ff ff ff ff ff ff ff ff ff ff ff ff 00 00", "pre_fetch", ignored=GROUP_16),
    _read("VERIFY (10)", "2f 16 ff ff ff ff 00 ff ff 00", "verify", OUT, ignored=GROUP_10),
    _read("VERIFY (12)", "af 16 ff ff ff ff ff ff ff ff 00 00", "verify", OUT, ignored=GROUP_12),
    _read("VERIFY (16)", "8f 16 ff ff ff ff ff ff ff ff ff ff ff ff 00 00", "verify", OUT, ignored=GROUP_16),
    _read("VERIFY (32)", _cdb_32(0x000A, 0xF6), "verify", OUT, action=True, ignored=GROUP_32, feature=TYPE_2),
    # -- SBC-4: writes (ANCHOR is refused as a reserved bit: ANC_SUP is zero) --------------------------------------------------
    _write("WRITE (6)", "0a 1f ff ff ff 00", "write"),
    _write("WRITE (10)", "2a 18 ff ff ff ff 00 ff ff 00", "write", ignored=IGNORED_10),
    _write("WRITE (12)", "aa 18 ff ff ff ff ff ff ff ff 00 00", "write", ignored=IGNORED_12),
    _write("WRITE (16)", "8a 18 ff ff ff ff ff ff ff ff ff ff ff ff 00 00", "write", ignored=IGNORED_16),
    _write("WRITE (32)", _cdb_32(0x000B, 0xF8), "write", action=True, ignored=IGNORED_32, feature=TYPE_2),
    _write("WRITE AND VERIFY (10)", "2e 16 ff ff ff ff 00 ff ff 00", "write_and_verify", ignored=GROUP_10, extent=ALONE),
    _write("WRITE AND VERIFY (12)", "ae 16 ff ff ff ff ff ff ff ff 00 00", "write_and_verify", ignored=GROUP_12, extent=ALONE),
    _write("WRITE AND VERIFY (16)", "8e 16 ff ff ff ff ff ff ff ff ff ff ff ff 00 00", "write_and_verify", ignored=GROUP_16,
           extent=ALONE),
    _write("WRITE AND VERIFY (32)", _cdb_32(0x000C, 0xF6), "write_and_verify", action=True, ignored=GROUP_32, extent=ALONE,
           feature=TYPE_2),
    _write("WRITE ATOMIC (16)", "9c 18 ff ff ff ff ff ff ff ff 00 00 ff ff 00 00", "write_atomic", ignored=GROUP_16,
           extent=ALONE, feature=Feature.ATOMIC_WRITE),
    _write("WRITE ATOMIC (32)", _cdb_32(0x000F, 0xF8), "write_atomic", action=True, ignored=GROUP_32, extent=ALONE,
           feature=TYPE_2),
    _write("ORWRITE (16)", "8b 18 ff ff ff ff ff ff ff ff ff ff ff ff 00 00", "orwrite", ignored=IGNORED_16, extent=ALONE),
    _write("COMPARE AND WRITE", "89 18 ff ff ff ff ff ff ff ff 00 00 00 ff 00 00", "compare_and_write", ignored=IGNORED_16,
           extent=ALONE, feature=Feature.COMPARE_AND_WRITE),
    _write("WRITE SAME (10)", "41 08 ff ff ff ff 00 ff ff 00", "write_same", ignored=GROUP_10, extent=ALONE, timeout=LONG),
    _write("WRITE SAME (16)", "93 09 ff ff ff ff ff ff ff ff ff ff ff ff 00 00", "write_same", ignored=GROUP_16, extent=ALONE,
           timeout=LONG),
    _write("WRITE SAME (32)", _cdb_32(0x000D, 0xE9), "write_same", action=True, ignored=GROUP_32, extent=ALONE, feature=TYPE_2,
           timeout=LONG),
    _write("UNMAP", "42 00 00 00 00 00 00 ff ff 00", "unmap", ignored=GROUP_10, feature=Feature.UNMAP, timeout=LONG),
    # -- SBC-4 and SPC-5: ROD tokens (no extents: the logical blocks stand in the parameter list) ------------------------------
    _medium("POPULATE TOKEN", "83 10 00 00 00 00 ff ff ff ff ff ff ff ff 00 00", "populate_token", OUT, access=Access.READ,
            action=True, ignored=GROUP_16, persistent=READS, feature=Feature.THIRD_PARTY_COPY),
    _medium("WRITE USING TOKEN", "83 11 00 00 00 00 ff ff ff ff ff ff ff ff 00 00", "write_using_token", OUT,
            access=Access.WRITE, action=True, ignored=GROUP_16, feature=Feature.THIRD_PARTY_COPY, timeout=LONG),
    _row("RECEIVE ROD TOKEN INFORMATION", "84 07 ff ff ff ff 00 00 00 00 ff ff ff ff 00 00", "receive_rod_token_information",
         IN, action=True, reservation=ALLOWED, feature=Feature.THIRD_PARTY_COPY),
    _row("REPORT ALL ROD TOKENS", "84 08 00 00 00 00 00 00 00 00 ff ff ff ff 00 00", "report_all_rod_tokens", IN,
         action=True, reservation=ALLOWED, feature=Feature.THIRD_PARTY_COPY),
    # -- SBC-4: the whole medium -----------------------------------------------------------------------------------------------
    _medium("SANITIZE OVERWRITE", "48 a1 00 00 00 00 00 ff ff 00", "sanitize_overwrite", OUT, access=Access.WRITE, action=True,
            ignored=ZNR, while_erasing=WhileErasing.SANITIZES, timeout=WHOLE),
    _medium("SANITIZE BLOCK ERASE", "48 a2 00 00 00 00 00 00 00 00", "sanitize_block_erase", access=Access.WRITE, action=True,
            ignored=ZNR, while_erasing=WhileErasing.SANITIZES, feature=Feature.BLOCK_ERASE, timeout=WHOLE),
    _medium("SANITIZE CRYPTOGRAPHIC ERASE", "48 a3 00 00 00 00 00 00 00 00", "sanitize_cryptographic_erase",
            access=Access.WRITE, action=True, ignored=ZNR, while_erasing=WhileErasing.SANITIZES,
            feature=Feature.CRYPTOGRAPHIC_ERASE, timeout=LONG),
    _medium("SANITIZE EXIT FAILURE MODE", "48 1f 00 00 00 00 00 00 00 00", "sanitize_exit_failure_mode", access=Access.WRITE,
            action=True, ignored="00 e0 00 00 00 00 00 00 00 00", while_erasing=WhileErasing.SANITIZES),
    _medium("FORMAT UNIT", "04 ff 00 00 00 00", "format_unit", OUT, access=Access.WRITE, ignored="00 00 00 ff 00 00",
            while_erasing=WhileErasing.FORMATS, timeout=WHOLE),
)
# fmt: on


def _index() -> list[Command | dict[int, Command] | None]:
    index: list[Command | dict[int, Command] | None] = [None] * 256
    for command in COMMANDS:
        if command.service_action is None:
            index[command.operation_code] = command
            continue
        actions = index[command.operation_code]
        if not isinstance(actions, dict):
            actions = index[command.operation_code] = {}
        actions[command.service_action] = command
    return index


_INDEX = _index()


def lookup(cdb: bytes) -> Command:
    """The row for a CDB, which may be longer than its command (iSCSI pads to 16 bytes).

    :raises InvalidOpcode: no row has this operation code, or there is no CDB.
    :raises InvalidFieldInCdb: an unknown service action of a known operation code, or a CDB that ends too early.
    """
    entry = _INDEX[cdb[0]] if cdb else None
    if entry is None:
        raise InvalidOpcode
    if isinstance(entry, dict):
        if cdb[0] == VARIABLE_LENGTH:
            return _lookup_variable(cdb, entry)
        if len(cdb) <= SERVICE_ACTION_BYTE:
            raise InvalidFieldInCdb.at(len(cdb))
        action = entry.get(cdb[SERVICE_ACTION_BYTE] & SERVICE_ACTION_MASK)
        if action is None:
            raise InvalidFieldInCdb.at(SERVICE_ACTION_BYTE, SERVICE_ACTION_MASK.bit_length() - 1)
        entry = action
    if len(cdb) < len(entry.usage):
        raise InvalidFieldInCdb.at(len(cdb))
    return entry


def _lookup_variable(cdb: bytes, actions: dict[int, Command]) -> Command:
    """The row for a variable length CDB; its service action comes with one length."""
    if len(cdb) < VARIABLE_ACTION_BYTE + 2:
        raise InvalidFieldInCdb.at(len(cdb))
    command = actions.get(_service_action(cdb))
    if command is None:
        raise InvalidFieldInCdb.at(VARIABLE_ACTION_BYTE)
    if cdb[ADDITIONAL_LENGTH_BYTE] != command.length - ADDITIONAL_LENGTH_OFFSET:
        raise InvalidFieldInCdb.at(ADDITIONAL_LENGTH_BYTE)
    if len(cdb) < command.length:
        raise InvalidFieldInCdb.at(len(cdb))
    return command


def rows(operation_code: int) -> tuple[Command, ...]:
    """All rows of an operation code: none, one, or one for each service action."""
    entry = _INDEX[operation_code]
    if entry is None:
        return ()
    return tuple(entry.values()) if isinstance(entry, dict) else (entry,)


def check_reserved(command: Command, cdb: bytes) -> None:
    """Refuse a CDB with a reserved bit set; NACA is one of them (SAM-5 5.2: NORMACA is zero).

    :raises InvalidFieldInCdb: with a pointer to the first such bit: the lowest byte, and in it the most significant bit.
    """
    length = len(command.usage)
    wrong = int.from_bytes(cdb[:length]) & command.reserved
    if wrong:
        byte, bit = divmod(8 * length - wrong.bit_length(), 8)
        raise InvalidFieldInCdb.at(byte, 7 - bit)
