"""A process that serves the toy tree at a control socket: ``python toy_server.py SOCKET``."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.toy_tree import toy_tree

from tcm.control.methods import Methods, Sources
from tcm.control.server import ControlServer


async def serve(path: str) -> None:
    tree = toy_tree()
    async with anyio.create_task_group() as tasks:
        await tasks.start(ControlServer(Methods(tree, Sources(version="toy")), path).run)
        print("ready", flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(serve, sys.argv[1])
