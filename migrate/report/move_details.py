"""What went on inside of an attempt's moves, in grids; what was not seen says so, and why."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from migrate.analysis.convergence import PRECOPY
from migrate.analysis.figures import FigureValue, longest_outage
from migrate.model import (
    DIRECTIONS,
    DIRTY_RATE_S,
    DIRTY_WHEN,
    Attempt,
    Convergence,
    DeviceHandoff,
    Direction,
    DirtyRate,
    Explained,
    Inside,
    MonitorGap,
    RingAudit,
    Span,
)
from migrate.report.table_model import IN_FLOOR, NOT_MEASURED, Cell, Grid, Row

QUICK_MS = 0.1
"""Devices that took less than this, and of which nothing differs, are one row together."""
NOT_THERE = "-"
ENDED_OTHERWISE = "no forecast: it ended as a post-copy"


@dataclass(frozen=True, slots=True)
class Section:
    """A grid with its title, and lines below it."""

    title: str
    grid: Grid | None = None
    lines: tuple[str, ...] = ()


def sections(attempt: Attempt) -> tuple[Section, ...]:
    """All that is known of one attempt; what is not known is there, too, and says so."""
    return tuple(_sections(attempt))


def _sections(attempt: Attempt) -> Iterator[Section]:
    for way in DIRECTIONS:
        one = _told_of(attempt, way)
        yield _gap(one) if isinstance(one, Explained) else _no_gap(attempt, way, one)
    if not attempt.inside:
        lines = (f"{NOT_MEASURED}: no move was looked into",)
        yield Section("The guest's stop, its handoff, its rings", lines=lines)
    for hop in attempt.inside:
        where = f", hop {hop.hop}" if len(attempt.inside) > 1 else ""
        yield _stop(attempt, hop, where)
        yield _devices(hop, where)
        yield _rings(hop, where)
        if attempt.case.policy.method in PRECOPY:
            over = hop.convergence is None and any(
                phase.name == "postcopy" for phase in attempt.phases
            )
            told = [ENDED_OTHERWISE] if over else _converged(hop)
            yield Section(f"Convergence{where}", lines=tuple(told))
        yield Section(f"Announced and unseen{where}", lines=tuple(_told(hop)))
    if attempt.dirty_rates is not None:
        yield _dirty(attempt.dirty_rates)


def _told_of(attempt: Attempt, way: Direction) -> Explained | str:
    """What the longest gap this way contains, or why there is nothing to tell."""
    for one in attempt.explained or ():
        if one.direction == way:
            return one
    seen = longest_outage(attempt, way)
    quiet = attempt.explained is not None and seen is not None and seen.ms == 0
    return IN_FLOOR if quiet else NOT_MEASURED


def _no_gap(attempt: Attempt, way: Direction, why: str) -> Section:
    if why == IN_FLOOR:
        line = f"{IN_FLOOR}: no gap to explain"
    elif attempt.gaps is None:
        line = f"{NOT_MEASURED}: there are no gaps on record"
    else:
        line = f"{NOT_MEASURED}: there is nothing on record to explain the gaps by"
    return Section(f"Where the outage went, {way}", lines=(line,))


def _missing(hop: Inside, what: str) -> str:
    """With every reason that is on record."""
    return f"{NOT_MEASURED}: {'; '.join((what, *hop.unseen))}"


def _ms(value: float | None, digits: int = 2) -> Cell:
    return Cell(NOT_MEASURED if value is None else f"{value:.{digits}f}")


def _spans(head: str, spans: Sequence[Span]) -> Grid:
    rows = tuple(
        (
            Cell(
                span.what if span.explained else f"UNEXPLAINED: {span.what}", bad=not span.explained
            ),
            Cell(span.host or "between"),
            _ms(span.length_ms),
            _ms(span.error_ns / 1e6),
        )
        for span in spans
    )
    return Grid((head, "where", "ms", "± ms"), rows)


def _gap(one: Explained) -> Section:
    title = (
        f"Where the outage went, {one.direction}: {one.length_ns / 1e6:.1f} ms, "
        f"{one.share:.1%} explained, {one.unexplained_ms:.1f} ms unexplained"
    )
    return Section(title, _spans("what kept it", one.spans))


def _stop(attempt: Attempt, hop: Inside, where: str) -> Section:
    title = f"The guest's stop by stage{where}"
    if hop.stop is None:
        return Section(title, lines=(_missing(hop, "its STOP or its RESUME is not on record"),))
    together = sum(span.length_ms for span in hop.stop)
    found = [(way, longest_outage(attempt, way, "switchover")) for way in DIRECTIONS]
    seen = ", ".join(f"{way} {_seen(one)}" for way, one in found)
    reported = attempt.reported.downtime_ms
    told = NOT_MEASURED if reported is None else f"{reported:.1f} ms"
    line = f"together {together:.1f} ms; reported {told}; seen around the stop: {seen}"
    return Section(title, _spans("stage", hop.stop), (line,))


def _seen(one: FigureValue | None) -> str:
    if one is None:
        return NOT_MEASURED
    bound = "at least " if one.at_least else ""
    return f"{bound}{one.ms:.1f} ± {one.error_ms:.1f} ms" if one.ms else IN_FLOOR


def _devices(hop: Inside, where: str) -> Section:
    title = f"Handoff{where}"
    if hop.devices is None:
        return Section(title, lines=(_missing(hop, "neither trace points nor states were had"),))
    slow = [one for one in hop.devices if not _quick(one)]
    quick = [one for one in hop.devices if _quick(one)]
    rows: list[Row] = [
        (
            Cell(one.device),
            Cell(NOT_MEASURED if one.size_bytes is None else str(one.size_bytes)),
            *(_ms(one.save_ms), _ms(one.load_ms), _state(one)),
        )
        for one in slow
    ]
    if quick:
        rows.append(_others(quick))
    lines = [
        f"{one.device}: {each.field}: {each.before} before, {each.after} after; "
        f"{'lawful' if each.lawful else 'UNLAWFUL'}: {each.why}"
        for one in hop.devices
        for each in one.differences
    ]
    lines += [f"{one.device}: not compared: {text}" for one in hop.devices for text in _untold(one)]
    heads = ("device", "bytes", "save, ms", "load, ms", "state")
    return Section(title, Grid(heads, tuple(rows)), tuple(lines))


def _untold(one: DeviceHandoff) -> Iterator[str]:
    """By end, and what many queues have in common once."""
    told: dict[tuple[str, str], list[str]] = {}
    for name in one.untold:
        what, _, end = name.removesuffix(" only)").rpartition(" (")
        place, _, field = what.rpartition(": ")
        told.setdefault((end, place), []).append(field)
    places: dict[tuple[str, str], list[str]] = {}
    for (end, place), names in told.items():
        places.setdefault((end, ", ".join(names)), []).append(place)
    for (end, fields), of in places.items():
        where = f"{', '.join(of)}: " if any(of) else ""
        yield f"told by the {end} only: {where}{fields}"


def _quick(one: DeviceHandoff) -> bool:
    """Known to be: of one that was not measured nobody can say so."""
    took = [ms for ms in (one.save_ms, one.load_ms) if ms is not None]
    return bool(took) and max(took) < QUICK_MS and not one.compared and not one.differences


def _others(quick: Sequence[DeviceHandoff]) -> Row:
    """What many took that took little: together."""
    sizes = [one.size_bytes for one in quick if one.size_bytes is not None]
    saved = [one.save_ms for one in quick if one.save_ms is not None]
    loaded = [one.load_ms for one in quick if one.load_ms is not None]
    of = len(quick)
    return (
        Cell(f"{of} others, less than {QUICK_MS} ms each"),
        _sum(str(sum(sizes)), len(sizes), of),
        _sum(f"{sum(saved):.2f}", len(saved), of),
        _sum(f"{sum(loaded):.2f}", len(loaded), of),
        Cell("not compared"),
    )


def _sum(text: str, known: int, of: int) -> Cell:
    if not known:
        return Cell(NOT_MEASURED)
    return Cell(text, f"{known}/{of} measured" if known < of else "")


def _state(one: DeviceHandoff) -> Cell:
    if not one.compared:
        return Cell("not compared")
    wrong = sum(not each.lawful for each in one.differences)
    if wrong:
        return Cell("DIFFERS", f"in {wrong}", bad=True)
    lawful = len(one.differences)
    return Cell("same", f"{lawful} lawful differences" if lawful else "")


def _rings(hop: Inside, where: str) -> Section:
    if not hop.rings:
        return Section(f"Rings{where}", lines=(_missing(hop, "no ring was read"),))
    rows = tuple(
        (
            Cell(f"{ring.device} {ring.queue}"),
            Cell(f"{ring.kind} {ring.size}"),
            Cell(", ".join(f"{name} {value}" for name, value in ring.facts.items())),
            _soundness(ring),
        )
        for ring in hop.rings
    )
    lines = [
        f"{ring.device} {ring.queue}: {rule}"
        for ring in hop.rings
        for rule in (*ring.broken, *(f"not checked: {one}" for one in ring.unchecked))
    ]
    heads = ("queue", "ring", "at the source's stop", "state")
    return Section(f"Rings{where}", Grid(heads, rows), tuple(lines))


def _soundness(ring: RingAudit) -> Cell:
    if ring.broken:
        return Cell("BROKEN", bad=True)
    return Cell("not checked" if ring.unchecked and not ring.facts else "sound")


def _converged(hop: Inside) -> Iterator[str]:
    found = hop.convergence
    if found is None:
        yield _missing(hop, "its progress was not seen")
        return
    yield f"{_foretold(found)}; happened: {_happened(found)}"
    if found.throttle_seen is not None:
        yield f"throttle {_throttled(found.throttle_seen, found.throttle_due or ())}"


def _throttled(seen: Sequence[int], due: Sequence[int]) -> str:
    if not seen:
        return "took no step"
    steps = ", ".join(map(str, seen))
    return f"{steps} as due" if seen == due else f"{steps}, but due: {', '.join(map(str, due))}"


def _foretold(one: Convergence) -> str:
    if one.foretold is None or one.memory_bytes is None or one.bandwidth_bytes_s is None:
        return f"forecast: {NOT_MEASURED}, its first pass or its rate was not seen"
    of = f"{one.memory_bytes / 2**20:.1f} MiB at {one.bandwidth_bytes_s / 2**20:.1f} MiB/s"
    told = one.foretold
    if told.converges_in is None or told.seconds is None:
        return f"forecast, of {of}: never converges"
    return (
        f"forecast, of {of}: converges in pass {told.converges_in}, "
        f"{told.syncs} syncs, after {told.seconds:.1f} s"
    )


def _happened(one: Convergence) -> str:
    syncs = NOT_MEASURED if one.syncs is None else str(one.syncs)
    rate = "" if one.seen_bytes_s is None else f" at {one.seen_bytes_s / 2**20:.1f} MiB/s"
    if not one.switched_over and one.stopped_s is None:
        return f"{syncs} syncs{rate}, not stopped"
    when = NOT_MEASURED if one.stopped_s is None else f"{one.stopped_s:.1f} s"
    return f"{syncs} syncs{rate}, {'suspended' if one.suspended else 'stopped'} after {when}"


def _told(hop: Inside) -> Iterator[str]:
    yield from _announced(hop)
    yield _first_packets(hop)
    if hop.postcopy_blocktime_ms is not None:
        each = ", ".join(f"{ms:g}" for ms in hop.postcopy_cpus_blocktime_ms)
        yield (
            f"waited for pages in post-copy: all processors at once "
            f"{hop.postcopy_blocktime_ms:g} ms; each: {each or NOT_MEASURED} ms"
        )
    for span in hop.blind:
        yield f"blind on {span.host} for {span.length_ms:.0f} ms: {span.what}{_missed(span)}"
    for reason in hop.unseen:
        yield f"not seen: {reason}"


def _dirty(rates: Sequence[DirtyRate]) -> Section:
    """A row for each method; a reason is told below, once for all that it is of."""
    methods = dict.fromkeys(one.method for one in rates)
    by_method = {
        method: [
            [one for one in rates if (one.method, one.when) == (method, when)]
            for when in DIRTY_WHEN
        ]
        for method in methods
    }
    rows = tuple((Cell(name), *map(_rates, found)) for name, found in by_method.items())
    reasons = dict.fromkeys(f"{one.method}: {one.reason}" for one in rates if one.reason)
    vcpus = [
        f"{one.method} {one.when}, by processor: "
        f"{', '.join(f'{rate:g}' for rate in one.per_vcpu_mib_s)} MiB/s"
        for one in rates
        if one.per_vcpu_mib_s
    ]
    counted = [f"a page counts once in {DIRTY_RATE_S} s; in a migration's own account once a pass"]
    grid = Grid(("method", *DIRTY_WHEN), rows)
    return Section("Dirty rate, MiB/s", grid, (*counted, *vcpus, *reasons))


def _rates(found: Sequence[DirtyRate]) -> Cell:
    """One each hop; a method has no rate of what it is not for."""
    if not found:
        return Cell(NOT_THERE)
    return Cell(", ".join(map(_rate, found)))


def _rate(one: DirtyRate) -> str:
    if one.mib_s is None:
        return NOT_MEASURED
    return f"{one.mib_s:.1f}" + (f" ± {one.error_mib_s:.1f}" if one.error_mib_s else "")


def _announced(hop: Inside) -> Iterator[str]:
    if hop.announced is None:
        yield f"announced: {_missing(hop, 'no guest ran on on the target')}"
        return
    first = hop.first_announce_ms
    if first is None:
        when = "none was heard"
    else:
        when = f"first {abs(first):.1f} ms {'before' if first < 0 else 'after'} the resume"
    yield f"announced: {_by(hop)}; {when}{_listened(hop)}"


def _by(hop: Inside) -> str:
    """Who was heard how often; a RARP of QEMU's may be one that its backend sent for it."""
    asked = hop.announce_rounds_asked
    of = "rounds asked not measured" if asked is None else f"of {asked} rounds asked"
    if hop.announced_by is None:
        return f"{hop.announced} in all, {of}"
    by = hop.announced_by
    guests = [f"guest's {name} {by[kind]}" for kind, name in _GUESTS.items() if by.get(kind)]
    return ", ".join((*(guests or ("guest's none",)), f"QEMU's RARP {by.get('rarp', 0)} {of}"))


