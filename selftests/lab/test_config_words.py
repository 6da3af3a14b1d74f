"""Lab files' words that become arguments of programs on a host, and folders of the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.errors import ConfigurationError
from migrate.lab.config import cache_folder, state_folder
from migrate.lab.kinds import load_lab

RACK = """\
kind = "rack"
guest_address = "192.0.2.2"
{more}
[peer]
ssh = "{peer_ssh}"
interface = "{interface}"
address = "192.0.2.1"
[hosts.a]
ssh = "{ssh}"
root = "{root}"
migration_address = "198.51.100.1"
resources = {{ {resources} }}
[hosts.b]
ssh = "b"
migration_address = "198.51.100.2"
"""
USUAL = {
    "more": "",
    "peer_ssh": "peer",
    "interface": "eth1",
    "ssh": "ada@host-a",
    "root": "rhel-9",
    "resources": 'bridge = "br0"',
}
OPTIONS = ("-x", "--help", "-oProxyCommand=id", "", "a b", "a\\nb", "a\\u0000", "$(id)", "x" * 300)


def lab(folder: Path, **fields: str) -> Path:
    path = folder / "x.toml"
    path.write_text(RACK.format(**{**USUAL, **fields}))
    return path


def test_the_usual_words_are_taken(tmp_path: Path) -> None:
    load_lab(lab(tmp_path))
    every = (
        'bridge = "br0", ovs_bridge = "br-int", ovs_uplink = "eth0.100", migration_link = "eno1", '
        'pf = "ens1f0np0", vdpa = ["pci/0000:00:10.0", "vdpasim_net"]'
    )
    load_lab(lab(tmp_path, resources=every, more='coordinator = "[fd00::1]:20408"'))
    old = lab(tmp_path)
    old.write_text(old.read_text().replace("resources", "lends"))
    load_lab(old)


@pytest.mark.parametrize("word", OPTIONS)
@pytest.mark.parametrize("key", ["bridge", "ovs_bridge", "ovs_uplink", "migration_link", "pf"])
def test_links_are_names_of_links(key: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"hosts\.a"):
        load_lab(lab(tmp_path, resources=f'{key} = "{word}"'))


@pytest.mark.parametrize("word", [*OPTIONS, "pci/-x", "pci/", "../x", "a/b/c"])
def test_management_devices_are_handles(word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"hosts\.a"):
        load_lab(lab(tmp_path, resources=f'vdpa = ["{word}"]'))


@pytest.mark.parametrize("word", [*OPTIONS, "a@-oX", "@a", "a/b", "a;b"])
@pytest.mark.parametrize("key", ["ssh", "peer_ssh", "interface", "root"])
def test_hosts_and_links_begin_as_no_option_does(key: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"line \d+: (peer|hosts\.a)\.\w+ = "):
        load_lab(lab(tmp_path, **{key: word}))


@pytest.mark.parametrize("word", ["-x:1", "x", ":1", "x:", "a b:1", "x:123456"])
def test_a_coordinator_is_an_address(word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"line 3: coordinator = "):
        load_lab(lab(tmp_path, more=f'coordinator = "{word}"'))


@pytest.mark.parametrize("text", ["x", "./x", "/a,b", "/a:b", "/a\\b", '/a"b', "/a\nb", "/\udcff"])
def test_a_folder_of_the_environment_is_absolute_and_parts_no_option(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, folder in (
        ("MIGRATE_LAB_CACHE", cache_folder),
        ("MIGRATE_LAB_STATE", state_folder),
    ):
        monkeypatch.setenv(variable, text)
        with pytest.raises(ConfigurationError, match=variable):
            folder()
