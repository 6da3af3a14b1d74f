"""Files that people write (scenarios, labs, recipes, quarantine lists, overrides), and those that a
run or a lab leaves and a later version reads (heads, attempts, recordings, indexes, journals)."""

from __future__ import annotations

import functools
import gzip
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from migrate.checks import quarantine
from migrate.errors import LabError
from migrate.images.initramfs import read_recipe
from migrate.lab.kinds import load_lab
from migrate.lab.local.config import LocalConfig
from migrate.lab.state import LabRecord, new_record, read_record, read_remains
from migrate.model import MachineRecording, MachineSample
from migrate.report.baseline import gather_baseline, run_folders
from migrate.report.trend import TrendQuery, trend
from migrate.results.database import CACHE, open_store
from migrate.results.index import write_index
from migrate.results.layout import INDEX
from migrate.results.reader import read_attempt, read_head, read_run
from migrate.results.recording_file import RECORDING, read_recording
from migrate.results.tables import machines_to_parquet
from migrate.scenario.loader import load, parse
from selftests.doubles import synthetic
from selftests.fuzz.lane import MIB, Lane
from selftests.helpers import ROOT

RECORDED = ROOT / "selftests" / "recordings"
_SCRATCH = tempfile.TemporaryDirectory(prefix="fuzz-")


