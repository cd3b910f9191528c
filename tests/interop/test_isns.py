"""tcm-run and Debian's open-isns-server: registered, kept, renewed, deregistered; and servers that are none."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.daemon import TARGET, Daemon, running, wait_until
from support.isnsd import Isnsd
from support.programs import free_port
from support.raw_iscsi import connect
from support.watch import Watch
from tcm_iscsi.addresses import machine_addresses
from tcm_iscsi.protocol.isns_attributes import Attribute, Tag

pytestmark = pytest.mark.interop

INITIATOR = "iqn.2003-01.org.example:initiator"
LUN = ("--lun", "ramdisk:size=8M")


@contextmanager
def registered(folder: Path, isnsd: Isnsd, *arguments: str, options: str = "", **more: object) -> Iterator[Daemon]:
    with running(folder, *(arguments or LUN), fabric=f"iscsi:isns=127.0.0.1:{isnsd.port}{options}", **more) as daemon:
        wait_until(lambda: "registered " in daemon.log(), 60, "registered")
        yield daemon


def portals_of(daemon: Daemon) -> set[tuple[str, int]]:
    return {(url.host, url.port) for url in daemon.urls}


def lines(daemon: Daemon, text: str) -> list[str]:
    return [line for line in daemon.log().splitlines() if text in line]


def test_registered_while_it_is_served(tmp_path: Path) -> None:
    """isnsadm and our own query see target, portals and portal group; after SIGTERM they are gone."""
    with Isnsd() as isnsd:
        portals = ("127.0.0.1:0", "127.0.0.2:0")
        with registered(tmp_path, isnsd, options=",isns-entity=disks.example.org", portals=portals, urls=2) as daemon:
            assert isnsd.targets() == {TARGET}
            assert isnsd.portals() == portals_of(daemon)
            shown = isnsd.isnsadm("--query", f"iscsi-name={TARGET}")
            assert all(f"Portal IP address = {url.host}" in shown and f"= {url.port}/tcp" in shown for url in daemon.urls)
            found = isnsd.query(INITIATOR, Attribute(Tag.ENTITY_IDENTIFIER, "disks.example.org"))
            assert {Tag.ENTITY_IDENTIFIER: "disks.example.org", Tag.REGISTRATION_PERIOD: 600} in found
            (node,) = (each for each in found if Tag.ISCSI_NAME in each)
            assert (node[Tag.ISCSI_NAME], node[Tag.ISCSI_NODE_TYPE]) == (TARGET, 1)
            assert isnsd.groups("disks.example.org", INITIATOR) == {(TARGET, url.host, url.port): 1 for url in daemon.urls}
            daemon.stop()
            assert isnsd.targets() == set()
            assert isnsd.portals() == set()
            assert "<DISCONNECTED>" not in isnsd.isnsadm("--list", "entities")
            assert len(lines(daemon, "deregistered")) == 1


def test_targets_and_portal_groups(tmp_path: Path) -> None:
    """Two targets, of which one has two portal groups; a portal gives access to those of its groups only."""
    one, two, off = (f"iqn.2003-01.org.example:{name}" for name in ("one", "two", "off"))

    def group(tag: int, *ports: int, enable: bool = True) -> dict[str, object]:
        portals = [{"ip_address": "127.0.0.1", "port": port, "iser": False} for port in ports]
        luns = [{"index": 0, "storage_object": "/backstores/ramdisk/r"}]
        attributes = {"generate_node_acls": 1, "authentication": 0}
        return {"tag": tag, "enable": enable, "portals": portals, "luns": luns, "attributes": attributes, "node_acls": []}

    a, b, c, d = (free_port() for _ in range(4))
    saved = {
        "storage_objects": [{"name": "r", "plugin": "ramdisk", "size": 8 << 20, "wwn": "5a83f3b6-96a6-49fb-a1ab-0ebd4d9df36f"}],
        "targets": [
            {"fabric": "iscsi", "wwn": one, "tpgs": [group(1, a), group(2, b, c)]},
            {"fabric": "iscsi", "wwn": two, "tpgs": [group(7, a)]},
            {"fabric": "iscsi", "wwn": off, "tpgs": [group(1, d, enable=False)]},
        ],
    }
    path = tmp_path / "saveconfig.json"
    path.write_text(json.dumps(saved))
    with (
        Isnsd() as isnsd,
        registered(tmp_path, isnsd, "--config", str(path), urls=3, portals=(), target=None),
    ):
        assert isnsd.targets() == {one, two}
        assert isnsd.portals() == {("127.0.0.1", port) for port in (a, b, c)}
        assert isnsd.groups(one, INITIATOR) == {
            (one, "127.0.0.1", a): 1,
            (one, "127.0.0.1", b): 2,
            (one, "127.0.0.1", c): 2,
            (two, "127.0.0.1", a): 7,
        }


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "[::]"])
def test_wildcard_portals(tmp_path: Path, wildcard: str) -> None:
    """What is registered is where initiators reach us; without an address of its own, the machine's loopback one."""
    families = "." if wildcard == "0.0.0.0" else ".:"
    with Isnsd() as isnsd, registered(tmp_path, isnsd, portals=(f"{wildcard}:0",), target=TARGET) as daemon:
        expected = {each for each in machine_addresses() if any(mark in each for mark in families)} or {"127.0.0.1"}
        assert isnsd.portals() == {(address, daemon.url.port) for address in expected}
        assert len(isnsd.groups(TARGET, INITIATOR)) == len(expected)
        if "127.0.0.1" not in expected:
            socket.create_connection((next(iter(expected)), daemon.url.port), 5).close()


