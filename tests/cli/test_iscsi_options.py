"""Options of the iSCSI fabric that cannot work: exit code 2 and one line."""

from __future__ import annotations

import pytest

SERVE = ("--lun", "null:size=1G", "--portal", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("isns=", "isns: '' is not a host; write HOST or HOST:PORT, for example isns.example.org:3205 or [fd00::1]:3205"),
        ("isns=:3205", "isns: '' is not a host"),
        ("isns=a b", "isns: 'a b' is not a host"),
        ("isns=-x.org", "isns: '-x.org' is not a host"),
        ("isns=192.0.2.300", "isns: '192.0.2.300' is not a host"),
        ("isns=127.1:3205", "isns: '127.1' is not a host"),
        ("isns=host:", "isns: '' is not a port; write 1 to 65535"),
        ("isns=host:0", "isns: '0' is not a port"),
        ("isns=host:65536", "isns: '65536' is not a port"),
        ("isns=host:x", "isns: 'x' is not a port"),
        ("isns=fd00::1", "isns: 'fd00::1': an IPv6 address stands in brackets"),
        ("isns=[fd00::1", "isns: '[fd00::1' is not a server"),
        ("isns=[fd00::1]x", "isns: '[fd00::1]x' is not a server"),
        ("isns=[host]:3205", "isns: '[host]:3205' is not a server"),
        ("isns=a,isns=b", "isns: given 2 times; write it once"),
        ("isns=a,isns-period=29", "isns-period: 29 is out of range; write 30 to 86400 seconds"),
        ("isns=a,isns-period=86401", "isns-period: 86401 is out of range"),
        ("isns=a,isns-period=soon", "isns_period: 'soon' is not an integer; write a whole number"),
        ("isns=a,isns-esi=9", "isns-esi: 9 is out of range; write 10 to 86400 seconds"),
        ("isns=a,isns-entity=", "isns-entity: '': write 1 to 255 printable bytes"),
        ("isns=a,isns-entity=isns:1", "isns-entity: 'isns:1': write 1 to 255 printable bytes that do not begin with isns:"),
        ("isns-entity=x", "isns-entity: of which iSNS server? write isns=HOST as well"),
        ("isns-esi=60", "isns-esi: of which iSNS server? write isns=HOST as well"),
        ("isn=a", "isn: unknown key (did you mean 'isns'?)"),
    ],
)
def test_isns(tcm_run, options, what):
    error = tcm_run("--fabric", f"iscsi:{options}", *SERVE).error
    assert error.startswith("--fabric iscsi: ")
    assert what in error
