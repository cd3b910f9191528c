"""The socket loop over real TCP on both event loops, driven by an initiator in a worker thread.

Longer than most because all of it shares that initiator and that loop.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import pytest
from anyio import to_thread
from support import pdus, raw_iscsi
from support.memory import GatedMemory
from support.protection import together, tuples
from support.raw_iscsi import Initiator, LoginFailed, Outcome
from support.scsi import make_lu, pattern, ramdisk
from tcm_iscsi.attributes import AclAttributes, TpgAttributes, TpgParameters
from tcm_iscsi.fabric import IscsiFabric, IscsiOptions
from tcm_iscsi.protocol.command_flow import HIGH_WATER

from tcm.failure import ConfigError
from tcm.scsi import cdb
from tcm.target.device import TargetDevice
from tcm.target.node_acl import AccessControl, Authentication
from tcm.target.portal_group import NetworkPortal, TargetPortalGroup

pytestmark = pytest.mark.anyio
NAME = "iqn.2003-01.org.example:t"
T = TypeVar("T")


class Served:
    """A running fabric with one target of one RAM disk."""

    def __init__(self, fabric: IscsiFabric, group: TargetPortalGroup) -> None:
        self.fabric = fabric
        self.group = group

    @property
    def port(self) -> int:
        return self.fabric.registry.bindings[0].port

    def connect(self, **options: Any) -> Initiator:
        """To be called in a thread."""
        return Initiator("127.0.0.1", self.port, **options)

    def login(self, **options: Any) -> Initiator:
        return self.connect().login(NAME, **options).ready()


async def apart(work: Callable[..., T], *args: Any) -> T:
    """Run blocking initiator code beside the target."""
    with anyio.fail_after(60):
        return await to_thread.run_sync(partial(work, *args), abandon_on_cancel=True)


@asynccontextmanager
async def served(
    backstore: Any = None,
    *,
    attributes: dict[str, Any] | None = None,
    parameters: dict[str, Any] | None = None,
    acl: AclAttributes | None = None,
    authentication: Authentication | None = None,
    discovery_auth: Authentication | None = None,
    portals: tuple[NetworkPortal, ...] = (NetworkPortal("127.0.0.1", 0),),
    poll: int = 50,
) -> AsyncIterator[Served]:
    async with make_lu(backstore if backstore is not None else ramdisk(8 << 20)) as unit:
        device = TargetDevice(NAME, "iscsi")
        group = device.add_portal_group(1)
        group.enabled = True
        group.access = AccessControl(generate_node_acls=acl is None, demo_mode_write_protect=False)
        group.attributes = TpgAttributes(**{"authentication": authentication is not None, **(attributes or {})})
        group.parameters = TpgParameters(**(parameters or {}))
        if authentication is not None:
            group.authentication = authentication
        group.portals.extend(portals)
        group.add_lun(0, unit)
        if acl is not None:
            node = group.add_node_acl(raw_iscsi.INITIATOR)
            node.attributes = acl
            group.map_lun(node, 0, 0)
        fabric = IscsiFabric([device], IscsiOptions(poll=poll, discovery_auth=discovery_auth))
        async with anyio.create_task_group() as tasks:
            await tasks.start(lambda task_status: fabric.run(task_status=task_status))
            try:
                yield Served(fabric, group)
            finally:
                tasks.cancel_scope.cancel()


@pytest.mark.parametrize("poll", [0, 200])
async def test_write_and_read_back(poll: int) -> None:
    """Small and large transfers: inline, into a payload buffer of their own, in many PDUs; polling or not."""
    data = pattern(3 << 20)
    async with served(poll=poll) as t:

        def work() -> None:
            with t.login() as i:
                assert i.write(0, data[:4096]).status == 0
                assert i.write(8, data[4096 : 200 << 10]).status == 0
                assert i.write(400, data[200 << 10 :]).status == 0
                outcome = i.read(0, len(data) // 512)
                assert (outcome.status, outcome.data) == (0, data)
                assert i.read(4096, 1).data == data[4096 * 512 : 4097 * 512]
                assert i.logout() == 0

        await apart(work)


async def test_digests_over_the_wire() -> None:
    """Header and data digests, with transfers of several segments."""
    data = pattern(96 << 10)
    async with served() as t:

        def work() -> None:
            with t.login(digests="CRC32C", MaxRecvDataSegmentLength="8192") as i:
                assert i.header_digest
                assert i.write(3, data).status == 0
                assert i.read(3, 192).data == data

        await apart(work)


@pytest.mark.parametrize("digests", ["None", "CRC32C"])
async def test_extended_cdb(digests: str) -> None:
    """RFC 7143 11.2.2.3: a 32-byte CDB comes in two parts; without the second it is too short."""
    async with served() as t:

        def work() -> None:
            with t.login(digests=digests) as i:
                asked = cdb.get_lba_status_32(0, 64)
                assert i.write(100, pattern(512 * 100)).status == 0
                outcome = i.command(asked, read=64)
                assert outcome.status == 0
                assert outcome.data == i.command(cdb.get_lba_status(0, 64), read=64).data
                assert (outcome.residual, outcome.overflow) == (64 - len(outcome.data), False)
                refused = i.command(asked[:16], read=64)
                assert (refused.status, refused.asc) == (2, (0x24, 0))
                assert refused.sense[15:18] == b"\xc0\0\x10"
                assert i.command(asked[:20], read=64).sense[15:18] == b"\xc0\0\x14"
                assert i.read(100, 1).data == pattern(512 * 100)[:512]

        await apart(work)


async def test_extended_cdb_with_protection_information() -> None:
    """SBC-4 4.21.2.4: READ (32) and WRITE (32) in an AHS, immediate and solicited; transfer lengths count 520-byte blocks."""
    blocks = 400
    data = pattern(512 * blocks)
    kept = tuples(data, 7, 0x1122)
    whole = together(data, kept)
    async with served() as t:

        def work() -> None:
            with t.login(FirstBurstLength="8192") as i:
                assert i.command(cdb.format_unit(fmtpinfo=3, fmtdata=True), write=bytes(4)).status == 0
                for first, count in ((0, 3), (3, blocks - 3)):
                    command = cdb.write(32, 1000 + first, count, protect=1, reference=7 + first)
                    outcome = i.command(command, write=whole[first * 520 : (first + count) * 520])
                    assert (outcome.status, outcome.residual) == (0, 0)
                outcome = i.command(cdb.read(32, 1000, blocks, protect=1, reference=7), read=len(whole) + 9)
                assert (outcome.status, outcome.data) == (0, whole)
                assert (outcome.residual, outcome.overflow) == (9, False)
                outcome = i.command(cdb.read(32, 1001, 2, protect=1, reference=7), read=1040)
                assert (outcome.status, outcome.sense_key, outcome.asc) == (2, 0xB, (0x10, 3))
                assert outcome.sense[3:7] == (1001).to_bytes(4)
                assert i.read(1000, blocks).data == data

        await apart(work)


async def test_many_commands_in_flight() -> None:
    """A batch of commands in one segment is answered in one go, in order of CmdSN."""
    async with served() as t:

        def work() -> None:
            with t.login() as i:
                data = pattern(64 * 512)
                assert i.write(0, data).status == 0
                stream = b""
                for n in range(48):
                    cdb = struct.pack(">BBIBHB", 0x28, 0, n, 0, 1, 0)
                    stream += i.encode(i.command_pdu(cdb, read=512))
                i.socket.sendall(stream)
                for n in range(48):
                    assert i.receive().data == data[n * 512 : n * 512 + 512]

        await apart(work)


async def test_reader_that_never_reads_is_held_back_and_others_go_on() -> None:
    """A peer that takes nothing costs a bounded amount of memory; when it reads again, nothing is missing."""
    size = 1 << 20
    async with served(attributes={"default_cmdsn_depth": 64}) as t:
        data = pattern(size)

        def stuck() -> Initiator:
            i = t.login()
            for offset in range(0, size, 1 << 18):
                assert i.write(offset // 512, data[offset : offset + (1 << 18)]).status == 0
            i.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            cdb = struct.pack(">BBIBHB", 0x28, 0, 0, 0, size // 512, 0)
            for _ in range(16):
                i.start(cdb, read=size)
            return i

        def other() -> Outcome:
            with t.login() as i:
                return i.read(7, 1)

        i = await apart(stuck)
        outcome = await apart(other)
        assert outcome.data == data[7 * 512 : 8 * 512]
        for link in t.fabric.server.links:
            assert link.connection is not None
            assert sum(map(len, link.connection.out)) <= HIGH_WATER + 2 * size

        def catch_up() -> None:
            with i:
                for tag in range(i.tag - 15, i.tag + 1):
                    assert i.finish(tag).data == data

        await apart(catch_up)


async def test_session_reinstatement() -> None:
    """RFC 7143 6.3.5: a login with the same name, ISID and portal group ends the old session and its tasks."""
    async with served() as t:

        def work() -> None:
            first = t.login()
            second = t.connect()
            second.isid = first.isid
            second.login(NAME).ready()
            with first, second:
                assert first.socket.recv(1) == b""
                assert second.read(0, 1).status == 0
                assert second.tsih != first.tsih

        await apart(work)
        assert len(t.group.nexuses) <= 1


async def test_target_is_not_there_or_disabled() -> None:
    """RFC 7143 11.13.5: 0203 for an unknown target, 0301 for a disabled portal group, 0202 without a node ACL."""
    async with served(acl=AclAttributes()) as t:

        def refused(name: str, initiator: str) -> tuple[int, int]:
            with t.connect() as i, pytest.raises(LoginFailed) as caught:
                i.login(name, name=initiator)
            return caught.value.status

        assert await apart(refused, "iqn.2003-01.org.example:other", raw_iscsi.INITIATOR) == (2, 3)
        assert await apart(refused, NAME, "iqn.2003-01.org.example:stranger") == (2, 2)
        t.group.enabled = False
        assert await apart(refused, NAME, raw_iscsi.INITIATOR) == (3, 1)
        counters = t.fabric.registry.counters
        assert counters.discovery.refused == {0x0203: 1}
        assert counters.of(NAME).refused == {0x0202: 1, 0x0301: 1}


async def test_chap() -> None:
    """The right secret gets in, the wrong one does not (0201), and discovery asks for its own."""
    auth = Authentication("alice", "initiatorsecret")
    async with served(authentication=auth, discovery_auth=Authentication("dave", "discoverysecret")) as t:

        def attempt(target: str | None, chap: tuple[str, str] | None) -> tuple[int, int] | None:
            with t.connect() as i:
                try:
                    i.login(target, chap=chap)
                except LoginFailed as e:
                    return e.status
            return None

        assert await apart(attempt, NAME, ("alice", "initiatorsecret")) is None
        assert await apart(attempt, NAME, ("alice", "wrong")) == (2, 1)
        assert await apart(attempt, NAME, None) == (2, 1)
        assert await apart(attempt, None, ("dave", "discoverysecret")) is None
        assert await apart(attempt, None, ("alice", "initiatorsecret")) == (2, 1)


async def test_discovery_and_wildcard_portals() -> None:
    """SendTargets answers a wildcard portal with the address that the initiator reached."""
    async with served(portals=(NetworkPortal("0.0.0.0", 0), NetworkPortal("127.0.0.1", 0))) as t:

        def work() -> dict[str, str]:
            with t.connect().login(None) as i:
                found = i.text({"SendTargets": "All"})
                assert i.logout() == 0
                return found

        found = await apart(work)
        assert found["TargetName"] == NAME
        ports = {f"127.0.0.1:{binding.port},1" for binding in t.fabric.registry.bindings}
        assert found["TargetAddress"] in ports


async def test_stalled_login_is_closed() -> None:
    """A connection that does not log in is closed after login_timeout, whatever it sent."""
    async with served(poll=0) as t:
        now = [t.fabric.server.clock()]
        t.fabric.server.clock = lambda: now[0]

        def stall() -> socket.socket:
            i = t.connect()
            i.socket.sendall(b"\x43\x87" + bytes(10))
            return i.socket

        sock = await apart(stall)
        with anyio.fail_after(60):
            while not any(link.connection for link in t.fabric.server.links):
                await anyio.sleep(0.01)
        now[0] += 16
        assert await apart(sock.recv, 1000) == b""
        sock.close()


async def test_silent_initiator_is_pinged_then_dropped() -> None:
    """NOP-In after nopin_timeout; the end after nopin_response_timeout more; its session is gone."""
    async with served(acl=AclAttributes(nopin_timeout=3, nopin_response_timeout=3)) as t:
        i = await apart(t.login)
        offset = 0.0
        clock = t.fabric.server.clock
        t.fabric.server.clock = lambda: clock() + offset
        offset = 4.0
        ping = await apart(i.receive)
        assert (ping.opcode, ping.itt) == (pdus.NOP_IN, pdus.NO_TAG)
        offset = 10.0
        assert await apart(i.socket.recv, 1) == b""
        i.close()
        with anyio.fail_after(60):
            while t.group.nexuses:
                await anyio.sleep(0.01)


async def test_an_ordered_write_without_its_data_does_not_hold_others_up_for_ever() -> None:
    """SAM-5 8.6 makes all of the logical unit wait for it; dataout_timeout times its retries end that."""
    async with served(parameters={"ImmediateData": False}) as t:
        other = await apart(t.login)
        stalls = await apart(t.login)
        pdu = stalls.command_pdu(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 8, 0), write=4096, attribute=2)
        await apart(stalls.send, pdu)
        assert (await apart(stalls.receive)).opcode == raw_iscsi.R2T
        tag = await apart(other.start, bytes(6))
        offset = 0.0
        clock = t.fabric.server.clock
        t.fabric.server.clock = lambda: clock() + offset
        await anyio.sleep(1.2)  # a tick has seen it
        assert await apart(stalls.ping)
        offset = 14.0
        assert (await apart(other.finish, tag)).status == 0
        assert len(t.group.nexuses) == 1
        stalls.close()
        other.close()


async def test_commands_in_progress_end_with_their_connection() -> None:
    """RFC 7143 7.1.4 at ERL 0: the connection's death is the nexus's loss; its tasks are aborted."""
    memory = GatedMemory(1 << 20)
    async with served(memory) as t:

        def start() -> Initiator:
            i = t.login()
            memory.shut()
            i.start(struct.pack(">BBIBHB", 0x28, 0, 0, 0, 8, 0), read=4096)
            return i

        i = await apart(start)
        await memory.until_waiting(1)
        i.close()
        with anyio.fail_after(60):
            while t.group.nexuses or memory.waiting:
                await anyio.sleep(0.01)
        memory.release()


async def test_connection_reinstatement() -> None:
    """RFC 7143 6.3.4: a login with TSIH and CID of a live connection takes its place; only its tasks end."""
    memory = GatedMemory(1 << 20)
    async with served(memory) as t:

        def start() -> Initiator:
            i = t.login()
            memory.shut()
            i.start(struct.pack(">BBIBHB", 0x28, 0, 0, 0, 8, 0), read=4096)
            return i

        def again(first: Initiator) -> Initiator:
            second = t.connect()
            second.isid, second.tsih, second.cmd_sn = first.isid, first.tsih, first.cmd_sn
            second.login(NAME)
            with first:
                assert first.socket.recv(1) == b""
            return second

        first = await apart(start)
        await memory.until_waiting(1)
        (nexus,) = t.group.nexuses
        second = await apart(again, first)
        memory.release()
        await anyio.sleep(0.1)
        assert t.group.nexuses == {nexus}
        assert not nexus.lost
        with second:
            cleared = await apart(second.read, 0, 1)
            assert (cleared.status, cleared.sense[12:14]) == (2, b"\x47\x7f")  # SOME COMMANDS CLEARED BY ISCSI PROTOCOL EVENT
            assert (await apart(second.read, 0, 1)).status == 0
            assert second.tsih == first.tsih
            assert await apart(second.logout) == 0


async def test_flood_does_not_starve_others() -> None:
    """An initiator that sends without end, requests that need no answer, leaves the others their turn."""
    async with served() as t:
        stop = False

        def flood(i: Initiator) -> None:
            bhs = bytearray(48)
            bhs[0], bhs[1] = pdus.NOP_OUT | pdus.IMMEDIATE, 0x80
            struct.pack_into(">II", bhs, 16, pdus.NO_TAG, pdus.NO_TAG)
            batch = bytes(bhs) * 20000
            with i:
                while not stop:
                    i.socket.sendall(batch)

        noisy, quiet = await apart(t.login), await apart(t.login)
        with quiet:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(apart, flood, noisy)
                await anyio.sleep(0.2)
                with anyio.fail_after(60):
                    for _ in range(3):
                        assert (await apart(quiet.read, 0, 1)).status == 0
                stop = True


async def test_failed_connection_leaves_the_arena_to_others() -> None:
    """What a connection had read before it failed must not make the next one wait for more input."""
    async with served() as t:

        def work() -> None:
            options = {"MaxRecvDataSegmentLength": str(1 << 20), "MaxBurstLength": str(1 << 20)}
            with t.login(**options) as bad, t.login(**options) as good:
                read = struct.pack(">BBIBHB", 0x28, 0, 0, 0, 1024, 0)
                too_long = bytearray(48)
                too_long[0], too_long[5] = pdus.NOP_OUT | pdus.IMMEDIATE, 0xFF
                bad.socket.sendall(bad.encode(bad.command_pdu(read, read=512 << 10)) + bytes(too_long))
                while bad.socket.recv(1 << 16):
                    pass
                assert good.read(0, 2048).status == 0

        await apart(work)


async def test_waiting_for_a_slow_backstore_is_not_silence() -> None:
    """However long reads take, an initiator that answers pings keeps its session."""
    memory = GatedMemory(8 << 20)
    acl = AclAttributes(nopin_timeout=3, nopin_response_timeout=3)
    async with served(memory, acl=acl) as t:
        offset = 0.0
        clock = t.fabric.server.clock
        t.fabric.server.clock = lambda: clock() + offset

        def start() -> Initiator:
            i = t.login()
            memory.shut()
            for _ in range(4):
                i.start(struct.pack(">BBIBHB", 0x28, 0, 0, 0, 1024, 0), read=512 << 10)
            return i

        def answer(i: Initiator) -> None:
            i.answer_ping(i.receive())
            i.ping()

        i = await apart(start)
        with i:
            for offset in (4.0, 8.0, 12.0):  # noqa: B007  (the clock reads it)
                await apart(answer, i)
            memory.release()
            for tag in range(i.tag - 6, i.tag - 2):
                assert (await apart(i.finish, tag)).status == 0


@pytest.mark.parametrize("what", ["disabled", "removed"])
async def test_rights_taken_away_end_the_session(what: str) -> None:
    """A session whose portal group is disabled or whose node ACL is removed is closed, not left without answers."""
    async with served(acl=AclAttributes()) as t:
        i = await apart(t.login)
        with i:
            if what == "disabled":
                t.group.enabled = False
            else:
                t.group.remove_node_acl(raw_iscsi.INITIATOR)
            dropped = await apart(i.receive)
            assert (dropped.bhs[0], dropped.bhs[36]) == (0x32, 3)
            assert await apart(i.socket.recv, 1) == b""


async def test_drain_asks_for_logout() -> None:
    """Stopping: no new connections, an Async Message with event 1 to each session, and an end when all have left."""
    async with served() as t:
        i = await apart(t.login)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(t.fabric.drain)
            message = await apart(i.receive)
            assert (message.opcode, message.bhs[36]) == (pdus.ASYNC, 1)
            with pytest.raises(OSError, match="refused"):
                await apart(t.connect)
            assert await apart(i.logout) == 0
            i.close()
        assert not t.fabric.server.links


async def test_cold_reset_ends_all_sessions_of_the_target() -> None:
    """RFC 7143 11.5.1: the response first, then every connection is closed, and says so (11.9.1)."""
    async with served() as t:

        def work() -> None:
            with t.login() as first, t.login() as second:
                assert first.task_management(7) == 0
                for initiator in (first, second):
                    dropped = initiator.receive()
                    assert (dropped.bhs[0], dropped.bhs[36]) == (0x32, 3)
                    assert initiator.socket.recv(1) == b""

        await apart(work)


async def test_garbage_does_not_disturb_others() -> None:
    """Bytes that are no iSCSI end that connection and nothing else."""
    async with served() as t:

        def work() -> None:
            with t.login() as good:
                for junk in (b"GET / HTTP/1.0\r\n\r\n" * 10, b"\xff" * 4096, bytes(4096), b"\x43" + b"\xff" * 100):
                    with t.connect() as bad:
                        bad.socket.sendall(junk)
                        bad.socket.shutdown(socket.SHUT_WR)
                        while bad.socket.recv(4096):
                            pass
                assert good.read(0, 1).status == 0

        await apart(work)


async def test_wildcards_of_both_families_share_a_port() -> None:
    """0.0.0.0 and [::] on one port, in either order; [::] alone takes IPv4 as well."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for portals in ((NetworkPortal("::", port), NetworkPortal("0.0.0.0", port)), (NetworkPortal("::", port),)):
        async with served(portals=portals):
            for host in ("127.0.0.1", "::1"):

                def work(host: str = host) -> int:
                    with Initiator(host, port).login(NAME).ready() as i:
                        return i.read(0, 1).status

                assert await apart(work) == 0


async def test_port_taken_says_what_to_write() -> None:
    """A portal that cannot be had is a configuration error in one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        portal = NetworkPortal("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(BaseExceptionGroup) as caught:
            async with served(portals=(portal,)):
                pass
    errors = caught.value.subgroup(ConfigError)
    assert errors is not None
    assert "taken" in str(_leaf(errors))


async def test_max_xmit_data_segment_length() -> None:
    """LIO's parameter bounds our data segments below what the initiator would take."""
    async with served(parameters={"MaxXmitDataSegmentLength": 1024}) as t:

        def work() -> list[int]:
            with t.login(MaxRecvDataSegmentLength="65536") as i:
                i.start(struct.pack(">BBIBHB", 0x28, 0, 0, 0, 8, 0), read=4096)
                return [len(i.receive().data) for _ in range(4)]

        assert await apart(work) == [1024] * 4


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]  # type: ignore[assignment]  # down to the one error
    return group
