"""The one place that knows where everything is counted: it walks logical units, targets and I_T nexuses, and asks fabrics.

Everything is read in the event loop, and what is returned are plain values, which may then go to another thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from anyio.lowlevel import checkpoint

from tcm.fabric_statistics import CountsRow, LoginRow, PortalRow, SessionRow
from tcm.statistics import lio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tcm.fabric import Fabric
    from tcm.fabric_statistics import FabricStatistics
    from tcm.target.device import TargetDevice
    from tcm.target.latency import Latency
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.lun import Lun, MappedLun
    from tcm.target.nexus import ITNexus
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import TargetPortalGroup

T = TypeVar("T")
R = TypeVar("R")

PACE = 20
"""Rows that :meth:`Statistics.gather` makes in one go."""

Texts = dict[str, dict[str, str | None]]
"""Of a ``statistics/`` directory: see :func:`tcm.statistics.lio.texts`."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """What :class:`~tcm.target.latency.Latency` held at one moment."""

    buckets: tuple[int, ...]
    microseconds: int

    @classmethod
    def of(cls, latency: Latency) -> Histogram:
        """A copy."""
        return cls(tuple(latency.buckets), latency.microseconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRow:
    """A logical unit."""

    path: str
    """``/backstores/<plugin>/<name>``."""
    serial: str
    size: int
    """Bytes."""
    ready: bool
    tasks: int
    """In the task set now."""
    counted: Counter[str]
    """By the names in :data:`tcm.target.counters.COUNTERS`."""
    resets: int
    aborts_complete: int
    aborts_without_task: int
    task_set_full_statuses: int
    latency: Mapping[str, Histogram]
    """By the names of :class:`tcm.target.latency.UnitLatency`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LunRow:
    """A logical unit as a target port exports it."""

    fabric: str
    target: str
    tag: int
    lun: int
    unit: str
    """Its path."""
    counted: Counter[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NexusRow:
    """An I_T nexus."""

    fabric: str
    target: str
    tag: int
    initiator: str
    isid: str
    """Hexadecimal; empty where there is none."""
    address: str
    tasks: int
    """Unfinished ones."""
    counted: Counter[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRow:
    """A target portal group."""

    fabric: str
    target: str
    tag: int
    enabled: bool
    nexuses: int
    busy_statuses: int


class LeftOutRow(Protocol):
    """What of a saved configuration is not served."""

    @property
    def kind(self) -> str:
        """``storage object`` or ``portal``."""

    @property
    def name(self) -> str:
        """Its path; its address and port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything at one moment."""

    units: Sequence[UnitRow]
    luns: Sequence[LunRow]
    nexuses: Sequence[NexusRow]
    ports: Sequence[PortRow]
    portals: Mapping[str, Sequence[PortalRow]]
    """By fabric; likewise:"""
    sessions: Mapping[str, Sequence[SessionRow]]
    logins: Mapping[str, Sequence[LoginRow]]
    counts: Mapping[str, Sequence[CountsRow]]
    left_out: Sequence[LeftOutRow] = ()


class Statistics:
    """Reads what is counted.

    :param units: logical units by path; :param targets: target devices; :param fabrics: running fabrics by name. All three are
        looked at anew each time.
    :param left_out: what of the configuration is not served.
    """

    def __init__(
        self,
        units: Mapping[str, LogicalUnit],
        targets: Sequence[TargetDevice],
        fabrics: Mapping[str, Fabric],
        left_out: Callable[[], Sequence[LeftOutRow]] = tuple,
    ) -> None:
        self._left_out = left_out
        self.units = units
        self.targets = targets
        self.fabrics = fabrics
        self.instance_of: Callable[[LogicalUnit], int] = lambda _: 1
        """The number of the HBA that a unit hangs on in LIO's tree (set by whoever has such a tree)."""

    def of_fabric(self, name: str) -> FabricStatistics | None:
        """What a fabric counts, if it does."""
        fabric = self.fabrics.get(name)
        return fabric.statistics() if fabric is not None else None

    # LIO's tree

    def device(self, unit: LogicalUnit) -> Texts:
        """``core/<HBA>/<DEV>/statistics/``."""
        return lio.texts(lio.device_groups(unit, self.instance_of(unit)))

    def lun(self, lun: Lun) -> Texts:
        """``tpgt_N/lun/lun_M/statistics/``."""
        return lio.texts(lio.lun_groups(lun, self.instance_of(lun.logical_unit)))

    def mapped_lun(self, group: TargetPortalGroup, acl: NodeAcl, mapped: MappedLun) -> Texts:
        """``acls/<initiator>/lun_K/statistics/``."""
        return lio.texts(lio.mapped_lun_groups(group, acl, mapped))

    def target(self, target: TargetDevice) -> Texts:
        """``<wwn>/fabric_statistics/``."""
        own = self.of_fabric(target.fabric_name)
        return lio.texts(own.target_groups(target)) if own is not None else {}

    def node_acl(self, group: TargetPortalGroup, acl: NodeAcl) -> Texts:
        """``acls/<initiator>/fabric_statistics/``."""
        own = self.of_fabric(group.target.fabric_name)
        return lio.texts(own.node_acl_groups(group, acl)) if own is not None else {}

    # everything

    def groups(self) -> Iterator[TargetPortalGroup]:
        """Of all target devices."""
        for target in self.targets:
            yield from target.portal_groups.values()

    def snapshot(self) -> Snapshot:
        """All rows, at once."""
        return self._assemble(
            [_unit_row(path, unit) for path, unit in self.units.items()],
            [self._lun_row(paths, lun) for paths, lun in self._luns()],
            [_nexus_row(nexus) for nexus in self._nexuses()],
        )

    async def gather(self) -> Snapshot:
        """The same, with initiators served in between: rows are not all of the same moment."""
        return self._assemble(
            await _paced(lambda item: _unit_row(*item), list(self.units.items())),
            await _paced(lambda item: self._lun_row(*item), self._luns()),
            await _paced(_nexus_row, self._nexuses()),
        )

    def _assemble(self, units: list[UnitRow], luns: list[LunRow], nexuses: list[NexusRow]) -> Snapshot:
        counting = {name: own for name in self.fabrics if (own := self.of_fabric(name)) is not None}
        return Snapshot(
            units=units,
            luns=luns,
            nexuses=nexuses,
            ports=[_port_row(group) for group in self.groups()],
            portals={name: own.portals() for name, own in counting.items()},
            sessions={name: own.sessions() for name, own in counting.items()},
            logins={name: own.logins() for name, own in counting.items()},
            counts={name: own.counts() for name, own in counting.items()},
            left_out=self._left_out(),
        )

    def _luns(self) -> list[tuple[dict[LogicalUnit, str], Lun]]:
        """Of all groups, with the paths of units."""
        paths = {unit: path for path, unit in self.units.items()}
        return [(paths, lun) for group in self.groups() for lun in group.luns.values()]

    def _nexuses(self) -> list[ITNexus]:
        return [nexus for group in self.groups() for nexus in group.nexuses]

    @staticmethod
    def _lun_row(paths: dict[LogicalUnit, str], lun: Lun) -> LunRow:
        return LunRow(
            **_names(lun.port),
            lun=lun.number,
            unit=paths.get(lun.logical_unit, lun.logical_unit.name),
            counted=lun.totals(),
        )


async def _paced(make: Callable[[T], R], items: list[T]) -> list[R]:
    rows = []
    for n, item in enumerate(items, 1):
        rows.append(make(item))
        if n % PACE == 0:
            await checkpoint()
    return rows


def _names(group: TargetPortalGroup) -> dict[str, Any]:
    return {"fabric": group.target.fabric_name, "target": group.target.name, "tag": group.tag}


def _port_row(group: TargetPortalGroup) -> PortRow:
    return PortRow(**_names(group), enabled=group.enabled, nexuses=len(group.nexuses), busy_statuses=group.busy_statuses)


def _nexus_row(nexus: ITNexus) -> NexusRow:
    port = nexus.initiator_port
    return NexusRow(
        **_names(nexus.target_portal_group),
        initiator=port.name,
        isid=port.isid.hex() if port.isid else "",
        address=port.address,
        tasks=len(nexus.tasks),
        counted=nexus.totals(),
    )


def _unit_row(path: str, unit: LogicalUnit) -> UnitRow:
    task_set, latency = unit.task_set, unit.latency
    return UnitRow(
        path=path,
        serial=unit.serial,
        size=unit.blocks << unit.block_shift,
        ready=unit.ready,
        tasks=len(task_set.enabled) + len(task_set.dormant),
        counted=unit.totals(),
        resets=unit.resets,
        aborts_complete=unit.aborts_complete,
        aborts_without_task=unit.aborts_without_task,
        task_set_full_statuses=unit.task_set_full_statuses,
        latency={name: Histogram.of(getattr(latency, name)) for name in type(latency).__slots__},
    )
