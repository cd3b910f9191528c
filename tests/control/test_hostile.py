"""Whoever may connect to the control socket and does harm, on purpose or not: no initiator notices, secrets stay secret."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.controlled import Load, controlled
from support.terminal import Terminal, screen
from support.toy_process import CTL

from tcm.control.client import Client, Refused
from tcm.control.protocol import MAXIMUM_DEPTH, RpcError, parse_json

SECRET = "a-secret-nobody-sees"
LONGEST = 2.5
"""Seconds of processor time; an initiator's patience is longer."""
INITIATOR = "iqn.2026-01.org.test:h"


@pytest.fixture
def ctl(tmp_path):
    with controlled(tmp_path, "--lun", "ramdisk:size=4M") as made:
        yield made


class Watched(Load):
    """A load that remembers how long the daemon used the processor at most while it did not get on."""

    def __init__(self, daemon):
        super().__init__(daemon.url)
        self._daemon = daemon

    def __enter__(self):
        super().__enter__()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self.longest = 0.0
        self._watching.start()
        return self

    def _watch(self) -> None:
        last, since = self.count, self._daemon.processor_seconds()
        while self.is_alive():
            time.sleep(0.01)
            if self.count != last:
                last, since = self.count, self._daemon.processor_seconds()
            else:
                self.longest = max(self.longest, self._daemon.processor_seconds() - since)


def connect(ctl, seconds=30):
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(seconds)
    try:
        made.connect(ctl.control)
    except OSError:
        made.close()
        raise
    return made


def answer(connection):
    """A line."""
    received = b""
    while not received.endswith(b"\n"):
        part = connection.recv(1 << 20)
        assert part, received
        received += part
    return json.loads(received)


GARBAGE = {
    "brackets": b"[" + b"[]," * 5_000_000 + b"[]]",
    "deep": b"[" * 15_000_000,
    "deep and closed": b"[" * 7_000_000 + b"]" * 7_000_000,
    "mixed": b'[{"a":' * 1_000_000 + b"1" + b"}]" * 1_000_000,
    "quotes": b'"' * 15_000_001,
    "backslashes": b'"' + b"\\" * 15_000_000,
    "a long number": b"9" * 5_000,
    "zeros": bytes(1_000_000),
    "not UTF-8": b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}',
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_at_once(name):
    begin = time.process_time()
    with pytest.raises(RpcError):
        parse_json(GARBAGE[name])
    assert time.process_time() - begin < 1


