"""Logical block provisioning: resources and thresholds (SBC-4 4.7.3, 6.4, 6.5, 6.6)."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.memory import GatedMemory
from support.scsi import logical_unit, one_initiator, pattern, two_initiators
from tcm_backstores.fileio import FileBackstore
from tcm_backstores.filters.log import LogFilter, LogOptions
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient

from tcm.adapters import adapt
from tcm.backstore import Allocation, BackstoreError, BackstoreErrorKind
from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.scsi.log_pages import parse_parameters
from tcm.scsi.mode_pages import LOGICAL_BLOCK_PROVISIONING_PAGE
from tcm.target.unit_attention import MODE_PARAMETERS_CHANGED, THIN_PROVISIONING_SOFT_THRESHOLD_REACHED

pytestmark = pytest.mark.anyio
MIB = 1 << 20
AVAILABLE, USED = 1, 2
DEDICATED, SHARED = 1, 2


class Thin(GatedMemory):
    """A disk that says what it is told to say."""

    told: Allocation | None = Allocation(3 * MIB + 1, 100 * MIB - 1, shared=False)
    broken = False

    async def allocation(self) -> Allocation | None:
        if self.broken:
            raise BackstoreError(BackstoreErrorKind.NOT_READY)
        return self.told


async def resources(disk: ApplicationClient) -> dict[int, tuple[int, int]]:
    """RESOURCE COUNT and SCOPE by parameter code."""
    data = (await disk.execute(cdb.log_sense(0x0C), read_length=512)).data_in
    return {code: (int.from_bytes(value[:4], "big"), value[4]) for code, _, value in parse_parameters(data)}


async def exponent(disk: ApplicationClient) -> int:
    return (await disk.inquiry(0xB2))[4]


async def set_thresholds(disk: ApplicationClient, **fields: int) -> None:
    page = LOGICAL_BLOCK_PROVISIONING_PAGE
    data = bytes(8) + page.pack({**page.defaults, **fields})
    await disk.execute(cdb.mode_select(10, len(data)), data)


async def test_log_sense_provisioning() -> None:
    """SBC-4 6.4: used and available resources, in threshold sets of two to the THRESHOLD EXPONENT logical blocks."""
    async with one_initiator(Thin()) as disk:
        assert await exponent(disk) == 11
        assert await resources(disk) == {AVAILABLE: (99, DEDICATED), USED: (4, DEDICATED)}
        assert 0x0C in (await disk.execute(cdb.log_sense(0), read_length=64)).data_in[4:]
    async with one_initiator(Thin(), block_size=4096) as disk:
        assert await exponent(disk) == 8
        assert await resources(disk) == {AVAILABLE: (99, DEDICATED), USED: (4, DEDICATED)}


async def test_log_sense_provisioning_of_a_file(tmp_path: Path) -> None:
    """SBC-4 6.4: what a sparse file has taken; what its file system still has is anybody's."""
    async with one_initiator(FileBackstore(str(tmp_path / "disk"), 64 * MIB)) as disk:
        assert (await resources(disk))[USED] == (0, SHARED)
        await disk.write(16, 0, pattern(4 * MIB))
        found = await resources(disk)
        assert 4 <= found[USED][0] <= 6
        assert found[AVAILABLE][0] > 0
        await disk.unmap((0, 8192))
        assert (await resources(disk))[USED][0] <= 1


async def test_log_sense_provisioning_of_a_ramdisk() -> None:
    """SBC-4 6.4: likewise, of this machine's memory."""
    async with one_initiator(LogFilter(adapt(RamdiskBackstore(64 * MIB)), LogOptions())) as disk:
        assert (await resources(disk))[USED] == (0, SHARED)
        await disk.write(16, 0, pattern(4 * MIB))
        assert (await resources(disk))[USED] == (4, SHARED)
        assert (await resources(disk))[AVAILABLE][0] > 0


@pytest.mark.parametrize("why", ["thick", "does not know", "broken", "switched off"])
async def test_log_sense_provisioning_not_offered(why: str) -> None:
    """SBC-4 6.6: without thin provisioning, or somebody who knows, there is no page, no exponent, and no threshold."""
    store = Thin(thin=why != "thick")
    store.broken = why == "broken"
    if why == "does not know":
        store.told = None
    attributes = {"emulate_tpu": False, "emulate_tpws": False} if why == "switched off" else {}
    async with one_initiator(store, **attributes) as disk:
        assert await exponent(disk) == 0
        await disk.execute(cdb.log_sense(0x0C), read_length=64, expect=InvalidFieldInCdb)
        await disk.execute(cdb.mode_sense(10, 0x1C, 2), read_length=64, expect=InvalidFieldInCdb)


async def test_mode_sense_provisioning() -> None:
    """SBC-4 6.5: two threshold descriptors; ENABLED and THRESHOLD COUNT can be changed, the rest cannot."""
    async with one_initiator(Thin()) as disk:
        page = (await disk.mode_sense(10, 0x1C, 2, dbd=True))[8:]
        assert page.hex(" ", 8) == "5c02001c00000000 0000000000000000 0001000000000000 0102000000000000"
        mask = (await disk.mode_sense(10, 0x1C, 2, dbd=True, control=1))[8:]
        assert mask[4:].hex(" ", 4) == "00000000 00000000 00000000 80000000 ffffffff 80000000 ffffffff"


@pytest.mark.parametrize("resource", [AVAILABLE, USED])
async def test_mode_select_provisioning_threshold(resource: int) -> None:
    """SBC-4 4.7.3.7: a threshold that is reached is told once, until the resource is away from it; INFORMATION says which."""
    store = Thin()
    async with two_initiators(store) as (one, other):
        unit = logical_unit(one)
        name = "available" if resource == AVAILABLE else "used"
        await set_thresholds(one, **{f"{name}_enabled": 1, f"{name}_count": 10})
        await other.test_unit_ready(expect=MODE_PARAMETERS_CHANGED)

        def be(count: int) -> None:
            store.told = Allocation(count * MIB, count * MIB)

        near, far = (10, 12) if resource == AVAILABLE else (10, 8)
        for _ in range(2):
            be(far)
            await unit.provisioning.check_thresholds()
            await one.test_unit_ready()
            be(near)
            await unit.provisioning.check_thresholds()
            await unit.provisioning.check_thresholds()
            for client in (one, other):
                result = await client.test_unit_ready(expect=None)
                assert result.sense is not None
                expected = THIN_PROVISIONING_SOFT_THRESHOLD_REACHED
                assert (result.sense.asc, result.sense.ascq) == (expected.asc, expected.ascq)
                assert result.sense.information == (16 if resource == AVAILABLE else 24)
                await client.test_unit_ready()
        be((near + far) // 2)
        await unit.provisioning.check_thresholds()
        be(near)
        await unit.provisioning.check_thresholds()
        await one.test_unit_ready()


async def test_mode_select_provisioning_disabled() -> None:
    """SBC-4 4.7.3.7: nothing is told of thresholds that are not enabled; a new one is looked at anew."""
    store = Thin()
    async with one_initiator(store) as disk:
        unit = logical_unit(disk)
        await unit.provisioning.check_thresholds()
        await set_thresholds(disk, available_count=1000)
        await unit.provisioning.check_thresholds()
        await disk.test_unit_ready()
        for _ in range(2):
            await set_thresholds(disk, available_count=1000, available_enabled=1)
            await unit.provisioning.check_thresholds()
            assert (await disk.test_unit_ready(expect=None)).sense is not None
            await set_thresholds(disk)
            await unit.provisioning.check_thresholds()
