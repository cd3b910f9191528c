"""The runtime in this process, on asyncio and trio: objects are what the configuration says, and hooks are called."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from tcm_loopback.fabric import LoopbackFabric

from tcm.cli.arguments import Arguments, configuration
from tcm.failure import ConfigError, RuntimeFailure
from tcm.hookspecs import hookimpl
from tcm.plugins import PluginManager
from tcm.runtime import Runtime
from tcm.scsi.sense import Status
from tcm.target.directory_store import DirectoryStore

TARGET = "naa.5001405000000007"


class Recorder:
    """A plug-in that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    @hookimpl
    def tcm_target_configured(self, target: Any) -> None:
        self.told.append(("configured", f"{target.name} {sorted(target.portal_groups[1].luns)}"))

    @hookimpl
    def tcm_nexus_established(self, nexus: Any) -> None:
        self.told.append(("established", nexus.initiator_port.name))

    @hookimpl
    def tcm_nexus_lost(self, nexus: Any) -> None:
        self.told.append(("lost", nexus.initiator_port.name))


def make(tmp_path, recorder: Recorder | None = None, *luns: str, **more: Any) -> Runtime:
    plugins = PluginManager()
    if recorder:
        plugins.register(recorder, "recorder")
    arguments = Arguments(fabrics=("loopback",), targets=(TARGET,), luns=luns, state_dir=str(tmp_path), **more)
    return Runtime(configuration(arguments, plugins), plugins, drain_timeout=0.5)


async def while_serving(runtime: Runtime, use: Callable[[LoopbackFabric], Awaitable[None]]) -> None:
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(runtime.serve)
            fabric = runtime.fabrics["loopback"]
            assert isinstance(fabric, LoopbackFabric)
            await use(fabric)
            runtime.stop()


@pytest.mark.anyio
async def test_target_port_groups_before_the_backstore_is_open(tmp_path):
    """A backstore is asked for its capabilities once it is open; groups are there before."""
    groups = [{"name": "near", "tg_pt_gp_id": 1}]
    disk = {"plugin": "fileio", "name": "disk", "dev": str(tmp_path / "disk.img"), "size": 1 << 20, "alua_tpgs": groups}
    lun = {"index": 0, "storage_object": "/backstores/fileio/disk", "alua_tg_pt_gp_name": "near"}
    content = {
        "storage_objects": [disk],
        "targets": [{"fabric": "loopback", "wwn": TARGET, "tpgs": [{"tag": 1, "luns": [lun]}]}],
    }
    path = tmp_path / "saveconfig.json"
    path.write_text(json.dumps(content))
    plugins = PluginManager()
    arguments = Arguments(config=str(path), state_dir=str(tmp_path))
    runtime = Runtime(configuration(arguments, plugins), plugins, drain_timeout=0.5)

    async def use(_fabric: LoopbackFabric) -> None:
        (unit,) = runtime.logical_units.values()
        assert [group.identifier for group in unit.asymmetric_access.reported_groups()] == [1]

    await while_serving(runtime, use)


@pytest.mark.anyio
async def test_luns_are_served_and_hooks_are_called(tmp_path):
    recorder = Recorder()
    runtime = make(tmp_path, recorder, "ramdisk:size=1M", "5=ramdisk:size=2M,block-size=4096,read-only=yes,wwn=" + "ab" * 16)

    async def use(fabric: LoopbackFabric) -> None:
        assert [endpoint.url for endpoint in fabric.endpoints()] == [f"loopback://{TARGET}/1/0", f"loopback://{TARGET}/1/5"]
        units = list(runtime.logical_units.values())
        assert [(unit.name, unit.blocks, unit.block_size, unit.read_only) for unit in units] == [
            ("lun0", 2048, 512, False),
            ("lun5", 512, 4096, True),
        ]
        assert units[1].serial == "abababab-abab-abab-abab-abababababab"
        initiator = fabric.port().connect("naa.5001405000000099")
        for _ in range(2):  # the first one may report a unit attention
            result = await initiator.execute(0, bytes(6))
        assert result.status is Status.GOOD

    await while_serving(runtime, use)
    assert recorder.told[0] == ("configured", f"{TARGET} [0, 5]")
    assert ("established", "naa.5001405000000099") in recorder.told
    assert ("lost", "naa.5001405000000099") in recorder.told


@pytest.mark.anyio
async def test_the_first_filter_is_outermost(tmp_path):
    runtime = make(tmp_path, None, "ramdisk:size=1M", filters=("0=log", "0=readonly"))

    async def use(_fabric: LoopbackFabric) -> None:
        outer = runtime.logical_units["/backstores/ramdisk/lun0"].backstore
        names = []
        layer: Any = outer
        while layer is not None:
            names.append(type(layer).__module__.rpartition(".")[2])
            layer = getattr(layer, "inner", None)
        assert names == ["log", "readonly", "ramdisk"]
        assert runtime.logical_units["/backstores/ramdisk/lun0"].read_only

    await while_serving(runtime, use)


