#!/usr/bin/env python3
"""Run targetcli commands one by one and dump the tree after each; for LIO in a guest, and for tcm through ``tcm-ctl exec``.

Usage: lio_steps.py STEPS RESULTS [CONTROL]: a JSON list of command lines, and a file for a list of {step, output, tree}. With
tcm's control socket the tree is asked for there, which takes less time, and in the end read from the file system as well.

It needs nothing but Python. targetcli is one process with its commands from a pipe: to start it takes longer than what it does.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

TOP = "/sys/kernel/config/target"
PROMPT = "/> "


def value(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return file.read().replace(b"\0", b"").decode(errors="replace").rstrip("\n")
    except OSError as error:
        return f"! {error.strerror}"


def dump(top: str = TOP) -> dict[str, list[object]]:
    """For each path mode and content; a folder has neither, a link has where it leads to."""
    found: dict[str, list[object]] = {}
    folders = [top]
    while folders:
        folder = folders.pop()
        for entry in os.scandir(folder):
            where = entry.path[len(top) + 1 :]
            if entry.is_symlink():
                leads = os.path.normpath(os.path.join(folder, os.readlink(entry.path)))
                found[where] = [None, leads[leads.index("/target/") + 7 :]]
            elif entry.is_dir(follow_symlinks=False):
                found[where] = [None, None]
                folders.append(entry.path)
            else:
                mode = entry.stat().st_mode & 0o777
                found[where] = [mode, value(entry.path) if mode & 0o400 else None]
    return found


def listed(control: str) -> dict[str, list[object]]:
    """The same from tcm's control socket."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "list", "params": {"path": "", "depth": -1, "values": True}}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(control)
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as file:
            found: dict[str, list[object]] = {}
            _gather(json.loads(file.readline())["result"], "", found)
            return found


def _gather(node: dict[str, Any], path: str, found: dict[str, list[object]]) -> None:
    for name, each in node.get("children", {}).items():
        where = f"{path}{name}"
        if each["kind"] == "group":
            found[where] = [None, None]
            _gather(each, f"{where}/", found)
        elif each["kind"] == "link":
            found[where] = [None, each["target"]]
        else:
            error = each.get("error")
            text = f"! {os.strerror(error['errno'])}" if error else each.get("value", "").rstrip("\n")
            found[where] = [each["mode"], text if each["mode"] & 0o400 else None]


class Targetcli:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["targetcli"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self.answer()

    def answer(self) -> str:
        """What it says until it asks for the next command."""
        said = b""
        while not said.endswith(PROMPT.encode()):
            part = os.read(self.process.stdout.fileno(), 65536)  # type: ignore[union-attr]
            if not part:
                return said.decode() + "! targetcli has ended"
            said += part
        return said.decode()[: -len(PROMPT)]

    def command(self, line: str) -> str:
        self.process.stdin.write(line.encode() + b"\n")  # type: ignore[union-attr]
        return self.answer()


def main(steps: str, results: str, control: str = "") -> None:
    with open(steps, encoding="utf-8") as file:
        lines = json.load(file)
    targetcli = Targetcli()
    found = []
    for line in lines:
        output = targetcli.command(line)
        found.append({"step": line, "output": output, "tree": listed(control) if control else dump()})
    if control:
        read, told = dump(), listed(control)
        # where this program's own dbroot is written it stays
        for path, (_, content) in told.items():
            if "/password" in path:
                told[path] = [0o600, content]  # secrets are their owner's there
        different = {path for path in read.keys() | told.keys() if read.get(path) != told.get(path)} - {"dbroot"}
        assert not different, {path: (read.get(path), told.get(path)) for path in different}
    targetcli.process.stdin.close()  # type: ignore[union-attr]
    targetcli.process.wait()
    with open(results + ".new", "w", encoding="utf-8") as file:
        json.dump(found, file)
    os.rename(results + ".new", results)


if __name__ == "__main__":
    main(*sys.argv[1:])
