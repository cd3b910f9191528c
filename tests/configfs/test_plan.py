"""Plans: what has to be done to make one configuration of another, on a model of the tree with ConfigFS's rules."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.large_config import copy_of, large_config

from tcm.configfs.plan import Move, Operation, plan
from tcm.configfs.script import Script
from tcm.configfs.unchanged import Unchanged

Json = dict[str, Any]


class Model:
    """Groups, values and links, with ConfigFS's rules of what may go when."""

    def __init__(self, config: Json) -> None:
        self.groups: set[str] = set()
        self.values: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.apply(plan(config, {}, {}))
        self.find_places()

    def find_places(self) -> None:
        kinds = {"rd_mcp": "ramdisk", "fileio": "fileio", "iblock": "block"}
        self.places = {}
        for group in self.groups:
            parts = group.split("/")
            if parts[0] == "core" and len(parts) == 3 and parts[1] != "alua":
                self.places[f"/backstores/{kinds[parts[1].rpartition('_')[0]]}/{parts[2]}"] = group

    def apply(self, moves: list[Move]) -> None:
        for move in moves:
            if move.do is not None:
                self.do(move.do)

    def do(self, operation: Operation) -> None:
        path = operation.path
        parent = path.rpartition("/")[0]
        if operation.action == "make":
            assert path not in self.groups
            # lun, np, acls, alua: made by the kernel
            assert any(owner in self.groups for owner in (parent, parent.rpartition("/")[0])) or path.count("/") <= 1, path
            self.groups.add(path)
        elif operation.action == "remove":
            inside = [each for each in [*self.groups, *self.links] if each.startswith(f"{path}/")]
            assert not inside, f"{path} is not empty: {inside}"
            assert path not in self.links.values(), f"{path} is linked to"
            self.groups.remove(path)
            self.values = {each: value for each, value in self.values.items() if not each.startswith(f"{path}/")}
        elif operation.action == "link":
            assert parent in self.groups
            assert operation.value in self.groups
            assert path not in self.links
            self.links[path] = operation.value
        elif operation.action == "unlink":
            lun = parent
            assert lun not in self.links.values(), f"{lun} is mapped"
            del self.links[path]
        else:
            self.values[path] = operation.value

    def state(self) -> Any:
        return self.groups, self.values, self.links


def small() -> Json:
    return large_config(units=4, targets=2)


def operations(desired: Json, current: Json, model: Model | None = None) -> list[Operation]:
    places = (model or Model(current)).places
    return [move.do for move in plan(desired, current, places) if move.do is not None]


def test_nothing_to_do():
    assert operations(small(), small()) == []


def test_one_value_is_one_write():
    desired = small()
    desired["targets"][0]["tpgs"][0]["node_acls"][0]["attributes"]["nopin_timeout"] = 5
    path = "iscsi/iqn.2003-01.org.linux-iscsi.test:t0/tpgt_1/acls/iqn.2026-01.test:host0/attrib/nopin_timeout"
    assert operations(desired, small()) == [Operation("write", path, "5", "15")]


def test_an_acl_comes_with_what_is_in_it_and_nothing_else():
    desired = small()
    acls = desired["targets"][1]["tpgs"][0]["node_acls"]
    acls.append({**copy_of(acls[0]), "node_wwn": "iqn.2026-01.test:new"})
    done = operations(desired, small())
    assert done
    assert all("/acls/iqn.2026-01.test:new" in each.path for each in done)
    assert {each.action for each in done} == {"make", "write", "link"}


def test_secrets_are_not_shown():
    desired = small()
    desired["targets"][0]["tpgs"][0]["node_acls"][0] |= {"chap_userid": "alice", "chap_password": "correct horse"}
    done = operations(desired, small())
    assert [each.value for each in done] == ["alice", "correct horse"]
    assert "correct horse" not in str([each.to_json() for each in done])
    back = operations(small(), desired)
    assert [each.value for each in back] == ["NULL", "NULL"]
    assert "correct horse" not in str([each.to_json() for each in back])


def test_what_can_be_given_once_has_everything_on_it_made_anew():
    """Another size: the storage object, its LUN and its mapped LUN; the other LUN of the target stays."""
    desired = small()
    desired["storage_objects"][0]["size"] = 2 << 20
    done = operations(desired, small())
    removed = [each.path for each in done if each.action == "remove"]
    target = "iscsi/iqn.2003-01.org.linux-iscsi.test:t0/tpgt_1"
    assert removed == [f"{target}/acls/iqn.2026-01.test:host0/lun_0", f"{target}/lun/lun_0", "core/rd_mcp_0/ram0"]
    made = [each.path for each in done if each.action == "make"]
    assert made == ["core/rd_mcp_0/ram0", f"{target}/lun/lun_0", f"{target}/acls/iqn.2026-01.test:host0/lun_0"]


