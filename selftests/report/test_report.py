"""The table and the page: what a reader is told, and what hostile text can't do."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from migrate.analysis.figures import longest_outage
from migrate.model import (
    Attempt,
    Capability,
    Event,
    Expect,
    Gap,
    GapExplanation,
    HostFacts,
    Mode,
    Policy,
    Problem,
    ReportedFigures,
    Skip,
    Span,
    Unmeasured,
    Verdict,
)
from migrate.report.attempt_section import GAPS, headline
from migrate.report.attempt_text import attempt_lines
from migrate.report.html import write_report
from migrate.report.ranking import MOST_ROWS_COMPARED, rank_rows
from migrate.report.table import NO_PHASE, RunTable, labelled, run_table
from migrate.report.table_model import IN_FLOOR, NOT_MEASURED, Cell
from migrate.report.table_text import WIDTH, plain, rich
from migrate.results.writer import RunWriter
from selftests.doubles import synthetic
from selftests.doubles.synthetic import HOSTILE, MS, STOP

PRINTABLE_HOSTILE = HOSTILE.replace("\x00", "").replace("\x1b", "")


def many(of: str = "virtio", count: int = 5, **fields: Any) -> list[Attempt]:
    case = synthetic.case("vhost-user" if of == "vhost-user" else "virtio")
    return [
        synthetic.attempt(case, number, length_ms=150.0 + number, **fields)
        for number in range(1, count + 1)
    ]


def row(of: RunTable, number: int = 0) -> dict[str, str]:
    return {head: cell.line() for head, cell in zip(of.heads, of.rows[number], strict=True)}


# --- the table ----------------------------------------------------------------------------------


def test_a_row_is_a_mode_with_medians_and_extremes() -> None:
    told = row(run_table(synthetic.run(), many()))
    assert told["mode"] == "virtio"
    assert told["n"] == "5"
    assert told["downtime reported, ms"] == "63.0 [61.0..65.0]"
    assert told["outage seen, egress, ms"] == "153 [151..155]"
    assert told["outage seen, ingress, ms"] == "813 [811..815]"
    assert told["floor, ms"] == "2.4 [2.4..2.4]"
    assert told["verdict"] == "pass 5/5"


def test_two_cases_of_one_mode_have_their_ids_as_labels() -> None:
    attempts = [
        synthetic.attempt(synthetic.case(name="split")),
        synthetic.attempt(synthetic.case(name="packed")),
    ]
    of = run_table(synthetic.run(), attempts)
    assert of.heads[0] == "case"
    assert [line[0].text for line in of.rows] == ["split-virtio", "packed-virtio"]


def test_what_was_not_measured_says_so_and_is_no_zero() -> None:
    nothing: dict[str, Any] = {
        "gaps": None,
        "stalls": None,
        "floor": None,
        "reported": ReportedFigures(),
    }
    told = row(run_table(synthetic.run(), many(**nothing)))
    assert [value for head, value in told.items() if head.endswith(", ms")] == [NOT_MEASURED] * 6


def test_how_many_were_measured_is_said_if_not_all() -> None:
    attempts = [*many(count=4), synthetic.attempt(synthetic.case(), 5, gaps=None)]
    told = row(run_table(synthetic.run(), attempts))
    assert told["outage seen, egress, ms"].endswith("4/5 measured")


def test_no_gap_above_the_floor_is_said_in_words() -> None:
    told = row(run_table(synthetic.run(), many(count=1, gaps=())))
    assert told["outage seen, egress, ms"] == IN_FLOOR


def test_an_outage_that_did_not_end_is_a_lower_bound() -> None:
    gap = Gap(direction="egress", begin_ns=STOP, length_ns=900 * MS, error_ns=0, open_ended=True)
    told = row(run_table(synthetic.run(), many(count=1, gaps=(gap,))))
    assert told["outage seen, egress, ms"] == "≥ 900"
    assert told["outage seen, ingress, ms"] == IN_FLOOR


def test_a_failure_says_which_check_and_an_unmeasured_one_is_no_pass() -> None:
    fail = Verdict(check="tcp", result="fail")
    missing = Verdict(check="stall", result="unmeasured")
    told = row(
        run_table(synthetic.run(), [*many(count=1), *many(count=1, verdicts=(fail, missing))])
    )
    assert told["verdict"] == "FAIL 1/2 passed: tcp fail, stall not measured"
    told = row(run_table(synthetic.run(), many(count=1, verdicts=())))
    assert told["verdict"] == "FAIL 0/1 passed: no verdict"


def test_a_void_attempt_is_told_first_and_is_in_no_figure() -> None:
    case = synthetic.case()
    good = [synthetic.attempt(case, number) for number in (1, 2)]
    void = synthetic.attempt(case, 3, length_ms=901.0).model_copy(update={"void": ("no fault",)})
    table = run_table(synthetic.run(skips=()), [*good, void])
    assert row(table)["n"] == "2 of 3 1 void"
    assert row(table)["verdict"] == "VOID 2/3 passed: 1 void"
    assert "901" not in plain(table)
    alone = run_table(synthetic.run(skips=()), [void])
    assert row(alone)["verdict"] == "VOID 1/1"
    assert row(alone)["n"] == "0 of 1 1 void"
    assert next(attempt_lines(void)) == f"{case.id}/3: VOID: no fault"
    assert headline(void).startswith("void, so it neither passes nor fails: no fault; ")


def test_an_unmeasured_check_that_is_allowed_passes() -> None:
    case = synthetic.case(expect=Expect(allow_unmeasured=("stall",)))
    verdicts = (
        Verdict(check="outcome", result="pass"),
        Verdict(check="stall", result="unmeasured"),
    )
    told = row(run_table(synthetic.run(), [synthetic.attempt(case, verdicts=verdicts)]))
    assert told["verdict"] == "pass 1/1"


def test_what_lies_within_each_others_error_is_called_indistinguishable() -> None:
    slow = [
        synthetic.attempt(synthetic.case("vhost-user"), number, length_ms=500.0 + number)
        for number in range(1, 6)
    ]
    assert ranked([*many(), *slow]) == {
        "downtime reported": (("virtio", "vhost-user"),),
        "guest stall": (("virtio", "vhost-user"),),
        "total time": (("virtio", "vhost-user"),),
    }


def ranked(attempts: list[Attempt]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """By column, the rows that can't be told apart."""
    ranks = rank_rows(labelled(attempts))
    return {ranked.column.name: ranked.alike for ranked in ranks.columns if ranked.alike}


