"""systemd's protocols: readiness (sd_notify(3)) and sockets that it opened (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket

_FIRST = 3


def notify(state: str) -> None:
    """Tells the service manager, if there is one: ``READY=1``, ``STOPPING=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as made:
            made.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
    except OSError:
        # nobody listens any more: nobody to tell
        pass


def control_socket() -> socket.socket | None:
    """The listening Unix socket that systemd passed, by ``FileDescriptorName=control`` or first; ``None``: there is none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    wanted = names.index("control") if "control" in names else 0
    if wanted >= count:
        return None
    made = socket.socket(fileno=_FIRST + wanted)
    if made.family != socket.AF_UNIX or not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        made.detach()
        return None
    made.set_inheritable(False)
    made.setblocking(False)
    return made
