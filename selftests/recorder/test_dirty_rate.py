"""Dirty rates by every method, the limit, and the boot sector that has a rate of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import dirty_rate as bench
from bench.boot_sector import build, pages_written
from bench.sector import NAME, PageCount, await_sector, pages_so_far, rate, sector_guest, tsc_hz
from bench.world import host_pair
from migrate.analysis.convergence import Forecast, Period
from migrate.clock import Deadline
from migrate.errors import ConfigurationError, HostError, MeasurementError
from migrate.lab.api import Host
from migrate.lab.local.lab import LocalLab
from migrate.recorder import dirty_rate
from migrate.recorder.dirty_rate import (
    NOT_COUNTED,
    RateAnswer,
    VcpuLimit,
    limited,
    limits,
    measure,
    measure_all,
)


class Answers:
    """A QEMU that answers one after the other; the last answer for ever."""

    host = "a"

    def __init__(self, answers: Sequence[Any], refuses: str = "") -> None:
        self.answers, self.refuses = list(answers), refuses
        self.heard: list[str] = []
        self.kvm = True

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        self.heard.append(f"{command} {json.dumps(arguments)}")
        if self.refuses:
            raise HostError(command, host="a", said=self.refuses)
        if command == "query-kvm":
            return {"enabled": self.kvm, "present": True}
        if command != "query-dirty-rate":
            return {}
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_a_rate_is_had_when_qemu_has_measured_it() -> None:
    ring = {
        "status": "measured",
        "dirty-rate": 16,
        "vcpu-dirty-rate": [{"id": 0, "dirty-rate": 15}],
    }
    qemu = Answers([{"status": "measuring"}, ring])
    assert measure(qemu, "dirty-ring", 1) == RateAnswer("dirty-ring", 16.0, (15.0,), 1)
    assert qemu.heard[0] == 'calc-dirty-rate {"calc-time": 1, "mode": "dirty-ring"}'


def test_a_method_that_is_refused_has_its_reason_and_no_rate() -> None:
    qemu = Answers([], refuses="mode dirty-bitmap is not enabled")
    found = measure(qemu, "dirty-bitmap", 1)
    assert (found.mib_s, found.refused) == (None, "mode dirty-bitmap is not enabled")


@pytest.mark.parametrize(("kvm", "mib_s", "refused"), [(True, 0.0, ""), (False, None, NOT_COUNTED)])
def test_a_nought_of_an_emulated_guests_bitmap_is_no_measurement(
    kvm: bool, mib_s: float | None, refused: str
) -> None:
    qemu = Answers([{"status": "measured", "dirty-rate": 0}])
    qemu.kvm = kvm
    assert measure(qemu, "dirty-bitmap", 1) == RateAnswer(
        "dirty-bitmap", mib_s, seconds=1, refused=refused
    )
    assert measure(qemu, "page-sampling", 1).mib_s == 0.0, "samples are of any guest"


def test_a_measurement_that_never_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirty_rate, "GRACE_S", -1.0)
    with pytest.raises(MeasurementError, match="still measuring"):
        measure(Answers([{"status": "measuring"}]), "page-sampling", 1)


class OneMethod(Answers):
    """Refuses all but page sampling, as a QEMU that emulates does."""

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        mode = arguments.get("mode", "page-sampling")
        self.refuses = "" if mode == "page-sampling" else f"mode {mode} is not enabled"
        return super().execute(command, deadline, **arguments)


def test_a_refused_method_does_not_keep_the_others_from_measuring() -> None:
    found = measure_all(OneMethod([{"status": "measured", "dirty-rate": 7}]), 1)
    assert [(one.method, one.mib_s, one.refused) for one in found] == [
        ("page-sampling", 7.0, ""),
        ("dirty-bitmap", None, "mode dirty-bitmap is not enabled"),
        ("dirty-ring", None, "mode dirty-ring is not enabled"),
    ]


class Limits(Answers):
    """What is in force on two processors."""

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        super().execute(command, deadline, **arguments)
        names = ("cpu-index", "limit-rate", "current-rate")
        return [dict(zip(names, one, strict=True)) for one in ((0, 8, 9), (1, 8, 0))]


def test_limits_in_force_are_told_by_processor() -> None:
    assert limits(Limits([])) == (VcpuLimit(0, 8.0, 9.0), VcpuLimit(1, 8.0, 0.0))


def test_a_limit_is_taken_back_whatever_happens() -> None:
    qemu = Answers([])
    with pytest.raises(KeyError), limited(qemu, 8):
        raise KeyError
    assert qemu.heard == ['set-vcpu-dirty-limit {"dirty-rate": 8}', "cancel-vcpu-dirty-limit {}"]


def test_a_limit_that_is_refused_is_told() -> None:
    refused = "dirty page limit feature requires KVM with accelerator property 'dirty-ring-size'"
    with pytest.raises(HostError, match="requires KVM"), limited(Answers([], refused), 8):
        pass


# --- the boot sector ------------------------------------------------------------------------------


def test_a_sector_is_one_that_a_bios_boots_and_has_its_period() -> None:
    sector = build(16, 64, 2e9)
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    assert round(2e9 * 4096 / (16 * 2**20)).to_bytes(4, "little") in sector
    assert (80 << 20).to_bytes(4, "little") in sector  # 16 MiB and 64
    assert build(4, 64, 2e9) != sector
    late = 16 * round(2e9 * 4096 / (16 * 2**20))
    assert late.to_bytes(4, "little") in sector


@pytest.mark.parametrize("mib_s", [1e-6, 1e9])
def test_a_rate_that_a_sector_cant_keep_is_refused(mib_s: float) -> None:
    with pytest.raises(ConfigurationError, match="in 31 bits"):
        build(mib_s, 64, 2e9)


REGISTERS = """
ESI=0000ab12 EDI=01000000 EBP=00000010 ESP=00006e18
EIP={ip} EFL=00000006 [-----P-] CPL=0
CS ={cs} 00cf9b00 DPL=0 CS32 [-RA]
"""


@pytest.mark.parametrize(
    ("ip", "cs", "pages"),
    [
        ("00007c42", "0008 00000000 ffffffff", 0xAB12),
        ("000e9fbf", "0008 00000000 ffffffff", None),  # the firmware, flat
        ("00007c42", "f000 000f0000 0000ffff", None),  # the firmware, in a segment of its own
    ],
)
def test_what_a_sector_wrote_is_told_when_it_is_the_sector_that_runs(
    ip: str, cs: str, pages: int | None
) -> None:
    assert pages_written(REGISTERS.format(ip=ip, cs=cs)) == pages


# --- the sector, emulated -------------------------------------------------------------------------


def left_of_it(host: Host) -> list[str]:
    """Files on the host, and QEMUs that have them."""
    files = [f"{NAME}.{end}" for end in ("img", "sock", "pid")]
    left = [name for name in files if (path := host.file(name)) is None or path.exists()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text, state = (process / "cmdline").read_text(), (process / "stat").read_text()
        except OSError:
            continue  # it ended while we looked
        if NAME in text and state.rpartition(") ")[2][0] not in "ZX":
            left.append(process.name)
    return left


@pytest.mark.needs_root
def test_a_sector_writes_and_every_method_says_how_much_or_why_not(shared_lab: LocalLab) -> None:
    host, _ = host_pair(shared_lab)
    with sector_guest(host, build(16, 64, tsc_hz()), "tcg,thread=multi") as qemu:
        await_sector(qemu, host)
        begin = pages_so_far(qemu)
        found = {one.method: one for one in measure_all(qemu, 1)}
        assert rate(begin, pages_so_far(qemu)) > 0, "it goes on writing while it is looked at"
        with pytest.raises(HostError, match="dirty-ring-size"), limited(qemu, 8):
            pass
        assert limits(qemu) == ()
    assert found["dirty-ring"].mib_s is None
    assert found["dirty-ring"].refused == (
        "mode dirty-ring is not enabled, use other method instead."
    )
    assert (found["dirty-bitmap"].mib_s, found["dirty-bitmap"].refused) == (None, NOT_COUNTED)
    assert found["page-sampling"].mib_s is not None
    assert left_of_it(host) == []


@pytest.mark.needs_root
def test_a_sector_that_is_given_up_leaves_nothing(shared_lab: LocalLab) -> None:
    host, _ = host_pair(shared_lab)
    with (
        pytest.raises(KeyError),
        sector_guest(host, build(16, 64, tsc_hz()), "tcg,thread=multi"),
    ):
        assert left_of_it(host), "a test that could not see it would see nothing left, too"
        raise KeyError
    assert left_of_it(host) == []


@pytest.mark.needs_root
def test_an_accelerator_that_qemu_does_not_have_is_told_and_leaves_nothing(
    shared_lab: LocalLab,
) -> None:
    host, _ = host_pair(shared_lab)
    sector = build(16, 64, tsc_hz())
    with (
        pytest.raises(HostError, match="dirty-ring-size"),
        sector_guest(host, sector, "tcg,dirty-ring-size=4096"),
    ):
        pass
    assert left_of_it(host) == []


@pytest.mark.needs_root
@pytest.mark.parametrize("converges", [True, False])
def test_a_sector_moves_with_its_passes_told_or_is_given_up(
    shared_lab: LocalLab, monkeypatch: pytest.MonkeyPatch, converges: bool
) -> None:
    monkeypatch.setattr(bench, "WARM_S", 1)
    if not converges:
        monkeypatch.setattr(bench, "MOVE_S", 0.5)
        monkeypatch.setattr(bench, "BANDWIDTH_MIB_S", 1)
    hosts, mib_s = host_pair(shared_lab), 4 if converges else 64
    found = bench.live_move(hosts, "tcg,thread=multi", mib_s, auto_converge=False)
    assert found.status == ("completed" if converges else "cancelled")
    assert (found.after_mib_s is not None) == converges
    assert (found.foretold.passes_needed is not None) == converges
    assert found.by == "page-sampling", "no other method measures an emulated guest"
    if converges:
        assert found.syncs == len(found.looks)
        assert sum(sent for sent, _ in found.passes()) > 0
    assert [left_of_it(host) for host in host_pair(shared_lab)] == [[], []]


def move(looks: Sequence[tuple[int, int, int]]) -> bench.Move:
    """Of (seconds, MiB sent, pages written) at each look."""
    seen = tuple(
        bench.PassSample(at * 10**9, mib << 20, 512, None, PageCount(pages, at * 10**9))
        for at, mib, pages in looks
    )
    foretold = Forecast((128 << 20,), None)
    return bench.Move(96, True, "dirty-ring", 96, foretold, "completed", 5, 9.0, 4.0, seen, 1.0)


def test_a_guest_that_stood_still_in_a_move_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = move([(0, 0, 0), (2, 128, 512), (4, 256, 512), (5, 256, 512)])
    assert found.passes() == [(128.0, 1.0), (128.0, 0.0), (0.0, 0.0)]
    assert found.stood_still() == (2,), "the last is the stop"
    bench.print_moves([found])
    assert "stood still in pass 2: not converged" in capsys.readouterr().out
    assert move([(0, 0, 0), (2, 9, 9), (3, 10, 9)]).stood_still() == ()


def test_periods_are_those_that_qemu_reckons_with() -> None:
    found = move([(0, 0, 0), (2, 128, 9), (3, 129, 9), (4, 130, 9)])
    two_seconds = 2 * 512 * 4096
    assert found.periods() == [Period(two_seconds, 128 << 20), Period(two_seconds, 2 << 20)]


@pytest.mark.parametrize(
    ("chosen", "status", "known"),
    [
        ("auto", 0, bench.KVM),
        ("auto", 1, bench.EMULATED),
        ("tcg", 0, bench.EMULATED),
        ("kvm", 1, bench.KVM),
    ],
)
def test_guests_are_emulated_where_there_is_no_kvm(
    chosen: str, status: int, known: dict[str, str]
) -> None:
    host = cast("Host", SimpleNamespace(run=lambda *_, **__: SimpleNamespace(status=status)))
    assert bench.accelerators(host, chosen) == known


def test_a_sector_that_does_not_run_has_no_rate() -> None:
    with pytest.raises(MeasurementError, match="runs no more"):
        rate(PageCount(1, 1), None)
    assert rate(PageCount(2**32 - 256, 0), PageCount(256, 10**9)) == 2.0, "the count wraps"
