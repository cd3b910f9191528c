"""An attribute shows what is in force: to write it back, as a restart from a file does, changes nothing for initiators."""

from __future__ import annotations

import pytest
from support.lio_tree import Site, serving
from tcm_loopback.initiator import LoopbackInitiator

from tcm.configfs.node import Attribute, Group

INQUIRY = (0x12, 0x00, 0x00, 0x04, 0x00, 0x00)
COMMANDS = {
    "standard": bytes(INQUIRY),
    **{f"page {page:02X}": bytes((0x12, 0x01, page, *INQUIRY[3:])) for page in (0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2)},
    "MODE SENSE": bytes((0x5A, 0, 0x3F, 0xFF, 0, 0, 0, 4, 0, 0)),
    "READ CAPACITY": bytes((0x9E, 0x10, *[0] * 8, 0, 0, 0, 32, 0, 0)),
    "REPORT TARGET PORT GROUPS": bytes((0xA3, 0x0A, *[0] * 4, 0, 0, 4, 0, 0, 0)),
    "REPORT SUPPORTED OPERATION CODES": bytes((0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0)),
}
GROUPS = ("attrib", "wwn", "alua/default_tg_pt_gp")
SHOWN_AS_TEXT = {"alua_access_type": "3", "alua_access_status": "0", "vpd_unit_serial": None}


async def seen(initiator: LoopbackInitiator) -> dict[str, bytes]:
    found = {}
    for name, cdb in COMMANDS.items():
        for _ in range(20):
            result = await initiator.execute(0, cdb, read_length=1024)
            if result.status == 0:
                break
        assert result.status == 0, name
        found[name] = bytes(result.data_in)
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("plugin", ["fileio", "rd_mcp"])
async def test_what_is_shown_is_written_back(tmp_path, plugin):
    control = {"fileio": f"fd_dev_name={tmp_path}/a.img,fd_dev_size=4194304", "rd_mcp": "rd_pages=1024"}[plugin]
    async with serving(tmp_path) as site:
        device = f"core/{plugin}_0/d"
        await site.make_all(device)
        await site.write(f"{device}/control", control)
        await site.write(f"{device}/enable", "1")
        await site.loopback(device)
        initiator = site.connect()
        before = await seen(initiator)
        initiator.disconnect()
        await site.unlink("loopback/naa.5001405000000001/tpgt_1/lun/lun_0/link")
        count = await written_back(site, device)
        await site.link("loopback/naa.5001405000000001/tpgt_1/lun/lun_0/link", device)
        initiator = site.connect()
        assert await seen(initiator) == before
        assert count > 50


async def written_back(site: Site, device: str) -> int:
    count = 0
    for name in GROUPS:
        group = site.tree.find(f"{device}/{name}")
        assert isinstance(group, Group)
        for node in group.children().values():
            if isinstance(node, Attribute) and node.readable and node.writable and node.name != "tg_pt_gp_id":
                value = SHOWN_AS_TEXT.get(node.name, site.read(node.path))
                if value is not None:
                    await site.write(node.path, value)
                    count += 1
    return count
