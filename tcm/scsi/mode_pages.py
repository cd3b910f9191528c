"""Mode pages of a direct access block device (SPC-5 7.5, SBC-4 6.5): their fields as data, and their values.

A page is a :class:`~tcm.scsi.layout.Layout` that counts from the page's first byte, header included.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcm.scsi.layout import Field, Layout, bits, flag, number

if TYPE_CHECKING:
    from collections.abc import Iterable

Key = tuple[int, int]
"""Page code and subpage code."""

ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF

RECOVERY: Key = (0x01, 0x00)
CACHING: Key = (0x08, 0x00)
CONTROL: Key = (0x0A, 0x00)
CONTROL_EXTENSION: Key = (0x0A, 0x01)
INFORMATIONAL_EXCEPTIONS: Key = (0x1C, 0x00)
LOGICAL_BLOCK_PROVISIONING: Key = (0x1C, 0x02)


class PageControl(enum.IntEnum):
    """PC of MODE SENSE (SPC-5 table 183)."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


@dataclass(frozen=True, slots=True)
class ModePage:
    """What a mode page looks like."""

    key: Key
    name: str
    layout: Layout
    defaults: Mapping[str, int] = field(default_factory=dict)
    """Fields whose default value is not zero."""
    changeable: frozenset[str] = frozenset()
    """Fields that MODE SELECT may change."""
    allowed: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """For a field with reserved values: the others."""

    @property
    def header(self) -> bytes:
        """Page code, subpage code if any, page length; PS zero."""
        code, subpage = self.key
        if subpage:
            return bytes((0x40 | code, subpage)) + (self.layout.length - 4).to_bytes(2, "big")
        return bytes((code, self.layout.length - 2))

    def pack(self, values: Mapping[str, int]) -> bytes:
        """The page, header included."""
        header = self.header
        return header + self.layout.pack(values)[len(header) :]

    def changeable_mask(self) -> bytes:
        """The page with ones in the fields that can be changed (PC 01b)."""
        return self.pack({name: (1 << self.layout[name].width) - 1 for name in self.changeable})

    def field_at(self, bit: int) -> Field | None:
        """The field that covers a bit, counted from the page's last bit; ``None`` for a reserved one."""
        length = self.layout.length
        return next((there for there in self.layout.fields if there.mask(length) >> bit & 1), None)


READ_WRITE_ERROR_RECOVERY_PAGE = ModePage(
    RECOVERY,
    "Read-Write Error Recovery",
    Layout(
        12,
        (
            flag("awre", 2, 7),
            flag("arre", 2, 6),
            flag("tb", 2, 5),
            flag("rc", 2, 4),
            flag("eer", 2, 3),
            flag("per", 2, 2),
            flag("dte", 2, 1),
            number("read_retry_count", 3, 3),
            flag("lbpere", 7, 7),
            number("write_retry_count", 8, 8),
            number("recovery_time_limit", 10, 11),
        ),
    ),
)

CACHING_PAGE = ModePage(
    CACHING,
    "Caching",
    Layout(
        20,
        (
            flag("ic", 2, 7),
            flag("abpf", 2, 6),
            flag("cap", 2, 5),
            flag("disc", 2, 4),
            flag("size", 2, 3),
            flag("wce", 2, 2),
            flag("mf", 2, 1),
            flag("rcd", 2, 0),
            bits("demand_read_retention_priority", 3, 7, 4),
            bits("write_retention_priority", 3, 3, 0),
            number("disable_prefetch_transfer_length", 4, 5),
            number("minimum_prefetch", 6, 7),
            number("maximum_prefetch", 8, 9),
            number("maximum_prefetch_ceiling", 10, 11),
            flag("fsw", 12, 7),
            flag("lbcss", 12, 6),
            flag("dra", 12, 5),
            bits("sync_prog", 12, 2, 1),
            flag("nv_dis", 12, 0),
            number("number_of_cache_segments", 13, 13),
            number("cache_segment_size", 14, 15),
        ),
    ),
    changeable=frozenset({"wce"}),
)

