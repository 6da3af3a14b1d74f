"""One attempt, on two hosts that are leased, to its verdicts. Start reading here.

:func:`attempt` puts the world into a state (two hosts, a backend on each, a guest with its probe, a
peer, traffic: :mod:`migrate.world`), acts (moves the guest hop by hop: :mod:`migrate.migration`),
and collects what was recorded meanwhile (:mod:`migrate.recorder`). Then the recording is analysed
(:mod:`migrate.analysis`): what the network saw, what the guest felt, what the hypervisor reports,
who holds the guest now; its findings are judged (:mod:`migrate.checks`), and all of it is stored
(:mod:`migrate.results`). What was done is undone when the world ends, however it ends; then
leftovers are looked for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from migrate.analysis.findings import analyse, not_analysed
from migrate.analysis.traffic import arrivals_on_axis, guest_clock
from migrate.bug_report import BUG_REPORT, bug_report
from migrate.checks.evaluate import evaluate
from migrate.cleanup.leftovers import leftovers
from migrate.clock import now_ns
from migrate.errors import LabError, LeaseLostError
from migrate.lab.api import Host
from migrate.model import Attempt, Case, Findings
from migrate.model.recording import Arrivals, Recording
from migrate.recorder.base import AttemptEnv
from migrate.results.recording_file import RECORDING, recording_bytes
from migrate.results.tables import MACHINES, machines_to_parquet
from migrate.results.writer import RunWriter, check_readable
from migrate.world import build_world

LOGGER = logging.getLogger(__name__)


def attempt(
    case: Case, number: int, env: AttemptEnv, pair: tuple[Host, Host], writer: RunWriter
) -> Attempt:
    """Try ``case`` once on ``pair`` (source, target: leased) and write all of it down.

    A migration that fails is an attempt; an exception means that there is none to record.
    """
    hosts = (pair[0].name, pair[1].name)
    recording = record(case, env, pair)
    env.check()
    left = looked_for_leftovers(pair)

    def judge(findings: Findings) -> Attempt:
        return evaluate(findings, case, number, hosts, leftovers=left, end_ns=now_ns())

    def keep(judged: Attempt, arrivals: Mapping[str, Arrivals], **more: str) -> Attempt:
        samples = [sample for hop in recording.hops for sample in hop.qemu.samples]
        files: dict[str, str | bytes] = {
            **recording.files,
            RECORDING: recording_bytes(recording),
            MACHINES: machines_to_parquet(recording.machines),
            **more,
        }
        writer.write_attempt(judged, recording.events, samples, arrivals, files)
        return judged

    try:
        clock = guest_clock(recording.traffic)
        arrivals = arrivals_on_axis(recording.traffic, clock)
        judged = judge(analyse(recording, case, clock))
        check_readable(judged)
    except Exception as error:  # whatever it was: the recording can't be had again
        LOGGER.debug("the analysis failed", exc_info=True)
        findings = not_analysed(recording, error)
        if isinstance(error, LabError):
            return keep(judge(findings), {})
        report = bug_report(error, f"analyse {case.id}, attempt {number}")
        findings = findings.model_copy(update={"bug_report": BUG_REPORT})
        return keep(judge(findings), {}, **{BUG_REPORT: report})
    return keep(judged, arrivals)


def record(case: Case, env: AttemptEnv, pair: tuple[Host, Host]) -> Recording:
    """All that was gathered while the guest was moved as often as the case wants it; kept also if
    what was done does not go back afterwards, and void then."""
    recording: Recording | None = None
    try:
        with build_world(case, env, pair) as world:
            for _ in range(case.policy.hops):
                if world.move().outcome != "completed":
                    break
            world.listen(case.workload.settle_s)
            recording = world.end()
    except LabError as error:
        if recording is None or isinstance(error, LeaseLostError):
            raise
        reason = f"what was done did not go back: {error}"
        return recording.model_copy(update={"void": (*recording.void, reason)})
    return recording


def looked_for_leftovers(pair: tuple[Host, Host]) -> tuple[str, ...] | None:
    """What was left on both; None: a host could not be asked."""
    try:
        return leftovers(pair)
    except LabError as error:
        LOGGER.info("leftovers could not be searched for: %s", error)
        return None
