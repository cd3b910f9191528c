"""Golden capture: open-iscsi logs in to LIO with mutual CHAP and digests. Its initiator's bytes go to our login phase.

No frame of it is ours. Our challenge is made to be LIO's, so what open-iscsi proved to LIO it proves to us, and what LIO
proved to open-iscsi must come out of us too.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.iscsi_login import Policy
from tcm_iscsi.attributes import TpgParameters
from tcm_iscsi.protocol.framer import Framer, Pdu
from tcm_iscsi.protocol.layouts import describe
from tcm_iscsi.protocol.login import LoginPhase
from tcm_iscsi.protocol.login_interface import Credentials, LoginCompleted, LoginTarget
from tcm_iscsi.protocol.parameters import SessionParameters
from tcm_iscsi.protocol.pdu import LOGIN_RESPONSE, LoginResponseBhs, Opcode
from tcm_iscsi.protocol.text import encode, parse, parse_binary

SHARED = Path(os.environ.get("TCM_SHARED") or Path(__file__).parents[3] / "shared")
CAPTURE = SHARED / "captures" / "lio-open-iscsi-chap-digest.pcap"
PORT = 3261
pytestmark = pytest.mark.skipif(not CAPTURE.exists(), reason=f"{CAPTURE} is not there")


def streams() -> tuple[bytes, bytes]:
    """What the initiator and the target sent, put together by TCP sequence number up to the first gap."""
    raw = CAPTURE.read_bytes()
    segments: dict[bool, dict[int, bytes]] = {True: {}, False: {}}
    at = 24
    while at < len(raw):
        (captured,) = struct.unpack_from("<8xI", raw, at)
        frame = raw[at + 16 : at + 16 + captured]
        at += 16 + captured
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:
            continue
        packet = frame[14 : 14 + int.from_bytes(frame[16:18], "big")]
        segment = packet[(packet[0] & 15) * 4 :]
        destination, sequence = struct.unpack_from(">2xHI", segment)
        if data := segment[(segment[12] >> 4) * 4 :]:
            segments[destination == PORT][sequence] = data
    out = []
    for found in (segments[True], segments[False]):
        stream, following = b"", min(found)
        for sequence in sorted(found):
            if sequence > following:
                break
            stream += found[sequence][following - sequence :]
            following = max(following, sequence + len(found[sequence]))
        out.append(stream)
    return out[0], out[1]


def login_pdus(stream: bytes) -> tuple[list[Pdu], bytes]:
    """The login PDUs at the start of a stream, and the rest."""
    framer = Framer()
    framer.receive_data(stream)
    pdus, length = [], 0
    while stream[length] & 0x3F in (Opcode.LOGIN_REQUEST, Opcode.LOGIN_RESPONSE):
        pdu = framer.next_pdu()
        assert pdu is not None
        pdus.append(pdu)
        length += 48 + (len(pdu.data) + 3 & ~3)
    return pdus, stream[length:]


@dataclass
class CapturedPolicy(Policy):
    """Draws LIO's identifier and challenge."""

    drawn: list[bytes] = field(default_factory=list)

    def random_bytes(self, length: int) -> bytes:
        value = self.drawn.pop(0)
        assert len(value) == length
        return value


def test_open_iscsi_login_replayed() -> None:
    """Mutual CHAP with MD5, both digests, the same result as LIO's with LIO's parameters."""
    from_initiator, from_target = streams()
    requests, after = login_pdus(from_initiator)
    responses, _ = login_pdus(from_target)
    texts = [dict(parse(pdu.data)) for pdu in requests]
    lio = [dict(parse(pdu.data)) for pdu in responses]
    target_name = texts[0]["TargetName"]
    policy = CapturedPolicy(
        target=LoginTarget(handle="tpg", name=target_name, alias="LIO Target", portal_group_tag=2),
        chap=Credentials(name="alice", secret="initiatorsecret", mutual_name="bob", mutual_secret="targetsecret12"),
        our_offers=TpgParameters(
            HeaderDigest="CRC32C,None",
            DataDigest="CRC32C,None",
            InitialR2T=True,
            MaxBurstLength=262144,
            FirstBurstLength=65536,
            MaxOutstandingR2T=1,
        ).offers(),
        tsih=1,
        drawn=[bytes(4), bytes((int(lio[1]["CHAP_I"]),)), parse_binary(lio[1]["CHAP_C"], 1024)],
    )
    login = LoginPhase(policy)
    login.receive_data(from_initiator)
    event = login.next_event()
    assert isinstance(event, LoginCompleted)
    assert event.trailing_data == after
    assert event.authenticated_name == "alice"
    assert event.identity.initiator_name == texts[0]["InitiatorName"]
    assert event.identity.initiator_alias == "guest"
    ours, rest = login_pdus(b"".join(login.data_to_send()) + b"\xff")
    assert rest == b"\xff"
    for mine, theirs, request in zip(ours, responses, requests, strict=True):
        a, b = (LoginResponseBhs._make(LOGIN_RESPONSE.unpack(pdu.bhs)) for pdu in (mine, theirs))
        assert (a.flags, a.isid, a.tsih, a.initiator_task_tag, a.status) == (
            b.flags,
            b.isid,
            b.tsih,
            b.initiator_task_tag,
            b.status,
        )
        assert describe(request.bhs).isid == a.isid
    for mine, theirs in zip(ours[:3], lio[:3], strict=True):
        assert dict(parse(mine.data)) == theirs
    # LIO leaves out answers that follow from the offer alone
    assert dict(parse(ours[3].data)) == {**lio[3], "DataPDUInOrder": "Yes", "DataSequenceInOrder": "Yes"}
    assert event.session_parameters == SessionParameters(default_time2retain=0)
    assert event.connection_parameters.header_digest
    assert event.connection_parameters.data_digest


def test_open_iscsi_wrong_secret() -> None:
    """The same bytes prove nothing against another secret."""
    from_initiator, from_target = streams()
    lio = [dict(parse(pdu.data)) for pdu in login_pdus(from_target)[0]]
    target_name = dict(parse(login_pdus(from_initiator)[0][0].data))["TargetName"]
    policy = CapturedPolicy(
        target=LoginTarget(handle="tpg", name=target_name),
        chap=Credentials(name="alice", secret="initiatorsecreT"),
        drawn=[bytes(4), bytes((int(lio[1]["CHAP_I"]),)), parse_binary(lio[1]["CHAP_C"], 1024)],
    )
    login = LoginPhase(policy)
    login.receive_data(from_initiator)
    event = login.next_event()
    assert not isinstance(event, LoginCompleted)
    assert event is not None


@pytest.mark.parametrize("side", [0, 1])
def test_captured_digests(side: int) -> None:
    """Every header and data digest that open-iscsi and LIO made is right by our CRC32C, and every header has a layout."""
    _, stream = login_pdus(streams()[side])
    framer = Framer(max_data_segment_length=262144, header_digest=True, data_digest=True)
    framer.receive_data(stream)
    seen = set()
    count = 0
    while (pdu := framer.next_pdu()) is not None:
        assert pdu.data_digest_valid
        seen.add(Opcode(describe(pdu.bhs).basic.opcode))
        count += 1
    assert count > 50
    assert {Opcode.SCSI_COMMAND} <= seen if side == 0 else {Opcode.DATA_IN, Opcode.SCSI_RESPONSE} <= seen


def test_captured_text_round_trip() -> None:
    """What both sides wrote is what our encoder writes."""
    for stream in streams():
        for pdu in login_pdus(stream)[0]:
            assert encode(parse(pdu.data)) == pdu.data
