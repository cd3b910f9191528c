"""PERSISTENT RESERVE OUT with what nobody should send, or with no place to keep it: the state stays the same."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.reservations import (
    APTPL,
    CONFLICT,
    SPEC_I_PT,
    keys,
    move_parameters,
    out,
    parameters,
    register,
    sas,
    specified,
)
from support.scsi import FIRST, SECOND, logical_unit, make_lu, make_target, pattern, two_initiators
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.initiator import LoopbackInitiator

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InsufficientRegistrationResources,
    InternalTargetFailure,
    InvalidFieldInParameterList,
    ParameterListLengthError,
    PersistentReservationInformationLost,
)
from tcm.scsi.persistent_reservations import MAXIMUM_PARAMETER_LIST_LENGTH, InAction, OutAction
from tcm.scsi.persistent_reservations import ReservationType as Kind
from tcm.scsi.sense import SenseKey, Status
from tcm.scsi.transport_id import ProtocolIdentifier, TransportId
from tcm.target.device import TargetDevice
from tcm.target.directory_store import DirectoryStore
from tcm.target.initiator_port import InitiatorPort
from tcm.target.node_acl import AccessControl
from tcm.target.persistent_reservations import MAXIMUM_REGISTRATIONS

pytestmark = pytest.mark.anyio
A, B = 0xA1, 0xB2
KIND = Kind.WRITE_EXCLUSIVE
NAMES = ("naa.5001405000000011", "naa.5001405000000012")
IQN = "iqn.2026-01.example:a"
ISCSI = ProtocolIdentifier.ISCSI
ISID = bytes.fromhex("00023d000001")
HEADER = 28
"""Bytes before the first TransportID of SPEC_I_PT."""
Pair = tuple[ApplicationClient, ApplicationClient]


@pytest.fixture
async def held() -> AsyncIterator[Pair]:
    """The first is registered and holds a reservation, the second is not registered."""
    async with two_initiators() as (one, two):
        await register(one, A)
        await out(one, OutAction.RESERVE, A, kind=KIND)
        yield one, two


@contextmanager
def unchanged(client: ApplicationClient) -> Iterator[None]:
    """The state afterwards is the same, and no unit attention is pending."""
    unit = logical_unit(client)
    before = unit.persistent_reservations.state
    yield
    assert unit.persistent_reservations.state is before
    assert not any(itl.attentions for itl in unit.itl_nexuses)


def good_list(action: OutAction, port: int) -> tuple[int, int, bytes]:
    """Who sends it (the first or the second initiator), and a parameter list that would be taken from it."""
    if action is OutAction.REGISTER:
        return 1, 0, parameters(0, B, flags=SPEC_I_PT, more=specified(*map(sas, NAMES)))
    if action is OutAction.REGISTER_AND_MOVE:
        return 0, 0, move_parameters(A, B, port, sas(NAMES[0]))
    return 0, KIND, parameters(A, A)


def port_of(client: ApplicationClient) -> int:
    assert client.initiator.nexus is not None
    return client.initiator.nexus.target_portal_group.relative_target_port_identifier


ACTIONS = pytest.mark.parametrize(
    "action", [each for each in OutAction if each is not OutAction.REPLACE_LOST_RESERVATION], ids=lambda each: each.name.lower()
)


@ACTIONS
async def test_persistent_reserve_out_truncated(held: Pair, action: OutAction) -> None:
    """SPC-4 6.16.2, 6.16.3, 6.16.4: cut at every byte, whether the CDB knows it or not."""
    sender, kind, data = good_list(action, port_of(held[0]))
    client = held[sender]
    with unchanged(client):
        for length in range(len(data)):
            result = await client.execute(cdb.persistent_reserve_out(action, kind, length), data[:length], expect=None)
            assert result.status is Status.CHECK_CONDITION, length
            assert result.sense is not None
            assert (result.sense.key, result.sense.asc) in {(SenseKey.ILLEGAL_REQUEST, 0x1A), (SenseKey.ILLEGAL_REQUEST, 0x26)}
            whole = cdb.persistent_reserve_out(action, kind, len(data))
            await client.execute(whole, data[:length], expect=ParameterListLengthError)
        longer = cdb.persistent_reserve_out(action, kind, len(data) + 1)
        await client.execute(longer, data + b"\0", expect=ParameterListLengthError)
    await client.execute(cdb.persistent_reserve_out(action, kind, len(data)), data)


@ACTIONS
async def test_persistent_reserve_out_every_reserved_bit(held: Pair, action: OutAction) -> None:
    """SPC-4 6.16.3, 6.16.4: each reserved bit is pointed at; obsolete fields are ignored."""
    sender, kind, data = good_list(action, port_of(held[0]))
    client = held[sender]
    line = cdb.persistent_reserve_out(action, kind, len(data))
    moves = action is OutAction.REGISTER_AND_MOVE
    reserved = {16: 0xFF, 17: 0xFC} if moves else {20: 0xF2, 21: 0xFF}
    with unchanged(client):
        for byte, mask in reserved.items():
            for bit in range(8):
                if mask & 1 << bit:
                    wrong = bytearray(data)
                    wrong[byte] |= 1 << bit
                    result = await client.execute(line, bytes(wrong), expect=InvalidFieldInParameterList)
                    assert result.sense is not None
                    assert result.sense.sense_key_specific == bytes((0x88 | bit, 0, byte))
        if action not in {OutAction.REGISTER, OutAction.REGISTER_AND_MOVE}:
            result = await client.execute(line, data[:20] + bytes((SPEC_I_PT,)) + data[21:], expect=InvalidFieldInParameterList)
            assert result.sense is not None
            assert result.sense.sense_key_specific == bytes((0x8B, 0, 20))
    if not moves:
        obsolete = bytearray(data)
        obsolete[16:20] = obsolete[22:24] = b"\xff" * 4
        obsolete[22:] = b"\xff\xff" + data[24:]
        await client.execute(line, bytes(obsolete)[: len(data)])


async def test_persistent_reserve_out_every_bit_of_a_transport_id(held: Pair) -> None:
    """SPC-4 7.6.4: each bit of a SAS TransportID that is not its address is pointed at by its TransportID's offset."""
    _, two = held
    good = sas(NAMES[1])
    with unchanged(two):
        for bit in range(8 * len(good)):
            byte = bit // 8
            if 4 <= byte < 12:
                continue
            wrong = bytearray(good)
            wrong[byte] ^= 1 << bit % 8
            more = specified(sas(NAMES[0]), bytes(wrong))
            result = await out(two, OutAction.REGISTER, 0, B, flags=SPEC_I_PT, more=more, expect=None)
            assert result.status is Status.CHECK_CONDITION
            assert result.sense.sense_key_specific == bytes((0x80, 0, HEADER + 24))


