"""saveconfig.json: what LIO wrote is understood, and what is wrong is one line with its path."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcm.configuration import Configuration, TargetPortGroupConfig, portal_text
from tcm.failure import ConfigError
from tcm.plugins import PluginManager
from tcm.saveconfig import load
from tcm.target.node_acl import AccessControl, Authentication

DATA = Path(__file__).parent.parent / "data"
PLUGINS = PluginManager()
UUID = "b7a36fbd-94eb-4c69-8c09-ff4c53d8877a"


def minimal(tmp_path: Path) -> dict[str, Any]:
    return {
        "storage_objects": [
            {"name": "ram", "plugin": "ramdisk", "size": 1 << 20, "wwn": UUID},
            {"name": "disk", "plugin": "fileio", "dev": str(tmp_path / "disk.img"), "size": 1 << 20},
        ],
        "targets": [
            {
                "fabric": "iscsi",
                "wwn": "iqn.2003-01.org.example:t",
                "tpgs": [
                    {
                        "tag": 1,
                        "luns": [
                            {"index": 0, "storage_object": "/backstores/ramdisk/ram"},
                            {"index": 1, "storage_object": "/backstores/fileio/disk"},
                        ],
                        "portals": [{"ip_address": "127.0.0.1", "port": 3260}],
                        "node_acls": [
                            {
                                "node_wwn": "iqn.2003-01.org.example:i",
                                "mapped_luns": [{"index": 7, "tpg_lun": 1, "write_protect": True}],
                            }
                        ],
                    }
                ],
            }
        ],
        "fabric_modules": [],
    }


def load_value(value: Any, tmp_path: Path, **arguments: Any) -> Configuration:
    file = tmp_path / "saveconfig.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return load(str(file), PLUGINS, **arguments)


def put(value: Any, path: str, new: Any) -> Any:
    """A copy with ``new`` at a path such as ``targets/0/wwn``; ``...`` takes the key away."""
    changed = copy.deepcopy(value)
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    place = changed
    for step in way:
        place = place[step]
    if new is ...:
        del place[last]
    elif isinstance(place, list) and last == len(place):
        place.append(new)
    else:
        place[last] = new
    return changed


@pytest.fixture
def lio(tmp_path) -> dict[str, Any]:
    """LIO's own file, with the image where this test may have one."""
    value = json.loads((DATA / "lio-saveconfig.json").read_text())
    assert value["storage_objects"][1]["name"] == "file0"
    return put(value, "storage_objects/1/dev", str(tmp_path / "file0.img"))


