"""What docs/negotiation.md, iscsi-attributes.md and state-machines.md say of iSCSI: login, text keys, tests of attributes."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcm_iscsi.attributes import AclAttributes, TpgAttributes, TpgParameters
from tcm_iscsi.protocol import keys, login
from tcm_iscsi.protocol.negotiation import IRRELEVANT, REJECT, NegotiationError, Negotiator
from tcm_iscsi.protocol.pdu import LoginStage

from parts.markdown import described_fields, table

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
Rows = Sequence[tuple[str, ...]]

KEY_HEADS = ("key", "clause", "format", "legal values", "default", "ours", "result", "scope", "use", "sent by")


def key_rows() -> Rows:
    """One row a text key: what it is."""

    def text(value: Any, key: keys.Key) -> str:
        return "" if value is None else key.format(value)

    values = {
        keys.Kind.NUMBER: lambda key: f"{key.minimum} to {key.maximum}",
        keys.Kind.RANGE: lambda key: f"{key.minimum} to {key.maximum}, low~high",
        keys.Kind.BOOLEAN: lambda _: "Yes, No",
        keys.Kind.LIST: lambda key: "a list of " + ", ".join(key.values),
        keys.Kind.NAME: lambda _: "an iSCSI name",
        keys.Kind.TEXT: lambda key: ", ".join(key.values) or "text, at most 255 bytes",
    }
    return [
        (
            key.name,
            key.clause,
            key.kind.value,
            values[key.kind](key),
            text(key.default, key),
            text(key.ours, key),
            key.result.value,
            key.scope.value,
            key.use.value,
            str(key.senders.name).lower(),
        )
        for key in keys.KEYS
    ]


LEGAL = {keys.Kind.BOOLEAN: "No", keys.Kind.RANGE: "2048~4096", keys.Kind.NAME: "iqn.2003-01.org.example:x"}
ILLEGAL = {keys.Kind.BOOLEAN: "Perhaps", keys.Kind.RANGE: "2~1", keys.Kind.LIST: "None,,None", keys.Kind.TEXT: "\t"}


def answered(key: keys.Key, value: str, stage: keys.Stage, **how: Any) -> str:
    """What the negotiator makes of a pair."""
    try:
        answers = dict(Negotiator(**how).receive([(key.name, value)], stage))
    except NegotiationError as error:
        if stage is keys.Stage.FULL_FEATURE:
            return f"Reject PDU, {error.reject_reason:02x}h"
        return "login ends"
    answer = answers.get(key.name)
    if answer in (REJECT, IRRELEVANT):
        return answer
    return "taken" if answer is None else "answered"


NEGOTIATION_HEADS = (
    *("key", "illegal value", "security stage", "operational stage", "full feature phase"),
    *("on a connection that joins a session", "in a discovery session"),
)


def negotiation_rows() -> Rows:
    """One row a text key that initiators send: the negotiator is asked what becomes of it."""
    rows: list[tuple[str, ...]] = []
    for key in keys.KEYS:
        if keys.Sender.INITIATOR not in key.senders or key.name == "SendTargets":
            continue
        legal = LEGAL.get(key.kind) or (
            "RFC3720" if key.name == "TaskReporting" else "None" if key.kind is keys.Kind.LIST else ""
        )
        legal = legal or (str(key.maximum) if key.kind is keys.Kind.NUMBER else "Normal")
        illegal = ILLEGAL.get(key.kind, str(key.maximum + 1))
        stage = min(key.stages, key=list(keys.Stage).index)
        checked = "login ends" if key.identifies else answered(key, illegal, stage)
        rows.append(
            (
                key.name,
                *("login ends" if key.kind is keys.Kind.TEXT or key.identifies else checked,),
                *(answered(key, legal, each) for each in keys.Stage),
                answered(key, legal, stage, leading=False) if not key.identifies else "taken",
                answered(key, legal, stage, discovery=True),
            )
        )
    return rows


EFFECTS = "tests/iscsi/test_attribute_effects.py"


@functools.cache
def iscsi_tests() -> tuple[tuple[str, str, str], ...]:
    """File, name and source of each test function of the iSCSI fabric; those of :data:`EFFECTS` first."""
    found = []
    files = [*(ROOT / "tests/iscsi").glob("test_*.py"), *(ROOT / "tests/conformance").glob("test_iscsi*.py")]
    files = [path for path in files if path.name not in ("test_attributes.py", "test_keys.py")]  # ranges, not effects
    for path in sorted(files, key=lambda path: (not path.match(EFFECTS), path)):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                whole = [*(ast.get_source_segment(source, each) or "" for each in node.decorator_list)]
                whole.append(ast.get_source_segment(source, node) or "")
                found.append((path.relative_to(ROOT).as_posix(), node.name, "\n".join(whole)))
    return tuple(found)


def attribute_test(name: str, family: str) -> str:
    """The test that shows what an attribute does: by its name, else the first that writes the attribute's."""
    word = re.compile(rf"\b{name}\b")
    own = [(file, test) for file, test, _ in iscsi_tests() if file == EFFECTS and test == f"test_{family}_{name}"]
    same = [
        (file, test)
        for file, test, source in iscsi_tests()
        if word.search(source) and (file != EFFECTS or test.startswith(f"test_{family}_"))
    ]
    return next((f"`{file}` `{test}`" for file, test in own + same), "")


def login_states() -> list[str]:
    """The login table as a drawing."""
    stages = {LoginStage.SECURITY_NEGOTIATION: "security", LoginStage.LOGIN_OPERATIONAL_NEGOTIATION: "operational"}
    stages[LoginStage.FULL_FEATURE_PHASE] = "full feature"
    names = {state: state.name for state in login.State}
    lines = ["```mermaid", "stateDiagram-v2", *(f"    {name}: {state.value}" for state, name in names.items())]
    lines.append("    [*] --> S3_XPT_UP: T3, the connection is accepted")
    for (state, stage, next_stage), after in login.TRANSITIONS.items():
        to = f", NSG {stages[LoginStage(next_stage)]}" if next_stage is not None else ", stay"
        lines.append(f"    {names[state]} --> {names[after]}: CSG {stages[LoginStage(stage)]}{to}")
    lines += [
        f"    {name} --> S1_FREE: T6 or T7, any failure"
        for state, name in names.items()
        if state not in (login.State.S1_FREE, login.State.S5_LOGGED_IN)
    ]
    return [*lines, "```"]


def login_rules() -> Rows:
    """Checks of a Login Request's header."""
    return [(rule.reason, f"{rule.status:04x}h {rule.status.name}") for rule in login.RULES]


def attributes(cls: type[Any], family: str) -> list[str]:
    """Attributes or parameters of the iSCSI fabric: what each does, and the test that shows it."""
    cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in described_fields(cls)[2:]]
    tests = [attribute_test(each.name, family) for each in dataclasses.fields(cls)]
    return table(("name", "default", "what it does", "test"), [(*row, test) for row, test in zip(cells, tests, strict=True)])


PARTS: dict[str, Callable[[], list[str]]] = {
    "login-states": login_states,
    "login-rules": lambda: table(("broken rule", "Login Response status"), login_rules()),
    "keys": lambda: table(KEY_HEADS, key_rows()),
    "negotiation": lambda: table(NEGOTIATION_HEADS, negotiation_rows()),
    "tpg-attributes": lambda: attributes(TpgAttributes, "tpg"),
    "acl-attributes": lambda: attributes(AclAttributes, "acl"),
    "tpg-parameters": lambda: attributes(TpgParameters, "param"),
}
