"""Pacemaker's iSCSITarget and iSCSILogicalUnit (lio-t) of Debian's resource-agents, unmodified, against a running tcm-run."""

from __future__ import annotations

import shutil
import struct
import subprocess
import xml.etree.ElementTree as ET
from contextlib import ExitStack

import pytest
from support.controlled import Load, controlled
from support.daemon import Url
from support.namespaced import needs_namespace
from support.pacemaker import AGENTS, CONFIGURED, NOT_RUNNING, Resource, logical_unit, target
from support.programs import free_port, unavailable
from support.raw_iscsi import INITIATOR, LoginFailed, connect

pytestmark = pytest.mark.interop
needs_namespace()

IQN = "iqn.2003-01.org.linux-iscsi.test:cluster"
SECRET = "sixteen-byte-key"
SIZE = 8 << 20


@pytest.fixture(autouse=True)
def agents():
    if not (AGENTS / "iSCSITarget").exists():
        unavailable("not installed: apt-get install resource-agents")


@pytest.fixture
def ctl(tmp_path):
    with controlled(tmp_path, "--lun", "ramdisk:size=4M") as made:
        yield made


def image(folder, name="shared.img"):
    path = folder / name
    with path.open("wb") as file:
        file.truncate(SIZE)
    return str(path)


def url(port, lun=0, iqn=IQN):
    return Url("", "127.0.0.1", port, iqn, lun)


def serial(initiator, lun):
    page = initiator.command(bytes((0x12, 1, 0x80, 0, 255, 0)), lun, read=255).data
    return page[4 : 4 + page[3]].decode().strip()


def until_it_ends(initiator):
    while True:
        initiator.ping()


def luns(initiator):
    data = initiator.command(struct.pack(">B5xIxx", 0xA0, 256), read=256).data
    return [data[at + 1] for at in range(8, 8 + int.from_bytes(data[:4], "big"), 8)]


@pytest.mark.parametrize("agent", ["iSCSITarget", "iSCSILogicalUnit"])
def test_they_tell_what_they_are(ctl, agent):
    resource = Resource(ctl, agent, "any")
    resource.does("meta-data")
    document = resource.said[resource.said.index("<?xml") : resource.said.rindex("ended:")]
    assert ET.fromstring(document).get("name") == agent
    resource.does("usage")


def test_what_they_find_wrong_themselves(ctl):
    unit = Resource(ctl, "iSCSILogicalUnit", "any", {"target_iqn": IQN})
    assert unit.codes("validate-all") == [CONFIGURED]
    assert "Missing resource parameter" in unit.said
    target(ctl, IQN, "127.0.0.1:3260").does("validate-all")


