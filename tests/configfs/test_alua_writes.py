"""Writes of ALUA attributes, one after another, as LIO answered them in a guest (tests/guest/alua_writes.guest)."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from support.lio_tree import serving

from tcm.configfs.node import TreeError

pytestmark = pytest.mark.anyio
ANSWERS = Path(__file__).parents[1] / "data" / "lio-alua-writes.txt"
DEVICE = "core/fileio_0/a"
LINE = re.compile(r"(?P<group>\w+) (?P<name>\w+)=(?P<value>.*): (?P<answer>taken|E\w+); now (?P<now>.*)")
MADE = {"early": "3", "noid": None, "g": "7", "h": None}
"""Groups, and their identifiers."""
OTHERWISE = {
    # the support of the state that the group is in stays
    "g alua_support_standby=0: taken; now 0": "EINVAL; now 1",
    "g alua_access_state=2: EINVAL; now 0": "taken; now 2",
    "g alua_support_lba_dependent=0: taken; now 0": "EINVAL; now 1",
    # blanks around a value are nothing, in all of the tree
    "g alua_access_state= 2 : EINVAL; now 2": "taken; now 2",
}
"""LIO's answers to ours, where they differ (docs/configfs.md)."""


async def test_alua_is_written_as_in_lio(tmp_path: Path) -> None:
    differs = {}
    (tmp_path / "a.img").write_bytes(bytes(1 << 20))
    async with serving(tmp_path, "loopback") as site:
        await site.make_all(DEVICE)
        await site.write(f"{DEVICE}/control", f"fd_dev_name={tmp_path}/a.img,fd_dev_size={1 << 20}")
        made = set()
        for line in ANSWERS.read_text().splitlines():
            match = LINE.fullmatch(line)
            if match is None:
                assert line.startswith("== "), line
                if line == "== without an identifier":
                    await site.write(f"{DEVICE}/enable", "1")
                continue
            group = f"{DEVICE}/alua/{match['group']}"
            if match["group"] in MADE and match["group"] not in made:
                made.add(match["group"])
                await site.make_all(group)
                if (identifier := MADE[match["group"]]) is not None:
                    await site.write(f"{group}/tg_pt_gp_id", identifier)
            path = f"{group}/{match['name']}"
            try:
                await site.write(path, f"{match['value']}\n")
            except TreeError as error:
                answer = errno.errorcode[error.number]
            else:
                answer = "taken"
            ours = f"{answer}; now {site.read(path).rstrip()}"
            if ours != f"{match['answer']}; now {match['now']}":
                differs[line] = ours
    assert differs == OTHERWISE
