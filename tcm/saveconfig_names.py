"""What rtslib writes into a saveconfig.json, as tables (lio-configfs 3.2, 4.3.3, 4.3.5, 4.3.6, 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tcm.json_reader import Node


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a storage object."""

    read: Callable[[Node, str], Any] = lambda node, key: node.value[key]
    """Takes it out of its node, checked."""
    required: bool = False
    example: str = ""


def _text(node: Node, key: str) -> str:
    return node.text(key)


def _number(node: Node, key: str) -> int:
    return node.integer(key, minimum=0, maximum=(1 << 63) - 1)


def _flag(node: Node, key: str) -> bool:
    return node.boolean(key)


PLUGINS: dict[str, dict[str, Key]] = {
    "fileio": {
        "dev": Key(_text, True, '"dev": "/path/of/the/file"'),
        "size": Key(_number, True, '"size": 1073741824 (bytes)'),
        "write_back": Key(_flag),
        "aio": Key(_flag),
    },
    "block": {
        "dev": Key(_text, True, '"dev": "/dev/sdx"'),
        "readonly": Key(_flag),
        "write_back": Key(_flag),
        "exclusive": Key(_flag),
    },
    "ramdisk": {
        "size": Key(_number, True, '"size": 268435456 (bytes)'),
        "nullio": Key(_flag),
    },
}
"""Keys of a storage object by LIO's plugin, beside those that all have."""

NOT_SUPPORTED = {
    "pscsi": "SCSI pass-through",
    "user": "TCMU",
}
"""LIO's plugins that no backstore of ours stands for."""

FABRIC_NAMES = {"tcm_fc": "fcoe"}
"""rtslib's name of a fabric to ours, where they differ."""

EXTRAS = "tcm_storage_objects"
"""What rtslib does not know of storage objects, by their path: rtslib refuses other keys in the objects themselves."""

DEVICE: dict[str, object] = {
    "alua_support": 1,
    "atomic_alignment": 0,
    "atomic_granularity": 0,
    "atomic_max_boundary": 0,
    "atomic_max_len": 0,
    "atomic_max_with_boundary": 0,
    "block_size": 512,
    "complete_type": 0,
    "emulate_3pc": 1,
    "emulate_caw": 1,
    "emulate_dpo": 1,
    "emulate_fua_read": 1,
    "emulate_fua_write": 1,
    "emulate_model_alias": 0,
    "emulate_pr": 1,
    "emulate_rest_reord": 0,
    "emulate_rsoc": 1,
    "emulate_tas": 1,
    "emulate_tpu": 0,
    "emulate_tpws": 0,
    "emulate_ua_intlck_ctrl": 0,
    "emulate_write_cache": 0,
    "enforce_pr_isids": 1,
    "force_pr_aptpl": 0,
    "hw_block_size": 512,
    "hw_max_sectors": 0,
    "hw_pi_prot_type": 0,
    "hw_queue_depth": 128,
    "is_nonrot": 0,
    "max_unmap_block_desc_count": 0,
    "max_unmap_lba_count": 0,
    "max_write_same_len": 0,
    "optimal_sectors": 0,
    "pgr_support": 1,
    "pi_prot_format": 0,
    "pi_prot_type": 0,
    "pi_prot_verify": 0,
    "queue_depth": 128,
    "submit_type": 0,
    "unmap_granularity": 0,
    "unmap_granularity_alignment": 0,
    "unmap_zeroes_data": 0,
}
"""``attrib/`` of a storage object with LIO's defaults."""

MODEL_ALIAS = "emulate_model_alias"
"""An attribute of LIO's that becomes part of the identity: the product is the storage object's name."""

TARGET_PORTAL_GROUP: dict[str, object] = {
    "authentication": 1,
    "cache_dynamic_acls": 0,
    "default_cmdsn_depth": 64,
    "default_erl": 0,
    "demo_mode_discovery": 1,
    "demo_mode_login_only": 1,
    "demo_mode_write_protect": 1,
    "fabric_prot_type": 0,
    "generate_node_acls": 0,
    "jam_host": 0,
    "login_keys_workaround": 1,
    "login_timeout": 15,
    "netif_timeout": 2,
    "prod_mode_write_protect": 0,
    "t10_pi": 0,
    "tpg_enabled_sendtargets": 1,
}
"""``attrib/`` of a target portal group."""

PARAMETERS: dict[str, object] = {
    "AuthMethod": "CHAP,None",
    "DataDigest": "CRC32C,None",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
    "DefaultTime2Retain": "20",
    "DefaultTime2Wait": "2",
    "ErrorRecoveryLevel": "0",
    "FirstBurstLength": "65536",
    "HeaderDigest": "CRC32C,None",
    "IFMarkInt": "Reject",
    "IFMarker": "No",
    "ImmediateData": "Yes",
    "InitialR2T": "Yes",
    "MaxBurstLength": "262144",
    "MaxConnections": "1",
    "MaxOutstandingR2T": "1",
    "MaxRecvDataSegmentLength": "8192",
    "MaxXmitDataSegmentLength": "262144",
    "OFMarkInt": "Reject",
    "OFMarker": "No",
    "TargetAlias": "LIO Target",
}
"""``param/`` of a target portal group."""

NODE_ACL: dict[str, object] = {
    "authentication": -1,
    "dataout_timeout": 3,
    "dataout_timeout_retries": 5,
    "default_erl": 0,
    "nopin_response_timeout": 30,
    "nopin_timeout": 15,
    "random_datain_pdu_offsets": 0,
    "random_datain_seq_offsets": 0,
    "random_r2t_offsets": 0,
}
"""``attrib/`` of a node ACL."""
