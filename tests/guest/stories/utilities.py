"""The rest of sg3_utils: every tool that says something of a disk, or changes it, and what it has to answer."""

from __future__ import annotations

import re
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from stories.machine import Failed, Outcome, attempt, log, run, same, until
from stories.persist import ILLEGAL_REQUEST, UNIT_ATTENTION, quiet, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from stories.cluster import Cluster
    from stories.initiator import Disk

NOT_READY, INVALID_OPCODE, MISCOMPARE, LBA_OUT_OF_RANGE = 2, 9, 14, 22
"""Exit codes of sg3_utils; sg_turs has 2 for NOT READY."""
BLOCKS = 64 << 20 >> 9
"""The logical unit's size."""
RESET = "Bus device reset function occurred"


def story(cluster: Cluster) -> None:
    """All of them, whichever fail."""
    disk = cluster.a.disk(cluster.lun("utilities"))
    failures = []
    for check in CHECKS:
        quiet(disk)
        log(f"-- {check.__name__}")
        try:
            check(disk)
        except Exception:
            failures.append(f"{check.__name__}: {traceback.format_exc()}")
    if failures:
        raise Failed("\n".join(failures))


def _file(data: bytes) -> str:
    path = Path("/tmp/data")
    path.write_bytes(data)
    return str(path)


def _cdb(text: str) -> list[str]:
    return text.split()


def _data(disk: Disk, lba: int, blocks: int = 8) -> bytes:
    found = disk.read(lba, blocks)
    if isinstance(found, int):
        raise Failed(f"reading LBA {lba}: errno {found}")
    return found


def _numbers(said: Outcome, pattern: str) -> list[int]:
    return [int(number, 0) for number in re.findall(pattern, said.text)]


def inquiry(disk: Disk) -> None:
    """sg_inq: standard data, version descriptors; a bit that has to be zero."""
    said = run("sg_inq", "--descriptors", disk)
    said.has("PQual=0  PDT=0  RMB=0", "version=0x06  [SPC-4]", "CmdQue=1", "MultiP=1", "Vendor identification: LIO-ORG")
    said.has("SAM-5", "SPC-5", "SBC-4", "iSCSI", "Unit serial number: ")
    run("sg_inq", "--page=0x7f", disk, code=83)  # the tool says: no such page
    reserved_bit = run("sg_raw", "-r", "96", disk, *_cdb("12 00 80 00 60 00"), code=ILLEGAL_REQUEST)
    reserved_bit.has("Invalid field in cdb", "Error in Command: byte 2")


def vital_product_data(disk: Disk) -> None:
    """sg_vpd: every page that the list has can be had, is decoded, and the list is in order."""
    listed = re.findall(r"\[(\w+)\]$", run("sg_vpd", disk).text, re.MULTILINE)
    for page in listed:
        run("sg_vpd", f"--page={page}", disk).has_not("malformed", "too short", "truncated", "Unable to decode")
    for page in ("sv", "sn", "di", "ei", "bl", "bdc", "lbpv", "ref"):
        same(page in listed, True, f"page {page}")
    serial = Path(f"/sys/block/{disk.name}/device/vpd_pg80").read_bytes()[4:].decode()
    run("sg_vpd", "--page=sn", disk).has(f"Unit serial number: {serial}")
    designators = run("sg_vpd", "--page=di", disk)
    designators.has("designator type: NAA", "0x6001405", "T10 vendor identification", "Relative target port: 0x1", ",t,0x0001")
    limits = run("sg_vpd", "--page=bl", disk)
    same(_numbers(limits, r"Maximum unmap block descriptor count: (\d+)")[0] > 0, True, "unmap descriptors")
    limits.has("Maximum compare and write length: 255 blocks", "Unmap granularity alignment valid: true")
    run("sg_vpd", "--page=lbpv", disk).has("(LBPU): 1", "(LBPWS): 1", "(LBPRZ): 1", "thin provisioned")


def capacity(disk: Disk) -> None:
    """sg_readcap: both commands, and the kernel, agree."""
    same(run("sg_readcap", "--brief", disk).text.split(), [hex(BLOCKS), "0x200"], "READ CAPACITY (10)")
    said = run("sg_readcap", "--long", disk).has("lbpme=1, lbprz=1", "Lowest aligned LBA=0")
    said.has(f"Number of logical blocks={BLOCKS}", "Logical block length=512 bytes", "physical block length=4096 bytes")
    same(int(Path(f"/sys/block/{disk.name}/size").read_text()), BLOCKS, "the kernel's idea of it")


