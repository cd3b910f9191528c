"""``tcm-run --metrics``: what a scrape says, in both formats, and what hostile peers get."""

from __future__ import annotations

import re
import resource
import socket
import struct
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.daemon import TARGET, Daemon
from support.namespaces import namespace
from support.raw_iscsi import INITIATOR, Initiator, LoginFailed
from support.statistics_site import NAME, PATH, SIZE, apart, serving
from support.tcm_process import TcmProcess

from tcm.statistics.http import GRACE, MAXIMUM_CONNECTIONS, TIMEOUT, BadRequest, parse
from tcm.statistics.prometheus import PIECE, expose
from tcm.statistics.registry import Statistics
from tcm.target.device import TargetDevice

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Metrics:
    """Samples by name and labels."""

    def __init__(self, text: str, parser: Any = parse_text) -> None:
        self.families = {family.name: family for family in parser(text)}
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }
        assert len(self.samples) == sum(len(family.samples) for family in self.families.values()), "one sample a set of labels"

    def value(self, name: str, **labels: str) -> float:
        """The sum of all samples that have these labels."""
        found = [
            value for (other, pairs), value in self.samples.items() if other == name and labels.items() <= dict(pairs).items()
        ]
        assert found, f"no {name} with {labels}"
        return sum(found)


@pytest.mark.anyio
@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_what_a_scrape_says(accept: str) -> None:
    async with serving() as site:

        def work() -> int:
            with site.login() as i, site.login() as other:
                for n in range(100):
                    assert i.read(n, 8).status == 0
                assert i.write(0, bytes(8192)).status == 0
                assert other.read(1, 1).status == 0
                anyio.from_thread.run(scrape)
                return i.cmd_sn + other.cmd_sn - 2

        texts: list[str] = []

        async def scrape() -> None:
            content, content_type = await expose(await site.statistics.gather(), accept)
            assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
            texts.append(content.decode())

        def lost() -> None:
            with site.connect() as i, pytest.raises(LoginFailed):
                i.login("iqn.2003-01.org.example:nobody")

        await apart(lost)
        commands = await apart(work)
        metrics = Metrics(texts[0], parse_openmetrics if accept else parse_text)
        port = {"fabric": "iscsi", "target": NAME, "tag": "1"}
        assert metrics.value("tcm_unit_commands_total", unit=PATH, kind="read") == 101
        assert metrics.value("tcm_unit_commands_total", unit=PATH) == commands
        assert metrics.value("tcm_unit_express_commands_total", unit=PATH) == 102
        assert metrics.value("tcm_unit_size_bytes", unit=PATH) == SIZE
        assert metrics.value("tcm_unit_ready", unit=PATH) == 1
        assert metrics.value("tcm_lun_bytes_total", data="out", lun="0", unit=PATH, **port) == 8192
        assert metrics.value("tcm_nexus_commands_total", initiator=INITIATOR, **port) == commands
        assert len([name for name, _ in metrics.samples if name == "tcm_nexus_tasks"]) == 2
        assert metrics.value("tcm_session_commands_total", initiator=INITIATOR, **port) == commands
        assert metrics.value("tcm_session_data_bytes_total", data="out", **port) == 8192
        assert metrics.value("tcm_session_connections", **port) == 2
        assert metrics.value("tcm_port_nexuses", **port) == 2
        assert metrics.value("tcm_portal_connections", fabric="iscsi") == 2
        assert metrics.value("tcm_portal_connections_accepted_total", fabric="iscsi") == 3
        assert metrics.value("tcm_logins_accepted_total", target=NAME) == 2
        assert metrics.value("tcm_logins_refused_total", target="", reason="not_found") == 1
        others = metrics.value("tcm_unit_commands_total", unit=PATH, kind="other")
        assert metrics.value("tcm_unit_task_seconds_count", unit=PATH, kind="other") == others
        assert metrics.value("tcm_unit_express_seconds_count", unit=PATH, kind="read") >= 1
        assert metrics.value("tcm_unit_express_seconds_sum", unit=PATH, kind="read") > 0
        buckets = {
            float(dict(labels)["le"]): value
            for (name, labels), value in metrics.samples.items()
            if name == "tcm_unit_task_seconds_bucket" and ("kind", "other") in labels
        }
        assert sorted(buckets.values()) == [buckets[le] for le in sorted(buckets)]
        assert buckets[float("inf")] == others
        assert metrics.value("process_open_fds") > 3


