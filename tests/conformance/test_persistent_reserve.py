"""PERSISTENT RESERVE IN and OUT: SPC-5 5.14, 6.15, 6.16; SPC-4 5.12.3 for RESERVE and RELEASE beside them.

Longer than most because nine service actions and six types share one model; bad input, APTPL and shared stores have files of
their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from support.commands import bare
from support.memory import GatedMemory
from support.reservation_tables import PERSISTENT_RESERVE_OUT, expected
from support.reservations import (
    CONFLICT,
    GOOD,
    attention,
    generation,
    keys,
    move,
    out,
    read_in,
    register,
    reservation,
    sas,
)
from support.scsi import FIRST, SECOND, logical_unit, make_lu, one_initiator, pattern, target, two_initiators
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.fabric import LoopbackPort
from tcm_loopback.initiator import LoopbackInitiator

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    CheckCondition,
    InsufficientRegistrationResources,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    InvalidOpcode,
    InvalidReleaseOfPersistentReservation,
    ParameterListLengthError,
)
from tcm.scsi.command import Command, PersistentReservation
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.persistent_reservations import InAction, OutAction, ReservationType
from tcm.scsi.sense import Status
from tcm.scsi.transport_id import ProtocolIdentifier, TransportId
from tcm.target import persistent_reservations, reservation_matrix
from tcm.target.device import TargetDevice
from tcm.target.initiator_port import InitiatorPort
from tcm.target.node_acl import AccessControl
from tcm.target.task_management import TaskManagementFunction
from tcm.target.unit_attention import (
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR,
    REGISTRATIONS_PREEMPTED,
    RESERVATIONS_PREEMPTED,
    RESERVATIONS_RELEASED,
)

pytestmark = pytest.mark.anyio
THIRD = "naa.5001405000000003"
Kind = ReservationType
KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name.lower())
Three = tuple[ApplicationClient, ApplicationClient, ApplicationClient]
A, B, C = 0xA1, 0xB2, 0xC3


@pytest.fixture
async def three() -> AsyncIterator[Three]:
    async with target(None) as port:
        clients = [ApplicationClient(port.connect(name)) for name in (FIRST, SECOND, THIRD)]
        for client in clients:
            await client.identify()
        yield clients[0], clients[1], clients[2]


# PERSISTENT RESERVE IN


async def test_persistent_reserve_in_read_keys(three: Three) -> None:
    """SPC-5 6.15.2: one key a registered I_T nexus, in whatever number; PRGENERATION; cut to the allocation length."""
    one, two, _ = three
    assert await keys(one) == []
    await register(one, A)
    await register(two, A)
    assert await keys(two) == [A, A]
    short = await one.execute(cdb.persistent_reserve_in(InAction.READ_KEYS, 12), read_length=65535)
    assert short.data_in == bytes.fromhex("00000002 00000010 00000000")


async def test_persistent_reserve_in_read_reservation(three: Three) -> None:
    """SPC-5 6.15.3: no descriptor without a reservation; the holder's key and the type with one, to anybody; the length that
    is there in full, whatever the allocation length."""
    one, two, unregistered = three
    command = cdb.persistent_reserve_in(InAction.READ_RESERVATION)
    assert (await one.execute(command, read_length=65535)).data_in == bytes(8)
    await register(one, A)
    await register(two, B)
    assert (await one.execute(command, read_length=65535)).data_in == bytes.fromhex("00000002 00000000")
    await out(one, OutAction.RESERVE, A, kind=Kind.EXCLUSIVE_ACCESS)
    full = bytes.fromhex("00000002 00000010") + A.to_bytes(8, "big") + bytes.fromhex("00000000 00 03 0000")
    for client in three:
        assert (await client.execute(command, read_length=65535)).data_in == full
    for length in (0, 7, 8, 23):
        short = cdb.persistent_reserve_in(InAction.READ_RESERVATION, length)
        assert (await unregistered.execute(short, read_length=64)).data_in == full[:length]
    await out(one, OutAction.RELEASE, A, kind=Kind.EXCLUSIVE_ACCESS)
    await out(two, OutAction.RESERVE, B, kind=Kind.WRITE_EXCLUSIVE_ALL_REGISTRANTS)
    found = (await one.execute(command, read_length=65535)).data_in
    assert found[8:16] == bytes(8)
    assert found[21] == Kind.WRITE_EXCLUSIVE_ALL_REGISTRANTS


async def test_persistent_reserve_in_report_capabilities() -> None:
    """SPC-5 6.15.4: RLR_C, CRH, SIP_C and ATP_C; no PTPL_C without a place to keep anything; all six types."""
    async with one_initiator() as disk:
        assert await read_in(disk, InAction.REPORT_CAPABILITIES) == bytes.fromhex("0008 9c c0 ea01 0000")


async def test_persistent_reserve_in_read_full_status(three: Three) -> None:
    """SPC-5 6.15.5: TransportID, target port, key of each; who holds the reservation."""
    one, two, _ = three
    await register(one, A)
    await register(two, B)
    await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE)
    data = await read_in(two, InAction.READ_FULL_STATUS)
    assert data[:8] == bytes.fromhex("00000002 00000060")
    assert one.initiator.nexus is not None
    port = one.initiator.nexus.target_portal_group.relative_target_port_identifier.to_bytes(2, "big")
    tail = bytes(4) + port + (24).to_bytes(4, "big")
    first = A.to_bytes(8, "big") + bytes(4) + b"\x01\x01" + tail + sas(FIRST)
    second = B.to_bytes(8, "big") + bytes(4) + b"\x00\x00" + tail + sas(SECOND)
    assert data[8:] == first + second


async def test_persistent_reserve_in_service_action(disk: ApplicationClient) -> None:
    """SPC-5 6.15.1: unknown service actions are refused."""
    for action in range(4, 32):
        await disk.execute(cdb.persistent_reserve_in(action), read_length=255, expect=InvalidFieldInCdb)


# Registering


async def test_persistent_reserve_out_register(three: Three) -> None:
    """SPC-5 5.14.7 table 60: register, change the key, unregister; each counts in PRGENERATION; a wrong key conflicts."""
    one, two, _ = three
    await register(one, A, B, expect=CONFLICT)
    await register(one, 0)
    assert (await keys(one), await generation(one)) == ([], 0)
    await register(one, A)
    await register(one, B, expect=CONFLICT)
    await register(one, B, A)
    assert (await keys(one), await generation(one)) == ([B], 2)
    await register(two, 0)
    await register(one, 0, B)
    assert (await keys(one), await generation(one)) == ([], 3)


async def test_persistent_reserve_out_register_and_ignore_existing_key(three: Three) -> None:
    """SPC-5 table 61: the reservation key is not looked at."""
    one, _, _ = three
    for new in (A, B, 0):
        await out(one, OutAction.REGISTER_AND_IGNORE_EXISTING_KEY, 0x99, new)
        assert await keys(one) == ([new] if new else [])


async def test_persistent_reserve_out_spec_i_pt(three: Three) -> None:
    """SPC-4 5.13.7, table 67: other initiator ports are registered; a registered one, or sender, is refused and pointed at."""
    one, two, third = three
    await register(third, C)
    names = sas(SECOND) + sas(THIRD)
    more = len(names).to_bytes(4, "big") + names
    refused = await out(one, OutAction.REGISTER, 0, A, flags=8, more=more, expect=InvalidFieldInParameterList)
    assert refused.sense.sense_key_specific == bytes.fromhex("80 0034")
    assert await keys(one) == [C]
    await register(third, 0, C)
    await register(one, 0, flags=8, more=more)
    assert await keys(one) == []
    await register(one, A, B, flags=8, more=more, expect=CONFLICT)
    await register(one, A, flags=8, more=more)
    assert await keys(one) == [A, A, A]
    await out(two, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE)
    for new in (0, B):
        result = await out(one, OutAction.REGISTER, A, new, flags=8, more=bytes(4), expect=InvalidFieldInParameterList)
        assert result.sense.sense_key_specific == bytes.fromhex("8b 0014")
    await register(one, B, C, flags=8, more=bytes(4), expect=CONFLICT)


@pytest.mark.parametrize(
    "more",
    [b"", bytes(3), b"\0\0\0\x19" + bytes(24), b"\0\0\0\x18" + bytes(23), b"\0\0\0\x18" + bytes(25)],
)
async def test_persistent_reserve_out_spec_i_pt_lengths(disk: ApplicationClient, more: bytes) -> None:
    """SPC-5 6.16.3: lengths that do not agree are refused, and nothing is registered."""
    result = await disk.execute(
        cdb.persistent_reserve_out(OutAction.REGISTER, 0, 24 + len(more)),
        bytes(15) + b"\1" + bytes(4) + b"\x08\0\0\0" + more,
        expect=None,
    )
    assert result.status is Status.CHECK_CONDITION
    assert result.sense is not None
    assert (result.sense.asc, result.sense.ascq) in {(0x1A, 0), (0x26, 0)}
    assert await keys(disk) == []


async def test_persistent_reserve_out_spec_i_pt_refused(disk: ApplicationClient) -> None:
    """SPC-5 6.16.3, 7.6.4: a TransportID of another protocol, or none; nothing is registered."""
    iscsi = TransportId(ProtocolIdentifier.ISCSI, "iqn.2026-01.example:a", bytes(6)).pack()
    for names in (sas(SECOND) + iscsi, sas(SECOND) + b"\x06" + bytes(20), b"\x3f" + bytes(23)):
        more = len(names).to_bytes(4, "big") + names
        await register(disk, A, flags=8, more=more, expect=InvalidFieldInParameterList)
    assert await keys(disk) == []


async def test_persistent_reserve_out_all_tg_pt() -> None:
    """SPC-5 5.14.7.2: every target port; keys changed and removed likewise."""
    async with make_lu() as unit:
        device = TargetDevice("naa.50014050000000cc", "loopback")
        clients = []
        for tag in (1, 2):
            group = device.add_portal_group(tag)
            group.access = AccessControl(generate_node_acls=True, demo_mode_write_protect=False)
            group.add_lun(0, unit)
            clients.append(ApplicationClient(LoopbackPort(group).connect(FIRST)))
        one, two = clients
        for client in clients:
            await client.identify()
        await register(one, A, flags=4)
        assert await keys(two) == [A, A]
        await out(two, OutAction.RESERVE, A, kind=Kind.EXCLUSIVE_ACCESS)
        await one.read(10, 0, 1, expect=CONFLICT)
        await register(one, B, A, flags=4)
        assert await keys(two) == [B, B]
        await register(one, 0, B)
        assert (await keys(two), await reservation(two)) == ([B], (B, Kind.EXCLUSIVE_ACCESS))
        for client in clients:
            client.initiator.disconnect()


async def test_persistent_reserve_out_aptpl_refused() -> None:
    """SPC-5 5.14.5: APTPL is refused where PTPL_C is zero."""
    async with one_initiator() as disk:
        await register(disk, A, flags=1, expect=InvalidFieldInParameterList)
        assert await keys(disk) == []


async def test_persistent_reserve_out_resources(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPC-5 5.14.7.2: INSUFFICIENT REGISTRATION RESOURCES, and none of the list is registered."""
    one, two, _ = three
    monkeypatch.setattr(persistent_reservations, "MAXIMUM_REGISTRATIONS", 2)
    names = sas(SECOND) + sas(THIRD)
    more = len(names).to_bytes(4, "big") + names
    await register(one, A, flags=8, more=more, expect=InsufficientRegistrationResources)
    assert await keys(one) == []
    await register(one, A)
    await register(two, A)


