"""LUNs, access states and groups, changed through the tree under an initiator's I/O."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.lio_tree import NAA, serving
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.initiator import TransportDisrupted

from tcm.configfs.node import TreeError
from tcm.scsi.check_condition import LogicalUnitNotSupported, TargetPortInStandbyState
from tcm.scsi.sense import Status
from tcm.target.unit_attention import ASYMMETRIC_ACCESS_STATE_CHANGED, INQUIRY_DATA_HAS_CHANGED, REPORTED_LUNS_DATA_HAS_CHANGED

pytestmark = pytest.mark.anyio
GROUP = f"loopback/{NAA}/tpgt_1"


class Load:
    """Writes LUN 0 until told to stop."""

    def __init__(self, client: ApplicationClient) -> None:
        self.client = client
        self.done = 0

    async def run(self) -> None:
        """Every initiator hears of other LUNs; nothing else may happen to it."""
        block = bytes(512)
        while True:
            result = await self.client.execute(bytes((0x2A, *bytes(7), 1, 0)), block, expect=None)
            if result.status is Status.CHECK_CONDITION:
                assert (result.sense.asc, result.sense.ascq) == (0x3F, 0x0E)
            else:
                assert result.status is Status.GOOD
                self.done += 1
            await checkpoint()


async def settle(client):
    for _ in range(4):
        await client.request_sense()


async def test_luns_come_and_go_under_io(tmp_path):
    async with serving(tmp_path, "loopback") as site:
        one, two = await site.ramdisk("one"), await site.ramdisk("two")
        await site.loopback(one)
        client = ApplicationClient(site.connect())
        await settle(client)
        other = ApplicationClient(client.initiator, 7)
        load = Load(ApplicationClient(site.connect()))
        await settle(load.client)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load.run)
            for _ in range(5):
                before = load.done
                await site.make(f"{GROUP}/lun/lun_7")
                await site.link(f"{GROUP}/lun/lun_7/more", two)
                await client.test_unit_ready(expect=REPORTED_LUNS_DATA_HAS_CHANGED)
                await settle(other)
                await other.write(10, 0, bytes(512))
                with pytest.raises(TreeError) as error:
                    await site.remove(f"{GROUP}/lun/lun_7")
                assert site.refused(error) == "ENOTEMPTY"
                await site.unlink(f"{GROUP}/lun/lun_7/more")
                await other.test_unit_ready(expect=LogicalUnitNotSupported)
                await site.remove(f"{GROUP}/lun/lun_7")
                await settle(client)
                while load.done == before:
                    await checkpoint()
            tasks.cancel_scope.cancel()
        assert load.done >= 5


async def test_links_lead_to_devices_only(tmp_path):
    async with serving(tmp_path, "loopback") as site:
        device = await site.ramdisk()
        await site.make_all("core/fileio_0/raw", f"{GROUP}/lun/lun_0", f"{GROUP}/lun/lun_1")
        lun = f"{GROUP}/lun/lun_0"
        for target, name in (
            ("core/fileio_0", "EINVAL"),
            (f"{device}/attrib", "EINVAL"),
            (f"{GROUP}/lun/lun_1", "EINVAL"),
            ("core/fileio_0/raw", "ENODEV"),
            ("core/none_0/x", "ENOENT"),
            (f"{device}/alias", "ENOTDIR"),
        ):
            with pytest.raises(TreeError) as error:
                await site.link(f"{lun}/link", target)
            assert site.refused(error) == name, target
        await site.link(f"{lun}/link", device)
        for path, name in (
            (f"{lun}/second", "EEXIST"),
            (f"{lun}/link", "EEXIST"),
            ("core/link", "EPERM"),
            (f"{GROUP}/link", "EPERM"),
        ):
            with pytest.raises(TreeError) as error:
                await site.link(path, device)
            assert site.refused(error) == name
        for name in ("lun_", "lun_x", "lun_65536", "lun_-1", "LUN_0", "lun_00"):
            with pytest.raises(TreeError) as error:
                await site.make(f"{GROUP}/lun/{name}")
            assert site.refused(error) in {"EINVAL", "EEXIST"}


async def test_access_states_under_io(tmp_path):
    """A group is made, a LUN moved there, its state changed; the initiator hears of each and obeys."""
    async with serving(tmp_path, "loopback") as site:
        device = await site.ramdisk()
        await site.loopback(device)
        client = ApplicationClient(site.connect())
        await settle(client)
        near = f"{device}/alua/near"
        await site.make(near)
        assert site.read(f"{near}/tg_pt_gp_id") == ""
        with pytest.raises(TreeError):
            await site.write(f"{near}/alua_access_state", "1")
        with pytest.raises(TreeError) as error:
            await site.write(f"{GROUP}/lun/lun_0/alua_tg_pt_gp", "near")
        assert site.refused(error) == "ENODEV"
        await site.write(f"{near}/nonop_delay_msecs", "0")
        await site.write(f"{near}/tg_pt_gp_id", "5")
        with pytest.raises(TreeError):
            await site.write(f"{near}/tg_pt_gp_id", "6")
        await site.write(f"{GROUP}/lun/lun_0/alua_tg_pt_gp", "near\n")
        await client.test_unit_ready(expect=INQUIRY_DATA_HAS_CHANGED)
        await client.test_unit_ready(expect=ASYMMETRIC_ACCESS_STATE_CHANGED)
        await settle(client)
        await site.write(f"{near}/alua_access_state", "2")
        await client.test_unit_ready(expect=ASYMMETRIC_ACCESS_STATE_CHANGED)
        await client.read(10, 0, 1, expect=TargetPortInStandbyState)
        assert site.read(f"{near}/alua_access_status") == "Altered by Implicit ALUA\n"
        assert site.read(f"{GROUP}/lun/lun_0/alua_tg_pt_gp").splitlines()[:4] == [
            "TG Port Alias: near",
            "TG Port Group ID: 5",
            "TG Port Primary Access State: Standby",
            "TG Port Primary Access Status: Altered by Implicit ALUA",
        ]
        assert site.read(f"{near}/members") == f"loopback/{NAA}/tpgt_1/lun_0\n"
        await site.write(f"{near}/alua_access_state", "0")
        await settle(client)
        await client.read(10, 0, 1)
        await site.write(f"{GROUP}/lun/lun_0/alua_tg_pt_offline", "1")
        await settle(client)
        assert site.read(f"{GROUP}/lun/lun_0/alua_tg_pt_gp").splitlines()[4] == "TG Port Secondary Access State: Offline"
        result = await client.execute(bytes((0x28, *bytes(7), 1, 0)), read_length=512, expect=None)
        assert result.status is Status.CHECK_CONDITION
        await site.write(f"{GROUP}/lun/lun_0/alua_tg_pt_offline", "0")
        await site.remove(near)
        assert site.read(f"{GROUP}/lun/lun_0/alua_tg_pt_gp").startswith("TG Port Alias: default_tg_pt_gp\n")
        await settle(client)
        await client.read(10, 0, 1)
        for name, text in (
            ("alua_access_type", "4"),
            ("nonop_delay_msecs", "10001"),
            ("alua_access_state", "9"),
            ("preferred", "2x"),
        ):
            with pytest.raises(TreeError) as error:
                await site.write(f"{device}/alua/default_tg_pt_gp/{name}", text)
            assert site.refused(error) == "EINVAL"
        with pytest.raises(TreeError) as error:
            await site.remove(f"{device}/alua/default_tg_pt_gp")
        assert site.refused(error) == "EPERM"


async def test_groups_of_a_device_that_is_not_enabled_yet(tmp_path):
    """What was said before ``enable`` is so afterwards."""
    async with serving(tmp_path, "loopback") as site:
        device = "core/rd_mcp_0/ram"
        await site.make_all(device, f"{device}/alua/far", "core/alua/lu_gps/pair")
        await site.write("core/alua/lu_gps/pair/lu_gp_id", "9")
        await site.write(f"{device}/alua/far/tg_pt_gp_id", "7")
        await site.write(f"{device}/alua_lu_gp", "pair")
        await site.write(f"{device}/attrib/emulate_caw", "0")
        await site.write(f"{device}/wwn/vpd_unit_serial", "feed")
        await site.write(f"{device}/control", "rd_pages=64")
        assert site.read("core/alua/lu_gps/pair/members") == "rd_mcp_0/ram\n"
        await site.write(f"{device}/enable", "1")
        assert site.read(f"{device}/alua/far/tg_pt_gp_id") == "7\n"
        assert site.read(f"{device}/alua_lu_gp") == "LU Group Alias: pair\nLU Group ID: 9\n"
        assert site.read("core/alua/lu_gps/pair/members") == "rd_mcp_0/ram\n"
        assert site.read("core/alua/lu_gps/default_lu_gp/members") == ""
        assert site.read(f"{device}/attrib/emulate_caw") == "0\n"
        assert site.read(f"{device}/wwn/vpd_unit_serial").endswith(" feed\n")
        await site.write(f"{device}/attrib/emulate_tas", "0")  # makes the unit anew
        assert site.read("core/alua/lu_gps/pair/members") == "rd_mcp_0/ram\n"
        assert site.read(f"{device}/alua/far/tg_pt_gp_id") == "7\n"
        with pytest.raises(TreeError) as error:
            await site.remove(device)
        assert site.refused(error) == "ENOTEMPTY"
        await site.remove(f"{device}/alua/far")
        await site.remove("core/alua/lu_gps/pair")
        assert site.read(f"{device}/alua_lu_gp").startswith("LU Group Alias: default_lu_gp\n")
        await site.remove(device)
        assert site.read("core/alua/lu_gps/default_lu_gp/members") == ""


async def test_lba_map(tmp_path):
    async with serving(tmp_path, "loopback") as site:
        device = await site.ramdisk()
        await site.make_all(f"{device}/alua/one")
        await site.write(f"{device}/alua/one/tg_pt_gp_id", "1")
        text = "0 0\n0 1023 0:O 1:A\n1024 2047 0:A 1:O\n"
        await site.write(f"{device}/lba_map", text)
        assert site.read(f"{device}/lba_map") == text
        assert site.read(f"{device}/alua/one/alua_support_lba_dependent") == "1\n"
        for wrong in ("0 0\n0 9 4:O", "nonsense", "0 0\n0 1 0:X"):
            with pytest.raises(TreeError) as error:
                await site.write(f"{device}/lba_map", wrong)
            assert site.refused(error) == "EINVAL"
        await site.loopback(device)
        with pytest.raises(TreeError, match="exported"):
            await site.write(f"{device}/lba_map", text)


async def test_loopback_nexus_and_transport(tmp_path):
    async with serving(tmp_path, "loopback") as site:
        await site.make_all(GROUP)
        assert site.tree.find(f"{GROUP}/address").read() == "0:0:1\n"
        with pytest.raises(TreeError) as error:
            site.read(f"{GROUP}/nexus")
        assert site.refused(error) == "ENODEV"
        with pytest.raises(TreeError):
            await site.write(f"{GROUP}/nexus", "naa.nonsense")
        await site.write(f"{GROUP}/nexus", "naa.5001405f88ed274e\n")
        assert site.read(f"{GROUP}/nexus") == "naa.5001405f88ed274e\n"
        with pytest.raises(TreeError) as error:
            await site.write(f"{GROUP}/nexus", "naa.5001405f88ed274f")
        assert site.refused(error) == "EEXIST"
        await site.write(f"{GROUP}/nexus", "NULL")
        await site.write(f"{GROUP}/transport_status", "offline")
        with pytest.raises(TransportDisrupted):
            site.connect()
        with pytest.raises(TreeError):
            await site.write(f"{GROUP}/transport_status", "sideways")
        await site.write(f"{GROUP}/transport_status", "online")
        for path, name in ((f"{GROUP}/acls/naa.5001405f88ed274e", "ENOSYS"), (f"{GROUP}/np/127.0.0.1:1", "ENOSYS")):
            with pytest.raises(TreeError) as error:
                await site.make(path)
            assert site.refused(error) == name
        device = await site.ramdisk()
        await site.loopback(device)
        client = ApplicationClient(site.connect())
        await settle(client)
        for path in (GROUP, f"loopback/{NAA}", "loopback"):
            with pytest.raises(TreeError) as error:
                await site.remove(path)
            assert site.refused(error) == "ENOTEMPTY"
        await site.unlink(f"{GROUP}/lun/lun_0/link")
        for path in (f"{GROUP}/lun/lun_0", GROUP, f"loopback/{NAA}", "loopback"):
            await site.remove(path)
        assert client.initiator.nexus is None
        assert not site.runtime.targets
        assert not site.runtime.fabrics
        await site.make("loopback")
