"""Convergence of a move's pre-copy beside its forecast, and dirty rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from migrate.model import DIRTY_RATE_S, DIRTY_WHEN, Convergence, DirtyRate, MoveDetails
from migrate.report.table_model import (
    NOT_MEASURED,
    NOT_THERE,
    Cell,
    Grid,
    GridSection,
    not_measured,
)


def convergence_lines(hop: MoveDetails) -> Iterator[str]:
    """The forecast of a move's pre-copy beside what happened, and auto-converge's steps."""
    convergence = hop.convergence
    if convergence is None:
        yield not_measured("its progress was not observed", hop.unseen)
        return
    yield f"{_forecast_text(convergence)}; actual: {_outcome_text(convergence)}"
    if convergence.throttle_seen is not None:
        due = convergence.throttle_due or ()
        yield f"throttle {_throttle_text(convergence.throttle_seen, due)}"


def _throttle_text(taken: Sequence[int], expected: Sequence[int]) -> str:
    if not taken:
        return "never raised"
    steps = ", ".join(map(str, taken))
    return (
        f"{steps}, as expected"
        if taken == expected
        else f"{steps}, but expected: {', '.join(map(str, expected))}"
    )


def _forecast_text(convergence: Convergence) -> str:
    forecast, memory = convergence.foretold, convergence.memory_bytes
    bandwidth = convergence.bandwidth_bytes_s
    if forecast is None or memory is None or bandwidth is None:
        return f"forecast: {NOT_MEASURED}, its first pass or its rate was not observed"
    basis = f"{memory / 2**20:.1f} MiB at {bandwidth / 2**20:.1f} MiB/s"
    if forecast.converges_in is None or forecast.seconds is None:
        return f"forecast, of {basis}: never converges"
    return (
        f"forecast, of {basis}: converges in pass {forecast.converges_in}, "
        f"{forecast.syncs} syncs, after {forecast.seconds:.1f} s"
    )


def _outcome_text(convergence: Convergence) -> str:
    syncs = NOT_MEASURED if convergence.syncs is None else str(convergence.syncs)
    rate_seen, stopped_s = convergence.seen_bytes_s, convergence.stopped_s
    rate = "" if rate_seen is None else f" at {rate_seen / 2**20:.1f} MiB/s"
    if not convergence.switched_over and stopped_s is None:
        return f"{syncs} syncs{rate}, not stopped"
    when = NOT_MEASURED if stopped_s is None else f"{stopped_s:.1f} s"
    end = "suspended" if convergence.suspended else "stopped"
    return f"{syncs} syncs{rate}, {end} after {when}"


def dirty_rate_section(rates: Sequence[DirtyRate]) -> GridSection:
    """A row for each method; reasons why a rate was not measured stand below, each once."""
    methods = dict.fromkeys(rate.method for rate in rates)
    by_method = {
        method: [
            [rate for rate in rates if (rate.method, rate.when) == (method, when)]
            for when in DIRTY_WHEN
        ]
        for method in methods
    }
    rows = tuple(
        (Cell(name), *map(_rates, rates_by_time)) for name, rates_by_time in by_method.items()
    )
    reasons = dict.fromkeys(f"{rate.method}: {rate.reason}" for rate in rates if rate.reason)
    vcpus = [
        f"{rate.method} {rate.when}, per vCPU: "
        f"{', '.join(f'{rate:g}' for rate in rate.per_vcpu_mib_s)} MiB/s"
        for rate in rates
        if rate.per_vcpu_mib_s
    ]
    counted = [
        f"a page counts once in {DIRTY_RATE_S} s; in QEMU's own account of a migration once a pass"
    ]
    grid = Grid(("method", *DIRTY_WHEN), rows)
    return GridSection("Dirty rate, MiB/s", grid, (*counted, *vcpus, *reasons))


def _rates(rates: Sequence[DirtyRate]) -> Cell:
    """The rates of all hops; none where a method does not apply."""
    if not rates:
        return Cell(NOT_THERE)
    return Cell(", ".join(map(_rate, rates)))


def _rate(rate: DirtyRate) -> str:
    if rate.mib_s is None:
        return NOT_MEASURED
    return f"{rate.mib_s:.1f}" + (f" ± {rate.error_mib_s:.1f}" if rate.error_mib_s else "")