# Parameter list and CDB


async def test_persistent_reserve_out_parameter_list_length(disk: ApplicationClient) -> None:
    """SPC-5 6.16.2: 24 bytes, no less, and no more without SPEC_I_PT; what is not all there is refused."""
    for length in (0, 8, 23, 25, 28, 1 << 21):
        await disk.execute(
            cdb.persistent_reserve_out(OutAction.REGISTER, 0, length), bytes(min(length, 64)), expect=ParameterListLengthError
        )
    await disk.execute(cdb.persistent_reserve_out(OutAction.REGISTER), bytes(20), expect=ParameterListLengthError)


@pytest.mark.parametrize("bit", [1, 4, 5, 6, 7])
async def test_persistent_reserve_out_reserved_bits(disk: ApplicationClient, bit: int) -> None:
    """SPC-5 6.16.3: a reserved bit is pointed at."""
    result = await out(disk, OutAction.REGISTER, 0, A, flags=1 << bit, expect=InvalidFieldInParameterList)
    assert result.sense.sense_key_specific == bytes((0x88 | bit, 0, 20))


async def test_persistent_reserve_out_scope_and_type(disk: ApplicationClient) -> None:
    """SPC-5 6.15.3.3, 6.15.3.4: only the logical unit's scope, and six types; ignored by REGISTER and CLEAR."""
    await register(disk, A)
    for action in (OutAction.RESERVE, OutAction.RELEASE, OutAction.PREEMPT, OutAction.PREEMPT_AND_ABORT):
        await out(disk, action, A, kind=1, scope=1, expect=InvalidFieldInCdb)
        for kind in (0, 2, 4, *range(9, 16)):
            await out(disk, action, A, kind=kind, expect=InvalidFieldInCdb)
    await register(disk, B, A)
    await out(disk, OutAction.CLEAR, B, kind=15, scope=3)


