"""What targetcli is told to do with LIO in a guest and with us alike, and what may differ afterwards, each with its reason."""

from __future__ import annotations

import re
from typing import Any

from configfs.test_capture import DIFFERENT as VALUES
from configfs.test_capture import MORE, matches

TARGET = "iqn.2003-01.org.linux-iscsi.test:steps"
ONE, TWO = "iqn.2025-01.test.vm:one", "iqn.2025-01.test.vm:two"
LOOP = "naa.5001405000000001"
FOLDER = "/tmp/tcm-steps"
"""Of the files that are exported; the same on both sides, since it is part of what is compared."""


def serial(number: int) -> str:
    return f"{number:08d}-94eb-4c69-8c09-ff4c53d8877a"


def steps(folder: str, port: int, *, block: bool) -> list[str]:
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
        f"{one}/portals create 127.0.0.1 {port}",
        f"{one}/portals create 127.0.0.1 {port}",
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
        f"{two}/portals create 127.0.0.1 {port + 1}",
        f"{two}/luns create {ram}/ram0",
        f"{two} disable",
        f"{two} enable",
        f"{two} set attribute demo_mode_write_protect=0 generate_node_acls=1 cache_dynamic_acls=1 t10_pi=0",
        f"{two}/portals delete 127.0.0.1 {port + 1}",
        f"{two}/portals create 127.0.0.1 {port + 2}",
        "/iscsi set discovery_auth enable=1 userid=finder password=findersecret mutual_userid=found mutual_password=foundsecret12",
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