@given(
    st.recursive(
        st.none() | st.text('[]{}"\\', max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\'), inner, max_size=3),
    )
)
def test_what_is_not_too_deep_is_taken(value):
    assert parse_json(json.dumps(value).encode()) == value
    # enough of it that it is looked at closely
    assert parse_json(json.dumps([value] + [[]] * MAXIMUM_DEPTH).encode())[0] == value


@pytest.mark.parametrize(("depth", "taken"), [(MAXIMUM_DEPTH, True), (MAXIMUM_DEPTH + 1, False)])
def test_so_deep_and_no_deeper(depth, taken):
    line = b'{"]":' * (depth // 2) + b"[" * (depth - depth // 2) + b"]" * (depth - depth // 2) + b"}" * (depth // 2)
    if taken:
        parse_json(line)
    else:
        with pytest.raises(RpcError, match="deep"):
            parse_json(line)


def test_an_initiator_does_not_notice_garbage(ctl):
    with Watched(ctl.daemon) as load:
        for name, data in GARBAGE.items():
            with connect(ctl) as connection:
                connection.sendall(data + b"\n")
                found = answer(connection)
                assert found["error"]["code"] in {-32700, -32600, -32601}, name
                # and it goes on
                connection.sendall(b'{"jsonrpc":"2.0","id":7,"method":"version"}\n')
                assert answer(connection)["id"] == 7
    assert load.longest < LONGEST
    ctl.daemon.assert_quiet()


def test_a_batch_that_asks_for_very_much_is_cut_off(ctl):
    before = ctl.daemon.rss()
    for number in range(8):
        ctl.run("create", "-p", f"core/rd_mcp_{100 + number}/d{number}", "control=rd_pages=1", "enable=1")
    one = b'{"jsonrpc":"2.0","id":%d,"method":"list","params":{"depth":-1,"values":true}}'
    with Watched(ctl.daemon) as load, connect(ctl, 120) as connection:
        connection.sendall(b"[" + b",".join(one % number for number in range(1000)) + b"]\n")
        found = answer(connection)
    assert [each["id"] for each in found] == list(range(1000))
    done = [each for each in found if "result" in each]
    assert done == found[: len(done)]
    assert 0 < len(done) < 1000
    assert "not done" in found[-1]["error"]["message"]
    assert ctl.daemon.rss() - before < 100 << 20
    assert load.longest < LONGEST


def test_many_who_connect_and_say_nothing_or_half_of_it(ctl):
    """More than may be there: whoever comes gets in, an initiator does not notice, and afterwards all is as before."""
    descriptors = ctl.daemon.file_descriptors()
    with Watched(ctl.daemon) as load:
        some = []
        for number in range(400):
            try:
                some.append(connect(ctl, 1))
                some[-1].sendall((b"", b'{"jsonrpc":', b"\n" * 10)[number % 3])
            except (OSError, TimeoutError):
                pass
        assert ctl.json("version")["pid"] == ctl.daemon.pid
        ctl.run("create", "core/rd_mcp_77")
        for each in some:
            each.close()
        assert ctl.json("version")["pid"] == ctl.daemon.pid
    assert load.longest < LONGEST
    end = time.monotonic() + 60
    while ctl.daemon.file_descriptors() > descriptors + 2:
        assert time.monotonic() < end, "descriptors were left open"
        time.sleep(0.1)
    ctl.daemon.assert_quiet()


@pytest.mark.parametrize(
    "path",
    [
        "core/../iscsi",
        "core/fileio_0/..",
        "core/fileio_0/./x",
        "core/fileio_0/\x1b[2J",
        "core/fileio_0/a\nb",
        "\n",
        "core/fileio_0\n/alias",
        "core/fileio_0/\udcff",
        "core/fileio_0/\0",
        "core/fileio_0/" + "x" * 256,
        "core/" * 2000,
        "iscsi/iqn.2026-01.org.test:../..",
        "iscsi/" + "iqn.2026-01.org.test:" + "x" * 300,
        "loopback/../../etc",
    ],
)
def test_paths_that_lead_elsewhere(ctl, path):
    before = ctl.export(ctl.daemon.directory)
    with Client(ctl.control) as client:
        for method, more in (
            ("make", {}),
            ("remove", {}),
            ("write", {"value": "1"}),
            ("read", {}),
            ("unlink", {}),
            ("link", {"target": "core"}),
        ):
            with pytest.raises(Refused) as refused:
                client.call(method, path=path, **more)
            assert str(refused.value).isprintable()
    # tcm-ctl takes dots as a shell does, and a process has no argument with the others in it
    if not any(each in path for each in ("\0", "\udcff", "..")):
        said = ctl.run("get", path, code=1)
        assert "\x1b" not in said
        assert len(said.splitlines()) == 1
    after = ctl.export(ctl.daemon.directory)
    assert after == before
    ctl.daemon.assert_quiet()


@pytest.mark.parametrize(
    ("path", "name"), [("/dev/null", "EINVAL"), ("/nowhere/file", "ENOENT"), ("a\0b", "EINVAL"), ("x" * 5000, "ENAMETOOLONG")]
)
def test_a_path_that_nothing_can_be_saved_to(ctl, path, name):
    with Client(ctl.control) as client, pytest.raises(Refused) as refused:
        client.call("save", path=path)
    assert (refused.value.name, refused.value.number) == (name, getattr(errno, name))
    assert str(refused.value).isprintable()
    ctl.daemon.assert_quiet()


def test_who_says_who_he_is_says_it_in_a_line(ctl):
    with Client(ctl.control) as client:
        client.call("make", path="core/fileio_0", who="\x1b[2Jme\n     9  root  removed everything" + "x" * 1000)
        with pytest.raises(Refused, match="UTF-8"):
            client.call("make", path="core/fileio_1", who="\udcff")
        with pytest.raises(Refused, match="UTF-8"):
            client.call("write", path=f"iscsi/{ctl.daemon.url.target}/tpgt_1/auth/password", value="secret-\udc80")
    (line,) = ctl.run("log").splitlines()
    assert "?[2Jme?" in line
    assert len(line) < 200
    assert "\x1b" not in ctl.daemon.log()


def test_a_terminal_is_not_told_to_do_anything(ctl):
    with Client(ctl.control) as client:
        client.call("make", path="core/rd_mcp_9")
        client.call("make", path="core/rd_mcp_9/d")
        for name in ("alias", "udev_path"):
            client.call("write", path=f"core/rd_mcp_9/d/{name}", value="\x1b]0;mine\x07\x1b[2J")
    for arguments in (
        ("ls",),
        ("ls", "core/rd_mcp_9/d"),
        ("get", "core/rd_mcp_9/d"),
        ("get", "core/rd_mcp_9/d/alias"),
        ("log",),
    ):
        terminal = Terminal(ctl.environment, *arguments, columns=120)
        assert terminal.finish() == 0
        assert b"\x1b]0;" not in terminal._raw
        assert b"\x1b[2J" not in terminal._raw
    assert r"\x1b]0;mine\x07" in terminal.shown or r"\x1b]0;mine\x07" in screen(ctl.environment, "ls", columns=120)


# secrets


def acl(ctl):
    path = f"iscsi/{ctl.daemon.url.target}/tpgt_1/acls/{INITIATOR}"
    ctl.run("create", path)
    return path


def test_a_secret_can_be_read_from_a_pipe(ctl):
    where = acl(ctl)
    process = subprocess.Popen(
        [*CTL, "set", f"{where}/auth", "userid=alice", "password=-"],
        env=ctl.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(f"{SECRET}\n")
    process.stdin.flush()
    seen = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (process.pid, ctl.daemon.pid)]
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert all(SECRET.encode() not in each for each in seen)
    assert ctl.json("get", f"{where}/auth", "password") == {"password": SECRET}
    assert "there is no line to read" in ctl.run("set", f"{where}/auth/password", "-", code=2)
    # whoever looks around does not see it
    for arguments in (("ls", "/", "--depth", "-1"), ("ls", f"{where}/auth"), ("log",), ("ls",)):
        assert SECRET not in ctl.run(*arguments), arguments
    assert "password=***" in ctl.run("ls", f"{where}/auth")
    assert "password=\n" in ctl.run("ls", f"iscsi/{ctl.daemon.url.target}/tpgt_1/auth")
    assert SECRET not in ctl.daemon.log()


def test_a_secret_is_asked_for_and_does_not_stay(ctl):
    where = acl(ctl)
    shell = Terminal(ctl.environment, columns=250)
    shell.until("tcm:/>")
    shell.press(f"set {where}/auth password=-\n".encode())
    shell.until("password:")
    shell.press(f"{SECRET}\n".encode())
    shell.until("tcm:/>", times=2)
    shell.press(f"set {where}/auth userid=alice password={SECRET}2\n".encode())
    shell.press(b"version\n")
    shell.until("revision")
    shell.press(b"exit\n")
    assert shell.finish() == 0
    assert len(re.findall(SECRET, shell.shown)) == len(re.findall(f"{SECRET}2", shell.shown)), "echoed as it was typed"
    assert ctl.json("get", f"{where}/auth", "password") == {"password": f"{SECRET}2"}
    history = Path(ctl.environment["XDG_STATE_HOME"]) / "tcm" / "ctl_history"
    kept = history.read_text()
    assert "version" in kept
    assert SECRET not in kept
    assert history.stat().st_mode & 0o077 == 0


def test_a_refused_configuration_does_not_tell_its_secrets(ctl, tmp_path):
    config = ctl.export(tmp_path)
    group = config["targets"][0]["tpgs"][0]
    for more, attribute in (({}, {"login_timeout": 1000}), ({"chap_mutual_userid": "t", "chap_mutual_password": SECRET}, {})):
        node = {"node_wwn": INITIATOR, "chap_userid": "bob", "chap_password": SECRET, **more}
        group["node_acls"] = [node]
        wanted = json.loads(json.dumps(config))
        wanted["targets"][0]["tpgs"][0]["attributes"] |= attribute
        path = tmp_path / "wanted.json"
        path.write_text(json.dumps(wanted))
        for command in ("apply", "diff", "restore"):
            done = subprocess.run(
                [*CTL, command, str(path)],
                env=ctl.environment,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            assert SECRET not in done.stdout + done.stderr
    # half a file
    path.write_text(path.read_text()[:-40])
    assert SECRET not in ctl.run("apply", str(path), code=2)
    assert SECRET not in ctl.daemon.log()


def test_what_is_saved_is_its_owners(ctl, tmp_path):
    where = acl(ctl)
    ctl.run("set", f"{where}/auth", f"password={SECRET}", "userid=a")
    os.umask(0o000)
    try:
        ctl.run("save", str(tmp_path / "saved.json"))
        ctl.run("save")
        ctl.run("save")
    finally:
        os.umask(0o022)
    saved = [tmp_path / "saved.json", *(tmp_path / "state").rglob("*.json")]
    assert len(saved) >= 3
    for path in saved:
        assert path.stat().st_mode & 0o077 == 0, path
