"""Bad usage: exit code 2 and one line that says what, where, and what to write instead."""

from __future__ import annotations

import logging
import os
import stat

import pytest

from tcm.cli.run import run_command

SERVE = ("--fabric", "loopback")
SERIAL = "5d7c6f0a-3a0b-4d5c-8f61-0f3b4f4b2b10"
ISCSI = ("--fabric", "iscsi", "--lun", "ramdisk:size=1M")
RAM = (*SERVE, "--lun", "ramdisk:size=1M")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "nothing to serve; write --fabric NAME or --config FILE (fabrics installed: "),
        (("--bogus",), "No such option"),
        (("--portl", "x"), "'--portal'?) Run tcm-run --help for all options."),
        (("iscsi",), "Got unexpected extra argument (iscsi). Run tcm-run --help for all options."),
        (("--metrics", "1.2.3.4:x"), "--metrics: 'x' is not a port"),
        (("--agentx", ""), "--agentx: '': write the absolute path of the master agent's socket, or 127.0.0.1:705"),
        (("--agentx", "var/agentx"), "--agentx: 'var/agentx': write the absolute path"),
        (("--agentx", "/" + "x" * 200), "the path of a Unix socket has at most 107 bytes"),
        (("--agentx", "there:705"), "--agentx: 'there' is not an IP address"),
        (("--drain-timeout", "x"), "'x' is not a valid number of seconds. Run"),
        (("--config", ""), "--config: empty; write the path of a saveconfig.json"),
        (("--config", "x.json", "--chap-secret-file", "y"), "--chap-secret-file: cannot be given beside --config"),
        (("--config", "x.json", "--chap-discovery"), "--chap-discovery: cannot be given beside --config"),
        ((*SERVE, "--state-dir", ""), "--state-dir: empty; write --state-dir DIR"),
        ((*RAM, "--target", ""), "--target: "),
        ((*RAM, "--chap", ""), "--chap: empty; write the user's name"),
        ((*SERVE, "--lun", "x=null:size=1G"), "--lun x=: not a LUN's number; write --lun [N=]TYPE[:key=value,...]"),
        ((*SERVE, "--lun", "-1=null:size=1G"), "--lun -1=: not a LUN's number"),
        ((*SERVE, "--lun", "ramdisk:64M"), "--lun 0=ramdisk: '64M' is not key=value; write for example removable=yes"),
        (("--log-level", "loud"), "'loud' is not one of 'debug', 'info', 'warning', 'error'"),
        (("--drain-timeout", "-1"), "--drain-timeout"),
        (("--fabric", "iscis"), "--fabric: there is no fabric 'iscis' (did you mean 'iscsi'?); installed: "),
        (("--fabric", "loopback", "--fabric", "loopback"), "--fabric loopback: given twice"),
        (("--fabric", "loopback:nexsu=x"), "--fabric loopback: nexsu: unknown key (did you mean 'nexus'?); keys are nexus"),
        (("--fabric", "loopback:nexus=iqn.x"), "--fabric loopback: loopback name 'iqn.x' is not an NAA name: write naa."),
        ((*SERVE, "--target", "iqn.2003-01.org:x"), "--target: loopback name 'iqn.2003-01.org:x' is not an NAA name"),
        ((*SERVE, "--portal", "127.0.0.1:0"), "--portal: fabric loopback has no portals; leave it out"),
        ((*SERVE, "--lun", "fileoi:path=x"), "--lun 0=fileoi: there is no backstore 'fileoi' (did you mean 'fileio'?)"),
        ((*SERVE, "--lun", "fileio,path=x"), "--lun 0=: 'fileio,path' is not a type's name; write fileio:path=x"),
        ((*SERVE, "--lun", "ramdisk"), "--lun 0=ramdisk: size: missing; write size=1G"),
        (
            (*SERVE, "--lun", "ramdisk:size=lots"),
            "--lun 0=ramdisk: size: 'lots' is not a size; write a size such as 64M, 1G or 512",
        ),
        ((*SERVE, "--lun", "ramdisk:sise=1M"), "--lun 0=ramdisk: sise: unknown key (did you mean 'size'?); keys are "),
        ((*SERVE, "--lun", "ramdisk:size=1M,removable=perhaps"), "removable: 'perhaps' is not yes or no; write yes or no"),
        ((*SERVE, "--lun", "ramdisk:size=1M,block-size=513"), "block_size 513: one of 512, 1024, 2048, 4096"),
        ((*SERVE, "--lun", "ramdisk:size=1M,wwn=7"), "wwn: '7' is not a UUID; write for example "),
        ((*SERVE, "--lun", "ramdisk:size=1M,vendor=MUCHTOOLONG"), "vendor 'MUCHTOOLONG': at most 8"),
        ((*SERVE, "--lun", "1=null:size=1G", "--lun", "1=null:size=1G"), "--lun 1: given twice"),
        ((*SERVE, "--lun", "65536=null:size=1G"), "--lun 65536: out of range; write 0 to 65535"),
        (
            (*SERVE, "--lun", "null:size=1G,name=a", "--lun", "null:size=1G,name=a"),
            "--lun 1: storage object /backstores/null/a is",
        ),
        (
            (*SERVE, "--lun", f"null:size=1M,wwn={SERIAL}", "--lun", f"null:size=1M,wwn={SERIAL}"),
            f"--lun 1: wwn: unit serial {SERIAL} is already at --lun 0: wwn; write another one",
        ),
        ((*RAM, "--filter", "delay"), "--filter delay: which LUN? write --filter N=TYPE[:key=value,...]"),
        ((*RAM, "--filter", "1=delay"), "--filter 1=delay: there is no LUN 1; LUNs are 0"),
        ((*RAM, "--filter", "0=deley"), "--filter 0=deley: there is no filter 'deley' (did you mean 'delay'?)"),
        ((*RAM, "--filter", "0=delay:raed=1"), "--filter 0=delay: raed: unknown key (did you mean 'read'?)"),
        ((*RAM, "--chap-secret-file", "x"), "--chap-secret-file: whose secret? write --chap USER as well"),
        ((*RAM, "--chap-discovery"), "--chap-discovery: without --chap there is no secret"),
        ((*RAM, "--chap", "alice"), "--chap: no secret; write --chap-secret-file FILE or set TCM_CHAP_SECRET"),
        (
            (*RAM, "--chap", "alice", "--chap-secret-file", "/nonexistent"),
            "cannot read /nonexistent: No such file or directory",
        ),
        ((*SERVE, "--param", "x=1"), "--param x: unknown key; it takes no keys"),
        (
            (*ISCSI, "--param", "MaxConnection=3"),
            "--param MaxConnection: unknown key (did you mean 'MaxConnections'?); keys are",
        ),
        ((*ISCSI, "--param", "MaxConnections"), "--param: 'MaxConnections' is not NAME=VALUE; write for example --param "),
        ((*ISCSI, "--param", "MaxConnections=many"), "--param MaxConnections: 'many' is not an integer; write a whole number"),
        ((*ISCSI, "--param", "MaxConnections=0"), "--param: MaxConnections=0: write a number from 1 to 65535"),
        (
            (*ISCSI, "--param", "MaxConnections=2", "--param", "MaxConnections=3"),
            "MaxConnections: given 2 times; write it once",
        ),
        ((*ISCSI, "--attribute", "login_timeout=1"), "--attribute: login_timeout=1: write a number from 5 to 30"),
        ((*ISCSI, "--attribute", "nopin-timeout=1"), "--attribute: nopin_timeout=1: write 0 (never) or a number from 3 to 60"),
        (
            (*ISCSI, "--attribute", "authentication=yes"),
            "--attribute authentication: it goes with a user and a secret; write --chap",
        ),
        ((*ISCSI, "--attribute", "generate_node_acls=no"), "--attribute generate_node_acls: a command line has no node ACLs"),
        (
            (*ISCSI, "--attribute", "redirect_temporarily=1.2.3.4:5,1"),
            "a redirection names no portal group tag (RFC 7143 13.8)",
        ),
        (("--config", "x.json", "--param", "x=1"), "--param: cannot be given beside --config; write it into x.json"),
        (("--config", "x.json", "--attribute", "x=1"), "--attribute: cannot be given beside --config; write it into x.json"),
        ((*RAM, "--config", "x.json"), "--lun: cannot be given beside --config; write it into x.json"),
        (("--config", "x.json", "--chap-mutual", "b"), "--chap-mutual: cannot be given beside --config"),
        (
            ("--config", "/nonexistent.json"),
            "/nonexistent.json: cannot be read: No such file or directory; write the path of a",
        ),
        (("--dump-plugin", "fileoi"), "--dump-plugin: there is no plug-in 'fileoi' (did you mean 'fileio'?); installed: "),
        (("--dump-plugin", ""), "--dump-plugin: there is no plug-in ''"),
    ],
)
def test_one_line(tcm_run, arguments, what):
    assert what in tcm_run(*arguments).error


