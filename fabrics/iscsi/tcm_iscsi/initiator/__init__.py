"""An iSCSI initiator (RFC 7143) with everything that the standard has: MC/S, error recovery levels 0 to 2, CHAP both ways,
digests, every key negotiable; and with switches to misbehave, for those who test targets.

.. code-block:: python

    import anyio
    from tcm_iscsi.initiator import Options, Recovery, connect, discover

    async def main():
        print(await discover("iscsi://127.0.0.1:3260"))
        options = Options(keys={"HeaderDigest": "CRC32C", "DataDigest": "CRC32C", "ErrorRecoveryLevel": "2"})
        async with connect("iscsi://127.0.0.1:3260/iqn.2003-01.org.example:t/0", options, connections=4) as session:
            blocks, block_size = await session.capacity()
            await session.write(0, bytes(8 * block_size))
            data = await session.read(0, 8)
            result = await session.execute(bytes((0x12, 0, 0, 0, 36, 0)), read_length=36)
            print(result.status, bytes(result.data), result.sense, result.residual)

    anyio.run(main)

The pieces:

- :func:`connect` gives an :class:`InitiatorSession`. ``session.core`` is the sans-IO session under it
  (:class:`~tcm_iscsi.initiator.session.Session`), with ``connections`` by CID, ``requests`` by Initiator Task Tag, an
  ``observer`` that sees every PDU, and all that recovers on demand: ``connection.snack``, ``core.recovery.retry``,
  ``core.recovery.reassign``, ``core.send_raw``.
- ``await session.execute(cdb, lun, data_out=..., read_length=...)`` gives a :class:`Result` whatever the status; many may run
  at once. ``session.submit(ScsiTask(...))`` does it with a callback and without a task for each.
- ``add_connection()``, ``remove_connection(cid)``, ``remove_for_recovery(cid)``, ``logout()``,
  ``task_management(function)``, ``ping()``, ``text()``, ``declare_max_recv()``.
- :class:`Options` says who logs in and what is offered; :class:`Recovery` when to recover, or not to.
- :class:`Faults` are lost, damaged, late, doubled PDUs and cut connections, by chance with a seed or by a rule.
- Sans-IO users take :class:`Login`, :class:`Session` and :class:`~tcm_iscsi.initiator.connection.Connection` by themselves.
"""

from tcm.scsi.cdb import read_16, write_16
from tcm_iscsi.initiator.driver import InitiatorSession, connect, discover
from tcm_iscsi.initiator.faults import Faults, FaultyWire
from tcm_iscsi.initiator.login import LoggedIn, Login
from tcm_iscsi.initiator.options import OFFERS, Options, Recovery
from tcm_iscsi.initiator.results import (
    AsyncMessage,
    ConnectionClosed,
    ConnectionLost,
    ConnectionUp,
    Event,
    InitiatorError,
    LoginFailed,
    Rejected,
    RejectReceived,
    RequestFailed,
    Result,
    ScsiError,
    SessionEnded,
    SessionFailed,
    TaskAborted,
    TaskLost,
)
from tcm_iscsi.initiator.session import Session
from tcm_iscsi.initiator.tasks import Logout, Nop, ScsiTask, TaskManagement, Text
from tcm_iscsi.initiator.url import InvalidUrl, Url, parse_url
from tcm_iscsi.protocol.login_interface import Credentials

__all__ = [
    "OFFERS",
    "AsyncMessage",
    "ConnectionClosed",
    "ConnectionLost",
    "ConnectionUp",
    "Credentials",
    "Event",
    "Faults",
    "FaultyWire",
    "InitiatorError",
    "InitiatorSession",
    "InvalidUrl",
    "LoggedIn",
    "Login",
    "LoginFailed",
    "Logout",
    "Nop",
    "Options",
    "Recovery",
    "RejectReceived",
    "Rejected",
    "RequestFailed",
    "Result",
    "ScsiError",
    "ScsiTask",
    "Session",
    "SessionEnded",
    "SessionFailed",
    "TaskAborted",
    "TaskLost",
    "TaskManagement",
    "Text",
    "Url",
    "connect",
    "discover",
    "parse_url",
    "read_16",
    "write_16",
]
