"""An FCoE initiator (FC-BB-6, FCP-4) with everything that the standards have: modes VN2VN, fabric and point to point, confirmed
completion, sequence level recovery, task management; and with switches to misbehave, for those who test targets.

.. code-block:: python

    import anyio
    from tcm_fcoe.initiator import attach

    async def main():
        async with attach("eth1", mode="vn2vn") as port:
            target = await port.target()
            blocks, block_size = await target.capacity()
            await target.write(0, bytes(8 * block_size))
            data = await target.read(0, 8)
            result = await target.execute(bytes((0x12, 0, 0, 0, 36, 0)), read_length=36)
            print(result.status, bytes(result.data), result.sense, result.residual)

    anyio.run(main)

The pieces:

- :func:`attach` gives an :class:`InitiatorPort`: a link, a station and an N_Port that logs in to every target it finds.
  ``port.targets`` are those by port name, ``await port.target(name)`` waits for one.
- ``await target.execute(cdb, lun, data_out=..., read_length=...)`` gives a :class:`Result` whatever the status; many may run
  at once. ``target.submit(FcpTask(...))`` does it with a callback and without a task for each. ``target.abort(task)`` is
  ABTS, ``await target.task_management(flag, lun)`` the rest.
- :class:`Options` says what PRLI offers; :class:`Recovery` when patience ends.
- :class:`Faults` are frames that are lost, doubled, out of order and damaged, by chance with a seed or by a rule.
- Sans-IO users take :class:`FcpInitiator` by itself: it is the FC-4 of a :class:`tcm_fcoe.protocol.n_port.NPort`.
"""

from tcm.scsi.cdb import read_16, write_16
from tcm_fcoe.initiator.address import Address, InvalidAddress, parse_address
from tcm_fcoe.initiator.driver import InitiatorPort, Target, attach
from tcm_fcoe.initiator.faults import Faults, FaultyPath
from tcm_fcoe.initiator.fcp_initiator import FcpInitiator
from tcm_fcoe.initiator.options import Options, Recovery
from tcm_fcoe.initiator.results import (
    InitiatorError,
    LoginFailed,
    ProtocolViolation,
    RequestFailed,
    Result,
    ScsiError,
    TargetLost,
    TaskAborted,
)
from tcm_fcoe.initiator.tasks import FcpTask

__all__ = [
    "Address",
    "Faults",
    "FaultyPath",
    "FcpInitiator",
    "FcpTask",
    "InitiatorError",
    "InitiatorPort",
    "InvalidAddress",
    "LoginFailed",
    "Options",
    "ProtocolViolation",
    "Recovery",
    "RequestFailed",
    "Result",
    "ScsiError",
    "Target",
    "TargetLost",
    "TaskAborted",
    "attach",
    "parse_address",
    "read_16",
    "write_16",
]