async def test_persistent_reserve_out_wrong_protocol(held: Pair) -> None:
    """SPC-4 7.6.4: a TransportID of any protocol but the target port's, in SPEC_I_PT and in REGISTER AND MOVE."""
    one, two = held
    others = [bytes((code,)) + sas(NAMES[0])[1:] for code in range(256) if code != ProtocolIdentifier.SAS]
    others += [TransportId(ISCSI, IQN, ISID).pack(), TransportId(ISCSI, IQN).pack()]
    others += [TransportId(ProtocolIdentifier.FCP, "5001405000000011").pack()]
    with unchanged(two):
        for name in others:
            await register(two, B, flags=SPEC_I_PT, more=specified(name), expect=InvalidFieldInParameterList)
            data = move_parameters(A, B, port_of(one), name)
            line = cdb.persistent_reserve_out(OutAction.REGISTER_AND_MOVE, 0, len(data))
            await one.execute(line, data, expect=InvalidFieldInParameterList)


async def test_persistent_reserve_out_lying_lengths(held: Pair) -> None:
    """SPC-4 6.16.3, 6.16.4: the length of the TransportIDs is not what there is."""
    one, two = held
    names = b"".join(map(sas, NAMES))
    with unchanged(two):
        for length in (0, 1, 23, 24, 25, 47, 49, 72, 1 << 16, (1 << 32) - 1):
            more = length.to_bytes(4, "big") + names
            result = await out(two, OutAction.REGISTER, 0, B, flags=SPEC_I_PT, more=more, expect=None)
            assert result.sense.asc == (0x26 if length > len(names) else 0x1A)
            data = move_parameters(A, B, port_of(one), sas(NAMES[0]))
            data = data[:20] + length.to_bytes(4, "big") + data[24:]
            if length != 24:
                line = cdb.persistent_reserve_out(OutAction.REGISTER_AND_MOVE, 0, len(data))
                await one.execute(line, data, expect=InvalidFieldInParameterList)
        await move_two(one)


