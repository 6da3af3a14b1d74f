"""Progress: one changing line on a terminal, plain lines elsewhere, no escape codes from a log."""

from __future__ import annotations

import io

import click
import pytest

from migrate.campaign.progress import Progress, describe, outcome
from migrate.cli import options
from migrate.errors import HostError
from migrate.model import Capability, HostFacts, MachineFacts, MachineState, Sample
from migrate.report.doctor import plain
from selftests.doubles import synthetic

SAMPLE = Sample(at_ns=0, host="a", iteration=2, remaining_bytes=3 << 20, rate_bytes_s=5 << 20)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_that_changes() -> None:
    terminal = Terminal()
    progress = Progress(terminal)
    progress.on_phase("precopy")
    progress.on_sample(SAMPLE)
    progress.on_sample(SAMPLE.model_copy(update={"iteration": 3}))
    progress.say("done")
    first, second, last = terminal.getvalue().split("\r\x1b[K")
    assert "precopy, iteration 2, remaining 3.0 MiB, rate 5.0 MiB/s" in first
    assert "iteration 3" in second
    assert last.endswith("done\n")


def test_a_wait_is_a_line_that_changes_on_a_terminal_and_plain_lines_in_a_log() -> None:
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        progress = Progress(stream)
        progress.say_wait("waiting for host b; 5 s so far, 600 s at most")
        progress.say_wait("waiting for host b; 10 s so far, 600 s at most")
        progress.say("host b is there")
    first, second, last = terminal.getvalue().split("\r\x1b[K")
    assert ("; 5 s so far" in first, "; 10 s so far" in second) == (True, True)
    assert last.endswith("host b is there\n")
    assert terminal.getvalue().count("\n") == 1
    assert len(log.getvalue().splitlines()) == 3


def test_what_follows_a_line_that_changes_begins_a_new_one() -> None:
    terminal = Terminal()
    progress = Progress(terminal)
    progress.end_line()
    assert terminal.getvalue() == ""
    progress.say_wait("waiting for host b")
    progress.end_line()
    progress.end_line()
    assert terminal.getvalue().endswith("waiting for host b\n")
    progress.say("an error")
    assert "\r" not in terminal.getvalue()


def test_a_command_ends_its_line_before_its_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Progress] = []

    def end_line(display: Progress) -> None:
        ended.append(display)

    monkeypatch.setattr(Progress, "end_line", end_line)

    @click.command()
    def failing() -> None:
        options.progress()
        raise HostError("reach host b")

    with pytest.raises(HostError):
        failing.main([], standalone_mode=False)
    assert len(ended) == 1


def test_a_log_gets_plain_lines_and_not_every_sample() -> None:
    log = io.StringIO()
    progress = Progress(log)
    for _ in range(50):
        progress.on_sample(SAMPLE)
    progress.say("done")
    lines = log.getvalue().splitlines()
    assert "\x1b" not in log.getvalue()
    assert len(lines) < 50
    assert lines[-1].endswith("done")


def test_nothing_that_a_guest_says_reaches_the_terminal_as_a_command() -> None:
    log = io.StringIO()
    Progress(log).say("console: \x1b[2J\x07\r\nowned")
    assert "\x1b" not in log.getvalue()
    assert log.getvalue().count("\n") == 1


def test_quiet_says_nothing() -> None:
    log = io.StringIO()
    progress = Progress(log, quiet=True)
    progress.say("hello")
    progress.on_sample(SAMPLE)
    assert log.getvalue() == ""


def test_what_is_not_known_of_a_sample_is_left_out() -> None:
    assert describe(Sample(at_ns=0, host="a", iteration=1)) == "iteration 1"


def test_doctor_tells_reason_and_remedy_and_what_a_mode_lacks() -> None:
    facts = HostFacts(
        host="a",
        root="debian-13",
        kernel="6.12",
        versions={"qemu": "10.0"},
        capabilities=(
            Capability(name="tun", able=True, detail="/dev/net/tun"),
            Capability(name="sriov", able=False, reason="no such device", remedy="buy one"),
        ),
    )
    twin = facts.model_copy(update={"host": "b"})
    needs = {"virtio": ("tun",), "hostdev": ("sriov", "iommu")}
    text = plain([facts, twin], needs, {})
    assert text.splitlines()[0].startswith("a, b (root debian-13)")
    lines = {line.split()[0]: line for line in text.splitlines()[1:3]}
    assert "yes" in lines["tun"]
    assert "no such device; it needs: buy one" in lines["sriov"]
    virtio, hostdev, observers = text.splitlines()[3:]
    assert observers.split(maxsplit=2)[1:] == [
        "no",
        "nothing experimental is asked of its QEMU: not tried on a throw-away guest",
    ]
    assert virtio.split() == ["mode", "virtio", "yes"]
    assert "it lacks sriov, iommu" in hostdev
    text = plain([facts], {"hostdev": ()}, {"hostdev": ("vfio-variant",)})
    said = text.splitlines()[-2].split(maxsplit=2)
    assert said[2] == "yes  but not migrated as it is: it lacks vfio-variant"


def test_doctor_tells_what_a_host_is_made_of() -> None:
    machine = MachineFacts(cpu="AMD EPYC", cpus=2, governor="powersave", virtualised="yes")
    facts = HostFacts(host="a", root="x", kernel="6", versions={}, capabilities=(), machine=machine)
    line = plain([facts], {}, {}).splitlines()[1]
    assert line.split(maxsplit=1) == [
        "machine",
        "2 CPUs, AMD EPYC, virtualised, governor powersave",
    ]


def test_a_busy_machine_is_told_as_the_attempt_ends() -> None:
    made = synthetic.attempt(synthetic.case())
    busy = made.model_copy(update={"machine": MachineState(busy=("others",))})
    quiet = made.model_copy(update={"machine": MachineState(busy=())})
    assert outcome(busy).endswith("the machine was busy")
    assert "busy" not in outcome(quiet) + outcome(made)
