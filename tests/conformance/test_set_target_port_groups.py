"""SET TARGET PORT GROUPS: SPC-4 6.45; states that outlive the power: SPC-4 5.16.2.9, LIO's alua directory."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from support.ports import TwoPorts, report_groups, set_groups, two_ports
from tcm_loopback.transport import CommandAborted

from tcm.scsi import cdb
from tcm.scsi.asymmetric_access import AccessState
from tcm.scsi.check_condition import (
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    LogicalUnitOffline,
    ParameterListLengthError,
    SetTargetPortGroupsCommandFailed,
    TargetPortInStandbyState,
)
from tcm.scsi.sense import Status
from tcm.target.access_transition import set_access_state, set_offline
from tcm.target.directory_store import DirectoryStore
from tcm.target.task_management import TaskManagementFunction as Function
from tcm.target.unit_attention import (
    ASYMMETRIC_ACCESS_STATE_CHANGED,
    IMPLICIT_ASYMMETRIC_ACCESS_STATE_TRANSITION_FAILED,
)
from tcm.testing import MemoryStore
from tcm.testing.memory_store import Values

pytestmark = pytest.mark.anyio
AO, ANO, STANDBY, UNAVAILABLE = (
    AccessState.ACTIVE_OPTIMIZED,
    AccessState.ACTIVE_NON_OPTIMIZED,
    AccessState.STANDBY,
    AccessState.UNAVAILABLE,
)


@pytest.fixture
async def ways() -> AsyncIterator[TwoPorts]:
    async with two_ports() as made:
        yield made


def states(ways: TwoPorts) -> list[tuple[int, int]]:
    return [(group.state, group.status) for group in ways.groups]


async def nobody_is_told(ways: TwoPorts) -> None:
    for client in ways.clients:
        await client.test_unit_ready()


async def test_set_target_port_groups_changes(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.8: several groups at once, through any of them; all I_T nexuses but the one that asked are told."""
    one, two = ways.clients
    await set_groups(one, (1, STANDBY), (2, ANO))
    assert states(ways) == [(STANDBY, 1), (ANO, 1)]
    await one.test_unit_ready(expect=TargetPortInStandbyState)
    await two.test_unit_ready(expect=ASYMMETRIC_ACCESS_STATE_CHANGED)
    await two.test_unit_ready()
    await set_groups(one, (1, AO))
    assert states(ways) == [(AO, 1), (ANO, 1)]
    await one.read(10, 0, 1)
    await two.request_sense()
    await set_groups(two, (1, AO), (2, ANO))
    await nobody_is_told(ways)


