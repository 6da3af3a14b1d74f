"""``junit.xml`` of a run, for whatever collects test results."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from migrate.model import Attempt, Run, Verdict

NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(run: Run, attempts: Sequence[Attempt]) -> bytes:
    """One test case an attempt, one skipped a case that the lab can't run.

    Text from guests and logs may hold anything: what XML 1.0 can't carry becomes U+FFFD.
    """
    failed = sum(not attempt.passed for attempt in attempts)
    suite = ET.Element(
        "testsuite",
        name=_clean(run.name),
        timestamp=_clean(run.began),
        tests=str(len(attempts) + len(run.skips) + len(run.mishaps)),
        failures=str(failed),
        errors=str(len(run.mishaps)),
        skipped=str(len(run.skips)),
    )
    for attempt in attempts:
        _attempt(suite, attempt)
    for skip in run.skips:
        test = ET.SubElement(suite, "testcase", classname=skip.case.id, name=skip.case.id)
        ET.SubElement(test, "skipped", message=_clean(f"{skip.reason}; {skip.remedy}"))
    for mishap in run.mishaps:
        name = f"{mishap.case_id}[{mishap.number}]"
        test = ET.SubElement(suite, "testcase", classname=_clean(mishap.case_id), name=_clean(name))
        problem = mishap.problem
        said = " ".join(filter(None, (problem.tried, problem.host, problem.said, problem.remedy)))
        ET.SubElement(test, "error", message=_clean(said))
    return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))


def _attempt(suite: ET.Element, attempt: Attempt) -> None:
    seconds = max(0, attempt.end_ns - attempt.begin_ns) / 1e9
    test = ET.SubElement(
        suite,
        "testcase",
        classname=attempt.case.id,
        name=f"{attempt.case.id}[{attempt.number}]",
        time=f"{seconds:.3f}",
    )
    if attempt.passed:
        return
    wrong = [verdict for verdict in attempt.verdicts if verdict.result != "pass"]
    said = [_sentence(verdict) for verdict in wrong] or ["no verdict was reached"]
    failure = ET.SubElement(test, "failure", message=_clean(said[0]))
    failure.set("type", _clean(wrong[0].check) if wrong else "none")
    if attempt.error is not None:
        problem = attempt.error
        said.append(" ".join(filter(None, (problem.tried, problem.host, problem.said))))
    failure.text = _clean("\n".join(said))


def _sentence(verdict: Verdict) -> str:
    limit = f", limit {verdict.limit}" if verdict.limit else ""
    return (
        f"{verdict.check}: {verdict.result}: {verdict.measured or 'not measured'}{limit} "
        f"{verdict.unit} {verdict.evidence}"
    ).rstrip()


def _clean(text: str) -> str:
    return NOT_IN_XML.sub("\ufffd", text)
