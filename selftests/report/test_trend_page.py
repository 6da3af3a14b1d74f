"""The page of a trend: what is drawn where, and how small it is."""

from __future__ import annotations

from migrate.report.trend import Point, Series, Trend
from migrate.report.trend_page import HEIGHT, TOP, plot, render

DAYS = 8


def point(day: int, median: float | None, **fields: object) -> Point:
    known = {} if median is None else {
        "median": median, "median_most": median, "low": 0.8 * median, "low_most": 0.8 * median,
        "high": 1.2 * median, "high_most": 1.2 * median,
    }  # fmt: skip
    return Point.model_validate(
        {
            "when": f"2026-01-{day:02d}",
            "began": f"2026-01-{day:02d}T03:00:00+00:00",
            "n": 5,
            "measured": 0 if median is None else 5,
            "failed": 0,
            "no_attempt": 0,
            "at_least": 0,
            **known,
            **fields,
        }
    )


def series() -> Series:
    """A case over some days: on the third nothing was measured, on the fifth QEMU was changed, on
    the sixth an attempt failed, on the seventh the median has no upper end."""
    points = [point(day, 100.0 + 10 * day) for day in range(1, DAYS + 1)]
    points[2] = point(3, None)
    points[4] = point(5, 180.0, changes=("host a: qemu 10.0.2 → 11.1.3", "the case's definition"))
    points[5] = point(6, 170.0, failed=1)
    points[6] = point(7, 175.0, median_most=None)
    return Series(
        lab="local", lab_kind="local", case_id="quick", mode="virtio", points=tuple(points)
    )


def test_the_line_breaks_where_nothing_was_measured_and_a_cross_stands_there() -> None:
    drawn = plot(series())
    assert len(drawn.segments) == DAYS - 1 - 2
    assert [one.y is None for one in drawn.points] == [day == 3 for day in range(1, DAYS + 1)]
    assert [one.incomplete for one in drawn.points].count(True) == 1
    assert len(drawn.bands) == 2


def test_longer_is_higher_and_later_is_to_the_right() -> None:
    drawn = plot(series())
    first, second = drawn.points[:2]
    assert first.x < second.x
    assert first.y is not None and second.y is not None
    assert TOP <= second.y < first.y <= TOP + HEIGHT


def test_a_median_without_an_upper_end_points_up_and_failures_have_a_ring() -> None:
    drawn = plot(series())
    assert [one.sign for one in drawn.points].count("up") == 1
    assert drawn.points[6].sign == "up"
    assert [one.failed for one in drawn.points] == [day == 6 for day in range(1, DAYS + 1)]


def test_changes_are_numbered_in_the_plot_and_listed() -> None:
    drawn = plot(series())
    assert [one.change for one in drawn.points] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert drawn.changes == (
        (1, "2026-01-05", "host a: qemu 10.0.2 → 11.1.3"),
        (1, "2026-01-05", "the case's definition"),
    )


def test_one_point_alone_is_drawn() -> None:
    alone = series().model_copy(update={"points": series().points[:1]})
    drawn = plot(alone)
    assert (drawn.segments, drawn.bands) == ((), ())
    assert len(drawn.points) == 1


def test_the_page_is_small() -> None:
    trend = Trend(figure="egress", by="day", runs=DAYS, attempts=40, series=(series(),) * 10)
    assert len(render(trend)) < 100_000