async def test_set_target_port_groups_unavailable(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.4.5: the command is taken through a port that is unavailable, to leave that state."""
    await set_groups(ways.clients[1], (2, UNAVAILABLE))
    await set_groups(ways.clients[1], (2, AO))
    await ways.clients[1].test_unit_ready()


async def test_set_target_port_groups_offline(ways: TwoPorts) -> None:
    """SPC-4 6.45: offline is a secondary state, and the number a relative target port identifier."""
    one, two = ways.clients
    await set_groups(one, (ways.ports[1], AccessState.OFFLINE), (1, ANO))
    assert (ways.luns[1].offline, ways.luns[1].offline_status, states(ways)) == (True, 1, [(ANO, 1), (AO, 0)])
    await two.test_unit_ready(expect=ASYMMETRIC_ACCESS_STATE_CHANGED)
    await two.test_unit_ready(expect=LogicalUnitOffline)
    await one.test_unit_ready()


async def test_set_target_port_groups_nothing(ways: TwoPorts) -> None:
    """SPC-4 6.45: no parameter list, or one without descriptors, changes nothing and is no error."""
    one = ways.clients[0]
    await one.execute(cdb.set_target_port_groups(0))
    await one.execute(cdb.set_target_port_groups(4), bytes(4))
    await nobody_is_told(ways)


WRONG: dict[str, tuple[bytes, int, int | None]] = {
    # what follows a good descriptor for group 1: byte and bit of the field pointer
    "reserved bits": (bytes.fromhex("12000002"), 8, 4),
    "reserved byte": (bytes.fromhex("02800002"), 9, 7),
    "logical block dependent": (bytes.fromhex("04000002"), 8, 3),
    "reserved state": (bytes.fromhex("0d000002"), 8, 3),
    "transitioning": (bytes.fromhex("0f000002"), 8, 3),
    "no such group": (bytes.fromhex("02000063"), 10, None),
    "a group without ports": (bytes.fromhex("02000000"), 10, None),
    "no such port": (bytes.fromhex("0e00ffff"), 10, None),
    "a group twice": (bytes.fromhex("02000001"), 10, None),
}


@pytest.mark.parametrize("name", WRONG)
async def test_set_target_port_groups_parameter_list(ways: TwoPorts, name: str) -> None:
    """SPC-4 6.45: what is wrong in any descriptor is pointed at, and none of them is carried out."""
    wrong, byte, bit = WRONG[name]
    data = bytes.fromhex("00000000 02000001") + wrong
    result = await ways.clients[0].execute(cdb.set_target_port_groups(12), data, expect=InvalidFieldInParameterList)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0x80 if bit is None else 0x88 | bit, 0, byte))
    assert states(ways) == [(AO, 0), (AO, 0)]
    await nobody_is_told(ways)


async def test_set_target_port_groups_reserved_bits(ways: TwoPorts) -> None:
    """SPC-4 4.2.1: every reserved bit of header and descriptor is refused where it stands."""
    good = cdb.target_port_groups_parameters((1, STANDBY))
    for byte in range(6):
        for bit in range(8):
            if byte == 4 and bit < 4:
                continue
            data = bytearray(good)
            data[byte] |= 1 << bit
            result = await ways.clients[0].execute(cdb.set_target_port_groups(8), data, expect=InvalidFieldInParameterList)
            assert result.sense is not None
            assert result.sense.sense_key_specific == bytes((0x88 | bit, 0, byte))
    assert states(ways) == [(AO, 0), (AO, 0)]


async def test_set_target_port_groups_lengths(ways: TwoPorts) -> None:
    """SPC-4 6.45: a length that cuts a descriptor is INVALID FIELD IN CDB; data that end early, a list length error."""
    one = ways.clients[0]
    data = cdb.target_port_groups_parameters((1, STANDBY), (2, STANDBY))
    for length in range(len(data) + 1):
        if length % 4:
            result = await one.execute(cdb.set_target_port_groups(length), data[:length], expect=InvalidFieldInCdb)
            assert result.sense is not None
            assert result.sense.sense_key_specific == bytes((0xC0, 0, 6))
        if length < len(data):
            await one.execute(cdb.set_target_port_groups(len(data)), data[:length], expect=ParameterListLengthError)
    await one.execute(cdb.set_target_port_groups(0xFFFFFFFC), data, expect=InvalidFieldInCdb)
    assert states(ways) == [(AO, 0), (AO, 0)]
    await nobody_is_told(ways)


async def test_set_target_port_groups_not_explicit(ways: TwoPorts) -> None:
    """SPC-4 6.45: only for groups whose access type is explicit, both the port's own and those that are named."""
    ways.configure(1, alua_access_type=1)
    await ways.settle()
    one, two = ways.clients
    result = await two.execute(cdb.set_target_port_groups(4), bytes(4), expect=InvalidFieldInCdb)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0xCC, 0, 1))
    await set_groups(one, (1, STANDBY), (2, STANDBY), expect=InvalidFieldInParameterList)
    ways.configure(0, alua_access_type=0)
    ways.unit.asymmetric_access.configure(ways.unit.asymmetric_access.default, ways.groups[0].attributes)
    await ways.settle()
    await one.execute(cdb.set_target_port_groups(0), expect=InvalidFieldInCdb)
    usage = await one.execute(cdb.report_supported_operation_codes(2, 0xA4, 0x0A), read_length=64)
    assert usage.data_in[1] & 7 == 1
    assert states(ways) == [(AO, 0), (AO, 0)]


async def test_set_target_port_groups_not_supported(ways: TwoPorts) -> None:
    """SPC-4 6.45: a state that the group's support bits do not name."""
    ways.configure(1, alua_support_standby=False, alua_support_offline=False)
    one = ways.clients[0]
    await set_groups(one, (1, STANDBY), (2, STANDBY), expect=InvalidFieldInParameterList)
    await set_groups(one, (1, STANDBY), (ways.ports[1], AccessState.OFFLINE), expect=InvalidFieldInParameterList)
    assert states(ways) == [(AO, 0), (AO, 0)]


async def test_set_target_port_groups_concurrently(ways: TwoPorts) -> None:
    """SPC-4 6.45: two at a time are carried out one after the other, each of them whole."""
    for index in (0, 1):
        ways.configure(index, trans_delay_msecs=10, alua_support_transitioning=False)
    one, two = ways.clients
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(set_groups, one, (1, ANO), (2, STANDBY))
        tasks.start_soon(set_groups, two, (2, ANO), (1, ANO))
    assert states(ways) in ([(ANO, 1), (ANO, 1)], [(ANO, 1), (STANDBY, 1)])


