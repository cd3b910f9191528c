"""Initiators that misbehave, against the real daemon: it goes on, its memory stays bounded, other sessions do not notice."""

from __future__ import annotations

import itertools
import os
import random
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.daemon import Daemon, running
from support.pdus import DATA_OUT, IMMEDIATE, LOGIN_RESPONSE, NO_TAG, NOP_OUT, REJECT, TEXT
from support.raw_iscsi import Initiator, LoginFailed, close_all, connect
from support.watch import Watch
from tcm_iscsi.logins import MAXIMUM_LOGINS
from tcm_iscsi.server import ACCEPTED_AT_ONCE

pytestmark = pytest.mark.interop

LOGIN_TIMEOUT = 15
PATIENCE = 45
"""Seconds for what ends at the login timeout or sooner, on a busy machine."""
MIB = 1 << 20
READ_16 = struct.Struct(">BBQIxx")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("hostile")
    luns = ("--lun", f"0=fileio:path={directory / 'lun0.img'},size=64M", "--lun", "1=ramdisk:size=64M")
    with running(directory, *luns, urls=2) as daemon:
        with connect(daemon.url) as session:
            for lba in range(0, 65536, 2048):
                assert session.write(lba, os.urandom(MIB)).status == 0
        yield daemon


def dial(daemon: Daemon) -> socket.socket:
    return socket.create_connection((daemon.url.host, daemon.url.port), 10)


