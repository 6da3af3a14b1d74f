"""Dirty rates inside of an attempt: what is measured before, during and after the move."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate.analysis.dirty_rate import NOT_RECKONED, rate_during
from migrate.drivers.qmp import Asked
from migrate.errors import GuestError, MeasurementError
from migrate.lab.api import Host
from migrate.model import DirtyRate, Expect, Sample
from migrate.recorder import dirty_rate
from migrate.recorder.base import AttemptEnv, Rig
from migrate.recorder.collect import measure_dirty_rates
from migrate.recorder.dirty_rate import (
    NOT_COUNTED,
    Method,
    RateAnswer,
    in_attempt,
    measure,
)
from migrate.recorder.events import Listener
from selftests.doubles import synthetic
from selftests.doubles.qmp import DONE, ENDS, Answers, Here, Message, Script, StandIn, here, refusal

REFUSED = "mode dirty-ring is not enabled, use other method instead."


def emulated(sampled: int = 16) -> Script:
    """A QEMU that emulates: it samples pages, counts none, and has no ring."""
    mode = ""

    def calc(arguments: Message) -> Answers:
        nonlocal mode
        mode = arguments["mode"]
        return [refusal(REFUSED) if mode == "dirty-ring" else DONE]

    def query(_arguments: Message) -> Answers:
        rate = sampled if mode == "page-sampling" else 0
        return [{"return": {"status": "measured", "dirty-rate": rate}}]

    kvm: Message = {"return": {"enabled": False, "present": True}}
    return {"calc-dirty-rate": calc, "query-dirty-rate": query, "query-kvm": [kvm]}


def ringed(_arguments: Message) -> Answers:
    vcpus = [{"id": number, "dirty-rate": 8} for number in range(2)]
    told = {"status": "measured", "dirty-rate": 16, "vcpu-dirty-rate": vcpus}
    return [{"return": told}]


Serve = Callable[..., tuple[Host, StandIn]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Hosts whose guest's monitor is a stand-in."""
    made: list[StandIn] = []

    def start(name: str, script: Script) -> tuple[Host, StandIn]:
        (tmp_path / name).mkdir()
        made.append(StandIn(tmp_path / name / "migrate-lab.monitor", script))
        return here(name, tmp_path / name), made[-1]

    yield start
    for one in made:
        one.close()


def rig(pair: tuple[Host, Host], **expect: Any) -> Rig:
    """Just what it takes to measure; the guest writes 1024 pages between two questions."""
    pages = itertools.count(0, 1024)
    guest = SimpleNamespace(pages_written=lambda: next(pages))
    case = synthetic.case().model_copy(update={"expect": Expect(**expect)})
    nobody = cast("Any", None)
    env = AttemptEnv(lab=nobody)
    traffic = cast("Any", SimpleNamespace(guest=guest))
    return Rig(case, env, pair, nobody, traffic, Listener(), nobody, {}, {}, nobody, nobody)


def test_rates_are_measured_on_the_host_that_has_the_guest_before_and_after(serve: Serve) -> None:
    (one, source), (other, target) = serve("a", emulated(16)), serve("b", emulated(0))
    made = rig((one, other), dirty_rate_within=0.5)
    before = measure_dirty_rates(made, "before", ("a",))
    assert source.gone(), "its monitor is free for the move"
    assert not target.heard
    rates = (*before, *measure_dirty_rates(made, "after", ("b",)))
    assert [(rate.when, rate.host, rate.method, rate.mib_s, rate.reason) for rate in rates] == [
        ("before", "a", "page-sampling", 16.0, ""),
        ("before", "a", "dirty-bitmap", None, NOT_COUNTED),
        ("before", "a", "dirty-ring", None, REFUSED),
        ("after", "b", "page-sampling", 0.0, ""),
        ("after", "b", "dirty-bitmap", None, NOT_COUNTED),
        ("after", "b", "dirty-ring", None, REFUSED),
    ]


def test_a_rate_has_what_the_guest_wrote_meanwhile_by_its_own_count(
    serve: Serve, tmp_path: Path
) -> None:
    hosts = (serve("a", emulated(16))[0], here("b", tmp_path))
    rates = measure_dirty_rates(rig(hosts, dirty_rate_within=0.5), "before", ("a",))
    told = [(rate.mib_s is not None, rate.written_mib_s is not None) for rate in rates]
    assert told == [(True, True), (False, False), (False, False)], "not of one that was refused"
    assert (rates[0].written_mib_s or 0) > 0


def test_a_guest_that_does_not_tell_leaves_the_rate_alone(serve: Serve) -> None:
    def silent() -> int:
        raise GuestError("ask", said="no memory is being dirtied")

    host, _ = serve("a", emulated(16))
    sampled, *_ = in_attempt([host], "before", 128, Listener(), silent)
    assert (sampled.mib_s, sampled.written_mib_s) == (16.0, None)
    assert "no memory is being dirtied" in sampled.reason


