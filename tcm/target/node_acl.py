"""Who may log in at a target port, as whom, and what each sees there (LIO's ``acls``, and its attributes of demo mode)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tcm.target.lun import MappedLun

_indexes = itertools.count(1)


@dataclass(frozen=True, slots=True)
class AccessControl:
    """LIO's four attributes of demo mode (lio-configfs 4.3.3)."""

    generate_node_acls: bool = False
    """Demo mode: any initiator may log in, with a dynamic node ACL that maps all LUNs."""
    cache_dynamic_acls: bool = False
    """Dynamic node ACLs stay after the last nexus."""
    demo_mode_write_protect: bool = True
    """LUNs of dynamic node ACLs are write protected."""
    prod_mode_write_protect: bool = False
    """LUNs mapped to explicit node ACLs are write protected unless they say otherwise."""


@dataclass(frozen=True, slots=True)
class Authentication:
    """CHAP credentials; empty strings: not set."""

    userid: str = ""
    password: str = field(default="", repr=False)
    userid_mutual: str = ""
    password_mutual: str = field(default="", repr=False)

    @property
    def authenticate_target(self) -> bool:
        """The initiator wants the target to authenticate itself too."""
        return bool(self.userid_mutual and self.password_mutual)


@dataclass(slots=True, eq=False)
class NodeAcl:
    """What one initiator may see."""

    initiator_name: str
    mapped_luns: dict[int, MappedLun] = field(default_factory=dict)
    attributes: Any = None
    """The fabric's dataclass (lio-configfs 4.3.6)."""
    parameters: Any = None
    """The fabric's ``tpg_parameters`` for this initiator; ``None``: those of the portal group."""
    own_parameters: Mapping[str, Any] = field(default_factory=dict)
    """Those of them that are not the portal group's, by name."""
    authentication: Authentication = field(default_factory=Authentication)
    cmdsn_depth: int = 64
    tag: str = ""
    dynamic: bool = False
    """Made by demo mode."""
    draining: bool = False
    """It is about to go: the initiator may not log in."""
    index: int = field(default_factory=lambda: next(_indexes), repr=False)
    """Unique in the process."""
    created: float = field(default_factory=time.monotonic, repr=False)
    """When that was, on the monotonic clock."""
    attached: int = 0
    """How many nexuses there have been."""
