"""What docs/conformance.md and its companions say of each command besides the command table: its clause and its tests.

Clauses are cited by title. Their numbers differ from one edition and revision to the next; the titles do not.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tcm.scsi.command_table import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcm.scsi.command import Command

TESTS = Path(__file__).parents[2] / "tests" / "conformance"

CLAUSES: dict[str, tuple[str, ...]] = {
    "SPC-2": ("RESERVE", "RELEASE"),
    "SPC-4": (
        "EXTENDED COPY", "RECEIVE COPY STATUS", "RECEIVE COPY OPERATING PARAMETERS", "RECEIVE COPY FAILURE DETAILS",
        "COPY OPERATION ABORT",
    ),
    "SPC-5": (
        "TEST UNIT READY", "REQUEST SENSE", "INQUIRY", "REPORT LUNS", "REPORT SUPPORTED OPERATION CODES",
        "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", "REPORT IDENTIFYING INFORMATION", "SET IDENTIFYING INFORMATION",
        "REPORT TIMESTAMP", "SET TIMESTAMP", "READ BUFFER", "WRITE BUFFER", "SECURITY PROTOCOL IN", "MODE SELECT", "MODE SENSE",
        "LOG SELECT", "LOG SENSE", "RECEIVE DIAGNOSTIC RESULTS", "SEND DIAGNOSTIC", "PERSISTENT RESERVE IN",
        "PERSISTENT RESERVE OUT", "REPORT TARGET PORT GROUPS", "SET TARGET PORT GROUPS",
        "RECEIVE ROD TOKEN INFORMATION", "REPORT ALL ROD TOKENS",
    ),
    "SBC-4": (
        "START STOP UNIT", "PREVENT ALLOW MEDIUM REMOVAL", "READ CAPACITY", "GET LBA STATUS", "READ DEFECT DATA",
        "SYNCHRONIZE CACHE", "READ", "PRE-FETCH", "VERIFY", "WRITE", "WRITE AND VERIFY", "WRITE ATOMIC", "ORWRITE",
        "COMPARE AND WRITE", "WRITE SAME", "UNMAP", "SANITIZE", "FORMAT UNIT", "REPORT REFERRALS", "POPULATE TOKEN",
        "WRITE USING TOKEN",
    ),
}  # fmt: skip
"""Standard, and what the commands are called whose clauses are in it, without the length of the CDB."""

STANDARDS = {title: standard for standard, titles in CLAUSES.items() for title in titles}
_NAME = re.compile(r"(?P<title>[A-Z -]+?)(?: ?\((?P<length>\w+)\))?(?:, (?P<action>.+))?")


class Name(NamedTuple):
    """A row's name, taken apart."""

    title: str
    """The command's: ``READ``, ``PERSISTENT RESERVE OUT``, ``SANITIZE``."""
    length: str
    """``10``, ``LID4``, or empty."""
    action: str
    """The service action's, or empty."""

    @property
    def stem(self) -> str:
        """What the names of its tests begin with, after ``test_``."""
        return re.sub(r"[^a-z0-9]+", "_", f"{self.title} {self.action}".lower()).strip("_")


def name_of(command: Command) -> Name:
    """A row's name, taken apart; SANITIZE's service actions stand without a comma."""
    found = _NAME.fullmatch(command.name)
    assert found is not None, command.name
    title, length, action = found["title"], found["length"] or "", found["action"] or ""
    if title.startswith("SANITIZE "):
        title, _, action = title.partition(" ")
    return Name(title, length, action)


def clause(command: Command) -> str:
    """Standard and title of the clause. Raises ``KeyError`` for a command that :data:`CLAUSES` lacks."""
    name = name_of(command)
    length = f" ({name.length})" if name.length else ""
    action = f", {name.action}" if name.action else ""
    return f"{STANDARDS[name.title]}, {name.title}{length} command{action}"


class ConformanceTest(NamedTuple):
    """A test function."""

    name: str
    file: str
    says: str
    """The first sentence of its docstring, with the clause that it proves."""


def conformance_tests() -> list[ConformanceTest]:
    """All in tests/conformance, in order of their names."""
    return sorted(
        ConformanceTest(node.name, path.name, " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()))
        for path in TESTS.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    )


def _belongs(stem: str, test: str) -> bool:
    """``test_read_zero_blocks`` and ``test_read6_wide_address`` belong to ``read``."""
    return re.match(rf"test_{stem}\d*(_|$)", test) is not None


def tests_by_stem() -> dict[str, list[ConformanceTest]]:
    """The tests of each command (service action), each of them under the longest stem that its name begins with.

    A test that begins with the command's name but with none of its service actions' is under the command's; one that is about
    no single command (the task set, VPD pages, unit attentions ...) is under the empty stem.
    """
    names = {name_of(command) for command in COMMANDS}
    stems = {name.stem for name in names} | {name._replace(action="").stem for name in names}
    found: dict[str, list[ConformanceTest]] = {stem: [] for stem in sorted(stems)}
    found[""] = []
    for test in conformance_tests():
        stem = max((stem for stem in stems if _belongs(stem, test.name)), key=len, default="")
        found[stem].append(test)
    return found


def untested() -> list[str]:
    """Rows of the command table without a test of their own."""
    found = tests_by_stem()
    return [command.name for command in COMMANDS if not found[name_of(command).stem]]


def tests_cell(command: Command, found: dict[str, list[ConformanceTest]]) -> str:
    """How many tests a row has, and where they are listed."""
    stem = name_of(command).stem
    return f"[`test_{stem}` {len(found[stem])}](conformance-tests.md#{stem})"


def tests_page() -> Iterator[str]:
    """All conformance tests, by command; then by file those that are about no single one."""
    found = tests_by_stem()
    rest = found.pop("")
    for stem, tests in found.items():
        if tests:
            yield from (f"### {stem}", "")
            yield from (f"- `{test.name}`: {test.says}" for test in tests)
            yield ""
    for file in sorted({test.file for test in rest}):
        yield from (f"### {file}", "")
        yield from (f"- `{test.name}`: {test.says}" for test in rest if test.file == file)
        yield ""


def _exception(command: Command) -> str:
    if command.harmless is None:
        return ""
    byte, mask, value = command.harmless
    return f" (allowed if byte {byte} AND {mask:02X}h is {value:02X}h)"


def spc2_rule(command: Command) -> str:
    """What another I_T nexus's SPC-2 reservation does to the command."""
    return f"{command.reservation.name.lower()}{_exception(command)}"
