"""The fabric as a whole, over a link of Unix sockets: logins, access, live changes, reservations."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from support.daemon import wait_until
from support.fcoe_daemon import fcoe_running
from support.fcoe_site import INITIATOR, STRANGER, WWPN, fcoe_site
from tcm_fcoe.attributes import FcoeOptions, Mode
from tcm_fcoe.fabric import FcoeFabric, make
from tcm_fcoe.initiator.driver import Target
from tcm_fcoe.initiator.faults import Faults
from tcm_fcoe.initiator.options import Options, Recovery
from tcm_fcoe.initiator.results import LoginFailed, ScsiError
from tcm_fcoe.protocol import fcp_express
from tcm_fcoe.tree import TREE

from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.scsi.transport_id import TransportId
from tcm.target.device import TargetDevice
from tcm.target.draining import NexusesDraining

pytestmark = pytest.mark.anyio

SECOND = "20:00:52:54:00:2f:fc:01"


def transport_id(name: str) -> bytes:
    return TransportId(ProtocolIdentifier.FCP, name.replace(":", "")).pack()


async def read_and_write(target: Target, lun: int = 0) -> None:
    data = bytes(range(256)) * 400
    await target.write(8, data, lun)
    assert bytes(await target.read(8, len(data) // 512, lun)) == data


async def until(condition: object) -> None:
    with anyio.fail_after(60):
        while not condition():  # type: ignore[operator]
            await anyio.sleep(0.01)


async def test_read_and_write(tmp_path: Path) -> None:
    async with fcoe_site(tmp_path, burst="16K") as site, site.initiator() as port:
        target = await port.target()
        assert target.port_name.hex(":") == WWPN
        await read_and_write(target)
        (session,) = site.fabric.sessions()
        assert session.startswith(f"{INITIATOR} (FC_ID 00.97.00) to {WWPN} on unix:")
        (row,) = site.fabric.statistics().sessions()
        assert (row.initiator, row.target, row.addresses) == (INITIATOR, WWPN, ("00.97.00",))
        assert row.rxdata_octets == row.txdata_octets - 512 - 32 or row.rxdata_octets == 102400
        snapshot = site.runtime.statistics.snapshot()
        counts = {each.part: each.counts for each in snapshot.counts["fcoe"]}
        assert counts[WWPN]["fcp_express_writes"] >= 1
        assert counts[site.fabric.interfaces[0].link.name]["crc_errors"] == 0
        assert snapshot.logins["fcoe"][0].accepted == 1


async def test_many_commands_at_once(tmp_path: Path) -> None:
    """More data both ways than the link's queue takes."""
    async with fcoe_site(tmp_path) as site, site.initiator() as port:
        target = await port.target()

        async def one(number: int) -> None:
            data = bytes([number]) * 65536
            await target.write(number * 128, data)
            assert bytes(await target.read(number * 128, 128)) == data

        async with anyio.create_task_group() as tasks:
            for number in range(64):
                tasks.start_soon(one, number)


@pytest.mark.parametrize("first_burst", [False, True])
async def test_faults_do_no_harm(tmp_path: Path, first_burst: bool) -> None:
    """Frames that are lost, doubled, out of order or damaged cost time only (FCP-4 clause 12)."""
    faults = Faults(drop=0.01, duplicate=0.01, reorder=0.01, corrupt=0.01)
    options = Options(recovery=Recovery(rec_timeout=0.1), first_burst=8192 if first_burst else 0)
    async with (
        fcoe_site(tmp_path, first_burst=first_burst) as site,
        site.initiator(faults=faults, chance=random.Random(7), options=options) as port,
    ):
        target = await port.target()
        for number in range(30):
            data = random.Random(number).randbytes(16384)
            await target.write(number * 32, data)
            assert bytes(await target.read(number * 32, 32)) == data


