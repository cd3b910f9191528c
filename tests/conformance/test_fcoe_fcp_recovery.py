"""FCP-4 clause 12: ABTS, REC, SRR and confirmed completion at the target."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from support.fcp_session import (
    DPO,
    INITIATOR_ID,
    LINUX,
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
from tcm_fcoe.protocol.basic import UNKNOWN_EXCHANGE, Abts, BasicAccept
from tcm_fcoe.protocol.els import (
    E_STAT_COMPLETE,
    E_STAT_RESPONDER,
    E_STAT_SEQUENCE_INITIATIVE,
    Plain,
    Reject,
    Srr,
)
from tcm_fcoe.protocol.els_codes import Explanation, Reason
from tcm_fcoe.protocol.fc4 import BasicReply
from tcm_fcoe.protocol.fcp import InformationUnit, Response, ServiceParameters, TaskAttribute, TransferReady
from tcm_fcoe.protocol.fcp_answered import ANSWERED_BYTES, ANSWERED_LIMIT, UNCONFIRMED_LIMIT
from tcm_fcoe.protocol.fcp_nexus import STALL_PERIODS

pytestmark = pytest.mark.anyio

NO_RX_ID = 0xFFFF
ACCEPTED = Plain().pack()


def abort(i: FcpInitiator, ox_id: int, rx_id: int = NO_RX_ID, late: list[BasicReply] | None = None) -> BasicReply | None:
    abts = Abts(INITIATOR_ID, ox_id, rx_id, 0, 0, from_responder=False)
    return i.site.target.abort(i.remote, abts, (late if late is not None else []).append, i.site.now)


def rec(i: FcpInitiator, ox_id: int, rx_id: int = NO_RX_ID) -> tuple[int, int] | None:
    state = i.site.target.rec(i.remote, ox_id, rx_id)
    return None if state is None else (state.fc4_value, state.status)


def srr(i: FcpInitiator, ox_id: int, r_ctl: int, offset: int = 0, rx_id: int = NO_RX_ID) -> bytes:
    reply = i.site.target.srr(i.remote, Srr(ox_id, rx_id, offset, r_ctl).pack(), i.site.now)
    i.site.tick(0)
    return reply


async def test_abts_of_a_write_that_waits_for_data() -> None:
    """FCP-4 12.3: BA_ACC; the exchange is gone, and late data is dropped."""
    async with fcp_initiator() as i:
        for bits in (0, DPO):
            answers: list[BasicReply] = []
            ox_id = i.command(write10(0, 8, bits), write=4096)
            (ready,) = i.received()
            i.data(ox_id, ready.rx_id, pattern(4096), keep={0})
            answer = abort(i, ox_id, ready.rx_id, answers)
            # the core lets go of a task that waits for data at once
            assert answer or answers.pop() == BasicAccept(ox_id, ready.rx_id)
            i.data(ox_id, ready.rx_id, pattern(4096))
            assert not i.received()
            assert not i.nexus.exchanges
        assert i.read(0, 8) == bytes(4096)


async def test_abts_of_a_command_that_runs() -> None:
    """FCP-4 12.3: BA_ACC once the task has ended; no FCP_RSP."""
    memory = GatedMemory(1 << 20)
    async with fcp_initiator(memory) as i:
        memory.shut()
        answers: list[BasicReply] = []
        ox_id = i.command(read10(0, 8), read=4096)
        await memory.until_waiting(1)
        assert abort(i, ox_id, late=answers) is None
        memory.release()
        with anyio.fail_after(60):
            while not answers:
                await anyio.sleep(0.001)
        (answer,) = answers
        assert isinstance(answer, BasicAccept)
        assert answer.ox_id == ox_id
        assert not i.received()
        assert not i.nexus.exchanges


async def test_abts_twice_of_a_command_that_runs() -> None:
    """FCP-4 12.3: neither is answered before the task has ended."""
    memory = GatedMemory(1 << 20)
    async with fcp_initiator(memory) as i:
        memory.shut()
        answers: list[BasicReply] = []
        ox_id = i.command(read10(0, 8), read=4096)
        await memory.until_waiting(1)
        assert abort(i, ox_id, late=answers) is None
        assert abort(i, ox_id, late=answers) is None
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert not answers or not memory.waiting
        memory.release()
        with anyio.fail_after(5):
            while len(answers) < 2:
                await anyio.sleep(0.001)
        assert {type(answer) for answer in answers} == {BasicAccept}
        assert not i.nexus.exchanges


async def test_abts_while_data_is_being_sent() -> None:
    """FCP-4 12.3: what has not been sent is not sent any more."""
    async with fcp_initiator() as i:
        ox_id = i.command(read10(0, 4096), read=2 << 20)
        assert len(i.site.outbox) < 900
        assert isinstance(abort(i, ox_id), BasicAccept)
        assert len(i.received()) < 900
        assert not i.nexus.exchanges
        assert i.nexus.data_in.used == 0


async def test_abts_of_an_unknown_exchange() -> None:
    """FC-FS-3 16.3.2: BA_RJT, invalid OX_ID-RX_ID combination."""
    async with fcp_initiator() as i:
        assert abort(i, 55) == UNKNOWN_EXCHANGE
        ox_id = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        assert abort(i, ox_id, ready.rx_id + 1) == UNKNOWN_EXCHANGE
        i.data(ox_id, ready.rx_id, pattern(4096))
        assert i.outcome(ox_id)[0] == i.good


async def test_rec_at_every_stage() -> None:
    """FCP-4 12.2: FC4VALUE and E_STAT say how far the exchange is."""
    async with fcp_initiator(parameters=LINUX) as i:
        assert rec(i, 99) is None
        ox_id = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        assert rec(i, ox_id) == (0, E_STAT_RESPONDER)
        i.data(ox_id, ready.rx_id, pattern(4096), keep={0})
        assert rec(i, ox_id, ready.rx_id) == (2048, E_STAT_RESPONDER)
        i.data(ox_id, ready.rx_id, pattern(4096), keep={1})
        assert rec(i, ox_id) == (4096, E_STAT_RESPONDER | E_STAT_COMPLETE)
        assert rec(i, ox_id, ready.rx_id + 1) is None
        i.received()
        ox_id = i.command(read10(0, 8), read=4096)
        rx_id = i.received()[-1].rx_id
        assert rec(i, ox_id, rx_id) == (4096, E_STAT_RESPONDER | E_STAT_COMPLETE)
        i.site.tick(20)
        assert rec(i, ox_id, rx_id) is None
    memory = GatedMemory(1 << 20)
    async with fcp_initiator(memory, parameters=LINUX) as i:
        memory.shut()
        ox_id = i.command(read10(0, 8), read=4096)
        assert rec(i, ox_id) == (0, E_STAT_RESPONDER | E_STAT_SEQUENCE_INITIATIVE)
        memory.release()
        await i.response(ox_id)


async def test_rec_of_answered_exchanges_only_with_retry() -> None:
    """FCP-4 6.3.2.9: without RETRY nothing is kept once FCP_RSP was sent."""
    async with fcp_initiator() as i:
        i.read(0, 8)
        assert rec(i, 2) is None
        assert not i.nexus.answered
        assert srr(i, 2, InformationUnit.FCP_RSP) == Reject(Reason.COMMAND_NOT_SUPPORTED).pack()


async def test_srr_for_lost_response() -> None:
    """FCP-4 12.4: FCP_RSP once more."""
    async with fcp_initiator(parameters=LINUX) as i:
        ox_id = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        i.data(ox_id, ready.rx_id, pattern(4096))
        (lost,) = i.received()
        for _ in range(3):
            assert srr(i, ox_id, InformationUnit.FCP_RSP) == ACCEPTED
            (again,) = i.received()
            assert bytes(again.payload) == bytes(lost.payload)
            assert again.seq_id != lost.seq_id


@pytest.mark.parametrize("bits", [0, DPO])
async def test_srr_for_lost_data_in(bits: int) -> None:
    """FCP-4 12.4: FCP_DATA from the offset on, in a sequence of its own, and FCP_RSP."""
    data = pattern(16384)
    async with fcp_initiator(parameters=LINUX) as i:
        i.write(0, data)
        ox_id = i.command(read10(0, 32, bits), read=16384)
        first = i.received()
        for offset in (2112, 0, 16384):
            assert srr(i, ox_id, InformationUnit.FCP_DATA, offset, first[0].rx_id) == ACCEPTED
            frames = i.received()
            response, rest = outcome(frames, ox_id)
            assert (response, rest) == (Response(), data[offset:])
            assert frames[0].seq_id not in {frame.seq_id for frame in first}
        assert srr(i, ox_id, InformationUnit.FCP_DATA, 16385, first[0].rx_id)[:1] == b"\x01"


async def test_srr_while_data_in_is_being_sent() -> None:
    """FCP-4 12.4: it goes on from there."""
    data = pattern(2 << 20)
    async with fcp_initiator(parameters=LINUX) as i:
        i.write(0, data)
        ox_id = i.command(read10(0, 4096), read=2 << 20)
        assert i.nexus.exchanges
        i.site.outbox.clear()
        assert srr(i, ox_id, InformationUnit.FCP_DATA, 4224) == ACCEPTED
        assert i.outcome(ox_id) == (Response(), data[4224:])


@pytest.mark.parametrize("bits", [0, DPO])
async def test_srr_for_lost_data_out(bits: int) -> None:
    """FCP-4 12.4: FCP_XFER_RDY for what has not come; frames of the sequence before may be late."""
    data = pattern(8192)
    async with fcp_initiator(parameters=LINUX) as i:
        ox_id = i.command(write10(0, 16, bits), write=8192)
        (ready,) = i.received()
        i.data(ox_id, ready.rx_id, data, keep={0, 2, 3}, seq_id=1)
        assert not i.received()
        transferred, _ = rec(i, ox_id) or (0, 0)
        assert transferred == 2048
        assert srr(i, ox_id, InformationUnit.FCP_XFER_RDY, transferred, ready.rx_id) == ACCEPTED
        (again,) = i.received()
        assert TransferReady.unpack(again.payload) == TransferReady(2048, 6144)
        i.data(ox_id, ready.rx_id, data, keep={2, 3}, seq_id=1)
        i.data(ox_id, ready.rx_id, data[2048:], 2048, seq_id=2)
        assert i.outcome(ox_id)[0] == i.good
        assert i.read(0, 16) == data


@pytest.mark.parametrize("bits", [0, DPO])
async def test_srr_for_lost_first_burst(bits: int) -> None:
    """FCP-4 12.4: FCP_XFER_RDY for what is lost, although the first burst was none's to ask for."""
    data = pattern(8192)
    async with fcp_initiator(parameters=LINUX | 1, first_burst=True) as i:
        ox_id = i.command(write10(0, 16, bits), write=8192)
        i.data(ox_id, NO_RX_ID, data[:4096], keep={1}, seq_id=9)
        assert rec(i, ox_id) == (0, E_STAT_RESPONDER)
        assert srr(i, ox_id, InformationUnit.FCP_XFER_RDY) == ACCEPTED
        assert i.give(ox_id, data) == i.good
        assert i.read(0, 16) == data


