"""Every shipped scenario on every lab that it is for: ``python -m testcases.shipped``.

Each lab is brought up once, its scenarios are run on it one after the other, and it is taken down.
What fails does not keep the rest from being run. The table at the end has a row a scenario and lab;
what was not run says why. Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOR: Mapping[str, tuple[str, ...]] = {
    "local": (
        "quickstart",
        "modes",
        "ping-pong",
        "save-restore",
        "disk",
        "abort",
        "policies",
        "faults",
    ),
    "four-pairs": ("modes",),
    "versions": ("versions", "newest"),
    "oldest": ("quickstart", "ping-pong"),
    "nested": ("all-modes", "vdpa", "failover", "hostdev", "hosts"),
    "nested-virtio": ("hostdev",),
}
"""By lab file, the scenario files that are run on it."""
NOT_RUN: Mapping[str, str] = {
    "two-pairs": "the testcases of ./check are run on it",
    "rack": "an example: its hosts have to be somebody's own",
}
"""Lab files on which nothing can be run here, and why."""
QUARANTINED = "quarantined: "
"""Begins the message of a known failure in JUnit's file."""
INTERRUPTED = 130
NOTHING_RAN = 3
"""Exit code of ``migrate-lab run`` where the lab can't do any of the cases."""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a scenario on a lab."""

    scenario: str
    lab: str
    seconds: float = 0.0
    passed: int = 0
    failures: tuple[str, ...] = ()
    """A line a case that failed, or what kept the scenario from being run."""
    skips: tuple[str, ...] = ()
    """A line a case that the lab can't do."""
    known: tuple[str, ...] = ()
    """A line a case that failed as the lab's quarantine list says."""

    @property
    def verdicts(self) -> str:
        """E.g. ``passed 4, skipped 2``."""
        counts = {
            "passed": self.passed,
            "failed": len(self.failures),
            "known failure": len(self.known),
            "skipped": len(self.skips),
        }
        return ", ".join(f"{word} {count}" for word, count in counts.items() if count) or "not run"


@dataclass(slots=True)
class Program:
    """``migrate-lab`` on one lab file, under a lab name of its own."""

    lab: str
    name: str
    results: Path
    reports: Path
    """Where JUnit's files are written, which are read at once."""
    said: list[str] = field(default_factory=list)
    """What the last command wrote to standard error."""

    def __call__(self, *words: str) -> int:
        """Run it to its end, its words on our standard error; return its exit code."""
        where = ("--lab", f"labs/{self.lab}.toml", "--name", self.name)
        self.said = []
        with subprocess.Popen(
            [sys.executable, "-m", "migrate.cli", *words, *where],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process:
            for line in process.stderr or ():
                sys.stderr.write(line)
                self.said.append(line.strip())
        return process.returncode

    def run(self, scenario: str) -> Row:
        """Every case of it, once."""
        report = self.reports / f"{scenario}-{self.lab}.xml"
        file = f"testcases/scenarios/{scenario}.toml"
        options = ["--results", str(self.results), "--junit", str(report)]
        quarantine = Path(f"testcases/quarantine/{self.lab}.toml")
        if (ROOT / quarantine).exists():
            options += ["--quarantine", str(quarantine)]
        began = time.monotonic()
        status = self("run", file, *options)
        seconds = time.monotonic() - began
        row = Row(scenario, self.lab, seconds)
        if report.exists():
            row = read_junit(row, report)
        if status not in (0, NOTHING_RAN) and not row.failures:
            return replace(row, failures=(f"exit code {status}: {' '.join(self.said[-1:])}",))
        if status == NOTHING_RAN and not row.skips:
            return replace(row, failures=(" ".join(self.said[-1:]),))
        return row


def read_junit(row: Row, report: Path) -> Row:
    """The row with what came of its cases."""
    passed = 0
    failures: list[str] = []
    skips: list[str] = []
    known: list[str] = []
    for test in ET.fromstring(report.read_bytes()).iter("testcase"):
        bad = [*test.findall("failure"), *test.findall("error")]
        name = test.get("name", "")
        if bad:
            failures.append(f"{name}: {bad[0].get('message', '')}")
        elif (skip := test.find("skipped")) is not None:
            reason = skip.get("message", "")
            (known if reason.startswith(QUARANTINED) else skips).append(f"{name}: {reason}")
        else:
            passed += 1
    return replace(
        row, passed=passed, failures=tuple(failures), skips=tuple(skips), known=tuple(known)
    )


def run_lab(program: Program, scenarios: Sequence[str]) -> Iterator[Row]:
    """Bring the lab up, run them, and take it down, whatever comes of them."""
    try:
        if program("lab", "up"):
            reason = " ".join(program.said[-1:])
            yield from (Row(name, program.lab, failures=(reason,)) for name in scenarios)
            return
        for name in scenarios:
            yield program.run(name)
    finally:
        status = program("lab", "down")
    if status:
        yield Row("lab down", program.lab, failures=(" ".join(program.said[-1:]),))


def table(rows: Sequence[Row]) -> str:
    """A row a scenario and lab, then what failed, then what was skipped: each reason once."""
    cells = [("scenario", "lab", "verdicts", "time, s")]
    cells += [(row.scenario, row.lab, row.verdicts, f"{row.seconds:.0f}") for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    lines += [f"failed on {row.lab}: {line}" for row in rows for line in row.failures]
    lines += [f"known failure on {row.lab}: {line}" for row in rows for line in row.known]
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for line in row.skips:
            case, _, reason = line.partition(": ")
            reasons.setdefault((row.lab, reason), []).append(case)
    lines += [
        f"skipped on {lab}: {', '.join(dict.fromkeys(cases))}: {reason}"
        for (lab, reason), cases in reasons.items()
    ]
    return "\n".join([*lines, *(f"not run: {lab}: {why}" for lab, why in NOT_RUN.items())])


def main(words: Sequence[str] | None = None) -> int:
    """Run what is asked for, print the table; 1 if anything failed."""
    parser = argparse.ArgumentParser(description="Every shipped scenario on the labs it is for.")
    again = "; may be given several times"
    parser.add_argument("--lab", action="append", choices=FOR, help=f"only this lab{again}")
    parser.add_argument("--scenario", action="append", help=f"only this scenario{again}")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs are kept")
    asked = parser.parse_args(words)
    rows: list[Row] = []
    try:
        _run_all(asked.lab or FOR, asked.scenario, asked.results.resolve(), rows)
    except KeyboardInterrupt:
        print(table(rows))
        return INTERRUPTED
    print(table(rows))
    return int(any(row.failures for row in rows))


def _run_all(
    labs: Collection[str], scenarios: Sequence[str] | None, results: Path, rows: list[Row]
) -> None:
    with tempfile.TemporaryDirectory(prefix="migrate-lab-") as folder:
        for number, (lab, names) in enumerate(FOR.items()):
            wanted = [name for name in names if name in (scenarios or names)]
            if wanted and lab in labs:
                rows.extend(run_lab(Program(lab, f"ship{number}", results, Path(folder)), wanted))


if __name__ == "__main__":
    sys.exit(main())
