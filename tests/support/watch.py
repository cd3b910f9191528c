"""A bystander: a session that reads all the time while another misbehaves, and the daemon's memory."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from support.daemon import Daemon
from support.raw_iscsi import connect


class Watch:
    """While the block runs, another session must be served and the daemon must not grow beyond ``growth`` bytes.

    :param busy: seconds of processor time that the daemon may use while one of the bystander's reads waits. Elapsed time is
        bounded by the session's own timeout only, since it is a busy machine's as well.
    """

    def __init__(self, daemon: Daemon, *, growth: int = 48 << 20, busy: float = 1.0) -> None:
        self.daemon = daemon
        self.growth = growth
        self.busy = busy
        self.worst = 0.0
        self.busiest = 0.0
        self.reads = 0
        self.peak = 0
        self.error: BaseException | None = None
        self.over = threading.Event()

    def __enter__(self) -> Self:
        self.before = self.daemon.rss()
        self.session = connect(self.daemon.url)
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self) -> None:
        try:
            while not self.over.wait(0.01):
                begin, used = time.monotonic(), self.daemon.processor_seconds()
                assert self.session.read(0, 8, self.daemon.url.lun).status == 0
                self.worst = max(self.worst, time.monotonic() - begin)
                self.busiest = max(self.busiest, self.daemon.processor_seconds() - used)
                self.reads += 1
                self.peak = max(self.peak, self.daemon.rss())
        except BaseException as error:
            self.error = error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        enough, end = max(4, self.reads + 1), time.monotonic() + 2 * self.session.timeout
        while self.reads < enough and self.thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        self.over.set()
        self.thread.join()
        self.session.close()
        if kind is not None:
            return
        self.daemon.assert_quiet()
        assert self.error is None, f"the bystander's session broke: {self.error!r}"
        assert self.reads > 3, "the bystander was hardly served"
        assert self.busiest < self.busy, f"the daemon did other things for {self.busiest:.2f} s while a bystander's read waited"
        grown = self.peak - self.before
        assert grown < self.growth, f"the daemon grew by {grown >> 20} MiB"
        took = f"worst {self.worst * 1e3:.0f} ms, {self.busiest * 1e3:.0f} ms of processor time"
        print(f"  [bystander: {self.reads} reads, {took}; daemon +{grown >> 10} KiB]")
