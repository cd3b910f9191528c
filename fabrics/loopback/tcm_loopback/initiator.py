"""An initiator port in the target's own process."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import anyio

from tcm.scsi import lun as lun_codec
from tcm.scsi.sense import Status
from tcm.target.task import Task, TaskAttribute
from tcm.target.task_management import TaskManagementFunction, TaskManagementRequest, TaskManagementResponse
from tcm_loopback.transport import LoopbackCommand, LoopbackTransport, Result

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.backstore import Buffer
    from tcm.target.nexus import ITLNexus, ITNexus

_LBA_AND_BLOCKS = {0x28: (2, 6, 7, 9), 0x2A: (2, 6, 7, 9), 0x88: (2, 10, 10, 14), 0x8A: (2, 10, 10, 14)}
"""Where READ and WRITE (10) and (16) have their LBA and TRANSFER LENGTH; all other bytes are zero in an express command."""

_RESETS = frozenset(
    {
        TaskManagementFunction.LOGICAL_UNIT_RESET,
        TaskManagementFunction.TARGET_WARM_RESET,
        TaskManagementFunction.TARGET_COLD_RESET,
    }
)


class TransportDisrupted(Exception):
    """The initiator port has no I_T nexus: it was closed, or the target port is offline."""


class LoopbackInitiator:
    """One initiator port with its I_T nexus to one target port. Made by :meth:`LoopbackPort.connect`.

    LUNs are numbers, or 8-byte LUN fields that go to the target as they are. Everything is called in the event loop that
    runs the target, on asyncio or trio.
    """

    def __init__(self, name: str, establish: Callable[[LoopbackTransport], ITNexus], *, express: bool = False) -> None:
        self.name = name
        self.transport = LoopbackTransport()
        self.nexus: ITNexus | None = establish(self.transport)
        self.express = express
        """Reads and writes try the express lane first, as iSCSI's do."""
        self.resets = 0
        """Logical unit and target resets that were asked for."""
        self._establish = establish
        self._tags = itertools.count(1)

    def start(
        self,
        lun: int | bytes,
        cdb: bytes,
        data_out: Buffer = b"",
        *,
        read_length: int = 0,
        write_length: int | None = None,
        attribute: TaskAttribute = TaskAttribute.SIMPLE,
        tag: int | None = None,
        withheld: bool = False,
    ) -> LoopbackCommand:
        """Send a command; its result is what the returned handle's ``wait()`` returns.

        :param data_out: bytes for the target.
        :param read_length: size in bytes of the Data-In buffer.
        :param write_length: what the target is told of the Data-Out buffer's size, if that is not ``len(data_out)``.
        :param withheld: the target gets the data only when it has asked and :meth:`LoopbackCommand.deliver` is called.

        Raises :class:`TransportDisrupted` if there is no nexus.
        """
        if self.nexus is None:
            raise TransportDisrupted(self.name)
        field = lun if isinstance(lun, bytes) else lun_codec.encode(lun)
        command = LoopbackCommand(data_out, withheld=withheld)
        length = len(data_out) if write_length is None else write_length
        if self.express and not withheld and attribute in {TaskAttribute.SIMPLE, TaskAttribute.UNTAGGED}:
            itl = self.nexus.luns.get(field)
            result = _express(itl, cdb, data_out, read_length, length) if itl else None
            if result:
                command.finish(result)
                return command
        command.task = task = Task(
            nexus=self.nexus,
            lun=field,
            tag=next(self._tags) if tag is None else tag,
            cdb=cdb,
            attribute=attribute,
            read_length=read_length,
            write_length=length,
            data_out=b"" if withheld else data_out,
            context=command,
        )
        self.nexus.submit(task)
        return command

    async def execute(
        self,
        lun: int | bytes,
        cdb: bytes,
        data_out: Buffer = b"",
        *,
        read_length: int = 0,
        write_length: int | None = None,
        attribute: TaskAttribute = TaskAttribute.SIMPLE,
        tag: int | None = None,
    ) -> Result:
        """Send a command and wait for it; see :meth:`start`. If the wait is cancelled, the task is aborted.

        Raises :class:`TransportDisrupted`, or :class:`CommandAborted` if somebody else aborts it.
        """
        command = self.start(
            lun, cdb, data_out, read_length=read_length, write_length=write_length, attribute=attribute, tag=tag
        )
        try:
            return await command.wait()
        except anyio.get_cancelled_exc_class():
            if command.task is not None and self.nexus is not None:
                self._manage(TaskManagementFunction.ABORT_TASK, command.task.lun, command.task.tag)
            raise

    async def task_management(
        self, function: TaskManagementFunction, lun: int | bytes = 0, tag: int = 0
    ) -> TaskManagementResponse:
        """Send a task management function and wait for its response.

        :param tag: the task that ABORT TASK and QUERY TASK mean.
        """
        return (await self.task_management_request(function, lun, tag))[0]

    async def task_management_request(
        self, function: TaskManagementFunction, lun: int | bytes = 0, tag: int = 0
    ) -> tuple[TaskManagementResponse, bytes]:
        """The same, with the additional response information (SAM-5 7.1)."""
        request = self._manage(function, lun if isinstance(lun, bytes) else lun_codec.encode(lun), tag)
        await request.context.wait()
        assert request.response is not None
        return request.response, request.additional

    def _manage(self, function: TaskManagementFunction, lun: bytes, tag: int) -> TaskManagementRequest:
        if self.nexus is None:
            raise TransportDisrupted(self.name)
        self.resets += function in _RESETS
        request = TaskManagementRequest(function=function, lun=lun, tag=tag, context=anyio.Event())
        self.nexus.manage(request)
        return request

    def disconnect(self) -> None:
        """Lose the I_T nexus: its tasks are aborted, its reservations released."""
        if self.nexus is not None:
            nexus, self.nexus = self.nexus, None
            nexus.lose()

    def reconnect(self) -> None:
        """A new nexus after :meth:`disconnect`, or in place of the one that is there. Raises :class:`NexusRefused`."""
        self.disconnect()
        self.nexus = self._establish(self.transport)


def _express(itl: ITLNexus, cdb: bytes, data_out: Buffer, read_length: int, write_length: int) -> Result | None:
    """The result, if the command may take the express lane and the core took it."""
    where = _LBA_AND_BLOCKS.get(cdb[0]) if cdb else None
    if where is None:
        return None
    lba = int.from_bytes(cdb[where[0] : where[1]], "big")
    blocks = int.from_bytes(cdb[where[2] : where[3]], "big")
    length = blocks << itl.block_shift
    if not blocks or cdb[1] or any(cdb[where[3] :]) or (len(cdb) == 10 and cdb[6]):
        return None
    if cdb[0] in {0x28, 0x88}:
        data_in = bytearray(length)
        if itl.express_read and length == read_length and itl.express_read(lba, blocks, [memoryview(data_in)]):
            return Result(status=Status.GOOD, data_in=bytes(data_in), express=True)
    elif itl.express_write and length == write_length == len(data_out) and itl.express_write(lba, blocks, [data_out]):
        return Result(status=Status.GOOD, express=True)
    return None
