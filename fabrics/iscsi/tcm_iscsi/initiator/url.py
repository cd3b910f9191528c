"""``iscsi://host:port/target-name/lun``: how a target, or one of its logical units, is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from tcm_iscsi.protocol.names import InvalidName, normalize

PORT = 3260
_SHAPE = re.compile(
    r"iscsi://(?:(?P<user>[^@/%]+)@)?(?P<host>\[[0-9a-fA-F:.%a-z]+\]|[^\s:/@\[\]]+)(?::(?P<port>\d+))?"
    r"(?:/(?P<target>[^/\s]*))?(?:/(?P<lun>\d*))?/?",
)
SYNTAX = "iscsi://[user@]host[:port][/target-name[/lun]]"


class InvalidUrl(ValueError):
    """Not such an address. The message says how one looks, and never shows what may be a secret."""


@dataclass(frozen=True, slots=True)
class Url:
    """An address. An empty ``target`` means all targets of the portal: discovery."""

    host: str
    port: int = PORT
    target: str = ""
    lun: int | None = None
    user: str = ""
    """CHAP name."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        text = f"iscsi://{host}:{self.port}"
        if self.target:
            text += f"/{self.target}"
            if self.lun is not None:
                text += f"/{self.lun}"
        return text


def parse_url(text: str) -> Url:
    """Read one. Raises InvalidUrl."""
    if re.match(r"iscsi://[^/]*%[^/]*@", text):
        raise InvalidUrl("a secret does not belong into a URL, where others can read it: put it into a file")
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise InvalidUrl(
            f"{text!r} is no iSCSI URL: write {SYNTAX}, such as iscsi://127.0.0.1:3260/iqn.2003-01.org.example:t/0"
        )
    port = int(found["port"] or PORT)
    if not 0 < port < 65536:
        raise InvalidUrl(f"{text!r}: a port is a number from 1 to 65535")
    target = unquote(found["target"] or "")
    if target:
        try:
            target = normalize(target)
        except InvalidName as e:
            raise InvalidUrl(str(e)) from None
    lun = int(found["lun"]) if found["lun"] else None
    if lun is not None and lun >= 0x4000:
        raise InvalidUrl(f"{text!r}: a LUN is a number from 0 to 16383")
    return Url(found["host"].strip("[]"), port, target, lun, unquote(found["user"] or ""))


def parse_portal(text: str) -> tuple[str, int]:
    """``host[:port][,tag]``, IPv6 in brackets, as in TargetAddress (RFC 7143 13.8). Raises InvalidUrl."""
    address = text.partition(",")[0]
    try:
        url = parse_url(f"iscsi://{address}")
    except InvalidUrl:
        raise InvalidUrl(f"{text!r} is no portal: write host:port, with an IPv6 address in brackets") from None
    return url.host, url.port
