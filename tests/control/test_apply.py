"""Whole configurations of a real tcm-run: saved, compared, applied or taken back, under an initiator's load."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest
from support.controlled import Ctl, Load, controlled
from support.daemon import TARGET
from support.large_config import copy_of, large_config
from support.raw_iscsi import connect
from support.tcm_process import TcmProcess
from support.toy_process import CTL

RAM = ("--lun", "ramdisk:size=4M", "--lun", "ramdisk:size=2M,removable=yes,product=SPARE", "--filter", "1=delay:read=0.001")
TPG = f"iscsi/{TARGET}/tpgt_1"


@pytest.fixture
def ctl(tmp_path):
    with controlled(tmp_path, *RAM, urls=2) as made:
        yield made


def put(folder, config, name="wanted.json"):
    path = folder / name
    path.write_text(json.dumps(config))
    return str(path)


def one_more(config):
    """Another storage object, its LUN, an ACL with a secret that maps it, and another value."""
    wanted = copy_of(config)
    wanted["storage_objects"].append(
        {
            "plugin": "ramdisk",
            "name": "more",
            "size": 1 << 20,
            "wwn": "11111111-2222-4333-8444-555555555555",
            "attributes": {"block_size": 4096},
            "alua_tpgs": [{"name": "ao", "tg_pt_gp_id": 5, "preferred": 1}],
        }
    )
    group = wanted["targets"][0]["tpgs"][0]
    group["luns"].append({"index": 7, "storage_object": "/backstores/ramdisk/more", "alua_tg_pt_gp_name": "ao"})
    acl = {"node_wwn": "iqn.2026-01.org.test:h", "mapped_luns": [{"index": 3, "tpg_lun": 7, "write_protect": True}]}
    group["node_acls"].append({**acl, "chap_userid": "alice", "chap_password": "correct horse battery"})
    group["attributes"]["login_timeout"] = 20
    return wanted


def test_what_was_saved_is_what_runs(ctl, tmp_path):
    shown = ctl.run("save")
    path = tmp_path / "state" / "saveconfig.json"
    assert shown == f"saved to {path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ctl.run("diff", str(path)) == "nothing to change\n"
    saved = json.loads(path.read_text())
    # rtslib makes no storage object that has a key that it does not know
    known = {"name", "plugin", "attributes", "alua_tpgs", "wwn", "size", "nullio"}
    assert all({*each} <= known for each in saved["storage_objects"])
    extra = saved["tcm_storage_objects"]["/backstores/ramdisk/lun1"]
    assert extra["removable"] is True
    assert extra["tcm_filters"] == [{"type": "delay", "read": 0.001}]
    assert extra["tcm_identity"]["product_id"] == "SPARE"


@pytest.mark.parametrize("name", ["a,b.img", "a\\,b\\", "two words ", "a\nb", ",", "a=b,fd_dev_size=1", "\\\\,\\n"])
def test_a_file_of_any_name_is_applied(ctl, tmp_path, name):
    """What LIO's control takes for the end of a value is a part of it: the same file, whichever way it is read."""
    disk = tmp_path / name
    disk.write_bytes(bytes(1 << 20))
    wanted = ctl.export(tmp_path)
    more = {"plugin": "fileio", "name": "more", "dev": str(disk), "size": 1 << 20, "write_back": True, "aio": False}
    wanted["storage_objects"].append({**more, "wwn": "11111111-2222-4333-8444-555555555555"})
    path = put(tmp_path, wanted)
    ctl.run("apply", path)
    assert ctl.run("diff", path) == "nothing to change\n"
    (shown,) = [each for each in ctl.export(tmp_path)["storage_objects"] if each["name"] == "more"]
    assert shown["dev"] == str(disk)
    del wanted["storage_objects"][-1]
    ctl.run("apply", put(tmp_path, wanted))
    escaped = str(disk).replace(",", "\\,").replace("\n", "\\\n")
    ctl.run("create", "-p", "core/fileio_9/by-hand", f"control=fd_dev_size={1 << 20},fd_dev_name={escaped}", "enable=1")
    found = ctl.json("get", "core/fileio_9/by-hand", "info")["info"]
    assert f"File: {disk}" in found


