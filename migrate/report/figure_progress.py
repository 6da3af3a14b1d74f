"""The panel of progress: how fast memory is copied and dirtied, and how much is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from migrate.model import Sample
from migrate.report.downsample import downsample
from migrate.report.drawing import NAMES_PX, Drawing
from migrate.report.figure_data import TENTH, FigureData
from migrate.report.svg import UNITS, element, line, number

PANEL_PX = 110
POINTS = 100
"""Of each line, about."""
HEADROOM = 1.1
PAGE_BYTES = 4096

Read = Callable[[Sample], float | None]


def _mib(value: int | None, unit: int = 1) -> float | None:
    return None if value is None else value * unit / 2**20


LINES: tuple[tuple[str, str, str, Read], ...] = (
    ("transfer rate", "rate", "MiB/s", lambda sample: _mib(sample.rate_bytes_s)),
    ("dirty rate", "dirty", "MiB/s", lambda sample: _mib(sample.dirty_pages_s, PAGE_BYTES)),
    ("memory left", "left", "MiB", lambda sample: _mib(sample.remaining_bytes)),
)
"""Name, kind, unit and value of each line; those of a unit share a scale."""


def progress_panel(drawing: Drawing, data: FigureData) -> None:
    """Lines that differ by their dashes, too."""
    top = drawing.height
    drawing.name("progress", top + 12, "f-head")
    drawing.pieces.append(element("rect", kind="frame", width="100%", y=top, height=PANEL_PX))
    paths, scales = [], _scales(data.samples)
    for turn, (name, kind, unit, read) in enumerate(LINES):
        most = scales[unit]
        y = top + 29 + 26 * turn
        drawing.name(f"{name}, {unit}" if most else f"{name}:", y, "f-note")
        if most and (path := _path(data, read, most)):
            drawing.names.append(element("line", kind=kind, x1=0, x2=44, y1=y + 13, y2=y + 13))
            drawing.name(f"top {most:.3g}", y + 13, "f-note", x=NAMES_PX - 6)
            told = f"{name} {unit} {number(most)}"
            paths.append(element("path", kind=kind, d=path, data_line=told))
        else:
            drawing.name("not measured", y + 13, "f-note")
    if paths:
        drawing.stretched("".join(paths), top, PANEL_PX)
    else:
        drawing.missing("not measured", top + PANEL_PX / 2)
    drawing.height += PANEL_PX


def _scales(samples: Sequence[Sample]) -> dict[str, float]:
    """The top of the panel by unit; 0: nothing was measured in it."""
    tops: dict[str, float] = {}
    for _, _, unit, read in LINES:
        values = [value for sample in samples if (value := read(sample)) is not None]
        tops[unit] = max([tops.get(unit, 0.0), *(HEADROOM * max(value, 0.01) for value in values)])
    return tops


def _path(data: FigureData, read: Read, most: float) -> str:
    """A line for each host that the guest left, one after the other."""
    known = [
        (data.ms(sample.at_ns), value, sample.host)
        for sample in data.samples
        if (value := read(sample)) is not None
    ]
    return "".join(
        _line([point[:2] for point in of_host], most)
        for _, of_host in groupby(known, key=lambda point: point[2])
    )


def _line(points: Sequence[tuple[float, float]], most: float) -> str:
    x, y = (np.asarray(column) for column in zip(*points, strict=True))
    rows = downsample(x, y, np.empty(0, dtype=np.int64), POINTS)
    across = np.rint(x[rows] * TENTH).astype(int).tolist()
    down = np.rint(UNITS * (1 - y[rows] / most)).astype(int).tolist()
    return line(zip(across, down, strict=True))
