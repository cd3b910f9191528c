"""What replies of Extended Link Services say, as names and values: for people and for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tcm_fcoe.protocol.els import (
    RNID_TOPOLOGY,
    RNID_UNIT_TYPES,
    RTV_NANOSECONDS,
    TOPOLOGY,
    Adisc,
    LinkErrorStatus,
    NodeIdentification,
    Plain,
    Rls,
    Rnid,
    TimeoutValues,
)
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.logins import service_parameters
from tcm_fcoe.protocol.names import colon_form, format_fc_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.els_login import Login
    from tcm_fcoe.protocol.els_payload import Payload
    from tcm_fcoe.protocol.n_port import NPort

Facts = dict[str, Any]
"""Times are seconds."""
_UNITS = {code: name for name, code in RNID_UNIT_TYPES.items()}
_LABELS = {"e_d_tov": "E_D_TOV", "r_a_tov": "R_A_TOV", "fc_id": "FC_ID", "missed_keep_alives": "missed keep-alives"}
"""Of facts that are not spelt as they are named."""
_ERRORS = (
    "link_failures", "virtual_link_failures", "missed_keep_alives", "symbol_errors", "errored_blocks", "frame_check_errors",
)  # fmt: skip


class Question(NamedTuple):
    """One that ``--ask`` has."""

    request: Callable[[NPort, int], Payload]
    """Made for our port, and for the FC_ID that RLS is to tell of."""
    facts: Callable[[Any], Facts]


def _identified(reply: NodeIdentification) -> Facts:
    facts: Facts = {"port_name": colon_form(reply.port_name), "node_name": colon_form(reply.node_name)}
    if reply.data_format == RNID_TOPOLOGY and len(reply.specific) >= TOPOLOGY.sizeof():
        found = TOPOLOGY.parse(reply.specific)
        kind = found.associated_type
        facts["type"] = _UNITS.get(kind, f"{kind:08X}h")
        facts["vendor"] = found.vendor.rstrip(b"\0 ").decode("ascii", "backslashreplace")
        facts["attached_nodes"] = found.attached_nodes
    return facts


def _errors(reply: LinkErrorStatus) -> Facts:
    return {name: getattr(reply, name) for name in _ERRORS}


def _timeouts(reply: TimeoutValues) -> Facts:
    unit = 1e9 if reply.qualifier & RTV_NANOSECONDS else 1e3
    return {"e_d_tov": reply.e_d_tov / unit, "r_a_tov": reply.r_a_tov / 1e3}


def _address(reply: Adisc) -> Facts:
    return {
        "port_name": colon_form(reply.port_name),
        "node_name": colon_form(reply.node_name),
        "fc_id": format_fc_id(reply.n_port_id),
        "hard_address": format_fc_id(reply.hard_address),
    }


def _parameters(reply: Login) -> Facts:
    return {
        "port_name": colon_form(reply.port_name),
        "node_name": colon_form(reply.node_name),
        "receive_size": reply.data_field_size,
        "e_d_tov": reply.e_d_tov,
        "class_3": reply.class_3_parameters.valid,
    }


QUESTIONS: dict[str, Question] = {
    "adisc": Question(lambda port, _of: Adisc(port.port_name, port.node_name, port.fc_id), _address),
    "pdisc": Question(lambda port, _of: service_parameters(port, ElsCommand.PDISC), _parameters),
    "rnid": Question(lambda _port, _of: Rnid(RNID_TOPOLOGY), _identified),
    "rtv": Question(lambda _port, _of: Plain(ElsCommand.RTV), _timeouts),
    "rls": Question(lambda _port, of: Rls(of), _errors),
}
"""By name, in the order in which they are asked."""


def text_of(facts: Facts) -> str:
    """In one line."""
    return ", ".join(f"{_LABELS.get(name) or name.replace('_', ' ')} {_spelt(value)}" for name, value in facts.items())


def _spelt(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g} s" if isinstance(value, float) else str(value)