def operation_codes(disk: Disk) -> None:
    """sg_opcodes: all, one with its usage data, one that is not there, task management functions."""
    listed = run("sg_opcodes", "--no-inquiry", disk)
    for name in ("Test Unit Ready", "Read(16)", "Compare and write", "Persistent reserve out, register and move", "Unmap"):
        listed.has(name)
    codes = re.findall(r"^ ([0-9a-f]{2})  ", listed.text, re.MULTILINE)
    same(len(codes) > 60, True, "how many commands there are")
    one = run("sg_opcodes", "--no-inquiry", "--opcode=0x5f,7", disk).has("Persistent reserve out, register and move")
    one.has("Command is supported [conforming to SCSI standard]", "Usage data: 5f 07 00 00 00 ff ff ff ff 00")
    run("sg_opcodes", "--no-inquiry", "--opcode=0x38", disk).has("Command is NOT supported")
    functions = run("sg_opcodes", "--no-inquiry", "--tmf", disk)
    functions.has("Abort task", "Abort task set", "Clear task set", "Logical unit reset", "I_T nexus reset", "Query task set")
    masks = run("sg_opcodes", "--no-inquiry", "--mask", "--rctd", disk)
    same(masks.text.count("cdb usage: ") or masks.text.count("usage"), len(codes), "a usage mask for each")


def mode_pages(disk: Disk) -> None:
    """sg_modes and sdparm's way of changing one; the other nexus is told elsewhere."""
    for options in ((), ("--six",)):
        pages = run("sg_modes", "--all", *options, disk)
        pages.has("Read-Write error recovery", "Caching", "Control", "Informational exceptions control", "WP=0, DpoFua=1")
    run("sg_modes", "--page=0x8", "--control=1", disk).has("88 12 04")
    run("sg_modes", "--page=0x3f,0xff", disk)
    run("sg_modes", "--page=0x7", disk, code=ILLEGAL_REQUEST)


def logs(disk: Disk) -> None:
    """sg_logs: the list of pages, and each page of it."""
    listed = re.findall(r"^    0x([0-9a-f]{2})  ", run("sg_logs", "--list", disk).text, re.MULTILINE)
    same("00" in listed and listed == sorted(listed), True, f"log pages {listed}")
    for page in listed:
        run("sg_logs", f"--page=0x{page}", disk).has_not("malformed", "too short", "bad page code")
    run("sg_logs", "--page=0x3e", disk, code=ILLEGAL_REQUEST)


def readiness(disk: Disk) -> None:
    """sg_turs, sg_requests, sg_start, sg_sync, sg_luns, sg_prevent, sg_senddiag."""
    run("sg_turs", "--num=100", disk)
    run("sg_requests", disk).has("Sense key: No Sense")
    run("sg_sync", disk)
    run("sg_start", "--stop", disk)
    run("sg_turs", "--verbose", disk, code=NOT_READY).has("Logical unit not ready, initializing command required")
    run("sg_start", "--start", disk)
    run("sg_turs", disk)
    run("sg_senddiag", "--test", disk).has("GOOD")
    run("sg_senddiag", "--list", disk).has("Supported diagnostic pages")
    luns = run("sg_luns", disk)
    listed = re.findall(r"^    [0-9a-f]{16}$", luns.text, re.MULTILINE)
    luns.has(f"Lun list length = {8 * len(listed)} ", f"    {disk.lun:04x}000000000000")


def compare_and_write(disk: Disk) -> None:
    """sg_compare_and_write: done, and not done; the miscompare's place."""
    old, new = b"\x11" * 512, b"\x22" * 512
    same(disk.write(100, old * 8), 0, "write")
    run("sg_compare_and_write", f"--in={_file(old + new)}", "--lba=100", disk)
    same(_data(disk, 100)[:1024], new + old, "written")
    wrong = bytearray(new + old)
    wrong[77] ^= 1
    said = run("sg_compare_and_write", "--verbose", f"--in={_file(bytes(wrong))}", "--lba=100", disk, code=MISCOMPARE)
    said.has("Miscompare during verify operation", "Miscompare at byte offset: 77 [0x4d]")
    same(_data(disk, 100)[:1024], new + old, "left alone")


def deallocation(disk: Disk) -> None:
    """sg_unmap, sg_write_same and sg_get_lba_status: what is mapped, what is not, and that it reads as zeroes."""
    lba = 40960  # nobody else has written there

    def states() -> list[tuple[int, int, str]]:
        said = run("sg_get_lba_status", f"--lba={lba}", "--maxlen=512", disk).text
        found = re.findall(r"LBA: 0x([0-9a-f]+)\s+blocks:\s+(\d+)\s+(\w+)", said)
        return [(int(first, 16) - lba, int(count), state) for first, count, state in found]

    same(disk.write(lba, b"\x33" * 65536), 0, "write")
    same(states()[0], (0, 128, "mapped"), "written")
    run("sg_unmap", f"--lba={lba + 16}", "--num=32", "--force", disk)
    same(states()[:3], [(0, 16, "mapped"), (16, 32, "deallocated"), (48, 80, "mapped")], "unmapped")
    same(_data(disk, lba + 8, 48), b"\x33" * 4096 + bytes(16384) + b"\x33" * 4096, "reads as")
    run("sg_unmap", f"--lba={BLOCKS - 1}", "--num=2", "--force", disk, code=LBA_OUT_OF_RANGE)
    run("sg_write_same", "--unmap", f"--lba={lba + 64}", "--num=16", disk)
    same((64, 16, "deallocated") in states(), True, f"WRITE SAME with UNMAP: {states()}")
    run("sg_write_same", "--16", f"--lba={lba + 64}", "--num=8", f"--in={_file(b'same' * 128)}", "--xferlen=512", disk)
    same(_data(disk, lba + 64), b"same" * 1024, "WRITE SAME")
    run("sg_verify", f"--lba={lba}", "--count=128", disk)
    run("sg_write_verify", f"--lba={lba}", "--num=1", f"--in={_file(b'sure' * 128)}", disk)
    run("sg_write_x", "--atomic=0", f"--lba={lba + 1}", "--num=1", f"--in={_file(b'atom' * 128)}", disk)
    same(_data(disk, lba)[:1024], b"sure" * 128 + b"atom" * 128, "WRITE AND VERIFY, WRITE ATOMIC")