async def test_persistent_reserve_out_service_action(disk: ApplicationClient) -> None:
    """SPC-5 6.16.1: unknown service actions are refused; REPLACE LOST RESERVATION is where nothing was lost."""
    for action in range(9, 32):
        await disk.execute(cdb.persistent_reserve_out(action), bytes(24), expect=InvalidFieldInCdb)


async def test_persistent_reserve_out_replace_lost_reservation_not_lost(three: Three) -> None:
    """SPC-4 5.13.11.3, table 66: where nothing was lost it conflicts with another's reservation, or is an invalid release."""
    one, two, _ = three
    action = OutAction.REPLACE_LOST_RESERVATION
    await out(one, action, 0, A, 1, expect=InvalidReleaseOfPersistentReservation)
    await register(one, A)
    await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE)
    await out(one, action, 0, A, 1, expect=InvalidReleaseOfPersistentReservation)
    await out(two, action, 0, A, 1, expect=CONFLICT)


async def test_persistent_reserve_not_supported() -> None:
    """LIO's emulate_pr=0."""
    async with one_initiator(emulate_pr=False) as disk:
        await disk.execute(cdb.persistent_reserve_in(0), read_length=8, expect=InvalidOpcode)
        await disk.execute(cdb.persistent_reserve_out(0), bytes(24), expect=InvalidOpcode)