@functools.cache
def _folder(name: str) -> Path:
    folder = Path(_SCRATCH.name) / name
    folder.mkdir()
    return folder


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _all(pattern: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [path.read_bytes() for path in sorted(ROOT.glob(pattern))]


# --- what people write ---


def _scenario(data: bytes) -> object:
    return load(_file(_folder("scenario"), "x.toml", data))


def _override(data: bytes) -> object:
    return parse('name = "x"\n', "x.toml", data.decode("utf-8", "surrogateescape").split("\n"))


def _lab(data: bytes) -> object:
    return load_lab(_file(_folder("lab"), "x.toml", data))


def _recipe(data: bytes) -> object:
    return read_recipe(_file(_folder("recipe"), "x.toml", data))


def _quarantine(data: bytes) -> object:
    return quarantine.load(_file(_folder("quarantine"), "x.toml", data))


OVERRIDES = (
    b'policy.hops=3\ninterface.mode=["virtio", "vhost-user"]\nexpect.outage_egress_ms=300.5',
    b"guest.image=tiny\nneeds=['kvm']\nfaults=[{at='precopy', do='kill-guest', on='target'}]",
)
ENTRY = b"""\
[[quarantine]]
case = "*vhost-user*"
check = "outage.egress"
owner = "Ada"
bug = "https://bugs.example.org/1"
expires = 2027-01-31
reason = "the switch forgets the guest"
"""


# --- what a run leaves ---


@functools.cache
def _run(name: str) -> Path:
    """A run of one attempt, in a results folder of its own."""
    root = _folder(name)
    return synthetic.write_run(root, [synthetic.attempt(synthetic.case())]).folder


def _attempt_folder(run: Path) -> Path:
    return next(run.glob("cases/*/1"))


def _head(data: bytes) -> object:
    run = _run("head")
    _file(run, "run.json", data)
    (run / INDEX).unlink(missing_ok=True)
    read_head(run)
    write_index(run)
    return gather_baseline(read_run(_run("tonight")), run_folders([str(run)], run.parent))


def _attempt(data: bytes) -> object:
    run = _run("attempt")
    folder = _attempt_folder(run)
    _file(folder, "attempt.json", data)
    try:
        read_attempt(folder)
    finally:  # one that can't be read takes nothing else away
        write_index(run)
    return read_run(run)


def _recording(data: bytes) -> object:
    folder = _folder("recording")
    _file(folder, RECORDING, data)
    return read_recording(folder)


def _recording_text(data: bytes) -> object:
    """What is in it, whole again as a file."""
    return _recording(gzip.compress(data, 1))


def _parquet(name: str, read: Callable[[Path], object], data: bytes) -> object:
    folder = _attempt_folder(_run(name))
    _file(folder, f"{name}.parquet", data)
    return read(folder)


def _arrivals(data: bytes) -> object:
    return _parquet("arrivals", lambda folder: read_attempt(folder).arrivals(), data)


def _samples(data: bytes) -> object:
    return _parquet("samples", lambda folder: read_attempt(folder).samples(), data)


def _machines(data: bytes) -> object:
    return _parquet("machines", lambda folder: read_attempt(folder).machines(), data)


def _events(data: bytes) -> object:
    folder = _attempt_folder(_run("events"))
    _file(folder, "events.jsonl", data)
    return read_attempt(folder).events()


def _store(run: Path) -> object:
    query = TrendQuery(figure="egress", by="run", case="*", mode="", lab="", since="")
    return trend(open_store(run.parent), query)


def _index(data: bytes) -> object:
    run = _run("index")
    (run.parent / CACHE).unlink(missing_ok=True)
    _file(run, INDEX, data)
    return _store(run)


def _cache(data: bytes) -> object:
    run = _run("cache")
    _file(run.parent, CACHE, data)
    return _store(run)


def _sample_of(name: str, made: Callable[[], Path]) -> Callable[[], Sequence[bytes]]:
    return lambda: [made().joinpath(name).read_bytes()]


def _indexed() -> Path:
    run = _run("indexed")
    write_index(run)
    open_store(run.parent)
    return run


def _recorded(name: str) -> Callable[[], Sequence[bytes]]:
    """Of two attempts that were recorded, the smallest ones."""
    paths = sorted(RECORDED.glob(f"*/{name}"), key=lambda path: path.stat().st_size)
    return lambda: [path.read_bytes() for path in paths[:2]]


LOOKS = [
    MachineRecording(
        name="controller",
        samples=tuple(
            MachineSample(
                at_ns=number * 10**9,
                error_ns=1000.0,
                idle_s=1.5 * number,
                runnable=3,
                parts_s={"qemu on a": 0.5 * number, "libvirtd on a": 0.1},
            )
            for number in range(5)
        ),
    )
]


def _unpacked() -> Sequence[bytes]:
    return [gzip.decompress(data) for data in _recorded(RECORDING)()]


# --- what a lab leaves ---


def _journal(data: bytes) -> object:
    folder = _folder("journal")
    _file(folder, "lab.json", data)
    try:
        return read_record(folder)
    except LabError:
        return read_remains(folder, data)


def _journal_seed() -> Sequence[bytes]:
    config = LocalConfig()
    record: LabRecord = new_record(
        config, {"debian-13": Path("/cache/roots/debian-13")}, "mlab-local-{}", Path("/run/labs")
    )
    return [record.model_dump_json().encode()]


LANES = (
    Lane("scenario file", _scenario, _all("testcases/scenarios/*.toml"), "lines"),
    Lane("override", _override, lambda: OVERRIDES, "lines"),
    Lane("lab file", _lab, _all("labs/*.toml"), "lines"),
    Lane("guest image recipe", _recipe, _all("guest-images/*.toml"), "lines"),
    Lane("quarantine list", _quarantine, lambda: [ENTRY], "lines"),
    Lane("run.json", _head, _sample_of("run.json", lambda: _run("seed-head")), "json"),
    Lane("attempt.json", _attempt, _recorded("attempt.json"), "json", most_bytes=256 * MIB),
    Lane("recording file", _recording, _recorded(RECORDING), most_bytes=512 * MIB, most_s=20.0),
    Lane("recording", _recording_text, _unpacked, "json", most_bytes=512 * MIB, most_s=20.0),
    Lane("events.jsonl", _events, _sample_of("events.jsonl", lambda: _seed("events")), "json"),
    Lane("arrivals.parquet", _arrivals, _sample_of("arrivals.parquet", lambda: _seed("arrivals"))),
    Lane("samples.parquet", _samples, _sample_of("samples.parquet", lambda: _seed("samples"))),
    Lane("machines.parquet", _machines, lambda: [machines_to_parquet(LOOKS)]),
    Lane("attempts.parquet", _index, _sample_of(INDEX, _indexed)),
    Lane("the trend's cache", _cache, _sample_of(CACHE, lambda: _indexed().parent)),
    Lane("lab.json", _journal, _journal_seed, "json"),
)


def _seed(name: str) -> Path:
    return _attempt_folder(_run(f"seed-{name}"))
