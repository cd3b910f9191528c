"""Sense data in both formats (SPC-5 4.5.2, 4.5.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi import check_condition
from tcm.scsi.check_condition import CheckCondition, InvalidFieldInCdb, InvalidFieldInParameterList
from tcm.scsi.sense import FieldPointer, Sense, SenseKey, sense_codes


def test_fixed_format():
    data = Sense(key=SenseKey.MISCOMPARE, asc=0x1D, information=0x1234, command_specific=5).pack()
    assert data.hex(" ") == "f0 00 0e 00 00 12 34 0a 00 00 00 05 1d 00 00 00 00 00"


def test_descriptor_format():
    data = Sense(key=SenseKey.ILLEGAL_REQUEST, asc=0x24, information=1 << 40, sense_key_specific=b"\xc8\x00\x02").pack(
        descriptor=True
    )
    assert data.hex(" ") == "72 05 24 00 00 00 00 14 00 0a 80 00 00 00 01 00 00 00 00 00 02 06 00 00 c8 00 02 00"


def test_deferred():
    deferred = Sense(key=SenseKey.MEDIUM_ERROR, asc=0x0C, deferred=True)
    assert deferred.pack()[0] == 0x71
    assert deferred.pack(descriptor=True)[0] == 0x73


def test_information_that_does_not_fit_is_not_valid():
    data = Sense(key=SenseKey.MEDIUM_ERROR, information=1 << 32).pack()
    assert data[0] == 0x70
    assert data[3:7] == bytes(4)


@pytest.mark.parametrize(
    "field, specific",
    [
        (FieldPointer(in_cdb=True, byte=2), "c00002"),
        (FieldPointer(in_cdb=True, byte=1, bit=7), "cf0001"),
        (FieldPointer(in_cdb=False, byte=0x123, bit=0), "880123"),
    ],
)
def test_field_pointers(field, specific):
    assert field.sense_key_specific().hex() == specific


def test_a_field_pointer_has_16_bits():
    assert FieldPointer(in_cdb=False, byte=0xFFFF).sense_key_specific() == b"\x80\xff\xff"
    assert FieldPointer(in_cdb=False, byte=0x10000).sense_key_specific() is None
    assert InvalidFieldInParameterList.at(1 << 17).sense.pack()[15:] == bytes(3)


def test_field_pointers_of_exceptions():
    assert InvalidFieldInCdb.at(1, 4).sense.pack()[15:].hex() == "cc0001"
    assert InvalidFieldInParameterList.at(4).sense.pack()[15:].hex() == "800004"


def test_exceptions_carry_distinct_codes():
    classes = [each for each in vars(check_condition).values() if isinstance(each, type) and issubclass(each, CheckCondition)]
    codes = {(each.key, each.asc, each.ascq): each for each in classes if each is not CheckCondition}
    assert len(codes) == len(classes) - 1, "CheckCondition itself is an InternalTargetFailure"
    for each in classes:
        assert (each().sense.key, each().sense.asc, each().sense.ascq) == (each.key, each.asc, each.ascq)


senses = st.builds(
    Sense,
    key=st.sampled_from(SenseKey),
    asc=st.integers(0, 255),
    ascq=st.integers(0, 255),
    information=st.none() | st.integers(0, (1 << 64) - 1),
    command_specific=st.none() | st.integers(0, (1 << 64) - 1),
    sense_key_specific=st.none() | st.binary(min_size=3, max_size=3),
)


@given(senses, st.booleans())
def test_lengths_and_codes(given_sense, descriptor):
    data = given_sense.pack(descriptor=descriptor)
    assert len(data) == data[7] + 8 <= 252
    assert sense_codes(data) == (given_sense.key, given_sense.asc, given_sense.ascq)


@given(st.binary(max_size=20))
def test_codes_of_whatever_a_target_sends(data):
    key, asc, ascq = sense_codes(data)
    assert 0 <= key <= 15
    assert len(data) > 3 or (asc, ascq) == (0, 0)


def test_codes_of_both_formats():
    """SPC-5 4.5.2.1 and 4.5.3: where each format has them; VALID does not matter; cut short, there are none."""
    assert sense_codes(bytes.fromhex("f1 00 05 00000000 0a 00000000 24 01 00 000000")) == (5, 0x24, 1)
    assert sense_codes(bytes.fromhex("73 06 29 02")) == (6, 0x29, 2)
    assert sense_codes(bytes.fromhex("70 00 06 00000000")) == (6, 0, 0)
    assert sense_codes(b"") == (0, 0, 0)
