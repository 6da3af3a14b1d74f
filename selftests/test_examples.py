"""The tests that the pages show are run as they stand: on a made-up lab, and on a real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from migrate.lab.local.lab import LocalLab
from selftests.doubles.made_up_session import CONFTEST, PROBE
from selftests.helpers import ROOT
from selftests.test_docs import Block, blocks, place

OWN_PAGE = "docs/writing-tests.md"
PAGES = (OWN_PAGE, "docs/pytest.md")
HERE = ("-p", "no:cacheprovider")


def examples(page: str) -> list[Block]:
    path = ROOT / page
    return [b for b in blocks(path, path.read_text(encoding="utf-8")) if b.language == "python"]


def write(pytester: pytest.Pytester, shown: Sequence[Block]) -> list[str]:
    """Each into a file of its own, beside the scenarios that they name; the files' names."""
    names = []
    pytester.path.joinpath("testcases").symlink_to(ROOT / "testcases")
    for number, block in enumerate(shown, 1):
        name = f"{Path(block.place.partition(':')[0]).stem}_{number}"
        names.append(f"test_{name.replace('-', '_')}.py")
        pytester.path.joinpath(names[-1]).write_text(block.text, encoding="utf-8")
    return names


@pytest.fixture
def made_up(
    pytester: pytest.Pytester, program: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A project on a lab that is none: guests are probes of this machine."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv(PROBE, str(program))
    pytester.makeconftest(CONFTEST)
    return pytester


def test_the_page_for_who_writes_tests_has_ten() -> None:
    shown = examples(OWN_PAGE)
    assert len(shown) == 10
    assert all(block.text.count("def test_") == 1 for block in shown)
    assert all(len(block.text.splitlines()) <= 25 for block in shown), "short"


@pytest.mark.parametrize("block", [b for page in PAGES for b in examples(page)], ids=place)
def test_an_example_runs_on_a_made_up_lab(made_up: pytest.Pytester, block: Block) -> None:
    result = made_up.runpytest_inprocess(*HERE, *write(made_up, [block]))
    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"passed"}, result.stdout.str()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("stage.guest.sucseed('true')", "*no attribute 'sucseed'*"),
        ("stage.guest.succeed('false')", "*it ended with 1*"),
        ("stage.move(polcy=None)", "*unexpected keyword argument 'polcy'*"),
        ("assert stage.move().outcome == 'lost'", "*assert 'completed' == 'lost'*"),
    ],
)
def test_an_example_that_does_not_run_is_noticed(
    made_up: pytest.Pytester, wrong: str, said: str
) -> None:
    text = (
        "from migrate.model import Case\n"
        f"def test_it(boot):\n    with boot(Case(id='x')) as stage:\n        {wrong}\n"
    )
    shown = [Block("docs/x.md:1", "python", "", text)]
    result = made_up.runpytest_inprocess(*HERE, *write(made_up, shown))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([said])


def test_the_examples_run_on_a_lab(
    pytester: pytest.Pytester, shared_lab: LocalLab, tmp_path: Path
) -> None:
    shown = examples(OWN_PAGE)
    where = ("--lab-name", shared_lab.name, "--results", str(tmp_path))
    result = pytester.runpytest_subprocess(*HERE, *where, *write(pytester, shown))
    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"passed"}, result.stdout.str()
    assert outcomes["passed"] >= len(shown)


def test_the_examples_of_the_plugins_page_run_on_a_lab(
    pytester: pytest.Pytester, shared_lab: LocalLab, tmp_path: Path
) -> None:
    """A lab may lack what a marker names: its test is skipped."""
    shown = examples("docs/pytest.md")
    where = ("--lab-name", shared_lab.name, "--results", str(tmp_path))
    result = pytester.runpytest_subprocess(*HERE, *where, *write(pytester, shown))
    outcomes = result.parseoutcomes()
    assert outcomes.get("passed"), result.stdout.str()
    assert outcomes.keys() <= {"passed", "skipped"}, result.stdout.str()
