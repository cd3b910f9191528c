"""Who may import whom (docs: the layers of the architecture), found by reading the imports of every module.

Imports under ``if TYPE_CHECKING:`` bind nobody at run time and are left out.
"""

from __future__ import annotations

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "tcm": ROOT / "tcm",
    "tcm_iscsi": ROOT / "fabrics/iscsi/tcm_iscsi",
    "tcm_fcoe": ROOT / "fabrics/fcoe/tcm_fcoe",
    "tcm_loopback": ROOT / "fabrics/loopback/tcm_loopback",
    "tcm_backstores": ROOT / "backstores/tcm_backstores",
}
COMMAND_LINES = ("tcm.cli", "tcm.command_line")
FABRICS = ("tcm_iscsi", "tcm_fcoe", "tcm_loopback")

IMPURE = ("socket", "ssl", "asyncio", "time", "random", "os", "anyio", "select", "threading", "subprocess", "logging.handlers")
"""What code without I/O, clock and chance does not import."""

LAYERS = (
    ("tcm.scsi",),
    (
        "tcm.backstore",
        "tcm.filter",
        "tcm.fabric",
        "tcm.fabric_statistics",
        "tcm.plugin_types",
        "tcm.tree_types",
        "tcm.hookspecs",
        "tcm.failure",
    ),
    (
        "tcm.options",
        "tcm.option_syntax",
        "tcm.json_reader",
        "tcm.reasons",
        "tcm.adapters",
        "tcm.plugins",
        "tcm.target",
        "tcm.command_line",
        "tcm.initiator",
    ),
    ("tcm.configuration", "tcm.saveconfig_names", "tcm.saveconfig_alua", "tcm.saveconfig", "tcm.statistics"),
    ("tcm.runtime", "tcm.live", "tcm.left_out", "tcm.probing"),
    ("tcm.configfs",),
    ("tcm.control",),
    ("tcm.cli", "tcm.testing"),
)
"""A module imports its own layer and those before it."""


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


@functools.cache
def imports(name: str, *, deferred: bool = True) -> frozenset[str]:
    """Every module that ``name`` imports at run time, inside functions too (``deferred``)."""
    path = MODULES[name]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for each in node.orelse:
                visit(each)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not deferred:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            for _ in range(node.level - 1):
                package = package.rpartition(".")[0]
            base = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module or ""
            found.update(f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(), str(path)))
    return frozenset(found)


def parents(name: str) -> list[str]:
    """The packages that are loaded before the module."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def layer(name: str) -> int | None:
    return next((index for index, packages in enumerate(LAYERS) if within(name, packages)), None)


def test_every_core_module_is_in_a_layer():
    assert [name for name in MODULES if name.startswith("tcm.") and layer(name) is None] == []


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("tcm.")])
def test_core_imports_downwards(name):
    own = layer(name)
    assert own is not None
    wrong = {each for each in imports(name) if (layer(each) if layer(each) is not None else -1) > own}
    assert not wrong, f"{name} imports {sorted(wrong)} of a later layer"
    assert not {each for each in imports(name) if each.partition(".")[0] in {*FABRICS, "tcm_backstores"}} or within(
        name, ("tcm.testing",)
    )


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("tcm.scsi") or ".protocol" in name])
def test_pure_modules_have_no_io_clock_or_chance(name):
    found = imports(name)
    assert not {each for each in found if within(each, IMPURE)}
    # of ours: tcm.scsi, and for a protocol what is beside it
    allowed = ("tcm.scsi", name.partition(".protocol")[0] + ".protocol")
    ours = {each for each in found if each.partition(".")[0] in PACKAGES}
    assert not {each for each in ours if not within(each, allowed)}


INITIATORS = {
    "tcm.initiator": ("cli", "driver"),
    "tcm_iscsi.initiator": ("wire", "transport", "driver", "__main__", "cli"),
    "tcm_fcoe.initiator": ("driver", "link_services", "__main__", "cli"),
}
"""The modules of each that do I/O."""
COMMON_TO_INITIATORS = ("tcm.initiator.results", "tcm.initiator.commands", "tcm.failure")
"""Without I/O themselves."""
CORE_OF_COMMAND_LINES = ("tcm.command_line", "tcm.initiator", "tcm.backstore", "tcm.options", "tcm.option_syntax")
SHARED_WITH_TARGETS = {
    "tcm.initiator": CORE_OF_COMMAND_LINES,
    "tcm_iscsi.initiator": CORE_OF_COMMAND_LINES,
    "tcm_fcoe.initiator": (*CORE_OF_COMMAND_LINES, "tcm_fcoe.link", "tcm_fcoe.capture", "tcm_fcoe.hba"),
}
"""What those modules may use besides the protocol; FCoE's opens interfaces, and says of which kind they are."""
INITIATOR_MODULES = [(own, name) for own in INITIATORS for name in MODULES if within(name, (own,)) and name != own]


