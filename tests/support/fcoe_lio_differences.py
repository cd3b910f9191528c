"""Where our target answers the golden trace's initiator otherwise than LIO did, and why. docs/fcoe.md has the table.

The standard library only: docs/generate.py reads it. ``tests/fcoe/test_golden_trace.py`` finds every difference in here, and
every row of this in the differences.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Match(NamedTuple):
    """Regular expressions for a difference; each for the whole text."""

    conversation: str
    field: str
    ours: str = ".*"
    lio: str = ".*"

    def fits(self, difference: tuple[str, str, str, str]) -> bool:
        return all(re.fullmatch(pattern, text) for pattern, text in zip(self, difference, strict=True))


class Row(NamedTuple):
    """One thing that is otherwise."""

    where: str
    lio: str
    tcm: str
    why: str
    """Clause first."""
    matches: tuple[Match, ...]


NONE = "none"
INQUIRY, VPD = "INQUIRY", r"INQUIRY page {}h"


def _data(conversation: str, *words: str) -> tuple[Match, ...]:
    """These bytes of FCP_DATA."""
    return tuple(Match(conversation, f"FCP_DATA payload {each}") for each in words)


def _length(conversation: str) -> tuple[Match, ...]:
    """What another length of the same thing brings with it: fill bytes, length, residual."""
    return (
        Match(conversation, "FCP_DATA f_ctl", "88000[89ab]", "88000[89ab]"),
        Match(conversation, "FCP_DATA payload length"),
        Match(conversation, "FCP_RSP residual"),
    )


ROWS: tuple[Row, ...] = (
    Row(
        "FC-4 attributes in FIP",
        "FCP, target and initiator",
        "FCP, target",
        "FC-BB-6 7.10.6, FCP-4 7: features that there are",
        (Match("FIP Claim (notification|response)", "Fc4Attributes features"),),
    ),
    Row(
        "PRLI",
        "asks the initiator for a login itself, as target and initiator",
        "answers; a target alone sends none",
        "FCP-4 6.3: the initiator sends PRLI",
        (Match("PRLI of the target's", "frame", NONE, "PRLI"),),
    ),
    Row(
        "PRLI, flags of the answer",
        "B2h: target and initiator; RETRY is taken out, and REC",
        "592h: target, RETRY and REC (`--retry no` takes them out)",
        "FCP-4 6.3.8, 12",
        (Match("PRLI", "ELS payload 16-19", "00000592", "000000b2"),),
    ),
    Row(
        "RTV",
        "sends one",
        "answers; it needs no timers of the other's",
        "FC-LS-2 4.2.8: optional",
        (Match("RTV of the target's", "frame", NONE, "RTV"),),
    ),
    Row(
        "F_CTL of LS_ACC",
        "gives the sequence initiative away",
        "does not: the exchange has ended",
        "FC-FS-3 9.7: it means nothing in the last sequence",
        (Match("PLOGI|PRLI|RTV|FIP Virtual link reply .LS_ACC.", "ELS f_ctl", "980000", "990000"),),
    ),
    Row(
        "LOGO of the initiator",
        "sends FLOGI at once",
        "waits for a Beacon of it",
        "FC-BB-6 7.9.4: that is what FLOGI follows, and it has gone",
        (Match("FIP Virtual link request .FLOGI.", "frame", NONE, "FIP"),),
    ),
    Row(
        "FCP_RSP",
        "ends the exchange",
        "asks for FCP_CONF, but not for a READ that went well, gives the sequence initiative away, and remembers the exchange"
        " until it comes, or for 10 s",
        "FCP-4 4.5, 12: both sides have offered confirmed completion and RETRY, so what is lost can be asked for again",
        (Match(".*", "FCP_RSP confirm", "True", "False"), Match(".*", "FCP_RSP f_ctl", "89000[0-3]", "9[89]000[0-3]")),
    ),
    Row(
        "first TEST UNIT READY",
        "GOOD",
        "CHECK CONDITION, UNIT ATTENTION 29h/00h",
        "SAM-5 5.14, 6.2: the I_T nexus is new",
        (
            Match("TEST UNIT READY", "FCP_RSP status", "2", "0"),
            Match("TEST UNIT READY", "FCP_RSP sense", "7000060000.*29.*", ""),
            Match("TEST UNIT READY", "FCP_RSP f_ctl", "890002", "980000"),
        ),
    ),
    Row(
        "standard INQUIRY data",
        "SCCS set, HISUP and PROTECT not; two version descriptors less",
        "HISUP and PROTECT set, SCCS not; SBC-4 and FCP-4 among the version descriptors",
        "SPC-5 6.6.2: hierarchical LUNs and protection information are there, an embedded storage array is not",
        _data(INQUIRY, "0-7", "64-71"),
    ),
    Row(
        "VPD page 00h",
        "8 pages",
        "page 8Fh too",
        "SPC-5 7.7.17: third-party copies",
        _data(VPD.format("00"), "0-3", "8-11") + _length(VPD.format("00")),
    ),
    Row(
        "VPD page 80h",
        "37 characters, the last of them a zero",
        "36",
        "SPC-5 7.7.20: ASCII data",
        _data(VPD.format("80"), "0-3") + _length(VPD.format("80")),
    ),
    Row(
        "VPD page 83h",
        "T10 vendor ID with a zero at its end; the port's name as SCSI name string",
        "no zero; the port's name as NAA designator too",
        "SPC-5 7.7.6: N_Port_Name is what FCP-4 names a port by",
        _data(VPD.format("83"), "0-3", "24-27", r"\d+-160") + _length(VPD.format("83")),
    ),
    Row(
        "VPD pages B0h, B1h, B2h",
        "16 bytes, without UNMAP; a medium without a form; thick",
        "60 bytes, with UNMAP and atomic writes; a RAM disk; thin",
        "SBC-4 6.6: of the backstore",
        _data(VPD.format("B0"), "0-3", "0-15") + _data(VPD.format("B1"), "4-11") + _data(VPD.format("B2"), "4-7"),
    ),
    Row(
        "READ CAPACITY (16)",
        "LBPME and LBPRZ not set",
        "set",
        "SBC-4 5.20: thin",
        _data(r"READ CAPACITY \(16\)", "12-15"),
    ),
    Row(
        "MODE SENSE (6)",
        "no DPOFUA; the last LBA as NUMBER OF LOGICAL BLOCKS; DRA set in the caching mode page",
        "DPOFUA; the number of blocks; DRA not set",
        "SBC-4 6.5.2, 6.5.6: FUA is heeded; a number is one more than the last",
        _data(r"MODE SENSE \(6\) page (3F|08)h", "0-3", "0-7", "24-27"),
    ),
    Row(
        "REPORT SUPPORTED OPERATION CODES",
        "CHECK CONDITION, INVALID COMMAND OPERATION CODE",
        "10 bytes and GOOD",
        "SPC-5 6.35",
        (
            Match("REPORT SUPPORTED OPERATION CODES", "frame", "FCP_DATA", NONE),
            Match("REPORT SUPPORTED OPERATION CODES", "FCP_RSP (status|sense|residual)"),
        ),
    ),
)
"""In the order of the trace."""

NOT_SEEN: tuple[Row, ...] = (
    Row("WRITE", "one FCP_XFER_RDY for all of it", "as many as `--burst` makes of it; 256 KiB each", "FCP-4 9.3", ()),
    Row(
        "E_D_TOV",
        "its own",
        "the greater one of both PLOGIs, R_A_TOV twice that at least; in a fabric what FLOGI said",
        "FC-LS-2 6.6.2",
        (),
    ),
    Row(
        "RLS",
        "FCoE's counters",
        "the same: link and virtual link failures, missed keep-alives, frame check errors of the kernel",
        "FC-BB-5 7.10",
        (),
    ),
    Row(
        "ABTS of a command",
        "the exchange goes, the command runs on (a FIXME)",
        "the command is aborted, BA_ACC when it has gone",
        "FCP-4 4.9, 12.3",
        (),
    ),
    Row("CDBs above 16 bytes", "refused", "up to 260 bytes", "FCP-4 9.2.2.10", ()),
    Row(
        "task management",
        "LUN RESET works; others are handed to a core that mostly refuses",
        "all of SAM-5's",
        "FCP-4 9.2.2.6",
        (),
    ),
    Row("demo mode", "none: an ACL for each initiator", "as with iSCSI, `generate_node_acls`", NONE, ()),
    Row("point to point", "two Linux ports never get beyond PLOGI", "works with Linux as the initiator", "FC-FS-3 19", ()),
)
"""What the trace does not have."""
