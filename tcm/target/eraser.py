"""SANITIZE and FORMAT UNIT under way: what erases a whole medium in the background (SBC-4 4.11, 4.33)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import anyio

from tcm.backstore import BackstoreError, Support
from tcm.scsi.check_condition import (
    CheckCondition,
    CommandTerminated,
    FormatCommandFailed,
    FormatInProgress,
    InternalTargetFailure,
    MediumFormatCorrupted,
    SanitizeCommandFailed,
    SanitizeInProgress,
    WriteProtected,
)
from tcm.scsi.command import Readiness, WhileErasing
from tcm.scsi.protection import ProtectionType
from tcm.scsi.sense import Sense
from tcm.target.erasure_store import (
    BLOCK_ERASE,
    CRYPTOGRAPHIC_ERASE,
    FORMAT,
    OVERWRITE,
    UNKNOWN,
    Erasure,
    from_text,
    to_text,
)
from tcm.target.kept import Kept
from tcm.target.medium import CHUNK

if TYPE_CHECKING:
    from tcm.scsi.command import Command
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.medium import Medium
    from tcm.target.task import Task

log = logging.getLogger(__name__)

STRIDE = 16 << 20
"""Bytes that one step unmaps or zeroes."""
CHECKPOINT = 1 << 30
"""Bytes after which it is written down how far it is."""
_FULL_SCALE = 1 << 16
_COMPLEMENT = bytes(255 - byte for byte in range(256))


class _Kind(NamedTuple):
    running: type[CheckCondition]
    """Sense of whatever is refused meanwhile."""
    failure: type[CheckCondition]
    """Sense of the command itself."""
    failed: type[CheckCondition]
    """Sense of whatever is refused after a failure."""
    meanwhile: frozenset[WhileErasing]
    """Which commands are taken while it runs."""
    way_out: frozenset[WhileErasing]
    """Which commands are taken after a failure."""


_WHILE_SANITIZING = frozenset({WhileErasing.ALLOWED, WhileErasing.SANITIZING})
_SANITIZE = _Kind(
    SanitizeInProgress,
    SanitizeCommandFailed,
    SanitizeCommandFailed,
    _WHILE_SANITIZING,
    _WHILE_SANITIZING | {WhileErasing.SANITIZES},
)
_FORMAT = _Kind(
    FormatInProgress,
    FormatCommandFailed,
    MediumFormatCorrupted,
    frozenset({WhileErasing.ALLOWED}),
    _WHILE_SANITIZING | {WhileErasing.SANITIZES, WhileErasing.FORMATS},
)
_KINDS = {OVERWRITE: _SANITIZE, BLOCK_ERASE: _SANITIZE, CRYPTOGRAPHIC_ERASE: _SANITIZE, FORMAT: _FORMAT}


class Run:
    """An erasure that a command has begun."""

    def __init__(self) -> None:
        self.started = anyio.Event()
        """It is written down that it began, or :attr:`error` says why it could not."""
        self.begun = False
        self.ended = anyio.Event()
        self.error: CommandTerminated | None = None


class Eraser:
    """What erases one logical unit's medium; at most one thing at a time.

    Nothing but its own end stops it: no task management function, no reset, no loss of a nexus.
    """

    def __init__(self, logical_unit: LogicalUnit) -> None:
        self._logical_unit = logical_unit
        self._kept = Kept(logical_unit, "erasure")
        self.erasure: Erasure | None = None
        """Under way, or failed and not yet done with; ``None``: the medium is accessible."""
        self._stopping = False
        self._since_checkpoint = 0

    # what others ask

    def check(self, command: Command | None) -> None:
        """Raises the sense that keeps ``command`` (``None``: any) from being executed now."""
        erasure = self.erasure
        if erasure is None:
            return
        kind = _KINDS[erasure.kind]
        column = WhileErasing.REFUSED if command is None else command.while_erasing
        if column in (kind.way_out if erasure.failed else kind.meanwhile):
            return
        if erasure.failed:
            if kind is _FORMAT and command is not None and command.readiness is Readiness.ANY:
                return  # only the medium is out of order (SBC-4 4.33.3.1)
            raise kind.failed
        error = kind.running
        progress = b"\x80" + self.progress.to_bytes(2, "big")
        raise error(sense=Sense(key=error.key, asc=error.asc, ascq=error.ascq, sense_key_specific=progress))

    @property
    def sanitizing(self) -> bool:
        """SANITIZE is under way, or has failed and nothing has come of it since."""
        return self.erasure is not None and self.erasure.kind != FORMAT

    @property
    def progress(self) -> int:
        """PROGRESS INDICATION: how much is done, in 65536ths (SPC-5 4.5.2.4.4)."""
        erasure, blocks = self.erasure, self._logical_unit.blocks
        if erasure is None:
            return _FULL_SCALE - 1
        done = erasure.done * blocks + min(erasure.lba, blocks)
        return min(_FULL_SCALE - 1, done * _FULL_SCALE // (erasure.passes * blocks))

    # life cycle

    async def load(self) -> None:
        """Take up what the last process has left, once the backstore is open."""
        try:
            text = await self._kept.load()
            self.erasure = erasure = None if text is None else from_text(text)
        except (OSError, ValueError) as error:
            log.error(
                "%s: cannot be read (%s): the medium stays closed until it is sanitized, or the file restored or removed",
                self._kept,
                error,
            )
            self.erasure = erasure = UNKNOWN
        if erasure is UNKNOWN or erasure is None:
            return
        if erasure.failed:
            log.error(
                "%s: %s has failed before: its medium stays closed until it is done again",
                self._logical_unit.name,
                erasure.kind,
            )
            return
        lu = self._logical_unit
        fits = erasure.kind != OVERWRITE or len(erasure.block) == lu.block_size
        if lu.read_only or not fits:
            why = "it is read-only" if lu.read_only else "its blocks were of another size"
            log.error("%s: cannot go on with %s, so its medium stays closed: %s", lu.name, erasure.kind, why)
            self.erasure = replace(erasure, failed=True)

    def resume(self) -> None:
        """Go on with what :meth:`load` found, once there is something to run it in."""
        if self.erasure is not None and not self.erasure.failed:
            log.info("%s: going on with %s", self._logical_unit.name, self.erasure.kind)
            self._logical_unit.running.spawn_alone(self._run(Run(), None, None))

    def stop(self) -> None:
        """The process is about to end: stop at the next step, to go on after the restart."""
        self._stopping = True

    # what commands do

    def begin(self, task: Task, erasure: Erasure) -> Run:
        """Close the medium to everybody and erase it once the other commands that execute have ended."""
        run, before = Run(), self.erasure
        self.erasure = erasure
        self._logical_unit.update_ready()
        self._logical_unit.running.spawn_alone(self._run(run, task, before))
        return run

    async def leave_failure(self, failed: Erasure) -> None:
        """EXIT FAILURE MODE: the medium becomes accessible, whatever is on it. Raises INTERNAL TARGET FAILURE.

        :param failed: what has failed; nothing happens if that is over, for then another command was faster.
        """
        if self.erasure is failed:
            try:
                await self._save(None)
            except OSError as error:
                raise InternalTargetFailure from error
        if self.erasure is failed:
            self._become(None)

    # in the background

    async def _run(self, run: Run, task: Task | None, before: Erasure | None) -> None:
        lu = self._logical_unit
        assert self.erasure is not None
        kind = _KINDS[self.erasure.kind]
        try:
            try:
                await self._save(self.erasure)
            except OSError as error:
                log.error("%s: not begun, it cannot be written down: %s", lu.name, error)
                run.error = InternalTargetFailure()
                self._become(before if task is not None else replace(self.erasure, failed=True))
                return
            run.begun = True
            run.started.set()
            await lu.running.until_tasks_end(but=task)
            await lu.copies.abort()
            try:
                if self.erasure.kind == FORMAT:
                    await lu.protection.begin(ProtectionType(self.erasure.protection))
                if await self._erase():
                    if self.erasure.kind == FORMAT:
                        itl = task.itl if task is not None else None
                        await lu.protection.finish(ProtectionType(self.erasure.protection), by=itl)
                    await self._save(None)
                    self._become(None)
                else:
                    run.error = kind.running()
            except Exception as error:
                log.error("%s: %s failed: %s", lu.name, self.erasure.kind, error.__cause__ or error)
                run.error = kind.failure()
                await self._fail()
                if not isinstance(error, (CommandTerminated, OSError, BackstoreError)):
                    raise
        finally:
            run.started.set()
            run.ended.set()

    async def _fail(self) -> None:
        assert self.erasure is not None
        self._become(replace(self.erasure, failed=True))
        try:
            await self._save(self.erasure)
        except OSError as error:  # what is written down is that it runs: a restart tries again
            log.error("%s: the failure cannot be written down: %s", self._logical_unit.name, error)

    async def _erase(self) -> bool:
        """True when all passes are done and durable; False if it has to go on after a restart."""
        lu = self._logical_unit
        if lu.read_only:
            raise WriteProtected
        if self.erasure is not None and self.erasure.kind == CRYPTOGRAPHIC_ERASE:
            await lu.medium.erase_key()
            return True
        while (erasure := self.erasure) is not None and erasure.done < erasure.passes:
            if self._stopping:
                await self._checkpoint()
                if not self._kept:
                    log.warning("%s: stopped before the end of %s, which a restart forgets", lu.name, erasure.kind)
                return False
            left = lu.blocks - erasure.lba
            if left > 0:
                blocks = min(left, (CHUNK if erasure.kind == OVERWRITE else STRIDE) >> lu.block_shift)
                await self._step(erasure, blocks)
                self.erasure = replace(erasure, lba=erasure.lba + blocks)
                self._since_checkpoint += blocks << lu.block_shift
                if self._since_checkpoint >= CHECKPOINT:
                    await self._checkpoint()
            else:
                await lu.medium.flush(write=True)  # a pass that only the cache has seen is none
                self.erasure = replace(erasure, done=erasure.done + 1, lba=0)
            await lu.breathe()
        return True

    async def _step(self, erasure: Erasure, blocks: int) -> None:
        lu = self._logical_unit
        await self._erase_data(lu.medium, erasure, blocks)
        await lu.protection.erase(erasure.lba, blocks)

    async def _erase_data(self, medium: Medium, erasure: Erasure, blocks: int) -> None:
        lu = self._logical_unit
        if erasure.kind == OVERWRITE:
            block = erasure.block
            if erasure.invert and (erasure.passes - erasure.done) % 2 == 0:  # the last pass writes the pattern itself
                block = block.translate(_COMPLEMENT)
            await medium.write_uncommitted([block * blocks], erasure.lba)
            return
        unmaps = medium.capabilities.unmap is Support.NATIVE and lu.provisioning.thin
        await medium.write_zeroes(erasure.lba, blocks, may_unmap=unmaps)  # unmapping alone may leave what was there
        if unmaps:
            await medium.unmap(erasure.lba, blocks)

    async def _checkpoint(self) -> None:
        self._since_checkpoint = 0
        await self._logical_unit.medium.flush(write=True)
        await self._save(self.erasure)

    async def _save(self, erasure: Erasure | None) -> None:
        await self._kept.save(None if erasure is None else to_text(erasure))

    def _become(self, erasure: Erasure | None) -> None:
        self.erasure = erasure
        self._logical_unit.update_ready()