async def move_two(one: ApplicationClient) -> None:
    """REGISTER AND MOVE names one initiator port."""
    data = move_parameters(A, B, port_of(one), b"".join(map(sas, NAMES)))
    line = cdb.persistent_reserve_out(OutAction.REGISTER_AND_MOVE, 0, len(data))
    await one.execute(line, data, expect=InvalidFieldInParameterList)


async def test_persistent_reserve_out_iscsi_additional_length() -> None:
    """SPC-4 7.6.4.6: whatever ADDITIONAL LENGTH says, nothing is registered unless it is the name's; zero does not loop."""
    async with make_lu() as unit:
        group = TargetDevice("iqn.2026-01.example:t", "iscsi").add_portal_group(1)
        group.access = AccessControl(generate_node_acls=True, demo_mode_write_protect=False)
        group.add_lun(0, unit)
        port = InitiatorPort(IQN, ISID, TransportId(ISCSI, IQN, ISID).pack())
        client = ApplicationClient(LoopbackInitiator(IQN, lambda services: group.establish_nexus(port, services)))
        await client.identify()
        other = TransportId(ISCSI, "iqn.2026-01.example:other", ISID).pack()
        with unchanged(client):
            for length in (*range(300), 0x7FFF, 0x8000, 0xFFFC, 0xFFFF):
                if length != len(other) - 4:
                    wrong = other[:2] + length.to_bytes(2, "big") + other[4:]
                    for more in (specified(wrong), specified(other, wrong), specified(wrong, other)):
                        expect = InvalidFieldInParameterList
                        await register(client, A, flags=SPEC_I_PT, more=more, expect=expect)
            for name in (b"", b" ", b"a b", b"\x01", b"a,i,0x", b"a" * 224):
                body = (name + b",i,0x00023d000001\0").ljust(20, b"\0")
                body += bytes(-len(body) % 4)
                wrong = bytes((0x45, 0)) + len(body).to_bytes(2, "big") + body
                await register(client, A, flags=SPEC_I_PT, more=specified(wrong), expect=InvalidFieldInParameterList)
            unknown = TransportId(ISCSI, "iqn.2026-01.example:unknown").pack()
            await register(client, A, flags=SPEC_I_PT, more=specified(unknown), expect=InvalidFieldInParameterList)
        await register(client, A, flags=SPEC_I_PT, more=specified(other, other))
        assert await keys(client) == [A, A]
        client.initiator.disconnect()


async def test_persistent_reserve_out_ten_thousand(held: Pair) -> None:
    """SPC-4 5.13.7: INSUFFICIENT REGISTRATION RESOURCES beyond the stated limit, and none of the list is registered."""
    one, two = held
    most = (MAXIMUM_PARAMETER_LIST_LENGTH - HEADER) // 24
    names = [
        TransportId(ProtocolIdentifier.SAS, f"{0x5001405100000000 + number:016x}").pack()
        for number in range(MAXIMUM_REGISTRATIONS)
    ]
    full = InsufficientRegistrationResources
    room = MAXIMUM_REGISTRATIONS - 2
    while room > most:
        await register(two, B, flags=SPEC_I_PT, more=specified(*names[room - most : room]))
        await register(two, 0, B)
        room -= most
    with unchanged(two):
        await register(two, B, flags=SPEC_I_PT, more=specified(*names[: room + 1]), expect=InvalidFieldInParameterList)
        await register(two, B, flags=SPEC_I_PT, more=specified(*names[:room], names[-1]), expect=full)
        await register(two, B, flags=SPEC_I_PT, more=specified(*names[:most], *names[:1]), expect=ParameterListLengthError)
    await register(two, B, flags=SPEC_I_PT, more=specified(*names[:room]))
    state = logical_unit(one).persistent_reservations.state
    assert len(state.registrations) == MAXIMUM_REGISTRATIONS
    whole = cdb.persistent_reserve_in(InAction.READ_FULL_STATUS)
    found = (await one.execute(whole, read_length=0xFFFF)).data_in
    assert int.from_bytes(found[4:8]) == 48 * MAXIMUM_REGISTRATIONS
    shown = (0xFFFF - 8) // 48 * 48 + 8
    assert len(found) == 0xFFFF
    keys = [int.from_bytes(found[at : at + 8]) for at in range(8, shown, 48)]
    assert keys == [A] + [B] * (len(keys) - 1)
    data = move_parameters(A, B, port_of(one), sas(NAMES[0]))
    await one.execute(cdb.persistent_reserve_out(OutAction.REGISTER_AND_MOVE, 0, len(data)), data, expect=full)
    assert logical_unit(one).persistent_reservations.state is state
    await register(one, B, A)


