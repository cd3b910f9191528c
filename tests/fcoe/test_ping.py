"""``python -m tcm_fcoe.ping`` and the link services under it: between two ports of our own, and with a tcm-run."""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.fcoe_daemon import FcoeDaemon, fcoe_running
from tcm_fcoe.initiator import Faults, LoginFailed, Options, attach
from tcm_fcoe.initiator.link_services import LinkServices, NoReply, Refused
from tcm_fcoe.ping import run_command
from tcm_fcoe.ping.facts import QUESTIONS
from tcm_fcoe.protocol.els import Plain
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.names import colon_form

QUIET = Options(function=False)
ECHO = b"\x10\0\0\0"
MODES = [("vn2vn", "vn2vn"), ("p2p", "p2p"), ("fcf", "fabric"), ("fabric", "fcf")]


@asynccontextmanager
async def two_ports(modes=("vn2vn", "vn2vn"), **options):
    """Two ends of a link of Unix sockets in this process; the first one's port asks."""
    with tempfile.TemporaryDirectory(prefix="ping") as folder:
        ends = f"{folder}/a", f"{folder}/b"
        async with (
            attach(f"unix:{ends[0]},{ends[1]}", mode=modes[0], options=QUIET, **options) as asks,
            attach(f"unix:{ends[1]},{ends[0]}", mode=modes[1], options=QUIET) as answers,
        ):
            yield LinkServices(asks), answers


@pytest.mark.anyio
@pytest.mark.parametrize("modes", MODES, ids="-".join)
async def test_every_question_has_its_answer(modes):
    async with two_ports(modes) as (services, other):
        name = other.port.port_name
        fc_id = await services.find(name)
        assert fc_id == other.port.fc_id
        assert await services.find(fc_id) == fc_id
        for size in (0, 1, services.echo_room(fc_id)):
            assert (await services.echo(fc_id, b"\xa5" * size)).seconds > 0
        told = {}
        for what, question in QUESTIONS.items():
            reply = await services.ask(fc_id, question.request(services.port.port, 0))
            told[what] = question.facts(reply.payload)
        assert {told[what]["port_name"] for what in ("adisc", "pdisc", "rnid")} == {colon_form(name)}
        assert told["rnid"]["type"] == "host"
        assert told["rtv"]["e_d_tov"] == 2.0
        assert all(value >= 0 for value in told["rls"].values())
        services.test(fc_id, b"nobody answers")
        await services.echo(fc_id, b"after it")


@pytest.mark.anyio
async def test_a_lost_echo_and_one_that_is_refused():
    lose = Faults(choose=lambda frame, _number: "drop" if frame[12:14] == b"\x89\x06" and ECHO + b"lost" in frame else "none")
    async with two_ports(faults=lose) as (services, other):
        fc_id = await services.find(other.port.port_name)
        with pytest.raises(NoReply, match=r"no reply to ECHO within 0\.1 s"):
            await services.echo(fc_id, b"lost", timeout=0.1)
        await services.echo(fc_id, b"found")
        with pytest.raises(Refused, match=r"LINIT is refused: command not supported \(0Bh\), request not") as e:
            await services.ask(fc_id, Plain(ElsCommand.LINIT))
        assert (e.value.rejection.reason, e.value.rejection.explanation) == (
            Reason.COMMAND_NOT_SUPPORTED, Explanation.REQUEST_NOT_SUPPORTED,
        )  # fmt: skip


@pytest.mark.anyio
async def test_who_cannot_be_found():
    async with two_ports() as (services, other):
        await services.find(other.port.port_name)
        with pytest.raises(LoginFailed, match=r"no port 20:00:.*:99 on unix:.* there are: " + colon_form(other.port.port_name)):
            await services.find(bytes.fromhex("2000000000000099"), timeout=0.2)
        with pytest.raises(LoginFailed, match="our own address"):
            await services.find(services.port.port.fc_id)
        with pytest.raises(LoginFailed, match=r"nobody has FC_ID 00\.00\.07"):
            await services.find(7, timeout=0.2)
        with pytest.raises(LoginFailed, match="none in mode vn2vn"):
            await services.find(0xFFFFFE)


@pytest.mark.anyio
async def test_plogi_that_is_refused():
    async with two_ports(("p2p", "p2p")) as (services, other):
        fc_id = await services.find(other.port.port_name)
        n_port = services.port.port
        n_port.logout(n_port.remotes[fc_id], services.port.now())
        other.port.remotes[n_port.fc_id].port_name = bytes.fromhex("2000000000000bad")  # as discovery has it
        with pytest.raises(LoginFailed, match=r"refuses PLOGI: logical error \(03h\), invalid port name \(0Dh\)"):
            await services.login(fc_id)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    with fcoe_running(tmp_path_factory.mktemp("target"), "--lun", "ramdisk:size=1M") as running:
        yield running


def ping(daemon: FcoeDaemon, capsys, *arguments: str, code: int = 0) -> str:
    assert run_command(["--interface", daemon.link, "--interval", "0", *arguments]) == code
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == (code != 0)
    return out if not code else err


