"""The plug-in manager: what is found, what is refused, and what it says when something is missing."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points

import pytest
from support.distributions import MINIMAL, make_distribution

from tcm.failure import ConfigError
from tcm.hookspecs import hookimpl
from tcm.plugin_types import API_VERSION, BackstoreType, FilterType
from tcm.plugins import PluginManager

OURS = {"tcm-target-iscsi", "tcm-target-fcoe", "tcm-target-loopback", "tcm-target-backstores"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the path; modules that come from it are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", "") and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def load(caplog) -> tuple[PluginManager, list[str]]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "tcm.plugins"):
        plugins = PluginManager()
    return plugins, [record.getMessage() for record in caplog.records]


def test_ours_come_through_entry_points():
    assert {each.dist.name for each in entry_points(group="tcm") if each.dist} >= OURS
    plugins = PluginManager()
    plugins.check()
    assert {"fileio", "null", "ramdisk"} <= set(plugins.names("backstore"))
    assert {"delay", "error", "log", "rate", "readonly"} <= set(plugins.names("filter"))
    assert {"iscsi", "loopback"} <= set(plugins.names("fabric"))
    assert plugins.fabric("loopback").name == "loopback"
    assert plugins.filter("delay").name == "delay"
    assert all(row.state == "ok" and row.api_version == API_VERSION for row in plugins.rows() if row.distribution in OURS)


def test_a_strangers_backstore_is_like_ours(folder, caplog):
    make_distribution(folder, "strange-disk", MINIMAL.format(name="strange", api_version=1), version="2.3")
    plugins, warnings = load(caplog)
    assert warnings == []
    assert plugins.backstore("strange").name == "strange"
    row = next(row for row in plugins.rows() if row.name == "strange")
    assert (row.kind, row.distribution, row.version, row.api_version, row.state) == (
        "backstore",
        "strange-disk",
        "2.3",
        1,
        "ok",
    )


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import nothing_of_that_name", "cannot be imported (ModuleNotFoundError: No module named 'nothing_of_that_name')"),
        ("raise SystemExit('no')", "cannot be imported (SystemExit: no)"),
        ("def f(:", "cannot be imported (SyntaxError"),
        (MINIMAL.format(name="future", api_version=99), f"needs API version 99, this tcm has {API_VERSION}"),
        (MINIMAL.format(name="old", api_version=0), "has API version 0"),
        (MINIMAL.format(name="Bad-Name", api_version=1), "has the name 'Bad-Name': lower case letters"),
        (
            MINIMAL.replace("return [", "return 1/0, [").format(name="x", api_version=1),
            "fails in tcm_backstores (ZeroDivisionError",
        ),
        (
            MINIMAL.replace("return [", "yield 'text'; [").format(name="x", api_version=1),
            "returns a str where a BackstoreType is wanted",
        ),
        (
            MINIMAL.replace("tcm_backstores()", "tcm_backstores(surprise)").format(name="x", api_version=1),
            "has a hook that does not fit",
        ),
        (MINIMAL.replace("NULL.options", "int").format(name="x", api_version=1), "dataclass"),
    ],
)
def test_a_broken_plugin_is_one_warning_and_the_others_work(folder, caplog, source, what):
    make_distribution(folder, "broken-thing", source, version="0.1", entry_point="thing")
    plugins, warnings = load(caplog)
    assert len(warnings) == 1
    assert warnings[0].startswith("plug-in 'thing' of broken-thing 0.1 ")
    assert what in warnings[0]
    assert "\n" not in warnings[0]
    assert "fileio" in plugins.names("backstore")
    plugins.check()
    row = next(row for row in plugins.rows() if row.distribution == "broken-thing")
    assert what in row.state


def test_asking_for_what_is_broken_says_why(folder, caplog):
    make_distribution(folder, "broken-thing", "import nothing_of_that_name", entry_point="thing")
    plugins, _ = load(caplog)
    with pytest.raises(
        ConfigError, match=r"backstore 'thing' cannot be used: broken-thing cannot be imported .*installed: fileio"
    ):
        plugins.backstore("thing")


def test_a_hook_that_does_not_exist_is_named(folder, caplog):
    make_distribution(
        folder, "typo", MINIMAL.replace("def tcm_backstores", "def tcm_backstore").format(name="x", api_version=1)
    )
    _, warnings = load(caplog)
    assert len(warnings) == 1
    assert "typo 1.0 implements tcm_backstore, which is no hook (did you mean 'tcm_backstores'?)" in warnings[0]


def test_one_name_twice_is_an_error_that_names_both(folder, caplog):
    make_distribution(folder, "other-null", MINIMAL.format(name="null", api_version=1), version="9")
    plugins, _ = load(caplog)
    for ask in (plugins.check, lambda: plugins.backstore("null")):
        with pytest.raises(ConfigError) as caught:
            ask()
        text = str(caught.value)
        assert text.startswith("backstore 'null' is provided twice, by ")
        assert "other-null 9" in text
        assert "tcm-target-backstores" in text
    assert {row.state for row in plugins.rows() if row.name == "null"} == {
        "conflict with other-null",
        "conflict with tcm-target-backstores",
    }
    assert plugins.backstore("fileio").name == "fileio"


def test_one_name_for_two_kinds_is_no_conflict():
    class Plugin:
        @hookimpl
        def tcm_filters(self):
            return [FilterType(name="null", api_version=1, factory=lambda inner, _options: inner)]

    plugins = PluginManager()
    plugins.register(Plugin(), "both")
    plugins.check()
    assert {kind for kind, _, _ in plugins.find("null")} == {"backstore", "filter"}


@pytest.mark.parametrize(
    ("kind", "name", "what"),
    [
        ("fabric", "iscsi", "fabric 'iscsi' is not installed: it comes with tcm-target-iscsi (pip install tcm-target-iscsi)"),
        ("fabric", "fcoe", "tcm-target-fcoe"),
        ("backstore", "ramdisk", "tcm-target-backstores"),
        ("filter", "delay", "tcm-target-backstores"),
        ("backstore", "ramdsk", "there is no backstore 'ramdsk' (did you mean 'ramdisk'?); no backstore is installed"),
        ("filter", "qqq", "there is no filter 'qqq'; no filter is installed"),
    ],
)
def test_what_is_missing_says_where_it_comes_from(kind, name, what):
    plugins = PluginManager([])
    with pytest.raises(ConfigError) as caught:
        getattr(plugins, kind)(name)
    assert what in str(caught.value)


def test_a_plugin_that_fails_in_a_notification_harms_nobody(caplog):
    calls = []

    class Bad:
        @hookimpl
        def tcm_unhandled_error(self, where, error):
            calls.append((where, error))
            raise RuntimeError("no")

    plugins = PluginManager([])
    plugins.register(Bad(), "bad")
    failure = ValueError("x")
    plugins.unhandled_error("somewhere", failure)
    assert calls == [("somewhere", failure)]
    assert "a plug-in failed in tcm_unhandled_error" in caplog.text


def test_register_takes_what_a_program_brings():
    class Plugin:
        @hookimpl
        def tcm_backstores(self):
            yield BackstoreType(name="mine", api_version=API_VERSION, factory=lambda _options: None)

    plugins = PluginManager([])
    plugins.register(Plugin(), "mine", "my-program", "3")
    assert [(row.name, row.distribution, row.version) for row in plugins.rows()] == [("mine", "my-program", "3")]
