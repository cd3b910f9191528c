"""``core/``: storage objects made, configured, used and removed while others are served."""

from __future__ import annotations

import os

import pytest
from support.lio_tree import NAA, SERIAL, serving
from tcm_loopback.commands import ApplicationClient

from tcm.configfs.node import TreeError
from tcm.failure import ConfigError
from tcm.scsi.sense import Status
from tcm.target.unit_attention import CAPACITY_DATA_HAS_CHANGED, INQUIRY_DATA_HAS_CHANGED, MODE_PARAMETERS_CHANGED

pytestmark = pytest.mark.anyio
DISK = "core/fileio_0/disk"


async def client_of(site, device, lun=0):
    """An initiator whose first unit attentions are out of the way."""
    await site.loopback(device, lun)
    client = ApplicationClient(site.connect(), lun)
    for _ in range(3):
        await client.request_sense()
    return client


async def disk(site, directory, **control):
    """A file of 1 MiB."""
    values = {"fd_dev_name": directory / "disk.img", "fd_dev_size": 1 << 20, "fd_buffered_io": 1, **control}
    await site.make_all(DISK)
    for key, value in values.items():
        await site.write(f"{DISK}/control", f"{key}={value}\n")
    await site.write(f"{DISK}/enable", "1\n")


async def test_two_phases(tmp_path):
    """A directory is nothing until it is enabled; then it is a disk with a serial of its own, and cannot be told more."""
    async with serving(tmp_path, "loopback") as site:
        await site.make_all(DISK)
        assert site.read(f"{DISK}/enable") == "0\n"
        assert site.read(f"{DISK}/info").startswith("Status: DEACTIVATED")
        assert not site.runtime.logical_units
        with pytest.raises(TreeError, match="path: missing") as error:
            await site.write(f"{DISK}/enable", "1")
        assert site.refused(error) == "EINVAL"
        await disk(site, tmp_path)
        assert site.read(f"{DISK}/enable") == "1\n"
        assert (tmp_path / "disk.img").stat().st_size == 1 << 20
        (unit,) = site.runtime.logical_units.values()
        assert len(unit.serial) == 36
        assert site.read(f"{DISK}/wwn/vpd_unit_serial") == f"T10 VPD Unit Serial Number: {unit.serial}\n"
        for write in ((f"{DISK}/control", "fd_dev_size=2"), (f"{DISK}/enable", "0"), (f"{DISK}/enable", "1")):
            with pytest.raises(TreeError):
                await site.write(*write)
        client = await client_of(site, DISK)
        await client.write(10, 0, bytes(512))
        assert site.read(f"{DISK}/info").startswith("Status: ACTIVATED")


async def test_control_takes_all_or_nothing(tmp_path):
    async with serving(tmp_path) as site:
        await site.make_all(DISK)
        await site.write(f"{DISK}/control", f"fd_dev_name={tmp_path}/a,fd_dev_size=4096")
        refused = {
            "fd_dev_size=8192,nonsense=1": "'nonsense' is unknown",
            "fd_dev_size": "is not key=value",
            "fd_buffered_io=maybe": "fd_buffered_io=maybe: 'maybe' is neither yes nor no; write yes or no, 1 or 0",
            "fd_dev_size=1G": "fd_dev_size=1G: write a whole number",
            "=1": "'' is unknown",
        }
        for text, why in refused.items():
            with pytest.raises(TreeError, match=why) as error:
                await site.write(f"{DISK}/control", text)
            assert site.refused(error) == "EINVAL"
        await site.write(f"{DISK}/enable", "1")
        assert (tmp_path / "a").stat().st_size == 4096


async def test_a_backstore_that_cannot_be_opened_leaves_nothing(tmp_path):
    async with serving(tmp_path) as site:
        await site.make_all(DISK)
        await site.write(f"{DISK}/control", f"fd_dev_name={tmp_path}/none/at/all,fd_dev_size=4096")
        with pytest.raises(TreeError):
            await site.write(f"{DISK}/enable", "1")
        assert site.read(f"{DISK}/enable") == "0\n"
        assert not site.runtime.logical_units
        await site.write(f"{DISK}/control", f"fd_dev_name={tmp_path}/there")
        await site.write(f"{DISK}/enable", "1")