async def test_srr_for_lost_transfer_ready() -> None:
    """FCP-4 12.4: the same FCP_XFER_RDY."""
    async with fcp_initiator(parameters=LINUX) as i:
        ox_id = i.command(write10(0, 8), write=4096)
        i.received()
        assert srr(i, ox_id, InformationUnit.FCP_XFER_RDY) == ACCEPTED
        assert i.give(ox_id, pattern(4096)) == i.good


async def test_srr_that_cannot_be() -> None:
    """FCP-4 10.5: FCP_RJT with the reason."""
    async with fcp_initiator(parameters=LINUX) as i:
        unknown = Reject(Reason.LOGICAL_ERROR, Explanation.INVALID_OX_ID_RX_ID).pack()
        cannot = Reject(Reason.UNABLE_TO_PERFORM, Explanation.UNABLE_TO_SUPPLY_REQUESTED_DATA).pack()
        assert srr(i, 99, InformationUnit.FCP_RSP) == unknown
        ox_id = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        assert srr(i, ox_id, InformationUnit.FCP_RSP) == cannot
        assert srr(i, ox_id, InformationUnit.FCP_XFER_RDY, 512) == cannot
        i.data(ox_id, ready.rx_id, pattern(4096))
        assert i.outcome(ox_id)[0] == i.good
        assert srr(i, ox_id, InformationUnit.FCP_XFER_RDY) == cannot
        assert srr(i, ox_id, InformationUnit.FCP_DATA) == cannot
        assert srr(i, ox_id, InformationUnit.FCP_CMND) == cannot
        assert i.site.target.srr(i.remote, b"\x14\0\0\0", i.site.now)[0] == 1
        assert i.site.target.counters.srrs_refused == 7


