"""How targets and portals are written."""

from __future__ import annotations

import pytest
from tcm_iscsi.initiator.url import InvalidUrl, Url, parse_portal, parse_url

IQN = "iqn.2003-01.org.example:t"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("iscsi://10.0.0.1", Url("10.0.0.1")),
        ("iscsi://10.0.0.1/", Url("10.0.0.1")),
        ("iscsi://disk.example:3261", Url("disk.example", 3261)),
        (f"iscsi://h/{IQN}", Url("h", 3260, IQN)),
        (f"iscsi://h/{IQN}/", Url("h", 3260, IQN)),
        (f"iscsi://h:1/{IQN}/12", Url("h", 1, IQN, 12)),
        (f"iscsi://alice@h/{IQN}/0", Url("h", 3260, IQN, 0, "alice")),
        (f"iscsi://[2001:db8::1]:5/{IQN}/3", Url("2001:db8::1", 5, IQN, 3)),
        (f"iscsi://h/{IQN.upper()}/0", Url("h", 3260, IQN, 0)),
    ],
)
def test_what_is_one(text: str, url: Url) -> None:
    assert parse_url(text) == url
    assert parse_url(str(url)) == Url(url.host, url.port, url.target, url.lun)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://h",
        "iscsi://",
        "iscsi://h:0",
        "iscsi://h:70000",
        f"iscsi://h/{IQN}/x",
        "iscsi://h/disk/0",
        f"iscsi://h/{IQN}/20000",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        parse_url(text)
    assert "\n" not in str(caught.value)


def test_a_secret_in_a_url_is_not_repeated() -> None:
    with pytest.raises(InvalidUrl) as caught:
        parse_url(f"iscsi://alice%geheim@h/{IQN}/0")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "portal"),
    [("h", ("h", 3260)), ("h:5", ("h", 5)), ("192.0.2.1:3260,1", ("192.0.2.1", 3260)), ("[::1]:7,65535", ("::1", 7))],
)
def test_portals(text: str, portal: tuple[str, int]) -> None:
    """13.8: TargetAddress, with its portal group tag or without."""
    assert parse_portal(text) == portal


def test_no_portal() -> None:
    with pytest.raises(InvalidUrl, match="no portal"):
        parse_portal("a b")
