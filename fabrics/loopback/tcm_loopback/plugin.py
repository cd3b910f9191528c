"""Hooks of this distribution."""

from __future__ import annotations

from tcm.hookspecs import hookimpl
from tcm.plugin_types import API_VERSION, FabricType
from tcm_loopback.attributes import LoopbackOptions, TpgAttributes, check_config, check_name, default_name
from tcm_loopback.fabric import LoopbackFabric
from tcm_loopback.tree import TREE


@hookimpl
def tcm_fabrics() -> list[FabricType]:
    return [
        FabricType(
            name="loopback",
            api_version=API_VERSION,
            options=LoopbackOptions,
            factory=LoopbackFabric,
            check_config=check_config,
            description="initiator ports in the target's own process",
            check_name=check_name,
            default_name=default_name,
            tpg_attributes=TpgAttributes,
            tree=TREE,
        )
    ]