async def test_confirmed_completion() -> None:
    """FCP-4 4.5: FCP_CONF_REQ goes with a status that must not be lost; the exchange is kept until FCP_CONF."""
    async with fcp_initiator(parameters=LINUX) as i:
        ox_id = i.command(write10(0xFFFFFF, 8, DPO), write=4096)
        (frame,) = i.received()
        response = Response.unpack(frame.payload)
        assert (response.status, response.confirm, frame.f_ctl & 0x1D0000) == (2, True, 0x090000)
        assert rec(i, ox_id) is not None
        i.send(InformationUnit.FCP_CONF, b"", ox_id, rx_id=frame.rx_id, f_ctl=0x190000)
        assert i.site.target.counters.confirmations == 1
        assert rec(i, ox_id) is None


INQUIRY = bytes((0x12, 0, 0, 0, 36, 0))


@pytest.mark.parametrize("cdb, length", [(TEST_UNIT_READY, None), (INQUIRY, 36), (read10(0, 8, DPO), 8192)])
async def test_responses_are_confirmed_where_exchanges_are_remembered(cdb: bytes, length: int | None) -> None:
    """FCP-4 4.5, 12.4: with RETRY an exchange whose response must not be lost is kept until FCP_CONF, and no longer."""
    async with fcp_initiator(parameters=LINUX) as i:
        ox_id = i.command(cdb, read=length)
        frame = i.received()[-1]
        assert Response.unpack(frame.payload).confirm
        assert frame.f_ctl & ~3 == 0x890000
        assert rec(i, ox_id) is not None
        i.send(InformationUnit.FCP_CONF, b"", ox_id, rx_id=frame.rx_id, f_ctl=0x190000)
        assert rec(i, ox_id) is None