async def test_set_target_port_groups_aborted(ways: TwoPorts) -> None:
    """SAM-5 7.2: aborted while the transition takes its time, the command has changed nothing."""
    ways.configure(0, trans_delay_msecs=30_000)
    one = ways.clients[0]
    data = cdb.target_port_groups_parameters((1, STANDBY))
    command = one.initiator.start(one.lun, cdb.set_target_port_groups(8), data)
    assert command.task is not None
    while ways.groups[0].state is not AccessState.TRANSITIONING:
        await anyio.lowlevel.checkpoint()
    with anyio.fail_after(60):
        await one.initiator.task_management(Function.ABORT_TASK, one.lun, command.task.tag)
        with pytest.raises(CommandAborted):
            await command.wait()
    assert states(ways) == [(AO, 0), (AO, 0)]
    await nobody_is_told(ways)


# What is kept


def kept(directory: Path) -> dict[str, str]:
    """The files of LIO's alua directory."""
    return {
        str(path.relative_to(directory)): path.read_text() for path in sorted(directory.glob("alua/**/*")) if path.is_file()
    }


async def test_set_target_port_groups_kept(tmp_path: Path) -> None:
    """LIO's alua/tpgs_<unit serial>/<group>: kept if alua_write_metadata says so, there again after a loss of power."""
    for configured in (True, False):
        async with two_ports(store=DirectoryStore(str(tmp_path))) as ways:
            ways.configure(1, alua_write_metadata=True)
            await ways.unit.asymmetric_access.load()
            if not configured:
                assert states(ways) == [(AO, 0), (STANDBY, 1)]
                continue
            await set_groups(ways.clients[0], (1, STANDBY), (2, STANDBY))
    name = "alua/tpgs_11111111-2222-3333-4444-555555555555/group2"
    assert kept(tmp_path) == {name: "tg_pt_gp_id=2\nalua_access_state=0x02\nalua_access_status=0x01\n"}


async def test_set_target_port_groups_explicit_only(tmp_path: Path) -> None:
    """SPC-4 5.16.2.9: where only initiators change the state, it outlives power on whatever the metadata attribute says."""
    async with two_ports(store=DirectoryStore(str(tmp_path))) as ways:
        ways.configure(1, alua_access_type=2)
        await set_groups(ways.clients[0], (2, ANO))
        assert list(kept(tmp_path)) == ["alua/tpgs_11111111-2222-3333-4444-555555555555/group2"]


async def test_set_target_port_groups_offline_kept(tmp_path: Path) -> None:
    """LIO's alua/<fabric>/<wwn>+<tag>/lun_<n>: the secondary state, if alua_tg_pt_write_md says so."""
    async with two_ports(store=DirectoryStore(str(tmp_path))) as ways:
        ways.luns[1].alua_tg_pt_write_md = True
        await set_groups(ways.clients[0], (ways.ports[1], AccessState.OFFLINE), (ways.ports[0], AccessState.OFFLINE))
    name = "alua/loopback/naa.50014050000000ab+2/lun_5"
    assert kept(tmp_path) == {name: "alua_tg_pt_offline=1\nalua_tg_pt_status=0x01\n"}
    async with two_ports(store=DirectoryStore(str(tmp_path))) as ways:
        ways.luns[1].alua_tg_pt_write_md = True
        await ways.unit.asymmetric_access.load()
        assert [(lun.offline, lun.offline_status) for lun in ways.luns] == [(False, 0), (True, 1)]
        await set_offline(ways.luns[1], offline=False)
    assert kept(tmp_path) == {name: "alua_tg_pt_offline=0\nalua_tg_pt_status=0x02\n"}


@pytest.mark.parametrize("fails_at", [1, 2])
async def test_set_target_port_groups_cannot_be_kept(fails_at: int) -> None:
    """SPC-4 5.16.2.5: SET TARGET PORT GROUPS COMMAND FAILED; nothing has changed, in the store neither."""
    store = MemoryStore(Values())
    async with two_ports(store=store) as ways:
        await set_groups(ways.clients[0], (1, ANO))
        await ways.settle()
        before = {key: entry.value for key, entry in store.values.entries.items()}
        real, puts = store.put, 0

        async def put(key: str, value: str | None, revision: str) -> str:
            nonlocal puts
            puts += 1
            if puts == fails_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return await real(key, value, revision)

        store.put = put  # type: ignore[method-assign]  # the one call that fails
        await set_groups(ways.clients[0], (1, STANDBY), (2, STANDBY), expect=SetTargetPortGroupsCommandFailed)
        assert {key: entry.value for key, entry in store.values.entries.items()} == before
        assert states(ways) == [(ANO, 1), (AO, 0)]
        await nobody_is_told(ways)
        puts = -10
        await set_groups(ways.clients[0], (1, STANDBY), (2, STANDBY))


