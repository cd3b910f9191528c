"""UNH-IOL full feature phase test suite, tests 17.1.1 to 17.8.3: text negotiation and discovery."""

from __future__ import annotations

import pytest
from support.ffp import DUTS, DeviceUnderTest, segments
from support.pdu_initiator import Connection
from support.pdus import LOGOUT_RESPONSE, NEGOTIATION_RESET, NO_TAG, PROTOCOL_ERROR, REJECT, TEXT_RESPONSE, Pdu

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend, dut", DUTS, indirect=["dut"])]

DECLARE_512 = {"MaxRecvDataSegmentLength": "512"}


async def longest(c: Connection, blocks: int = 4) -> int:
    """The longest Data-In segment of a READ."""
    return max(segments(await c.read(0, blocks)))


def fields(answer: Pdu) -> tuple[int, int, bool, bool]:
    """Kind, task tag, F, and whether there is a TTT."""
    return answer.opcode, answer.itt, answer.final, answer.ttt != NO_TAG


async def targets(c: Connection, value: str) -> list[tuple[str, str]]:
    """What SendTargets is answered with, over as many PDUs as it takes."""
    request = c.text({"SendTargets": value})
    answer = await c.ask(request)
    text = answer.data
    while not answer.final:
        answer = await c.ask(c.text(itt=request.itt, ttt=answer.ttt))
        assert answer.data
        text += answer.data
    assert fields(answer) == (TEXT_RESPONSE, request.itt, True, False)
    return Pdu(answer.bhs, text).keys()


async def test_17_1_1_text_response_to_send_targets(dut: DeviceUnderTest) -> None:
    """Test 17.1.1, clause 11.11: a request with F 0 is answered with F 0, a TTT and its own tag, within what the initiator
    takes."""
    c = await dut.connect(discovery=True, **DECLARE_512)
    request = c.text({"SendTargets": "All"}, final=False)
    answer = await c.ask(request)
    assert fields(answer) == (TEXT_RESPONSE, request.itt, False, True)
    assert len(answer.data) <= 512


async def declared(c: Connection, **fields_of_it: int) -> None:
    """MaxRecvDataSegmentLength=512 in a sequence of two requests; then Data-In is that long."""
    request = c.text(DECLARE_512, final=False, **fields_of_it)
    first = await c.ask(request)
    assert fields(first) == (TEXT_RESPONSE, request.itt, False, True)
    last = await c.ask(c.text(itt=request.itt, ttt=first.ttt))
    assert fields(last) == (TEXT_RESPONSE, request.itt, True, False)
    await c.settle()
    assert await longest(c) == 512


async def test_17_1_2_declaration(dut: DeviceUnderTest) -> None:
    """Test 17.1.2, clauses 11.11 and 13.12: F 0 first, then F 1 ends it with a reserved TTT, and the new length holds."""
    c = await dut.connect(MaxRecvDataSegmentLength=None)
    await declared(c)


async def test_17_2_1_f_bit_of_send_targets(dut: DeviceUnderTest) -> None:
    """Test 17.2.1, clause 11.11.1: no F in the response to SendTargets=All with F 0."""
    c = await dut.connect(discovery=True)
    answer = await c.ask(c.text({"SendTargets": "All"}, final=False))
    assert (answer.opcode, answer.final) == (TEXT_RESPONSE, False)


async def test_17_2_2_f_bit_of_a_declaration(dut: DeviceUnderTest) -> None:
    """Test 17.2.2, clause 11.11.1: no F in the response to MaxRecvDataSegmentLength with F 0."""
    c = await dut.connect(MaxRecvDataSegmentLength=None)
    answer = await c.ask(c.text(DECLARE_512, final=False))
    assert (answer.opcode, answer.final) == (TEXT_RESPONSE, False)


async def test_17_3_1_send_targets_all(dut: DeviceUnderTest) -> None:
    """Test 17.3.1, appendix C: in a discovery session SendTargets=All tells every target with its addresses."""
    c = await dut.connect(discovery=True)
    found = await targets(c, "All")
    assert {key for key, _ in found} <= {"TargetName", "TargetAddress"}
    assert found[0][0] == "TargetName"
    assert set(dut.target.names) <= {value for key, value in found if key == "TargetName"}
    assert "iSCSI" not in dict(found).values()