def lengths(mode: Mode, length_ms: float, **fields: Any) -> list[Attempt]:
    """Five attempts whose outages are within a millisecond of ``length_ms``."""
    case = synthetic.case(mode)
    return [
        synthetic.attempt(case, number, length_ms=length_ms + number / 5, **fields)
        for number in range(1, 6)
    ]


def test_five_modes_are_compared_in_sets_and_not_in_ten_pairs() -> None:
    attempts = [
        *lengths("virtio", 150),
        *lengths("vhost-user", 151),
        *lengths("vdpa", 152),
        *lengths("hostdev", 900),
        *lengths("failover", 901),
    ]
    sets = ranked(attempts)
    fast, slow = ("virtio", "vhost-user", "vdpa"), ("hostdev", "failover")
    assert sets["downtime reported"] == ((*fast, *slow),)
    for column in ("outage seen, egress", "outage seen, ingress", "switchover, egress"):
        assert sets[column] == (fast, slow)


def test_the_error_of_the_gaps_themselves_counts() -> None:
    """Half a millisecond of spread, but the meter is right to 2 ms only."""
    near, far = lengths("vhost-user", 153.5), lengths("vhost-user", 156)
    assert "outage seen, egress" in ranked([*lengths("virtio", 150), *near])
    assert "outage seen, egress" not in ranked([*lengths("virtio", 150), *far])


def test_an_outage_in_the_floor_is_not_ranked_above_one_that_is_as_short_as_the_floor() -> None:
    short = (synthetic.gap("egress", 0, 2.5),)
    quiet = lengths("virtio", 0, gaps=())
    assert "outage seen, egress" in ranked([*quiet, *lengths("vhost-user", 0, gaps=short)])


def test_an_outage_that_did_not_end_is_not_ranked_below_a_longer_one() -> None:
    cut = Gap(direction="egress", begin_ns=STOP, length_ns=900 * MS, error_ns=0, open_ended=True)
    open_ended = lengths("virtio", 0, gaps=(cut,))
    assert "outage seen, egress" in ranked([*open_ended, *lengths("vhost-user", 2000)])


