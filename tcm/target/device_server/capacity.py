"""READ CAPACITY (10) and (16) (SBC-4 5.19, 5.20): whoever asks makes the logical unit look at its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.block_data import read_capacity_10_data, read_capacity_16_data
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task


def _read_capacity_10(task: Task) -> None:
    lu = task.logical_unit
    assert lu is not None
    lu.check_size()
    task.data_in = [read_capacity_10_data(lu.blocks, lu.block_size)]


def capacity_data(lu: LogicalUnit) -> bytes:
    """READ CAPACITY (16)'s parameter data."""
    return read_capacity_16_data(
        lu.blocks,
        lu.block_size,
        physical_block_exponent=lu.physical_block_exponent,
        provisioned=lu.provisioning.thin,
        reads_zero=lu.provisioning.thin and lu.provisioning.unmapped_reads_zero,
        protection=lu.protection.kind,
    )


def _read_capacity_16(task: Task) -> None:
    lu = task.logical_unit
    assert lu is not None
    lu.check_size()
    give(task, capacity_data(lu), int.from_bytes(task.cdb[10:14]))


HANDLERS = {
    "read_capacity_10": Handler(no_data_out, _read_capacity_10),
    "read_capacity_16": Handler(no_data_out, _read_capacity_16),
}
