"""``tpgt_N/lun/lun_M``: the LUNs of a target portal group (lio-configfs 4.3.1)."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from tcm.configfs import statistics
from tcm.configfs.asymmetric_access import NULL, STATES, STATUSES
from tcm.configfs.device import DeviceGroup
from tcm.configfs.node import Group, Link, Node, TreeError
from tcm.configfs.table import MadeGroup, ParentGroup, flag, number, refusals
from tcm.configuration import MAXIMUM_LUN
from tcm.scsi.asymmetric_access import AccessState, AccessStatus
from tcm.statistics.lio import lun_groups
from tcm.target.access_transition import set_offline
from tcm.target.draining import LunsDraining
from tcm.target.target_port_group import DEFAULT_GROUP
from tcm.tree_types import Table, TreeAttribute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tcm.configfs.core import CoreGroup
    from tcm.fabric_statistics import LioGroup
    from tcm.target.draining import Draining
    from tcm.target.lun import Lun
    from tcm.target.portal_group import TargetPortalGroup

_NAME = re.compile(r"lun_([0-9]{1,9})")


def lun_number(name: str) -> int:
    """Of ``lun_N``. Raises ``ValueError``."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError("write lun_ and a number, such as lun_0")
    return number(match[1], 0, MAXIMUM_LUN)


class LunPlace:
    """What a LUN's table is called with. It leads to no device at first."""

    def __init__(self, group: TargetPortalGroup, index: int) -> None:
        self.group = group
        self.index = index

    @property
    def found(self) -> Lun | None:
        """``None``: there is no link."""
        return self.group.luns.get(self.index)

    @property
    def lun(self) -> Lun:
        """Raises ``OSError`` (ENODEV) without a link."""
        lun = self.found
        if lun is None:
            raise OSError(errno.ENODEV, "there is no link to a device yet")
        return lun


def _show_group(place: LunPlace) -> str:
    lun = place.lun
    group = lun.target_port_group
    return (
        f"TG Port Alias: {group.name}\n"
        f"TG Port Group ID: {group.identifier}\n"
        f"TG Port Primary Access State: {STATES[group.state]}\n"
        f"TG Port Primary Access Status: {STATUSES[group.status]}\n"
        f"TG Port Secondary Access State: {STATES[AccessState.OFFLINE] if lun.offline else 'None'}\n"
        f"TG Port Secondary Access Status: {STATUSES[lun.offline_status]}"
    )


def _set_group(place: LunPlace, text: str) -> None:
    lun = place.lun
    access = lun.logical_unit.asymmetric_access
    name = DEFAULT_GROUP if text == NULL else text
    if name not in access.groups:
        raise OSError(errno.ENODEV, f"{lun.logical_unit.name} has no target port group {name[:60]!r}")
    access.move(lun, access.groups[name])


async def _set_offline(place: LunPlace, text: str) -> None:
    await set_offline(place.lun, offline=flag(text))


def _set_status(place: LunPlace, text: str) -> None:
    place.lun.offline_status = AccessStatus(number(text, 0, 2))


def _set_write_metadata(place: LunPlace, text: str) -> None:
    place.lun.alua_tg_pt_write_md = flag(text)


LUN: Table = {
    "alua_tg_pt_gp": TreeAttribute(_show_group, _set_group),
    "alua_tg_pt_offline": TreeAttribute(lambda place: f"{place.lun.offline:d}", _set_offline),
    "alua_tg_pt_status": TreeAttribute(lambda place: f"{place.lun.offline_status:d}", _set_status),
    "alua_tg_pt_write_md": TreeAttribute(lambda place: f"{place.lun.alua_tg_pt_write_md:d}", _set_write_metadata),
}


class LunGroup(MadeGroup):
    """``lun_M``: at most one link, to a device."""

    def __init__(self, name: str, parent: LunsGroup, place: LunPlace) -> None:
        super().__init__(name, parent, LUN, place)
        self.place = place
        self._core = parent.core
        self._link: Link | None = None
        self.attach(statistics.StatisticsGroup("statistics", self, statistics.LUN, self._statistics))

    @property
    def links(self) -> Sequence[str]:
        """Mapped LUNs."""
        lun = self.place.found
        if lun is None:
            return ()
        return [
            f"acls/{acl.initiator_name}/lun_{mapped.number}"
            for acl in self.place.group.node_acls.values()
            for mapped in acl.mapped_luns.values()
            if mapped.lun is lun and not mapped.dynamic
        ]

    def draining(self) -> Iterable[Draining]:
        lun = self.place.found
        return () if lun is None else (LunsDraining.of_lun(lun),)

    def _device(self) -> DeviceGroup | None:
        lun = self.place.found
        return self._core.device_of(lun.logical_unit) if lun is not None else None

    def _statistics(self) -> tuple[LioGroup, ...]:
        device = self._device()
        return lun_groups(self.place.lun, device.device.inst) if device is not None else ()

    def made(self) -> Mapping[str, Node]:
        lun = self.place.found
        if lun is None:
            return {}
        if self._link is None:
            device = self._device()
            assert device is not None
            self._link = Link(lun.alias or "default", self, f"/{device.path}")
        return {self._link.name: self._link}

    async def link(self, name: str, target: Group) -> None:
        """Export a device."""
        place, where = self.place, f"{self.path}/{name}"
        if not isinstance(target, DeviceGroup):
            raise TreeError(errno.EINVAL, f"{where}: /{target.path} is no device; link to /core/<HBA>/<device>")
        if place.found is not None:
            raise TreeError(errno.EEXIST, f"{where}: the LUN has a link already")
        if not target.device.enabled:
            raise TreeError(errno.ENODEV, f"{where}: /{target.path} is not enabled; write 1 to its enable first")
        with refusals(where):
            target.device.runtime.live.add_lun(place.group, place.index, target.device.unit, name)
        self._link = Link(name, self, f"/{target.path}")

    async def unlink(self, name: str) -> None:
        """Take the LUN away from everybody; mapped LUNs go with it."""
        with refusals(f"{self.path}/{name}"):
            self.place.group.remove_lun(self.place.index)
        self._link = None


class LunsGroup(ParentGroup):
    """``tpgt_N/lun``."""

    def __init__(self, parent: Group, group: TargetPortalGroup, core: CoreGroup) -> None:
        super().__init__("lun", parent)
        self.group = group
        self.core = core
        for index in group.luns:
            name = f"lun_{index}"
            self.groups[name] = LunGroup(name, self, LunPlace(group, index))

    async def create(self, name: str) -> MadeGroup:
        index = lun_number(name)
        if any(isinstance(each, LunGroup) and each.place.index == index for each in self.groups.values()):
            raise OSError(errno.EEXIST, "the LUN is there already")
        return LunGroup(name, self, LunPlace(self.group, index))
