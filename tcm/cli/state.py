"""The state directory: what must be the same after a restart."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import tempfile
from typing import TYPE_CHECKING, Any

from tcm.failure import ConfigError

if TYPE_CHECKING:
    from tcm.plugin_types import FabricType

CONTROL = "control.sock"
"""The control socket's name in the state directory."""

_UNIQUE = re.compile(r"[0-9a-f]{12}")


def default_directory() -> str:
    """``$XDG_STATE_HOME/tcm``, else ``~/.local/state/tcm``. Raises :class:`ConfigError` if there is no home."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        # an empty HOME is none: it would lead to /.local
        home = os.path.expanduser("~") if os.environ.get("HOME", "x") else ""
        if not os.path.isabs(home):
            raise ConfigError("--state-dir: this user has no home directory to keep state in; write --state-dir DIR")
        base = os.path.join(home, ".local", "state")
    return os.path.join(base, "tcm")


def host_name() -> str:
    """The machine's name in the characters that a target's name may have."""
    host = re.sub(r"[^a-z0-9.-]+", "-", socket.gethostname().lower()).strip("-.")
    return host[:64] or "localhost"


class State:
    """A state directory and the identity in it, made when first asked for.

    :param directory: made with mode 0700 if it is not there.

    Raises :class:`ConfigError` if it cannot be made, read or written.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        self._file = self.path("identity.json")
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            self._identity = self._read() or self._create({"unique": secrets.token_hex(6), "targets": {}})
        except FileExistsError as error:
            raise ConfigError(
                f"--state-dir: {error.filename}: not a folder; write --state-dir DIR with a folder of yours"
            ) from None
        except OSError as error:
            where = error.filename or self.directory
            raise ConfigError(f"--state-dir: {where}: {error.strerror}; write --state-dir DIR with a folder of yours") from None

    def path(self, name: str) -> str:
        """A file in the directory."""
        return os.path.join(self.directory, name)

    @property
    def unique(self) -> str:
        """12 hex digits that belong to this directory."""
        return str(self._identity["unique"])

    def target_name(self, fabric: FabricType, number: int = 0) -> str:
        """The name of the fabric's embedded default target: made once, the same ever after, also when the host is renamed.

        :param number: of several such targets, from 0.
        """
        targets: dict[str, str] = self._identity["targets"]
        key = f"{fabric.name}/{number}" if number else fabric.name
        if key not in targets:
            unique = f"{(int(self.unique, 16) + number) & 0xFFFFFFFFFFFF:012x}"
            targets[key] = fabric.check_name(fabric.default_name(host_name(), unique))
            try:
                self._write(self._identity, os.replace)
            except OSError as error:
                raise ConfigError(f"--state-dir: {self._file}: {error.strerror}; write --state-dir DIR") from None
        return targets[key]

    def _read(self) -> dict[str, Any] | None:
        try:
            with open(self._file, encoding="utf-8") as file:
                identity = json.load(file)
        except FileNotFoundError:
            return None
        except ValueError:
            identity = None
        if (
            not isinstance(identity, dict)
            or not _UNIQUE.fullmatch(str(identity.get("unique")))
            or not isinstance(identity.get("targets"), dict)
        ):
            raise ConfigError(
                f"--state-dir: {self._file} is damaged; restore it, or delete it: the default target gets another name then, "
                "and what is kept for disks without a wwn is not found again"
            )
        return identity

    def _create(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Two processes that start at once agree on the one that was first."""
        try:
            self._write(identity, os.link)
        except FileExistsError:
            return self._read() or identity
        return identity

    def _write(self, identity: dict[str, Any], publish: Any) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self.directory, prefix=".identity")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(identity, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            publish(temporary, self._file)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
