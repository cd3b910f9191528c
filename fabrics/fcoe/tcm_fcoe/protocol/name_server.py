"""The name server of a fabric (FC-GS clause 5.2): what N_Ports have registered, and who asks for it.

The switch makes an entry when a port logs in and removes it when the port is gone; the rest is registered by the port itself,
and by nobody else. A request comes in as bytes, its answer goes out as a :class:`~tcm_fcoe.protocol.ct.CtIu`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tcm_fcoe.protocol import ct_names as names
from tcm_fcoe.protocol.ct import CtError, CtExplanation, CtReason, accept, check_request, parse_iu, reject
from tcm_fcoe.protocol.ct_names import NameServerCommand as Command
from tcm_fcoe.protocol.ct_names import PortType, fc4_types, has_fc4_type
from tcm_fcoe.protocol.names import NO_NAME, format_fc_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.ct import CtIu
    from tcm_fcoe.protocol.els_payload import Block
    from tcm_fcoe.protocol.fcoe import Buffer

CLASS_3 = 0x08
"""Bit of the class of service object."""
_ROW_WORDS = {names.PortIds: 1, names.PortsAndNames: 4}


@dataclass(slots=True, eq=False)
class Entry:
    """The objects of one port."""

    port_id: int
    port_name: bytes
    node_name: bytes
    fabric_port_name: bytes = NO_NAME
    port_type: int = PortType.N_PORT
    classes: int = CLASS_3
    types: bytes = bytes(names.FC4_TYPES_LENGTH)
    features: dict[int, int] = field(default_factory=dict)
    """Four bits by FC-4 type."""
    symbolic_port_name: bytes = b""
    symbolic_node_name: bytes = b""

    def has_type(self, fc4: int) -> bool:
        """Whether it has registered an FC-4 type."""
        return has_fc4_type(self.types, fc4)


class NameServer:
    """All entries of a fabric.

    :param changed: called with an FC_ID when what others may look for has changed: names, FC-4 types, features.
    """

    def __init__(self, changed: Callable[[int], None]) -> None:
        self.entries: dict[int, Entry] = {}
        """By FC_ID."""
        self._changed = changed

    def add(
        self,
        port_id: int,
        port_name: bytes,
        node_name: bytes,
        *,
        fabric_port_name: bytes = NO_NAME,
        features: dict[int, int] | None = None,
    ) -> Entry:
        """A port has logged in.

        :param features: of FC-4 types that it is known to have: a port of our own, which registers nothing itself.
        """
        entry = Entry(port_id, port_name, node_name, fabric_port_name)
        if features:
            entry.features = dict(features)
            entry.types = fc4_types(features)
        self.entries[port_id] = entry
        return entry

    def remove(self, port_id: int) -> None:
        """It is gone."""
        self.entries.pop(port_id, None)

    def request(self, s_id: int, data: Buffer) -> CtIu:
        """The answer to a request.

        :param s_id: who asks; its entry is the only one that it may change.
        :param data: the whole CT_IU.
        """
        try:
            iu = parse_iu(data)
            check_request(iu)
            asked = names.parse_request(iu)
            code = Command(iu.code)
            if code in _REGISTER:
                self._register(s_id, code, asked)
                return accept()
            answer = _GET[code](self, asked)
        except CtError as e:
            return reject(e.reason, e.explanation)
        return _fitting(answer, iu.size)

    # Registration

    def _register(self, s_id: int, code: Command, asked: Any) -> None:
        own = self.entries.get(s_id)
        if own is None:
            raise _unable(CtExplanation.PORT_IDENTIFIER_NOT_REGISTERED, f"{format_fc_id(s_id)} has no entry")
        if code is Command.RSNN_NN:
            if asked.node_name != own.node_name:
                raise _unable(CtExplanation.NODE_NAME_NOT_REGISTERED, f"{asked.node_name.hex(':')} is not its node name")
        elif asked.port_id != s_id:
            raise _unable(
                CtExplanation.UNACCEPTABLE_PORT_IDENTIFIER, f"{format_fc_id(s_id)} is not {format_fc_id(asked.port_id)}"
            )
        if _REGISTER[code](own, asked):
            self._changed(s_id)

    # Questions

    def entry(self, port_id: int) -> Entry:
        """Of a port. Raises :class:`CtError` if there is none."""
        found = self.entries.get(port_id)
        if found is None:
            raise _unable(CtExplanation.PORT_IDENTIFIER_NOT_REGISTERED, f"nothing has {format_fc_id(port_id)}")
        return found

    def in_scope(self, asked: Any, explanation: CtExplanation, wanted: Callable[[Entry], bool]) -> list[Entry]:
        """Entries in address order that are wanted, of the domain and area that is asked for. Raises CtError if none is."""
        found = [
            entry
            for fc_id, entry in sorted(self.entries.items())
            if wanted(entry) and (not asked.domain or (fc_id >> 16 == asked.domain and asked.area in (0, fc_id >> 8 & 0xFF)))
        ]
        if not found:
            raise _unable(explanation, "nobody")
        return found

    def next_after(self, port_id: int) -> Entry:
        """The next in address order, and round again. Raises :class:`CtError` if there is none."""
        if not self.entries:
            raise _unable(CtExplanation.DATA_BASE_EMPTY, "nobody has logged in")
        return self.entries[min((each for each in self.entries if each > port_id), default=min(self.entries))]


def _unable(explanation: CtExplanation, text: str) -> CtError:
    return CtError(CtReason.UNABLE_TO_PERFORM, explanation, text)


def _fitting(answer: Block, size: int) -> CtIu:
    """The answer, with as many rows as the request leaves room for.

    :param size: words, 0: any number.
    """
    words = _ROW_WORDS.get(type(answer))
    if not size or words is None:
        body = answer.pack()
        return accept(body) if not size or len(body) <= size * 4 else reject(CtReason.INVALID_IU_SIZE)
    rows: tuple[Any, ...] = answer.ports  # type: ignore[attr-defined]  # both kinds have it
    kept = rows[: size // words]
    return accept(type(answer)(kept).pack(), residual=(len(rows) - len(kept)) * words)  # type: ignore[call-arg]  # likewise


# What each command does: registrations say whether others should know


def _set(name: str, value: str | None = None) -> Callable[[Entry, Any], bool]:
    def register(entry: Entry, asked: Any) -> bool:
        new = getattr(asked, value or name)
        changed = bool(getattr(entry, name) != new)
        setattr(entry, name, new)
        return changed

    return register


def _set_quietly(name: str, value: str | None = None) -> Callable[[Entry, Any], bool]:
    loudly = _set(name, value)

    def register(entry: Entry, asked: Any) -> bool:
        loudly(entry, asked)
        return False

    return register


def _register_port_name(entry: Entry, asked: Any) -> bool:
    if asked.name != entry.port_name:
        raise _unable(CtExplanation.ACCESS_DENIED, "a port has the name that it logged in with")
    return False


def _register_node_name(entry: Entry, asked: Any) -> bool:
    if asked.name != entry.node_name:  # or it could pass for a port of another's node
        raise _unable(CtExplanation.ACCESS_DENIED, "a port has the node name that it logged in with")
    return False


def _register_features(entry: Entry, asked: Any) -> bool:
    changed: bool = entry.features.get(asked.type) != asked.features & 0xF
    entry.features[asked.type] = asked.features & 0xF
    return changed


def _deregister(entry: Entry, _asked: Any) -> bool:
    """DA_ID: the objects go; the port stays, for it is logged in."""
    entry.types, entry.features = bytes(names.FC4_TYPES_LENGTH), {}
    entry.symbolic_port_name = entry.symbolic_node_name = b""
    return True


_REGISTER: dict[Command, Callable[[Entry, Any], bool]] = {
    Command.RPN_ID: _register_port_name,
    Command.RNN_ID: _register_node_name,
    Command.RCS_ID: _set_quietly("classes"),
    Command.RFT_ID: _set("types"),
    Command.RPT_ID: _set_quietly("port_type"),
    Command.RFF_ID: _register_features,
    Command.RSPN_ID: _set_quietly("symbolic_port_name", "symbolic_name"),
    Command.RSNN_NN: _set_quietly("symbolic_node_name", "symbolic_name"),
    Command.DA_ID: _deregister,
}


def _of_type(server: NameServer, asked: Any) -> list[Entry]:
    return server.in_scope(asked, CtExplanation.FC4_TYPES_NOT_REGISTERED, lambda entry: entry.has_type(asked.type))


def _all_objects(server: NameServer, asked: Any) -> Block:
    entry = server.next_after(asked.port_id)
    return names.AllObjects(
        port_type=entry.port_type,
        port_id=entry.port_id,
        port_name=entry.port_name,
        symbolic_port_name_length=len(entry.symbolic_port_name),
        symbolic_port_name=entry.symbolic_port_name.ljust(names.MAX_SYMBOLIC_NAME, b"\0"),
        node_name=entry.node_name,
        symbolic_node_name_length=len(entry.symbolic_node_name),
        symbolic_node_name=entry.symbolic_node_name.ljust(names.MAX_SYMBOLIC_NAME, b"\0"),
        classes=entry.classes,
        types=entry.types,
        fabric_port_name=entry.fabric_port_name,
    )


def _port_of_name(server: NameServer, asked: Any) -> Block:
    for entry in server.entries.values():
        if entry.port_name == asked.name:
            return names.PortId(entry.port_id)
    raise _unable(CtExplanation.PORT_NAME_NOT_REGISTERED, asked.name.hex(":"))


def _of_node(server: NameServer, name: bytes) -> list[Entry]:
    found = [entry for _, entry in sorted(server.entries.items()) if entry.node_name == name]
    if not found:
        raise _unable(CtExplanation.NODE_NAME_NOT_REGISTERED, name.hex(":"))
    return found


def _with_features(server: NameServer, asked: Any) -> Block:
    def wanted(entry: Entry) -> bool:
        return asked.type in entry.features and entry.features[asked.type] & asked.features == asked.features

    return names.PortIds(
        tuple(each.port_id for each in server.in_scope(asked, CtExplanation.FC4_FEATURES_NOT_REGISTERED, wanted))
    )


def _of_port_type(server: NameServer, asked: Any) -> Block:
    def wanted(entry: Entry) -> bool:
        return entry.port_type == asked.port_type or (
            asked.port_type == PortType.NX_PORT and entry.port_type < PortType.NX_PORT
        )

    return names.PortIds(tuple(each.port_id for each in server.in_scope(asked, CtExplanation.PORT_TYPE_NOT_REGISTERED, wanted)))


_GET: dict[Command, Callable[[NameServer, Any], Block]] = {
    Command.GA_NXT: _all_objects,
    Command.GPN_ID: lambda server, asked: names.Name(server.entry(asked.port_id).port_name),
    Command.GNN_ID: lambda server, asked: names.Name(server.entry(asked.port_id).node_name),
    Command.GCS_ID: lambda server, asked: names.ClassOfService(server.entry(asked.port_id).classes),
    Command.GFT_ID: lambda server, asked: names.Types(server.entry(asked.port_id).types),
    Command.GSPN_ID: lambda server, asked: names.SymbolicName(server.entry(asked.port_id).symbolic_port_name),
    Command.GPT_ID: lambda server, asked: names.PortTypeObject(server.entry(asked.port_id).port_type),
    Command.GFPN_ID: lambda server, asked: names.Name(server.entry(asked.port_id).fabric_port_name),
    Command.GFF_ID: lambda server, asked: names.Features.made_of(server.entry(asked.port_id).features),
    Command.GID_PN: _port_of_name,
    Command.GID_NN: lambda server, asked: names.PortIds(tuple(each.port_id for each in _of_node(server, asked.name))),
    Command.GSNN_NN: lambda server, asked: names.SymbolicName(_of_node(server, asked.name)[0].symbolic_node_name),
    Command.GID_FT: lambda server, asked: names.PortIds(tuple(each.port_id for each in _of_type(server, asked))),
    Command.GPN_FT: lambda server, asked: names.PortsAndNames(
        tuple((each.port_id, each.port_name) for each in _of_type(server, asked))
    ),
    Command.GNN_FT: lambda server, asked: names.PortsAndNames(
        tuple((each.port_id, each.node_name) for each in _of_type(server, asked))
    ),
    Command.GID_PT: _of_port_type,
    Command.GID_FF: _with_features,
}
"""The answer's payload by command."""
