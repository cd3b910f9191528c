"""A filter that does not know all methods of a backstore would be bypassed by those it does not know: it is refused."""

from __future__ import annotations

import pytest

from tcm.configuration import Configuration, FilterConfig, StorageObject
from tcm.failure import ConfigError
from tcm.filter import BackstoreFilter, methods
from tcm.hookspecs import hookimpl
from tcm.plugin_types import BackstoreType, FilterType
from tcm.plugins import PluginManager
from tcm.runtime import Runtime
from tcm.testing import ModelBackstore


class Old(BackstoreFilter):
    """Made before there was write_zeroes."""

    passed_through = methods() - {"write_zeroes"}


class Plugin:
    @hookimpl
    def tcm_backstores(self):
        return [BackstoreType(name="model", api_version=1, factory=lambda _options: ModelBackstore())]

    @hookimpl
    def tcm_filters(self):
        return [FilterType(name="old", api_version=1, factory=lambda inner, _options: Old(inner))]


@pytest.mark.anyio
async def test_an_old_filter_is_refused():
    plugins = PluginManager([])
    plugins.register(Plugin(), "plugin")
    unit = StorageObject(
        path="/backstores/model/x",
        name="x",
        type="model",
        options=None,
        filters=(FilterConfig(type="old", options=None),),
        serial="11111111-2222-3333-4444-555555555555",
    )
    runtime = Runtime(Configuration(fabrics=(), storage_objects=(unit,), targets=()), plugins)
    with pytest.raises(ConfigError, match=r"filter old does not account for write_zeroes, which would bypass it; install"):
        await runtime.serve()