async def test_what_is_in_use_stays(tmp_path):
    async with serving(tmp_path, "loopback") as site:
        await disk(site, tmp_path)
        client = await client_of(site, DISK)
        for refuse, name in ((DISK, "EBUSY"), ("core/fileio_0", "ENOTEMPTY"), ("core", "EPERM"), (f"{DISK}/attrib", "EPERM")):
            with pytest.raises(TreeError) as error:
                await site.remove(refuse)
            assert site.refused(error) == name
        await client.read(10, 0, 1)
        group = "loopback/naa.5001405000000001/tpgt_1"
        await site.unlink(f"{group}/lun/lun_0/link")
        await site.remove(DISK)
        await site.remove("core/fileio_0")
        assert not site.runtime.logical_units
        assert not site.runtime.storage_objects


async def test_the_serial_is_the_identity(tmp_path):
    """It changes until the device is exported; no two devices have one; the data stays."""
    async with serving(tmp_path, "loopback") as site:
        one, two = await site.ramdisk("one"), await site.ramdisk("two")
        await site.loopback(one)
        client = ApplicationClient(site.connect())
        await client.request_sense()
        await client.write(10, 5, b"a" * 512)
        client.initiator.disconnect()
        await site.unlink("loopback/naa.5001405000000001/tpgt_1/lun/lun_0/link")
        await site.write(f"{one}/wwn/vpd_unit_serial", f"{SERIAL}\n")
        with pytest.raises(TreeError, match="already") as error:
            await site.write(f"{two}/wwn/vpd_unit_serial", SERIAL)
        assert site.refused(error) == "EINVAL"
        await site.link("loopback/naa.5001405000000001/tpgt_1/lun/lun_0/link", one)
        client = ApplicationClient(site.connect())
        await client.request_sense()
        assert bytes((await client.read(10, 5, 1)).data_in) == b"a" * 512
        page = await client.inquiry(0x80)
        assert SERIAL.encode() in bytes(page)
        with pytest.raises(TreeError, match="exported") as error:
            await site.write(f"{one}/wwn/vpd_unit_serial", "other")
        assert site.refused(error) == "EINVAL"
        # Pacemaker's agents write eight hexadecimal digits
        await site.write(f"{two}/wwn/vpd_unit_serial", "4a5b6c7d")
        assert site.read(f"{two}/wwn/vpd_unit_serial").endswith(" 4a5b6c7d\n")


async def test_attributes_are_in_force(tmp_path):
    """One that the initiator sees at once, with its unit attention; one it obeys; those that are refused while exported."""
    async with serving(tmp_path, "loopback") as site:
        await disk(site, tmp_path)
        client = await client_of(site, DISK)
        await site.write(f"{DISK}/attrib/emulate_3pc", "0")
        await client.test_unit_ready(expect=INQUIRY_DATA_HAS_CHANGED)
        assert not (await client.inquiry())[5] & 0x08
        await site.write(f"{DISK}/attrib/emulate_write_cache", "0")
        await client.test_unit_ready(expect=MODE_PARAMETERS_CHANGED)
        assert site.read(f"{DISK}/attrib/emulate_write_cache") == "0\n"
        await site.write(f"{DISK}/attrib/max_unmap_lba_count", "64")
        await client.request_sense()
        assert int.from_bytes((await client.inquiry(0xB0))[20:24], "big") == 64
        for name in ("block_size", "emulate_tas", "queue_depth", "unmap_zeroes_data", "emulate_model_alias"):
            with pytest.raises(TreeError, match="exported") as error:
                await site.write(f"{DISK}/attrib/{name}", "1" if name != "block_size" else "4096")
            assert site.refused(error) == "EINVAL"


async def test_limits_are_in_force_and_kept(tmp_path):
    """They are what was written, also while UNMAP is switched off; VPD pages and checks follow them (SBC-4 6.6.4, 5.32)."""
    limits = {"max_unmap_block_desc_count": "3", "max_unmap_lba_count": "64", "unmap_granularity": "16"}
    limits |= {"unmap_granularity_alignment": "8", "max_write_same_len": "100"}
    async with serving(tmp_path, "loopback") as site:
        await disk(site, tmp_path)
        await site.write(f"{DISK}/attrib/emulate_tpu", "0")
        for name, value in limits.items():
            await site.write(f"{DISK}/attrib/{name}", value)
        client = await client_of(site, DISK)

        async def shown() -> list[int]:
            await client.request_sense()
            page = await client.inquiry(0xB0)
            places = ((20, 24), (24, 28), (28, 32), (32, 36), (36, 44))
            return [int.from_bytes(page[begin:end], "big") for begin, end in places]

        assert await shown() == [0, 0, 0, 1 << 31, 100]
        assert {name: site.read(f"{DISK}/attrib/{name}").strip() for name in limits} == limits
        await site.write(f"{DISK}/attrib/emulate_tpu", "1")
        assert await shown() == [64, 3, 16, 1 << 31 | 8, 100]
        assert {name: site.read(f"{DISK}/attrib/{name}").strip() for name in limits} == limits
        # as in LIO: no UNMAP without a limit, and none is offered then
        await site.write(f"{DISK}/attrib/max_unmap_lba_count", "0")
        assert site.read(f"{DISK}/attrib/emulate_tpu") == "0\n"
        with pytest.raises(TreeError, match="max_unmap_lba_count and max_unmap_block_desc_count first"):
            await site.write(f"{DISK}/attrib/emulate_tpu", "1")
        assert (await client.inquiry(0xB2))[5] & 0x80 == 0
        await site.write(f"{DISK}/attrib/max_unmap_lba_count", "4294967295")
        assert (await shown())[0] == 0xFFFFFFFF
        assert (await client.inquiry(0xB2))[5] & 0x80
        await site.write(f"{DISK}/attrib/max_write_same_len", "0")
        assert site.read(f"{DISK}/attrib/max_write_same_len") == "0\n"
        assert (await shown())[4] == 65535