@pytest.mark.anyio
async def test_large_families_come_in_pieces_and_are_one_family() -> None:
    target = TargetDevice(NAME, "none")
    for tag in range(1, 3 * PIECE):
        target.add_portal_group(tag)
    content, _ = await expose(Statistics({}, [target], {}).snapshot())
    assert content.count(b"# TYPE tcm_port_enabled ") == 1
    metrics = Metrics(content.decode())
    assert metrics.value("tcm_port_enabled", target=NAME) == 3 * PIECE - 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", 400),
        (b"GET /metrics", 400),
        (b"GET  /metrics HTTP/1.1", 400),
        (b"\xff\xfe", 400),
        (b"GET /metrics SMTP", 400),
        (b"GET /metrics HTTP/2.0", 505),
        (b"POST /metrics HTTP/1.1", 405),
        (b"HEAD /metrics HTTP/1.1", 405),
    ],
)
def test_bad_heads(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(head)
    assert caught.value.status == status


def test_good_heads() -> None:
    assert parse(b"GET /metrics HTTP/1.1") == ("/metrics", "")
    assert parse(b"GET /metrics?a=b HTTP/1.0\r\nhost: x\r\nno colon\r\nACCEPT:  text/plain ") == ("/metrics", "text/plain")


@pytest.fixture(scope="module", params=["auto", "trio"])
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    arguments = ("--lun", "ramdisk:size=4M", "--metrics", "127.0.0.1:0", "--event-loop", request.param)
    made = Daemon(tmp_path_factory.mktemp("metrics"), *arguments).start()
    yield made
    made.stop()


def address(daemon: Daemon) -> tuple[str, int]:
    found = re.search(r"metrics at http://([\d.]+):(\d+)/metrics", daemon.log())
    assert found is not None, daemon.log()
    return found[1], int(found[2])


def scrape(daemon: Daemon) -> Metrics:
    host, port = address(daemon)
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        return Metrics(answer.read().decode())


def raw(daemon: Daemon, request: bytes) -> bytes:
    """All that comes back."""
    with socket.create_connection(address(daemon), timeout=60) as connection:
        answer = b""
        with suppress(ConnectionResetError):  # closed before it has read what we say
            connection.sendall(request)
            while part := connection.recv(65536):
                answer += part
        return answer


def test_a_process_under_load(daemon: Daemon) -> None:
    with Initiator(daemon.urls[0].host, daemon.urls[0].port) as i:
        i.login(TARGET).ready()
        for n in range(100):
            i.write(n * 8, bytes(4096))
        before = scrape(daemon)
        for n in range(100):
            i.write(n * 8, bytes(4096))
        after = scrape(daemon)
    name = "tcm_unit_commands_total"
    assert after.value(name, kind="write") - before.value(name, kind="write") == 100


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n" + b"x: " + b"y" * 100_000, 431),
    ],
)
def test_other_requests_are_told_so_in_a_line(daemon: Daemon, request_: bytes, status: int) -> None:
    assert raw(daemon, request_).startswith(b"HTTP/1.1 %d " % status)
    assert scrape(daemon).value("tcm_unit_ready") == 1


def test_peers_that_stay_do_not_keep_others_out(daemon: Daemon) -> None:
    """The oldest has to go for another, once it has had its second; initiators do not notice."""
    with ExitStack() as stack:
        silent = []
        for _ in range(MAXIMUM_CONNECTIONS):
            begin = time.monotonic()
            silent.append(stack.enter_context(socket.create_connection(address(daemon), timeout=60)))
            silent[-1].sendall(b"GET /met")
        with Initiator(daemon.urls[0].host, daemon.urls[0].port) as i:
            i.login(TARGET).ready()
            assert i.read(0, 8).status == 0
        time.sleep(GRACE + 0.2)
        for _ in range(3):
            assert scrape(daemon).value("tcm_unit_ready") == 1
        silent[0].settimeout(60)
        assert silent[0].recv(1) == b""
        # those that come later have not been touched
        try:
            silent[-1].sendall(b"rics HTTP/1.1\r\n\r\n")
            answer = silent[-1].recv(15)
        except ConnectionError:
            answer = b""
        assert answer == b"HTTP/1.1 200 OK" or time.monotonic() - begin > TIMEOUT


