"""LIO in the guest itself, by configfs: the same target, with units of the same serial numbers, for comparison."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stories.machine import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIGFS = Path("/sys/kernel/config/target")
PORTS = (3260, 3261)
"""Of portal group 1 and 2, on the guest's loopback address."""
ATTRIBUTES = {"emulate_tpu": 1, "emulate_tpws": 1, "unmap_zeroes_data": 1}


def serve(target: str, serials: Mapping[int, str], size: int, initiators: Sequence[str]) -> None:
    """A target with two portal groups that have the same units.

    :param serials: unit serial number of each LUN.
    :param size: of each unit, in bytes.
    :param initiators: who may log in; SPEC_I_PT and REGISTER AND MOVE name only such as have a node ACL.
    """
    for folder in ("/var/target/pr", "/var/target/alua", "/etc/target/pr", "/etc/target/alua", "/lio"):
        os.makedirs(folder, exist_ok=True)
    run("mount", "-t", "tmpfs", "lio", "/lio")
    run("modprobe", "-a", "target_core_mod", "target_core_file", "iscsi_target_mod")
    devices = [_unit(lun, serial, size) for lun, serial in serials.items()]
    for tag, port in enumerate(PORTS, start=1):
        group = CONFIGFS / "iscsi" / target / f"tpgt_{tag}"
        os.makedirs(group)
        (group / "attrib/authentication").write_text("0")
        (group / "np" / f"127.0.0.1:{port}").mkdir()
        for lun, device in zip(serials, devices, strict=True):
            place = group / "lun" / f"lun_{lun}"
            place.mkdir()
            os.symlink(device, place / "unit")
        for initiator in initiators:
            for lun in reversed(serials):  # REPORT LUNS tells the last one made first
                mapped = group / "acls" / initiator / f"lun_{lun}"
                os.makedirs(mapped)
                os.symlink(group / "lun" / f"lun_{lun}", mapped / "unit")
                (mapped / "write_protect").write_text("0")
        (group / "enable").write_text("1")


def _unit(lun: int, serial: str, size: int) -> Path:
    path = Path(f"/lio/{lun}.img")
    path.touch()
    os.truncate(path, size)
    device = CONFIGFS / "core/fileio_0" / f"unit{lun}"
    os.makedirs(device)
    (device / "control").write_text(f"fd_dev_name={path},fd_dev_size={size},fd_buffered_io=1")
    (device / "wwn/vpd_unit_serial").write_text(serial)
    (device / "enable").write_text("1")
    for name, value in ATTRIBUTES.items():
        (device / "attrib" / name).write_text(str(value))
    return device
