"""Text that means harm, pushed through every door: it is told, and nothing obeys it."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from migrate.backends.virtio.backend import VirtioBackend
from migrate.campaign.progress import Progress, outcome
from migrate.errors import ConfigurationError, GuestError, LabError, visible
from migrate.guest.domain_xml import domain_xml
from migrate.model import (
    Attempt,
    AttemptError,
    Capability,
    Case,
    DeviceHandoff,
    Event,
    GuestSpec,
    HostFacts,
    Interface,
    MoveDetails,
    Problem,
    Skip,
    Span,
    Verdict,
)
from migrate.report import doctor as health
from migrate.report import table, table_text
from migrate.report.html import write_report
from migrate.report.junit import junit
from migrate.report.move_details import sections
from migrate.results.reader import read_run
from migrate.results.writer import RunWriter
from migrate.scenario.loader import load_all
from selftests.command_line import Run
from selftests.doubles import synthetic

HOSTILE = {
    "colours": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;title\x07",
    "link": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "c1": "\x9b31m",
    "back": "passed\r\x08\x08\x1b[2Kfailed",
    "lines": "one\nmigrate-lab: all is well\ttab",
    "bidi": "abc\u202ecba\u2066",
    "script": "</script><script>alert(1)</script><img src=x onerror=alert(2)>",
    "template": "{{ 7 * 7 }}{% raw %}{{ run.__class__ }}",
    "nul": "a\x00b",
    "not UTF-8": b"\xff\xfe\xed\xa0\x80".decode("utf-8", "surrogateescape"),
    "no character": "\ufffe\uffff",
    "markup": "[bold red]x[/bold red] & \"quoted\" 'too'",
    "shell": "$(touch owned); `id` | cat > /x",
    "long": "x" * 200_000,
}
EVERY = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())


def harmless(out: str) -> bool:
    """Nothing but letters and ends of lines reaches a terminal."""
    return all(letter.isprintable() or letter == "\n" for letter in out)


def attempt(text: str) -> Attempt:
    """One in which a host, a guest and a log all say ``text``."""
    span = Span(what=text, begin_ns=0, end_ns=10, host=text, explained=False)
    device = DeviceHandoff(device=text, save_ms=1.0, untold=(text,), compared=True)
    return synthetic.attempt(
        synthetic.case(),
        source=text,
        target=text,
        held_by=(text,),
        outcome="failed",
        notes=(text,),
        leftovers=(text,),
        error=Problem(tried=text, host=text, said=text, remedy=text),
        verdicts=(Verdict(check=text, result="fail", measured=text, limit=text, evidence=text),),
        inside=(MoveDetails(stop=(span,), devices=(device,), unseen=(text,)),),
    )


def run_folder(root: Path, text: str) -> RunWriter:
    """With all of it in the head, in a skip, a mishap, an event, a log, and a cut-off attempt."""
    problem = Problem(tried=text, host=text, said=text, remedy=text)
    mishap = AttemptError(case_id=text, number=1, problem=problem, exit_code=4)
    skip = Skip(case=synthetic.case(), reason=text, remedy=text)
    head = synthetic.run(
        lab=text, command=(text,), skips=(skip,), mishaps=(mishap,), scenarios={text: text}
    )
    writer = RunWriter.create(root, head)
    event = Event(at_ns=synthetic.STOP, source="qemu", host=text, name=text, data={text: text})
    one = attempt(text)
    files = {"logs/console.log": text, "source.xml": text}
    writer.write_attempt(one, [event], synthetic.samples(), synthetic.logs(one), files)
    return writer


def utf8(text: str) -> str:
    """As what a disk has can be: a model's JSON is UTF-8."""
    return text.encode("utf-8", "replace").decode()


# --- a terminal ---

Door = Callable[[str], str]


def progress(text: str) -> str:
    stream = io.StringIO()
    said = Progress(stream)
    said.say(text)
    said.say(outcome(attempt(text)))
    return stream.getvalue()


def doctor(text: str) -> str:
    lacks = Capability(name=text, able=False, reason=text, remedy=text, detail=text)
    facts = HostFacts(
        host=text, root=text, kernel=text, versions={text: text}, capabilities=(lacks,)
    )
    return health.plain([facts], {text: (text,)}, {})


def plain(text: str) -> str:
    skip = Skip(case=synthetic.case(), reason=text, remedy=text)
    return table_text.plain(
        table.run_table(synthetic.run(lab=text, skips=(skip,)), [attempt(text)])
    )


def rich(text: str) -> str:
    from rich.console import Console  # noqa: PLC0415 - heavy

    made = table.run_table(synthetic.run(lab=text), [attempt(text)])
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(table_text.rich(made))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def inside(text: str) -> str:
    return table_text.plain_sections(sections(attempt(text)))


