"""LOG SENSE (SPC-5 6.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi import log_pages
from tcm.scsi.sense import InvalidFieldInCdb
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from tcm.target.task import Task


def _log_sense(task: Task) -> None:
    cdb = task.cdb
    key = (cdb[2] & 0x3F, cdb[3])
    pointer = cdb[5] << 8 | cdb[6]
    if key not in log_pages.LOG_PAGES:
        known = any(key[0] == code for code, _ in log_pages.LOG_PAGES)
        raise InvalidFieldInCdb.at(3) if known else InvalidFieldInCdb.at(2, 5)
    if key == log_pages.APPLICATION_CLIENT:
        if pointer >= log_pages.GENERAL_USAGE_PARAMETERS:
            raise InvalidFieldInCdb.at(5)
        data = log_pages.application_client(pointer)
    else:
        if pointer:
            raise InvalidFieldInCdb.at(5)
        subpages = key == log_pages.SUPPORTED_PAGES_AND_SUBPAGES
        data = log_pages.supported_pages_and_subpages() if subpages else log_pages.supported_pages()
    give(task, data, cdb[7] << 8 | cdb[8])


HANDLERS = {"log_sense": Handler(no_data_out, _log_sense)}
