import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi import lun


@pytest.mark.parametrize(
    "number, field",
    [
        (0, "0000000000000000"),
        (255, "00ff000000000000"),
        (256, "4100000000000000"),
        (16383, "7fff000000000000"),
        (16384, "d200400000000000"),
        (0xFFFFFF, "d2ffffff00000000"),
    ],
)
def test_each_addressing_method(number, field):
    assert lun.encode(number).hex() == field
    assert lun.decode(bytes.fromhex(field)) == number


@pytest.mark.parametrize("number", [-1, 0x1000000])
def test_what_cannot_be_encoded(number):
    with pytest.raises(ValueError, match="LUN"):
        lun.encode(number)


def test_flat_form_of_a_small_lun_is_the_same_lun():
    assert lun.decode(bytes.fromhex("4007000000000000")) == 7


@pytest.mark.parametrize(
    "field",
    [
        lun.REPORT_LUNS_WELL_KNOWN,
        b"",
        bytes(7),
        bytes(9),
        bytes.fromhex("0001000000000001"),
        bytes.fromhex("0101000000000000"),
        bytes.fromhex("8000000000000000"),
        bytes.fromhex("d200000100010000"),
        bytes.fromhex("e200000000000000"),
    ],
)
def test_what_is_not_a_simple_lun(field):
    assert lun.decode(field) is None


@given(st.integers(0, 0xFFFFFF))
def test_round_trip(number):
    assert lun.decode(lun.encode(number)) == number


@given(st.binary(min_size=8, max_size=8))
def test_decode_never_raises(field):
    number = lun.decode(field)
    assert number is None or 0 <= number <= lun.MAXIMUM
