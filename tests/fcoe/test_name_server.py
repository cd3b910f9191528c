"""The name server (FC-GS 5.2): every command, and who may register what. Linux's requests are as libfc makes them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_fcoe.protocol import ct_names as names
from tcm_fcoe.protocol import name_server
from tcm_fcoe.protocol.ct import ACCEPT, REJECT, CtExplanation, CtIu, CtReason
from tcm_fcoe.protocol.ct_names import NameServerCommand as Command
from tcm_fcoe.protocol.name_server import NameServer

FCP = 0x08
TARGET, INITIATOR, SILENT = 0x010001, 0x010002, 0x020304
FABRIC = bytes.fromhex("2fff525400000fcf")


def name(fc_id: int, naa: int = 2) -> bytes:
    return bytes((naa << 4,)) + fc_id.to_bytes(7, "big")


class Site:
    """Three ports: a target of ours, an initiator that has registered like Linux, and one that has registered nothing."""

    def __init__(self) -> None:
        self.changes: list[int] = []
        self.server = NameServer(self.changes.append)
        self.server.add(TARGET, name(TARGET), name(TARGET, 1), fabric_port_name=FABRIC, features={FCP: 1})
        for fc_id in (SILENT, INITIATOR):
            self.server.add(fc_id, name(fc_id), name(fc_id, 1), fabric_port_name=FABRIC)
        for each in (
            names.RegisterName(INITIATOR, name(INITIATOR, 1)),
            names.RegisterSymbolicNodeName(name(INITIATOR, 1), b"fcoe v0.1 over eth0"),
            names.RegisterSymbolicPortName(INITIATOR, b"fcoe v0.1 over eth0"),
            names.RegisterTypes(INITIATOR, names.fc4_types([FCP, 0x20])),
            names.RegisterFeatures(INITIATOR, 2),
        ):
            assert self.ask(INITIATOR, _COMMANDS.get(type(each)) or Command.RNN_ID, each).code == ACCEPT

    def ask(self, s_id: int, command: int, request: names.Request, size: int = 0) -> CtIu:
        """A request, by way of its bytes; so is the answer."""
        answer = self.server.request(s_id, CtIu(command, request.pack(), size).pack())
        return CtIu.parse(answer.pack())

    def get(self, command: Command, request: names.Request, size: int = 0) -> object:
        answer = self.ask(INITIATOR, command, request, size)
        assert answer.code == ACCEPT, (answer.reason, answer.explanation)
        return names.ACCEPTS[command].parse(answer.body)

    def refusal(self, command: int, request: names.Request, s_id: int = INITIATOR) -> tuple[int, int]:
        answer = self.ask(s_id, command, request)
        assert answer.code == REJECT
        return answer.reason, answer.explanation


_COMMANDS = {
    names.RegisterSymbolicNodeName: Command.RSNN_NN,
    names.RegisterSymbolicPortName: Command.RSPN_ID,
    names.RegisterTypes: Command.RFT_ID,
    names.RegisterFeatures: Command.RFF_ID,
    names.RegisterClassOfService: Command.RCS_ID,
    names.RegisterPortType: Command.RPT_ID,
}


def test_gpn_ft():
    """What Linux looks for targets with."""
    assert Site().get(Command.GPN_FT, names.ByType()).ports == ((TARGET, name(TARGET)), (INITIATOR, name(INITIATOR)))
    answer = Site().ask(INITIATOR, Command.GPN_FT, names.ByType())
    assert answer.body[:4] == bytes.fromhex("00010001")
    assert answer.body[16:20] == bytes.fromhex("80010002")


def test_gpn_ft_of_nobody():
    """libfc takes this reason for an empty list."""
    assert Site().refusal(Command.GPN_FT, names.ByType(0x28)) == (
        CtReason.UNABLE_TO_PERFORM,
        CtExplanation.FC4_TYPES_NOT_REGISTERED,
    )


GETS = {
    Command.GA_NXT: (names.ByPort(TARGET), None),
    Command.GPN_ID: (names.ByPort(TARGET), names.Name(name(TARGET))),
    Command.GNN_ID: (names.ByPort(TARGET), names.Name(name(TARGET, 1))),
    Command.GCS_ID: (names.ByPort(TARGET), names.ClassOfService(8)),
    Command.GFT_ID: (names.ByPort(INITIATOR), names.Types(names.fc4_types([FCP, 0x20]))),
    Command.GSPN_ID: (names.ByPort(INITIATOR), names.SymbolicName(b"fcoe v0.1 over eth0")),
    Command.GPT_ID: (names.ByPort(TARGET), names.PortTypeObject(1)),
    Command.GFPN_ID: (names.ByPort(TARGET), names.Name(FABRIC)),
    Command.GFF_ID: (names.ByPort(INITIATOR), names.Features.made_of({FCP: 2})),
    Command.GID_PN: (names.ByName(name(TARGET)), names.PortId(TARGET)),
    Command.GID_NN: (names.ByName(name(TARGET, 1)), names.PortIds((TARGET,))),
    Command.GSNN_NN: (names.ByName(name(INITIATOR, 1)), names.SymbolicName(b"fcoe v0.1 over eth0")),
    Command.GID_FT: (names.ByType(), names.PortIds((TARGET, INITIATOR))),
    Command.GPN_FT: (names.ByType(), names.PortsAndNames(((TARGET, name(TARGET)), (INITIATOR, name(INITIATOR))))),
    Command.GNN_FT: (names.ByType(), names.PortsAndNames(((TARGET, name(TARGET, 1)), (INITIATOR, name(INITIATOR, 1))))),
    Command.GID_PT: (names.ByPortType(), names.PortIds((TARGET, INITIATOR, SILENT))),
    Command.GID_FF: (names.ByFeatures(1), names.PortIds((TARGET,))),
}


@pytest.mark.parametrize("command", GETS)
def test_get(command):
    request, expected = GETS[command]
    if expected is not None:
        assert Site().get(command, request) == expected


def test_every_command_is_tested():
    assert set(GETS) == set(name_server._GET)
    assert set(name_server._GET) | set(name_server._REGISTER) == set(Command)


def test_ga_nxt():
    """In address order, and round again."""
    site, seen, at = Site(), [], 0
    for _ in range(4):
        answer = site.get(Command.GA_NXT, names.ByPort(at))
        seen.append(at := answer.port_id)
    assert seen == [TARGET, INITIATOR, SILENT, TARGET]
    entry = site.get(Command.GA_NXT, names.ByPort(TARGET))
    assert entry.symbolic_port_name[: entry.symbolic_port_name_length] == b"fcoe v0.1 over eth0"
    assert (entry.port_name, entry.node_name) == (name(INITIATOR), name(INITIATOR, 1))
    assert len(site.ask(INITIATOR, Command.GA_NXT, names.ByPort(0)).body) == 620


@pytest.mark.parametrize(
    ("command", "request_", "explanation"),
    [
        (Command.GPN_ID, names.ByPort(0x99), CtExplanation.PORT_IDENTIFIER_NOT_REGISTERED),
        (Command.GID_PN, names.ByName(bytes(8)), CtExplanation.PORT_NAME_NOT_REGISTERED),
        (Command.GID_NN, names.ByName(bytes(8)), CtExplanation.NODE_NAME_NOT_REGISTERED),
        (Command.GID_FF, names.ByFeatures(4), CtExplanation.FC4_FEATURES_NOT_REGISTERED),
        (Command.GID_PT, names.ByPortType(0x81), CtExplanation.PORT_TYPE_NOT_REGISTERED),
        (Command.RFT_ID, names.RegisterTypes(TARGET, bytes(32)), CtExplanation.UNACCEPTABLE_PORT_IDENTIFIER),
        (Command.RFF_ID, names.RegisterFeatures(TARGET, 1), CtExplanation.UNACCEPTABLE_PORT_IDENTIFIER),
        (Command.RNN_ID, names.RegisterName(TARGET, name(1)), CtExplanation.UNACCEPTABLE_PORT_IDENTIFIER),
        (Command.RNN_ID, names.RegisterName(INITIATOR, bytes(8)), CtExplanation.ACCESS_DENIED),
        (Command.RNN_ID, names.RegisterName(INITIATOR, name(TARGET, 1)), CtExplanation.ACCESS_DENIED),
        (Command.RPN_ID, names.RegisterName(INITIATOR, name(TARGET)), CtExplanation.ACCESS_DENIED),
        (Command.DA_ID, names.ByPort(TARGET), CtExplanation.UNACCEPTABLE_PORT_IDENTIFIER),
        (Command.RSNN_NN, names.RegisterSymbolicNodeName(name(TARGET, 1), b"x"), CtExplanation.NODE_NAME_NOT_REGISTERED),
    ],
)
def test_refused(command, request_, explanation):
    site = Site()
    before = len(site.changes)
    assert site.refusal(command, request_) == (CtReason.UNABLE_TO_PERFORM, explanation)
    assert len(site.changes) == before


def test_registrations_of_a_stranger():
    assert Site().refusal(Command.RFT_ID, names.RegisterTypes(0x999, bytes(32)), 0x999)[1] == (
        CtExplanation.PORT_IDENTIFIER_NOT_REGISTERED
    )


def test_changes():
    """Others are told of what they may look for: names, types and features, if they are new."""
    site = Site()
    assert site.changes == [INITIATOR, INITIATOR]  # RFT_ID, RFF_ID
    for command, request in (
        (Command.RFT_ID, names.RegisterTypes(INITIATOR, names.fc4_types([FCP, 0x20]))),
        (Command.RFF_ID, names.RegisterFeatures(INITIATOR, 2)),
        (Command.RCS_ID, names.RegisterClassOfService(INITIATOR, 8)),
        (Command.RPT_ID, names.RegisterPortType(INITIATOR, 1)),
        (Command.RPN_ID, names.RegisterName(INITIATOR, name(INITIATOR))),
    ):
        assert site.ask(INITIATOR, command, request).code == ACCEPT
    assert len(site.changes) == 2
    assert site.ask(INITIATOR, Command.RFF_ID, names.RegisterFeatures(INITIATOR, 3)).code == ACCEPT
    assert len(site.changes) == 3


def test_da_id():
    site = Site()
    assert site.ask(INITIATOR, Command.DA_ID, names.ByPort(INITIATOR)).code == ACCEPT
    assert site.get(Command.GPN_FT, names.ByType()).ports == ((TARGET, name(TARGET)),)
    assert site.get(Command.GPN_ID, names.ByPort(INITIATOR)) == names.Name(name(INITIATOR))
    assert site.changes[-1] == INITIATOR


def test_domain_and_area():
    site = Site()
    assert site.get(Command.GID_PT, names.ByPortType(domain=2)).ports == (SILENT,)
    assert site.get(Command.GID_PT, names.ByPortType(domain=2, area=3)).ports == (SILENT,)
    assert site.refusal(Command.GID_PT, names.ByPortType(domain=2, area=4))[1] == CtExplanation.PORT_TYPE_NOT_REGISTERED


def test_maximum_size():
    """What does not fit is counted in the answer (FC-GS 4.3.2.6)."""
    site = Site()
    answer = site.ask(INITIATOR, Command.GPN_FT, names.ByType(), size=4)
    assert (len(answer.body), answer.size) == (16, 4)
    assert answer.body[0] == names.LAST_ENTRY
    assert site.ask(INITIATOR, Command.GPN_ID, names.ByPort(TARGET), size=1).code == REJECT
    assert site.ask(INITIATOR, Command.GPN_FT, names.ByType(), size=3).body == b""


def test_many_ports():
    site = Site()
    for fc_id in range(0x010100, 0x010500):
        site.server.add(fc_id, name(fc_id), name(fc_id, 1), features={FCP: 1})
    assert len(site.get(Command.GPN_FT, names.ByType()).ports) == 0x402


@pytest.mark.parametrize(
    ("iu", "reason"),
    [
        (b"", CtReason.INVALID_IU_SIZE),
        (bytes(15), CtReason.INVALID_IU_SIZE),
        (CtIu(Command.GPN_ID, bytes(4), revision=2).pack(), CtReason.INVALID_VERSION_LEVEL),
        (CtIu(Command.GPN_ID, bytes(4), gs_type=0xFA).pack(), CtReason.SERVER_NOT_AVAILABLE),
        (CtIu(0x0999, bytes(4)).pack(), CtReason.COMMAND_NOT_SUPPORTED),
        (CtIu(Command.GPN_ID, bytes(3)).pack(), CtReason.INVALID_IU_SIZE),
        (CtIu(Command.RFT_ID, bytes(35)).pack(), CtReason.INVALID_IU_SIZE),
    ],
)
def test_bad_requests(iu, reason):
    answer = Site().server.request(INITIATOR, iu)
    assert (answer.code, answer.reason) == (REJECT, reason)


@given(st.sampled_from(list(Command)), st.binary(max_size=300), st.integers(0, 0xFFFF))
def test_any_body(command, body, size):
    answer = Site().server.request(INITIATOR, CtIu(command, body, size).pack())
    assert answer.code in (ACCEPT, REJECT)
    with contextlib.suppress(KeyError):
        if answer.code == ACCEPT:
            names.ACCEPTS[command].parse(answer.body)
