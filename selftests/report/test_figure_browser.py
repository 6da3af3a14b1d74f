"""The figure in a real browser: labels apart at any width, pointing, zooming, printing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migrate.report.figure import figure, script, style
from selftests.doubles import synthetic
from selftests.doubles.browser import Page, browser, program
from selftests.report.test_figure import RECORDINGS, figure_data, recorded

pytestmark = pytest.mark.skipif(program() is None, reason="there is no Chromium here")

CROWDED = ("virtio", "two-hops", "post-copy", "failover", "failover-aborted", "loopback")
"""Real attempts that have most to say, or much of it at one place."""
OVERLAPS = """
(() => {
  const labels = [...document.querySelectorAll(".fig .l")];
  const shown = labels.filter((node) => node.getClientRects().length);
  const boxes = shown.map((node) => [node.textContent, node.getBoundingClientRect()]);
  const over = [];
  boxes.forEach(([one, a], turn) => boxes.slice(turn + 1).forEach(([other, b]) => {
    // Lines stand closer than their letters are high: a pixel of their boxes is no letter's.
    const across = a.left < b.right - 1 && b.left < a.right - 1;
    if (across && a.top < b.bottom - 2 && b.top < a.bottom - 2)
      over.push(`${one} / ${other}`);
  }));
  return { over, shown: boxes.length };
})()
"""
OUTSIDE = """
[...document.querySelectorAll(".fig")].filter((figure) => {
  const plot = figure.querySelector(".fig-plot").getBoundingClientRect();
  const labels = [...figure.querySelectorAll(".l:not(.none)")];
  return plot.right > innerWidth + 1 || labels.some((node) => {
    const box = node.getBoundingClientRect();
    return box.left < plot.left - 4 || box.right > plot.right + 4;
  });
}).length
"""
ALIVE = """
new Promise((done) => {
  const figures = [...document.querySelectorAll(".fig")];
  const look = () => {
    const asleep = figures.find((figure) => !figure.matches(".live"));
    if (!asleep) return done(figures.length);
    asleep.scrollIntoView();
    requestAnimationFrame(look);
  };
  look();
})
"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as tab:
        yield tab


def write(path: Path, figures: list[str]) -> Path:
    """A page of nothing but figures, as the report has them."""
    body = "\n".join(figures)
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>x</title>'
        f"<style>body {{ margin: 20px; background: var(--page, #fff) }} {style()}</style>"
        f"<body>{body}<script>{script()}</script></body></html>"
    )
    return path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("figures") / "real.html"
    folders = [folder for folder in RECORDINGS if folder.name in CROWDED]
    return write(path, [figure(recorded(folder)) for folder in folders])


def open_alive(page: Page, path: Path, width: int) -> None:
    page.size(width)
    page.prefer("light")
    page.open(path)
    page.evaluate(ALIVE)
    page.evaluate("scrollTo(0, 0)")
    page.settle()


def apart(page: Page) -> int:
    """How many labels are shown, none of them over another nor outside."""
    said: dict[str, Any] = page.evaluate(OVERLAPS)
    assert said["over"] == []
    assert page.evaluate(OUTSIDE) == 0
    assert page.messages == []
    return int(said["shown"])


@pytest.mark.parametrize("width", [800, 1400])
def test_no_label_lies_over_another_at_any_width_nor_when_zoomed(
    page: Page, real: Path, width: int
) -> None:
    open_alive(page, real, width)
    shown = apart(page)
    assert shown > 5 * len(CROWDED)
    page.evaluate(
        "document.querySelectorAll('.fig-zoom button:nth-child(2)').forEach((one) => one.click())"
    )
    page.settle()
    apart(page)


def test_a_wider_figure_has_more_labels(page: Page, real: Path) -> None:
    open_alive(page, real, 800)
    narrow = apart(page)
    open_alive(page, real, 1800)
    assert apart(page) > narrow


def test_without_the_script_labels_are_apart_as_they_are_written(
    page: Page, real: Path, tmp_path: Path
) -> None:
    still = tmp_path / "still.html"
    still.write_text(real.read_text().replace(script(), ""))
    page.size(720)
    page.open(still)
    assert page.evaluate("document.querySelectorAll('.fig.live').length") == 0
    assert apart(page) > 3 * len(CROWDED)


def test_on_paper_labels_are_apart_and_nothing_is_there_to_press(page: Page, real: Path) -> None:
    open_alive(page, real, 1400)
    page.prefer("dark", "print")
    page.size(720)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.settle()
    apart(page)
    assert page.evaluate("getComputedStyle(document.querySelector('.fig-zoom')).display") == "none"
    colour = page.evaluate("getComputedStyle(document.querySelector('.fig .f-head')).fill")
    assert colour == "rgb(31, 41, 51)", "as in the light"


