"""The way of a task through the target: exactly one end, whatever the CDB; residuals; what handlers may raise."""

from __future__ import annotations

import logging

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.commands import identify
from support.scsi import logical_unit, one_initiator, pattern
from tcm_loopback.commands import check

from tcm.scsi import cdb
from tcm.scsi.check_condition import InternalTargetFailure, InvalidFieldInCdb, InvalidFieldInCommandInformationUnit
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.sense import Status
from tcm.target.device_server import HANDLERS
from tcm.target.device_server.handler import Handler
from tcm.target.task import Task, TaskAttribute

pytestmark = pytest.mark.anyio


def test_every_command_has_its_handler_and_every_handler_its_command() -> None:
    assert {command.handler for command in COMMANDS} == set(HANDLERS)


@st.composite
def commands(draw: st.DrawFn) -> tuple[bytes, int, bytes, TaskAttribute]:
    """A CDB that is more or less one from the table, a Data-In buffer, Data-Out, and a task attribute."""
    command = draw(st.sampled_from(COMMANDS))
    raw = bytearray(draw(st.binary(min_size=command.length, max_size=command.length)))
    if draw(st.integers(0, 9)):
        # only bits that mean something, small numbers in them, so that most get past the first checks
        raw = bytearray(
            a & b & c for a, b, c in zip(raw, command.usage, draw(st.binary(min_size=32, max_size=32)), strict=False)
        )
        identify(command, raw)
    raw[0] = command.operation_code
    padded = bytes(raw).ljust(draw(st.sampled_from([0, 16])), b"\0")
    data_out = draw(st.one_of(st.just(b""), st.just(bytes(512)), st.just(pattern(4096)), st.binary(max_size=64)))
    return padded, draw(st.sampled_from([0, 5, 512, 4096, 1 << 16])), data_out, draw(st.sampled_from(TaskAttribute))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(commands(), st.sampled_from([0, 0, 0, 1, b"\xc1\x01" + bytes(6)])), min_size=5, max_size=40))
def test_every_command_ends_exactly_once(batch: list[tuple[tuple[bytes, int, bytes, TaskAttribute], int | bytes]]) -> None:
    """Invariant: one status a task, Data-In no longer than its buffer, no INTERNAL TARGET FAILURE, and nothing left behind."""

    async def run() -> None:
        async with one_initiator(removable=True) as disk:
            unit = logical_unit(disk)
            unexpected: list[tuple[str, BaseException]] = []
            unit.unhandled_error = lambda where, error: unexpected.append((where, error))
            handles = [
                (command, disk.initiator.start(lun, command[0], command[2], read_length=command[1], attribute=command[3]))
                for command, lun in batch
            ]
            with anyio.fail_after(60):
                for (_, read_length, data_out, _), handle in handles:
                    result = await handle.wait()
                    assert len(result.data_in) <= read_length
                    assert result.residual <= max(read_length, len(data_out)) or result.overflow
                    assert (result.sense is not None) is (result.status is Status.CHECK_CONDITION)
                    if result.sense is not None:
                        assert result.sense.pack()
                        assert result.sense.pack(descriptor=True)
                        assert (result.sense.asc, result.sense.ascq) != (0x44, 0)
                await unit.running.until_idle()
            assert not unexpected
            assert disk.initiator.nexus is not None
            assert not disk.initiator.nexus.tasks
            assert len(unit.task_set) == 0
            assert not unit.closed_lane

    anyio.run(run)


@pytest.mark.parametrize(
    ("blocks", "offered", "residual", "overflow"),
    [(1, 512, 0, False), (2, 512, 512, True), (1, 2048, 1536, False), (1, 0, 512, True), (0, 512, 512, False)],
)
async def test_write_residual(blocks: int, offered: int, residual: int, overflow: bool) -> None:
    """SAM-5 5.4.2: what the CDB asks for against what the initiator gives."""
    async with one_initiator() as disk:
        result = await disk.execute(cdb.write(10, 0, blocks), pattern(offered))
        assert (result.residual, result.overflow) == (residual, overflow)
        written = min(blocks * 512, offered)
        assert (await disk.read(10, 0, 4)).data_in == pattern(offered)[:written] + bytes(2048 - written)


@pytest.mark.parametrize(
    ("blocks", "room", "residual", "overflow"),
    [(1, 512, 0, False), (2, 512, 512, True), (1, 2048, 1536, False), (1, 0, 512, True), (2, 700, 324, True), (0, 9, 9, False)],
)
async def test_read_residual(blocks: int, room: int, residual: int, overflow: bool) -> None:
    async with one_initiator() as disk:
        await disk.write(10, 0, pattern(2048))
        result = await disk.execute(cdb.read(10, 0, blocks), read_length=room)
        assert (result.residual, result.overflow) == (residual, overflow)
        assert result.data_in == pattern(2048)[: min(blocks * 512, room)]


async def test_residual_of_a_command_that_fails() -> None:
    """Nothing was transferred: all of the buffer is left over; data that ends inside a block is an overflow all the same."""
    async with one_initiator() as disk:
        result = await disk.read(10, disk.blocks, 1, expect=None)
        assert (result.residual, result.overflow) == (512, False)
        result = await disk.execute(cdb.write(10, 0, 1, protect=1), pattern(512), expect=InvalidFieldInCdb)
        assert (result.residual, result.overflow) == (512, False)
        result = await disk.execute(cdb.write(10, 0, 1), bytes(200), expect=InvalidFieldInCommandInformationUnit)
        assert (result.residual, result.overflow) == (312, True)


@pytest.mark.parametrize("where", ["prepare", "execute", "coroutine"])
async def test_a_mistake_in_a_handler(where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a handler raises is HARDWARE ERROR, INTERNAL TARGET FAILURE with one traceback in the log; the unit goes on."""

    def fail(_: Task) -> int:
        raise ZeroDivisionError("a bug")

    async def fail_later() -> None:
        fail(None)  # type: ignore[arg-type]

    handlers = {
        "prepare": Handler(fail, lambda _: None),
        "execute": Handler(lambda _: 0, fail),  # type: ignore[arg-type, return-value]
        "coroutine": Handler(lambda _: 0, lambda _: fail_later()),
    }
    monkeypatch.setitem(HANDLERS, "read", handlers[where])
    async with one_initiator() as disk:
        told: list[str] = []
        logical_unit(disk).unhandled_error = lambda place, _: told.append(place)
        with caplog.at_level(logging.ERROR):
            check(await disk.read(10, 0, 1, expect=None), InternalTargetFailure)
        assert told == ["disk0: READ (10)"]
        assert caplog.text.count("ZeroDivisionError: a bug") == 1
        await disk.write(10, 0, pattern(512))
