"""The iSCSI fabric: portals, targets and sessions of one process."""

from __future__ import annotations

import dataclasses
import logging
import math
import platform
import shlex
import uuid
from typing import TYPE_CHECKING, Any, Literal

import anyio

from tcm.fabric import Endpoint, Fabric
from tcm.failure import ConfigError
from tcm.plugin_types import option
from tcm.target.node_acl import Authentication
from tcm.target.portal_group import NetworkPortal
from tcm_iscsi.addresses import machine_addresses, parse_portal, parse_server
from tcm_iscsi.isns_client import IsnsService
from tcm_iscsi.login_policy import session_key
from tcm_iscsi.portal_draining import PortalDraining
from tcm_iscsi.protocol import isns_pdu
from tcm_iscsi.protocol.names import InvalidName, normalize
from tcm_iscsi.server import Server
from tcm_iscsi.sessions import PortalBinding, Registry
from tcm_iscsi.statistics import IscsiStatistics

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from anyio.abc import TaskStatus

    from tcm.target.device import TargetDevice
    from tcm.target.nexus import ITNexus
    from tcm.target.portal_group import TargetPortalGroup
    from tcm_iscsi.protocol.session import Session

log = logging.getLogger("tcm.iscsi")

LOGOUT_SECONDS = 5
DEFAULT_PORT = 3260
TUNNEL = "127.0.0.1:13260"
"""Where a tunnel begins, in hints."""
_PASSWORD = 'LIBISCSI_CHAP_{}PASSWORD="$(head -n 1 {})"'  # noqa: S105 - libiscsi's variable


@dataclasses.dataclass(frozen=True)
class IscsiOptions:
    """Options of ``--fabric iscsi:...``."""

    poll: int = option(
        "microseconds to keep polling a connection after its last PDU before sleeping; 0 sleeps at once and saves CPU", 200
    )
    wildcard: Literal["reached", "all"] = option(
        "what discovery shows for a wildcard portal: where the initiator reached us, or all of the machine's addresses",
        "reached",
    )
    isns: str | None = option(
        f"iSNS server that is told of targets and portals: HOST or HOST:PORT, port {isns_pdu.DEFAULT_PORT} unless written", None
    )
    isns_entity: str | None = option("entity identifier at the iSNS server; default: the name of the first target", None)
    isns_period: int = option("seconds after which the iSNS server may forget us if it hears nothing, 30 to 86400", 300)
    isns_esi: int = option(
        "seconds between the iSNS server's questions whether a portal is reached (ESI), 10 to 86400; it drops portals that do"
        " not answer. 0: none, the registration period is enough",
        0,
    )
    tls_cert: str | None = option(
        "PEM file with the certificate of portals that take TLS only, for initiators behind a TLS tunnel; then those that lead"
        " to its issuer",
        None,
        kind="path",
    )
    tls_key: str | None = option("PEM file with its private key, without a password", None, kind="path")
    tls_ca: str | None = option(
        "PEM file with the certificates of those who sign for tunnels; default: a tunnel needs no certificate",
        None,
        kind="path",
    )
    tls_portal: tuple[str, ...] = option("ADDR:PORT of a portal that takes TLS; more than once for several; default: all", ())
    discovery_auth: Authentication | None = option("CHAP of discovery sessions, from the configuration file", None, secret=True)


def check_config(options: IscsiOptions) -> None:
    """Raises ConfigError for options that cannot work."""
    if options.isns is not None:
        parse_server(options.isns, "isns", isns_pdu.DEFAULT_PORT)
    for name, value, least in (("isns-period", options.isns_period, 30), ("isns-esi", options.isns_esi or 10, 10)):
        if not least <= value <= 86400:
            raise ConfigError(f"{name}: {value} is out of range; write {least} to 86400 seconds")
    entity = options.isns_entity
    if entity is not None and (not 1 <= len(entity.encode()) <= 255 or not entity.isprintable() or entity.startswith("isns:")):
        raise ConfigError(f"isns-entity: {entity!r}: write 1 to 255 printable bytes that do not begin with isns:")
    for name in ("isns_entity", "isns_esi"):
        if getattr(options, name) and options.isns is None:
            raise ConfigError(f"{name.replace('_', '-')}: of which iSNS server? write isns=HOST as well")
    for name in ("tls_cert", "tls_key"):
        wanted = any((options.tls_cert, options.tls_key, options.tls_ca, options.tls_portal))
        if wanted and not getattr(options, name):
            raise ConfigError(f"{name.replace('_', '-')}: missing; TLS wants both tls-cert=FILE and tls-key=FILE")
    _tls_context(options, warn=False)
    for text in options.tls_portal:
        parse_portal(text, "tls-portal")