@pytest.mark.parametrize("bits", [0, DPO], ids=["express", "general"])
@pytest.mark.parametrize("blocks", [8, 1024])
async def test_good_reads_are_not_confirmed(blocks: int, bits: int) -> None:
    """FCP-4 4.5: nothing would be lost with FCP_RSP. The exchange is kept for RR_TOV, known by its RX_ID.

    REC for a READ that was lost must not be answered with the exchange that had its OX_ID before.
    """
    async with fcp_initiator(parameters=LINUX) as i:
        ox_id = i.command(read10(0, blocks, bits), read=blocks * 512)
        frame = i.received()[-1]
        assert (Response.unpack(frame.payload), frame.f_ctl) == (Response(), 0x980000)
        assert rec(i, ox_id) is None
        assert srr(i, ox_id, InformationUnit.FCP_RSP)[:1] == b"\x01"
        assert abort(i, ox_id) == UNKNOWN_EXCHANGE
        assert rec(i, ox_id, frame.rx_id) == (blocks * 512, E_STAT_RESPONDER | E_STAT_COMPLETE)
        i.site.tick(8)
        assert srr(i, ox_id, InformationUnit.FCP_RSP, 0, frame.rx_id) == ACCEPTED
        assert i.outcome(ox_id) == (Response(), b"")
        again = i.command(read10(0, blocks, bits), read=blocks * 512, ox_id=ox_id)
        i.received()
        assert rec(i, again, frame.rx_id) is None
        assert rec(i, again, frame.rx_id + 1) is not None
        i.site.tick(11)
        assert rec(i, again, frame.rx_id + 1) is None
        assert not i.site.target.kept.used