def test_started_and_stopped_again_and_again_under_load(ctl, tmp_path):
    before = ctl.export(tmp_path)
    port = free_port()
    group = target(ctl, IQN, f"127.0.0.1:{port}")
    units = [logical_unit(ctl, IQN, lun, image(tmp_path, f"{lun}.img"), scsi_sn=f"0000000{lun}") for lun in (0, 7)]
    with Load(ctl.daemon.url) as load:
        for _ in range(2):
            assert group.codes("monitor", "stop", "start", "start", "monitor") == [NOT_RUNNING, 0, 0, 0, 0], group.said
            for unit in units:
                assert unit.codes("monitor", "start", "start", "monitor") == [NOT_RUNNING, 0, 0, 0], unit.said
            with connect(url(port)) as initiator:
                assert luns(initiator) == [0, 7]
                for lun in (0, 7):
                    initiator.ready(lun)
                    assert initiator.capacity(lun) == (SIZE // 512, 512)
                    # not the beginning: what targetcli deletes is not written to
                    assert initiator.write(lun, bytes([lun + 1]) * 512, lun).status == 0
                    assert serial(initiator, lun) == f"0000000{lun}"
                # the one in use goes first, as a cluster that moves it would do
                assert units[0].codes("stop", "stop", "monitor") == [0, 0, NOT_RUNNING], units[0].said
                assert initiator.command(bytes(6), 0).sense_key in {5, 6}
                initiator.ready(7)
                assert initiator.read(7, 1, 7).data == bytes([8]) * 512
            assert units[1].codes("monitor", "stop") == [0, 0]
            count = load.count
            assert group.codes("stop", "stop", "monitor") == [0, 0, NOT_RUNNING], group.said
            with pytest.raises(ConnectionError):
                connect(url(port))
        assert load.count > count
    assert ctl.export(tmp_path) == before


def test_only_the_allowed_initiators_with_their_secret(ctl, tmp_path):
    port = free_port()
    allowed = f"{INITIATOR} iqn.2025-01.test.raw:other"
    chap = {"incoming_username": "alice", "incoming_password": SECRET, "allowed_initiators": allowed}
    group = target(ctl, IQN, f"127.0.0.1:{port}", additional_parameters="MaxBurstLength=131072 Nonsense=1", **chap)
    unit = logical_unit(ctl, IQN, 3, image(tmp_path), allowed_initiators=allowed)
    group.does("start")
    unit.does("start")
    for name in allowed.split():
        with connect(url(port, 3), name=name, chap=("alice", SECRET), MaxBurstLength="262144") as initiator:
            assert luns(initiator) == [3]
            assert initiator.write(0, b"x" * 512, 3).status == 0
            assert initiator.keys["MaxBurstLength"] == "131072"
    for name, user in ((INITIATOR, ("alice", "another-secret-0")), (INITIATOR, None), (f"{INITIATOR}-2", ("alice", SECRET))):
        with pytest.raises(LoginFailed):
            connect(url(port, 3), name=name, chap=user)
    # the node ACLs go with the last LUN that is mapped in them
    unit.does("stop")
    (made,) = [each for each in ctl.export(tmp_path)["targets"] if each["wwn"] == IQN]
    assert made["tpgs"][0]["node_acls"] == []
    group.does("stop")
    assert SECRET not in ctl.daemon.log()
    assert SECRET not in ctl.run("log")


def test_everybody_who_knows_the_secret(ctl, tmp_path):
    port = free_port()
    group = target(ctl, IQN, f"127.0.0.1:{port}", incoming_username="alice", incoming_password=SECRET)
    unit = logical_unit(ctl, IQN, 0, image(tmp_path))
    group.does("start")
    unit.does("start")
    with connect(url(port), chap=("alice", SECRET)) as initiator:
        assert initiator.write(0, b"x" * 512).status == 0
    with pytest.raises(LoginFailed):
        connect(url(port))
    unit.does("stop")
    group.does("stop")


def test_several_portals(ctl, tmp_path):
    ports = [free_port(), free_port()]
    group = target(ctl, IQN, " ".join(f"127.0.0.1:{port}" for port in ports))
    unit = logical_unit(ctl, IQN, 0, image(tmp_path))
    group.does("start")
    unit.does("start")
    for port in ports:
        connect(url(port)).close()
    group.does("stop")
    # the target has taken its LUN along: the unit is what the agent calls an error, or not running, and stops in both cases
    unit.does("stop")
    assert IQN not in ctl.run("ls")


def test_a_block_device_and_what_it_is_told(ctl, tmp_path):
    made = (
        subprocess.run(["losetup", "--find", "--show", image(tmp_path)], check=False, capture_output=True, text=True)
        if shutil.which("losetup")
        else None
    )
    if made is None or made.returncode:
        pytest.skip("no loop devices here")
    device = made.stdout.strip()
    port = free_port()
    try:
        group = target(ctl, IQN, f"127.0.0.1:{port}")
        more = {"scsi_sn": "abcdef01", "product_id": "CLUSTERDISK", "emulate_tpu": "1", "emulate_3pc": "0", "emulate_caw": "0"}
        unit = logical_unit(ctl, IQN, 2, device, liot_bstype="block", **more)
        group.does("start")
        unit.does("start", "monitor")
        (hba,) = [name for name in ctl.json("ls", "core")["children"] if name.startswith("iblock_")]
        shown = ctl.json("get", f"core/{hba}/unit2/attrib", "emulate_tpu", "emulate_3pc", "emulate_caw")
        assert shown == {"emulate_tpu": "1", "emulate_3pc": "0", "emulate_caw": "0"}
        with connect(url(port, 2)) as initiator:
            assert serial(initiator, 2) == "abcdef01"
            assert initiator.command(bytes((0x12, 0, 0, 0, 96, 0)), 2, read=96).data[16:32] == b"CLUSTERDISK     "
            assert initiator.write(9, b"block" + bytes(507), 2).status == 0
            assert initiator.synchronize_cache(2).status == 0
        unit.does("stop")
        group.does("stop")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    with (tmp_path / "shared.img").open("rb") as file:
        file.seek(9 * 512)
        assert file.read(5) == b"block"


def test_failover(tmp_path):
    """Target and unit, in the cluster's order, from node to node: what was written is there, under one serial."""
    shared = image(tmp_path)
    port = free_port()
    with ExitStack() as stack:
        nodes = [stack.enter_context(controlled(tmp_path / name, "--lun", "ramdisk:size=4M")) for name in ("a", "b")]
        serials = []
        for number, node in enumerate(nodes):
            group = target(node, IQN, f"127.0.0.1:{port}")
            unit = logical_unit(node, IQN, 0, shared)
            for resource in (group, unit):
                assert resource.codes("monitor", "start", "monitor") == [NOT_RUNNING, 0, 0], resource.said
            with connect(url(port)) as initiator:
                serials.append(serial(initiator, 0))
                if number:
                    assert initiator.read(8 * (number - 1), 8).data == bytes([number]) * 4096
                assert initiator.write(8 * number, bytes([number + 1]) * 4096).status == 0
                # no synchronize: what a node is told to stop serving it has written back
                for resource in (unit, group):
                    assert resource.codes("stop", "monitor") == [0, NOT_RUNNING], resource.said
                with pytest.raises(ConnectionError):
                    until_it_ends(initiator)
        assert len(set(serials)) == 1
        assert serials[0]


def test_what_cannot_be_started_is_a_failure_and_leaves_nothing(ctl, tmp_path):
    before = ctl.export(tmp_path)
    group = target(ctl, IQN, f"127.0.0.1:{free_port()}")
    unit = logical_unit(ctl, IQN, 0, str(tmp_path / "missing.img"))
    group.does("start")
    assert unit.codes("start", "monitor", "stop") == [1, NOT_RUNNING, 0]
    wrong = target(ctl, f"{IQN}2", "192.0.2.7:3260")
    assert wrong.codes("start", "stop") == [1, 0]
    group.does("stop")
    left = ctl.export(tmp_path)
    assert [each for each in left["targets"] if each["wwn"] != f"{IQN}2"] == before["targets"]