# Reserving and releasing


@KINDS
async def test_persistent_reserve_out_reserve(three: Three, kind: Kind) -> None:
    """SPC-5 5.14.9: by a registered nexus with its key; again the same is GOOD, another type or nexus conflicts."""
    one, two, _ = three
    await out(one, OutAction.RESERVE, 0, kind=kind, expect=CONFLICT)
    await register(one, A)
    await register(two, B)
    await out(one, OutAction.RESERVE, B, kind=kind, expect=CONFLICT)
    await out(one, OutAction.RESERVE, A, kind=kind)
    await out(one, OutAction.RESERVE, A, kind=kind)
    await out(two, OutAction.RESERVE, B, kind=kind, expect=GOOD if kind.all_registrants else CONFLICT)
    other = Kind.EXCLUSIVE_ACCESS if kind is Kind.WRITE_EXCLUSIVE else Kind.WRITE_EXCLUSIVE
    await out(one, OutAction.RESERVE, A, kind=other, expect=CONFLICT)
    assert await reservation(two) == (0 if kind.all_registrants else A, kind)
    assert await generation(one) == 2


@KINDS
async def test_persistent_reserve_out_release(three: Three, kind: Kind) -> None:
    """SPC-5 5.14.11.1: holders only; wrong type; RESERVATIONS RELEASED to the registered where that changes anything."""
    one, two, third = three
    await register(one, A)
    await register(two, B)
    await out(one, OutAction.RELEASE, A, kind=kind)
    await out(one, OutAction.RESERVE, A, kind=kind)
    await out(third, OutAction.RELEASE, A, kind=kind, expect=CONFLICT)
    await out(one, OutAction.RELEASE, B, kind=kind, expect=CONFLICT)
    wrong = Kind.EXCLUSIVE_ACCESS if kind is Kind.WRITE_EXCLUSIVE else Kind.WRITE_EXCLUSIVE
    await out(one, OutAction.RELEASE, A, kind=wrong, expect=InvalidReleaseOfPersistentReservation)
    if not kind.all_registrants:
        await out(two, OutAction.RELEASE, B, kind=kind)
    assert await reservation(one) is not None
    await out(one, OutAction.RELEASE, A, kind=kind)
    assert (await reservation(one), await keys(one)) == (None, [A, B])
    await attention(two, RESERVATIONS_RELEASED if kind.for_registrants else None)
    await attention(one, None)
    await attention(third, None)


