"""``report.html``: one file that opens offline, made from a run folder alone.

A door of jinja2: here it writes HTML, escapes all that it is given and refuses unknown names. What
the page is made of lies in ``page/``. Its scripts are named by their hashes in the page's policy:
no other script runs, whatever somebody's text came to be.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from migrate.analysis.figures import counted
from migrate.errors import MeasurementError, visible
from migrate.model import Attempt
from migrate.report.attempt_section import attempt_section
from migrate.report.failures import failures
from migrate.report.figure import HELP, script, style
from migrate.report.machines import describe
from migrate.report.outage_bars import outage_bars
from migrate.report.overview import FIRST_CASES, overview
from migrate.report.ranking import rank_rows
from migrate.report.summary import summary
from migrate.report.table import PARTS_TITLE, labelled, run_table
from migrate.results.layout import PRUNED
from migrate.results.reader import RunRecord, read_run
from migrate.results.writer import RunWriter


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


def part(name: str) -> str:
    """The text of a file of ``page/``."""
    return resources.files("migrate.report").joinpath("page", name).read_text("utf-8")


def render_page(name: str, scripts: Sequence[str], **values: Any) -> str:
    """A template of ``page/``, with the values that all pages have."""
    import jinja2  # noqa: PLC0415 - heavy

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(part),
        finalize=_shown,
    )
    return environment.get_template(name).render(
        style=part("page.css"),
        scripts=scripts,
        hashes=[script_hash(script) for script in scripts],
        **values,
    )


def _shown(value: Any) -> Any:
    """Text without control characters and without what turns the direction of writing."""
    text = isinstance(value, str) and not hasattr(value, "__html__") and not value.isprintable()
    return visible(value, lines=True) if text else value


def script_hash(script: str) -> str:
    """By which a page's policy names a script (W3C, Content Security Policy Level 3, 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def render(record: RunRecord) -> str:
    """The whole page as HTML."""
    run = record.run
    attempts = [entry.attempt for entry in record.attempts]
    groups = labelled(attempts)
    figures = {label: counted(group) for label, group in groups.items()}
    ranks = rank_rows(figures)
    drawn = {label: group for label, group in figures.items() if group}
    notes = {label: _note(group, figures[label]) for label, group in groups.items()}
    return render_page(
        "report.html.j2",
        [part("report.js"), script()],
        figure_style=style(),
        figure_help=HELP,
        run=run,
        table=run_table(run, attempts, record.unreadable),
        parts_title=PARTS_TITLE,
        summary=summary(record),
        failures=failures(record),
        overview=overview(drawn, notes, ranks),
        bars=outage_bars(drawn),
        first_cases=FIRST_CASES,
        ranks=ranks,
        attempts=[attempt_section(entry) for entry in record.attempts],
        described=describe,
    )


def _note(group: Sequence[Attempt], figures: Sequence[Attempt]) -> str:
    if len(figures) == len(group):
        return f"n {len(group)}"
    return f"n {len(figures)} of {len(group)}"
