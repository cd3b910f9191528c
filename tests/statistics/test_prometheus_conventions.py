"""Prometheus's conventions for metrics, as ``promtool check metrics`` has them, and who gets which of the two formats."""

from __future__ import annotations

import re

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.statistics_site import apart, serving

from tcm.statistics.prometheus import expose, wants_openmetrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ABBREVIATED = {
    *(
        "s",
        "ms",
        "us",
        "ns",
        "sec",
        "secs",
        "second",
        "min",
        "minute",
        "minutes",
        "hour",
        "hours",
        "milliseconds",
        "microseconds",
    ),
    *("b", "kb", "mb", "gb", "kib", "mib", "gib", "byte", "bits", "kilobytes", "megabytes", "mebibytes"),
    *("percent", "pct", "percentage", "celsius", "usec", "msec", "nsec"),
}
"""Of units, or not base ones: it is seconds, bytes, ratios."""
TYPES = {"counter", "gauge", "histogram", "summary", "untyped", "metric"}


def complaints(family: Metric) -> list[str]:
    name, parts = family.name, family.name.split("_")
    found = []
    if not family.documentation.strip():
        found.append("no help text")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        found.append("no snake_case")
    if ABBREVIATED & set(parts):
        found.append("an abbreviated or no base unit")
    if TYPES & set(parts):
        found.append("the type is in the name")
    if family.type != "counter" and name.endswith("_total"):
        found.append("_total, and no counter")
    if family.type not in {"histogram", "summary"} and re.search(r"_(count|sum|bucket)$", name):
        found.append("a suffix of histograms")
    if {"seconds", "bytes"} & set(parts[:-1]):
        found.append("a unit that is not at the end")
    for sample in family.samples:
        own = {"le"} if family.type == "histogram" else set()
        if {"le", "quantile", "job", "instance"} & set(sample.labels) - own:
            found.append("a label that is Prometheus's own")
        if not all(re.fullmatch(r"[a-z][a-z0-9_]*", label) and not label.startswith("__") for label in sample.labels):
            found.append("a label that is none")
        if family.type == "counter" and not sample.name.endswith(("_total", "_created")):
            found.append("a counter without _total")
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_names_labels_and_help(accept: str) -> None:
    async with serving() as site:

        def work() -> None:
            with site.login() as i, site.connect().login(None):
                assert i.read(0, 8).status == 0

        await apart(work)
        content, _ = await expose(await site.statistics.gather(), accept)
        families = list((parse_openmetrics if accept else parse_text)(content.decode()))
        assert len({family.name for family in families}) == len(families) > 30
        assert {family.name: found for family in families if (found := complaints(family))} == {}
        lines = content.decode().splitlines()
        for kind in ("HELP", "TYPE"):
            assert sum(line.startswith(f"# {kind} ") for line in lines) == len(families)
        assert (lines[-1] == "# EOF") == bool(accept)


def test_the_complaints_are_heard() -> None:
    for name, kind, text in (
        ("tcm_latency_ms", "gauge", "x"),
        ("tcm_thing_total", "gauge", "x"),
        ("tcm_gauge", "gauge", "x"),
        ("tcm_thing", "gauge", " "),
        ("tcm_Thing", "gauge", "x"),
        ("tcm_seconds_spent", "gauge", "x"),
        ("tcm_thing_count", "gauge", "x"),
    ):
        assert len(complaints(Metric(name, text, kind))) == 1, name


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        (OPENMETRICS, True),
        # Prometheus 2.5, 2.42 and 3
        ("application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
        (
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
                "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
            ),
            True,
        ),
        (
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
                "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
            ),
            True,
        ),
        ("text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5", False),
        ("application/openmetrics-text;version=1.0.0;q=0", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("APPLICATION/OpenMetrics-Text ; Version=1.0.0 ; Q=1.0", True),
        ("application/openmetrics-text;q=often", False),
        ("application/openmetrics-text;q=nan", False),
        (";;;,=,;q", False),
    ],
)
@pytest.mark.anyio
async def test_who_gets_openmetrics(accept: str, openmetrics: bool) -> None:
    """Who would rather have it, in a version that is spoken, by its name (RFC 9110 12.5.1)."""
    assert wants_openmetrics(accept) == openmetrics
    async with serving() as site:
        content, content_type = await expose(site.statistics.snapshot(), accept)
        assert content_type.startswith(OPENMETRICS if openmetrics else "text/plain; version=0.0.4")
        assert content.endswith(b"# EOF\n") == openmetrics
