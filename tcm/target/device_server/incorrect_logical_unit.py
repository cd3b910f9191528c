"""Commands to an incorrect LUN (SAM-5 5.11.3, SPC-5 4.6.3), or to the REPORT LUNS well-known logical unit (SPC-5 8.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidOpcode, LogicalUnitNotSupported
from tcm.scsi.command_table import check_reserved, lookup
from tcm.scsi.inquiry import DeviceType, PeripheralQualifier, standard_inquiry_data
from tcm.scsi.lun import REPORT_LUNS_WELL_KNOWN
from tcm.scsi.sense import Sense, SenseKey
from tcm.target.device_server.data_in import give
from tcm.target.device_server.identification import WELL_KNOWN_VPD_PAGES
from tcm.target.device_server.spc import report_luns

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.target.task import Task

_VENDOR, _PRODUCT, _REVISION = "LIO-ORG", "TCM", "0001"


def answer(task: Task) -> None:
    """Give ``task.data_in`` to a task whose LUN field leads to no logical unit. Raises :class:`CheckCondition`."""
    well_known = task.lun == REPORT_LUNS_WELL_KNOWN
    try:
        command = lookup(task.cdb)
    except InvalidOpcode:
        raise InvalidOpcode if well_known else LogicalUnitNotSupported from None
    function = (_WELL_KNOWN if well_known else _INCORRECT).get(command.handler)
    if function is None:
        raise InvalidOpcode if well_known else LogicalUnitNotSupported
    check_reserved(command, task.cdb)
    function(task)


def _inquiry(task: Task, qualifier: PeripheralQualifier, device_type: DeviceType) -> None:
    """Standard data only; there is nothing that a VPD page could identify."""
    cdb = task.cdb
    if cdb[1] & 0x01:
        raise InvalidFieldInCdb.at(1, 0)
    if cdb[2]:
        raise InvalidFieldInCdb.at(2)
    data = standard_inquiry_data(
        vendor=_VENDOR, product=_PRODUCT, revision=_REVISION, qualifier=qualifier, device_type=device_type
    )
    give(task, data, cdb[3] << 8 | cdb[4])


def _incorrect_inquiry(task: Task) -> None:
    _inquiry(task, PeripheralQualifier.IMPOSSIBLE, DeviceType.UNKNOWN)


def _well_known_inquiry(task: Task) -> None:
    cdb = task.cdb
    if not cdb[1] & 0x01:
        _inquiry(task, PeripheralQualifier.CONNECTED, DeviceType.WELL_KNOWN)
        return
    builder = WELL_KNOWN_VPD_PAGES.get(cdb[2])
    if builder is None:
        raise InvalidFieldInCdb.at(2)
    give(task, builder(task.nexus), cdb[3] << 8 | cdb[4])


def _incorrect_request_sense(task: Task) -> None:
    give(task, LogicalUnitNotSupported().sense.pack(descriptor=bool(task.cdb[1] & 0x01)), task.cdb[4])


def _well_known_request_sense(task: Task) -> None:
    give(task, Sense(key=SenseKey.NO_SENSE).pack(descriptor=bool(task.cdb[1] & 0x01)), task.cdb[4])


def _test_unit_ready(_: Task) -> None:
    """Always ready."""


_INCORRECT: dict[str, Callable[[Task], None]] = {
    "inquiry": _incorrect_inquiry,
    "report_luns": report_luns,
    "request_sense": _incorrect_request_sense,
}
_WELL_KNOWN: dict[str, Callable[[Task], None]] = {
    "inquiry": _well_known_inquiry,
    "report_luns": report_luns,
    "request_sense": _well_known_request_sense,
    "test_unit_ready": _test_unit_ready,
}
