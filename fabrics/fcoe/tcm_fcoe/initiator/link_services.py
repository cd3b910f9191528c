"""Extended Link Services that an N_Port sends to another, for programs that look into a fabric (FC-LS-2 clause 4).

.. code-block:: python

    async with attach("eth1", options=Options(function=False)) as port:
        services = LinkServices(port)
        fc_id = await services.find(parse_name("20:00:52:54:00:2f:fc:00"))
        reply = await services.ask(fc_id, Plain(ElsCommand.RTV))
        print(reply.payload.r_a_tov, reply.seconds)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio

from tcm_fcoe.initiator.driver import TICK
from tcm_fcoe.initiator.results import LoginFailed, RequestFailed
from tcm_fcoe.protocol.els import Echo, Reject, parse_reply
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason, command_name
from tcm_fcoe.protocol.els_payload import ElsError, Payload
from tcm_fcoe.protocol.frame import F_CTL_REQUEST, NO_EXCHANGE, FcType, RCtl
from tcm_fcoe.protocol.names import FIRST_WELL_KNOWN_ADDRESS, NO_NAME, colon_form, format_fc_id
from tcm_fcoe.protocol.remote_port import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.initiator.driver import InitiatorPort
    from tcm_fcoe.protocol.remote_port import RemotePort

TIMEOUT = 5.0
"""Seconds for a reply, if none are given: those that are at the other end answer at once, or not at all."""
ASK_AGAIN = 0.5
"""Seconds between questions to the directory for a name that it does not know yet."""
ECHO_HEADER = 4
"""Bytes of ECHO before its data."""


class NoReply(RequestFailed):
    """Neither LS_ACC nor LS_RJT came within the time."""


class Refused(RequestFailed):
    """LS_RJT."""

    def __init__(self, name: str, rejection: Reject) -> None:
        super().__init__(f"{name} is refused: {describe(rejection)}")
        self.rejection = rejection


@dataclass(frozen=True, slots=True)
class Reply:
    """LS_ACC to a request."""

    payload: Payload
    seconds: float
    """From the request to the reply."""


def describe(rejection: Reject) -> str:
    """Reason and explanation of LS_RJT, by name where they have one."""
    names = []
    for kind, code in ((Reason, rejection.reason), (Explanation, rejection.explanation)):
        try:
            names.append(f"{kind(code).name.lower().replace('_', ' ')} ({code:02X}h)")
        except ValueError:
            names.append(f"{code:02X}h")
    return ", ".join(names)


class LinkServices:
    """What one N_Port asks others. Many requests may be under way at once."""

    def __init__(self, port: InitiatorPort) -> None:
        self.port = port

    async def find(self, whom: bytes | int, *, timeout: float = 15.0) -> int:  # noqa: ASYNC109 - told in words
        """The FC_ID of a port that is logged in with, once it is; a well-known address needs no login.

        :param whom: a port name, or an FC_ID.
        :raises LoginFailed: there is none within ``timeout`` seconds, or it refuses PLOGI.
        """
        port = self.port
        await self._until(lambda: port.port.is_up, timeout, "no address")
        if isinstance(whom, int) and whom >= FIRST_WELL_KNOWN_ADDRESS:
            if not port.port.fabric:
                raise LoginFailed(f"{format_fc_id(whom)} is an address of a fabric's, and there is none in mode {port.mode}")
            return whom
        fc_id = whom if isinstance(whom, int) else await self._locate(whom, timeout)
        if fc_id == port.port.fc_id:
            raise LoginFailed(f"{format_fc_id(fc_id)} is our own address")
        await self._until(lambda: port.port.prefix(fc_id) is not None, timeout, f"nobody has FC_ID {format_fc_id(fc_id)}")
        await self.login(fc_id, timeout=timeout)
        return fc_id

    async def login(self, fc_id: int, *, timeout: float = 15.0) -> RemotePort:  # noqa: ASYNC109 - told in words
        """Send PLOGI, unless the other side has. Raises LoginFailed."""
        n_port = self.port.port
        n_port.login(fc_id, self.port.now())
        self.port.flush_soon()
        remote = n_port.remotes.get(fc_id)
        if remote is None:
            raise LoginFailed("more ports are logged in than there is room for")
        remote.rejection = None
        with anyio.move_on_after(timeout):
            while not remote.logged_in and (remote.rejection is None or remote.state is not State.IDLE):
                await anyio.sleep(TICK)
                remote = n_port.remotes.get(fc_id, remote)  # another, if it has come up again
        if remote.logged_in:
            return remote
        if remote.rejection is not None:
            raise LoginFailed(f"{format_fc_id(fc_id)} refuses PLOGI: {describe(remote.rejection)}")
        raise LoginFailed(f"{format_fc_id(fc_id)} does not answer PLOGI")

    async def _until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:  # noqa: ASYNC109 - told in words
        with anyio.move_on_after(timeout):
            while not condition():  # noqa: ASYNC110 - a sans-IO port tells nobody
                await anyio.sleep(TICK)
        if not condition():
            port = self.port
            if not port.link.up:
                raise LoginFailed(f"{port.link.name} is down: nobody is at the other end")
            raise LoginFailed(f"{what} on {port.link.name} in mode {port.mode} within {timeout:g} s{self._others()}")

    def _others(self) -> str:
        known = [each for each in self.port.port.remotes.values() if each.port_name != NO_NAME]
        there = ", ".join(f"{colon_form(each.port_name)} ({format_fc_id(each.fc_id)})" for each in known)
        return f"; there are: {there}" if there else ""

    async def _locate(self, port_name: bytes, timeout: float) -> int:  # noqa: ASYNC109 - told in words
        """The FC_ID of a name: of a neighbour, or by the fabric's directory."""
        found: list[int] = []
        n_port = self.port.port
        asks = math.inf if not n_port.fabric else 0.0

        def answered(fc_id: int | None, _now: float) -> None:
            found.extend(() if fc_id is None else (fc_id,))

        def there() -> bool:
            nonlocal asks
            found.extend(each.fc_id for each in n_port.remotes.values() if each.port_name == port_name)
            now = self.port.now()
            if not found and now >= asks and n_port.name_client.registered:
                asks = now + ASK_AGAIN
                n_port.name_client.where(port_name, answered, now)
                self.port.flush_soon()
            return bool(found)

        await self._until(there, timeout, f"no port {colon_form(port_name)}")
        return found[0]

    async def ask(self, fc_id: int, payload: Payload, *, timeout: float = TIMEOUT) -> Reply:  # noqa: ASYNC109 - told in words
        """Send a request, once, and wait for its reply; without one its exchange is aborted.

        :raises Refused: LS_RJT.
        :raises NoReply: there is none, or one that does not belong to the request.
        """
        port = self.port
        event = anyio.Event()
        answer: list[tuple[bytes | None, float]] = []

        def done(reply: bytes | None, _now: float) -> None:
            answer.append((reply, port.clock()))
            event.set()

        name, began = command_name(payload.command), port.clock()
        request = port.port.exchanges.request(fc_id, payload.pack(), done, began, timeout=timeout, attempts=1)
        port.flush_soon()
        try:
            with anyio.move_on_after(timeout + 1):  # a logout ends the exchange without a word
                await event.wait()
        except BaseException:
            port._process(partial(port.port.exchanges.cancel, request), port.clock())
            raise
        reply, then = answer[0] if answer else (None, 0.0)
        if reply is None:
            raise NoReply(f"no reply to {name} within {timeout:g} s")
        try:
            found = parse_reply(payload.command, reply)
        except ElsError as e:
            raise NoReply(f"the reply to {name} cannot be read: {e}") from None
        if isinstance(found, Reject):
            raise Refused(name, found)
        return Reply(found, then - began)

    async def echo(self, fc_id: int, data: bytes, *, timeout: float = TIMEOUT) -> Reply:  # noqa: ASYNC109 - told in words
        """ECHO (FC-LS-2 clause 4.3.9): what was sent has to come back. Raises as :meth:`ask`; NoReply for other data."""
        reply = await self.ask(fc_id, Echo(data), timeout=timeout)
        payload = reply.payload
        if not isinstance(payload, Echo) or payload.data[: len(data)] != data:
            raise NoReply("other data came back than was sent")
        return reply

    def test(self, fc_id: int, data: bytes) -> None:
        """TEST (FC-LS-2 clause 4.3.10), which nothing answers."""
        port = self.port
        port.port.send_sequence(
            fc_id, RCtl.EXTENDED_LINK_REQUEST, FcType.EXTENDED_LINK_SERVICE, F_CTL_REQUEST, 0, NO_EXCHANGE,
            Echo(data, command=ElsCommand.TEST).pack(), port.now(),
        )  # fmt: skip
        port.flush_soon()

    def echo_room(self, fc_id: int) -> int:
        """Bytes of data that ECHO carries at most: it is one frame (FC-LS-2 clause 4.3.9)."""
        port = self.port.port
        remote = port.remotes.get(fc_id)
        size = remote.max_frame if remote is not None and remote.logged_in else port.receive_size
        return size - ECHO_HEADER
