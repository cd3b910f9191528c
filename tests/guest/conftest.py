"""LIO in a guest as a device under test."""

from __future__ import annotations

from support.ffp_fixtures import dut, lio_target

__all__ = ["dut", "lio_target"]
