"""What LIO's ConfigFS tree has for ``tcm_fc`` (lio-configfs 4.3.6): one portal group a port, live at once; named node ACLs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tcm.failure import ConfigError
from tcm.tree_types import FabricTree, TreeAttribute
from tcm_fcoe.statistics import FcPort

if TYPE_CHECKING:
    from tcm.tree_types import NodeAclPlace

_NAME = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){7}")
NO_NAME = "00:00:00:00:00:00:00:00"
_CLEAR = "NULL"
_TAG_LENGTH = 63


def _only(what: str, value: str, text: str) -> None:
    if not _NAME.fullmatch(text.lower()):
        raise ConfigError(f"{text[:40]!r} is not a name; write eight pairs of hex digits, such as 20:00:52:54:00:2f:fc:00")
    if text.lower() != value:
        raise ConfigError(f"{what} is {value}; make a node ACL of another name instead")


def _set_port_name(place: NodeAclPlace, text: str) -> None:
    _only("the port name", place.acl.initiator_name, text)


def _set_node_name(_place: NodeAclPlace, text: str) -> None:
    _only("the node name, which nobody is admitted or refused by,", NO_NAME, text)


def _set_tag(place: NodeAclPlace, text: str) -> None:
    if len(text) > _TAG_LENGTH:
        raise ConfigError(f"tag: write at most {_TAG_LENGTH} characters")
    place.acl.tag = "" if text == _CLEAR else text


TREE = FabricTree(
    name="fc",
    attributes={
        "version": TreeAttribute(lambda _fabric: "tcm FCoE fabric"),
        "hbas": TreeAttribute(lambda fabric: "\n".join(fabric.hbas())),
    },
    tags=range(1, 2),
    enable=False,
    target_statistics=(FcPort,),
    node_acl={
        "node_name": TreeAttribute(lambda _place: NO_NAME, _set_node_name),
        "port_name": TreeAttribute(lambda place: place.acl.initiator_name, _set_port_name),
        "tag": TreeAttribute(lambda place: place.acl.tag, _set_tag),
    },
)
