"""Hooks of this distribution: the FCoE fabric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.hookspecs import hookimpl
from tcm.plugin_types import API_VERSION, FabricType

if TYPE_CHECKING:
    from collections.abc import Iterable


@hookimpl
def tcm_fabrics() -> Iterable[FabricType]:
    """The FCoE fabric."""
    from tcm_fcoe import attributes, fabric, tree

    return (
        FabricType(
            name="fcoe",
            api_version=API_VERSION,
            options=attributes.FcoeOptions,
            factory=fabric.make,
            check_config=attributes.check_config,
            description="Fibre Channel over Ethernet (FC-BB-5, FCP-4) on a raw socket",
            check_name=attributes.check_name,
            default_name=attributes.default_name,
            tpg_attributes=attributes.TpgAttributes,
            target_flags=("wwpn",),
            default_targets=attributes.default_targets,
            tree=tree.TREE,
        ),
    )
