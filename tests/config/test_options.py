"""Options: the syntax, the conversions, and errors that say where, what, and what to write instead."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.failure import ConfigError
from tcm.option_syntax import join_pairs, read_secrets, split_pairs, split_spec
from tcm.options import build, options_of, parse_bool, parse_size, size_text, suggestion
from tcm.plugin_types import NoOptions, option


class Mode(enum.Enum):
    FAST = "fast"
    VERY_SAFE = "very-safe"


@dataclass(frozen=True)
class Nested:
    inside: int = 0


@dataclass(frozen=True)
class Options:
    path: str = option("where", kind="path")
    size: int = option("how much", 1 << 30, kind="size")
    read_ahead: bool = option("look ahead", False)
    depth: int = 4
    ratio: float = 0.5
    mode: Mode = Mode.FAST
    level: Literal["low", "high"] = "low"
    label: str | None = None
    tags: tuple[str, ...] = ()
    folder: Path | None = None
    password: str = option("a secret", "", secret=True)
    nested: Nested | None = None

    def __post_init__(self) -> None:
        if self.depth > 64:
            raise ValueError(f"depth {self.depth} is more than 64; write a smaller one")


def make(**values: object) -> Options:
    return build(Options, {"path": "/x", **values}, "--lun 0=test: ")


def refused(**values: object) -> str:
    with pytest.raises(ConfigError) as caught:
        make(**values)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("--lun 0=test")
    return text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("64M", 64 << 20),
        ("1G", 1 << 30),
        ("1g", 1 << 30),
        ("1.5K", 1536),
        ("2TiB", 2 << 40),
        ("4 KB", 4096),
        ("8B", 8),
    ],
)
def test_sizes_are_binary(text, size):
    assert parse_size(text) == size
    assert make(size=text).size == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "0.3K", "1e3", "0x10", "1,5G", "²"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="not a"):
        parse_size(text)


@given(st.integers(0, 1 << 70))
def test_size_text_is_taken_back(size):
    assert parse_size(size_text(size)) == size


@pytest.mark.parametrize("word", ["yes", "On", "TRUE", "1", "y", True, 1])
def test_yes(word):
    assert parse_bool(word) is True
    assert make(read_ahead=word).read_ahead is True


@pytest.mark.parametrize("word", ["no", "off", "False", "0", "n", False, 0])
def test_no(word):
    assert parse_bool(word) is False


def test_keys_with_dashes_and_underscores_are_the_same():
    assert make(**{"read-ahead": "on"}) == make(read_ahead="on")


def test_values_of_every_type(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    made = make(
        path="disk.img", depth="0x10", ratio="0.25", mode="very_safe", level="HIGH", label="a b", tags="one", folder="~/sub"
    )
    assert made.path == str(tmp_path / "disk.img")
    assert made.folder == tmp_path / "sub"
    assert (made.depth, made.ratio, made.mode, made.level, made.label) == (16, 0.25, Mode.VERY_SAFE, "high", "a b")
    assert made.tags == ("one",)
    assert make(label="none").label is None


def test_a_key_twice():
    assert make(**split_pairs("tags=a,tags=b,tags=c", "")).tags == ("a", "b", "c")
    assert "given 2 times; write it once" in refused(**split_pairs("depth=1,depth=2", ""))


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"size": "64Q"}, "size: '64Q' is not a size; write a size such as 64M"),
        ({"size": -5}, "write a size"),
        ({"size": True}, "write a size"),
        ({"read_ahead": "maybe"}, "read_ahead: 'maybe' is not yes or no; write yes or no"),
        ({"depth": "many"}, "depth: 'many' is not an integer; write a whole number"),
        ({"depth": 1.5}, "write a whole number"),
        ({"depth": True}, "write a whole number"),
        ({"ratio": "nan"}, "write a number"),
        ({"mode": "fats"}, "write one of fast, very-safe (did you mean 'fast'?)"),
        ({"level": "medium"}, "write one of low, high"),
        ({"path": ""}, "write a path"),
        ({"path": "a\0b"}, "NUL"),
        ({"label": 5}, "write text in quotes"),
        ({"nested": "x"}, "cannot be set here"),
        ({"sise": "1G"}, "sise: unknown key (did you mean 'size'?); keys are depth, folder, label"),
        ({"depth": 65}, "depth 65 is more than 64; write a smaller one"),
    ],
)
def test_errors_say_what_to_write(values, what):
    assert what in refused(**values)


def test_a_missing_option_is_named():
    with pytest.raises(ConfigError, match=r"--lun 0=test: path: missing; write path=/some/where"):
        build(Options, {}, "--lun 0=test: ")


def test_a_secret_is_not_repeated():
    @dataclass(frozen=True)
    class Pin:
        pin: int = option("a secret number", 0, secret=True)

    with pytest.raises(ConfigError) as caught:
        build(Pin, {"pin": "hunter2"}, "x: ")
    assert "hunter2" not in str(caught.value)


def test_options_that_take_no_keys():
    with pytest.raises(ConfigError, match=r"x: a: unknown key; it takes no keys"):
        build(NoOptions, {"a": "1"}, "x: ")


def test_descriptions_for_the_dump():
    options = options_of(Options)
    assert options["path"].default_text == "required"
    assert options["size"].default_text == "1G"
    assert (options["read_ahead"].key, options["read_ahead"].type_text, options["read_ahead"].default_text) == (
        "read-ahead",
        "yes|no",
        "no",
    )
    assert options["mode"].choices == ("fast", "very-safe")
    assert options["tags"].many
    assert not options["nested"].settable


def test_a_type_that_cannot_be_resolved_is_named():
    @dataclass(frozen=True)
    class Broken:
        thing: NoSuchType = None  # type: ignore[name-defined]  # noqa: F821, RUF100 - that is the point

    with pytest.raises(ConfigError, match=r"Broken has a type that cannot be resolved.*NoSuchType"):
        options_of(Broken)


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("null", "null", {}),
        ("null:", "null", {}),
        ("fileio:path=/x,size=1G", "fileio", {"path": "/x", "size": "1G"}),
        (r"fileio:path=/a\,b", "fileio", {"path": "/a,b"}),
        (r"fileio:path=C:\x\\,size=1", "fileio", {"path": "C:\\x\\", "size": "1"}),
        ("x:a=b=c:d", "x", {"a": "b=c:d"}),
        ("x:read-only=yes", "x", {"read_only": "yes"}),
    ],
)
def test_spec_is_split(text, name, values):
    assert split_spec(text, "--lun") == (name, values)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "--lun: empty; write TYPE:key=value,..."),
        ("fileio,path=/x", "--lun: 'fileio,path' is not a type's name; write fileio:path=/x"),
        ("Fileio:path=/x", "'Fileio' is not a type's name"),
        ("fileio:removable", "--lun fileio: 'removable' is not key=value"),
        ("fileio:path=/x,,size=1", "nothing between two commas"),
        ("fileio:=1", "'=1' is not key=value"),
    ],
)
def test_spec_errors(text, what):
    with pytest.raises(ConfigError) as caught:
        split_spec(text, "--lun")
    assert what in str(caught.value)


keys = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)


@given(st.dictionaries(keys, st.text(), min_size=1))
def test_join_and_split_are_inverse(values):
    assert split_pairs(join_pairs(values), "") == values


@given(st.text())
def test_any_text_is_split_or_refused_in_one_line(text):
    complaint = ""
    name, values = "", {}
    try:
        name, values = split_spec(text, "--lun")
    except ConfigError as error:
        complaint = str(error)
    assert bool(name) != bool(complaint)
    assert complaint.startswith("--lun") or text.strip().startswith(name)
    assert all("-" not in key for key in values)


@given(st.dictionaries(st.sampled_from(["size", "depth", "ratio", "read_ahead", "mode", "label", "tags"]), st.text()))
def test_any_value_is_converted_or_refused(values):
    made, complaint = None, ""
    try:
        made = make(**values)
    except ConfigError as error:
        complaint = str(error)
    assert complaint.startswith("--lun 0=test") if made is None else made.depth <= 64 and made.size >= 0


def test_secrets_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "secret"
    file.write_text("hunter2\nsecond line\n")
    monkeypatch.setenv("MY_SECRET", "swordfish")
    assert read_secrets(Options, {"password": f"file:{file}", "depth": "1"}, "x: ") == {"password": "hunter2", "depth": "1"}
    assert read_secrets(Options, {"password": "env:MY_SECRET"}, "x: ")["password"] == "swordfish"
    for text in ("hunter2", "env:NOT_THERE", "file:"):
        with pytest.raises(ConfigError) as caught:
            read_secrets(Options, {"password": text}, "x: ")
        assert "write password=file:PATH or password=env:NAME" in str(caught.value)
        assert "hunter2" not in str(caught.value)
    for bad in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match="cannot read"):
            read_secrets(Options, {"password": f"file:{bad}"}, "x: ")
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="is empty"):
        read_secrets(Options, {"password": f"file:{tmp_path / 'empty'}"}, "x: ")


def test_suggestion_only_for_what_is_close():
    assert suggestion("fileoi", ["fileio", "null"]) == " (did you mean 'fileio'?)"
    assert suggestion("zzz", ["fileio", "null"]) == ""


def test_paths_are_absolute():
    assert os.path.isabs(make(path="x").path)
