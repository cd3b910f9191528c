"""What HBA we are, for a fabric that wants to know (FDMI)."""

from __future__ import annotations

import importlib.metadata
import os

from tcm_fcoe.protocol.management_client import HbaDescription


def describe(interface: str, description: str) -> HbaDescription:
    """Of this machine and program.

    :param interface: its name; that of a pair of sockets is nobody's business.
    """
    system = os.uname()
    return HbaDescription(
        description=description,
        driver_version=f"tcm {importlib.metadata.version('tcm-target-fcoe')}",
        os=f"{system.sysname} {system.release}",
        host=system.nodename,
        device="" if interface.startswith("unix:") else interface,
    )
