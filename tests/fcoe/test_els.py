"""Payloads of Extended Link Services (FC-LS-2): bytes of the tables, both ways, cut at every byte, any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_fcoe.protocol import els
from tcm_fcoe.protocol.els import (
    ACCEPTS,
    REQUESTS,
    Adisc,
    Echo,
    ExchangeQuery,
    ExchangeStatus,
    LinkErrorStatus,
    Logo,
    NodeIdentification,
    Plain,
    Reject,
    Rls,
    Rnid,
    Rscn,
    Scr,
    Srr,
    TimeoutValues,
    parse_reply,
    parse_request,
)
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason, command_name
from tcm_fcoe.protocol.els_login import (
    CLASS_VALID,
    FEATURE_E_D_TOV_NANOSECONDS,
    ClassParameters,
    Login,
    PrliResponse,
    ProcessLogin,
    ServicePage,
)
from tcm_fcoe.protocol.els_payload import ElsError

NAME, NODE = bytes(range(1, 9)), bytes(range(11, 19))

VECTORS = [
    (Plain(), "02000000"),
    (Plain(ElsCommand.RTV), "0e000000"),
    (Reject(Reason.UNABLE_TO_PERFORM, Explanation.N_PORT_LOGIN_REQUIRED, 7), "01000000 00091e07"),
    (Logo(0x010203, NAME), "05000000 00010203 0102030405060708"),
    (TimeoutValues(10_000, 2000), "02000000 00002710 000007d0 00000000"),
    (Rls(0x010203), "0f000000 00010203"),
    (LinkErrorStatus(1, 2, 3, 4, 5, 6), "02000000 00000001 00000002 00000003 00000004 00000005 00000006"),
    (Echo(b"ab"), "10000000 6162"),
    (ExchangeQuery(0x010203, 0x1234, 0x5678, ElsCommand.RRQ), "12000000 00010203 12345678"),
    (ExchangeQuery(0x010203, 0x1234, 0x5678, ElsCommand.REC), "13000000 00010203 12345678"),
    (ExchangeStatus(0x1234, 0x5678, 1, 2, 4096, 0x80000000), "02000000 12345678 00000001 00000002 00001000 80000000"),
    (Srr(0x1234, 0x5678, 4096, 1), "14000000 12345678 00001000 01000000"),
    (Rscn(((0, 0x010203), (1, 0x020000))), "6104000c 00010203 01020000"),
    (Scr(3), "62000000 00000003"),
    (Adisc(NAME, NODE, 0x010203), "52000000 00000000 0102030405060708 0b0c0d0e0f101112 00010203"),
    (Rnid(0xDF), "78000000 df000000"),
    (NodeIdentification(NAME, NODE), "02000000 00100000 0102030405060708 0b0c0d0e0f101112"),
    (
        ProcessLogin(ElsCommand.PRLI, (ServicePage(parameters=0x22),)),
        "20100014 08002000 00000000 00000000 00000022",
    ),
    (
        ProcessLogin(ElsCommand.PRLO, (ServicePage(flags=0), ServicePage(type=0x28, flags=0x4000, responder_associator=5))),
        "21100024 08000000 00000000 00000000 00000000 28004000 00000000 00000005 00000000",
    ),
]


@pytest.mark.parametrize("payload, expected", VECTORS, ids=lambda each: type(each).__name__ if hasattr(each, "pack") else "")
def test_bytes_of_the_tables(payload, expected):
    data = bytes.fromhex(expected)
    assert payload.pack() == data
    parsed = type(payload).parse(memoryview(data))
    assert parsed.pack() == data
    if not isinstance(payload, ProcessLogin | Rscn):
        assert parsed == payload


@pytest.mark.parametrize("payload", [each for each, _data in VECTORS], ids=lambda each: type(each).__name__)
def test_cut_at_every_byte(payload):
    data = payload.pack()
    open_ended = isinstance(payload, Echo)  # whatever comes after four bytes is the data
    for length in range(4 if open_ended else len(data)):
        with pytest.raises(ElsError) as caught:
            type(payload).parse(data[:length])
        assert caught.value.explanation == Explanation.INVALID_PAYLOAD_LENGTH


@pytest.mark.parametrize("payload", [each for each, _data in VECTORS if not isinstance(each, Echo | NodeIdentification)])
def test_bytes_after_the_table_are_ignored(payload):
    """Later standards append fields."""
    assert type(payload).parse(payload.pack() + b"more").pack() == payload.pack()


def test_login():
    class_3 = ClassParameters(CLASS_VALID, receive_size=2048, concurrent_sequences=255, open_sequences_per_exchange=1)
    login = Login(
        ElsCommand.PLOGI, NAME, NODE, credit=10, receive_size=2112, word_2=0xFF001F, word_3=2000, class_3=class_3.pack()
    )
    data = login.pack()
    assert len(data) == 116
    assert data[4:20] == bytes.fromhex("2020000a 00000840 00ff001f 000007d0")
    assert Login.parse(data) == login
    assert login.class_3_parameters == class_3
    assert login.data_field_size == 2048
    assert login.e_d_tov == 2.0
    long = Login(ElsCommand.PLOGI, NAME, NODE, extension=bytes(140))
    assert Login.parse(long.pack()) == long
    assert len(long.pack()) == 256


def test_times_of_a_login():
    login = Login(ElsCommand.LS_ACC, NAME, NODE, word_2=10_000, word_3=2_000_000_000, features=FEATURE_E_D_TOV_NANOSECONDS)
    assert (login.r_a_tov, login.e_d_tov) == (10.0, 2.0)


@pytest.mark.parametrize(
    "common, own, size", [(2112, 0, 2112), (2112, 2048, 2048), (2048, 2112, 2048), (0xF840, 0, 2112), (0, 0, 0)]
)
def test_receive_data_field_size(common, own, size):
    """Of the class if that says one; the high bits of the common word are BB_SC_N."""
    login = Login(
        ElsCommand.PLOGI, NAME, NODE, receive_size=common, class_3=ClassParameters(CLASS_VALID, receive_size=own).pack()
    )
    assert login.data_field_size == size


def test_prli_response():
    assert ServicePage(flags=0x2100).response == PrliResponse.EXECUTED
    assert ServicePage(flags=0x0500).response == PrliResponse.NOT_POSSIBLE


@pytest.mark.parametrize(
    "pages, fc_id, affected",
    [
        (((0, 0x010203),), 0x010203, True),
        (((0, 0x010203),), 0x010204, False),
        (((1, 0x010200),), 0x0102FF, True),
        (((1, 0x010200),), 0x010300, False),
        (((2, 0x010000),), 0x01FFFF, True),
        (((2, 0x010000),), 0x020000, False),
        (((3, 0),), 0x123456, True),
        (((0x20, 0x010203),), 0x010203, True),  # an event qualifier
        (((0, 1), (0, 2)), 2, True),
        ((), 2, False),
    ],
)
def test_whom_an_rscn_affects(pages, fc_id, affected):
    assert Rscn(pages).affects(fc_id) is affected


@pytest.mark.parametrize(
    "data", [b"\x61\x04\0\x06" + bytes(8), b"\x61\x08\0\x0c" + bytes(8), b"\x61\x04\0\x10" + bytes(8), b"\x61\x04\0\0"]
)
def test_rscn_with_lengths_that_lie(data):
    with pytest.raises(ElsError):
        parse_request(data)


def test_every_request_is_known_by_its_code():
    for code, payload in REQUESTS.items():
        assert issubclass(payload, els.Payload)
        assert command_name(code) == ElsCommand(code).name
    assert command_name(0x99) == "ELS 99h"
    for code in ACCEPTS:
        assert code in REQUESTS


@pytest.mark.parametrize("code", range(256))
def test_every_code(code):
    """A request that we know, one that we do not do, or none at all."""
    data = bytes((code,)) + bytes(255)
    if code in REQUESTS:
        try:
            assert parse_request(data).command == code
        except ElsError as error:
            assert code in (ElsCommand.PRLI, ElsCommand.PRLO, ElsCommand.RSCN)
            assert error.explanation == Explanation.INVALID_PAYLOAD_LENGTH  # noqa: PT017
        return
    with pytest.raises(ElsError) as caught:
        parse_request(data)
    known = code in set(ElsCommand) - {ElsCommand.LS_ACC, ElsCommand.LS_RJT}
    assert caught.value.reason == (Reason.COMMAND_NOT_SUPPORTED if known else Reason.INVALID_COMMAND_CODE)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_an_error(data):
    try:
        request = parse_request(data)
    except ElsError:
        return
    assert request.command == data[0]
    assert len(request.pack()) >= 4


@given(st.sampled_from(sorted(REQUESTS)), st.binary(max_size=300), st.sampled_from([b"\x01", b"\x02", b""]))
def test_any_bytes_are_a_reply_or_an_error(code, data, first):
    try:
        reply = parse_reply(code, first + data)
    except ElsError:
        return
    assert isinstance(reply, Reject) == (reply.command == ElsCommand.LS_RJT)


@pytest.mark.parametrize("code", sorted(REQUESTS))
def test_reject_answers_everything(code):
    assert parse_reply(code, Reject(9, 0x1E).pack()) == Reject(9, 0x1E)


@pytest.mark.parametrize("data", [b"", b"\x02", b"\x03\0\0\0", b"\x01\0\0\0"])
def test_what_answers_nothing(data):
    with pytest.raises(ElsError):
        parse_reply(ElsCommand.RTV, data)