def test_another_alias_of_the_same_link_is_nothing():
    desired = small()
    desired["targets"][0]["tpgs"][0]["luns"][0]["alias"] = "0123456789"
    assert operations(desired, small()) == []


def test_what_uses_portals_is_disabled_before_it_goes():
    done = operations({}, small())
    first = done[0]
    assert (first.action, first.value) == ("write", "0")
    assert first.path.endswith("tpgt_1/enable")
    model = Model(small())
    for each in done:
        model.do(each)
    # the fabric's directory stays
    assert (model.groups, model.links) == ({"iscsi"}, {})
    assert all(path.startswith("iscsi/discovery_auth/") for path in model.values)


@pytest.mark.parametrize("changed", ["one ACL", "nothing", "all new", "all gone"])
def test_1000_units_and_200_targets_are_planned_within_a_second(changed):
    config = large_config()
    desired = copy_of(config)
    if changed == "one ACL":
        desired["targets"][100]["tpgs"][0]["node_acls"][0]["node_wwn"] = "iqn.2026-01.test:other"
    current = {} if changed == "all new" else config
    if changed == "all gone":
        desired = {}
    places = {} if changed == "all new" else {f"/backstores/ramdisk/ram{n}": f"core/rd_mcp_{n}/ram{n}" for n in range(1000)}
    begin = time.process_time()
    moves = plan(desired, current, places)
    seconds = time.process_time() - begin
    assert seconds < 1, seconds
    expected = {"one ACL": (1, 60), "nothing": (0, 0), "all new": (20_000, 60_000), "all gone": (3_000, 60_000)}[changed]
    assert expected[0] <= len([move for move in moves if move.do]) <= expected[1]


# any configuration to any other


@st.composite
def configs(draw: Any) -> Json:
    names = draw(st.lists(st.integers(0, 4), max_size=4, unique=True))
    objects = []
    for name in names:
        each: Json = {"plugin": "ramdisk", "name": f"ram{name}", "size": draw(st.sampled_from([4096, 8192])), "attributes": {}}
        each["attributes"] = draw(st.fixed_dictionaries({}, optional={"emulate_tpu": st.integers(0, 1)}))
        each["wwn"] = f"serial{name}"
        if draw(st.booleans()):
            each["alua_tpgs"] = [{"name": "ao", "tg_pt_gp_id": draw(st.integers(1, 2)), "preferred": draw(st.integers(0, 1))}]
        objects.append(each)
    targets = []
    for number in draw(st.lists(st.integers(0, 2), max_size=2, unique=True)):
        indexes = draw(st.lists(st.integers(0, 3), max_size=3, unique=True)) if names else []
        luns = [
            {
                "index": index,
                "storage_object": f"/backstores/ramdisk/ram{draw(st.sampled_from(names))}",
                "alias": f"x{number}{index}",
            }
            for index in indexes
        ]
        acls = [
            {
                "node_wwn": f"iqn.host{host}",
                "mapped_luns": [
                    {"index": place, "tpg_lun": index, "write_protect": draw(st.booleans())}
                    for place, index in enumerate(draw(st.permutations(indexes)))
                    if draw(st.booleans())
                ],
            }
            for host in draw(st.lists(st.integers(0, 2), max_size=2, unique=True))
        ]
        group = {"tag": 1, "enable": draw(st.booleans()), "luns": luns, "node_acls": acls, "portals": []}
        targets.append({"fabric": "iscsi", "wwn": f"iqn.t{number}", "tpgs": [group]})
    return {"storage_objects": objects, "targets": targets}


def normal(model: Model) -> Any:
    """HBAs may have other numbers, links other aliases, and fabrics' directories stay."""
    places = {place: name for name, place in model.places.items()}
    hbas = {place.rpartition("/")[0]: "hba" for place in places}

    def named(path: str) -> str:
        for place, name in places.items():
            if path == place or path.startswith(f"{place}/"):
                return name + path[len(place) :]
        return hbas.get(path, path)

    groups = {named(each) for each in model.groups} - {"iscsi", "hba"}
    links = {path.rpartition("/")[0]: named(target) for path, target in model.links.items()}
    return groups, {named(path): value for path, value in model.values.items()}, links


@settings(max_examples=300, deadline=None)
@given(configs(), configs())
def test_any_to_any(current, desired):
    model = Model(current)
    moves = plan(desired, current, model.places)
    model.apply(moves)
    model.find_places()
    wanted = Model(desired)
    groups, values, links = normal(model)
    wanted_groups, wanted_values, wanted_links = normal(wanted)
    assert groups == wanted_groups
    assert links == wanted_links
    # what the file does not name stays as it is
    assert wanted_values.items() <= values.items()


