"""What ``tcm-ctl`` shows to people: trees, tables, plans."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tcm.command_line.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SECRET = "password"  # noqa: S105 - the beginning of a name
_NOT_FABRICS = {"core"}
_FILE = re.compile(r"\bFile: (?P<path>.*?)  Size: ")
_SIZE = re.compile(r"\bSize: (?P<bytes>\d+)|PAGES/PAGE_SIZE: (?P<pages>\d+)\*(?P<page>\d+)")
_OWN_SIZE = re.compile(r"\bsize=(?P<bytes>\d+)")
"""Of a backstore that LIO has no plugin for: an option."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def hidden(name: str) -> bool:
    """An attribute that is shown to who asks for it by name only."""
    return name.startswith(_SECRET)


def size_text(count: float) -> str:
    """``1.5 GiB``."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" or count == int(count) else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def tree(listing: Mapping[str, Any], path: str) -> Tree:
    """A part of the tree as it is."""
    made = Tree(Text(f"/{path}", style="bold"), guide_style="dim")
    _fill(made, listing)
    return made


def _fill(branch: Tree, node: Mapping[str, Any]) -> None:
    if node["kind"] == "attribute":
        branch.label = _attribute(str(branch.label), node)
    if node["kind"] == "link":
        branch.label = Text.assemble(str(branch.label), (" -> ", "dim"), (node["target"], "cyan"))
    children = node.get("children", {})
    for name, child in children.items():
        if child["kind"] == "attribute":
            branch.add(_attribute(name, child))
        elif child["kind"] == "link":
            branch.add(Text.assemble((name, "cyan"), (" -> ", "dim"), (child["target"], "cyan")))
        else:
            _fill(branch.add(Text(f"{name}/", style="bold blue")), child)


def _attribute(name: str, node: Mapping[str, Any]) -> Text:
    if "value" in node:
        value = "***" if hidden(name) and node["value"].strip() else printable(node["value"].rstrip("\n"))
        if "\n" in value:
            value = "\n" + "\n".join(f"  {line}" for line in value.splitlines())
        return Text.assemble(name, ("=", "dim"), (value, "green" if node["mode"] & 0o200 else "dim"))
    if "error" in node:
        return Text.assemble(name, (f"  {node['error']['name']}", "red"))
    return Text.assemble(name, ("  (write only)", "dim"))


# the overview


def overview(
    listing: Mapping[str, Any], sessions: Iterable[Mapping[str, Any]], missing: Sequence[Mapping[str, Any]] = ()
) -> Tree:
    """What is served to whom, as targetcli's ``ls``, and what is not."""
    made = Tree(Text("/", style="bold"), guide_style="dim")
    children = listing["children"]
    where = _exports(children)
    _backstores(made, _groups(children.get("core", {})), where)
    logged_in: dict[tuple[str, str, str], int] = {}
    for each in sessions:
        key = (each["target"], f"tpgt_{each['tag']}", each["initiator"])
        logged_in[key] = logged_in.get(key, 0) + 1
    for name, fabric in children.items():
        if name not in _NOT_FABRICS and fabric["kind"] == "group":
            _fabric(made, name, _groups(fabric), logged_in)
    if missing:
        branch = made.add(Text(f"left out  {len(missing)}, tcm-ctl left-out tells more", style="red"))
        for each in missing:
            branch.add(Text.assemble((printable(each["name"]), "bold"), (f"  {printable(each['reason'])}", "dim")))
    return made


def left_out(missing: Sequence[Mapping[str, Any]]) -> Text:
    """What of the configuration is not served: what, why, where."""
    text = Text()
    for each in missing:
        text.append(printable(each["name"]), style="bold red").append(f"  {printable(each['reason'])}\n")
        for where in each["where"]:
            text.append(f"    {printable(where)}\n", style="dim")
    text.rstrip()
    return text if missing else Text("nothing is left out")


def _groups(node: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: each for name, each in node.get("children", {}).items() if each["kind"] == "group"}


def _links(node: Mapping[str, Any]) -> list[str]:
    return [each["target"].strip("/") for each in node.get("children", {}).values() if each["kind"] == "link"]


def _value(node: Mapping[str, Any], *names: str) -> str:
    for name in names:
        node = node.get("children", {}).get(name, {})
    return printable(str(node.get("value", "")).strip())


