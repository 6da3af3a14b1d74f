"""The door to other programs: what they said, and never past a deadline."""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from pathlib import Path

import pytest

from migrate import log
from migrate.clock import Deadline
from migrate.drivers import shell
from migrate.drivers.shell import run, tail
from migrate.errors import HostError


def ended(pid: int) -> bool:
    """Whether ``pid`` is gone within a while; its end is an event on its descriptor."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


def test_a_program_gets_its_input_and_its_words_come_back() -> None:
    done = run(["sh", "-c", "cat; echo no >&2"], Deadline.after(10), text="yes ü")
    assert (done.out, done.err, done.status) == ("yes ü", "no\n", 0)


def test_what_a_program_did_is_a_detail_for_who_debugs() -> None:
    lines: list[str] = []
    with log.shown(lines.append, logging.DEBUG):
        run(["sh", "-c", "exit 3", "x" * 1000], Deadline.after(10), host="a", check=False)
    (line,) = lines
    assert line.startswith("migrate.drivers.shell: a: sh -c exit 3 xxx")
    assert "x: exit status 3 after " in line
    assert len(line) < 400


def test_input_is_empty_unless_given() -> None:
    assert run(["cat"], Deadline.after(10)).out == ""


def test_a_status_other_than_0_is_an_error_with_the_programs_own_words() -> None:
    with pytest.raises(HostError) as caught:
        run(["sh", "-c", "echo broken >&2; exit 3"], Deadline.after(10), host="a", remedy="mend it")
    assert caught.value.said == "broken"
    assert caught.value.host == "a"
    assert caught.value.remedy == "mend it"
    assert "sh -c" in caught.value.tried


def test_a_silent_failure_still_says_its_status() -> None:
    with pytest.raises(HostError, match="exit status 7"):
        run(["sh", "-c", "exit 7"], Deadline.after(10))


def test_without_check_a_status_is_an_answer() -> None:
    assert run(["sh", "-c", "exit 7"], Deadline.after(10), check=False).status == 7


def test_a_program_that_is_not_there_says_so_and_what_to_do() -> None:
    with pytest.raises(HostError, match="no-such-program is not installed") as caught:
        run(["no-such-program"], Deadline.after(10), remedy="apt-get install it")
    assert caught.value.remedy == "apt-get install it"


def test_output_that_is_no_text_does_not_break_anything() -> None:
    assert run(["printf", r"a\377b"], Deadline.after(10)).out == "a�b"


def test_past_the_deadline_the_program_and_its_children_are_gone(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pids.read_text()))
    reader.start()
    script = f"sleep 1000 & echo $$ $! >{pids}; wait"
    with pytest.raises(HostError, match="no end after"):
        run(["sh", "-c", script], Deadline.after(0.5))
    reader.join()
    assert all(ended(int(pid)) for pid in found[0].split())


def test_an_interrupt_leaves_no_program_behind(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    found: list[str] = []

    def interrupt() -> None:
        found.append(pids.read_text())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    script = f"sleep 1000 & echo $$ $! >{pids}; wait"
    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", script], Deadline.after(60))
    waiting.join()
    assert all(ended(int(pid)) for pid in found[0].split())


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(20)))
    assert tail(log, 2) == "line 18\nline 19"


def test_a_log_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    assert "does not exist" in tail(tmp_path / "log")


def test_a_program_that_says_too_much_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "MOST_BYTES", 1 << 20)
    with pytest.raises(HostError, match="it said more than 1 MiB") as caught:
        run(["sh", "-c", "echo $$; exec yes"], Deadline.after(60), host="a")
    assert caught.value.host == "a"


def test_input_that_nobody_reads_is_no_error() -> None:
    assert run(["true"], Deadline.after(20), text="x" * 1_000_000).status == 0


@pytest.mark.parametrize("argv", [["echo", "a\0b"], ["/"], ["echo", *["x" * 100_000] * 40]])
def test_what_can_not_be_started_is_an_error_of_ours(argv: list[str]) -> None:
    with pytest.raises(HostError):
        run(argv, Deadline.after(20), host="a")


def test_the_tail_of_a_log_of_one_line_without_end_is_short(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xff" * 1_000_000)
    assert len(tail(log)) == shell.CHUNK
    assert "can't be read" in tail(tmp_path)
