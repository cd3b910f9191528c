"""Numbers of the Extended Link Services (FC-LS-2 clause 4): commands, reasons to refuse them, and explanations."""

from __future__ import annotations

import enum


class ElsCommand(enum.IntEnum):
    """LS_Command code, the first byte (FC-LS-2 table 4). SRR has its code from FCP-4 and is no ELS by R_CTL."""

    LS_RJT = 0x01
    LS_ACC = 0x02
    PLOGI = 0x03
    FLOGI = 0x04
    LOGO = 0x05
    ABTX = 0x06
    RCS = 0x07
    RES = 0x08
    RSS = 0x09
    RSI = 0x0A
    ESTS = 0x0B
    ESTC = 0x0C
    ADVC = 0x0D
    RTV = 0x0E
    RLS = 0x0F
    ECHO = 0x10
    TEST = 0x11
    RRQ = 0x12
    REC = 0x13
    SRR = 0x14
    PRLI = 0x20
    PRLO = 0x21
    SCN = 0x22
    TPLS = 0x23
    TPRLO = 0x24
    PDISC = 0x50
    FDISC = 0x51
    ADISC = 0x52
    FARP_REQ = 0x54
    RPS = 0x56
    RPL = 0x57
    RSCN = 0x61
    SCR = 0x62
    RNFT = 0x63
    LINIT = 0x70
    RNID = 0x78
    RLIR = 0x79
    LIRR = 0x7A
    AUTH_ELS = 0x90


class Reason(enum.IntEnum):
    """LS_RJT reason code (FC-LS-2 table 7)."""

    INVALID_COMMAND_CODE = 0x01
    LOGICAL_ERROR = 0x03
    LOGICAL_BUSY = 0x05
    PROTOCOL_ERROR = 0x07
    UNABLE_TO_PERFORM = 0x09
    COMMAND_NOT_SUPPORTED = 0x0B
    COMMAND_ALREADY_IN_PROGRESS = 0x0E
    FIP_ERROR = 0x20
    VENDOR_SPECIFIC = 0xFF


class Explanation(enum.IntEnum):
    """LS_RJT reason code explanation (FC-LS-2 table 8)."""

    NONE = 0x00
    OPTIONS = 0x01
    INITIATOR_CONTROL = 0x03
    RECIPIENT_CONTROL = 0x05
    RECEIVE_DATA_FIELD_SIZE = 0x07
    CONCURRENT_SEQUENCES = 0x09
    CREDIT = 0x0B
    INVALID_PORT_NAME = 0x0D
    INVALID_NODE_NAME = 0x0E
    INVALID_COMMON_SERVICE_PARAMETERS = 0x0F
    INVALID_ASSOCIATION_HEADER = 0x11
    ASSOCIATION_HEADER_REQUIRED = 0x13
    INVALID_ORIGINATOR_S_ID = 0x15
    INVALID_OX_ID_RX_ID = 0x17
    COMMAND_ALREADY_IN_PROGRESS = 0x19
    N_PORT_LOGIN_REQUIRED = 0x1E
    INVALID_N_PORT_ID = 0x1F
    INSUFFICIENT_RESOURCES = 0x29
    UNABLE_TO_SUPPLY_REQUESTED_DATA = 0x2A
    REQUEST_NOT_SUPPORTED = 0x2C
    INVALID_PAYLOAD_LENGTH = 0x2D
    AUTHENTICATION_REQUIRED = 0x48
    N_PORT_NOT_NEIGHBOR = 0x62
    FRAME_SIZE = 0x64


KNOWN_COMMANDS = frozenset(int(each) for each in ElsCommand)


def command_name(code: int) -> str:
    """For logs: ``PLOGI``, or ``ELS 4fh``."""
    return ElsCommand(code).name if code in KNOWN_COMMANDS else f"ELS {code:02x}h"
