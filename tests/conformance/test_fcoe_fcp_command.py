"""FCP-4: FCP_CMND, FCP_RSP and task management at the target, frames in and frames out."""

from __future__ import annotations

import struct

import pytest
from support.fcp_session import (
    DPO,
    INITIATOR,
    TEST_UNIT_READY,
    FcpInitiator,
    fcp_initiator,
    fcp_site,
    outcome,
    read10,
    write10,
)
from support.memory import GatedMemory
from support.scsi import pattern
from tcm_fcoe.protocol.fcp import (
    Command,
    InformationUnit,
    Response,
    ResponseCode,
    ServiceParameters,
    TaskAttribute,
    TaskManagementFlag,
    TransferReady,
)
from tcm_fcoe.protocol.fcp_command import PORT_EXCHANGES_LIMIT, RESERVED_EXCHANGES
from tcm_fcoe.protocol.fcp_nexus import EXCHANGES_LIMIT

pytestmark = pytest.mark.anyio


def manage(i: FcpInitiator, flag: int, lun: bytes = bytes(8)) -> int:
    return i.command(bytes(16), management=flag, lun=lun)


async def test_fcp_cmnd_cdb_longer_than_16_bytes() -> None:
    """FCP-4 9.2.2.7: ADDITIONAL FCP_CDB LENGTH words follow the first 16 bytes, and FCP_DL follows them."""
    # READ (32) is there only with type 2 protection (SBC-4 4.21.2): the target has read its service action, and says so
    cdb = struct.pack(">BB5xBHBBBxIIHH", 0x7F, 0, 24, 0x0009, 0, 0, 0, 0, 8, 0, 0).ljust(28, b"\0") + struct.pack(">I", 8)
    async with fcp_initiator() as i:
        response, data = i.outcome(i.command(cdb, read=4096))
        assert (response.status, response.sense[2], response.sense[12], data) == (2, 5, 0x20, b"")
        assert (response.residual, response.overflow) == (4096, False)
        longest = bytes((0x7F, 0, 0, 0, 0, 0, 0, 252)).ljust(260, b"\0")
        response, _ = i.outcome(i.command(longest, read=512))
        assert (response.status, response.sense[2]) == (2, 5)


async def test_fcp_cmnd_cut_short() -> None:
    """FCP-4 9.5.13: FCP_CMND fields invalid, wherever it is cut."""
    whole = Command(lun=bytes(8), cdb=bytes((0x7F, 0, 0, 0, 0, 0, 0, 24)).ljust(32, b"\0"), read_data=True).pack()
    async with fcp_initiator() as i:
        for length in range(len(whole)):
            i.send(InformationUnit.FCP_CMND, whole[:length], length)
            response, _ = i.outcome(length)
            assert response == Response(code=ResponseCode.FCP_CMND_FIELDS_INVALID)
        assert i.read(0, 1) == bytes(512)


async def test_fcp_cmnd_bidirectional() -> None:
    """FCP-4 9.2.2.7, 9.5.13: no command here wants data both ways."""
    async with fcp_initiator() as i:
        response, _ = i.outcome(i.command(read10(0, 8), read=4096, write=4096, bidirectional_read_length=4096))
        assert response == Response(code=ResponseCode.FCP_CMND_FIELDS_INVALID)


async def test_fcp_cmnd_task_attributes() -> None:
    """FCP-4 9.2.2.5: SIMPLE, HEAD OF QUEUE, ORDERED; ACA without an ACA condition; reserved values."""
    async with fcp_initiator() as i:
        for attribute in (TaskAttribute.SIMPLE, TaskAttribute.HEAD_OF_QUEUE, TaskAttribute.ORDERED, TaskAttribute.UNTAGGED):
            response, data = i.outcome(i.command(read10(0, 8), read=4096, attribute=attribute))
            assert (response, len(data)) == (Response(), 4096)
        response, _ = i.outcome(i.command(read10(0, 8), read=4096, attribute=TaskAttribute.ACA))
        assert (response.status, response.sense[2], response.sense[12]) == (2, 5, 0x49)
        for attribute in (3, 6, 7):
            response, _ = i.outcome(i.command(read10(0, 8), read=4096, attribute=attribute))
            assert response == Response(code=ResponseCode.FCP_CMND_FIELDS_INVALID)