def test_a_server_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """Registered again, though it has kept nothing; initiators notice none of it, and it is said once that it was away."""
    with Isnsd() as isnsd, registered(tmp_path, isnsd) as daemon, Watch(daemon):
        isnsd.stop()
        wait_until(lambda: lines(daemon, "cannot connect: "), 60, "an outage that is noticed")
        time.sleep(3)
        isnsd.start()
        wait_until(lambda: isnsd.targets() == {TARGET}, 60, "registered again")
        wait_until(lambda: len(lines(daemon, "registered 1 target(s) at 1 portal(s)")) == 2, 60, "said so")
        assert len(lines(daemon, "cannot connect: ")) == 1
        assert len(lines(daemon, "reached again")) == 1


def test_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    with Isnsd() as isnsd:
        isnsd.stop()
        with running(tmp_path, *LUN, fabric=f"iscsi:isns=localhost:{isnsd.port}") as daemon:
            with connect(daemon.url) as session:
                assert session.read(0, 1).status == 0
            isnsd.start()
            wait_until(lambda: isnsd.targets() == {TARGET}, 60, "registered")


def test_state_changes(tmp_path: Path) -> None:
    """Initiators that come and go are told of in the log; a target of ours that somebody has removed is registered again."""
    with Isnsd(period=3) as isnsd, registered(tmp_path, isnsd) as daemon:
        isnsd.isnsadm("--register", "entity=host.example.org", f"initiator={INITIATOR}")
        wait_until(lambda: lines(daemon, f"{INITIATOR} was added"), 60, "the initiator's coming")
        isnsd.isnsadm("--deregister", f"iscsi-name={INITIATOR}")
        wait_until(lambda: lines(daemon, f"{INITIATOR} was removed"), 60, "the initiator's going")
        # open-isns does not tell a target of its own end: the next look finds out
        isnsd.isnsadm("--deregister", f"iscsi-name={TARGET}")
        wait_until(lambda: lines(daemon, f"no longer knows {TARGET}"), 60, "the target's removal")
        wait_until(lambda: isnsd.targets() == {TARGET}, 60, "registered again")
        assert isnsd.groups(TARGET, INITIATOR) == {(TARGET, daemon.url.host, daemon.url.port): 1}


def stays_registered(daemon: Daemon, holds: Callable[[], object]) -> None:
    """For twice the period of 3 s: it holds whenever it is looked at, and the daemon sees no reason to register again.

    It may begin anew, since a registration runs out on a machine that stands still: who does not refresh it never gets so far.
    """
    found, news, end = 0, -1, time.monotonic() + 90
    while found < 20:
        before, news = news, len(lines(daemon, "registered ")) + len(lines(daemon, "no longer knows"))
        found = found + 1 if holds() and news == before else 0
        assert time.monotonic() < end, "it runs out"
        time.sleep(0.3)


def test_registration_period(tmp_path: Path) -> None:
    """Refreshed before the period is over, which the server has made shorter than was asked; a crash lets it run out."""
    with Isnsd(period=3) as isnsd:
        with registered(tmp_path, isnsd) as daemon:
            stays_registered(daemon, lambda: isnsd.targets() == {TARGET})
            daemon.kill()
        wait_until(lambda: isnsd.targets() == set(), 60, "forgotten")


