"""A valid CDB and a valid parameter list for each command that takes one: what bad input is made of by changing it a little.

And for each command that returns data, a CDB that has it return some. A row of the command table that neither table has fails
tests/conformance/test_bad_input.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from support.copies import cscd_of
from support.reservations import SPEC_I_PT, move_parameters, parameters, sas, specified
from support.scsi import SECOND, logical_unit
from support.tokens import populate_data, write_data
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb, copy_cdb
from tcm.scsi.asymmetric_access import AccessState
from tcm.scsi.command import Command, Direction, Extent
from tcm.scsi.persistent_reservations import OutAction, ReservationType
from tcm.target.persistent_reservations import Registration, State

KEY, OTHER_KEY = 0xA1, 0xB2
THIRD = "naa.5001405000000003"
KIND = ReservationType.WRITE_EXCLUSIVE
ZERO_TOKEN = bytes.fromhex("ffff0001 0000 01f8") + bytes(504)
"""The block device zero ROD token: it stands for zeroes, and is always valid."""


@dataclass(frozen=True, slots=True)
class Example:
    """A command that is GOOD.

    :param field: first byte and size of PARAMETER LIST LENGTH; ``None``: the CDB has no such field.
    :param registered: the sender is registered with ``KEY`` and holds the reservation, as far as that is so for the command.
    """

    cdb: bytes
    data: bytes
    field: tuple[int, int] | None
    registered: bool = False
    holds: bool = False
    lost: bool = False

    def told(self, length: int) -> bytes:
        """The CDB with another PARAMETER LIST LENGTH."""
        if self.field is None:
            return self.cdb
        at, size = self.field
        return self.cdb[:at] + length.to_bytes(size) + self.cdb[at + size :]

    @property
    def longest(self) -> int:
        """What PARAMETER LIST LENGTH can say at most."""
        return (1 << 8 * self.field[1]) - 1 if self.field else 0


def takes_a_list(command: Command) -> bool:
    """Whether its Data-Out is a parameter list, not logical blocks."""
    blocks = command.extent is not Extent.NONE and command.name != "UNMAP"
    return command.direction is Direction.DATA_OUT and not blocks


def returns_data(command: Command) -> bool:
    """Whether it has an allocation length."""
    blocks = command.extent is not Extent.NONE
    return command.direction is Direction.DATA_IN and not blocks and command.name != "READ CAPACITY (10)"


def _made(build: Callable[[int], bytes], data: bytes, field: tuple[int, int] | None, **more: Any) -> Example:
    return Example(build(len(data)), data, field, **more)


def _reserve_out(action: OutAction, *, new: int = OTHER_KEY, data: bytes | None = None, **more: Any) -> Example:
    registered = action is not OutAction.REPLACE_LOST_RESERVATION
    data = parameters(KEY if registered else 0, new) if data is None else data
    return _made(lambda length: cdb.persistent_reserve_out(action, KIND, length), data, (5, 4), registered=registered, **more)


_PORT_FIELD = slice(18, 20)
_MOVED = move_parameters(KEY, OTHER_KEY, 1, sas(SECOND))
_COPY = copy_cdb.block_to_block(copy_cdb.THIS_UNIT, 0, copy_cdb.THIS_UNIT, 64, 8)

PARAMETER_LISTS: dict[str, Example] = {
    "SET TARGET PORT GROUPS": _made(
        cdb.set_target_port_groups, cdb.target_port_groups_parameters((0, AccessState.ACTIVE_NON_OPTIMIZED.value)), (6, 4)
    ),
    "SET IDENTIFYING INFORMATION": _made(cdb.set_identifying_information, b"disk of the accounts\0", (6, 4)),
    "SET TIMESTAMP": _made(cdb.set_timestamp, cdb.set_timestamp_parameters(1_700_000_000_000), (6, 4)),
    "WRITE BUFFER": _made(lambda length: cdb.write_buffer(2, length), bytes(range(64)), (6, 3)),
    # header, and the Control page with D_SENSE
    "MODE SELECT (6)": _made(
        lambda length: cdb.mode_select(6, length), bytes(4) + bytes.fromhex("0a0a 0610 0000 0000 ffff 0000"), (4, 1)
    ),
    "MODE SELECT (10)": _made(
        lambda length: cdb.mode_select(10, length), bytes(8) + bytes.fromhex("0a0a 0610 0000 0000 ffff 0000"), (7, 2)
    ),
    # the Application Client page with a general usage parameter
    "LOG SELECT": _made(
        lambda length: cdb.log_select(length), bytes.fromhex("0f00 0100 0000 03fc") + b"whose disk this is".ljust(252), (7, 2)
    ),
    "SEND DIAGNOSTIC": _made(lambda length: cdb.send_diagnostic(length, pf=True), bytes(4), (3, 2)),
    "PERSISTENT RESERVE OUT, REGISTER": _reserve_out(OutAction.REGISTER),
    "PERSISTENT RESERVE OUT, RESERVE": _reserve_out(OutAction.RESERVE, new=0),
    "PERSISTENT RESERVE OUT, RELEASE": _reserve_out(OutAction.RELEASE, new=0, holds=True),
    "PERSISTENT RESERVE OUT, CLEAR": _reserve_out(OutAction.CLEAR, new=0),
    "PERSISTENT RESERVE OUT, PREEMPT": _reserve_out(OutAction.PREEMPT, new=KEY, holds=True),
    "PERSISTENT RESERVE OUT, PREEMPT AND ABORT": _reserve_out(OutAction.PREEMPT_AND_ABORT, new=KEY, holds=True),
    "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY": _reserve_out(OutAction.REGISTER_AND_IGNORE_EXISTING_KEY),
    "PERSISTENT RESERVE OUT, REGISTER AND MOVE": _reserve_out(OutAction.REGISTER_AND_MOVE, data=_MOVED, holds=True),
    "PERSISTENT RESERVE OUT, REPLACE LOST RESERVATION": _reserve_out(OutAction.REPLACE_LOST_RESERVATION, lost=True),
    "EXTENDED COPY (LID1)": _made(copy_cdb.extended_copy, copy_cdb.lid1_parameters(b"", _COPY), (10, 4)),
    "EXTENDED COPY (LID4)": _made(
        lambda length: copy_cdb.extended_copy(length, lid4=True), copy_cdb.lid4_parameters(b"", _COPY), (10, 4)
    ),
    "POPULATE TOKEN": _made(lambda length: cdb.populate_token(1, length), populate_data((0, 8), (16, 8)), (10, 4)),
    "WRITE USING TOKEN": _made(lambda length: cdb.write_using_token(1, length), write_data(ZERO_TOKEN, (32, 8)), (10, 4)),
    "UNMAP": _made(cdb.unmap, cdb.unmap_parameters((8, 8), (32, 16)), (7, 2)),
    "SANITIZE OVERWRITE": _made(lambda length: cdb.sanitize(1, length), cdb.overwrite_parameters(b"\x5a" * 8), (7, 2)),
    "FORMAT UNIT": _made(lambda _: cdb.format_unit(fmtdata=True), bytes(4), None),
}
"""By the name of the row. They are GOOD for a unit that :func:`prepare` has prepared."""

ALLOCATION_LENGTHS: dict[str, tuple[bytes, tuple[int, int]]] = {
    "REQUEST SENSE": (cdb.request_sense(0), (4, 1)),
    "INQUIRY": (cdb.inquiry(None, 0), (3, 2)),
    "REPORT LUNS": (cdb.report_luns(0, 0), (6, 4)),
    "REPORT SUPPORTED OPERATION CODES": (cdb.report_supported_operation_codes(1, 0x12, allocation_length=0), (6, 4)),
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS": (
        cdb.report_supported_task_management_functions(repd=True, allocation_length=0), (6, 4)),
    "REPORT TARGET PORT GROUPS": (cdb.report_target_port_groups(0), (6, 4)),
    "REPORT IDENTIFYING INFORMATION": (cdb.report_identifying_information(0b1111111, 0), (6, 4)),
    "REPORT TIMESTAMP": (cdb.report_timestamp(0), (6, 4)),
    "READ BUFFER (10)": (cdb.read_buffer(3, 0), (6, 3)),
    "SECURITY PROTOCOL IN": (cdb.security_protocol_in(0, 0, 0), (6, 4)),
    "MODE SENSE (6)": (cdb.mode_sense(6, 0x3F, allocation_length=0), (4, 1)),
    "MODE SENSE (10)": (cdb.mode_sense(10, 0x3F, 0xFF, allocation_length=0), (7, 2)),
    "LOG SENSE": (cdb.log_sense(0, allocation_length=0), (7, 2)),
    "RECEIVE DIAGNOSTIC RESULTS": (cdb.receive_diagnostic_results(0, 0), (3, 2)),
    "PERSISTENT RESERVE IN, READ KEYS": (cdb.persistent_reserve_in(0, 0), (7, 2)),
    "PERSISTENT RESERVE IN, READ RESERVATION": (cdb.persistent_reserve_in(1, 0), (7, 2)),
    "PERSISTENT RESERVE IN, REPORT CAPABILITIES": (cdb.persistent_reserve_in(2, 0), (7, 2)),
    "PERSISTENT RESERVE IN, READ FULL STATUS": (cdb.persistent_reserve_in(3, 0), (7, 2)),
    "RECEIVE COPY OPERATING PARAMETERS": (copy_cdb.receive_copy(3, 0, 0), (10, 4)),
    "RECEIVE COPY STATUS (LID4)": (copy_cdb.receive_copy(5, 1, 0), (10, 4)),
    "READ CAPACITY (16)": (cdb.read_capacity16(0), (10, 4)),
    "GET LBA STATUS (16)": (cdb.get_lba_status(0, 0), (10, 4)),
    "GET LBA STATUS (32)": (cdb.get_lba_status_32(0, 0), (28, 4)),
    "READ DEFECT DATA (10)": (cdb.read_defect_data10(0, glist=True), (7, 2)),
    "READ DEFECT DATA (12)": (cdb.read_defect_data12(0, glist=True), (6, 4)),
    "REPORT ALL ROD TOKENS": (cdb.report_all_rod_tokens(0), (10, 4)),
}  # fmt: skip
"""By the name of the row: a CDB, and where its ALLOCATION LENGTH is: first byte and size."""

ALLOCATION_LENGTH_LEAST = {"REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS": 4}
"""Commands that refuse less."""

TELL_ONCE = {"RECEIVE COPY STATUS (LID1)", "RECEIVE COPY FAILURE DETAILS (LID1)", "RECEIVE ROD TOKEN INFORMATION"}
"""What they return is discarded when it has been told; tests of their own cut it."""


def _copy_with_cscds(client: ApplicationClient, *, lid4: bool) -> Example:
    """EXTENDED COPY that names the unit by a CSCD descriptor, twice."""
    cscds = 2 * cscd_of(client)
    first = 1 if lid4 else 0
    segment = copy_cdb.block_to_block(first, 0, first + 1, 64, 8)
    build = copy_cdb.lid4_parameters if lid4 else copy_cdb.lid1_parameters
    return _made(lambda length: copy_cdb.extended_copy(length, lid4=lid4), build(cscds, segment), (10, 4))


MORE_LISTS: dict[str, Callable[[ApplicationClient], Example]] = {
    "FORMAT UNIT, long header": lambda _: _made(lambda _: cdb.format_unit(fmtdata=True, longlist=True), bytes(8), None),
    "FORMAT UNIT, protection information": lambda _: _made(
        lambda _: cdb.format_unit(fmtdata=True, fmtpinfo=0b10), bytes(4), None
    ),
    "PERSISTENT RESERVE OUT, REGISTER, SPEC_I_PT": lambda _: _made(
        lambda length: cdb.persistent_reserve_out(OutAction.REGISTER, 0, length),
        parameters(0, KEY, flags=SPEC_I_PT, more=specified(sas(SECOND), sas(THIRD))),
        (5, 4),
    ),
    "EXTENDED COPY (LID1), CSCDs": lambda client: _copy_with_cscds(client, lid4=False),
    "EXTENDED COPY (LID4), CSCDs": lambda client: _copy_with_cscds(client, lid4=True),
}
"""Other lists of the same commands, made for a unit; the name begins with the row's."""


