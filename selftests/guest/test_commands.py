"""Commands in the guest: a real probe on this machine, and a guest that answers nonsense."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.clock import Deadline
from migrate.errors import GuestError
from migrate.guest.answers import MOST_OUTPUT
from migrate.guest.commands import MOST_COMMAND, run_command
from migrate.guest.probe import Probe
from migrate.images.initramfs import compile_probe
from selftests.doubles.probe_process import Running, running, wait_until
from selftests.doubles.scripted_transport import Scripted
from selftests.helpers import soon


@pytest.fixture
def guest(program: Path) -> Iterator[Running]:
    with running(program, where="guest on a") as probe:
        yield probe


def test_a_command_says_what_it_wrote_and_how_it_ended(guest: Running) -> None:
    result = run_command(guest, "echo out; echo wrong >&2; exit 3", soon())
    assert (result.status, result.output, result.errors) == (3, "out\n", "wrong\n")
    assert result.said == "it ended with 3: wrong"
    assert run_command(guest, "kill -TERM $$", soon()).status == 128 + 15


def test_a_command_reads_nothing_and_is_told_of_a_pipe_that_is_gone(guest: Running) -> None:
    assert run_command(guest, "cat", soon()).status == 0
    result = run_command(guest, "yes | head -n 1", soon())
    assert (result.output, result.errors) == ("y\n", "")


def test_a_command_may_be_longer_than_a_probe_waits_at_once(guest: Running) -> None:
    assert run_command(guest, "sleep 1.2; echo late", soon()).output == "late\n"


def test_what_goes_on_in_the_background_is_not_waited_for(guest: Running) -> None:
    result = run_command(guest, "sleep 600 & echo $!", soon())
    assert run_command(guest, f"kill {result.output}", soon()).status == 0


def test_a_command_that_takes_too_long_is_killed_with_what_it_started(guest: Running) -> None:
    with pytest.raises(GuestError) as caught:
        run_command(guest, "echo $$ begun; sleep 600 | cat", Deadline.after(0.3))
    error = caught.value
    assert error.tried == "run 'echo $$ begun; sleep 600 | cat' in the guest"
    assert "it took too long, and was killed" in error.said
    assert "begun" in error.said
    pid = error.said.split()[-2]
    wait_until(lambda: run_command(guest, f"pgrep -g {pid}", soon()).status != 0)


def test_a_command_that_nobody_waits_for_is_ended_by_the_next(guest: Running) -> None:
    guest.call("run.start", command="sleep 600")
    assert run_command(guest, "echo next", soon()).output == "next\n"


@pytest.mark.parametrize(
    "command", ["", "echo ü", "echo \0", "x" * (MOST_COMMAND + 1), "\n" * MOST_COMMAND]
)
def test_what_can_be_no_command_is_refused_before_it_is_sent(guest: Running, command: str) -> None:
    with pytest.raises(GuestError, match="in the guest on host guest on a: it"):
        run_command(guest, command, soon())


def test_the_longest_command_and_its_output_come_through(guest: Running) -> None:
    text = "echo " + "x" * (MOST_COMMAND - 5)
    assert run_command(guest, text, soon()).output == text[5:] + "\n"
    much = run_command(guest, f"head -c {MOST_OUTPUT} /dev/zero | tr '\\0' 'y'", soon())
    assert much.output == "y" * MOST_OUTPUT


def test_an_output_that_is_too_long_is_refused_with_its_length(guest: Running) -> None:
    with pytest.raises(GuestError, match=f"it wrote {1 << 20} bytes; at most {MOST_OUTPUT}"):
        run_command(guest, f"head -c {1 << 20} /dev/zero", soon())


@pytest.mark.usefixtures("root")
def test_a_guest_without_a_shell_says_so(tmp_path: Path) -> None:
    compile_probe(tmp_path / "probe")
    with (
        running(Path("/probe"), "chroot", str(tmp_path), where="guest on a") as guest,
        pytest.raises(GuestError, match=r"start a shell: No such file.*/bin/sh or BusyBox"),
    ):
        run_command(guest, "true", soon())


def test_a_probe_that_knows_no_commands_says_what_to_do() -> None:
    def unknown(request: dict[str, object]) -> bytes:
        error = 'no command "run.start" in protocol 3'
        return json.dumps({"id": request["id"], "ok": False, "error": error}).encode() + b"\n"

    with pytest.raises(GuestError, match=r'no command "run\.start".*build the image anew'):
        run_command(Probe(Scripted([unknown]), "guest on a"), "true", soon())


@pytest.mark.parametrize(
    "answer",
    [
        {"ended": True, "status": 256},
        {"ended": True, "status": "0"},
        {"ended": True, "out": "no base64!"},
        {"ended": True, "out": 5},
        {"ended": True, "out": base64.b64encode(bytes(MOST_OUTPUT + 1)).decode()},
        {"status": 0},
    ],
)
def test_a_guest_that_answers_nonsense_is_refused(answer: dict[str, object]) -> None:
    def started(request: dict[str, object]) -> bytes:
        return json.dumps({"id": request["id"], "ok": True}).encode() + b"\n"

    def ended(request: dict[str, object]) -> bytes:
        return json.dumps({"id": request["id"], "ok": True, **answer}).encode() + b"\n"

    probe = Probe(Scripted([started, ended]), "guest on a")
    with pytest.raises(GuestError, match=r"answer to run\.wait is invalid"):
        run_command(probe, "true", soon())
