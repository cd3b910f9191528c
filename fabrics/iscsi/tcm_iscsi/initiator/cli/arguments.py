"""Options that every command has, and what is made of them. Secrets come from files and the environment only."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tcm_iscsi.initiator.options import INITIATOR_NAME, Options
from tcm_iscsi.protocol.login_interface import Credentials
from tcm_iscsi.protocol.names import InvalidName, normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tcm_iscsi.initiator.url import Url

PROGRAM = "python -m tcm_iscsi.initiator"
SECRET, MUTUAL_SECRET = "TCM_CHAP_SECRET", "TCM_CHAP_MUTUAL_SECRET"
_SIZE = re.compile(r"(\d+)([KMG]?)")
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30}


class Usage(click.ClickException):
    """Bad usage: one line, exit code 2."""

    exit_code = 2


_LOGIN: tuple[Callable[[Any], Any], ...] = (
    click.option("--initiator-name", default=INITIATOR_NAME, show_default=True, metavar="NAME", help="Who we are."),
    click.option("--chap", metavar="USER", help="CHAP name; or write user@ in the URL. Never write the secret itself."),
    click.option("--chap-secret-file", metavar="FILE", help=f"File whose first line is the secret; else {SECRET}."),
    click.option("--chap-mutual", metavar="USER", help="The target has to prove itself as this user."),
    click.option("--chap-mutual-secret-file", metavar="FILE", help=f"The same for it; else {MUTUAL_SECRET}."),
    click.option(
        "--header-digest", type=click.Choice(["None", "CRC32C"], case_sensitive=False), help="Offered; None by default."
    ),
    click.option(
        "--data-digest", type=click.Choice(["None", "CRC32C"], case_sensitive=False), help="Offered; None by default."
    ),
    click.option("--error-recovery-level", type=click.IntRange(0, 2), help="Offered; 0 by default."),
    click.option("--key", "keys", multiple=True, metavar="KEY=VALUE", help="Offer this at login; repeatable."),
    click.option("--login-timeout", type=click.FloatRange(0.1), default=15.0, show_default=True, help="Seconds."),
)


def login_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of :func:`session_options`, on a command."""
    for option in reversed(_LOGIN):
        function = option(function)
    return function


def session_options(url: Url, given: Mapping[str, Any]) -> Options:
    """What the command line says about the session. Raises Usage."""
    keys: dict[str, str | None] = {}
    for item in given["keys"]:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise Usage(f"--key {item}: write KEY=VALUE, such as --key InitialR2T=Yes")
        keys[name] = value
    for flag, key in (
        ("header_digest", "HeaderDigest"),
        ("data_digest", "DataDigest"),
        ("error_recovery_level", "ErrorRecoveryLevel"),
    ):
        if given[flag] is not None:
            keys[key] = str(given[flag])
    try:
        name = normalize(given["initiator_name"])
    except InvalidName as e:
        raise Usage(f"--initiator-name: {e}") from None
    try:
        return Options(initiator_name=name, chap=_credentials(url, given), keys=keys, login_timeout=given["login_timeout"])
    except ValueError as e:
        raise Usage(f"--key: {e}") from None


def _credentials(url: Url, given: Mapping[str, Any]) -> Credentials | None:
    user = given["chap"] or url.user
    mutual = given["chap_mutual"]
    if not user:
        if given["chap_secret_file"] or mutual:
            raise Usage("whose secret? write --chap USER as well")
        return None
    return Credentials(
        name=user,
        secret=_secret("--chap", given["chap_secret_file"], SECRET),
        mutual_name=mutual or "",
        mutual_secret=_secret("--chap-mutual", given["chap_mutual_secret_file"], MUTUAL_SECRET) if mutual else b"",
        algorithms=(7, 8, 6, 5),
    )


def _secret(flag: str, file: str | None, variable: str) -> str:
    if file is not None:
        try:
            with open(file, encoding="utf-8") as stream:
                line = stream.readline().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as e:
            raise Usage(f"{flag}-secret-file {file}: {getattr(e, 'strerror', None) or 'not UTF-8'}") from None
        if not line:
            raise Usage(f"{flag}-secret-file {file}: the first line is empty; it has to be the secret")
        return line
    found = os.environ.get(variable)
    if not found:
        raise Usage(f"{flag}: no secret; write {flag}-secret-file FILE or set {variable}")
    return found


def parse_size(text: str) -> int:
    """Bytes, with a binary unit. Raises Usage."""
    found = _SIZE.fullmatch(text.upper())
    size = int(found[1]) << _UNITS[found[2]] if found else 0
    if not 0 < size <= 1 << 28:
        raise Usage(f"--block-size {text}: write a number of bytes up to 256M, such as 512, 4K or 1M")
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadOptions:
    """What ``bench`` does."""

    workload: str
    sequential: bool
    block_size: int
    depth: int
    connections: int
    seconds: float
    seed: int

    @classmethod
    def take(cls, given: dict[str, Any]) -> WorkloadOptions:
        """From the command line, whose other options stay in ``given``. Raises Usage."""
        if given["workload"] != "read" and not given["overwrite"]:
            raise Usage(f"--workload {given['workload']} destroys what is on the logical unit: write --overwrite if it may")
        given.pop("overwrite")
        values = {name: given.pop(name) for name in cls.__dataclass_fields__}
        return cls(**{**values, "block_size": parse_size(values["block_size"])})
