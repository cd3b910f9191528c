"""Persistent reservations through a loss of power: SPC-5 5.14.5, LIO's aptpl file."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reservations import APTPL, CONFLICT, out, read_in
from support.scsi import FIRST, SECOND, make_lu, make_target, pattern
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InternalTargetFailure,
    InvalidFieldInParameterList,
    ParameterListLengthError,
    PersistentReservationInformationLost,
)
from tcm.scsi.persistent_reservations import InAction, OutAction, ReservationType, parse_out
from tcm.scsi.sense import Status
from tcm.scsi.transport_id import ProtocolIdentifier, TransportId
from tcm.target import aptpl
from tcm.target.directory_store import DirectoryStore
from tcm.target.persistent_reservations import NexusName, Registration, State

anyio_test = pytest.mark.anyio
A, B = 0xA1, 0xB2
SERIAL = "11111111-2222-3333-4444-555555555555"


@asynccontextmanager
async def powered(path: Path, **attributes):
    """Two initiators on a unit that keeps its state in a directory; leaving is a loss of power."""
    async with make_lu(store=DirectoryStore(str(path)), serial=SERIAL, **attributes) as unit:
        port = make_target(unit)
        clients = [ApplicationClient(port.connect(name)) for name in (FIRST, SECOND)]
        for client in clients:
            for _ in range(3):
                await client.request_sense()
        try:
            yield clients
        finally:
            for client in clients:
                client.initiator.disconnect()


def file_in(directory: Path) -> Path:
    """Where LIO has it."""
    return directory / "pr" / f"aptpl_{SERIAL}"


@anyio_test
@pytest.mark.parametrize("kind", list(ReservationType))
async def test_persistent_reserve_aptpl_survives(tmp_path: Path, kind: ReservationType) -> None:
    """SPC-5 5.14.5: keys and reservation are there after a loss of power; PRGENERATION is zero; PTPL_A says it."""
    path = file_in(tmp_path)
    async with powered(tmp_path) as (one, two):
        await out(one, OutAction.REGISTER, 0, A, flags=APTPL)
        await out(two, OutAction.REGISTER, 0, B, flags=APTPL)
        await out(one, OutAction.RESERVE, A, kind=kind)
        before = await read_in(one, InAction.READ_FULL_STATUS)
        assert path.read_text().count("PR_REG_END") == 2
    async with powered(tmp_path) as (one, two):
        after = await read_in(two, InAction.READ_FULL_STATUS)
        assert after[:4] == bytes(4)
        zeroed = [data[4:8] + data[8:26] + data[28:] for data in (before, after)]  # the port's number is this process's
        assert zeroed[0][:40] == zeroed[1][:40]
        assert (await read_in(one, InAction.REPORT_CAPABILITIES))[2:4] == bytes.fromhex("9dc1")
        await one.write(10, 0, pattern(512))
        await two.write(10, 0, pattern(512), expect=Status.GOOD if kind.for_registrants else CONFLICT)
        await out(one, OutAction.CLEAR, A)
    assert path.read_text() == aptpl.NOTHING


@anyio_test
async def test_persistent_reserve_aptpl_zero(tmp_path: Path) -> None:
    """SPC-5 5.14.5: the last REGISTER decides; without APTPL nothing outlives the power."""
    path = file_in(tmp_path)
    async with powered(tmp_path) as (one, _):
        await out(one, OutAction.REGISTER, 0, A)
        assert not path.exists()
        await out(one, OutAction.REGISTER, A, B, flags=APTPL)
        await out(one, OutAction.REGISTER, B, A)
    async with powered(tmp_path) as (one, _):
        assert await read_in(one, InAction.READ_KEYS) == bytes(8)


@anyio_test
async def test_persistent_reserve_force_pr_aptpl(tmp_path: Path) -> None:
    """LIO's force_pr_aptpl: every registration is kept."""
    path = file_in(tmp_path)
    async with powered(tmp_path, force_pr_aptpl=True) as (one, _):
        await out(one, OutAction.REGISTER, 0, A)
    assert f"sa_res_key={A}\n" in path.read_text()


@anyio_test
async def test_persistent_reserve_aptpl_cannot_be_kept(tmp_path: Path) -> None:
    """SPC-5 5.14.5: what cannot be kept does not take effect."""
    async with powered(tmp_path) as (one, _):
        (tmp_path / "pr").write_text("in the way")
        await out(one, OutAction.REGISTER, 0, A, flags=APTPL, expect=InternalTargetFailure)
        assert await read_in(one, InAction.READ_KEYS) == bytes(8)
        (tmp_path / "pr").unlink()
        await out(one, OutAction.REGISTER, 0, A, flags=APTPL)


