"""The details of an attempt's moves, in sections; what was not measured says so, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from migrate.analysis.convergence import PRECOPY
from migrate.analysis.figures import FigureValue, longest_outage
from migrate.model import (
    DIRECTIONS,
    Attempt,
    DeviceHandoff,
    Direction,
    GapExplanation,
    MoveDetails,
    RingAudit,
    Span,
)
from migrate.report.announcements import announced_lines
from migrate.report.convergence import convergence_lines, dirty_rate_section
from migrate.report.outage_breakdown import explained_or_reason
from migrate.report.table_model import (
    IN_FLOOR,
    NOT_MEASURED,
    Cell,
    Grid,
    GridRow,
    GridSection,
    not_measured,
)
from migrate.statistics.censored import below_floor

QUICK_MS = 0.1
"""Devices that took less than this, and of which nothing differs, are one row together."""
NOT_ASKED = "the case does not ask for it (expect.rings)"
ENDED_OTHERWISE = "no forecast: the move switched to post-copy"


def sections(attempt: Attempt) -> tuple[GridSection, ...]:
    """All sections of one attempt; what was not measured has its section, too."""
    return tuple(_sections(attempt))


def _sections(attempt: Attempt) -> Iterator[GridSection]:
    for way in DIRECTIONS:
        content = explained_or_reason(attempt, way)
        yield (
            _gap(content) if isinstance(content, GapExplanation) else _no_gap(attempt, way, content)
        )
    if not attempt.inside:
        line = f"{NOT_MEASURED}: no move was recorded in detail"
        yield GridSection("The guest's stop, device state, virtqueues", lines=(line,))
    for hop in attempt.inside:
        where = f", hop {hop.hop}" if len(attempt.inside) > 1 else ""
        yield _stop(attempt, hop, where)
        yield _devices(hop, where)
        yield _rings(attempt, hop, where)
        if attempt.case.policy.method in PRECOPY:
            ended_otherwise = hop.convergence is None and any(
                phase.name == "postcopy" for phase in attempt.phases
            )
            lines = [ENDED_OTHERWISE] if ended_otherwise else convergence_lines(hop)
            yield GridSection(f"Convergence{where}", lines=tuple(lines))
        yield GridSection(
            f"Announcements, first packets, and what was not observed{where}",
            lines=tuple(announced_lines(hop)),
        )
    if attempt.dirty_rates is not None:
        yield dirty_rate_section(attempt.dirty_rates)


def _no_gap(attempt: Attempt, way: Direction, why: str) -> GridSection:
    if why == IN_FLOOR:
        outage = longest_outage(attempt, way)
        seen = IN_FLOOR if outage is None else below_floor(outage.floor_ms)
        line = f"{seen}: no gap to explain"
    elif attempt.gaps is None:
        line = f"{NOT_MEASURED}: no gaps were recorded"
    else:
        line = f"{NOT_MEASURED}: nothing was recorded that could explain the gaps"
    return GridSection(f"Where the outage went, {way}", lines=(line,))


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


def _gap(gap: GapExplanation) -> GridSection:
    title = (
        f"Where the outage went, {gap.direction}: {gap.length_ns / 1e6:.1f} ms, "
        f"{gap.share:.1%} explained, {gap.unexplained_ms:.1f} ms unexplained"
    )
    return GridSection(title, _spans("cause", gap.spans))


def _stop(attempt: Attempt, hop: MoveDetails, where: str) -> GridSection:
    title = f"The guest's stop by stage{where}"
    if hop.stop is None:
        return GridSection(
            title,
            lines=(not_measured("no STOP or no RESUME event was recorded", hop.reasons("stop")),),
        )
    stopped_ms = sum(span.length_ms for span in hop.stop)
    outages = [(way, longest_outage(attempt, way, "switchover")) for way in DIRECTIONS]
    around_stop = ", ".join(f"{way} {_outage_text(outage)}" for way, outage in outages)
    reported = attempt.reported.downtime_ms
    downtime = NOT_MEASURED if reported is None else f"{reported:.1f} ms"
    lines = [
        f"together {stopped_ms:.1f} ms; reported {downtime}; seen around the stop: {around_stop}"
    ]
    if len(attempt.inside) > 1:
        lines.append(
            "the downtime reported and the outage seen are the longest of all hops; the stages are "
            "of this hop"
        )
    elif reported is not None:
        lines += _not_in_stages(reported - stopped_ms)
    return GridSection(title, _spans("stage", hop.stop), tuple(lines))


_SAME_MS = 1.0
"""The hypervisor reports whole milliseconds."""


def _not_in_stages(more_ms: float) -> Iterator[str]:
    """What the downtime reported has more, or less, than the stages."""
    if more_ms > _SAME_MS:
        yield (
            f"{more_ms:.1f} ms of the downtime reported are not in these stages: they are before "
            "STOP or after RESUME, or QEMU and libvirt count otherwise"
        )
    elif more_ms < -_SAME_MS:
        yield f"the downtime reported is {-more_ms:.1f} ms shorter than the sum of the stages"


def _outage_text(outage: FigureValue | None) -> str:
    if outage is None:
        return NOT_MEASURED
    if outage.in_floor:
        return below_floor(outage.floor_ms) if outage.only_floor else NOT_MEASURED
    bound = "at least " if outage.at_least else ""
    return f"{bound}{outage.ms:.1f} ± {outage.error_ms:.1f} ms"


def _device_reasons(hop: MoveDetails) -> tuple[str, ...]:
    """Why neither the times nor the states of devices are there."""
    return tuple(dict.fromkeys((*hop.reasons("stop"), *hop.reasons("devices"))))


def _devices(hop: MoveDetails, where: str) -> GridSection:
    title = f"Device state{where}"
    if hop.devices is None:
        return GridSection(
            title,
            lines=(
                not_measured(
                    "neither trace points nor device states are available", _device_reasons(hop)
                ),
            ),
        )
    slow = [device for device in hop.devices if not _quick(device)]
    quick = [device for device in hop.devices if _quick(device)]
    rows: list[GridRow] = [
        (
            Cell(device.device),
            Cell(NOT_MEASURED if device.size_bytes is None else str(device.size_bytes)),
            *(_ms(device.save_ms), _ms(device.load_ms), _state(device)),
        )
        for device in slow
    ]
    if quick:
        rows.append(_quick_row(quick))
    lines = [
        f"{device.device}: {difference.field}: {difference.before} before, "
        f"{difference.after} after; {'allowed' if difference.lawful else 'NOT ALLOWED'}: "
        f"{difference.why}"
        for device in hop.devices
        for difference in device.differences
    ]
    lines += [
        f"{device.device}: not compared: {text}"
        for device in hop.devices
        for text in _one_sided_lines(device)
    ]
    heads = ("device", "bytes", "save, ms", "load, ms", "state")
    return GridSection(title, Grid(heads, tuple(rows)), tuple(lines))


def _one_sided_lines(device: DeviceHandoff) -> Iterator[str]:
    """Fields that one end alone reported, a line each; those of several queues together."""
    fields_by_place: dict[tuple[str, str], list[str]] = {}
    for name in device.untold:
        what, _, end = name.removesuffix(" only)").rpartition(" (")
        place, _, field = what.rpartition(": ")
        fields_by_place.setdefault((end, place), []).append(field)
    places: dict[tuple[str, str], list[str]] = {}
    for (end, place), names in fields_by_place.items():
        places.setdefault((end, ", ".join(names)), []).append(place)
    for (end, fields), queues in places.items():
        where = f"{', '.join(queues)}: " if any(queues) else ""
        yield f"reported by the {end} only: {where}{fields}"


def _quick(device: DeviceHandoff) -> bool:
    """Whether a device is known to have taken little, with nothing else to say of it."""
    times = [ms for ms in (device.save_ms, device.load_ms) if ms is not None]
    return bool(times) and max(times) < QUICK_MS and not device.compared and not device.differences


def _quick_row(quick: Sequence[DeviceHandoff]) -> GridRow:
    """One row for all quick devices together."""
    sizes = [device.size_bytes for device in quick if device.size_bytes is not None]
    saved = [device.save_ms for device in quick if device.save_ms is not None]
    loaded = [device.load_ms for device in quick if device.load_ms is not None]
    number = len(quick)
    return (
        Cell(f"{number} others, less than {QUICK_MS} ms each"),
        _sum_cell(str(sum(sizes)), len(sizes), number),
        _sum_cell(f"{sum(saved):.2f}", len(saved), number),
        _sum_cell(f"{sum(loaded):.2f}", len(loaded), number),
        Cell("not compared"),
    )


def _sum_cell(text: str, known: int, number: int) -> Cell:
    if not known:
        return Cell(NOT_MEASURED)
    return Cell(text, f"{known}/{number} measured" if known < number else "")


def _state(device: DeviceHandoff) -> Cell:
    if not device.compared or device.fields_compared == 0:
        return Cell("not compared")
    wrong = sum(not difference.lawful for difference in device.differences)
    if wrong:
        return Cell("DIFFERS", f"in {wrong}", bad=True)
    allowed = len(device.differences)
    spread = f"{allowed} allowed differences" if allowed else ""
    if not device.parts_not_compared:
        return Cell("same", spread)
    left = f"not compared: {len(device.untold)} fields"
    return Cell("same where compared", f"{spread}, {left}" if spread else left)


def _rings(attempt: Attempt, hop: MoveDetails, where: str) -> GridSection:
    if not hop.rings:
        asked = attempt.case.expect.rings or not hop.missing
        line = not_measured(
            "no virtqueue was read", hop.reasons("rings") if asked else (NOT_ASKED,)
        )
        return GridSection(f"Virtqueues{where}", lines=(line,))
    rows = tuple(
        (
            Cell(f"{ring.device} {ring.queue}"),
            Cell(f"{ring.kind} {ring.size}" if ring.size else NOT_MEASURED),
            Cell(", ".join(f"{name} {value}" for name, value in ring.facts.items())),
            _soundness(ring),
        )
        for ring in hop.rings
    )
    lines = [
        f"{ring.device} {ring.queue}: {rule}"
        for ring in hop.rings
        for rule in (*ring.broken, *(f"not checked: {reason}" for reason in ring.unchecked))
    ]
    heads = ("queue", "ring", "at STOP on the source", "state")
    return GridSection(f"Virtqueues{where}", Grid(heads, rows), tuple(lines))


def _soundness(ring: RingAudit) -> Cell:
    if ring.broken:
        return Cell("BROKEN", bad=True)
    if ring.unread:
        return Cell("not read")
    return Cell("sound", "as far as it was checked" if ring.unchecked else "")
