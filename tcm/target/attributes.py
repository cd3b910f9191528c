"""What a logical unit is configured to be: LIO's device attributes, its identity, and the block limits that follow."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from tcm.backstore import Capabilities, Support
from tcm.failure import ConfigError

MAXIMUM_BLOCK_SIZE = 4096
BLOCK_SIZES = (512, 1024, 2048, MAXIMUM_BLOCK_SIZE)
MAXIMUM_QUEUE_DEPTH = 65535
"""Tasks that a task set may be configured to hold."""
DEFAULT_UNMAP_BLOCKS = 1 << 20
"""Logical blocks in one UNMAP; more of them at once would keep the extents from others for long."""
DEFAULT_UNMAP_DESCRIPTORS = 256

ATOMIC_BLOCKS = 256
"""MAXIMUM ATOMIC TRANSFER LENGTH. Atomic to other commands; across a loss of power, as atomic as one write to the backstore."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the logical unit says it is (LIO's ``wwn/`` group)."""

    vendor: str = "LIO-ORG"
    """T10 VENDOR IDENTIFICATION, at most 8 characters."""
    product: str = "TCM"
    """PRODUCT IDENTIFICATION, at most 16 characters."""
    revision: str = "0001"
    """PRODUCT REVISION LEVEL, at most 4 characters."""
    company_id: int = 0x001405
    """The 24-bit OUI in the NAA designator."""

    def __post_init__(self) -> None:
        for name, limit in (("vendor", 8), ("product", 16), ("revision", 4)):
            value = getattr(self, name)
            if len(value) > limit or not value.isascii() or not (value.isprintable()):
                raise ConfigError(f"{name} {value!r}: at most {limit} printable ASCII characters")
        if not 0 <= self.company_id < 1 << 24:
            raise ConfigError(f"company_id {self.company_id:#x}: a 24-bit OUI is wanted, such as 0x001405")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAttributes:
    """LIO's ``attrib/`` of a storage object, its names (lio-configfs 3.2). Zero or ``None``: what the backstore says.

    Raises :class:`tcm.failure.ConfigError` for values that cannot be.
    """

    block_size: int = 0
    """Logical block size: 512, 1024, 2048 or 4096; not smaller than the backstore's."""
    queue_depth: int = 256
    """Commands that the task set holds; the next one gets TASK SET FULL, unless its initiator has less than 1/32 of them."""
    emulate_write_cache: bool | None = None
    """WCE: writes may be acknowledged before they are durable. ``None``: yes if the backstore can flush."""
    emulate_fua_write: bool = True
    """DPOFUA, and FUA is honoured. Otherwise a CDB with FUA or DPO is refused."""
    emulate_ua_intlck_ctrl: int = 0
    """0, 1 or 2: UA_INTLCK_CTRL 00b, 10b or 11b."""
    emulate_tas: bool = True
    """TAS: tasks aborted by another I_T nexus end with TASK ABORTED status."""
    emulate_tpu: bool | None = None
    """UNMAP is offered. ``None``: if the backstore can unmap."""
    emulate_tpws: bool | None = None
    """WRITE SAME with UNMAP is offered. ``None``: if the backstore can unmap."""
    emulate_caw: bool = True
    """COMPARE AND WRITE is offered."""
    emulate_rsoc: bool = True
    """REPORT SUPPORTED OPERATION CODES is offered."""
    emulate_3pc: bool = True
    """Third-party copies are offered, from here to other units and from others to this one."""
    emulate_pr: bool = True
    """Reservations are offered."""
    enforce_pr_isids: bool = True
    """iSCSI: persistent reservations tell an initiator's sessions apart by their ISIDs."""
    force_pr_aptpl: bool = False
    """Every registration is kept through a loss of power, as if APTPL were one, if there is a place to keep it."""
    is_nonrot: bool | None = None
    """MEDIUM ROTATION RATE: non-rotating medium. ``None``: what the backstore says."""
    optimal_sectors: int = 0
    """OPTIMAL TRANSFER LENGTH in logical blocks; 0: what the backstore says, or as much as MAXIMUM TRANSFER LENGTH."""
    hw_max_sectors: int = 0
    """MAXIMUM TRANSFER LENGTH in logical blocks; 0: 8 MiB."""
    max_unmap_lba_count: int | None = None
    """Logical blocks that one UNMAP takes; 0: UNMAP is not offered. ``None``: 1,048,576."""
    max_unmap_block_desc_count: int | None = None
    """Block descriptors that one UNMAP takes; 0: UNMAP is not offered. ``None``: 256."""
    unmap_granularity: int | None = None
    """OPTIMAL UNMAP GRANULARITY, logical blocks; 0: not reported. ``None``: what the backstore says."""
    unmap_granularity_alignment: int = 0
    """LBA of the first block that such a run may begin with."""
    unmap_zeroes_data: bool | None = None
    """LBPRZ. ``None``: what the backstore says."""
    max_write_same_len: int | None = None
    """Logical blocks; ``None`` or 0: 64 MiB, or as much as WRITE SAME (10) can ask for if that is less."""

    pi_prot_type: int = 0
    """Protection information, type 1, 2 or 3, for a medium that was never formatted with a type: FORMAT UNIT's choice stays."""
    pi_prot_format: bool = False
    """A medium that was formatted with another type gets ``pi_prot_type`` all the same; its data stays, unchecked."""
    pi_prot_verify: bool | None = None
    """Reads whose RDPROTECT is zero check protection information (DPICZ is zero). ``None``: yes."""

    def __post_init__(self) -> None:
        if self.pi_prot_type not in {0, 1, 2, 3}:
            raise ConfigError(f"pi_prot_type {self.pi_prot_type} is none; write 0 (no protection information), 1, 2 or 3")
        if self.block_size and self.block_size not in BLOCK_SIZES:
            raise ConfigError(f"block_size {self.block_size}: one of 512, 1024, 2048, 4096")
        if not 1 <= self.queue_depth <= MAXIMUM_QUEUE_DEPTH:
            raise ConfigError(f"queue_depth {self.queue_depth}: 1 to {MAXIMUM_QUEUE_DEPTH}")
        if self.emulate_ua_intlck_ctrl not in {0, 1, 2}:
            raise ConfigError(f"emulate_ua_intlck_ctrl {self.emulate_ua_intlck_ctrl}: 0, 1 or 2")
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is int and not 0 <= value < 1 << 32:
                raise ConfigError(f"{field.name} {value}: 0 to 4294967295")

    @property
    def unmap(self) -> bool:
        """UNMAP is offered, if the backstore can."""
        return self.emulate_tpu is not False and self.unmap_sizes

    @property
    def unmap_sizes(self) -> bool:
        """There can be an UNMAP that is not too large."""
        return self.max_unmap_lba_count != 0 and self.max_unmap_block_desc_count != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLimits:
    """The Block Limits VPD page (SBC-4 6.6.4) and what the handlers enforce, from one place. All in logical blocks."""

    maximum_transfer_length: int
    optimal_transfer_length: int
    optimal_transfer_length_granularity: int
    maximum_prefetch_length: int
    """0: no limit; what is more than the target reads ahead is no error."""
    maximum_unmap_lba_count: int
    maximum_unmap_block_descriptor_count: int
    optimal_unmap_granularity: int
    unmap_granularity_alignment: int
    maximum_write_same_length: int
    write_same_non_zero: bool
    """WSNZ: WRITE SAME with NUMBER OF LOGICAL BLOCKS zero is refused."""
    maximum_compare_and_write_length: int
    maximum_atomic_transfer_length: int
    atomic_alignment: int
    atomic_transfer_length_granularity: int
    maximum_atomic_transfer_length_with_atomic_boundary: int
    maximum_atomic_boundary_size: int