CONTROL_PAGE = ModePage(
    CONTROL,
    "Control",
    Layout(
        12,
        (
            bits("tst", 2, 7, 5),
            flag("tmf_only", 2, 4),
            flag("dpicz", 2, 3),
            flag("d_sense", 2, 2),
            flag("gltsd", 2, 1),
            flag("rlec", 2, 0),
            bits("queue_algorithm_modifier", 3, 7, 4),
            flag("nuar", 3, 3),
            bits("qerr", 3, 2, 1),
            flag("rac", 4, 6),
            bits("ua_intlck_ctrl", 4, 5, 4),
            flag("swp", 4, 3),
            flag("ato", 5, 7),
            flag("tas", 5, 6),
            flag("atmpe", 5, 5),
            flag("rwwp", 5, 4),
            flag("sblp", 5, 3),
            bits("autoload_mode", 5, 2, 0),
            number("busy_timeout_period", 8, 9),
            number("extended_self_test_completion_time", 10, 11),
        ),
    ),
    # Log parameters are not saved unless somebody asks (GLTSD).
    # SIMPLE tasks are reordered freely (modifier 1); BUSY may last for ever (FFFFh).
    defaults={"gltsd": 1, "queue_algorithm_modifier": 1, "busy_timeout_period": 0xFFFF},
    changeable=frozenset({"d_sense", "ua_intlck_ctrl", "swp", "tas", "ato", "dpicz", "rwwp"}),
    allowed={"ua_intlck_ctrl": frozenset({0b00, 0b10, 0b11})},
)

CONTROL_EXTENSION_PAGE = ModePage(
    CONTROL_EXTENSION,
    "Control Extension",
    Layout(
        32,
        (
            flag("tcmos", 4, 2),
            flag("scsip", 4, 1),
            flag("ialuae", 4, 0),
            bits("initial_command_priority", 5, 3, 0),
            number("maximum_sense_data_length", 6, 6),
        ),
    ),
    # The host's clock sets the timestamp (TCMOS), and SET TIMESTAMP takes precedence (SCSIP); states change implicitly.
    defaults={"tcmos": 1, "scsip": 1, "ialuae": 1},
)

INFORMATIONAL_EXCEPTIONS_PAGE = ModePage(
    INFORMATIONAL_EXCEPTIONS,
    "Informational Exceptions Control",
    Layout(
        12,
        (
            flag("perf", 2, 7),
            flag("ebf", 2, 5),
            flag("ewasc", 2, 4),
            flag("dexcpt", 2, 3),
            flag("test", 2, 2),
            flag("ebackerr", 2, 1),
            flag("logerr", 2, 0),
            bits("mrie", 3, 3, 0),
            number("interval_timer", 4, 7),
            number("report_count", 8, 11),
        ),
    ),
    # Nothing here predicts failures, so exception conditions are disabled.
    defaults={"dexcpt": 1},
)

LOGICAL_BLOCK_PROVISIONING_PAGE = ModePage(
    LOGICAL_BLOCK_PROVISIONING,
    "Logical Block Provisioning",
    Layout(
        32,
        (
            flag("situa", 4, 0),
            flag("available_enabled", 16, 7),
            bits("available_type", 16, 5, 3),
            bits("available_arming", 16, 2, 0),
            number("available_resource", 17, 17),
            number("available_count", 20, 23),
            flag("used_enabled", 24, 7),
            bits("used_type", 24, 5, 3),
            bits("used_arming", 24, 2, 0),
            number("used_resource", 25, 25),
            number("used_count", 28, 31),
        ),
    ),
    # Two soft thresholds: one on what is available, armed decreasing, and one on what is used, armed increasing (001b).
    defaults={"available_resource": 1, "used_arming": 1, "used_resource": 2},
    changeable=frozenset({"available_enabled", "available_count", "used_enabled", "used_count"}),
)
"""Of logical units that know how much storage they have taken and can still have."""

BLOCK_DEVICE_PAGES: tuple[ModePage, ...] = (
    READ_WRITE_ERROR_RECOVERY_PAGE,
    CACHING_PAGE,
    CONTROL_PAGE,
    CONTROL_EXTENSION_PAGE,
    INFORMATIONAL_EXCEPTIONS_PAGE,
)
"""In the order in which MODE SENSE returns them: ascending, page 00h (which we lack) last (SPC-5 6.14.3)."""