def test_saved_where_there_is_no_folder(ctl, tmp_path):
    path = tmp_path / "typo" / "saveconfig.json"
    said = ctl.run("save", str(path), code=2)
    assert (
        said == f"tcm-ctl: error: save: {path}: there is no folder {tmp_path / 'typo'}; make it, or write a FILE in a folder"
        " that is there\n"
    )
    assert not path.parent.exists()
    assert "there is no folder" in ctl.run("mount", str(tmp_path / "typo" / "mount"), code=2)
    assert not path.parent.exists()


def test_saved_and_started_again_it_is_the_same(ctl, tmp_path):
    wanted = one_more(ctl.export(tmp_path))
    ctl.run("apply", put(tmp_path, wanted))
    ctl.run("save")
    before = ctl.export(tmp_path)
    path = tmp_path / "state" / "saveconfig.json"
    ctl.daemon.stop()
    with TcmProcess(tmp_path, "--config", str(path), "--state-dir", str(tmp_path / "state")) as tcm:
        tcm.serving()
        assert ctl.run("diff", str(path)) == "nothing to change\n"
        assert ctl.export(tmp_path) == before
        # and the file is the one that is saved to, and that is read again
        before["targets"][0]["tpgs"][0]["attributes"]["login_timeout"] = 9
        path.write_text(json.dumps(before))
        assert [each["value"] for each in ctl.json("reload")] == ["9"]
        assert ctl.json("get", f"{TPG}/attrib", "login_timeout") == {"login_timeout": "9"}
        assert tcm.stop() == 0
    ctl.daemon.start()


def test_what_lio_does_not_save_is_saved_compared_and_there_after_a_restart(ctl, tmp_path):
    """``rtpi``, processors, names of links, what holds for demo mode, and the parameters of one initiator."""
    before = ctl.export(tmp_path)
    acl = f"{TPG}/acls/iqn.2026-01.org.test:h"
    ctl.run("apply", put(tmp_path, one_more(before)))
    first = ctl.json("get", "iscsi", "cpus_allowed_list")["cpus_allowed_list"].partition("-")[0].partition(",")[0]
    ctl.run("set", "iscsi/cpus_allowed_list", first)
    ctl.run("delete", f"{acl}/lun_3/{_alias(ctl, f'{acl}/lun_3')}")
    ctl.run("link", f"{acl}/lun_3/known-as", f"{TPG}/lun/lun_7")
    ctl.run("set", f"{TPG}/tcm_acl_attrib", "nopin_timeout=7")
    ctl.run("set", f"{acl}/tcm_param", "FirstBurstLength=8192", "MaxBurstLength=65536", "InitialR2T=Yes")
    ctl.run("set", f"{TPG}/enable", "0")
    ctl.run("set", f"{TPG}/rtpi", "4711")
    ctl.run("set", f"{TPG}/enable", "1")
    changed = ctl.export(tmp_path)
    group = changed["targets"][0]["tpgs"][0]
    assert group["rtpi"] == 4711
    assert group["tcm_acl_attributes"]["nopin_timeout"] == 7
    assert group["node_acls"][0]["tcm_parameters"] == {
        "FirstBurstLength": "8192",
        "InitialR2T": "Yes",
        "MaxBurstLength": "65536",
    }
    assert group["node_acls"][0]["mapped_luns"][0]["alias"] == "known-as"
    assert changed["tcm_fabrics"] == {"iscsi": {"cpus_allowed_list": first}}
    ctl.run("save")
    path = tmp_path / "state" / "saveconfig.json"
    ctl.daemon.stop()
    with TcmProcess(tmp_path, "--config", str(path), "--state-dir", str(tmp_path / "state")) as tcm:
        tcm.serving()
        assert ctl.run("diff", str(path)) == "nothing to change\n"
        assert ctl.export(tmp_path) == changed
        assert ctl.json("get", "iscsi", "cpus_allowed_list") == {"cpus_allowed_list": first}
        # each is a difference, and applied
        group["tcm_acl_attributes"]["nopin_timeout"] = 8
        group["node_acls"][0]["tcm_parameters"] = {"MaxBurstLength": "4096", "FirstBurstLength": "2048"}
        assert {each["path"].removeprefix(TPG): each["value"] for each in ctl.json("apply", put(tmp_path, changed))} == {
            "/tcm_acl_attrib/nopin_timeout": "8",
            f"{acl.removeprefix(TPG)}/tcm_param/MaxBurstLength": "4096",
            f"{acl.removeprefix(TPG)}/tcm_param/FirstBurstLength": "2048",
        }
        group["rtpi"] = 4712
        assert ctl.json("apply", put(tmp_path, changed))
        assert ctl.json("get", TPG, "rtpi") == {"rtpi": "4712"}
        assert ctl.run("diff", put(tmp_path, changed)) == "nothing to change\n"
        assert tcm.stop() == 0
    ctl.daemon.start()


