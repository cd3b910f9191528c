"""TEST UNIT READY, REQUEST SENSE, INQUIRY and REPORT LUNS (SPC-5 6.47, 6.39, 6.7, 6.35)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.asymmetric_access import DISCONNECTED, REFUSED
from tcm.scsi.check_condition import CheckCondition, InvalidFieldInCdb
from tcm.scsi.inquiry import DeviceType, PeripheralQualifier, peripheral
from tcm.scsi.report_luns import SelectReport, report_luns_data
from tcm.scsi.sense import Sense, SenseKey
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler
from tcm.target.device_server.identification import standard_data, vpd_page
from tcm.target.unit_attention import REPORTED_LUNS_DATA_HAS_CHANGED

if TYPE_CHECKING:
    from tcm.target.nexus import ITLNexus, ITNexus
    from tcm.target.task import Task

_NOT_CONNECTED = bytes((peripheral(PeripheralQualifier.NOT_CONNECTED, DeviceType.DIRECT_ACCESS_BLOCK),))
_SELECT_REPORTS = frozenset(SelectReport)


def _test_unit_ready(task: Task) -> None:
    """The router has found the unit ready already."""


def _request_sense(task: Task) -> None:
    """A pending unit attention, which this clears; or why the unit is not accessible or not ready; or that all is well."""
    itl = task.itl
    assert itl is not None
    cdb = task.cdb
    give(task, _pollable_sense(itl).pack(descriptor=bool(cdb[1] & 0x01)), cdb[4])


def _pollable_sense(itl: ITLNexus) -> Sense:
    attention = itl.take_attention()
    if attention is not None:
        return attention.sense()
    state = itl.exported.access_state
    if state in REFUSED:
        return REFUSED[state]().sense
    try:
        itl.logical_unit.check_ready()
    except CheckCondition as error:
        return error.sense
    return Sense(key=SenseKey.NO_SENSE)


def _inquiry(task: Task) -> None:
    itl = task.itl
    assert itl is not None
    cdb = task.cdb
    code = cdb[2]
    if cdb[1] & 0x01:
        page = vpd_page(itl, code)
        if page is None:
            raise InvalidFieldInCdb.at(2)
        data = page
    elif code:
        raise InvalidFieldInCdb.at(2)
    else:
        data = standard_data(itl)
    if itl.exported.access_state in DISCONNECTED:
        data = _NOT_CONNECTED + data[1:]
    give(task, data, cdb[3] << 8 | cdb[4])


def report_luns(task: Task) -> None:
    """REPORT LUNS, to whatever LUN it comes. Whoever gets the list has been told that it changed (SAM-5 5.14.5)."""
    nexus: ITNexus = task.nexus
    cdb = task.cdb
    if cdb[2] not in _SELECT_REPORTS:
        raise InvalidFieldInCdb.at(2)
    numbered = sorted(nexus.luns.values(), key=lambda itl: itl.lun_number)
    data = report_luns_data([itl.lun for itl in numbered], SelectReport(cdb[2]))
    give(task, data, int.from_bytes(cdb[6:10]))
    for itl in numbered:
        itl.clear_attention(REPORTED_LUNS_DATA_HAS_CHANGED)


HANDLERS = {
    "test_unit_ready": Handler(no_data_out, _test_unit_ready),
    "request_sense": Handler(no_data_out, _request_sense),
    "inquiry": Handler(no_data_out, _inquiry),
    "report_luns": Handler(no_data_out, report_luns),
}
