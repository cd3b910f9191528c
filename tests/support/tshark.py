"""Wireshark's opinion of a capture file."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.programs import program

# reassembly would hide frames of a sequence behind its last one
OPTIONS = ("-n", "-o", "fc.reassemble:FALSE")


def fields(path: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """These fields of every frame; empty: the frame has none."""
    command = [program("tshark"), *OPTIONS, "-r", str(path), "-T", "fields", "-E", "separator=,", "-E", "quote=d"]
    for name in names:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [dict(zip(names, row, strict=True)) for row in csv.reader(done.stdout.splitlines())]


def complaints(path: Path) -> list[str]:
    """Frames that are malformed, have a bad CRC, or on which it has an expert's remark; a line each."""
    bad = "_ws.malformed || _ws.expert || fcoe.crc.bad || fcoe.crc.status == 0 || fip.descriptors.length_error"
    command = [program("tshark"), *OPTIONS, "-r", str(path), "-Y", bad]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
