"""A folder of the user's for every host: what is refused before a lab is up, and where it goes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from migrate.cli.main import cli
from migrate.errors import ConfigurationError, HostError
from migrate.lab import fabric_kind, manager, namespaces
from migrate.lab.config import LabConfig
from migrate.lab.local.config import LocalConfig
from migrate.lab.local.lab import LocalLab
from migrate.lab.nested import lab as nested
from migrate.lab.nested.config import NestedConfig
from migrate.lab.nested.lab import NestedLab
from migrate.lab.nested.machine import Machine
from migrate.lab.rack import lab as rack
from migrate.lab.rack.config import RackConfig
from migrate.lab.shared_folder import SharedFolder, parse_shared_folder
from migrate.lab.state import LabRecord, new_record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    made.mkdir()
    return made


# --- what --share says ----------------------------------------------------------------------------


def test_a_folder_is_read_only_unless_it_is_said(folder: Path) -> None:
    assert parse_shared_folder(str(folder)) == SharedFolder(path=folder)
    assert parse_shared_folder(f"{folder}:ro") == SharedFolder(path=folder)
    assert parse_shared_folder(f"{folder}:rw") == SharedFolder(path=folder, writable=True)


def test_it_is_where_its_links_lead(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert parse_shared_folder("link").path == folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param("gone", "No such file or directory", id="gone"),
        pytest.param("gone:rw", "No such file or directory", id="gone-for-writing"),
        pytest.param("file", "it is no folder", id="file"),
        pytest.param("a,b", "can't be in options", id="comma"),
        pytest.param("a:b", "can't be in options", id="colon"),
        pytest.param("loop", "(?i)symlink loop|symbolic link", id="loop"),
    ],
)
def test_what_can_not_be_shared_says_why(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for odd in ("a,b", "a:b"):
        (tmp_path / odd).mkdir()
    with pytest.raises(ConfigurationError, match=said) as caught:
        parse_shared_folder(str(tmp_path / name))
    assert caught.value.tried.startswith("share the folder '")
    assert caught.value.remedy


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def brought_up(monkeypatch: pytest.MonkeyPatch) -> list[SharedFolder | None]:
    """No lab comes up: what it would share is written down."""
    asked: list[SharedFolder | None] = []

    def up(config: LabConfig, share: SharedFolder | None = None) -> object:
        asked.append(share)
        return SimpleNamespace(name=config.name, hosts={"a": None}, close=lambda: None)

    monkeypatch.setattr(manager, "up", up)
    return asked


def test_lab_up_hands_the_folder_on(folder: Path, brought_up: list[SharedFolder | None]) -> None:
    for words in ([], ["--share", str(folder)], ["--share", f"{folder}:rw"]):
        assert CliRunner().invoke(cli, ["lab", "up", *words]).exit_code == 0
    plain = SharedFolder(path=folder)
    assert brought_up == [None, plain, plain.with_(writable=True)]


def test_a_wrong_folder_is_refused_with_all_else_before_a_lab_comes_up(
    tmp_path: Path, brought_up: list[SharedFolder | None]
) -> None:
    words = ["lab", "up", "--name", "Lab", "--share", str(tmp_path / "gone")]
    with pytest.raises(ConfigurationError) as caught:
        CliRunner().invoke(cli, words, catch_exceptions=False, standalone_mode=False)
    assert "a small letter" in str(caught.value)
    assert "No such file or directory" in str(caught.value)
    assert brought_up == []


def test_a_rack_refuses_before_a_host_is_touched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rack, "reach", lambda _config: pytest.fail("a host was touched"))
    config = cast("RackConfig", SimpleNamespace(name="x"))
    with pytest.raises(ConfigurationError, match="hosts of a rack") as caught:
        rack.KIND.up(config, SharedFolder(path=folder))
    assert "NFS" in caught.value.remedy


# --- the lab that is up ---------------------------------------------------------------------------


def record(config: LabConfig, share: SharedFolder | None) -> LabRecord:
    roots = {host.root: Path("/roots/x") for host in config.hosts.values()}
    made = new_record(config, roots, f"mlab-{config.name}-{{}}", Path("/run/migrate-lab"))
    return made.model_copy(update={"share": share})


def test_its_journal_has_it_and_that_of_an_older_version_has_none(folder: Path) -> None:
    shared = SharedFolder(path=folder, writable=True)
    text = record(LocalConfig(), shared).model_dump_json()
    assert LabRecord.model_validate_json(text).share == shared
    older = {key: value for key, value in json.loads(text).items() if key != "share"}
    assert LabRecord.model_validate(older).share is None


@pytest.mark.parametrize(("writable", "how"), [(False, "read-only"), (True, "writable")])
def test_lab_status_shows_it(folder: Path, writable: bool, how: str) -> None:
    shared = SharedFolder(path=folder, writable=writable)
    (line,) = (ln for ln in LocalLab(record(LocalConfig(), shared)).summary() if "share" in ln)
    assert str(folder) in line
    assert "/mnt/share" in line
    assert how in line
    assert not any("share" in ln for ln in LocalLab(record(LocalConfig(), None)).summary())


@pytest.mark.parametrize("there", [True, False])
def test_a_lab_that_is_up_is_used_as_it_is_unless_another_folder_is_named(
    folder: Path, there: bool
) -> None:
    shared = SharedFolder(path=folder)
    up = record(LocalConfig(), shared if there else None)
    fabric_kind._check_same(up, LocalConfig(), None)
    if there:
        fabric_kind._check_same(up, LocalConfig(), shared)
    with pytest.raises(HostError, match="up already, and shares ") as caught:
        fabric_kind._check_same(up, LocalConfig(), shared.with_(writable=True))
    assert (str(folder) if there else "no folder") in caught.value.said
    with pytest.raises(HostError, match="with other hosts"):
        fabric_kind._check_same(up, LocalConfig(name="y"), shared)


# --- where it goes --------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(namespaces, "shared_folder", lambda name: tmp_path / name)
    return tmp_path


def test_every_host_has_it_at_one_place_beside_the_caches(folder: Path, cache: Path) -> None:
    *own, mine = namespaces.mounts(SharedFolder(path=folder))
    assert mine == (folder, "/mnt/share", "ro,nosuid,nodev")
    assert namespaces.mounts(None) == own
    assert [(str(mount.source), mount.options) for mount in own] == [
        (f"{cache}/images", "ro"),
        (f"{cache}/warm", "rw"),
    ]
    (*_, writable) = namespaces.mounts(SharedFolder(path=folder, writable=True))
    assert writable.options == "rw,nosuid,nodev"


def test_a_machine_has_a_device_for_it_and_mounts_it(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the shares that are there always, by 9p; the same machine whatever the folder is."""
    monkeypatch.setattr(nested, "ensure_machine_image", lambda *_: None)
    monkeypatch.setattr(nested, "_accelerator", lambda *_: "tcg")
    scripts: list[list[str]] = []

    class Host:
        def run(self, argv: list[str], *_: Any) -> None:
            scripts.append(argv)

    def machine(share: SharedFolder | None) -> Machine:
        known = record(NestedConfig(), share)
        stand_in = SimpleNamespace(record=known, places={"a": None}, hosts={"a": Host()})
        lab = cast("NestedLab", stand_in)
        made = nested._machine(lab, known.hosts[0])
        nested._settle(lab, made)
        return made

    shared = SharedFolder(path=folder)
    paths = [str(path) for path in machine(shared).shares]
    assert paths == [f"{cache}/images", f"{cache}/warm", "/mnt/share"]
    assert machine(shared.with_(writable=True)).shares == machine(shared).shares
    assert len(machine(None).shares) == 2
    with_it, writable, _, without = (argv[5:] for argv in scripts)
    assert with_it[-1] == "/mnt/share:ro,nosuid,nodev"
    assert writable[-1] == "/mnt/share:rw,nosuid,nodev"
    assert without == with_it[:-1]
