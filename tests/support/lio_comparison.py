"""What targetcli is told to do with LIO in a guest and with us alike, and what may differ afterwards, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from configfs.test_capture import DIFFERENT, MORE, matches

TARGET = "iqn.2003-01.org.linux-iscsi.test:steps"
ONE, TWO = "iqn.2025-01.test.vm:one", "iqn.2025-01.test.vm:two"
LOOP = "naa.5001405000000001"


def serial(number: int) -> str:
    return f"{number:08d}-94eb-4c69-8c09-ff4c53d8877a"


VALUES = {
    **DIFFERENT,
    r"core/\w+/\w+/statistics/scsi_lu/(hs_)?num_cmds": "the guest's kernel looks at what LIO's loopback has",
    r"loopback/.*/scsi_tgt_port/(hs_)?in_cmds": "the same",
    r"core/\w+/\w+/statistics/scsi_tgt_dev/non_access_lus": "LIO: whether it is exported; we: whether it is ready (RFC 4455)",
    r".*/acls/.*/scsi_auth_intr/map_indx": "LIO: 0, whichever LUN is mapped",
    r"loopback/[^/]+/tpgt_1/(nexus|address)": "random, and the number of the next SCSI host",
    r"core/\w+/hba_info": "numbers of HBAs in the order in which they were made",
    r"core/iblock_\w+/\w+/attrib/emulate_write_cache": "LIO asks the block device, whatever this shows",
    r"core/fileio_\w+/through/attrib/emulate_write_cache": "LIO takes 1 for a file that is written through: refused",
    r"iscsi/discovery_auth/(userid|password)(_mutual)?": "NULL, which rtslib writes to say that there is none, is none",
}
"""Values that may differ, and why."""

TAKEN_OTHERWISE = tuple(pattern for pattern in VALUES if "emulate_write_cache" in pattern)
_SETTING = re.compile(r".*/(attrib|param|auth|wwn|alua/\w+)/\w+")

OUTPUTS = {
    r"/backstores/fileio/through set attribute emulate_write_cache=1": "LIO takes it for a file that is written through",
    r"/backstores/block/block0 set attribute .* emulate_write_cache=1": "LIO does not, for a block device",
}
"""Steps after which targetcli says something else, and why."""

_LINK = re.compile(r"(/lun_\d+)/[0-9a-f]{10}$")
_HBA = re.compile(r"\b(fileio|iblock|rd_mcp)_\d+/")


def compared(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> Iterator[str]:
    """What is not explained, a line for each."""
    assert [each["step"] for each in theirs] == [each["step"] for each in ours]
    before: set[str] = set()
    last: dict[str, list[Any]] = {}
    for there, here in zip(theirs, ours, strict=True):
        step = there["step"]
        # folders of the kernel's list the latest first, and rtslib does things in that order
        said = [sorted(each["output"].splitlines()) for each in (there, here)]
        if said[0] != said[1] and not matches(step, OUTPUTS):
            yield f"{step}: LIO says {there['output'].strip()!r}, we {here['output'].strip()!r}"
        restored = step.startswith("restoreconfig")
        trees = [_named(each["tree"], restored=restored) for each in (there, here)]
        for path in sorted(trees[0].keys() | trees[1].keys()):
            explained = VALUES if path in trees[0] and path in trees[1] else MORE if path in trees[1] else ()
            # what it was at first may differ, what it has been set to may not
            was_set = _SETTING.fullmatch(path) and path in last and last[path] != trees[0].get(path)
            if matches(path, explained) and (not was_set or matches(path, TAKEN_OTHERWISE)):
                continue
            pair = [tree.get(path, "nothing") for tree in trees]
            line = f"{path}: LIO has {pair[0]}, we {pair[1]}"
            if pair[0] != pair[1] and line not in before:
                before.add(line)
                yield f"{step}: {line}"
        last = trees[0]


def _named(tree: dict[str, list[Any]], *, restored: bool) -> dict[str, list[Any]]:
    """Without random names; without the numbers of HBAs, which follow the order in the file, where it has been restored."""
    named = {
        _LINK.sub(r"\1/LINK", path): [mode, _LINK.sub(r"\1/LINK", content or "")] for path, (mode, content) in tree.items()
    }
    if not restored:
        return named
    return {_any_hba(path): [mode, "\n".join(sorted(map(_any_hba, text.splitlines())))] for path, (mode, text) in named.items()}


def _any_hba(path: str) -> str:
    return _HBA.sub(r"\1_N/", f"{path}/").removesuffix("/")


def steps(folder: str, ports: list[int], *, block: bool) -> list[str]:
    """One line each; those that are refused are as interesting as the others."""
    target, one, two = f"/iscsi/{TARGET}", f"/iscsi/{TARGET}/tpg1", f"/iscsi/{TARGET}/tpg2"
    files, ram = "/backstores/fileio", "/backstores/ramdisk"
    lines = [
        "set global auto_add_default_portal=false",
        f"{files} create name=file0 file_or_dev={folder}/file0.img size=64M write_back=true sparse=true wwn={serial(1)}",
        f"{files} create name=through file_or_dev={folder}/through.img size=16M write_back=false wwn={serial(2)}",
        f"{ram} create name=ram0 size=16M wwn={serial(3)}",
        f"{ram} create name=null0 size=16M nullio=true wwn={serial(4)}",
        f"{ram} create name=ram0 size=8M",
        f"{files}/file0 set attribute emulate_tpu=1 emulate_tpws=1",
        f"{files}/file0 set attribute emulate_caw=0 is_nonrot=1 emulate_3pc=0",
        f"{files}/file0 set attribute emulate_tas=7",
        f"{files}/through set attribute emulate_write_cache=1",
        f"{ram}/ram0 set attribute block_size=4096",
        f"{ram}/ram0 set attribute block_size=1000",
        f"{files}/file0/alua create name=standby tag=7",
        f"{files}/file0/alua create name=again tag=7",
        f"{files}/file0/alua/standby set alua nonop_delay_msecs=200 preferred=1 trans_delay_msecs=20 implicit_trans_secs=3",
        f"{files}/file0/alua/standby set alua alua_access_type=1",
        f"{files}/file0/alua/standby set alua alua_access_state=2",
        f"{files}/file0/alua/standby set alua alua_access_state=9",
        f"{files}/file0/alua/standby set alua alua_support_unavailable=0",
        f"{files}/file0/alua/standby set alua alua_access_state=3",
        f"{ram}/ram0/alua create name=gone tag=9",
        f"{ram}/ram0/alua delete name=gone",
        f"/iscsi create {TARGET}",
        f"/iscsi create {TARGET}",
        f"{one}/portals create 127.0.0.1 {ports[0]}",
        f"{one}/portals create 127.0.0.1 {ports[0]}",
        f"{one}/luns create {files}/file0",
        f"{one}/luns create {ram}/ram0 lun=5",
        f"{one}/luns create {files}/through",
        f"{one}/luns create {ram}/null0 lun=5",
        f"{files}/file0 set attribute block_size=4096",
        f"{one}/luns/lun0 set alua alua_tg_pt_gp_name=standby",
        f"{one}/luns/lun0 set alua alua_tg_pt_gp_name=nothing",
        f"{one} set attribute authentication=1 login_timeout=20 default_cmdsn_depth=32 netif_timeout=2",
        f"{one} set attribute generate_node_acls=2",
        f"{one} set attribute login_timeout=1000",
        f"{one} set parameter MaxBurstLength=131072",
        f"{one} set parameter MaxConnections=4 InitialR2T=No FirstBurstLength=32768",
        f"{one} set parameter ErrorRecoveryLevel=7",
        f"{one} set parameter HeaderDigest=CRC32C",
        f"{one} set auth userid=everybody password=everybodysecret",
        f"{one}/acls create {ONE}",
        f"{one}/acls create {ONE}",
        f"{one}/acls/{ONE} set auth userid=alice password=initiatorsecret mutual_userid=bob mutual_password=targetsecret12",
        f"{one}/acls/{ONE} set attribute dataout_timeout=10 nopin_timeout=30",
        f"{one}/acls/{ONE} set attribute dataout_timeout=1000",
        f"{one}/acls create {TWO} add_mapped_luns=false",
        f"{one}/acls/{TWO} create mapped_lun=3 tpg_lun_or_backstore=5 write_protect=1",
        f"{one}/acls/{TWO} create mapped_lun=3 tpg_lun_or_backstore=0",
        f"{one}/acls/{TWO} create mapped_lun=300 tpg_lun_or_backstore=0",
        f"{one}/acls/{TWO} set attribute authentication=0",
        f"{one}/luns create {ram}/null0",
        f"{one}/acls/{ONE} delete mapped_lun=1",
        f"{one}/luns delete lun5",
        f"{one}/acls tag {ONE} people",
        f"{one}/acls untag people",
        f"{target} create tag=2",
        f"{two}/portals create 127.0.0.1 {ports[1]}",
        f"{two}/luns create {ram}/ram0",
        f"{two} disable",
        f"{two} enable",
        f"{two} set attribute demo_mode_write_protect=0 generate_node_acls=1 cache_dynamic_acls=1 t10_pi=0",
        f"{two}/portals delete 127.0.0.1 {ports[1]}",
        f"{two}/portals create 127.0.0.1 {ports[2]}",
        "/iscsi set discovery_auth enable=1 userid=finder password=findersecret",
        "/iscsi set discovery_auth mutual_userid=found mutual_password=foundsecret12",
        f"/loopback create {LOOP}",
        f"/loopback/{LOOP}/luns create {ram}/ram0",
        f"/loopback/{LOOP}/luns create {files}/through lun=4",
        f"/loopback/{LOOP}/luns delete lun0",
        f"{files} delete through",
        f"{files} create name=through file_or_dev={folder}/through.img write_back=false wwn={serial(5)}",
        f"/loopback/{LOOP}/luns create {files}/through",
    ]
    if block:
        lines += [
            f"/backstores/block create name=block0 dev={folder}/disk wwn={serial(6)}",
            f"/backstores/block create name=block1 dev={folder}/disk",
            "/backstores/block/block0 set attribute emulate_tpu=0 emulate_write_cache=1",
            f"{one}/luns create /backstores/block/block0 lun=77",
        ]
    return [*lines, f"saveconfig {folder}/saved.json", "clearconfig confirm=True", f"restoreconfig {folder}/saved.json"]


# saved configurations

ADDED = {
    r".*/attributes/(atomic_\w+|complete_type|emulate_rsoc|submit_type)": "Linux 7.2 has it, the guest's does not: skipped",
    r".*/rtpi": "the same",
    r".*/tcm_\w+(/.*)?": "what rtslib does not store, in keys that it leaves alone",
    r"/storage_objects\[block .*\]/(readonly|write_back)": "rtslib writes both as false, whatever the device is",
}
"""What else is otherwise in the file in between, which we have saved, and why."""
SKIPPED = re.compile(
    r"Storage Object \w+/\w+: Cannot find attribute: (atomic_\w+|complete_type|emulate_rsoc|submit_type), skipped"
)
"""What targetcli says when it restores that file."""


def flat(saved: Any, where: str = "") -> dict[str, Any]:
    """Values by path; elements of lists are called what they are called, so that their order does not matter."""
    if isinstance(saved, dict):
        return {path: value for name, each in saved.items() for path, value in flat(each, f"{where}/{name}").items()}
    if isinstance(saved, list):
        found: dict[str, Any] = {}
        for each in saved:
            called = " ".join(str(each[name]) for name in _NAMES if name in each)
            found |= {f"{where}[{called}]": True, **flat(each, f"{where}[{called}]")}
        return found
    return {where: saved}


_NAMES = ("plugin", "fabric", "name", "wwn", "tag", "index", "node_wwn", "ip_address", "port")


def unexplained(before: Any, after: Any, *explained: dict[str, str]) -> dict[str, tuple[Any, Any]]:
    """What is not the same in both, without what is listed."""
    one, two = flat(before), flat(after)
    patterns = [pattern for each in explained for pattern in each]
    return {
        path: (one.get(path, "nothing"), two.get(path, "nothing"))
        for path in sorted(one | two)
        if one.get(path, "nothing") != two.get(path, "nothing") and not matches(path, patterns)
    }