def test_a_guest_whose_count_goes_down_leaves_the_rate_alone(serve: Serve) -> None:
    host, _ = serve("a", emulated(16))
    counts = itertools.count(10_000, -1)
    sampled, *_ = in_attempt([host], "before", 128, Listener(), lambda: next(counts))
    assert (sampled.mib_s, sampled.written_mib_s) == (16.0, None)
    assert sampled.reason == "the guest wrote -1 pages by its own count"


def test_a_case_that_does_not_ask_leaves_the_guest_alone(tmp_path: Path) -> None:
    hosts = (here("a", tmp_path), here("b", tmp_path))
    assert measure_dirty_rates(rig(hosts), "before", ("a",)) == ()


def test_a_sample_is_as_large_as_qemu_takes_it_and_has_its_error(serve: Serve) -> None:
    host, qemu = serve("a", emulated(16))
    sampled, *_ = in_attempt([host], "before", 128, Listener())
    commands = [arguments for name, arguments in qemu.heard if name == "calc-dirty-rate"]
    assert commands[:2] == [
        {"calc-time": 1, "mode": "page-sampling", "sample-pages": 16384},
        {"calc-time": 1, "mode": "dirty-bitmap"},
    ]
    # An eighth of 2048 pages: 256 of them, give or take 2 x 15, each for 1/16 MiB.
    assert sampled.error_mib_s == pytest.approx(1 + 2 * 14.97 / 16, abs=0.01)


def test_a_sample_of_a_large_guest_takes_no_larger_a_share_than_it_needs(serve: Serve) -> None:
    host, qemu = serve("a", emulated(0))
    sampled, *_ = in_attempt([host], "before", 64 * 1024, Listener())
    assert qemu.heard[1][1]["sample-pages"] == 256
    assert sampled.error_mib_s > 1, "that none of the sample was dirty does not mean that none is"


def test_a_ring_tells_the_rate_by_processor(serve: Serve) -> None:
    host, _ = serve("a", {**emulated(), "calc-dirty-rate": [DONE], "query-dirty-rate": ringed})
    *_, ring = in_attempt([host], "before", 128, Listener())
    assert (ring.method, ring.mib_s, ring.per_vcpu_mib_s) == ("dirty-ring", 16.0, (8.0, 8.0))


def test_a_method_that_fails_does_not_take_the_others_with_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(qemu: Asked, method: Method, *how: int) -> RateAnswer:
        if method == "dirty-bitmap":
            raise MeasurementError("measure", said="still measuring")
        return measure(qemu, method, *how)

    monkeypatch.setattr(dirty_rate, "measure", stuck)
    host, _ = serve("a", emulated())
    sampled, bitmap, _ = in_attempt([host], "before", 128, Listener())
    assert (sampled.mib_s, bitmap.mib_s) == (16.0, None)
    assert "still measuring" in bitmap.reason


def nowhere(_tmp_path: Path) -> list[Here]:
    return []


def both(tmp_path: Path) -> list[Here]:
    return [here("a", tmp_path), here("b", tmp_path)]


def no_qemu(tmp_path: Path) -> list[Here]:
    return [here("a", tmp_path)]


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        (nowhere, "the guest runs on 0 hosts"),
        (both, "the guest runs on 2 hosts"),
        (no_qemu, "No such file"),
    ],
)
def test_what_cant_be_asked_is_told_by_every_method(
    hosts: Callable[[Path], list[Here]], said: str, tmp_path: Path
) -> None:
    found = in_attempt(hosts(tmp_path), "after", 128, Listener())
    assert [rate.mib_s for rate in found] == [None] * 3
    assert all(said in rate.reason for rate in found)


def test_a_qemu_that_ends_meanwhile_leaves_its_reason(serve: Serve) -> None:
    host, _ = serve("a", {**emulated(), "query-dirty-rate": ENDS})
    found = in_attempt([host], "after", 128, Listener())
    assert all(rate.mib_s is None and rate.reason for rate in found)


def sample(iteration: int | None, pages: int | None) -> Sample:
    return Sample(at_ns=0, host="a", iteration=iteration, dirty_pages_s=pages)


def test_the_rate_during_a_move_is_the_middle_of_what_qemu_reckoned() -> None:
    samples = [sample(1, 9999), sample(2, 0), sample(2, None), sample(3, 256), sample(3, 512)]
    found = rate_during("a", [*samples, sample(4, 1024)])
    assert found == DirtyRate(when="during", method="migration", host="a", mib_s=2.0)


@pytest.mark.parametrize("samples", [(), (sample(None, 256),), (sample(1, 256),), (sample(2, 0),)])
def test_a_move_in_which_qemu_reckoned_none_has_no_rate(samples: tuple[Sample, ...]) -> None:
    found = rate_during("a", samples)
    assert (found.mib_s, found.reason) == (None, NOT_RECKONED)