@anyio_test
@pytest.mark.parametrize("text", ["", "PR_REG_START: 0\n", "nonsense\n", "No Registrations"])
async def test_persistent_reserve_out_replace_lost_reservation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """SPC-4 5.13.5.3.2, 5.13.11.3: what cannot be read back is reported, not forgotten, until it is replaced."""
    path = file_in(tmp_path)
    path.parent.mkdir()
    path.write_text(text)
    with caplog.at_level(logging.ERROR):
        async with powered(tmp_path) as (one, two):
            assert "persistent reservations are lost: line 1: " in caplog.text
            lost = PersistentReservationInformationLost
            await one.read(10, 0, 1, expect=lost)
            await one.write(10, 0, pattern(512), expect=lost)
            await one.test_unit_ready(expect=lost)
            await one.inquiry()
            await one.request_sense()
            await one.execute(cdb.start_stop_unit(start=True))
            await one.execute(cdb.start_stop_unit(), expect=lost)
            await one.execute(bytes.fromhex("ef0000000000"), expect=lost)
            for action in InAction:
                await one.execute(cdb.persistent_reserve_in(action), read_length=8, expect=lost)
            await out(one, OutAction.REGISTER, 0, A, expect=lost)
            replace = OutAction.REPLACE_LOST_RESERVATION
            await out(one, replace, 0, 0, 1, expect=InvalidFieldInParameterList)
            await out(one, replace, B, A, 1, expect=InvalidFieldInParameterList)
            assert path.read_text() == text
            await out(one, replace, 0, A, ReservationType.WRITE_EXCLUSIVE, flags=APTPL)
            assert await read_in(one, InAction.READ_KEYS) == bytes(4) + bytes.fromhex("00000008 00000000000000a1")
            await one.write(10, 0, pattern(512))
            await two.write(10, 0, pattern(512), expect=CONFLICT)
    async with powered(tmp_path) as (one, two):
        await two.write(10, 0, pattern(512), expect=CONFLICT)


def sample() -> State:
    iscsi = NexusName("iqn.2026-01.example:a", bytes.fromhex("00023d000001"), "iqn.2026-01.example:t", 1)
    transport_id = TransportId(ProtocolIdentifier.ISCSI, iscsi.initiator, iscsi.isid).pack()
    return State(
        registrations={
            iscsi: Registration(key=A, fabric="iscsi", transport_id=transport_id, relative_port=1),
            iscsi._replace(tag=2): Registration(key=B, fabric="iscsi", transport_id=transport_id, relative_port=2, lun=3),
        },
        kind=ReservationType.EXCLUSIVE_ACCESS,
        holder=iscsi,
        aptpl=True,
    )


@anyio_test
@pytest.mark.parametrize("enforce", [True, False])
async def test_persistent_reserve_aptpl_isids(tmp_path: Path, enforce: bool) -> None:
    """LIO's enforce_pr_isids, changed between two runs: who was registered by session is registered by initiator."""
    path = file_in(tmp_path)
    path.parent.mkdir()
    name = next(iter(sample().registrations))
    other = Registration(key=B, fabric="iscsi", transport_id=b"", relative_port=1)
    registrations = {name._replace(isid=bytes(5) + b"\1"): replace(other, key=A), name._replace(isid=bytes(5) + b"\2"): other}
    kept = State(registrations=registrations, kind=ReservationType.WRITE_EXCLUSIVE, holder=list(registrations)[1])
    path.write_text(aptpl.to_text(kept))
    async with make_lu(store=DirectoryStore(str(tmp_path)), serial=SERIAL, enforce_pr_isids=enforce) as unit:
        state = unit.persistent_reservations.state
        assert [each.key for each in state.registrations.values()] == ([A, B] if enforce else [A])
        assert state.holder in state.registrations


def test_text_comes_back_as_the_same_state() -> None:
    """SPC-5 5.14.4: all that has to be preserved is in the text."""
    assert aptpl.from_text(aptpl.to_text(sample())) == sample()
    assert aptpl.from_text(aptpl.NOTHING) == State()


def test_what_lio_has_written_is_read() -> None:
    """It writes the null that ends its string, and NOTHING with and without an end of line."""
    assert aptpl.from_text(aptpl.to_text(sample()) + "\0") == sample()
    for nothing in (aptpl.NOTHING, aptpl.NOTHING.rstrip("\n")):
        assert aptpl.from_text(nothing + "\0") == State()


def test_every_damaged_line_is_named() -> None:
    """A text that has lost a line, or the end of one, is refused with the number of the line that is missed."""
    lines = aptpl.to_text(sample()).splitlines(keepends=True)
    for at in range(len(lines)):
        for broken in ([*lines[:at], "x\n", *lines[at + 1 :]], [*lines[:at], lines[at].rstrip("\n")]):
            with pytest.raises(aptpl.Damaged) as damaged:
                aptpl.from_text("".join(broken))
            assert 1 <= damaged.value.line <= at + 1


SAS = TransportId(ProtocolIdentifier.SAS, "5001405000000001").pack()


@given(
    st.sampled_from(list(OutAction)),
    st.one_of(
        st.binary(max_size=120),
        st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.binary(max_size=60)).map(b"".join),
        st.integers(0, 300).map(lambda size: (bytes(20) + b"\x08\0\0\0" + (96).to_bytes(4, "big") + SAS * 4)[:size]),
    ),
)
def test_any_parameter_list_is_parsed_or_refused(action: OutAction, data: bytes) -> None:
    """SPC-5 6.16.3, 6.16.4: whatever a parameter list holds, it is taken as a whole or refused as one that is wrong."""
    try:
        found = parse_out(action, data)
    except (InvalidFieldInParameterList, ParameterListLengthError):
        pass
    else:
        assert found.key == int.from_bytes(data[:8], "big")
        assert len(found.offsets) == len(found.transport_ids)