def closes(sock: socket.socket, within: float) -> bool:
    """Whether the target closes the connection; what it sends before is read and dropped."""
    deadline = time.monotonic() + within
    poll = select.poll()  # (select() cannot take a thousand)
    poll.register(sock, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        try:
            if poll.poll(left * 1000) and not sock.recv(65536):
                return True
        except ConnectionError:
            return True
    return False


def eventually(holds: Callable[[], bool], within: float = PATIENCE) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


def test_half_open_connections(daemon: Daemon) -> None:
    """Hundreds of connections that never say anything, and logins that stop midway, end at the login timeout (15 s)."""
    descriptors = daemon.file_descriptors()
    with Watch(daemon, growth=64 * MIB):
        first = time.monotonic()
        silent = [dial(daemon) for _ in range(900)]
        cut_short = [dial(daemon) for _ in range(20)]
        stalled = [Initiator(daemon.url.host, daemon.url.port) for _ in range(20)]
        begin = time.monotonic()
        for sock in cut_short:
            sock.sendall(bytes([0x43]) + bytes(30))
        for initiator in stalled:
            first = {"InitiatorName": "iqn.2025-01.test:stalled", "SessionType": "Normal", "TargetName": daemon.url.target}
            initiator.login_step(first | {"AuthMethod": "None"}, (0, 1))
        with connect(daemon.url) as newcomer:
            assert newcomer.read(0, 1).status == 0
        everybody = [*silent, *cut_short, *(initiator.socket for initiator in stalled)]
        if closes(silent[0], 1.0):
            assert time.monotonic() - first >= LOGIN_TIMEOUT, "closed before it had its time to log in"
        left = [sock for sock in everybody if not closes(sock, max(0.05, begin + PATIENCE - time.monotonic()))]
        assert not left, f"{len(left)} of {len(everybody)} stalled connections still open after {PATIENCE} s"
        for sock in everybody:
            sock.close()
    assert eventually(lambda: daemon.file_descriptors() <= descriptors + 4)


def test_login_flood(daemon: Daemon) -> None:
    """Three thousand connections at once that do not log in: the oldest give way, and whoever logs in gets in at once."""
    descriptors = daemon.file_descriptors()
    with Watch(daemon, growth=64 * MIB):
        with ExitStack() as flood:
            first = flood.enter_context(dial(daemon))
            for _ in range(3):
                for _ in range(1000):
                    flood.enter_context(dial(daemon))
                with connect(daemon.url) as newcomer:
                    assert newcomer.read(0, 1).status == 0
            assert closes(first, PATIENCE)
            # a few turns' worth may be on their way out
            assert daemon.file_descriptors() <= descriptors + MAXIMUM_LOGINS + 4 * ACCEPTED_AT_ONCE
            assert eventually(lambda: daemon.file_descriptors() <= descriptors + MAXIMUM_LOGINS + 10)
        assert eventually(lambda: daemon.file_descriptors() <= descriptors + 4)


def test_flood_that_waited(daemon: Daemon) -> None:
    """A thousand connections that came while the daemon stood still do not make it take them all before others close."""
    descriptors = daemon.file_descriptors()
    with Watch(daemon, growth=64 * MIB), ExitStack() as flood:
        for _ in range(MAXIMUM_LOGINS):
            flood.enter_context(dial(daemon))
        assert eventually(lambda: daemon.file_descriptors() >= descriptors + MAXIMUM_LOGINS)
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(1000):
                flood.enter_context(dial(daemon))
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        most = daemon.file_descriptors()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            most = max(most, daemon.file_descriptors())
        assert most <= descriptors + MAXIMUM_LOGINS + 4 * ACCEPTED_AT_ONCE


def test_reader_that_never_reads(daemon: Daemon) -> None:
    """Reads of 1 MiB each, as many as the command window has, and not a byte of them fetched."""
    with Watch(daemon, growth=96 * MIB):
        readers = [connect(daemon.url) for _ in range(8)]
        for reader in readers:
            for _ in range(64):
                reader.send(reader.command_pdu(READ_16.pack(0x88, 0, 0, 2048), read=MIB))
        time.sleep(2)
        close_all(readers)


def test_pinger_that_never_reads(daemon: Daemon) -> None:
    """Immediate NOP-Outs are not held back by the command window: TCP has to do it."""
    with Watch(daemon, growth=96 * MIB), connect(daemon.url) as pinger:
        pinger.socket.setblocking(False)
        bhs = bytearray(48)
        bhs[0], bhs[1] = NOP_OUT | IMMEDIATE, 0x80
        flood = b""
        for tag in itertools.count(1000):
            struct.pack_into(">IIII", bhs, 16, tag, NO_TAG, pinger.cmd_sn, pinger.exp_stat_sn)
            flood += pinger.encode(bhs, bytes(min(8192, pinger.max_send)))
            if len(flood) > 4 * MIB:
                break
        sent, deadline = 0, time.monotonic() + 4
        while time.monotonic() < deadline and sent < 512 * MIB:
            _, writable, _ = select.select([], [pinger.socket], [], 0.5)
            if not writable:
                break
            # always whole PDUs in the end: the buffer is a multiple of them
            sent += pinger.socket.send(flood[sent % len(flood) :])
        print(f"  [{sent >> 20} MiB of pings taken]", end="")
        assert sent < 512 * MIB, "pings are taken without end while no answer is read"


@pytest.mark.parametrize(
    "garbage",
    [
        os.urandom(65536),
        bytes(65536),
        b"\xff" * 65536,
        b"GET / HTTP/1.1\r\nHost: storage\r\n\r\n" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(512),
        b"SSH-2.0-OpenSSH_9.6\r\n" * 10,
    ],
    ids=["random", "zeroes", "ones", "http", "tls", "ssh"],
)
def test_garbage(daemon: Daemon, garbage: bytes) -> None:
    """Anything but a login request first: the connection ends, at once or at the login timeout."""
    with Watch(daemon), dial(daemon) as sock:
        try:
            sock.sendall(garbage)
        except ConnectionError:
            return
        assert closes(sock, PATIENCE)


def test_oversized_data_segment_at_login(daemon: Daemon) -> None:
    with Watch(daemon), dial(daemon) as sock:
        header = bytearray(48)
        header[0], header[1] = 0x43, 0x81
        header[5:8] = b"\xff\xff\xff"
        try:
            sock.sendall(bytes(header))
            for _ in range(15):
                sock.sendall(bytes(MIB))
        except ConnectionError:
            return
        assert closes(sock, PATIENCE)


def test_oversized_data_segment(daemon: Daemon) -> None:
    """More than the target's MaxRecvDataSegmentLength: a Reject or the end of the connection, never the data."""
    with Watch(daemon), connect(daemon.url) as session:
        bhs = session.command_pdu(READ_16.pack(0x8A, 0, 0, 32767), write=32767 * 512)
        header = bytearray(session.encode(bhs))
        header[5:8] = b"\xff\xfe\x00"
        before = connect(daemon.url)
        first = before.read(0, 8).data
        try:
            session.socket.sendall(header)
            for _ in range(15):
                session.socket.sendall(b"Z" * MIB)
        except ConnectionError:
            pass
        else:
            assert closes(session.socket, PATIENCE)
        assert before.read(0, 8).data == first, "oversized data was written"
        before.close()


def test_endless_login_text(daemon: Daemon) -> None:
    """Ten MiB of login keys, continued from request to request."""
    with Watch(daemon), Initiator(daemon.url.host, daemon.url.port) as session:
        piece = b"InitiatorName=iqn.2025-01.test:" + b"a" * 8000
        refused = False
        try:
            for number in range(10 * MIB // len(piece)):
                bhs, _ = session.login_pdu({}, (0, 1), transit=False)
                bhs[1] |= 0x40  # continued
                session.send(bhs, piece if number == 0 else b"a" * len(piece))
                answer = session.receive()
                assert answer.opcode in {LOGIN_RESPONSE, REJECT}
                if answer.opcode == REJECT or answer.bhs[36]:
                    refused = True
                    break
        except (ConnectionError, TimeoutError):
            refused = True
        assert refused, "the target collects login text without end"


def test_endless_negotiation(daemon: Daemon) -> None:
    """Unknown keys, request after request, each complete: refused at some point, at the login timeout at the latest."""
    with Watch(daemon), Initiator(daemon.url.host, daemon.url.port) as session:
        keys = {"InitiatorName": "iqn.2025-01.test:many", "SessionType": "Normal", "TargetName": daemon.url.target}
        session.login_step(keys | {"AuthMethod": "None"}, (0, 1))
        begin = time.monotonic()
        for number in itertools.count():
            try:
                session.login_step({f"X-test.{number}.{each}": "y" * 200 for each in range(30)}, (1, 3), transit=False)
            except (ConnectionError, LoginFailed, TimeoutError):
                break
            assert time.monotonic() < begin + PATIENCE, f"still negotiating after {number} rounds"
            time.sleep(0.01)


def test_endless_text(daemon: Daemon) -> None:
    """The same in full feature phase, by Text Requests with the C bit."""
    with Watch(daemon), connect(daemon.url) as session:
        try:
            itt = session.next_tag()
            transfer_tag = NO_TAG
            for _ in range(10 * MIB // 8192):
                bhs = bytearray(48)
                bhs[0], bhs[1] = TEXT, 0x40
                struct.pack_into(">IIII", bhs, 16, itt, transfer_tag, session.cmd_sn, session.exp_stat_sn)
                session.cmd_sn += 1
                session.send(bhs, b"a" * 8192)
                answer = session.receive()
                if answer.opcode == REJECT:
                    return
                transfer_tag = answer.word(20)
        except (ConnectionError, TimeoutError):
            return
        pytest.fail("the target collects text without end")


def test_wrong_header_digest(daemon: Daemon) -> None:
    with Watch(daemon), connect(daemon.url, digests="CRC32C") as session:
        assert session.header_digest
        assert session.data_digest
        assert session.read(0, 8).status == 0
        pdu = bytearray(session.encode(session.command_pdu(bytes(6))))
        pdu[49] ^= 1
        session.socket.sendall(pdu)
        assert closes(session.socket, PATIENCE), "a PDU whose header digest is wrong cannot be trusted: the connection ends"


def test_wrong_data_digest(daemon: Daemon) -> None:
    """The data is not written; at ErrorRecoveryLevel 0 the PDU is rejected or the connection ends (RFC 7143 7.8)."""
    with Watch(daemon), connect(daemon.url, digests="CRC32C") as session, connect(daemon.url) as other:
        before = other.read(64, 1).data
        pdu = bytearray(session.encode(session.command_pdu(READ_16.pack(0x8A, 0, 64, 1), write=512), b"W" * 512))
        pdu[-1] ^= 0x80
        session.socket.sendall(pdu)
        try:
            answer = session.receive()
            assert answer.opcode == REJECT, f"opcode {answer.opcode:#x}"
            assert answer.bhs[2] == 0x02, "reason: data digest error"
        except ConnectionError:
            pass
        assert other.read(64, 1).data == before


def test_out_of_order_data(daemon: Daemon) -> None:
    """Data-Out with a task tag, transfer tag, offset or DataSN of its own."""
    with Watch(daemon):
        for offset, itt, ttt in ((0, 0x7777, NO_TAG), (0x100000, 1, 1), (0, 1, 0x12345678)):
            with connect(daemon.url) as session:
                session.send(session.command_pdu(READ_16.pack(0x8A, 0, 0, 512), write=512 * 512))
                bhs = bytearray(48)
                bhs[0], bhs[1] = DATA_OUT, 0x80
                struct.pack_into(">II4xI4xII", bhs, 16, itt, ttt, session.exp_stat_sn, 9, offset)
                try:
                    session.send(bhs, b"D" * 4096)
                    session.socket.settimeout(1)
                    for _ in range(4):
                        session.receive()
                except (ConnectionError, TimeoutError):
                    pass


def test_commands_beyond_the_window(daemon: Daemon) -> None:
    """CmdSN far away, repeated and backwards: dropped in silence (RFC 7143 4.2.2.1), and the session lives."""
    with Watch(daemon), connect(daemon.url) as session:
        good = session.cmd_sn
        for wrong in (good + 10_000, good - 1, good - 2**31 + 5, good + 2**31 - 5):
            session.cmd_sn = wrong & 0xFFFFFFFF
            session.send(session.command_pdu(bytes(6)))
        session.cmd_sn = good
        assert session.command(bytes(6)).status == 0
        assert session.read(0, 8).status == 0


def conversation(daemon: Daemon) -> list[bytes]:
    """The initiator's half of a valid session, PDU by PDU."""
    sent: list[bytes] = []

    class Recorder(Initiator):
        def send(self, bhs: bytes | bytearray, data: bytes = b"", ahs: bytes = b"") -> None:
            sent.append(self.encode(bhs, data, ahs))
            super().send(bhs, data, ahs)

    with Recorder(daemon.url.host, daemon.url.port) as session:
        session.login(daemon.url.target, name="iqn.2025-01.test:mutant").ready(1)
        session.ping(b"0123456789")
        session.command(struct.pack(">BBBHB", 0x12, 0, 0, 255, 0), 1, read=255)
        session.write(0, os.urandom(20 * 512), 1)
        session.write(100, os.urandom(600 * 512), 1)  # with R2T
        session.read(0, 64, 1)
        session.text({"SendTargets": "All"})
        session.task_management(5, 1)
        session.ready(1)
        session.logout()
    return sent


def mutate(source: random.Random, pdus: list[bytes]) -> list[bytes]:
    """A conversation with something wrong in it."""
    pdus = list(pdus)
    for _ in range(source.choice((1, 1, 1, 2, 5))):
        index = source.randrange(len(pdus))
        pdu = bytearray(pdus[index])
        match source.randrange(7):
            case 0:  # a bit of the header
                pdu[source.randrange(min(48, len(pdu)))] ^= 1 << source.randrange(8)
            case 1:  # a byte anywhere
                pdu[source.randrange(len(pdu))] = source.randrange(256)
            case 2:  # a lying length
                pdu[4:8] = source.randbytes(4)
            case 3:
                del pdu[source.randrange(1, len(pdu) + 1) :]
            case 4:  # sent twice
                pdus.insert(index, bytes(pdu))
            case 5:
                pdus.pop(index)
                if not pdus:
                    pdus = [b"\0"]
                continue
            case _:  # four random bytes on a field
                at = source.randrange(0, min(45, len(pdu)), 4)
                pdu[at : at + 4] = source.randbytes(4)
        pdus[index] = bytes(pdu)
    return pdus


def test_mutated_conversations(daemon: Daemon) -> None:
    """Hundreds of sessions that go wrong somewhere. The seed is printed by pytest when one does harm."""
    valid = conversation(daemon)
    assert len(valid) > 10
    with Watch(daemon, growth=96 * MIB):
        for seed in range(400):
            pdus = mutate(random.Random(seed), valid)
            with dial(daemon) as sock:
                sock.settimeout(0.02)
                try:
                    for pdu in pdus:
                        sock.sendall(pdu)
                        if seed % 2:  # half of them wait for answers
                            try:
                                if not sock.recv(65536):
                                    break
                            except TimeoutError:
                                pass
                except (ConnectionError, TimeoutError):
                    pass
            assert daemon.alive(), f"seed {seed}"
    # the last ones may still be in their login phase: gone when it times out, or when their sockets closed
    with connect(daemon.url) as session:
        assert session.read(0, 8).status == 0


def test_login_byte_by_byte(daemon: Daemon) -> None:
    """Slow is not wrong."""
    with Watch(daemon), Initiator(daemon.url.host, daemon.url.port) as session:
        keys = {"InitiatorName": "iqn.2025-01.test:slow", "SessionType": "Normal", "TargetName": daemon.url.target}
        for byte in session.encode(*session.login_pdu(keys | {"AuthMethod": "None"}, (0, 1))):
            session.socket.sendall(bytes([byte]))
            time.sleep(0.001)
        assert session.receive().opcode == LOGIN_RESPONSE