async def test_17_3_2_send_targets_nothing_in_discovery(dut: DeviceUnderTest) -> None:
    """Test 17.3.2, appendix C: SendTargets= asks for the target of the session. The plan wants its name in a discovery session
    too; that has logged in to none, so the key is refused or no target is told."""
    c = await dut.connect(discovery=True)
    answer = await c.ask(c.text({"SendTargets": ""}))
    if answer.opcode != REJECT:
        assert answer.opcode == TEXT_RESPONSE
        assert answer.keys() in ([], [("SendTargets", "Reject")])


async def test_17_3_3_send_targets_all_in_a_normal_session(dut: DeviceUnderTest) -> None:
    """Test 17.3.3, appendix C: SendTargets=All is not supported in a normal session: Reject."""
    c = await dut.connect()
    assert await targets(c, "All") == [("SendTargets", "Reject")]


async def test_17_3_4_send_targets_nothing_in_a_normal_session(dut: DeviceUnderTest) -> None:
    """Test 17.3.4, appendix C: SendTargets= in a normal session tells its own target, and no other."""
    c = await dut.connect()
    found = await targets(c, "")
    assert [value for key, value in found if key == "TargetName"] == [dut.target.names[0]]
    assert {key for key, _ in found} == {"TargetName", "TargetAddress"}


async def test_17_3_5_send_targets_of_one(dut: DeviceUnderTest) -> None:
    """Test 17.3.5, appendix C: SendTargets=<name> tells the addresses of that target only."""
    c = await dut.connect(discovery=True)
    found = await targets(c, dut.target.names[1])
    assert [value for key, value in found if key == "TargetName"] == [dut.target.names[1]]
    assert len(found) > 1


async def test_17_4_1_other_keys_in_discovery(dut: DeviceUnderTest) -> None:
    """Test 17.4.1, clause 4.3: in a discovery session no key but SendTargets is taken: Irrelevant, or a Reject; and discovery
    goes on."""
    c = await dut.connect(discovery=True)
    answer = await c.ask(c.text(DECLARE_512))
    if answer.opcode != REJECT:
        assert answer.opcode == TEXT_RESPONSE
        assert answer.keys() in ([("MaxRecvDataSegmentLength", each)] for each in ("Irrelevant", "Reject"))
    assert await targets(c, "All")


async def test_17_4_2_logout_for_recovery_in_discovery(dut: DeviceUnderTest) -> None:
    """Test 17.4.2, clauses 4.3 and 11.15.1: a discovery session takes Logout with "close the session" only: response 2
    (recovery not supported) or a Reject, and the session goes on."""
    c = await dut.connect(discovery=True)
    assert await targets(c, "All")
    answer = await c.ask(c.logout(2))
    assert (answer.opcode, answer.response) == (LOGOUT_RESPONSE, 2) or answer.opcode == REJECT
    assert await targets(c, "All")


async def with_another_tag(c: Connection) -> tuple[int, Pdu]:
    """A sequence that goes on with another Initiator Task Tag; the first tag, and the answer."""
    request = c.text(DECLARE_512, final=False)
    first = await c.ask(request)
    wrong = c.text({"InitiatorAlias": "me"}, ttt=first.ttt)
    answer = await c.ask(wrong)
    if answer.opcode == REJECT:
        assert (answer.flags, answer.itt, answer.data[:48]) == (0x80, NO_TAG, wrong.header)
    return request.itt, answer


async def test_17_5_text_with_another_task_tag(dut: DeviceUnderTest) -> None:
    """Test 17.5, clauses 6.4 and 11.10.3: a sequence keeps its Initiator Task Tag; if another one is rejected the Reject is
    well formed."""
    c = await dut.connect(MaxRecvDataSegmentLength=None)
    _, answer = await with_another_tag(c)
    assert answer.opcode in (REJECT, TEXT_RESPONSE)


async def test_17_6_key_given_twice(dut: DeviceUnderTest) -> None:
    """Test 17.6, clause 6.4: a key that comes twice in a sequence is a protocol error; with a reserved TTT it starts again, and
    then all goes well."""
    c = await dut.connect()
    request = c.text(DECLARE_512, final=False)
    first = await c.ask(request)
    reject = await c.ask(c.text(DECLARE_512, itt=request.itt, ttt=first.ttt, final=False))
    assert (reject.opcode, reject.response) == (REJECT, PROTOCOL_ERROR)
    assert await longest(c) == 2048
    await declared(c, itt=request.itt)