def buffers(disk: Disk) -> None:
    """sg_write_buffer and READ BUFFER: what is written comes back; microcode is refused."""
    pattern = bytes(range(256)) * 2
    run("sg_test_rwbuf", "--quick", "--size=4096", disk)
    run("sg_write_buffer", "--mode=data", f"--in={_file(pattern)}", disk)
    # sg_read_buffer of sg3_utils 1.46 sends an allocation length of zero
    run("sg_raw", "-r", "512", "-o", "/tmp/read", disk, *_cdb("3c 02 00 00 00 00 00 02 00 00"))
    same(Path("/tmp/read").read_bytes(), pattern, "READ BUFFER")
    run("sg_raw", "-r", "4", "-o", "/tmp/read", disk, *_cdb("3c 03 00 00 00 00 00 00 04 00"))
    same(int.from_bytes(Path("/tmp/read").read_bytes()[1:], "big"), 65536, "the buffer's size")
    run("sg_write_buffer", "--mode=dmc_offs_save", f"--in={_file(pattern)}", disk, code=ILLEGAL_REQUEST)


def identity(disk: Disk) -> None:
    """sg_ident and sg_timestamp: what is set is what is told."""
    path = _file(b"the disk in the corner")
    run("bash", "-c", f"sg_ident --set {disk} <{path}")
    run("sg_ident", "--ascii", disk).has("the disk in the corner")
    run("sg_ident", "--clear", disk)
    same(run("sg_ident", "--ascii", disk).text.strip(), "", "identifying information")
    run("sg_timestamp", "--milliseconds=1600000000000", disk)
    later = int(run("sg_timestamp", disk).text)
    same(1600000000000 <= later < 1600000600000, True, f"timestamp {later}")
    run("sg_timestamp", f"--milliseconds={time.time() * 1000:.0f}", disk)


def refusals(disk: Disk) -> None:
    """Tools for what is not there: INVALID COMMAND OPERATION CODE, or INVALID FIELD IN CDB for a service action."""
    run("sg_sat_identify", disk, code=INVALID_OPCODE)
    run("sg_stream_ctl", "--open", disk, code=ILLEGAL_REQUEST)
    run("sg_rep_zones", disk, code=INVALID_OPCODE)
    run("sg_read_block_limits", disk, code=INVALID_OPCODE)
    run("sg_rep_pip", disk, code=ILLEGAL_REQUEST)  # no provisioning group
    run("sg_read_long", "--lba=0", disk, code=INVALID_OPCODE)


def resets(disk: Disk) -> None:
    """sg_reset: of the unit, of the target; the nexus is told, and the disk is as it was."""
    same(disk.write(0, b"kept" * 1024), 0, "write")
    for option in ("--device", "--target"):
        run("sg_reset", "--no-escalate", option, disk)
        told(disk, RESET)
        same(_data(disk, 0), b"kept" * 1024, f"after {option}")


def erasing(disk: Disk) -> None:
    """sg_sanitize and sg_format: NOT READY with progress while they run, zeroes afterwards."""
    for command, while_running in (
        (("sg_sanitize", "--overwrite", "--zero", "--quick", "--early"), "sanitize in progress"),
        (("sg_sanitize", "--block", "--quick", "--early"), "sanitize in progress"),
        (("sg_format", "--format", "--quick", "--early"), "format in progress"),
    ):
        same(disk.write(64, b"gone" * 1024), 0, "write")
        run(*command, disk)

        def ended(while_running: str = while_running) -> bool:
            said = attempt("sg_turs", "--verbose", disk)
            if said.code == NOT_READY:
                said.has(while_running)
                run("sg_requests", "--progress", disk)
            elif said.code not in {0, UNIT_ATTENTION}:
                raise Failed(said.text)
            return said.code == 0

        until(ended, " ".join(command))
        same(_data(disk, 64), bytes(4096), f"after {' '.join(command)}")


CHECKS: tuple[Callable[[Disk], None], ...] = (
    *(inquiry, vital_product_data, capacity, operation_codes, mode_pages, logs, readiness),
    *(compare_and_write, deallocation, buffers, identity, refusals, resets, erasing),
)