def _alias(ctl, group):
    children = ctl.json("ls", group)["children"]
    return next(name for name, each in children.items() if each["kind"] == "link")


def test_processors_that_this_machine_has_not_are_no_reason_not_to_serve(ctl, tmp_path):
    config = ctl.export(tmp_path)
    config["tcm_fabrics"] = {"iscsi": {"cpus_allowed_list": "4000"}}
    ctl.run("apply", put(tmp_path, config))
    ctl.daemon.stop()
    with TcmProcess(tmp_path, "--config", put(tmp_path, config), "--state-dir", str(tmp_path / "state")) as tcm:
        tcm.serving()
        tcm.wait_for("cpus_allowed_list=4000: this machine has none of", in_log=True)
        assert tcm.stop() == 0
    ctl.daemon.start()


def test_applied_under_load_and_taken_away_again(ctl, tmp_path):
    before = ctl.export(tmp_path)
    wanted = put(tmp_path, one_more(before))
    with Load(ctl.daemon.url) as load:
        planned = ctl.json("diff", wanted, code=1)
        assert ctl.json("apply", wanted, "--dry-run") == planned
        assert ctl.export(tmp_path) == before, "a dry run changes nothing"
        count = load.count
        done = ctl.json("apply", wanted)
        assert done == planned
        assert "correct horse" not in json.dumps(done)
        assert ctl.run("diff", wanted) == "nothing to change\n"
        assert ctl.json("get", f"{TPG}/lun/lun_7", "alua_tg_pt_gp")["alua_tg_pt_gp"].startswith("TG Port Alias: ao\n")
        assert ctl.json("get", f"{TPG}/acls/iqn.2026-01.org.test:h/auth", "password") == {"password": "correct horse battery"}
        assert [each["initiator"] for each in ctl.json("sessions")] == ["iqn.2025-01.test.raw:initiator"]
        ctl.run("apply", put(tmp_path, before))
        assert ctl.export(tmp_path) == before
        assert load.count > count
    assert "correct horse" not in ctl.daemon.log()


@pytest.mark.parametrize("what", ["a value", "an address", "nonsense"])
def test_refused_as_a_whole(ctl, tmp_path, what):
    """The configuration that cannot be, and the one that turns out impossible half way."""
    before = ctl.export(tmp_path)
    wanted = one_more(before)
    group = wanted["targets"][0]["tpgs"][0]
    if what == "a value":
        group["attributes"]["login_timeout"] = 1000
        said = "targets[0].tpgs[0].attributes"
    elif what == "an address":
        group["portals"].append({"ip_address": "192.0.2.1", "port": 3260})
        said = "nothing was changed"
    else:
        wanted["storage_objects"] = 5
        said = "storage_objects: "
    revision = ctl.json("version")["revision"]
    with Load(ctl.daemon.url):
        answer = ctl.run("apply", put(tmp_path, wanted), code=1)
    assert said in answer
    assert len(answer.splitlines()) == 1
    assert ctl.export(tmp_path) == before
    if what != "an address":
        assert ctl.json("version")["revision"] == revision


