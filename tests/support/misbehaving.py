"""A plug-in whose fabric and backstore fail on demand; made a distribution of with :mod:`support.distributions`."""

SOURCE = """
from dataclasses import dataclass

import anyio
from tcm.backstore import Backstore, Capabilities, Support
from tcm.fabric import Endpoint, Fabric
from tcm.hookspecs import hookimpl
from tcm.plugin_types import API_VERSION, BackstoreType, FabricType, option


@dataclass(frozen=True)
class Options:
    fails: str = option("when: start, later, ends, drain", "")


class Misbehaving(Fabric):
    def __init__(self, targets, options):
        self.fails = options.fails

    async def run(self, *, task_status):
        if self.fails == "start":
            raise OSError(99, "Cannot do that")
        task_status.started()
        if self.fails == "later":
            await anyio.sleep(0.1)
            raise ValueError("it broke")
        if self.fails != "ends":
            await anyio.sleep_forever()

    def endpoints(self):
        return [Endpoint("misbehaving://here/0")]

    async def drain(self):
        if self.fails == "drain":
            await anyio.sleep_forever()
        if self.fails == "draining":
            raise ValueError("cannot drain")


@dataclass(frozen=True)
class DiskOptions:
    fails: str = option("when: made, open, flush, close, defect", "")


class Disk(Backstore):
    def __init__(self, options):
        self.fails = options.fails
        if self.fails == "made":
            raise KeyError("made")

    def fail(self, when):
        if self.fails == when:
            raise OSError(5, "Input/output error", "/dev/broken")

    async def open(self):
        self.fail("open")
        if self.fails == "defect":
            raise ZeroDivisionError("zero")

    def size(self):
        return 1 << 20

    def capabilities(self):
        return Capabilities(flush=Support.NATIVE)

    async def readv(self, buffers, offset):
        pass

    async def writev(self, buffers, offset, fua=False):
        pass

    async def flush(self):
        self.fail("flush")

    async def aclose(self):
        self.fail("close")


@hookimpl
def tcm_backstores():
    return [BackstoreType(name="badly", api_version=API_VERSION, options=DiskOptions, factory=Disk)]


@hookimpl
def tcm_fabrics():
    return [
        FabricType(
            name="misbehaving",
            api_version=API_VERSION,
            options=Options,
            factory=Misbehaving,
            check_name=str,
            default_name=lambda host, unique: f"target-{unique}",
        )
    ]
"""
