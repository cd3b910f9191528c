"""PERSISTENT RESERVE IN and OUT as application clients of the tests send them."""

from __future__ import annotations

from typing import Any

from tcm_loopback.commands import ApplicationClient, Expected

from tcm.scsi import cdb
from tcm.scsi.persistent_reservations import InAction, OutAction
from tcm.scsi.sense import Status
from tcm.scsi.transport_id import ProtocolIdentifier, TransportId
from tcm.target.unit_attention import UnitAttention

CONFLICT = Status.RESERVATION_CONFLICT
GOOD = Status.GOOD
SPEC_I_PT, ALL_TG_PT, APTPL = 8, 4, 1


def parameters(key: int = 0, new: int = 0, *, flags: int = 0, more: bytes = b"") -> bytes:
    """The basic parameter list, and what comes after it."""
    return key.to_bytes(8, "big") + new.to_bytes(8, "big") + bytes(4) + bytes((flags, 0, 0, 0)) + more


def move_parameters(key: int, new: int, port: int, name: bytes, *, flags: int = 0) -> bytes:
    """REGISTER AND MOVE's."""
    data = key.to_bytes(8, "big") + new.to_bytes(8, "big") + bytes((0, flags)) + port.to_bytes(2, "big")
    return data + len(name).to_bytes(4, "big") + name


def specified(*names: bytes) -> bytes:
    """TransportIDs as they stand behind the basic parameter list with SPEC_I_PT."""
    joined = b"".join(names)
    return len(joined).to_bytes(4, "big") + joined


async def out(
    client: ApplicationClient,
    action: OutAction,
    key: int = 0,
    new: int = 0,
    kind: int = 0,
    *,
    flags: int = 0,
    more: bytes = b"",
    expect: Expected = GOOD,
    **fields: Any,
) -> Any:
    data = parameters(key, new, flags=flags, more=more)
    return await client.execute(cdb.persistent_reserve_out(action, kind, len(data), **fields), data, expect=expect)


async def move(
    client: ApplicationClient, key: int, new: int, port: int, name: bytes, *, flags: int = 0, expect: Expected = GOOD
) -> None:
    data = move_parameters(key, new, port, name, flags=flags)
    await client.execute(cdb.persistent_reserve_out(OutAction.REGISTER_AND_MOVE, 0, len(data)), data, expect=expect)


async def register(client: ApplicationClient, new: int, key: int = 0, **more: Any) -> None:
    await out(client, OutAction.REGISTER, key, new, **more)


async def read_in(client: ApplicationClient, action: InAction) -> bytes:
    return (await client.execute(cdb.persistent_reserve_in(action), read_length=65535)).data_in


async def keys(client: ApplicationClient) -> list[int]:
    data = await read_in(client, InAction.READ_KEYS)
    assert int.from_bytes(data[4:8], "big") == len(data) - 8
    return [int.from_bytes(data[at : at + 8], "big") for at in range(8, len(data), 8)]


async def generation(client: ApplicationClient) -> int:
    return int.from_bytes((await read_in(client, InAction.READ_KEYS))[:4], "big")


async def reservation(client: ApplicationClient) -> tuple[int, int] | None:
    data = await read_in(client, InAction.READ_RESERVATION)
    assert int.from_bytes(data[4:8], "big") == len(data) - 8
    return (int.from_bytes(data[8:16], "big"), data[21]) if len(data) > 8 else None


def sas(name: str) -> bytes:
    return TransportId(ProtocolIdentifier.SAS, name.removeprefix("naa.")).pack()


async def attention(client: ApplicationClient, expected: UnitAttention | None) -> None:
    await client.test_unit_ready(expect=expected or GOOD)
    await client.test_unit_ready()
