"""Options of the iSCSI fabric that cannot work: exit code 2 and one line."""

from __future__ import annotations

import pytest
from support.tls import make_certificate

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


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--fabric", "loopback", "--tls-cert", "x"), "--tls-cert: fabric loopback has no TLS; leave it out"),
        (("--fabric", "loopback", "--tls-key", "x"), "--tls-key: fabric loopback has no TLS; leave it out"),
        (("--config", "x.json", "--tls-cert", "x"), "--tls-cert: of which fabric? write --fabric NAME as well"),
        (
            ("--fabric", "iscsi", "--tls-cert", "x"),
            "--fabric iscsi: tls-key: missing; TLS wants both tls-cert=FILE and tls-key",
        ),
        (("--fabric", "iscsi", "--tls-key", "x"), "--fabric iscsi: tls-cert: missing; TLS wants both"),
        (
            (
                "--fabric",
                "iscsi:tls-portal=127.0.0.1:0",
            ),
            "--fabric iscsi: tls-cert: missing; TLS wants both",
        ),
        (
            (
                "--fabric",
                "iscsi:tls-ca=x",
            ),
            "--fabric iscsi: tls-cert: missing; TLS wants both",
        ),
        (("--fabric", "iscsi:tls-cert=y", "--tls-cert", "x"), "--tls-cert: stands in --fabric too; write it once"),
        (("--fabric", "iscsi", "--tls-cert", ""), "--fabric iscsi: tls_cert: '' is not a path; write a path"),
        (("--fabric", "iscsi", "--tls-cert", "no", "--tls-key", "no"), "/no: No such file or directory; write the path of a"),
    ],
)
def test_tls(tcm_run, arguments, what):
    assert what in tcm_run(*arguments, "--lun", "null:size=1G").error


@pytest.mark.parametrize(
    ("portal", "what"),
    [
        ("127.0.0.1", "tls-portal: '127.0.0.1' is not a portal; write ADDR:PORT as in --portal, for example 0.0.0.0:3261"),
        ("host:3261", "tls-portal: 'host:3261' is not a portal"),
        ("[::1]", "tls-portal: '[::1]' is not a portal"),
        ("::1:3261", "tls-portal: '::1:3261' is not a portal"),
        ("127.0.0.1:x", "tls-portal: '127.0.0.1:x' is not a portal"),
        ("127.0.0.1:3261", "tls-portal: 127.0.0.1:3261 is none of the portals; write one as it stands there"),
    ],
)
def test_tls_portals(tcm_run, tmp_path, portal, what):
    made = make_certificate(tmp_path)
    fabric = f"iscsi:tls-cert={made.path},tls-key={made.key},tls-portal={portal}"
    error = tcm_run("--fabric", fabric, *SERVE).error
    assert error.startswith("--fabric iscsi: ")
    assert what in error


def test_a_key_of_another_certificate(tcm_run, tmp_path):
    one, other = make_certificate(tmp_path, "one"), make_certificate(tmp_path, "other")
    error = tcm_run("--fabric", "iscsi", "--tls-cert", one.path, "--tls-key", other.key, *SERVE).error
    assert error.startswith(f"--fabric iscsi: tls-key: {other.key} is not the key of the certificate in {one.path}; write")
