"""The events of an attempt for its page: a line each, those that come by the dozen together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from migrate.errors import visible
from migrate.model import Event
from migrate.report.figure_data import FigureData

LINES = 64
"""Listed for an attempt at most; ``events.jsonl`` has all events, with all of their data."""
MOST_ALIKE = 4
"""Of one name on one host: more are told together, burst by burst."""
BURST_NS = 250_000_000
"""Between two events of a burst, at most."""
MOST_DATA = 100
"""Letters of an event's data that are listed."""


@dataclass(slots=True)
class _Burst:
    first: Event
    last: Event
    count: int = 1


def event_lines(data: FigureData) -> tuple[str, ...]:
    """When in ms, its error, where, who said it, what; control characters are shown as escapes."""
    bursts = list(_bursts(data.events))
    lines = [_line(data, burst) for burst in bursts[:LINES]]
    left = sum(burst.count for burst in bursts[LINES:])
    return (*lines, f"… and {left} more") if left else tuple(lines)


def _bursts(events: Sequence[Event]) -> Iterator[_Burst]:
    """In order of their first events."""
    numbers = Counter(map(_key, events))
    bursts: dict[tuple[str, ...], _Burst] = {}
    every = []
    for event in events:
        key = _key(event)
        burst = bursts.get(key)
        if burst and numbers[key] > MOST_ALIKE and event.at_ns - burst.last.at_ns < BURST_NS:
            burst.last = event
            burst.count += 1
        else:
            bursts[key] = _Burst(event, event)
            every.append(bursts[key])
    yield from every


def _key(event: Event) -> tuple[str, ...]:
    """Statuses of a migration have one name, and are not alike."""
    return event.host, event.source, event.name, str(event.data.get("status", ""))


def _line(data: FigureData, burst: _Burst) -> str:
    event = burst.first
    error = "±     ?" if event.error_ns is None else f"± {event.error_ns / 1e6:.3f}"
    told = f"{burst.count} times, last at {data.ms(burst.last.at_ns):+.3f}"
    if burst.count == 1:
        told = json.dumps(event.data, default=repr, ensure_ascii=False) if event.data else ""
        told = told if len(told) <= MOST_DATA else f"{told[:MOST_DATA]} … ({len(told)} letters)"
    what = visible(f"{event.host:8} {event.source:10} {event.name} {told}".rstrip())
    return f"{data.ms(event.at_ns):+12.3f} {error:>9}  {what}"
