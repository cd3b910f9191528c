"""From exceptions to one line on standard error and an exit code."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING

from tcm.backstore import BackstoreError
from tcm.failure import ConfigError, RuntimeFailure
from tcm.options import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

OK = 0
FAILED = 1
"""Something failed at run time."""
USAGE = 2
"""Bad usage or a bad configuration."""
DEBUG_HINT = "; run with --log-level debug for the traceback"


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, flat."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


def report(
    program: str, error: BaseException, *, hint: str = DEBUG_HINT, tell: Callable[[str, str], None] | None = None
) -> int:
    """Prints the worst of ``error`` in one line and returns the exit code.

    A class that is not meant for people is a defect: its traceback is a debug line away.

    :param hint: how to see that line.
    :param tell: prints it instead of :func:`complain`.
    """
    tell = tell or complain
    found = leaves(error)
    for each in found:
        log.debug("the traceback of what follows", exc_info=each)
    config = [each for each in found if isinstance(each, ConfigError)]
    expected = [each for each in found if isinstance(each, RuntimeFailure)]
    if config:
        tell(program, one_line(config[0]))
        return USAGE
    hint = "" if log.isEnabledFor(logging.DEBUG) else hint
    if expected:
        cause = expected[0].__cause__
        tell(program, one_line(expected[0]) + (hint if _is_a_defect(cause) else ""))
        return FAILED
    if isinstance(found[0], OSError) and found[0].strerror:
        tell(program, f"{found[0].strerror}: {found[0].filename}" if found[0].filename else found[0].strerror)
        return FAILED
    tell(program, f"{type(found[0]).__name__}: {one_line(found[0])}{hint}")
    return FAILED


def printable(text: str) -> str:
    """With escapes for what a terminal would act upon; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode() for each in text)


def _is_a_defect(cause: BaseException | None) -> bool:
    """Of a plug-in, say: nobody raises it to tell people something."""
    return cause is not None and not isinstance(cause, (OSError, BackstoreError, ConfigError, RuntimeFailure))


def complain(program: str, text: str, **_more: object) -> None:
    """``tcm-run: error: text`` on standard error."""
    say(f"{program}: error: {printable(' '.join(text.split()))}")


def say(line: str) -> None:
    """A line on standard error, whatever state that is in: if nobody reads it any more, the exit code still tells."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