async def test_fcp_cmnd_ordered_does_not_overtake_a_write() -> None:
    """SAM-5 8.6.3: an ORDERED task waits for those before it, for their data too."""
    data = pattern(4096)
    async with fcp_initiator() as i:
        write = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        ordered = i.command(read10(0, 8), read=4096, attribute=TaskAttribute.ORDERED)
        assert not i.received()
        i.data(write, ready.rx_id, data)
        frames = i.received()
        assert outcome([frame for frame in frames if frame.ox_id == write], write)[0] == Response()
        assert outcome([frame for frame in frames if frame.ox_id == ordered], ordered) == (Response(), data)
        assert frames[0].ox_id == write


async def test_fcp_cmnd_unknown_lun() -> None:
    """SAM-5 5.3.3: LOGICAL UNIT NOT SUPPORTED comes in sense data, with FCP_SNS_LEN_VALID (FCP-4 9.5.6)."""
    async with fcp_initiator() as i:
        response, _ = i.outcome(i.command(TEST_UNIT_READY, lun=b"\0\x05" + bytes(6)))
        assert (response.status, response.sense[2], response.sense[12]) == (2, 5, 0x25)


async def test_fcp_cmnd_overlapped() -> None:
    """SAM-5 5.11: another command with an OX_ID that is in use ends both; OVERLAPPED COMMANDS ATTEMPTED."""
    memory = GatedMemory(1 << 20)
    async with fcp_initiator(memory) as i:
        memory.shut()
        i.command(read10(0, 8), read=4096, ox_id=9)
        await memory.until_waiting(1)
        i.command(read10(8, 8), read=4096, ox_id=9)
        memory.release()
        response, _ = await i.response(9)
        assert (response.status, response.sense[2], response.sense[12]) == (2, 0xB, 0x4E)
        # while the initiator owes data for the first, likewise
        i.command(write10(0, 8), write=4096, ox_id=10)
        assert i.received()[0].r_ctl == InformationUnit.FCP_XFER_RDY
        i.command(write10(8, 8), write=4096, ox_id=10)
        response, _ = await i.response(10)
        assert (response.status, response.sense[2], response.sense[12]) == (2, 0xB, 0x4E)
        assert not i.nexus.exchanges


async def test_fcp_cmnd_too_many_exchanges() -> None:
    """SAM-5 5.3.1: TASK SET FULL for who has tasks in the set; all others are undisturbed."""
    async with fcp_site() as site:
        i, other = site.login().ready(), site.login(0x010203).ready()
        statuses = []
        for ox_id in range(EXCHANGES_LIMIT + 100):
            i.command(write10(0, 8), write=4096, ox_id=ox_id)
            statuses += [Response.unpack(f.payload).status for f in i.received() if f.r_ctl == InformationUnit.FCP_RSP]
        assert statuses == [0x28] * 100
        assert other.read(0, 8) == bytes(4096)


