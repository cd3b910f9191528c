"""The control socket: the protocol, who may connect, and clients that misbehave while others are served."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import threading
from contextlib import suppress

import anyio
import pytest
from anyio import from_thread, to_thread
from anyio.lowlevel import checkpoint
from support.toy_tree import Text, toy_tree

from tcm.control.client import Client, ClientError, Refused
from tcm.control.methods import Methods, Sources
from tcm.control.peer import Peer, peer_of
from tcm.control.protocol import GAVE_WAY
from tcm.control.server import MAXIMUM_CLIENTS, ControlServer, listen
from tcm.failure import ConfigError

pytestmark = pytest.mark.anyio


class Served:
    """The toy tree at a socket, in this event loop; ``call`` blocks in a thread as tcm-ctl does."""

    def __init__(self, folder, **kwargs):
        self.tree = toy_tree()
        self.path = str(folder / "control.sock")
        self.server = ControlServer(Methods(self.tree, Sources(version="1.2")), self.path, **kwargs)

    async def __aenter__(self):
        self.tasks = anyio.create_task_group()
        await self.tasks.__aenter__()
        await self.tasks.start(self.server.run)
        return self

    async def __aexit__(self, *exception):
        self.tasks.cancel_scope.cancel()
        await self.tasks.__aexit__(*exception)

    async def call(self, method, **params):
        def call():
            with Client(self.path, 10) as client:
                return client.call(method, **params)

        return await to_thread.run_sync(call)

    async def raw(self, *lines, answers=1):
        """Sends lines as they are and returns so many answers."""

        def talk():
            with socket.socket(socket.AF_UNIX) as made:
                made.settimeout(10)
                made.connect(self.path)
                made.sendall(b"".join(lines))
                with made.makefile("rb") as file:
                    return [json.loads(file.readline()) for _ in range(answers)]

        return await to_thread.run_sync(talk)


async def test_reading_and_changing(tmp_path):
    async with Served(tmp_path) as served:
        version = await served.call("version")
        assert (version["version"], version["revision"], version["pid"]) == ("1.2", 0, os.getpid())
        assert await served.call("read", path="core/value") == {"value": "0\n", "revision": 0}
        assert await served.call("write", path="core/value", value="7") == {"revision": 1}
        await served.call("make", path="core/new")
        await served.call("link", path="iscsi/l", target="core/new")
        assert await served.call("stat", path="iscsi/l") == {"kind": "link", "target": "/core/new"}
        listing = await served.call("list", path="core", depth=1, values=True)
        assert listing["children"]["value"] == {"kind": "attribute", "mode": 0o644, "value": "7\n"}
        assert listing["children"]["control"] == {"kind": "attribute", "mode": 0o200}
        assert listing["children"]["new"] == {"kind": "group"}
        whole = await served.call("list", depth=-1)
        assert whole["children"]["core"]["children"]["new"]["children"]["info"]["mode"] == 0o444
        await served.call("unlink", path="iscsi/l")
        await served.call("remove", path="core/new")
        assert [each.what for each in served.tree.changes] == [
            "wrote core/value",
            "made core/new",
            "linked iscsi/l to core/new",
            "unlinked iscsi/l",
            "removed core/new",
        ]


async def test_refusals_have_errno(tmp_path):
    async with Served(tmp_path) as served:
        for method, params, number in (
            ("read", {"path": "nowhere"}, errno.ENOENT),
            ("read", {"path": "core/control"}, errno.EACCES),
            ("write", {"path": "core/info", "value": "1"}, errno.EACCES),
            ("write", {"path": "core/value", "value": "bad"}, errno.EINVAL),
            ("write", {"path": "core/value", "value": "x" * 5000}, errno.EINVAL),
            ("write", {"path": "core/value", "value": "a\0b"}, errno.EINVAL),
            ("make", {"path": "core/disk"}, errno.EEXIST),
            ("make", {"path": "core/../x"}, errno.EINVAL),
            ("remove", {"path": "core"}, errno.EBUSY),
            ("link", {"path": "iscsi/l", "target": "core/nothing"}, errno.ENOENT),
        ):
            with pytest.raises(Refused) as refused:
                await served.call(method, **params)
            assert refused.value.number == number, method
            assert "\n" not in str(refused.value)
        assert served.tree.revision == 0


async def test_a_lost_race_says_who_changed_what(tmp_path):
    async with Served(tmp_path) as served:
        revision = (await served.call("version"))["revision"]
        await served.call("write", path="core/value", value="1", who="alice")
        with pytest.raises(Refused, match=r"alice wrote core/value") as refused:
            await served.call("write", path="core/value", value="2", revision=revision)
        assert refused.value.number == errno.ESTALE
        assert served.tree.read("core/value") == "1\n"
        found = await served.call("changes", since=0)
        assert [(each["who"], each["what"]) for each in found["changes"]] == [("alice", "wrote core/value")]


async def test_who_is_the_peer_by_default(tmp_path):
    async with Served(tmp_path) as served:
        await served.call("write", path="core/value", value="1")
        assert f"pid {os.getpid()}, uid {os.geteuid()}" in served.tree.changes[0].who


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b'{"jsonrpc":"2.0","method":"read","params":{"path":NaN},"id":1}', -32700),
        (b"[" * 100_000, -32700),
        (b'{"a":' * 100 + b"1" + b"}" * 100, -32700),
        (b"[]", -32600),
        (b"1", -32600),
        (b'"read"', -32600),
        (b'{"method":"read","id":1}', -32600),
        (b'{"jsonrpc":"2.0","method":1,"id":1}', -32600),
        (b'{"jsonrpc":"2.0","method":"read","params":"core","id":1}', -32600),
        (b'{"jsonrpc":"2.0","method":"read","params":{},"id":[]}', -32600),
        (b'{"jsonrpc":"2.0","method":"__init__","id":1}', -32601),
        (b'{"jsonrpc":"2.0","method":"call","id":1}', -32601),
        (b'{"jsonrpc":"2.0","method":"read","id":1}', -32602),
        (b'{"jsonrpc":"2.0","method":"read","params":{"path":1},"id":1}', -32602),
        (b'{"jsonrpc":"2.0","method":"list","params":{"depth":true},"id":1}', -32602),
        (b'{"jsonrpc":"2.0","method":"read","params":{"path":"","self":1},"id":1}', -32602),
        (b'{"jsonrpc":"2.0","method":"read","params":["a","b"],"id":1}', -32602),
        (b"[" + b"1," * 1000 + b"1]", -32600),
    ],
)
async def test_nonsense_is_answered_and_the_connection_goes_on(tmp_path, line, code):
    async with Served(tmp_path) as served:
        good = b'{"jsonrpc":"2.0","method":"read","params":["core/value"],"id":"x"}'
        bad, answer = await served.raw(line + b"\n", good + b"\n", answers=2)
        assert bad["error"]["code"] == code
        assert "result" not in bad
        assert answer == {"jsonrpc": "2.0", "id": "x", "result": {"value": "0\n", "revision": 0}}


async def test_batches_and_notifications(tmp_path):
    async with Served(tmp_path) as served:

        def request(identifier, method, **params):
            return {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}

        notification = {"jsonrpc": "2.0", "method": "write", "params": {"path": "core/value", "value": "3"}}
        batch = [notification, request(1, "read", path="core/value"), 5, request(2, "read", path="nowhere")]
        lines = [json.dumps(each).encode() + b"\n" for each in (notification, [notification], batch)]
        (answers,) = await served.raw(*lines)
        assert [each["id"] for each in answers] == [1, None, 2]
        assert answers[0]["result"]["value"] == "3\n"
        assert answers[2]["error"]["data"] == {"errno": errno.ENOENT, "name": "ENOENT"}
        assert served.tree.revision == 3


async def test_the_socket_is_private_and_goes_with_the_server(tmp_path):
    async with Served(tmp_path) as served:
        mode = os.stat(served.path).st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert os.listdir(tmp_path) == ["control.sock"]
    assert os.listdir(tmp_path) == []


async def test_a_socket_that_nobody_serves_is_replaced_and_others_are_not(tmp_path):
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    async with Served(tmp_path) as served:
        assert (await served.call("version"))["revision"] == 0
        with pytest.raises(ConfigError, match="another process serves it"):
            await to_thread.run_sync(listen, path)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        listen(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"


async def test_a_path_of_any_length(tmp_path):
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    path = str(folder / "control.sock")
    made = listen(path)
    server = ControlServer(Methods(toy_tree(), Sources()), path, listener=made)
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.run)

        def call():
            with Client(path) as client:
                return client.call("version")

        assert (await to_thread.run_sync(call))["revision"] == 0
        tasks.cancel_scope.cancel()


async def test_a_client_that_does_not_read_is_dropped_and_the_others_are_not(tmp_path, caplog):
    async with Served(tmp_path, send_timeout=0.5) as served:
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(served.path)
        silent.setblocking(False)
        request = b'{"jsonrpc":"2.0","method":"list","params":{"depth":-1,"values":true},"id":1}\n'
        sent = 0
        # it stops taking requests when nobody takes the answers
        with suppress(BlockingIOError):
            while sent < 64 << 20:
                sent += silent.send(request * 100)
                await checkpoint()
        assert sent < 16 << 20
        assert (await served.call("read", path="core/value"))["value"] == "0\n"
        with anyio.fail_after(60):
            while served.server.connected or "a client does not read its answers: dropped" not in caplog.text:
                await anyio.sleep(0.05)
        assert (await served.call("read", path="core/value"))["value"] == "0\n"
        silent.close()


async def test_a_bug_ends_one_client_only(tmp_path, monkeypatch, caplog):
    def fail(_self, _line, _peer):
        raise RuntimeError("a bug")

    async with Served(tmp_path) as served:
        with monkeypatch.context() as broken:
            broken.setattr(ControlServer, "_answer", fail)
            with pytest.raises((json.JSONDecodeError, ConnectionError)):
                await served.raw(b"{}\n")
        assert "RuntimeError: a bug" in caplog.text
        assert (await served.call("read", path="core/value"))["value"] == "0\n"


async def test_a_line_without_end_is_refused(tmp_path):
    async with Served(tmp_path, limit=100_000) as served:

        def talk():
            with socket.socket(socket.AF_UNIX) as made:
                made.settimeout(10)
                made.connect(served.path)
                try:
                    for _ in range(100):
                        made.sendall(b"x" * 10_000)
                except (BrokenPipeError, ConnectionResetError):
                    return None
                return made.recv(10_000)

        answer = await to_thread.run_sync(talk)
        assert answer is None or b"more than 100000 bytes" in answer
        assert (await served.call("version"))["revision"] == 0


def idle_client(path, *, half=b""):
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(10)
    made.connect(path)
    made.sendall(half)
    return made


async def until(condition):
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(0.01)


@pytest.mark.parametrize("half", [b"", b'{"jsonrpc":', b"\n\n"])
async def test_the_client_that_is_idle_for_longest_gives_way(tmp_path, half):
    async with Served(tmp_path, clients=3) as served:
        idle = []
        for number in range(3):
            idle.append(await to_thread.run_sync(lambda: idle_client(served.path, half=half)))
            await until(lambda wanted=number + 1: served.server.connected == wanted)
        for turn in range(3):
            assert (await served.call("version"))["revision"] == 0
            if turn == 0:
                # the second one says something: it is not the next to go
                await to_thread.run_sync(idle[1].sendall, b"\n")
                await anyio.sleep(0.05)
            # its place is free again once the one that was just served is gone
            await until(lambda: served.server.connected == 2)
            idle.append(await to_thread.run_sync(lambda: idle_client(served.path)))
            await until(lambda: served.server.connected == 3)
        gone = idle[0].recv(10_000)
        answer = json.loads(gone)
        assert answer["error"]["code"] == GAVE_WAY
        assert "gave way to another one; connect again" in answer["error"]["message"]
        assert idle[0].recv(10) == b""
        # the third one went before the second, which was heard of later
        assert json.loads(idle[2].recv(10_000))["error"]["code"] == GAVE_WAY
        for each in idle:
            each.close()


async def test_a_client_that_gave_way_comes_back(tmp_path):
    """Programs that are there for long do not notice."""
    async with Served(tmp_path, clients=2) as served:

        def talk():
            with Client(served.path, 10) as first, Client(served.path, 10) as second, Client(served.path, 10) as third:
                for number in range(5):
                    for each in (first, second, third):
                        each.call("write", path="core/value", value=f"{number}")
                        assert each.call("read", path="core/value")["value"] == f"{number}\n"

        await to_thread.run_sync(talk)
        # each write was done once
        assert served.tree.revision == 15


async def test_an_answer_that_came_too_late_is_not_the_next_one(tmp_path, monkeypatch):
    release = anyio.Event()
    write = Text.write

    async def wait(self, text):
        await release.wait()
        await write(self, text)

    async with Served(tmp_path) as served:

        def talk():
            with Client(served.path, 0.3) as client:
                with pytest.raises(ClientError, match="no answer in time"):
                    client.call("write", path="core/value", value="1")
                from_thread.run_sync(release.set)
                client.timeout = 10
                return client.call("read", path="core/value")["value"]

        monkeypatch.setattr(Text, "write", wait)
        assert await to_thread.run_sync(talk) in {"0\n", "1\n"}


async def test_calls_that_wait_leave_room_for_others(tmp_path, monkeypatch):
    """As those that drain for an hour do."""
    release = anyio.Event()

    async def wait(self, text):
        await release.wait()

    monkeypatch.setattr(Text, "write", wait)
    async with Served(tmp_path, clients=4, changes=2) as served, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(lambda: served.call("write", path="core/value", value="1"))
        await until(lambda: served.server.connected == 2)
        idle = [await to_thread.run_sync(idle_client, served.path) for _ in range(2)]
        await until(lambda: served.server.connected == 4)
        assert (await served.call("read", path="core/value"))["value"] == "0\n"
        with pytest.raises(Refused, match="2 calls that change something are under way already; try again") as refused:
            await served.call("make", path="core/new")
        assert refused.value.number == errno.EBUSY
        release.set()
        for each in idle:
            each.close()
    # what was under way was done
    assert served.tree.revision == 2


async def test_when_everybody_is_busy_the_next_is_told_so(tmp_path, monkeypatch):
    release = anyio.Event()

    async def wait(self, text):
        await release.wait()

    monkeypatch.setattr(Text, "write", wait)
    async with Served(tmp_path, clients=2, changes=2) as served, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(lambda: served.call("write", path="core/value", value="1"))
        await until(lambda: served.server.connected == 2)
        await anyio.sleep(0.1)
        with pytest.raises(Refused, match="2 clients have calls under way"):
            await served.call("version")
        release.set()


async def test_idle_clients_by_the_thousand(tmp_path):
    """Nobody is kept out, and there are never more of them than may be."""
    most = 0
    async with Served(tmp_path) as served:
        for _ in range(20):
            idle = [await to_thread.run_sync(idle_client, served.path) for _ in range(50)]
            assert (await served.call("version"))["revision"] == 0
            most = max(most, served.server.connected)
            for each in idle:
                each.close()
        assert most <= MAXIMUM_CLIENTS + 2
        await until(lambda: served.server.connected == 0)


async def test_many_at_once_lose_nothing(tmp_path):
    async with Served(tmp_path) as served:

        def work(number):
            with Client(served.path) as client:
                for count in range(20):
                    client.call("make", path=f"core/g{number}-{count}")

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(to_thread.run_sync, work, number)
        assert served.tree.revision == 200


def test_other_users_may_not():
    me = os.geteuid()
    assert Peer(1, me, 0).allowed
    assert Peer(1, 0, 0).allowed
    assert not Peer(1, me + 1, 0).allowed
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        found = peer_of(ours)
    assert (found.pid, found.uid) == (os.getpid(), me)
    assert str(found.pid) in str(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
async def test_another_user_is_turned_away(tmp_path):
    """Even if the socket's mode would let it in."""
    async with Served(tmp_path) as served:
        os.chmod(served.path, 0o666)
        os.chmod(tmp_path, 0o711)
        answer = []

        def stranger():
            receiver, sender = os.pipe()
            child = os.fork()
            if child == 0:
                made = socket.socket(socket.AF_UNIX)
                os.chdir(tmp_path)
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                try:
                    made.connect("control.sock")
                    os.write(sender, made.recv(10_000))
                finally:
                    os._exit(0)
            os.close(sender)
            answer.append(os.read(receiver, 10_000))
            os.close(receiver)
            os.waitpid(child, 0)

        thread = threading.Thread(target=stranger)
        thread.start()
        await to_thread.run_sync(thread.join)
        assert b"may not control this process" in answer[0]


def test_nobody_there_is_one_line(tmp_path):
    with pytest.raises(ClientError, match="no tcm-run listens there"):
        Client(str(tmp_path / "control.sock"))
    with pytest.raises(ClientError, match="no tcm-run listens there"):
        Client(str(tmp_path / "nowhere" / "control.sock"))
