"""Bad input to a running daemon, and bad luck: one clear line, nothing changed; on disk the old file or the new one."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from support.controlled import controlled
from support.daemon import TARGET
from support.large_config import copy_of, large_config
from support.tcm_process import TcmProcess
from support.toy_process import CTL

from tcm.control.client import Client, ClientError, Refused

TPG = f"iscsi/{TARGET}/tpgt_1"
RAM = ("--lun", "ramdisk:size=4M")
PLACES = {
    "storage object": lambda config, text: config["storage_objects"][0].update(name=text),
    "target port group": lambda config, text: config["storage_objects"][0]["alua_tpgs"].append(
        {"name": text, "tg_pt_gp_id": 9}
    ),
    "LU group": lambda config, text: config.update(alua_lu_gps=[{"name": text, "lu_gp_id": 9}]),
    "target": lambda config, text: config["targets"][0].update(wwn=text),
    "node ACL": lambda config, text: config["targets"][0]["tpgs"][0]["node_acls"].append({"node_wwn": text}),
    "alias": lambda config, text: config["targets"][0]["tpgs"][0]["luns"][0].update(alias=text),
    "secret": lambda config, text: config["targets"][0]["tpgs"][0].update(chap_userid=text, chap_password="x" * 300),
}
TEXTS = ("..", "../../etc", "iqn.2003-01.org.x:/../..", "a\0b", "x" * 5000, "\x1b[2J", "a\nb", "\ud800", "half \udcff")


@pytest.fixture
def ctl(tmp_path):
    with controlled(tmp_path, *RAM) as made:
        yield made


def put(folder, config, name="bad.json"):
    path = folder / name
    path.write_text(json.dumps(config))
    return str(path)


def test_names_in_a_configuration(ctl, tmp_path):
    """``..`` in a WWN, slashes, NULs, escape sequences, halves of characters: nowhere, neither applied nor at the start."""
    before = ctl.export(tmp_path)
    revision = ctl.json("version")["revision"]
    with Client(ctl.control) as client:
        for place, set_name in PLACES.items():
            for text in TEXTS:
                config = copy_of(before)
                set_name(config, text)
                for method in ("diff", "apply"):
                    with pytest.raises(Refused) as refused:
                        client.call(method, config=config)
                    line = str(refused.value)
                    assert len(line.splitlines()) == 1, (place, text)
                    assert "internal" not in line.lower(), (place, text, line)
                    assert "x" * 300 not in line
                    assert "\x1b" not in line
    assert ctl.export(tmp_path) == before
    assert ctl.json("version")["revision"] == revision
    assert "Traceback" not in ctl.daemon.log()


@pytest.mark.parametrize("text", ["..", "\ud800"])
def test_names_in_a_configuration_at_the_start(ctl, tmp_path, text):
    config = ctl.export(tmp_path)
    config["storage_objects"][0]["name"] = text
    with TcmProcess(tmp_path, "--config", put(tmp_path, config)) as tcm:
        assert tcm.exit_code() == 2
        assert len(tcm.err.splitlines()) == 1, tcm.err


def test_secrets_are_what_the_file_says_to_the_last_space(ctl, tmp_path):
    config = ctl.export(tmp_path)
    config["targets"][0]["tpgs"][0] |= {"chap_userid": " al ice", "chap_password": " correct horse  "}
    ctl.run("apply", put(tmp_path, config))
    assert ctl.run("diff", put(tmp_path, config)) == "nothing to change\n"
    assert ctl.export(tmp_path) == config


def test_a_file_cut_off_anywhere(ctl, tmp_path):
    """At 200 places: every one is refused, and what runs stays; two of them by the commands themselves."""
    before = ctl.export(tmp_path)
    text = json.dumps(before, indent=2)
    path = tmp_path / "state" / "saveconfig.json"
    places = sorted(random.Random(5).sample(range(len(text.rstrip("}\n ]"))), 200))
    with Client(ctl.control) as client:
        for place in places:
            path.write_text(text[:place])
            with pytest.raises(Refused) as refused:
                client.call("reload")
            assert str(refused.value).startswith(f"{path}: ")
            assert len(str(refused.value).splitlines()) == 1
    assert ctl.export(tmp_path) == before
    for place in (0, places[100]):
        path.write_text(text[:place])
        with TcmProcess(tmp_path, "--config", str(path), "--state-dir", str(tmp_path / "other")) as tcm:
            assert tcm.exit_code() == 2
            assert len(tcm.err.splitlines()) == 1


def test_two_writers_at_once(ctl, tmp_path):
    """Two configurations at once: one after the other. A writer in between: the application is taken back, and says who."""
    before = ctl.export(tmp_path)
    large = large_config(units=300, targets=30, port=0)
    for name in ("storage_objects", "targets"):
        large[name] += before[name]
    large["tcm_storage_objects"] = before["tcm_storage_objects"]
    for each in large["targets"][:30]:
        each["tpgs"][0]["portals"] = []
    answers = {}

    def apply(name, config):
        with Client(ctl.control) as client:
            try:
                answers[name] = client.call("apply", config=config, who=name)
            except Refused as error:
                answers[name] = error

    def wait_until_it_changes(client, revision):
        while client.call("version")["revision"] == revision:
            time.sleep(0.002)

    with Client(ctl.control) as client:
        revision = client.call("version")["revision"]
        worker = threading.Thread(target=apply, args=("large", large))
        worker.start()
        wait_until_it_changes(client, revision)
        client.call("write", path=f"{TPG}/attrib/login_timeout", value="21", who="somebody else")
        worker.join(60)
    assert isinstance(answers["large"], Refused), "it was done before anybody could come in between"
    assert answers["large"].name == "ESTALE"
    assert "somebody else wrote" in str(answers["large"])
    assert "nothing was changed" in str(answers["large"])
    after = ctl.export(tmp_path)
    assert after["targets"][0]["tpgs"][0]["attributes"].pop("login_timeout") == 21
    del before["targets"][0]["tpgs"][0]["attributes"]["login_timeout"]
    assert after == before
    # two that both want all
    other = copy_of(before)
    other["targets"][0]["tpgs"][0]["attributes"]["login_timeout"] = 22
    workers = [threading.Thread(target=apply, args=each) for each in (("first", large), ("second", other))]
    for each in workers:
        each.start()
    for each in workers:
        each.join(60)
    assert [isinstance(answers[name], list) for name in ("first", "second")] == [True, True], answers
    with Client(ctl.control) as client:
        assert [] in [client.call("diff", config=each) for each in (large, other)], "neither is what came last"
    assert "Traceback" not in ctl.daemon.log()


def _diff_is_empty(ctl, path, tmp_path):
    with TcmProcess(tmp_path, "--config", str(path), "--state-dir", str(tmp_path / "state")) as tcm:
        tcm.serving()
        assert ctl.run("diff", str(path)) == "nothing to change\n"
        assert tcm.stop() == 0


@pytest.mark.parametrize("what", ["apply", "save"])
def test_killed_at_many_points(tmp_path, what):
    """SIGKILL while it applies or saves: the file is the old one or the new one, whole, and what it says starts again."""
    path = tmp_path / "state" / "saveconfig.json"
    whole: set[str] = set()
    chance = random.Random(9)
    for turn in range(8):
        with controlled(tmp_path, *RAM) as ctl:
            config = ctl.export(tmp_path)
            if not path.exists():
                ctl.run("save")
            whole.add(path.read_text())
            units = 60 + turn
            large = large_config(units=units, targets=10, port=0)
            for each in large["targets"]:
                each["tpgs"][0]["portals"] = []
            for name in ("storage_objects", "targets"):
                large[name] += config[name]
            large["tcm_storage_objects"] = config["tcm_storage_objects"]
            with Client(ctl.control) as client:
                if what == "save":
                    client.call("apply", config=large)

                def work(ctl=ctl, large=large):
                    try:
                        with Client(ctl.control) as client:
                            while True:
                                client.call(*(("apply",) if what == "apply" else ("save",)), **_arguments(what, large))
                    except (ClientError, Refused, OSError):
                        pass

                worker = threading.Thread(target=work)
                worker.start()
                time.sleep(chance.uniform(0.02, 0.4))
                ctl.daemon.process.send_signal(signal.SIGKILL)
                ctl.daemon.process.wait()
                worker.join(30)
                assert not worker.is_alive()
            ctl.daemon.process = None
            saved = json.loads(path.read_text())
            assert {"storage_objects", "targets"} <= saved.keys()
            if what == "apply":
                assert path.read_text() in whole, "nobody saved"
            else:
                assert len(saved["storage_objects"]) in {1, units + 1}
            leftovers = [each for each in os.listdir(tmp_path / "state") if each.startswith(".saveconfig")]
            assert len(leftovers) <= turn + 1
        if turn in {0, 7}:
            for target in saved["targets"]:
                for portal in target["tpgs"][0]["portals"]:
                    portal["port"] = 0 if turn == 7 else portal["port"]
            _diff_is_empty(ctl, path, tmp_path)
        os.unlink(path)


def _arguments(what, large):
    return {"config": large} if what == "apply" else {}


def test_a_client_that_never_reads(ctl, tmp_path):
    """It fills its own pipe: others are answered, the daemon's memory does not grow, and it is dropped."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(ctl.control)
        silent.setblocking(False)
        request = b'{"jsonrpc":"2.0","method":"list","params":{"path":"core","depth":-1,"values":true},"id":1}\n'
        end = time.monotonic() + 15
        dropped = False
        while not dropped and time.monotonic() < end:
            try:
                silent.send(request * 50)
            except BlockingIOError:
                time.sleep(0.2)
                assert ctl.json("version")["revision"] >= 0
            except (BrokenPipeError, ConnectionResetError):
                dropped = True
        assert dropped
    status = Path(f"/proc/{ctl.daemon.pid}/status").read_text().splitlines()
    resident = next(line for line in status if line.startswith("VmRSS"))
    assert int(resident.split()[1]) < 400 << 10