def test_status_inquiries(tmp_path: Path) -> None:
    """ESI: answered as long as we live; the server drops what does not answer, long before the period is over."""
    with Isnsd(esi=2) as isnsd:
        with registered(tmp_path, isnsd, options=",isns-esi=10") as daemon:
            (portal,) = (each for each in isnsd.query(TARGET, Attribute(Tag.ISCSI_NAME, TARGET)) if Tag.ESI_PORT in each)
            assert portal[Tag.ESI_INTERVAL] == 2
            wait_until(lambda: isnsd.log.read_text().count("Good ESI response") >= 3, 60, "three answers")
            assert isnsd.targets() == {TARGET}
            assert not lines(daemon, "no longer knows")
            daemon.kill()
        wait_until(lambda: isnsd.portals() == set() and isnsd.targets() == set(), 90, "dropped")


@pytest.mark.parametrize("default_domain", [True, False])
def test_discovery_domains(tmp_path: Path, default_domain: bool) -> None:
    """A target that is in no discovery domain, and so seen by nobody, is not taken for lost."""
    with Isnsd(period=3, default_domain=default_domain) as isnsd, registered(tmp_path, isnsd) as daemon:
        mine = Attribute(Tag.ISCSI_NAME, TARGET)
        stays_registered(daemon, lambda: [each for each in isnsd.query(TARGET, mine) if Tag.ISCSI_NAME in each])


def test_two_processes_at_one_server(tmp_path: Path) -> None:
    """Each its own entity; what one deregisters is its own."""
    other = "iqn.2003-01.org.example:other"
    with Isnsd() as isnsd, registered(tmp_path / "1", isnsd) as first:
        with registered(tmp_path / "2", isnsd, target=other) as second:
            assert isnsd.targets() == {TARGET, other}
            assert isnsd.portals() == portals_of(first) | portals_of(second)
        assert isnsd.targets() == {TARGET}


# servers that are none


def serve(behave: Callable[[socket.socket], None]) -> tuple[socket.socket, threading.Thread]:
    """A listener whose every connection is ``behave``'s, one after the other, until it is closed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                behave(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return listener, thread


def garbage(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" * 1000)


def flood(connection: socket.socket) -> None:
    """PDUs of one message that never ends."""
    connection.settimeout(2)
    for sequence in range(4000):
        header = (1, 0x8001, 0xFFFC, 0x4400 if not sequence else 0x4000, 1, sequence)
        connection.sendall(b"".join(each.to_bytes(2, "big") for each in header) + bytes(0xFFFC))


def hang_up(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (garbage, "connection dropped: iSNSP version"),
        (flood, "connection dropped: a message of more than"),
        (hang_up, ""),
    ],
)
def test_a_server_that_is_none(tmp_path: Path, behave: Callable[[socket.socket], None], said: str) -> None:
    """Said once; others are served as before, nothing grows, and the end is as quick as ever."""
    listener, thread = serve(behave)
    port = listener.getsockname()[1]
    with running(tmp_path, *LUN, fabric=f"iscsi:isns=127.0.0.1:{port}") as daemon:
        with Watch(daemon, growth=24 << 20):
            wait_until(lambda: said in daemon.log(), 60, said)
            time.sleep(3)
        assert len(lines(daemon, said)) == 1 or not said
        daemon.stop(30)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(15)


def test_hostile_notifications(tmp_path: Path) -> None:
    """Whoever reaches the notification port sends nonsense, half messages, and more connections than are taken."""
    with Isnsd() as isnsd, registered(tmp_path, isnsd) as daemon:
        (portal,) = (each for each in isnsd.query(TARGET, Attribute(Tag.ISCSI_NAME, TARGET)) if Tag.SCN_PORT in each)
        address = ("127.0.0.1", int(str(portal[Tag.SCN_PORT])))
        assert address[1] != daemon.url.port
        with Watch(daemon, growth=32 << 20):
            crowd = [socket.create_connection(address, 5) for _ in range(200)]
            for number, sock in enumerate(crowd):
                with suppress(OSError):
                    sock.sendall(b"\0\1\0\x08\xff\xfc\x4c\0\0\1\0\0" + bytes(0xFFF0) if number % 2 else b"nonsense" * 4)
            time.sleep(1)
            for sock in crowd:
                sock.close()
        isnsd.isnsadm("--register", "entity=host.example.org", f"initiator={INITIATOR}")
        wait_until(lambda: lines(daemon, f"{INITIATOR} was added"), 60, "a real notification, which is still taken")
