"""Debian's open-isns-server as a process on the loopback interface, with its own configuration and no rights."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from support.programs import free_port, program
from tcm_iscsi.protocol import isns_messages as messages
from tcm_iscsi.protocol.isns_attributes import Attribute, Tag, Value
from tcm_iscsi.protocol.isns_pdu import Flag, Function, Message, MessageReader, encode

ADMIN = "iqn.2003-01.org.example:isns-admin"
CONFIGURATION = """
SourceName = iqn.2003-01.org.example:isns-server
BindAddress = 127.0.0.1:{port}
ControlSocket = {folder}/control
PIDFile = {folder}/pid
SLPRegister = 0
Security = 0
RegistrationPeriod = {period}
DefaultDiscoveryDomain = {default_domain}
ESIMinInterval = {esi}
ESIMaxInterval = {esi}
ESIRetries = 3
SCNTimeout = 2
SCNRetries = 3
"""
ALL = (
    *(Tag.ENTITY_IDENTIFIER, Tag.REGISTRATION_PERIOD, Tag.ISCSI_NAME, Tag.ISCSI_NODE_TYPE, Tag.ISCSI_ALIAS),
    *(Tag.PORTAL_IP_ADDRESS, Tag.PORTAL_PORT, Tag.SCN_PORT, Tag.ESI_PORT, Tag.ESI_INTERVAL),
    *(Tag.PG_ISCSI_NAME, Tag.PG_PORTAL_IP_ADDRESS, Tag.PG_PORTAL_PORT, Tag.PG_TAG),
)


class Isnsd:
    """One isnsd, for the length of a ``with`` block; it keeps its database in memory.

    :param period: Registration Period in seconds that it gives to everybody.
    :param esi: seconds between status inquiries that it gives to everybody who wants them.
    """

    def __init__(self, *, period: int = 600, esi: int = 60, default_domain: bool = True) -> None:
        self.server, self.admin = program("isnsd"), program("isnsadm")
        self.port = free_port()
        # the control socket's path has to be short
        self.folder = Path(tempfile.mkdtemp(prefix="isnsd"))
        self.log = self.folder / "log"
        text = CONFIGURATION.format(
            port=self.port, folder=self.folder, period=period, esi=esi, default_domain=int(default_domain)
        )
        (self.folder / "isnsd.conf").write_text(text)
        (self.folder / "isnsadm.conf").write_text(
            f"SourceName = {ADMIN}\nServerAddress = 127.0.0.1:{self.port}\nSecurity = 0\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        if kind is not None:
            print(self.log.read_text(errors="replace")[-4000:])
        shutil.rmtree(self.folder)

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.server, "--foreground", "--config", str(self.folder / "isnsd.conf"), "--debug", "scn,esi,message"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 10
        while True:
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < end, self.log.read_text(errors="replace")
                time.sleep(0.02)
            else:
                return self

    def stop(self) -> None:
        """As a crash: it keeps nothing."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def isnsadm(self, *arguments: str) -> str:
        """What isnsadm prints."""
        done = subprocess.run(
            [self.admin, "--config", str(self.folder / "isnsadm.conf"), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return done.stdout + done.stderr

    def targets(self) -> set[str]:
        """Names of all targets that it knows, says isnsadm."""
        return {
            re.findall(r'iSCSI name += "([^"]+)"', listed)[0]
            for listed in self.isnsadm("--list", "nodes").split("Object ")
            if re.search("iSCSI node type += .*Target", listed)
        }

    def portals(self) -> set[tuple[str, int]]:
        """All portals that it knows, says isnsadm."""
        listed = self.isnsadm("--list", "portals")
        found = re.findall(r"Portal IP address += (\S+)\n.*Portal TCP/UDP port += (\d+)/tcp", listed)
        return {(address, int(port)) for address, port in found}

    def query(self, source: str, *key: Attribute, wanted: tuple[Tag, ...] = ALL) -> list[dict[int, Value]]:
        """The objects that it answers to our own query."""
        message = Message(Function.DEV_ATTR_QRY, 1, messages.query(source, key, wanted), Flag.CLIENT)
        reader = MessageReader()
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(encode(message))
            while (answer := reader.next_message()) is None:
                data = sock.recv(65536)
                assert data, "isnsd closed the connection"
                reader.receive_data(data)
        response = messages.parse_response(answer.payload)
        assert response.status == 0
        return messages.objects(response.operating)

    def groups(self, entity: str, source: str) -> dict[tuple[str, str, int], Value]:
        """The portal group tags of an entity's targets and portals, as ``source`` sees them."""
        found = self.query(source, Attribute(Tag.ENTITY_IDENTIFIER, entity))
        return {
            (str(each[Tag.PG_ISCSI_NAME]), str(each[Tag.PG_PORTAL_IP_ADDRESS]), int(str(each[Tag.PG_PORTAL_PORT]))): each[
                Tag.PG_TAG
            ]
            for each in found
            if Tag.PG_ISCSI_NAME in each
        }
