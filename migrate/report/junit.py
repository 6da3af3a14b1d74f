"""``junit.xml`` of a run, for whatever collects test results."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from migrate.checks import quarantine
from migrate.model import Attempt, Run, Verdict
from migrate.report.unreached import why_unreached
from migrate.results.reader import UnreadableAttempt

NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(
    run: Run, attempts: Sequence[Attempt], unreadable: Sequence[UnreadableAttempt] = ()
) -> bytes:
    """One test case an attempt, one skipped a case that the lab can't run or that was not reached.

    An attempt that is void is an ``error``, as one that left nothing to record.

    What is quarantined is ``skipped``, too: collectors turn red at a ``failure``, whoever knows
    of it. An entry that has expired is a test case of its own that fails.

    Text from guests and logs may hold anything: what XML 1.0 can't carry becomes U+FFFD.
    """
    suite = ET.Element("testsuite", name=_clean(run.name), timestamp=_clean(run.began))
    for attempt in attempts:
        _attempt(suite, run, attempt)
    for skip in run.skips:
        test = _test(suite, skip.case.id, skip.case.id)
        ET.SubElement(test, "skipped", message=_clean(f"{skip.reason}; {skip.remedy}"))
    for mishap in run.mishaps:
        test = _test(suite, mishap.case_id, f"{mishap.case_id}[{mishap.number}]")
        problem = mishap.problem
        message = " ".join(
            filter(None, (problem.tried, problem.host, problem.said, problem.remedy))
        )
        ET.SubElement(test, "error", message=_clean(message))
    for lost in unreadable:
        test = _test(suite, lost.case_id, lost.name)
        ET.SubElement(test, "error", message=_clean(lost.describe()))
    for missed in run.not_reached:
        test = _test(suite, missed.case_id, missed.case_id)
        message = f"not run: {why_unreached(missed)}"
        ET.SubElement(test, "skipped", message=_clean(message))
    for entry in quarantine.expired(run):
        test = _test(suite, "quarantine", quarantine.entry_name(entry))
        ET.SubElement(
            test, "failure", message=_clean(quarantine.expiry_message(entry)), type="expired"
        )
    suite.set("tests", str(len(suite)))
    for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))


def _test(suite: ET.Element, kind: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=_clean(kind), name=_clean(name))


def _attempt(suite: ET.Element, run: Run, attempt: Attempt) -> None:
    test = _test(suite, attempt.case.id, f"{attempt.case.id}[{attempt.number}]")
    test.set("time", f"{max(0, attempt.end_ns - attempt.begin_ns) / 1e9:.3f}")
    if attempt.void:
        void = ET.SubElement(test, "error", message=_clean(f"void: {attempt.void_reason}"))
        void.set("type", "void")
        void.text = _clean("\n".join(map(_sentence, attempt.verdicts)))
        return
    if attempt.passed:
        return
    if entries := quarantine.excuses(run, attempt):
        bugs = "; ".join(f"{entry.bug}, {entry.owner}: {entry.reason}" for entry in entries)
        excused = ET.SubElement(test, "skipped", message=_clean(f"quarantined: {bugs}"))
        excused.text = _clean("\n".join(map(_sentence, attempt.failed_verdicts)))
        return
    wrong = [verdict for verdict in attempt.verdicts if verdict.result != "pass"]
    lines = [_sentence(verdict) for verdict in wrong] or ["no verdict was reached"]
    failure = ET.SubElement(test, "failure", message=_clean(lines[0]))
    failure.set("type", _clean(wrong[0].check) if wrong else "none")
    if attempt.error is not None:
        problem = attempt.error
        lines.append(" ".join(filter(None, (problem.tried, problem.host, problem.said))))
    failure.text = _clean("\n".join(lines))


def _sentence(verdict: Verdict) -> str:
    limit = f", limit {verdict.limit}" if verdict.limit else ""
    return (
        f"{verdict.check}: {verdict.result}: {verdict.measured or 'not measured'}{limit} "
        f"{verdict.unit} {verdict.evidence}"
    ).rstrip()


def _clean(text: str) -> str:
    return NOT_IN_XML.sub("\ufffd", text)
