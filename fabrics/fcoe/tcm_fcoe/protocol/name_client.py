"""An N_Port behind a fabric: it registers with directory server and fabric controller, and finds others (FC-GS, FC-LS-2).

The steps are a table; each is a request, and a reply that lets the next one begin. What cannot be registered is not missed by
anybody but people, so only logins are insisted on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tcm_fcoe.protocol.ct import CtError, CtIu, parse_iu
from tcm_fcoe.protocol.ct_names import (
    FEATURE_INITIATOR,
    FEATURE_TARGET,
    MAX_SYMBOLIC_NAME,
    ByName,
    ByPort,
    ByType,
    Name,
    NameServerCommand,
    PortId,
    PortIds,
    RegisterFeatures,
    RegisterName,
    RegisterSymbolicNodeName,
    RegisterSymbolicPortName,
    RegisterTypes,
    fc4_types,
    request_iu,
)
from tcm_fcoe.protocol.els import Adisc, Reject, Rscn, Scr, parse_reply
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.els_payload import ElsError
from tcm_fcoe.protocol.fc4 import INITIATOR_FUNCTION, TARGET_FUNCTION
from tcm_fcoe.protocol.frame import FcType, RCtl
from tcm_fcoe.protocol.logins import service_parameters
from tcm_fcoe.protocol.names import WellKnownAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.els_payload import Payload
    from tcm_fcoe.protocol.n_port import NPort
    from tcm_fcoe.protocol.remote_port import RemotePort
    from tcm_fcoe.protocol.timers import Timer

DIRECTORY = int(WellKnownAddress.DIRECTORY_SERVER)
CONTROLLER = int(WellKnownAddress.FABRIC_CONTROLLER)
VERIFYING_LIMIT = 256
"""Addresses that the directory is being asked about at once, since somebody wants to log in from there."""


class _Step(NamedTuple):
    name: str
    server: int
    payload: Callable[[NPort], Payload | CtIu]
    required: bool = False
    """Without it the steps begin again after R_A_TOV."""


def _features(port: NPort) -> int:
    parameters = port.fc4.service_parameters
    return (FEATURE_TARGET if parameters & TARGET_FUNCTION else 0) | (
        FEATURE_INITIATOR if parameters & INITIATOR_FUNCTION else 0
    )


def _symbolic(port: NPort) -> bytes:
    return port.symbolic_name.encode()[:MAX_SYMBOLIC_NAME]


STEPS: tuple[_Step, ...] = (
    _Step("PLOGI", DIRECTORY, lambda port: service_parameters(port, ElsCommand.PLOGI), required=True),
    _Step("RNN_ID", DIRECTORY, lambda port: request_iu(NameServerCommand.RNN_ID, RegisterName(port.fc_id, port.node_name))),
    _Step(
        "RSNN_NN",
        DIRECTORY,
        lambda port: request_iu(NameServerCommand.RSNN_NN, RegisterSymbolicNodeName(port.node_name, _symbolic(port))),
    ),
    _Step(
        "RSPN_ID",
        DIRECTORY,
        lambda port: request_iu(NameServerCommand.RSPN_ID, RegisterSymbolicPortName(port.fc_id, _symbolic(port))),
    ),
    _Step(
        "RFT_ID",
        DIRECTORY,
        lambda port: request_iu(NameServerCommand.RFT_ID, RegisterTypes(port.fc_id, fc4_types((FcType.FCP,)))),
    ),
    _Step(
        "RFF_ID", DIRECTORY, lambda port: request_iu(NameServerCommand.RFF_ID, RegisterFeatures(port.fc_id, _features(port)))
    ),
    _Step("SCR", CONTROLLER, lambda _port: Scr()),
)


class NameClient:
    """Of one N_Port."""

    def __init__(self, port: NPort) -> None:
        self._port = port
        self._timer: Timer | None = None
        self._querying = False
        self._again = False
        self._checking: dict[RemotePort, bool] = {}
        """Those of whom the name server is being asked, and whether it is to be asked again after that."""
        self._verifying: dict[int, Callable[[bytes | None, float], None]] = {}
        """Who wants to know whose an address is, by address."""
        self.step = ""
        """Name of the step that is under way; ``registered`` at the end, empty without a fabric."""

    @property
    def registered(self) -> bool:
        """All steps have been done."""
        return self.step == "registered"

    def start(self, now: float) -> None:
        """Begin with the first step."""
        self.stop()
        self._begin(0, now)

    def stop(self) -> None:
        """No more, until the next start."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._port.exchanges.forget(DIRECTORY)
        self._port.exchanges.forget(CONTROLLER)
        self._querying = self._again = False
        self._checking.clear()
        self._verifying.clear()
        self.step = ""

    def logged_out(self, s_id: int, now: float) -> None:
        """A service has sent LOGO."""
        if s_id == DIRECTORY and self._port.fabric and self.step:
            self.start(now)

    def _begin(self, index: int, now: float) -> None:
        port = self._port
        if index == len(STEPS):
            self.step = "registered"
            self._find(now)
            port.management_client.start(now)
            return
        step = STEPS[index]
        self.step = step.name
        payload = step.payload(port)
        if isinstance(payload, CtIu):
            self._ask(payload, lambda iu, moment: self._done(index, moment, failed=iu is None or not iu.accepted), now)
            return

        def answered(reply: bytes | None, moment: float) -> None:
            self._done(index, moment, failed=not _is_accept(payload.command, reply))

        port.request(step.server, payload, answered, now)

    def _done(self, index: int, now: float, *, failed: bool) -> None:
        if failed and STEPS[index].required:
            self._timer = self._port.timers.set(now + self._port.r_a_tov, self.start)
        else:
            self._begin(index + 1, now)

    def _ask(
        self, iu: CtIu, answered: Callable[[CtIu | None, float], None], now: float, *, timeout: float | None = None
    ) -> None:
        """A request to the name server; ``None``: no answer that could be read."""

        def done(reply: bytes | None, moment: float) -> None:
            try:
                found = parse_iu(reply) if reply is not None else None
            except CtError:
                found = None
            if found is not None and not found.accepted:
                self._port.counters.ct_refused += 1
            answered(found, moment)

        self._port.exchanges.request(
            DIRECTORY,
            iu.pack(),
            done,
            now,
            r_ctl=RCtl.UNSOLICITED_CONTROL,
            fc_type=FcType.COMMON_TRANSPORT,
            timeout=timeout,
        )

    # Finding others

    def _find(self, now: float) -> None:
        """Who has the initiator function logs in to everybody that speaks FCP."""
        if not self._port.fc4.service_parameters & INITIATOR_FUNCTION:
            return
        if self._querying:
            self._again = True
            return
        self._querying = True
        self._ask(request_iu(NameServerCommand.GID_FT, ByType()), self._found, now)

    def _found(self, iu: CtIu | None, now: float) -> None:
        self._querying = False
        if self._again:
            self._again = False
            self._find(now)
            return
        if iu is None:
            self._timer = self._port.timers.set(now + self._port.r_a_tov, self._find)
            return
        if not iu.accepted:  # nobody is registered
            return
        try:
            ports = PortIds.parse(iu.body).ports
        except ElsError:
            return
        port = self._port
        for fc_id in ports:
            # an FCF's own ports have no wire between them
            if fc_id not in port.remotes and fc_id != port.fc_id and port.prefix(fc_id) is not None:
                port.login(fc_id, now)

    def state_changed(self, rscn: Rscn, now: float) -> None:
        """RSCN: who is named in it may be gone, new, or another."""
        port = self._port
        port.counters.rscn_in += 1
        if not self.registered:
            return
        for remote in [each for each in port.remotes.values() if rscn.affects(each.fc_id)]:
            self._check(remote, now)
        self._find(now)

    def _check(self, remote: RemotePort, now: float) -> None:
        if remote in self._checking:  # a storm of notifications makes no storm of questions
            self._checking[remote] = True
            return
        self._checking[remote] = False

        def answered(iu: CtIu | None, moment: float) -> None:
            again = self._checking.pop(remote)
            if self._port.remotes.get(remote.fc_id) is not remote:
                return
            if again:
                self._check(remote, moment)
                return
            if iu is None:
                return
            if not iu.accepted or Name.parse(iu.body.ljust(8, b"\0")).name != remote.port_name:
                self._port.remote_down(remote.fc_id, "the fabric says it is gone", moment)
            elif remote.logged_in and self._port.fc4.service_parameters & INITIATOR_FUNCTION:
                self._verify(remote, moment)

        self._ask(request_iu(NameServerCommand.GPN_ID, ByPort(remote.fc_id)), answered, now)

    def whose(self, fc_id: int, answered: Callable[[bytes | None, float], None], now: float) -> bool:
        """Ask for the port name of an address: ``answered(port_name, now)``; ``None``: the directory does not say.

        Of several questions about one address that wait, the last is answered. False: too many do.
        """
        waits = fc_id in self._verifying
        if not waits and len(self._verifying) >= VERIFYING_LIMIT:
            return False
        self._verifying[fc_id] = answered
        if waits:
            return True

        def done(iu: CtIu | None, moment: float) -> None:
            name = Name.parse(iu.body.ljust(8, b"\0")).name if iu is not None and iu.accepted else None
            self._verifying.pop(fc_id)(name, moment)

        self._ask(request_iu(NameServerCommand.GPN_ID, ByPort(fc_id)), done, now, timeout=self._port.e_d_tov)
        return True

    def where(self, port_name: bytes, answered: Callable[[int | None, float], None], now: float) -> None:
        """Ask for the address of a port name: ``answered(fc_id, now)``; ``None``: the directory does not know it."""

        def done(iu: CtIu | None, moment: float) -> None:
            try:
                fc_id = PortId.parse(iu.body).port_id if iu is not None and iu.accepted else None
            except ElsError:
                fc_id = None
            answered(fc_id, moment)

        self._ask(request_iu(NameServerCommand.GID_PN, ByName(port_name)), done, now, timeout=self._port.e_d_tov)

    def _verify(self, remote: RemotePort, now: float) -> None:
        """It is there; whether it still knows us, ADISC tells (FC-LS-2 clause 4.3.16)."""
        port = self._port

        def answered(reply: bytes | None, moment: float) -> None:
            try:
                found = parse_reply(ElsCommand.ADISC, reply) if reply is not None else None
            except ElsError:
                found = None
            same = isinstance(found, Adisc) and found.port_name == remote.port_name and found.n_port_id == remote.fc_id
            if not same and port.remotes.get(remote.fc_id) is remote:
                port.remote_down(remote.fc_id, "it does not know us any more", moment)
                port.login(remote.fc_id, moment)

        port.request(remote.fc_id, Adisc(port.port_name, port.node_name, port.fc_id), answered, now)


def _is_accept(command: int, reply: bytes | None) -> bool:
    try:
        return reply is not None and not isinstance(parse_reply(command, reply), Reject)
    except ElsError:
        return False