async def test_alua_implicit_cannot_be_kept() -> None:
    """SPC-4 5.16.2.5: IMPLICIT ASYMMETRIC ACCESS STATE TRANSITION FAILED, for every I_T nexus; the state stays."""
    store = MemoryStore(Values())
    async with two_ports(store=store) as ways:
        store.failure = OSError(errno.EROFS, "Read-only file system")
        with pytest.raises(OSError, match="Read-only"):
            await set_access_state(ways.groups[0], STANDBY)
        for client in ways.clients:
            await client.test_unit_ready(expect=IMPLICIT_ASYMMETRIC_ACCESS_STATE_TRANSITION_FAILED)
        assert states(ways) == [(AO, 0), (AO, 0)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "line 1: tg_pt_gp_id is missing"),
        ("tg_pt_gp_id=2\nalua_access_state=0x02\n", "line 3: alua_access_status is missing"),
        ("tg_pt_gp_id=2\nalua_access_state=0x09\nalua_access_status=0x00\n", "line 2: alua_access_state=9"),
        ("tg_pt_gp_id=2\nalua_access_state=0x0f\nalua_access_status=0x00\n", "line 2: alua_access_state=15"),
        ("tg_pt_gp_id=2\nalua_access_state=0x02\nalua_access_status=0x03\n", "line 3: alua_access_status=3"),
        ("tg_pt_gp_id=2\nnonsense\nalua_access_status=0x00\n", "line 2: 'nonsense' is not understood"),
        ("tg_pt_gp_id=2\ntg_pt_gp_id=2\nalua_access_status=0x00\n", "line 2: 'tg_pt_gp_id=2' is not understood"),
        ("tg_pt_gp_id=7\nalua_access_state=0x02\nalua_access_status=0x00\n", "line 1: tg_pt_gp_id=7, not 2"),
    ],
)
async def test_alua_kept_state_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, what: str) -> None:
    """LIO's form: what cannot be read is refused with its line, the state is as configured, and the next change is kept."""
    path = tmp_path / "alua" / "tpgs_11111111-2222-3333-4444-555555555555" / "group2"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with caplog.at_level(logging.ERROR):
        async with two_ports(store=DirectoryStore(str(tmp_path))) as ways:
            ways.configure(1, alua_write_metadata=True)
            await ways.unit.asymmetric_access.load()
            assert what in caplog.text
            assert states(ways) == [(AO, 0), (AO, 0)]
            await set_groups(ways.clients[0], (2, STANDBY))
    assert path.read_text() == "tg_pt_gp_id=2\nalua_access_state=0x02\nalua_access_status=0x01\n"


async def test_alua_secondary_state_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """LIO's form, likewise."""
    path = tmp_path / "alua" / "loopback" / "naa.50014050000000ab+2" / "lun_5"
    path.parent.mkdir(parents=True)
    path.write_text("alua_tg_pt_offline=2\nalua_tg_pt_status=0x00\n")
    async with two_ports(store=DirectoryStore(str(tmp_path))) as ways:
        ways.luns[1].alua_tg_pt_write_md = True
        await ways.unit.asymmetric_access.load()
        assert "line 1: alua_tg_pt_offline=2" in caplog.text
        assert not ways.luns[1].offline


async def test_alua_two_nodes() -> None:
    """A store that nodes share: what one changes takes effect at the other, and its initiators are told."""
    values = Values()
    async with two_ports(store=MemoryStore(values)) as here, two_ports(store=MemoryStore(values)) as there:
        await set_groups(here.clients[0], (2, STANDBY))
        with anyio.fail_after(60):
            while there.groups[1].state is not STANDBY:
                await anyio.lowlevel.checkpoint()
        for client in there.clients:
            await client.test_unit_ready(expect=ASYMMETRIC_ACCESS_STATE_CHANGED)
        await here.clients[0].test_unit_ready()
        assert (await report_groups(there.clients[0]))[2][:2] == (STANDBY, 1)


async def test_set_target_port_groups_reserved(ways: TwoPorts) -> None:
    """SPC-4 table 65: SET TARGET PORT GROUPS conflicts with another nexus's reservation, REPORT TARGET PORT GROUPS does not."""
    one, two = ways.clients
    await one.reserve()
    await set_groups(two, (1, STANDBY), expect=Status.RESERVATION_CONFLICT)
    assert set(await report_groups(two)) == {1, 2}
    assert states(ways) == [(AO, 0), (AO, 0)]
