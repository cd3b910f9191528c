"""The real ``encrypt`` filter around a backstore in memory that tests can look into and hold up."""

from __future__ import annotations

from pathlib import Path

from support.memory import GatedMemory
from tcm_backstores.filters.encrypt import EncryptFilter, EncryptOptions

from tcm.adapters import adapt


class EncryptedMemory(EncryptFilter):
    """The gate, the failure and the log of ``memory`` are those of :meth:`erase_key` as well.

    :param directory: where the key file is; it is made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self.memory = GatedMemory()
        self.key_path = directory / "key"
        super().__init__(adapt(self.memory), EncryptOptions(str(self.key_path), create=True))

    @property
    def key(self) -> bytes:
        return self.key_path.read_bytes()

    async def erase_key(self) -> None:
        await self.memory._pass("erase_key", 0, 0)
        await super().erase_key()
