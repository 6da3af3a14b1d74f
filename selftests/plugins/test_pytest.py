"""pytest's door, by tests of its users: what they see when a case passes, fails, or can't run."""

from __future__ import annotations

import importlib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from migrate.lab.local.lab import LocalLab
from migrate.plugins.pytest import Boot, Scenario, Verdicts
from selftests.doubles.made_up_session import CONFTEST, PROBE
from selftests.helpers import ROOT, SCENARIOS

SCENARIO = 'name = "one"\n'


@pytest.fixture
def inner(
    pytester: pytest.Pytester, program: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A project of a user, with a scenario file and no lab."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv(PROBE, str(program))
    pytester.makeconftest(CONFTEST)
    pytester.path.joinpath("one.toml").write_text(SCENARIO)
    return pytester


def outcome_of(inner: pytest.Pytester, test: str, *words: str) -> pytest.RunResult:
    inner.makepyfile(f"from pathlib import Path\nONE = Path('one.toml')\n{test}")
    return inner.runpytest_inprocess("-p", "no:cacheprovider", *words)


def test_a_case_that_passes(inner: pytest.Pytester) -> None:
    result = outcome_of(
        inner, "def test_it(scenario, verdicts):\n    verdicts(scenario(ONE))\n", "-s"
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*the report is written*"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lab", "nowhere.toml"), "*the lab file nowhere.toml: it does not exist*"),
        (("--lab", "one.toml", "--lab-name", "Ux4"), "*--name 'Ux4': a small letter*"),
        (("--lab", "x" * 300), "*File name too long*"),
        (("--lab", "/dev/zero"), "*it is no regular file*"),
        (("--scenario", "/dev/zero"), "*not found*"),
    ],
)
def test_a_lab_that_is_none_is_told_in_a_line(
    inner: pytest.Pytester, words: tuple[str, ...], said: str
) -> None:
    result = outcome_of(inner, "def test_it(lab): pass\n", *words)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert "Traceback" not in result.stderr.str()


def test_a_case_that_fails_shows_its_verdicts_and_no_code(inner: pytest.Pytester) -> None:
    result = outcome_of(
        inner, "def test_it(scenario, verdicts):\n    verdicts(scenario(ONE, 'policy.hops=3'))\n"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "one/1: lost, the guest runs on*",
            "*held-by*fail*nobody (expected b): THE GUEST RUNS NOWHERE",
            "migrate to b on a: it burns",
            "run folder: /results/20260102",
        ]
    )
    assert "def judge" not in result.stdout.str()


def test_a_case_that_cannot_run_here_is_skipped_with_reason_and_remedy(
    inner: pytest.Pytester,
) -> None:
    test = (
        "def test_it(scenario):\n    scenario(ONE, 'interface.mode=vdpa')\n"
        "def test_staged(boot):\n    with boot(ONE, 'interface.mode=vdpa'):\n        pass\n"
        "def test_noted(lab):\n    assert [s.reason for s in lab.skipped] == 2 * "
        "['no such card here']\n"
    )
    result = outcome_of(inner, test, "-rs")
    result.assert_outcomes(skipped=2, passed=1)
    result.stdout.fnmatch_lines(["SKIPPED*no such card here; it needs: plug one in"])


def test_a_stage_to_act_on_by_hand(inner: pytest.Pytester) -> None:
    test = (
        "from migrate.model import Case\n"
        "def test_it(boot):\n    with boot(Case(id='mine')) as stage:\n"
        "        assert stage.guest.succeed('echo hello') == 'hello\\n'\n"
        "        assert stage.target.migrate_from(stage.source).held_by == ('b',)\n"
        "def test_bare(boot):\n    with boot(Case(id='mine'), invariants=()) as stage:\n"
        "        assert stage.move().invariants == ()\n"
        "def test_counted_for_the_report(lab):\n    assert lab.stages == 2\n"
    )
    outcome_of(inner, test).assert_outcomes(passed=3)


def test_a_command_that_fails_in_the_guest_fails_its_test_in_words(inner: pytest.Pytester) -> None:
    test = (
        "def test_it(boot):\n    with boot(ONE) as stage:\n"
        "        stage.guest.succeed('echo it burns >&2; exit 2')\n"
    )
    result = outcome_of(inner, test)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*in the guest on host a: it ended with 2: it burns"])


