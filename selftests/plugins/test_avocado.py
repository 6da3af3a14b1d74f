"""avocado's door, by the command of its users. It runs in processes of its own: avocado has state
for a whole process, and imports what warns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from migrate.lab import fabric_kind
from migrate.lab.local.lab import LocalLab
from migrate.results.reader import read_run
from selftests.command_line import PATIENCE_S
from selftests.helpers import ROOT, SCENARIOS

ONE = 'name = "one"\n'
TWO = f'{ONE}[matrix]\n"interface.mode" = ["virtio", "vdpa"]\n'
TESTS_FAILED, JOB_FAILED = 1, 2
"""avocado's exit codes, which are bits."""


@dataclass(slots=True)
class Avocado:
    """The command, in a folder and with a configuration of its own."""

    folder: Path
    options: list[str] = field(default_factory=list)

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return name

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "avocado", *words],
            cwd=self.folder,
            env={**os.environ, "HOME": str(self.folder), "COLUMNS": "400"},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        jobs = str(self.folder / "jobs")
        return self("run", "--job-results-dir", jobs, "--disable-sysinfo", *self.options, *words)

    def listed(self, *words: str) -> list[str]:
        return [line.split(" ", 1)[1] for line in self("list", *words).stdout.splitlines()]

    def tests(self) -> list[dict[str, Any]]:
        """What the last job says of its tests, in their order."""
        found = json.loads((self.folder / "jobs/latest/results.json").read_text())["tests"]
        return sorted(found, key=lambda test: int(test["id"].partition("-")[0]))


@pytest.fixture
def avocado(tmp_path: Path) -> Avocado:
    return Avocado(tmp_path)


def variants(*parameters: dict[str, object]) -> str:
    """A file for ``--json-variants-load``: a variant for each."""
    return json.dumps(
        [
            {
                "paths": ["/run/*"],
                "variant_id": f"v{number}",
                "variant": [["/run/v", [["/run/v", key, value] for key, value in found.items()]]],
            }
            for number, found in enumerate(parameters, 1)
        ]
    )


# --- which tests there are ---


def test_a_test_for_each_case(avocado: Avocado) -> None:
    modes = str(SCENARIOS / "modes.toml")
    listed = avocado.listed(modes, str(SCENARIOS / "disk.toml"))
    assert f"{modes}:modes-vhost-user-packed" in listed
    assert listed[-2:] == [f"{SCENARIOS}/disk.toml:disk-{m}" for m in ("virtio", "vhost-user")]
    assert avocado.listed(f"{modes}:modes-vdpa-split") == [f"{modes}:modes-vdpa-split"]


@pytest.mark.parametrize(
    ("text", "reference", "said"),
    [
        ('nmae = "x"', "x.toml", "x.toml, line 1: nmae: there is no such key -- did you mean"),
        (TWO, "x.toml:one-failover", "no such case; there are one-virtio, one-vdpa"),
    ],
)
def test_what_is_wrong_is_told(avocado: Avocado, text: str, reference: str, said: str) -> None:
    avocado.write("x.toml", text)
    listed, run = avocado("list", reference), avocado.run(reference)
    assert said in listed.stdout + listed.stderr
    assert said in run.stdout + run.stderr
    assert run.returncode & JOB_FAILED


def test_other_files_are_left_to_other_resolvers(avocado: Avocado) -> None:
    avocado.write("test_x.py", "import unittest\nclass T(unittest.TestCase):\n def test(self): 0\n")
    assert avocado.listed("test_x.py") == ["test_x.py:T.test"]


@pytest.mark.parametrize(
    ("given", "cases"),
    [
        (["-p", "interface.mode=failover"], ["failover"]),
        (["--json-variants-load", "one"], ["failover", "failover"]),
        (["--json-variants-load", "axis"], ["virtio", "virtio", "vdpa", "vdpa"]),
    ],
)
def test_parameters_are_overrides(avocado: Avocado, given: list[str], cases: list[str]) -> None:
    """A variant that does not make a case still is a test of it: avocado multiplies."""
    avocado.write("one", variants({"interface.mode": "failover"}, {"interface.mode": "failover"}))
    avocado.write("axis", variants({"interface.mode": "virtio"}, {"interface.mode": "vdpa"}))
    done = avocado.run("--dry-run", avocado.write("x.toml", TWO), *given)
    begun = re.findall(r" x\.toml:one-([a-z]+)(?:;v[12])?: STARTED", done.stdout)
    assert sorted(begun) == sorted(cases), done.stdout  # avocado starts several at once


