"""Lab files: what is wrong is refused with the file and the key, before any host is touched."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from migrate.errors import ConfigurationError
from migrate.lab.kinds import load_lab
from migrate.lab.local.config import LocalConfig, LocalHostConfig
from migrate.lab.nested.config import MachineConfig, NestedConfig
from migrate.lab.rack.config import RackConfig
from migrate.lab.rootfs import RECIPES
from migrate.lab.state import LabRecord, new_record
from selftests.helpers import ROOT

NESTED = 'kind = "nested"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


SHIPPED = sorted(path for path in (ROOT / "labs").glob("*.toml") if path.stem != "rack")


def test_the_example_of_a_rack_is_one() -> None:
    lab = load_lab(ROOT / "labs/rack.toml")
    assert isinstance(lab, RackConfig)
    assert lab.hosts["a"].resources.ovs_bridge == "br-dpdk"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_lab_file_that_is_shipped_can_be_used(path: Path) -> None:
    lab = load_lab(path)
    assert len(lab.hosts) >= 2
    assert {host.root for host in lab.hosts.values()} <= {*RECIPES, "/"}


@pytest.mark.parametrize(
    ("file", "roots"),
    [
        ("local", ["debian-13", "debian-13"]),
        (
            "versions",
            [
                "debian-13",
                "debian-13-backports",
                "debian-12-backports",
                "debian-12",
                "debian-sid",
            ],
        ),
        ("oldest", ["debian-12", "debian-13"]),
        ("nested", ["debian-12-backports", "debian-12-backports"]),
        ("nested-virtio", ["debian-13-backports", "debian-13-backports"]),
    ],
)
def test_the_shipped_labs_hold_what_their_names_say(file: str, roots: list[str]) -> None:
    lab = load_lab(ROOT / "labs" / f"{file}.toml")
    assert [host.root for host in lab.hosts.values()] == roots
    assert list(lab.hosts) == list("abcde")[: len(roots)]


@pytest.mark.parametrize(("file", "nic"), [("nested", "igb"), ("nested-virtio", "virtio")])
def test_the_shipped_nested_labs_have_both_kinds_of_card(file: str, nic: str) -> None:
    lab = load_lab(ROOT / "labs" / f"{file}.toml")
    assert isinstance(lab, NestedConfig)
    assert {host.nic for host in lab.hosts.values()} == {nic}


def test_labs_that_are_shipped_can_be_up_at_once() -> None:
    files = sorted((ROOT / "labs").glob("*.toml"))
    assert len({load_lab(path).name for path in files}) == len(files)


def test_no_file_means_two_hosts_of_the_default_root() -> None:
    assert load_lab(None) == LocalConfig()
    assert load_lab(ROOT / "labs/local.toml") == LocalConfig()


def test_a_name_given_on_the_command_line_wins(tmp_path: Path) -> None:
    path = written(tmp_path, 'name = "mine"\n')
    assert load_lab(path).name == "mine"
    assert load_lab(path, "other").name == "other"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('name = "Mine"', "name"),
        ('name = "much-too-long"', "name"),
        ('name = "../escape"', "name"),
        ("colour = 1", "colour"),
        ('kind = "cloud"', "kind"),
        ("[hosts.a]\n", "hosts"),
        ("[hosts.a]\nhuge_pages = -1\n[hosts.b]\n", "hosts.a.huge_pages"),
        ("[hosts.a]\nmemory = 1\n[hosts.b]\n", "hosts.a.memory"),
        ("[hosts.a]\n[hosts.B]\n", "hosts.B"),
        ("".join(f"[hosts.h{number}]\n" for number in range(9)), "hosts"),
        ("[workload]\nspeed = 1\n", "workload.speed"),
        ("[workload]\ninterval_us = 1\n", "workload.interval_us"),
        ("[workload]\ninterval_us = 5000.0\n", "workload.interval_us"),
        ("[hosts.a]\nmemory_mib = 1280\n[hosts.b]\n", "hosts.a.memory_mib"),
        (NESTED + "colour = 1", "colour"),
        (NESTED + "[hosts.a]\n", "hosts"),
        (NESTED + "[hosts.a]\nhuge_pages = -1\n[hosts.b]\n", "hosts.a.huge_pages"),
        (NESTED + "[hosts.a]\nmemory_mib = 767\n[hosts.b]\n", "hosts.a.memory_mib"),
        (NESTED + "[hosts.a]\nmemory_mib = 2753\n[hosts.b]\n", "hosts.a.memory_mib"),
        (NESTED + "[hosts.a]\nnic = 'e1000'\n[hosts.b]\n", "hosts.a.nic"),
        (NESTED + "[hosts.a]\ncpus = 2\n[hosts.b]\n", "hosts.a.cpus"),
        (NESTED + "[hosts.a]\nroot = '/'\n[hosts.b]\n", "hosts.a.root"),
        (NESTED + "[workload]\nspeed = 1\n", "workload.speed"),
    ],
)
def test_what_is_wrong_is_told_by_file_and_key(tmp_path: Path, text: str, key: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load_lab(path)
    assert str(path) in caught.value.tried
    assert f": {key}" in caught.value.tried
    assert caught.value.said
    assert caught.value.remedy
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("memory", [768, 2752])
def test_the_bounds_of_a_nested_hosts_memory_are_allowed(tmp_path: Path, memory: int) -> None:
    hosts = f"[hosts.a]\nmemory_mib = {memory}\n[hosts.b]\n"
    lab = load_lab(written(tmp_path, NESTED + hosts))
    assert isinstance(lab, NestedConfig)
    assert [host.memory_mib for host in lab.hosts.values()] == [memory, 1280]


def test_a_labs_own_workload_is_what_scenarios_leave_open(tmp_path: Path) -> None:
    text = NESTED + "[workload]\ninterval_us = 5000\nfloor_s = 3\n"
    lab = load_lab(written(tmp_path, text))
    assert lab.scenario_defaults() == {"workload": {"interval_us": 5000, "floor_s": 3}}
    assert LocalConfig().scenario_defaults() == {}


@pytest.mark.parametrize("made", [LocalConfig(name="x"), NestedConfig(name="x")])
def test_the_journal_remembers_which_kind_a_lab_is(
    made: LocalConfig | NestedConfig, tmp_path: Path
) -> None:
    roots = {host.root: tmp_path for host in made.hosts.values()}
    record = new_record(made, roots, "mlab-x", tmp_path)
    again = LabRecord.model_validate_json(record.model_dump_json())
    assert again.config == made
    assert type(again.config) is type(made)


def test_a_file_that_is_not_there_is_named_with_one_that_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist") as caught:
        load_lab(tmp_path / "none.toml")
    assert str(tmp_path / "none.toml") in str(caught.value)
    assert "labs/local.toml" in caught.value.remedy


@pytest.mark.parametrize("content", [b"hosts = [", b"name = '\xff'"])
def test_a_file_that_is_no_toml_is_told_as_such(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_lab(path)
    assert str(path) in str(caught.value)
    assert caught.value.said


def test_every_key_and_every_root_is_in_the_reference() -> None:
    text = (ROOT / "docs/lab-files.md").read_text()
    labs = {*LocalConfig.model_fields, *NestedConfig.model_fields}
    keys = {*labs, *LocalHostConfig.model_fields, *MachineConfig.model_fields, *RECIPES}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_the_examples_in_the_reference_can_be_used(tmp_path: Path) -> None:
    text = (ROOT / "docs/lab-files.md").read_text()
    examples = [part.partition("```")[0] for part in text.split("```toml\n")[1:]]
    assert examples
    for example in examples:
        tomllib.loads(example)
        load_lab(written(tmp_path, example))


def test_a_local_host_takes_no_pages_or_modules_of_the_machine(tmp_path: Path) -> None:
    text = "[hosts.a.prepare]\n{} \n[hosts.b]\n"
    for wish in ("huge_pages = 1", 'modules = ["vfio-pci"]'):
        with pytest.raises(ConfigurationError, match="are the machine's"):
            load_lab(written(tmp_path, text.format(wish)))
        assert load_lab(written(tmp_path, NESTED + text.format(wish)))
    assert load_lab(written(tmp_path, text.format('bridge = "taps"')))


@pytest.mark.parametrize("table", ["lends", "resources"])
def test_what_a_host_of_a_rack_provides_is_read_under_either_name(
    table: str, tmp_path: Path
) -> None:
    text = (ROOT / "labs/rack.toml").read_text().replace(".resources]", f".{table}]")
    lab = load_lab(written(tmp_path, text))
    assert isinstance(lab, RackConfig)
    assert lab.hosts["b"].resources.pf == "ens2f0np0"
