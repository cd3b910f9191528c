"""What log lines look like."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest

from tcm.cli.logs import JsonFormatter, TextFormatter, set_up


def record(level: int = logging.WARNING, message: str = "a %s", *arguments: object, failure: Exception | None = None):
    exc_info = (type(failure), failure, None) if failure else None
    return logging.LogRecord("tcm.test", level, "file.py", 1, message, arguments, exc_info)


def test_text_is_one_line_a_record():
    line = TextFormatter(colour=False).format(record(logging.WARNING, "first\nsecond %d", 7))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} warning tcm\.test: first second 7", line)


def test_a_traceback_follows_the_line():
    text = TextFormatter(colour=False).format(record(logging.ERROR, "x", failure=ValueError("why")))
    assert text.splitlines()[-1] == "ValueError: why"


def test_json_is_one_object_a_line():
    text = JsonFormatter().format(record(logging.ERROR, "über\n%s", "x", failure=ValueError("why")))
    assert "\n" not in text
    entry = json.loads(text)
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "tcm.test", "über\nx")
    assert entry["exception"].endswith("ValueError: why")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def root():
    logger = logging.getLogger()
    before = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:], logger.level = before


@pytest.mark.parametrize(("stream", "colour"), [(io.StringIO(), False), (Terminal(), True)])
def test_colour_only_on_a_terminal(root, stream, colour):
    set_up("warning", "text", stream)
    logging.getLogger("tcm.test").warning("careful")
    logging.getLogger("tcm.test").info("not shown")
    assert ("\x1b[" in stream.getvalue()) is colour
    assert stream.getvalue().count("\n") == 1


def test_set_up_twice_logs_once(root):
    stream = io.StringIO()
    set_up("debug", "text", stream)
    set_up("debug", "json", stream)
    logging.getLogger("tcm.test").debug("once")
    assert len(stream.getvalue().splitlines()) == 1
