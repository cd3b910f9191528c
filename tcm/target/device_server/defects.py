"""READ DEFECT DATA (10) and (12) (SBC-4 5.21, 5.22): there are no defects to tell of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.block_data import defect_list_header
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from tcm.target.task import Task

READ_DEFECT_DATA_12 = 0xB7


def _read_defect_data(task: Task) -> None:
    cdb = task.cdb
    if cdb[0] == READ_DEFECT_DATA_12:
        give(task, defect_list_header(kinds_and_format=cdb[1] & 0x1F, long=True), int.from_bytes(cdb[6:10]))
    else:
        give(task, defect_list_header(kinds_and_format=cdb[2] & 0x1F, long=False), int.from_bytes(cdb[7:9]))


HANDLERS = {"read_defect_data": Handler(no_data_out, _read_defect_data)}
