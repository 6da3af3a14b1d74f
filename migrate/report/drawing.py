"""What a figure of one attempt is drawn on: a column of names, and beside it the axis of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from migrate.report.figure_data import TENTH, Span
from migrate.report.figure_labels import Label, Obstacle, Place, PlacedLabel, place_labels
from migrate.report.figure_lanes import Bar, Lane, Mark
from migrate.report.svg import UNITS, element, escape, number, percent

NAMES_PX = 128
"""Width of the column of names."""
LANE_PX, ROW_PX = 22, 13
"""Height of a lane, and of a row of labels above it."""
BAR_PX = 18
BARS_MOST, SHADES_MOST = 16, 300
"""Bars of a lane that say more when pointed at, and of those that are left those that are drawn:
the longest ones."""
MARK_PX = 7
"""Half of a mark's width."""


@dataclass(slots=True)
class Drawing:
    """Pieces of both columns, from the top down to :attr:`height`; ``window`` is all of its
    width."""

    window: Span
    names: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)
    height: float = 4.0

    def placed(self) -> list[PlacedLabel]:
        """The labels with their places."""
        return place_labels(self.labels, self.obstacles)

    def lane(self, lane: Lane) -> None:
        """A row with its bars and marks, and the rows of labels above it."""
        self.height += ROW_PX * lane.rows
        middle = self.height + LANE_PX / 2
        self.name(lane.name, middle, "f-name", lane.hover)
        self.bars(lane.bars, self.height + (LANE_PX - BAR_PX) / 2, BAR_PX, lane.name)
        for bar in sorted(lane.bars, key=_importance)[:BARS_MOST]:
            if bar.text:
                self._bar_label(bar, middle, lane.rows)
        for mark in lane.marks:
            self._mark(mark, middle)
        if lane.missing:
            self.missing(lane.missing, middle)
        self.height += LANE_PX

    def name(self, text: str, y: float, kind: str, hover: str = "", x: float = 0) -> None:
        """A text in the column of names."""
        content = escape(text) + (element("title", escape(hover)) if hover else "")
        end = "end" if x else None
        self.names.append(element("text", content, kind=kind, x=x or None, y=y, text_anchor=end))

    def bar(self, bar: Bar, top: float, height: float, label: str) -> None:
        """A stretch that says more when pointed at."""
        begin, end = self.window.share(bar.begin), self.window.share(bar.end)
        self.pieces.append(
            element(
                "rect",
                element("title", escape(bar.hover)),
                kind=f"{label} {bar.kind}",
                x=percent(begin),
                width=percent(end - begin),
                y=top + height * (1 - bar.level),
                height=height * bar.level,
            )
        )

    def bars(self, bars: Sequence[Bar], top: float, height: float, what: str) -> None:
        """Bars of a lane; the longest, if there are very many, and the others shaded."""
        longest = sorted(bars, key=lambda bar: bar.begin - bar.end)
        others: dict[str, list[Bar]] = {}
        for bar in longest[BARS_MOST:]:
            others.setdefault(bar.kind, []).append(bar)
        for kind, shaded in others.items():
            self.shades(shaded, top, height, f"b {kind}", what)
        for bar in sorted(longest[:BARS_MOST], key=lambda bar: bar.begin):
            self.bar(bar, top, height, "b")

    def shades(self, bars: Sequence[Bar], top: float, height: float, kind: str, what: str) -> None:
        """Stretches as one broad line; ``figure.js`` reads where they are and how long from it."""
        longest = sorted(bars, key=lambda bar: bar.begin - bar.end)[:SHADES_MOST]
        path = stretches((bar.begin, bar.end) for bar in longest)
        if path:
            width = number(height)
            shade = element(
                "path", kind=f"shades {kind}", d=path, stroke_width=width, data_what=what
            )
            self.stretched(shade, top, height)

    def missing(self, text: str, y: float) -> None:
        """What is said where there is nothing to draw."""
        self.pieces.append(element("text", escape(text), kind="missing", x="50%", y=y))

    def stretched(self, content: str, top: float, height: float, **attributes: str) -> None:
        """A drawing of its own units: tenths of a millisecond across, ``UNITS`` from the top."""
        begin, length = self.window.begin * TENTH, self.window.length * TENTH
        view = f"{number(begin)} 0 {number(length)} {UNITS}"
        self.pieces.append(
            element(
                "svg",
                content,
                y=top,
                width="100%",
                height=height,
                viewBox=view,
                preserveAspectRatio="none",
                **attributes,
            )
        )

    def _bar_label(self, bar: Bar, middle: float, rows: int) -> None:
        begin, end = self.window.share(bar.begin), self.window.share(bar.end)
        above = [Place("at", middle - LANE_PX / 2 - ROW_PX * (row + 0.5)) for row in range(rows)]
        places = (Place("in", middle), *(above or [Place("beside", middle)]))
        self.labels.append(Label(bar.text, begin, end, places))
        self.obstacles.append(Obstacle(begin, end, middle))

    def _mark(self, mark: Mark, middle: float) -> None:
        at = percent(self.window.share(mark.at))
        sign = element("text", escape(mark.letter), kind="letter", x=at, y=middle)
        shape = element("circle", cx=at, cy=middle, r=MARK_PX)
        title = element("title", escape(mark.hover))
        self.pieces.append(element("g", title + shape + sign, kind=f"m {mark.kind}"))
        share, place = self.window.share(mark.at), Place("beside", middle)
        self.labels.append(Label(mark.text, share, share, (place,), shift=MARK_PX + 1))
        self.obstacles.append(Obstacle(share, share, middle, MARK_PX + 1))


def stretches(spans: Iterable[tuple[float, float]], y: int = UNITS // 2) -> str:
    """A path along each stretch, in ms, of a stretched drawing; relative: that is the shortest."""
    parts: list[str] = []
    pen = 0
    for begin, end in sorted(spans):
        start = round(begin * TENTH)
        length = max(1, round(end * TENTH) - start)
        parts.append(f"m{start - pen} 0h{length}" if parts else f"M{start} {y}h{length}")
        pen = start + length
    return "".join(parts)


def _importance(bar: Bar) -> tuple[bool, float]:
    """What stops the guest is named first, then what is longest."""
    return bar.kind not in ("stop", "stop2", "switch"), bar.begin - bar.end
