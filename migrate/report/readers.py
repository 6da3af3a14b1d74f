"""All that is made of a whole run for its readers: JUnit's XML, the index, the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from migrate.model import Attempt
from migrate.report.html import render
from migrate.report.junit import junit
from migrate.results.index import write_index
from migrate.results.reader import read_run
from migrate.results.writer import RunWriter


def write_readers(writer: RunWriter, attempts: Sequence[Attempt]) -> Path:
    """Write them; returns the path of the report."""
    record = read_run(writer.folder)
    writer.write("junit.xml", junit(writer.run, attempts, record.unreadable))
    write_index(writer.folder)
    return writer.write("report.html", render(record))