async def test_17_7_1_negotiation_reset(dut: DeviceUnderTest) -> None:
    """Test 17.7.1, clauses 6.4 and 7.12: what was declared before a reset does not hold; the same again, from the start, does.
    The wrong tag in between may be rejected or answered."""
    c = await dut.connect(MaxRecvDataSegmentLength=None)
    itt, _ = await with_another_tag(c)
    await declared(c, itt=itt)


async def test_17_7_2_negotiation_abandoned(dut: DeviceUnderTest) -> None:
    """Test 17.7.2, clause 7.12: what was declared in a sequence that never ended does not hold. The plan waits for a timeout
    that neither it nor the RFC asks for."""
    c = await dut.connect(MaxRecvDataSegmentLength="1024")
    await c.ask(c.text(DECLARE_512, final=False))
    assert await longest(c, 8) == 1024


async def test_17_7_3_illegal_declaration(dut: DeviceUnderTest) -> None:
    """Test 17.7.3, clauses 11.17.1 and 13.12: 511 is out of range and does not hold: Reject (negotiation reset or protocol
    error) or the key's own Reject; a legal value then holds."""
    c = await dut.connect(MaxRecvDataSegmentLength=None)
    answer = await c.ask(c.text({"MaxRecvDataSegmentLength": "511"}))
    if answer.opcode == REJECT:
        assert answer.response in (NEGOTIATION_RESET, PROTOCOL_ERROR)
    else:
        assert answer.keys() == [("MaxRecvDataSegmentLength", "Reject")]
    assert await longest(c) == 2048
    assert (await c.ask(c.text({"MaxRecvDataSegmentLength": "1024"}))).final
    assert await longest(c) == 1024


async def test_17_8_1_text_over_two_pdus(dut: DeviceUnderTest) -> None:
    """Test 17.8.1, clauses 6.1 and 6.2: C is answered without text; the key cut in two is read whole."""
    c = await dut.connect(**DECLARE_512)
    text = b"InitiatorAlias=" + b"a" * 200 + b"\0X-cbit.ioliscsilab.test1=" + b"b" * 200 + b"\0X-cbit.ioliscsilab.test2=12"
    request = c.text(text, final=False, more=True)
    first = await c.ask(request)
    assert (fields(first), first.flags & 0x40, first.data) == ((TEXT_RESPONSE, request.itt, False, True), 0, b"")
    second = await c.ask(c.text(b"34\0", itt=request.itt, ttt=first.ttt))
    assert second.opcode == TEXT_RESPONSE
    answers = dict(second.keys())
    for key in ("X-cbit.ioliscsilab.test1", "X-cbit.ioliscsilab.test2"):
        assert answers[key] == "NotUnderstood"


async def test_17_8_2_c_and_f(dut: DeviceUnderTest) -> None:
    """Test 17.8.2, clause 11.10.2: C and F together are an error; the declaration does not hold."""
    c = await dut.connect(MaxRecvDataSegmentLength="1024")
    assert await longest(c) == 1024
    await c.send(c.text(DECLARE_512, more=True))
    await c.quiet(1)
    c = await dut.connect(MaxRecvDataSegmentLength="1024") if c.ended else c
    assert await longest(c) == 1024


async def test_17_8_3_declaration_over_two_pdus(dut: DeviceUnderTest) -> None:
    """Test 17.8.3, clauses 6.1 and 6.2: a declaration cut in two holds once the sequence has ended. The plan sends a Text
    Response in the end; an initiator sends a Text Request."""
    c = await dut.connect(MaxRecvDataSegmentLength="1024")
    assert await longest(c) == 1024
    text = b"InitiatorAlias=" + b"a" * 240 + b"\0X-cbit.ioliscsilab.test1=" + b"b" * 250 + b"\0MaxRecvDataSegment"
    request = c.text(text, final=False, more=True)
    first = await c.ask(request)
    assert first.opcode == TEXT_RESPONSE
    second = await c.ask(c.text(b"Length=512\0", itt=request.itt, ttt=first.ttt))
    assert (second.opcode, second.final) == (TEXT_RESPONSE, True)
    assert await longest(c) == 512