def _tls_context(options: IscsiOptions, *, warn: bool = True) -> ssl.SSLContext | None:
    if options.tls_cert is None or options.tls_key is None:
        return None
    from tcm_iscsi.tls import make_context

    return make_context(options.tls_cert, options.tls_key, options.tls_ca, warn=warn)


class IscsiFabric(Fabric):
    """All targets of the configuration, served over TCP."""

    def __init__(self, targets: Sequence[TargetDevice], options: IscsiOptions) -> None:
        self._targets = targets
        on_error = next((target.unhandled_error for target in targets), None)
        self.registry = Registry(targets, options.discovery_auth, on_error)
        if options.wildcard == "all":
            self.registry.machine_addresses = machine_addresses
        self.server = Server(self.registry, poll=options.poll / 1e6)
        self._statistics = IscsiStatistics(self.registry, self.server)
        self._options = options
        self._discovery_auth = options.discovery_auth or Authentication()
        self._enforce_discovery_auth = options.discovery_auth is not None
        context = _tls_context(options)
        if context is not None:
            from tcm_iscsi.tls import TlsFront

            self.server.tls = TlsFront(context, self.server.take)
        self._isns: IsnsService | None = None
        if options.isns is not None:
            host, port = parse_server(options.isns, "isns", isns_pdu.DEFAULT_PORT)
            self._isns = IsnsService(
                host,
                port,
                lambda: self.registry.bindings,
                entity=options.isns_entity
                or (targets[0].name if targets else default_name(platform.node(), f"{uuid.getnode():012x}")),
                period=options.isns_period,
                esi_interval=options.isns_esi,
            )

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Bind every portal, then serve."""
        shared: dict[tuple[str, int], PortalBinding] = {}
        for target in self._targets:
            for group in target.portal_groups.values():
                for portal in group.portals:
                    key = (portal.address, portal.port or -len(shared) - 1)
                    binding = shared.get(key)
                    if binding is None:
                        shared[key] = binding = PortalBinding(portal.address, portal.port)
                    binding.groups.append(group)
        self.registry.bindings = list(shared.values())
        if self.server.tls is not None:
            self._choose_tls_portals()
        try:
            for binding in sorted(self.registry.bindings, key=lambda b: ":" in b.address):
                wanted = NetworkPortal(binding.address, binding.port)
                self.server.bind(binding)
                for group in binding.groups:
                    group.portals[group.portals.index(wanted)] = NetworkPortal(binding.address, binding.port)
            if self._isns is None:
                await self.server.run(task_status.started)
            else:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._isns.run)
                    await self.server.run(task_status.started)
        finally:
            self.server.close_listeners()

    def _choose_tls_portals(self) -> None:
        """Raises ConfigError for one that is not there."""
        chosen = {parse_portal(text, "tls-portal"): text for text in self._options.tls_portal}
        for binding in self.registry.bindings:
            binding.tls = not chosen or (binding.address, binding.port) in chosen
        there = {(binding.address, binding.port) for binding in self.registry.bindings}
        for portal, text in chosen.items():
            if portal not in there:
                raise ConfigError(f"--fabric iscsi: tls-portal: {text} is none of the portals; write one as it stands there")
        if self._isns is not None and any(binding.tls for binding in self.registry.bindings):
            log.warning("portals that take TLS are not registered at the iSNS server: initiators would come without a tunnel")

    def registrations_changed(self) -> None:
        """To be called after targets, portals or portal groups have changed, or been enabled or disabled.

        The iSNS server, if there is one, is told of the difference.
        """
        if self._isns is not None:
            self._isns.changed()

    # changes while it runs

    @property
    def discovery_auth(self) -> Authentication:
        """CHAP of discovery sessions, in force if :attr:`enforce_discovery_auth` says so."""
        return self._discovery_auth

    @discovery_auth.setter
    def discovery_auth(self, authentication: Authentication) -> None:
        self._discovery_auth = authentication
        self.registry.discovery_auth = authentication if self._enforce_discovery_auth else None

    @property
    def enforce_discovery_auth(self) -> bool:
        """Discovery sessions must do CHAP; nobody can while there is no user."""
        return self._enforce_discovery_auth

    @enforce_discovery_auth.setter
    def enforce_discovery_auth(self, enforce: bool) -> None:
        self._enforce_discovery_auth = enforce
        self.registry.discovery_auth = self._discovery_auth if enforce else None

    def target_removed(self, target: TargetDevice) -> None:  # noqa: ARG002  the registry has the same list
        """See :class:`tcm.fabric.Fabric`."""
        self.registrations_changed()

    def portal_group_enabled(self, group: TargetPortalGroup) -> None:  # noqa: ARG002  all are looked at
        """See :class:`tcm.fabric.Fabric`."""
        self.registrations_changed()

    def reload(self) -> Callable[[], None] | None:
        """See :class:`tcm.fabric.Fabric`: certificates and keys, for handshakes from now on."""
        front, context = self.server.tls, _tls_context(self._options)
        if front is None or context is None:
            return None

        def put_in_force() -> None:
            front.context = context
            log.info("TLS: certificate, key and authorities are those that the files have now")

        return put_in_force

    def parameters_changed(self, group: TargetPortalGroup) -> None:
        """See :class:`tcm.fabric.Fabric`: those logged in are asked to negotiate what can be negotiated there."""
        self.registry.parameters_changed(group)

    def drop(self, nexus: ITNexus) -> None:
        """See :class:`tcm.fabric.Fabric`: the session and its connections end."""
        session = self._session_of(nexus)
        if session is None:
            nexus.lose()
        else:
            self.registry.drop(session)

    def request_logout(self, nexus: ITNexus, seconds: float) -> None:
        """See :class:`tcm.fabric.Fabric`: Async Message, event 1 (RFC 7143 11.9.1)."""
        session = self._session_of(nexus)
        for connection in tuple(session.connections.values()) if session is not None else ():
            connection.request_logout(max(1, math.ceil(seconds)))

    def drain_portal(self, group: TargetPortalGroup, portal: NetworkPortal) -> PortalDraining | None:
        """See :class:`tcm.fabric.Fabric`."""
        binding = self._binding(portal)
        return None if binding is None else PortalDraining(self.server, binding, group)

    def _session_of(self, nexus: ITNexus) -> Session | None:
        port = nexus.initiator_port
        return self.registry.sessions.get(session_key(nexus.target_portal_group, port.name, port.isid or b""))

    async def add_portal(self, group: TargetPortalGroup, portal: NetworkPortal) -> NetworkPortal:
        """See :class:`tcm.fabric.Fabric`. A new portal takes TLS if ``tls-portal`` names it, or names none."""
        binding = self._binding(portal)
        if binding is None:
            binding = PortalBinding(portal.address, portal.port)
            chosen = [parse_portal(text, "tls-portal") for text in self._options.tls_portal]
            binding.tls = self.server.tls is not None and (not chosen or (portal.address, portal.port) in chosen)
            self.server.listen(binding)
            self.registry.bindings.append(binding)
        binding.groups.append(group)
        self.registrations_changed()
        return NetworkPortal(binding.address, binding.port)

    async def remove_portal(self, group: TargetPortalGroup, portal: NetworkPortal) -> None:
        """See :class:`tcm.fabric.Fabric`."""
        binding = self._binding(portal)
        if binding is None or group not in binding.groups:
            return
        binding.groups.remove(group)
        if not binding.groups:
            self.server.unbind(binding)
            self.registry.bindings.remove(binding)
        self.registrations_changed()

    def _binding(self, portal: NetworkPortal) -> PortalBinding | None:
        where = portal.address, portal.port
        return next((each for each in self.registry.bindings if (each.address, each.port) == where and each.port), None)

    def endpoints(self) -> Sequence[Endpoint]:
        """A URL per LUN and portal."""
        found = []
        for binding in self.registry.bindings:
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(binding.address, binding.address)
            portal = f"[{host}]:{binding.port}" if ":" in host else f"{host}:{binding.port}"
            for group in binding.groups:
                name = group.target.name
                for number in sorted(group.luns):
                    url = f"iscsi://{portal}/{name}/{number}"
                    hints = (*_chap_hints(group), *_attach_hints(portal, name, number))
                    if binding.tls:
                        hints = (*_tunnel_hints(portal), *_chap_hints(group), *_attach_hints(TUNNEL, name, number))
                    found.append(Endpoint(url, hints))
        return found

    async def drain(self) -> None:
        """Deregister at the iSNS server, and ask every initiator to log out."""
        async with anyio.create_task_group() as tasks:
            if self._isns is not None:
                tasks.start_soon(self._isns.leave)
            await self.server.drain(LOGOUT_SECONDS)

    def sessions(self) -> Sequence[str]:
        """One line per connection."""
        return [str(c) for c in self.server.describe()]

    def targets(self) -> Sequence[TargetDevice]:
        """As configured."""
        return self._targets

    def statistics(self) -> IscsiStatistics:
        """Portals, sessions and logins."""
        return self._statistics


def _attach_hints(portal: str, name: str, lun: int) -> tuple[str, ...]:
    url = f"iscsi://{portal}/{name}/{lun}"
    # what discovery tells is the portal at our end of a tunnel
    found = "-o new -m node" if portal == TUNNEL else "-m discovery -t sendtargets"
    target = f"-T {name} " if portal == TUNNEL else ""
    return (
        f"libiscsi:    iscsi-inq {url}",
        f"qemu:        qemu-img info {url}",
        f"open-iscsi:  iscsiadm {found} {target}-p {portal} && iscsiadm -m node -T {name} -p {portal} --login",
    )


def _tunnel_hints(portal: str) -> tuple[str, ...]:
    """A portal that takes TLS is reached through a tunnel, which begins where the initiator is."""
    host, _, port = TUNNEL.rpartition(":")
    command = f"socat TCP-LISTEN:{port},bind={host},reuseaddr,fork OPENSSL:{portal},cafile=CERTIFICATE-FILE"
    return (f"TLS first:   {command}    (or stunnel)",)


def _chap_hints(group: TargetPortalGroup) -> tuple[str, ...]:
    """How initiators get the secrets without one standing on a command line; nothing if they need none."""
    if not group.attributes.authentication:
        return ()
    known = group.authentication
    variables = [f"LIBISCSI_CHAP_USERNAME={shlex.quote(known.userid or 'USER')}", _PASSWORD.format("", "SECRET-FILE")]
    if known.userid_mutual:
        variables.append(f"LIBISCSI_CHAP_TARGET_USERNAME={shlex.quote(known.userid_mutual)}")
        variables.append(_PASSWORD.format("TARGET_", "MUTUAL-SECRET-FILE"))
    return (
        f"CHAP first:  export {' '.join(variables)}    (libiscsi, qemu)",
        "             node.session.auth.authmethod, .username and .password in /etc/iscsi/iscsid.conf    (open-iscsi)",
    )


def make(targets: Sequence[TargetDevice], options: Any) -> IscsiFabric:
    """Factory of the descriptor."""
    return IscsiFabric(targets, options)


def check_name(name: str) -> str:
    """Normalise a target or initiator name of the configuration."""
    try:
        return normalize(name, strict=True)
    except InvalidName as e:
        raise ConfigError(str(e)) from e


def default_name(host: str, unique: str) -> str:
    """``iqn.2003-01.org.linux-iscsi.<host>.<arch>:sn.<12 hex>``, as LIO's tools make it."""
    label = "".join(c if c.isalnum() or c == "-" else "-" for c in host.lower().partition(".")[0]) or "localhost"
    return check_name(f"iqn.2003-01.org.linux-iscsi.{label}.{platform.machine().replace('_', '').lower()}:sn.{unique}")