def block_limits(attributes: DeviceAttributes, capabilities: Capabilities, block_size: int, *, unmap: bool) -> BlockLimits:
    """The limits that attributes and capabilities make, for logical blocks of ``block_size`` bytes.

    :param unmap: the UNMAP command is offered.
    """
    maximum = attributes.hw_max_sectors or (8 << 20) // block_size
    optimal = attributes.optimal_sectors or capabilities.optimal_transfer // block_size or maximum
    unmapping = unmap_limits(attributes, capabilities, block_size)
    return BlockLimits(
        maximum_transfer_length=maximum,
        optimal_transfer_length=min(maximum, optimal),
        optimal_transfer_length_granularity=max(1, capabilities.physical_block_size // block_size),
        maximum_prefetch_length=0,
        maximum_unmap_lba_count=unmapping.lba_count if unmap else 0,
        maximum_unmap_block_descriptor_count=unmapping.descriptors if unmap else 0,
        optimal_unmap_granularity=unmapping.granularity if unmap else 0,
        unmap_granularity_alignment=attributes.unmap_granularity_alignment if unmap else 0,
        maximum_write_same_length=attributes.max_write_same_len or min((64 << 20) // block_size, 0xFFFF),
        write_same_non_zero=False,
        maximum_compare_and_write_length=min(255, maximum) if attributes.emulate_caw else 0,
        maximum_atomic_transfer_length=min(maximum, ATOMIC_BLOCKS),
        atomic_alignment=0,
        atomic_transfer_length_granularity=0,
        maximum_atomic_transfer_length_with_atomic_boundary=0,
        maximum_atomic_boundary_size=0,
    )


class UnmapLimits(NamedTuple):
    """What UNMAP is limited by while it is offered, in logical blocks."""

    lba_count: int
    descriptors: int
    granularity: int


def unmap_limits(attributes: DeviceAttributes, capabilities: Capabilities, block_size: int) -> UnmapLimits:
    """What attributes say, else the backstore: zeroes if it cannot unmap."""
    lba_count, descriptors, granularity = 0, 0, 0
    if capabilities.unmap is Support.NATIVE:
        lba_count, descriptors = DEFAULT_UNMAP_BLOCKS, DEFAULT_UNMAP_DESCRIPTORS
        granularity = max(1, capabilities.unmap_granularity // block_size)
    if attributes.max_unmap_lba_count is not None:
        lba_count = attributes.max_unmap_lba_count
    if attributes.max_unmap_block_desc_count is not None:
        descriptors = attributes.max_unmap_block_desc_count
    if attributes.unmap_granularity is not None:
        granularity = attributes.unmap_granularity
    return UnmapLimits(lba_count, descriptors, granularity)
