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

from tcm.cli.ctl_output import from_the_left, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tcm.cli.ctl_session import Ctl

_NUMBERS = ("r/s", "w/s", "other/s", "read/s", "write/s")
_RATES = ("reads", "writes", "others", "read_bytes", "write_bytes")
_PERCENTILES = (0.5, 0.99, 0.999)
_NARROW = 100
"""Columns below which the least interesting number is left out, for names."""
_SPARED = {"other/s"}
_WIDE = 120
"""Columns from which on there is room for the target of a session."""


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
                ctl.console.print(view(found, ctl.console.width))
        return
    with Live(console=ctl.console, screen=count is None, auto_refresh=False, transient=False) as live:
        shown = 0
        while count is None or shown <= count:
            live.update(view(rates.add(_snapshot(ctl)), ctl.console.width, ctl.console.height - 1), refresh=True)
            shown += 1
            if count is None or shown <= count:
                time.sleep(interval)


def _snapshot(ctl: Ctl) -> dict[str, Any]:
    return {**ctl.call("units"), "sessions": ctl.call("sessions")}


def view(found: Mapping[str, Any], width: int, height: int = 10_000) -> Group:
    """A line that sums it up and both tables, the busiest first, within ``height`` lines."""
    room = max(height - 7, 4)
    units = sorted(found["units"], key=_business, reverse=True)
    sessions = sorted(found["sessions"], key=_business, reverse=True)
    for_units = max(room // 2, room - len(sessions))
    for_sessions = room - min(for_units, len(units))
    return Group(
        _summary(units, sessions),
        _units(units[:for_units], width),
        _rest(len(units) - for_units, "LUNs"),
        _sessions(sessions[:for_sessions], width),
        _rest(len(sessions) - for_sessions, "sessions"),
    )


def _summary(units: Sequence[Mapping[str, Any]], sessions: Sequence[Mapping[str, Any]]) -> Text:
    read, written = (size_text(round(sum(each[name] for each in units))) for name in ("read_bytes", "write_bytes"))
    commands = sum(map(_business, units))
    parts = (
        f"{len(units)} LUNs",
        f"{len(sessions)} sessions",
        f"{commands:,.0f} IOPS",
        f"{read}/s read",
        f"{written}/s written",
    )
    return Text(f"{time.strftime('%H:%M:%S')}  {', '.join(parts)}", style="bold", no_wrap=True, overflow="ellipsis")


def _business(each: Mapping[str, Any]) -> float:
    return float(each["reads"] + each["writes"] + each["others"])


def _rest(count: int, what: str) -> Text:
    return Text(f"and {count} more {what}" if count > 0 else "", style="dim")


def _table(first: Mapping[str, Sequence[str]], last: Sequence[str], rows: Sequence[Sequence[Text]], width: int) -> Table:
    """Numbers whole; what is left of ``width`` is shared by the names, which are cut at their beginning."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    numbers = [name for name in (*_NUMBERS, *last) if width >= _NARROW or name not in _SPARED]
    rows = [[row[at] for at, name in enumerate((*_NUMBERS, *last)) if name in numbers] for row in rows]
    wide = [max([len(name), *(len(row[at]) for row in rows)]) for at, name in enumerate(numbers)]
    room = width - sum(wide) - 2 * (len(wide) + len(first) - 1)
    for left, (name, texts) in zip(range(len(first), 0, -1), first.items(), strict=True):
        wanted = max([len(name), *map(len, texts)])
        given = min(wanted, max(room // left, len(name)))
        room -= given
        table.add_column(name, no_wrap=True, min_width=given, max_width=given)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    limits = [column.max_width or 0 for column in table.columns]
    for names, row in zip(zip(*first.values(), strict=True), rows, strict=True):
        table.add_row(*(from_the_left(text, limit) for text, limit in zip(names, limits, strict=False)), *row)
    return table


def _cells(each: Mapping[str, Any]) -> list[Text]:
    numbers = [_number(each[name]) for name in ("reads", "writes", "others")]
    return [*numbers, *(_styled(size_text(round(each[name])), each[name]) for name in ("read_bytes", "write_bytes"))]


def _number(value: float) -> Text:
    return _styled(f"{value:,.0f}", value)


def _styled(text: str, value: float) -> Text:
    return Text(text, style="" if value >= 0.5 else "dim")


def _units(units: Sequence[Mapping[str, Any]], width: int) -> Table:
    rows = []
    for each in units:
        latency = each.get("latency", {})
        percentiles = [_time(latency.get(f"{share:g}")) for share in _PERCENTILES]
        rows.append([*_cells(each), *percentiles, Text(str(each["queue"]))])
    names = {"LUN": [each["path"].removeprefix("/backstores/") for each in units]}
    return _table(names, ("p50", "p99", "p99.9", "queue"), rows, width)


def _sessions(sessions: Sequence[Mapping[str, Any]], width: int) -> Table:
    rows = [[*_cells(each), Text(str(each["luns"])), Text(str(each["queue"]))] for each in sessions]
    names = {
        "from": [each["address"].rpartition(":")[0] or each["address"] for each in sessions],
        "initiator": [each["initiator"] for each in sessions],
    }
    if width >= _WIDE:
        names["target"] = [f"{each['target']} {each['tag']}" for each in sessions]
    return _table(names, ("LUNs", "queue"), rows, width)


def _time(microseconds: int | None) -> Text:
    if microseconds is None:
        return Text("-", style="dim")
    if microseconds < 1000:
        return Text(f"{microseconds} us")
    if microseconds < 1_000_000:
        return Text(f"{microseconds / 1000:.0f} ms", style="yellow" if microseconds > 100_000 else "")
    return Text(f"{microseconds / 1e6:.1f} s", style="red")