def error(text: str) -> str:
    return str(GuestError(text, host=text, said=text, remedy=text))


@EVERY
@pytest.mark.parametrize("door", [progress, doctor, plain, rich, inside, error, visible])
def test_a_terminal_obeys_nothing(door: Door, text: str) -> None:
    assert harmless(door(text))


def test_what_was_said_can_be_read() -> None:
    assert visible("\x1b[31mred\x00\r\n") == "\\x1b[31mred\\x00\\r\\n"
    assert visible("a\nb\x9b\u202e", lines=True) == "a\nb\\x9b\\u202e"
    assert visible("é [bold] \\x1b") == "é [bold] \\x1b"
    assert "\\x1b[31mred" in error(HOSTILE["colours"])


@pytest.mark.parametrize("name", ["link", "lines", "nul", "not UTF-8"])
def test_a_run_folder_that_says_it_is_shown(name: str, tmp_path: Path, migrate_lab: Run) -> None:
    run_folder(tmp_path, utf8(HOSTILE[name]))
    ended = migrate_lab("show", "--inside", "--results", tmp_path)
    assert ended.status == 0, ended.err
    assert harmless(ended.out + ended.err)


# --- files ---


class Page(HTMLParser):
    """What a browser would run, or load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.mark.parametrize("name", ["script", "template", "nul", "no character", "long"])
def test_the_page_runs_nothing_of_it(name: str, tmp_path: Path) -> None:
    text = HOSTILE[name]
    page_text = write_report(run_folder(tmp_path, text).folder).read_text()
    page = Page(page_text)
    assert page.handlers == []
    assert "img" not in page.tags
    assert page.tags.count("script") == 2
    assert name != "template" or text in page_text, "as it was said"


@EVERY
def test_junit_is_well_formed(text: str) -> None:
    problem = Problem(tried=text, host=text, said=text, remedy=text)
    skips = (Skip(case=synthetic.case(), reason=text, remedy=text),)
    mishaps = (AttemptError(case_id=text, number=1, problem=problem, exit_code=4),)
    head = synthetic.run(name=text, began=text, skips=skips, mishaps=mishaps)
    root = ET.fromstring(junit(head, [attempt(text)]))
    assert len(root.findall("testcase")) == 3


@pytest.mark.parametrize("name", ["script", "template", "markup", "shell", "long"])
def test_domain_xml_keeps_it_as_text(name: str) -> None:
    text = HOSTILE[name]
    xml = domain_xml(
        GuestSpec(),
        Interface(),
        Path("/cache") / text,
        VirtioBackend(bridge=text),
        machine=text,
        accelerator="qemu",
    )
    root = ET.fromstring(xml)
    bridge = root.find("./devices/interface/source")
    assert bridge is not None
    assert bridge.get("bridge") == text


@EVERY
def test_no_case_and_no_file_is_called_so(text: str, tmp_path: Path) -> None:
    """A case's id is a folder's name, and pytest's: letters and few signs."""
    with pytest.raises(ValueError, match="id"):
        Case(id=f"../{text}")
    writer = RunWriter.create(tmp_path, synthetic.run())
    with pytest.raises(ValueError, match="below the attempt's folder"):
        writer.write_attempt(attempt("x"), files={f"../{text}": "x"})
    assert [path.name for path in tmp_path.iterdir()] == [writer.folder.name]
    assert read_run(writer.folder).attempts == ()


# --- a scenario ---


def toml(text: str) -> str:
    """As a basic string."""
    return '"' + "".join(f"\\U{ord(letter):08x}" for letter in text[:5000]) + '"'


@pytest.mark.parametrize("key", ["name", "description", "interface.mode", "guest.image"])
@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "not UTF-8"])
def test_a_scenario_that_says_it_is_refused_in_one_harmless_message(
    key: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.toml"
    head = "" if key == "name" else 'name = "x"\n'
    path.write_text(f"{head}{key} = {toml(HOSTILE[name])}\n")
    try:
        scenarios = load_all([path], ())
    except LabError as wrong:
        assert isinstance(wrong, ConfigurationError)
        assert harmless(str(wrong))
        return
    for case in (case for scenario in scenarios for case in scenario.cases):
        assert set(case.id) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=+-"
        )


@pytest.mark.parametrize("content", [b"name = '\xff\xfe'\n", b"name = '\x00'\n", b"\x1b[31m"])
def test_a_scenario_of_bytes_is_refused(content: bytes, tmp_path: Path, migrate_lab: Run) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    ended = migrate_lab("run", path, "--results", tmp_path)
    assert ended.status == 2, ended.err
    assert "Traceback" not in ended.err
    assert harmless(ended.err)
