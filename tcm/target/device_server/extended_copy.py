"""EXTENDED COPY (LID1) and (LID4) (SPC-4 6.4, 6.5), from block device to block device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tcm.scsi.check_condition import CheckCondition, CommandTerminated, ParameterListLengthError
from tcm.scsi.copy_sense import (
    CopyAborted,
    CopyFieldInvalid,
    Forwarded,
    IncorrectCopyTargetDeviceType,
    ThirdPartyDeviceFailure,
    UnexpectedInexactSegment,
    UnreachableCopyTarget,
    segment_pointer,
)
from tcm.scsi.extended_copy import CopyParameters, Cscd, ListIdUsage, Segment, header_length, parse
from tcm.scsi.inquiry import DeviceType
from tcm.scsi.sense import Sense, SenseKey
from tcm.scsi.third_party_copy import MAXIMUM_DESCRIPTOR_LIST_LENGTH, MAXIMUM_SEGMENT_LENGTH, THIS_LOGICAL_UNIT
from tcm.target.copier import CopyFailed, Place, Side, copy
from tcm.target.copy_access import ReachableUnits, admit
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.target.copy_manager import CopyOperation
    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task

_LID4 = 0x01
_BYTES, _BLOCKS = 8, 10
_BLOCK_LENGTH = 29


class _Fields(NamedTuple):
    """Where in a segment descriptor an end has its CSCD descriptor ID, LBA and byte offset."""

    identifier: int
    lba: int
    byte: int


_SOURCE, _DESTINATION = _Fields(4, 12, 28), _Fields(6, 20, 30)


class _End(NamedTuple):
    """One end of a segment."""

    itl: ITLNexus
    cscd: Cscd | None
    """``None``: the unit that the command was sent to."""


def _is_lid4(task: Task) -> bool:
    return task.cdb[1] & 0x1F == _LID4


def _prepare(task: Task) -> int:
    """A parameter list length of zero is no error; one that no parameter list has is."""
    length = int.from_bytes(task.cdb[10:14])
    header = header_length(lid4=_is_lid4(task))
    if task.write_length < length or (length and not header <= length <= header + MAXIMUM_DESCRIPTOR_LIST_LENGTH):
        raise ParameterListLengthError
    return length


def _extended_copy(task: Task) -> Coroutine[Any, Any, None] | None:
    lu, itl = task.logical_unit, task.itl
    assert lu is not None
    assert itl is not None
    if not int.from_bytes(task.cdb[10:14]):
        return None
    parameters = parse(bytes(task.data_out[: task.data_out_wanted]), lid4=_is_lid4(task))
    identifier = None if parameters.usage is ListIdUsage.NONE else parameters.list_identifier
    operation = lu.copies.begin(task, identifier, task.cdb[1] & 0x1F, background=parameters.immediate)
    run = _Run(itl, parameters, operation)
    if parameters.immediate:
        lu.running.spawn_alone(lu.copies.run_in_background(operation, run.all_segments))
        return None
    return _in_foreground(task, run)


async def _in_foreground(task: Task, run: _Run) -> None:
    await run.operation.run(run.all_segments)
    if run.parameters.good_sense:
        processed = len(run.parameters.segments)
        task.sense = Sense(key=SenseKey.COMPLETED, asc=0x00, ascq=0x20, command_specific=processed)


class _Run:
    """The segments of one command, one after the other."""

    def __init__(self, itl: ITLNexus, parameters: CopyParameters, operation: CopyOperation) -> None:
        self._itl = itl
        self.parameters = parameters
        self.operation = operation
        self._units = ReachableUnits(itl) if parameters.cscds else None

    async def all_segments(self) -> None:
        """Raises :class:`CopyAborted` for the first segment that cannot be processed; those before it have been."""
        for number, segment in enumerate(self.parameters.segments):
            self.operation.segments = number + 1
            await self._segment(number, segment)
            await self._itl.logical_unit.breathe()

    async def _segment(self, number: int, segment: Segment) -> None:
        source = self._end(number, segment.source, Side.SOURCE)
        destination = self._end(number, segment.destination, Side.DESTINATION)
        places: dict[Side, Place] = {}
        length = 0

        def check() -> None:
            for end, side in ((source, Side.SOURCE), (destination, Side.DESTINATION)):
                try:
                    place = places.get(side)
                    admit(end.itl, place.span(0, length) if place else None, write=side is Side.DESTINATION)
                except CommandTerminated as error:
                    raise CopyFailed(side, error) from error

        before = self.operation.transferred
        try:
            check()
            length = _length(number, segment, source, destination)
            if length:
                for side, end, field in ((Side.SOURCE, source, _SOURCE), (Side.DESTINATION, destination, _DESTINATION)):
                    places[side] = _place(number, segment, end, field, length)
                await copy(self.operation, places[Side.SOURCE], places[Side.DESTINATION], length, admit=check)
        except CopyFailed as failure:
            written = self.operation.transferred - before
            end = source if failure.side is Side.SOURCE else destination
            residual = length - written >> destination.itl.logical_unit.block_shift if written else None
            raise _failure(number, failure, end, residual) from failure.error.__cause__

    def _end(self, number: int, identifier: int, side: Side) -> _End:
        """The unit that a CSCD descriptor ID stands for."""
        if identifier == THIS_LOGICAL_UNIT:
            return _End(self._itl, None)
        fields = _SOURCE if side is Side.SOURCE else _DESTINATION
        field = segment_pointer(fields.identifier, in_segment=True)
        cscd = self.parameters.cscds.get(identifier)
        if cscd is None:
            if identifier < self.parameters.first_cscd:
                raise CopyFieldInvalid(number, pointer=field)
            raise UnreachableCopyTarget(number, pointer=field)
        assert self._units is not None
        found = self._units.find(cscd.designator, write=side is Side.DESTINATION)
        pointer = segment_pointer(cscd.offset, in_segment=False)
        if found is None:
            raise UnreachableCopyTarget(number, pointer=pointer)
        if cscd.device_type != DeviceType.DIRECT_ACCESS_BLOCK:
            raise IncorrectCopyTargetDeviceType(number, pointer=pointer)
        return _End(found, cscd)


def _length(number: int, segment: Segment, source: _End, destination: _End) -> int:
    """Bytes to copy: a whole number of blocks at both ends, unless there are byte offsets."""
    for end in (source, destination):
        size = end.itl.logical_unit.block_size
        if end.cscd is not None and end.cscd.block_length not in {0, size}:
            raise CopyFieldInvalid(number, pointer=segment_pointer(end.cscd.offset + _BLOCK_LENGTH, in_segment=False))
    field = segment_pointer(_BYTES if segment.with_offsets else _BLOCKS, in_segment=True)
    if segment.with_offsets:
        length = segment.count
    else:
        counted = destination if segment.destination_count else source
        length = segment.count * counted.itl.logical_unit.block_size
        if length % source.itl.logical_unit.block_size or length % destination.itl.logical_unit.block_size:
            raise UnexpectedInexactSegment(number, pointer=field)
    if length > MAXIMUM_SEGMENT_LENGTH:
        raise CopyAborted(number, pointer=field)
    return length


def _place(number: int, segment: Segment, end: _End, fields: _Fields, length: int) -> Place:
    unit = end.itl.logical_unit
    is_source = fields is _SOURCE
    lba = segment.source_lba if is_source else segment.destination_lba
    byte = segment.source_byte if is_source else segment.destination_byte
    if byte >= unit.block_size:
        raise CopyAborted(number, pointer=segment_pointer(fields.byte, in_segment=True))
    offset = (lba << unit.block_shift) + byte
    if offset + length > unit.blocks << unit.block_shift:
        raise CopyAborted(number, pointer=segment_pointer(fields.lba, in_segment=True))
    return Place(unit, end.itl.nexus, offset)


def _failure(number: int, failure: CopyFailed, end: _End, residual: int | None) -> ThirdPartyDeviceFailure:
    """What one end answered, forwarded.

    :param residual: blocks of the segment that were not written; ``None`` if none was.
    """
    error = failure.error
    sense = error.sense if isinstance(error, CheckCondition) else None
    return ThirdPartyDeviceFailure(
        number,
        pointer=segment_pointer(end.cscd.offset, in_segment=False) if end.cscd is not None else None,
        residual=residual,
        forwarded=Forwarded(failure.side, error.status, sense),
    )


HANDLERS = {"extended_copy": Handler(_prepare, _extended_copy)}