@settings(max_examples=300, deadline=None)
@given(configs(), configs(), st.integers(0, 10_000))
def test_taken_back_from_anywhere(current, desired, stop):
    """Refused at any operation: everything is as it was."""
    model = Model(current)
    before = copy_of([sorted(each) if isinstance(each, set) else each for each in model.state()])
    moves = plan(desired, current, model.places)
    done = moves[: stop % (len(moves) + 1)]
    for move in done:
        if move.do is not None:
            model.do(move.do)
    for move in reversed(done):
        if move.undo is not None:
            model.do(move.undo)
    model.groups |= {"iscsi"} if "iscsi" in before[0] else set()
    groups, values, links = model.state()
    assert sorted(groups - ({"iscsi"} - {*before[0]})) == before[0]
    assert values.items() >= before[1].items()
    assert links == before[2]


def test_hbas_get_numbers_that_are_free():
    objects = [{"plugin": "fileio", "name": name, "dev": f"/{name}", "size": 1} for name in "abc"]
    places = {"/backstores/fileio/b": "core/fileio_0/b", "/backstores/fileio/z": "core/fileio_2/z"}
    made = [step.path for step in Script({"storage_objects": objects}, places).steps() if step.action == "make"]
    assert made == ["core/fileio_1", "core/fileio_1/a", "core/fileio_0", "core/fileio_0/b", "core/fileio_3", "core/fileio_3/c"]


@st.composite
def pairs_alike(draw: Any) -> tuple[Json, Json, dict[str, str]]:
    """Two that have much in common, and storage objects that share HBAs."""
    current = draw(configs())
    desired, other = copy_of(current), draw(configs())
    for kind, keys in (("storage_objects", ("name",)), ("targets", ("wwn",))):
        for each in other[kind]:
            place = [n for n, there in enumerate(desired[kind]) if all(there[key] == each[key] for key in keys)]
            if place and draw(st.booleans()) and draw(st.booleans()):
                desired[kind][place[0]] = each
    there = {f"/backstores/ramdisk/{each['name']}" for each in desired["storage_objects"]}
    for target in desired["targets"]:
        for group in target["tpgs"]:
            group["luns"] = [each for each in group["luns"] if each["storage_object"] in there]
            known = {each["index"] for each in group["luns"]}
            for acl in group["node_acls"]:
                acl["mapped_luns"] = [each for each in acl["mapped_luns"] if each["tpg_lun"] in known]
    if draw(st.booleans()) and desired["storage_objects"]:
        used = {lun["storage_object"] for each in desired["targets"] for lun in each["tpgs"][0]["luns"]}
        if f"/backstores/ramdisk/{desired['storage_objects'][0]['name']}" not in used:
            del desired["storage_objects"][0]
    if draw(st.booleans()):
        desired["tcm_storage_objects"] = {path: {"removable": True} for path in sorted(there)[:1]}
    if draw(st.booleans()):
        desired["alua_lu_gps"] = [{"name": "more", "lu_gp_id": 7}]
    places = {
        f"/backstores/ramdisk/{each['name']}": f"core/rd_mcp_{draw(st.integers(0, 2))}/{each['name']}"
        for each in current["storage_objects"]
    }
    return desired, current, places


@settings(max_examples=500, deadline=None)
@given(pairs_alike())
def test_what_is_alike_makes_no_difference(pair):
    """The plan is the one of all that there is, looked at or not."""
    desired, current, places = pair
    with pytest.MonkeyPatch.context() as patch:
        quick = plan(desired, current, places)
        patch.setattr(Unchanged, "left_out", lambda _self, config: dict(config))
        assert plan(desired, current, places) == quick


def test_what_is_alike_is_not_looked_at():
    config = large_config(units=100, targets=20)
    desired = copy_of(config)
    desired["targets"][3]["tpgs"][0]["attributes"]["login_timeout"] = 20
    places = {f"/backstores/ramdisk/ram{n}": f"core/rd_mcp_{n}/ram{n}" for n in range(100)}
    left = Unchanged(config, desired, places).left_out(desired)
    assert left["storage_objects"] == []
    assert left["targets"] == [desired["targets"][3]]
    desired["storage_objects"][99]["size"] = 4096
    left = Unchanged(config, desired, places).left_out(config)
    assert left["storage_objects"] == [config["storage_objects"][99]]
    assert left["targets"] == [config["targets"][3], config["targets"][19]]
