"""Task retry identification (FCP-4 4.7): who asks for it gets it, and by whom it is used."""

from __future__ import annotations

import pytest
from support.fcoe_pair import fcoe_pair
from support.fcoe_port import OTHER, a_port, log_in
from support.fcp_by_hand import OURS, TARGET_PARAMETERS, ByHand
from support.fcp_session import DPO, LINUX, LUN_0, FcpInitiator, fcp_initiator, outcome, read10, write10
from support.scsi import pattern
from tcm_fcoe.initiator.faults import Faults
from tcm_fcoe.initiator.nexus import IdentifyingNexus, TargetNexus
from tcm_fcoe.initiator.options import Options, Recovery
from tcm_fcoe.protocol import link_service_layers as services
from tcm_fcoe.protocol.els import E_STAT_COMPLETE, Plain, Reject, Srr
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import ProcessLogin, ServicePage
from tcm_fcoe.protocol.fcp import Command, InformationUnit, ServiceParameters
from tcm_fcoe.protocol.fcp_identifiers import LIMIT

from tcm.scsi.cdb import read_16, write_16

IDENTIFICATION = int(ServiceParameters.TASK_RETRY_IDENTIFICATION_REQUESTED)
NO_RX_ID = 0xFFFF
REJECTED = Reject(Reason.LOGICAL_ERROR, Explanation.INVALID_OX_ID_RX_ID).pack()


# PRLI


@pytest.mark.parametrize("asked", [0, IDENTIFICATION])
@pytest.mark.parametrize("granted", [0, IDENTIFICATION])
def test_it_is_granted_to_who_asks(asked: int, granted: int):
    wire, _port, fc4 = a_port()
    fc4.granted = granted
    log_in(wire)
    request = ProcessLogin(ElsCommand.PRLI, (ServicePage(parameters=LINUX | asked),))
    (page,) = ProcessLogin.parse(wire.ask(OTHER, request.pack())).pages
    assert page.parameters == fc4.service_parameters | (asked & granted)


# the target


def command(i: FcpInitiator, cdb: bytes, identifier: int, *, ox_id: int, read: int = 0, write: int = 0) -> None:
    payload = Command(
        lun=LUN_0, cdb=cdb.ljust(16, b"\0"), read_data=bool(read), write_data=bool(write), data_length=read or write
    ).pack()
    i.send(InformationUnit.FCP_CMND, payload, ox_id, offset=identifier)


def rec(i: FcpInitiator, ox_id: int, identifier: int, rx_id: int = NO_RX_ID) -> tuple[int, int] | None:
    state = i.site.target.rec(i.remote, ox_id, rx_id, identifier)
    return None if state is None else (state.fc4_value, state.status & E_STAT_COMPLETE)


def srr(i: FcpInitiator, ox_id: int, identifier: int, r_ctl: int, rx_id: int = NO_RX_ID) -> bytes:
    reply = i.site.target.srr(i.remote, Srr(ox_id, rx_id, 0, r_ctl).pack(), i.site.now, identifier)
    i.site.tick(0)
    return reply


@pytest.mark.anyio
async def test_rec_and_srr_ask_for_a_command_by_its_identifier():
    async with fcp_initiator(parameters=LINUX | IDENTIFICATION) as i:
        i.write(0, pattern(4096))
        command(i, read10(0, 8), 70, ox_id=0x500, read=4096)
        response, data = outcome(i.received(), 0x500)
        assert (response.status, data) == (0, pattern(4096))
        assert i.site.target.counters.express_reads == 0
        assert rec(i, 0x500, 70) == (4096, E_STAT_COMPLETE), "although the RX_ID is not known, and nothing was to be confirmed"
        assert rec(i, 0x500, 71) is None
        assert srr(i, 0x500, 71, InformationUnit.FCP_DATA) == REJECTED
        assert srr(i, 0x500, 70, InformationUnit.FCP_DATA) == Plain().pack()
        assert outcome(i.received(), 0x500) == (response, data)


@pytest.mark.anyio
async def test_a_command_that_waits_for_data_has_its_identifier():
    async with fcp_initiator(parameters=LINUX | IDENTIFICATION) as i:
        command(i, write10(0, 8), 5, ox_id=0x500, write=4096)
        (ready,) = i.received()
        assert rec(i, 0x500, 5) == (0, 0)
        assert rec(i, 0x500, 4) is None
        assert srr(i, 0x500, 4, InformationUnit.FCP_XFER_RDY) == REJECTED
        assert srr(i, 0x500, 5, InformationUnit.FCP_XFER_RDY) == Plain().pack()
        (again,) = i.received()
        assert (again.r_ctl, again.rx_id) == (InformationUnit.FCP_XFER_RDY, ready.rx_id)
        i.data(0x500, ready.rx_id, pattern(4096))
        assert outcome(i.received(), 0x500)[0] == i.good


