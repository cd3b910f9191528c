"""The registry's rows as metrics of Prometheus (extra ``metrics``): read at scrape time, a collector of prometheus_client.

Making text of thousands of rows takes a while, and a thread that does it would have the event loop wait for the interpreter's
lock at each system call. So it is done in the event loop, in pieces between which initiators are served.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from anyio.lowlevel import checkpoint
from prometheus_client import CollectorRegistry, ProcessCollector, exposition
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from tcm.statistics.registry import Histogram, LunRow, NexusRow, PortRow, Snapshot, UnitRow

T = TypeVar("T")

PIECE = 100
"""Samples of a family that are made into text in one go (of histograms: five)."""
KINDS = ("read", "write", "other")
BUCKETS = range(3, 27)
"""Of :class:`tcm.target.latency.Latency`: from 8 us to 67 s; what took less or more is in the first or in +Inf."""
_OPENMETRICS, _VERSION = "application/openmetrics-text", "1.0.0"
UNIT = ("unit",)
PORT = ("fabric", "target", "tag")
LUN = (*PORT, "lun", "unit")
NEXUS = (*PORT, "initiator", "isid")


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric: what it is called, and its samples of a row."""

    name: str
    help: str
    labels: tuple[str, ...]
    """Beyond those of the row."""
    samples: Callable[[Any], Iterable[tuple[tuple[str, ...], float]]]
    gauge: bool = False


def _commands(row: UnitRow | LunRow | NexusRow) -> Iterator[tuple[tuple[str, ...], float]]:
    for kind in KINDS:
        yield (kind,), row.counted[f"{kind}_cmds"]


def _bytes(row: UnitRow | LunRow | NexusRow) -> Iterator[tuple[tuple[str, ...], float]]:
    yield ("in",), row.counted["read_bytes"]
    yield ("out",), row.counted["write_bytes"]


def _one(read: Callable[[Any], float]) -> Callable[[Any], Iterable[tuple[tuple[str, ...], float]]]:
    return lambda row: (((), read(row)),)


def _by(read: Callable[[Any], Mapping[str, int]]) -> Callable[[Any], Iterable[tuple[tuple[str, ...], float]]]:
    return lambda row: (((key,), count) for key, count in read(row).items())


_MOVED = ("Bytes of Data-In and Data-Out.", ("data",), _bytes)
_COMPLETED = ("Commands completed.", ("kind",), _commands)