_GUESTS = {"garp": "ARP", "na": "NA"}
"""What a guest announces itself by."""


def _listened(hop: Inside) -> str:
    """Said where rounds can't be called missing: the last of them was not due yet."""
    due = hop.announce_last_due_ms
    if due is None or hop.listened_ms is None or hop.listened_ms >= due:
        return ""
    return f"; listened for {hop.listened_ms / 1e3:.2f} s of {due / 1e3:.2f} s"


def _first_packets(hop: Inside) -> str:
    found = (
        ("egress", "at the peer", hop.first_egress_ms, hop.first_egress_error_ms),
        ("ingress", "in the guest", hop.first_ingress_ms, hop.first_ingress_error_ms),
    )
    told = []
    for way, where, ms, error_ms in found:
        if way in hop.silent:
            told.append(f"{way} none came")
        elif ms is None:
            told.append(f"{way} {NOT_MEASURED}")
        else:
            error = NOT_MEASURED if error_ms is None else f"{error_ms:.2f}"
            told.append(f"{way} {ms:.2f} ± {error} ms, {where}")
    return f"first packet after the resume: {'; '.join(told)}"


def _missed(span: MonitorGap) -> str:
    """What was not had by it, as far as it was reckoned."""
    told = []
    if span.missed is not None:
        told.append(f"{span.missed} looks at the progress were missed")
    if span.stop:
        told.append("the guest was stopped in it")
    if span.stopped_ms:
        told.append(f"{span.stopped_ms:.1f} ms of the guest's stop lie in it")
    elif span.stopped_ms == 0 and span.stop is False:
        told.append("nothing of the guest's stop lies in it")
    return "".join(f"; {one}" for one in told)


