"""A tree whose groups hold whatever is made in them: for tests of the ways in, not of what is inside."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from tcm.configfs.node import Attribute, Group, Link, Node, Tree, TreeError


class Text(Attribute):
    def __init__(self, name: str, parent: Group, value: str, *, readable: bool = True, writable: bool = True) -> None:
        super().__init__(name, parent)
        self.value = value
        self.readable = readable
        self.writable = writable

    def read(self) -> str:
        if not self.readable:
            return super().read()
        return f"{self.value}\n"

    async def write(self, text: str) -> None:
        if text.strip() == "bad":
            raise TreeError(errno.EINVAL, f"{self.path}: write anything but bad")
        self.value = text.strip()


class Toy(Group):
    def __init__(self, name: str, parent: Group | None) -> None:
        super().__init__(name, parent)
        self.nodes: dict[str, Node] = {}
        self.nodes["value"] = Text("value", self, "0")
        self.nodes["info"] = Text("info", self, f"I am {name or 'the root'}", writable=False)
        self.nodes["control"] = Text("control", self, "", readable=False)

    def children(self) -> Mapping[str, Node]:
        return self.nodes

    async def make(self, name: str) -> Group:
        if name.startswith("bad"):
            raise TreeError(errno.EINVAL, f"{self.path}/{name}: write a name that does not start with bad")
        made = self.nodes[name] = Toy(name, self)
        return made

    async def remove(self, name: str) -> None:
        node = self.nodes[name]
        if isinstance(node, Toy) and any(isinstance(each, Group | Link) for each in node.nodes.values()):
            raise TreeError(errno.EBUSY, f"{node.path}: in use")
        del self.nodes[name]

    async def link(self, name: str, target: Group) -> None:
        if target is self:
            raise TreeError(errno.EINVAL, f"{self.path}/{name}: links go elsewhere")
        self.nodes[name] = Link(name, self, f"/{target.path}")

    async def unlink(self, name: str) -> None:
        del self.nodes[name]


def toy_tree() -> Tree:
    root = Toy("", None)
    core = root.nodes["core"] = Toy("core", root)
    core.nodes["disk"] = Toy("disk", core)
    root.nodes["iscsi"] = Toy("iscsi", root)
    return Tree(root)
