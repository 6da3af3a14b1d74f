"""What people type, and what is in the files that they name: nothing odd ends in a traceback.

Each line is refused before a lab is touched, in one line that names what is wrong with it.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.cli.main import status
from migrate.errors import MOST_AT_ONCE, HostError
from migrate.lab import manager
from selftests.command_line import LEAVES
from selftests.doubles import synthetic

HUGE = 2 << 20
"""Bytes: more than any file that people write may have."""
GOOD = 'name = "x"\n'
LONG = "x" * 300
DEEP = "[" * 2000 + "]" * 2000
DIGITS = "9" * 5000
FAR = "1" + "0" * 400
BYTES = os.fsdecode(b"\xff\xfe")
MATRIX = "[matrix]\n" + "".join(
    f'"workload.{key}" = [{", ".join(map(str, range(1, 289)))}]\n'
    for key in ("dirty_mib", "settle_s", "floor_s")
)

TEXTS = {
    "deep": f"x = {DEEP}\n",
    "keys": f"{'a.' * 40_000}b = 1\n",
    "digits": f"[guest]\nmemory_mib = {DIGITS}\n",
    "latin": "name = 'caf\udce9'\n",
    "nul": "name = 'a\0b'\n",
    "words": "this is no TOML\n",
    "twice": "name = 'a'\nname = 'b'\n",
    "open": "name = 'a\n",
    "unknown": "colour = 'green'\n",
    "escape": '"\\u001b[2J" = 1\n',
}
"""Of files that are wrong wherever they are read, by their names."""
SCENARIOS = {
    "matrix": GOOD + MATRIX,
    "long": f"name = '{LONG}'\n",
    "far": f"{GOOD}[guest]\nmemory_mib = {FAR}\n",
    "negative": f"{GOOD}[policy]\nhops = -1\n",
    "nan": f"{GOOD}[policy]\ntimeout_s = nan\n",
    "inf": f"{GOOD}[policy]\ntimeout_s = inf\n",
    "text": f"{GOOD}[policy]\nhops = 'two'\n",
    "nul-value": f'{GOOD}[guest]\nimage = "a\\u0000b.qcow2"\n',
    "image": f"{GOOD}[guest]\nimage = '{'x' * 5000}'\n",
    "no-image": f"{GOOD}[guest]\nimage = 'nowhere.qcow2'\n",
    "no-recipe": f"{GOOD}[guest]\nimage = 'nowhere'\n",
    "folder-image": f"{GOOD}[guest]\nimage = 'odd.d/x.raw'\n",
    "table": f"{GOOD}policy = 3\n",
    "pattern": f"{GOOD}[expect]\noutcome = 'failed'\nerror = 'a{{99999999999}}'\n",
    "axis": f"{GOOD}[matrix]\n'interface.mode' = []\n",
    "no-axis": f"{GOOD}[matrix]\n'' = [1]\n",
    "faults": f"{GOOD}[[faults]]\n" + "[[faults]]\n" * 200,
    "variants": GOOD + "".join(f"[[variants]]\nname = 'v{n}'\n" for n in range(2000)),
    "mac": f"{GOOD}[interface]\nmac = 'zz'\n",
    "feature": f"{GOOD}[interface]\nmode = 'vdpa'\n[interface.vdpa]\nfeatures_off = ['-o']\n",
}
LABS = {
    "kind": "kind = 'moon'\n",
    "kinds": "kind = ['local']\n",
    "name": f"name = '{LONG}'\n",
    "capitals": "name = 'Ux4'\n",
    "one": "[hosts.a]\n",
    "hosts": "hosts = 3\n",
    "host": "[hosts.'a b']\n[hosts.b]\n",
    "root": "[hosts.a]\nroot = '--help'\n[hosts.b]\n",
    "pages": f"[hosts.a]\nhuge_pages = {FAR}\n[hosts.b]\n",
    "minus": "[hosts.a]\nhuge_pages = -1\n[hosts.b]\n",
    "work": "[workload]\ninterval_us = 1\n",
    "work-nan": "[workload]\ndirty_mib_s = nan\n",
    "coordinator": "coordinator = '--help:1'\n",
    "rack": "kind = 'rack'\n[hosts.a]\n[hosts.b]\n",
}
QUARANTINES = {"owner": "[[quarantine]]\ncase = '*'\n", "list": "quarantine = 3\n"}
PLACES = (
    "folder",
    "pipe",
    "huge",
    "loop",
    "nowhere",
    "nowhere/at/all",
    LONG,
    "a/" * 2100,
    "",
    BYTES,
)
"""Paths at which there is no file that could be read."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of that in it, and one run."""
    folder = tmp_path_factory.mktemp("odd")
    for name, text in {**TEXTS, **SCENARIOS, **LABS, **QUARANTINES}.items():
        (folder / f"{name}.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    (folder / "good.toml").write_text(GOOD)
    (folder / "folder.toml").mkdir()
    (folder / "odd.d").mkdir()
    os.mkfifo(folder / "pipe.toml")
    with (folder / "huge.toml").open("wb") as file:
        file.truncate(HUGE)
    (folder / "loop.toml").symlink_to("loop.toml")
    (folder / "file").write_text("")
    synthetic.write_run(folder / "results", [synthetic.attempt(synthetic.case())])
    (folder / "results/a-file").write_text("")
    (folder / "results/odd").mkdir()
    (folder / "results/odd/run.json").write_text("[" * 3000)
    return folder


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That is the working folder; no lab can be reached from here."""
    monkeypatch.chdir(folder)

    def touch(*_: object) -> None:
        raise HostError("touch a lab")

    for name in ("up", "find", "down", "prepare"):
        monkeypatch.setattr(manager, name, touch)
    return folder


def files(names: dict[str, str]) -> Iterator[str]:
    yield from (f"{name}.toml" for name in names)
    yield from (f"{place}.toml" if "/" not in place and place else place for place in PLACES[:-2])
    yield from ("", f"{BYTES}.toml", "/dev/zero", "/proc/self/mem", "a\0b.toml")


Line = tuple[str, ...]


def files_that_are_wrong() -> Iterator[Line]:
    for path in files({**TEXTS, **SCENARIOS}):
        yield "run", path
    for path in ("matrix.toml", "pipe.toml", "/dev/zero", ""):
        yield "compare", "--modes", "virtio", "--scenario", path
    for path in files({**TEXTS, **LABS}):
        yield "run", "good.toml", "--lab", path
    for path in ("deep.toml", "kind.toml", "pipe.toml", ""):
        yield "nightly", "good.toml", "--budget", "1h", "--lab", path
        yield "trend", "--lab", path
    for path in files({**TEXTS, **QUARANTINES}):
        yield "run", "good.toml", "--quarantine", path
    for path in ("folder.toml", "", LONG, "file/x.xml", "/proc/x/y.xml"):
        yield "run", "good.toml", "--junit", path
    yield "run", "good.toml", "good.toml"


LAB_COMMANDS = (
    *(f"lab {verb}" for verb in ("prepare", "up", "status", "down", "ready", "repair", "shell a")),
    *("doctor", "lease register", "lease show"),
)


def labs_that_are_none() -> Iterator[Line]:
    for command in LAB_COMMANDS:
        for path in ("folder.toml", "pipe.toml", "deep.toml", "kind.toml"):
            yield *command.split(), "--lab", path
        for name in ("", LONG, "Ux4", "../x", "-x", "a\0b", BYTES):
            yield *command.split(), f"--name={name}"
    for address in ("", "x", "x:", ":1", "x:y", "-x:1", "x:999999", "a b:1", BYTES):
        yield "lease", "show", "--coordinator", address
    for tag in ("", "x", "=1", "a b=1", "\x1b=1"):
        yield "lease", "register", "--coordinator", "localhost:1", "--tag", tag


def numbers_and_times() -> Iterator[Line]:
    for number in ("0", "-1", "1.5", "nan", FAR, DIGITS, "", "two"):
        yield "run", "good.toml", "--repeat", number
        yield "nightly", "good.toml", "--budget", "1h", "--repeat", number
        yield "gate", "--baseline", "results", "--last", number
    for number in ("nan", "inf", "-inf", "-1", "1", "", "x", DIGITS, "1e400"):
        yield "gate", "--baseline", "results", "--alpha", number
    for option, number in itertools.product(
        ("--relative", "--least-ms"), ("nan", "inf", "-1", "", "x")
    ):
        yield "gate", "--baseline", "results", option, number
    for length in (f"{'9' * 400}h", "0s", "-1h", "1", "", "nan", "1h1", "\u0663h", "9999999h"):
        yield "nightly", "good.toml", "--budget", length
        yield "run", "good.toml", f"--wait-quiet={length}"
    for days in ("inf", "nan", "-1", "1e9", "", "x"):
        yield "prune", "--keep-days", days, "--keep-runs", "1"
    for runs in ("-1", "nan", "1.5", ""):
        yield "prune", "--keep-days", "1", "--keep-runs", runs
    for since in (
        *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-13-01", "2026-02-30"),
        *("x", "9" * 300, "-", "a\0b", BYTES),
    ):
        yield "trend", "--since", since


SETTINGS = (
    *("", "=1", "x", ".=1", "policy..hops=1", "policy.hops.x=1", "policy=3", "id=x", "name=x"),
    *(f"policy.hops={DIGITS}", f"policy.hops={DEEP}", "policy.hops=[]", "policy.hops=[1, 1]"),
    *("policy.hops=nan", "policy.timeout_s=inf", "policy.hops=-1", f"policy.hops={FAR}"),
    *("guest.image=a\0b", f"guest.image={BYTES}", f"{'a.' * 500}b=1", "policy.hops=1\nx=2"),
    *("faults=3", "faults=[{}]", "roots=[[1]]", "interface.mode={}", "interface.mode=[{}]"),
    *(f"expect.error={'(' * 5000}", "\x1b[2J=1"),
)


def words_that_are_wrong() -> Iterator[Line]:
    for setting in SETTINGS:
        yield "run", "good.toml", "--set", setting
    for modes in (
        "",
        ",",
        "virtio,",
        "virtio,virtio",
        "moon",
        LONG,
        "x," * 5000,
        "virtio\0",
        BYTES,
    ):
        yield "compare", "--modes", modes
    yield "compare", "--modes", "virtio", "--set", "interface.mode=vdpa"
    for command in ("run", "nightly"):
        yield command, "good.toml", "--case", "no-such"
        yield command, "good.toml", "--case", BYTES
    yield "nightly", "good.toml", "--budget", "1h", "--set", "x"
    for image in ("nowhere.qcow2", "nowhere", "/dev/null/x.raw"):
        yield "nightly", "good.toml", "--budget", "1h", "--set", f"guest.image={image}"
        yield "compare", "--modes", "virtio", "--set", f"guest.image={image}"
    yield "nightly", "--resume", "latest", "--set", "policy.hops=2"
    yield "nightly", "--resume", "latest", "--case", "x"
    for number in ("0", "-1", "x", ""):
        yield "analyze", "--attempt", number
    for option in ("--case", "--mode", "--name"):
        yield "trend", option, "x" * 5000
        yield "trend", option, BYTES
    for option, value in (("--figure", "x"), ("--by", ""), ("--html", ""), ("--html", "odd.d")):
        yield "trend", option, value


def results_and_runs() -> Iterator[Line]:
    for path in ("file", "", LONG, "a\0b"):
        for command in ("show", "report", "analyze", "trend"):
            yield command, "--results", path
        yield "gate", "--baseline", "results", "--results", path
        yield "run", "good.toml", "--results", path
    for path in ("file/x", "file/x/y", "loop.toml/x"):
        yield "run", "good.toml", "--results", path
        yield "nightly", "good.toml", "--budget", "1h", "--results", path
        yield "prune", "--keep-days", "1", "--keep-runs", "1", "--results", path
    for run in ("", LONG, "a\0b"):
        for command in ("show", "report", "analyze"):
            yield command, run
        yield "gate", run, "--baseline", "results"
        yield "gate", "--baseline", run
        yield "nightly", "good.toml", "--resume", run
    for folder in ("file", "", LONG, "file/x", "/proc/x"):
        yield "init", folder


def words_that_lack() -> Iterator[Line]:
    yield from (("prune",), ("prune", "--keep-days", "1"), ("prune", "--keep-runs", "1"))
    yield from (
        ("nightly", "good.toml"),
        ("nightly",),
        ("run",),
        ("gate",),
        ("dance",),
        ("--moon",),
    )
    yield from (("lab",), ("lab", "shell"), ("lab", "dance"), ("show", "a", "b"), ("schema", "x"))
    yield from (("compare",), ("", ""), ("\x1b[2J",), (BYTES,), ("--", "-x"), ("-",), ("lease",))
    yield "nightly", "good.toml", "--resume", "latest", "--repeat", "2"
    for command in LEAVES:
        yield *command.split(), "--no-such-option"
        yield *command.split(), f"--{LONG}"


def odd_lines() -> Iterator[Line]:
    """All of them: every command, every option, every kind of file."""
    yield from (*files_that_are_wrong(), *labs_that_are_none(), *numbers_and_times())
    yield from (*words_that_are_wrong(), *results_and_runs(), *words_that_lack())


LINES = list(dict.fromkeys(odd_lines()))
ESCAPES = re.compile("[\x00-\x09\x0b-\x1f\x7f\x80-\x9f]")


def told(line: Line) -> str:
    """As pytest's id."""
    words = " ".join(word if len(word) <= 30 else f"{word[:20]}({len(word)})" for word in line)
    return words.encode("ascii", "backslashreplace").decode().replace("\0", "NUL")


def test_there_are_many_of_them() -> None:
    assert len(LINES) >= 217
    commands = {" ".join(words) for line in LINES for words in (line[:1], line[:2])}
    assert set(LEAVES) <= commands


@pytest.mark.parametrize("line", LINES, ids=told)
def test_an_odd_line_is_refused_in_one_line(
    line: Line, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = status(line)
    printed = capsys.readouterr()
    assert code == 2, printed.err
    assert "Traceback" not in printed.err
    assert not ESCAPES.search(printed.err)
    assert len(printed.err) < 5000
    if not printed.err.startswith("Usage: "):  # the help of a command that was given no words
        lines = printed.err.splitlines()
        assert len(lines) <= MOST_AT_ONCE + 1
        for each in lines:
            assert each.startswith("migrate-lab"), "a line each"
            assert " -- " in each, "and what would be right"
            assert "should match" not in each, "in words"
    assert not [*place.glob("migrate-lab-error*")]
