"""plugins.md: every block runs, every hook and method is there."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from support.documents import ROOT, blocks, commands
from support.programs import unavailable

from tcm import hookspecs
from tcm.adapters import MAX_THREADS
from tcm.backstore import Backstore, BlockingBackstore
from tcm.fabric import Fabric, TransportServices
from tcm.hookspecs import hookimpl
from tcm.plugins import PluginManager
from tcm.target.device import TargetDevice
from tcm.target.initiator_port import InitiatorPort
from tcm.target.node_acl import AccessControl

PAGE = "plugins.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
BLOCKS = blocks(PAGE)
HOOKS = {name: value for name, value in vars(hookspecs).items() if name.startswith("tcm_")}


def optional(cls) -> dict[str, object]:
    methods = {name: value for name, value in vars(cls).items() if inspect.isfunction(value) and not name.startswith("_")}
    return {name: value for name, value in methods.items() if name not in getattr(cls, "__abstractmethods__", ())}


def if_omitted(function) -> str:
    """The sentence after "If omitted:"."""
    found = re.search(r"If omitted: (.*)", " ".join(inspect.getdoc(function).split()))
    assert found, f"{function.__qualname__} has no 'If omitted:'"
    return re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"\1", found[1]).replace("`", "")


OPTIONAL = [
    *(
        (f"{cls.__name__}.{name}", value)
        for cls in (Backstore, BlockingBackstore, Fabric)
        for name, value in optional(cls).items()
    ),
    ("TransportServices.unsubmitted", TransportServices.unsubmitted),
    ("TransportServices.mode_pages_changed", TransportServices.mode_pages_changed),
    ("TransportServices.asynchronous_event", TransportServices.asynchronous_event),
    *HOOKS.items(),
]


@pytest.mark.parametrize(("name", "function"), OPTIONAL, ids=[name for name, _ in OPTIONAL])
def test_optional_things_are_named_with_what_happens_without_them(name, function):
    sentence = if_omitted(function)
    plain = TEXT.replace("`", "").replace("*", "")
    own = name.rpartition(".")[2]
    assert re.search(rf"^(async )?{own}\(", plain, re.MULTILINE), f"{name} has no entry"
    if name.startswith("BlockingBackstore."):
        assert "If omitted:" in plain.partition(f"{own}(")[2].partition("\n\n(async )?")[0]
    else:
        assert f"If omitted: {sentence}" in plain


@pytest.mark.parametrize("cls", [Backstore, BlockingBackstore, Fabric, TransportServices])
def test_required_methods_are_named(cls):
    for name in getattr(cls, "__abstractmethods__", ()):
        assert re.search(rf"`{name}`|`(async )?{name}\(", TEXT), name


def test_only_blocks_that_can_be_run():
    assert {block.language for block in BLOCKS} == {"python", "toml", "console", "text"}


def test_the_first_backstore_has_30_lines():
    first = BLOCKS[0]
    assert first.file == "plain_disk/plugin.py"
    code = [line for line in first.text.splitlines() if line.strip() and not line.startswith(("import", "from", "#"))]
    assert len(code) <= 30
    assert TEXT.count("\n", 0, TEXT.index("Its life:")) < 60, "the drawing is on the first screen"


def test_no_line_is_too_long_for_a_terminal():
    in_generated = False
    for number, line in enumerate(TEXT.splitlines(), 1):
        in_generated = line.startswith("<!-- generated") or (in_generated and line != "<!-- end -->")
        assert in_generated or len(line) <= 132 or line.startswith("|"), f"line {number} has {len(line)} characters"


def test_a_stranger_uses_every_hook():
    plugin = (ROOT / "tests/fixtures/acme/acme_tcm/plugin.py").read_text()
    assert [name for name in HOOKS if f'"{name}"' not in plugin] == []


def test_figures():
    assert f"up to {MAX_THREADS} threads" in " ".join(TEXT.split())


def test_links_lead_somewhere():
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in TEXT.splitlines() if line[:1] == "#"
    }
    for anchor in re.findall(r"\]\(#([^)]*)\)", TEXT):
        assert anchor in headings


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The page's distribution, as its blocks make it, and as an installer would leave it."""
    folder = tmp_path_factory.mktemp("plugins-md")
    for block in BLOCKS:
        if block.file:
            path = folder / block.file
            path.parent.mkdir(exist_ok=True)
            assert not path.exists(), f"{block.file} is there twice"
            path.write_text(block.text)
        elif block.language == "toml":
            (folder / "pyproject.toml").write_text(block.text)
    (folder / "plain_disk/__init__.py").touch()
    metadata = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"plain_disk-{metadata['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {metadata['name']}\nVersion: {metadata['version']}\n")
    points = "".join(f"{name} = {value}\n" for name, value in metadata["entry-points"]["tcm"].items())
    (info / "entry_points.txt").write_text(f"[tcm]\n{points}")
    return folder


