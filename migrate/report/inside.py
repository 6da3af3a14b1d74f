"""What went on inside of an attempt's moves, in grids; what was not seen says so, and why."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from migrate.model import (
    DIRECTIONS,
    Attempt,
    Blind,
    DeviceHandoff,
    Direction,
    Explained,
    Inside,
    RingAudit,
    Span,
)
from migrate.report.columns import Measured, longest
from migrate.report.grid import IN_FLOOR, NOT_MEASURED, Cell, Grid, Row

QUICK_MS = 0.1
"""Devices that took less than this, and of which nothing differs, are one row together."""
NOT_THERE = "-"


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
        yield Section(f"Announced and unseen{where}", lines=tuple(_told(hop)))


def _told_of(attempt: Attempt, way: Direction) -> Explained | str:
    """What the longest gap this way contains, or why there is nothing to tell."""
    for one in attempt.explained or ():
        if one.direction == way:
            return one
    seen = longest(attempt, way)
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
    found = [(way, longest(attempt, way, "switchover")) for way in DIRECTIONS]
    seen = ", ".join(f"{way} {_seen(one)}" for way, one in found)
    reported = attempt.reported.downtime_ms
    told = NOT_MEASURED if reported is None else f"{reported:.1f} ms"
    line = f"together {together:.1f} ms; reported {told}; seen around the stop: {seen}"
    return Section(title, _spans("stage", hop.stop), (line,))


def _seen(one: Measured | None) -> str:
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
    heads = ("device", "bytes", "save, ms", "load, ms", "state")
    return Section(title, Grid(heads, tuple(rows)), tuple(lines))


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


def _missed(span: Blind) -> str:
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
