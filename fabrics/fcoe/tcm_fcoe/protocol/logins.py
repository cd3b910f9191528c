"""The actions of the table in :mod:`tcm_fcoe.protocol.remote_port`: PLOGI, PRLI, LOGO and PRLO, sent and received."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm_fcoe.protocol.els import Logo, Reject, parse_reply
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import (
    CLASS_SEQUENTIAL_DELIVERY,
    CLASS_VALID,
    FEATURE_CONTINUOUSLY_INCREASING_RELATIVE_OFFSET,
    PRLI_ESTABLISH_IMAGE_PAIR,
    PRLI_RESPONSE_SHIFT,
    ClassParameters,
    Login,
    PrliResponse,
    ProcessLogin,
    ServicePage,
)
from tcm_fcoe.protocol.els_payload import ElsError
from tcm_fcoe.protocol.fc4 import INITIATOR_FUNCTION
from tcm_fcoe.protocol.fcoe import MAX_DATA_FIELD, MIN_DATA_FIELD
from tcm_fcoe.protocol.frame import FcType
from tcm_fcoe.protocol.names import FIRST_WELL_KNOWN_ADDRESS, NO_NAME, is_valid_name
from tcm_fcoe.protocol.remote_port import Event, RemotePort, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.els_payload import Payload
    from tcm_fcoe.protocol.frame import Frame
    from tcm_fcoe.protocol.n_port import NPort

CONCURRENT_SEQUENCES = 255
RELATIVE_OFFSET_CATEGORIES = 0x001F
"""By information category: those of FCP have a relative offset."""
BB_CREDIT = 10
_RETRIED_REASONS = frozenset((Reason.LOGICAL_BUSY, Reason.UNABLE_TO_PERFORM, Reason.COMMAND_ALREADY_IN_PROGRESS))


def service_parameters(port: NPort, command: int) -> Login:
    """Our PLOGI, PDISC, or LS_ACC to one."""
    return Login(
        command=command,
        port_name=port.port_name,
        node_name=port.node_name,
        credit=BB_CREDIT,
        features=FEATURE_CONTINUOUSLY_INCREASING_RELATIVE_OFFSET,
        receive_size=port.receive_size,
        word_2=CONCURRENT_SEQUENCES << 16 | RELATIVE_OFFSET_CATEGORIES,
        word_3=round(port.e_d_tov * 1000),
        class_3=ClassParameters(
            options=CLASS_VALID | CLASS_SEQUENTIAL_DELIVERY,
            receive_size=port.receive_size,
            concurrent_sequences=CONCURRENT_SEQUENCES,
            open_sequences_per_exchange=1,
        ).pack(),
    )


def check_service_parameters(login: Login) -> None:
    """What PLOGI and LS_ACC to it have to say.

    :raises ElsError: class 3 is missing, a receive data field size that cannot be, or a name that is none.
    """
    if not login.class_3_parameters.valid:
        raise ElsError(Reason.LOGICAL_ERROR, Explanation.OPTIONS, "class 3 is not supported")
    size = login.data_field_size
    if not MIN_DATA_FIELD <= size <= MAX_DATA_FIELD or size & 3:
        raise ElsError(Reason.LOGICAL_ERROR, Explanation.RECEIVE_DATA_FIELD_SIZE, f"receive data field size {size}")
    if not is_valid_name(login.port_name):
        raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME, "a port name of zero")
    if not is_valid_name(login.node_name):
        raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_NODE_NAME, "a node name of zero")


_PRLO = ProcessLogin(ElsCommand.PRLO, (ServicePage(flags=0),))
UNINVITED_LIMIT = 64
"""How many strangers are told in E_D_TOV that they are not logged in."""


class Logins:
    """The remote ports of one N_Port."""

    def __init__(self, port: NPort) -> None:
        self._port = port
        self.remotes: dict[int, RemotePort] = {}
        self.image_pairs: dict[int, RemotePort] = {}
        """Those that may speak FCP."""
        self._uninvited: dict[int, float] = {}
        """When strangers were last told that they are not logged in."""

    # Events

    def _run(self, remote: RemotePort, event: Event, now: float) -> bool:
        """Take an event; whether the table has it for the state."""
        action = remote.enter(event)
        if action is None:
            return False
        if action:
            act: Callable[[RemotePort, float], None] = getattr(self, f"_{action}")
            act(remote, now)
        return True

    def remote_up(self, fc_id: int, port_name: bytes, node_name: bytes, now: float) -> None:
        """See :meth:`NPort.remote_up`."""
        if fc_id in self.remotes:
            self._remove(self.remotes[fc_id], "came up again", now)
        remote = self._add(fc_id, now, port_name, node_name)
        if remote is None:
            self._port.counters.remote_ports_refused += 1
            return
        remote.on_link = True
        if self._port.port_name > port_name:
            self._run(remote, Event.LOGIN, now)

    def remote_down(self, fc_id: int, reason: str, now: float) -> None:
        """See :meth:`NPort.remote_down`."""
        remote = self.remotes.get(fc_id)
        if remote is not None:
            self._remove(remote, reason, now)

    def forget_all(self, reason: str, now: float) -> None:
        """Everybody is gone."""
        for remote in list(self.remotes.values()):
            self._remove(remote, reason, now)
        self._uninvited.clear()

    def login(self, fc_id: int, now: float) -> None:
        """Send PLOGI to an address, unless it is logged in or about to be."""
        remote = self.remotes.get(fc_id) or self._add(fc_id, now)
        if remote is None:
            self._port.counters.remote_ports_refused += 1
        else:
            self._run(remote, Event.LOGIN, now)

    def logout(self, remote: RemotePort, now: float) -> None:
        """Send LOGO."""
        self._run(remote, Event.LOGOUT, now)

    def process_logout(self, remote: RemotePort, now: float) -> None:
        """Send PRLO."""
        self._run(remote, Event.PROCESS_LOGOUT, now)

    def _add(self, fc_id: int, now: float, port_name: bytes = NO_NAME, node_name: bytes = NO_NAME) -> RemotePort | None:
        """A new one; ``None``: there are too many, and none of them is there in vain."""
        if len(self.remotes) >= self._port.limits.remote_ports:
            late = now - 2 * self._port.e_d_tov
            idle = (each for each in self.remotes.values() if not each.ready and not each.on_link and each.since < late)
            found = min(idle, key=lambda each: each.since, default=None)
            if found is None:
                return None
            self._remove(found, "makes room", now)
        remote = self.remotes[fc_id] = RemotePort(fc_id, port_name, node_name)
        remote.since = now
        remote.prefix = self._port.prefix(fc_id)
        return remote

    def _remove(self, remote: RemotePort, reason: str, now: float) -> None:
        self._reset(remote, reason, now)
        remote.state = State.IDLE
        if self.remotes.get(remote.fc_id) is remote:
            del self.remotes[remote.fc_id]
            self._port.forget_timeouts(remote.fc_id)

    def _reset(self, remote: RemotePort, reason: str, now: float) -> None:
        """Nothing goes on with it any more: no image pair, no exchange, no timer."""
        self._end_image_pair(remote, reason, now)
        if remote.timer is not None:
            remote.timer.cancel()
            remote.timer = None
        remote.requests.clear()
        port = self._port
        port.exchanges.forget(remote.fc_id)
        port.aborts.forget(remote.fc_id)
        port.sequences.forget(remote.fc_id)
        port.qualifiers.forget(remote.fc_id)

    def _end_image_pair(self, remote: RemotePort, reason: str, now: float) -> None:
        remote.prli_received = False
        if self.image_pairs.pop(remote.fc_id, None) is not None:
            self._port.fc4.process_logout(remote, reason, now)
            remote.context = None

    def _take(self, remote: RemotePort, login: Login) -> None:
        """The other side's service parameters are ours to heed."""
        remote.login = login
        remote.port_name, remote.node_name = login.port_name, login.node_name
        remote.max_frame = min(login.data_field_size, self._port.receive_size)
        remote.e_d_tov = self._port.agree_timeouts(remote.fc_id, login.e_d_tov)

    # PLOGI

    def receive_plogi(self, frame: Frame, login: Login, now: float) -> None:
        """PLOGI: it is answered, and what follows from it goes after the answer.

        :raises ElsError: it is refused.
        """
        port = self._port
        try:
            remote = self._admit(frame.s_id, login, now)
        except ElsError:
            port.counters.plogi_refused += 1
            raise
        self._reset(remote, "logged in again", now)
        self._take(remote, login)
        port.reply(frame, service_parameters(port, ElsCommand.LS_ACC).pack(), now)
        self._run(remote, Event.PLOGI_RECEIVED, now)

    def _admit(self, s_id: int, login: Login, now: float) -> RemotePort:
        port = self._port
        if not 0 < s_id < FIRST_WELL_KNOWN_ADDRESS or s_id == port.fc_id:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_N_PORT_ID, f"PLOGI from {s_id:06x}h")
        check_service_parameters(login)
        if login.port_name == port.port_name:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME, "PLOGI with our own port name")
        remote = self.remotes.get(s_id)
        known = remote.port_name if remote is not None and remote.on_link else None
        if known is None and port.line is not None:
            known = port.line.port_name_of(s_id)
        if known not in (None, login.port_name):  # or anybody could come in as anybody
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME, "another port name than in discovery")
        if remote is not None and remote.state is State.PLOGI:
            port.counters.plogi_collisions += 1
            if port.port_name > login.port_name:
                raise ElsError(
                    Reason.COMMAND_ALREADY_IN_PROGRESS,
                    Explanation.COMMAND_ALREADY_IN_PROGRESS,
                    "our PLOGI is under way, and our port name is the greater one",
                )
        if port.prefix(s_id) is None:
            raise ElsError(Reason.UNABLE_TO_PERFORM, Explanation.INVALID_N_PORT_ID, "PLOGI of whom there is no way to")
        self._move(s_id, login.port_name, now)
        if remote is None:
            remote = self._add(s_id, now, login.port_name, login.node_name)
        if remote is None:
            port.counters.remote_ports_refused += 1
            raise ElsError(
                Reason.UNABLE_TO_PERFORM,
                Explanation.INSUFFICIENT_RESOURCES,
                f"there are {len(self.remotes)} remote ports already",
            )
        return remote

    def _move(self, s_id: int, port_name: bytes, now: float) -> None:
        """A port name has one address: the port that had it before is logged out.

        :raises ElsError: the FCoE controller says that the port is still where it was.
        """
        for other in [each for each in self.remotes.values() if each.port_name == port_name and each.fc_id != s_id]:
            if other.on_link:
                raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME, "a port name that another port has")
            self._remove(other, "logged in with another address", now)

    def _send_plogi(self, remote: RemotePort, now: float) -> None:
        port = self._port
        remote.attempts += 1
        remote.timer = None
        request = port.request(
            remote.fc_id,
            service_parameters(port, ElsCommand.PLOGI),
            lambda reply, moment: self._plogi_answered(remote, reply, moment),
            now,
            attempts=1,
        )
        remote.requests = [request]

    def _plogi_answered(self, remote: RemotePort, reply: bytes | None, now: float) -> None:
        remote.requests = []
        port = self._port
        if reply is None:
            self._run(remote, Event.PLOGI_FAILED, now)
            return
        try:
            login = parse_reply(ElsCommand.PLOGI, reply)
            if isinstance(login, Login):
                check_service_parameters(login)
                if login.port_name == port.port_name or (remote.on_link and login.port_name != remote.port_name):
                    raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME, "another port than in discovery")
                self._move(remote.fc_id, login.port_name, now)
        except ElsError:
            self._run(remote, Event.PLOGI_FAILED, now)
            return
        if not isinstance(login, Login):
            port.counters.els_refused += 1
            remote.rejection = login if isinstance(login, Reject) else None
            remote.refused = isinstance(login, Reject) and login.reason not in _RETRIED_REASONS
            self._run(remote, Event.PLOGI_FAILED, now)
            return
        self._take(remote, login)
        self._run(remote, Event.PLOGI_ACCEPTED, now)

    def _wait(self, remote: RemotePort, now: float) -> None:
        """Something failed: once more after E_D_TOV; after some attempts not before R_A_TOV; not at all if it was refused."""
        port = self._port
        if remote.refused or (remote.attempts >= port.limits.attempts and not (remote.on_link or port.fabric)):
            remote.attempts = 0
            remote.refused = False
            self._run(remote, Event.GIVE_UP, now)
        elif remote.attempts >= port.limits.attempts:
            remote.attempts = 0
            self._retry(remote, now, port.r_a_tov)
        else:
            self._retry(remote, now, port.e_d_tov)

    def _retry(self, remote: RemotePort, now: float, delay: float) -> None:
        if remote.timer is not None:
            remote.timer.cancel()
        remote.timer = self._port.timers.set(now + delay, lambda moment: self._retry_now(remote, moment))

    def _retry_now(self, remote: RemotePort, now: float) -> None:
        self._run(remote, Event.RETRY, now)

    def _rest(self, remote: RemotePort, now: float) -> None:
        """It is not logged in, and is not to be."""
        self._reset(remote, "we log out", now)

    def _forget_idle(self, remote: RemotePort, now: float) -> None:
        """Whom nobody speaks for is forgotten."""
        if not remote.on_link:
            self._remove(remote, "no login", now)

    def _logged_in(self, remote: RemotePort, now: float) -> None:
        """PLOGI is done, one way or the other."""
        remote.attempts = 0
        remote.since = now
        self._uninvited.pop(remote.fc_id, None)
        if self._port.fc4.service_parameters & INITIATOR_FUNCTION:
            self._run(remote, Event.PROCESS_LOGIN, now)

    # PRLI

    def _send_prli(self, remote: RemotePort, now: float) -> None:
        port = self._port
        remote.attempts += 1
        remote.timer = None
        page = ServicePage(parameters=port.fc4.service_parameters)
        request = port.request(
            remote.fc_id,
            ProcessLogin(ElsCommand.PRLI, (page,)),
            lambda reply, moment: self._prli_answered(remote, reply, moment),
            now,
            attempts=1,
        )
        remote.requests = [request]

    def _prli_answered(self, remote: RemotePort, reply: bytes | None, now: float) -> None:
        remote.requests = []
        port = self._port
        try:
            answer = parse_reply(ElsCommand.PRLI, reply) if reply is not None else None
        except ElsError:
            answer = None
        if isinstance(answer, Reject):
            port.counters.els_refused += 1
            if answer.explanation == Explanation.N_PORT_LOGIN_REQUIRED:  # they have forgotten us
                self._run(remote, Event.LOGO_RECEIVED, now)
                return
            remote.refused = answer.reason not in _RETRIED_REASONS
        elif isinstance(answer, ProcessLogin):
            page = next((each for each in answer.pages if each.type == FcType.FCP), None)
            if page is not None and page.response == PrliResponse.EXECUTED and page.flags & PRLI_ESTABLISH_IMAGE_PAIR:
                remote.parameters = page.parameters
                if self._run(remote, Event.PRLI_ACCEPTED, now):
                    return
            else:
                remote.refused = page is None or page.response != PrliResponse.INITIALIZATION_NOT_COMPLETE
        self._run(remote, Event.PRLI_FAILED, now)

    def _pair(self, remote: RemotePort, now: float) -> None:
        """PRLI is done, one way or the other."""
        remote.attempts = 0
        if remote.timer is not None:
            remote.timer.cancel()
            remote.timer = None
        was_there = self.image_pairs.get(remote.fc_id) is remote
        self.image_pairs[remote.fc_id] = remote
        remote.response = int(self._port.fc4.process_login(remote, remote.parameters, now)) or PrliResponse.NOT_POSSIBLE
        if remote.response == PrliResponse.EXECUTED:
            remote.admitted = True
        else:
            remote.state = State.LOGGED_IN
            if was_there:
                self._end_image_pair(remote, "process login refused", now)
            else:
                del self.image_pairs[remote.fc_id]

    def receive_prli(self, remote: RemotePort, request: ProcessLogin, now: float) -> Payload:
        """PRLI: a page for each that it has."""
        self._port.counters.prli_in += 1
        return ProcessLogin(ElsCommand.LS_ACC, tuple(self._answer_page(remote, page, now) for page in request.pages))

    def _answer_page(self, remote: RemotePort, page: ServicePage, now: float) -> ServicePage:
        parameters = 0
        flags = page.flags & PRLI_ESTABLISH_IMAGE_PAIR
        if page.type != FcType.FCP or page.type_extension:
            response = int(PrliResponse.INVALID_PARAMETERS)
        else:
            fc4 = self._port.fc4
            parameters = fc4.service_parameters | (page.parameters & fc4.granted)
            response = self._establish(remote, page, now) if flags else PrliResponse.EXECUTED
        if response != PrliResponse.EXECUTED:
            flags = 0
        return ServicePage(page.type, page.type_extension, flags | response << PRLI_RESPONSE_SHIFT, parameters=parameters)

    def _establish(self, remote: RemotePort, page: ServicePage, now: float) -> int:
        if remote.prli_received:
            self._end_image_pair(remote, "process login again", now)
        remote.parameters = page.parameters
        remote.prli_received = True
        self._run(remote, Event.PRLI_RECEIVED, now)
        return remote.response

    def receive_prlo(self, remote: RemotePort, request: ProcessLogin, now: float) -> Payload:
        """PRLO: a page for each that it has."""
        pages = []
        for page in request.pages:
            there = page.type == FcType.FCP and remote.fc_id in self.image_pairs
            if page.type == FcType.FCP:
                self._run(remote, Event.PRLO_RECEIVED, now)
            response = PrliResponse.EXECUTED if there else PrliResponse.NO_SUCH_IMAGE
            pages.append(ServicePage(page.type, page.type_extension, response << PRLI_RESPONSE_SHIFT))
        return ProcessLogin(ElsCommand.LS_ACC, tuple(pages))

    def _unpair(self, remote: RemotePort, now: float) -> None:
        self._end_image_pair(remote, "process logout", now)
        if self._port.fc4.service_parameters & INITIATOR_FUNCTION:
            self._retry(remote, now, self._port.e_d_tov)

    def _send_prlo(self, remote: RemotePort, now: float) -> None:
        self._end_image_pair(remote, "process logout", now)
        self._tell(remote.fc_id, _PRLO, now)

    # LOGO

    def receive_logo(self, s_id: int, now: float) -> None:
        """LOGO: the port is logged out; one that we want is logged in again after E_D_TOV."""
        self._port.counters.logo_in += 1
        remote = self.remotes.get(s_id)
        if remote is not None:
            self._run(remote, Event.LOGO_RECEIVED, now)
        elif s_id >= FIRST_WELL_KNOWN_ADDRESS:
            self._port.name_client.logged_out(s_id, now)
            self._port.management_client.logged_out(s_id, now)

    def _logged_out(self, remote: RemotePort, now: float) -> None:
        port = self._port
        self._reset(remote, "logged out", now)
        if port.fc4.service_parameters & INITIATOR_FUNCTION or (remote.on_link and port.port_name > remote.port_name):
            self._retry(remote, now, self._port.e_d_tov)
        elif not remote.on_link:
            self._remove(remote, "logged out", now)

    def _send_logo(self, remote: RemotePort, now: float) -> None:
        port = self._port
        if remote.on_link:
            self._reset(remote, "we log out", now)
        else:
            self._remove(remote, "we log out", now)
        self._tell(remote.fc_id, Logo(port.fc_id, port.port_name), now)

    def uninvited(self, s_id: int, now: float) -> None:
        """FCP without login: LOGO, or PRLO to who has not done PRLI (FCP-4); once in E_D_TOV, whatever comes."""
        port = self._port
        remote = self.remotes.get(s_id)
        if remote is not None and remote.logged_in:
            port.counters.no_image_pair += 1
            payload: Payload = _PRLO
        elif remote is not None and remote.state is State.PLOGI:
            port.counters.not_logged_in += 1
            return  # they have accepted our PLOGI, and are faster than their LS_ACC
        else:
            port.counters.not_logged_in += 1
            payload = Logo(port.fc_id, port.port_name)
        late = now - port.e_d_tov
        while self._uninvited and next(iter(self._uninvited.values())) <= late:
            self._uninvited.pop(next(iter(self._uninvited)))
        if s_id not in self._uninvited and len(self._uninvited) < UNINVITED_LIMIT:
            self._uninvited[s_id] = now
            self._tell(s_id, payload, now)

    def _tell(self, fc_id: int, payload: Payload, now: float) -> None:
        """A request whose answer changes nothing."""
        self._port.request(fc_id, payload, lambda _reply, _now: None, now, attempts=1, recover=False)