def point(page: Page, selector: str, kind: str = "mouseMoved", at: float = 0.5) -> None:
    page.evaluate(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
    box = page.evaluate(
        f"(({{x, y, width, height}}) => ({{x, y, width, height}}))"
        f"(document.querySelector({selector!r}).getBoundingClientRect())"
    )
    page.do(
        "Input.dispatchMouseEvent", type=kind, button="none" if kind == "mouseMoved" else "left",
        buttons=0 if kind == "mouseMoved" else 1, clickCount=1,
        x=box["x"] + at * box["width"], y=box["y"] + box["height"] / 2,
    )  # fmt: skip
    page.settle()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = figure_data(synthetic.attempt(synthetic.case()))
    return write(tmp_path_factory.mktemp("figure") / "one.html", [figure(data)])


def tip(page: Page) -> str:
    return str(page.evaluate("document.querySelector('.fig-tip').textContent"))


def test_pointing_at_a_gap_says_when_and_how_long_it_was(page: Page, one: Path) -> None:
    open_alive(page, one, 1400)
    point(page, "rect.g.gap")
    when, *lines = tip(page).splitlines()
    assert when == "+70.0 ms"
    assert lines[0] == "gap, egress: 150.0 ± 2.0 ms"
    point(page, "rect.b.reported")
    assert "downtime as reported: 61.0 ms" in tip(page)


def test_pointing_at_a_packet_says_when_it_was_sent_and_how_long_it_took(
    page: Page, one: Path
) -> None:
    open_alive(page, one, 1400)
    box = page.evaluate(
        """(() => {
          const path = document.querySelector("path.dots");
          const [, x, y] = path.getAttribute("d").match(/M(-?\\d+) (\\d+)h0m/);
          path.scrollIntoView({ block: "center" });
          const at = new DOMPoint(+x, +y).matrixTransform(path.getScreenCTM());
          document.querySelectorAll(".fig-zoom button")[2].click();
          return { x: new DOMPoint(+x, +y).matrixTransform(path.getScreenCTM()).x, y: at.y };
        })()"""
    )
    page.do("Input.dispatchMouseEvent", type="mouseMoved", x=box["x"], y=box["y"])
    page.settle()
    assert "packet sent at −" in tip(page)
    log = synthetic.logs(synthetic.attempt(synthetic.case()))["egress"]
    delay_ms = (log.received_ns[0] - log.sent_ns[0]) / 1e6
    said = re.search(r"arrived ([\d.]+) ms later", tip(page))
    assert said is not None
    assert float(said[1]) == pytest.approx(delay_ms, rel=0.003)


def shown(page: Page) -> list[float]:
    view = page.evaluate("document.querySelector('.fig svg[viewBox]').getAttribute('viewBox')")
    begin, _, length, _ = (float(number) for number in str(view).split())
    return [begin, length]


def test_dragging_zooms_and_a_double_click_goes_back(page: Page, one: Path) -> None:
    open_alive(page, one, 1400)
    before = shown(page)
    frame = ".fig .frame"
    point(page, frame, "mousePressed", 0.4)
    point(page, frame, "mouseMoved", 0.5)
    point(page, frame, "mouseReleased", 0.6)
    begin, length = shown(page)
    assert begin > before[0]
    assert length == pytest.approx(before[1] * 0.2, rel=0.02)
    page.evaluate(
        "document.querySelector('.fig-plot')"
        ".dispatchEvent(new MouseEvent('dblclick', {bubbles: true}))"
    )
    assert shown(page) == pytest.approx(before)


def test_a_button_shows_its_window_and_is_pressed_then(page: Page, one: Path) -> None:
    open_alive(page, one, 1400)
    pressed = (
        "[...document.querySelectorAll('.fig-zoom [aria-pressed=true]')].map((b) => b.textContent)"
    )
    assert page.evaluate(pressed) == ["the move"]
    page.evaluate("document.querySelectorAll('.fig-zoom button')[1].click()")
    assert page.evaluate(pressed) == ["around the stop"]
    assert shown(page)[1] < 20_000


def test_hostile_names_stay_text_when_pointed_at(page: Page, tmp_path: Path) -> None:
    (event, *_) = synthetic.carried()
    event = event.model_copy(update={"data": {"device": synthetic.HOSTILE, "driver": "x"}})
    data = figure_data(synthetic.attempt(synthetic.case()), events=[event])
    open_alive(page, write(tmp_path / "hostile.html", [figure(data, synthetic.HOSTILE)]), 1400)
    point(page, "rect.b.standby, rect.b.primary")
    assert "</script><script>alert(1)</script>" in tip(page)
    assert page.evaluate("document.querySelectorAll('img, script').length") == 1
    assert page.messages == []
