"""CDBs made of rows of the command table."""

from __future__ import annotations

from tcm.scsi.command import VARIABLE_LENGTH, Command


def identify(command: Command, cdb: bytearray) -> None:
    """Write the operation code and, where there is one, the service action into a CDB; leave all other fields."""
    cdb[0] = command.operation_code
    if command.operation_code == VARIABLE_LENGTH:
        cdb[7:10] = command.usage[7:10]
    elif command.service_action is not None:
        cdb[1] = cdb[1] & 0xE0 | command.service_action


def bare(command: Command) -> bytearray:
    """The command's CDB with zeroes in all its fields."""
    cdb = bytearray(command.length)
    identify(command, cdb)
    return cdb