UNITS = (
    Measure("tcm_unit_commands", *_COMPLETED),
    Measure(
        "tcm_unit_express_commands",
        "Of all commands completed those that took the express lane.",
        (),
        _one(lambda row: sum(row.counted[f"{kind}_cmds"] for kind in KINDS) - row.counted["task_cmds"]),
    ),
    Measure("tcm_unit_bytes", *_MOVED),
    Measure("tcm_unit_resets", "Logical unit resets.", (), _one(lambda row: row.resets)),
    Measure(
        "tcm_unit_aborts",
        "ABORT TASK functions, by whether there was such a task.",
        ("task",),
        lambda row: ((("found",), row.aborts_complete), (("none",), row.aborts_without_task)),
    ),
    Measure(
        "tcm_unit_task_set_full_statuses",
        "Commands that ended in TASK SET FULL.",
        (),
        _one(lambda row: row.task_set_full_statuses),
    ),
    Measure("tcm_unit_tasks", "Tasks in the task set.", (), _one(lambda row: row.tasks), gauge=True),
    Measure("tcm_unit_size_bytes", "Capacity.", (), _one(lambda row: row.size), gauge=True),
    Measure("tcm_unit_ready", "1 if the medium can be accessed.", (), _one(lambda row: int(row.ready)), gauge=True),
)
LUNS = (Measure("tcm_lun_commands", *_COMPLETED), Measure("tcm_lun_bytes", *_MOVED))
NEXUSES = (
    Measure("tcm_nexus_commands", *_COMPLETED),
    Measure("tcm_nexus_bytes", *_MOVED),
    Measure("tcm_nexus_tasks", "Tasks that have not ended.", (), _one(lambda row: row.tasks), gauge=True),
)
PORTS = (
    Measure("tcm_port_nexuses", "I_T nexuses of the target portal group.", (), _one(lambda row: row.nexuses), gauge=True),
    Measure("tcm_port_enabled", "1 if initiators may log in.", (), _one(lambda row: int(row.enabled)), gauge=True),
    Measure("tcm_port_busy_statuses", "Commands that ended in BUSY.", (), _one(lambda row: row.busy_statuses)),
)
PORTALS = (
    Measure("tcm_portal_connections", "Connections there are.", (), _one(lambda row: row.connections), gauge=True),
    Measure("tcm_portal_connections_accepted", "Connections there have been.", (), _one(lambda row: row.accepted)),
)
SESSIONS = (
    Measure("tcm_session_connections", "Connections of the session.", (), _one(lambda row: len(row.addresses)), gauge=True),
    Measure("tcm_session_commands", "SCSI commands that have arrived.", (), _one(lambda row: row.cmd_pdus)),
    Measure("tcm_session_responses", "Responses to them.", (), _one(lambda row: row.rsp_pdus)),
    Measure(
        "tcm_session_data_bytes",
        "Bytes of Data-In and Data-Out.",
        ("data",),
        lambda row: ((("in",), row.txdata_octets), (("out",), row.rxdata_octets)),
    ),
    Measure("tcm_session_digest_errors", "Digests that were wrong.", (), _one(lambda row: row.digest_errors)),
    Measure("tcm_session_timeout_errors", "What did not come in time.", (), _one(lambda row: row.timeout_errors)),
)
COUNTS = (
    Measure(
        "tcm_fabric_counts",
        "What the fabric counts of its own, such as frames that were dropped, and why.",
        ("what",),
        _by(lambda row: row.counts),
    ),
)
LEFT_OUT = (
    Measure(
        "tcm_left_out",
        "1 for each storage object and portal of the configuration that is not served, see tcm-ctl left-out.",
        (),
        _one(lambda _: 1),
        gauge=True,
    ),
)
LOGINS = (
    Measure("tcm_logins_accepted", "Logins that succeeded.", (), _one(lambda row: row.accepted)),
    Measure("tcm_logins_refused", "Logins that did not, by reason.", ("reason",), _by(lambda row: row.refused)),
    Measure("tcm_logouts", "Logouts, by reason.", ("reason",), _by(lambda row: row.logouts)),
    Measure(
        "tcm_session_failures", "Sessions that ended without a logout.", ("reason",), _by(lambda row: row.session_failures)
    ),
)


def _port(row: LunRow | NexusRow | PortRow) -> tuple[str, ...]:
    return row.fabric, row.target, str(row.tag)