def test_people_read_it(daemon, capsys):
    shown = ping(daemon, capsys, "--count", "3", "--size", "2000", "--ask", "all", "--test", "2", daemon.url.target)
    for pattern in (
        rf"{daemon.url.target} \(00\.\S+\) from 20:00:\S+ \(00\.\S+\)",
        rf"ADISC  port name {daemon.url.target}, .*FC_ID 00\.",
        r"PDISC  .*receive size 2112, E_D_TOV 2 s, class 3 yes",
        r"RNID   .*type storage, vendor tcm, attached nodes 0",
        r"RTV    E_D_TOV 2 s, R_A_TOV 4 s",
        r"RLS    link failures \d+, virtual link failures 0, .*frame check errors 0",
        r"TEST   2 sent",
        r"ECHO   3: 2000 bytes, [\d.]+ ms",
        r"3 sent, 3 answered, 0 refused, 0 lost; round trips minimum [\d.]+, mean [\d.]+, maximum [\d.]+ ms",
    ):
        assert re.search(pattern, shown), shown


def test_programs_read_it(daemon, capsys):
    found = json.loads(ping(daemon, capsys, "--json", "--ask", "rnid,rls", daemon.url.target))
    assert set(found) == {"fc_id", "port_name", "node_name", "from", "rnid", "rls", "echo"}
    assert found["echo"]["sent"] == found["echo"]["answered"] == 5
    times = found["echo"]["milliseconds"]
    assert times["minimum"] <= times["mean"] <= times["maximum"]
    by_address = json.loads(ping(daemon, capsys, "--json", "--count", "1", found["fc_id"]))
    assert by_address["port_name"] == daemon.url.target


def test_a_target_has_no_nexus_of_it(tmp_path, capsys):
    """The N_Port that asks sends no PRLI: a target that lets nobody in is none the wiser."""
    with fcoe_running(tmp_path / "state", "--lun", "ramdisk:size=1M", fabric=f"fcoe:pcap={tmp_path / 'frames'}") as daemon:
        ping(daemon, capsys, daemon.url.target, "--count", "1")
    from tcm_fcoe.decode import run_command as decode

    assert decode([str(tmp_path / "frames")]) == 0
    ladder = capsys.readouterr().out
    assert "PLOGI" in ladder
    assert "LS_ACC (ECHO)" in ladder
    assert "PRLI" not in ladder


def test_services_of_a_switch(tmp_path, capsys):
    with fcoe_running(tmp_path / "state", "--lun", "ramdisk:size=1M", mode="fcf") as daemon:
        for address in ("ff.ff.fe", "fffffd", "0xfffffc"):
            found = json.loads(ping(daemon, capsys, "--mode", "fabric", "--json", "--ask", "rtv,rls", "-c", "1", address))
            assert found["rtv"] == {"e_d_tov": 2.0, "r_a_tov": 10.0}
            assert found["echo"]["answered"] == 1
        asked = ("--mode", "fabric", "--json", "-c", "0", "--ask", "rls,rnid", "--of", "01.00.01", "fffffd")
        of = json.loads(ping(daemon, capsys, *asked))
        assert of["rls"]["link_failures"] >= 1, "each ping before it was one"
        assert of["rnid"]["type"] == "switch"
        shown = ping(daemon, capsys, "--mode", "fabric", "-c", "0", "--ask", "pdisc", "ff.ff.fe", code=1)
        assert "1 requests without LS_ACC" in shown


@pytest.mark.parametrize(
    "arguments, text",
    [
        ([], "Missing argument 'PORT'"),
        (["--interface", "eth1", "20:00"], "PORT '20:00': write a WWPN"),
        (["00.fc.00"], "Missing option '--interface'"),
        (["--interface", "nosuchif0", "00.fc.00"], "there is no such interface"),
        (["--interface", "eth1", "--ask", "rnid,name", "00.fc.00"], "--ask name: write all, or some of adisc"),
        (["--interface", "eth1", "--of", "7", "00.fc.00"], "--of: '7' is not an FC_ID"),
        (["--interface", "eth1", "--wwpn", "7", "00.fc.00"], "--wwpn: '7' is not a name"),
        (["--interface", "eth1", "--size", "9000", "00.fc.00"], "--size"),
        (["--interface", "eth1", "--count", "-1", "00.fc.00"], "--count"),
    ],
)
def test_ping_bad_usage_is_one_line(capsys, arguments, text):
    assert run_command(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("python -m tcm_fcoe.ping: error: ")
    assert text in line


def test_nobody_is_at_the_other_end(tmp_path, capsys):
    daemon = FcoeDaemon(Path(tmp_path))
    try:
        assert "is down" in ping(daemon, capsys, "--login-timeout", "0.2", "00.fc.00", code=1)
    finally:
        daemon.kill()


def test_examples_are_in_the_help(capsys):
    assert run_command(["--help"]) == 0
    shown = capsys.readouterr().out
    for text in ("Examples:", "--ask all --json", "--of 01.00.02 ff.ff.fd", "Exit codes"):
        assert text in shown
