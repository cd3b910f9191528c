"""Task attributes with the delay filter: random programs on one and on several nexuses, followed by a model of SAM-5 8.6."""

from __future__ import annotations

import random
from dataclasses import dataclass

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.crowd import delayed
from support.ordering import SLOT, OrderModel, Watched
from support.scsi import make_lu, make_target
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.initiator import LoopbackInitiator
from tcm_loopback.transport import CommandAborted, LoopbackCommand, LoopbackTransport

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidFieldInParameterList
from tcm.scsi.sense import Status
from tcm.target.logical_unit import LogicalUnit
from tcm.target.task import Task, TaskAttribute, TaskState
from tcm.target.task_management import TaskManagementFunction, TaskManagementResponse

pytestmark = pytest.mark.anyio
SIMPLE, ORDERED, HEAD = TaskAttribute.SIMPLE, TaskAttribute.ORDERED, TaskAttribute.HEAD_OF_QUEUE
MIXES = {
    "mostly simple": (SIMPLE,) * 8 + (ORDERED, HEAD),
    "even": (SIMPLE, ORDERED, HEAD),
    "ordered": (ORDERED, ORDERED, ORDERED, SIMPLE),
    "heads": (HEAD, HEAD, SIMPLE, ORDERED),
}
TASKS = 60
TAGS = 1000
"""The tag of a program's first task."""


class Watching(LoopbackTransport):
    """Tells the model when tasks have left the task set."""

    def __init__(self, model: OrderModel) -> None:
        super().__init__()
        self._model = model

    def send_command_complete(self, task: Task) -> None:
        self._leave(task)
        super().send_command_complete(task)

    def task_aborted(self, task: Task) -> None:
        self._leave(task)
        super().task_aborted(task)

    def _leave(self, task: Task) -> None:
        if task.tag >= TAGS:
            self._model.leave(task.tag - TAGS)


@dataclass
class Program:
    """Commands of all kinds to one logical unit, each with a part of the medium for itself; its tag is its number."""

    unit: LogicalUnit
    model: OrderModel
    initiators: list[LoopbackInitiator]
    chance: random.Random

    def start(self, number: int, attribute: TaskAttribute) -> LoopbackCommand:
        chance, lba = self.chance, number * SLOT // 512
        initiator = chance.choice(self.initiators)
        blocks = chance.randint(1, 8)
        data = bytes((number,)) * 512 * blocks
        command, out, read_length = chance.choice(
            (
                (cdb.read(10, lba, blocks), b"", len(data)),
                (cdb.read(16, lba, blocks, fua=True), b"", len(data)),
                (cdb.write(10, lba, blocks), data, 0),
                (cdb.write(16, lba, blocks, fua=True), data, 0),
                (cdb.write_atomic(lba, blocks), data, 0),
                (cdb.orwrite(lba, blocks), data, 0),
                (cdb.compare_and_write(lba, 1), bytes(512) + data[:512], 0),
                (cdb.write_same(10, lba, 8), data[:512], 0),
                (cdb.verify(10, lba, blocks), b"", 0),
            )
        )
        express = initiator.express and attribute is SIMPLE
        withheld = bool(out) and not express and chance.random() < 0.2
        self.model.accept(number, attribute)
        sent = initiator.start(
            0, command, out, read_length=read_length, attribute=attribute, tag=TAGS + number, withheld=withheld
        )
        if sent.task is None:  # the express lane has done it
            self.model.leave(number)
        return sent

    def compare(self) -> None:
        """What the task set thinks is dormant is what has to be."""
        assert [task.tag - TAGS for task in self.unit.task_set if task.state is TaskState.DORMANT] == self.model.dormant

    async def step(self, sent: list[LoopbackCommand]) -> None:
        """Let things go on for a while; deliver what was withheld; abort somebody."""
        for _ in range(self.chance.randrange(6)):
            await checkpoint()
            self.compare()
        for each in sent:
            if each.withheld and each.requested.is_set() and not each.done and self.chance.random() < 0.3:
                each.deliver()
                each.withheld = False
                self.compare()
        if self.chance.random() < 0.08:
            initiator, number = self.chance.choice(self.initiators), self.chance.randrange(len(sent))
            await initiator.task_management(TaskManagementFunction.ABORT_TASK, 0, TAGS + number)
            self.compare()

    async def end(self, sent: list[LoopbackCommand]) -> None:
        """Let all that was started come to its end."""
        while not all(each.done for each in sent):
            await self.step(sent)

    async def run(self, attributes: list[TaskAttribute]) -> list[Status | None]:
        sent: list[LoopbackCommand] = []
        for number, attribute in enumerate(attributes):
            sent.append(self.start(number, attribute))
            self.compare()
            await self.step(sent)
            if self.chance.random() < 0.1:
                await self.end(sent)
        await self.end(sent)
        outcomes: list[Status | None] = []
        for each in sent:
            try:
                outcomes.append((await each.wait()).status)
            except CommandAborted:
                outcomes.append(None)
        return outcomes