@pytest.mark.parametrize("own, name", INITIATOR_MODULES)
def test_the_initiator_has_io_at_its_edge_only(own, name):
    """It knows nothing of the target's side but the protocol that both speak."""
    found = imports(name)
    with_io = tuple(f"{own}.{each}" for each in INITIATORS[own])
    protocol = (own, own.replace(".initiator", ".protocol"), "tcm.scsi", *COMMON_TO_INITIATORS)
    ours = {each for each in found if each.partition(".")[0] in PACKAGES}
    if within(name, with_io):
        assert not {each for each in ours if not within(each, (*protocol, *SHARED_WITH_TARGETS[own]))}
        return
    assert not {each for each in found if within(each, IMPURE)}
    assert not {each for each in ours if not within(each, protocol)}
    assert not {each for each in ours if within(each, with_io)}


PACKET_CLASSES = ("scapy.packet", "scapy.fields", "scapy.layers.l2")
"""All of scapy that a protocol may import: the rest opens sockets, or takes long to load."""
CAPTURE_FILES = ("scapy.data", "scapy.utils", "scapy.error")
SCAPY_IS_FOR = (
    "tcm_fcoe.capture",
    "tcm_fcoe.decode",
    "tcm_fcoe.protocol.ladder",
    "tcm_fcoe.protocol.ladder_text",
    "tcm_fcoe.protocol.layers",
    "tcm_fcoe.protocol.link_service_layers",
)
"""People who look at frames; no frame that is sent or received passes them."""


def test_scapy_is_for_looking_at_frames():
    for name in MODULES:
        found = {each for each in imports(name) if within(each, ("scapy",))}
        allowed = PACKET_CLASSES if ".protocol" in name else (*PACKET_CLASSES, *CAPTURE_FILES)
        assert not {each for each in found if not within(each, allowed)}, name
        assert not found or name in SCAPY_IS_FOR
        if name not in SCAPY_IS_FOR:  # it takes a fifth of a second to load: only who needs it waits for it
            assert not imports(name, deferred=False) & set(SCAPY_IS_FOR), name


@pytest.mark.parametrize("name", [name for name in MODULES if name.partition(".")[0] in FABRICS])
def test_fabrics_know_no_other_fabric_and_no_backstore(name):
    own = name.partition(".")[0]
    others = (*(each for each in FABRICS if each != own), "tcm_backstores")
    assert not {each for each in imports(name) if within(each, others)}
    private = {each for each in imports(name) if within(each, ("tcm.runtime", "tcm.cli", "tcm.plugins", "tcm.configuration"))}
    assert not private, f"{name} imports {sorted(private)}: a fabric gets what it needs as arguments"


def test_only_links_of_fcoe_touch_the_network():
    users = {name for name in MODULES if within(name, ("tcm_fcoe",)) and {"socket", "fcntl", "mmap"} & imports(name)}
    assert users
    assert all(within(name, ("tcm_fcoe.link",)) for name in users)


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("tcm_backstores")])
def test_backstores_know_no_fabric_and_no_target(name):
    assert not {
        each for each in imports(name) if within(each, (*FABRICS, "tcm.target", "tcm.runtime", "tcm.cli", "tcm.plugins"))
    }


def test_no_module_imports_itself_by_way_of_others():
    """While it is loaded, that is: then any module can be the first that is imported."""
    with_packages = {
        name: {each for module in imports(name, deferred=False) for each in [module, *parents(module)]} for name in MODULES
    }
    graph = {name: (found & MODULES.keys()) - {name, *parents(name)} for name, found in with_packages.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_pluggy_is_the_plugin_managers_business():
    users = {name for name in MODULES if within("pluggy", tuple(imports(name)))}
    assert users == {"tcm.plugins", "tcm.hookspecs"}


def test_only_the_command_lines_start_an_event_loop():
    starters = set()
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"anyio.run", "asyncio.run", "trio.run"}:
                starters.add(name)
    assert {name for name in starters if not within(name, (*COMMAND_LINES, "tcm.testing"))} == set()
    assert starters


def test_rich_is_imported_only_where_a_table_is_made():
    users = {name for name in MODULES if any(within(each, ("rich",)) for each in imports(name))}
    assert all(within(name, COMMAND_LINES) for name in users)


def test_a_long_file_gives_its_reason_first():
    """Files run from 60 to 350 lines; the docstring of one of more than 500 says why it "is longer than most"."""
    texts = {name: path.read_text() for name, path in MODULES.items()}
    long = {name for name, text in texts.items() if text.count("\n") > 500}
    assert {name for name in long if "longer than" not in (ast.get_docstring(ast.parse(texts[name])) or "").lower()} == set()