async def test_names_of_the_port(tmp_path: Path) -> None:
    """SPC-5 7.7.6: designators of an FCP port: NAA, relative target port, SCSI name string, of protocol FCP."""
    async with fcoe_site(tmp_path) as site, site.initiator() as port:
        target = await port.target()
        page = await target.inquiry(page=0x83)
        assert bytes.fromhex("01 93 00 08") + bytes.fromhex(WWPN.replace(":", "")) in page
        assert b"naa.20005254002ffc00\0" in page


async def test_a_conflict_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another interface that has the target's port name: one clear line, and who has its own name gets in all the same."""
    caplog.set_level(logging.WARNING)
    async with fcoe_site(tmp_path) as site:
        async with site.initiator(WWPN) as port:
            with pytest.raises(LoginFailed):
                await port.target(timeout=3)
            await until(lambda: f"has port name {WWPN}, which is ours" in caplog.text)
        async with site.initiator() as port:
            await read_and_write(await port.target())


@pytest.mark.parametrize("mode, theirs", [("vn2vn", "vn2vn"), ("fcf", "fabric"), ("fabric", "fabric"), ("p2p", "p2p")])
def test_what_to_run_on_the_initiator(mode: Mode, theirs: str) -> None:
    """Linux's kernel finds no VLAN by itself, so that it needs an interface of the VLAN, whatever the mode."""
    fabric = make((), FcoeOptions(interface=("eth0",), mode=mode))
    plain, tagged = ("\n".join(fabric._hints("eth0", WWPN, 0, vlan)) for vlan in (None, 100))
    create = f"/sys/module/libfcoe/parameters/create{'_vn2vn' if mode == 'vn2vn' else ''}\n"
    assert f"modprobe fcoe; echo eth1 > {create}" in plain
    assert f"type vlan id 100; ip link set eth1.100 up; echo eth1.100 > {create}" in tagged
    assert f"inquire --mode {theirs} fcoe://eth1/{WWPN}/0" in plain
    assert f"inquire --mode {theirs} --vlan 100 fcoe://eth1/{WWPN}/0" in tagged


@pytest.mark.parametrize("mode, vlan", [("vn2vn", None), ("fcf", 100), ("p2p", 7)])
def test_what_is_printed_works(tmp_path: Path, mode: str, vlan: int | None) -> None:
    """The command that the target prints for our own initiator, to the letter."""
    with fcoe_running(
        tmp_path, "--lun", "ramdisk:size=8M", "--wwpn", WWPN, *(("--vlan", str(vlan)) if vlan else ()), mode=mode
    ) as daemon:
        wait_until(lambda: "tcm_fcoe.initiator" in daemon.output[-1], 60, "what to run on the initiator")
        command = daemon.output[-1].partition("python ")[2].split()
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert WWPN in done.stdout


