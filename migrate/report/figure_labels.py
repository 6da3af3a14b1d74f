"""Where labels of a figure go, so that none lies over another: computed on their boxes.

Labels are in order of importance: each takes the first of its places that is free, and is left out
if none is. A place is laid out for the narrowest figure; in a wider one anchors move apart and
letters do not grow, so what is free there stays free. ``figure.js`` does the same again when the
figure is wider, or zoomed: what was left out may have a place then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from migrate.report.svg import element, escape, percent

NARROWEST_PX = 540
"""Width of the panels on paper, and in a window of 800 pixels."""
LETTER_PX, LOUD_PX = 6.6, 7.6
"""Mean width of a letter, a digit or a sign, in the figure's font; a little more than it is. The
labels of gaps are bolder."""
LOUD = ("gap", "over")
LINE_PX = 13
PAD_PX = 3

How = Literal["in", "at", "beside", "mid"]
"""``in`` what it names, if it is long enough; ``at`` its begin; ``beside`` its end; ``mid``: over
its middle, with a line down to it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a label may stand; ``y`` is the middle of its line, from the top of the figure.

    ``foot``: where the line down from it ends, of ``mid``.
    """

    how: How
    y: float
    foot: float = 0.0


@dataclass(frozen=True, slots=True)
class Label:
    """A text for what lasts from ``begin`` to ``end``, as shares of the width; may be 0 long."""

    text: str
    begin: float
    end: float
    places: tuple[Place, ...]
    kind: str = ""
    shift: float = 0.0
    """Pixels to the right of its end, of ``beside``."""


@dataclass(frozen=True, slots=True)
class Box:
    """In pixels."""

    left: float
    right: float
    top: float
    bottom: float

    def hits(self, other: Box) -> bool:
        """Whether they share more than an edge."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What a label may not cover that is ``at`` or ``beside`` something in the same row.

    Shares of the width, and pixels on either side of them.
    """

    begin: float
    end: float
    y: float
    pad: float = 0.0


@dataclass(frozen=True, slots=True)
class PlacedLabel:
    """A label and its box; no box: it is left out until there is room."""

    label: Label
    place: Place
    box: Box | None

    def svg(self) -> str:
        """The text, with what ``figure.js`` needs to place it again."""
        label = self.label
        x, shift, anchor = _anchor(label, self.place.how, _width(label), NARROWEST_PX)
        hidden = "" if self.box else " none"
        text = element(
            "text",
            escape(label.text),
            kind=f"l {label.kind}".strip() + hidden,
            x=percent(x),
            y=self.place.y,
            dx=shift or None,
            text_anchor=None if anchor == "start" else anchor,
            data_b=percent(label.begin)[:-1],
            data_e=percent(label.end)[:-1],
            data_s=label.shift or None,
            data_p=" ".join(f"{place.how} {place.y:g}" for place in label.places),
        )
        if self.place.how != "mid":
            return text
        middle, top = percent(_middle(label)), self.place.y + LINE_PX / 2
        foot = self.place.foot
        return text + element("line", kind="lead" + hidden, x1=middle, x2=middle, y1=top, y2=foot)


def place_labels(
    labels: Sequence[Label], obstacles: Sequence[Obstacle] = (), width_px: float = NARROWEST_PX
) -> list[PlacedLabel]:
    """Each label at the first of its places that is free."""
    taken: list[Box] = []
    placed = []
    for label in labels:
        for place in label.places:
            box = _box(label, place, width_px)
            if box is None:
                continue
            boxes = [box, *_lead(label, place, width_px)]
            if not _blocked(boxes, place, taken, obstacles, width_px):
                taken += boxes
                placed.append(PlacedLabel(label, place, box))
                break
        else:
            placed.append(PlacedLabel(label, label.places[0], None))
    return placed


def _blocked(
    boxes: Sequence[Box],
    place: Place,
    taken: Sequence[Box],
    obstacles: Sequence[Obstacle],
    width_px: float,
) -> bool:
    if any(box.hits(other) for box in boxes for other in taken):
        return True
    left, right = boxes[0].left, boxes[0].right
    return place.how in ("at", "beside") and any(
        obstacle.y == place.y
        and obstacle.begin * width_px - obstacle.pad < right
        and left < obstacle.end * width_px + obstacle.pad
        for obstacle in obstacles
    )


def _lead(label: Label, place: Place, width_px: float) -> Iterator[Box]:
    """The line from a label over the middle of something down to it."""
    if place.how == "mid":
        x = _middle(label) * width_px
        yield Box(x - 1, x + 1, place.y + LINE_PX / 2, place.foot)


def _middle(label: Label) -> float:
    return (max(label.begin, 0.0) + min(label.end, 1.0)) / 2


def _width(label: Label) -> float:
    letter_px = LOUD_PX if label.kind in LOUD else LETTER_PX
    return letter_px * len(label.text) + 2 * PAD_PX


def _box(label: Label, place: Place, width_px: float) -> Box | None:
    """None: it would lie outside, or is longer than what it should be in."""
    width = _width(label)
    begin, end = max(label.begin, 0.0), min(label.end, 1.0)
    if label.begin > 1 or label.end < 0:
        return None
    if place.how == "in" and (end - begin) * width_px < width:
        return None
    x, shift, anchor = _anchor(label, place.how, width, width_px)
    left = x * width_px + shift - PAD_PX
    left -= {"start": 0.0, "middle": width / 2 - PAD_PX, "end": width - 2 * PAD_PX}[anchor]
    if left < -PAD_PX or left + width > width_px + PAD_PX:
        return None
    return Box(left, left + width, place.y - LINE_PX / 2, place.y + LINE_PX / 2)


def _anchor(label: Label, how: How, width: float, width_px: float) -> tuple[float, float, str]:
    """Share of the width, pixels beside it, and which end of the text is there."""
    if how == "beside":
        return min(label.end, 1.0), PAD_PX + label.shift, "start"
    if how == "mid":
        middle = _middle(label)
        if middle * width_px < width / 2:
            return 0.0, PAD_PX, "start"
        if (1 - middle) * width_px < width / 2:
            return 1.0, -PAD_PX, "end"
        return middle, 0.0, "middle"
    return max(label.begin, 0.0), PAD_PX, "start"
