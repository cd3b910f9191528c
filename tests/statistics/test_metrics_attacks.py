"""The Prometheus endpoint with names, sizes and peers that nobody wishes for; all is bounded, and the next scrape is fine."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketAttribute
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.lio_tree import serving as serving_tree
from support.statistics_site import apart, serving

from tcm.statistics import http
from tcm.statistics.http import Responder, response
from tcm.statistics.metrics import Endpoint
from tcm.statistics.prometheus import expose
from tcm.statistics.registry import Statistics
from tcm.target.device import TargetDevice

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ODD = [
    'quo"te', "back\\slash", "new\nline", "tab\tand\rreturn", "größe\u2028\U0001f4be", 'brace{le="1"} 5', "# HELP x y\n# EOF",
    "nul\0", "\udcff\ud800 half", "", "x" * 100_000, "a\\n", "trailing\\",
]  # fmt: skip
pytestmark = pytest.mark.anyio


def labels(text: str, name: str, parser: object) -> Iterator[dict[str, str]]:
    assert callable(parser)
    for family in parser(text):
        for sample in family.samples:
            if sample.name == name:
                yield sample.labels


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_names_are_labels_whatever_they_are(accept: str) -> None:
    targets = []
    for odd in ODD:
        target = TargetDevice(odd, "none")
        target.add_portal_group(1)
        targets.append(target)
    content, _ = await expose(Statistics({}, targets, {}).snapshot(), accept)
    text = content.decode()
    assert text.count("# TYPE tcm_port_enabled ") == 1
    expected = sorted(odd.encode(errors="backslashreplace").decode() for odd in ODD)
    value = r'"((?:[^"\\\n]|\\.)*)"'
    line = rf'^tcm_port_enabled\{{fabric="none",(?:tag="1",)?target={value}(?:,tag="1")?\}} 1\.0$'
    samples = re.findall(line, text, re.MULTILINE)
    found = sorted(re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], each) for each in samples)
    assert found == expected
    parser = parse_openmetrics if accept else parse_text
    plain = [odd for odd in ODD if "\n" not in odd and "\r" not in odd and "\u2028" not in odd]
    assert {each["target"] for each in labels(text, "tcm_port_enabled", parser)} >= set(plain) - {"\udcff\ud800 half"}


@pytest.mark.parametrize(
    "name", ['iqn.2003-01.org.example:"q"', "iqn.2003-01.org.example:a\\n{le=", "iqn.2003-01.org.example:ü"]
)
async def test_names_that_initiators_log_in_with(name: str) -> None:
    """Those that are let in are labels; the others are counted."""
    async with serving() as site:

        def work() -> bool:
            with site.connect() as i:
                try:
                    i.login(site.name, name=name).ready()
                except Exception:  # whatever it is refused with
                    return False
                text, _ = anyio.from_thread.run(scrape)
                found = {each["initiator"] for each in labels(text.decode(), "tcm_nexus_tasks", parse_text)}
                assert len(found) == 1
                return True

        async def scrape() -> tuple[bytes, str]:
            return await expose(await site.statistics.gather())

        await apart(work)
        text, _ = await scrape()
        assert list(parse_text(text.decode()))


@asynccontextmanager
async def listening(answer: http.Answer) -> AsyncIterator[tuple[Responder, int]]:
    responder = Responder(answer)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, responder)
        with anyio.fail_after(60):
            yield responder, listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


async def get(port: int) -> bytes:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET /metrics HTTP/1.1\r\n\r\n")
        found = b""
        async for part in stream:
            found += part
        return found


async def test_answers_that_nobody_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten megabytes each: the memory that they take has a bound, and who reads gets them."""
    content = b"# " + b"x" * (10 << 20)
    monkeypatch.setattr(http, "MAXIMUM_UNSENT", 25 << 20)

    async def answer(_: str) -> tuple[bytes, str]:
        return content, "text/plain"

    async with listening(answer) as (responder, port):
        silent = []
        for _ in range(8):
            stream = await anyio.connect_tcp("127.0.0.1", port)
            silent.append(stream)
            await stream.send(b"GET /metrics HTTP/1.1\r\n\r\n")
            await anyio.sleep(0.05)
            assert sum(each.unsent for each in responder._serving) <= http.MAXIMUM_UNSENT
        assert 1 <= sum(each.unsent > 0 for each in responder._serving) <= 2
        assert await get(port) == response(200, content, "text/plain")
        for stream in silent:
            await stream.aclose()
        while responder._serving:
            await anyio.sleep(0.02)


async def test_one_that_reads_slowly_has_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.5)

    async def answer(_: str) -> tuple[bytes, str]:
        return b"x" * (30 << 20), "text/plain"

    async with listening(answer) as (responder, port), await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET /metrics HTTP/1.1\r\n\r\n")
        while not responder._serving:
            await anyio.sleep(0.01)
        while responder._serving:
            await anyio.sleep(0.05)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": uvloop}) for uvloop in (False, True)] + ["trio"])
async def test_one_that_breaks_off_while_it_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    """By a reset before the end of the answer is sent: nothing that a log would be full of."""
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        async def answer(_: str) -> tuple[bytes, str]:
            peer.close()
            return b"x", "text/plain"

        async with listening(answer) as (responder, port):
            peer.connect(("127.0.0.1", port))
            peer.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            while peer.fileno() >= 0 or responder._serving:
                await anyio.sleep(0.01)
    assert not caplog.records


async def test_scrapes_while_objects_come_and_go(tmp_path: Path) -> None:
    async with serving_tree(tmp_path, "iscsi", "loopback") as site:
        endpoint = Endpoint(site.runtime.statistics)
        done = anyio.Event()
        scrapes = 0

        async def scrape() -> None:
            nonlocal scrapes
            while not done.is_set():
                content, _ = await endpoint.answer(OPENMETRICS if scrapes % 2 else "")
                assert list((parse_openmetrics if scrapes % 2 else parse_text)(content.decode()))
                scrapes += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scrape)
            for turn in range(6):
                devices = [await site.ramdisk(f"ram{number}") for number in range(30)]
                for number, device in enumerate(devices):
                    await site.loopback(device, number)
                initiator = site.connect()
                group = f"iscsi/iqn.2003-01.org.example:t{turn}/tpgt_1"
                await site.make_all(f"{group}/acls/iqn.2003-01.org.example:i", f"{group}/lun/lun_0")
                await site.link(f"{group}/lun/lun_0/link", devices[0])
                await anyio.sleep(0.01)
                initiator.disconnect()
                await site.remove(f"iscsi/iqn.2003-01.org.example:t{turn}", recursive=True)
                await site.remove("loopback/naa.5001405000000001", recursive=True)
                for device in devices:
                    await site.remove(device)
            done.set()
        assert scrapes > 2
