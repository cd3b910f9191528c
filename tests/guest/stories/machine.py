"""Programs of the guest, and waiting for what they bring about."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass


class Failed(Exception):
    """Something is not as it has to be."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    command: str
    code: int
    text: str
    """Standard output and standard error, in order."""

    def has(self, *texts: str) -> Outcome:
        """Insist on what it said."""
        for text in texts:
            if text not in self.text:
                raise Failed(f"{self.command}: no {text!r} in\n{self.text}")
        return self

    def has_not(self, *texts: str) -> Outcome:
        for text in texts:
            if text in self.text:
                raise Failed(f"{self.command}: {text!r} in\n{self.text}")
        return self


def attempt(*command: object, timeout: float = 300) -> Outcome:
    """Run a program, however it ends. Each of them is printed, so that a failed test tells the story."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout)
    print(f"$ {' '.join(words)}" + (f"  [{done.returncode}]" if done.returncode else ""), flush=True)
    return Outcome(" ".join(words), done.returncode, done.stdout)


def run(*command: object, code: int = 0, timeout: float = 300) -> Outcome:
    """Run a program that has to end with this exit code."""
    done = attempt(*command, timeout=timeout)
    if done.code != code:
        raise Failed(f"{done.command}: exit code {done.code}, not {code}\n{done.text}")
    return done


def same(found: object, wanted: object, what: str) -> None:
    """An assertion that tells both sides."""
    if found != wanted:
        raise Failed(f"{what}: {found!r}, not {wanted!r}")


def until(condition: object, what: str, seconds: float = 180) -> None:
    """Ask again and again."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def kernel_log() -> str:
    """What the kernel has said since :func:`clear_kernel_log`."""
    return subprocess.run(["dmesg", "-t"], capture_output=True, text=True, errors="replace", check=True).stdout


def clear_kernel_log() -> None:
    subprocess.run(["dmesg", "-C"], check=True)


def log(text: str) -> None:
    print(text, flush=True)
