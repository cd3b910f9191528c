"""Why something failed, in one line for people: of exceptions that were not meant for them."""

from __future__ import annotations

import errno

from tcm.backstore import BackstoreError
from tcm.failure import ConfigError, RuntimeFailure
from tcm.options import one_line

_NOT_BOUND = {
    errno.EADDRINUSE: "the port is taken; stop the other server, or write another port (port 0 takes any free one)",
    errno.EACCES: "ports below 1024 need root; write one above, such as 3260",
    errno.EADDRNOTAVAIL: "this machine has no such address; `ip address` lists those it has",
    errno.EINVAL: "a link-local address needs its interface: write [fe80::1%eth0]:3260, say, or another address",
}


def why_not_bound(error: OSError | OverflowError) -> str:
    """Why nobody can listen at an address and port, and what to write instead."""
    number = getattr(error, "errno", None) or 0
    return _NOT_BOUND.get(number, getattr(error, "strerror", None) or str(error))


def reason_of(error: Exception) -> str:
    """With its type if it was not meant for people."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, (OSError, BackstoreError, ConfigError, RuntimeFailure)) or not str(error):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)}"