@KINDS
async def test_persistent_reserve_out_unregister_holder(three: Three, kind: Kind) -> None:
    """SPC-5 5.14.11.3: the reservation goes with its holder; all registrants: with the last of them."""
    one, two, third = three
    await register(one, A)
    await register(two, B)
    await out(one, OutAction.RESERVE, A, kind=kind)
    await register(one, 0, A)
    if kind.all_registrants:
        assert await reservation(third) == (0, kind)
        await attention(two, None)
        await register(two, 0, B)
    else:
        await attention(two, RESERVATIONS_RELEASED if kind.for_registrants else None)
    assert await reservation(third) is None
    await third.write(10, 0, pattern(512))


@KINDS
async def test_persistent_reserve_out_clear(three: Three, kind: Kind) -> None:
    """SPC-5 5.14.11.6: everything is gone; RESERVATIONS PREEMPTED to the others that were registered."""
    one, two, third = three
    await register(one, A)
    await register(two, B)
    await out(one, OutAction.RESERVE, A, kind=kind)
    await out(third, OutAction.CLEAR, A, expect=CONFLICT)
    await out(two, OutAction.CLEAR, A, expect=CONFLICT)
    await out(two, OutAction.CLEAR, B)
    await attention(one, RESERVATIONS_PREEMPTED)
    await attention(two, None)
    await attention(third, None)
    assert (await keys(one), await reservation(one), await generation(one)) == ([], None, 3)


# Preempting

BOTH_PREEMPTS = pytest.mark.parametrize("action", [OutAction.PREEMPT, OutAction.PREEMPT_AND_ABORT])


@BOTH_PREEMPTS
@KINDS
async def test_persistent_reserve_out_preempt_holder(three: Three, action: OutAction, kind: Kind) -> None:
    """SPC-5 5.14.11.2.2: the reservation passes to the preempting nexus, its holder's registration goes."""
    one, two, third = three
    for client, key in ((one, A), (two, B), (third, C)):
        await register(client, key)
    await out(one, OutAction.RESERVE, A, kind=kind)
    await out(two, action, A, A, kind, expect=CONFLICT)
    await out(two, action, B, 0 if kind.all_registrants else A, Kind.EXCLUSIVE_ACCESS)
    assert await reservation(two) == (B, Kind.EXCLUSIVE_ACCESS)
    assert await keys(two) == ([B] if kind.all_registrants else [B, C])
    assert await generation(two) == 4
    await one.test_unit_ready(expect=REGISTRATIONS_PREEMPTED)
    if kind.all_registrants:
        await third.test_unit_ready(expect=REGISTRATIONS_PREEMPTED)
    else:
        await attention(third, None if kind is Kind.EXCLUSIVE_ACCESS else RESERVATIONS_RELEASED)
    await one.write(10, 0, pattern(512), expect=CONFLICT)
    await two.write(10, 0, pattern(512))


