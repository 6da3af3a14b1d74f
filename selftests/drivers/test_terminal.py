"""A program at a terminal of its own that is relayed to ours: as who sits there sees it."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from migrate.drivers.terminal import run_at_terminal, run_attached
from migrate.errors import HostError
from selftests.doubles.keyboard import SIZE, Keyboard, at_keyboard

RELAY = """
import sys
from pathlib import Path
from migrate.drivers.terminal import AT_TERMINAL, run_at_terminal
sys.exit(run_at_terminal([*AT_TERMINAL, *sys.argv[1:]], Path("/dev/ptmx")))
"""


def relayed(script: str) -> AbstractContextManager[Keyboard]:
    return at_keyboard([sys.executable, "-c", RELAY, "bash", "-c", script])


def test_it_has_a_terminal_of_its_own_of_our_size() -> None:
    with relayed("tty; stty size; tty </dev/tty") as keyboard:
        assert keyboard.wait() == 0
        own, size, controlling = keyboard.screen.split("\r\n")[:3]
        assert own.startswith("/dev/pts/")
        assert own != keyboard.name
        assert size == f"{SIZE[0]} {SIZE[1]}"
        assert controlling == "/dev/tty"


def test_its_exit_status_comes_back() -> None:
    with relayed("exit 7") as keyboard:
        assert keyboard.wait() == 7
    with relayed("kill -TERM $$") as keyboard:
        assert keyboard.wait() == 128 + 15, "as a shell tells it"


def test_ctrl_c_is_the_programs() -> None:
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do read x; done"
    with relayed(script) as keyboard:
        keyboard.await_text("ready")
        keyboard.type("\x03")
        assert keyboard.wait() == 5
        assert "caught" in keyboard.screen
        assert "KeyboardInterrupt" not in keyboard.screen


def test_what_is_typed_reaches_it_and_is_shown_once() -> None:
    with relayed("echo ready; read line; echo got $line; read -s -p quiet line") as keyboard:
        keyboard.await_text("ready")
        keyboard.type("hello\n")
        keyboard.await_text("quiet")
        assert keyboard.screen.count("hello") == 2, "echoed by one terminal, not by two"
        keyboard.type("secret\n")
        assert keyboard.wait() == 0
        assert "secret" not in keyboard.screen


def test_it_hears_of_another_size() -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; sleep 1000 & wait"
    with relayed(script) as keyboard:
        keyboard.await_text("ready")
        keyboard.resize((11, 22))
        assert keyboard.wait() == 0
        assert "11 22" in keyboard.screen


def test_our_terminal_is_as_it_was() -> None:
    with relayed("read x; exit 1") as keyboard:
        before = keyboard.modes
        keyboard.type("\n")
        assert keyboard.wait() == 1
        assert keyboard.modes == before


def test_all_that_it_said_is_shown() -> None:
    with relayed("seq 20000") as keyboard:
        assert keyboard.wait() == 0
        assert keyboard.screen.split("\r\n")[:-1] == [str(n) for n in range(1, 20001)]


def test_what_it_leaves_behind_is_not_waited_for() -> None:
    with relayed("sleep 1000 & echo left it") as keyboard:
        assert keyboard.wait() == 0
        assert "left it" in keyboard.screen


def test_without_a_devpts_there_is_no_terminal(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"open a pseudo-terminal by .*ptmx: .*No such file"):
        run_at_terminal(["true"], tmp_path / "ptmx")


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -KILL $$", 137)])
def test_without_a_terminal_its_status_comes_back_too(script: str, status: int) -> None:
    assert run_attached(["sh", "-c", script]) == status
