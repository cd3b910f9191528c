"""libiscsi's conformance suite (iscsi-test-cu 1.19), whole, over three LUNs, against the list of expected results.

Every test passes on at least one LUN and fails on none where it runs; what skips everywhere belongs to commands that are
listed with a reason. Two tcm-run processes, each with its three LUNs and two portals, serve one worker each.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from support import cu_suite
from support.daemon import Daemon, running
from support.programs import program
from tcm_backstores import fallocate

pytestmark = pytest.mark.interop

EXPECTED = cu_suite.expectations(Path(__file__).with_name("cu_expected.txt"))
LUNS = ("thin", "removable", "read-only")
WORKERS = 2
SIZE = "100M"  # 204800 blocks: READ(6) reaches the end, WRITE SAME and WRITE of 65536 blocks fit
SLOW = 3
# Its checks are done when it says so; then it sleeps for a minute at a time without answering keep-alive, comes back on a new
# nexus each time, and takes its unit attention for a SANITIZE that still runs.
ENDLESS = {"Sanitize.Reset": "Wait until the SANITIZE operation has finished"}
# After its one assertion it frees what the answer uses: it says so, or dies of it first.
USES_WHAT_IT_FREED = frozenset({"iSCSITMF.LUNResetSimpleAsync"})
PATIENCE = 20
WRONG = {
    # suite test: the one assertion that fails, for any target
    "ReportSupportedOpcodes.OneCommand": "CU_ASSERT_EQUAL(rsoc_one->cdb_usage_data[0],rsoc->descriptors[i].opcode)",
    "Sanitize.BlockEraseReserved": "test_sanitize_block_erase_reserved.c:75 ",
    "Sanitize.CryptoEraseReserved": "test_sanitize_crypto_erase_reserved.c:75 ",
    "Sanitize.OverwriteReserved": "test_sanitize_overwrite_reserved.c:79 ",
    "iSCSITMF.LUNResetSimpleAsync": "CU_ASSERT_EQUAL(reconnect_succeeded,1)",
}


def lun_options(directory: Path) -> list[str]:
    return [
        # WriteSame16.Unmap writes 65536 blocks with one command; WriteSame*.ZeroBlocks tries the limit and one more
        "--lun", f"0=fileio:path={directory / 'thin.img'},size={SIZE},hw-max-sectors=65536,max-write-same-len=100000",
        "--lun", f"1=fileio:path={directory / 'removable.img'},size={SIZE},removable=yes,block-size=4096,unmap-zeroes-data=no",
        "--filter", f"1=encrypt:key-file={directory / 'removable.key'},sector-size=4096",
        "--lun", f"2=fileio:path={directory / 'read-only.img'},size={SIZE},read-only=yes",
        "--lun", f"{SLOW}=fileio:path={directory / 'slow.img'},size=16M",
        "--filter", f"{SLOW}=delay:write=500",
    ]  # fmt: skip


def blank(daemon: Daemon) -> None:
    """Zeroes on every LUN: what ran there before is chance, and CompareAndWrite tests compare a block they have not zeroed."""
    for image in daemon.directory.glob("*.img"):
        with image.open("r+b") as file:
            assert fallocate.punch_hole(file.fileno(), 0, image.stat().st_size), "this file system cannot punch holes"


class Suite:
    """The runs that the selected tests need, under way in the background."""

    def __init__(self, tool: str, daemons: list[Daemon], wanted: list[cu_suite.Expectation]) -> None:
        self.tool = tool
        self.futures: dict[tuple[str, int], Future[cu_suite.Verdict]] = {}
        self.seconds: dict[tuple[str, int], float] = {}
        self.todo: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        for each in wanted:
            for lun, verdict in enumerate(each.verdicts):
                if verdict != "-":
                    self.futures[each.name, lun] = Future()
                    self.todo.put((each.name, lun))
        self.threads = [threading.Thread(target=self.work, args=(daemon,)) for daemon in daemons]
        for thread in self.threads:
            thread.start()

    def work(self, daemon: Daemon) -> None:
        while True:
            try:
                name, lun = self.todo.get_nowait()
            except queue.Empty:
                return
            slow = name in ENDLESS
            blank(daemon)
            first, second = [url.text for url in daemon.urls if url.lun == (SLOW if slow else lun)]
            begin = time.monotonic()
            try:
                verdict = cu_suite.run(self.tool, name, (first, second), PATIENCE if slow else cu_suite.TIMEOUT)
                if not daemon.alive():
                    verdict = cu_suite.Verdict("CRASH", f"tcm-run is gone: {daemon.log()[-2000:]}", verdict.output)
                self.futures[name, lun].set_result(verdict)
            except BaseException as error:
                self.futures[name, lun].set_exception(error)
            self.seconds[name, lun] = time.monotonic() - begin

    def result(self, name: str, lun: int) -> cu_suite.Verdict:
        return self.futures[name, lun].result()

    def finish(self) -> None:
        while not self.todo.empty():
            self.todo.get_nowait()
        for thread in self.threads:
            thread.join()


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Suite]:
    tool = program("iscsi-test-cu")
    selected = {
        item.callspec.params["expected"].name
        for item in request.session.items
        if "suite" in item.fixturenames and hasattr(item, "callspec")
    }  # type: ignore[attr-defined]
    wanted = [each for each in EXPECTED if each.name in selected]
    # those that wait for time-outs first, so that they run beside others
    waiting = ("Reserve6", "iSCSIcmdsn", "iSCSIdatasn", *ENDLESS)
    wanted.sort(key=lambda each: not each.name.startswith(waiting))
    directories = [tmp_path_factory.mktemp(f"cu{worker}") for worker in range(WORKERS)]
    portals = ("127.0.0.1:0", "127.0.0.1:0")
    with (
        running(directories[0], *lun_options(directories[0]), urls=8, portals=portals) as first,
        running(directories[1], *lun_options(directories[1]), urls=8, portals=portals) as second,
    ):
        runs = Suite(tool, [first, second], wanted)
        begin = time.monotonic()
        try:
            yield runs
        finally:
            runs.finish()
            report(runs, time.monotonic() - begin)


def report(runs: Suite, seconds: float) -> None:
    done = {key: future.result() for key, future in runs.futures.items() if future.done() and not future.exception()}
    for lun, kind in enumerate(LUNS):
        count = Counter(verdict.result for (_, at), verdict in done.items() if at == lun)
        print(f"\niscsi-test-cu, {kind} LUN: " + ", ".join(f"{word} {count[word]}" for word in cu_suite.VERDICTS), end="")
    slowest = sorted(runs.seconds.items(), key=lambda item: -item[1])[:5]
    print(
        f"\n{len(done)} runs in {seconds:.0f} s; slowest: " + ", ".join(f"{name}/{lun} {s:.1f} s" for (name, lun), s in slowest)
    )


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda each: each.name)
def test_verdict(suite: Suite, expected: cu_suite.Expectation) -> None:
    for lun, verdict in enumerate(expected.verdicts):
        if verdict == "-":
            continue
        found = suite.result(expected.name, lun)
        where = f"{expected.name} on the {LUNS[lun]} LUN: {found.result} {found.note}"
        if verdict == "WRONG" and expected.name in ENDLESS:
            assert found.result == "HANG", where
            assert ENDLESS[expected.name] in found.output, f"{where}\n{found.output[-6000:]}"
            assert "[FAILED]" not in found.output, f"{where}\n{found.output[-6000:]}"
        elif verdict == "WRONG" and expected.name in USES_WHAT_IT_FREED and found.result == "CRASH":
            assert "exit code -" in found.note, where  # of the tool, by a signal: tcm-run is alive
        elif verdict == "WRONG":
            assert (found.result, len(found.complaints)) == ("FAIL", 1), f"{where}\n{found.output[-6000:]}"
            assert WRONG[expected.name] in found.complaints[0], where
        else:
            assert found.result == verdict, f"{where}, expected {verdict}\n{found.output[-6000:]}"


def test_list_is_complete() -> None:
    """The list names every test of the tool once, each passes somewhere or says why it cannot."""
    assert [each.name for each in EXPECTED] == list(dict.fromkeys(cu_suite.names(program("iscsi-test-cu"))))
    for each in EXPECTED:
        assert len(each.verdicts) == len(LUNS), each
        assert set(each.verdicts) <= {"PASS", "SKIP", "WRONG", "-"}, each
        if set(each.verdicts) != {"PASS"}:
            assert each.reason, f"{each.name} needs a reason"
        if "PASS" not in each.verdicts:
            assert each.name in {*WRONG, *ENDLESS}, f"{each.name} passes on no LUN"
