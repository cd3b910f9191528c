"""What the FC-4 (FCP, as target or initiator) and the N_Port are to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tcm_fcoe.protocol.basic import Abts, BasicAccept, BasicReject

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.frame import Frame
    from tcm_fcoe.protocol.remote_port import RemotePort

TARGET_FUNCTION = 0x10
INITIATOR_FUNCTION = 0x20
"""FCP service parameters that the N_Port itself looks at (FCP-4 table 9): who has the latter sends PRLI."""

BasicReply = BasicAccept | BasicReject


class ExchangeState(NamedTuple):
    """What REC asks for (FC-LS-2 table 48)."""

    rx_id: int
    fc4_value: int
    """Of FCP: bytes that have been transferred."""
    status: int
    """E_STAT bits of :mod:`tcm_fcoe.protocol.els`."""


class ShortWay(Protocol):
    """The short way of frames with one R_CTL, without an object for each."""

    def __call__(
        self,
        remote: RemotePort,
        payload: memoryview,
        sof: int,
        f_ctl: int,
        seq_id: int,
        seq_cnt: int,
        ox_id: int,
        rx_id: int,
        parameter: int,
        now: float,
        /,
    ) -> bool:
        """One of them. False: nothing has happened, :meth:`Fc4.receive` is to have it."""


ShortWays = dict[int, ShortWay]
"""By R_CTL."""


class Fc4(Protocol):
    """FCP, to an N_Port. Nothing here waits; each call comes with the time, in seconds."""

    service_parameters: int
    """Flags of the FCP page that is sent in PRLI and in LS_ACC to it."""
    granted: int
    """Flags that LS_ACC to PRLI has besides, if the PRLI had them."""
    next_timer: float
    """When :meth:`handle_timer` is to be called; ``inf``: never."""

    @property
    def short_ways(self) -> ShortWays:
        """By R_CTL."""

    def process_login(self, remote: RemotePort, parameters: int, now: float) -> int:
        """PRLI has come, or ours was accepted.

        :param parameters: the flags of the other side's FCP page.
        :return: a :class:`tcm_fcoe.protocol.els_login.PrliResponse`; ``True`` means EXECUTED, ``False`` NOT_POSSIBLE. PRLI in
            both directions brings two calls without a logout in between.
        """

    def process_logout(self, remote: RemotePort, reason: str, now: float) -> None:
        """The image pair is gone: PRLO, LOGO, another login, the link is down."""

    def receive(self, remote: RemotePort, frame: Frame, now: float) -> None:
        """A frame of device data of FCP (R_CTL 0xh, TYPE 08h) from a port with an image pair; the payload is a view."""

    def abort(self, remote: RemotePort, abts: Abts, reply: Callable[[BasicReply], None], now: float) -> BasicReply | None:
        """ABTS for an exchange of FCP: what answers it; ``None``: ``reply`` will be called with it, once, later."""

    def rec(self, remote: RemotePort, ox_id: int, rx_id: int, identifier: int = 0) -> ExchangeState | None:
        """REC for an exchange that the remote port has originated; ``None``: there is no such.

        :param identifier: the Parameter field of its frame, which may be a task retry identifier.
        """

    def srr(self, remote: RemotePort, payload: bytes, now: float, identifier: int = 0) -> bytes:
        """SRR: the payload of LS_ACC or LS_RJT to it; ``identifier`` likewise."""

    def resume(self, now: float) -> None:
        """The link has taken frames: go on with the data that was held back while the outbox was long."""

    def handle_timer(self, now: float) -> None:
        """Do what is due."""


Lane = tuple[
    bytes,
    "dict[int, RemotePort]",
    "RemotePort",
    "dict[tuple[int, int], Any]",
    "Callable[[RemotePort, Frame, float], None]",
    "ShortWays",
]
"""Ethernet header, image pairs by S_ID, the remote port that has to be there, recovery qualifiers (there must be none), and who
takes the frame: any, and those with a short way."""
