"""Small files of a host in one go: here, and by the probe that runs there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.lab.small_files import MOST_BYTES, LocalFiles, RemoteFiles, SmallFiles
from selftests.helpers import soon


class Answers:
    """A probe that runs here, or says what it is told to."""

    def __init__(self, process: subprocess.Popen[str] | None = None, text: str = "") -> None:
        self.process, self.text = process, text

    def ask(self, line: str, _deadline: Deadline) -> str:
        """See Asked."""
        if self.process is None:
            return self.text
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()


@pytest.fixture(params=["here", "by the probe"])
def files(request: pytest.FixtureRequest, program: Path) -> Iterator[SmallFiles]:
    if request.param == "here":
        yield LocalFiles()
        return
    with subprocess.Popen(
        [program, "--files"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield RemoteFiles("a", Answers(process))
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


def test_what_is_there_is_read_and_what_is_not_is_left_out(
    files: SmallFiles, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(b"1 2\nno utf-8: \xff\n")
    wanted = [str(tmp_path / "small"), str(tmp_path / "none"), str(tmp_path), "/proc/loadavg"]
    found = files.read(wanted, soon())
    assert set(found) == {str(tmp_path / "small"), "/proc/loadavg"}
    assert found[str(tmp_path / "small")] == "1 2\nno utf-8: �\n"


def test_again_and_again_and_nothing_at_all(files: SmallFiles) -> None:
    assert files.read([], soon()) == {}
    for _ in range(3):
        assert list(files.read(["/proc/stat"], soon())) == ["/proc/stat"]


def test_a_file_that_is_not_small_is_cut_off(files: SmallFiles, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_text("x" * 100_000)
    assert len(files.read([str(path)], soon())[str(path)]) == MOST_BYTES


@pytest.mark.parametrize(
    "said", ["", "[7]", "{", json.dumps({"/x": 7}), '{"/x": "*"}', "[[", '{"/x": "a"}']
)
def test_an_answer_that_is_none(said: str) -> None:
    with pytest.raises(HostError, match="read small files on host a: "):
        RemoteFiles("a", Answers(text=said)).read(["/x"], soon())
