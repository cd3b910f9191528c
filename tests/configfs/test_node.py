"""The tree's operations by themselves: paths, revisions, who changed what, and what is refused everywhere."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.configfs.node import KEPT_CHANGES, PAGE, Link, Tree, TreeError, split
from tcm.configfs.table import MadeGroup, MadeParent, ParentGroup, refusals
from tcm.tree_types import TreeAttribute

VALUES: dict[str, str] = {}


def store(owner, text):
    if text == "slow":
        return slowly(owner)
    if text == "no":
        raise ValueError("write yes")
    VALUES[owner] = text
    return None


async def slowly(owner):
    await anyio.sleep(0.05)
    VALUES[owner] = "slow"


TABLE = {
    "both": TreeAttribute(lambda owner: VALUES.get(owner, ""), store),
    "shown": TreeAttribute(lambda owner: owner),
    "written": TreeAttribute(None, store),
}


class Box(MadeParent):
    async def create(self, name: str) -> MadeGroup:
        if name == "bad":
            raise ValueError("write good")
        return Box(name, self, TABLE, name)

    async def link(self, name, target):
        self.groups[name] = Link(name, self, f"/{target.path}")

    async def unlink(self, name):
        del self.groups[name]


class Root(ParentGroup):
    async def create(self, name: str) -> MadeGroup:
        return Box(name, self, TABLE, name)


@pytest.fixture
def tree():
    VALUES.clear()
    return Tree(Root("target", None))


def error_of(caught):
    assert "\n" not in str(caught.value)
    return caught.value.name


@pytest.mark.anyio
async def test_modes_and_contents(tree):
    await tree.make("a")
    assert {name: node.mode for name, node in tree.group("a").children().items()} == {
        "both": 0o644,
        "shown": 0o444,
        "written": 0o200,
    }
    assert tree.read("a/both") == ""
    await tree.write("a/both", "  text \n")
    assert tree.read("/a/both/") == "text\n"
    with pytest.raises(TreeError) as caught:
        tree.read("a/written")
    assert error_of(caught) == "EACCES"
    with pytest.raises(TreeError) as caught:
        await tree.write("a/shown", "x")
    assert error_of(caught) == "EACCES"
    with pytest.raises(TreeError) as caught:
        await tree.write("a/both", "no")
    assert error_of(caught) == "EINVAL"


@pytest.mark.anyio
async def test_paths_that_lead_nowhere(tree):
    await tree.make("a")
    for path, name in (
        ("b", "ENOENT"),
        ("a/b/c", "ENOENT"),
        ("a/both/x", "ENOTDIR"),
        ("a/../a", "EINVAL"),
        ("./a", "EINVAL"),
        ("a\0", "EINVAL"),
    ):
        with pytest.raises(TreeError) as caught:
            tree.find(path)
        assert error_of(caught) == name
    for path, name in (("a", "EISDIR"), ("", "EISDIR")):
        with pytest.raises(TreeError) as caught:
            tree.read(path)
        assert error_of(caught) == name
    assert tree.find("//a///both").path == "a/both"


@pytest.mark.anyio
async def test_what_cannot_be_made(tree):
    await tree.make("a")
    for path, name in (
        ("a", "EEXIST"),
        ("", "EEXIST"),
        ("a/both", "EEXIST"),
        ("none/b", "ENOENT"),
        ("a/both/b", "ENOTDIR"),
        ("a/bad", "EINVAL"),
        ("x" * 256, "ENAMETOOLONG"),
        ("a\nb", "EINVAL"),
        ("\udcff", "EINVAL"),
        ("..", "EINVAL"),
    ):
        with pytest.raises(TreeError) as caught:
            await tree.make(path)
        assert error_of(caught) == name, path
    assert tree.revision == 1


@pytest.mark.anyio
async def test_removing(tree):
    await tree.make("a")
    await tree.make("a/b")
    for path, name in (("a", "ENOTEMPTY"), ("a/both", "ENOTDIR"), ("", "EBUSY"), ("c", "ENOENT")):
        with pytest.raises(TreeError) as caught:
            await tree.remove(path)
        assert error_of(caught) == name
    await tree.link("a/link", "a/b")
    assert tree.group("a/link").path == "a/b"
    for path, name in (("a/b", "EPERM"), ("a/both", "EPERM")):
        with pytest.raises(TreeError) as caught:
            await tree.unlink(path)
        assert error_of(caught) == name
    with pytest.raises(TreeError) as caught:
        await tree.remove("a/link")
    assert error_of(caught) == "ENOTDIR"
    await tree.unlink("a/link")
    await tree.remove("a/b")
    await tree.remove("a")
    assert not tree.root.children()


@pytest.mark.anyio
async def test_a_lost_race_says_who_changed_what(tree):
    await tree.make("a", who="ann")
    seen = tree.revision
    await tree.write("a/both", "1", revision=seen, who="ann")
    for operation in (
        tree.write("a/both", "2", revision=seen, who="bob"),
        tree.make("b", revision=seen, who="bob"),
        tree.remove("a", revision=seen, who="bob"),
        tree.link("a/l", "a", revision=seen, who="bob"),
        tree.unlink("a/l", revision=seen, who="bob"),
    ):
        with pytest.raises(TreeError, match="ann wrote a/both") as caught:
            await operation
        assert error_of(caught) == "ESTALE"
    assert tree.read("a/both") == "1\n"
    assert [(change.who, change.what) for change in tree.changes] == [("ann", "made a"), ("ann", "wrote a/both")]


@pytest.mark.anyio
async def test_what_was_written_is_not_told(tree):
    await tree.make("a")
    await tree.write("a/both", "secretsecret")
    assert "secretsecret" not in str(tree.changes)


@pytest.mark.anyio
async def test_two_writers_take_turns(tree):
    await tree.make("a")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tree.write, "a/both", "slow")
        await anyio.sleep(0.01)
        tasks.start_soon(tree.write, "a/both", "last")
    assert tree.read("a/both") == "last\n"


@pytest.mark.anyio
async def test_too_much_and_nuls(tree):
    await tree.make("a")
    await tree.write("a/both", "x" * PAGE)
    for text in ("x" * (PAGE + 1), "x" * (1 << 20), "a\0b", "é" * PAGE):
        with pytest.raises(TreeError) as caught:
            await tree.write("a/both", text)
        assert error_of(caught) == "EINVAL"
        assert len(str(caught.value)) < 200
    assert tree.read("a/both") == "x" * PAGE + "\n"


@pytest.mark.anyio
async def test_the_list_of_changes_is_bounded(tree):
    await tree.make("a")
    for _ in range(KEPT_CHANGES + 5):
        await tree.write("a/both", "1")
    assert len(tree.changes) == KEPT_CHANGES
    with pytest.raises(TreeError, match="and 252 more"):
        await tree.write("a/both", "2", revision=1)


@given(st.text())
def test_split_never_leads_up(text):
    pieces = [piece for piece in text.split("/") if piece]
    if any(piece in {".", ".."} or "\0" in piece for piece in pieces):
        with pytest.raises(TreeError) as caught:
            split(text)
        assert caught.value.name == "EINVAL"
    else:
        assert split(text) == pieces


def test_errors_of_the_system_keep_their_number():
    with pytest.raises(TreeError) as caught, refusals("here"):
        open("/nonexistent/file")  # noqa: SIM115 - it is not there
    assert error_of(caught) == "ENOENT"
    assert str(caught.value).startswith("here: ")
