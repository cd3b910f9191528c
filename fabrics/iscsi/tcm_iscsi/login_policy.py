"""What one connection's login may ask: which targets there are, who gets in, and which session it becomes part of."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from tcm_iscsi.access import Arrival, explicit_acl, offers_to, parameters_of, redirect, refusal
from tcm_iscsi.protocol.login_interface import (
    Credentials,
    Disposition,
    LoginError,
    LoginIdentity,
    LoginTarget,
    SessionResolution,
    SessionType,
)
from tcm_iscsi.protocol.pdu import LoginStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tcm.target.node_acl import Authentication
    from tcm_iscsi.protocol.discovery import TargetRecord
    from tcm_iscsi.sessions import PortalBinding, Registry

DISCOVERY_WINDOW = 16
CONNECTION_LIMIT = 64
"""Connections of one session, whatever MaxConnections allows."""
ISID_SEPARATOR = ",i,0x"
"""Stands between name and ISID in a TransportID (SPC-5 7.6.4.6)."""


class Policy:
    """What one connection's login may ask (:class:`tcm_iscsi.protocol.login_interface.LoginPolicy`)."""

    def __init__(self, registry: Registry, binding: PortalBinding, local: tuple[Any, ...], peer: tuple[Any, ...] = ()) -> None:
        self.registry = registry
        self.binding = binding
        self.local = local
        self.arrival = Arrival.of(local, peer)

    def find_target(self, target_name: str, identity: LoginIdentity) -> LoginTarget:
        """The group of that target behind this portal."""
        for group in self.binding.groups:
            if group.target.name == target_name:
                if not group.enabled:
                    raise LoginError(LoginStatus.SERVICE_UNAVAILABLE, f"{target_name} portal group {group.tag} is disabled")
                if group in self.binding.draining or group.drains(identity.initiator_name):
                    raise LoginError(
                        LoginStatus.SERVICE_UNAVAILABLE, f"{target_name} portal group {group.tag} is being removed"
                    )
                acl = explicit_acl(group, identity.initiator_name)
                depth = acl.cmdsn_depth if acl is not None else group.attributes.default_cmdsn_depth
                return LoginTarget(
                    handle=group,
                    name=target_name,
                    alias=parameters_of(group, identity.initiator_name).TargetAlias,
                    portal_group_tag=group.tag,
                    command_window=depth,
                    login_keys_workaround=bool(group.attributes.login_keys_workaround),
                )
        raise LoginError(LoginStatus.NOT_FOUND, f"no target {target_name} at this portal")

    def discovery_target(self, identity: LoginIdentity) -> LoginTarget:  # noqa: ARG002  # whoever asks
        """Discovery speaks for every group behind the portal."""
        tag = self.binding.groups[0].tag if self.binding.groups else 1
        return LoginTarget(handle=None, portal_group_tag=tag, command_window=DISCOVERY_WINDOW)

    def admit(self, target: LoginTarget, identity: LoginIdentity) -> None:
        """Node ACLs, demo mode and allow lists; then, for a leading login, redirection."""
        name, group = identity.initiator_name, target.handle
        if ISID_SEPARATOR in name:
            raise LoginError(LoginStatus.INITIATOR_ERROR, f"an initiator name cannot contain {ISID_SEPARATOR}")
        if group is None:
            return
        if not group.admits(name):
            raise LoginError(LoginStatus.AUTHORIZATION_FAILURE, "no node ACL for this initiator, and no demo mode")
        why = refusal(group, name, self.arrival.peer)
        if why is not None:
            raise LoginError(LoginStatus.AUTHORIZATION_FAILURE, why)
        if not identity.tsih:
            redirect(group, name, self.arrival)

    def credentials(self, target: LoginTarget, identity: LoginIdentity) -> Credentials | None:
        """CHAP of the node ACL, else of the portal group; of discovery for discovery sessions."""
        if target.handle is None:
            discovery = self.registry.discovery_auth
            if discovery is not None and not (discovery.userid and discovery.password):
                missing = "password" if discovery.userid else "userid"
                raise LoginError(LoginStatus.AUTHENTICATION_FAILURE, f"discovery asks for CHAP, but no {missing} is configured")
            return as_credentials(discovery) if discovery is not None else None
        group = target.handle
        acl = explicit_acl(group, identity.initiator_name)
        methods = parameters_of(group, identity.initiator_name).methods
        required, auth = bool(group.attributes.authentication) or "None" not in methods, group.authentication
        if acl is not None:
            if acl.attributes is not None and acl.attributes.authentication >= 0:
                required = bool(acl.attributes.authentication)
            if acl.authentication.userid:
                auth = acl.authentication
        complete = bool(auth.userid and auth.password)
        if required and not (complete and "CHAP" in methods):
            missing = "CHAP is in the portal group's AuthMethod"
            if "CHAP" in methods:
                missing = f"{'password' if auth.userid else 'userid'} is configured"
            raise LoginError(LoginStatus.AUTHENTICATION_FAILURE, f"authentication is required but no {missing}")
        return as_credentials(auth, required=required) if complete and "CHAP" in methods else None

    def offers(self, target: LoginTarget, identity: LoginIdentity) -> Mapping[str, str]:
        """``param/`` of the portal group, or of the node ACL where it has its own; and ``default_erl``."""
        if target.handle is None:
            return {}
        return offers_to(target.handle, identity.initiator_name)

    def resolve_session(self, target: LoginTarget, identity: LoginIdentity) -> SessionResolution:
        """The table of RFC 7143 6.3.1: a new session or connection, or one in place of another."""
        registry = self.registry
        if identity.session_type is SessionType.DISCOVERY:
            if identity.tsih:
                raise LoginError(LoginStatus.SESSION_DOES_NOT_EXIST, "discovery sessions have one connection")
            return SessionResolution(disposition=Disposition.NEW_SESSION)
        found = registry.sessions.get(session_key(target.handle, identity.initiator_name, identity.isid))
        if identity.tsih == 0:
            disposition = Disposition.NEW_SESSION if found is None else Disposition.SESSION_REINSTATEMENT
            return SessionResolution(disposition=disposition, session=found)
        if found is None or found.identity.tsih != identity.tsih:
            if identity.tsih in registry.tsihs:
                raise LoginError(
                    LoginStatus.CANNOT_INCLUDE_IN_SESSION,
                    f"the session with TSIH {identity.tsih} is another initiator port's, or of another target or portal group",
                )
            raise LoginError(LoginStatus.SESSION_DOES_NOT_EXIST, f"no session with TSIH {identity.tsih}")
        known = identity.cid in found.connections or any(lost.cid == identity.cid for lost in found.lost)
        if identity.cid not in found.connections:
            limit = found.parameters.max_connections
            if len(found.connections) >= limit:
                raise LoginError(LoginStatus.TOO_MANY_CONNECTIONS, f"MaxConnections is {limit}")
            if len(found.connections) >= CONNECTION_LIMIT:
                raise LoginError(LoginStatus.OUT_OF_RESOURCES, f"{CONNECTION_LIMIT} connections are the most a session gets")
        return SessionResolution(
            disposition=Disposition.CONNECTION_REINSTATEMENT if known else Disposition.ADD_CONNECTION,
            session=found,
            parameters=found.parameters,
            exp_cmd_sn=found.exp_cmd_sn,
            max_cmd_sn=found.max_cmd_sn,
        )

    def allocate_tsih(self, target: LoginTarget, identity: LoginIdentity) -> int:  # noqa: ARG002  # for anybody
        """A handle no other session has."""
        return self.registry.new_tsih()

    def random_bytes(self, length: int) -> bytes:
        """From the system."""
        return secrets.token_bytes(length)

    def records(self, initiator_name: str) -> list[TargetRecord]:
        """What SendTargets tells whoever came in here."""
        return self.registry.records(initiator_name, self.arrival.peer, tls=self.binding.tls)


def as_credentials(auth: Authentication, *, required: bool = True) -> Credentials:
    """CHAP names and secrets of a configuration."""
    return Credentials(
        name=auth.userid,
        secret=auth.password,
        mutual_name=auth.userid_mutual,
        mutual_secret=auth.password_mutual,
        required=required,
    )


def session_key(group: Any, initiator_name: str, isid: bytes) -> tuple[int, str, bytes]:
    """What makes a session unique: the I_T nexus."""
    return id(group), initiator_name, isid
