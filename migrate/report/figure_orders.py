"""The lane of what we asked and did: moves, orders meanwhile, faults, devices, our questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from migrate.formats.qemu_migration import FAULT, FAULT_OVER, ORDER, QEMU_ENDED, QUESTION
from migrate.model import Event
from migrate.report.figure_data import FigureData
from migrate.report.figure_lanes import Bar, Lane, Mark

QUESTIONS_MOST = 40
"""Of our questions to QEMU that are drawn: the longest ones."""
PLAIN = {
    "call-ended": ("E", "order", "libvirt's call ended"),
    "detached": ("U", "order", "device taken out"),
    "attached": ("D", "order", "device plugged in"),
    QEMU_ENDED: ("Q", "over", "QEMU ended"),
}
"""Letter, tint and words of the controller's events that are no orders, faults or questions."""


def orders_lane(data: FigureData) -> Iterator[Lane]:
    """One lane; none where nothing of it is on record."""
    ours = [event for event in data.events if event.source == "controller"]
    marks = [mark for event in ours for mark in _mark(data, event)]
    questions = list(_question_bars(data, ours))
    if marks or questions:
        hover = "calls to libvirt, faults; thin bars are QMP commands"
        yield Lane(
            "asked and done", questions, sorted(marks, key=lambda mark: mark.at), hover=hover
        )


def _mark(data: FigureData, event: Event) -> Iterator[Mark]:
    sign = _sign(event)
    if sign is None:
        return
    letter, kind, text = sign
    hover = f"{text}, on {event.host}" if event.host else text
    yield Mark(data.ms(event.at_ns), letter, kind, hover, text)


def _sign(event: Event) -> tuple[str, str, str] | None:
    """Letter, tint and words of an event; None: it has no mark."""
    name = event.name
    if name in PLAIN:
        return PLAIN[name]
    if name.startswith(ORDER):
        text = name.removeprefix(ORDER)
        return text[:1].upper(), "order", text
    if name.startswith(FAULT_OVER):
        return "B", "over", f"put back: {name.removeprefix(FAULT_OVER)}"
    if name.startswith((FAULT, "fault failed: ")):
        return "F", "fault", name
    return None


def _question_bars(data: FigureData, ours: Sequence[Event]) -> Iterator[Bar]:
    """From the ask to the answer; one that was not answered is as long as a mark."""
    bars = []
    for event in ours:
        if event.name != QUESTION:
            continue
        answered_ns, commands = event.data.get("answered_ns"), event.data.get("commands")
        begin = end = data.ms(event.at_ns)
        took = "no answer"
        if isinstance(answered_ns, int):
            end = data.ms(answered_ns)
            took = f"answered after {end - begin:.1f} ms"
        names = ", ".join(map(str, commands)) if isinstance(commands, list | tuple) else "?"
        hover = f"asked QEMU on {event.host}: {names}\n{took}"
        bars.append(Bar(begin, max(begin, end), "ask", hover, level=0.3))
    bars.sort(key=lambda bar: bar.begin - bar.end)
    yield from sorted(bars[:QUESTIONS_MOST], key=lambda bar: bar.begin)
