import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi import designators, vpd
from tcm.scsi.designators import Association, Designator
from tcm.scsi.inquiry import ProtocolIdentifier

SERIAL = "b7a36fbd-94eb-4c69-8c09-ff4c53d8877a"


def test_naa_is_lios():
    """Captured from LIO (kernel 6.12) for this unit serial."""
    assert designators.naa_6(SERIAL).pack().hex() == "01030010" + "6001405b7a36fbd94eb4c698c09ff4c5"


@pytest.mark.parametrize("serial, expected", [("", "6001405" + "0" * 25), ("xyz-1", "60014051" + "0" * 24)])
def test_naa_of_a_short_serial(serial, expected):
    assert designators.naa_6(serial).data.hex() == expected


def test_naa_of_another_company():
    assert designators.naa_6("ff", 0xABCDEF).data.hex() == "6abcdefff" + "0" * 23


def test_t10_vendor_id_is_lios():
    assert designators.t10_vendor_id("LIO-ORG", "file0", SERIAL).pack() == b"\x02\x01\x00\x32LIO-ORG file0:" + SERIAL.encode()


def test_port_designators_are_lios():
    """Captured from LIO; it adds groups, which come with ALUA."""
    iscsi = ProtocolIdentifier.ISCSI
    assert designators.relative_target_port(2, iscsi).pack().hex() == "5194000400000002"
    assert designators.target_port_group(0, iscsi).pack().hex() == "5195000400000000"
    name = "iqn.2003-01.org.linux-iscsi.lio:t1"
    port = designators.scsi_name_string(f"{name},t,0x0002", Association.TARGET_PORT, iscsi).pack()
    assert port == bytes.fromhex("5398002c") + name.encode() + b",t,0x0002\0"
    device = designators.scsi_name_string(name, Association.TARGET_DEVICE, iscsi).pack()
    assert device == bytes.fromhex("53a80024") + name.encode() + b"\0\0"


def test_without_a_protocol_piv_is_zero():
    assert designators.relative_target_port(1).pack().hex() == "0114000400000001"


@given(st.text(max_size=60))
def test_scsi_name_strings_are_terminated_and_padded(name):
    designator = designators.scsi_name_string(name, Association.TARGET_DEVICE)
    assert len(designator.data) % 4 == 0
    assert designator.data.rstrip(b"\0") == name.encode().rstrip(b"\0")
    assert designator.data.endswith(b"\0")


def test_what_is_too_long():
    with pytest.raises(ValueError, match="takes"):
        designators.scsi_name_string("x" * 255, Association.TARGET_PORT)
    with pytest.raises(ValueError, match="256"):
        Designator(1, 0, 0, bytes(256)).pack()


any_designator = st.builds(
    Designator,
    st.integers(0, 15),
    st.integers(0, 15),
    st.integers(0, 3),
    st.binary(max_size=255),
    st.none() | st.integers(0, 15),
)


@given(st.lists(any_designator, max_size=5))
def test_round_trip(found):
    page = vpd.device_identification(found)
    assert int.from_bytes(page[2:4]) == len(page) - 4
    assert designators.parse(page[4:]) == found


@given(st.lists(any_designator, min_size=1, max_size=3), st.data())
def test_a_page_that_is_cut_short(found, data):
    packed = designators.pack(found)
    boundaries = {0}
    for designator in found:
        boundaries.add(max(boundaries) + 4 + len(designator.data))
    cut = data.draw(st.integers(1, len(packed) - 1))
    if cut in boundaries:
        assert designators.parse(packed[:cut]) == found[: sorted(boundaries).index(cut)]
    else:
        with pytest.raises(ValueError, match="cut short"):
            designators.parse(packed[:cut])