def test_more_rows_than_a_comparison_has_are_not_compared_and_that_is_said() -> None:
    attempts = [
        synthetic.attempt(synthetic.case(name=f"case{number}"), turn)
        for number in range(MOST_ROWS_COMPARED + 1)
        for turn in range(1, 4)
    ]
    assert ranked(attempts) == {}
    assert "More than 12 rows are not compared" in run_table(synthetic.run(), attempts).notes[-1]


def test_single_attempts_can_not_be_ranked() -> None:
    attempts = [*many(count=1), *many("vhost-user", count=1)]
    assert "can't be ranked" in run_table(synthetic.run(), attempts).notes[-1]
    assert ranked(attempts) == {}


# --- the outage by part -------------------------------------------------------------------------


def by_part(attempts: list[Attempt], number: int = 0) -> dict[str, str]:
    parts = run_table(synthetic.run(), attempts).parts
    cells = parts.rows[number]
    return {head: cell.line() for head, cell in zip(parts.heads, cells, strict=True)}


def test_the_gaps_of_unplug_switchover_and_replug_have_their_columns() -> None:
    told = by_part([synthetic.failover(number) for number in range(1, 6)])
    assert told == {
        "mode": "failover",
        "start, egress, ms": "423 [421..425]",
        "switchover, egress, ms": "303 [301..305]",
        "tail, egress, ms": "263 [261..265]",
        "start, ingress, ms": "419 [417..421]",
        "switchover, ingress, ms": "299 [297..301]",
        "tail, ingress, ms": "259 [257..261]",
    }


def test_gaps_of_a_part_are_never_added_up() -> None:
    gaps = (synthetic.gap("egress", 0, 100, "tail"), synthetic.gap("egress", 300, 120, "tail"))
    assert by_part(many(count=1, gaps=gaps))["tail, egress, ms"] == "120"


def test_a_part_in_which_nothing_rose_above_the_floor_says_so() -> None:
    told = by_part(many())
    assert told["start, egress, ms"] == IN_FLOOR
    mixed = [*many(count=1), *many(count=1, gaps=(synthetic.gap("egress", -500, 9.0, "start"),))]
    assert by_part(mixed)["start, egress, ms"] == "4.5 to 5.6 [floor..9.0]"


def test_a_move_that_was_given_up_has_no_switchover_which_is_no_zero() -> None:
    given_up = [p for p in synthetic.phases() if p.name in ("setup", "precopy", "settled")]
    told = by_part(many(count=1, phases=given_up, gaps=()))
    assert told["switchover, egress, ms"] == NO_PHASE
    assert (told["start, egress, ms"], told["tail, egress, ms"]) == (IN_FLOOR, IN_FLOOR)


def test_a_part_that_was_not_measured_says_so() -> None:
    assert set(by_part(many(count=1, gaps=None)).values()) == {"virtio", NOT_MEASURED}


def test_a_longest_gap_outside_the_move_is_noted() -> None:
    outside = (synthetic.gap("egress", -2500, 143, "none"), synthetic.gap("egress", 0, 60))
    notes = run_table(synthetic.run(), [*many(count=1), *many(count=1, gaps=outside)]).notes
    (note,) = [note for note in notes if "outside all phases" in note]
    assert note.startswith(
        "virtio: in 1 of 2 the longest gap is outside all phases of the move (up to"
    )
    assert "143 ms, egress" in note


def test_an_interface_that_is_unplugged_for_the_move_is_noted_as_one_gap() -> None:
    case = synthetic.case("hostdev", policy=Policy(method="reattach"))
    (note,) = [
        n for n in run_table(synthetic.run(), [synthetic.attempt(case)]).notes if "reattach" in n
    ]
    assert note.startswith("hostdev: moved by reattach")
    assert "one gap over all parts" in note


# --- the lab, and what backends say -------------------------------------------------------------


