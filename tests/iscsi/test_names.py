"""iSCSI names: RFC 7143 4.2.7, RFC 3722."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_iscsi.protocol.names import MAX_NAME_LENGTH, InvalidName, is_valid, normalize


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("iqn.2001-04.com.example:storage:diskarrays-sn-a8675309", None),
        ("iqn.2001-04.com.example", None),
        ("iqn.2010-11.ronnie:iscsi-ls", None),
        ("iqn.2003-01.org.linux-iscsi.host.x8664:sn.0123456789ab", None),
        ("IQN.2001-04.COM.Example:Disk", "iqn.2001-04.com.example:disk"),
        ("eui.02004567A425678D", "eui.02004567a425678d"),
        ("naa.52004567BA64678D", "naa.52004567ba64678d"),
        ("naa.62004567BA64678D0123456789ABCDEF", "naa.62004567ba64678d0123456789abcdef"),
        ("iqn.2001-04.com.example:\uff21", "iqn.2001-04.com.example:a"),
        ("iqn.2001-04.com.example:stra\u00dfe", None),
        ("iqn.2001-04.com.example:" + "x" * (MAX_NAME_LENGTH - 24), None),
    ],
)
def test_name_normal_form(name: str, normal: str | None) -> None:
    """RFC 7143 4.2.7.2: NFKC and lower case."""
    assert normalize(name) == normalize(name, strict=True) == (normal or name)
    assert is_valid(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "iqn",
        "iqn.",
        "iqn.2001-04",
        "iqn.2001-04.",
        "iqn.2001-00.com.example",
        "iqn.2001-13.com.example",
        "iqn.201-04.com.example",
        "iqn.2001-04.:x",
        "iqn.2001-04.com.example:",
        "iqn.2001-04.com.example:a b",
        "iqn.2001-04.com.example:a\n",
        "iqn.2001-04.com.example:a\u00a0b",
        "iqn.2001-04.com.example:" + "x" * (MAX_NAME_LENGTH - 23),
        "iqn.2001-04.com.example:" + "\u00e9" * 100,
        "eui.02004567A425678",
        "eui.02004567A425678DD",
        "eui.02004567A425678G",
        "naa.52004567BA64678",
        "naa.62004567BA64678D0123456789ABCDE",
        "ib.00000000000000000000000000000000",
        "disk",
        "\ud800",
    ],
)
def test_name_invalid(name: str) -> None:
    """Each is refused with one line that says how a name looks."""
    with pytest.raises(InvalidName) as caught:
        normalize(name)
    assert "\n" not in str(caught.value)
    assert not is_valid(name)


@pytest.mark.parametrize("character", "_ !#$%&()*+,/;<=>?@[]^`{|}~\"'\\")
def test_name_punctuation(character: str) -> None:
    """RFC 3722 6.2: not in names we make; on the wire only what could break something is refused."""
    name = f"iqn.2008-11.org.linux-kvm:my{character}guest"
    with pytest.raises(InvalidName):
        normalize(name, strict=True)
    assert is_valid(name) == (character != " ")


@given(st.text(max_size=300))
def test_name_normalize_is_idempotent(text: str) -> None:
    """Invariant: a normal form is its own normal form; anything else is InvalidName."""
    for name in (text, "iqn.2001-04.com.example:" + text):
        try:
            normal = normalize(name)
        except InvalidName:
            continue
        assert normalize(normal) == normal
        assert len(normal.encode()) <= MAX_NAME_LENGTH
