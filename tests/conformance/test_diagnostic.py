"""SEND and RECEIVE DIAGNOSTIC (SPC-5 6.42, 6.33), LOG SENSE (6.11, 7.3)."""

from __future__ import annotations

import pytest
from support.scsi import pattern
from tcm_loopback import cdb
from tcm_loopback.commands import ApplicationClient

from tcm.scsi.sense import InvalidFieldInCdb, Status

pytestmark = pytest.mark.anyio


async def log_page(disk: ApplicationClient, page: int, subpage: int = 0) -> bytes:
    data = (await disk.execute(cdb.log_sense(page, subpage, allocation_length=0xFFFF), read_length=0xFFFF)).data_in
    assert data[0] & 0x3F == page
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    return data


async def test_send_diagnostic_self_test(disk: ApplicationClient) -> None:
    """SPC-5 6.42: SELFTEST: the default self-test passes."""
    await disk.execute(cdb.send_diagnostic(self_test=True))


async def test_send_diagnostic_self_test_codes(disk: ApplicationClient) -> None:
    """SPC-5 6.42: SELF-TEST CODE together with SELFTEST, and reserved codes, are INVALID FIELD IN CDB."""
    await disk.execute(cdb.send_diagnostic(self_test=True, code=1), expect=InvalidFieldInCdb)
    for code in (3, 7):
        await disk.execute(cdb.send_diagnostic(code=code), expect=InvalidFieldInCdb)


async def test_receive_diagnostic_supported_pages(disk: ApplicationClient) -> None:
    """SPC-5 7.2.10: page 00h lists the pages; each of them can be had and no other."""
    data = (await disk.execute(cdb.receive_diagnostic_results(0), read_length=4096)).data_in
    assert data[0] == 0
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    listed = list(data[4:])
    assert listed == sorted(listed)
    assert 0 in listed
    for page in set(range(256)) - set(listed):
        await disk.execute(cdb.receive_diagnostic_results(page), read_length=512, expect=InvalidFieldInCdb)


async def test_send_diagnostic_then_receive(disk: ApplicationClient) -> None:
    """SPC-5 6.33: without PCV the results of the last SEND DIAGNOSTIC page, here the supported pages."""
    await disk.execute(cdb.send_diagnostic(4, pf=True), bytes(4))
    data = (await disk.execute(cdb.receive_diagnostic_results(), read_length=512, expect=None)).data_in
    assert data == b"" or data[0] == 0


async def test_log_sense_supported_pages(disk: ApplicationClient) -> None:
    """SPC-5 7.3.20: page 00h lists the pages; each of them can be had and no other."""
    listed = list((await log_page(disk, 0))[4:])
    assert listed == sorted(listed)
    assert 0 in listed
    for page in range(0x3F):
        if page in listed:
            await log_page(disk, page)
        else:
            await disk.execute(cdb.log_sense(page), read_length=512, expect=InvalidFieldInCdb)


async def test_log_sense_supported_subpages(disk: ApplicationClient) -> None:
    """SPC-5 7.3.21: subpage FFh of page 00h lists pages with their subpages."""
    data = await log_page(disk, 0, 0xFF)
    pairs = [(data[i], data[i + 1]) for i in range(4, len(data), 2)]
    assert pairs == sorted(pairs)
    assert {page for page, _ in pairs} >= set((await log_page(disk, 0))[4:])


async def test_log_sense_parameters(disk: ApplicationClient) -> None:
    """SPC-5 7.3.2: the parameters of every page fill it, in ascending order of their codes."""
    for page in (await log_page(disk, 0))[5:]:
        data, at, codes = await log_page(disk, page), 4, []
        while at < len(data):
            codes.append(int.from_bytes(data[at : at + 2], "big"))
            at += 4 + data[at + 3]
        assert at == len(data)
        assert codes == sorted(set(codes))


async def test_log_sense_allocation_length(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.6."""
    full = await log_page(disk, 0)
    for length in (0, 3, 4, 5, 4096):
        result = await disk.execute(cdb.log_sense(0, allocation_length=length), read_length=length)
        assert result.data_in == full[:length]


async def test_log_sense_parameter_pointer(disk: ApplicationClient) -> None:
    """SPC-5 6.11: a PARAMETER POINTER beyond the last parameter is INVALID FIELD IN CDB."""
    for page in (await log_page(disk, 0))[5:]:
        result = await disk.execute(cdb.log_sense(page, pointer=0xFFFF), read_length=512, expect=None)
        assert result.status is Status.CHECK_CONDITION
        assert result.sense is not None
        assert (result.sense.asc, result.sense.ascq) == (0x24, 0)


async def test_log_sense_statistics(disk: ApplicationClient) -> None:
    """SPC-5 7.3.10: General Statistics and Performance counts reads and writes, if it is there."""
    if 0x19 not in (await log_page(disk, 0))[4:]:
        return

    async def counts() -> tuple[int, int]:
        data = await log_page(disk, 0x19)
        assert int.from_bytes(data[4:6], "big") == 1
        return int.from_bytes(data[8:16], "big"), int.from_bytes(data[16:24], "big")

    before = await counts()
    for _ in range(3):
        await disk.read(10, 0, 1)
    await disk.write(10, 0, pattern(512))
    after = await counts()
    assert (after[0] - before[0], after[1] - before[1]) == (3, 1)
