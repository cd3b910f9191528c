"""Common Transport and the name server's requests and answers (FC-GS): bytes of the tables, both ways, any bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_fcoe.protocol.ct import (
    ACCEPT,
    REJECT,
    CtError,
    CtExplanation,
    CtIu,
    CtReason,
    accept,
    check_request,
    parse_iu,
    reject,
)
from tcm_fcoe.protocol.ct_names import (
    ACCEPTS,
    REQUESTS,
    AllObjects,
    ByFeatures,
    ByName,
    ByPort,
    ByPortType,
    ByType,
    ClassOfService,
    Features,
    Name,
    NameServerCommand,
    PortId,
    PortIds,
    PortsAndNames,
    PortTypeObject,
    RegisterClassOfService,
    RegisterFeatures,
    RegisterName,
    RegisterPortType,
    RegisterSymbolicNodeName,
    RegisterSymbolicPortName,
    RegisterTypes,
    SymbolicName,
    Types,
    fc4_types,
    has_fc4_type,
    parse_request,
    request_iu,
)

NAME = bytes(range(1, 9))
FCP_TYPES = "00000100" + "00" * 28

VECTORS = [
    (NameServerCommand.GPN_ID, ByPort(0x010203), "00010203"),
    (NameServerCommand.DA_ID, ByPort(0x010203), "00010203"),
    (NameServerCommand.GID_PN, ByName(NAME), "0102030405060708"),
    (NameServerCommand.GID_FT, ByType(), "00000008"),
    (NameServerCommand.GPN_FT, ByType(8, 1, 2), "00010208"),
    (NameServerCommand.GID_PT, ByPortType(), "7f000000"),
    (NameServerCommand.GID_FF, ByFeatures(1), "00000000 00000108"),
    (NameServerCommand.RNN_ID, RegisterName(0x010203, NAME), "00010203 0102030405060708"),
    (NameServerCommand.RCS_ID, RegisterClassOfService(0x010203, 8), "00010203 00000008"),
    (NameServerCommand.RFT_ID, RegisterTypes(0x010203, fc4_types((8,))), "00010203" + FCP_TYPES),
    (NameServerCommand.RFF_ID, RegisterFeatures(0x010203, 1), "00010203 00000108"),
    (NameServerCommand.RPT_ID, RegisterPortType(0x010203, 1), "00010203 01000000"),
    (NameServerCommand.RSPN_ID, RegisterSymbolicPortName(0x010203, b"tcm"), "00010203 0374636d"),
    (NameServerCommand.RSNN_NN, RegisterSymbolicNodeName(NAME, b"tcm"), "0102030405060708 0374636d"),
]


@pytest.mark.parametrize("command, request_, expected", VECTORS, ids=lambda each: getattr(each, "name", ""))
def test_requests(command, request_, expected):
    iu = request_iu(command, request_, size=0x100)
    data = iu.pack()
    preamble = bytes.fromhex("01000000 fc020000") + command.to_bytes(2, "big") + bytes.fromhex("0100 00000000")
    assert data == preamble + bytes.fromhex(expected)
    parsed = parse_iu(memoryview(data))
    check_request(parsed)
    assert parse_request(parsed) == request_
    for length in range(len(data)):
        with pytest.raises(CtError) as caught:
            parse_request(parse_iu(data[:length]))
        assert caught.value.reason == CtReason.INVALID_IU_SIZE


ANSWERS = [
    (PortIds((0x010203, 0x010204)), "00010203 80010204"),
    (PortsAndNames(((0x010203, NAME),)), "80010203 00000000 0102030405060708"),
    (PortId(0x010203), "00010203"),
    (Name(NAME), "0102030405060708"),
    (Types(fc4_types((8,))), FCP_TYPES),
    (Features.made_of({8: 3}), "00000000 00000003" + "00" * 120),
    (ClassOfService(8), "00000008"),
    (PortTypeObject(1), "01000000"),
    (SymbolicName(b"tcm"), "0374636d"),
]


@pytest.mark.parametrize("answer, expected", ANSWERS, ids=lambda each: type(each).__name__)
def test_answers(answer, expected):
    data = bytes.fromhex(expected)
    assert answer.pack() == data
    assert type(answer).parse(data) == answer


def test_rows_end_with_the_last_one():
    assert PortIds.parse(bytes.fromhex("00000001 80000002 00000003")).ports == (1, 2)
    assert PortIds.parse(b"").ports == ()
    assert PortIds(()).pack() == b""


def test_all_objects_has_its_length():
    """620 bytes (FC-GS, GA_NXT)."""
    objects = AllObjects(1, 2, NAME, 3, b"tcm".ljust(255, b"\0"), NAME, 0, bytes(255), 8, fc4_types((8,)))
    assert len(objects.pack()) == 620
    assert AllObjects.parse(objects.pack()) == objects


@given(st.sets(st.integers(0, 255)))
def test_fc4_types(types):
    assert {each for each in range(256) if has_fc4_type(fc4_types(types), each)} == types


@given(st.dictionaries(st.integers(0, 255), st.integers(1, 15)))
def test_fc4_features(features):
    made = Features.made_of(features)
    assert {each: made.of(each) for each in range(256) if made.of(each)} == features


def test_every_request_has_one_payload():
    for code, request in REQUESTS.items():
        assert code in request.commands
    gets = {code for code in REQUESTS if code < 0x200}
    assert gets == ACCEPTS.keys()


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"revision": 2}, CtReason.INVALID_VERSION_LEVEL),
        ({"gs_type": 0xFA}, CtReason.SERVER_NOT_AVAILABLE),
        ({"gs_subtype": 1}, CtReason.SERVER_NOT_AVAILABLE),
    ],
)
def test_requests_to_others(changes, reason):
    with pytest.raises(CtError) as caught:
        check_request(CtIu(NameServerCommand.GID_FT, **changes))
    assert caught.value.reason == reason


def test_unknown_commands():
    with pytest.raises(CtError) as caught:
        parse_request(CtIu(0x0999))
    assert caught.value.reason == CtReason.COMMAND_NOT_SUPPORTED


def test_accept_and_reject():
    assert parse_iu(accept(b"body", residual=3).pack()) == CtIu(ACCEPT, b"body", 3)
    assert accept().accepted
    iu = parse_iu(reject(CtReason.UNABLE_TO_PERFORM, CtExplanation.PORT_IDENTIFIER_NOT_REGISTERED).pack())
    assert (iu.code, iu.reason, iu.explanation, iu.accepted) == (REJECT, 9, 1, False)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_request_or_an_error(data):
    with contextlib.suppress(CtError):
        assert parse_request(parse_iu(data)) is not None


@given(st.sampled_from(sorted(REQUESTS)), st.binary(max_size=400))
def test_any_body_is_a_request_or_an_error(code, body):
    try:
        request = parse_request(CtIu(code, body))
    except CtError:
        return
    assert type(request).parse(request.pack()) == request