def test_a_parameter_that_is_no_key_is_refused(avocado: Avocado) -> None:
    done = avocado.run(avocado.write("x.toml", TWO), "-p", "intreface.mode=vdpa")
    assert "--set intreface" in done.stdout + done.stderr
    assert done.returncode & JOB_FAILED


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use a lab")
def test_who_is_not_root_is_told(avocado: Avocado) -> None:
    done = avocado.run(avocado.write("x.toml", ONE))
    assert "it needs root" in done.stderr
    assert done.returncode & JOB_FAILED


def test_a_lab_file_that_is_not_there_ends_the_job(avocado: Avocado) -> None:
    x = avocado.write("x.toml", ONE)
    done = avocado.run(x, "--migrate-lab-file", "nowhere.toml")
    assert "read the lab file nowhere.toml: it does not exist" in done.stderr
    assert done.returncode & JOB_FAILED


def test_the_options_are_told_in_the_documentation(avocado: Avocado) -> None:
    page = (ROOT / "docs/avocado.md").read_text()
    options = {word for word in avocado("run", "--help").stdout.split() if "--migrate-lab" in word}
    assert len(options) > 3
    assert all(f"`{option.strip('[]')}" in page for option in options)


# --- the runner, without a lab ---

DOOR = """
import json, os, signal, sys, threading
from pathlib import Path
from avocado.core.nrunner.runnable import Runnable
from avocado.core.utils.messages import LogMessage
from migrate.plugins import avocado as door
from migrate.errors import GuestError
from selftests.doubles import synthetic
from migrate.model import Verdict

def as_run_by(case):
    door.run_case = case
    try:
        for message in door.Runner().run(Runnable("migrate-lab", "x.toml:x")):
            said = message.get("fail_reason") or message.get("log", b"").decode()
            print(message["status"], message.get("result"), said, flush=True)
    except KeyboardInterrupt:
        print("interrupted")

"""