@BOTH_PREEMPTS
@pytest.mark.parametrize("reserved", [False, True])
async def test_persistent_reserve_out_preempt_registration(three: Three, action: OutAction, reserved: bool) -> None:
    """SPC-5 5.14.11.2.3: only registrations go; a key that nobody has conflicts; zero is refused."""
    one, two, third = three
    for client, key in ((one, A), (two, B), (third, B)):
        await register(client, key)
    if reserved:
        await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE)
    await out(one, action, A, C, 1, expect=CONFLICT)
    await out(one, action, A, 0, 1, expect=InvalidFieldInParameterList)
    await out(one, action, A, B, 3)
    assert await keys(one) == [A]
    assert await reservation(one) == ((A, Kind.WRITE_EXCLUSIVE) if reserved else None)
    await two.test_unit_ready(expect=REGISTRATIONS_PREEMPTED)
    await third.test_unit_ready(expect=REGISTRATIONS_PREEMPTED)


async def test_persistent_reserve_out_preempt_itself(three: Three) -> None:
    """SPC-5 5.14.11.2.2: a holder that names its own key changes the type and stays registered."""
    one, two, _ = three
    await register(one, A)
    await register(two, B)
    await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE)
    await out(one, OutAction.PREEMPT, A, A, Kind.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY)
    assert await reservation(one) == (A, Kind.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY)
    await two.test_unit_ready(expect=RESERVATIONS_RELEASED)
    await two.read(10, 0, 1)


@pytest.mark.parametrize("tas", [True, False])
async def test_persistent_reserve_out_preempt_and_abort(tas: bool) -> None:
    """SPC-5 5.14.11.2.6: the preempted nexus's tasks are aborted, the others' are not; then GOOD."""
    memory = GatedMemory()
    async with two_initiators(memory, emulate_tas=tas) as (one, two):
        await register(one, A)
        await register(two, B)
        await out(two, OutAction.RESERVE, B, kind=Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
        memory.shut()
        doomed = two.initiator.start(0, cdb.write(10, 0, 1), pattern(512))
        spared = one.initiator.start(0, cdb.read(10, 8, 1), read_length=512)
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: out(one, OutAction.PREEMPT_AND_ABORT, A, B, Kind.WRITE_EXCLUSIVE))
            await anyio.wait_all_tasks_blocked()
            memory.release()
        assert (await spared.wait()).status is GOOD
        assert doomed.task is not None
        assert doomed.task.state.name == "ABORTED"
        await two.test_unit_ready(expect=REGISTRATIONS_PREEMPTED)
        await attention(two, None if tas else COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)
        await two.write(10, 0, pattern(512), expect=CONFLICT)


# Moving


async def test_persistent_reserve_out_register_and_move(three: Three) -> None:
    """SPC-5 5.14.8: registration and reservation pass to the named port, type and scope stay."""
    one, two, third = three
    assert one.initiator.nexus is not None
    port = one.initiator.nexus.target_portal_group.relative_target_port_identifier
    await register(one, A)
    await move(one, A, B, port, sas(SECOND), expect=InvalidFieldInCdb)
    await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE)
    await move(third, 0, B, port, sas(SECOND), expect=CONFLICT)
    await move(one, B, B, port, sas(SECOND), expect=CONFLICT)
    await move(one, A, 0, port, sas(SECOND), expect=InvalidFieldInParameterList)
    await move(one, A, B, port + 1000, sas(SECOND), expect=InvalidFieldInParameterList)
    await move(one, A, B, port, sas(FIRST), expect=InvalidFieldInParameterList)
    await move(one, A, B, port, sas(SECOND)[:20], expect=InvalidFieldInParameterList)
    await move(one, A, B, port, sas(SECOND), flags=4, expect=InvalidFieldInParameterList)
    assert await generation(one) == 1
    await move(one, A, B, port, sas(SECOND))
    assert (await keys(one), await reservation(one)) == ([A, B], (B, Kind.WRITE_EXCLUSIVE))
    await one.write(10, 0, pattern(512), expect=CONFLICT)
    await two.write(10, 0, pattern(512))
    await move(two, B, C, port, sas(THIRD), flags=2)
    assert (await keys(one), await reservation(one), await generation(one)) == ([A, C], (C, Kind.WRITE_EXCLUSIVE), 3)