def test_what_lio_wrote_is_understood(lio, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        made = load_value(lio, tmp_path)
    ram, disk = made.storage_objects
    assert (ram.path, ram.type, ram.serial) == ("/backstores/ramdisk/ram0", "ramdisk", "df6cd573-9850-4ba1-8ff5-2fb627716b87")
    assert ram.options.size == 268435456
    assert ram.identity.product == "ram0"
    assert ram.attributes.emulate_tpu is False
    assert (disk.options.path, disk.options.size, disk.options.write_back) == (str(tmp_path / "file0.img"), 1 << 30, True)
    assert disk.attributes.emulate_write_cache is True
    assert disk.attributes.max_unmap_lba_count == 8192
    assert ram.target_port_groups == (TargetPortGroupConfig(name="default_tg_pt_gp", identifier=0),)
    assert {lun.target_port_group for target in made.targets for group in target.portal_groups for lun in group.luns} == {None}

    iscsi, loopback = made.targets
    assert (iscsi.name, iscsi.fabric, loopback.fabric) == ("iqn.2003-01.org.linux-iscsi.lio:t1", "iscsi", "loopback")
    strict, demo = iscsi.portal_groups
    assert (strict.tag, demo.tag) == (2, 1)
    assert [portal_text(portal) for portal in strict.portals] == ["127.0.0.1:3261"]
    assert strict.access == AccessControl(generate_node_acls=False, demo_mode_write_protect=True)
    assert strict.authenticates
    assert demo.access == AccessControl(generate_node_acls=True, cache_dynamic_acls=True, demo_mode_write_protect=False)
    assert not demo.authenticates
    assert {lun.index: lun.storage_object.name for lun in demo.luns} == {0: "file0", 1: "ram0"}
    (acl,) = strict.node_acls
    assert acl.initiator_name == "iqn.2025-01.test.vm:guest"
    assert (acl.authentication.userid, acl.authentication.password) == ("alice", "initiatorsecret")
    assert (acl.authentication.userid_mutual, acl.authentication.password_mutual) == ("bob", "targetsecret12")
    assert acl.attributes.nopin_timeout == 15
    assert [(each.index, each.tpg_lun, each.write_protect) for each in acl.mapped_luns] == [(0, 0, False)]
    assert strict.parameters.MaxBurstLength == 262144
    assert {each.name for each in made.fabrics} == {"iscsi", "loopback"}
    assert made.exposed() == [
        (
            "portal 0.0.0.0:3260 of iqn.2003-01.org.linux-iscsi.lio:t1 is open to whoever can reach it: "
            "no authentication, no node ACLs"
        )
    ]
    # what LIO writes by default is no reason for a warning
    assert caplog.messages == []


def test_lio_settings_without_effect_are_one_warning(lio, tmp_path, caplog):
    changed = put(lio, "storage_objects/0/attributes/submit_type", 1)
    changed = put(changed, "storage_objects/1/attributes/emulate_rest_reord", 1)
    with caplog.at_level(logging.WARNING):
        load_value(changed, tmp_path)
    assert caplog.messages == ["these LIO settings have no effect here: emulate_rest_reord=1, submit_type=1"]


def test_passwords_are_in_no_repr(lio, tmp_path):
    made = load_value(lio, tmp_path)
    assert "initiatorsecret" not in repr(made)
    assert "targetsecret12" not in repr(made)


def test_our_own_keys(tmp_path):
    value = put(minimal(tmp_path), "storage_objects/0/tcm_filters", [{"type": "log"}, {"type": "delay", "read": 0.001}])
    value = put(put(value, "storage_objects/0/removable", True), "storage_objects/1/read_only", True)
    ram, disk = load_value(value, tmp_path).storage_objects
    assert [each.type for each in ram.filters] == ["log", "delay"]
    assert (ram.removable, ram.read_only, disk.removable, disk.read_only) == (True, False, False, True)
    assert all(each.read_only for each in load_value(value, tmp_path, read_only=True).storage_objects)


def test_what_lio_lacks_of_a_fabric(tmp_path):
    """Attributes of ours, attributes of demo mode's node ACLs, and parameters of one initiator."""
    group = {
        "attributes": {"default_erl": 1},
        "parameters": {"MaxBurstLength": "524288"},
        "tcm_attributes": {"allowed_addresses": ["10.0.0.0/8", "::1"], "redirect_temporarily": ["192.0.2.1"]},
        "tcm_acl_attributes": {"nopin_timeout": 5},
    }
    value = minimal(tmp_path)
    value["targets"][0]["tpgs"][0] |= group
    acl = {"tcm_attributes": {"cmdsn_depth": 3}, "tcm_parameters": {"FirstBurstLength": "4096"}}
    value["targets"][0]["tpgs"][0]["node_acls"][0] |= acl
    (made,) = load_value(value, tmp_path).targets[0].portal_groups
    assert (made.attributes.default_erl, made.attributes.allowed_addresses) == (1, ("10.0.0.0/8", "::1"))
    assert made.attributes.redirect_temporarily == ("192.0.2.1",)
    assert made.dynamic_acl_attributes.nopin_timeout == 5
    (own,) = made.node_acls
    assert own.attributes.cmdsn_depth == 3
    assert (own.parameters.FirstBurstLength, own.parameters.MaxBurstLength) == (4096, 524288)
    (plain,) = load_value(minimal(tmp_path), tmp_path).targets[0].portal_groups
    assert (plain.dynamic_acl_attributes, plain.node_acls[0].parameters) == (None, None)


def test_whom_an_allow_list_keeps_out_is_no_warning(tmp_path):
    value = minimal(tmp_path)
    group = value["targets"][0]["tpgs"][0]
    group |= {"attributes": {"authentication": 0, "generate_node_acls": 1}}
    group["portals"] = [{"ip_address": "0.0.0.0", "port": 3260}]
    assert len(load_value(value, tmp_path).exposed()) == 1
    group["tcm_attributes"] = {"allowed_addresses": ["10.0.0.0/8"]}
    assert load_value(value, tmp_path).exposed() == []


def test_null_clears_a_secret(tmp_path):
    """LIO's word for no user and no secret."""
    value = minimal(tmp_path)
    group = value["targets"][0]["tpgs"][0]
    group |= {"chap_userid": "NULL", "chap_password": "NULL"}
    group["node_acls"][0] |= {"chap_userid": "u", "chap_password": "a long secret", "chap_mutual_userid": "NULL"}
    (made,) = load_value(value, tmp_path).targets[0].portal_groups
    assert (made.authentication.userid, made.authentication.password) == ("", "")
    assert (made.node_acls[0].authentication.userid, made.node_acls[0].authentication.userid_mutual) == ("u", "")
    assert not made.node_acls[0].authentication.authenticate_target


def test_only_the_fabrics_that_are_asked_for(lio, tmp_path):
    made = load_value(lio, tmp_path, fabrics={"loopback": {"nexus": ""}})
    assert [target.fabric for target in made.targets] == ["loopback"]
    assert [(each.name, each.options.nexus) for each in made.fabrics] == [("loopback", "")]


def test_block_is_a_file_that_is_a_device(tmp_path):
    device = str(tmp_path / "sdx")
    Path(device).write_bytes(bytes(4096))
    block = {"name": "b", "plugin": "block", "dev": device, "readonly": True, "write_back": False, "exclusive": True}
    made = load_value(put(minimal(tmp_path), "storage_objects/2", block), tmp_path).storage_objects[2]
    assert (made.path, made.type, made.options.path, made.read_only) == ("/backstores/block/b", "fileio", device, True)


def test_discovery_without_credentials_lets_nobody_in(tmp_path):
    """It was switched on: that nobody is named yet does not switch it off."""
    module = {"name": "iscsi", "discovery_enable_auth": True}
    (fabric,) = load_value(put(minimal(tmp_path), "fabric_modules/0", module), tmp_path).fabrics
    assert fabric.options.discovery_auth == Authentication()


def test_discovery_authentication_goes_to_the_fabric(tmp_path):
    module = {
        "name": "iscsi",
        "discovery_enable_auth": True,
        "discovery_userid": "d",
        "discovery_password": "a discovery secret",
        "discovery_mutual_userid": "",
        "discovery_mutual_password": "",
    }
    (fabric,) = load_value(put(minimal(tmp_path), "fabric_modules/0", module), tmp_path).fabrics
    assert (fabric.options.discovery_auth.userid, fabric.options.discovery_auth.password) == ("d", "a discovery secret")
    off = put(minimal(tmp_path), "fabric_modules/0", {**module, "discovery_enable_auth": False})
    assert load_value(off, tmp_path).fabrics[0].options.discovery_auth is None


def test_a_serial_that_is_left_out_stays_the_same(tmp_path):
    first, second = (load_value(minimal(tmp_path), tmp_path).storage_objects[1].serial for _ in range(2))
    assert first == second != UUID


L0 = "targets/0/tpgs/0/luns/0"
ACL = "targets/0/tpgs/0/node_acls/0"

BAD = [
    ("storage_objects", {}, "storage_objects: {} is not a list [...]; write a list [...]"),
    ("storage_objects/0", 5, "storage_objects[0]: 5 is not an object {...}"),
    (
        "storage",
        [],
        "storage: unknown key (did you mean 'storage_objects'?); keys are alua_lu_gps, fabric_modules, storage_objects, ",
    ),
    ("storage_objects/0/plugin", ..., "storage_objects[0].plugin: missing; write a string"),
    (
        "storage_objects/0/plugin",
        "ramdsk",
        "storage_objects[0].plugin: there is no backstore 'ramdsk' (did you mean 'ramdisk'?)",
    ),
    ("storage_objects/0/plugin", "pscsi", "storage_objects[0].plugin: 'pscsi' is not supported yet (SCSI pass-through); write"),
    ("storage_objects/0/plugin", "user", "storage_objects[0].plugin: 'user' is not supported yet (TCMU); write"),
    ("storage_objects/0/name", "a b", "storage_objects[0].name: 'a b': no slash, space, tab or newline"),
    ("storage_objects/0/name", 3, "storage_objects[0].name: 3 is not a string; write a string"),
    ("storage_objects/0/size", "1M", 'storage_objects[0].size: "1M" is not a whole number'),
    ("storage_objects/0/size", -1, "storage_objects[0].size: -1 is out of range"),
    ("storage_objects/0/size", True, "storage_objects[0].size: true is not a whole number"),
    ("storage_objects/0/size", ..., 'storage_objects[0].size: missing; write "size": 268435456 (bytes)'),
    ("storage_objects/0/sise", 1, "storage_objects[0].sise: unknown key (did you mean 'size'?); keys are "),
    (
        "storage_objects/0/wwn",
        "1/3",
        "storage_objects[0].wwn: '1/3': write 1 to 253 printable ASCII characters",
    ),
    ("storage_objects/0/removable", "perhaps", 'storage_objects[0].removable: "perhaps" is not true or false'),
    ("storage_objects/0/removable", 2, "storage_objects[0].removable: 2 is not true or false"),
    ("storage_objects/0/attributes", {"block_size": 513}, "storage_objects[0].attributes: block_size 513: one of 512"),
    ("storage_objects/0/attributes", {"block_size": "x"}, "storage_objects[0].attributes.block_size: 'x' is not an integer"),
    ("storage_objects/0/attributes", {"emulate_tpx": 1}, "attributes.emulate_tpx: unknown key (did you mean 'emulate_tpu'?)"),
    ("storage_objects/0/tcm_filters", [{"type": "dely"}], "storage_objects[0].tcm_filters[0].type: there is no filter 'dely'"),
    ("storage_objects/0/tcm_filters", [{}], "storage_objects[0].tcm_filters[0].type: missing"),
    (
        "storage_objects/0/tcm_filters",
        [{"type": "delay", "raed": 1}],
        "tcm_filters[0].raed: unknown key (did you mean 'read'?)",
    ),
    ("storage_objects/1/dev", "/nonexistent/x", "storage_objects[1]: /nonexistent/x: there is no directory /nonexistent"),
    ("storage_objects/1/dev", ..., 'storage_objects[1].dev: missing; write "dev": "/path/of/the/file"'),
    (
        "storage_objects/2",
        {"name": "ram", "plugin": "ramdisk", "size": 512},
        "storage_objects[2].name: /backstores/ramdisk/ram is",
    ),
    ("targets", [], "targets: there is none, so there is nothing to serve; add one"),
    ("targets/0/fabric", "vhost", "targets[0].fabric: there is no fabric 'vhost'; installed: "),
    ("targets/0/fabric", ..., "targets[0].fabric: missing"),
    ("targets/0/wwn", "not a name", "targets[0].wwn: "),
    ("targets/0/wwn", ..., "targets[0].wwn: missing"),
    ("targets/0/tgps", [], "targets[0].tgps: unknown key (did you mean 'tpgs'?)"),
    ("targets/0/tpgs/0/tag", 70000, "targets[0].tpgs[0].tag: 70000 is out of range; write 0 to 65535"),
    ("targets/0/tpgs/0/tag", "1", 'targets[0].tpgs[0].tag: "1" is not a whole number'),
    ("targets/0/tpgs/1", {"tag": 1}, "targets[0].tpgs[1].tag: tag 1 is already at targets[0].tpgs[0].tag; write another one"),
    (f"{L0}/index", 1, "targets[0].tpgs[0].luns[1].index: LUN 1 is already at targets[0].tpgs[0].luns[0].index; write another"),
    (f"{L0}/index", 65536, "targets[0].tpgs[0].luns[0].index: 65536 is out of range; write 0 to 65535"),
    (
        f"{L0}/storage_object",
        "/backstores/fileio/nope",
        "luns[0].storage_object: '/backstores/fileio/nope' is not there; write one",
    ),
    (f"{L0}/storage_objct", "x", "luns[0].storage_objct: unknown key (did you mean 'storage_object'?)"),
    ("targets/0/tpgs/0/portals/0/ip_address", "example.org", "tpgs[0].portals[0]: 'example.org' is not an IP address"),
    ("targets/0/tpgs/0/portals/0/port", 65536, "tpgs[0].portals[0]: port 65536 is out of range"),
    ("targets/0/tpgs/0/portals/0/iser", True, "tpgs[0].portals[0].iser: only TCP is served; write false"),
    ("targets/0/tpgs/0/portals/1", {"ip_address": "127.0.0.1", "port": 3260}, "tpgs[0].portals[1]: portal "),
    ("targets/0/tpgs/0/attributes", {"login_timeout": 99}, "tpgs[0].attributes: login_timeout=99: write a number from 5 to 30"),
    (
        "targets/0/tpgs/0/attributes",
        {"generate_node_acl": 1},
        "attributes.generate_node_acl: unknown key (did you mean 'generate_n",
    ),
    (
        "targets/0/tpgs/0/parameters",
        {"MaxBurstLengh": "1"},
        "parameters.MaxBurstLengh: unknown key (did you mean 'MaxBurstLength'?)",
    ),
    ("targets/0/tpgs/0/parameters", {"MaxBurstLength": "x"}, "tpgs[0].parameters.MaxBurstLength: 'x' is not an integer"),
    (f"{ACL}/node_wwn", "no", "tpgs[0].node_acls[0].node_wwn: "),
    (f"{ACL}/mapped_luns/0/tpg_lun", 9, "mapped_luns[0].tpg_lun: LUN 9 is not in luns; write one of [0, 1]"),
    (f"{ACL}/mapped_luns/1", {"index": 7, "tpg_lun": 0}, "mapped_luns[1].index: mapped LUN 7 is already at "),
    (
        f"{ACL}/tcm_attributes",
        {"cmdsn_depht": 3},
        "node_acls[0].tcm_attributes.cmdsn_depht: unknown key (did you mean 'cmdsn_depth'?)",
    ),
    (f"{ACL}/tcm_attributes", {"nopin_timeout": 5}, "tcm_attributes.nopin_timeout: LIO has this one; write it into targets[0]"),
    (f"{ACL}/tcm_parameters", {"MaxBurstLength": "1"}, "node_acls[0].tcm_parameters: MaxBurstLength=1: "),
    (f"{ACL}/tcm_parameters", 1, "node_acls[0].tcm_parameters: 1 is not an object"),
    (
        "targets/0/tpgs/0/tcm_attributes",
        {"allowed_addresses": ["10.0.0.1/8"]},
        "'10.0.0.1/8' has bits beyond its prefix; write 10.",
    ),
    (
        "targets/0/tpgs/0/tcm_attributes",
        {"redirect_temporarily": "x y"},
        "'y' is no condition, or the second of its kind; write ",
    ),
    (
        "targets/0/tpgs/0/tcm_acl_attributes",
        {"default_erl": 1},
        "default_erl: for those that demo mode lets in the portal group",
    ),
    ("targets/0/tpgs/0/rtpi", 0, "rtpi: "),
    ("targets/0/tpgs/0/rtpi", 65536, "rtpi: "),
    ("targets/0/tpgs/0/rtpi", "x", "rtpi: "),
    ("tcm_fabrics", {"scsi": {}}, "tcm_fabrics.scsi: "),
    ("tcm_fabrics", {"iscsi": {"lio_version": "1"}}, "tcm_fabrics.iscsi.lio_version: "),
    ("tcm_fabrics", {"iscsi": {"cpus_allowed_list": []}}, "tcm_fabrics.iscsi.cpus_allowed_list: "),
    ("targets/0/tpgs/0/tcm_acl_attributes", {"nopin_timeout": 1}, "tcm_acl_attributes: nopin_timeout=1: write 0 (never) or a"),
    (
        "targets/0/tpgs/1",
        {"tag": 2, "portals": [{"ip_address": "127.0.0.1", "port": 3260}]},
        "targets[0].tpgs[1].portals: portal 127.0.0.1:3260 is already at targets[0].tpgs[0].portals; write another one",
    ),
    (f"{ACL}/attributes", {"nopin_timeout": 1}, "node_acls[0].attributes: nopin_timeout=1: write 0 (never) or"),
    (
        "fabric_modules",
        [{"name": "iscsi", "discovery_usrid": ""}],
        "fabric_modules[0].discovery_usrid: unknown key (did you mean",
    ),
]


@pytest.mark.parametrize(("path", "new", "what"), BAD, ids=[f"{path}-{index}" for index, (path, _, _) in enumerate(BAD)])
def test_what_is_wrong_is_one_line_with_its_path(tmp_path, path, new, what):
    with pytest.raises(ConfigError) as caught:
        load_value(put(minimal(tmp_path), path, new), tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{tmp_path}/saveconfig.json: ")
    assert what in text
    assert "only a password" not in text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "line 1 column 1: Expecting value; write valid JSON"),
        ('{"targets": [}', "line 1 column 14"),
        ("[]", "the file: [] is not an object {...}"),
        ('{"targets": [], "targets": []}', "key 'targets' stands twice in one object; write it once"),
        ('{"targets": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"targets": ' + "9" * 5000 + "}", "write a smaller number"),
    ],
)
def test_what_is_not_json(tmp_path, text, what):
    with pytest.raises(ConfigError) as caught:
        load_value(text, tmp_path)
    assert what in str(caught.value)
    assert len(str(caught.value)) < 500


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin").write_bytes(b'{"\xff": 1}')
    for name, what in (("missing", "No such file"), (".", "Is a directory"), ("latin", "byte 2 is not UTF-8")):
        with pytest.raises(ConfigError, match=what):
            load(str(tmp_path / name), PLUGINS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70000) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(["tag", "index", "name", "x"]), children),
    max_leaves=6,
)


def places(value: Any, path: str = "") -> list[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, each in items for found in (f"{path}{key}", *places(each, f"{path}{key}/"))]


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=200)
def test_any_value_anywhere_is_taken_or_refused(tmp_path, data):
    """Invariant: loading ends in a configuration or in a ConfigError of one line, never in anything else."""
    whole = minimal(tmp_path)
    path = data.draw(st.sampled_from(places(whole)))
    complaint = ""
    made = None
    try:
        made = load_value(put(whole, path, data.draw(json_values)), tmp_path)
    except ConfigError as error:
        complaint = str(error)
    assert isinstance(made, Configuration) or complaint.startswith(str(tmp_path))
    assert "\n" not in complaint