def example_for(client: ApplicationClient, name: str) -> Example:
    """The example of that name, for a unit: REGISTER AND MOVE names the target port that there is."""
    if name in MORE_LISTS:
        return MORE_LISTS[name](client)
    example = PARAMETER_LISTS[name]
    if not name.endswith("REGISTER AND MOVE"):
        return example
    (port,) = logical_unit(client).ports
    data = bytearray(example.data)
    data[_PORT_FIELD] = port.relative_target_port_identifier.to_bytes(2)
    return replace(example, data=bytes(data))


def prepare(client: ApplicationClient, example: Example) -> None:
    """Put the unit where the example is GOOD: its reservations, its target port groups, what it lost."""
    unit = logical_unit(client)
    nexus = client.initiator.nexus
    assert nexus is not None
    reservations = unit.persistent_reservations
    name = reservations.name_of(nexus)
    registration = Registration(key=KEY, fabric="loopback", transport_id=nexus.initiator_port.transport_id, relative_port=1)
    state = State(registrations={name: registration} if example.registered else {})
    reservations.state = replace(state, kind=KIND, holder=name) if example.holds else state
    reservations.lost = example.lost
    unit.update_reserved()
    for group in unit.asymmetric_access.reported_groups():
        group.state = AccessState.ACTIVE_OPTIMIZED
    for lun in unit.asymmetric_access.luns():
        lun.offline = False
    unit.update_express()


def snapshot(client: ApplicationClient) -> dict[str, object]:
    """All of a unit that a command can change and that lasts."""
    unit = logical_unit(client)
    medium = bytearray(unit.blocks << unit.block_shift)
    assert unit.backstore.read_nowait([memoryview(medium)], 0)
    information = unit.identifying_information
    return {
        "blocks": bytes(medium),
        "mode parameters": (dict(unit.mode_parameters.values.current), dict(unit.mode_parameters.values.saved)),
        "persistent reservations": (unit.persistent_reservations.state, unit.persistent_reservations.lost),
        "reservation": unit.spc2_reservation.holder,
        "identifying information": information and [information.get(kind) for kind in (0, 2)],
        "log parameters": dict(unit.log_parameters.application),
        "buffer": unit.data_buffer.read(0, 4096),
        "clock": unit.clock.origin,
        "access states": [group.state for group in unit.asymmetric_access.reported_groups()],
        "offline": [lun.offline for lun in unit.asymmetric_access.luns()],
        "erasure": unit.eraser.erasure,
        "ready": unit.ready,
    }
