"""What log lines look like."""

from __future__ import annotations

import io
import json
import logging
import re

import anyio
import pytest

from tcm.cli.arguments import Arguments, configuration
from tcm.cli.logs import FloodFilter, JsonFormatter, TextFormatter, set_up
from tcm.cli.serve import announce
from tcm.plugins import PluginManager
from tcm.runtime import Runtime
from tcm.scsi.asymmetric_access import AccessState


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


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_if_the_environment_says_so(root, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    stream = Terminal()
    set_up("warning", "text", stream)
    logging.getLogger("tcm.test").warning("careful")
    assert "\x1b[" not in stream.getvalue()


def test_who_retries_for_ever_does_not_fill_the_log():
    now = [0.0]
    flood = FloodFilter(lambda: now[0])

    def refused(port: int, initiator: str = "a") -> str:
        made = record(logging.WARNING, "%s: login of %s refused", f"127.0.0.1:{port}", initiator)
        return made.getMessage() if flood.filter(made) else ""

    shown = [line for line in (refused(port) for port in range(1000, 2000)) if line]
    assert len(shown) == 5 + 3
    assert shown[4] == "127.0.0.1:1004: login of a refused"
    assert shown[-1] == "127.0.0.1:1999: login of a refused (1000 like this within a minute; most are not shown)"
    now[0] = 60.0
    assert refused(1) == "127.0.0.1:1: login of a refused"
    assert refused(1, "b") == "127.0.0.1:1: login of b refused"


def test_a_flood_of_different_lines_is_one_too():
    flood = FloodFilter(lambda: 0.0)
    shown = sum(flood.filter(record(logging.ERROR, "LBA %d failed", lba)) for lba in range(1000))
    assert shown == FloodFilter.OF_ONE_KIND + 2
    assert all(flood.filter(record(logging.INFO, "the same")) for _ in range(1000))
    assert flood.filter(record(logging.WARNING, "another message"))


def test_set_up_twice_logs_once(root):
    stream = io.StringIO()
    set_up("debug", "text", stream)
    set_up("debug", "json", stream)
    logging.getLogger("tcm.test").debug("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_the_log_says_what_is_special_about_a_unit(tmp_path, caplog):
    lun = f"fileio:path={tmp_path}/disk.img,size=1M,pi-prot-type=1"
    plugins = PluginManager()
    arguments = Arguments(fabrics=("loopback",), luns=(lun, "1=null:size=1M"), filters=("1=log",), state_dir=str(tmp_path))
    runtime = Runtime(configuration(arguments, plugins), plugins)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(runtime.serve)
            access = runtime.logical_units["/backstores/null/lun1"].asymmetric_access
            access.default.state = AccessState.STANDBY
            announce(runtime)
            runtime.stop()

    with caplog.at_level("INFO"):
        anyio.run(main)
    assert re.search(r"lun0: fileio .*/disk.img, 1M, .*, protection information of type 1$", caplog.text, re.MULTILINE)
    assert re.search(
        r"lun1: null, .*, filters log, standby through target port group default_tg_pt_gp$", caplog.text, re.MULTILINE
    )
