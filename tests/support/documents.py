"""Markdown pages as material for tests: their fenced blocks, and what console blocks promise."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# ([\w/]+\.py)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The path that a Python block's first line gives it."""
        match = _FILE.match(self.text)
        return match[1] if self.language == "python" and match else None


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2]) for found in _FENCE.finditer(text)]


@dataclass(frozen=True)
class Command:
    """A command of a console block and the lines it prints, ``...`` standing for anything."""

    line: str
    expected: tuple[str, ...]

    def missing(self, output: str) -> list[str]:
        """The expected lines that ``output`` does not have, in that order."""
        lines = iter(output.splitlines())
        wanted = [re.compile(".*".join(map(re.escape, re.split(r"\.{3,}", each)))) for each in self.expected]
        return [
            text
            for text, pattern in zip(self.expected, wanted, strict=True)
            if not any(pattern.fullmatch(line) for line in lines)
        ]

    def run(self, folder: Path, environment: dict[str, str], seconds: float = 60) -> None:
        """Run it in ``folder``; one that serves is ended once it has printed what is expected. Must exit with 0."""
        out = folder / "console-output"
        arguments = shlex.split(self.line)
        program = Path(sys.executable).with_name(arguments[0])
        with out.open("wb") as file:
            process = subprocess.Popen(
                [str(program) if program.exists() else arguments[0], *arguments[1:]],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        end = time.monotonic() + seconds
        try:
            if "--fabric" in arguments:
                while process.poll() is None and self.missing(out.read_text()):
                    assert time.monotonic() < end, f"{self.line}: not within {seconds} s: {self.missing(out.read_text())}"
                    time.sleep(0.02)
                process.send_signal(signal.SIGTERM)
            code = process.wait(seconds)
        finally:
            process.kill()
            process.wait()
        assert code == 0, f"{self.line}: exit code {code}: {out.read_text()}"
        assert not self.missing(out.read_text()), f"{self.line}: no {self.missing(out.read_text())} in {out.read_text()}"


def commands(block: Block) -> Iterator[Command]:
    """The commands of a console block."""
    first, *rest = block.text.split("$ ")
    assert not first, f"{block.page}:{block.line}: a console block begins with a command"
    for each in rest:
        line, *expected = each.rstrip("\n").split("\n")
        yield Command(line, tuple(expected))


def example_of_page(text: str) -> str:
    """The one Python block of a page that is marked as tested."""
    (example,) = re.findall(r"^<!-- test -->\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(example)


def example_of_package(docstring: str) -> str:
    """The first code block of a docstring."""
    block = docstring.split(".. code-block:: python\n\n")[1].split("\nThe pieces")[0]
    return "\n".join(line.removeprefix("    ") for line in block.splitlines())


def prints(program: str) -> str:
    """What a Python program prints; it must exit with 0, and without a warning."""
    arguments = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
