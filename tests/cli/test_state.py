"""The state directory keeps the identity of the default target."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tcm.cli.state import State, default_directory, host_name
from tcm.failure import ConfigError
from tcm.plugins import PluginManager


def test_many_that_start_at_once_agree(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: State(str(tmp_path / "new")).unique, range(32)))
    assert len(found) == 1
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["identity.json"]


def test_names_stay_when_the_host_is_renamed(tmp_path, monkeypatch):
    fabric = PluginManager().fabric("iscsi")
    monkeypatch.setattr("socket.gethostname", lambda: "First_Host.example.org")
    first = State(str(tmp_path)).target_name(fabric)
    assert ".first-host." in first
    monkeypatch.setattr("socket.gethostname", lambda: "second")
    assert State(str(tmp_path)).target_name(fabric) == first
    assert fabric.check_name(first) == first


@pytest.mark.parametrize(("name", "expected"), [("Ünï", "n"), ("", "localhost"), ("a_b c", "a-b-c"), ("x" * 200, "x" * 64)])
def test_host_names_have_only_what_a_target_name_may_have(monkeypatch, name, expected):
    monkeypatch.setattr("socket.gethostname", lambda: name)
    assert host_name() == expected


def test_default_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_directory() == "/home/somebody/.local/state/tcm"
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib/x")
    assert default_directory() == "/var/lib/x/tcm"
    monkeypatch.setenv("XDG_STATE_HOME", "relative is to be ignored")
    assert default_directory() == "/home/somebody/.local/state/tcm"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"unique": "xyz", "targets": {}}', '{"unique": "0123456789ab"}'])
def test_a_damaged_identity_is_not_replaced(tmp_path, content):
    file = tmp_path / "identity.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match="is damaged; restore it, or delete it"):
        State(str(tmp_path))
    assert file.read_text() == content


def test_the_file_is_what_it_says(tmp_path):
    state = State(str(tmp_path))
    state.target_name(PluginManager().fabric("loopback"))
    assert json.loads((tmp_path / "identity.json").read_text()) == {
        "unique": state.unique,
        "targets": {"loopback": f"naa.5001405{state.unique[-9:]}"},
    }
