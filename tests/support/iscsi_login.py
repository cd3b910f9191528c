"""The other side of a login: a small sans-IO initiator, and an owner's policy with everything settable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tcm_iscsi.protocol.chap import response
from tcm_iscsi.protocol.framer import Framer
from tcm_iscsi.protocol.login import LoginPhase
from tcm_iscsi.protocol.login_interface import (
    Credentials,
    Disposition,
    LoginCompleted,
    LoginError,
    LoginFailed,
    LoginIdentity,
    LoginTarget,
    SessionResolution,
)
from tcm_iscsi.protocol.pdu import (
    CONTINUE,
    IMMEDIATE,
    LOGIN_REQUEST,
    LOGIN_RESPONSE,
    TRANSIT,
    LoginResponseBhs,
    LoginStatus,
    Opcode,
    padded,
)
from tcm_iscsi.protocol.text import encode, format_binary, parse, parse_binary

INITIATOR = "iqn.1993-08.org.debian:01:initiator"
TARGET = "iqn.2003-01.org.linux-iscsi.host.x8664:sn.0123456789ab"
ISID = bytes.fromhex("80abcdef0001")
SECURITY, OPERATIONAL, FULL_FEATURE = 0, 1, 3

IDENTITY = {"InitiatorName": INITIATOR, "SessionType": "Normal", "TargetName": TARGET}
OPEN_ISCSI_KEYS = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "DefaultTime2Wait": "2",
    "DefaultTime2Retain": "0",
    "IFMarker": "No",
    "OFMarker": "No",
    "ErrorRecoveryLevel": "0",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxBurstLength": "16776192",
    "FirstBurstLength": "262144",
    "MaxOutstandingR2T": "1",
    "MaxConnections": "1",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
    "MaxRecvDataSegmentLength": "262144",
}
"""What open-iscsi sends in the operational stage."""


@dataclass
class Policy:
    """An owner that says what its fields say. An exception in ``refuse`` is raised by the method of that name."""

    target: LoginTarget = field(
        default_factory=lambda: LoginTarget(handle="tpg", name=TARGET, alias="a disk", portal_group_tag=3)
    )
    chap: Credentials | None = None
    our_offers: Mapping[str, str] = field(default_factory=dict)
    resolution: SessionResolution = field(default_factory=lambda: SessionResolution(disposition=Disposition.NEW_SESSION))
    tsih: int = 0x1234
    refuse: dict[str, LoginError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    randoms: int = 0

    def _ask(self, question: str) -> None:
        self.asked.append(question)
        if question in self.refuse:
            raise self.refuse[question]

    def find_target(self, target_name: str, identity: LoginIdentity) -> LoginTarget:
        self._ask("find_target")
        if target_name != self.target.name:
            raise LoginError(LoginStatus.NOT_FOUND, f"no target {target_name}")
        return self.target

    def discovery_target(self, identity: LoginIdentity) -> LoginTarget:
        self._ask("discovery_target")
        return replace(self.target, handle=None, name="", alias="")

    def admit(self, target: LoginTarget, identity: LoginIdentity) -> None:
        self._ask("admit")

    def credentials(self, target: LoginTarget, identity: LoginIdentity) -> Credentials | None:
        self._ask("credentials")
        return self.chap

    def offers(self, target: LoginTarget, identity: LoginIdentity) -> Mapping[str, str]:
        self._ask("offers")
        return self.our_offers

    def resolve_session(self, target: LoginTarget, identity: LoginIdentity) -> SessionResolution:
        self._ask("resolve_session")
        return self.resolution

    def allocate_tsih(self, target: LoginTarget, identity: LoginIdentity) -> int:
        self._ask("allocate_tsih")
        return self.tsih

    def random_bytes(self, length: int) -> bytes:
        self.randoms += 1
        return hashlib.shake_128(self.randoms.to_bytes(4, "big")).digest(length)


@dataclass
class Answer:
    """A Login Response."""

    bhs: LoginResponseBhs
    keys: dict[str, str]
    data: bytes

    @property
    def transit(self) -> bool:
        return bool(self.bhs.flags & TRANSIT)

    @property
    def continued(self) -> bool:
        return bool(self.bhs.flags & CONTINUE)

    @property
    def status(self) -> LoginStatus:
        return LoginStatus(self.bhs.status)


class Initiator:
    """Builds Login Requests and reads Login Responses; checks what every response must satisfy."""

    def __init__(self, policy: Any = None, *, tsih: int = 0, cid: int = 7, deadline: float = 15.0) -> None:
        self.policy = Policy() if policy is None else policy
        self.login = LoginPhase(self.policy, deadline=deadline)
        self.framer = Framer(max_data_segment_length=8192)
        self.tsih, self.cid, self.itt, self.cmd_sn = tsih, cid, 0x11223344, 0x01020304
        self.stat_sn: int | None = None
        self.event: LoginCompleted | LoginFailed | None = None

    def request(
        self,
        csg: int,
        nsg: int | None,
        keys: Mapping[str, str] | Iterable[tuple[str, str]] | bytes = b"",
        *,
        continued: bool = False,
        **fields: Any,
    ) -> bytes:
        """The bytes of a Login Request. ``nsg`` None: T is 0. ``fields`` replace header fields of those names."""
        text = keys if isinstance(keys, bytes) else encode(keys.items() if isinstance(keys, Mapping) else keys)
        flags = csg << 2 | (TRANSIT | nsg if nsg is not None else 0) | (CONTINUE if continued else 0)
        values = {
            "opcode": IMMEDIATE | Opcode.LOGIN_REQUEST,
            "flags": flags,
            "version_max": 0,
            "version_min": 0,
            "lengths": len(text),
            "isid": ISID,
            "tsih": self.tsih,
            "itt": self.itt,
            "cid": self.cid,
            "cmd_sn": self.cmd_sn,
            "exp_stat_sn": 0 if self.stat_sn is None else self.stat_sn + 1 & 0xFFFFFFFF,
        } | fields
        return LOGIN_REQUEST.pack(*values.values()) + text.ljust(padded(len(text)), b"\0")

    def send(self, data: bytes) -> list[Answer]:
        """Hand bytes to the target; the Login Responses that come back."""
        self.login.receive_data(data)
        for buffer in self.login.data_to_send():
            self.framer.receive_data(buffer)
        event = self.login.next_event()
        if event is not None:
            assert self.event is None, "a login ends once"
            self.event = event
        answers = []
        while (pdu := self.framer.next_pdu()) is not None:
            answers.append(self._answer(pdu.bhs, pdu.data))
        return answers

    def _answer(self, bhs: bytes, data: bytes) -> Answer:
        fields = LoginResponseBhs._make(LOGIN_RESPONSE.unpack(bhs))
        assert fields.opcode == Opcode.LOGIN_RESPONSE
        assert fields.isid == ISID
        assert fields.initiator_task_tag == self.itt
        assert (fields.version_max, fields.version_active) == (0, 0)
        if self.stat_sn is not None:
            assert fields.stat_sn == self.stat_sn + 1 & 0xFFFFFFFF
        self.stat_sn = fields.stat_sn
        continued = bool(fields.flags & CONTINUE)
        assert not (continued and fields.flags & TRANSIT)
        return Answer(fields, {} if continued or not data.endswith(b"\0") else dict(parse(data)), data)

    def exchange(self, csg: int, nsg: int | None, keys: Any = b"", **fields: Any) -> Answer:
        """One request, one response."""
        answers = self.send(self.request(csg, nsg, keys, **fields))
        assert len(answers) == 1
        return answers[0]

    def completed(self) -> LoginCompleted:
        assert isinstance(self.event, LoginCompleted), self.event
        return self.event

    def failed(self) -> LoginFailed:
        assert isinstance(self.event, LoginFailed), self.event
        return self.event

    def log_in(self, **keys: str) -> LoginCompleted:
        """A normal login without authentication, both stages."""
        assert self.exchange(SECURITY, OPERATIONAL, {**IDENTITY, "AuthMethod": "None"}).transit
        assert self.exchange(OPERATIONAL, FULL_FEATURE, {**OPEN_ISCSI_KEYS, **keys}).transit
        return self.completed()


def chap_answer(challenge: Mapping[str, str], name: str, secret: str) -> dict[str, str]:
    """CHAP_N and CHAP_R for the target's CHAP_A, CHAP_I and CHAP_C."""
    proof = response(
        int(challenge["CHAP_A"]), int(challenge["CHAP_I"]), secret.encode(), parse_binary(challenge["CHAP_C"], 1024)
    )
    return {"CHAP_N": name, "CHAP_R": format_binary(proof)}