async def test_block_size_before_it_is_exported(tmp_path):
    async with serving(tmp_path, "loopback") as site:
        await disk(site, tmp_path)
        await site.write(f"{DISK}/attrib/block_size", "4096")
        assert site.read(f"{DISK}/attrib/block_size") == "4096\n"
        client = await client_of(site, DISK)
        await client.identify()
        assert (client.block_size, client.blocks) == (4096, 256)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("block_size", "513"),
        ("block_size", "big"),
        ("queue_depth", "0"),
        ("queue_depth", "-1"),
        ("queue_depth", "65536"),
        ("emulate_ua_intlck_ctrl", "3"),
        ("emulate_tas", "maybe"),
        ("pi_prot_type", "4"),
        ("max_unmap_lba_count", str(1 << 32)),
        ("emulate_rest_reord", "1"),
        ("pgr_support", "0"),
        ("submit_type", "2"),
        ("optimal_sectors", str(1 << 20)),
    ],
)
async def test_attributes_that_cannot_be(tmp_path, name, text):
    async with serving(tmp_path) as site:
        await disk(site, tmp_path)
        before = site.read(f"{DISK}/attrib/{name}")
        with pytest.raises(TreeError) as error:
            await site.write(f"{DISK}/attrib/{name}", text)
        assert site.refused(error) == "EINVAL"
        assert site.read(f"{DISK}/attrib/{name}") == before


@pytest.mark.parametrize("name", ["hw_block_size", "hw_max_sectors", "hw_queue_depth", "hw_pi_prot_type", "atomic_max_len"])
async def test_attributes_that_can_only_be_read(tmp_path, name):
    async with serving(tmp_path) as site:
        await disk(site, tmp_path)
        with pytest.raises(TreeError) as error:
            await site.write(f"{DISK}/attrib/{name}", "1")
        assert site.refused(error) == "EACCES"


async def test_every_boolean_takes_what_the_kernel_takes(tmp_path):
    """``kstrtobool``; what it refuses is told with what to write instead."""
    async with serving(tmp_path) as site:
        await disk(site, tmp_path)
        for name in ("emulate_model_alias", "emulate_tas", "emulate_dpo", "is_nonrot"):
            for text in ("0", "1", "n", "y", "off", "on", "N", "Y"):
                await site.write(f"{DISK}/attrib/{name}", text)
                assert (
                    name == "emulate_dpo" or site.read(f"{DISK}/attrib/{name}") == f"{int(text.lower() in {'1', 'y', 'on'})}\n"
                )
            with pytest.raises(TreeError, match="'2' is neither yes nor no; write yes or no, 1 or 0"):
                await site.write(f"{DISK}/attrib/{name}", "2")


async def test_queue_depth_is_not_more_than_hw_queue_depth(tmp_path):
    async with serving(tmp_path) as site:
        await disk(site, tmp_path)
        most = site.read(f"{DISK}/attrib/hw_queue_depth").strip()
        await site.write(f"{DISK}/attrib/queue_depth", "8")
        assert site.read(f"{DISK}/attrib/hw_queue_depth").strip() == most, "a limit is not what was set"
        await site.write(f"{DISK}/attrib/queue_depth", most)
        with pytest.raises(TreeError, match=f"1 to {most}"):
            await site.write(f"{DISK}/attrib/queue_depth", f"{int(most) + 1}")


