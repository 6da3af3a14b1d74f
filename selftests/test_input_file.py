"""Files that people name: what has no end, no bottom or no letters is refused, and at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from migrate.errors import ConfigurationError
from migrate.input_file import LARGEST, parse_toml, read_bounded, read_input
from migrate.source_location import lines_of

LINES = 30_000


def test_a_file_as_large_as_it_may_be_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * LARGEST)
    assert len(read_bounded(path)) == LARGEST
    path.write_bytes(b"x" * (LARGEST + 1))
    with pytest.raises(OSError, match="more than"):
        read_bounded(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "socket-less", "nul", "long"])
def test_what_is_no_file_is_refused_without_waiting(kind: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = {
        "folder": tmp_path / "folder",
        "pipe": tmp_path / "pipe",
        "device": Path("/dev/zero"),
        "socket-less": tmp_path / "nothing",
        "nul": tmp_path / "a\0b",
        "long": tmp_path / ("x" * 300),
    }[kind]
    with pytest.raises(ConfigurationError) as caught:
        read_input(path, "read it", "name another")
    assert (caught.value.tried, caught.value.remedy) == ("read it", "name another")


def test_a_byte_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"name = 'caf\xe9'\n")
    with pytest.raises(ConfigurationError, match="byte 11 is 0xe9"):
        read_input(tmp_path / "x", "read it", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"x = {'[' * 2000}{']' * 2000}", "16 deep"),
        (f"x = {'[' * 17}{']' * 17}", "16 deep"),
        (f"{'a.' * 17}b = 1", "16 deep"),
        (f"{'a.' * 40_000}b = 1", "16 deep"),
        (f"[{'a.' * 40_000}b]", "16 deep"),
        (f"x = {'9' * 5000}", "number of thousands of digits"),
        ("x = 1\nx = 2", "overwrite"),
    ],
)
def test_toml_beyond_bounds(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_toml(text, "read it")


def test_toml_as_deep_as_it_may_be() -> None:
    assert parse_toml(f"x = {'[' * 15}{']' * 15}", "read it")["x"]


@pytest.mark.parametrize(
    "text",
    [
        "x = '''" + "\n" * LINES + "'''\ny = 1",
        'x = """' + "\\n\n" * (LINES // 2) + "\n" * (LINES // 2) + '"""\ny = 1',
        "x = [\n" + "1,\n" * (LINES - 2) + "]\ny = 1".replace("]", "\n]", 0),
    ],
    ids=["literal", "basic", "array"],
)
def test_a_value_of_thirty_thousand_lines_is_stepped_over_in_one_pass(text: str) -> None:
    began = time.process_time()
    assert lines_of(text)["y",] == text.count("\n") + 1
    assert time.process_time() - began < 20, "the square of the lines took minutes"


def test_texts_with_what_ends_a_statement_elsewhere() -> None:
    text = (
        "a = '[' # ]\nb = \"#{\\\"[\" \nc = {d = '[', e = [\n1]}\n[f] # [\ng = ''''a''''\nh = 1\n"
    )
    lines = lines_of(text)
    assert [lines[(key,)] for key in ("a", "b", "c", "f")] == [1, 2, 3, 5]
    assert lines["f", "h"] == 7
