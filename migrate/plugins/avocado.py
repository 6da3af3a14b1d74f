"""avocado's door: a test for each case of a scenario file. No logic: it calls the layer below.

- :class:`Resolver`: ``FILE.toml`` is a test for each of its cases, ``FILE.toml:CASE`` is one test.
- :class:`Job`: brings the lab up before the tests and takes it down after them, once a job.
- :class:`Runner`: runs one case in a process of its own, with a run folder of its own.
- parameters (``-p``, a varianter's) are overrides, as ``--set`` takes them.

Written against avocado-framework 113.0. A test says how it ended by one of avocado's statuses: pass
if the attempt passed, fail if a verdict failed (also by an ``unmeasured`` that is not
allowed), error if there is no attempt, skip if the case can't run here, cancel if the parameters
take it out of the matrix.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avocado.core import plugin_interfaces
from avocado.core.exceptions import JobError
from avocado.core.nrunner.app import BaseRunnerApp
from avocado.core.nrunner.runnable import Runnable
from avocado.core.nrunner.runner import BaseRunner
from avocado.core.output import LOG_UI
from avocado.core.resolver import ReferenceResolution, ReferenceResolutionResult
from avocado.core.settings import settings
from avocado.core.utils.messages import FinishedMessage, LogMessage, WhiteboardMessage
from avocado.core.varianter import Varianter, dump_variant

from migrate import log
from migrate.bug_report import program_errors
from migrate.errors import LabError

if TYPE_CHECKING:
    from migrate.lab.config import LabConfig
    from migrate.model import Attempt, Case
    from migrate.scenario.loader import Scenario

KIND = "migrate-lab"
OPTIONS = (
    ("lab", "--migrate-lab-file", "Lab file; default: two hosts on this machine", "FILE"),
    ("name", "--migrate-lab-name", "Another name for the lab", "NAME"),
    ("results", "--migrate-lab-results", "Where runs are kept; default: results", "FOLDER"),
)
KEEP = ("keep", "--migrate-lab-keep", "Leave the lab up after the job")
UNDOING_S = 60
"""How long avocado leaves to a test that it ends; its own second is no time to undo a move."""
ENDING = "runner.task.interval.from_soft_to_hard_termination"
AT_ONCE = "run.max_parallel_tasks"

Message = dict[str, Any]
Send = Callable[[Message], None]


class Init(plugin_interfaces.Init):
    """The section ``[migrate-lab]`` of avocado's configuration."""

    name = KIND
    description = "Settings of migrate-lab"

    def initialize(self) -> None:
        """Register them."""
        for key, _, help_text, _ in OPTIONS:
            settings.register_option(section=KIND, key=key, default="", help_msg=help_text)
        settings.register_option(
            section=KIND, key=KEEP[0], default=False, key_type=bool, help_msg=KEEP[2]
        )


class CLI(plugin_interfaces.CLI):
    """The same as options of ``avocado run``."""

    name = KIND
    description = "migrate-lab options for the 'run' subcommand"

    def configure(self, parser: Any) -> None:
        """Add them."""
        group = parser.subcommands.choices["run"].add_argument_group("migrate-lab")
        for key, option, _, metavar in OPTIONS:
            settings.add_argparser_to_option(
                namespace=f"{KIND}.{key}", parser=group, long_arg=option, metavar=metavar
            )
        settings.add_argparser_to_option(
            namespace=f"{KIND}.{KEEP[0]}", parser=group, long_arg=KEEP[1], action="store_true"
        )

    def run(self, config: Any) -> None:
        """Nothing: avocado wants it to be there."""


# --- which tests there are ------------------------------------------------------------------------


class Resolver(plugin_interfaces.Resolver):
    """From a scenario file to its cases, as the parameters of the job leave them."""

    name = KIND
    description = "Test resolver for scenario files of migrate-lab"

    def resolve(self, reference: str) -> ReferenceResolution:
        """``FILE.toml`` or ``FILE.toml:CASE``; what is wrong with a file is told as avocado does.

        An override may make cases that the file alone does not: those of all variants are listed,
        and a variant that does not make one cancels it.
        """
        from migrate.scenario.loader import load

        path, wanted = _parts(reference)
        if path.suffix != ".toml" or not os.path.isfile(path):  # noqa: PTH113 - never raises
            return _nothing(reference, "NOTFOUND", f"{path} is no TOML file")
        try:
            with program_errors(f"read {reference}"):
                scenarios = [load(path, overrides) for overrides in _all_overrides(self.config)]
        except LabError as error:
            return _nothing(reference, "CORRUPT", str(error))
        ids = dict.fromkeys(case.id for scenario in scenarios for case in scenario.cases)
        chosen = [name for name in ids if wanted in {"", name}]
        if not chosen:
            return _nothing(reference, "CORRUPT", f"no such case; there are {', '.join(ids)}")
        runnables = [Runnable(KIND, f"{path}:{name}") for name in chosen]
        return ReferenceResolution(reference, ReferenceResolutionResult.SUCCESS, runnables)


