"""Invariant: whatever bits a CDB and its parameter list have, the command ends in a status that its standard knows, never in
INTERNAL TARGET FAILURE, and the logical unit serves the next one."""

from __future__ import annotations

import random

import pytest
from support.commands import identify
from support.scsi import one_initiator
from tcm_loopback.commands import ApplicationClient

from tcm.scsi.command import Command
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.sense import SenseKey, Status

pytestmark = pytest.mark.anyio

ROUNDS = 40
KEYS = {
    SenseKey.ILLEGAL_REQUEST,
    SenseKey.NOT_READY,
    SenseKey.UNIT_ATTENTION,
    SenseKey.DATA_PROTECT,
    SenseKey.MISCOMPARE,
}


def random_cdb(command: Command, chance: random.Random) -> bytes:
    """Bits that the usage data allow, few of them more often than many, and now and then a reserved one."""
    cdb = bytearray(command.length)
    density = chance.choice((0.05, 0.2, 0.5))
    for index, allowed in enumerate(command.usage):
        for bit in range(8):
            if (allowed >> bit & 1 or chance.random() < 0.002) and chance.random() < density:
                cdb[index] |= 1 << bit
    identify(command, cdb)
    return bytes(cdb)


async def outcome_is_known(client: ApplicationClient, cdb: bytes, chance: random.Random) -> None:
    data = chance.randbytes(chance.choice((0, 1, 4, 8, 24, 512, 1024, 4096)))
    result = await client.execute(
        cdb, data, read_length=chance.choice((0, 1, 36, 512, 1 << 20)), write_length=chance.choice((None, 0)), expect=None
    )
    known = {Status.GOOD, Status.CHECK_CONDITION, Status.CONDITION_MET}
    if cdb and cdb[0] in {0x16, 0x17, 0x56, 0x57, 0x5E, 0x5F}:  # each kind of reservation shuts the other out; wrong keys
        known.add(Status.RESERVATION_CONFLICT)
    assert result.status in known, cdb.hex(" ")
    if result.status is Status.CHECK_CONDITION:
        assert result.sense is not None
        assert result.sense.key in KEYS, f"{cdb.hex(' ')}: {result.sense}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
async def test_any_bits(command, tmp_path):
    chance = random.Random(command.name)
    async with one_initiator(removable=True, directory=tmp_path) as client:
        for _ in range(ROUNDS):
            await outcome_is_known(client, random_cdb(command, chance), chance)


async def test_any_bytes_one_after_the_other(tmp_path):
    chance = random.Random(7)
    async with one_initiator(removable=True, directory=tmp_path) as client:
        for _ in range(400):
            command = chance.choice(COMMANDS)
            await outcome_is_known(client, random_cdb(command, chance), chance)
        for _ in range(200):
            await outcome_is_known(client, chance.randbytes(chance.choice((0, 1, 6, 10, 12, 16, 32))), chance)
        client.initiator.disconnect()
