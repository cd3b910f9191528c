"""``tcm-ctl`` as a process: what it prints, its errors of one line, its exit codes, its shell in a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import subprocess
import termios
import time
from contextlib import suppress

import pytest
from support.toy_process import CTL, ToyProcess

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\x07|\x01|\x02")


@pytest.fixture
def toy(tmp_path):
    with ToyProcess(tmp_path) as process:
        yield process


def out(toy, *arguments, code=0, stdin=None):
    done = toy.ctl(*arguments, stdin=stdin)
    assert done.returncode == code, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_looking(toy):
    assert "no targets" in out(toy, "ls")
    shown = out(toy, "ls", "core")
    assert "value=0" in shown
    assert "control  (write only)" in shown
    assert "disk/" in shown
    assert "\x1b" not in shown, "colours on a terminal only"
    assert out(toy, "get", "core/value") == "0\n"
    assert out(toy, "get", "core", "value") == "value=0\n"
    assert out(toy, "get", "/sys/kernel/config/target/core/") == "value=0\ninfo=I am core\n"
    assert out(toy, "sessions") == "nobody is logged in\n"
    assert "revision 0" in out(toy, "version")


@pytest.mark.parametrize("place", ["before", "behind"])
def test_json_everywhere(toy, place):
    def shown(*arguments):
        return json.loads(out(toy, "--json", *arguments) if place == "before" else out(toy, *arguments, "--json"))

    assert shown("ls", "core")["children"]["value"]["value"] == "0\n"
    assert shown("ls")["children"]["core"] == {"kind": "group"}
    assert shown("get", "core") == {"value": "0", "info": "I am core"}
    assert shown("sessions") == []
    assert shown("version")["version"] == "toy"
    assert shown("create", "core/x", "value=2") == {"made": ["core/x"]}
    assert shown("set", "core/x/value", "3") == {"revision": 3}
    assert shown("link", "iscsi/l", "core/x") == {"revision": 4}
    assert shown("delete", "iscsi/l") == {"removed": ["iscsi/l"]}
    assert [each["what"] for each in shown("log")["changes"]][-1] == "unlinked iscsi/l"


def test_changing(toy):
    out(toy, "create", "-p", "core/a/b", "value=4")
    assert out(toy, "get", "core/a/b/value") == "4\n"
    out(toy, "set", "core/a/b", "value=5", "control=whatever")
    assert out(toy, "get", "core/a/b", "value") == "value=5\n"
    out(toy, "link", "core/a/l", "core/disk")
    assert out(toy, "get", "core/a/l/value".replace("/value", ""), "value") == "value=0\n"
    assert "in use" in toy.error("delete", "core/a")
    out(toy, "delete", "-r", "core/a")
    assert "'a' is not in /core" in toy.error("get", "core/a")


def test_what_create_cannot_finish_it_takes_back(toy):
    assert "anything but bad" in toy.error("create", "-p", "core/a/b", "value=bad")
    assert "'a' is not in /core" in toy.error("get", "core/a")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["lss"], 2, "did you mean ls"),
        (["ls", "--depht", "1"], 2, "--depht"),
        (["set", "core/value"], 2, "Missing argument 'VALUE | ATTRIBUTE=VALUE...'; tcm-ctl set --help tells more"),
        (["set", "core", "value"], 2, "write ATTRIBUTE=VALUE"),
        (["set", "core/value", "1", "2"], 2, "write one value"),
        (["clear"], 2, "tcm-ctl clear --confirm"),
        (["diff", "/nowhere.json"], 2, "/nowhere.json"),
        (["set", "core/value", "bad"], 1, "write anything but bad"),
        (["set", "core/info", "1"], 1, "can only be read"),
        (["get", "core/control"], 1, "can only be written"),
        (["get", "core", "nothing"], 1, "there are value, info, control"),
        (["get", "core/../x"], 1, "'x' is not in /"),
        (["get", "core/valeu"], 1, "'valeu' is not in /core (did you mean 'value'?)"),
        (["set", "core/dsk", "value=1"], 1, "'dsk' is not in /core (did you mean 'disk'?)"),
        (["create", "core/a/b"], 1, "'a' is not in /core; create -p makes what is missing"),
        (["delete", "core/value"], 1, "set it instead"),
        (["--control", "/nowhere/s", "ls"], 1, "no tcm-run listens there"),
        (["set", "core/value", "1", "--revision", "99"], 1, "look again"),
    ],
)
def test_errors_are_one_line_with_the_fix(toy, arguments, code, said):
    assert said in toy.error(*arguments, code=code)


def test_errors_are_json_for_who_wants_json(toy):
    for arguments, code, error in (
        (
            ["--json", "set", "core/value", "bad"],
            1,
            {"message": "core/value: write anything but bad", "errno": 22, "name": "EINVAL"},
        ),
        (["set", "core", "value", "--json"], 2, {"message": "'value': write ATTRIBUTE=VALUE; tcm-ctl set --help tells more"}),
        (["apply", "--json"], 2, {"message": "Missing argument 'FILE'; tcm-ctl apply --help tells more"}),
        (["apply", "/nowhere.json", "--json"], 2, None),
        (["--json", "--control", "/nowhere/s", "ls"], 1, None),
    ):
        done = toy.ctl(*arguments)
        assert (done.returncode, done.stdout) == (code, "")
        (line,) = done.stderr.splitlines()
        found = json.loads(line)["error"]
        assert found == error or (error is None and set(found) == {"message"}), found
    done = toy.ctl("--json", stdin="get core/valeu\n")
    assert json.loads(done.stderr)["error"]["name"] == "ENOENT"


def test_the_log_says_who_and_when(toy):
    before = time.time()
    out(toy, "set", "core/value", "7")
    (wrote,) = json.loads(out(toy, "log", "--json"))["changes"]
    assert before - 1 <= wrote["time"] <= time.time() + 1
    assert re.match(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d +1  .*uid {os.getuid()}\)  wrote core/value\n", out(toy, "log"))


@pytest.mark.parametrize("command", ["", "ls", "set", "apply", "top", "clear"])
def test_help(toy, command):
    shown = out(toy, *command.split(), "--help")
    assert shown.startswith("Usage: tcm-ctl")


def test_a_closed_pipe_is_no_error(toy):
    done = subprocess.run(
        ["sh", "-c", '"$@" | head -1', "sh", *CTL, "ls", "", "--depth", "-1", "--json"],
        capture_output=True,
        env=toy.environment,
        timeout=60,
        check=False,
    )
    assert done.stderr == b""


# the shell


def test_a_script_ends_at_the_first_failure(toy):
    done = toy.ctl(stdin="# comment\n\ncd core\nset . value=1\nget . value\nset value bad\nset value 2\n")
    assert done.returncode == 1
    assert done.stdout == "value=1\n"
    assert "anything but bad" in done.stderr
    assert out(toy, "get", "core/value") == "1\n"
    assert toy.ctl(stdin="get 'core\n").returncode == 2
    assert out(toy, stdin="pwd\ncd core/disk\npwd\ncd ..\npwd\nexit\nfoo\n") == "/\n/core/disk\n/core\n"


class Terminal:
    """The shell at a pseudo-terminal."""

    def __init__(self, toy):
        self.master, slave = pty.openpty()
        environment = {**toy.environment, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
        self.process = subprocess.Popen(
            CTL,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.screen = ""
        self.wait_for("/> ")

    def type(self, text):
        self.screen = ""
        os.write(self.master, text.encode())

    def enter(self, line, *texts):
        """A whole line, what is to be seen after it, and the next prompt."""
        self.type(f"{line}\n")
        for text in texts:
            self.wait_for(text)
        self.wait_for("> ", at_the_end=True)

    def wait_for(self, text, seconds=60, *, at_the_end=False):
        end = time.monotonic() + seconds

        def seen():
            shown = _ESCAPES.sub("", self.screen)
            return shown.endswith(text) if at_the_end else text in shown

        while not seen():
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                try:
                    self.screen += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    break
            assert time.monotonic() < end, (text, self.screen)
        assert seen(), self.screen

    def interrupt(self):
        """Ctrl-C until there is a prompt: CPython's readline sleeps on if the signal comes while it echoes what was typed."""
        for _ in range(10):
            self.type("\x03")
            with suppress(AssertionError):
                self.wait_for("/> ", 2, at_the_end=True)
                return
        raise AssertionError(f"no prompt after Ctrl-C: {self.screen!r}")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(toy):
    made = Terminal(toy)
    yield made
    made.close()


def test_the_shell_completes_and_remembers(toy, terminal):
    terminal.type("cd co\t")
    terminal.wait_for("cd core/")
    terminal.enter("", "/core> ")
    terminal.type("set . va\t")
    terminal.wait_for("set . value=")
    terminal.enter("7")
    terminal.enter("get va\t", "7\r\n")
    terminal.type("set . value=\t")
    terminal.wait_for("set . value=7")
    terminal.enter("")
    terminal.enter("cd di\t", "/core/disk> ")
    terminal.enter("foo", "no command 'foo'")
    terminal.enter("help set", "Usage: tcm-ctl")
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0
    history = toy.folder / "state" / "tcm" / "ctl_history"
    assert "cd core/" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def test_the_shell_outlives_errors_ctrl_c_and_the_end_of_tcm_run(toy, terminal):
    terminal.enter("set core/value bad", "anything but bad")
    terminal.type("half a line")
    terminal.wait_for("half a line")
    terminal.interrupt()
    toy.stop()
    terminal.enter("ls core", "no tcm-run listens there")
    with ToyProcess(toy.folder):
        terminal.enter("get core value", "value=0")
    terminal.type("exit\n")
    assert terminal.process.wait(60) == 0