def test_python_blocks(project, monkeypatch):
    """Those that are no files run one after the other in one namespace."""
    monkeypatch.syspath_prepend(str(project))
    module = type(sys)("plugins_md")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look there
    for block in BLOCKS:
        if block.language == "python" and not (block.file or "").startswith("tests/"):
            # compiled with the page's line numbers, for tracebacks
            exec(compile("\n" * block.line + block.text, PAGE, "exec"), vars(module))


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "console"], ids=lambda block: f"line{block.line}"
)
def test_console_blocks(project, tmp_path, block):
    environment = {
        "PYTHONPATH": str(project),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": f"-p no:cacheprovider --rootdir {project} --basetemp {tmp_path / 'pytest'}",
    }
    for command in commands(block):
        command.run(project, environment)


@pytest.mark.interop
def test_the_distribution_builds(project, tmp_path):
    """The wheel has the modules and the entry points."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(project)],
        capture_output=True,
        text=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        timeout=120,
        check=False,
    )
    if done.returncode and "hatchling" in done.stderr and "No matching distribution" in done.stderr:
        unavailable("hatchling cannot be had from the package index")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == "plain_disk-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        points = archive.read("plain_disk-1.0.dist-info/entry_points.txt").decode()
    assert {block.file for block in BLOCKS if (block.file or "").startswith("plain_disk/")} <= names
    assert "fence = plain_disk.fence" in points.partition("[tcm]")[2]


def hook_example(name: str) -> object:
    """A module with the code of a hook's docstring."""
    lines = inspect.getdoc(HOOKS[name]).partition("::\n\n")[2].partition("\n\nIf omitted:")[0]
    code = "\n".join(line.removeprefix("    ") for line in lines.splitlines())
    module = type(sys)(f"example_of_{name}")
    exec(compile(code, f"the example of {name}", "exec"), vars(module))
    return module


@pytest.mark.parametrize("name", ["tcm_fabrics", "tcm_backstores", "tcm_filters"])
def test_hook_examples_provide_something(name, caplog):
    plugins = PluginManager([])
    plugins.register(hook_example(name), name)
    assert not caplog.records
    (row,) = plugins.rows()
    assert (row.state, f"tcm_{row.kind}s") == ("ok", name)


@pytest.mark.parametrize("name", [name for name in HOOKS if name not in ("tcm_fabrics", "tcm_backstores", "tcm_filters")])
def test_hook_examples_are_notified(name, capsys):
    plugins = PluginManager([])
    plugins.register(hook_example(name), name)
    target = TargetDevice("iqn.example:target", "example")
    group = target.add_portal_group(1)
    group.access = AccessControl(generate_node_acls=True)
    nexus = group.establish_nexus(InitiatorPort("iqn.example:initiator"), TransportServices)  # nothing is called on it
    arguments = {
        "tcm_target_configured": (target,),
        "tcm_nexus_established": (nexus,),
        "tcm_nexus_lost": (nexus,),
        "tcm_unhandled_error": ("somewhere", ValueError("no")),
    }[name]
    getattr(plugins, name.removeprefix("tcm_"))(*arguments)
    assert capsys.readouterr().out.strip()


def test_a_hook_may_leave_arguments_out(capsys):
    class Plugin:
        @hookimpl
        def tcm_unhandled_error(self, where):
            print(where)

    plugins = PluginManager([])
    plugins.register(Plugin(), "fewer")
    plugins.unhandled_error("here", ValueError())
    assert capsys.readouterr().out == "here\n"