@contextmanager
def script(text: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-W", "ignore", "-c", DOOR + text]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def printed(text: str) -> list[str]:
    with script(text) as process:
        return process.communicate(timeout=PATIENCE_S)[0].splitlines()


def test_a_case_whose_process_is_killed_is_an_error() -> None:
    lines = printed(
        "def die(_runnable, send):\n"
        "    send(LogMessage.get('going on'))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "as_run_by(die)"
    )
    assert lines[:2] == ["started None ", "running None going on"]
    assert lines[2].startswith("finished error its process ended with -9")


def test_no_attempt_is_an_error_in_our_words() -> None:
    lines = printed(
        "def fail(_runnable, _send):\n"
        "    raise GuestError('start it', host='a', said='no', remedy='try again')\n"
        "as_run_by(fail)"
    )
    assert lines[1:] == ["finished error start it on host a: no -- try again"]


def test_an_error_of_the_program_is_told_in_a_line_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    lines = printed(
        f"os.chdir({str(tmp_path)!r})\n"
        "def fail(_runnable, _send):\n"
        "    raise KeyError('queue')\n"
        "as_run_by(fail)"
    )
    (path,) = tmp_path.glob("migrate-lab-error-*.txt")
    assert lines[1].startswith("finished error run x.toml:x: KeyError: 'queue'")
    assert str(path) in lines[1]


@pytest.mark.parametrize("reference", ["x" * 300 + ".toml", "a\0b.toml", "loop.toml"])
def test_a_path_that_is_none_is_left_to_others(reference: str) -> None:
    lines = printed(
        f"answer = door.Resolver({{}}).resolve({reference!r})\nprint(answer.result.name)"
    )
    assert lines == ["NOTFOUND"]


def test_a_case_that_the_variant_does_not_make_is_cancelled(avocado: Avocado) -> None:
    avocado.write("x.toml", TWO)
    lines = printed(
        "variant = {'variant': [['/run/v', [['/run/v', 'interface.mode', 'vdpa']]]]}\n"
        f"one = Runnable('migrate-lab', '{avocado.folder}/x.toml:one-virtio', variant=variant)\n"
        "message = door.run_case(one, print)\n"
        "print(message['result'], message['fail_reason'])"
    )
    assert lines == ["cancel interface.mode=vdpa makes no case one-virtio"]


@pytest.mark.parametrize(
    ("value", "said"), [("2", "k=2"), (2, "k=2"), (True, "k=true"), ([1, "a"], 'k=[1, "a"]')]
)
def test_a_value_of_a_variant_is_said_as_toml(value: object, said: str) -> None:
    variant = {"variant": [["/", [["/", "k", value]]]]}
    assert printed(f"print(*door.overrides_of({variant!r}))") == [said]


def test_a_test_that_is_ended_undoes_what_it_did(tmp_path: Path) -> None:
    """Also when it is told a second time meanwhile."""
    with script(
        "def wait(_runnable, send):\n"
        "    try:\n"
        "        send(LogMessage.get('going on'))\n"
        "        threading.Event().wait()\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        f"        Path({str(tmp_path / 'undone')!r}).touch()\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(number, door._interrupt)\n"
        "as_run_by(wait)"
    ) as process:
        assert process.stdout is not None
        while "going on" not in process.stdout.readline():
            pass
        process.terminate()
        assert process.communicate(timeout=PATIENCE_S)[0].splitlines() == ["interrupted"]
    assert (tmp_path / "undone").exists()


@pytest.mark.parametrize(
    ("results", "allowed", "said"),
    [
        (("pass", "pass"), (), "pass None"),
        (("pass", "fail"), (), "fail tcp fail: \\x1b[31mred"),
        (("pass", "unmeasured"), (), "fail tcp unmeasured: \\x1b[31mred"),
        (("pass", "unmeasured"), ("tcp",), "pass None"),
        ((), (), "fail it has no verdict"),
    ],
)
def test_only_an_attempt_that_passed_is_a_pass(
    results: Sequence[str], allowed: Sequence[str], said: str
) -> None:
    lines = printed(
        f"case = synthetic.case(expect={{'allow_unmeasured': {list(allowed)!r}}})\n"
        "verdicts = tuple(\n"
        "    Verdict(check=c, result=r, measured='m', limit='l', evidence='\\x1b[31mred')\n"
        f"    for c, r in zip(('memory', 'tcp'), {tuple(results)!r})\n"
        ")\n"
        "attempt = synthetic.attempt(case).model_copy(update={'verdicts': verdicts})\n"
        "message = door.ended(attempt)\n"
        "print(message['result'], message.get('fail_reason'))"
    )
    assert lines == [said]


# --- on a real lab ---


@pytest.mark.needs_root
def test_a_real_guest_passes_and_a_variant_that_asks_too_much_fails(
    avocado: Avocado, shared_lab: LocalLab
) -> None:
    avocado.options = ["--migrate-lab-name", shared_lab.name]
    avocado.write("v.json", variants({"policy.hops": 1}, {"expect.outage_egress_ms": 1}))
    done = avocado.run(avocado.write("x.toml", ONE), "--json-variants-load", "v.json")
    good, bad = avocado.tests()
    assert (good["status"], bad["status"]) == ("PASS", "FAIL"), done.stdout
    assert "outage_egress fail" in bad["fail_reason"].replace("-", "_").replace(".", "_")
    assert done.returncode == TESTS_FAILED
    for test, limit in ((good, None), (bad, 1)):
        (found,) = read_run(Path(test["whiteboard"].strip())).attempts
        assert found.attempt.case.expect.outage_egress_ms == limit
        assert Path(test["logdir"], "run").resolve() == Path(test["whiteboard"].strip())
        assert (Path(test["logdir"]) / "run/report.html").exists()
        assert "held-by" in Path(test["logfile"]).read_text()
    assert fabric_kind.find(shared_lab.name) is not None, "it was up before"


REST = """name = "rest"

[[variants]]
name = "unmeasured"
policy.abort_at = "precopy"
policy.bandwidth_mib_s = 8
expect.outcome = "aborted"
expect.held_by = ["source"]
expect.downtime_ms = 1000

[[variants]]
name = "elsewhere"
interface.mode = "vdpa"

[[variants]]
name = "impossible"
guest.image = "none"
"""


@pytest.mark.needs_root
def test_what_was_not_measured_or_not_tried_is_no_pass(avocado: Avocado, lab_name: str) -> None:
    """The job brings its lab up once, and takes it down."""
    avocado.options = ["--migrate-lab-name", lab_name, "--migrate-lab-results", "kept"]
    done = avocado.run(avocado.write("x.toml", REST))
    unmeasured, elsewhere, impossible = avocado.tests()
    statuses = [test["status"] for test in (unmeasured, elsewhere, impossible)]
    assert statuses == ["FAIL", "SKIP", "ERROR"], done.stdout
    assert "downtime unmeasured" in unmeasured["fail_reason"]
    assert "vDPA" in elsewhere["fail_reason"]
    assert "; it needs: " in elsewhere["fail_reason"]
    assert "image" in impossible["fail_reason"]
    assert done.returncode == TESTS_FAILED
    assert len(list((avocado.folder / "kept").iterdir())) == 2, (
        "one for each test but that which was refused"
    )
    assert done.stdout.count("starting the hosts") == 1
    assert fabric_kind.find(lab_name) is None
