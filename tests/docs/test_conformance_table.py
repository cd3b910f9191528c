"""Every row of the command table has its clause and its tests, and the documentation says which."""

from __future__ import annotations

import re
from collections import Counter

from parts import conformance_table as table
from support.documents import ROOT

from tcm.scsi.command_table import COMMANDS


def test_every_command_has_a_clause():
    missing = [command.name for command in COMMANDS if table.name_of(command).title not in table.STANDARDS]
    assert not missing, f"docs/parts/conformance_table.py CLAUSES does not know {missing}"


def test_every_clause_is_of_a_command():
    titles = {table.name_of(command).title for command in COMMANDS}
    assert set(table.STANDARDS) == titles


def test_every_command_has_tests():
    assert not table.untested(), (
        "each needs a tests/conformance test_<command>_<aspect>, <command> as in docs/parts/conformance_table.py"
    )


def test_every_test_says_what_it_proves():
    silent = [f"{test.file}: {test.name}" for test in table.conformance_tests() if not test.says]
    assert not silent, "a conformance test's docstring cites the clause"


def test_names_are_distinct():
    counted = Counter(test.name for test in table.conformance_tests())
    assert [name for name, count in counted.items() if count > 1] == []


def test_every_link_has_its_section():
    """A link of the table leads to a list of tests that exist."""
    cells = re.findall(r"conformance-tests\.md#(\w+)\)", (ROOT / "docs/conformance.md").read_text())
    assert len(cells) == len(COMMANDS)
    sections = set(re.findall(r"^### (\w+)$", (ROOT / "docs/conformance-tests.md").read_text(), re.MULTILINE))
    assert set(cells) <= sections


def test_names_are_taken_apart():
    names = {command.name: table.name_of(command) for command in COMMANDS}
    assert names["READ (10)"] == ("READ", "10", "")
    assert names["PERSISTENT RESERVE OUT, REGISTER AND MOVE"].stem == "persistent_reserve_out_register_and_move"
    assert names["SANITIZE BLOCK ERASE"] == ("SANITIZE", "", "BLOCK ERASE")
    assert names["PRE-FETCH (16)"].stem == "pre_fetch"


def test_a_test_belongs_to_the_longest_name():
    found = {test.name: stem for stem, tests in table.tests_by_stem().items() for test in tests}
    assert found["test_read_capacity10_simple"] == "read_capacity"
    assert found["test_read6_wide_address"] == "read"
    assert found["test_persistent_reserve_out_register"] == "persistent_reserve_out_register"
    assert found["test_vpd_supported_pages"] == ""
