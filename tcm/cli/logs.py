"""Logging of the command lines: text for people (coloured on a terminal), or JSON lines for machines."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

_PORT = re.compile(r"(?<=[\d\]]):\d+\b")
_ROUND = re.compile(r"10+")
_COLOURS: Mapping[int, str] = {
    logging.DEBUG: "\x1b[2m",
    logging.INFO: "",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}


class TextFormatter(logging.Formatter):
    """``2025-01-31 12:00:00.123 warning tcm.runtime: message``, one line a record; a traceback follows it."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        message = " ".join(record.getMessage().splitlines())
        line = f"{stamp}.{int(record.msecs):03d} {record.levelname.lower()} {record.name}: {message}"
        colour = _COLOURS.get(record.levelno, "") if self._colour else ""
        if colour:
            line = f"{colour}{line}\x1b[0m"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, logger, message, and exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class FloodFilter(logging.Filter):
    """Keeps who retries for ever from filling the disk with warnings and errors.

    Of those that are alike but for a port, ``ALIKE`` pass in each ``WINDOW``; of those with one format and any arguments,
    ``OF_ONE_KIND``. After that the tenth, hundredth... of them passes, and says how many there were. It never holds back what
    is below a warning.
    """

    WINDOW = 60.0
    ALIKE = 5
    OF_ONE_KIND = 50

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._counts: dict[tuple[str, str], int] = {}
        self._end = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now = self._clock()
        if now >= self._end or len(self._counts) > 10_000:
            self._counts.clear()
            self._end = now + self.WINDOW
        message = record.getMessage()
        kind = self._count(record.name, str(record.msg))
        alike = self._count(record.name, f"= {_PORT.sub('', message)}")
        many = kind if kind > self.OF_ONE_KIND else alike
        if many <= self.ALIKE:
            return True
        if not _ROUND.fullmatch(str(many)):
            return False
        record.msg, record.args = "%s (%d like this within a minute; most are not shown)", (message, many)
        return True

    def _count(self, name: str, text: str) -> int:
        count = self._counts[name, text] = self._counts.get((name, text), 0) + 1
        return count


def set_up(level: str = "info", form: str = "text", stream: TextIO | None = None) -> None:
    """Sends all logging of this process to ``stream`` (standard error)."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    colour = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(colour=colour))
    handler.addFilter(FloodFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # the event loops' own debug lines say nothing about a target
    logging.getLogger("asyncio").setLevel(logging.WARNING)
