"""The shipped contracts, applied to everything this repository ships."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tcm_backstores.fileio import FileBackstore
from tcm_backstores.filters.delay import DelayFilter, DelayOptions
from tcm_backstores.filters.encrypt import EncryptFilter, EncryptOptions
from tcm_backstores.filters.error import ErrorFilter, ErrorOptions
from tcm_backstores.filters.log import LogFilter, LogOptions
from tcm_backstores.filters.rate import RateFilter, RateOptions
from tcm_backstores.filters.readonly import ReadonlyFilter
from tcm_backstores.null import NullBackstore
from tcm_backstores.ramdisk import RamdiskBackstore

from tcm.adapters import SerializedBackstore, adapt
from tcm.backstore import Backstore, BlockingBackstore, Concurrency
from tcm.filter import PROTECTION, BackstoreFilter, methods
from tcm.testing import BackstoreContract, FilterContract, ModelBackstore

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 1 << 20


class TestRamdisk(BackstoreContract):
    @pytest.fixture
    def make(self):
        return lambda: RamdiskBackstore(SIZE)


class TestRamdiskWithAnOddEnd(BackstoreContract):
    @pytest.fixture
    def make(self):
        return lambda: RamdiskBackstore(SIZE + 512)


class TestNull(BackstoreContract):
    remembers = False
    persistent = True

    @pytest.fixture
    def make(self):
        return lambda: NullBackstore(SIZE)


class TestFileio(BackstoreContract):
    persistent = True

    @pytest.fixture
    def make(self, tmp_path):
        return lambda: FileBackstore(str(tmp_path / "disk.img"), SIZE)


class TestFileioWithAnOddEnd(BackstoreContract):
    persistent = True

    @pytest.fixture
    def make(self, tmp_path):
        return lambda: FileBackstore(str(tmp_path / "disk.img"), SIZE + 512)


class TestFileioWriteThrough(BackstoreContract):
    persistent = True

    @pytest.fixture
    def make(self, tmp_path):
        return lambda: FileBackstore(str(tmp_path / "disk.img"), SIZE, write_back=False, fdatasync=lambda _fd: None)


class TestFileioInMemory(BackstoreContract):
    persistent = True

    @pytest.fixture
    def make(self, tmpfs):
        return lambda: FileBackstore(str(tmpfs / "disk.img"), SIZE)


class Smallest(BlockingBackstore):
    """What a stranger writes first: blocking, serialised, the four required methods and writev."""

    def __init__(self, path) -> None:
        self.path = path
        self.file = None

    def open(self) -> None:
        self.file = open(self.path, "r+b", buffering=0)  # noqa: SIM115  close() closes it

    def size(self) -> int:
        return SIZE

    def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self.file.seek(offset)  # breaks unless requests are serialised
        for buffer in buffers:
            self.file.readinto(buffer)

    def writev(self, buffers, offset: int, fua: bool = False) -> None:
        self.file.seek(offset)
        for buffer in buffers:
            self.file.write(buffer)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class TestSmallest(BackstoreContract):
    persistent = True

    @pytest.fixture
    def make(self, tmp_path):
        path = tmp_path / "disk"
        path.write_bytes(bytes(SIZE))
        return lambda: Smallest(path)


class OnlyReads(Backstore):
    """The required methods alone."""

    async def open(self) -> None:
        pass

    def size(self) -> int:
        return SIZE

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        for buffer in buffers:
            buffer[:] = bytes((offset + i) // 512 % 256 for i in range(len(buffer)))
            offset += len(buffer)

    async def aclose(self) -> None:
        pass


class TestOnlyReads(BackstoreContract):
    @pytest.fixture
    def make(self):
        return OnlyReads


class TestModel(BackstoreContract):
    @pytest.fixture
    def make(self):
        return lambda: ModelBackstore(SIZE)


class TestFilteredRamdisk(BackstoreContract):
    """Filters on a backstore make a backstore."""

    @pytest.fixture
    def make(self):
        inner = LogFilter(adapt(RamdiskBackstore(SIZE)), LogOptions())
        return lambda: ErrorFilter(RateFilter(inner, RateOptions(iops=1e9)), ErrorOptions(rate=0.0))


class TestReadonlyRamdisk(BackstoreContract):
    @pytest.fixture
    def make(self):
        return lambda: ReadonlyFilter(adapt(RamdiskBackstore(SIZE)))


@pytest.mark.parametrize("unit", [512, 4096])
class TestEncryptedRamdisk(BackstoreContract):
    @pytest.fixture
    def make(self, tmp_path, unit):
        options = EncryptOptions(str(tmp_path / "key"), sector_size=unit)
        return lambda: EncryptFilter(adapt(RamdiskBackstore(SIZE)), options)


@pytest.mark.parametrize("size", [SIZE, SIZE + 512])
class TestEncryptedFileio(BackstoreContract):
    persistent = True

    @pytest.fixture
    def make(self, tmp_path, size):
        options = EncryptOptions(str(tmp_path / "key"))
        return lambda: EncryptFilter(adapt(FileBackstore(str(tmp_path / "disk.img"), size)), options)


class TestEncryptedPlainOne(BackstoreContract):
    """Around a backstore that can only read and write: zeroes are written, encrypted."""

    persistent = True

    @pytest.fixture
    def make(self, tmp_path):
        class Plain(BlockingBackstore):
            def __init__(self):
                self.file = None

            def open(self):
                (tmp_path / "disk.img").touch()
                os.truncate(tmp_path / "disk.img", SIZE)
                self.file = (tmp_path / "disk.img").open("r+b", buffering=0)

            def size(self):
                return SIZE

            def readv(self, buffers, offset):
                self.file.seek(offset)
                for buffer in buffers:
                    self.file.readinto(buffer)

            def writev(self, buffers, offset, fua=False):
                self.file.seek(offset)
                for buffer in buffers:
                    self.file.write(buffer)

            def close(self):
                if self.file is not None:
                    self.file.close()

        return lambda: EncryptFilter(adapt(Plain()), EncryptOptions(str(tmp_path / "key"), create=True))


class TestReadonlyFilter(FilterContract):
    read_only = True

    @pytest.fixture
    def make(self):
        return ReadonlyFilter


class TestDelayFilter(FilterContract):
    @pytest.fixture
    def make(self):
        return lambda inner: DelayFilter(inner, DelayOptions(read=0.1, write=0.1, jitter=0.1))


class TestDelayFilterOfWrites(FilterContract):
    @pytest.fixture
    def make(self):
        return lambda inner: DelayFilter(inner, DelayOptions(write=0.1))


class TestEncryptFilter(FilterContract):
    changes_data = True

    @pytest.fixture
    def make(self, tmp_path):
        return lambda inner: EncryptFilter(inner, EncryptOptions(str(tmp_path / "key"), create=True))


class TestErrorFilter(FilterContract):
    @pytest.fixture
    def make(self):
        return lambda inner: ErrorFilter(inner, ErrorOptions(offset=1 << 40))


class TestLogFilter(FilterContract):
    @pytest.fixture
    def make(self):
        return lambda inner: LogFilter(inner, LogOptions(label="disk"))


class TestRateFilter(FilterContract):
    @pytest.fixture
    def make(self):
        return lambda inner: RateFilter(inner, RateOptions(iops=1e6, bandwidth=1 << 40))


class TestRateFilterOfReads(FilterContract):
    @pytest.fixture
    def make(self):
        return lambda inner: RateFilter(inner, RateOptions(read_iops=1e6))


class TestSerialized(FilterContract):
    @pytest.fixture
    def make(self):
        return SerializedBackstore


class PlainFilter(BackstoreFilter):
    """Changes nothing and says so; serialised, as filters are by default."""

    passed_through = methods() - {"open", "aclose"}


class TestPlainFilter(FilterContract):
    @pytest.fixture
    def make(self):
        return PlainFilter

    def test_is_serialised(self, make):
        assert make(ModelBackstore()).concurrency is Concurrency.SERIALIZED


class Rot13(BackstoreFilter):
    """Changes data, and accounts for every way in and out."""

    passed_through = frozenset({"size", "flush", "extents"}) | PROTECTION

    async def readv(self, buffers, offset):
        await self.inner.readv(buffers, offset)
        for buffer in buffers:
            buffer[:] = bytes(byte ^ 13 for byte in buffer)

    async def writev(self, buffers, offset, fua=False):
        await self.inner.writev([bytes(byte ^ 13 for byte in buffer) for buffer in buffers], offset, fua)

    async def unmap(self, offset, length):
        await self.write_zeroes(offset, length, may_unmap=True)

    async def write_zeroes(self, offset, length, *, may_unmap, fua=False):
        await self.writev([bytes(length)], offset, fua)

    def read_nowait(self, buffers, offset):
        return False

    def write_nowait(self, buffers, offset):
        return False

    def capabilities(self):
        return replace(self.inner.capabilities(), nowait=False)


class TestDataChangingFilter(FilterContract):
    changes_data = True

    @pytest.fixture
    def make(self):
        return Rot13
