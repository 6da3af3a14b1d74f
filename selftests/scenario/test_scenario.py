"""Scenario files: what comes of them, and what is refused with its line and its remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from migrate.errors import ConfigurationError
from migrate.lab.kinds import load_lab
from migrate.model import Case
from migrate.scenario.loader import for_modes, load, load_all, parse, schema
from selftests.helpers import ROOT

SCENARIOS = sorted((ROOT / "testcases" / "scenarios").glob("*.toml"))

MATRIX = """
name = "m"
[policy]
hops = 1
[matrix]
"interface.ring" = ["split", "packed"]
"interface.mode" = ["virtio", "vhost-user"]
"""


def ids(text: str, *overrides: str) -> list[str]:
    return [case.id for case in parse(text, "f.toml", overrides).cases]


def refusal(text: str, *overrides: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "f.toml", overrides)
    return caught.value


def test_the_scenarios_that_are_shipped_are_right_and_their_ids_differ() -> None:
    scenarios = load_all(SCENARIOS)
    assert {scenario.name for scenario in scenarios} >= {"quickstart", "modes", "versions"}
    quick = next(scenario for scenario in scenarios if scenario.name == "quickstart")
    modes = ["virtio", "vhost-user", "vdpa", "hostdev", "failover"]
    assert [case.id for case in quick.cases] == [f"quickstart-{mode}" for mode in modes]
    assert all(path.stem == load(path).name for path in SCENARIOS)


def test_a_file_of_defaults_makes_one_case_named_after_the_file() -> None:
    scenario = parse("", "some/where/plain.toml")
    assert [case.id for case in scenario.cases] == ["plain"]
    assert scenario.cases[0].model_dump(exclude={"id", "source_file"}) == Case(id="x").model_dump(
        exclude={"id", "source_file"}
    )


def test_axes_are_expanded_in_the_order_of_the_file_the_last_one_fastest() -> None:
    assert ids(MATRIX) == [
        "m-split-virtio",
        "m-split-vhost-user",
        "m-packed-virtio",
        "m-packed-vhost-user",
    ]
    assert [case.row for case in parse(MATRIX, "f.toml").cases] == [0, 1, 2, 3]


def test_axes_may_be_written_without_quotes() -> None:
    text = 'name="m"\n[matrix]\npolicy.hops = [1, 3]\ninterface.queues = [1, 2]\n'
    assert ids(text)[:2] == ["m-hops=1-queues=1", "m-hops=1-queues=2"]


def test_a_row_can_be_left_out() -> None:
    text = MATRIX + '[[matrix_exclude]]\n"interface.ring"="packed"\n"interface.mode"="virtio"\n'
    assert "m-packed-virtio" not in ids(text)
    assert len(ids(text)) == 3


def test_variants_are_named_sets_of_settings_and_the_slowest_axis() -> None:
    text = """
