"""Mode ``fcf``: what goes wrong on virtual links, for RLS (the FCoE Link Error Status Block, FC-BB-5 clause 7.10).

A VF_Port shares the Ethernet interface, and so the errors of that, with all others; what happens to virtual links is its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from tcm_fcoe.protocol.els import LinkErrorStatus

WORD = 0xFFFFFFFF
"""Counters of the block have 32 bits."""
REMEMBERED = 4096
"""Port names of which errors are kept, whether they are logged in or not."""


@dataclass(slots=True)
class Errors:
    """Of the virtual link of one VN_Port, as long as the FCF runs."""

    failures: int = 0
    """Virtual links that ended without LOGO: no keep-alives, another FLOGI, the Ethernet link gone."""
    missed_keep_alives: int = 0


class VirtualLinkErrors:
    """Those of all VN_Ports, by port name."""

    def __init__(self) -> None:
        self._errors: dict[bytes, Errors] = {}

    def failed(self, port_name: bytes, *, silent: bool = False) -> None:
        """Its virtual link is lost; ``silent``: since its keep-alives, or those of its ENode, stayed away."""
        found = self._errors.pop(port_name, None) or Errors()
        self._errors[port_name] = found
        found.failures += 1
        found.missed_keep_alives += silent
        if len(self._errors) > REMEMBERED:
            del self._errors[next(iter(self._errors))]

    def status(self, port_name: bytes, interface: tuple[int, int, int, int]) -> LinkErrorStatus:
        """Of one so far; ``interface`` as :meth:`ControllerServices.interface_errors` has it."""
        failures, symbols, blocks, frames = (each & WORD for each in interface)
        own = self._errors.get(port_name) or Errors()
        return LinkErrorStatus(failures, own.failures & WORD, own.missed_keep_alives & WORD, symbols, blocks, frames)
