"""``encrypt``: what is stored, whose key it is, and what becomes of it. Its contracts: tests/backstores/test_contracts.py."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import traceback
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from tcm_backstores import key_file
from tcm_backstores.fileio import FileBackstore
from tcm_backstores.filters import encrypt
from tcm_backstores.filters.encrypt import SLICE, EncryptFilter, EncryptOptions
from tcm_backstores.key_file import KeyFile
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_backstores.xts import Xts

from tcm.adapters import adapt
from tcm.backstore import BackstoreError, BackstoreErrorKind, Support
from tcm.failure import ConfigError
from tcm.testing import ModelBackstore
from tcm.testing.backstore import pattern, read

pytestmark = pytest.mark.anyio
SIZE = 1 << 20

# IEEE 1619-2007, annex B, vector 10: XTS-AES-256, a data unit of 512 bytes, its number FFh
IEEE_KEY = bytes.fromhex(
    "2718281828459045235360287471352662497757247093699959574966967627"
    "3141592653589793238462643383279502884197169399375105820974944592"
)
IEEE_PLAIN = bytes(range(256)) * 2
IEEE_CIPHER = bytes.fromhex(
    "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
    "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
    "5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
    "c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca"
    "2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0"
    "b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
    "93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec"
    "583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a"
    "84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
    "505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae"
    "9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29"
    "a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
    "6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f"
    "645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385"
    "1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
    "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151"
)


@pytest.fixture
def key(tmp_path):
    """A key file with the standard's key."""
    path = tmp_path / "key"
    path.write_bytes(IEEE_KEY)
    path.chmod(0o600)
    return path


@asynccontextmanager
async def opened(inner, path, **options):
    filtered = EncryptFilter(adapt(inner), EncryptOptions(str(path), **options))
    try:
        await filtered.open()
        yield filtered
    finally:
        await filtered.aclose()


class TestCipher:
    def test_known_answer(self):
        cipher = Xts(IEEE_KEY, 512)
        assert cipher.encrypt(IEEE_PLAIN, 0xFF * 512) == IEEE_CIPHER
        assert cipher.decrypt(IEEE_CIPHER, 0xFF * 512) == IEEE_PLAIN

    async def test_known_answer_on_the_medium(self, key):
        """By the way of a file, beginning one sector before."""
        model = ModelBackstore()
        async with opened(model, key) as filtered:
            await filtered.writev([bytes(512), IEEE_PLAIN], 0xFE * 512)
        assert model.data[0xFF * 512 : 0x100 * 512] == IEEE_CIPHER

    @pytest.mark.parametrize("unit", [512, 1024, 2048, 4096])
    def test_tweak_is_the_number_of_the_first_sector(self, unit):
        """So a larger unit begins as a smaller one does at the same place, and no two units look alike."""
        small, large = Xts(IEEE_KEY, 512), Xts(IEEE_KEY, unit)
        data = bytes(3 * unit)
        stored = large.encrypt(data, 5 * unit)
        for start in range(0, 3 * unit, unit):
            assert stored[start : start + 512] == small.encrypt(bytes(512), 5 * unit + start)
        assert len({stored[i : i + 16] for i in range(0, len(stored), 16)}) == len(stored) // 16
        assert large.decrypt(stored, 5 * unit) == data

    def test_beyond_32_bits(self):
        cipher = Xts(IEEE_KEY, 512)
        assert cipher.encrypt(bytes(512), 1 << 41) != cipher.encrypt(bytes(512), 0)

    def test_a_hole_is_zeroes(self):
        stored = Xts(IEEE_KEY, 512).encrypt(IEEE_PLAIN, 512)
        assert Xts(IEEE_KEY, 512).decrypt(bytes(512) + stored + bytes(512), 0) == bytes(512) + IEEE_PLAIN + bytes(512)