async def test_answered_exchanges_are_kept_without_confirmation() -> None:
    """FCP-4 12.4: where confirmed completion was not agreed on, all are known by their RX_ID for RR_TOV."""
    without = LINUX & ~ServiceParameters.CONFIRMED_COMPLETION_ALLOWED
    async with fcp_initiator(parameters=without) as i:
        ox_id = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        i.data(ox_id, ready.rx_id, pattern(4096))
        assert i.outcome(ox_id)[0] == Response()
        assert rec(i, ox_id) is None
        assert rec(i, ox_id, ready.rx_id) == (4096, E_STAT_RESPONDER | E_STAT_COMPLETE)
        assert srr(i, ox_id, InformationUnit.FCP_RSP, 0, ready.rx_id) == ACCEPTED
        assert i.outcome(ox_id)[0] == Response()
        i.site.tick(20)
        assert rec(i, ox_id, ready.rx_id) is None


async def test_an_exchange_that_is_asked_about_is_kept() -> None:
    """A link that is crowded may bring REC late, and again."""
    async with fcp_initiator(parameters=LINUX) as i:
        read, other = i.command(read10(0, 8), read=4096), i.command(TEST_UNIT_READY)
        rx_id = i.received()[0].rx_id
        for _ in range(5):
            i.site.tick(8)
            assert rec(i, read, rx_id) is not None
            assert rec(i, other) is not None
        i.site.tick(20)
        assert rec(i, read, rx_id) is None
        assert rec(i, other) is None


async def test_ox_id_used_again_forgets_the_exchange_before() -> None:
    """FC-FS-3 9.9: an OX_ID that begins an exchange stands for that from then on."""
    async with fcp_initiator(parameters=LINUX) as i:
        i.command(read10(0, 8), read=4096, ox_id=7)
        i.received()
        i.command(TEST_UNIT_READY, ox_id=7)
        i.received()
        assert rec(i, 7) == (0, E_STAT_RESPONDER | E_STAT_COMPLETE)


