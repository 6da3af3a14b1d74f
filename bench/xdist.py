"""How much sooner the same cases are done by several workers of pytest-xdist, a pair of hosts each.

Once cases that mostly wait (a floor of ten seconds, and ten to settle), once as they usually are;
each set by one worker and by as many as asked for, on one lab that is up before.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.world import number_text, options, run_bench, say, show, write_json
from migrate.clock import now_ns
from migrate.errors import HostError
from migrate.lab import manager
from migrate.lab.local.config import LocalConfig, LocalHostConfig

NAMES = "abcdefgh"
WAITS = ("floor_s = 10\nsettle_s = 10\n", "")
"""What is said of the workload; nothing: the defaults."""


def scenario(folder: Path, mode: str, workload: str) -> Path:
    """A file with one case."""
    path = folder / "case.toml"
    path.write_text(
        f'name = "bench"\ninterface.mode = "{mode}"\nexpect.outage_egress_ms = 60000\n'
        f"expect.outage_ingress_ms = 60000\n[workload]\n{workload}"
    )
    return path


def seconds(case: Path, lab: tuple[str, str], workers: int, count: int) -> float:
    """For ``count`` attempts; HostError unless all of them ended as they should."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(case)]
    argv += [f"--repeat={count}", f"-n{workers}", "--lab", lab[0], "--lab-name", lab[1]]
    argv += ["--results", str(case.parent / "results")]
    begin = now_ns()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-15:])
        raise HostError(f"run {count} attempts by {workers} workers", said=last)
    return (now_ns() - begin) / 1e9


def main() -> int:
    """Always 0: nothing here is judged."""
    parser = options(__doc__, rounds=1)
    parser.add_argument("--workers", type=int, default=4, choices=range(2, 5))
    chosen = parser.parse_args()
    names = NAMES[: 2 * chosen.workers]
    config = LocalConfig(
        name=chosen.lab, hosts={name: LocalHostConfig(huge_pages=0) for name in names}
    )
    rows, times = [], {}
    with tempfile.TemporaryDirectory() as name, manager.opened(config):
        folder = Path(name)
        lab = folder / "lab.toml"
        lab.write_text("".join(f"[hosts.{host}]\nhuge_pages = 0\n" for host in names))
        count = chosen.workers * chosen.rounds
        for what, workload in zip(("mostly waiting", "as usual"), WAITS, strict=True):
            case, where = scenario(folder, chosen.mode, workload), (str(lab), chosen.lab)
            seconds(case, where, 1, 1)  # fills the cache
            alone, together = (seconds(case, where, n, count) for n in (1, chosen.workers))
            say(f"{what}: {alone:.1f} s, {together:.1f} s")
            cells = (
                number_text(alone, 1),
                number_text(together, 1),
                number_text(alone / together, 2),
            )
            rows.append([what, str(count), *cells])
            times[what] = {"alone_s": alone, "together_s": together}
    head = ("cases", "attempts", "-n 1, s", f"-n {chosen.workers}, s", "ratio")
    show("several workers", head, rows)
    write_json(chosen.json, {"workers": chosen.workers, "seconds": times})
    return 0


if __name__ == "__main__":
    raise SystemExit(run_bench(main))
