"""Reloading: certificates beside the configuration, by tcm-ctl and, under a service manager, by SIGHUP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl

import pytest
from support.controlled import Ctl
from support.daemon import parse_url
from support.tcm_process import TcmProcess
from support.tls import client_context, make_certificate, tls_initiator

NAME = "iqn.2003-01.org.example:reload"


class Site:
    """A tcm-run with a TLS portal, whose certificate is replaced."""

    def __init__(self, folder, tcm):
        self.folder = folder
        self.tcm = tcm
        self.ctl = Ctl(None, folder)
        self.port = parse_url(tcm.out.splitlines()[0]).port

    def install(self, certificate):
        shutil.copy(certificate.path, self.folder / "in-use.crt")
        shutil.copy(certificate.key, self.folder / "in-use.key")

    def log_in(self, certificate):
        return tls_initiator(self.port, client_context(certificate)).login(NAME).ready()


@pytest.fixture
def certificates(tmp_path):
    return [make_certificate(tmp_path / name) for name in ("old", "new")]


@pytest.fixture(params=["command line", "configuration"])
def site(request, tmp_path, certificates, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        made = Site.__new__(Site)
        made.folder = tmp_path
        made.install(certificates[0])
        fabric = f"iscsi:tls-cert={tmp_path}/in-use.crt,tls-key={tmp_path}/in-use.key"
        arguments = ["--fabric", fabric, "--state-dir", str(tmp_path / "state")]
        if request.param == "command line":
            arguments += ["--portal", "127.0.0.1:0", "--target", NAME, "--lun", "ramdisk:size=1M"]
        else:
            group = {
                "attributes": {"generate_node_acls": 1, "authentication": 0},
                "luns": [{"index": 0, "storage_object": "/backstores/ramdisk/r"}],
                "portals": [{"ip_address": "127.0.0.1", "port": 0}],
            }
            config = {
                "storage_objects": [{"plugin": "ramdisk", "name": "r", "size": 1 << 20}],
                "targets": [{"fabric": "iscsi", "wwn": NAME, "tpgs": [group]}],
            }
            (tmp_path / "config.json").write_text(json.dumps(config))
            arguments += ["--config", str(tmp_path / "config.json")]
        previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            with TcmProcess(tmp_path, *arguments) as tcm:
                tcm.serving()
                made.__init__(tmp_path, tcm)
                if request.param == "configuration":
                    # with the port that it got
                    made.ctl.run("save")
                yield made
                assert tcm.stop() == 0
                assert "Traceback" not in tcm.err
        finally:
            signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize("how", ["tcm-ctl reload", "SIGHUP"])
def test_certificates_that_were_renewed(site, certificates, how):
    old, new = certificates
    with site.log_in(old) as before:
        site.install(new)
        if how == "SIGHUP":
            site.tcm.process.send_signal(signal.SIGHUP)
            site.tcm.wait_for("SIGHUP: reloaded, 0 operations", in_log=True)
        else:
            assert site.ctl.run("reload") == "nothing to change\n"
        with pytest.raises(ssl.SSLError):
            site.log_in(old)
        with site.log_in(new) as after:
            assert after.read(0, 1).status == 0
        assert before.read(0, 1).status == 0, "who was there stays"


def test_certificates_that_cannot_be(site, certificates):
    """The old one stays in force, and nothing else changes either."""
    old, new = certificates
    shutil.copy(new.path, site.folder / "in-use.crt")
    if os.path.exists(site.folder / "config.json"):
        config = json.loads((site.folder / "config.json").read_text())
        config["targets"][0]["tpgs"][0]["attributes"]["login_timeout"] = 20
        (site.folder / "config.json").write_text(json.dumps(config))
    answer = site.ctl.run("reload", code=1)
    assert "fabric iscsi: tls-key: " in answer
    assert "is not the key of the certificate" in answer
    site.tcm.process.send_signal(signal.SIGHUP)
    site.tcm.wait_for("SIGHUP: fabric iscsi: tls-key: ", in_log=True)
    site.log_in(old).close()
    assert site.ctl.json("get", f"iscsi/{NAME}/tpgt_1/attrib", "login_timeout") == {"login_timeout": "15"}
    site.install(new)
    site.ctl.run("reload")
    site.log_in(new).close()


@pytest.mark.parametrize("site", ["configuration"], indirect=True)
def test_a_configuration_that_is_refused_leaves_certificates_alone(site, certificates):
    old, new = certificates
    site.install(new)
    text = (site.folder / "config.json").read_text()
    (site.folder / "config.json").write_text(text[: len(text) // 2])
    assert "config.json" in site.ctl.run("reload", code=1)
    site.log_in(old).close()
    os.unlink(site.folder / "config.json")
    assert "config.json" in site.ctl.run("reload", code=1)
    site.log_in(old).close()