def _exports(children: Mapping[str, Any]) -> dict[str, int]:
    """How often each device is exported as a LUN."""
    found: dict[str, int] = {}
    for fabric in children.values():
        for target in _groups(fabric).values():
            for group in _groups(target).values():
                for lun in _groups(group.get("children", {}).get("lun", {})).values():
                    for each in _links(lun):
                        found[each] = found.get(each, 0) + 1
    return found


def _backstores(made: Tree, hbas: Mapping[str, Any], exported: Mapping[str, int]) -> None:
    devices = {
        f"core/{hba}/{name}": device for hba, node in hbas.items() if hba != "alua" for name, device in _groups(node).items()
    }
    branch = made.add(_heading("core", len(devices), "storage object"))
    for path, device in devices.items():
        info = _value(device, "info")
        parts: list[Any] = [(path.removeprefix("core/"), "bold")]
        if (count := _bytes(info)) is not None:
            parts.append(f"  {size_text(count)}")
        file = _FILE.search(info)
        if where := _value(device, "udev_path") or (file["path"] if file else ""):
            parts.append((f"  {where}", "dim"))
        if _value(device, "enable") == "0":
            parts.append(("  not enabled", "yellow"))
        elif path not in exported:
            parts.append(("  not exported", "yellow"))
        elif exported[path] > 1:
            parts.append((f"  {exported[path]} LUNs", "dim"))
        branch.add(Text.assemble(*parts))


def _bytes(info: str) -> int | None:
    """The size that a device's ``info`` tells."""
    size = _SIZE.search(info)
    if size is None:
        own = _OWN_SIZE.search(info)
        return int(own["bytes"]) if own is not None else None
    return int(size["bytes"]) if size["bytes"] else int(size["pages"]) * int(size["page"])


def _fabric(made: Tree, name: str, targets: Mapping[str, Any], logged_in: Mapping[tuple[str, str, str], int]) -> None:
    targets = {each: node for each, node in targets.items() if any(child.startswith("tpgt_") for child in _groups(node))}
    branch = made.add(_heading(name, len(targets), "target"))
    for wwn, target in targets.items():
        target_branch = branch.add(Text(wwn, style="bold"))
        for tag, group in _groups(target).items():
            if tag.startswith("tpgt_"):
                _portal_group(target_branch, wwn, tag, group, logged_in)


def _portal_group(
    branch: Tree, wwn: str, tag: str, group: Mapping[str, Any], logged_in: Mapping[tuple[str, str, str], int]
) -> None:
    enabled = _value(group, "enable")
    state = ("  disabled", "red") if enabled == "0" else ("  enabled", "green")
    security = []
    if _value(group, "attrib", "authentication") == "1":
        security.append("CHAP")
    if _value(group, "attrib", "generate_node_acls") == "1":
        security.append("any initiator")
    tpg = branch.add(Text.assemble((tag, "bold"), state, (f"  {', '.join(security)}" if security else "", "yellow")))
    children = group.get("children", {})
    acls = _groups(children.get("acls", {}))
    for name, node in _groups(children.get("lun", {})).items():
        tpg.add(Text.assemble(name, (" -> ", "dim"), (", ".join(_links(node)).removeprefix("core/") or "nothing", "cyan")))
    for name in _groups(children.get("np", {})):
        tpg.add(Text.assemble(("portal ", "dim"), name))
    for name, node in acls.items():
        count = logged_in.get((wwn, tag, name), 0)
        online = (f"  {count} session{'s' if count > 1 else ''}", "green") if count else ("", "")
        acl = tpg.add(Text.assemble(("initiator ", "dim"), (name, "bold"), online))
        for mapped, lun in _groups(node).items():
            if mapped.startswith("lun_"):
                where = ", ".join(_links(lun)).rpartition("/")[2]
                protected = ("  read-only", "yellow") if _value(lun, "write_protect") == "1" else ("", "")
                acl.add(Text.assemble(mapped, (" -> ", "dim"), (where, "cyan"), protected))
    for (target, group_tag, initiator), count in logged_in.items():
        if (target, group_tag) == (wwn, tag) and initiator not in acls:
            text = f"  {count} session{'s' if count > 1 else ''}, no ACL"
            tpg.add(Text.assemble(("initiator ", "dim"), (initiator, "bold"), (text, "green")))


