"""Whatever a remote port sends that is logged in: nothing is raised, what is kept is bounded, and others stay logged in."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fcoe_port import GREATER, LESSER, OTHER, THEIR_NODE, Wire, a_port, plogi, prli
from support.fcoe_stations import INITIATOR, TARGET
from tcm_fcoe.protocol.basic import BasicAccept
from tcm_fcoe.protocol.ct_names import ByType, NameServerCommand, request_iu
from tcm_fcoe.protocol.els import Adisc, Echo, ExchangeQuery, Logo, Plain, Reject, Rls, Rnid, Rscn, Scr, Srr
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.els_login import ProcessLogin, ServicePage
from tcm_fcoe.protocol.frame import FcType, RCtl
from tcm_fcoe.protocol.limits import Limits
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import WellKnownAddress
from tcm_fcoe.protocol.remote_port import State

FRIEND = 0x010003
LIMITS = Limits(remote_ports=8, recovery_qualifiers=16)

PAYLOADS = [
    plogi().pack(),
    plogi(GREATER).pack(),
    prli().pack(),
    prli(TARGET).pack(),
    ProcessLogin(ElsCommand.LS_ACC, (ServicePage(flags=0x2100, parameters=TARGET),)).pack(),
    ProcessLogin(ElsCommand.PRLO, (ServicePage(flags=0),)).pack(),
    Logo(OTHER, LESSER).pack(),
    Adisc(LESSER, THEIR_NODE, OTHER).pack(),
    Adisc(GREATER, THEIR_NODE, OTHER).pack(),
    Plain().pack(),
    Plain(ElsCommand.RTV).pack(),
    Reject(9, 0x1E).pack(),
    Rls().pack(),
    Rnid(0xDF).pack(),
    Echo(b"echo").pack(),
    Echo(b"test", ElsCommand.TEST).pack(),
    ExchangeQuery(OTHER, 1, 0x77, ElsCommand.RRQ).pack(),
    ExchangeQuery(OTHER, 1, 0x77, ElsCommand.REC).pack(),
    Srr(1, 0x77, 0, 1).pack(),
    Rscn(((3, 0),)).pack(),
    Scr().pack(),
    request_iu(NameServerCommand.GID_FT, ByType()).pack(),
    BasicAccept(1, 0x77).pack(),
    b"",
]
KINDS = [
    (RCtl.EXTENDED_LINK_REQUEST, FcType.EXTENDED_LINK_SERVICE),
    (RCtl.EXTENDED_LINK_REQUEST, FcType.EXTENDED_LINK_SERVICE),
    (RCtl.EXTENDED_LINK_REPLY, FcType.EXTENDED_LINK_SERVICE),
    (RCtl.FC4_LINK_REQUEST, FcType.FCP),
    (RCtl.FC4_LINK_REPLY, FcType.FCP),
    (RCtl.UNSOLICITED_CONTROL, FcType.COMMON_TRANSPORT),
    (RCtl.SOLICITED_CONTROL, FcType.COMMON_TRANSPORT),
    (RCtl.BASIC_ABTS, 0),
    (RCtl.BASIC_ACC, 0),
    (RCtl.BASIC_RJT, 0),
    (RCtl.UNSOLICITED_COMMAND, FcType.FCP),
    (RCtl.SOLICITED_DATA, FcType.FCP),
    (0x99, 0x99),
]
FRAMES = st.fixed_dictionaries(
    {
        "s_id": st.sampled_from([OTHER] * 3 + [0x020000, 0x020001, 0, 0xFFFFFF]) | st.sampled_from(WellKnownAddress),
        "payload": st.sampled_from(PAYLOADS) | st.binary(max_size=64),
        "kind": st.sampled_from(KINDS),
        "f_ctl": st.sampled_from([0x290000, 0x290000, 0x980000, 0x090000, 0x200000, 0x800000, 0x000008]),
        "ox_id": st.sampled_from([1, 2, 3, 4, 5, 0x1000, 0xFFFF]),
        "rx_id": st.sampled_from([0xFFFF, 0x77]),
        "seq_id": st.integers(0, 3),
        "seq_cnt": st.sampled_from([0, 0, 1, 2, 0xFFFF]),
        "parameter": st.sampled_from([0, 1, 0x40]),
        "df_ctl": st.sampled_from([0, 0, 0, 0, 0x20]),
        "sof": st.sampled_from([0x2E, 0x2E, 0x36]),
        "eof": st.sampled_from([0x42, 0x42, 0x41]),
        "wait": st.sampled_from([0.0, 0.0, 0.0, 0.5, 3.0, 25.0]),
    }
)


def bounded(wire: Wire, port: NPort) -> None:
    assert len(port.remotes) <= LIMITS.remote_ports
    assert len(port.sequences) <= LIMITS.sequences
    assert len(port.qualifiers) <= LIMITS.recovery_qualifiers
    assert len(port.exchanges) + len(port.aborts) < 200
    assert len(port.timers) < 500
    assert port.logins.image_pairs.keys() == {fc_id for fc_id, each in port.remotes.items() if each.state is State.READY}
    assert port.next_timer >= wire.now


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    frames=st.lists(FRAMES, max_size=40),
    parameters=st.sampled_from([TARGET, INITIATOR, TARGET | INITIATOR]),
    fabric=st.booleans(),
)
def test_any_frames(frames, parameters, fabric):
    wire, port, fc4 = a_port(parameters, fabric=fabric, limits=LIMITS)
    wire.take()
    for fc_id, name in ((OTHER, LESSER), (FRIEND, LESSER[::-1])):
        wire.give(fc_id, plogi(name).pack())
        wire.give(fc_id, prli().pack())
        assert port.remotes[fc_id].ready
    wire.take()
    fc4.known.update({1, 2})
    for values in frames:
        frame = dict(values)
        wait, (r_ctl, fc_type) = frame.pop("wait"), frame.pop("kind")
        wire.give(frame.pop("s_id"), frame.pop("payload"), r_ctl=r_ctl, fc_type=fc_type, **frame)
        assert len(wire.take()) <= 12
        wire.pass_time(wait)
        wire.take()
        bounded(wire, port)
        assert port.remotes[FRIEND].ready
    assert ("logout", FRIEND) not in [event[:2] for event in fc4.events]
    port.down("link down", wire.now)
    assert len(port.exchanges) == len(port.aborts) == len(port.sequences) == len(port.qualifiers) == len(port.timers) == 0