@pytest.mark.parametrize(
    ("portal", "what"),
    [
        ("127.0.0.1:99999", "port 99999 is out of range"),
        ("127.0.0.1:iscsi", "'iscsi' is not a port; write an address and a port such as 127.0.0.1:3260 or [::]:3260"),
        ("127.0.0.1:", "'' is not a port"),
        ("::1", "an IPv6 address stands in brackets; write [::1]:3260"),
        ("::1:3261", "an IPv6 address stands in brackets; write [::1]:3261"),
        ("2001:db8::7", "an IPv6 address stands in brackets; write [2001:db8::7]:3260"),
        (":::0", "an IPv6 address stands in brackets; write [::]:0"),
        ("[::1:3260", "is not a portal"),
        ("[::1]3260", "is not a portal"),
        ("example.org:3260", "'example.org' is not an IP address"),
        (":3260", "'' is not an IP address"),
    ],
)
def test_portals(tcm_run, portal, what):
    assert tcm_run("--fabric", "iscsi", "--lun", "null:size=1G", "--portal", portal).error.startswith("--portal: ")
    assert what in tcm_run("--fabric", "iscsi", "--lun", "null:size=1G", "--portal", portal).error


def test_a_portal_twice(tcm_run):
    error = tcm_run(
        "--fabric", "iscsi", "--lun", "null:size=1G", "--portal", "127.0.0.1:7777", "--portal", "localhost:7777"
    ).error
    assert error.startswith("--portal: portal ")


