"""Configurations of many storage objects and targets, as targetcli would save them."""

from __future__ import annotations

import json
from typing import Any

DEVICE_ATTRIBUTES = {
    "emulate_3pc": 1,
    "emulate_caw": 1,
    "emulate_tas": 1,
    "is_nonrot": 0,
    "emulate_tpu": 0,
    "emulate_write_cache": 0,
}
ACL_ATTRIBUTES = {"authentication": -1, "dataout_timeout": 3, "nopin_timeout": 15, "random_r2t_offsets": 0}
GROUP_ATTRIBUTES = {"authentication": 0, "generate_node_acls": 0, "demo_mode_write_protect": 1, "login_timeout": 15}
PARAMETERS = {"MaxConnections": "1", "InitialR2T": "Yes", "ImmediateData": "Yes", "MaxBurstLength": "262144"}


def large_config(units: int = 1000, targets: int = 200, port: int = 3260) -> dict[str, Any]:
    """``units`` ramdisks of 1 MiB, evenly spread over ``targets``, each with one ACL that maps all of its LUNs."""
    each = max(units // targets, 1)
    objects = [
        {
            "plugin": "ramdisk",
            "name": f"ram{number}",
            "size": 1 << 20,
            "wwn": f"00000000-0000-4000-8000-{number:012x}",
            "attributes": dict(DEVICE_ATTRIBUTES),
            "alua_tpgs": [],
        }
        for number in range(units)
    ]
    return {
        "fabric_modules": [],
        "storage_objects": objects,
        "targets": [_target(number, each, port) for number in range(targets)],
    }


def _target(number: int, units: int, port: int) -> dict[str, Any]:
    luns = [
        {
            "index": index,
            "storage_object": f"/backstores/ramdisk/ram{number * units + index}",
            "alias": f"a{number:04d}{index:05d}",
        }
        for index in range(units)
    ]
    acl = {
        "node_wwn": f"iqn.2026-01.test:host{number}",
        "attributes": dict(ACL_ATTRIBUTES),
        "mapped_luns": [
            {"index": index, "tpg_lun": index, "write_protect": False, "alias": f"m{number:04d}{index:05d}"}
            for index in range(units)
        ],
    }
    group = {
        "tag": 1,
        "enable": True,
        "attributes": dict(GROUP_ATTRIBUTES),
        "parameters": dict(PARAMETERS),
        "luns": luns,
        "portals": [{"ip_address": "127.0.0.1", "port": port, "iser": False, "offload": False}] if number == 0 else [],
        "node_acls": [acl],
    }
    return {"fabric": "iscsi", "wwn": f"iqn.2003-01.org.linux-iscsi.test:t{number}", "tpgs": [group]}


def copy_of(config: Any) -> Any:
    return json.loads(json.dumps(config))
