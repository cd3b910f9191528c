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

    :param latency: seconds that one of the bystander's reads may take.
    """

    def __init__(self, daemon: Daemon, *, growth: int = 48 << 20, latency: float = 1.0) -> None:
        self.daemon = daemon
        self.growth = growth
        self.latency = latency
        self.worst = 0.0
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
                begin = time.monotonic()
                assert self.session.read(0, 8, self.daemon.url.lun).status == 0
                self.worst = max(self.worst, time.monotonic() - begin)
                self.reads += 1
                self.peak = max(self.peak, self.daemon.rss())
        except BaseException as error:
            self.error = error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        time.sleep(0.1)
        self.over.set()
        self.thread.join()
        self.session.close()
        if kind is not None:
            return
        self.daemon.assert_quiet()
        assert self.error is None, f"the bystander's session broke: {self.error!r}"
        assert self.reads > 3, "the bystander was hardly served"
        assert self.worst < self.latency, f"a bystander's read took {self.worst:.2f} s"
        grown = self.peak - self.before
        assert grown < self.growth, f"the daemon grew by {grown >> 20} MiB"
        print(f"  [bystander: {self.reads} reads, worst {self.worst * 1e3:.0f} ms; daemon +{grown >> 10} KiB]")