# --- over the attempts of a run -----------------------------------------------------------------


def went(groups: Mapping[str, Sequence[Attempt]]) -> tuple[Section, ...]:
    """Per direction: a row for what kept packets from being served, a column a case."""
    return tuple(found for way in DIRECTIONS if (found := _went(groups, way)) is not None)


def _went(groups: Mapping[str, Sequence[Attempt]], way: Direction) -> Section | None:
    told = {label: [_told_of(a, way) for a in group] for label, group in groups.items()}
    gaps = {
        label: [one for one in found if isinstance(one, Explained)] for label, found in told.items()
    }
    every = [one for found in gaps.values() for one in found]
    if not every:
        return None
    longest_first = sorted(every, key=lambda one: len(one.spans), reverse=True)
    whats = dict.fromkeys(s.what for one in longest_first for s in one.spans if s.explained)
    rows: list[Row] = [
        (Cell(what), *(_span(found, what) for found in gaps.values()))
        for what in sorted(whats, key=lambda what: _place(every, what))
    ]
    rows.append((Cell("unexplained"), *(_median(found, "ms") for found in told.values())))
    rows.append((Cell("explained, %"), *(_median(found, "share") for found in told.values())))
    title = f"Where the outage went, {way}: medians over the attempts, ms"
    return Section(title, Grid(("what kept it", *gaps), tuple(rows)))


def _place(every: Sequence[Explained], what: str) -> float:
    """How far into their gaps spans of this kind begin, on the whole."""
    return statistics.mean(
        number / len(one.spans)
        for one in every
        for number, span in enumerate(one.spans)
        if span.what == what
    )


def _span(found: Sequence[Explained], what: str) -> Cell:
    lengths = [sum(s.length_ms for s in one.spans if s.what == what) for one in found]
    return _spread([ms for ms in lengths if ms], len(found))


def _median(told: Sequence[Explained | str], which: str) -> Cell:
    """Of the attempts that have a gap explained; where none has: why."""
    found = [one for one in told if isinstance(one, Explained)]
    if not found:
        return Cell(NOT_MEASURED if NOT_MEASURED in told else IN_FLOOR)
    values = [100 * one.share if which == "share" else one.unexplained_ms for one in found]
    return _spread(values, len(told))


def _spread(values: Sequence[float], of: int) -> Cell:
    if not values:
        return Cell(NOT_THERE)
    missing = f" in {len(values)} of {of}" if len(values) < of else ""
    shown = f"[{min(values):.1f}..{max(values):.1f}]" if len(values) > 1 else ""
    return Cell(f"{statistics.median(values):.1f}", (shown + missing).strip())
