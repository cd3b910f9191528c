"""A tcm-run in mode p2p that was killed: the peer that it had is told that it is logged out (FC-LS-2 4.2.5)."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
from support.daemon import wait_until
from support.fcoe_daemon import FcoeDaemon
from tcm_fcoe.protocol.els import Logo
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.els_login import CLASS_VALID, ClassParameters, Login
from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3, decapsulate, encapsulate
from tcm_fcoe.protocol.frame import Frame, pack_header
from tcm_fcoe.protocol.names import fabric_provided_mac

F_PORT, LINUX = 0xFFFFFE, bytes.fromhex("525400000100")
LINUX_ID = int.from_bytes(LINUX[3:], "big")
PORT_NAME = b"\x20\0" + LINUX


class Peer:
    """A port that says nothing unless it is asked, at the initiator's end of the link."""

    def __init__(self, daemon: FcoeDaemon) -> None:
        self.target = str(daemon.sockets / "target")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(daemon.sockets / "initiator"))
        self.socket.settimeout(60)

    def send_flogi(self) -> None:
        login = Login(
            ElsCommand.FLOGI, PORT_NAME, PORT_NAME, receive_size=2112, class_3=ClassParameters(options=CLASS_VALID).pack()
        ).pack()
        header = pack_header(0x22, F_PORT, 0, 1, 0x290000, 0, 0, 0, 9, 0xFFFF, 0)
        prefix = fabric_provided_mac(F_PORT) + LINUX + b"\x89\x06"
        self.socket.sendto(encapsulate(prefix, SOF_I3, header, login, EOF_T), self.target)

    def until(self, command: int) -> Frame:
        """The next frame with this ELS. The target asks for more all the time, which is no answer."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            data = self.socket.recv(4096)
            assert data[:6] == LINUX
            sof, fc, eof = decapsulate(memoryview(data)[14:])
            frame = Frame.unpack(fc, sof, eof)
            if frame.type == 1 and frame.payload[0] == command:
                return frame
        pytest.fail(f"no ELS {command:#x} came")

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def daemon(tmp_path):
    made = FcoeDaemon(tmp_path, "--lun", "ramdisk:size=1M", mode="p2p")
    try:
        yield made
    finally:
        made.kill()


def crash(daemon: FcoeDaemon) -> None:
    """kill -9, but the sockets' folder stays."""
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()
    daemon.process = None


def kept(daemon: FcoeDaemon) -> Path:
    """Where the target remembers its peer; it does so after it has answered."""
    folder = daemon.directory / "state" / "fcoe" / "peers"
    wait_until(lambda: any(folder.glob("naa.*")), 60, "the peer is remembered")
    return next(folder.glob("naa.*"))


def test_who_was_the_peer_is_told(daemon: FcoeDaemon):
    with closing(Peer(daemon)) as peer:
        daemon.start()
        peer.send_flogi()
        accepted = peer.until(ElsCommand.LS_ACC)
        assert accepted.d_id == LINUX_ID
        kept(daemon)
        for _ in range(2):
            crash(daemon)
            daemon.start()
            logo = peer.until(ElsCommand.LOGO)
            assert (logo.s_id, logo.d_id) == (F_PORT, LINUX_ID)
            assert Logo.parse(logo.payload).n_port_id == F_PORT
        peer.send_flogi()
        assert peer.until(ElsCommand.LS_ACC).d_id == LINUX_ID


def test_what_is_kept_is_damaged(daemon: FcoeDaemon):
    """It is served all the same."""
    with closing(Peer(daemon)) as peer:
        daemon.start()
        peer.send_flogi()
        peer.until(ElsCommand.LS_ACC)
        memory = kept(daemon)
        crash(daemon)
        memory.write_bytes(b"\xff\x00{")
        daemon.start()
        peer.send_flogi()
        assert peer.until(ElsCommand.LS_ACC).d_id == LINUX_ID
        assert "Traceback" not in daemon.log()
