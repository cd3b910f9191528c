"""Options that every command has, and what is made of them. Secrets come from files and the environment only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from tcm.failure import ConfigError
from tcm.option_syntax import read_secret_file
from tcm_iscsi.initiator.options import INITIATOR_NAME, Options
from tcm_iscsi.protocol.login_interface import Credentials
from tcm_iscsi.protocol.names import InvalidName, normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tcm_iscsi.initiator.url import Url

PROGRAM = "python -m tcm_iscsi.initiator"
SECRET, MUTUAL_SECRET = "TCM_CHAP_SECRET", "TCM_CHAP_MUTUAL_SECRET"

OPTIONS: tuple[Callable[[Any], Any], ...] = (
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


def session_options(url: Url, given: Mapping[str, Any]) -> Options:
    """What the command line says about the session. Raises ConfigError."""
    keys: dict[str, str | None] = {}
    for item in given["keys"]:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ConfigError(f"--key {item}: write KEY=VALUE, such as --key InitialR2T=Yes")
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
        raise ConfigError(f"--initiator-name: {e}") from None
    try:
        return Options(initiator_name=name, chap=_credentials(url, given), keys=keys, login_timeout=given["login_timeout"])
    except ValueError as e:
        raise ConfigError(f"--key: {e}") from None


def _credentials(url: Url, given: Mapping[str, Any]) -> Credentials | None:
    user = given["chap"] or url.user
    mutual = given["chap_mutual"]
    if not user:
        if given["chap_secret_file"] or mutual:
            raise ConfigError("whose secret? write --chap USER as well")
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
        return read_secret_file(file, f"{flag}-secret-file")
    found = os.environ.get(variable)
    if not found:
        raise ConfigError(f"{flag}: no secret; write {flag}-secret-file FILE or set {variable}")
    return found