@pytest.mark.parametrize("text", ["alice%hunter2hunter2", "%"])
def test_a_secret_on_the_command_line_is_refused_and_not_repeated(tcm_run, text):
    error = tcm_run(*RAM, "--chap", text).error
    assert "can be read by everybody on this machine" in error
    assert "--chap-secret-file FILE" in error
    assert "TCM_CHAP_SECRET" in error
    assert "hunter2" not in error


def test_secrets_that_cannot_work(tcm_run, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("the same secret for both\n")
    secret.chmod(0o600)
    monkeypatch.setenv("TCM_CHAP_MUTUAL_SECRET", "the same secret for both")
    serve = ("--fabric", "iscsi", "--lun", "null:size=1G")
    error = tcm_run(*serve, "--chap", "a", "--chap-secret-file", str(secret), "--chap-mutual", "b").error
    assert "both directions have the same CHAP secret" in error
    monkeypatch.setenv("TCM_CHAP_MUTUAL_SECRET", "another secret")
    assert "mutual CHAP without CHAP" in tcm_run(*serve, "--chap-mutual", "b").error
    monkeypatch.setenv("TCM_CHAP_SECRET", "the same secret for both")
    assert "--chap: fabric loopback has no authentication; leave it out" in tcm_run(*RAM, "--chap", "a").error
    # it is gone from the environment, so that no child process inherits it
    assert "TCM_CHAP_SECRET" not in os.environ


def test_a_secret_that_nobody_asks_for_is_a_warning(tcm_run, monkeypatch):
    monkeypatch.setenv("TCM_CHAP_SECRET", "hunter2hunter2")
    result = tcm_run(*RAM, "--target", "nonsense")
    assert "TCM_CHAP_SECRET is not used, because there is no --chap; write --chap USER to ask for it" in result.err
    monkeypatch.setenv("TCM_CHAP_SECRET", "hunter2hunter2")
    configured = tcm_run("--config", "/nonexistent.json")
    assert "TCM_CHAP_SECRET is not used: the secrets are those in /nonexistent.json" in configured.err
    assert "hunter2" not in result.err + configured.err
    assert "TCM_CHAP_SECRET" not in os.environ


def test_state_directories_that_cannot_be(tcm_run, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    assert tcm_run(*RAM, "--state-dir", str(file / "x")).error.startswith(f"--state-dir: {file}")
    assert tcm_run(*RAM, "--state-dir", str(file)).error.startswith(f"--state-dir: {file}: not a folder; write --state-dir DIR")
    typo = tmp_path / "no" / "such" / "folder"
    (tmp_path / "empty.json").write_text("{}")
    for more in (RAM, (*SERVE, "--empty"), ("--config", str(tmp_path / "empty.json"))):
        said = (
            f"--state-dir: {typo}: there is no folder {tmp_path / 'no'}; make it, or write --state-dir DIR in a folder that is"
        )
        assert tcm_run(*more, "--state-dir", str(typo)).error.startswith(said)
    assert not (tmp_path / "no").exists()
    (tmp_path / "identity.json").write_text("{")
    assert "is damaged; restore it, or delete it: " in tcm_run(*RAM, "--state-dir", str(tmp_path)).error
    monkeypatch.setenv("XDG_STATE_HOME", "")
    for home in ("nowhere", ""):
        monkeypatch.setenv("HOME", home)
        assert tcm_run(*RAM).error == "--state-dir: this user has no home directory to keep state in; write --state-dir DIR"


def test_the_state_directory_is_private(tcm_run, tmp_path):
    tcm_run(*SERVE, "--lun", "nope")
    tcm_run(*SERVE, "--lun", "null:size=oops")
    state = tmp_path / "xdg" / "tcm"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "identity.json").stat().st_mode) == 0o600


def test_an_unexpected_error_is_one_line_too(tcm_run, monkeypatch):
    def explode(*_arguments: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("tcm.cli.arguments.configuration", explode)
    result = tcm_run(*SERVE)
    assert result.code == 1
    assert result.err == "tcm-run: error: RuntimeError: first second; run with --log-level debug for the traceback\n"
    result = tcm_run(*SERVE, "--log-level", "debug")
    assert result.code == 1
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1] == "tcm-run: error: RuntimeError: first second"


def test_an_event_loop_that_is_not_installed(tcm_run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    error = tcm_run(*RAM, "--event-loop", "trio").error
    assert error == "--event-loop: trio is not installed; pip install trio, or write --event-loop asyncio"


def test_control_c_before_it_serves_is_quiet(tcm_run, monkeypatch):
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tcm.cli.arguments.configuration", interrupted)
    result = tcm_run(*SERVE, "--log-level", "error")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_errors_do_not_need_a_reader(monkeypatch, capfd):
    class Closed:
        def isatty(self) -> bool:
            return False

        def write(self, _text: str) -> None:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert run_command(["--bogus"]) == 2
