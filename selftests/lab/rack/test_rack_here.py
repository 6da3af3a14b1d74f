"""The rack on this machine as a program: its help, its refusals, and its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from selftests.doubles import rack_here
from selftests.helpers import ROOT


def started(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "selftests.doubles.rack_here", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_says_how_it_is_used(word: str) -> None:
    done = started(word)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: python -m selftests.doubles.rack_here [-h] NAME -- COMMAND …" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "required: NAME"),
        (("rk",), "no COMMAND after --"),
        (("Ux4", "--", "true"), "'Ux4': a small letter, then at most seven small letters"),
    ],
)
def test_what_is_wrong_is_told_without_a_traceback(words: tuple[str, ...], said: str) -> None:
    done = started(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_words_of_a_command_are_its_own() -> None:
    words = ["rk", "--", "migrate-lab", "run", "x.toml", "--lab", "LAB", "--", "-x"]
    assert rack_here.parsed(words) == ("rk", words[2:])


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """What happens to a rack that costs nothing."""
    noted: list[str] = []

    @contextmanager
    def rack(name: str, _folder: Path) -> Iterator[SimpleNamespace]:
        noted.append(f"{name} is made")
        try:
            yield SimpleNamespace(file=tmp_path / "lab.toml", controller=list)
        finally:
            noted.append(f"{name} is taken away")

    monkeypatch.setattr(rack_here, "rack", rack)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield noted
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_lab_file_takes_the_place_of_its_word(steps: list[str], tmp_path: Path) -> None:
    found = tmp_path / "found"
    words = ["rk", "--", "sh", "-c", f'echo "$1" >{found}; exit 7', "sh", "LAB"]
    assert rack_here.main(words) == 7
    assert found.read_text() == f"{tmp_path / 'lab.toml'}\n"
    assert steps == ["rk is made", "rk is taken away"]


@pytest.mark.parametrize("name", ["TERM", "HUP"])
def test_a_signal_ends_the_command_and_the_rack(
    name: str, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(signal, f"SIG{name}")

    class Signalled(subprocess.Popen[bytes]):
        """While it is waited for, the program gets the signal."""

        def wait(self, timeout: float | None = None) -> int:
            if signal.getsignal(number) is rack_here.end_by_signal and not ended:
                ended.append(self)
                signal.raise_signal(number)
            return super().wait(timeout)

    ended: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(subprocess, "Popen", Signalled)
    with pytest.raises(SystemExit) as end:
        rack_here.main(["rk", "--", "sleep", "1000"])
    assert end.value.code == 128 + number
    assert [process.returncode for process in ended] == [-signal.SIGTERM]
    assert steps == ["rk is made", "rk is taken away"]