def test_a_case_is_made_of_a_file_and_changed(inner: pytest.Pytester) -> None:
    test = (
        "from migrate.model import Policy\n"
        "def test_it(case, scenario):\n"
        "    slow = case(ONE, 'policy.timeout_s=9').with_(policy=Policy(bandwidth_mib_s=8))\n"
        "    assert scenario(slow).case == slow\n"
        "def test_typo(case):\n    case(ONE).with_(polcy=Policy())\n"
    )
    result = outcome_of(inner, test)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*polcy*", "*Extra inputs are not permitted*"])


def test_a_case_of_python_that_makes_no_sense_is_refused_before_it_is_tried(
    inner: pytest.Pytester,
) -> None:
    test = (
        "from migrate.model import Case, Policy\n"
        "BACK = Case(id='back', policy=Policy(abort_at='precopy'))\n"
        "def test_judged(scenario):\n    scenario(BACK)\n"
        "def test_by_hand(boot):\n    with boot(BACK) as stage:\n"
        "        assert stage.move().outcome == 'aborted'\n"
    )
    result = outcome_of(inner, test)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*policy.abort_at: aborted on purpose, but expected to be*"])


def test_a_labs_own_workload_is_that_of_its_cases(inner: pytest.Pytester) -> None:
    lab = inner.path.joinpath("slow.toml")
    lab.write_text("[workload]\ninterval_us = 5000\nfloor_s = 3\n")
    test = (
        "def test_it(scenario):\n"
        "    workload = scenario(ONE, 'workload.floor_s=2').case.workload\n"
        "    assert (workload.interval_us, workload.floor_s) == (5000, 2)\n"
    )
    outcome_of(inner, test, "--lab", str(lab)).assert_outcomes(passed=1)


def test_a_file_of_several_cases_has_to_be_narrowed(inner: pytest.Pytester) -> None:
    inner.path.joinpath("one.toml").write_text(
        SCENARIO + '[matrix]\n"interface.mode" = ["virtio", "vdpa"]\n'
    )
    result = outcome_of(inner, "def test_it(scenario):\n    scenario(ONE)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*it makes 2: one-virtio, one-vdpa -- narrow it by a variant, or by*"]
    )


def test_a_file_is_narrowed_by_a_variant(inner: pytest.Pytester) -> None:
    there, back = '[[variants]]\nname = "there"\n', '[[variants]]\nname = "back"\n'
    hops = 'policy.hops = 2\nexpect.held_by = ["source"]\n'
    inner.path.joinpath("one.toml").write_text(SCENARIO + there + back + hops)
    test = (
        "def test_it(scenario):\n"
        "    assert scenario(ONE, variant='back').case.policy.hops == 2\n"
        "def test_none(scenario):\n    scenario(ONE, variant='nowhere')\n"
    )
    result = outcome_of(inner, test)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*run the variant 'nowhere' of one.toml: there is no such case -- *-there, *-back*"]
    )


def test_the_options_are_told(inner: pytest.Pytester) -> None:
    result = inner.runpytest_inprocess("--help")
    options = ("*--lab=LAB*", "*--lab-name=*", "*--results=*", "*--scenario=*", "*--repeat=*")
    result.stdout.fnmatch_lines(["migrate-lab:", *options])


def test_a_real_guest_on_a_real_lab(
    pytester: pytest.Pytester, shared_lab: LocalLab, tmp_path: Path
) -> None:
    quick = SCENARIOS / "quickstart.toml"
    pytester.makepyfile(
        f"from pathlib import Path\nQUICK = Path({str(quick)!r})\n"
        "def test_it(scenario, verdicts, lab):\n"
        "    attempt = scenario(QUICK, 'interface.mode=virtio')\n"
        "    verdicts(attempt)\n"
        "    assert attempt.held_by == ('b',)\n"
        "def test_absent(scenario):\n    scenario(QUICK, 'interface.mode=failover')\n"
    )
    options = ("-p", "no:cacheprovider", "--lab-name", shared_lab.name, "--results", str(tmp_path))
    result = pytester.runpytest_subprocess("-rs", *options)
    result.assert_outcomes(passed=1, skipped=1)
    (run,) = (path for path in tmp_path.iterdir() if path.joinpath("run.json").exists())
    assert (run / "report.html").exists()
    assert (run / "junit.xml").exists()


