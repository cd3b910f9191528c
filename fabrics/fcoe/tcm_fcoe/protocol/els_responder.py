"""What an N_Port answers to ELS requests and FC-4 link services (FC-LS-2 clause 4): a row for each command."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

from tcm_fcoe.protocol import ct
from tcm_fcoe.protocol.controller import Allowance
from tcm_fcoe.protocol.els import (
    RNID_COMMON,
    RNID_TOPOLOGY,
    Adisc,
    Echo,
    ExchangeQuery,
    ExchangeStatus,
    LinkErrorStatus,
    Logo,
    NodeIdentification,
    Plain,
    Reject,
    Rls,
    Rnid,
    Rscn,
    TimeoutValues,
    parse_request,
    topology,
)
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_payload import ElsError
from tcm_fcoe.protocol.fc4 import TARGET_FUNCTION
from tcm_fcoe.protocol.frame import RCtl
from tcm_fcoe.protocol.logins import check_service_parameters, service_parameters
from tcm_fcoe.protocol.names import WellKnownAddress
from tcm_fcoe.protocol.remote_port import State

if TYPE_CHECKING:
    from tcm_fcoe.protocol.els_login import Login, ProcessLogin
    from tcm_fcoe.protocol.els_payload import Payload
    from tcm_fcoe.protocol.frame import Frame
    from tcm_fcoe.protocol.n_port import NPort
    from tcm_fcoe.protocol.remote_port import RemotePort

ACCEPT = Plain()
LOGIN_BURST = 256
LOGIN_RATE = 256
"""PLOGIs and PRLIs at once, and a second, of all ports that have had no image pair: each costs as much as many commands."""
_COSTLY = frozenset(bytes((each,)) for each in (ElsCommand.PLOGI, ElsCommand.PRLI))
_Answer = Callable[["Responder", "Frame", "Payload", float], "Payload | None"]


class _Row(NamedTuple):
    answer: str
    """Name of the method, without its underscore."""
    login: bool = True
    """The sender has to be logged in, or gets LS_RJT."""


ROWS: dict[int, _Row] = {
    ElsCommand.PLOGI: _Row("plogi", login=False),
    ElsCommand.PDISC: _Row("pdisc"),
    ElsCommand.LOGO: _Row("logo", login=False),
    ElsCommand.PRLI: _Row("prli"),
    ElsCommand.PRLO: _Row("prlo"),
    ElsCommand.ADISC: _Row("adisc"),
    ElsCommand.RTV: _Row("rtv"),
    ElsCommand.RLS: _Row("rls"),
    ElsCommand.RRQ: _Row("rrq"),
    ElsCommand.REC: _Row("rec"),
    ElsCommand.RNID: _Row("rnid", login=False),
    ElsCommand.ECHO: _Row("echo", login=False),
    ElsCommand.TEST: _Row("test", login=False),
    ElsCommand.RSCN: _Row("rscn", login=False),
}
"""Requests that are not here are for fabrics, or nobody's: LS_RJT, command not supported."""


