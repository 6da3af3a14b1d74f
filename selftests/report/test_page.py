"""The pages in a real browser: what loads, what its buttons do, and what hostile text can't."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.model import (
    Attempt,
    AttemptError,
    Event,
    GapExplanation,
    Problem,
    Skip,
    Span,
    Verdict,
)
from migrate.report.html import write_report
from migrate.report.trend import Trend
from migrate.report.trend_page import render
from migrate.results.reader import read_attempt
from migrate.results.writer import RunWriter
from selftests.doubles import composed, synthetic
from selftests.doubles.browser import Page, browser, program
from selftests.doubles.synthetic import STOP
from selftests.report.test_trend_page import series

pytestmark = pytest.mark.skipif(
    program() is None, reason="there is no Chromium here: apt-get install chromium"
)

CASES = ("virtio", "vhost-user", "vdpa", "failover", "failed")
ATTEMPTS = 4
HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
    "</style><style>main { display: none }</style></title></pre></details>\"'`"
    "<!-- ]]> {{ 7 * 7 }} \u202eabc\u2066 " + "x" * 3000
)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of some cases with some attempts, of which most failed, a try that left none, one cut off."""
    problem = Problem(tried="start the guest", host="b", said="no room")
    mishap = AttemptError(case_id="virtio-split", number=9, problem=problem, exit_code=4)
    root = tmp_path_factory.mktemp("report")
    writer = composed.write_run(root, CASES, ATTEMPTS, mishaps=(mishap,))
    writer.attempt_folder(synthetic.case(), 7)
    return write_report(writer.folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a guest, a host, a log or a lab's file can name is harmful."""
    text = HOSTILE
    span = Span(what=text, begin_ns=STOP, end_ns=STOP + 10**8, host=text)
    attempt = synthetic.attempt(
        synthetic.case(),
        source=text,
        target=text,
        held_by=(text,),
        outcome="failed",
        notes=(text,),
        void=(text,),
        error=Problem(tried=text, host=text, said=text, remedy=text),
        explained=(
            GapExplanation(direction="egress", begin_ns=STOP, length_ns=10**8, spans=(span,)),
        ),
        verdicts=(
            Verdict(check=text, result="fail", measured=text, limit=text, unit=text, evidence=text),
        ),
    )
    good = [
        attempt.model_copy(update={"number": n, "outcome": "completed", "void": ()}) for n in (2, 3)
    ]
    skip = Skip(case=synthetic.case(), reason=text, remedy=text)
    run = synthetic.run(lab=text, lab_kind=text, command=(text,), skips=(skip,))
    writer = RunWriter.create(tmp_path_factory.mktemp("hostile"), run)
    event = Event(at_ns=STOP, source="qemu", host=text, name=text, data={text: text})
    for one in (attempt, *good):
        writer.write_attempt(one, [event], synthetic.samples(), synthetic.logs(one))
    return write_report(writer.folder)


def shown(page: Page) -> list[str]:
    """The anchors of the attempts that are not hidden."""
    return list(
        page.evaluate(
            "[...document.querySelectorAll('details.attempt')]"
            ".filter((one) => one.offsetParent).map((one) => one.id)"
        )
    )


def attempts(path: Path) -> int:
    return path.read_text().count('<details class="attempt"')


def opened(page: Page) -> list[str]:
    return list(
        page.evaluate(
            "[...document.querySelectorAll('details.attempt[open]')].map((one) => one.id)"
        )
    )


# --- it opens -------------------------------------------------------------------------------------


def test_the_report_opens_offline_and_without_a_word_on_the_console(
    page: Page, report: Path
) -> None:
    page.open(report)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    page.settle()
    assert page.requests == [report.as_uri()]
    assert page.messages == []
    assert len(shown(page)) == len(CASES) * ATTEMPTS


def test_an_attempt_has_its_picture_with_buttons_that_work(page: Page, report: Path) -> None:
    page.open(report, anchor="virtio-split/1")
    page.settle()
    buttons = "[...document.getElementById('virtio-split/1').querySelectorAll('.fig-zoom button')]"
    pressed = f"{buttons}.map((one) => one.getAttribute('aria-pressed'))"
    assert page.evaluate(f"{buttons}.every((one) => one.offsetParent !== null)")
    number = page.evaluate(f"{buttons}.length")
    for at in range(number):
        page.evaluate(f"{buttons}[{at}].click()")
        assert page.evaluate(pressed) == [str(at == other).lower() for other in range(number)]
    assert page.messages == []


def test_the_trend_opens_offline(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "trend.html"
    trend = Trend(figure="egress", by="day", runs=6, attempts=30, series=(series(),))
    path.write_text(render(trend))
    page.open(path)
    assert (page.requests, page.messages) == ([path.as_uri()], [])
    assert page.evaluate("document.querySelectorAll('.trend .medians').length") > 3


# --- its buttons ----------------------------------------------------------------------------------


def test_the_buttons_choose_attempts_by_their_result(page: Page, report: Path) -> None:
    page.open(report)
    all_of_them = shown(page)
    page.evaluate("document.querySelector('[data-result=pass]').click()")
    passed = shown(page)
    assert passed == [f"virtio-split/{number}" for number in range(1, ATTEMPTS + 1)]
    page.evaluate("document.querySelector('[data-result=fail]').click()")
    assert sorted(shown(page) + passed) == sorted(all_of_them)
    assert page.evaluate("document.getElementById('count').textContent") == (
        f"{len(all_of_them) - len(passed)} of {len(all_of_them)} shown"
    )
    page.evaluate("document.querySelector('[data-result=\"\"]').click()")
    assert shown(page) == all_of_them


def test_a_case_can_be_chosen_and_words_be_found(page: Page, report: Path) -> None:
    page.open(report)
    choose = "((one, value, event) => { one.value = value; one.dispatchEvent(new Event(event)) })"
    page.evaluate(f"{choose}(document.getElementById('case'), 'nested-vdpa', 'change')")
    assert shown(page) == [f"nested-vdpa/{number}" for number in range(1, ATTEMPTS + 1)]
    page.evaluate(f"{choose}(document.getElementById('case'), '', 'change')")
    page.evaluate(f"{choose}(document.getElementById('find'), 'unable SOCKET:', 'input')")
    assert {name.partition("/")[0] for name in shown(page)} == {"failed-kill-target"}
    page.evaluate(f"{choose}(document.getElementById('find'), 'no such word', 'input')")
    assert shown(page) == []


def test_all_that_is_shown_can_be_opened_and_folded(page: Page, report: Path) -> None:
    page.open(report)
    assert opened(page) == []
    page.evaluate("document.querySelector('[data-result=pass]').click()")
    page.evaluate("document.getElementById('open').click()")
    assert opened(page) == shown(page)
    page.evaluate("document.getElementById('open').click()")
    assert opened(page) == []


def test_a_link_from_what_failed_opens_the_attempt(page: Page, report: Path) -> None:
    page.open(report)
    page.evaluate("document.querySelector('[data-result=pass]').click()")
    page.evaluate("document.querySelector('.failures a[href=\"#nested-vdpa/2\"]').click()")
    page.evaluate("new Promise((done) => setTimeout(done, 0))")
    page.settle()
    assert opened(page) == ["nested-vdpa/2"]
    assert "nested-vdpa/2" in shown(page)
    top = page.evaluate("document.getElementById('nested-vdpa/2').getBoundingClientRect().top")
    assert 0 <= top < 200


def test_a_point_of_the_picture_leads_to_its_attempt(page: Page, report: Path) -> None:
    page.open(report)
    links = page.evaluate(
        "[...document.querySelectorAll('.picture .panel')].slice(0, 4).map((one) =>"
        " [...one.querySelectorAll('a.mark')].map((mark) => mark.getAttribute('href')))"
    )
    stalls = links[1]
    assert len(stalls) == len(set(stalls)) == len(CASES) * ATTEMPTS
    page.evaluate(
        "document.querySelector('a.mark').dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    page.settle()
    assert opened(page) == [links[0][0].removeprefix("#")]


def test_what_failed_is_listed_with_why_before_the_picture(page: Page, report: Path) -> None:
    page.open(report)
    listed = page.evaluate(
        "[...document.querySelectorAll('.failures tr')].slice(1).map((row) =>"
        " [...row.cells].map((cell) => cell.innerText.trim()))"
    )
    kinds = [kind for kind, *_ in listed]
    assert kinds[:2] == ["no attempt", "cut off"]
    assert listed[0][1:3] == ["virtio-split", "9"]
    assert "start the guest on b: no room" in listed[0][3]
    vdpa = next(row for row in listed if row[1] == "nested-vdpa")
    assert vdpa[2] == "1, 2, 3, 4"
    assert "outage.egress 2269.8 ± 183.6 ms against at most 2000 ms" in vdpa[3]
    assert page.evaluate(
        "document.querySelector('.failures').getBoundingClientRect().top <"
        " document.querySelector('.picture').getBoundingClientRect().top"
    )


# --- how it reads ---------------------------------------------------------------------------------

BROKEN_WORDS = """
(() => {
  const broken = [];
  for (const head of document.querySelectorAll("th")) {
    const walker = document.createTreeWalker(head, NodeFilter.SHOW_TEXT);
    for (let text = walker.nextNode(); text; text = walker.nextNode()) {
      for (const word of text.data.matchAll(/[^\\s-]+/g)) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        if (range.getClientRects().length > 1) broken.push(word[0]);
      }
    }
  }
  return broken;
})()
"""
CONTRAST = """
((names) => {
  const box = document.createElement("i");
  document.body.append(box);
  const light = (name) => {
    box.style.color = `var(--${name})`;
    const parts = getComputedStyle(box).color.match(/[\\d.]+/g).slice(0, 3).map((of) => of / 255)
      .map((of) => of <= 0.04045 ? of / 12.92 : ((of + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const of = Object.fromEntries(names.map((name) =>
    [name, Math.min(ratio(light(name), light("page")), ratio(light(name), light("wash")))]));
  box.remove();
  return of;
})
"""


@pytest.mark.parametrize("width", [800, 1400])
def test_nothing_is_off_the_screen_and_no_heading_is_broken(
    page: Page, report: Path, width: int
) -> None:
    page.size(width)
    page.open(report)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    page.settle()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ends = page.evaluate(
        "[...document.querySelectorAll('td.verdict')].map((one) =>"
        " one.getBoundingClientRect().right)"
    )
    assert len(ends) == len(CASES)
    assert max(ends) <= width
    assert page.evaluate(BROKEN_WORDS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(page: Page, report: Path, scheme: str) -> None:
    """As the Web Content Accessibility Guidelines 2.2 want it of text, 1.4.3: 4.5 to 1."""
    page.prefer(scheme)
    page.open(report)
    names = ("ink", "soft", "good", "bad", "warn", "link")
    ratios = page.evaluate(f"{CONTRAST}({list(names)})")
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    page.prefer("light")


def test_it_prints_what_is_open_on_white_and_leaves_the_buttons_out(
    page: Page, report: Path
) -> None:
    page.open(report, anchor="nested-vdpa/1")
    page.settle()
    assert page.pdf().startswith(b"%PDF")
    page.prefer("dark", media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.querySelector('.controls').offsetParent") is None
    assert page.evaluate("document.getElementById('nested-vdpa/1').offsetHeight") > 500
    page.prefer("light")


def test_cases_that_cannot_be_told_apart_have_a_letter_in_common(page: Page, report: Path) -> None:
    page.open(report)
    letters = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.picture .panel')[0]"
        ".querySelectorAll('.strip:not(.axis)')].map((one) => [one.querySelector('.who')"
        ".firstChild.data.trim(), one.querySelector('.letters')?.textContent ?? '']))"
    )
    assert letters["virtio-split"] == letters["vhost-user-split"] != ""


# --- hostile text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [800, 1400])
def test_hostile_text_stays_text_and_breaks_nothing(page: Page, hostile: Path, width: int) -> None:
    page.size(width)
    page.open(hostile)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    page.settle()
    assert (page.requests, page.messages) == ([hostile.as_uri()], [])
    assert page.evaluate("window.hacked === undefined")
    assert page.evaluate("document.querySelectorAll('img, main style').length") == 0
    assert page.evaluate("document.querySelectorAll('main > *').length") > 10
    text = str(page.evaluate("document.body.innerText"))
    assert "<script>window.hacked = 1</script><img src=x" in text
    assert "{{ 7 * 7 }} \\u202eabc\\u2066" in text
    assert "\u202e" not in text
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def recorded() -> list[Attempt]:
    return [read_attempt(composed.RECORDINGS / name).attempt for name in composed.names()]


def test_each_recorded_attempt_has_its_place(page: Page, tmp_path: Path) -> None:
    path = write_report(composed.write_run(tmp_path, composed.names(), 1).folder)
    page.open(path)
    assert sorted(shown(page)) == sorted(f"{one.case.id}/1" for one in recorded())
    page.evaluate("document.getElementById('open').click()")
    page.settle()
    assert page.messages == []