name = "v"
[policy]
hops = 3
[[variants]]
name = "direct"
policy.transport = "direct"
[[variants]]
name = "cut"
faults = [{ at = "precopy", do = "cut-migration-link" }]
[variants.expect]
outcome = "failed"
[matrix]
"interface.mode" = ["virtio", "vhost-user"]
"""
    scenario = parse(text, "f.toml")
    assert [case.id for case in scenario.cases][:3] == [
        "v-direct-virtio",
        "v-direct-vhost-user",
        "v-cut-virtio",
    ]
    direct, cut = scenario.cases[0], scenario.cases[2]
    assert (direct.policy.transport, direct.policy.hops, direct.faults) == ("direct", 3, ())
    assert (cut.faults[0].do, cut.expect.outcome) == ("cut-migration-link", "failed")


def test_an_override_of_an_axis_takes_its_place_and_keeps_the_ids() -> None:
    assert ids(MATRIX, "interface.ring=packed") == ["m-packed-virtio", "m-packed-vhost-user"]
    assert ids(MATRIX, 'interface.ring=["packed"]', 'interface.mode=["vdpa"]') == ["m-packed-vdpa"]


def test_an_override_takes_toml_values_and_bare_words() -> None:
    overrides = ("policy.hops=3", "policy.auto_converge=true", "guest.image=tiny-net")
    case = parse("", "f.toml", overrides).cases[0]
    assert (case.policy.hops, case.policy.auto_converge, case.guest.image) == (3, True, "tiny-net")


def test_an_override_of_a_list_is_one_value_and_a_list_of_lists_an_axis() -> None:
    assert parse("", "f.toml", ['roots=["a", "b"]']).cases[0].roots == ("a", "b")
    assert ids('name="r"', 'roots=[["a", "b"], ["b", "a"]]') == ["r-a+b", "r-b+a"]


def test_an_override_beats_a_variant() -> None:
    text = '[[variants]]\nname = "a"\npolicy.hops = 3\n'
    assert parse(text, "f.toml", ["policy.hops=5"]).cases[0].policy.hops == 5


def test_modes_to_compare_make_one_case_each_on_top_of_a_scenario_if_asked(tmp_path: Path) -> None:
    assert [case.id for case in for_modes(["virtio", "vdpa"]).cases] == [
        "compare-virtio",
        "compare-vdpa",
    ]
    base = tmp_path / "base.toml"
    base.write_text('[workload]\ndirty_mib = 16\n[matrix]\n"interface.mode" = ["hostdev"]\n')
    cases = for_modes(["virtio", "vhost-user"], base).cases
    assert [(case.interface.mode, case.workload.dirty_mib) for case in cases] == [
        ("virtio", 16),
        ("vhost-user", 16),
    ]
    with pytest.raises(ConfigurationError, match="twice"):
        for_modes(["virtio", "virtio"])


REFUSED = {
    "an unknown section": ("[polcy]\nhops = 2", "line 1: polcy", "did you mean 'policy'"),
    "an unknown key": ("[guest]\n\n[interface]\nmod = 'x'", "line 4: interface.mod", "'mode'"),
    "a reserved key": ("id = 'x'", "line 1: id", "known:"),
    "an unknown value": ("[interface]\nmode = 'virtoi'", "line 2: interface.mode", "'virtio'"),
    "text for a number": ("[policy]\nhops = '2'", "line 2: policy.hops", "valid integer"),
    "truth for a number": ("[policy]\nhops = true", "line 2: policy.hops", "valid integer"),
    "no table": ("interface = 3", "line 1: interface", "object"),
    "a negative limit": ("[expect]\nstall_ms = -3", "line 2: expect.stall_ms", "greater than 0"),
    "no end": ("[policy]\ntimeout_s = inf", "line 2: policy.timeout_s", "finite"),
    "a name that is a number": ("name = 3", "line 1: name", "name ="),
    "an id too long": (f"name = '{'x' * 121}'", "line 1: name", "120"),
    "a fault's key": (
        "[[faults]]\nat='setup'\ndo='kill-guest'\n[[faults]]\nat='pre-copy'\ndo='kill-guest'",
        "line 5: faults.1.at",
        "did you mean 'precopy'",
    ),
    "a value after an array over lines": (
        "roots = [\n  'a', # one\n  'b',\n]\n[policy]\nhop = 2",
        "line 6: policy.hop",
        "'hops'",
    ),
    "a value after text over lines": (
        "description = '''\n[policy]\nhop = 2\n'''\n[policy]\nhop = 2",
        "line 6: policy.hop",
        "'hops'",
    ),
    "a mode twice": (
        "[matrix]\n'interface.mode' = ['virtio', 'virtio']",
        "line 2: matrix.interface.mode",
        "once",
    ),
    "an empty axis": ("[matrix]\n'interface.mode' = []", "line 2", "take it out"),
    "an axis that is no list": ("[matrix]\n'policy.hops' = 2", "line 2", "[2]"),
    "tables in an axis": ("[matrix]\npolicy = [{hops = 2}]", "line 2", "[[variants]]"),
    "a matrix that is no table": ("matrix = 3", "line 1: matrix", "[matrix]"),
    "an unknown axis": ("[matrix]\n'interface.rings' = ['split']", "line 2", "'ring'"),
    "an axis of an unknown section": ("[matrix]\n'face.ring' = ['split']", "line 2", "known:"),
    "a wrong value in an axis": ("[matrix]\n'policy.hops' = [1, 0]", "line 2: policy.hops", "1"),
    "ids that are alike": ("[matrix]\n'guest.image' = ['a/b', 'a_b']", "matrix", "variant"),
    "all rows left out": (
        "[matrix]\n'policy.hops' = [1]\n[[matrix_exclude]]\n'policy.hops' = 1",
        "line 3: matrix_exclude",
        "less",
    ),
    "no such row to leave out": (
        "[matrix]\n'policy.hops' = [1]\n[[matrix_exclude]]\n'policy.hops' = 3",
        "line 3: matrix_exclude.0",
        "take it out",
    ),
    "a row left out by a key that is no axis": (
        "[matrix]\n'policy.hops' = [1]\n[[matrix_exclude]]\n'policy.hop' = 3",
        "line 4",
        "'policy.hops'",
    ),
    "an exclude that is no list": ("matrix_exclude = 3", "line 1", "[[matrix_exclude]]"),
    "a variant without a name": ("[[variants]]\npolicy.hops = 3", "variants.0.name", "name ="),
    "a variant twice": (
        "[[variants]]\nname = 'a'\n[[variants]]\nname = 'a'",
        "line 4: variants.1.name",
        "once",
    ),
    "a dirty ring of any size": ("[guest]\ndirty_ring = 3000", "line 2: guest.dirty_ring", "4096"),
    "variants that are no list": ("variants = 3", "line 1: variants", "[[variants]]"),
    "an unknown key of a variant": (
        "[[variants]]\nname = 'a'\n[[variants]]\nname = 'b'\npolicy.hop = 3",
        "line 5: policy.hop",
        "'hops'",
    ),
    "an unknown section of a variant": (
        "[[variants]]\nname = 'a'\nfault = []",
        "line 3: variants.0.fault",
        "'faults'",
    ),
    "no pattern": (
        "[expect]\noutcome = 'failed'\nerror = '['",
        "line 3: expect.error",
        "no regular expression",
    ),
    "an empty pattern": ("[expect]\nerror = ''", "line 2: expect.error", "at least 1"),
    "no TOML": ("name = ", "read scenario f.toml", "toml.io"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_refused_with_its_place_and_its_remedy(what: str) -> None:
    text, place, remedy = REFUSED[what]
    error = refusal(text)
    assert error.exit_code == 2
    assert "f.toml" in error.tried
    assert error.tried.endswith(place) or place in error.tried
    assert error.said
    assert remedy in error.remedy


NONSENSE = {
    "post-copy of a VF": ("mode='hostdev'", "method='postcopy'", "", "policy.method"),
    "post-copy of a VF at a timeout": ("mode='hostdev'", "on_timeout='postcopy'", "", "DMA"),
    "parallel post-copy": ("", "parallel_connections=2\nmethod='postcopy'", "", "exclude"),
    "parallel xbzrle": ("", "parallel_connections=2\ncompression='xbzrle'", "", "exclude"),
    "zstd on one connection": ("", "compression='zstd'", "", "parallel"),
    "convergence of a file": ("", "method='save-restore'\nauto_converge=true", "", "converge"),
    "post-copy's bandwidth alone": ("", "postcopy_bandwidth_mib_s=3", "", "no post-copy"),
    "an abort too late": ("", "abort_at='resumed'", "outcome='aborted'", "aborted in this phase"),
    "an abort when it has come back": (
        "mode='failover'",
        "abort_at='replug'",
        "outcome='aborted'",
        "aborted in this phase",
    ),
    "an abort of a pass that never is": (
        "",
        "method='save-restore'\nabort_at='precopy'",
        "outcome='aborted'",
        "aborted in this phase",
    ),
    "an abort that completes": ("", "abort_at='precopy'", "", "expected to be completed"),
    "there and back, held by the target": ("", "hops=2", "", "even number"),
    "held twice by one": ("", "", "held_by=['target', 'target']", "twice"),
    "a fault that never comes": (
        "",
        "",
        "[[faults]]\nat='postcopy'\ndo='kill-guest'",
        "never has",
    ),
    "a crash for a while": (
        "",
        "",
        "[[faults]]\nat='setup'\ndo='kill-guest'\nfor_s=3",
        "a kill can't be undone",
    ),
    "a crash of no process": (
        "",
        "",
        "[[faults]]\nat='precopy'\ndo='stop-backend'",
        "no process backs",
    ),
    "a feature that is none": ("mode='vdpa'\nvdpa.features_off=['csm']", "", "", "no feature"),
    "memory that nobody writes": ("", "", "[workload]\ndirty_mib=0", "memory can't"),
    "connections that nobody opens": ("", "", "[workload]\ntcp_connections=0", "connections can't"),
    "more memory than there is": ("", "", "[workload]\ndirty_mib=41", "not that much"),
    "an MTU of a vhost-user port": ("mode='vhost-user'\nmtu=9000", "", "", "a link of the host"),
    "options of a VF that is none": ("mode='virtio'\nvf.trust=true", "", "", "no VF"),
    "a port profile and a VLAN": (
        "mode='hostdev'\nvf.vlan=2\nvf.port_profile='gold'",
        "",
        "",
        "exclude each other",
    ),
    "packed rings of a VF": ("mode='hostdev'\nring='packed'", "", "", "driver's own"),
    "a saved VF": ("mode='failover'", "method='save-restore'", "", "can't be saved"),
    "virtio taken out": ("", "method='reattach'", "", "can be reattached"),
    "a failover on plain PCI": (
        "mode='failover'",
        "",
        "[guest]\nmachine='pc'",
        "PCI Express",
    ),
    "a multicast address": ("mac='53:54:00:00:00:01'", "", "", "multicast"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_across_keys_is_refused(what: str) -> None:
    interface, policy, expect, said = NONSENSE[what]
    head = "" if expect.startswith("[") else "[expect]\n"
    error = refusal(f"[interface]\n{interface}\n[policy]\n{policy}\n{head}{expect}\n")
    assert said in str(error)
    assert re.search(r"f\.toml(, line \d+)?: [a-z]+", error.tried)
    assert error.remedy


def test_what_can_be_done_is_not_called_nonsense() -> None:
    for text in (
        "[interface]\nmode='vhost-user'\n[policy]\nmethod='postcopy'",
        "[interface]\nmode='failover'\n[policy]\nmethod='postcopy'",
        "[policy]\nhops=2\n[expect]\nheld_by=['source']",
        "[policy]\nparallel_connections=2\ncompression='zlib'",
        "[interface]\nqueues=4",
        "[interface]\nmode='failover'\nring='packed'\nvf.vlan=42",
        "[interface]\nmode='hostdev'\nvf.managed=false\n[policy]\nmethod='reattach'",
        "[policy]\non_timeout='postcopy'\npostcopy_bandwidth_mib_s=3\n"
        "[[faults]]\nat='postcopy'\ndo='kill-guest'",
    ):
        assert parse(text, "f.toml").cases


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("policy.hop=2", "no such key"),
        ("hops", "key=value"),
        ("=3", "key=value"),
        ("x.y=3", "no such key"),
        ("interface.mode=virtoi", "not allowed"),
        ("name=x", "no such key"),
        ('interface.mode=["virtio", "virtio"]', "twice"),
    ],
)
def test_a_wrong_override_is_refused_by_its_name(override: str, said: str) -> None:
    error = refusal(MATRIX, override)
    assert error.tried.startswith("--set")
    assert said in error.said


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        load(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"binary\.toml"):
        load(tmp_path / "binary.toml")


def test_two_files_that_make_the_same_case_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.toml").write_text("")
    with pytest.raises(ConfigurationError, match="also made by"):
        load_all([tmp_path / "a" / "same.toml", tmp_path / "b" / "same.toml"])


# --- a lab's own defaults ---

SLOW = {"workload": {"interval_us": 5000, "floor_s": 3}}


@pytest.mark.parametrize(
    ("text", "overrides", "workload"),
    [
        pytest.param("", (), (5000, 3, 8), id="nothing-is-said"),
        pytest.param("[workload]\ndirty_mib = 4\n", (), (5000, 3, 4), id="of-another-key"),
        pytest.param("[workload]\nfloor_s = 2\n", (), (5000, 2, 8), id="the-scenario"),
        pytest.param("", ("workload.interval_us=2000",), (2000, 3, 8), id="--set"),
        pytest.param('[matrix]\n"workload.floor_s" = [2]\n', (), (5000, 2, 8), id="its-matrix"),
        pytest.param(
            '[[variants]]\nname = "v"\nworkload.floor_s = 2\n', (), (5000, 2, 8), id="a-variant"
        ),
    ],
)
def test_a_lab_says_only_what_is_left_open(
    text: str, overrides: tuple[str, ...], workload: tuple[int, float, int]
) -> None:
    (case,) = parse(text, "f.toml", overrides, SLOW).cases
    asked = case.workload
    assert (asked.interval_us, asked.floor_s, asked.dirty_mib) == workload
    assert SLOW == {"workload": {"interval_us": 5000, "floor_s": 3}}, "it serves other files, too"


def test_a_labs_defaults_are_no_part_of_what_is_compared(tmp_path: Path) -> None:
    base = tmp_path / "base.toml"
    base.write_text("[workload]\nfloor_s = 2\n")
    alone = for_modes(["virtio", "vdpa"], None, ("workload.dirty_mib=4",), SLOW)
    on_a_scenario = for_modes(["virtio", "vdpa"], base, (), SLOW)
    assert [case.id for case in alone.cases] == ["compare-virtio", "compare-vdpa"]
    assert [case.id for case in on_a_scenario.cases] == ["base-virtio", "base-vdpa"]
    found = [(case.workload.interval_us, case.workload.floor_s) for case in alone.cases]
    assert found == [(5000, 3), (5000, 3)]
    found = [(case.workload.interval_us, case.workload.floor_s) for case in on_a_scenario.cases]
    assert found == [(5000, 2), (5000, 2)]


def test_every_shipped_scenario_can_be_had_with_the_nested_labs_defaults() -> None:
    defaults = load_lab(ROOT / "labs" / "nested.toml").scenario_defaults()
    cases = [case for scenario in load_all(SCENARIOS, (), defaults) for case in scenario.cases]
    assert len(cases) == sum(len(scenario.cases) for scenario in load_all(SCENARIOS))
    assert {case.workload.interval_us for case in cases} >= {5000}


@pytest.mark.parametrize(
    "at", ["postcopy-device", "postcopy-paused", "postcopy-recover-setup", "failing"]
)
def test_a_fault_can_aim_at_a_status_of_a_newer_qemu(at: str, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    fault = f'faults = [{{ at = "{at}", do = "kill-guest" }}]'
    file.write_text(f'name = "x"\npolicy.method = "postcopy"\n{fault}\n')
    (case,) = load(file).cases
    assert case.faults[0].at == at


def test_the_schema_for_editors_is_current() -> None:
    committed = json.loads((ROOT / "docs" / "scenario.schema.json").read_text())
    assert committed == schema(), (
        "write it again: python -c 'import json; from migrate.scenario.loader import schema; "
        "print(json.dumps(schema(), indent=2))' > docs/scenario.schema.json"
    )


def test_the_schema_knows_every_key_of_the_shipped_scenarios() -> None:
    known = schema()["properties"]
    assert "interface.mode" in known["matrix"]["properties"]
    assert known["matrix"]["additionalProperties"] is False
    assert {"id", "row", "source_file"}.isdisjoint(known)


def examples() -> list[str]:
    text = (ROOT / "docs" / "scenario-files.md").read_text()
    return re.findall(r"```toml\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("example", examples())
def test_the_examples_of_the_documentation_are_right(example: str) -> None:
    assert parse(example, "docs/scenario-files.md").cases
