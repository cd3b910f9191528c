"""LIO in a guest as a device under test."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from support.ffp_fixtures import IN_A_GUEST, dut, lio_target
from support.ffp_servers import Lio

__all__ = ["dut", "lio_target"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """LIO's kernel survives some tests for a while only, and dies in a later one: that one says nothing of LIO, nor of us."""
    try:
        return (yield)
    except Exception:
        lio = pyfuncitem.stash.get(IN_A_GUEST, None)
        if isinstance(lio, Lio) and pyfuncitem.get_closest_marker("xfail") is None and (died := lio.died()):
            pytest.xfail(f"LIO's kernel died meanwhile\n{died}")
        raise