def test_a_megabyte_to_every_kind_of_request(ctl, tmp_path):
    before = ctl.export(tmp_path)
    big = "x" * (1 << 20)
    with Client(ctl.control) as client:
        for method, params in (
            ("write", {"path": f"{TPG}/attrib/login_timeout", "value": big}),
            ("write", {"path": f"{TPG}/auth/userid", "value": big}),
            ("write", {"path": big, "value": "1"}),
            ("make", {"path": f"iscsi/{big}"}),
            ("make", {"path": "/".join("x" for _ in range(1 << 19))}),
            ("link", {"path": f"{TPG}/lun/lun_0/{big}", "target": "core"}),
            ("link", {"path": f"{TPG}/lun/lun_0/x", "target": big}),
            ("read", {"path": big}),
            ("remove", {"path": big, "drain": 1}),
            ("save", {"path": big}),
            ("apply", {"config": {big: 1}}),
            ("apply", {"config": {"targets": big}}),
        ):
            with pytest.raises(Refused) as refused:
                client.call(method, **params)
            line = str(refused.value)
            assert len(line) < 2000, (method, len(line))
            assert len(line.splitlines()) == 1
    assert ctl.export(tmp_path) == before


def test_unmounted_from_under_a_writer(ctl, tmp_path):
    """The mount goes while files are open and written: errors for who writes there, nothing for the target."""
    pytest.importorskip("mfusepy", reason="pip install 'tcm-target[fuse]'")
    folder = tmp_path / "mount"
    process = subprocess.Popen([*CTL, "mount", str(folder)], env=ctl.environment, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 15
        while not os.path.ismount(folder):
            assert time.monotonic() < end
            time.sleep(0.02)
        file = folder / "target" / TPG / "attrib" / "login_timeout"
        failed = threading.Event()

        def write():
            number = 0
            try:
                while True:
                    number += 1
                    file.write_text(str(5 + number % 20))
            except OSError:
                failed.set()

        held = open(file)  # noqa: SIM115 - open while it goes
        worker = threading.Thread(target=write)
        worker.start()
        time.sleep(0.2)
        subprocess.run(["fusermount3", "-u", "-z", folder], check=True)
        assert failed.wait(15)
        worker.join(15)
        held.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert 5 <= int(ctl.json("get", f"{TPG}/attrib", "login_timeout")["login_timeout"]) <= 24
    assert "Traceback" not in ctl.daemon.log()
