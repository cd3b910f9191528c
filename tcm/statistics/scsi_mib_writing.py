"""What managers may set in SCSI-MIB: names, whether there are notifications, node ACLs and mapped LUNs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi import lun as lun_codec
from tcm.statistics import mib_edits
from tcm.statistics.agentx import Error
from tcm.statistics.mib_edits import device_index, own, port_index, set_own, unit_index
from tcm.statistics.mib_state import NON_VOLATILE, VOLATILE
from tcm.statistics.mib_writing import TRUTH, Creation, Edit, Refused, Writer
from tcm.statistics.scsi_mib_rows import DEVICE, TRUE, Authorized, DeviceRow, Mapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tcm.statistics.mib import Oid
    from tcm.statistics.mib_state import MibState
    from tcm.statistics.mib_writing import Document
    from tcm.statistics.registry import Statistics
    from tcm.target.device import TargetDevice
    from tcm.target.portal_group import TargetPortalGroup

ALIAS = 79
"""Bytes of scsiInstAlias and scsiDeviceAlias."""
NAME = 262
"""Bytes of a ScsiName."""


class ScsiWriting:
    """Writers of the module's columns, and how its rows are made."""

    def __init__(self, statistics: Statistics, state: MibState) -> None:
        self._statistics = statistics
        self._state = state
        self.instance_alias = Writer(self._set_alias, maximum=ALIAS, text=True)
        self.notifications = Writer(lambda _, value: [set_own("notifications", value == TRUE)], choices=TRUTH)
        self.storage = Writer(self._set_storage, choices=frozenset(range(1, 6)))
        self.device_alias = Writer(self._set_device_alias, maximum=ALIAS, text=True)
        self.authorized = Creation("scsiAuthIntrRowStatus", ("scsiAuthIntrName",), self._authorize, self._withdraw)
        self.map_unit = Writer(self._remap, minimum=1)
        self.maps = Creation("scsiLunMapRowStatus", ("scsiLunMapLuIndex",), self._map, self._unmap)

    # the instance and its devices

    @staticmethod
    def _set_alias(_: Any, value: bytes) -> list[Edit]:
        return [set_own("alias", value.decode())]

    def _set_storage(self, _: Any, value: int) -> list[Edit]:
        if value not in {VOLATILE, NON_VOLATILE}:
            raise Refused(Error.WRONG_VALUE, f"StorageType {value}: volatile(2) or nonVolatile(3)")
        if value == NON_VOLATILE and self._state.path is None:
            raise Refused(Error.INCONSISTENT_VALUE, "there is no state directory to keep anything in")
        return [set_own("storage", value)]

    @staticmethod
    def _set_device_alias(row: DeviceRow, value: bytes) -> list[Edit]:
        def change(document: Document) -> None:
            aliases = dict(document["aliases"])
            if value:
                aliases[row.key] = value.decode()
            else:
                aliases.pop(row.key, None)
            document["aliases"] = aliases

        return [own(change)]

    # node ACLs

    def _group(self, index: Oid) -> TargetPortalGroup:
        """By scsiDeviceIndex and scsiPortIndex."""
        for group in self._statistics.groups():
            where = device_index(self._state.indexes, group.target), port_index(self._state.indexes, group)
            if where == index:
                return group
        raise Refused(Error.NO_CREATION, "there is no such target port; 0, all ports of a device, is none")

    def _authorize(self, index: Oid, values: Mapping[str, Any]) -> list[Edit]:
        if len(index) != 4 or index[0] != 1:
            raise Refused(Error.NO_CREATION, "there is no such instance")
        group, number = self._group(index[1:3]), index[3]
        if values.get("scsiAuthIntrDevOrPort", DEVICE) != DEVICE:
            raise Refused(Error.INCONSISTENT_VALUE, "initiator devices are authorized, not ports", "scsiAuthIntrDevOrPort")
        if values.get("scsiAuthIntrLunMapIndex", number) != number:
            raise Refused(
                Error.INCONSISTENT_VALUE, "each has a LUN map of its own, with its own index", "scsiAuthIntrLunMapIndex"
            )
        try:
            name = values["scsiAuthIntrName"].decode("ascii")
        except UnicodeDecodeError:
            raise Refused(Error.WRONG_VALUE, "no name of an initiator", "scsiAuthIntrName") from None
        return [mib_edits.claim_acl(self._state.indexes, group, name, number), mib_edits.add_node_acl(group, name)]

    @staticmethod
    def _withdraw(_: Oid, row: Authorized) -> list[Edit]:
        return [mib_edits.remove_node_acl(row.group, row.acl)]

    # mapped LUNs

    def _target(self, index: int) -> TargetDevice | None:
        return next((each for each in self._statistics.targets if device_index(self._state.indexes, each) == index), None)

    def _lun(self, group: TargetPortalGroup, wanted: int) -> int:
        """The lowest LUN of the port that leads to a logical unit."""
        found = [number for number, lun in group.luns.items() if unit_index(self._state.indexes, lun.logical_unit) == wanted]
        if not found:
            raise Refused(Error.INCONSISTENT_VALUE, "the target port has no such logical unit", "scsiLunMapLuIndex")
        return min(found)

    def _map(self, index: Oid, values: Mapping[str, Any]) -> list[Edit]:
        target = self._target(index[1]) if len(index) == 11 and index[0] == 1 else None
        found = mib_edits.find_acl(self._state.indexes, target, index[2]) if target is not None else None
        if found is None:
            raise Refused(Error.NO_CREATION, "there is no such LUN map; that of a node ACL has its index")
        number = lun_codec.decode(bytes(index[3:])) if all(each < 256 for each in index[3:]) else None
        if number is None or lun_codec.encode(number) != bytes(index[3:]):
            raise Refused(Error.NO_CREATION, "no LUN is written like this here")
        return [mib_edits.map_lun(*found, number, self._lun(found[0], values["scsiLunMapLuIndex"]))]

    def _remap(self, row: Mapped, value: int) -> list[Edit]:
        if value == unit_index(self._state.indexes, row.mapped.lun.logical_unit):
            return []
        return [mib_edits.map_lun(row.group, row.acl, row.mapped.number, self._lun(row.group, value))]

    @staticmethod
    def _unmap(_: Oid, row: Mapped) -> list[Edit]:
        return [mib_edits.unmap_lun(row.group, row.acl, row.mapped.number)]
