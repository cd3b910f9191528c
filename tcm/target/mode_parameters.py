"""A logical unit's mode parameters: what the core asks of them, and where saved values are kept."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import anyio

from tcm.backstore import Support
from tcm.scsi.check_condition import InternalTargetFailure
from tcm.scsi.mode_pages import BLOCK_DEVICE_PAGES, CACHING, CONTROL, LOGICAL_BLOCK_PROVISIONING_PAGE, Key, ModePageValues
from tcm.target.kept import Kept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tcm.target.logical_unit import LogicalUnit

log = logging.getLogger(__name__)

_ABOUT_PROTECTION = ((CONTROL, "ato"), (CONTROL, "dpicz"), (CONTROL, "rwwp"))
"""Fields that mean nothing without protection information."""
_INTERLOCK = (0b00, 0b10, 0b11)
"""LIO's ``emulate_ua_intlck_ctrl`` to UA_INTLCK_CTRL."""


class ModeParameters:
    """The mode pages of one logical unit, shared by all its I_T nexuses. Made when the backstore is open."""

    def __init__(self, logical_unit: LogicalUnit) -> None:
        self._logical_unit = logical_unit
        self._kept = Kept(logical_unit, "mode")
        self._saving = anyio.Lock()
        attributes = logical_unit.attributes
        protects = logical_unit.protection.supported
        cache = logical_unit.capabilities.flush is Support.NATIVE
        thresholds = (LOGICAL_BLOCK_PROVISIONING_PAGE,) if logical_unit.provisioning.known else ()
        self.values = ModePageValues(
            (*BLOCK_DEVICE_PAGES, *thresholds),
            defaults={
                CACHING: {"wce": logical_unit.medium.write_cache},
                CONTROL: {
                    "tas": attributes.emulate_tas,
                    "ua_intlck_ctrl": _INTERLOCK[attributes.emulate_ua_intlck_ctrl],
                    "dpicz": protects and attributes.pi_prot_verify is False,
                },
            },
            # without a flush a write cache could be neither emptied nor done without
            fixed=(*(() if cache else ((CACHING, "wce"),)), *(() if protects else _ABOUT_PROTECTION)),
            savable=bool(self._kept),
        )
        self._take_effect()

    async def load(self) -> None:
        """Take up what was saved; what cannot be read is as if it had never been."""
        try:
            text = await self._kept.load()
            self.values.load_fields({} if text is None else _fields(text))
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s: saved mode parameters are ignored: %s", self._kept, error)
        self._take_effect()

    def change(self, pages: Mapping[Key, bytes]) -> bool:
        """Make pages from :func:`tcm.scsi.mode_data.parse_mode_select` current; returns whether that changed anything."""
        before = self.values.current
        self.values.current = {**before, **pages}
        if self.values.current == before:
            return False
        self._take_effect()
        self._logical_unit.update_express()
        return True

    def configure_write_cache(self, *, enabled: bool) -> bool:
        """Another WCE by default, saved and now: the administrator's. Returns whether it is another one now."""
        before = self.write_cache
        page = self.values.pages[CACHING]
        for values in (self.values.default, self.values.saved, self.values.current):
            values[CACHING] = page.pack({**page.layout.unpack(values[CACHING]), "wce": enabled})
        self._take_effect()
        self._logical_unit.update_express()
        return self.write_cache is not before

    async def save(self) -> None:
        """All current values become the saved ones (SP). Raises INTERNAL TARGET FAILURE if they cannot be kept."""
        async with self._saving:  # there is one value for all nexuses
            before = self.values.saved
            self.values.save()
            try:
                await self._kept.save(json.dumps(self.values.saved_fields(), indent=1))
            except OSError as error:
                self.values.saved = before
                raise InternalTargetFailure from error

    def reset(self) -> None:
        """Logical unit reset: back to the saved values, or the defaults."""
        self.values.reset()
        self._take_effect()

    def _take_effect(self) -> None:
        control = self.values.pages[CONTROL].layout.unpack(self.values.current[CONTROL])
        self.software_write_protect = bool(control["swp"])
        """SWP: writes end in DATA PROTECT."""
        self.unit_attention_interlock = control["ua_intlck_ctrl"]
        """UA_INTLCK_CTRL: 00b, 10b or 11b (SPC-5 7.5.10)."""
        self.descriptor_sense = bool(control["d_sense"])
        """D_SENSE: sense data in descriptor format."""
        self.task_aborted_status = bool(control["tas"])
        """TAS: TASK ABORTED status for tasks that another I_T nexus aborts."""
        self.application_tag_owner = bool(control["ato"])
        """ATO: application tags are the application client's, we neither know nor change them."""
        self.unchecked_by_default = bool(control["dpicz"])
        """DPICZ: a protect field of zero asks for no checks."""
        self.rejects_unprotected = bool(control["rwwp"])
        """RWWP: writes without protection information are refused by a unit that has it."""
        self.write_cache = bool(self.values.get(CACHING, "wce"))
        """WCE: writes may be acknowledged before they are durable."""
        self._logical_unit.medium.write_cache = self.write_cache


def _fields(text: str) -> Mapping[str, Mapping[str, int]]:
    content = json.loads(text)
    if isinstance(content, dict) and all(isinstance(page, dict) for page in content.values()):
        return content
    raise ValueError("not a table of pages")
