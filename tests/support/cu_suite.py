"""Runs iscsi-test-cu (libiscsi 1.19), a process for each test, and reads its verdict.

A process for each test keeps one that hangs, crashes or leaves its session broken from taking the rest with it.
"""

from __future__ import annotations

import errno
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

FLAGS = ("--dataloss", "--allow-sanitize", "--verbose", "--Verbose-scsi")
MULTIPATH = "MultipathIO."
TIMEOUT = 90
_END_OF_TEST = re.compile(r"(?:^|(?<=\.\.\.))(?:passed|FAILED)", re.MULTILINE)
_COMPLAINT = re.compile(r"^ +\d+\. (\S+\.c:\d+ .*)$", re.MULTILINE)
_NOTHING_TO_CHECK = re.compile(r"\[SKIPPED\] No (?:alignment|granularity) restrictions on this LUN")
"""WriteAtomic16.VPD: units that have restrictions are asked to enforce them; the test has run."""
VERDICTS = ("PASS", "SKIP", "FAIL", "HANG", "CRASH")


@dataclass(frozen=True)
class Verdict:
    """What became of one test."""

    result: str
    """One of ``VERDICTS``. SKIP: it passed, but said somewhere that it left something out."""
    note: str
    """Why: its first complaint, or the reason it gives for skipping."""
    output: str
    complaints: tuple[str, ...] = ()
    """Every assertion that failed."""


def run(tool: str, name: str, urls: tuple[str, str], timeout: float = TIMEOUT) -> Verdict:
    """Run ``Suite.Test``. The multipath tests get both URLs: two paths to one unit."""
    command = [tool, *FLAGS, "--test", f"ALL.{name}", urls[0], *(urls[1:] if name.startswith(MULTIPATH) else ())]
    try:
        try:
            done = _execute(command, timeout)
        except OSError as error:
            # seen once in some thousand starts on a virtual machine whose host takes pages back: nothing has run yet
            if error.errno != errno.EFAULT:
                raise
            done = _execute(command, timeout)
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        return Verdict("HANG", f"still running after {timeout} s", output)
    return judge(done.stdout.decode(errors="replace"), done.returncode)


def _execute(command: list[str], timeout: float) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False
    )


def judge(output: str, exit_code: int) -> Verdict:
    """The verdict of a finished process. What it printed before and after the test are questions of the tool's own."""
    said, *after = _END_OF_TEST.split(output.partition("Test: ")[2], maxsplit=1)
    summary = re.search(r"^\s+tests +\d+ +(\d+) +(\d+) +(\d+)", output, re.MULTILINE)
    if exit_code < 0 or summary is None:
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
        return Verdict("CRASH", f"exit code {exit_code}: {last.strip()}", output)
    ran, failed = int(summary[1]), int(summary[3])
    complaints = tuple(" ".join(line.split()) for line in _COMPLAINT.findall("".join(after)))
    if failed or not ran:
        return Verdict("FAIL", _tagged(said, "[FAILED]") or "".join(complaints[:1]) or "did not run", output, complaints)
    said = _NOTHING_TO_CHECK.sub("", said)
    if "[SKIPPED]" in said:
        return Verdict("SKIP", _tagged(said, "[SKIPPED]"), output)
    return Verdict("PASS", "", output)


def _tagged(text: str, tag: str) -> str:
    return next((" ".join(line.split(tag, 1)[1].split()) for line in text.splitlines() if tag in line), "")


def names(tool: str) -> list[str]:
    """``Suite.Test`` of every test that the tool has."""
    listed = subprocess.run([tool, "--list"], stdout=subprocess.PIPE, text=True, check=False).stdout
    # each is listed in family ALL and again in the family of its layer
    return [line[4:] for line in listed.split() if line.startswith("ALL.") and line.count(".") == 2]


@dataclass(frozen=True)
class Expectation:
    """A line of the list of expected results."""

    name: str
    verdicts: tuple[str, ...]
    """One per LUN: PASS, SKIP, WRONG (the test cannot pass as written) or ``-`` (not run there)."""
    reason: str
    """Stands behind ``#``."""


def expectations(path: Path) -> list[Expectation]:
    """The list, in its order."""
    result = []
    for line in path.read_text().splitlines():
        fields, _, reason = line.partition("#")
        if fields.strip():
            name, *verdicts = fields.split()
            result.append(Expectation(name, tuple(verdicts), reason.strip()))
    return result
