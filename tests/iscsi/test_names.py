"""iSCSI names: RFC 7143 4.2.7, RFC 3722."""

from __future__ import annotations

import unicodedata
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_iscsi.protocol import names
from tcm_iscsi.protocol.names import MAX_NAME_LENGTH, InvalidName, normalize


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
        ("iqn.2001-04.com.example:stra\u00dfe", "iqn.2001-04.com.example:strasse"),
        ("iqn.2001-04.com.example:\u03a3\u03c2", "iqn.2001-04.com.example:\u03c3\u03c3"),
        ("iqn.2001-04.com.example:a\u00adb\u200dc\ufeff", "iqn.2001-04.com.example:abc"),
        ("iqn.2001-04.com.example:e\u0301", "iqn.2001-04.com.example:\u00e9"),
        ("iqn.2001-04.com.example:\u2163\ufb01", "iqn.2001-04.com.example:ivfi"),
        ("iqn.2001-04.com.example:" + "x" * (MAX_NAME_LENGTH - 24), None),
    ],
)
def test_name_normal_form(name: str, normal: str | None) -> None:
    """RFC 3722 4, 5: mapped to nothing (table B.1), folded (B.2), NFKC."""
    assert normalize(name) == normalize(name, strict=True) == (normal or name)


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
        "iqn.2001-04.com.example:\u05d0",
        "iqn.2001-04.com.example:\u0627b",
        "iqn.2001-04.com.example:a\u2003b",
        "iqn.2001-04.com.example:a\u0085b",
        "iqn.2001-04.com.example:a\u06ddb",
        "iqn.2001-04.com.example:a\ue000b",
        "iqn.2001-04.com.example:a\ufdd0b",
        "iqn.2001-04.com.example:a\ufffcb",
        "iqn.2001-04.com.example:a\u2ff0b",
        "iqn.2001-04.com.example:a\u202eb",
        "iqn.2001-04.com.example:a\U000e0041b",
        "x" * 65536,
    ],
)
def test_name_invalid(name: str) -> None:
    """Each is refused with one line that says how a name looks."""
    with pytest.raises(InvalidName) as caught:
        normalize(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("character", "_ !#$%&()*+,/;<=>?@[]^`{|}~\"'\\")
def test_name_punctuation(character: str) -> None:
    """RFC 3722 6.2: not in names we make; on the wire only what could break something is refused."""
    name = f"iqn.2008-11.org.linux-kvm:my{character}guest"
    with pytest.raises(InvalidName):
        normalize(name, strict=True)
    with pytest.raises(InvalidName) if character == " " else nullcontext():
        normalize(name)


@pytest.mark.parametrize("character", ["\u3002", "\u0221", "\U0001f4be"])
def test_name_of_ours_is_stricter(character: str) -> None:
    """RFC 3722 6.2, 8: no ideographic full stop, nothing that Unicode 3.2 did not have, in names that are stored."""
    name = f"iqn.2001-04.com.example:a{character}"
    assert normalize(name) == name
    with pytest.raises(InvalidName):
        normalize(name, strict=True)


def test_name_mapping_ends() -> None:
    """Whatever is folded, the result is its own folding: for every character that is not its own lower case and normal form."""
    for character in map(chr, range(0x110000)):
        if unicodedata.normalize("NFKC", character.casefold()) != character:
            once = names._mapped(f"a{character}\u0301")
            assert names._mapped(once) == once


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