@pytest.mark.anyio
async def test_what_one_run_wrote_the_next_one_reads(tmp_path):
    lun = f"fileio:path={tmp_path}/disk.img,size=1M"
    block = bytes(range(256)) * 2

    async def write(fabric: LoopbackFabric) -> None:
        initiator = fabric.port().connect()
        await initiator.execute(0, bytes(6))
        result = await initiator.execute(0, bytes((0x2A, 0, 0, 0, 0, 9, 0, 0, 1, 0)), block)
        assert result.status is Status.GOOD

    async def read(fabric: LoopbackFabric) -> None:
        initiator = fabric.port().connect()
        await initiator.execute(0, bytes(6))
        result = await initiator.execute(0, bytes((0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0)), read_length=512)
        assert result.status is Status.GOOD
        assert bytes(result.data_in) == block

    await while_serving(make(tmp_path, None, lun), write)
    await while_serving(make(tmp_path, None, lun), read)


@pytest.mark.anyio
async def test_a_medium_that_cannot_be_opened(tmp_path):
    bad = tmp_path / "disk.img"
    lun = f"fileio:path={bad},size=1M"
    runtime = make(tmp_path, None, "ramdisk:size=1M", lun)
    bad.symlink_to(tmp_path / "nowhere" / "x")
    with pytest.RaisesGroup(
        pytest.RaisesExc((ConfigError, RuntimeFailure), match="/backstores/fileio/lun1"), flatten_subgroups=True
    ):
        async with anyio.create_task_group() as tasks:
            await tasks.start(runtime.serve)
    assert all(unit.failed for unit in runtime.logical_units.values())


@pytest.mark.anyio
async def test_a_resize_is_noticed(tmp_path, monkeypatch, caplog):
    path = tmp_path / "disk.img"
    runtime = make(tmp_path, None, f"fileio:path={path},size=1M", "ramdisk:size=1M")
    runtime.size_interval = 0.02

    async def use(fabric: LoopbackFabric) -> None:
        initiator = fabric.port().connect()
        await initiator.execute(0, bytes(6))
        file, memory = runtime.logical_units.values()
        monkeypatch.setattr(memory.backstore, "size", lambda: 1 // 0)
        with path.open("r+b") as opened:
            opened.truncate(2 << 20)
        while file.blocks != 4096:
            await anyio.sleep(0.01)
        result = await initiator.execute(0, bytes(6))
        assert result.sense is not None
        assert (result.sense.asc, result.sense.ascq) == (0x2A, 0x09)
        assert memory.blocks == 2048
        while "does not tell its size" not in caplog.text:
            await anyio.sleep(0.01)
        await anyio.sleep(0.1)
        assert caplog.text.count("does not tell its size") == 1

    await while_serving(runtime, use)


@pytest.mark.anyio
async def test_all_targets_know_each_other(tmp_path):
    """Third-party copies go from one to another."""
    runtime = make(tmp_path, None, "ramdisk:size=1M")
    other = replace(runtime.configuration.targets[0], name="naa.5001405000000008")
    runtime.configuration = replace(runtime.configuration, targets=(*runtime.configuration.targets, other))

    async def use(_: LoopbackFabric) -> None:
        assert [[peer.name for peer in target.peers] for target in runtime.targets] == [[TARGET, other.name]] * 2

    await while_serving(runtime, use)


@pytest.mark.anyio
async def test_one_process_serves_a_serial_of_a_state_directory(tmp_path):
    luns = ("ramdisk:size=1M", "1=ramdisk:size=1M")
    store = DirectoryStore(str(tmp_path))

    async def use(_: LoopbackFabric) -> None:
        with pytest.raises(ConfigError, match=r"lun1: process \d+ serves a unit of serial .*; stop that, or write another wwn"):
            await make(tmp_path, None, luns[1]).serve()
        await while_serving(make(tmp_path, None, "2=ramdisk:size=1M"), nothing)

    async def nothing(_: LoopbackFabric) -> None: ...

    await while_serving(make(tmp_path, None, *luns), use)
    await while_serving(make(tmp_path, None, *luns), nothing)
    os.close(store.claim("x"))
    os.close(store.claim("x"))


@pytest.mark.anyio
async def test_a_state_directory_that_cannot_be_written_is_told(tmp_path, caplog):
    (tmp_path / "serving").touch()

    async def nothing(_: LoopbackFabric) -> None: ...

    await while_serving(make(tmp_path, None, "ramdisk:size=1M"), nothing)
    assert f"{tmp_path}: cannot be written (Not a directory: " in caplog.text