# --- scenario files, repetitions, markers, evidence ---

TWO = SCENARIO + '[matrix]\n"interface.mode" = ["virtio", "vdpa"]\n'


def test_the_cases_of_a_named_scenario_file_are_tests(inner: pytest.Pytester) -> None:
    inner.path.joinpath("one.toml").write_text(TWO)
    inner.makepyfile("def test_other():\n    pass\n")
    result = inner.runpytest_inprocess("-p", "no:cacheprovider", "-v", "one.toml")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["one.toml::one-virtio PASSED*", "one.toml::one-vdpa SKIPPED*"])


def test_scenario_files_by_option_alone_and_beside_tests(inner: pytest.Pytester) -> None:
    words = ("--scenario", "one.toml")
    outcome_of(inner, "def test_other():\n    pass\n", *words).assert_outcomes(passed=1)
    outcome_of(inner, "def test_other():\n    pass\n", *words, ".").assert_outcomes(passed=2)


def test_a_file_that_is_no_scenario_is_refused_in_a_line(inner: pytest.Pytester) -> None:
    inner.path.joinpath("one.toml").write_text("[hosts.a]\n")
    result = inner.runpytest_inprocess("-p", "no:cacheprovider", "one.toml")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*one.toml*hosts*"])
    assert "Traceback" not in result.stdout.str()


def test_each_case_is_repeated_in_turns(inner: pytest.Pytester) -> None:
    two = '[matrix]\n"interface.ring" = ["split", "packed"]\n'
    inner.path.joinpath("one.toml").write_text(SCENARIO + two)
    result = inner.runpytest_inprocess("-p", "no:cacheprovider", "-v", "--repeat=2", "one.toml")
    result.assert_outcomes(passed=4)
    ids = [line.split()[0] for line in result.outlines if "PASSED" in line]
    names = ("one-split/1", "one-packed/1", "one-split/2", "one-packed/2")
    assert ids == [f"one.toml::{name}" for name in names]


def test_a_test_that_tries_a_case_is_repeated_and_no_other(inner: pytest.Pytester) -> None:
    test = "def test_it(scenario):\n    scenario(ONE)\ndef test_other():\n    pass\n"
    outcome_of(inner, test, "--repeat=3").assert_outcomes(passed=4)
    result = outcome_of(inner, test, "--repeat=0")
    result.stderr.fnmatch_lines(["*--repeat: at least 1*"])


def test_a_test_is_skipped_where_the_lab_lacks_what_it_names(inner: pytest.Pytester) -> None:
    test = (
        "import pytest\n"
        "@pytest.mark.needs('vhost-user', 'moon')\ndef test_night():\n    assert False\n"
        "@pytest.mark.needs('tun')\ndef test_day():\n    pass\n"
    )
    result = outcome_of(inner, test, "-rs", "--strict-markers")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*it is day; it needs: wait"])


def test_evidence_is_in_junits_file(inner: pytest.Pytester) -> None:
    test = "def test_it(scenario, verdicts):\n    verdicts(scenario(ONE, 'policy.hops=3'))\n"
    outcome_of(inner, test, "--junitxml=junit.xml").assert_outcomes(failed=1)
    found = {
        one.get("name"): one.get("value")
        for one in ET.parse(inner.path / "junit.xml").iterfind(".//testcase/properties/property")
    }
    assert found["run folder"] == "/results/20260102"
    assert found["attempt"] == "cases/one/1"
    assert found["verdict held-by"] == "fail: nobody"
    assert found["reported downtime, ms"] is not None
    assert {"seen egress outage, ms", "seen ingress outage, ms"} <= found.keys()


def test_the_old_name_of_the_plugin_has_the_same_verbs_and_says_where_they_are() -> None:
    with pytest.warns(DeprecationWarning, match=r"migrate\.plugins\.pytest"):
        old = importlib.import_module("migrate.pytest_plugin")
    assert (old.Boot, old.Scenario, old.Verdicts) == (Boot, Scenario, Verdicts)