async def test_persistent_reserve_out_register_and_move_all_registrants(three: Three) -> None:
    """SPC-5 5.14.8: an all registrants reservation cannot be moved."""
    one, _, _ = three
    assert one.initiator.nexus is not None
    await register(one, A)
    await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE_ALL_REGISTRANTS)
    port = one.initiator.nexus.target_portal_group.relative_target_port_identifier
    await move(one, A, B, port, sas(SECOND), expect=CONFLICT)


# What conflicts


def lines(command: Command) -> list[tuple[str, bytes]]:
    """CDBs of a command under the names that the matrix has them by."""
    line = bare(command)
    if command.harmless is None:
        return [(command.name, bytes(line))]
    byte, mask, value = command.harmless
    line[byte] = value
    other = bytearray(line)
    other[byte] ^= mask & 0x03
    names = [row.name for row in reservation_matrix.commands() if row.name.startswith(f"{command.name} ")]
    return [(name, bytes(each)) for name, each in zip(names, (line, other), strict=True)]


def column(kind: Kind, *, registered: bool) -> int:
    """Of the standards' tables, for who does not hold the reservation."""
    if kind.for_registrants:
        return 2 if registered else 3 + kind.exclusive_access
    return int(kind.exclusive_access)


@KINDS
async def test_persistent_reserve_conflicts(three: Three, kind: Kind) -> None:
    """SPC-4 table 65, SBC-4 table 13: every command of the table, from holder, registered and unregistered nexus."""
    one, two, third = three
    await register(one, A)
    await register(two, B)
    await out(one, OutAction.RESERVE, A, kind=kind)
    for command in COMMANDS:
        if command.feature is not None and command.feature not in logical_unit(one).features:
            continue
        if command.persistent_reservation is PersistentReservation.OWN_RULES:
            continue
        for name, line in lines(command):
            row = expected(name)
            for client, allowed in (
                (one, True),
                (two, row[column(kind, registered=True)]),
                (third, row[column(kind, registered=False)]),
            ):
                result = await client.execute(line, bytes(1024), read_length=4096, expect=None)
                assert (result.status is CONFLICT) is not allowed, (name, client.initiator.name)
                logical_unit(one).set_started(True)
                logical_unit(one).prevented.clear()


def test_persistent_reserve_matrix() -> None:
    """SPC-4 tables 65 and 66, SBC-4 table 13: every command for every type, printed as there."""
    print(reservation_matrix.text())
    assert [row for row in reservation_matrix.commands() if row.allowed != expected(row.name)] == []
    assert dict(reservation_matrix.service_actions()) == PERSISTENT_RESERVE_OUT


@KINDS
async def test_persistent_reserve_express(three: Three, kind: Kind) -> None:
    """SPC-5 table 66: the express lane is open exactly to those that do not conflict, for reads and writes separately."""
    one, two, third = three
    for client in three:
        client.initiator.express = True
    await register(one, A)
    await register(two, B)
    await out(one, OutAction.RESERVE, A, kind=kind)
    for client, part in ((one, True), (two, kind.for_registrants), (third, False)):
        reads = part or not kind.exclusive_access
        result = await client.read(10, 0, 1, expect=GOOD if reads else CONFLICT)
        assert result.express is reads
        result = await client.write(10, 0, pattern(512), expect=GOOD if part else CONFLICT)
        assert result.express is part
    await out(one, OutAction.CLEAR, A)
    assert (await third.write(10, 0, pattern(512))).express


# SPC-2's reservations beside


