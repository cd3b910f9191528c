"""SECURITY PROTOCOL IN (SPC-4 6.40, 7.7.1)."""

from __future__ import annotations

import pytest
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.scsi.sense import Status

pytestmark = pytest.mark.anyio
LIST = bytes.fromhex("000000000000000100")


async def test_security_protocol_in_list(disk: ApplicationClient) -> None:
    """SPC-4 7.7.1.2: only protocol 00h, this one, is there; the allocation length truncates the list."""
    for length in (0, 1, 8, 9, 512):
        result = await disk.execute(cdb.security_protocol_in(0, 0, length), read_length=512)
        assert result.data_in == LIST[:length]


async def test_security_protocol_in_certificate(disk: ApplicationClient) -> None:
    """SPC-4 7.7.1.3: there is no certificate: CERTIFICATE LENGTH is zero."""
    assert (await disk.execute(cdb.security_protocol_in(0, 1), read_length=512)).data_in == bytes(4)


async def test_security_protocol_in_inc_512(disk: ApplicationClient) -> None:
    """SPC-4 6.40: INC_512: ALLOCATION LENGTH counts 512 bytes, and the data are padded to that."""
    result = await disk.execute(cdb.security_protocol_in(0, 0, 3, inc_512=True), read_length=4096)
    assert result.data_in == LIST + bytes(512 - len(LIST))
    assert (await disk.execute(cdb.security_protocol_in(0, 0, 0, inc_512=True), read_length=4096)).data_in == b""


@pytest.mark.parametrize(("protocol", "specific", "byte"), [(1, 0, 1), (0xEF, 0, 1), (0xFF, 9, 1), (0, 2, 2), (0, 0x0100, 2)])
async def test_security_protocol_in_unknown(disk: ApplicationClient, protocol: int, specific: int, byte: int) -> None:
    """SPC-4 6.40: a protocol, or a page of it, that is not there: INVALID FIELD IN CDB."""
    command = cdb.security_protocol_in(protocol, specific)
    result = await disk.execute(command, read_length=512, expect=InvalidFieldInCdb)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0xC0, 0, byte))


async def test_security_protocol_in_reserved(pair: tuple[ApplicationClient, ApplicationClient]) -> None:
    """SPC-4 table 68: conflicts with another nexus's reservation."""
    one, other = pair
    await one.reserve()
    await other.execute(cdb.security_protocol_in(), read_length=512, expect=Status.RESERVATION_CONFLICT)
