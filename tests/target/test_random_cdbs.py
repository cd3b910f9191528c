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
from tcm.scsi.protection import PROTECTED_COMMANDS, WITH_PROTECT_FIELD
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


async def outcome_is_known(client: ApplicationClient, cdb: bytes, chance: random.Random, keys: set[SenseKey] = KEYS) -> None:
    data = chance.randbytes(chance.choice((0, 1, 4, 8, 24, 512, 520, 1024, 1040, 4096)))
    result = await client.execute(
        cdb, data, read_length=chance.choice((0, 1, 36, 512, 1 << 20)), write_length=chance.choice((None, 0)), expect=None
    )
    known = {Status.GOOD, Status.CHECK_CONDITION, Status.CONDITION_MET}
    if cdb and cdb[0] in {0x16, 0x17, 0x56, 0x57, 0x5E, 0x5F}:  # each kind of reservation shuts the other out; wrong keys
        known.add(Status.RESERVATION_CONFLICT)
    assert result.status in known, cdb.hex(" ")
    if result.status is Status.CHECK_CONDITION:
        assert result.sense is not None
        assert result.sense.key in keys, f"{cdb.hex(' ')}: {result.sense}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
async def test_any_bits(command, tmp_path):
    chance = random.Random(command.name)
    async with one_initiator(removable=True, directory=tmp_path) as client:
        for _ in range(ROUNDS):
            await outcome_is_known(client, random_cdb(command, chance), chance)


PROTECTED = [command for command in COMMANDS if command.handler in WITH_PROTECT_FIELD or command.name == "UNMAP"]


@pytest.mark.parametrize("kind", [1, 2, 3])
async def test_any_bits_with_protection_information(kind):
    chance = random.Random(kind)
    async with one_initiator(pi_prot_type=kind) as client:
        for number in range(600):
            command = PROTECTED_COMMANDS.get(PROTECTED[number % len(PROTECTED)].name, PROTECTED[number % len(PROTECTED)])
            await outcome_is_known(client, random_cdb(command, chance), chance, {*KEYS, SenseKey.ABORTED_COMMAND})


async def test_any_bytes_one_after_the_other(tmp_path):
    chance = random.Random(7)
    async with one_initiator(removable=True, directory=tmp_path) as client:
        for _ in range(400):
            command = chance.choice(COMMANDS)
            await outcome_is_known(client, random_cdb(command, chance), chance)
        for _ in range(200):
            await outcome_is_known(client, chance.randbytes(chance.choice((0, 1, 6, 10, 12, 16, 32))), chance)
        client.initiator.disconnect()