class SnapshotCollector(Collector):
    """One snapshot as metric families; large ones come in pieces, each of which has the family's name."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """All families."""
        s = self._snapshot
        yield InfoMetricFamily("tcm_build", "What is running.", {"version": importlib.metadata.version("tcm-target")})
        yield from _families(UNITS, UNIT, [((row.path,), row) for row in s.units])
        yield from _histograms(s.units)
        yield from _families(LUNS, LUN, [((*_port(row), str(row.lun), row.unit), row) for row in s.luns])
        yield from _families(NEXUSES, NEXUS, [((*_port(row), row.initiator, row.isid), row) for row in s.nexuses])
        yield from _families(PORTS, PORT, [(_port(row), row) for row in s.ports])
        portals = [((fabric, row.portal), row) for fabric, rows in s.portals.items() for row in rows]
        yield from _families(PORTALS, ("fabric", "portal"), portals)
        sessions = [
            ((fabric, row.target, str(row.tag), row.initiator, row.isid), row)
            for fabric, rows in s.sessions.items()
            for row in rows
        ]
        yield from _families(SESSIONS, NEXUS, sessions)
        logins = [((fabric, row.target), row) for fabric, rows in s.logins.items() for row in rows]
        yield from _families(LOGINS, ("fabric", "target"), logins)
        counts = [((fabric, row.part), row) for fabric, rows in s.counts.items() for row in rows]
        yield from _families(COUNTS, ("fabric", "part"), counts)
        yield from _families(LEFT_OUT, ("kind", "name"), [((row.kind, row.name), row) for row in s.left_out])


def _families(
    measures: Iterable[Measure], labels: tuple[str, ...], rows: Sequence[tuple[tuple[str, ...], Any]]
) -> Iterator[Metric]:
    """Samples of equal labels are added up: an initiator port may have more than one nexus."""
    rows = [(tuple(map(_text, values)), row) for values, row in rows]
    for measure in measures:
        sums: Counter[tuple[str, ...]] = Counter()
        for values, row in rows:
            for more, value in measure.samples(row):
                sums[(*values, *more)] += value  # type: ignore[assignment]  # any number
        for piece in _pieces(sums.items(), PIECE):
            family: GaugeMetricFamily | CounterMetricFamily
            family = (GaugeMetricFamily if measure.gauge else CounterMetricFamily)(
                measure.name, measure.help, labels=(*labels, *measure.labels)
            )
            for key, value in piece:
                family.add_metric(key, value)
            yield family


def _text(value: str) -> str:
    """A name as UTF-8 can have it: others may come from initiators and files."""
    return value if value.isascii() else value.encode(errors="backslashreplace").decode()


def _pieces(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """At least one, which may be empty."""
    rest = iter(items)
    yield list(itertools.islice(rest, size))
    while piece := list(itertools.islice(rest, size)):
        yield piece


def _histograms(units: Iterable[UnitRow]) -> Iterator[Metric]:
    for name, text, kinds in (
        ("tcm_unit_task_seconds", "How long commands with a task took, from arrival to status.", KINDS),
        (
            "tcm_unit_express_seconds",
            "How long commands on the express lane took, from the arrival of their batch until its answers were sent.",
            ("express_read", "express_write"),
        ),
    ):
        for piece in _pieces(((unit, kind) for unit in units for kind in kinds), PIECE // 20):
            family = HistogramMetricFamily(name, text, labels=(*UNIT, "kind"))
            for unit, kind in piece:
                _add(family, (_text(unit.path), kind.removeprefix("express_")), unit.latency[kind])
            yield family


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    count = sum(histogram.buckets)
    if not count:
        return
    buckets = []
    seen = sum(histogram.buckets[: BUCKETS.start])
    for n in BUCKETS:
        seen += histogram.buckets[n]
        buckets.append((str(2.0**n / 1e6), float(seen)))
    buckets.append(("+Inf", float(count)))
    family.add_metric(labels, buckets, histogram.microseconds / 1e6)


class _Single(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header (RFC 9110 12.5.1) would rather have OpenMetrics 1.0.0, by its name, than plain text.

    Other versions are none that are spoken here; what makes no sense is not there.
    """
    openmetrics = text = 0.0
    for each in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        values = {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in parameters)}
        try:
            quality = float(values.get("q", "1"))
        except ValueError:
            continue
        if kind == _OPENMETRICS and values.get("version", _VERSION) == _VERSION:
            openmetrics = max(openmetrics, quality)
        elif kind in {"text/plain", "text/*", "*/*"}:
            text = max(text, quality)
    return openmetrics > 0 and openmetrics >= text


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    return exposition.choose_encoder(f"{_OPENMETRICS}; version={_VERSION}" if wants_openmetrics(accept) else "")


async def expose(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The text of all metrics and its content type, in the format that the Accept header of HTTP asks for."""
    encode, content_type = _encoder(accept)
    # nothing, or "# EOF"
    ends = encode(CollectorRegistry(auto_describe=False))
    parts = []
    before = ""
    process = ProcessCollector(registry=None)
    for metric in itertools.chain(SnapshotCollector(snapshot).collect(), process.collect()):
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Single(metric))
        text = encode(registry).removesuffix(ends)
        if metric.name == before:  # one more piece of a family: its HELP and TYPE have been said
            text = b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"# "))
        before = metric.name
        parts.append(text)
        await checkpoint()
    return b"".join([*parts, ends]), content_type