async def test_identity(tmp_path):
    async with serving(tmp_path, "loopback") as site:
        await disk(site, tmp_path)
        for name, text in (("vendor_id", "ACME"), ("product_id", "ROCKET"), ("revision", "9"), ("company_id", "0x00abcd")):
            await site.write(f"{DISK}/wwn/{name}", f"{text}\n")
            assert site.read(f"{DISK}/wwn/{name}") == f"{text}\n"
        for name, text in (("vendor_id", "TOOLONGNAME"), ("product_id", "x" * 17), ("revision", "12345"), ("company_id", "1g")):
            with pytest.raises(TreeError):
                await site.write(f"{DISK}/wwn/{name}", text)
        await site.loopback(DISK)
        for name in ("vendor_id", "product_id", "revision", "company_id"):
            with pytest.raises(TreeError, match=f"{name} cannot be changed while the device is exported"):
                await site.write(f"{DISK}/wwn/{name}", "1")
        await site.unlink(f"loopback/{NAA}/tpgt_1/lun/lun_0/link")
        await site.write(f"{DISK}/wwn/pd_text_id_info", "cellar\n")
        assert site.read(f"{DISK}/wwn/pd_text_id_info") == "cellar\n"
        client = await client_of(site, DISK)
        data = bytes(await client.inquiry())
        assert data[8:36] == b"ACME    ROCKET          9   "
        assert bytes.fromhex("600abc") in bytes(await client.inquiry(0x83))


async def test_a_resize_is_told(tmp_path):
    async with serving(tmp_path, "loopback") as site:
        await disk(site, tmp_path)
        client = await client_of(site, DISK)
        os.truncate(tmp_path / "disk.img", 2 << 20)
        (unit,) = site.runtime.logical_units.values()
        assert unit.check_size()
        await client.test_unit_ready(expect=CAPACITY_DATA_HAS_CHANGED)
        await client.identify()
        assert client.blocks == 4096


async def test_filters_and_own_backstores(tmp_path):
    """A backstore that LIO has no plugin for is one of its own name, and filters are chosen before it is enabled."""
    async with serving(tmp_path, "loopback") as site:
        await site.make_all("core/null_3/zero")
        await site.write("core/null_3/zero/control", "size=1M")
        await site.write("core/null_3/zero/tcm_filters", "log\nreadonly\n")
        await site.write("core/null_3/zero/enable", "1")
        assert site.read("core/null_3/zero/tcm_filters") == "log\nreadonly\n"
        assert "size=1048576" in site.read("core/null_3/zero/info")
        with pytest.raises(TreeError):
            await site.write("core/null_3/zero/tcm_filters", "log")
        client = await client_of(site, "core/null_3/zero")
        result = await client.execute(bytes((0x2A, *bytes(7), 1, 0)), bytes(512), expect=None)
        assert result.status is Status.CHECK_CONDITION
        for name in ("core/user_0", "core/pscsi_0", "core/nothing", "core/fileio_", "core/Fileio_0"):
            with pytest.raises(TreeError) as error:
                await site.make(name)
            assert site.refused(error) == "EINVAL"


async def test_reservations_are_shown_and_restored(tmp_path):
    async with serving(tmp_path, "loopback") as site:
        device = await site.ramdisk()
        saved = (
            "initiator_fabric=loopback,initiator_node=naa.5001405000000099,sa_res_key=4660,res_holder=1,res_type=01,"
            "res_scope=00,res_all_tg_pt=0,mapped_lun=0,target_fabric=loopback,target_node=naa.5001405000000001,tpgt=1,"
            "port_rtpi=1,target_lun=0"
        )
        await site.write(f"{device}/pr/res_aptpl_metadata", saved)
        await site.write(f"{device}/pr/res_aptpl_metadata", saved)  # once more changes nothing
        assert site.read(f"{device}/pr/res_aptpl_active") == "APTPL Bit Status: Activated\n"
        assert site.read(f"{device}/pr/res_holder") == "SPC-3 Reservation: loopback Initiator: naa.5001405000000099\n"
        assert site.read(f"{device}/pr/res_pr_type") == "SPC-3 Reservation Type: Write Exclusive Access\n"
        assert site.read(f"{device}/pr/res_pr_registered_i_pts") == (
            "SPC-3 PR Registrations:\nloopback Node: naa.5001405000000099 Key: 0x0000000000001234 PRgen: 0x00000000\n"
        )
        for text in ("initiator_node=a", "sa_res_key=1,target_node=x", "nonsense", saved.replace("res_type=01", "res_type=44")):
            with pytest.raises(TreeError) as error:
                await site.write(f"{device}/pr/res_aptpl_metadata", text)
            assert site.refused(error) == "EINVAL"
        client = await client_of(site, device)
        await client.write(10, 0, bytes(512))  # it is the holder
        with pytest.raises(TreeError):
            await site.write(f"{device}/attrib/enforce_pr_isids", "0")
        with pytest.raises(TreeError, match="exported"):
            await site.write(f"{device}/pr/res_aptpl_metadata", saved)