def test_bytes_that_come_one_by_one_come_to_an_end(daemon: Daemon) -> None:
    """Slow loris: a header that never ends gets no more time than any other."""
    start, ended = time.monotonic(), False
    with socket.create_connection(address(daemon), timeout=60) as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\nx: ")
        while not ended and time.monotonic() - start < 6 * TIMEOUT:
            try:
                slow.sendall(b"y")
            except ConnectionError:
                ended = True
            time.sleep(0.2)
    assert ended
    assert time.monotonic() - start > TIMEOUT - 1
    assert scrape(daemon).value("tcm_unit_ready") == 1


def test_many_connections_at_once(daemon: Daemon) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            with suppress(ConnectionError):
                stack.enter_context(socket.create_connection(address(daemon), timeout=60)).sendall(b"GET /metrics HTTP/1.1\r\n")
        assert daemon.file_descriptors() < 100
        with Initiator(daemon.urls[0].host, daemon.urls[0].port) as i:
            i.login(TARGET).ready()
            assert i.read(0, 8).status == 0
        time.sleep(GRACE + 0.2)
        assert scrape(daemon).value("tcm_unit_ready") == 1
    daemon.assert_quiet()


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text;version=q=0.5", "*" * 4000, "application/openmetrics-text;" * 200]
)
def test_accept_headers_that_make_no_sense(daemon: Daemon, accept: str) -> None:
    answer = raw(daemon, f"GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 OK")
    daemon.assert_quiet()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.0.0.1:http", "--metrics: 'http' is not a port"),
        ("example:9860", "--metrics: 'example' is not an IP address"),
        ("127.0.0.1:99999", "--metrics: port 99999 is out of range"),
        ("192.0.2.1:9860", "--metrics 192.0.2.1:9860: this machine has no such address"),
    ],
)
def test_what_cannot_be_listened_at(tmp_path, text: str, message: str) -> None:
    with TcmProcess(tmp_path, "--fabric", "loopback", "--lun", "ramdisk:size=1M", "--metrics", text) as tcm:
        assert tcm.exit_code() == 2
        assert message in tcm.err.splitlines()[-1]


@pytest.mark.parametrize(("text", "other"), [("127.0.0.1:0", "fd00::1/64"), ("[::1]:0", "192.0.2.1/24")])
def test_no_address_of_the_family_but_that_of_lo(tmp_path, text: str, other: str) -> None:
    """As on a machine whose interface is for FCoE, and has a link-local IPv6 address only."""
    with namespace() as there:
        there.ip("link", "set", "lo", "up")
        there.ip("address", "add", other, "dev", "lo")
        with there.inside(), TcmProcess(tmp_path, "--fabric", "loopback", "--lun", "ramdisk:size=1M", "--metrics", text) as tcm:
            tcm.wait_for("metrics at http://", in_log=True)
            assert tcm.stop() == 0


def test_a_port_that_is_taken(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        text = f"127.0.0.1:{other.getsockname()[1]}"
        with TcmProcess(tmp_path, "--fabric", "loopback", "--lun", "ramdisk:size=1M", "--metrics", text) as tcm:
            assert tcm.exit_code() == 2
            assert f"--metrics {text}: the port is taken" in tcm.err.splitlines()[-1]


def test_peers_that_break_off(daemon: Daemon) -> None:
    """By a reset, at every moment that there is."""
    for request in (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"):
        for _ in range(5):
            with socket.create_connection(address(daemon), timeout=60) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(request)
    assert scrape(daemon).value("tcm_unit_ready") == 1
    daemon.assert_quiet()


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_a_process_out_of_file_descriptors(tmp_path: Path, event_loop: str) -> None:
    """Initiators who are there are served, and scrapes again as soon as there are some."""
    arguments = ("--lun", "ramdisk:size=4M", "--metrics", "127.0.0.1:0", "--event-loop", event_loop)
    daemon = Daemon(tmp_path, *arguments).start()
    try:
        assert daemon.process is not None
        before = scrape(daemon).value("process_open_fds")
        with Initiator(daemon.urls[0].host, daemon.urls[0].port) as i, ExitStack() as stack:
            i.login(TARGET).ready()
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (int(before) + 4, int(before) + 4))
            for _ in range(10):
                stack.enter_context(socket.create_connection(address(daemon), timeout=60)).sendall(b"GET /met")
            end = time.monotonic() + 60
            while "trying again" not in daemon.log():
                assert time.monotonic() < end, daemon.log()
                time.sleep(0.05)
            assert i.read(0, 8).status == 0
        assert scrape(daemon).value("tcm_unit_ready") == 1
        daemon.stop()
    finally:
        daemon.kill()
