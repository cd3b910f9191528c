"""What docs/conformance.md and docs/reservations.md say of commands, pages and functions; the tests are in its neighbour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parts import conformance_table
from parts.markdown import table
from tcm.scsi.command import VARIABLE_LENGTH, Feature
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.mode_pages import BLOCK_DEVICE_PAGES, LOGICAL_BLOCK_PROVISIONING_PAGE
from tcm.target import reservation_matrix
from tcm.target.device_server.identification import VPD_PAGES
from tcm.target.log_page_table import LOG_PAGES, listed_pages
from tcm.target.task_management import TaskManagementFunction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def commands() -> list[str]:
    """The command table."""
    needs = {
        None: "",
        Feature.UNMAP: "thin provisioning, `emulate_tpu`",
        Feature.COMPARE_AND_WRITE: "`emulate_caw`",
        Feature.ATOMIC_WRITE: "",
        Feature.BLOCK_ERASE: "thin provisioning",
        Feature.CRYPTOGRAPHIC_ERASE: "a backstore that encrypts",
        Feature.RESERVE: "`emulate_pr`",
        Feature.REPORT_SUPPORTED: "`emulate_rsoc`",
        Feature.THIRD_PARTY_COPY: "`emulate_3pc`",
        Feature.IDENTIFYING_INFORMATION: "a state directory",
        Feature.EXPLICIT_ACCESS: "a group of access type explicit",
        Feature.REFERRALS: "`lba_map`",
        Feature.TYPE_2_PROTECTION: "type 2 protection",
    }
    rows = []
    found = conformance_table.tests_by_stem()
    for command in COMMANDS:
        action = ""
        if command.service_action is not None:
            action = f"{command.service_action:0{4 if command.operation_code == VARIABLE_LENGTH else 2}X}h"
        persistent = command.persistent_reservation.value
        erasing = command.while_erasing.value
        rows.append((
            command.name, f"{command.operation_code:02X}h", action, conformance_table.clause(command),
            conformance_table.spc2_rule(command), persistent, command.access_states.value, erasing, needs[command.feature],
            conformance_table.tests_cell(command, found),
        ))  # fmt: skip
    heads = ("command", "operation code", "service action", "clause", "under another nexus's SPC-2 reservation")
    heads += ("under a persistent reservation it has no part in", "ALUA states", "while the medium is erased", "offered with")
    return table((*heads, "tests"), rows)


def reservation_rows(headings: Sequence[str], rows: Iterable[reservation_matrix.Row]) -> list[str]:
    """A table of what a persistent reservation stops."""
    word = {True: "Allowed", False: "Conflict"}
    return table(headings, [(row.name, *(word[each] for each in row.allowed)) for row in rows])


def page_code(code: int, subpage: int = 0) -> str:
    """``0Ah/01h``."""
    return f"{code:02X}h/{subpage:02X}h" if subpage else f"{code:02X}h"


def pages() -> list[str]:
    """VPD, mode and log pages, task management functions."""
    served = [function.value for function in TaskManagementFunction if function is not TaskManagementFunction.CLEAR_ACA]
    rows = (
        ("VPD pages", ", ".join(map(page_code, VPD_PAGES))),
        ("mode pages", ", ".join(page_code(*page.key) for page in (*BLOCK_DEVICE_PAGES, LOGICAL_BLOCK_PROVISIONING_PAGE))),
        ("log pages", ", ".join(page_code(*key) for key in listed_pages(LOG_PAGES))),
        ("task management functions", ", ".join(served)),
    )
    return table(("of these", "there are"), rows)


PARTS: dict[str, Callable[[], list[str]]] = {
    "commands": commands,
    "pages": pages,
    "reservation-matrix": lambda: reservation_rows(
        ("command", *(heading for heading, _, _ in reservation_matrix.COLUMNS)), reservation_matrix.commands()
    ),
    "reservation-service-actions": lambda: reservation_rows(
        ("service action", "registered", "not registered"), reservation_matrix.service_actions()
    ),
    "tests": lambda: list(conformance_table.tests_page()),
}
