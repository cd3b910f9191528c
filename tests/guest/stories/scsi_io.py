"""Any CDB by the kernel's SG_IO, and all of the answer."""

from __future__ import annotations

import ctypes
import fcntl
import os
from dataclasses import dataclass

SG_IO = 0x2285
NONE, TO_DEVICE, FROM_DEVICE = -1, -2, -3
STATUSES = {0x00: "GOOD", 0x02: "CHECK CONDITION", 0x04: "CONDITION MET", 0x08: "BUSY", 0x18: "RESERVATION CONFLICT"}


class _Header(ctypes.Structure):
    """``struct sg_io_hdr``."""

    _fields_ = (
        *(("interface_id", ctypes.c_int), ("dxfer_direction", ctypes.c_int), ("cmd_len", ctypes.c_ubyte)),
        *(("mx_sb_len", ctypes.c_ubyte), ("iovec_count", ctypes.c_ushort), ("dxfer_len", ctypes.c_uint)),
        *(("dxferp", ctypes.c_void_p), ("cmdp", ctypes.c_void_p), ("sbp", ctypes.c_void_p), ("timeout", ctypes.c_uint)),
        *(("flags", ctypes.c_uint), ("pack_id", ctypes.c_int), ("usr_ptr", ctypes.c_void_p), ("status", ctypes.c_ubyte)),
        *(("masked_status", ctypes.c_ubyte), ("msg_status", ctypes.c_ubyte), ("sb_len_wr", ctypes.c_ubyte)),
        *(("host_status", ctypes.c_ushort), ("driver_status", ctypes.c_ushort), ("resid", ctypes.c_int)),
        *(("duration", ctypes.c_uint), ("info", ctypes.c_uint)),
    )


@dataclass(frozen=True)
class Answer:
    """Status, Data-In and sense data of a command."""

    status: int
    data: bytes
    sense: bytes

    @property
    def key(self) -> int:
        """Sense key, -1 without sense data."""
        if not self.sense:
            return -1
        return self.sense[1 if self.descriptors else 2] & 0xF

    @property
    def code(self) -> tuple[int, int]:
        """Additional sense code and its qualifier."""
        at = 2 if self.descriptors else 12
        return (self.sense[at], self.sense[at + 1]) if len(self.sense) > at + 1 else (0, 0)

    @property
    def descriptors(self) -> bool:
        """Sense data in descriptor format."""
        return bool(self.sense) and self.sense[0] & 0x7F >= 0x72

    @property
    def field(self) -> str:
        """The field pointer: ``CDB byte 8`` or ``parameter byte 20 bit 3``."""
        specific = self.sense[15:18]
        if self.descriptors or len(specific) < 3 or not specific[0] & 0x80 or self.key != 5:
            return ""
        bit = f" bit {specific[0] & 7}" if specific[0] & 8 else ""
        return f"{'CDB' if specific[0] & 0x40 else 'parameter'} byte {specific[1] << 8 | specific[2]}{bit}"

    @property
    def information(self) -> int | None:
        """INFORMATION, if it is valid (fixed format)."""
        if self.descriptors or len(self.sense) < 7 or not self.sense[0] & 0x80:
            return None
        return int.from_bytes(self.sense[3:7], "big")


def command(disk: object, cdb: bytes, data_out: bytes = b"", size: int = 0) -> Answer:
    """Send one command.

    :param disk: path of the device.
    :param size: most bytes of Data-In.
    """
    buffer = ctypes.create_string_buffer(bytes(data_out) or bytes(size), len(data_out) or size or 1)
    sense = ctypes.create_string_buffer(96)
    sent = ctypes.create_string_buffer(cdb, len(cdb))
    header = _Header(
        interface_id=ord("S"),
        dxfer_direction=TO_DEVICE if data_out else FROM_DEVICE if size else NONE,
        cmd_len=len(cdb),
        mx_sb_len=len(sense),
        dxfer_len=len(data_out) or size,
        dxferp=ctypes.addressof(buffer),
        cmdp=ctypes.addressof(sent),
        sbp=ctypes.addressof(sense),
        timeout=30000,
    )
    fd = os.open(str(disk), os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, SG_IO, header)
    finally:
        os.close(fd)
    if header.host_status:
        raise OSError(f"{disk}: host status {header.host_status:#x} for {cdb.hex(' ')}")
    return Answer(header.status, b"" if data_out else buffer.raw[: size - header.resid], sense.raw[: header.sb_len_wr])
