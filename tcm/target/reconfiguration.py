"""A logical unit is configured anew while initiators are there."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tcm.target.device_server.identification import inquiry_data
from tcm.target.unit_attention import INQUIRY_DATA_HAS_CHANGED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcm.target.logical_unit import LogicalUnit


@contextmanager
def reconfigured(lu: LogicalUnit) -> Iterator[None]:
    """Change the unit's identity, attributes or ports inside the ``with`` block; what follows from them is settled after it.

    An I_T nexus for which standard INQUIRY data or a VPD page says something else then has the unit attention condition INQUIRY
    DATA HAS CHANGED (SPC-5, INQUIRY command). Attributes that count only when the backstore is opened (block size, the defaults
    of mode parameters) stay what they were.
    """
    before = {itl: inquiry_data(itl) for itl in lu.itl_nexuses}
    yield
    if not lu.failed:
        lu.update_features()
        lu.task_set.depth = lu.attributes.queue_depth
        for itl in lu.itl_nexuses:
            itl.rebuild_express()
    for itl, data in before.items():
        if itl in lu.itl_nexuses and inquiry_data(itl) != data:
            itl.establish_attention(INQUIRY_DATA_HAS_CHANGED)
