"""Logging of the command lines: text for people (coloured on a terminal), or JSON lines for machines."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

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


def set_up(level: str = "info", form: str = "text", stream: TextIO | None = None) -> None:
    """Sends all logging of this process to ``stream`` (standard error)."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(colour=stream.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # the event loops' own debug lines say nothing about a target
    logging.getLogger("asyncio").setLevel(logging.WARNING)
