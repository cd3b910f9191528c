"""Log pages, diagnostic pages, supported operation codes and task management functions, LUN lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi import log_pages, lun
from tcm.scsi.check_condition import InvalidFieldInParameterList, ParameterListLengthError
from tcm.scsi.command_table import COMMANDS, rows
from tcm.scsi.diagnostic_pages import parse_send_diagnostic, supported_diagnostic_pages
from tcm.scsi.log_pages import LogParameter, PageControl, ParameterFormat
from tcm.scsi.report_luns import SelectReport, report_luns_data
from tcm.scsi.report_supported import TaskManagementSupport, all_commands, one_command, task_management_functions

READ_CAPACITY_16 = rows(0x9E)[0]
READ_10 = rows(0x28)[0]


def test_supported_log_pages():
    keys = [(0x0F, 0), (0x19, 1), (0x00, 0xFF), (0x00, 0), (0x19, 0)]
    assert log_pages.supported_pages(keys).hex(" ") == "00 00 00 03 00 0f 19"
    assert log_pages.supported_subpages(keys).hex(" ") == "40 ff 00 0a 00 00 00 ff 0f 00 19 00 19 01"
    assert log_pages.supported_subpages(keys, 0x19).hex(" ") == "d9 ff 00 04 19 00 19 01"


def test_log_parameter_values():
    """SPC-5 7.3.2: thresholds of counters that are not compared are all ones; a list has one value."""
    counted = log_pages.counter(5, 0x1234, 4)
    packed = [counted.pack(control).hex(" ") for control in PageControl]
    assert packed == ["00 05 20 04 " + value for value in ("ff ff ff ff", "00 00 12 34", "ff ff ff ff", "00 00 00 00")]
    text = LogParameter(6, ParameterFormat.ASCII_LIST, b"abc")
    assert {text.pack(control) for control in PageControl} == {b"\0\6\x21\3abc"}
    assert log_pages.counter(0, 1 << 40, 4, bounded=False).pack() == bytes.fromhex("00002204ffffffff")


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.sampled_from(ParameterFormat), st.binary(max_size=255)), max_size=5))
def test_log_parameters_round_trip(found):
    data = log_pages.page((0x30, 0x01), b"".join(log_pages.parameter(*each) for each in found))
    assert data[:2].hex() == "f001"
    assert list(log_pages.parse_parameters(data)) == [(code, 0x20 | form, value) for code, form, value in found]


@given(st.integers(1, 40))
def test_log_page_that_is_cut_short(cut):
    data = log_pages.page((0x30, 0), log_pages.parameter(1, ParameterFormat.BINARY_LIST, bytes(16)) * 2)
    with pytest.raises(ValueError, match="cut short"):
        list(log_pages.parse_parameters(data[:-cut]))


def test_log_parameter_that_is_cut_short():
    with pytest.raises(ValueError, match="parameter is cut short"):
        list(log_pages.parse_parameters(log_pages.page((0x30, 0), b"\0\1\0\5abc")))


def test_supported_diagnostic_pages():
    assert supported_diagnostic_pages().hex(" ") == "00 00 00 01 00"
    assert parse_send_diagnostic(bytes(4)) == 0


@pytest.mark.parametrize("data, byte", [("01000000", 0), ("00010000", 1), ("00000100", 2), ("00000001", 2)])
def test_send_diagnostic_with_a_bad_page(data, byte):
    with pytest.raises(InvalidFieldInParameterList) as refused:
        parse_send_diagnostic(bytes.fromhex(data))
    assert refused.value.sense.sense_key_specific == bytes((0x8F, 0, byte))


@pytest.mark.parametrize("length", [0, 1, 3, 5, 64])
def test_send_diagnostic_of_the_wrong_length(length):
    with pytest.raises(ParameterListLengthError):
        parse_send_diagnostic(bytes(length))


def test_all_commands():
    """SPC-5 6.36.2: descriptors of 8 bytes; SERVACTV only with a service action."""
    data = all_commands([READ_CAPACITY_16, READ_10], timeouts=False)
    assert data.hex(" ", 4) == "00000010 28000000 0000000a 9e000010 00010010"
    timed = all_commands([READ_10], timeouts=True)
    assert timed.hex(" ", 4) == "00000014 28000000 0002000a 000a0000 00000000 0000003c"


def test_all_commands_of_the_table_are_ascending():
    data = all_commands(COMMANDS, timeouts=True)
    assert len(data) == 4 + 20 * len(COMMANDS) == 4 + int.from_bytes(data[:4])
    keys = [(data[at], int.from_bytes(data[at + 2 : at + 4])) for at in range(4, len(data), 20)]
    assert keys == sorted(set(keys))


def test_one_command():
    """SPC-5 6.36.3."""
    assert one_command(None, timeouts=True).hex() == "00010000"
    assert one_command(READ_10, timeouts=False).hex() == "0003000a" + "2818ffffffff00ffff00"
    timed = one_command(READ_CAPACITY_16, timeouts=True)
    assert timed.hex() == "00830010" + "9e100000000000000000ffffffff0000" + "000a000000000000" + "0000001e"
    assert one_command(READ_10, b"\x28", timeouts=False).hex() == "0003000128"


def test_task_management_functions():
    """SPC-5 6.37: the extended data are 16 bytes; timeouts in tenths of seconds."""
    supported = (
        TaskManagementSupport.ABORT_TASK | TaskManagementSupport.LOGICAL_UNIT_RESET | TaskManagementSupport.QUERY_TASK_SET
    )
    assert task_management_functions(supported, extended=False).hex() == "88020000"
    extended = task_management_functions(supported, extended=True, timeout=2)
    assert extended.hex() == "8802000c" + "01000000" + "00000014" + "00000000"


@pytest.mark.parametrize(
    "select, simple, well_known",
    [
        (SelectReport.ADDRESSED, True, False),
        (SelectReport.WELL_KNOWN, False, True),
        (SelectReport.ALL, True, True),
        (SelectReport.ADMINISTRATIVE, False, False),
        (SelectReport.NOT_SUBSIDIARY, True, False),
        (SelectReport.SUBSIDIARY, False, False),
    ],
)
def test_report_luns(select, simple, well_known):
    luns = [lun.encode(0), lun.encode(300)]
    data = report_luns_data(luns, select)
    expected = (luns if simple else []) + ([lun.REPORT_LUNS_WELL_KNOWN] if well_known else [])
    assert data[:8] == (8 * len(expected)).to_bytes(4, "big") + bytes(4)
    assert data[8:] == b"".join(expected)
