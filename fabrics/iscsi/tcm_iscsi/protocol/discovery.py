"""Text requests in full feature phase: SendTargets and redeclared keys (RFC 7143 clauses 6.4, 11.10, 11.11, appendix C)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcm_iscsi.protocol.keys import Stage
from tcm_iscsi.protocol.names import InvalidName, normalize
from tcm_iscsi.protocol.negotiation import REJECT, NegotiationError, Negotiator
from tcm_iscsi.protocol.pdu import CONTINUE, FINAL, RESERVED_TAG, RejectReason
from tcm_iscsi.protocol.text import Pair, TextAssembler, TextError, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tcm_iscsi.protocol.parameters import ConnectionParameters

ALL = "All"


@dataclass(frozen=True, slots=True)
class PortalRecord:
    """One address of a target portal group."""

    address: str
    """IPv4 or IPv6 address without brackets, or host name. A wildcard stands for the address the initiator reached us at."""
    port: int
    portal_group_tag: int


@dataclass(frozen=True, slots=True)
class TargetRecord:
    """One target as SendTargets shows it."""

    name: str
    portals: tuple[PortalRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """What becomes of one Text Request."""

    reject: RejectReason | None = None
    """Answer with a Reject PDU; nothing below counts."""
    flags: int = FINAL
    """F and C of the Text Response."""
    ttt: int = RESERVED_TAG
    data: bytes = b""
    initiator_max_recv_data_segment_length: int | None = None
    """Declared anew by the initiator; holds from the next PDU on."""
    max_recv_data_segment_length: int | None = None
    """Declared anew by us, with this response."""


def target_address(portal: PortalRecord, local_address: str = "") -> str | None:
    """TargetAddress of a portal (clause 13.8), or None if a wildcard portal has no address this initiator could use.

    :param local_address: the connection's own address, which stands in for 0.0.0.0 and ::.
    """
    host = portal.address
    address = _ip_address(host)
    if address is not None and address.is_unspecified:
        local = _ip_address(local_address)
        if local is None or local.version > address.version:
            return None  # an IPv6 socket takes IPv4 connections too, but not the other way round
        address = local
    if address is not None:
        host = f"[{address}]" if address.version == 6 else str(address)
    return f"{host}:{portal.port},{portal.portal_group_tag}"


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Without zone; an IPv4 address that came in IPv6 clothes as itself; None for a host name."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


def send_targets(records: Iterable[TargetRecord], local_address: str) -> Iterator[Pair]:
    """TargetName and TargetAddress keys of a SendTargets response (appendix C). Each address is given once.

    A target without an address for this initiator is left out: a name alone would mean the address that was asked.
    """
    for record in records:
        found = dict.fromkeys(target_address(portal, local_address) for portal in record.portals)
        addresses = [address for address in found if address is not None]
        if addresses:
            yield "TargetName", record.name
            yield from (("TargetAddress", address) for address in addresses)


@dataclass(slots=True)
class _Sequence:
    """One text negotiation, from a request with the reserved TTT to a response with F (clause 6.4)."""

    initiator_task_tag: int
    negotiator: Negotiator
    request: TextAssembler = field(default_factory=TextAssembler)
    response: memoryview = field(default_factory=lambda: memoryview(b""))
    """What has not been sent yet."""
    sent_targets: bool = False
    declared: dict[str, str] = field(default_factory=dict)
    """By us."""


class TextPhase:
    """The text requests of one connection: one sequence at a time, one response to each request.

    :param records: asked at every SendTargets for the targets that this initiator may see; in a normal session only the
        session's own is picked out of them.
    :param parameters: of the connection; ``initiator_max_recv_data_segment_length`` bounds each response.
    :param target_name: the normal session's target; None: a discovery session.
    :param local_address: the connection's own address, without a port, in place of wildcard addresses.
    """

    def __init__(
        self,
        records: Callable[[], Iterable[TargetRecord]],
        parameters: ConnectionParameters,
        *,
        target_name: str | None,
        local_address: str = "",
    ) -> None:
        self._records = records
        self._parameters = parameters
        self._discovery = target_name is None
        self._target_name = target_name
        self._local_address = local_address
        self._sequence: _Sequence | None = None
        self._ttt = 0
        self.told: dict[str, str] = {}
        """What we have declared."""
        self._to_tell: dict[str, str] = {}

    def declare(self, values: Mapping[str, str]) -> bool:
        """Our values of keys that we may declare at any time (use ALL), for the answer to the next text request.

        True: the initiator has to be asked for one.
        """
        asked = bool(self._to_tell)
        self._to_tell = {name: value for name, value in values.items() if self.told.get(name) != value}
        return bool(self._to_tell) and not asked

    def request(self, flags: int, itt: int, ttt: int, data: bytes) -> TextAnswer:
        """Take a Text Request; say what to answer. A sequence that breaks a rule is forgotten, with all it had declared."""
        try:
            return self._request(flags, itt, ttt, data)
        except TextError:
            self._sequence = None
            return TextAnswer(RejectReason.PROTOCOL_ERROR)
        except NegotiationError as e:
            self._sequence = None
            return TextAnswer(e.reject_reason)

    def _request(self, flags: int, itt: int, ttt: int, data: bytes) -> TextAnswer:
        if flags & FINAL and flags & CONTINUE:
            raise NegotiationError("F and C are both set")
        if ttt == RESERVED_TAG:
            self._sequence = _Sequence(itt, Negotiator(discovery=self._discovery))
        sequence = self._sequence
        if sequence is None or (ttt, itt) not in ((RESERVED_TAG, itt), (self._ttt, sequence.initiator_task_tag)):
            raise NegotiationError("a Target Transfer Tag or Initiator Task Tag that belongs to no sequence")
        if sequence.response:
            if data or flags & CONTINUE:
                raise NegotiationError("text where only an empty request can follow (clause 6.2)")
            return self._respond(sequence, flags)
        sequence.request.add(data)
        if flags & CONTINUE:
            return self._invite(b"")
        sequence.response = memoryview(encode(self._answers(sequence, sequence.request.take())))
        return self._respond(sequence, flags)

    def _respond(self, sequence: _Sequence, flags: int) -> TextAnswer:
        """The next piece of the response; the last one ends the sequence if the initiator has said F."""
        limit = self._parameters.initiator_max_recv_data_segment_length
        piece, sequence.response = bytes(sequence.response[:limit]), sequence.response[limit:]
        if sequence.response:
            return self._invite(piece, CONTINUE)
        if not flags & FINAL:
            return self._invite(piece)
        self._sequence = None
        declared = sequence.negotiator.theirs.get("MaxRecvDataSegmentLength")
        for name, value in sequence.declared.items():
            self.told[name] = value
            if self._to_tell.get(name) == value:
                del self._to_tell[name]
        ours = sequence.declared.get("MaxRecvDataSegmentLength")
        return TextAnswer(
            data=piece,
            initiator_max_recv_data_segment_length=declared,
            max_recv_data_segment_length=None if ours is None else int(ours),
        )

    def _invite(self, piece: bytes, flags: int = 0) -> TextAnswer:
        """A response that wants another request."""
        self._ttt = (self._ttt + 1) % RESERVED_TAG
        return TextAnswer(flags=flags, ttt=self._ttt, data=piece)

    def _answers(self, sequence: _Sequence, pairs: list[Pair]) -> list[Pair]:
        if not any(name == "SendTargets" for name, _ in pairs):
            answers = sequence.negotiator.receive(pairs, Stage.FULL_FEATURE)
            # once a sequence, of those that the answers do not have already
            sequence.declared |= {
                name: value
                for name, value in self._to_tell.items()
                if name not in sequence.declared and all(name != answered for answered, _ in answers)
            }
            return answers + list(sequence.declared.items())
        if len(pairs) != 1 or sequence.sent_targets:
            raise NegotiationError("SendTargets stands alone in its sequence (appendix C)")
        sequence.sent_targets = True
        wanted = self._wanted(pairs[0][1])
        if wanted is None:
            return [("SendTargets", REJECT)]
        records = (record for record in self._records() if wanted in (ALL, record.name))
        return list(send_targets(records, self._local_address))

    def _wanted(self, value: str) -> str | None:
        """The target name asked for, or ``All``; None: not to be had in this kind of session (appendix C)."""
        if value in ("", ALL):
            return {(True, ALL): ALL, (False, ""): self._target_name}.get((self._discovery, value))
        try:
            name = normalize(value)
        except InvalidName:
            return None
        return name if self._discovery or name == self._target_name else None