def shown(of: RunTable, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(rich(of, console.width))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_what_a_nested_lab_can_not_tell_is_said_wherever_its_figures_stand(tmp_path: Path) -> None:
    of = run_table(synthetic.run(lab_kind="nested"), many())
    page = write_report(synthetic.write_run(tmp_path, many(), lab_kind="nested").folder).read_text()
    for text in (plain(of), " ".join(shown(of).split()), page.replace("&#39;", "'")):
        words = " ".join(text.split())
        assert "It can tell the order and the parts of an outage" in words
        assert "It can't tell the milliseconds of a product's silicon" in words


def test_a_local_lab_has_no_such_line() -> None:
    assert "silicon" not in plain(run_table(synthetic.run(), many()))


def test_whether_guests_were_emulated_is_said_by_what_is_on_record(tmp_path: Path) -> None:
    def host(name: str, **kvm: Any) -> HostFacts:
        (fact,) = synthetic.run().hosts[:1]
        known = (Capability(name="kvm", **kvm),) if kvm else ()
        return fact.model_copy(update={"host": name, "capabilities": known})

    why = "/dev/kvm opens, but Linux did not boot"
    able, unable = host("a", able=True), host("b", able=False, reason=why)

    def about(*hosts: HostFacts) -> str:
        return " ".join(run_table(synthetic.run(hosts=hosts), many()).about)

    assert about(able) == "The guests ran under KVM."
    assert about(unable).startswith(f"The guests were emulated (QEMU's TCG): {why}.")
    assert "no figures of a product" in about(unable)
    assert about(able, unable).startswith("The guests from or to b were emulated")
    assert about(host("a")) == "Whether the guests were emulated is not on record."
    page = write_report(synthetic.write_run(tmp_path, many(), hosts=(unable,)).folder).read_text()
    assert "The guests were emulated (QEMU&#39;s TCG)" in page


def test_what_a_backend_says_of_every_attempt_is_one_line_and_of_some_names_them() -> None:
    svq = "shadow virtqueues all the time"
    ended = "target had no VF: ends on the standby"
    attempts = [
        synthetic.attempt(synthetic.case("vdpa"), number, notes=(svq, ended)[: 1 + number // 2])
        for number in range(1, 4)
    ]
    of = run_table(synthetic.run(), attempts)
    assert of.remarks == (f"vdpa, every attempt: {svq}", f"vdpa, attempts 2, 3: {ended}")
    for line in of.remarks:
        assert line in plain(of).splitlines()
        assert line in shown(of)


@pytest.mark.parametrize("width", [120, 160])
def test_five_modes_fit_a_terminal(width: int) -> None:
    modes: list[Mode] = ["virtio", "vhost-user", "vdpa", "hostdev"]
    attempts = [one for mode in modes for one in lengths(mode, 1500)]
    of = run_table(synthetic.run(), [*attempts, *(synthetic.failover(n) for n in range(1, 6))])
    lines = shown(of, width).splitlines()
    assert sum("switchover, egress, ms" in line for line in lines) == (width == 160)
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [90, 100, 120])
def test_for_a_pipe_five_modes_fit_a_line_and_no_word_is_broken(width: int) -> None:
    modes: list[Mode] = ["virtio", "vhost-user", "vdpa", "hostdev"]
    attempts = [one for mode in modes for one in lengths(mode, 1500)]
    of = run_table(synthetic.run(), [*attempts, *(synthetic.failover(n) for n in range(1, 6))])
    text = plain(of, width)
    tables = text[: text.index("synthetic-vdpa: can't run in this lab")]
    assert max(map(len, text.splitlines())) <= width
    words = set(re.split(r"\s+|(?<=\.\.)", tables))
    for grid in (of, of.parts):
        for cell in (*map(Cell, grid.heads), *(cell for row in grid.rows for cell in row)):
            assert words.issuperset(re.split(r"\s+|(?<=\.\.)", cell.line()))
    assert "Also too close to rank: guest stall (all rows)" in " ".join(text.split())
    assert "indistinguishable" not in text


def test_a_case_that_is_not_here_is_one_line_with_its_remedy() -> None:
    (line,) = run_table(synthetic.run(), many()).skips
    assert line == (
        "synthetic-vdpa: can't run in this lab: no vDPA management device; it needs: load "
        "vdpa_sim_net, or use a card with vDPA"
    )


def test_the_plain_table_has_fixed_columns_and_cuts_nothing() -> None:
    of = run_table(synthetic.run(), [*many(), *many("vhost-user")])
    whole = plain(of, width=1000).splitlines()
    lines = whole[len(of.answers) + 1 :]
    starts = [lines[0].index(head) for head in of.heads]
    for line, cells in zip(lines[2:], of.rows, strict=False):
        for start, cell in zip(starts, cells, strict=True):
            assert line[start:].startswith(cell.line())
    assert of.skips[0] in lines


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_where_a_table_is_too_wide_each_cell_has_a_line(width: int) -> None:
    of = run_table(synthetic.run(), [synthetic.failover(number) for number in range(1, 6)])
    lines = shown(of, width).splitlines()
    assert max(map(len, lines)) <= width
    alone = [line.strip() for line in lines]
    assert ("n: 5" in alone) == ("verdict: pass 5/5" in alone) == (width < 80)


def test_long_names_of_cases_stand_whole_above_their_figures() -> None:
    names = [f"versions-newer-to-older-and-back-number-{number}" for number in range(6)]
    attempts = [synthetic.attempt(synthetic.case(name=name)) for name in names]
    text = plain(run_table(synthetic.run(), attempts))
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    for name in names:
        assert f"{name}-virtio" in lines
    below = lines[lines.index(f"{names[0]}-virtio") + 1]
    assert below.split()[:2] == ["1", "61.0"]
    assert "outage seen, egress, ms:" not in text


def test_causes_of_a_few_cases_with_long_names_fit_and_those_of_many_are_pointed_to() -> None:
    def made(count: int) -> str:
        names = [f"versions-newer-to-older-and-back-number-{number}" for number in range(count)]
        span = Span(what="sending the rest of memory", begin_ns=0, end_ns=10**8)
        gap = GapExplanation(direction="egress", begin_ns=0, length_ns=10**8, spans=(span,))
        cases = [synthetic.case(name=name) for name in names]
        attempts = [synthetic.attempt(case, explained=(gap,)) for case in cases]
        return plain(run_table(synthetic.run(), attempts))

    few, many_cases = made(4), made(6)
    assert max(map(len, few.splitlines())) <= WIDTH
    assert re.search(r"^sending the rest( +100\.0){4}$", few, re.MULTILINE)
    assert "sending the rest" not in many_cases
    assert "`migrate-lab show RUN --case PATTERN`" in many_cases


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_table_for_a_terminal_loses_no_figure(width: int) -> None:
    of = run_table(synthetic.run(), many())
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(rich(of, console.width))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
    for cell in of.rows[0]:
        assert all(letter in shown for letter in cell.text)


def test_no_control_character_reaches_a_terminal() -> None:
    skip = Skip(case=synthetic.case(), reason=HOSTILE, remedy="[bold]x[/bold]")
    of = run_table(synthetic.run(skips=(skip,)), [])
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(rich(of, console.width))
    for shown in (plain(of), console.file.getvalue()):  # type: ignore[attr-defined]
        assert "\x1b" not in shown
        assert "\x00" not in shown
        assert "[bold]x[/bold]" in shown


# --- the page -----------------------------------------------------------------------------------


class Page(HTMLParser):
    """Elements with what they would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def hostile_run(root: Path) -> RunWriter:
    text = PRINTABLE_HOSTILE
    attempt = synthetic.attempt(
        synthetic.case(),
        source=text,
        notes=(text,),
        held_by=(text,),
        error=Problem(tried=text, host=text, said=text, remedy=text),
        verdicts=(Verdict(check=text, result="fail", measured=text, limit=text, evidence=text),),
    )
    skip = Skip(case=synthetic.case(), reason=text, remedy=text)
    writer = RunWriter.create(root, synthetic.run(lab=text, command=(text,), skips=(skip,)))
    event = Event(at_ns=STOP, source="qemu", host=text, name=text, data={text: text})
    writer.write_attempt(attempt, [event], synthetic.samples(), synthetic.logs(attempt))
    return writer


def test_the_page_is_one_file_that_loads_nothing_and_runs_nothing_of_a_guests(
    tmp_path: Path,
) -> None:
    text = write_report(hostile_run(tmp_path).folder).read_text()
    page = Page(text)
    assert page.loads
    assert all(address.startswith("#") for address in page.loads)
    assert page.handlers == []
    assert "img" not in page.tags
    assert page.tags.count("script") == 2
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_the_page_tells_the_outcome_the_table_and_the_evidence(tmp_path: Path) -> None:
    attempts = [
        *many(count=2),
        synthetic.attempt(
            synthetic.case(), 3, verdicts=(Verdict(check="tcp", result="fail", evidence="2 died"),)
        ),
    ]
    writer = synthetic.write_run(tmp_path, attempts)
    writer.attempt_folder(synthetic.case(), 4)
    text = write_report(writer.folder).read_text()
    for wanted in (
        "2 of 3 attempts passed",
        '>cut off</span></td><td>synthetic-virtio</td><td class="numbers">4</td>',
        "2/3 passed: tcp fail",
        "2 died",
        '<td class="numbers"><a href="#synthetic-virtio/3">3</a></td>',
        "no vDPA management device",
        "qemu 10.0.2",
        "logs/alpha-qemu.log",
        "outage egress 151.0 ms (switchover)",
    ):
        assert wanted in text


def test_the_page_lists_gaps_with_their_parts_and_what_the_backend_said(tmp_path: Path) -> None:
    attempts = [synthetic.failover(number) for number in range(1, 4)]
    text = write_report(synthetic.write_run(tmp_path, attempts).folder).read_text()
    assert text.count("net_failover: the primary is eth2 (igbvf)") == 4
    assert "failover, every attempt: net_failover" in text
    assert "6 gaps" in text
    for part, phases in (("start", "wait-unplug, standby"), ("tail", "announce, replug")):
        assert re.search(rf"<td>egress</td><td>{part}</td>.*<td>{phases}</td>", text)


def test_of_very_many_gaps_the_page_says_how_many_it_leaves_out(tmp_path: Path) -> None:
    gaps = tuple(synthetic.gap("egress", 2 * number, 1) for number in range(GAPS + 7))
    attempt = synthetic.attempt(synthetic.case(), gaps=gaps)
    text = write_report(synthetic.write_run(tmp_path, [attempt]).folder).read_text()
    assert f"{GAPS + 7} gaps" in text
    assert "7 more are in attempt.json" in text


def test_a_run_without_attempts_is_no_pass(tmp_path: Path) -> None:
    text = write_report(synthetic.write_run(tmp_path, []).folder).read_text()
    assert ">EMPTY<" in text
    assert ">PASS<" not in text


def test_of_guests_that_tests_moved_by_hand_it_is_said_that_they_are_not_in_it(
    tmp_path: Path,
) -> None:
    writer = synthetic.write_run(tmp_path, [])
    writer.change(stages=2)
    text = write_report(writer.folder).read_text()
    assert '"badge void">EMPTY<' in text
    assert "no attempt; tests moved 2 guests by hand (`boot`): see their own report" in text
    attempts = [synthetic.attempt(synthetic.case())]
    writer = synthetic.write_run(tmp_path / "other", attempts)
    writer.change(stages=1)
    assert "1 of 1 attempts passed" in write_report(writer.folder).read_text()


def test_a_report_of_ten_attempts_stays_small(tmp_path: Path) -> None:
    writer = synthetic.write_run(tmp_path, [*many(), *many("vhost-user")])
    assert write_report(writer.folder).stat().st_size < 10 * 60_000


def test_the_headline_says_what_was_not_measured_and_what_failed() -> None:
    attempt = synthetic.attempt(
        synthetic.case(),
        outcome="lost",
        held_by=(),
        gaps=None,
        reported=ReportedFigures(),
        verdicts=(Verdict(check="held_by", result="fail"),),
    )
    said = headline(attempt)
    assert said == (
        "lost, the guest runs on no host; outage egress not measured; outage ingress not "
        "measured; downtime reported not measured; not passed: held_by"
    )


def test_the_longest_gap_of_a_direction_counts_and_they_are_not_added_up() -> None:
    gaps = (
        synthetic.gap("egress", 0, 100),
        synthetic.gap("egress", 300, 120),
        synthetic.gap("ingress", 0, 900),
    )
    found = longest_outage(synthetic.attempt(synthetic.case(), gaps=gaps), "egress")
    assert found is not None
    assert found.ms == 120


def test_what_was_not_measured_is_listed_with_its_reason(tmp_path: Path) -> None:
    attempt = synthetic.attempt(synthetic.case())
    gaps = tuple(gap.model_copy(update={"next_to_unmeasured": True}) for gap in attempt.gaps or ())
    blank = Unmeasured(
        direction="ingress",
        begin_ns=synthetic.STOP,
        length_ns=300 * synthetic.MS,
        reason="the log of the guest's probe was full",
    )
    attempt = attempt.model_copy(update={"gaps": gaps, "unmeasured": (blank,)})
    text = write_report(synthetic.write_run(tmp_path, [attempt]).folder).read_text()
    assert "Not measured: 1 stretches" in text
    assert "the log of the guest&#39;s probe was full" in text
    assert "≥ 150.0" in text