def _heading(name: str, count: int, what: str) -> Text:
    return Text.assemble((name, "bold blue"), (f"  {count or 'no'} {what}{'' if count == 1 else 's'}", "dim"))


# tables


def sessions(found: Sequence[Mapping[str, Any]], width: int) -> Table | Text:
    """Who is logged in: a table, or some lines for each where ``width`` columns are too few for whole names."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("initiator", "from", "target", "tpg", "LUNs", "commands", "read", "written"):
        table.add_column(column, justify="right" if column in {"commands", "read", "written"} else "left", no_wrap=True)
    lines = Text()
    for each in found:
        counted = each["luns"]
        commands = sum(lun["read_cmds"] + lun["write_cmds"] + lun["other_cmds"] for lun in counted)
        read, written = (size_text(sum(lun[name] for lun in counted)) for name in ("read_bytes", "write_bytes"))
        luns = " ".join(f"{lun['lun']}={lun['unit']}{' (ro)' if lun['write_protect'] else ''}" for lun in counted)
        table.add_row(each["initiator"], each["address"], each["target"], str(each["tag"]), luns, str(commands), read, written)
        lines.append(f"{each['initiator']}", style="bold").append(f"\n    from {each['address']}")
        lines.append(f"\n    to {each['target']} tpg {each['tag']}\n    LUNs {luns or 'none'}")
        lines.append(f"\n    {commands} commands, {read} read, {written} written\n", style="dim")
    lines.rstrip()
    return table if table_width(table) <= width else lines


def table_width(table: Table) -> int:
    """Columns that it takes if nothing of it is cut."""
    from rich.console import Console

    return Console(width=10_000).measure(table).maximum


def from_the_left(text: str, width: int) -> str:
    """At most that wide; what names have in common is at their beginning, so that it is cut there."""
    return text if len(text) <= width else f"…{text[len(text) - max(width - 1, 0) :]}" if width > 1 else "…"[:width]


_COMMON = 3
"""Names of a path that make a heading: a portal group, a storage object."""
_SIGNS = {
    "make": ("+", "green"),
    "link": ("+", "green"),
    "remove": ("-", "red"),
    "unlink": ("-", "red"),
    "write": ("~", "yellow"),
    "leave out": ("!", "red"),
}


def plan(operations: Sequence[Mapping[str, Any]], *, done: bool = False, headings: bool = False) -> Text:
    """The operations of a plan, a line each, and how many.

    :param headings: whole paths are too long for a terminal: what operations have in common stands above them.
    """
    text = Text()
    counts = {"+": 0, "~": 0, "-": 0, "!": 0}
    above = ""
    for each in operations:
        sign, style = _SIGNS[each["action"]]
        counts[sign] += 1
        path = each["path"]
        if headings:
            heading = "/".join(path.split("/")[:-1][:_COMMON])
            if heading and heading != above:
                text.append(f"{heading}\n", style="bold")
            above, path = heading, path[len(heading) :].lstrip("/")
        value = (
            f" -> {each['value']}" if each["action"] == "link" else f" = {each['value']}" if each["action"] == "write" else ""
        )
        before = f"  (was {each['before']})" if each.get("before") is not None else ""
        indent = "  " if above else ""
        line = [printable(each.replace("\n", " ")) for each in (value, before)]
        text.append(f"{indent}{sign} {path}", style=style).append(line[0]).append(f"{line[1]}\n", style="dim")
        if "not_taken" in each:
            why = "not taken" if sign != "!" else "left out"
            text.append(f"{indent}  {why}: {printable(each['not_taken'])}\n", style="yellow")
    made, changed, removed, missing = counts.values()
    if not any((made, changed, removed)):
        return text.append("nothing to change")
    summary = (
        f"done: {made} made, {changed} set, {removed} removed"
        if done
        else f"to do: {made} to make, {changed} to set, {removed} to remove"
    )
    summary += f", {missing} left out" if missing else ""
    missed = sum("not_taken" in each for each in operations) - missing
    return text.append(f"{summary}, {missed} of it not taken, see above" if missed else summary, style="bold")
