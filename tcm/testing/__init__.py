"""Contracts to subclass: they test that a backstore, a filter, a fabric or a store keeps the promises that the core relies on.

Needs pytest, hypothesis and anyio's pytest plug-in (it comes with anyio). The asynchronous tests run on every backend of the
``anyio_backend`` fixture: asyncio and trio, unless you override it.
"""

import pytest

pytest.register_assert_rewrite("tcm.testing.backstore", "tcm.testing.fabric", "tcm.testing.filter", "tcm.testing.store")

from tcm.testing.backstore import BackstoreContract  # noqa: E402  # after the rewriting of its asserts
from tcm.testing.fabric import FabricContract  # noqa: E402  # as above
from tcm.testing.filter import FilterContract  # noqa: E402  # as above
from tcm.testing.memory_store import MemoryStore  # noqa: E402  # as above
from tcm.testing.model import ModelBackstore  # noqa: E402  # as above
from tcm.testing.store import StoreContract  # noqa: E402  # as above

__all__ = ["BackstoreContract", "FabricContract", "FilterContract", "MemoryStore", "ModelBackstore", "StoreContract"]
