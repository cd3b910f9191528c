"""Mode pages: golden bytes, values, and MODE SELECT parameter lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi.check_condition import InvalidFieldInParameterList, ParameterListLengthError
from tcm.scsi.mode_data import block_descriptor, mode_sense_data, parse_mode_select
from tcm.scsi.mode_pages import (
    BLOCK_DEVICE_PAGES,
    CACHING,
    CONTROL,
    CONTROL_EXTENSION,
    INFORMATIONAL_EXCEPTIONS,
    RECOVERY,
    ModePageValues,
    PageControl,
)

BLOCKS, BLOCK_SIZE = 0x1000, 512
each_page = pytest.mark.parametrize("page", BLOCK_DEVICE_PAGES, ids=lambda page: page.name)


def select(data, values=None, *, ten=False):
    return parse_mode_select(data, values or ModePageValues(), ten=ten, blocks=BLOCKS, block_size=BLOCK_SIZE)


def pointer(refused):
    specific = refused.value.sense.sense_key_specific
    assert specific[0] & 0xC8 == 0x88, "SKSV and BPV, in the parameter list"
    return int.from_bytes(specific[1:]), specific[0] & 7


@pytest.mark.parametrize(
    "key, default",
    [
        (RECOVERY, "010a 00000000 00000000 0000"),
        (CACHING, "0812 0000" + "00" * 16),
        (CONTROL, "0a0a 0210 0000 0000 ffff 0000"),
        (CONTROL_EXTENSION, "4a01 001c 07" + "00" * 27),
        (INFORMATIONAL_EXCEPTIONS, "1c0a 0800 00000000 00000000"),
    ],
)
def test_default_pages(key, default):
    assert ModePageValues().page(key, PageControl.DEFAULT) == bytes.fromhex(default)


@pytest.mark.parametrize(
    "key, mask",
    [
        (RECOVERY, "010a 00000000 00000000 0000"),
        (CACHING, "0812 0400" + "00" * 16),
        (CONTROL, "0a0a 0c00 38d0 0000 0000 0000"),
        (CONTROL_EXTENSION, "4a01 001c" + "00" * 28),
        (INFORMATIONAL_EXCEPTIONS, "1c0a 0000 00000000 00000000"),
    ],
)
def test_changeable_masks(key, mask):
    assert ModePageValues().page(key, PageControl.CHANGEABLE) == bytes.fromhex(mask)


def test_fixed_fields_are_not_changeable():
    values = ModePageValues(fixed=[(CACHING, "wce"), *((CONTROL, name) for name in ("swp", "tas", "ato", "dpicz", "rwwp"))])
    assert values.page(CACHING, PageControl.CHANGEABLE)[2] == 0
    assert values.page(CONTROL, PageControl.CHANGEABLE)[2:6].hex() == "04003000"


@each_page
def test_layouts_leave_the_header_alone(page):
    assert all(field.byte >= len(page.header) for field in page.layout.fields)
    assert page.layout.length == len(page.header) + (page.header[-1] if page.key[1] == 0 else int.from_bytes(page.header[2:]))
    assert set(page.allowed) <= page.changeable


def test_savable_sets_ps_in_every_page():
    values = ModePageValues(savable=True)
    for control in PageControl:
        assert values.page(CONTROL, control)[0] == 0x8A
        assert values.page(CONTROL_EXTENSION, control)[0] == 0xCA


def test_saving_and_reset():
    values = ModePageValues(savable=True)
    swp = values.pages[CONTROL].pack({**values.pages[CONTROL].defaults, "swp": 1})
    values.current[CONTROL] = swp
    values.save()
    values.current = dict(values.default)
    values.reset()
    assert values.get(CONTROL, "swp") == 1
    assert values.page(CONTROL, PageControl.SAVED)[4] == 0x08
    assert values.saved_fields() == {
        "08/00": {"wce": 0},
        "0a/00": {"ato": 0, "d_sense": 0, "dpicz": 0, "rwwp": 0, "swp": 1, "tas": 0, "ua_intlck_ctrl": 0},
    }
    other = ModePageValues(savable=True)
    other.load_fields(values.saved_fields())
    assert other.get(CONTROL, "swp") == 1
    assert other.default == values.default


@pytest.mark.parametrize(
    "kept",
    [
        {"ff/00": {"swp": 1}},
        {"0a/00": {"nothing": 1, "tst": 1}},
        {"0a/00": {"ua_intlck_ctrl": 1}},
        {"0a/00": {"swp": 2}},
        {"0a/00": {"swp": "yes"}},
    ],
)
def test_saved_values_that_cannot_be_are_passed_over(kept):
    values = ModePageValues(savable=True)
    values.load_fields(kept)
    assert values.current == values.default


def test_block_descriptors():
    assert block_descriptor(0x123456, 512, long=False).hex() == "0012345600000200"
    assert block_descriptor(1 << 33, 4096, long=False).hex() == "ffffffff00001000"
    assert block_descriptor(1 << 33, 4096, long=True).hex() == "00000002000000000000000000001000"


def test_mode_sense_headers():
    descriptor = block_descriptor(1, 512, long=False)
    six = mode_sense_data([b"page"], ten=False, write_protected=True, dpofua=True, descriptor=descriptor)
    assert six == bytes.fromhex("0f009008") + descriptor + b"page"
    ten = mode_sense_data([b"page"], ten=True, write_protected=False, dpofua=True, descriptor=descriptor)
    assert ten == bytes.fromhex("0012001000000008") + descriptor + b"page"
    long = mode_sense_data([], ten=True, write_protected=False, dpofua=False, descriptor=block_descriptor(1, 512, long=True))
    assert long[:8].hex() == "0016000001000010"


# -- MODE SELECT -------------------------------------------------------------------------------------------------------------

HEADER_6, HEADER_10 = bytes(4), bytes(8)


def changed(key=CONTROL, **fields):
    values = ModePageValues()
    page = values.pages[key]
    return page.pack({**page.defaults, **fields})


def test_nothing_at_all_changes_nothing():
    assert select(b"") == {}
    assert select(HEADER_6) == {}
    assert select(HEADER_10, ten=True) == {}


@pytest.mark.parametrize("ten, header", [(False, HEADER_6), (True, HEADER_10)])
def test_two_pages(ten, header):
    control, caching = changed(swp=1, ua_intlck_ctrl=3), changed(CACHING, wce=1)
    assert select(header + control + caching, ten=ten) == {CONTROL: control, CACHING: caching}


def test_subpage():
    page = changed(CONTROL_EXTENSION)
    assert select(HEADER_6 + page) == {CONTROL_EXTENSION: page}


def test_later_page_is_compared_with_the_earlier_one():
    first, second = changed(swp=1), changed(d_sense=1)
    assert select(HEADER_6 + first + second) == {CONTROL: second}


@pytest.mark.parametrize("blocks", [0, BLOCKS, 0xFFFFFFFF])
def test_block_descriptor_that_changes_nothing(blocks):
    assert select(bytes((0, 0, 0, 8)) + block_descriptor(blocks, BLOCK_SIZE, long=False)) == {}
    long = {0xFFFFFFFF: 0xFFFFFFFFFFFFFFFF}.get(blocks, blocks)
    assert select(bytes((0, 0, 0, 0, 1, 0, 0, 16)) + block_descriptor(long, BLOCK_SIZE, long=True), ten=True) == {}


def test_wp_and_dpofua_are_ignored():
    assert select(bytes((0, 0, 0x90, 0))) == {}


@pytest.mark.parametrize(
    "parameters, ten, byte, bit",
    [
        ("17000000", False, 0, 7),  # MODE DATA LENGTH
        ("00010000", False, 1, 7),  # MEDIUM TYPE
        ("00000100", False, 2, 0),  # reserved in DEVICE-SPECIFIC PARAMETER
        ("00000007", False, 3, 7),  # BLOCK DESCRIPTOR LENGTH
        ("0016000000000000", True, 1, 7),
        ("0000ff0000000000", True, 2, 7),
        ("0000002000000000", True, 3, 5),
        ("0000000080000000", True, 4, 7),  # reserved beside LONGLBA
        ("0000000000010000", True, 5, 7),
        ("0000000001000008", True, 6, 7),  # short length with LONGLBA
        ("00000008" + "0000100100000200", False, 4, 7),  # another capacity
        ("00000008" + "0000100000001000", False, 9, 7),  # another block size
        ("00000008" + "0000100001000200", False, 8, 7),  # reserved
        ("0000000001000010" + "0000000000001000" + "00000000" + "00001000", True, 20, 7),
        ("0000000001000010" + "0000000000001000" + "00010000" + "00000200", True, 17, 7),
        ("00000000" + "8a0a0210000000000000ffff", False, 4, 7),  # PS
        ("00000000" + "0b0a" + "00" * 10, False, 4, 5),  # no such page
        ("00000000" + "4b01001c" + "00" * 28, False, 4, 5),
        ("00000000" + "4a02001c" + "00" * 28, False, 5, 7),  # no such subpage
        ("00000000" + "4a00000a" + "00" * 10, False, 5, 7),  # SPF for a page that has none
        ("00000000" + "0a0b" + "00" * 11, False, 5, 7),  # page length
        ("00000000" + "4a01001d" + "00" * 29, False, 6, 7),
        ("00000000" + "0a0a 2210 0000 0000 ffff 0000", False, 6, 7),  # TST
        ("00000000" + "0a0a 0200 0000 0000 ffff 0000", False, 7, 7),  # QUEUE ALGORITHM MODIFIER
        ("00000000" + "0a0a 0210 1000 0000 ffff 0000", False, 8, 5),  # UA_INTLCK_CTRL 01b
        ("00000000" + "0a0a 0210 0000 0100 ffff 0000", False, 10, 0),  # reserved
        ("00000000" + "0a0a 0210 0000 0000 fffe 0000", False, 12, 7),  # BUSY TIMEOUT PERIOD
        ("00000000" + "0812 0100" + "00" * 16, False, 6, 0),  # RCD
    ],
)
def test_invalid_field_in_parameter_list(parameters, ten, byte, bit):
    """SPC-5 4.5.2.4.2: the field pointer names the byte, and the most significant bit of the field."""
    with pytest.raises(InvalidFieldInParameterList) as refused:
        select(bytes.fromhex(parameters), ten=ten)
    assert pointer(refused) == (byte, bit)


def test_every_unchangeable_field_is_pointed_at():
    values = ModePageValues()
    for page in BLOCK_DEVICE_PAGES:
        current = values.current[page.key]
        for field in page.layout.fields:
            if field.name in page.changeable:
                continue
            flipped = int.from_bytes(current) ^ field.mask(len(current))
            with pytest.raises(InvalidFieldInParameterList) as refused:
                select(HEADER_6 + flipped.to_bytes(len(current), "big"))
            assert pointer(refused) == (4 + field.byte, field.bit)


VALID = bytes((0, 0, 0, 8)) + block_descriptor(BLOCKS, BLOCK_SIZE, long=False) + changed(swp=1) + changed(CONTROL_EXTENSION)
ENDS = {0, 12, 24, 56}


@pytest.mark.parametrize("length", range(len(VALID) + 1))
def test_truncated_lists(length):
    if length in ENDS:
        select(VALID[:length])
    else:
        with pytest.raises(ParameterListLengthError):
            select(VALID[:length])


@given(st.booleans(), st.binary(max_size=80), st.integers(0, len(VALID)))
def test_any_list_is_taken_or_refused(ten, junk, cut):
    values = ModePageValues()
    before = dict(values.current)
    try:
        pages = select((HEADER_10 if ten else VALID[:cut]) + junk, values, ten=ten)
    except (InvalidFieldInParameterList, ParameterListLengthError):
        pages = {}
    assert values.current == before
    for key, new in pages.items():
        mask, old = values.mask[key], values.current[key]
        assert all((now ^ then) & ~may == 0 for now, then, may in zip(new[4:], old[4:], mask[4:], strict=True))


@given(
    st.fixed_dictionaries(
        {
            "swp": st.integers(0, 1),
            "tas": st.integers(0, 1),
            "d_sense": st.integers(0, 1),
            "ua_intlck_ctrl": st.sampled_from([0, 2, 3]),
        }
    )
)
def test_what_may_be_changed_comes_back(fields):
    values = ModePageValues()
    values.current = {**values.current, **select(HEADER_6 + changed(**fields), values)}
    assert {name: values.get(CONTROL, name) for name in fields} == fields
