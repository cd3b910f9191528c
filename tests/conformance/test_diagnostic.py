"""SEND and RECEIVE DIAGNOSTIC (SPC-5 6.42, 6.33)."""

from __future__ import annotations

import pytest
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb

pytestmark = pytest.mark.anyio


async def test_send_diagnostic_self_test(disk: ApplicationClient) -> None:
    """SPC-5 6.42: SELFTEST: the default self-test passes."""
    await disk.execute(cdb.send_diagnostic(self_test=True))


async def test_send_diagnostic_self_test_codes(disk: ApplicationClient) -> None:
    """SPC-5 6.42: SELF-TEST CODE together with SELFTEST, and reserved codes, are INVALID FIELD IN CDB."""
    await disk.execute(cdb.send_diagnostic(self_test=True, code=1), expect=InvalidFieldInCdb)
    for code in (3, 7):
        await disk.execute(cdb.send_diagnostic(code=code), expect=InvalidFieldInCdb)


async def test_receive_diagnostic_results_supported_pages(disk: ApplicationClient) -> None:
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