class Responder:
    """Of one N_Port."""

    def __init__(self, port: NPort) -> None:
        self._port = port
        self._strangers = Allowance(LOGIN_BURST, LOGIN_RATE)

    def answer(self, frame: Frame, data: bytes, now: float) -> bytes | None:
        """The payload that answers a request; ``None``: none does, or it has gone out already."""
        port = self._port
        if frame.r_ctl == RCtl.FC4_LINK_REQUEST:
            return self._answer_fc4(frame, data, now)
        try:
            if data[:1] in _COSTLY and not self._allowance(frame.s_id).take(now):
                port.counters.logins_put_off += 1
                raise ElsError(Reason.LOGICAL_BUSY, Explanation.NONE, "more logins than there is time for")
            request = parse_request(data)
            row = ROWS.get(request.command)
            if row is None:
                raise ElsError(
                    Reason.COMMAND_NOT_SUPPORTED,
                    Explanation.REQUEST_NOT_SUPPORTED,
                    f"{ElsCommand(request.command).name} to an N_Port",
                )
            if row.login and not self._is_logged_in(frame.s_id):
                raise ElsError(
                    Reason.UNABLE_TO_PERFORM,
                    Explanation.N_PORT_LOGIN_REQUIRED,
                    f"{ElsCommand(request.command).name} without login",
                )
            answer = cast("_Answer", getattr(type(self), f"_{row.answer}"))(self, frame, request, now)
        except ElsError as error:
            if data[:1] == bytes((ElsCommand.TEST,)):
                return None
            port.counters.els_rejected += 1
            answer = Reject(error.reason, error.explanation)
        return answer.pack() if answer is not None else None

    def _allowance(self, s_id: int) -> Allowance:
        """Who has had an image pair has one of its own: whatever strangers do, it can log in again."""
        remote = self._port.remotes.get(s_id)
        return remote.allowance if remote is not None and remote.admitted else self._strangers

    def _is_logged_in(self, s_id: int) -> bool:
        remote = self._port.remotes.get(s_id)
        return remote is not None and remote.logged_in

    def _remote(self, frame: Frame) -> RemotePort:
        return self._port.remotes[frame.s_id]

    def _answer_fc4(self, frame: Frame, data: bytes, now: float) -> bytes:
        remote = self._port.logins.image_pairs.get(frame.s_id)
        if remote is None:
            rejected = Reject(Reason.UNABLE_TO_PERFORM, Explanation.N_PORT_LOGIN_REQUIRED)
        elif data[:1] != bytes((ElsCommand.SRR,)):
            rejected = Reject(Reason.COMMAND_NOT_SUPPORTED, Explanation.REQUEST_NOT_SUPPORTED)
        else:
            return self._port.fc4.srr(remote, data, now, frame.parameter)
        self._port.counters.els_rejected += 1
        return rejected.pack()

    def answer_ct(self) -> bytes:
        """We are no server of any generic service."""
        return ct.reject(ct.CtReason.SERVER_NOT_AVAILABLE).pack()

    # Rows

    def _plogi(self, frame: Frame, request: Login, now: float) -> None:
        """Behind another's fabric its directory is asked first whose the address is, or anybody could come in as anybody."""
        port = self._port
        port.counters.plogi_in += 1
        remote = port.remotes.get(frame.s_id)
        known = port.line is not None and port.line.port_name_of(frame.s_id) is not None
        if known or not port.name_client.registered or (remote is not None and remote.state is State.PLOGI):
            port.logins.receive_plogi(frame, request, now)
            return
        frame.payload = memoryview(b"")  # the link's memory is not ours to keep

        def answered(port_name: bytes | None, moment: float) -> None:
            try:
                if port_name not in (None, request.port_name):
                    port.counters.plogi_refused += 1
                    raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME, "another name than in the directory")
                port.logins.receive_plogi(frame, request, moment)
            except ElsError as error:
                port.counters.els_rejected += 1
                port.reply(frame, Reject(error.reason, error.explanation).pack(), moment)

        if not port.name_client.whose(frame.s_id, answered, now):
            raise ElsError(Reason.LOGICAL_BUSY, Explanation.NONE, "more logins than the directory can be asked about at once")

    def _pdisc(self, frame: Frame, request: Login, now: float) -> Payload:
        """Service parameters are told, and nothing changes (FC-LS-2 clause 4.3.6); another port's log the old one out."""
        check_service_parameters(request)
        self._same_port(frame, request.port_name, request.node_name, frame.s_id, now)
        return service_parameters(self._port, ElsCommand.LS_ACC)

    def _adisc(self, frame: Frame, request: Adisc, now: float) -> Payload:
        self._same_port(frame, request.port_name, request.node_name, request.n_port_id, now)
        port = self._port
        return Adisc(port.port_name, port.node_name, port.fc_id, command=ElsCommand.LS_ACC)

    def _same_port(self, frame: Frame, port_name: bytes, node_name: bytes, n_port_id: int, now: float) -> None:
        remote = self._remote(frame)
        if (port_name, node_name, n_port_id) != (remote.port_name, remote.node_name, remote.fc_id):
            self._port.logins.receive_logo(frame.s_id, now)
            raise ElsError(Reason.UNABLE_TO_PERFORM, Explanation.N_PORT_LOGIN_REQUIRED, "another port has the address")

    def _logo(self, frame: Frame, request: Logo, now: float) -> None:
        del request
        if frame.s_id == WellKnownAddress.FABRIC_LOGIN_SERVER:
            raise ElsError(Reason.FIP_ERROR, Explanation.NONE, "LOGO of the fabric goes in FIP (FC-BB-5 clause 7.5)")
        self._port.reply(frame, ACCEPT.pack(), now)  # while there is a way
        self._port.logins.receive_logo(frame.s_id, now)

    def _prli(self, frame: Frame, request: ProcessLogin, now: float) -> Payload:
        return self._port.logins.receive_prli(self._remote(frame), request, now)

    def _prlo(self, frame: Frame, request: ProcessLogin, now: float) -> Payload:
        return self._port.logins.receive_prlo(self._remote(frame), request, now)

    def _rtv(self, frame: Frame, request: Plain, now: float) -> Payload:
        del frame, request, now
        return TimeoutValues(round(self._port.r_a_tov * 1000), round(self._port.e_d_tov * 1000))

    def _rls(self, frame: Frame, request: Rls, now: float) -> Payload:
        del frame, now
        if request.port_id not in (0, self._port.fc_id):
            raise ElsError(Reason.UNABLE_TO_PERFORM, Explanation.INVALID_N_PORT_ID, f"RLS of {request.port_id:06x}h")
        counters = self._port.counters
        return LinkErrorStatus(
            counters.link_failures & 0xFFFFFFFF,
            counters.virtual_link_failures & 0xFFFFFFFF,
            counters.missed_keep_alives & 0xFFFFFFFF,
            counters.symbol_errors & 0xFFFFFFFF,
            counters.errored_blocks & 0xFFFFFFFF,
            counters.frame_check_errors & 0xFFFFFFFF,
        )

    def _rrq(self, frame: Frame, request: ExchangeQuery, now: float) -> Payload:
        del now
        if request.originator != frame.s_id:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_ORIGINATOR_S_ID, "RRQ for another's exchange")
        if not self._port.qualifiers.reinstate(frame.s_id, request):
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_OX_ID_RX_ID, "RRQ without recovery qualifier")
        return ACCEPT

    def _rec(self, frame: Frame, request: ExchangeQuery, now: float) -> Payload:
        del now
        if request.originator != frame.s_id:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_ORIGINATOR_S_ID, "REC for another's exchange")
        remote = self._port.logins.image_pairs.get(frame.s_id)
        state = self._port.fc4.rec(remote, request.ox_id, request.rx_id, frame.parameter) if remote is not None else None
        if state is None:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_OX_ID_RX_ID, "REC for an exchange that is not there")
        return ExchangeStatus(
            request.ox_id, state.rx_id, request.originator, self._port.fc_id, state.fc4_value & 0xFFFFFFFF, state.status
        )

    def _rnid(self, frame: Frame, request: Rnid, now: float) -> Payload:
        del frame, now
        port = self._port
        if request.data_format != RNID_TOPOLOGY:  # another one that we have not: names only
            return NodeIdentification(port.port_name, port.node_name, RNID_COMMON)
        kind = "storage" if port.fc4.service_parameters & TARGET_FUNCTION else "host"
        data = topology(kind)
        return NodeIdentification(port.port_name, port.node_name, RNID_TOPOLOGY, specific_length=len(data), specific=data)

    def _echo(self, frame: Frame, request: Echo, now: float) -> Payload:
        del frame, now
        return Echo(request.data, command=ElsCommand.LS_ACC)

    def _test(self, frame: Frame, request: Echo, now: float) -> None:
        """Nothing answers it (FC-LS-2 clause 4.3.10)."""

    def _rscn(self, frame: Frame, request: Rscn, now: float) -> None:
        if frame.s_id != WellKnownAddress.FABRIC_CONTROLLER or not self._port.fabric:
            raise ElsError(Reason.UNABLE_TO_PERFORM, Explanation.INVALID_ORIGINATOR_S_ID, "RSCN, but not of the fabric")
        self._port.reply(frame, ACCEPT.pack(), now)
        self._port.name_client.state_changed(request, now)