@pytest.mark.anyio
async def test_which_command_comes_twice():
    """The same bytes with the same identifier are one command, with another they are another: no CRN is needed."""
    async with fcp_initiator(parameters=LINUX | IDENTIFICATION) as i:
        counters = i.site.target.counters
        for identifier in (1, 2):
            command(i, read10(0, 1, DPO), identifier, ox_id=0x500, read=512)
            assert outcome(i.received(), 0x500)[0].status == 0
            for _ in range(2):
                command(i, read10(0, 1, DPO), identifier, ox_id=0x500, read=512)
                assert i.received() == []
        assert counters.duplicate_frames == 4


@pytest.mark.anyio
async def test_identifiers_are_bounded():
    async with fcp_initiator(parameters=LINUX | IDENTIFICATION) as i:
        identifiers = i.nexus.identifiers
        assert identifiers is not None
        command(i, write10(0, 8), 9, ox_id=0x9000, write=4096)
        i.received()
        for ox_id in range(LIMIT + 10):
            identifiers.note(ox_id, 1)
        assert len(identifiers._by_ox_id) < 64
        assert rec(i, 0x9000, 9) == (0, 0), "one that is under way is not forgotten"


@pytest.mark.anyio
async def test_without_it_nothing_is_looked_at():
    """Linux does not ask: whatever the Parameter field has, the express lane is taken."""
    async with fcp_initiator() as i:
        assert i.nexus.identifiers is None
        command(i, read10(0, 1), 12345, ox_id=0x500, read=512)
        assert outcome(i.received(), 0x500)[0].status == 0
        assert i.site.target.counters.express_reads == 1


# the initiator


def test_identifiers_of_the_initiator():
    """FCP_CMND, and REC and SRR for it, have the same; the command again in a new exchange has another."""
    asks = Options(recovery=Recovery(rec_timeout=1.0, command_timeout=0), task_retry_identification=True)
    hand = ByHand(asks, parameters=TARGET_PARAMETERS | IDENTIFICATION)
    assert type(hand.nexus) is IdentifyingNexus
    task = hand.start(read_16(0, 1), read_length=512)
    first = hand.take_one()
    other = hand.start(read_16(1, 1), read_length=512)
    second = hand.take_one()
    assert 0 < first.parameter != second.parameter > 0
    hand.data(second, 0, bytes(512), last=True)
    hand.respond(second)
    assert other.result.good
    hand.wait(1.2)
    rec = hand.take_one()
    assert (rec.payload[0], rec.parameter) == (ElsCommand.REC, first.parameter)
    body = services.RecAccept(ox_id=first.ox_id, rx_id=7, originator=OURS, responder=0xFC00, transferred=512, status=0xA0000000)
    hand.answer(rec, body)
    srr = hand.take_one()
    assert (srr.payload[0], srr.parameter) == (ElsCommand.SRR, first.parameter)
    hand.answer(srr, services.Els(code=2))
    hand.data(first, 0, bytes(512), last=True)
    hand.respond(first)
    assert task.result.good


@pytest.mark.parametrize(("asks", "agreed"), [(False, IDENTIFICATION), (True, 0)])
def test_one_side_alone_does_not_use_it(asks, agreed):
    hand = ByHand(Options(task_retry_identification=asks), parameters=TARGET_PARAMETERS | agreed)
    assert type(hand.nexus) is TargetNexus
    hand.start(read_16(0, 1), read_length=512)
    assert hand.take_one().parameter == 0


# both


@pytest.mark.anyio
async def test_both_recover_with_it():
    options = Options(task_retry_identification=True, recovery=Recovery(rec_timeout=1.0), command_reference_numbers=False)
    async with fcoe_pair(options=options) as pair:
        assert type(pair.nexus) is IdentifyingNexus
        (nexus,) = pair.target.fc4.nexuses.values()
        assert nexus.identifiers is not None
        pair.misbehave(Faults.all(0.02))
        for number in range(60):
            data = bytes((number,)) * 4096
            assert (await pair.execute(write_16(number * 8, 8), data_out=data)).result.good
            found = await pair.execute(read_16(number * 8, 8), read_length=4096)
            assert bytes(found.result.data) == data
        pair.misbehave(Faults())
        assert pair.fcp.counters.recs > 0
