"""Commands of the README and of docs/: programs, subcommands and options that are there. (What can run as it stands, runs.)"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import tcm_fcoe.decode
import tcm_fcoe.initiator.cli
import tcm_fcoe.ping
import tcm_iscsi.initiator.cli
from support.documents import ROOT

import tcm.cli.ctl
import tcm.cli.run

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
BEFORE = re.compile(r"^(sudo |ip netns exec \w+ |\.venv/bin/)+")


def parse_run(arguments: list[str]) -> click.Context:
    wider, plugins = tcm.cli.run._with_fabrics(arguments)
    return wider.make_context("tcm-run", arguments, obj=plugins)


def parse_in(group: click.Group) -> Callable[[list[str]], click.Context]:
    def parse(arguments: list[str]) -> click.Context:
        context = click.Context(group)
        if not arguments:
            return context
        found = group.get_command(context, arguments[0])
        assert found is not None, f"there is no command {arguments[0]}"
        return found.make_context(arguments[0], arguments[1:])

    return parse


PROGRAMS: dict[str, Callable[[list[str]], click.Context]] = {
    "tcm-run": parse_run,
    "tcm-ctl": parse_in(tcm.cli.ctl.command),
    "python -m tcm_iscsi.initiator": parse_in(tcm_iscsi.initiator.cli.command),
    "python -m tcm_fcoe.initiator": parse_in(tcm_fcoe.initiator.cli.command),
    "python -m tcm_fcoe.decode": lambda arguments: tcm_fcoe.decode.command.make_context("decode", arguments),
    "python -m tcm_fcoe.ping": lambda arguments: tcm_fcoe.ping.command.make_context("ping", arguments),
}


def commands() -> list[tuple[str, str]]:
    """Page and line of each command of ours."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in re.split(r"(?<!\\)\n|; ", block):
                text = BEFORE.sub("", line.replace("\\\n", " ").strip())
                found += [(page.name, text) for program in PROGRAMS if text.startswith(program)]
    return found


@pytest.mark.parametrize(("page", "command"), commands())
def test_options_are_there(page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk.img").touch()
    program = next(each for each in PROGRAMS if command.startswith(each))
    words = shlex.split(command.removeprefix(program), comments=True)
    try:
        with PROGRAMS[program]([word for word in words if word != "&"]):
            pass  # files that it names are open
    except click.ClickException as error:
        pytest.fail(f"{page}: {command}: {error.format_message()}")


def test_all_programs_are_shown() -> None:
    shown = {program for program in PROGRAMS for _, command in commands() if command.startswith(program)}
    assert {"tcm-run", "tcm-ctl", "python -m tcm_iscsi.initiator", "python -m tcm_fcoe.initiator"} <= shown
    assert len(commands()) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tools_are_there(page: Path) -> None:
    for name in set(re.findall(r"\btools/([\w-]+)", page.read_text(encoding="utf-8"))):
        assert (ROOT / "tools" / name).is_file(), f"{page.name} names tools/{name}"