def _nothing(reference: str, result: str, said: str) -> ReferenceResolution:
    return ReferenceResolution(reference, ReferenceResolutionResult[result], info=said)


def _parts(reference: str) -> tuple[Path, str]:
    """File and case; the case is empty where none is named."""
    path, colon, case = reference.rpartition(".toml:")
    return (Path(f"{path}.toml"), case) if colon else (Path(reference), "")


def _all_overrides(config: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Those of each variant, none of them twice; without parameters the empty one alone."""
    given = config.get("run.test_parameters")
    if given:
        return [tuple(_override(key, value) for key, value in given)]
    varianter = Varianter()
    varianter.parse(config)
    return list(dict.fromkeys(overrides_of(dump_variant(one)) for one in varianter.itertests()))


def overrides_of(variant: Mapping[str, Any] | None) -> tuple[str, ...]:
    """A variant's parameters as ``key=value``, whatever node of its tree they hang on."""
    nodes = (variant or {}).get("variant", ())
    return tuple(_override(key, value) for _, parameters in nodes for _, key, value in parameters)


def _override(key: str, value: object) -> str:
    """A text is said as it is, as on a command line; other values of JSON are TOML, too."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


# --- the lab of a job -----------------------------------------------------------------------------


class Job(plugin_interfaces.JobPre, plugin_interfaces.JobPost):
    """The lab is up while the tests run; it is taken down if it was not up before."""

    name = KIND
    description = "Brings a migrate-lab lab up before a job, and takes it down after it"

    def __init__(self) -> None:
        self._stack = ExitStack()

    def pre(self, job: Any) -> None:
        """Bring up the lab that the suites name. Raises JobError: no test runs without it."""
        self._stack.enter_context(log.shown(LOG_UI.info))
        try:
            with program_errors("bring up the lab of a job"):
                for suite in job.test_suites:
                    if any(test.kind == KIND for test in suite.tests or ()):
                        self._prepare(suite.config)
        except LabError as error:
            raise JobError(str(error)) from error

    def _prepare(self, config: dict[str, Any]) -> None:
        from migrate.lab import manager

        keep = bool(config[f"{KIND}.{KEEP[0]}"])
        lab = self._stack.enter_context(manager.opened(_lab(config), keep=keep))
        # More tests than pairs would wait for a lease, and be heard by the meter meanwhile.
        config[AT_ONCE] = min(config[AT_ONCE], len(lab.hosts) // 2)
        config[ENDING] = max(config[ENDING], UNDOING_S)

    def post(self, _job: Any) -> None:
        """Take down what :meth:`pre` brought up."""
        try:
            with program_errors("take down the lab of a job"):
                self._stack.close()
        except LabError as error:
            LOG_UI.error(str(error))


def _lab(config: Mapping[str, Any]) -> LabConfig:
    from migrate.lab.kinds import load_lab

    file, name = config.get(f"{KIND}.lab"), config.get(f"{KIND}.name")
    return load_lab(Path(file) if file else None, name or None)


# --- one test -------------------------------------------------------------------------------------


class Runner(BaseRunner):
    """Runs one case. What it takes is in the runnable: ``FILE.toml:CASE``, settings, a variant.

    The case runs in a child of its own, so that one that is killed, or crashes, is reported:
    avocado would wait for its result for ever.
    """

    name = KIND
    description = "Runner for cases of scenario files"

    CONFIGURATION_USED = [f"{KIND}.{key}" for key, *_ in (*OPTIONS, KEEP)]  # noqa: RUF012

    def run(self, runnable: Runnable) -> Iterator[Message]:
        """avocado's messages, as they come."""
        yield self.prepare_status("started")
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(runnable, receiver, sender))
        child.start()
        sender.close()
        finished: Message | None = None
        try:
            for message in _received(receiver):
                if message["status"] == "finished":
                    finished = message
                else:
                    yield message
        finally:
            if finished is None:
                child.terminate()  # of no use if it is dead, and the second one if it is undoing
            child.join()
        said = f"its process ended with {child.exitcode}; see `stderr` in the test's folder"
        yield finished or FinishedMessage.get("error", fail_reason=said)


