"""The command table agrees with itself, and refuses each reserved bit with a pointer to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import bare

from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidOpcode
from tcm.scsi.command import VARIABLE_LENGTH, Access, Attention, Direction, Extent, Readiness, WhileErasing
from tcm.scsi.command_table import COMMANDS, check_reserved, lookup, rows

GROUP_CODE_LENGTHS = {0: 6, 1: 10, 2: 10, 3: 32, 4: 16, 5: 12}
each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)


def pointer(error: InvalidFieldInCdb) -> tuple[int, int | None]:
    specific = error.sense.sense_key_specific
    assert specific is not None
    assert specific[0] & 0xC0 == 0xC0
    return int.from_bytes(specific[1:], "big"), specific[0] & 7 if specific[0] & 8 else None


@each_command
def test_usage_length_is_the_group_codes(command):
    assert command.length == GROUP_CODE_LENGTHS[command.operation_code >> 5]
    assert len(command.ignored) in (0, command.length)


@each_command
def test_usage_starts_with_the_code_and_never_allows_control(command):
    assert command.usage[0] == command.operation_code
    assert command.usage[command.control_byte] == 0, "NACA and the vendor's bits of CONTROL are not for us"
    assert not any(used & ignored for used, ignored in zip(command.usage, command.ignored, strict=False))
    if command.operation_code == VARIABLE_LENGTH:
        assert command.usage[7] == command.length - 8
        assert int.from_bytes(command.usage[8:10]) == command.service_action
    elif command.service_action is not None:
        assert command.usage[1] & 0x1F == command.service_action


def test_operation_codes_and_service_actions_are_distinct():
    keys = [(command.operation_code, command.service_action) for command in COMMANDS]
    assert len(set(keys)) == len(keys)
    for code in {code for code, _ in keys}:
        actions = [action for other, action in keys if other == code]
        assert actions == [None] or None not in actions


def test_names_are_distinct():
    assert len({command.name for command in COMMANDS}) == len(COMMANDS)


@each_command
def test_columns_agree(command):
    if command.extent is not Extent.NONE:
        assert command.readiness is Readiness.READY
    if command.access is Access.WRITE:
        assert command.direction is Direction.DATA_OUT or command.while_erasing is not WhileErasing.REFUSED
    if command.attention is not Attention.REPORT:
        assert command.readiness is Readiness.ANY
    assert command.timeout > 0


@each_command
def test_lookup_finds_the_row_also_when_padded(command):
    cdb = bytes(bare(command))
    longer = max(16, len(cdb) + 4)
    assert lookup(cdb) is command
    assert lookup(cdb.ljust(longer, b"\0")) is command
    assert command in rows(command.operation_code)
    check_reserved(command, cdb.ljust(longer, b"\xff"))


@each_command
def test_each_reserved_bit_is_refused_with_its_pointer(command):
    base = bytes(bare(command))
    allowed = list(command.usage)
    for index, ignored in enumerate(command.ignored):
        allowed[index] |= ignored
    for byte in range(1, command.length):
        for bit in range(8):
            if command.operation_code == VARIABLE_LENGTH and byte in {7, 8, 9}:
                continue
            if command.service_action is not None and command.length != 32 and byte == 1 and bit < 5:
                continue
            cdb = bytearray(base)
            cdb[byte] |= 1 << bit
            if allowed[byte] >> bit & 1:
                check_reserved(command, bytes(cdb))
                continue
            with pytest.raises(InvalidFieldInCdb) as refused:
                check_reserved(command, bytes(cdb))
            assert pointer(refused.value) == (byte, bit)


@each_command
def test_everything_that_may_be_set_passes(command):
    cdb = bytes(used | ignored for used, ignored in zip(command.usage, command.ignored or bytes(command.length), strict=True))
    check_reserved(command, cdb)


def test_first_reserved_bit_is_the_one_pointed_at():
    command = lookup(bytes(6))
    with pytest.raises(InvalidFieldInCdb) as refused:
        check_reserved(command, bytes.fromhex("001200ff0004"))
    assert pointer(refused.value) == (1, 4)


@pytest.mark.parametrize("cdb", ["", "ff", "a1" + "00" * 11, "01" + "00" * 5])
def test_lookup_of_an_unknown_code(cdb):
    with pytest.raises(InvalidOpcode):
        lookup(bytes.fromhex(cdb))


@pytest.mark.parametrize(
    ("cdb", "byte"),
    [
        ("7f", 1),
        ("7f" + "00" * 8, 9),
        ("7f" + "00" * 31, 8),
        ("7f00000000000018ffff" + "00" * 22, 8),
        ("7f0000000000001800080000" + "00" * 20, 8),
        ("7f00000000000017000900" + "00" * 21, 7),
        ("7f000000000000f8000900" + "00" * 21, 7),
        ("7f000000000000180009000000000000", 16),
        ("7f00000000000018000900" + "00" * 20, 31),
    ],
)
def test_lookup_of_a_variable_length_cdb_that_is_none(cdb, byte):
    with pytest.raises(InvalidFieldInCdb) as refused:
        lookup(bytes.fromhex(cdb))
    assert pointer(refused.value) == (byte, None)


@pytest.mark.parametrize("code, length", [(0x9E, 16), (0xA3, 12)])
def test_lookup_of_an_unknown_service_action_points_at_its_field(code, length):
    with pytest.raises(InvalidFieldInCdb) as refused:
        lookup(bytes((code, 0x1F)) + bytes(length - 2))
    assert pointer(refused.value) == (1, 4)


@pytest.mark.parametrize("cdb", ["9e", "a3", "2800", "88" + "00" * 14, "00" * 5])
def test_lookup_of_a_truncated_cdb(cdb):
    with pytest.raises(InvalidFieldInCdb) as refused:
        lookup(bytes.fromhex(cdb))
    assert pointer(refused.value) == (len(cdb) // 2, None)


@pytest.mark.parametrize(
    "cdb, conflicts",
    [
        ("1b0000000100", False),
        ("1b0000000000", True),
        ("1b0000001100", True),
        ("1b0000000200", True),
        ("1e0000000000", False),
        ("1e0000000100", True),
        ("120000002400", False),
        ("1a0000002400", True),
    ],
)
def test_spc2_reservation_rules_look_at_the_cdb(cdb, conflicts):
    """SBC-2 5.1 table 13: START with power condition 0 and ALLOW do not conflict."""
    assert lookup(bytes.fromhex(cdb)).conflicts(bytes.fromhex(cdb)) is conflicts


@given(st.binary(max_size=32))
def test_any_cdb_is_served_or_refused(cdb):
    try:
        command = lookup(cdb)
        check_reserved(command, cdb)
    except (InvalidOpcode, InvalidFieldInCdb):
        return
    assert command.operation_code == cdb[0]
