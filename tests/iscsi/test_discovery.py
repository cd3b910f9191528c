"""Text requests in full feature phase: RFC 7143 6.4, 11.10, 11.11, appendix C; UNH-IOL 17.x."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_iscsi.protocol.discovery import PortalRecord, TargetRecord, TextAnswer, TextPhase, send_targets, target_address
from tcm_iscsi.protocol.parameters import ConnectionParameters
from tcm_iscsi.protocol.pdu import CONTINUE, FINAL, RESERVED_TAG, RejectReason
from tcm_iscsi.protocol.text import encode, parse

ONE, TWO = "iqn.2001-04.com.example:one", "iqn.2001-04.com.example:two"
RECORDS = [
    TargetRecord(
        ONE, (PortalRecord("192.0.2.1", 3260, 1), PortalRecord("2001:db8::1", 3261, 1), PortalRecord("192.0.2.2", 3260, 2))
    ),
    TargetRecord(TWO, (PortalRecord("192.0.2.1", 3260, 1),)),
]
ITT = 77


def phase(target_name: str | None = None, records: list[TargetRecord] | None = None, limit: int = 8192) -> TextPhase:
    found = RECORDS if records is None else records
    parameters = ConnectionParameters(initiator_max_recv_data_segment_length=limit)
    return TextPhase(lambda: found, parameters, target_name=target_name, local_address="198.51.100.7")


def ask(text: TextPhase, **keys: str) -> TextAnswer:
    return text.request(FINAL, ITT, RESERVED_TAG, encode(keys.items()))


def records_in(answer: TextAnswer) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in parse(answer.data, {"TargetName", "TargetAddress"}):
        if name == "TargetName":
            addresses = found.setdefault(value, [])
        else:
            assert name == "TargetAddress"
            addresses.append(value)
    return found


# SendTargets


def test_sendtargets_all() -> None:
    """Appendix C: every target, each with its addresses (UNH-IOL 17.1.1, 17.3.1)."""
    answer = ask(phase(), SendTargets="All")
    assert (answer.reject, answer.flags, answer.ttt) == (None, FINAL, RESERVED_TAG)
    assert records_in(answer) == {
        ONE: ["192.0.2.1:3260,1", "[2001:db8::1]:3261,1", "192.0.2.2:3260,2"],
        TWO: ["192.0.2.1:3260,1"],
    }


def test_sendtargets_none_there() -> None:
    """Appendix C: zero or more targets."""
    answer = ask(phase(records=[]), SendTargets="All")
    assert (answer.reject, answer.data) == (None, b"")


@pytest.mark.parametrize(
    ("target_name", "value", "expected"),
    [
        (None, ONE, [ONE]),
        (None, ONE.upper(), [ONE]),
        (None, "iqn.2001-04.com.example:three", []),
        (ONE, "", [ONE]),
        (ONE, ONE, [ONE]),
        (ONE, "All", None),
        (ONE, TWO, None),
        (None, "", None),
        (None, "nonsense", None),
        (None, "all", None),
    ],
)
def test_sendtargets_value_and_session(target_name: str | None, value: str, expected: list[str] | None) -> None:
    """Appendix C: All in discovery sessions only, empty in normal ones only, where nothing but the own target is told
    (UNH-IOL 17.3.3 to 17.3.5)."""
    answer = ask(phase(target_name), SendTargets=value)
    assert answer.reject is None
    if expected is None:
        assert answer.data == b"SendTargets=Reject\0"
    else:
        assert list(records_in(answer)) == expected


@pytest.mark.parametrize(
    ("portal", "local", "address"),
    [
        (("192.0.2.1", 3260, 1), "198.51.100.7", "192.0.2.1:3260,1"),
        (("2001:db8:0::1", 3260, 65535), "198.51.100.7", "[2001:db8::1]:3260,65535"),
        (("fe80::1%eth0", 3260, 1), "", "[fe80::1]:3260,1"),
        (("disks.example.com", 860, 2), "", "disks.example.com:860,2"),
        (("0.0.0.0", 3260, 1), "198.51.100.7", "198.51.100.7:3260,1"),
        (("::", 3260, 1), "198.51.100.7", "198.51.100.7:3260,1"),
        (("::", 3260, 1), "::ffff:198.51.100.7", "198.51.100.7:3260,1"),
        (("::", 3260, 1), "2001:db8::7", "[2001:db8::7]:3260,1"),
        (("::", 3260, 1), "fe80::7%eth0", "[fe80::7]:3260,1"),
        (("0.0.0.0", 3260, 1), "::ffff:198.51.100.7", "198.51.100.7:3260,1"),
        (("0.0.0.0", 3260, 1), "2001:db8::7", None),
        (("0.0.0.0", 3260, 1), "", None),
    ],
)
def test_target_address(portal: tuple[str, int, int], local: str, address: str | None) -> None:
    """RFC 7143 13.8: IPv6 in brackets; a wildcard becomes where the initiator reached us."""
    assert target_address(PortalRecord(*portal), local) == address


def test_addresses_are_given_once() -> None:
    """Two wildcard portals of a group are one address."""
    record = TargetRecord(
        ONE, (PortalRecord("0.0.0.0", 3260, 1), PortalRecord("::", 3260, 1), PortalRecord("0.0.0.0", 3260, 2))
    )
    assert list(send_targets([record], "192.0.2.9")) == [
        ("TargetName", ONE),
        ("TargetAddress", "192.0.2.9:3260,1"),
        ("TargetAddress", "192.0.2.9:3260,2"),
    ]


@pytest.mark.parametrize("limit", [512, 1024, 8192, 262144])
def test_sendtargets_long_response(limit: int) -> None:
    """RFC 7143 11.11: pieces with the C bit, each fetched by an empty request with our tag."""
    many = [TargetRecord(f"iqn.2001-04.com.example:disk{i:04}", RECORDS[0].portals) for i in range(250)]
    text = phase(records=many, limit=limit)
    answer = ask(text, SendTargets="All")
    data = answer.data
    while answer.flags & CONTINUE:
        assert not answer.flags & FINAL
        assert answer.ttt != RESERVED_TAG
        assert len(answer.data) == limit
        answer = text.request(FINAL, ITT, answer.ttt, b"")
        assert answer.reject is None
        data += answer.data
    assert (answer.flags, answer.ttt) == (FINAL, RESERVED_TAG)
    assert len(records_in(TextAnswer(data=data))) == 250


def test_sendtargets_alone() -> None:
    """Appendix C: exactly one key."""
    assert ask(phase(), SendTargets="All", InitiatorAlias="me").reject is RejectReason.PROTOCOL_ERROR
    text = phase()
    answer = text.request(0, ITT, RESERVED_TAG, b"SendTargets=All\0")
    assert not answer.flags & FINAL
    assert text.request(FINAL, ITT, answer.ttt, b"SendTargets=All\0").reject is RejectReason.PROTOCOL_ERROR


# F, C and the Target Transfer Tag


def test_text_f_bit() -> None:
    """RFC 7143 11.11.1: F=0 is answered with F=0 and a tag, F=1 ends it (UNH-IOL 17.1.2, 17.2.1, 17.2.2)."""
    text = phase()
    answer = text.request(0, ITT, RESERVED_TAG, b"SendTargets=All\0")
    assert (answer.flags, answer.reject) == (0, None)
    assert answer.ttt != RESERVED_TAG
    assert records_in(answer)
    answer = text.request(FINAL, ITT, answer.ttt, b"")
    assert (answer.flags, answer.ttt, answer.data) == (FINAL, RESERVED_TAG, b"")


def test_text_c_bit() -> None:
    """RFC 7143 6.2: a request with C is answered empty; text may be cut anywhere (UNH-IOL 17.8.1)."""
    data = b"InitiatorAlias=" + b"a" * 240 + b"\0X-cbit.ioliscsilab.test=" + b"b" * 250 + b"\0"
    for at in range(1, len(data), 50):
        text = phase(ONE)
        answer = text.request(CONTINUE, ITT, RESERVED_TAG, data[:at])
        assert (answer.flags, answer.data) == (0, b"")
        answer = text.request(FINAL, ITT, answer.ttt, data[at:])
        assert (answer.flags, answer.data) == (FINAL, b"X-cbit.ioliscsilab.test=NotUnderstood\0")


def test_text_c_and_f() -> None:
    """RFC 7143 11.10.2: both set is an error, and what it declared is void (UNH-IOL 17.8.2)."""
    answer = phase(ONE).request(CONTINUE | FINAL, ITT, RESERVED_TAG, b"MaxRecvDataSegmentLength=512\0")
    assert answer.reject is RejectReason.PROTOCOL_ERROR
    assert answer.initiator_max_recv_data_segment_length is None


@pytest.mark.parametrize(("itt", "change"), [(ITT + 1, 0), (ITT, 1), (ITT, -1)])
def test_text_wrong_tags(itt: int, change: int) -> None:
    """RFC 7143 11.10.4: tags that belong to no sequence (UNH-IOL 17.5); then a new start works (17.7.1)."""
    text = phase(ONE)
    answer = text.request(0, ITT, RESERVED_TAG, b"MaxRecvDataSegmentLength=512\0")
    refused = text.request(FINAL, itt, answer.ttt + change, b"InitiatorAlias=me\0")
    assert refused.reject is RejectReason.PROTOCOL_ERROR
    answer = text.request(0, ITT, RESERVED_TAG, b"MaxRecvDataSegmentLength=512\0")
    assert answer.reject is None
    assert text.request(FINAL, ITT, answer.ttt, b"").initiator_max_recv_data_segment_length == 512


def test_text_tag_without_sequence() -> None:
    """RFC 7143 11.10.4: a tag that nobody gave."""
    assert phase().request(FINAL, ITT, 1, b"").reject is RejectReason.PROTOCOL_ERROR


def test_text_piece_needs_empty_request() -> None:
    """RFC 7143 6.2: text where our own is not finished."""
    for flags, data in ((FINAL, b"InitiatorAlias=me\0"), (CONTINUE, b"")):
        text = phase(limit=40)
        answer = ask(text, SendTargets="All")
        assert answer.flags == CONTINUE
        assert text.request(flags, ITT, answer.ttt, data).reject is RejectReason.PROTOCOL_ERROR


# declarations


def test_text_redeclares_segment_length() -> None:
    """RFC 7143 13.12: ALL; the new value is told once the sequence has ended (UNH-IOL 17.1.2)."""
    text = phase(ONE)
    answer = text.request(0, ITT, RESERVED_TAG, b"MaxRecvDataSegmentLength=1024\0")
    assert (answer.data, answer.initiator_max_recv_data_segment_length) == (b"", None)
    answer = text.request(FINAL, ITT, answer.ttt, b"")
    assert answer.initiator_max_recv_data_segment_length == 1024


@pytest.mark.parametrize("value", ["511", "16777216", "many"])
def test_text_illegal_declaration(value: str) -> None:
    """RFC 7143 7.11: the negotiation is reset, nothing changes (UNH-IOL 17.7.3)."""
    text = phase(ONE)
    answer = ask(text, MaxRecvDataSegmentLength=value)
    assert answer.reject is RejectReason.NEGOTIATION_RESET
    assert answer.initiator_max_recv_data_segment_length is None
    assert ask(text, MaxRecvDataSegmentLength="2048").initiator_max_recv_data_segment_length == 2048


def test_text_declared_twice() -> None:
    """RFC 7143 6.4: once in a sequence (UNH-IOL 17.6), again after a reset."""
    text = phase(ONE)
    answer = text.request(0, ITT, RESERVED_TAG, b"MaxRecvDataSegmentLength=512\0")
    assert text.request(0, ITT, answer.ttt, b"MaxRecvDataSegmentLength=512\0").reject is RejectReason.PROTOCOL_ERROR
    answer = text.request(0, ITT, RESERVED_TAG, b"MaxRecvDataSegmentLength=512\0")
    assert answer.reject is None


def test_text_abandoned_declaration() -> None:
    """RFC 7143 7.11: a new sequence discards what the old one declared (UNH-IOL 17.7.2)."""
    text = phase(ONE)
    text.request(0, ITT, RESERVED_TAG, b"MaxRecvDataSegmentLength=512\0")
    assert ask(text, InitiatorAlias="me").initiator_max_recv_data_segment_length is None


def test_text_in_discovery_session() -> None:
    """RFC 7143 4.3: nothing but SendTargets (UNH-IOL 17.4.1)."""
    answer = ask(phase(), MaxRecvDataSegmentLength="1024")
    assert answer.data == b"MaxRecvDataSegmentLength=Irrelevant\0"
    assert answer.initiator_max_recv_data_segment_length is None


@pytest.mark.parametrize(
    "keys", [{"HeaderDigest": "None"}, {"InitialR2T": "No"}, {"InitiatorName": ONE}, {"MaxBurstLength": "512"}]
)
def test_text_login_keys(keys: dict[str, str]) -> None:
    """RFC 7143 13: LO and IO keys are not for full feature phase."""
    assert ask(phase(ONE), **keys).reject is RejectReason.PROTOCOL_ERROR


@pytest.mark.parametrize("data", [b"x", b"SendTargets=All", b"\0", b"=\0", b"A=\xff\0", b"SendTargets=All\0SendTargets=All\0"])
def test_text_malformed(data: bytes) -> None:
    """RFC 7143 6.1."""
    assert phase().request(FINAL, ITT, RESERVED_TAG, data).reject is RejectReason.PROTOCOL_ERROR


def test_text_without_end() -> None:
    """64 KiB of text over the C bit, and no more."""
    text = phase()
    answer = text.request(CONTINUE, ITT, RESERVED_TAG, b"X" * 8192)
    sent = 8192
    while answer.reject is None:
        answer = text.request(CONTINUE, ITT, answer.ttt, b"X" * 8192)
        sent += 8192
        assert sent <= 10 << 20
    assert sent <= 65536 + 8192
    assert ask(text, SendTargets="All").reject is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, FINAL, CONTINUE, FINAL | CONTINUE]),
            st.sampled_from([ITT, ITT + 1]),
            st.sampled_from([RESERVED_TAG, "ours", 5]),
            st.sampled_from(
                [b"", b"SendTargets=All\0", b"SendTargets=", b"All\0", b"MaxRecvDataSegmentLength=512\0", b"\0", b"X-a=1\0"]
            ),
        ),
        max_size=10,
    )
)
def test_text_any_requests(requests: list[tuple[int, int, object, bytes]]) -> None:
    """Invariant: F only in answer to F, with the reserved tag; otherwise a tag; C never with F; no piece over the limit."""
    text = phase(limit=64)
    ours = 1
    for flags, itt, ttt, data in requests:
        answer = text.request(flags, itt, ours if ttt == "ours" else ttt, data)  # type: ignore[arg-type]
        if answer.reject is not None:
            continue
        assert len(answer.data) <= 64
        assert answer.flags in (0, FINAL, CONTINUE)
        assert (answer.ttt == RESERVED_TAG) == (answer.flags == FINAL)
        if answer.flags == FINAL:
            assert flags & FINAL
        else:
            ours = answer.ttt


# what we declare anew


def test_declarations_go_with_the_answer_to_the_next_request() -> None:
    """13.12, 13.4: use ALL. The initiator is asked once, and told once, the value that holds then."""
    text = phase(ONE)
    text.told = {"MaxRecvDataSegmentLength": "8192", "TargetAlias": ""}
    assert not text.declare({"MaxRecvDataSegmentLength": "8192", "TargetAlias": ""})
    assert text.declare({"MaxRecvDataSegmentLength": "4096", "TargetAlias": ""})
    assert not text.declare({"MaxRecvDataSegmentLength": "2048", "TargetAlias": "disks"})
    answer = text.request(FINAL, ITT, RESERVED_TAG, b"")
    assert parse(answer.data) == [("MaxRecvDataSegmentLength", "2048"), ("TargetAlias", "disks")]
    assert answer.max_recv_data_segment_length == 2048
    again = text.request(FINAL, ITT, RESERVED_TAG, b"")
    assert (again.data, again.max_recv_data_segment_length) == (b"", None)
    assert not text.declare({"MaxRecvDataSegmentLength": "2048", "TargetAlias": "disks"})
    # taken back before anybody was told: nothing to tell
    assert text.declare({"MaxRecvDataSegmentLength": "1024", "TargetAlias": "disks"})
    assert not text.declare({"MaxRecvDataSegmentLength": "2048", "TargetAlias": "disks"})
    assert text.request(FINAL, ITT, RESERVED_TAG, b"").data == b""


def test_a_declaration_holds_once_the_sequence_has_ended() -> None:
    """6.4: a sequence that breaks a rule is forgotten, with what we had declared in it."""
    text = phase(ONE)
    assert text.declare({"MaxRecvDataSegmentLength": "4096"})
    first = text.request(0, ITT, RESERVED_TAG, b"")
    assert (first.flags, first.max_recv_data_segment_length) == (0, None)
    assert parse(first.data) == [("MaxRecvDataSegmentLength", "4096")]
    assert text.request(FINAL | CONTINUE, ITT, first.ttt, b"").reject is RejectReason.PROTOCOL_ERROR
    assert text.told == {}
    last = text.request(FINAL, ITT, RESERVED_TAG, encode([("MaxRecvDataSegmentLength", "512")]))
    assert (last.max_recv_data_segment_length, last.initiator_max_recv_data_segment_length) == (4096, 512)
    assert text.told == {"MaxRecvDataSegmentLength": "4096"}


def test_sendtargets_stands_alone_whatever_there_is_to_declare() -> None:
    text = phase(ONE)
    text.declare({"MaxRecvDataSegmentLength": "4096"})
    assert list(records_in(ask(text, SendTargets=""))) == [ONE]
    assert ask(text).max_recv_data_segment_length == 4096