def _received(receiver: Connection) -> Iterator[Message]:
    try:
        while True:
            yield receiver.recv()
    except EOFError:
        return


def _child(runnable: Runnable, receiver: Connection, sender: Connection) -> None:
    """Send how it goes and how it ended; when nobody listens any more, undo and end."""
    receiver.close()
    if runnable.output_dir:
        with Path(runnable.output_dir, "stderr").open("wb") as file:
            os.dup2(file.fileno(), sys.stderr.fileno())
    folder = Path(runnable.output_dir) if runnable.output_dir else None
    try:
        with log.remembered(), program_errors(f"run {runnable.uri}", folder):
            finished = run_case(runnable, sender.send)
    except LabError as error:
        finished = FinishedMessage.get("error", fail_reason=str(error))
    sender.send(finished)


class _Log(StringIO):
    """Progress writes lines; each is a message."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def write(self, text: str) -> int:
        self._send(LogMessage.get(text.rstrip("\n")))
        return len(text)


def run_case(runnable: Runnable, send: Send) -> Message:
    """Run the case and return the message of its end. Raises LabError: there is no attempt."""
    from dataclasses import replace

    from migrate.campaign.progress import Progress
    from migrate.campaign.run_source import NewRun
    from migrate.campaign.session import open_session
    from migrate.model import Skip
    from migrate.report.attempt_text import attempt_lines
    from migrate.scenario.loader import load

    config = _lab(runnable.config)
    path, wanted = _parts(runnable.uri)
    overrides = overrides_of(runnable.variant)
    scenario = load(path, overrides, config.scenario_defaults())
    case = _named(scenario, wanted)
    if case is None:
        said = f"{', '.join(overrides) or 'the file'} makes no case {wanted}"
        return _finished("cancel", said)
    results = Path(runnable.config.get(f"{KIND}.results") or "results")
    source = NewRun(
        results, ("avocado", runnable.uri, *overrides), (replace(scenario, cases=(case,)),)
    )
    with open_session(config, source, Progress(_Log(send))) as session:
        _show(session.folder, runnable.output_dir, send)
        pair = session.place(case)
        if isinstance(pair, Skip):
            session.skip(pair)
            return _finished("skip", f"{pair.reason}; it needs: {pair.remedy}")
        attempt = session.attempt(case, 1, pair)
    for line in attempt_lines(attempt):
        send(LogMessage.get(line))
    return ended(attempt)


def _named(scenario: Scenario, wanted: str) -> Case | None:
    return next((case for case in scenario.cases if case.id == wanted), None)


def _show(folder: Path, output: str | None, send: Send) -> None:
    """The run folder is the test's whiteboard, and ``run`` in the test's folder leads there."""
    send(WhiteboardMessage.get(str(folder.resolve())))
    if output:
        Path(output, "run").symlink_to(folder.resolve(), target_is_directory=True)


def ended(attempt: Attempt) -> Message:
    """Pass only if every verdict is one, or an ``unmeasured`` that the case allows."""
    from migrate.report.table_text import clean

    if attempt.passed:
        return _finished("pass")
    if attempt.void:
        return _finished("error", clean(f"void: {attempt.void_reason}"))
    wrong = (
        f"{verdict.check} {verdict.result}: {verdict.evidence or verdict.measured}"
        for verdict in attempt.failed_verdicts
    )
    return _finished("fail", clean("; ".join(wrong) or "it has no verdict"))


def _finished(result: str, said: str | None = None) -> Message:
    message: Message = FinishedMessage.get(result, fail_reason=said)
    return message


class RunnerApp(BaseRunnerApp):
    """``avocado-runner-migrate-lab``."""

    PROG_NAME = f"avocado-runner-{KIND}"
    PROG_DESCRIPTION = "nrunner application for cases of scenario files"
    RUNNABLE_KINDS_CAPABLE = [KIND]  # noqa: RUF012


def _interrupt(_number: int, _frame: object) -> None:
    """The first one ends what is going on; a second one must not end the undoing of it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


def main() -> None:
    """The entry point of the runner: avocado ends a test by SIGTERM, a terminal by SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        RunnerApp(print).run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