async def test_acl_and_demo_mode(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without demo mode only WWPNs with a node ACL get in, to LUNs that are mapped; a later ACL or demo mode calls others."""
    luns = [{"index": n, "storage_object": "/backstores/ramdisk/r"} for n in (0, 1)]
    acl = {"node_wwn": "naa.2000525400f59700", "mapped_luns": [{"index": 7, "tpg_lun": 1, "write_protect": True}]}
    document = {
        "storage_objects": [{"name": "r", "plugin": "ramdisk", "size": 1 << 20}],
        "targets": [
            {"fabric": "tcm_fc", "wwn": "naa.20005254002ffc00", "tpgs": [{"tag": 1, "luns": luns, "node_acls": [acl]}]}
        ],
    }
    config = tmp_path / "saveconfig.json"
    config.write_text(json.dumps(document))
    caplog.set_level(logging.INFO)
    async with fcoe_site(tmp_path, config=str(config)) as site:
        async with site.initiator() as port:
            target = await port.target()
            assert await target.report_luns() == [b"\0\x07" + bytes(6)]
            with pytest.raises(ScsiError, match="DATA PROTECT"):
                await target.write(0, bytes(512), 7)
        async with site.initiator(STRANGER) as port:
            with pytest.raises(LoginFailed):
                await port.target(timeout=3)
            await until(lambda: f"{STRANGER} has no node ACL, and demo mode is off" in caplog.text)
            live, group = site.runtime.live, site.runtime.targets[0].portal_groups[1]
            group.map_lun(live.add_node_acl(group, STRANGER), 0, 0)
            target = await port.target()
            await read_and_write(target)
            live.remove_node_acl(group, group.node_acls[STRANGER])
            await until(lambda: not target.logged_in)
            await until(lambda: STRANGER in site.fabric.ports[WWPN].refused)
            live.set_attribute(group, replace(group.attributes, generate_node_acls=True, demo_mode_write_protect=False))
            await read_and_write(await port.target())


async def test_who_is_drained_is_logged_out(tmp_path: Path) -> None:
    """FC-LS-2 6.7: LOGO, and PRLI is refused meanwhile; who is still wanted afterwards is told to come again."""
    async with fcoe_site(tmp_path) as site, site.initiator() as port:
        target = await port.target()
        await read_and_write(target)
        group, live = site.runtime.targets[0].portal_groups[1], site.runtime.live
        async with live.drained([NexusesDraining(group, site.fabric.request_logout)], 600):  # more patience than this test has
            assert not group.nexuses
            assert not target.logged_in
            with pytest.raises(LoginFailed):
                await port.target(timeout=1)
        await read_and_write(await port.target(timeout=60))


async def test_logins_all_the_time_do_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of some thousand logins and logouts in a second there are a few hundred lines, and one says how many there were."""
    caplog.set_level(logging.INFO)
    async with fcoe_site(tmp_path) as site, site.initiator() as port:
        target = await port.target()
        served = site.fabric.ports[WWPN]
        (nexus,) = served.fcp.nexuses.values()
        for _ in range(2000):
            served.ended(nexus, "a test")
        assert len(caplog.messages) < 300
        await anyio.sleep(0.6)
        served.ended(nexus, "a test")
        assert "lines about logins before this one were left out" in caplog.messages[-1]
        await read_and_write(target)


async def test_several_interfaces_and_targets(tmp_path: Path) -> None:
    """The nth target is on the nth interface, further ones are on the last."""
    targets = (WWPN, SECOND, "20:01:52:54:00:2f:fc:02")
    async with fcoe_site(tmp_path, targets=targets, interfaces=2) as site:
        where = {name: port.server.link.name[-1] for name, port in site.fabric.ports.items()}
        assert where == dict(zip(targets, "011", strict=True))
        urls = [each.url for each in site.fabric.endpoints()]
        assert urls == [f"fcoe://{site.fabric.ports[name].server.link.name}/{name}/0" for name in targets]
        async with site.initiator(number=0) as one, site.initiator(STRANGER, number=1) as other:
            assert {each.port_name.hex(":") for each in await one.settle(0.5)} == {WWPN}
            with anyio.fail_after(60):
                while len(await other.settle(0.5)) < 2:
                    pass
            await read_and_write(await one.target())
            for name in targets[1:]:
                await read_and_write(await other.target(bytes.fromhex(name.replace(":", ""))))


@pytest.mark.parametrize(
    ("mode", "theirs", "vlan"),
    [("fcf", "fabric", None), ("fcf", "fabric", 100), ("fabric", "fcf", None), ("p2p", "p2p", None), ("vn2vn", "vn2vn", 7)],
)
async def test_modes(tmp_path: Path, mode: str, theirs: str, vlan: int | None) -> None:
    """FC-BB-5, FC-BB-6: as a switch, at the end of a cable, and in a VLAN."""
    async with fcoe_site(tmp_path, mode=mode, **({"vlan": str(vlan)} if vlan else {})) as site:
        async with site.initiator(mode=theirs, vlan=vlan) as port:
            target = await port.target()
            await read_and_write(target)
            if mode == "fcf":
                assert site.fabric.ports[WWPN].n_port.fc_id >> 16 == 1
        await until(lambda: not site.fabric.sessions())


async def test_an_initiator_asks_for_the_vlan(tmp_path: Path) -> None:
    """FC-BB-5 7.9.3: without ``vlan`` the one that the FCF tells; with it no other."""
    async with fcoe_site(tmp_path, mode="fcf", vlan="200") as site:
        async with site.initiator(mode="fabric") as port:
            await read_and_write(await port.target())
            assert port.station.vlan == 200
        async with site.initiator(mode="fabric", vlan=201) as port:
            with pytest.raises(LoginFailed, match="VLAN"):
                await port.target(timeout=1)


async def test_behind_an_fcf(tmp_path: Path) -> None:
    """Mode fabric: the VLAN is discovered, the port logs in to the FCF and gets its address there."""
    (tmp_path / "other").mkdir()
    async with fcoe_site(tmp_path, mode="fcf", vlan="200", domain="9") as site:
        link = site.fabric.interfaces[0].link
        assert link.name == f"unix:{tmp_path}/t0,{tmp_path}/i0"
        options = FcoeOptions(interface=(f"unix:{tmp_path}/i0,{tmp_path}/t0",), mode="fabric")
        target = TargetDevice(SECOND, "fcoe")
        target.add_portal_group(1)
        behind = FcoeFabric([target], options)
        async with anyio.create_task_group() as tasks:
            await tasks.start(lambda *, task_status: behind.run(task_status=task_status))
            port = behind.ports[SECOND].n_port
            await until(lambda: port.is_up)
            assert port.fc_id >> 16 == 9
            assert behind.interfaces[0].station.vlan == 200
            await behind.drain()
            tasks.cancel_scope.cancel()


async def test_default_names(tmp_path: Path) -> None:
    """One target for each interface, of different names that stay the same."""
    async with fcoe_site(tmp_path, targets=(), interfaces=2) as site:
        names = list(site.fabric.ports)
    assert len(set(names)) == 2
    assert all(name.startswith("20:00:") for name in names)
    async with fcoe_site(tmp_path, targets=(), interfaces=2) as site:
        assert list(site.fabric.ports) == names


async def test_targets_come_and_go(tmp_path: Path) -> None:
    async with fcoe_site(tmp_path) as site, site.initiator() as port:
        first = await port.target()
        live = site.runtime.live
        target = live.add_target(SECOND, "fcoe")
        group = live.add_portal_group(target, 1)
        live.set_attribute(group, type(group.attributes)(generate_node_acls=True, demo_mode_write_protect=False))
        group.add_lun(3, next(iter(site.runtime.logical_units.values())))
        second = await port.target(bytes.fromhex(SECOND.replace(":", "")))
        await read_and_write(second, 3)
        group.remove_lun(3)
        await live.remove_portal_group(group)
        live.remove_target(target)
        await until(lambda: not second.logged_in)
        assert first.logged_in
        await read_and_write(first)


async def test_drop_of_a_nexus(tmp_path: Path) -> None:
    """The administrator ends a session: LOGO, after which the initiator may come again."""
    async with fcoe_site(tmp_path) as site, site.initiator() as port:
        target = await port.target()
        (group,) = site.runtime.targets[0].portal_groups.values()
        before = set(group.nexuses)
        site.runtime.live.drop_nexuses(group)
        await until(lambda: group.nexuses and not before & group.nexuses)
        await until(lambda: target.logged_in)
        await read_and_write(target)


async def test_link_down_and_up(tmp_path: Path) -> None:
    async with fcoe_site(tmp_path) as site:
        for _ in range(2):
            async with site.initiator() as port:
                await read_and_write(await port.target())
            await until(lambda: not site.fabric.sessions())
        assert site.fabric.statistics().portals()[0].accepted == 2


async def test_another_mtu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ports log in anew, the log says what that means for frames, and what has been counted stays."""
    async with fcoe_site(tmp_path) as site, site.initiator() as port:
        await read_and_write(await port.target())
        server = site.fabric.interfaces[0]
        before = server.station.counters.as_dict()
        server.link.mtu = 1500
        server.link.notices = ("MTU 1500 is too small",)
        server.link_changed()
        assert not site.fabric.sessions()
        await until(site.fabric.sessions)
        await read_and_write(await port.target())
        after = server.station.counters.as_dict()
        assert before["frames_in"]
        assert before["plogi_in"]
        assert [name for name in before if after[name] < before[name]] == []
        assert after["link_failures"] == before["link_failures"] + 1
    assert "MTU 1500 is too small" in caplog.text


async def test_persistent_reservations(tmp_path: Path) -> None:
    """SPC-5 7.6.4.2: FC TransportIDs in READ FULL STATUS, SPEC_I_PT and REGISTER AND MOVE; APTPL names ports as LIO does."""

    def out(action: int, key: int, new: int, flags: int = 0, ids: bytes = b"", kind: int = 0) -> tuple[bytes, bytes]:
        if action == 7:
            data = key.to_bytes(8) + new.to_bytes(8) + b"\0" + bytes((flags,)) + rtpi.to_bytes(2) + len(ids).to_bytes(4) + ids
        else:
            data = key.to_bytes(8) + new.to_bytes(8) + bytes(4) + bytes((flags, 0, 0, 0))
            data += len(ids).to_bytes(4) + ids if ids else b""
        return bytes((0x5F, action, kind, 0, 0)) + len(data).to_bytes(4) + b"\0", data

    async def do(target: Target, cdb: bytes, data: bytes) -> None:
        await target.checked(cdb, 0, data_out=data)

    async def full_status(target: Target) -> bytes:
        return bytes((await target.checked(bytes((0x5E, 3, 0, 0, 0, 0, 0, 4, 0, 0)), 0, read_length=1024)).data)

    async with fcoe_site(tmp_path) as site:
        rtpi = site.runtime.targets[0].portal_groups[1].relative_target_port_identifier
        async with site.initiator() as port:
            target = await port.target()
            await do(target, *out(0, 0, 1, flags=0x09, ids=transport_id(STRANGER)))
            status = await full_status(target)
            assert transport_id(INITIATOR) in status
            assert transport_id(STRANGER) in status
            await do(target, *out(1, 1, 0, kind=3))
            await do(target, *out(7, 1, 2, flags=1, ids=transport_id(STRANGER)))
            with pytest.raises(ScsiError):
                await target.write(0, bytes(512), 0)
        async with site.initiator(STRANGER) as port:
            target = await port.target()
            await read_and_write(target)
    (text,) = [each.read_text() for each in (tmp_path / "state").rglob("aptpl_*")]
    assert f"initiator_fabric=fc\ninitiator_node={STRANGER}\n" in text
    assert f"target_fabric=fc\ntarget_node={WWPN}\n" in text
    async with fcoe_site(tmp_path) as site, site.initiator() as port:
        with pytest.raises(ScsiError):
            await (await port.target()).write(0, bytes(512), 0)


async def test_an_error_of_ours_costs_one_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a frame sets off, the others of its batch and the interface go on."""
    async with fcoe_site(tmp_path) as site, site.initiator() as port:
        target = await port.target()
        broken = fcp_express.begin
        calls = []

        def fail(*arguments: object) -> bool:
            calls.append(arguments)
            if len(calls) == 1:
                raise RuntimeError("a mistake")
            return broken(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(fcp_express, "begin", fail)
        with anyio.move_on_after(0.2):
            await target.read(0, 8)
        await read_and_write(target)


async def test_hbas_of_the_segment(tmp_path: Path) -> None:
    """The switch's own and the initiator's, as they have registered by FDMI: ``fc/hbas`` of the tree."""
    shown = TREE.attributes["hbas"].show
    assert shown is not None
    async with fcoe_site(tmp_path, mode="fcf") as site, site.initiator(mode="fabric") as port:
        await port.target()
        await until(lambda: len(site.fabric.hbas()) == 2)
        await until(lambda: "FCoE initiator" in shown(site.fabric))
        own, other = shown(site.fabric).splitlines()
        assert f"{WWPN}, tcm, FCoE, FCoE target, tcm " in own
        assert f"{INITIATOR}, tcm, FCoE, FCoE initiator, tcm " in other
        assert other.startswith(site.fabric.interfaces[0].link.name)
    async with fcoe_site(tmp_path, mode="vn2vn") as site:
        assert shown(site.fabric) == ""
