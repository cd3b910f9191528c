"""Asymmetric access in saveconfig.json: LIO's ``alua_tpgs`` and ``alua_tg_pt_gp_name``, and what rtslib leaves out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.documents import ROOT
from support.ports import report_groups, set_groups
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.fabric import LoopbackFabric

from tcm.configuration import Configuration, LogicalUnitGroupConfig
from tcm.failure import ConfigError
from tcm.plugins import PluginManager
from tcm.runtime import Runtime
from tcm.saveconfig import load
from tcm.scsi.asymmetric_access import AccessState
from tcm.scsi.check_condition import LogicalUnitOffline, TargetPortInStandbyState, TargetPortInUnavailableState
from tcm.target.target_port_group import GroupAttributes

PLUGINS = PluginManager()
(EXAMPLE,) = re.findall(r"^```json\n(.*?)^```$", (ROOT / "docs/alua.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
GROUPS = [
    {"name": "near", "tg_pt_gp_id": 1},
    {"name": "far", "tg_pt_gp_id": 2, "alua_access_state": 2, "alua_write_metadata": 1},
]


def value(tpgs: Any = GROUPS, **disk: Any) -> dict[str, Any]:
    """A unit behind two portal groups, each in a target port group of its own."""
    return {
        "storage_objects": [{"name": "disk", "plugin": "ramdisk", "size": 1 << 20, "alua_tpgs": tpgs, **disk}],
        "targets": [
            {
                "fabric": "loopback",
                "wwn": "naa.5001405000000007",
                "tpgs": [
                    {
                        "tag": tag,
                        "luns": [{"index": 0, "storage_object": "/backstores/ramdisk/disk", "alua_tg_pt_gp_name": name}],
                    }
                    for tag, name in ((1, "near"), (2, "far"))
                ],
            }
        ],
    }


def loaded(content: Any, tmp_path: Path) -> Configuration:
    file = tmp_path / "saveconfig.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return load(str(file), PLUGINS)


def test_the_documents_example(tmp_path: Path) -> None:
    made = loaded(EXAMPLE, tmp_path)
    near, far = made.storage_objects[0].target_port_groups
    assert (near.name, near.identifier, near.state, near.attributes.preferred) == (
        "near",
        1,
        AccessState.ACTIVE_OPTIMIZED,
        True,
    )
    assert (far.name, far.identifier, far.state) == ("far", 2, AccessState.ACTIVE_NON_OPTIMIZED)
    assert [group.luns[0].target_port_group for group in made.targets[0].portal_groups] == ["near", "far"]


def test_what_rtslib_leaves_out(tmp_path: Path) -> None:
    content = value(alua_lu_gp="pair", lba_map=["0 0", "0 2047 1:O 2:U"])
    content["alua_lu_gps"] = [{"name": "pair", "lu_gp_id": 3}]
    content["targets"][0]["tpgs"][1]["luns"][0] |= {"alua_tg_pt_offline": 1, "alua_tg_pt_write_md": True}
    made = loaded(content, tmp_path)
    assert made.logical_unit_groups == (LogicalUnitGroupConfig(name="pair", identifier=3),)
    assert made.storage_objects[0].logical_unit_group == "pair"
    assert made.storage_objects[0].lba_map is not None
    lun = made.targets[0].portal_groups[1].luns[0]
    assert (lun.offline, lun.write_metadata) == (True, True)


LUN = "targets[0].tpgs[1].luns[0]"
TPG = "storage_objects[0].alua_tpgs[1]"
BAD: list[tuple[dict[str, Any], str]] = [
    ({"tpgs": {}}, "storage_objects[0].alua_tpgs: {} is not a list [...]"),
    ({"tpgs": GROUPS[:1]}, f"{LUN}.alua_tg_pt_gp_name: 'far' is not in alua_tpgs of /backstores/ramdisk/disk; write one of"),
    ({"tpgs": [GROUPS[0], {"tg_pt_gp_id": 2}]}, f"{TPG}.name: missing"),
    (
        {"tpgs": [GROUPS[0], {"name": "a/b", "tg_pt_gp_id": 2}]},
        f"{TPG}.name: 'a/b': write 1 to 255 printable characters without a slash",
    ),
    ({"tpgs": [GROUPS[0], {"name": "far"}]}, f"{TPG}.tg_pt_gp_id: missing"),
    ({"tpgs": [GROUPS[0], {"name": "far", "tg_pt_gp_id": 0}]}, f"{TPG}.tg_pt_gp_id: 0 is out of range; write 1 to 65535"),
    ({"tpgs": [GROUPS[0], {"name": "far", "tg_pt_gp_id": 65536}]}, f"{TPG}.tg_pt_gp_id: 65536 is out of range"),
    ({"tpgs": [GROUPS[0], {"name": "far", "tg_pt_gp_id": 1}]}, f"{TPG}.tg_pt_gp_id: identifier 1 is already at"),
    ({"tpgs": [GROUPS[0], {"name": "near", "tg_pt_gp_id": 2}]}, f"{TPG}.name: target port group near is already at"),
    ({"tpgs": [GROUPS[0], {"name": "default_tg_pt_gp", "tg_pt_gp_id": 2}]}, f"{TPG}.tg_pt_gp_id: 2 is out of range"),
    ({"tpgs": [GROUPS[0], GROUPS[1] | {"alua_access_stat": 1}]}, "unknown key (did you mean 'alua_access_state'?)"),
    (
        {"tpgs": [GROUPS[0], GROUPS[1] | {"alua_access_state": 13}]},
        f"{TPG}.alua_access_state: 13 is none; write one of 0, 1, 2",
    ),
    ({"tpgs": [GROUPS[0], GROUPS[1] | {"alua_access_state": "0"}]}, 'alua_access_state: "0" is not a whole number'),
    (
        {"tpgs": [GROUPS[0], GROUPS[1] | {"alua_access_status": 3}]},
        f"{TPG}.alua_access_status: 3 is none; write one of 0, 1, 2",
    ),
    ({"tpgs": [GROUPS[0], GROUPS[1] | {"alua_access_state": 4}]}, f"{TPG}.alua_access_state: 4 wants an lba_map"),
    (
        {"tpgs": [GROUPS[0], GROUPS[1] | {"alua_support_standby": 0}]},
        f"{TPG}.alua_access_state: 2 wants alua_support_standby 1; write ",
    ),
    ({"tpgs": [GROUPS[0], GROUPS[1] | {"alua_access_type": 4}]}, f"{TPG}: alua_access_type 4 is out of range; write 0 to 3"),
    (
        {"tpgs": [GROUPS[0], GROUPS[1] | {"nonop_delay_msecs": 10001}]},
        f"{TPG}: nonop_delay_msecs 10001 is out of range; write 0 to 10000",
    ),
    (
        {"tpgs": [GROUPS[0], GROUPS[1] | {"trans_delay_msecs": -1}]},
        f"{TPG}: trans_delay_msecs -1 is out of range; write 0 to 30000",
    ),
    ({"tpgs": [GROUPS[0], GROUPS[1] | {"implicit_trans_secs": "x"}]}, f"{TPG}.implicit_trans_secs: "),
    ({"tpgs": [GROUPS[0], GROUPS[1] | {"preferred": 2}]}, f"{TPG}.preferred: "),
    (
        {"alua_lu_gp": "pair"},
        "storage_objects[0].alua_lu_gp: 'pair' is not in alua_lu_gps; write one of: none, so add it there",
    ),
    ({"lba_map": "0 0"}, 'storage_objects[0].lba_map: "0 0" is not a list'),
    ({"lba_map": [0]}, "storage_objects[0].lba_map: not a list of strings"),
    ({"lba_map": ["0 0", "0 9 1:O 0:A", "10 99 1:A 7:O"]}, "lba_map[2]: no target port group of alua_tpgs has tg_pt_gp_id 7"),
    ({"lba_map": ["0 0", "5 9 1:O"]}, "storage_objects[0].lba_map: line 2: its first LBA is not 0"),
]


@pytest.mark.parametrize(("changed", "what"), BAD, ids=range(len(BAD)))
def test_what_is_wrong_is_one_line(tmp_path: Path, changed: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(value(**changed), tmp_path)
    text = str(caught.value)
    assert what in text
    assert "\n" not in text


def test_a_port_is_in_one_group(tmp_path: Path) -> None:
    content = value()
    luns = content["targets"][0]["tpgs"][0]["luns"]
    luns.append({"index": 1, "storage_object": "/backstores/ramdisk/disk", "alua_tg_pt_gp_name": "far"})
    with pytest.raises(ConfigError, match=r"luns\[1\].alua_tg_pt_gp_name: another LUN of this portal group has .* in near"):
        loaded(content, tmp_path)


@pytest.mark.parametrize(
    ("groups", "what"),
    [
        ([{"name": "pair"}], "alua_lu_gps[0].lu_gp_id: missing"),
        ([{"name": "pair", "lu_gp_id": 0}], "alua_lu_gps[0].lu_gp_id: 0 is out of range"),
        ([{"name": "default_lu_gp", "lu_gp_id": 1}], "alua_lu_gps[0].name: 'default_lu_gp': write another name"),
        ([{"name": "a", "lu_gp_id": 1}, {"name": "b", "lu_gp_id": 1}], "alua_lu_gps[1].lu_gp_id: identifier 1 is already at"),
        ([{"name": "a", "lu_gp_id": 1}, {"name": "a", "lu_gp_id": 2}], "alua_lu_gps[1].name: LU group a is already at"),
    ],
)
def test_lu_groups_that_cannot_be(tmp_path: Path, groups: list[dict[str, Any]], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(value() | {"alua_lu_gps": groups}, tmp_path)
    assert what in str(caught.value)


async def client_of(fabric: LoopbackFabric, tag: int) -> ApplicationClient:
    client = ApplicationClient(fabric.port(tag=tag).connect())
    for _ in range(4):
        await client.request_sense()
    return client


async def serve(configuration: Configuration, use: Any) -> None:
    runtime = Runtime(configuration, PLUGINS, drain_timeout=0.5)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(runtime.serve)
            fabric = runtime.fabrics["loopback"]
            assert isinstance(fabric, LoopbackFabric)
            await use(fabric)
            runtime.stop()


@pytest.mark.anyio
async def test_two_portal_groups_are_served_and_the_state_outlives_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configuration = replace(loaded(value(), tmp_path), state_directory=str(tmp_path / "state"))

    async def fail_over(fabric: LoopbackFabric) -> None:
        near, far = await client_of(fabric, 1), await client_of(fabric, 2)
        await near.read(10, 0, 1)
        await far.read(10, 0, 1, expect=TargetPortInStandbyState)
        await set_groups(near, (1, 3), (2, 0))

    async def see(fabric: LoopbackFabric) -> None:
        near, far = await client_of(fabric, 1), await client_of(fabric, 2)
        await near.read(10, 0, 1)  # nobody asked for this one to be kept
        await far.read(10, 0, 1)
        assert {group: found[:2] for group, found in (await report_groups(far)).items()} == {1: (0, 0), 2: (0, 1)}

    await serve(configuration, fail_over)
    await serve(configuration, see)
    assert "disk: target port group far is ACTIVE_OPTIMIZED, as it was last, not STANDBY as configured: remove " in caplog.text
    (path,) = (tmp_path / "state" / "alua").glob("tpgs_*/far")
    assert path.read_text() == "tg_pt_gp_id=2\nalua_access_state=0x00\nalua_access_status=0x01\n"


@pytest.mark.anyio
async def test_the_default_group_and_lun_attributes_are_served(tmp_path: Path) -> None:
    content = value([{"name": "default_tg_pt_gp", "tg_pt_gp_id": 0, "alua_access_state": 3, "alua_access_type": 1}])
    for group in content["targets"][0]["tpgs"]:
        del group["luns"][0]["alua_tg_pt_gp_name"]
    content["targets"][0]["tpgs"][1]["luns"][0]["alua_tg_pt_offline"] = 1
    configuration = loaded(content, tmp_path)
    assert configuration.storage_objects[0].target_port_groups[0].attributes == GroupAttributes(alua_access_type=1)

    async def use(fabric: LoopbackFabric) -> None:
        one, two = await client_of(fabric, 1), await client_of(fabric, 2)
        await one.read(10, 0, 1, expect=TargetPortInUnavailableState)
        await two.read(10, 0, 1, expect=LogicalUnitOffline)
        assert (await one.inquiry())[5] >> 4 & 3 == 1

    await serve(configuration, use)
