"""Data of REPORT and SET IDENTIFYING INFORMATION (SPC-4 6.32, 6.43)."""

from __future__ import annotations

import enum

from tcm.scsi.check_condition import InvalidFieldInParameterList


class InformationType(enum.IntEnum):
    """IDENTIFYING INFORMATION TYPE (SPC-4 table 279)."""

    PERIPHERAL_DEVICE = 0x00
    """Bytes that an application client chose."""
    TEXT = 0x02
    """UTF-8, ended by a null."""
    SUPPORTED = 0x7F
    """Only reported: the list of the others."""


MAXIMUM_LENGTH: dict[int, int] = {InformationType.PERIPHERAL_DEVICE: 64, InformationType.TEXT: 256}
"""Bytes that can be set, by type."""


def identifying_information(information: bytes) -> bytes:
    """Parameter data with one type's information, which is empty if none was set."""
    return bytes(2) + len(information).to_bytes(2, "big") + information


def supported_types() -> bytes:
    """Parameter data of type 7Fh: a descriptor for each type, ascending."""
    types = sorted(MAXIMUM_LENGTH.items())
    descriptors = b"".join(bytes((code << 1, 0)) + length.to_bytes(2, "big") for code, length in types)
    return identifying_information(descriptors)


def check_information(code: int, information: bytes) -> None:
    """Refuse a text that is none; no bytes at all delete what was set.

    :raises InvalidFieldInParameterList: with a pointer to the byte where UTF-8 ends, or where the null should be.
    """
    if code != InformationType.TEXT or not information:
        return
    try:
        information.decode()
    except UnicodeDecodeError as error:
        raise InvalidFieldInParameterList.at(error.start) from error
    if information[-1]:
        raise InvalidFieldInParameterList.at(len(information) - 1)
