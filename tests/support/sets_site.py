"""A target that SNMP SETs are carried out in, without an SNMP agent: columns by their names, and what they say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.compiled_mibs import load
from support.lio_tree import Site as TreeSite
from support.lio_tree import serving

from tcm.cli import serve
from tcm.cli.control_plane import ControlPlane, Ways
from tcm.statistics.agentx import Error, Wanted
from tcm.statistics.mib import Oid, Syntax, View
from tcm.statistics.mib_state import MibState
from tcm.statistics.sets import Setter
from tcm.statistics.snmp import Agent

IQN = "iqn.2003-01.org.example:t1"
INITIATOR = "iqn.2003-01.org.example:i"
SECRET = "a secret of twelve"
GROUP = f"iscsi/{IQN}/tpgt_1"
COLUMNS = load("SCSI-MIB")[0] | load("ISCSI-MIB")[0] | load("IPS-AUTH-MIB")[0]
FINE = (Error.NO_ERROR, 0)
Value = int | bytes | Oid


class Site:
    """A target with two logical units, and what carries SETs out."""

    def __init__(self, tree: TreeSite, directory: Path) -> None:
        self.tree = tree
        self.directory = directory
        self.state = MibState(str(directory))
        ways = Ways(state_directory=str(directory))
        self.configurator: Any = serve.settings(tree.tree, tree.runtime, ControlPlane(ways))
        self.now = 1000.0
        self.connect()

    def connect(self) -> None:
        """As after a new connection to the master agent."""
        self.view = View(Agent("/nowhere", self.tree.runtime.statistics, self.state).modules())
        self.setter = Setter(self.view, self.state, lambda: self.configurator)

    async def test(self, *wanted: tuple[str, Oid, Value], transaction: int = 1) -> tuple[Error, int]:
        binds = [Wanted((*COLUMNS[name].oid, *index), Syntax[COLUMNS[name].syntax], value) for name, index, value in wanted]
        return await self.setter.test(transaction, binds, self.now)

    async def set(self, *wanted: tuple[str, Oid, Value]) -> tuple[Error, int]:
        answer = await self.test(*wanted)
        if answer == FINE:
            answer = await self.setter.commit(1)
        self.setter.cleanup(1)
        return answer

    def get(self, name: str, index: Oid) -> Any:
        self.now += 2
        found = self.view.get((*COLUMNS[name].oid, *index), self.now)
        return found[1] if found is not None else None

    def rows(self, name: str) -> dict[Oid, Any]:
        """Of a column."""
        self.now += 2
        found, at, depth = {}, COLUMNS[name].oid, len(COLUMNS[name].oid)
        while (step := self.view.next(at, (), self.now)) is not None and step[0][:depth] == COLUMNS[name].oid:
            at = step[0]
            found[at[depth:]] = step[2]
        return found

    async def export(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.configurator.export()
        return found


@asynccontextmanager
async def site(directory: Path) -> AsyncIterator[Site]:
    async with serving(directory, "iscsi", "loopback") as tree:
        await tree.make_all(f"{GROUP}/lun/lun_0", f"{GROUP}/lun/lun_4", f"{GROUP}/acls/{INITIATOR}", f"iscsi/{IQN}/tpgt_2")
        for number in (0, 4):
            await tree.link(f"{GROUP}/lun/lun_{number}/link", await tree.ramdisk(f"ram{number}"))
        await tree.write(f"{GROUP}/acls/{INITIATOR}/auth/password", f"{SECRET}\n")
        await tree.write(f"{GROUP}/acls/{INITIATOR}/auth/userid", "user\n")
        yield Site(tree, directory)
