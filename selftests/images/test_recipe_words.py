"""Recipes' words that become arguments of programs that root runs: none is an option."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.errors import ConfigurationError
from migrate.images.initramfs import RECIPES, read_recipe

WHOLE = {
    "suite": "'trixie'",
    "kernel": "'linux-image-cloud-amd64'",
    "cmdline": "'console=ttyS0'",
}
OPTIONS = (
    "-oDPkg::Pre-Invoke::=id",
    "--help",
    "-t",
    "a,b",
    "a b",
    "a\\nb",
    "a-",
    "",
    "?name(x)",
    "A",
)


def written(folder: Path, **fields: str) -> Path:
    path = folder / "x.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in {**WHOLE, **fields}.items()))
    return path


@pytest.mark.parametrize("word", OPTIONS)
@pytest.mark.parametrize("key", ["packages", "system", "modules", "optional_modules"])
def test_a_list_takes_names_alone(key: str, word: str, tmp_path: Path) -> None:
    if key.endswith("modules") and word in ("A", "a-"):
        return  # names of modules may be like that
    with pytest.raises(ConfigurationError, match=rf"line \d+: {key}\.0 ="):
        read_recipe(written(tmp_path, **{key: f'["{word}"]'}))


@pytest.mark.parametrize(
    ("key", "word"),
    [
        *(("kernel", word) for word in OPTIONS),
        *(("suite", word) for word in ("-x", "", "a b", "a/b")),
        *(("cmdline", word) for word in ("a\\nAPPEND b", "a\\u0000", "é")),
        *(("mirror", word) for word in ("-x", "ftp://x", "http://a b", "http://a\\nb", "")),
    ],
)
def test_a_key_takes_its_own_form_alone(key: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"line \d+: {key} = "):
        read_recipe(written(tmp_path, **{key: f'"{word}"'}))


@pytest.mark.parametrize("pin", ["'-o' = {version = '1'}", "x = {version = '-o1'}"])
def test_pins_too(pin: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"line \d+: pinned"):
        read_recipe(written(tmp_path, pinned=f"{{{pin}}}"))


def test_names_as_debian_has_them(tmp_path: Path) -> None:
    names = '["g++", "libc6", "libstdc++6", "python3.11", "x"]'
    assert len(read_recipe(written(tmp_path, packages=names)).packages) == 5
    assert all(read_recipe(path) for path in RECIPES.glob("*.toml"))