async def test_dbroot(tmp_path):
    async with serving(tmp_path) as site:
        assert site.read("dbroot") == f"{tmp_path}/state\n"
        with pytest.raises(TreeError):
            await site.write("dbroot", str(tmp_path / "none"))
        (tmp_path / "other").mkdir()
        await site.write("dbroot", f"{tmp_path}/other\n")
        await site.ramdisk()
        with pytest.raises(TreeError) as error:
            await site.write("dbroot", f"{tmp_path}/state")
        assert site.refused(error) == "EINVAL"
        assert os.listdir(tmp_path / "other")


async def test_a_change_that_fails_leaves_the_device_as_it_was(tmp_path):
    """Blocks larger than the disk; a serial that another process serves. The device goes on, and can be changed later."""
    async with serving(tmp_path, "loopback") as site:
        await disk(site, tmp_path, fd_dev_size=1024)
        await site.make_all(f"{DISK}/alua/near")
        await site.write(f"{DISK}/alua/near/tg_pt_gp_id", "4")
        before = site.entries()
        with pytest.raises(TreeError, match="smaller than one block") as error:
            await site.write(f"{DISK}/attrib/block_size", "4096")
        assert site.refused(error) == "EINVAL"
        store = site.runtime.store
        assert store is not None
        claimed = store.claim("feedfeed")
        with pytest.raises(TreeError, match="serves a unit of serial feedfeed") as error:
            await site.write(f"{DISK}/wwn/vpd_unit_serial", "feedfeed")
        assert site.refused(error) == "EINVAL"
        assert site.entries() == before
        client = await client_of(site, DISK)
        await client.write(10, 1, b"b" * 512)
        client.initiator.disconnect()
        os.close(claimed)
        await site.unlink("loopback/naa.5001405000000001/tpgt_1/lun/lun_0/link")
        await site.write(f"{DISK}/wwn/vpd_unit_serial", "feedfeed")
        assert (tmp_path / "disk.img").read_bytes()[512:] == b"b" * 512
        with pytest.raises(ConfigError):
            site.runtime.claim("/backstores/other", "feedfeed")


async def test_a_flush_that_fails_is_told(tmp_path):
    """What was written last may be lost, says the errno; the device is gone all the same, and its directory can be removed."""
    async with serving(tmp_path, "loopback") as site:
        await site.make_all(DISK)
        await site.write(f"{DISK}/control", f"fd_dev_name={tmp_path}/disk.img,fd_dev_size=65536,fd_buffered_io=1")
        await site.write(f"{DISK}/tcm_filters", "error:operation=flush")
        await site.write(f"{DISK}/enable", "1")
        with pytest.raises(TreeError) as error:
            await site.remove(DISK)
        assert site.refused(error) == "EIO"
        assert not site.runtime.logical_units
        assert site.read(f"{DISK}/enable") == "0\n"
        await site.remove(DISK)


async def test_a_change_for_which_it_cannot_be_flushed(tmp_path):
    """It is refused, and the device goes on under its old serial; the next try is another one."""
    async with serving(tmp_path, "loopback") as site:
        await site.make_all(DISK)
        await site.write(f"{DISK}/control", f"fd_dev_name={tmp_path}/disk.img,fd_dev_size=65536,fd_buffered_io=1")
        await site.write(f"{DISK}/tcm_filters", "error:operation=flush,count=1")
        await site.write(f"{DISK}/wwn/vpd_unit_serial", "feed")
        await site.write(f"{DISK}/enable", "1")
        with pytest.raises(TreeError) as error:
            await site.write(f"{DISK}/wwn/vpd_unit_serial", "beef")
        assert site.refused(error) == "EIO"
        assert site.read(f"{DISK}/wwn/vpd_unit_serial").endswith(" feed\n")
        client = await client_of(site, DISK)
        await client.write(10, 1, b"b" * 512)
        client.initiator.disconnect()
        await site.unlink("loopback/naa.5001405000000001/tpgt_1/lun/lun_0/link")
        await site.write(f"{DISK}/wwn/vpd_unit_serial", "beef")
        assert site.read(f"{DISK}/wwn/vpd_unit_serial").endswith(" beef\n")
