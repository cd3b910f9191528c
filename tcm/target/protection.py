"""Which protection information a logical unit's medium has (SBC-4 4.21): found when it is opened, changed by FORMAT UNIT."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import anyio

from tcm.backstore import BackstoreError, Support
from tcm.failure import ConfigError, RuntimeFailure
from tcm.scsi.command_table import lookup
from tcm.scsi.protection import (
    INITIAL,
    LENGTH,
    UNCHECKED_APPLICATION,
    ProtectionType,
    Tags,
    lookup_protected,
)
from tcm.target.device_server import HANDLERS, PROTECTED_HANDLERS
from tcm.target.medium import Medium
from tcm.target.protected_medium import ProtectedMedium
from tcm.target.unit_attention import CAPACITY_DATA_HAS_CHANGED

if TYPE_CHECKING:
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus

log = logging.getLogger(__name__)

_STEP = 1 << 17
"""Blocks whose protection information is written at once: 1 MiB of it."""


class Protection:
    """One logical unit's protection information. The backstore keeps the type in the label of its protection area."""

    def __init__(self, logical_unit: LogicalUnit) -> None:
        self._logical_unit = logical_unit
        self.kind = ProtectionType.NONE
        """What the medium is formatted with."""
        self.blocks = 0
        """For how many blocks there is protection information."""
        self._before = ProtectionType.NONE
        """What it was formatted with when :meth:`begin` was called."""

    @property
    def supported(self) -> bool:
        """PROTECT: the medium can be formatted with protection information."""
        return self._logical_unit.capabilities.protection is Support.NATIVE

    @property
    def application_tag(self) -> int:
        """Of blocks that are written without one: not to be touched by us if ATO is set (SBC-4 table 133, note h)."""
        return UNCHECKED_APPLICATION if self._logical_unit.mode_parameters.application_tag_owner else 0

    @property
    def checks_by_default(self) -> bool:
        """What a protect field of zero says: DPICZ is zero."""
        return not self._logical_unit.mode_parameters.unchecked_by_default

    def tags(self, lba: int) -> Tags:
        """What is known of the tags from ``lba`` on without being told: type 1 says what the reference tags are."""
        return Tags(lba & 0xFFFFFFFF if self.kind is ProtectionType.TYPE_1 else None)

    def limit(self, blocks: int) -> int:
        """The capacity of a medium of ``blocks``: what has grown since it was formatted has no protection information."""
        return min(blocks, self.blocks) if self.kind else blocks

    # life cycle

    async def open(self) -> None:
        """Take up what the medium is formatted with. Raises :class:`ConfigError`, :class:`RuntimeFailure`."""
        lu = self._logical_unit
        attributes = lu.attributes
        wanted = ProtectionType(attributes.pi_prot_type)
        label = lu.backstore.protection_label() if self.supported else b""
        kind, blocks = self._parse(label) if label else (None, 0)
        if wanted and not self.supported:
            raise ConfigError(
                f"{lu.name}: pi_prot_type={wanted:d}: this backstore cannot keep protection information; leave it out"
            )
        if (kind is None and not wanted) or (kind is wanted) or not (kind is None or attributes.pi_prot_format):
            if kind is not None and wanted and kind is not wanted:
                log.warning(
                    "%s: pi_prot_type=%d has no effect: the medium is formatted with type %d; pi_prot_format=1 changes that",
                    lu.name,
                    wanted,
                    kind,
                )
            self._become(kind or ProtectionType.NONE, blocks)
            beyond = (lu.backstore.size() >> lu.block_shift) - lu.blocks
            if kind and beyond > 0:
                log.warning("%s: its medium has grown: %d blocks are out of reach until it is formatted again", lu.name, beyond)
            return
        if lu.read_only:
            raise ConfigError(
                f"{lu.name}: pi_prot_type={wanted:d}: a read-only medium stays as it is; leave out read_only once"
            )
        log.info("%s: its medium is changed from protection information of type %d to %d", lu.name, kind or 0, wanted)
        try:
            await self.begin(wanted)
            await self.erase(0, lu.blocks)
            await self.finish(wanted)
        except (OSError, BackstoreError) as error:
            raise RuntimeFailure(f"{lu.name}: pi_prot_type={wanted:d}: it cannot be kept beside the data: {error}") from error

    def _parse(self, label: bytes) -> tuple[ProtectionType, int]:
        lu = self._logical_unit
        try:
            found = json.loads(label)
            kind, block_size, blocks = ProtectionType(found["type"]), int(found["block_size"]), int(found["blocks"])
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{lu.name}: its protection information is labelled {label!r}, which says nothing") from error
        if kind and block_size != lu.block_size:
            raise ConfigError(
                f"{lu.name}: formatted with protection information for {block_size}-byte blocks; write block_size={block_size}"
            )
        return kind, blocks

    # FORMAT UNIT

    async def begin(self, kind: ProtectionType) -> None:
        """From now on the medium has none, until :meth:`finish`; whoever calls it keeps commands out.

        Raises ``OSError`` or :class:`BackstoreError`, as all that follow do.
        """
        lu = self._logical_unit
        self._before = self.kind
        self._become(ProtectionType.NONE, 0)
        if self.supported and (kind or lu.backstore.protection_label()):
            self.blocks = lu.blocks if kind else 0
            await self._set(b"")

    async def erase(self, lba: int, blocks: int) -> None:
        """All ones for a range, formatted or being so; nothing if there is no protection information."""
        lu = self._logical_unit
        if isinstance(lu.medium, ProtectedMedium):
            await lu.medium.forget(lba, blocks)
            return
        end = min(lba + blocks, self.blocks)
        for first in range(lba, end, _STEP):
            with anyio.CancelScope(shield=True):
                await lu.backstore.write_protection(INITIAL * min(_STEP, end - first), first * LENGTH)
            await lu.breathe()

    async def finish(self, kind: ProtectionType, *, by: ITLNexus | None = None) -> None:
        """The medium is formatted: durable when this returns. Everybody but ``by`` hears of a change of type."""
        lu = self._logical_unit
        if self.supported and (kind or lu.attributes.pi_prot_type):
            await lu.medium.flush(write=True)
            await self._set(json.dumps({"type": kind, "block_size": lu.block_size, "blocks": self.blocks}).encode())
        self._become(kind, self.blocks)
        if kind is not self._before:
            lu.establish_attention(CAPACITY_DATA_HAS_CHANGED, except_for=by)

    async def _set(self, label: bytes) -> None:
        with anyio.CancelScope(shield=True):
            await self._logical_unit.backstore.set_protection(self.blocks * LENGTH, label)

    def _become(self, kind: ProtectionType, blocks: int) -> None:
        """Settle all that depends on the type: what reads and writes, which commands there are, and what they do."""
        lu = self._logical_unit
        before, self.kind, self.blocks = self.kind, kind, blocks
        if before is kind:
            return
        cache, old = lu.medium.write_cache, lu.medium
        if kind:
            lu.medium = ProtectedMedium(
                lu.backstore, lu.capabilities, lu.block_size, write_cache=cache, protection=self, kind=kind
            )
        else:
            lu.medium = Medium(lu.backstore, lu.capabilities, lu.block_size, write_cache=cache)
        lu.medium.succeed(old)
        lu.lookup, lu.handlers = (lookup_protected, PROTECTED_HANDLERS) if kind else (lookup, HANDLERS)
        lu.has_shrunk = True
        lu.update_features()
        lu.blocks = self.limit(lu.backstore.size() >> lu.block_shift)
        for itl in lu.itl_nexuses:
            itl.rebuild_express()
