import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi.layout import Field, Layout, bits, flag, number

LAYOUT = Layout(4, (flag("a", 0, 7), bits("b", 0, 5, 3), number("c", 1, 2), bits("d", 3, 1, 0)))


def test_positions_are_those_of_the_standards_tables():
    assert LAYOUT.pack({"a": 1}).hex() == "80000000"
    assert LAYOUT.pack({"b": 7}).hex() == "38000000"
    assert LAYOUT.pack({"c": 0x1234}).hex() == "00123400"
    assert LAYOUT.pack({"d": 2}).hex() == "00000002"


@given(
    st.fixed_dictionaries({"a": st.integers(0, 1), "b": st.integers(0, 7), "c": st.integers(0, 0xFFFF), "d": st.integers(0, 3)})
)
def test_round_trip(values):
    assert LAYOUT.unpack(LAYOUT.pack(values) + b"more") == values


@pytest.mark.parametrize("values", [{"a": 2}, {"b": -1}, {"c": 0x10000}])
def test_a_value_that_does_not_fit(values):
    with pytest.raises(ValueError, match="fit"):
        LAYOUT.pack(values)


def test_an_unknown_name():
    with pytest.raises(KeyError):
        LAYOUT.pack({"z": 0})


@pytest.mark.parametrize("fields", [[Field("a", 0, 7, 8), Field("b", 0, 0, 1)], [Field("a", 1, 7, 9)]])
def test_fields_that_overlap_or_stick_out(fields):
    with pytest.raises(ValueError, match="outside or over"):
        Layout(2, fields)


def test_too_little_data():
    with pytest.raises(ValueError, match="bytes"):
        LAYOUT.unpack(bytes(3))
