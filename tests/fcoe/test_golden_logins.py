"""Golden trace, frames 13 to 22: what LIO answered to Linux's initiator, our N_Port answers too, and the other way round.

We differ in F_CTL: Linux hands over the sequence initiative of an exchange that its reply ends (FC-FS-3 clause 9.7 has no use
for it then), and in RTV only if the mode has other times.
"""

from __future__ import annotations

from support.fcoe_capture import FCOE, captured
from support.fcoe_capture import INITIATOR as I_ID
from support.fcoe_capture import TARGET as T_ID
from support.fcoe_port import Wire
from support.fcoe_stations import NotingFc4
from tcm_fcoe.protocol.fcoe import decapsulate
from tcm_fcoe.protocol.frame import F_CTL_SEQUENCE_INITIATIVE, Frame
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import name_from_mac
from tcm_fcoe.protocol.remote_port import State

T_MAC, I_MAC = bytes.fromhex("5254002ffc00"), bytes.fromhex("525400f59700")
T_FLAGS, I_FLAGS = 0xB2, 0x1A2


def golden(number: int) -> Frame:
    sof, fc, eof = decapsulate(captured()[number - 1].pdu)
    return Frame.unpack(fc, sof, eof)


def as_one_of_them(mac: bytes, fc_id: int, flags: int) -> tuple[Wire, NPort, NotingFc4]:
    fc4 = NotingFc4(flags)
    port = NPort(name_from_mac(mac), name_from_mac(mac, naa=1), fc4)
    wire = Wire(port)
    port.up(fc_id, fabric=False, now=wire.now, e_d_tov=2.0, r_a_tov=4.0)
    return wire, port, fc4


def differences(ours: Frame, theirs: Frame) -> dict[str, tuple[object, object]]:
    """But for identifiers that each side draws."""
    names = [name for name in Frame.__slots__ if name not in {"ox_id", "seq_id"}]
    found = {name: (getattr(ours, name), getattr(theirs, name)) for name in names}
    return {
        name: (bytes(a) if name == "payload" else a, bytes(b) if name == "payload" else b)
        for name, (a, b) in found.items()
        if a != b
    }


INITIATIVE = {"f_ctl": (0x980000, 0x980000 | F_CTL_SEQUENCE_INITIATIVE)}


def test_we_are_lio():
    """PLOGI comes from the initiator, whose name is greater; PRLI both ways."""
    wire, port, fc4 = as_one_of_them(T_MAC, T_ID, T_FLAGS)
    port.remote_up(I_ID, name_from_mac(I_MAC), name_from_mac(I_MAC, naa=1), wire.now)
    assert wire.take() == []
    port.receive(golden(13), wire.now)
    answer, prli = wire.take()
    assert differences(answer, golden(14)) == INITIATIVE
    assert answer.ox_id == golden(14).ox_id
    assert differences(prli, golden(15)) == {}
    port.receive(golden(16), wire.now)
    (answer,) = wire.take()
    assert differences(answer, golden(17)) == INITIATIVE
    assert port.remotes[I_ID].state is State.READY
    accepted = golden(18)
    accepted.ox_id = prli.ox_id
    port.receive(accepted, wire.now)
    assert fc4.events == [("login", I_ID, I_FLAGS)] * 2
    port.receive(golden(19 if golden(19).d_id == T_ID else 20), wire.now)
    (answer,) = wire.take()
    theirs = next(frame for frame in (golden(21), golden(22)) if frame.s_id == T_ID)
    assert differences(answer, theirs) == INITIATIVE
    # and the first command goes to the FC-4 as it is
    port.receive(golden(23), wire.now)
    assert fc4.frames == [(I_ID, golden(23).ox_id, bytes(golden(23).payload))]


def test_we_are_linux():
    wire, port, fc4 = as_one_of_them(I_MAC, I_ID, I_FLAGS)
    port.remote_up(T_ID, name_from_mac(T_MAC), name_from_mac(T_MAC, naa=1), wire.now)
    (plogi,) = wire.take()
    assert differences(plogi, golden(13)) == {}
    accepted = golden(14)
    accepted.ox_id = plogi.ox_id
    port.receive(accepted, wire.now)
    (prli,) = wire.take()
    assert differences(prli, golden(16)) == {}
    port.receive(golden(15), wire.now)
    (answer,) = wire.take()
    assert differences(answer, golden(18)) == INITIATIVE
    accepted = golden(17)
    accepted.ox_id = prli.ox_id
    port.receive(accepted, wire.now)
    assert fc4.events == [("login", T_ID, T_FLAGS)] * 2


def test_all_of_fcp_reaches_the_fc4_of_its_port():
    """All frames of FCP, each to the port that it was for, which is logged in with the other."""
    ends = {}
    for mac, fc_id, flags, other, prli in ((T_MAC, T_ID, T_FLAGS, I_ID, 16), (I_MAC, I_ID, I_FLAGS, T_ID, 15)):
        wire, port, fc4 = as_one_of_them(mac, fc_id, flags)
        login = bytes(golden(13 if other == I_ID else 14).payload)
        wire.give(other, b"\x03" + login[1:])
        port.receive(golden(prli), wire.now)
        ends[fc_id] = port, fc4
    frames = [golden(number) for number in range(23, 836) if captured()[number - 1].ether_type == FCOE]
    for frame in frames:
        port, fc4 = ends[frame.d_id]
        before = len(fc4.frames)
        port.receive(frame, 200.0)
        assert fc4.frames[before:] == [(frame.s_id, frame.ox_id, bytes(frame.payload))]
    assert len(frames) > 800
