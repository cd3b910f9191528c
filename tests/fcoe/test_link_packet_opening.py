"""Opening and closing an AF_PACKET link: rights, interfaces that will not do, what is left behind (root, for a namespace)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.daemon import wait_until
from support.namespaces import Namespace, namespace
from support.programs import program
from tcm_fcoe.link import open_link
from tcm_fcoe.protocol.ethernet import ALL_FCF_MACS

from tcm.failure import ConfigError


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


def open_as(ns: Namespace, name: str, *words: str) -> str:
    """What another process says that tries to open the link: ``open``, or why not."""
    code = (
        "import sys\nfrom tcm.failure import ConfigError\nfrom tcm_fcoe.link import open_link\n"
        "try:\n    open_link(sys.argv[1]).close()\nexcept ConfigError as e:\n    sys.exit(str(e))\nprint('open')"
    )
    done = subprocess.run(ns.command(*words, sys.executable, "-c", code, name), capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


def test_cap_net_raw_is_enough(ns: Namespace) -> None:
    """No root, no CAP_NET_ADMIN; without CAP_NET_RAW one line says what to do."""
    ns.cable("left", "right")
    nobody = [program("setpriv"), "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    assert open_as(ns, "left", *nobody, "--inh-caps", "-all,+net_raw", "--ambient-caps", "+net_raw") == "open"
    said = open_as(ns, "left", *nobody)
    assert said.startswith("--interface left: raw frames need the capability CAP_NET_RAW; run as root")
    assert "setcap cap_net_raw+ep" in said
    assert "\n" not in said


def refusal(ns: Namespace, name: str) -> str:
    with ns.inside(), pytest.raises(ConfigError) as refused:
        open_link(name)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_interfaces_that_will_not_do(ns: Namespace) -> None:
    ns.cable("left", "right")
    ns.ip("link", "set", "left", "down")
    ns.ip("link", "set", "right", "mtu", "300")
    assert "`ip link set left up`" in refusal(ns, "left")
    assert "MTU 300 carries no FC frame, which needs 302" in refusal(ns, "right")
    assert "there is no such interface; `ip link`" in refusal(ns, "middle")
    assert "not an Ethernet interface" in refusal(ns, "lo")
    for name in ("", "a-name-that-is-far-too-long", "a\0b"):
        assert "no such interface" in refusal(ns, name)


def test_an_interface_without_a_carrier_is_down_but_usable(ns: Namespace) -> None:
    ns.cable("left", "right")
    ns.ip("link", "set", "right", "down")
    # the kernel tells it a little later
    wait_until(lambda: "NO-CARRIER" in ns.ip("link", "show", "left"), 60, "the end of the carrier")
    with ns.inside():
        left = open_link("left")
    try:
        assert not left.up
    finally:
        left.close()
    left.close()


@pytest.mark.parametrize(("mtu", "said"), [(2158, ""), (1500, "receive data field size 1452")])
def test_a_small_mtu_is_mentioned(ns: Namespace, mtu: int, said: str) -> None:
    ns.cable("left", "right", mtu=mtu)
    with ns.inside():
        left = open_link("left")
    assert bool(left.notices) == bool(said)
    assert all(said in each and "ip link set left mtu 2500" in each for each in left.notices)
    left.close()


def test_closing_gives_the_interface_back(ns: Namespace) -> None:
    """The kernel lets go of the memory and the groups at once."""
    ns.cable("left", "right")
    for _ in range(20):
        with ns.inside():
            left = open_link("left")
        left.set_addresses(frozenset({ALL_FCF_MACS}))
        left.close()
    wait_until(lambda: ALL_FCF_MACS.hex(":") not in ns.ip("maddress", "show", "dev", "left"), 60, "the end of the group")
    found = subprocess.run(ns.command("cat", "/proc/net/packet"), capture_output=True, text=True, check=True).stdout
    assert found.count("\n") == 1, found