class ModePageValues:
    """Current, default and saved values of a set of mode pages.

    :param pages: what there is, ascending.
    :param defaults: values that differ from the pages' own defaults.
    :param fixed: fields that cannot be changed although their page says so.
    :param savable: whether there is somewhere to save values to (PS).
    """

    def __init__(
        self,
        pages: Iterable[ModePage] = BLOCK_DEVICE_PAGES,
        *,
        defaults: Mapping[Key, Mapping[str, int]] | None = None,
        fixed: Iterable[tuple[Key, str]] = (),
        savable: bool = False,
    ) -> None:
        self.pages: dict[Key, ModePage] = {page.key: page for page in pages}
        self.savable = savable
        given = defaults or {}
        self.default: dict[Key, bytes] = {
            key: page.pack({**page.defaults, **given.get(key, {})}) for key, page in self.pages.items()
        }
        self.mask: dict[Key, bytes] = {key: page.changeable_mask() for key, page in self.pages.items()}
        for key, name in fixed:
            page = self.pages[key]
            mask = page.layout.unpack(self.mask[key])
            self.mask[key] = page.pack({**mask, name: 0})
        self.current = dict(self.default)
        self.saved = dict(self.default)

    def get(self, key: Key, name: str) -> int:
        """The current value of a field."""
        page = self.pages[key]
        length = page.layout.length
        wanted = page.layout[name]
        return int.from_bytes(self.current[key]) >> wanted.shift(length) & (1 << wanted.width) - 1

    def page(self, key: Key, control: PageControl) -> bytes:
        """A page as MODE SENSE returns it, PS included."""
        values = (self.current, self.mask, self.default, self.saved)[control][key]
        return bytes((values[0] | (0x80 if self.savable else 0),)) + values[1:]

    def reset(self) -> None:
        """Logical unit reset: the saved values become current; without any, the defaults (SPC-5 6.12.1)."""
        self.current = dict(self.saved)

    def save(self) -> None:
        """All current values become the saved ones (SP of MODE SELECT)."""
        self.saved = dict(self.current)

    def saved_fields(self) -> dict[str, dict[str, int]]:
        """The saved values of what can be changed, to be kept: ``{"0a/00": {"swp": 1, ...}, ...}``."""
        kept = {}
        for key, page in self.pages.items():
            values = page.layout.unpack(self.saved[key])
            changeable = {name: values[name] for name in sorted(self._changeable(key))}
            if changeable:
                kept[_name(key)] = changeable
        return kept

    def load_fields(self, kept: Mapping[str, Mapping[str, int]]) -> None:
        """Take values from :meth:`saved_fields` as saved and current. What is unknown or cannot be is passed over."""
        for key, page in self.pages.items() if kept else ():
            values = page.layout.unpack(self.saved[key])
            for name, value in kept.get(_name(key), {}).items():
                if name in self._changeable(key) and type(value) is int and value in self._allowed(page, name):
                    values[name] = value
            self.saved[key] = page.pack(values)
        self.current = dict(self.saved)

    def _changeable(self, key: Key) -> frozenset[str]:
        page = self.pages[key]
        mask = page.layout.unpack(self.mask[key])
        return frozenset(name for name in page.changeable if mask[name])

    @staticmethod
    def _allowed(page: ModePage, name: str) -> Iterable[int]:
        return page.allowed.get(name, range(1 << page.layout[name].width))


class ModePageView:
    """Several sets of mode pages as one, in the order in which MODE SENSE returns them. A page is in one of them."""

    def __init__(self, *sets: ModePageValues) -> None:
        self.sets: dict[Key, ModePageValues] = dict(sorted((key, values) for values in sets for key in values.pages))
        """Where a page is."""
        self.pages: dict[Key, ModePage] = {key: values.pages[key] for key, values in self.sets.items()}
        self.current: dict[Key, bytes] = {key: values.current[key] for key, values in self.sets.items()}
        self.mask: dict[Key, bytes] = {key: values.mask[key] for key, values in self.sets.items()}

    def page(self, key: Key, control: PageControl) -> bytes:
        """See :meth:`ModePageValues.page`."""
        return self.sets[key].page(key, control)


def _name(key: Key) -> str:
    return f"{key[0]:02x}/{key[1]:02x}"
