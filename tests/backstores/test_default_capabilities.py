"""What a backstore can do if it does not say: what it overrides."""

from __future__ import annotations

import pytest

from tcm.backstore import Backstore, BlockingBackstore, Capabilities, Support


def make(base, *names: str) -> Backstore | BlockingBackstore:
    """An object of a class that overrides the required methods and ``names``."""
    methods = dict.fromkeys((*base.__abstractmethods__, *names), lambda *_, **__: None)
    return type("Made", (base,), methods)()


@pytest.mark.parametrize("base", [Backstore, BlockingBackstore])
class TestDefaultCapabilities:
    def test_nothing(self, base):
        assert make(base).capabilities() == Capabilities(read_only=True)

    def test_writes_are_durable_unless_there_is_a_flush(self, base):
        assert make(base, "writev").capabilities() == Capabilities()
        assert make(base, "writev", "flush").capabilities() == Capabilities(flush=Support.NATIVE)

    @pytest.mark.parametrize("name", ["flush", "unmap", "write_zeroes", "extents"])
    def test_what_is_overridden_is_native(self, base, name):
        assert make(base, "writev", name).capabilities() == Capabilities(**{name: Support.NATIVE})

    @pytest.mark.parametrize("name", ["read_nowait", "write_nowait"])
    def test_nowait(self, base, name):
        assert make(base, "writev", name).capabilities() == Capabilities(nowait=True)
