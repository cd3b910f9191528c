"""``tcm-ctl top``: a live view of sessions and LUNs, from the differences of counters."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tcm.cli.ctl_output import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tcm.cli.ctl import Ctl

_RATES = ("reads", "writes", "others", "read_bytes", "write_bytes")
_PERCENTILES = (0.5, 0.99, 0.999)


class Rates:
    """Two snapshots become one of rates."""

    def __init__(self) -> None:
        self._before: dict[str, Any] | None = None

    def add(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        """Rates a second since the last one, zero for what is new: ``units`` and ``sessions``, each a list."""
        before = self._before or snapshot
        seconds = max(snapshot["time"] - before["time"], 1e-6)
        old_sessions = {_key(each): each for each in before["sessions"]}
        self._before = snapshot
        return {
            "seconds": seconds if before is not snapshot else 0.0,
            "units": [
                {"path": path, "queue": unit["queue"], **_rates([unit], [before["units"].get(path, unit)], seconds)}
                | _latencies(unit, before["units"].get(path, unit))
                for path, unit in snapshot["units"].items()
            ],
            "sessions": [
                {
                    **{name: each[name] for name in ("initiator", "target", "tag", "address", "queue")},
                    "luns": len(each["luns"]),
                    **_rates(each["luns"], old_sessions.get(_key(each), each)["luns"], seconds),
                }
                for each in snapshot["sessions"]
            ],
        }


def _key(session: Mapping[str, Any]) -> tuple[Any, ...]:
    return (session["target"], session["tag"], session["initiator"], session["isid"])


def _rates(now: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, float]:
    """Counters start anew with a new nexus: never less than zero."""
    names = ("read_cmds", "write_cmds", "other_cmds", "read_bytes", "write_bytes")
    return {
        rate: max(0, sum(each[name] for each in now) - sum(each[name] for each in before)) / seconds
        for rate, name in zip(_RATES, names, strict=True)
    }


def _latencies(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Microseconds that half, 99% and 99.9% of commands did not exceed; ``None`` while there are none."""
    if "latency" not in now:
        return {}
    histograms: list[int] = []
    for name, buckets in now["latency"].items():
        old = before["latency"][name]
        histograms = histograms or [0] * len(buckets)
        histograms = [total + new - was for total, new, was in zip(histograms, buckets, old, strict=True)]
    return {"latency": {f"{share:g}": _quantile(histograms, share) for share in _PERCENTILES}}


def _quantile(buckets: Sequence[int], share: float) -> int | None:
    """The upper end of the bucket; bucket ``n`` ends at ``2 ** n``."""
    wanted = share * sum(buckets)
    seen = 0
    for number, count in enumerate(buckets):
        seen += count
        if count and seen >= wanted:
            return 1 << number
    return None


def run(ctl: Ctl, interval: float, count: int | None) -> None:
    """Until Ctrl-C, or ``count`` times."""
    rates = Rates()
    if ctl.as_json or not ctl.console.is_terminal:
        rates.add(_snapshot(ctl))
        for _ in range(count or 1):
            time.sleep(interval)
            found = rates.add(_snapshot(ctl))
            if ctl.as_json:
                click.echo(json.dumps(found))
            else:
                ctl.console.print(view(found))
        return
    with Live(console=ctl.console, screen=count is None, auto_refresh=False, transient=False) as live:
        shown = 0
        while count is None or shown <= count:
            live.update(view(rates.add(_snapshot(ctl)), ctl.console.height - 1), refresh=True)
            shown += 1
            if count is None or shown <= count:
                time.sleep(interval)


def _snapshot(ctl: Ctl) -> dict[str, Any]:
    return {**ctl.call("units"), "sessions": ctl.call("sessions")}


def view(found: Mapping[str, Any], height: int = 10_000) -> Group:
    """Both tables, the busiest first, within ``height`` lines."""
    room = max(height - 6, 4)
    units = sorted(found["units"], key=_business, reverse=True)
    sessions = sorted(found["sessions"], key=_business, reverse=True)
    for_units = max(room // 2, room - len(sessions))
    for_sessions = room - min(for_units, len(units))
    return Group(
        _units(units[:for_units]),
        _rest(len(units) - for_units, "LUNs"),
        _sessions(sessions[:for_sessions]),
        _rest(len(sessions) - for_sessions, "sessions"),
    )


def _business(each: Mapping[str, Any]) -> float:
    return float(each["reads"] + each["writes"] + each["others"])


def _rest(count: int, what: str) -> Text:
    return Text(f"and {count} more {what}" if count > 0 else "", style="dim")


def _table(first: Sequence[str], last: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for column in first:
        table.add_column(column, overflow="ellipsis", no_wrap=True, ratio=1)
    for column in ("IOPS r", "w", "other", "read/s", "written/s", *last):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cells(each: Mapping[str, Any]) -> list[Text]:
    numbers = [_number(each[name]) for name in ("reads", "writes", "others")]
    return [*numbers, *(_styled(size_text(round(each[name])), each[name]) for name in ("read_bytes", "write_bytes"))]


def _number(value: float) -> Text:
    return _styled(f"{value:,.0f}", value)


def _styled(text: str, value: float) -> Text:
    return Text(text, style="" if value >= 0.5 else "dim")


def _units(units: Iterable[Mapping[str, Any]]) -> Table:
    table = _table(("LUN",), ("p50", "p99", "p99.9", "queue"))
    for each in units:
        latency = each.get("latency", {})
        percentiles = [_time(latency.get(f"{share:g}")) for share in _PERCENTILES]
        table.add_row(each["path"].removeprefix("/backstores/"), *_cells(each), *percentiles, str(each["queue"]))
    return table


def _sessions(sessions: Iterable[Mapping[str, Any]]) -> Table:
    table = _table(("initiator", "from", "target"), ("LUNs", "queue"))
    for each in sessions:
        where = f"{each['target']} {each['tag']}"
        table.add_row(each["initiator"], each["address"], where, *_cells(each), str(each["luns"]), str(each["queue"]))
    return table


def _time(microseconds: int | None) -> Text:
    if microseconds is None:
        return Text("-", style="dim")
    if microseconds < 1000:
        return Text(f"{microseconds} us")
    if microseconds < 1_000_000:
        return Text(f"{microseconds / 1000:.0f} ms", style="yellow" if microseconds > 100_000 else "")
    return Text(f"{microseconds / 1e6:.1f} s", style="red")
