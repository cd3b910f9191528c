import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.scsi.transport_id import TransportId, parse

ISCSI, FCP, SAS = ProtocolIdentifier.ISCSI, ProtocolIdentifier.FCP, ProtocolIdentifier.SAS


def test_iscsi_name_only():
    """SPC-5 7.6.4.6: at least 20 bytes of name."""
    packed = TransportId(ISCSI, "iqn.a:b").pack()
    assert packed == bytes.fromhex("05000014") + b"iqn.a:b".ljust(20, b"\0")
    assert parse(packed + b"next") == (TransportId(ISCSI, "iqn.a:b"), 24)


def test_iscsi_with_isid():
    packed = TransportId(ISCSI, "iqn.2003-01.org:host", bytes.fromhex("80123456789a")).pack()
    text = b"iqn.2003-01.org:host,i,0x80123456789a\0"
    assert packed == bytes.fromhex("45000028") + text + b"\0\0"
    assert parse(packed)[0].isid == bytes.fromhex("80123456789a")


def test_fcp_and_sas():
    assert TransportId(FCP, "2100001122334455").pack().hex() == "00" * 8 + "2100001122334455" + "00" * 8
    assert TransportId(SAS, "5001405000000001").pack().hex() == "06000000" + "5001405000000001" + "00" * 12


@pytest.mark.parametrize(
    "identity",
    [
        TransportId(ISCSI, ""),
        TransportId(ISCSI, "x" * 224),
        TransportId(ISCSI, "a,i,0xb"),
        TransportId(ISCSI, "a\0b"),
        TransportId(ISCSI, "a", b"12345"),
        TransportId(FCP, "21"),
        TransportId(SAS, "no hexadecimal!!"),
        TransportId(ProtocolIdentifier.NONE, "a"),
    ],
)
def test_what_cannot_be_packed(identity):
    with pytest.raises(ValueError):
        identity.pack()


@pytest.mark.parametrize(
    "packed",
    [
        "",
        "05000014" + "61" * 19,
        "05000014" + "61" * 20,  # no terminator
        "05000014" + "00" * 20,  # no name
        "05000014" + "6100" + "01" * 18,  # padding
        "05010014" + "61" + "00" * 19,  # reserved
        "15000014" + "61" + "00" * 19,  # reserved
        "05000015" + "61" + "00" * 20,  # not a multiple of four
        "05000010" + "61" + "00" * 19,  # too short
        "45000014" + "61" + "00" * 19,  # format says ISID
        "85000014" + "61" + "00" * 19,  # reserved format
        "0500001c" + b"a,i,0x80123456789a".hex().ljust(56, "0"),  # format says name only
        "4500001c" + b"a,i,0x8012345678 a".hex().ljust(56, "0"),
        "45000014" + b"a,i,0x12".hex().ljust(40, "0"),
        "05000014" + "ff" + "00" * 19,  # not UTF-8
        "40" + "00" * 23,
        "0001" + "00" * 22,
        "06" + "00" * 22 + "01",
        "0f" + "00" * 23,
    ],
)
def test_what_cannot_be_parsed(packed):
    with pytest.raises(ValueError):
        parse(bytes.fromhex(packed))


iscsi_names = st.text(st.characters(codec="utf-8", exclude_characters="\0,"), min_size=1, max_size=50)
worldwide_names = st.binary(min_size=8, max_size=8).map(bytes.hex)


@given(
    st.builds(TransportId, st.just(ISCSI), iscsi_names, st.none() | st.binary(min_size=6, max_size=6))
    | st.builds(TransportId, st.sampled_from([FCP, SAS]), worldwide_names),
    st.binary(max_size=8),
)
def test_round_trip(identity, rest):
    packed = identity.pack()
    assert len(packed) % 4 == 0
    assert parse(packed + rest) == (identity, len(packed))


@given(st.binary(max_size=64))
def test_parse_refuses_or_understands(data):
    try:
        identity, length = parse(data)
    except ValueError:
        return
    assert 24 <= length <= len(data)
    assert parse(identity.pack())[0] == identity
