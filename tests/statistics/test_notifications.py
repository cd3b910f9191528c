"""What is told without being asked for: when, how often at most (RFC 4455, RFC 7147), and with which objects."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from support.compiled_mibs import load
from support.lio_tree import NAA, serving
from support.statistics_site import serving as serving_iscsi

from tcm.statistics.mib import Column, Notification, Oid, Syntax, Table, View
from tcm.statistics.mib_state import MibState
from tcm.statistics.scsi_mib import ScsiMib
from tcm.statistics.snmp import BURST, BURST_SECONDS, Watch


@dataclass
class Row:
    status: int


class Rows:
    """A table whose rows a test sets."""

    def __init__(self, **kind: object) -> None:
        self.rows: dict[Oid, Row] = {(1,): Row(2), (2,): Row(2)}
        column = Column(1, "status", Syntax.INTEGER, lambda row: row.status)
        table = Table("table", (1, 3, 6, 1, 9), lambda: list(self.rows.items()), (column,))
        self.watch = Watch(Notification("event", (1, 3, 6, 1, 9, 0, 1), table, "status", ("status",), **kind))  # type: ignore[arg-type]  # any of them
        assert list(self.watch.changes(0.0)) == []

    def told(self, now: float, status: int, index: Oid = (1,)) -> list[Oid]:
        self.rows[index].status = status
        return [where for where, _ in self.watch.changes(now)]


def test_first_values_are_none_to_tell() -> None:
    rows = Rows()
    rows.rows[3,] = Row(4)
    assert rows.told(1.0, 2) == []
    assert rows.told(2.0, 5, (3,)) == [(3,)]
    del rows.rows[3,]
    assert rows.told(3.0, 2) == []
    rows.rows[3,] = Row(9)
    assert rows.told(4.0, 2) == []


def test_at_most_three_in_ten_seconds() -> None:
    """Of one type in all (RFC 7147: iscsiTgtLoginFailure). The fourth is told when it may be, if it is still so."""
    rows = Rows()
    assert [rows.told(now, int(now), (1 + int(now) % 2,)) for now in (10.0, 11.0, 12.0)] == [[(1,)], [(2,)], [(1,)]]
    assert rows.told(13.0, 99) == []
    assert rows.told(19.9, 99) == []
    assert rows.told(10.0 + BURST_SECONDS, 99) == [(1,)]
    assert rows.told(20.5, 100) == []
    assert rows.told(20.9, 99) == []
    assert rows.told(50.0, 99) == []  # it was another value for a moment only
    assert BURST == 3


def test_identical_ones_are_those_of_a_row() -> None:
    """RFC 4455: no more than three identical ones. That many units fail at once is told of each."""
    rows = Rows(each=True)
    for number in range(1, 40):
        rows.rows[number,] = Row(2)
    assert list(rows.watch.changes(1.0)) == []
    for row in rows.rows.values():
        row.status = 4
    assert len(list(rows.watch.changes(2.0))) == len(rows.rows)
    assert [rows.told(3.0 + n, n) for n in range(3)] == [[(1,)], [(1,)], []]
    rows.rows.clear()
    assert list(rows.watch.changes(20.0)) == []
    assert not rows.watch._told


def test_only_what_is_to_be_told_is() -> None:
    enabled = True
    rows = Rows(tells=lambda status: status != 2, enabled=lambda: enabled)
    assert rows.told(1.0, 5) == [(1,)]
    assert rows.told(2.0, 2) == []
    enabled = False
    assert rows.told(3.0, 5) == []
    enabled = True
    assert rows.told(4.0, 5) == []  # what happened while they were off is over
    assert rows.told(5.0, 3) == [(1,)]


@pytest.mark.anyio
async def test_scsi_notifications_follow_the_switch(tmp_path) -> None:
    async with serving(tmp_path, "loopback") as site:
        await site.loopback(await site.ramdisk())
        state = MibState()
        module = ScsiMib(site.runtime.statistics, state).module()
        device, unit = (Watch(each) for each in module.notifications)
        (logical_unit,) = site.runtime.logical_units.values()

        def told(now: float) -> list[str]:
            return [each.notification.name for each in (device, unit) for _ in each.changes(now)]

        assert told(0.0) == []
        logical_unit.failed = True
        assert told(1.0) == ["scsiTgtDeviceStatusChanged", "scsiLuStatusChanged"]
        logical_unit.failed = False
        assert told(2.0) == ["scsiLuStatusChanged"]  # the device is available: that is no abnormal status
        state.own["notifications"] = False
        logical_unit.failed = True
        assert told(3.0) == []
        state.own["notifications"] = True
        logical_unit.failed = False
        assert told(4.0) == ["scsiLuStatusChanged"]


@pytest.mark.anyio
async def test_iscsi_notifications_know_no_switch() -> None:
    async with serving_iscsi() as site:
        state = MibState()
        state.own["notifications"] = False
        _, iscsi = site.fabric.statistics().mib(state)
        for each in iscsi.notifications:
            assert each.enabled()
            assert not each.each


@pytest.mark.anyio
async def test_the_loopback_fabrics_initiator_port_is_an_initiator_device(tmp_path) -> None:
    """Its tables of SCSI-MIB have rows, whose pointers and indexes lead to rows that are there."""
    async with serving(tmp_path, "loopback", "iscsi") as site:
        await site.loopback(await site.ramdisk(), 3)
        initiator = site.connect()
        for _ in range(5):
            await initiator.execute(3, bytes(6))
        view = View([ScsiMib(site.runtime.statistics, MibState()).module()])
        found: dict[str, dict[Oid, object]] = {}
        instances = {}
        at: Oid = (1, 3)
        while (step := view.next(at, (), 0.0)) is not None:
            at = step[0]
            instances[at] = step[2]
            where = view.find(at)
            assert where is not None
            _, column, index = where
            found.setdefault(column.name, {})[index] = step[2]
            if column.syntax is not Syntax.TIME_TICKS:
                load("SCSI-MIB")[0][column.name].type.clone(step[2])
        (device,) = [index for index, role in found["scsiDeviceRole"].items() if role == b"\x40"]
        assert found["scsiTransportDevName"][*device, 1] == initiator.name.encode()
        assert found["scsiIntrDevOutResets"] == {device: 0}
        assert found["scsiIntrPortName"] == {(*device, 1): initiator.name.encode()}
        assert found["scsiIntrPortHSOutCommands"] == {(*device, 1): 5}
        ((target, name),) = found["scsiDscTgtName"].items()
        assert (target[:3], name) == ((*device, 1), NAA.encode())
        assert found["scsiDscTgtInCommands"] == {target: 5}
        assert found["scsiDscLunLun"] == {(*target, 4): bytes((0, 3, 0, 0, 0, 0, 0, 0))}
        assert {index[:-1] for index in found["scsiDscLunIdValue"]} == {(*target, 4)}
        (attached,) = found["scsiAttTgtPortName"]
        assert found["scsiAttTgtPortDscTgtIdx"][attached] == target[-1]
        assert found["scsiPortTransportPtr"][*device, 1] in instances
        assert (*device, 1) not in found["scsiPortBusyStatuses"]
        initiator.disconnect()
        view.forget()
        assert view.next((*view.modules[0].oid, 2, 2), (*view.modules[0].oid, 2, 3), 10.0) is None
