"""CDBs as an initiator builds them."""

from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi import cdb


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1), st.booleans())
def test_the_quick_way_builds_the_same(lba, blocks, fua):
    assert cdb.read_16(lba, blocks, fua=fua) == cdb.read(16, lba, blocks, fua=fua)
    assert cdb.write_16(lba, blocks, fua=fua) == cdb.write(16, lba, blocks, fua=fua)