@pytest.mark.parametrize("nexuses", [1, 3])
@pytest.mark.parametrize("mix", MIXES)
async def test_task_set_follows_the_model(mix: str, nexuses: int) -> None:
    """SAM-5 8.6: no task gets to the medium before those that its attribute has it wait for have ended, whatever nexus
    they came by and however they ended; and none waits for longer."""
    for seed in range(6):
        chance = random.Random(f"{mix} {nexuses} {seed}")
        model = OrderModel()
        store = Watched(delayed(RamdiskBackstore(TASKS * SLOT), fickle=seed % 2 == 1, seed=seed), model)
        async with make_lu(store) as unit:
            port = make_target(unit)
            initiators = [port.connect(f"naa.500140500000000{i}", express=seed % 2 == 1) for i in range(1, nexuses + 1)]
            for initiator in initiators:
                await ApplicationClient(initiator).identify()
                initiator.transport = Watching(model)
                initiator.reconnect()
                await ApplicationClient(initiator).identify()
            program = Program(unit, model, initiators, chance)
            with anyio.fail_after(60):
                outcomes = await program.run([chance.choice(MIXES[mix]) for _ in range(TASKS)])
            assert outcomes.count(Status.GOOD) > TASKS // 2
            assert set(outcomes) <= {Status.GOOD, None}
            assert not model.tasks
            assert not model.faults
            for initiator in initiators:
                initiator.disconnect()


async def test_mode_sense_says_how_tasks_are_ordered(disk: ApplicationClient) -> None:
    """SPC-5 7.5.10: one task set (TST 000b), unrestricted reordering of SIMPLE tasks (QUEUE ALGORITHM MODIFIER 0001b); both
    are refused if MODE SELECT would have them otherwise, with a pointer."""
    page = bytearray(await disk.mode_sense(10, 0x0A, dbd=True))[8:]
    assert page[2] >> 5 == 0
    assert page[3] >> 4 == 1
    for byte, value in ((3, 0x00), (2, 0x20)):
        wrong = bytearray(page)
        wrong[0] &= 0x7F
        wrong[byte] = wrong[byte] & 0x0F | value
        result = await disk.mode_select(10, bytes(8) + bytes(wrong), expect=InvalidFieldInParameterList)
        assert result.sense is not None
        assert result.sense.sense_key_specific is not None
        assert result.sense.sense_key_specific[1:] == bytes((0, 8 + byte))
    assert (await disk.mode_sense(10, 0x0A, dbd=True))[8:] == bytes(page)


async def test_ordered_write_has_the_last_word() -> None:
    """SAM-5 8.6.3: SIMPLE writes of two nexuses over one another, an ORDERED one over them, and a read: it sees the ORDERED
    one, whole."""
    blocks = 16
    async with make_lu(delayed(RamdiskBackstore(blocks * 512), seed=3)) as unit:
        port = make_target(unit)
        clients = [ApplicationClient(port.connect(f"naa.500140500000000{i}")) for i in (1, 2)]
        for client in clients:
            await client.identify()
        for value in range(1, 30):
            sent = [
                clients[i % 2].initiator.start(0, cdb.write(10, 0, blocks), bytes((value + i,)) * 512 * blocks, attribute=kind)
                for i, kind in enumerate((SIMPLE, SIMPLE, SIMPLE, ORDERED))
            ]
            reader = clients[value % 2].initiator.start(0, cdb.read(10, 0, blocks), read_length=512 * blocks)
            with anyio.fail_after(60):
                assert (await reader.wait()).data_in == bytes((value + 3,)) * 512 * blocks
            assert all(each.done for each in sent)
        for client in clients:
            client.initiator.disconnect()


async def test_naca_is_refused(disk: ApplicationClient) -> None:
    """SAM-5 5.2: NACA set where NORMACA is zero: INVALID FIELD IN CDB with a pointer at the bit; there is no ACA."""
    assert not (await disk.inquiry())[3] & 0x20
    result = await disk.execute(bytes((0, 0, 0, 0, 0, 0x04)), expect=InvalidFieldInCdb)
    assert result.sense is not None
    assert result.sense.sense_key_specific == b"\xca\0\x05"
    assert await disk.initiator.task_management(TaskManagementFunction.CLEAR_ACA) is TaskManagementResponse.NOT_SUPPORTED
