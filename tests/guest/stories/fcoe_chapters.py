"""What is told of every mode: one logical unit, with one initiator port or two on the segment."""

from __future__ import annotations

import errno
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stories.fcoe import number
from stories.fio import Fio, moving
from stories.machine import Failed, attempt, kernel_log, log, run, same, until
from stories.persist import RESERVATION_CONFLICT, UNIT_ATTENTION, keys, out, quiet, reservation

if TYPE_CHECKING:
    from stories.fcoe import Port
    from stories.initiator import Disk

CUT, KILL = Path("/share/cut"), Path("/share/kill")
KEY_A, KEY_B = 0xA1, 0xB2
WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS_REGISTRANTS = 1, 6
MIB = 1 << 20


def discovery(ports: list[Port], target: str) -> None:
    """The LUN is a disk; everybody has the names and roles that they should."""
    for port in ports:
        disk = port.create().disk()
        same(port.attribute("port_state"), "Online", f"{port.nic}: port state")
        (found,) = port.targets()
        same(number(found["port_name"]), number(target), "target port name")
        log(f"{port.nic}: {port.attribute('port_id')} {port.attribute('port_type')}, target {found['port_id']}")
        quiet(disk)
        run("sg_luns", disk).has("Lun list length = 8 ")
        run("sg_inq", disk).has("Vendor identification: LIO-ORG", "Peripheral device type: disk")
        run("sg_vpd", "--page=di", disk).has("Fibre Channel Protocol for SCSI", f"naa.{number(target):016x}")
        run("lsscsi", "-t").has(f"fcoe:0x{number(target):016x}")


def utilities(ports: list[Port], _target: str) -> None:
    """sg_rtpg, sg_readcap, sg_opcodes, REPORT LUNS to the well-known places, an error with its sense data."""
    disk = ports[0].disk()
    quiet(disk)
    run("sg_rtpg", "--decode", disk).has("target port group asymmetric access state : 0x00")
    run("sg_readcap", "--long", disk).has("Logical block length=512 bytes")
    run("sg_opcodes", "--no-inquiry", disk).has("Write(16)", "Persistent reserve out, register")
    run("sg_opcodes", "--no-inquiry", "--tmf", disk).has("Abort task", "Logical unit reset")
    run("sg_raw", "-r", "96", disk, "12", "00", "80", "00", "60", "00", code=5).has("Invalid field in cdb")
    for size in (1, 3, 511, 4095):  # lengths that need fill bytes
        run(
            "sg_raw",
            "-r",
            size,
            disk,
            "a3",
            "0c",
            "00",
            "00",
            "00",
            "00",
            *size.to_bytes(4, "big").hex(" ").split(),
            "00",
            "00",
        )


def filesystem(ports: list[Port], _target: str) -> None:
    """mkfs.ext4, files there and back, e2fsck."""
    disk = ports[0].disk()
    run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", disk, 24 * MIB // 1024)
    Path("/mnt/fcoe").mkdir(parents=True, exist_ok=True)
    run("mount", disk, "/mnt/fcoe")
    run("bash", "-c", "cp -r /usr/sbin/mke2fs /etc/udev /mnt/fcoe && sync")
    run("umount", "/mnt/fcoe")
    run("e2fsck", "-f", "-n", disk)
    run("mount", "-o", "ro", disk, "/mnt/fcoe")
    run("cmp", "/usr/sbin/mke2fs", "/mnt/fcoe/mke2fs")
    run("diff", "-r", "/etc/udev", "/mnt/fcoe/udev")
    run("umount", "/mnt/fcoe")


def verification(ports: list[Port], _target: str) -> None:
    """fio, 32 at a time, blocks of 4 to 256 KiB: every byte is read again and compared."""
    disk = ports[0].disk()
    words = ["fio", "--name=verify", f"--filename={disk}", f"--offset={24 * MIB}", f"--size={12 * MIB}", "--rw=randwrite"]
    words += ["--bsrange=4k-256k", "--direct=1", "--ioengine=libaio", "--iodepth=32", "--verify=crc32c", "--verify_fatal=1"]
    run(*words).has("err= 0")


def reset(ports: list[Port], _target: str) -> None:
    """LOGICAL UNIT RESET while fio writes: commands are aborted and told, the kernel sends them again, nothing is wrong."""
    disk = ports[0].disk()
    with Fio("reset", disk.path, 36 * MIB, 8 * MIB, "--iodepth=32") as fio:
        moving(disk, 16, 64)
        for _ in range(3):
            run("sg_reset", "--device", disk)
            moving(disk, 16, 32)
        done = fio.stop()
    same(done["error"], 0, "how fio ended")
    log(f"reset: {Fio.counts(done, least=32)} blocks written and verified")
    quiet(disk)