async def test_fcp_cmnd_too_many_exchanges_of_the_port() -> None:
    """Many initiators whose exchanges stay open, each within its own limit, leave another a share of its own."""
    async with fcp_site() as site:
        greedy = [site.login(0x010000 + number).ready() for number in range(PORT_EXCHANGES_LIMIT // EXCHANGES_LIMIT + 1)]
        for each in greedy:
            for ox_id in range(EXCHANGES_LIMIT):
                each.command(write10(0, 8), write=4096, ox_id=ox_id)
            site.drain()
        assert site.target.open_exchanges == PORT_EXCHANGES_LIMIT + RESERVED_EXCHANGES
        modest = site.login(0x020000).ready()
        modest.write(0, pattern(4096))
        assert modest.read(0, 8) == pattern(4096)
        for ox_id in range(RESERVED_EXCHANGES + 1):
            modest.command(write10(0, 8), write=4096, ox_id=ox_id)
        (refused,) = [f for f in modest.received() if f.r_ctl == InformationUnit.FCP_RSP]
        assert Response.unpack(refused.payload).status == 0x28


async def test_fcp_cmnd_task_set_full() -> None:
    """SAM-5 5.3.1: by the logical unit's own depth, too."""
    memory = GatedMemory(1 << 20)
    async with fcp_initiator(memory) as i:
        memory.shut()
        for ox_id in range(300):
            i.command(read10(0, 8), read=4096, ox_id=ox_id)
        frames = i.received()
        assert {Response.unpack(frame.payload).status for frame in frames} == {0x28}
        assert len(frames) == 300 - 256
        memory.release()


async def test_fcp_xfer_rdy_in_bursts() -> None:
    """FCP-4 9.3: one at a time, each for the bytes after those that have come."""
    data = pattern(20000 // 512 * 512)
    for bits in (0, DPO):
        async with fcp_initiator(burst_length=8192) as i:
            ox_id = i.command(write10(0, len(data) // 512, bits), write=len(data))
            asked = []
            while (frame := i.received()[0]).r_ctl == InformationUnit.FCP_XFER_RDY:
                ready = TransferReady.unpack(frame.payload)
                asked.append((ready.data_offset, ready.burst_length))
                i.data(ox_id, frame.rx_id, data[ready.data_offset :][: ready.burst_length], ready.data_offset)
            assert asked == [(0, 8192), (8192, 8192), (16384, len(data) - 16384)]
            assert Response.unpack(frame.payload) == Response()
            assert i.read(0, len(data) // 512) == data


async def test_fcp_data_length_differs_from_burst_length() -> None:
    """FCP-4 9.5.13: RSP_CODE 01h, for less and for more than was asked for; the exchange ends."""
    async with fcp_initiator() as i:
        for bits in (0, DPO):
            for length in (2048, 8192):
                ox_id = i.command(write10(0, 8, bits), write=4096)
                (frame,) = i.received()
                i.data(ox_id, frame.rx_id, pattern(length))
                response, _ = i.outcome(ox_id)
                assert response.code == ResponseCode.DATA_LENGTH_DIFFERENT_THAN_BURST_LENGTH
                assert (response.status, response.sense[2], response.sense[12]) == (2, 0xB, 0x4B)
        assert i.read(0, 8) == bytes(4096)
        assert not i.nexus.exchanges


async def test_fcp_data_offset_differs() -> None:
    """FCP-4 9.5.13: RSP_CODE 03h."""
    async with fcp_initiator() as i:
        for bits in (0, DPO):
            ox_id = i.command(write10(0, 8, bits), write=4096)
            (frame,) = i.received()
            i.data(ox_id, frame.rx_id, pattern(4096), 8192)
            response, _ = i.outcome(ox_id)
            assert response.code == ResponseCode.DATA_PARAMETER_MISMATCH
            assert (response.status, response.sense[2], response.sense[12], response.sense[13]) == (2, 0xB, 0x4B, 5)


async def test_fcp_data_first_burst() -> None:
    """FCP-4 9.2.2.7, 6.3.2.12: WRITE FCP_XFER_RDY DISABLED by both: the first burst comes unasked, the rest on FCP_XFER_RDY."""
    agreed = INITIATOR | ServiceParameters.WRITE_FCP_XFER_RDY_DISABLED
    data = pattern(8192)
    async with fcp_initiator(parameters=agreed, first_burst=True) as i:
        for bits in (0, DPO):
            for attribute in (TaskAttribute.SIMPLE, TaskAttribute.ORDERED):
                ox_id = i.command(write10(0, 16, bits), write=8192, attribute=attribute)
                assert not i.received()
                i.data(ox_id, 0xFFFF, data)
                assert i.outcome(ox_id)[0] == Response()
                ox_id = i.command(write10(16, 16, bits), write=8192, attribute=attribute)
                i.data(ox_id, 0xFFFF, data[:4096])
                (frame,) = i.received()
                assert TransferReady.unpack(frame.payload) == TransferReady(4096, 4096)
                i.data(ox_id, frame.rx_id, data[4096:], 4096, seq_id=2)
                assert i.outcome(ox_id)[0] == Response()
                assert i.read(0, 32) == data * 2
    async with fcp_initiator(parameters=agreed, first_burst=False) as i:
        ox_id = i.command(write10(0, 16), write=8192)
        assert i.give(ox_id, data) == Response()


async def test_fcp_data_first_burst_of_a_command_that_fails() -> None:
    """FCP-4 4.2: FCP_RSP waits for the sequence initiative, which the initiator has until its burst ends."""
    async with fcp_initiator(parameters=INITIATOR | 1, first_burst=True) as i:
        ox_id = i.command(write10(0xFFFFFF, 8), write=4096, attribute=TaskAttribute.ORDERED)
        assert not i.received()
        i.data(ox_id, 0xFFFF, pattern(4096))
        response, _ = i.outcome(ox_id)
        assert (response.status, response.sense[2], response.sense[12]) == (2, 5, 0x21)


@pytest.mark.parametrize(
    ("flag", "code"),
    [
        (TaskManagementFlag.QUERY_TASK_SET, ResponseCode.TASK_MANAGEMENT_FUNCTION_COMPLETE),
        (TaskManagementFlag.ABORT_TASK_SET, ResponseCode.TASK_MANAGEMENT_FUNCTION_COMPLETE),
        (TaskManagementFlag.CLEAR_TASK_SET, ResponseCode.TASK_MANAGEMENT_FUNCTION_COMPLETE),
        (TaskManagementFlag.QUERY_ASYNCHRONOUS_EVENT, ResponseCode.TASK_MANAGEMENT_FUNCTION_COMPLETE),
        (TaskManagementFlag.LOGICAL_UNIT_RESET, ResponseCode.TASK_MANAGEMENT_FUNCTION_COMPLETE),
        (TaskManagementFlag.TARGET_RESET, ResponseCode.TASK_MANAGEMENT_FUNCTION_COMPLETE),
        (TaskManagementFlag.CLEAR_ACA, ResponseCode.TASK_MANAGEMENT_FUNCTION_REJECTED),
        (0x80, ResponseCode.FCP_CMND_FIELDS_INVALID),
        (TaskManagementFlag.ABORT_TASK_SET | TaskManagementFlag.LOGICAL_UNIT_RESET, ResponseCode.FCP_CMND_FIELDS_INVALID),
    ],
)
async def test_task_management_response_code(flag: int, code: int) -> None:
    """FCP-4 9.2.2.6, 9.5.13: each function, one that is none, and two at once."""
    async with fcp_initiator() as i:
        response, _ = i.outcome(manage(i, flag))
        assert (response.code, response.status) == (code, 0)


@pytest.mark.parametrize(
    ("bit", "code", "status"),
    [(0x01, 8, 0), (0x02, 0, None), (0x04, 0, None), (0x08, 0, 0), (0x10, 0, 6), (0x20, 0, 6), (0x40, 4, 0), (0x80, 2, 0)],
)
async def test_task_management_bits(bit: int, code: int, status: int | None) -> None:
    """FCP-4 9.2.2.6: byte 10 of FCP_CMND: QUERY TASK SET, ABORT TASK SET, CLEAR TASK SET, QUERY ASYNCHRONOUS EVENT,
    LOGICAL UNIT RESET, TARGET RESET and TERMINATE TASK (obsolete), CLEAR ACA. And what a waiting write comes to.
    """
    async with fcp_initiator() as i:
        write = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        i.send(InformationUnit.FCP_CMND, bytes(10) + bytes((bit,)) + bytes(21), 0x200)
        assert i.outcome(0x200)[0].code == code
        i.data(write, ready.rx_id, pattern(4096))
        frames = i.received()
        if status == 0:
            assert Response.unpack(frames[0].payload) == Response()
            return
        assert not frames
        sense = i.outcome(i.command(TEST_UNIT_READY))[0].sense
        assert (sense[2] if sense else None) == status


async def test_fcp_task_management_incorrect_lun() -> None:
    """FCP-4 9.5.13: RSP_CODE 09h."""
    async with fcp_initiator() as i:
        response, _ = i.outcome(manage(i, TaskManagementFlag.LOGICAL_UNIT_RESET, b"\0\x07" + bytes(6)))
        assert response.code == ResponseCode.TASK_MANAGEMENT_FUNCTION_INCORRECT_LUN


async def test_task_management_query_finds_a_write_that_waits_for_data() -> None:
    """SAM-5 7.9: FUNCTION SUCCEEDED, RSP_CODE 08h."""
    async with fcp_initiator() as i:
        write = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        response, _ = i.outcome(manage(i, TaskManagementFlag.QUERY_TASK_SET))
        assert response.code == ResponseCode.TASK_MANAGEMENT_FUNCTION_SUCCEEDED
        i.data(write, ready.rx_id, pattern(4096))
        assert i.outcome(write)[0] == Response()


async def test_task_management_asynchronous_event() -> None:
    """SAM-5 7.10: the additional response information says which unit attention is next."""
    async with fcp_site() as site:
        i = site.login()
        response, _ = i.outcome(manage(i, TaskManagementFlag.QUERY_ASYNCHRONOUS_EVENT))
        assert response.code == ResponseCode.TASK_MANAGEMENT_FUNCTION_SUCCEEDED
        assert response.additional[0] & 0x0F == 6
        assert response.additional[1] == 0x29


@pytest.mark.parametrize(
    "flag", [TaskManagementFlag.ABORT_TASK_SET, TaskManagementFlag.CLEAR_TASK_SET, TaskManagementFlag.LOGICAL_UNIT_RESET]
)
async def test_task_management_aborts_writes_at_every_stage(flag: TaskManagementFlag) -> None:
    """SAM-5 7.2: no status for them; their data is dropped, and nothing of it reaches the medium."""
    async with fcp_initiator() as i:
        writes = [i.command(write10(n * 8, 8, bits), write=4096) for n, bits in enumerate((0, DPO))]
        readies = i.received()
        assert len(readies) == 2
        i.data(writes[0], readies[0].rx_id, pattern(4096), keep={0})
        response, _ = i.outcome(manage(i, flag))
        assert response.code == 0
        for write, ready in zip(writes, readies, strict=True):
            i.data(write, ready.rx_id, pattern(4096))
        assert not i.received()
        assert list(i.nexus.exchanges) == []
        if flag is TaskManagementFlag.LOGICAL_UNIT_RESET:
            i.ready()
        assert i.read(0, 16) == bytes(8192)


async def test_task_management_reset_by_another_initiator() -> None:
    """SAM-5 5.6.4: with TAS one, TASK ABORTED, which waits for the end of the burst (FCP-4 4.2: sequence initiative)."""
    async with fcp_site() as site:
        i, other = site.login().ready(), site.login(0x010203).ready()
        general = i.command(write10(0, 8, DPO), write=4096)
        (ready,) = i.received()
        response, _ = other.outcome(manage(other, TaskManagementFlag.LOGICAL_UNIT_RESET))
        assert response.code == 0
        assert not i.received()
        i.data(general, ready.rx_id, pattern(4096))
        response, _ = i.outcome(general)
        assert response.status == 0x40
        # so does an ordinary write, whose data comes before the core has it
        i.ready()
        express = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        other.ready()
        other.outcome(manage(other, TaskManagementFlag.LOGICAL_UNIT_RESET))
        i.data(express, ready.rx_id, pattern(4096))
        response, _ = i.outcome(express)
        assert response.status == 0x40


async def test_prli_ends_the_tasks_of_the_image_pair_before() -> None:
    """FCP-4 6.3.1: a new PRLI is an I_T nexus loss."""
    async with fcp_site() as site:
        i = site.login().ready()
        i.command(write10(0, 8), write=4096)
        again = site.login()
        assert again.remote.fc_id == i.remote.fc_id
        again.received()
        response, _ = again.outcome(again.command(TEST_UNIT_READY))
        assert (response.sense[2], response.sense[12]) == (6, 0x29)
        assert not again.nexus.exchanges


async def test_prli_without_initiator_function() -> None:
    """FCP-4 6.3.1: no image pair of two targets."""
    async with fcp_site() as site:
        i = site.login()
        assert not site.target.process_login(i.remote, int(ServiceParameters.TARGET_FUNCTION), site.now)
        site.target.process_logout(i.remote, "LOGO", site.now)
        i.command(TEST_UNIT_READY)
        assert not i.received()


async def test_reads_wait_when_much_is_on_its_way() -> None:
    """Memory is bounded: what is beyond waits, and comes in its turn."""
    async with fcp_initiator() as i:
        data = pattern(1 << 20)
        i.write(0, data)
        commands = [i.command(read10(0, 2048, DPO), read=1 << 20) for _ in range(20)]
        assert i.nexus.data_in.used <= 8 << 20
        frames = i.received()
        for ox_id in commands:
            assert outcome([frame for frame in frames if frame.ox_id == ox_id], ox_id) == (Response(), data)
        assert (i.nexus.data_in.used, len(i.nexus.backlog)) == (0, 0)


async def test_writes_wait_when_much_has_been_asked_for() -> None:
    """FCP_XFER_RDY waits for memory, in order."""
    async with fcp_initiator() as i:
        data = pattern(1 << 20)
        commands = [i.command(write10(0, 2048, bits), write=1 << 20) for bits in (0, DPO) * 10]
        assert i.nexus.data_out.used == 8 << 20
        done = []
        while len(done) < 20:
            for frame in i.received():
                if frame.r_ctl == InformationUnit.FCP_RSP:
                    assert Response.unpack(frame.payload) == Response()
                    done.append(frame.ox_id)
                else:
                    ready = TransferReady.unpack(frame.payload)
                    i.data(frame.ox_id, frame.rx_id, data[ready.data_offset :][: ready.burst_length], ready.data_offset)
        assert sorted(done) == commands
        assert (i.nexus.data_out.used, len(i.nexus.grant_queue)) == (0, 0)


@pytest.mark.parametrize("first_burst", [False, True])
async def test_fcp_dl_that_nobody_has_memory_for(first_burst: bool) -> None:
    """FCP_DL of 4 GiB costs nothing: by the command's own limit, or TASK SET FULL and BUSY for data that comes unasked."""
    async with fcp_initiator(parameters=INITIATOR | first_burst, first_burst=first_burst) as i:
        for bits in (0, DPO):
            cdb = struct.pack(">BBQIBB", 0x8A, bits, 0, (1 << 23) - 1, 0, 0)
            response, _ = i.outcome(i.command(cdb, write=(1 << 32) - 512))
            assert (response.status, response.sense[12:14]) == ((8, b"") if first_burst else (2, b"\x21\0"))
            cdb = struct.pack(">BBQIBB", 0x88, bits, 0, (1 << 23) - 1, 0, 0)
            response, _ = i.outcome(i.command(cdb, read=(1 << 32) - 512))
            assert response.status == 2
        assert i.nexus.data_out.used == 0


async def test_max_frame_size_of_the_initiator() -> None:
    """FC-FS-3: frames are no longer than the receiver has said; a field that is no multiple of four gets fill bytes."""
    async with fcp_site() as site:
        i = site.login(max_frame=258).ready()
        _, data = i.outcome(i.command(bytes((0x12, 0, 0, 0, 35, 0)), read=35))
        assert len(data) == 35
        ox_id = i.command(read10(0, 4), read=2048)
        frames = i.received()
        assert {len(frame.payload) for frame in frames[:-1]} == {256}
        assert outcome(frames, ox_id)[0] == Response()


async def test_memory_of_the_port_is_shared() -> None:
    """Initiators that ask for much, and never send, do not keep others from their share."""
    async with fcp_site() as site:
        greedy = [site.login(0x010000 + number).ready() for number in range(12)]
        for each in greedy:
            for _ in range(16):
                each.command(write10(0, 2048), write=1 << 20)
        assert site.target.data_out.used <= 64 << 20
        assert sum(each.nexus.data_out.used for each in greedy) == site.target.data_out.used
        site.drain()
        modest = site.login(0x020000).ready()
        modest.write(0, pattern(65536))
        ox_id = modest.command(write10(0, 2048), write=1 << 20)
        assert not modest.received()
        site.target.process_logout(greedy[0].remote, "LOGO", site.now)
        frames = site.drain()
        assert ox_id in {frame.ox_id for frame in frames if frame.d_id == modest.remote.fc_id} or modest.nexus.grant_queue
        for each in greedy[1:]:
            site.target.process_logout(each.remote, "LOGO", site.now)
        assert not modest.nexus.grant_queue
        site.target.process_logout(modest.remote, "LOGO", site.now)
        assert (site.target.data_out.used, site.target.data_in.used, site.target.kept.used) == (0, 0, 0)
        assert not site.target.waiting
