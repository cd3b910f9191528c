"""docs/grafana-dashboard.json asks for metrics that there are, by labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from support.documents import ROOT
from support.statistics_site import serving

from tcm.statistics.prometheus import (
    LOGINS,
    LUN,
    LUNS,
    NEXUS,
    NEXUSES,
    PORT,
    PORTALS,
    PORTS,
    SESSIONS,
    UNIT,
    UNITS,
    SnapshotCollector,
)

DASHBOARD = json.loads((ROOT / "docs/grafana-dashboard.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
MEASURES = (
    (UNITS, UNIT),
    (LUNS, LUN),
    (NEXUSES, NEXUS),
    (PORTS, PORT),
    (PORTALS, ("fabric", "portal")),
    (SESSIONS, NEXUS),
    (LOGINS, ("fabric", "target")),
)


def known() -> dict[str, set[str]]:
    """Sample name to labels, ``instance`` and ``le`` included."""
    found = {
        each.name + ("" if each.gauge else "_total"): {*labels, *each.labels, "instance"}
        for measures, labels in MEASURES
        for each in measures
    }
    for name in ("tcm_unit_task_seconds", "tcm_unit_express_seconds"):
        found[f"{name}_bucket"] = {*UNIT, "kind", "le", "instance"}
    found |= {"tcm_build_info": {"version", "instance"}, "process_cpu_seconds_total": {"instance"}}
    return found


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        query: Any = variable["query"]
        if isinstance(query, dict):
            yield query["query"]


@pytest.mark.parametrize("expression", list(expressions()))
def test_expressions_ask_for_what_there_is(expression: str) -> None:
    metrics = known()
    names = re.findall(r"\b(?:tcm|process)_\w+", expression)
    assert names
    for name in names:
        assert name in metrics
        for labels in re.findall(rf"{name}\{{([^}}]*)\}}", expression):
            assert set(re.findall(r"(\w+)=", labels)) <= metrics[name]
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert set(group.split(", ")) <= set.union(*(metrics[name] for name in names))
    assert expression.count("(") == expression.count(")")


@pytest.mark.anyio
async def test_every_family_is_in_the_table_of_the_page() -> None:
    prefixes = re.findall(r"`((?:tcm|process)_\w+?)(?:\.\.\.)?`", PAGE)
    async with serving() as site:
        families = {family.name for family in SnapshotCollector(site.statistics.snapshot()).collect()}
    assert families - {"tcm_build"} == {
        name for name in families if any(name.startswith(each.removesuffix("_total")) for each in prefixes)
    }