def persistence(ports: list[Port], _target: str) -> None:
    """sg_persist: register, reserve; with two ports: who may write, preempt; TransportIDs of Fibre Channel (SPC-4 7.6.4.2)."""
    disk = ports[0].disk()
    quiet(disk)
    out(disk, "register", new=KEY_A)
    same(keys(disk), [KEY_A], "keys")
    out(disk, "reserve", key=KEY_A, kind=WRITE_EXCLUSIVE)
    same(reservation(disk), (KEY_A, "Write Exclusive"), "reservation")
    status = run("sg_persist", "--no-inquiry", "--in", "--read-full-status", disk)
    status.has("Reservation holder", "FCP-2 World Wide Name", number(ports[0].port_name).to_bytes(8, "big").hex(" "))
    if len(ports) > 1:
        _conflict(disk, ports[1].disk())
    out(disk, "clear", key=KEY_B if len(ports) > 1 else KEY_A, code=RESERVATION_CONFLICT if len(ports) > 1 else 0)
    if len(ports) > 1:
        other = ports[1].disk()
        quiet(other)
        out(other, "clear", key=KEY_B)
    quiet(disk)
    same(keys(disk), [], "keys at the end")


def _conflict(a: Disk, b: Disk) -> None:
    quiet(b)
    same(b.write(0, bytes(4096)), errno.EBADE, "B writes while A holds Write Exclusive")
    same(isinstance(b.read(0), bytes), True, "B may read")
    out(b, "register", new=KEY_B)
    out(b, "reserve", key=KEY_B, kind=EXCLUSIVE_ACCESS_REGISTRANTS, code=RESERVATION_CONFLICT)
    out(b, "preempt", key=KEY_B, new=KEY_A, kind=EXCLUSIVE_ACCESS_REGISTRANTS)
    same(reservation(b), (KEY_B, "Exclusive Access, registrants only"), "B holds it now")
    run("sg_turs", "--verbose", a, code=UNIT_ATTENTION).has("Registrations preempted")
    same(a.write(0, bytes(4096)), errno.EBADE, "A has lost the right to write")


def sharing(ports: list[Port], _target: str) -> None:
    """Two initiator ports write at the same time, each its own part; each reads what the other wrote."""
    if len(ports) < 2:
        return
    a, b = (port.disk() for port in ports[:2])
    with (
        Fio("a", a.path, 36 * MIB, 4 * MIB, "--iodepth=16") as one,
        Fio("b", b.path, 40 * MIB, 4 * MIB, "--iodepth=16") as other,
    ):
        moving(a, 64, 128)
        moving(b, 64, 128)
        done = one.stop(), other.stop()
    same([each["error"] for each in done], [0, 0], "how both ended")
    pattern = bytes(range(256)) * 256
    same(a.write(90000, pattern), 0, "A writes")
    same(b.read(90000, 128), pattern, "B reads it")


def outage(ports: list[Port], _target: str) -> None:
    """The target's plug is pulled while fio writes, later the initiator's: I/O stands still, goes on, and nothing is wrong."""
    port = ports[0]
    disk = port.disk()
    with Fio("outage", disk.path, 44 * MIB, 8 * MIB, "--iodepth=32") as fio:
        moving(disk, 32, 64)
        CUT.touch()
        until(lambda: not port.targets() or _still(disk), "I/O stands still")
        CUT.unlink()
        begun = time.monotonic()
        moving(disk, 32, 64)
        log(f"outage: I/O goes on {time.monotonic() - begun:.1f} s after the target's plug is in again")
        port.plug(up=False)
        until(lambda: not port.targets(), "no target without a link")
        port.plug(up=True)
        moving(disk, 32, 64)
        same(fio.running, True, "fio goes on")
        done = fio.stop()
    same(done["error"], 0, "how fio ended")
    log(f"outage: {Fio.counts(done, least=32)} blocks written and verified")


def crash(ports: list[Port], _target: str) -> None:
    """tcm-run is killed and started anew, first while nothing is asked of it, then while fio writes: all goes on."""
    port = ports[0]
    disk = port.disk()
    _kill()
    begun = time.monotonic()
    until(lambda: port.targets() and attempt("sg_turs", disk).code == 0, "the target is ready")
    log(f"crash: idle, the disk is ready {time.monotonic() - begun:.1f} s after the target was started")
    with Fio("crash", disk.path, 44 * MIB, 8 * MIB, "--iodepth=32") as fio:
        moving(disk, 32, 64)
        _kill()
        begun = time.monotonic()
        moving(disk, 32, 64)
        log(f"crash: busy, I/O goes on {time.monotonic() - begun:.1f} s after the target was started")
        done = fio.stop()
    same(done["error"], 0, "how fio ended")


def _kill() -> None:
    with suppress(FileNotFoundError):  # the host was quicker: it was there, and 9P looks for it after it has made it
        KILL.touch()
    until(lambda: not KILL.exists(), "tcm-run is killed and started again")


def _still(disk: Disk) -> bool:
    before = disk.transfers()
    time.sleep(1)
    return disk.transfers() == before


def reboot(ports: list[Port], _target: str) -> None:
    """The initiator vanishes without a word and comes back under the same name, as after a reset; then it leaves politely."""
    port = ports[0]
    pattern = b"before" + bytes(4090)
    same(port.disk().write(80000, pattern), 0, "write")
    port.plug(up=False)
    port.destroy()
    port.create()
    disk = port.disk()
    same(disk.read(80000), pattern, "read again")
    attempt("sg_turs", disk)
    for _ in range(2):
        port.destroy()
        disk = port.create().disk()
        same(disk.read(80000), pattern, "read once more")
    if "Unhandled error code" in kernel_log():
        raise Failed(kernel_log())


CHAPTERS = (discovery, utilities, filesystem, verification, reset, persistence, sharing, outage, reboot, crash)
