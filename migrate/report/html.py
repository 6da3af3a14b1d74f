"""``report.html``: one file that opens offline, made from a run folder alone.

The second door of jinja2 beside ``domain``: here it writes HTML, escapes all that it is given and
refuses what it does not know. Figures are JSON in the page and drawn when they come into view.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from migrate.analysis.figures import longest_outage
from migrate.checks import quarantine
from migrate.errors import MeasurementError
from migrate.model import DIRECTIONS, Attempt
from migrate.report.figure import figure
from migrate.report.figure_data import FigureData
from migrate.report.move_details import sections
from migrate.report.table import PARTS_TITLE, table
from migrate.results.run_folder import PRUNED, AttemptRecord, RunRecord, RunWriter, read_run

POINTS = 80_000
"""Of all figures together, one way: many attempts get fewer points each."""
EVENTS = 500
"""Listed for an attempt; ``events.jsonl`` has them all."""
GAPS = 300
"""Listed for an attempt; ``attempt.json`` has them all."""
_NOT = "not measured"


def write_report(folder: Path) -> Path:
    """Read the run in ``folder``, write ``report.html`` there. Raises MeasurementError."""
    if (folder / PRUNED).exists():
        raise MeasurementError(
            f"make the report of {folder}",
            said="it was pruned: its packets and events are gone",
            remedy="`migrate-lab show` and `migrate-lab trend` read it still",
        )
    record = read_run(folder)
    return RunWriter(folder, record.run).write("report.html", render(record))


def render(record: RunRecord) -> str:
    """The page."""
    import jinja2  # noqa: PLC0415 - heavy
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - heavy

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("migrate.report").joinpath("report.html.j2").read_text("utf-8")
    attempts = [one.attempt for one in record.attempts]
    points = max(300, min(4000, POINTS // max(1, len(attempts))))
    return environment.from_string(source).render(
        run=record.run,
        unfinished=record.unfinished,
        table=table(record.run, attempts),
        parts_title=PARTS_TITLE,
        passed=sum(attempt.passed for attempt in attempts),
        excused=sum(bool(quarantine.excuses(record.run, attempt)) for attempt in attempts),
        expired=len(quarantine.expired(record.run)),
        attempts=[_section(one, points) for one in record.attempts],
        plotly=get_plotlyjs(),
    )


def _section(record: AttemptRecord, points: int) -> dict[str, Any]:
    attempt, events, arrivals = record.attempt, record.events(), record.arrivals()
    gaps = attempt.gaps or ()
    seen = FigureData(attempt, arrivals, record.samples(), events, points)
    return {
        "id": f"{attempt.case.id}/{attempt.number}",
        "attempt": attempt,
        "headline": headline(attempt),
        "figure": in_script(figure(seen)),
        "thinned": any(len(log) > points for log in arrivals.values()),
        "gaps": [{"ms": f"{seen.ms(gap.begin_ns):+.1f}", "gap": gap} for gap in gaps[:GAPS]],
        "more_gaps": max(0, len(gaps) - GAPS),
        "events": [
            {
                "ms": f"{seen.ms(event.at_ns):+.3f}",
                "event": event,
                "data": json.dumps(event.data, default=repr) if event.data else "",
            }
            for event in events[:EVENTS]
        ],
        "more_events": max(0, len(events) - EVENTS),
        "inside": sections(attempt),
        "files": [str(p.relative_to(record.folder)) for p in sorted(record.folder.rglob("*.*"))],
    }


def headline(attempt: Attempt) -> str:
    """Outcome, holder and the two figures that matter, in a sentence."""
    held = " and ".join(attempt.held_by) or "no host"
    parts = [f"{attempt.outcome}, the guest runs on {held}"]
    for direction in DIRECTIONS:
        seen = longest_outage(attempt, direction)
        where = f" ({seen.part})" if seen and seen.part != "none" else ""
        length = _told(seen.ms, seen.at_least) if seen else _NOT
        parts.append(f"outage {direction} {length}{where}")
    reported = attempt.reported.downtime_ms
    parts.append(f"downtime reported {_told(reported) if reported is not None else _NOT}")
    wrong = [verdict.check for verdict in attempt.failed_verdicts]
    if wrong:
        parts.append(f"not passed: {', '.join(wrong)}")
    return "; ".join(parts)


def _told(ms: float, at_least: bool = False) -> str:
    return "in the floor" if ms == 0 else f"{'at least ' if at_least else ''}{ms:.1f} ms"


def in_script(text: str) -> str:
    """JSON that can't end the script element it stands in."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
