"""Hooks of this distribution: the iSCSI fabric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.hookspecs import hookimpl
from tcm.plugin_types import API_VERSION, FabricType

if TYPE_CHECKING:
    from collections.abc import Iterable


@hookimpl
def tcm_fabrics() -> Iterable[FabricType]:
    """The iSCSI fabric."""
    from tcm_iscsi import attributes, fabric, tree

    return (
        FabricType(
            name="iscsi",
            api_version=API_VERSION,
            options=fabric.IscsiOptions,
            factory=fabric.make,
            check_config=fabric.check_config,
            description="iSCSI (RFC 7143) over TCP",
            check_name=fabric.check_name,
            default_name=fabric.default_name,
            uses_portals=True,
            default_portal=("127.0.0.1", fabric.DEFAULT_PORT),
            tpg_attributes=attributes.TpgAttributes,
            tpg_parameters=attributes.TpgParameters,
            acl_attributes=attributes.AclAttributes,
            tree=tree.TREE,
        ),
    )