class TestStored:
    async def test_no_plain_text_on_the_disk(self, tmp_path):
        image = tmp_path / "disk.img"
        secret = b"the plain text of a secret letter"
        async with opened(FileBackstore(str(image), SIZE), tmp_path / "key") as filtered:
            for offset, length in ((0, 512), (4096, 8192), (65536, 4 * SLICE * 512)):
                data = (secret * (length // len(secret) + 1))[:length]
                await filtered.writev([data], offset)
                assert await read(filtered, offset, length) == data
            if not filtered.write_nowait([(secret * 16)[:512]], 1024):  # the page may have left the cache
                await filtered.writev([(secret * 16)[:512]], 1024)
            await filtered.write_zeroes(2048, 1024, may_unmap=False)
            await filtered.flush()
            on_disk = image.read_bytes()
            assert secret[:8] not in on_disk
            assert on_disk[2048:3072].count(0) < 64, "zeroes that were written are encrypted, too"
            assert await read(filtered, 2048, 1024) == bytes(1024)

    async def test_unmapped_and_never_written_blocks_read_as_zeroes(self, tmp_path):
        async with opened(FileBackstore(str(tmp_path / "disk.img"), SIZE), tmp_path / "key") as filtered:
            assert filtered.capabilities().unmap_zeroes
            assert not any(await read(filtered, 0, SIZE))
            await filtered.writev([pattern(65536, 1)], 0)
            await filtered.unmap(4096, 8192)
            await filtered.write_zeroes(16384, 4096, may_unmap=True)
            found = await read(filtered, 0, 65536)
            assert found[:4096] == pattern(65536, 1)[:4096]
            assert not any(found[4096:12288])
            assert not any(found[16384:20480])
            holes = [(run.offset, run.length) for run in await filtered.extents(0, 65536) if not run.mapped]
            assert holes == [(4096, 8192), (16384, 4096)]

    async def test_another_key_reads_noise(self, tmp_path):
        """A wrong key is no error: nothing on the medium tells."""
        image = str(tmp_path / "disk.img")
        async with opened(FileBackstore(image, SIZE), tmp_path / "one") as filtered:
            await filtered.writev([pattern(4096, 1)], 0)
        async with opened(FileBackstore(image, SIZE), tmp_path / "two", create=True) as filtered:
            found = await read(filtered, 0, 4096)
            assert len(set(found)) == 256
            assert pattern(4096, 1)[:16] not in found

    async def test_nothing_goes_past_it(self, key):
        model = ModelBackstore()
        async with opened(model, key, sector_size=4096) as filtered:
            said = filtered.capabilities()
            assert said.block_size == 4096
            assert (said.copy_range, said.protection) == (Support.NONE, Support.NONE)
            assert await filtered.copy_range(model, 0, 4096, 4096) == 0
            with pytest.raises(BackstoreError):
                await filtered.set_protection(64, b"label")
            with pytest.raises(BackstoreError):
                await filtered.write_protection(bytes(8), 0)
            assert filtered.protection_label() == b""

    async def test_what_is_long_does_not_hold_up_the_event_loop(self, key):
        async with opened(RamdiskBackstore(SIZE), key) as filtered:
            limit = SLICE * 512
            assert filtered.write_nowait([pattern(limit, 1)], 0)
            assert filtered.read_nowait([memoryview(bytearray(limit))], 0)
            assert not filtered.write_nowait([pattern(limit + 512, 1)], 0)
            assert not filtered.read_nowait([memoryview(bytearray(limit + 512))], 0)
            await filtered.writev([pattern(5 * limit + 512, 2)], 512)
            assert await read(filtered, 512, 5 * limit + 512) == pattern(5 * limit + 512, 2)


class TestKeyFile:
    async def test_made_for_an_empty_medium(self, tmp_path, caplog):
        path = tmp_path / "key"
        async with opened(FileBackstore(str(tmp_path / "disk.img"), SIZE), path):
            assert path.stat().st_mode & 0o7777 == 0o600
            assert len(set(path.read_bytes())) > 32
        assert sorted(os.listdir(tmp_path)) == ["disk.img", "key"]
        assert "a new key was made" in caplog.text

    async def test_durable_before_it_is_used(self, tmp_path, monkeypatch):
        order = []
        for name in ("fsync", "link"):
            real = getattr(os, name)
            monkeypatch.setattr(key_file.os, name, lambda *args, real=real, name=name: (order.append(name), real(*args))[1])
        assert KeyFile(str(tmp_path / "key")).create() is not None
        assert order == ["fsync", "link", "fsync"]

    async def test_missing_for_a_medium_with_data(self, tmp_path):
        image = str(tmp_path / "disk.img")
        async with opened(FileBackstore(image, SIZE), tmp_path / "key") as filtered:
            await filtered.writev([pattern(512, 1)], SIZE - 512)
        (tmp_path / "key").unlink()
        with pytest.raises(
            ConfigError, match=r"does not exist, and the medium is not empty.* restore the key, or write create"
        ):
            async with opened(FileBackstore(image, SIZE), tmp_path / "key"):
                pass
        assert not (tmp_path / "key").exists()
        async with opened(FileBackstore(image, SIZE), tmp_path / "key", create=True) as filtered:
            assert await read(filtered, SIZE - 512, 512) != pattern(512, 1)

    @pytest.mark.parametrize("unlike", [{"extents": Support.EMULATE}, {"read_only": True}])
    async def test_missing_for_a_medium_that_cannot_tell_or_be_written(self, tmp_path, unlike):
        class Other(RamdiskBackstore):
            def capabilities(self):
                return replace(super().capabilities(), **unlike)

        with pytest.raises(ConfigError, match="as far as can be told"):
            async with opened(Other(SIZE), tmp_path / "key"):
                pass
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        ("prepare", "message"),
        [
            (lambda path: path.chmod(0o640), r"open to others \(mode 0640\); chmod 600 "),
            (lambda path: path.chmod(0o604), "open to others"),
            (lambda path: path.write_bytes(bytes(63)), "has 63 bytes, a key has 64"),
            (lambda path: path.write_bytes(bytes(64)), "both halves of the key are the same"),
            (lambda path: (path.unlink(), path.mkdir()), "is not a file|Is a directory"),
            (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "is not a file"),
            (lambda path: (path.unlink(), path.symlink_to(path)), "Too many levels of symbolic links"),
        ],
    )
    async def test_refused(self, key, prepare, message):
        prepare(key)
        with pytest.raises(ConfigError, match=message) as caught:
            async with opened(RamdiskBackstore(SIZE), key):
                pass
        assert "\n" not in str(caught.value)
        if "halves" not in message:
            with pytest.raises(ConfigError, match=message):
                encrypt.check_config(EncryptOptions(str(key)))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    async def test_somebody_elses(self, key):
        os.chown(key, 4711, -1)
        with pytest.raises(ConfigError, match=r"belongs to somebody else \(user 4711\)"):
            encrypt.check_config(EncryptOptions(str(key)))

    async def test_one_lun_each(self, key):
        async with opened(RamdiskBackstore(SIZE), key):
            with pytest.raises(ConfigError, match="in use by another LUN of this process"):
                async with opened(RamdiskBackstore(SIZE), key):
                    pass

    async def test_two_that_make_it_at_once(self, tmp_path):
        path = tmp_path / "key"
        KeyFile(str(path)).create()
        kept = path.read_bytes()
        with pytest.raises(ConfigError, match=r"cannot be made \(File exists\)"):
            KeyFile(str(path)).create()
        assert path.read_bytes() == kept
        assert os.listdir(tmp_path) == ["key"]

    async def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(ConfigError, match="there is no folder"):
            encrypt.check_config(EncryptOptions(str(tmp_path / "none" / "key")))

    async def test_checking_changes_nothing(self, tmp_path):
        encrypt.check_config(EncryptOptions(str(tmp_path / "key")))
        assert os.listdir(tmp_path) == []

    async def test_bad_sector_size(self, key):
        with pytest.raises(ConfigError, match="write sector-size=4096"):
            encrypt.check_config(EncryptOptions(str(key), sector_size=8192))

    async def test_missing_package(self, key, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
        with pytest.raises(ConfigError, match=r"pip install 'tcm-target-backstores\[encrypt\]'"):
            encrypt.check_config(EncryptOptions(str(key)))


class TestErase:
    async def test_the_old_key_is_overwritten_where_it_was(self, key):
        inode = key.stat().st_ino
        with key.open("rb") as before:
            async with opened(RamdiskBackstore(SIZE), key) as filtered:
                await filtered.writev([pattern(4096, 1)], 0)
                await filtered.erase_key()
                found = await read(filtered, 0, 8192)
                assert len(set(found[:4096])) == 256
                assert not any(found[4096:]), "what was unmapped still is"
                await filtered.writev([pattern(512, 2)], 512)
                assert await read(filtered, 512, 512) == pattern(512, 2)
            assert before.read() == key.read_bytes() != IEEE_KEY
        assert key.stat().st_ino == inode
        assert os.listdir(key.parent) == ["key"]

    async def test_durable_before_it_returns(self, key, monkeypatch):
        synced = []
        monkeypatch.setattr(key_file.os, "fsync", lambda _fd: synced.append(key.read_bytes()))
        async with opened(RamdiskBackstore(SIZE), key) as filtered:
            await filtered.erase_key()
            assert synced == [key.read_bytes()]

    async def test_failure_leaves_no_key_in_use(self, key, monkeypatch):
        """The file may hold either key then: what would be written might never be read again."""

        def fail(_fd):
            raise OSError(errno.EIO, "input/output error")

        async with opened(RamdiskBackstore(SIZE), key) as filtered:
            with monkeypatch.context() as broken:
                broken.setattr(key_file.os, "fsync", fail)
                with pytest.raises(OSError, match="input/output"):
                    await filtered.erase_key()
            with pytest.raises(BackstoreError) as caught:
                await read(filtered, 0, 512)
            assert caught.value.kind is BackstoreErrorKind.NOT_READY
            with pytest.raises(BackstoreError):
                await filtered.writev([bytes(512)], 0)
            assert not filtered.read_nowait([memoryview(bytearray(512))], 0)
            assert not filtered.write_nowait([bytes(512)], 0)
            await filtered.erase_key()
            await filtered.writev([pattern(512, 1)], 0)
            assert await read(filtered, 0, 512) == pattern(512, 1)

    async def test_a_key_file_that_was_exchanged(self, key):
        """The path names another file: a key written to the old one would be gone after a restart."""
        async with opened(RamdiskBackstore(SIZE), key) as filtered:
            await filtered.writev([pattern(512, 1)], 0)
            key.rename(key.with_name("old"))
            key.write_bytes(os.urandom(64))
            with pytest.raises(OSError, match="exchanged"):
                await filtered.erase_key()
            assert key.with_name("old").read_bytes() == IEEE_KEY
            assert await read(filtered, 0, 512) == pattern(512, 1)

    async def test_not_offered_where_it_cannot_be_replaced(self, key, monkeypatch):
        real = os.open

        def read_only(path, flags, *mode, **more):
            if str(path) == str(key) and flags & os.O_RDWR:
                raise OSError(errno.EROFS, "Read-only file system")
            return real(path, flags, *mode, **more)

        monkeypatch.setattr(key_file.os, "open", read_only)
        async with opened(RamdiskBackstore(SIZE), key) as filtered:
            assert filtered.capabilities().cryptographic_erase is Support.NONE
            await filtered.writev([pattern(512, 1)], 0)
            assert await read(filtered, 0, 512) == pattern(512, 1)


async def test_the_key_is_nowhere_to_be_seen(key, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    shown = []
    async with opened(RamdiskBackstore(SIZE), key) as filtered:
        shown += [repr(filtered), repr(filtered._cipher), repr(vars(filtered)), repr(filtered._key_file)]
        monkeypatch.setattr(key_file.os, "fsync", lambda _fd: 1 / 0)
        try:
            await filtered.erase_key()
        except ZeroDivisionError as error:
            shown.append("".join(traceback.TracebackException.from_exception(error, capture_locals=False).format()))
    text = "".join(shown) + caplog.text
    for secret in (IEEE_KEY, key.read_bytes()):
        assert secret.hex()[:16] not in text
        assert repr(secret)[2:20] not in text