async def test_answered_exchanges_are_bounded() -> None:
    """The oldest are forgotten first."""
    async with fcp_initiator(parameters=LINUX) as i:
        for ox_id in range(ANSWERED_LIMIT + 100):
            i.command(TEST_UNIT_READY, ox_id=ox_id)
            i.received()
        assert len(i.nexus.answered) == ANSWERED_LIMIT
        assert rec(i, ANSWERED_LIMIT + 99) is not None
        assert rec(i, 0) is None
        for size, number in ((4096, UNCONFIRMED_LIMIT), (65536, ANSWERED_BYTES // 65536)):
            for ox_id in range(0x8000, 0x8000 + number + 10):
                i.command(read10(0, size // 512), read=size, ox_id=ox_id)
                rx_id = i.received()[0].rx_id
            assert rec(i, ox_id, rx_id) is not None
            assert rec(i, 0x8009, rx_id - number) is None
            answered = i.nexus.answered
            found = len(answered.young) + len(answered.old) if size == 4096 else len(answered.unconfirmed)
            assert number // 2 <= found <= number
        assert len(answered.exchanges) == ANSWERED_LIMIT
        kept = sum(len(data) for data in answered.data.values()) + sum(
            len(read[1]) for read in (*answered.young.values(), *answered.old.values())
        )
        assert kept <= answered.memory.used == i.site.target.kept.used <= 8 << 20
        answered.clear()
        assert answered.memory.used == i.site.target.kept.used == len(answered) == 0


async def test_a_longer_e_d_tov_is_waited_for() -> None:
    """FC-LS-2 6.6.2: a sequence of an initiator that has said so in PLOGI is an error later."""
    async with fcp_initiator() as i:
        i.remote.e_d_tov = 5.0
        ox_id = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        i.data(ox_id, ready.rx_id, pattern(4096), keep={1})
        for errors in (0, 0, 0, 0, 0, 1):
            i.site.tick(0.99)
            assert i.site.target.counters.sequence_errors == errors


async def test_lost_frames_of_data_out_without_retry() -> None:
    """FCP-4 12.1: after E_D_TOV the sequence is an error; the exchange waits for ABTS, and ends by itself after long."""
    async with fcp_initiator() as i:
        for bits in (0, DPO):
            ox_id = i.command(write10(0, 8, bits), write=4096)
            (ready,) = i.received()
            i.data(ox_id, ready.rx_id, pattern(4096), keep={1})
            for _ in range(10):
                i.site.tick(1)
            assert not i.received()
            assert ox_id in i.nexus.exchanges
            i.site.tick(200)
            await anyio.lowlevel.checkpoint()
            assert not i.nexus.exchanges
        counters = i.site.target.counters
        assert (counters.sequence_errors, counters.stalled_transfers) == (2, 2)


@pytest.mark.parametrize("wanted", [0, 7])
async def test_an_ordered_write_whose_data_never_comes(wanted: int) -> None:
    """FCP-4 11: nobody waits for it longer than an initiator takes to ask for what is lost: thrice R_A_TOV, or what is set."""
    async with fcp_site(data_out_timeout=wanted) as site:
        i, other = site.login(parameters=LINUX).ready(), site.login(0x010203).ready()
        seconds = wanted or STALL_PERIODS * site.n_port.r_a_tov
        ox_id = i.command(write10(0, 8), write=4096, attribute=TaskAttribute.ORDERED)
        (ready,) = i.received()
        assert ready.r_ctl == InformationUnit.FCP_XFER_RDY
        behind = other.command(read10(0, 8), read=4096)
        site.tick(seconds / 2)
        assert not other.received()
        i.data(ox_id, ready.rx_id, pattern(4096), keep={0})
        site.tick(seconds * 0.9)
        assert not other.received(), "a frame has come meanwhile"
        assert rec(i, ox_id) is not None
        site.tick(seconds * 0.9)
        assert not other.received(), "the initiator is recovering it"
        site.tick(seconds * 0.2)
        assert (await other.response(behind))[0] == Response()
        assert site.target.counters.stalled_transfers == 1
        assert rec(i, ox_id) is None
        i.data(ox_id, ready.rx_id, pattern(4096))
        assert not i.received()
        assert not i.nexus.exchanges
        assert site.target.data_out.used == 0


async def test_r_a_tov_of_a_slow_initiator() -> None:
    """E_D_TOV that its PLOGI has made longer makes that time longer, too."""
    async with fcp_initiator(parameters=LINUX) as i:
        i.remote.e_d_tov = 10.0
        i.command(write10(0, 8), write=4096)
        i.received()
        i.site.tick(STALL_PERIODS * 2 * 10.0 - 1)
        assert not i.site.target.counters.stalled_transfers
        i.site.tick(2)
        assert i.site.target.counters.stalled_transfers == 1