# A state directory that takes nothing

REASONS = pytest.mark.parametrize(
    ("function", "reason"),
    [("fsync", errno.ENOSPC), ("replace", errno.EDQUOT), ("open", errno.EROFS), ("open", errno.EACCES), ("fsync", errno.EIO)],
)


@REASONS
async def test_persistent_reserve_aptpl_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, reason: int
) -> None:
    """SPC-4 5.13.5.1, 5.13.7: what cannot be kept does not take effect, and what was kept stays."""
    real = getattr(os, function)

    def fail(path: object, *arguments: object, **more: object) -> object:
        if function == "open" and not str(path).startswith(str(tmp_path)):
            return real(path, *arguments, **more)
        raise OSError(reason, os.strerror(reason))

    full = reason in {errno.ENOSPC, errno.EDQUOT}
    registers = InsufficientRegistrationResources if full else InternalTargetFailure
    async with two_initiators(store=DirectoryStore(str(tmp_path))) as (one, two):
        await register(one, A, flags=APTPL)
        await register(two, B, flags=APTPL)
        await out(one, OutAction.RESERVE, A, kind=KIND)
        (path,) = (tmp_path / "pr").iterdir()
        kept = path.read_bytes()
        monkeypatch.setattr(os, function, fail)
        with unchanged(one):
            for action in (OutAction.REGISTER, OutAction.REGISTER_AND_IGNORE_EXISTING_KEY):
                for new in (0, A):
                    await out(two, action, B, new, flags=APTPL, expect=registers)
            data = move_parameters(A, B, port_of(one), sas(SECOND))
            line = cdb.persistent_reserve_out(OutAction.REGISTER_AND_MOVE, 0, len(data))
            await one.execute(line, data, expect=registers)
            for action in (OutAction.RELEASE, OutAction.CLEAR, OutAction.PREEMPT, OutAction.PREEMPT_AND_ABORT):
                await out(one, action, A, B, KIND, expect=InternalTargetFailure)
            await out(one, OutAction.RESERVE, A, kind=KIND)  # nothing changes
            await two.write(10, 0, pattern(512), expect=CONFLICT)
        monkeypatch.setattr(os, function, real)
        assert path.read_bytes() == kept
        await out(one, OutAction.PREEMPT, A, B, KIND)
        assert path.read_bytes() != kept


@pytest.mark.parametrize(("damage", "line"), [(b"\xff", 1), (b"\0", 3), (b"x=", 6)])
async def test_persistent_reserve_aptpl_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes, line: int
) -> None:
    """SPC-4 5.13.5.3.2: a damaged file is refused with its line, stays as it is, and the unit says what is lost."""
    store = DirectoryStore(str(tmp_path))
    async with two_initiators(store=store) as (one, _):
        await register(one, A, flags=APTPL)
        await out(one, OutAction.RESERVE, A, kind=KIND)
    (path,) = (tmp_path / "pr").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = damage + lines[line - 1]
    path.write_bytes(b"".join(lines))
    async with make_lu(store=store, serial="00000000-2222-3333-4444-555555555555") as unit:
        assert f"{tmp_path}: pr/{path.name}: persistent reservations are lost: line {line}: " in caplog.text
        port = make_target(unit)
        client = ApplicationClient(port.connect(FIRST))
        await client.request_sense()
        with unchanged(client):
            await client.read(10, 0, 1, expect=PersistentReservationInformationLost)
            await register(client, A, flags=APTPL, expect=PersistentReservationInformationLost)
        assert path.read_bytes() == b"".join(lines)
        await out(client, OutAction.REPLACE_LOST_RESERVATION, 0, B, KIND, flags=APTPL)
        assert await keys(client) == [B]
        client.initiator.disconnect()
    async with make_lu(store=store, serial="00000000-2222-3333-4444-555555555555") as unit:
        assert [each.key for each in unit.persistent_reservations.state.registrations.values()] == [B]