@pytest.mark.parametrize("length", [6, 10])
async def test_persistent_reserve_reserve_release(three: Three, length: int) -> None:
    """SPC-4 5.12.3: with registrations RESERVE and RELEASE are GOOD for who has part in a reservation, and do nothing."""
    one, two, third = three
    await register(one, A)
    for client in three:
        await client.reserve(length, expect=CONFLICT)
        await client.release(length, expect=CONFLICT)
    await register(two, B)
    await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE)
    await one.reserve(length)
    await one.release(length)
    await two.reserve(length, expect=CONFLICT)
    await out(one, OutAction.PREEMPT, A, A, Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    await two.identify()
    await two.reserve(length)
    await third.release(length, expect=CONFLICT)
    assert logical_unit(one).spc2_reservation.holder is None
    assert await reservation(one) == (A, Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)


async def test_persistent_reserve_while_reserved(three: Three) -> None:
    """SPC-2 5.5.1: while RESERVE holds the unit, PERSISTENT RESERVE IN and OUT conflict, for the holder too."""
    one, two, _ = three
    await one.reserve()
    for client in (one, two):
        await client.execute(cdb.persistent_reserve_in(0), read_length=8, expect=CONFLICT)
        await register(client, A, expect=CONFLICT)
    await one.release()
    await register(two, A)


# What lasts

RESETS = (
    TaskManagementFunction.I_T_NEXUS_RESET,
    TaskManagementFunction.LOGICAL_UNIT_RESET,
    TaskManagementFunction.TARGET_WARM_RESET,
    TaskManagementFunction.TARGET_COLD_RESET,
)


async def test_persistent_reserve_survives(three: Three) -> None:
    """SPC-5 5.14.1: nexus loss and resets take nothing away; who comes back is registered and holds what it held."""
    one, two, _ = three
    await register(one, A)
    await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE)
    for function in RESETS:
        await one.initiator.task_management(function)
    one.initiator.disconnect()
    await two.identify()
    await two.write(10, 0, pattern(512), expect=CONFLICT)
    one.initiator.reconnect()
    await one.identify()
    await one.write(10, 0, pattern(512))
    assert (await keys(two), await reservation(two)) == ([A], (A, Kind.WRITE_EXCLUSIVE))


async def test_persistent_reserve_absent_preempted(three: Three) -> None:
    """SPC-5 5.14.11.2: a nexus that is away is preempted as well."""
    one, two, _ = three
    await register(one, A)
    await register(two, B)
    await out(one, OutAction.RESERVE, A, kind=Kind.EXCLUSIVE_ACCESS)
    one.initiator.disconnect()
    await out(two, OutAction.PREEMPT_AND_ABORT, B, A, Kind.EXCLUSIVE_ACCESS)
    one.initiator.reconnect()
    await two.read(10, 0, 1)
    assert await keys(two) == [B]


@pytest.mark.parametrize("enforce", [True, False])
async def test_persistent_reserve_isids(enforce: bool) -> None:
    """SPC-5 7.6.4.6, LIO's enforce_pr_isids: an iSCSI initiator's sessions register by ISID, or all as one."""
    async with make_lu(enforce_pr_isids=enforce) as unit:
        device = TargetDevice("iqn.2026-01.example:target", "iscsi")
        group = device.add_portal_group(1)
        group.access = AccessControl(generate_node_acls=True, demo_mode_write_protect=False)
        group.add_lun(0, unit)
        name = "iqn.2026-01.example:a"
        clients = []
        for isid in (b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2"):
            port = InitiatorPort(name, isid, TransportId(ProtocolIdentifier.ISCSI, name, isid).pack())
            initiator = LoopbackInitiator(name, lambda services, port=port: group.establish_nexus(port, services))
            clients.append(ApplicationClient(initiator))
            await clients[-1].identify()
        one, two = clients
        await register(one, A)
        await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE)
        await two.write(10, 0, pattern(512), expect=CONFLICT if enforce else GOOD)
        await register(one, 0, A)
        both = TransportId(ProtocolIdentifier.ISCSI, name).pack()
        await register(one, B, flags=8, more=len(both).to_bytes(4, "big") + both)
        assert await keys(two) == ([B, B] if enforce else [B])
        for client in clients:
            client.initiator.disconnect()


def test_persistent_reserve_errors_are_check_conditions() -> None:
    """SPC-5 table 53: the sense keys and codes."""
    errors: tuple[CheckCondition, ...] = (InsufficientRegistrationResources(), InvalidReleaseOfPersistentReservation())
    assert [(each.sense.key, each.sense.asc, each.sense.ascq) for each in errors] == [(5, 0x55, 4), (5, 0x26, 4)]
