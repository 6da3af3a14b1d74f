"""What went on inside of an attempt's moves, in grids; what was not seen says so, and why."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from migrate.model import Attempt, DeviceHandoff, Direction, Explained, Inside
from migrate.report.columns import longest
from migrate.report.grid import NOT_MEASURED, Cell, Grid, Row

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
    """All that is known of one attempt; empty if it made no move."""
    return tuple(_sections(attempt))


def _sections(attempt: Attempt) -> Iterator[Section]:
    for one in attempt.explained or ():
        yield _gap(one)
    for hop in attempt.inside:
        where = f", hop {hop.hop}" if len(attempt.inside) > 1 else ""
        yield _stop(attempt, hop, where)
        yield _devices(hop, where)
        if hop.rings:
            yield _rings(hop, where)
        yield Section(f"Announced and unseen{where}", lines=tuple(_told(hop)))


def _ms(value: float | None, digits: int = 2) -> Cell:
    return Cell(NOT_MEASURED if value is None else f"{value:.{digits}f}")


def _gap(one: Explained) -> Section:
    rows: list[Row] = [
        (
            Cell(
                span.what if span.explained else f"UNEXPLAINED: {span.what}", bad=not span.explained
            ),
            Cell(span.host or "between"),
            _ms(span.length_ms),
            _ms(span.error_ns / 1e6),
        )
        for span in one.spans
    ]
    title = (
        f"Where the outage went, {one.direction}: {one.length_ns / 1e6:.1f} ms, "
        f"{one.share:.1%} explained, {one.unexplained_ms:.1f} ms unexplained"
    )
    return Section(title, Grid(("what kept it", "where", "ms", "± ms"), tuple(rows)))


def _stop(attempt: Attempt, hop: Inside, where: str) -> Section:
    title = f"The guest's stop by stage{where}"
    if hop.stop is None:
        return Section(title, lines=("not measured: the guest was not stopped and resumed",))
    rows = tuple(
        (Cell(span.what), Cell(span.host or "between"), _ms(span.length_ms)) for span in hop.stop
    )
    together = sum(span.length_ms for span in hop.stop)
    ways: tuple[Direction, ...] = ("egress", "ingress")
    found = [(way, longest(attempt, way, "switchover")) for way in ways]
    seen = ", ".join(f"{way} {one.ms:.1f} ms" for way, one in found if one)
    reported = attempt.reported.downtime_ms
    told = NOT_MEASURED if reported is None else f"{reported:.1f} ms"
    line = f"together {together:.1f} ms; reported {told}; seen around the stop: {seen or 'nothing'}"
    return Section(title, Grid(("stage", "where", "ms"), rows), (line,))


def _devices(hop: Inside, where: str) -> Section:
    title = f"Handoff{where}"
    if hop.devices is None:
        return Section(title, lines=("not measured: neither trace points nor states were had",))
    slow = [one for one in hop.devices if not _quick(one)]
    rows = [
        (
            Cell(one.device),
            Cell(NOT_MEASURED if one.size_bytes is None else str(one.size_bytes)),
            *(_ms(one.save_ms), _ms(one.load_ms), _state(one)),
        )
        for one in slow
    ]
    if others := len(hop.devices) - len(slow):
        name = Cell(f"{others} others, less than {QUICK_MS} ms each")
        rows.append((name, Cell(NOT_MEASURED), Cell(""), Cell(""), Cell("not compared")))
    lines = [
        f"{one.device}: {each.field}: {each.before} before, {each.after} after; "
        f"{'lawful' if each.lawful else 'UNLAWFUL'}: {each.why}"
        for one in hop.devices
        for each in one.differences
    ]
    heads = ("device", "bytes", "save, ms", "load, ms", "state")
    return Section(title, Grid(heads, tuple(rows)), tuple(lines))


def _quick(one: DeviceHandoff) -> bool:
    took = max(one.save_ms or 0.0, one.load_ms or 0.0)
    return took < QUICK_MS and not one.compared


def _state(one: DeviceHandoff) -> Cell:
    if not one.compared:
        return Cell("not compared")
    wrong = sum(not each.lawful for each in one.differences)
    if wrong:
        return Cell("DIFFERS", f"in {wrong}", bad=True)
    lawful = len(one.differences)
    return Cell("same", f"{lawful} lawful differences" if lawful else "")


def _rings(hop: Inside, where: str) -> Section:
    rows = tuple(
        (
            Cell(f"{ring.device} {ring.queue}"),
            Cell(f"{ring.kind} {ring.size}"),
            Cell(", ".join(f"{name} {value}" for name, value in ring.facts.items())),
            Cell("BROKEN" if ring.broken else "sound", bad=bool(ring.broken)),
        )
        for ring in hop.rings or ()
    )
    lines = [
        f"{ring.device} {ring.queue}: {rule}"
        for ring in hop.rings or ()
        for rule in (*ring.broken, *(f"not checked: {one}" for one in ring.unchecked))
    ]
    heads = ("queue", "ring", "at the source's stop", "verdict")
    return Section(f"Rings{where}", Grid(heads, rows), tuple(lines))


def _told(hop: Inside) -> Iterator[str]:
    if hop.announced is None:
        yield "announcements: not measured"
    else:
        first = hop.first_announce_ms
        when = "" if first is None else f", the first {first:.2f} ms after the resume"
        yield f"announcements heard on the fabric: {hop.announced}{when}"
    for span in hop.blind:
        yield f"blind on {span.host} for {span.length_ms:.0f} ms: {span.what}"
    for reason in hop.unseen:
        yield f"not seen: {reason}"


# --- over the attempts of a run -----------------------------------------------------------------


def went(groups: Mapping[str, Sequence[Attempt]]) -> tuple[Section, ...]:
    """Per direction: a row for what kept packets from being served, a column a case."""
    ways: tuple[Direction, ...] = ("egress", "ingress")
    return tuple(found for way in ways if (found := _went(groups, way)) is not None)


def _went(groups: Mapping[str, Sequence[Attempt]], way: Direction) -> Section | None:
    gaps = {
        label: [one for a in group for one in a.explained or () if one.direction == way]
        for label, group in groups.items()
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
    rows.append((Cell("unexplained"), *(_median(f, "unexplained") for f in gaps.values())))
    rows.append((Cell("explained, %"), *(_median(f, "share") for f in gaps.values())))
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


def _median(found: Sequence[Explained], which: str) -> Cell:
    if which == "share":
        return _spread([100 * one.share for one in found], len(found))
    return _spread([one.unexplained_ms for one in found], len(found))


def _spread(values: Sequence[float], of: int) -> Cell:
    if not values:
        return Cell(NOT_THERE)
    missing = f" in {len(values)} of {of}" if len(values) < of else ""
    shown = f"[{min(values):.1f}..{max(values):.1f}]" if len(values) > 1 else ""
    return Cell(f"{statistics.median(values):.1f}", (shown + missing).strip())
