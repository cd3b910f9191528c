"""A logical unit: its medium, its state, its task set, and the I_T_L nexuses that reach it (SAM-5 4.6).

Here all that makes up a logical unit is put together; what each part does is elsewhere.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import checkpoint

from tcm.backstore import Backstore, Capabilities, Support
from tcm.failure import ConfigError
from tcm.scsi.check_condition import (
    InitializingCommandRequired,
    InternalTargetFailure,
    LbaOutOfRange,
    MediumNotPresent,
    NotReady,
)
from tcm.scsi.command import Feature, Readiness
from tcm.scsi.command_table import lookup
from tcm.target import router
from tcm.target.asymmetric_access import AsymmetricAccess
from tcm.target.attributes import MAXIMUM_BLOCK_SIZE, BlockLimits, DeviceAttributes, Identity, block_limits
from tcm.target.buffers import DataBuffer, EchoBuffer
from tcm.target.copy_manager import CopyManager, CopyOperation
from tcm.target.counters import retire, totals
from tcm.target.device_clock import DeviceClock
from tcm.target.device_server import HANDLERS
from tcm.target.eraser import Eraser
from tcm.target.extents import ExtentLocks
from tcm.target.features import features_of
from tcm.target.identifying_information import IdentifyingInformation
from tcm.target.latency import UnitLatency
from tcm.target.log_page_table import LOG_PAGES
from tcm.target.log_parameters import LogParameters
from tcm.target.lost_ports import LostPorts
from tcm.target.medium import Medium
from tcm.target.mode_parameters import ModeParameters
from tcm.target.protection import Protection
from tcm.target.provisioning import Provisioning
from tcm.target.reservation_state import PersistentReservations
from tcm.target.rod_tokens import ROD_TOKENS
from tcm.target.running import Running
from tcm.target.spc2_reservation import Spc2Reservation
from tcm.target.task_set import TaskSet
from tcm.target.unit_attention import CAPACITY_DATA_HAS_CHANGED, MEDIUM_CHANGED, UnitAttention

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping

    from anyio.abc import TaskGroup

    from tcm.scsi.check_condition import CommandTerminated
    from tcm.scsi.command import Command
    from tcm.target.device_server.handler import Handler
    from tcm.target.nexus import ITLNexus
    from tcm.target.portal_group import TargetPortalGroup
    from tcm.target.store import Store
    from tcm.target.task import Task

log = logging.getLogger(__name__)

_indexes = itertools.count(1)


class LogicalUnit:
    """A block device.

    :param name: for people and the configuration.
    :param backstore: adapted and filtered; the logical unit opens and closes it.
    :param serial: unit serial number, a UUID's text; the designators are made of it.
    :param removable: RMB: the medium can be ejected and loaded.
    :param read_only: write protected by configuration, whatever the backstore can do.
    :param store: where it keeps what has to outlive the process; ``None``: it keeps nothing.
    """

    def __init__(
        self,
        name: str,
        backstore: Backstore,
        *,
        serial: str,
        attributes: DeviceAttributes | None = None,
        identity: Identity | None = None,
        removable: bool = False,
        read_only: bool = False,
        store: Store | None = None,
    ) -> None:
        # set by the configuration
        self.name: str = name
        self.backstore: Backstore = backstore
        self.serial: str = serial
        self.attributes: DeviceAttributes = attributes or DeviceAttributes()
        self.identity: Identity = identity or Identity()
        self.removable: bool = removable
        self.read_only: bool = read_only
        """By configuration, or (after :meth:`open`) because the backstore is."""
        self.store: Store | None = store
        self.unhandled_error: Callable[[str, BaseException], None] | None = None
        """Told of what nobody expected, besides the log."""
        self.clock = DeviceClock()
        self.rod_tokens = ROD_TOKENS
        """Where tokens of its data are made, and tokens of others' found."""
        # set by open()
        self.capabilities = Capabilities()
        self.block_size = 512
        self.block_shift = 9
        self.blocks = 0
        self._tail = 0
        """Bytes beyond the last block."""
        self.has_shrunk = False
        """There have been more blocks, or others: what was checked before may lie beyond the end, or mean something else."""
        self.limits: BlockLimits = block_limits(self.attributes, self.capabilities, 512, unmap=False)
        self.features: frozenset[Feature] = frozenset()
        self.medium = Medium(backstore, self.capabilities, 512, write_cache=True)
        self.lookup: Callable[[bytes], Command] = lookup
        self.handlers: Mapping[str, Handler] = HANDLERS
        """What the command table says, and what its commands do: both depend on :attr:`protection`."""
        # state
        self.protection = Protection(self)
        self.mode_parameters: ModeParameters
        """Made by :meth:`open`."""
        self.identifying_information = IdentifyingInformation(self)
        self.failed = True
        """The backstore is not open: not yet, it could not be, or not any more."""
        self.started = True
        self.medium_loaded = True
        self.ready = False
        """Started, medium present, not failed, not being erased: what :meth:`check_ready` finds out."""
        self.prevented: set[ITLNexus] = set()
        """Who has asked for PREVENT MEDIUM REMOVAL."""
        self.spc2_reservation = Spc2Reservation(self)
        self.reserved = False
        """Somebody holds a reservation of some kind: :meth:`check_reservation` has to be asked."""
        self.persistent_reservations = PersistentReservations(self)
        self.asymmetric_access = AsymmetricAccess(self)
        self.ports: list[TargetPortalGroup] = []
        """The target ports that export the logical unit, each as often as it does."""
        self.task_set = TaskSet(self.attributes.queue_depth, self._ordering)
        self.extents = ExtentLocks(self._exclusive)
        self.itl_nexuses: set[ITLNexus] = set()
        self.closed_lane: set[str] = set()
        """Why nobody may use the express lane at the moment; empty if they may."""
        self.running = Running(name, self.report_unexpected)
        """What executes in the task group."""
        self._can_run = False
        self.eraser = Eraser(self)
        """SANITIZE and FORMAT UNIT."""
        self.log_parameters = LogParameters(self)
        self.provisioning = Provisioning(self)
        self.copies = CopyManager()
        """Third-party copies."""
        self.data_buffer = DataBuffer()
        self.echo_buffer = EchoBuffer()
        self.reading_ahead = False
        """A PRE-FETCH with IMMED is under way."""
        self.lost_ports = LostPorts()
        # statistics
        self.index = next(_indexes)
        """Unique in the process."""
        self.created = time.monotonic()
        """When that was, on the monotonic clock."""
        self.latency = UnitLatency()
        self.resets = 0
        """Logical unit resets, those of the whole target included."""
        self.aborts_complete = 0
        """ABORT TASK functions that found their task."""
        self.aborts_without_task = 0
        """And those that did not."""
        self.task_set_full_statuses = 0
        self._retired: Counter[str] = Counter()
        self._dispatching = False

    # life cycle

    def start(self, task_group: TaskGroup) -> None:
        """Say where commands that take their time run. Call before the first command."""
        self.running.start(task_group)
        self._can_run = True
        self._resume()

    async def open(self, *, opened: bool = False) -> None:
        """Open the backstore and settle what depends on it. Raises ``OSError`` or :class:`ConfigError`.

        :param opened: it is open, another unit has left it so.
        """
        if not opened:
            await self.backstore.open()
        capabilities = self.capabilities = self.backstore.capabilities()
        attributes = self.attributes
        block_size = attributes.block_size or capabilities.block_size
        if block_size < capabilities.block_size or block_size > MAXIMUM_BLOCK_SIZE:
            raise ConfigError(
                f"{self.name}: block_size {block_size} does not fit the device's blocks of {capabilities.block_size} bytes"
            )
        self.block_size = block_size
        self.block_shift = block_size.bit_length() - 1
        self.blocks = self._whole_blocks()
        if not self.blocks:
            raise ConfigError(f"{self.name}: the device is smaller than one block of {block_size} bytes")
        self.read_only = self.read_only or capabilities.read_only
        self.update_features()
        write_cache = attributes.emulate_write_cache
        if write_cache is None:
            write_cache = capabilities.flush is not Support.EMULATE
        self.medium = Medium(self.backstore, capabilities, block_size, write_cache=write_cache)
        await self.provisioning.load()
        self.mode_parameters = ModeParameters(self)
        await self.mode_parameters.load()
        await self.protection.open()
        await self.eraser.load()
        await self.log_parameters.load()
        await self.identifying_information.load()
        await self.persistent_reservations.load()
        await self.asymmetric_access.load()
        self.failed = False
        self.update_reserved()
        self.update_ready()
        self._resume()

    def _resume(self) -> None:
        if self._can_run and not self.failed:
            self.eraser.resume()
            self.persistent_reservations.watch()
            self.asymmetric_access.watch()

    def succeed(self, other: LogicalUnit) -> None:
        """It has been that unit before: it goes on counting where the other stopped."""
        self.index, self.created, self.resets = other.index, other.created, other.resets
        self._retired = other._retired

    async def aclose(self, *, leave_open: bool = False) -> None:
        """Wait for what still runs, flush, close the backstore. No commands may be submitted any more.

        :param leave_open: the backstore is another unit's from now on.
        """
        self.rod_tokens.revoke(self)
        self.eraser.stop()
        self.copies.reset()
        await self.copies.abort()
        self.persistent_reservations.unwatch()
        self.asymmetric_access.unwatch()
        await self.running.until_idle()
        self.rod_tokens.revoke(self)  # made by what ran
        try:
            if not (self.failed or self.capabilities.read_only):
                await self.medium.flush()
        finally:
            self.failed = True
            self.update_ready()
            if not leave_open:
                await self.backstore.aclose()

    def check_size(self) -> bool:
        """Ask the backstore for its size again; if it has changed, say so to every I_T nexus and return True."""
        blocks = self.protection.limit(self._whole_blocks())
        if blocks == self.blocks or not blocks:
            return False
        log.info("%s: resized from %d to %d blocks", self.name, self.blocks, blocks)
        self.has_shrunk = self.has_shrunk or blocks < self.blocks
        self.blocks = blocks
        self.rod_tokens.cancel(self)
        for itl in self.itl_nexuses:
            itl.rebuild_express()
        self.establish_attention(CAPACITY_DATA_HAS_CHANGED)
        return True

    def _whole_blocks(self) -> int:
        """The medium's size now. What does not fill a block is left out, and said once."""
        size = self.backstore.size()
        tail = size & self.block_size - 1
        if tail and tail != self._tail:
            log.warning("%s: the last %d bytes, less than a block of %d, are out of reach", self.name, tail, self.block_size)
        self._tail = tail
        return size >> self.block_shift

    def backstore_failed(self, command: Command | None, error: CommandTerminated) -> None:
        """A command ended with ``error`` because of the backstore: note it; if the medium was cut, everybody hears of it."""
        if isinstance(error, LbaOutOfRange):
            self.check_size()
        else:
            self.log_parameters.note_failure(command, error)

    def update_features(self) -> None:
        """Settle :attr:`features` and :attr:`limits`, after a change of what they are made of."""
        self.features = features_of(self)
        unmap = Feature.UNMAP in self.features
        self.limits = block_limits(self.attributes, self.capabilities, self.block_size, unmap=unmap)

    # what it is

    @property
    def physical_block_exponent(self) -> int:
        """LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT."""
        return max(0, (self.capabilities.physical_block_size // self.block_size).bit_length() - 1)

    @property
    def fua(self) -> bool:
        """DPOFUA: FUA and DPO are taken."""
        return self.attributes.emulate_fua_write and self.capabilities.flush is not Support.NONE

    @property
    def write_protected(self) -> bool:
        """Nothing may be written by anybody: read-only, or SWP of the Control mode page."""
        return self.read_only or self.mode_parameters.software_write_protect

    @property
    def num_cmds(self) -> int:
        """Commands completed, by all I_T nexuses since the start."""
        return self.total("read_cmds") + self.total("write_cmds") + self.total("other_cmds")

    def totals(self) -> Counter[str]:
        """All of :data:`~tcm.target.counters.COUNTERS`, by all I_T nexuses since the start."""
        return totals(self._retired, self.itl_nexuses)

    def total(self, counter: str) -> int:
        """One of :data:`~tcm.target.counters.COUNTERS`, of all I_T_L nexuses since the start."""
        counted: int = self._retired[counter] + sum(getattr(itl, counter) for itl in self.itl_nexuses)
        return counted

    # state

    def check_ready(self, command: Command | None = None) -> None:
        """Raises the sense for why the medium cannot be accessed, or ``command`` not be executed."""
        self.eraser.check(command)
        if command is not None and command.readiness is Readiness.ANY:
            return
        if self.failed:
            raise NotReady
        if not self.medium_loaded:
            raise MediumNotPresent
        if not self.started:
            raise InitializingCommandRequired

    def set_started(self, started: bool) -> None:
        """START STOP UNIT with and without START."""
        self.started = started
        self.update_ready()

    def set_medium_loaded(self, loaded: bool, by: ITLNexus | None = None) -> None:
        """Load or eject the medium; everybody but ``by`` hears of a loaded one."""
        if loaded is self.medium_loaded:
            return
        self.medium_loaded = loaded
        self.update_ready()
        if loaded:
            self.establish_attention(MEDIUM_CHANGED, except_for=by)

    def update_ready(self) -> None:
        """Settle :attr:`ready`, after a change of what it is made of."""
        if not self.medium_loaded or self.eraser.erasure is not None:
            self.rod_tokens.cancel(self)
        self.ready = self.started and self.medium_loaded and not self.failed and self.eraser.erasure is None
        self.update_express()

    @asynccontextmanager
    async def emptied_cache(self) -> AsyncGenerator[None]:
        """Flush, and keep everything out of the write cache until the ``with`` block, whose business it is, has ended."""
        self.medium.written_through += 1
        self.update_express()
        try:
            await self.medium.flush()
            yield
        finally:
            self.medium.written_through -= 1
            self.update_express()

    def check_reservation(self, task: Task) -> None:
        """Raises :class:`ReservationConflict` if the command conflicts with a reservation, SPC-2's or a persistent one.

        Called only while :attr:`reserved`; ``task.command`` is ``None`` for an operation code that is not known.
        """
        if self.persistent_reservations.matters:
            self.persistent_reservations.check(task)
        self.spc2_reservation.check(task)

    def update_reserved(self) -> None:
        """Somebody reserves or releases the unit, or what is persistent has changed."""
        self.reserved = self.spc2_reservation.holder is not None or self.persistent_reservations.matters
        self.update_express()

    def update_express(self) -> None:
        """Open or close the express lane of every I_T_L nexus; call after every change of state that lasts."""
        for itl in self.itl_nexuses:
            itl.update_express()

    def _ordering(self, matters: bool) -> None:
        self._lane("ordering", matters)

    def _exclusive(self, held: bool) -> None:
        self._lane("exclusive extent", held)

    def _lane(self, reason: str, closed: bool) -> None:
        """Close the express lane for a moment, without a word to each nexus."""
        if closed:
            self.closed_lane.add(reason)
        else:
            self.closed_lane.discard(reason)

    # nexuses

    def attach(self, itl: ITLNexus) -> None:
        """An I_T nexus reaches this logical unit."""
        self.itl_nexuses.add(itl)
        itl.rebuild_express()

    def detach(self, itl: ITLNexus) -> None:
        """An I_T_L nexus is gone."""
        self.itl_nexuses.discard(itl)
        retire(self._retired, itl)
        self.nexus_loss(itl)

    def nexus_loss(self, itl: ITLNexus) -> None:
        """I_T nexus loss (SAM-5 6.3.4): its SPC-2 reservation and its PREVENT go with it (SPC-2 5.5.1, SBC-4 5.15)."""
        self.prevented.discard(itl)
        self.echo_buffer.forget(itl)
        self.copies.forget(itl.nexus)
        self.spc2_reservation.release(itl)

    def establish_attention(self, attention: UnitAttention, *, except_for: ITLNexus | None = None) -> None:
        """A unit attention condition for every I_T nexus but one."""
        for itl in tuple(self.itl_nexuses):
            if itl is not except_for:
                itl.establish_attention(attention)

    def reset(self, attention: UnitAttention) -> list[CopyOperation]:
        """Logical unit reset (SAM-5 6.3.3), apart from the tasks, which the task manager aborts.

        :returns: copy operations that have not ended yet.
        """
        self.resets += 1
        copies = self.copies.reset()
        self.prevented.clear()
        self.echo_buffer.clear()
        self.spc2_reservation.release()
        cached = self.mode_parameters.write_cache
        self.mode_parameters.reset()
        if cached and not (self.mode_parameters.write_cache or self.failed or self.read_only):
            self.medium.flush_soon(self.running.spawn_alone)
        self.log_parameters.reset(LOG_PAGES)
        for exported in {lun for port in self.ports for lun in port.luns.values() if lun.logical_unit is self}:
            if exported.changed_mode_pages is not None:
                exported.change_mode_pages(exported.changed_mode_pages.default)
        self.establish_attention(attention)
        self.update_express()
        return copies

    # tasks

    def tasks_of(self, itl: ITLNexus) -> Iterable[Task]:
        """The tasks of one I_T_L nexus in the task set."""
        return [task for task in self.task_set if task.itl is itl]

    def spawn(self, task: Task, coroutine: Coroutine[Any, Any, None]) -> None:
        """Execute a command that would block, in the task group, cancelled if the task is aborted."""
        self.running.spawn(task, coroutine)

    @staticmethod
    async def breathe() -> None:
        """Between two steps of a long command: let others run, and be cancelled if the task has been aborted."""
        await checkpoint()

    def report_unexpected(self, what: str, error: Exception) -> None:
        """Log a programmer's mistake with its traceback, and tell :attr:`unhandled_error`."""
        where = f"{self.name}: {what}"
        log.error("%s failed unexpectedly", where, exc_info=error)
        self.log_parameters.note_failure(None, InternalTargetFailure())
        if self.unhandled_error is not None:
            self.unhandled_error(where, error)

    def dispatch(self) -> None:
        """Start the dormant tasks that may start, after one has left the task set."""
        if self._dispatching:
            return
        self._dispatching = True
        try:
            for task in self.task_set.runnable():
                router.begin(task)
        finally:
            self._dispatching = False