def test_values_that_want_each_other_in_any_order(ctl, tmp_path):
    before = ctl.export(tmp_path)
    for first, most in ((4096, 8192), (1 << 20, 4 << 20), (8192, 8192)):
        wanted = copy_of(before)
        wanted["targets"][0]["tpgs"][0]["parameters"] |= {"FirstBurstLength": str(first), "MaxBurstLength": str(most)}
        ctl.run("apply", put(tmp_path, wanted))
        assert ctl.export(tmp_path) == wanted
    ctl.run("apply", put(tmp_path, before))
    assert ctl.export(tmp_path) == before


def test_cleared_and_restored(ctl, tmp_path):
    ctl.run("save")
    before = ctl.export(tmp_path)
    assert ctl.run("clear", "--confirm").splitlines()[-1].startswith("done: ")
    empty = ctl.export(tmp_path)
    assert (empty["storage_objects"], empty["targets"]) == ([], [])
    assert "done: " in ctl.run("restore")
    after = ctl.export(tmp_path)
    assert after["targets"] == before["targets"]
    assert after["storage_objects"] == before["storage_objects"]
    with Load(ctl.daemon.url):
        time.sleep(0.2)


def test_a_file_that_is_cut_off_changes_nothing(ctl, tmp_path):
    before = ctl.export(tmp_path)
    path = tmp_path / "half.json"
    path.write_text(json.dumps(before)[: len(json.dumps(before)) // 2])
    for command in ("diff", "apply", "restore"):
        assert str(path) in ctl.run(command, str(path), code=2)
    assert ctl.export(tmp_path) == before


LIO = Path(__file__).parents[1] / "data" / "lio-saveconfig.json"


def test_a_file_of_lio_applied_and_saved_again(tmp_path):
    """Equal but for what this LIO did not have; what tells of LIO's backend too."""
    config = json.loads(LIO.read_text())
    for each in config["storage_objects"]:
        if "dev" in each:
            each["dev"] = str(tmp_path / "file0.img")
    for group in [group for target in config["targets"] for group in target["tpgs"]]:
        group["attributes"].pop("netif_timeout", None)
        for portal in group["portals"]:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                portal |= {"ip_address": "127.0.0.1", "port": probe.getsockname()[1]}
    with TcmProcess(tmp_path, "--fabric", "iscsi", "--empty", "--state-dir", str(tmp_path / "state")) as tcm:
        ctl = Ctl(None, tmp_path)
        tcm.wait_for("no targets", in_log=True)
        faster = copy_of(config)
        faster["storage_objects"][1]["attributes"] |= {"optimal_sectors": 1 << 20, "pgr_support": 0}
        shown = ctl.run("apply", put(tmp_path, faster))
        said = [line for line in shown.splitlines() if line.startswith("  not taken: ")]
        assert len(said) == 2
        assert shown.splitlines()[-1].endswith("2 of it not taken, see above")
        assert ctl.run("diff", put(tmp_path, faster)) == "nothing to change\n"
        assert tcm.err.count("was not taken: optimal_sectors") == 1
        shown = ctl.run("apply", put(tmp_path, config))
        assert "not taken" not in shown
        assert ctl.run("diff", put(tmp_path, config)) == "nothing to change\n"
        assert ctl.run("apply", put(tmp_path, config)) == "nothing to change\n"
        saved = ctl.export(tmp_path)
        assert ctl.run("diff", put(tmp_path, saved, "saved.json")) == "nothing to change\n"
        # once the backstore has something to limit, the file's limit is in force
        assert ctl.json("get", "core/fileio_0/file0/attrib", "max_unmap_lba_count") == {"max_unmap_lba_count": "8192"}
        ctl.run("set", "core/fileio_0/file0/attrib/emulate_tpu", "1")
        assert [each["path"].rpartition("/")[2] for each in ctl.json("diff", put(tmp_path, config), code=1)] == ["emulate_tpu"]
        # LIO's RAM disk has none
        assert "max_unmap_block_desc_count first" in ctl.run("set", "core/rd_mcp_0/ram0/attrib/emulate_tpu", "1", code=1)
        assert tcm.stop() == 0
    assert _differences(config, saved) == []
    # and it is the same where it is read at the start
    with TcmProcess(tmp_path, "--config", put(tmp_path, config), "--state-dir", str(tmp_path / "state")) as tcm:
        tcm.serving()
        assert ctl.run("diff", put(tmp_path, config)) == "nothing to change\n"
        assert tcm.stop() == 0


def test_what_is_taken_only_while_nobody_exports_it(ctl, tmp_path):
    """The LUN goes and comes back, the device and what is on it stay."""
    config = ctl.export(tmp_path)
    unit = config["storage_objects"][1]
    with connect(ctl.daemon.urls[1]) as initiator:
        assert initiator.write(0, b"x" * 512, 1).status == 0
    unit["attributes"] |= {"emulate_tas": 1 - unit["attributes"]["emulate_tas"], "queue_depth": 64}
    with Load(ctl.daemon.url):
        done = ctl.json("apply", put(tmp_path, config))
    assert {each["action"] for each in done} == {"unlink", "remove", "make", "link", "write"}
    assert {each["action"] for each in done if each["path"].startswith("core/")} == {"write"}
    assert not [each for each in done if "/lun_0" in each["path"]]
    assert ctl.run("diff", put(tmp_path, config)) == "nothing to change\n"
    with connect(ctl.daemon.urls[1]) as initiator:
        assert initiator.read(0, 1, 1).data == b"x" * 512


def _differences(before, after, where=""):
    """What of ``before`` is otherwise in ``after``; lists are compared by what their elements are called."""
    if isinstance(before, dict):
        known = [name for name in before if name != "alias"]
        return [each for name in known for each in _differences(before[name], after.get(name), f"{where}.{name}")]
    if isinstance(before, list):
        names = ("name", "wwn", "tag", "index", "node_wwn", "port")

        def called(each):
            return next(str(each[name]) for name in names if name in each)

        there = {called(each): each for each in after}
        assert len(there) == len(before), where
        return [each for one in before for each in _differences(one, there[called(one)], f"{where}[{called(one)}]")]
    return [] if before == after else [f"{where}: {before!r} became {after!r}"]


def test_killed_while_applying_it_starts_again_from_the_old_file(ctl, tmp_path):
    ctl.run("save")
    path = tmp_path / "state" / "saveconfig.json"
    saved = path.read_text()
    wanted = put(tmp_path, {**large_config(units=200, targets=20, port=0), "targets": []})
    process = subprocess.Popen(
        [*CTL, "apply", wanted], env=ctl.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(0.6)
    ctl.daemon.process.send_signal(signal.SIGKILL)
    ctl.daemon.process.wait()
    process.wait(60)
    assert path.read_text() == saved
    with TcmProcess(tmp_path, "--config", str(path), "--state-dir", str(tmp_path / "state")) as tcm:
        tcm.serving()
        assert ctl.run("diff", str(path)) == "nothing to change\n"
        assert tcm.stop() == 0
    ctl.daemon.process = None


def _with_ours(ctl, folder, **size):
    """A large configuration and what runs already."""
    ours = ctl.export(folder)
    large = large_config(**size)
    for each in large["targets"]:
        each["tpgs"][0]["portals"] = []
    for name in ("storage_objects", "targets"):
        large[name] += ours[name]
    large["tcm_storage_objects"] = ours["tcm_storage_objects"]
    return large


def test_1000_luns_and_200_targets(tmp_path):
    """Applied within 5 s, one ACL compared within 1 s, of processor time: others use the processor too."""
    with controlled(tmp_path, "--lun", "ramdisk:size=4M") as ctl:
        seconds = ctl.daemon.processor_seconds
        large = _with_ours(ctl, tmp_path)
        begin = seconds()
        done = ctl.json("apply", put(tmp_path, large))
        applied = seconds()
        assert len(done) > 20_000
        large["targets"][100]["tpgs"][0]["node_acls"][0]["attributes"]["nopin_timeout"] = 5
        changed = put(tmp_path, large, "changed.json")
        before = seconds()
        difference = ctl.json("diff", changed, code=1)
        compared = seconds()
        assert [each["value"] for each in difference] == ["5"]
        assert applied - begin < 5, applied - begin
        assert compared - before < 1, compared - before


def test_an_initiator_is_served_while_100_luns_come_and_go(tmp_path):
    with controlled(tmp_path, "--lun", "ramdisk:size=4M") as ctl, Load(ctl.daemon.url) as load:
        before = ctl.export(tmp_path)
        wanted = put(tmp_path, _with_ours(ctl, tmp_path, units=100, targets=20))
        count = load.count
        assert len(ctl.json("apply", wanted)) > 2000
        assert load.count > count
        ctl.run("apply", put(tmp_path, before))
        assert ctl.export(tmp_path) == before
        assert [each["initiator"] for each in ctl.json("sessions")] == ["iqn.2025-01.test.raw:initiator"]


def test_removed_once_what_runs_there_has_ended(tmp_path):
    """``delete --drain``: under load nothing fails but with BUSY; in time or not at all."""
    with controlled(tmp_path, "--lun", "ramdisk:size=4M", "--filter", "0=delay:read=2000") as ctl:
        before = ctl.export(tmp_path)
        with connect(ctl.daemon.url) as initiator:
            assert initiator.write(0, b"x" * 512).status == 0
            tag = initiator.start(bytes((0x28, *bytes(7), 1, 0)), read=512)
            answer = ctl.run("delete", "-r", "--drain", "--timeout", "0.1", f"iscsi/{TARGET}", code=1)
            assert len(answer.splitlines()) == 1
            assert "after 0.1 s there are still 1 command(s) of iqn.2025-01.test.raw:initiator; nothing was removed" in answer
            assert initiator.finish(tag).data == b"x" * 512
            assert ctl.export(tmp_path) == before
            tag = initiator.start(bytes((0x28, *bytes(7), 1, 0)), read=512)
            removed = ctl.json("delete", "-r", "--drain", f"{TPG}/lun/lun_0")["removed"]
            assert removed[-1] == f"{TPG}/lun/lun_0"
            assert initiator.finish(tag).data == b"x" * 512
        assert ctl.export(tmp_path)["targets"][0]["tpgs"][0]["luns"] == []
        assert ctl.json("delete", "-r", "--drain", f"iscsi/{TARGET}")["removed"][-1] == f"iscsi/{TARGET}"
        assert ctl.export(tmp_path)["targets"] == []
        for arguments in (("--timeout", "-1"), ("--timeout", "x")):
            assert "--timeout" in ctl.run("delete", "--drain", *arguments, "core", code=2)
        assert "cannot be removed; set it instead" in ctl.run("delete", "--drain", "dbroot", code=1)


def test_who_hangs_up_while_it_drains_has_asked_for_it(tmp_path):
    """As with every other request: it is ended, one way or the other."""
    with controlled(tmp_path, "--lun", "ramdisk:size=4M", "--filter", "0=delay:read=1500") as ctl:
        with connect(ctl.daemon.url) as initiator:
            assert initiator.write(0, b"x" * 512).status == 0
            tag = initiator.start(bytes((0x28, *bytes(7), 1, 0)), read=512)
            process = subprocess.Popen([*CTL, "delete", "-r", "--drain", f"{TPG}/lun/lun_0"], env=ctl.environment)
            while initiator.command(bytes(6)).status != 8:
                time.sleep(0.01)
            process.kill()
            process.wait()
            assert initiator.finish(tag).data == b"x" * 512
            while initiator.command(bytes(6)).status == 8:
                time.sleep(0.01)
        assert ctl.export(tmp_path)["targets"][0]["tpgs"][0]["luns"] == []


def test_two_writers_at_once(ctl, tmp_path):
    """Whoever looked before another one changed something is refused, and told who changed what."""
    before = ctl.export(tmp_path)
    revision = ctl.json("version")["revision"]
    ctl.run("set", f"{TPG}/attrib", "login_timeout=10")
    answer = ctl.run("set", f"{TPG}/attrib", "login_timeout=11", "--revision", str(revision), code=1)
    assert "login_timeout" in answer
    assert "look again" in answer
    ctl.run("apply", put(tmp_path, before))
    assert ctl.export(tmp_path) == before
