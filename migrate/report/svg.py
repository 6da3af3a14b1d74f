"""SVG as text: an element with its attributes; whatever was said by others is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from migrate.errors import visible

UNITS = 4000
"""Height of a drawing that is stretched to its place, in its own units."""


def number(value: float, digits: int = 3) -> str:
    """As short as it goes: ``12.5``, ``-3``, ``0``."""
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def percent(share: float) -> str:
    """A share of the width; four digits are a hundredth of a millisecond of ten seconds."""
    return f"{number(100 * share, 4)}%"


def escape(text: str) -> str:
    """For an element's content and an attribute's value."""
    return html.escape(visible(text, lines=True))


def element(name: str, content: str = "", **attributes: str | float | None) -> str:
    """An element. ``content`` is markup as it is; attributes are escaped, those of None left out.

    ``kind`` is written ``class``; a name's underscore is a hyphen.
    """
    written = "".join(
        f' {_attribute(key)}="{escape(value) if isinstance(value, str) else number(value)}"'
        for key, value in attributes.items()
        if value is not None and value != ""
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def _attribute(key: str) -> str:
    return "class" if key == "kind" else key.replace("_", "-")


def group(content: Iterable[str], **attributes: str | float | None) -> str:
    """Elements together; nothing if there are none."""
    joined = "".join(content)
    return element("g", joined, **attributes) if joined else ""


def dots(x: NDArray[np.int64], y: NDArray[np.int64]) -> str:
    """A path with a point of no length at each place: round ends make it a dot."""
    if not len(x):
        return ""
    steps = zip(np.diff(x).tolist(), np.diff(y).tolist(), strict=True)
    return f"M{x[0]} {y[0]}h0" + "".join(
        f"m{dx}{dy:+}h0" if dy else f"m{dx} 0h0" for dx, dy in steps
    )


def line(points: Iterable[tuple[int, int]]) -> str:
    """A path from point to point."""
    text = "L".join(f"{x} {y}" for x, y in points)
    return f"M{text}" if text else ""
