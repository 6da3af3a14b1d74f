"""``python -m selftests.fuzz [LANE …] --count N --seed S``: a table by lane; 1 by a finding."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from selftests.fuzz.lane import MIB
from selftests.fuzz.registry import LANES
from selftests.fuzz.run import Account, run

COLUMNS = (("inputs", 9), ("results", 9), ("errors of ours", 16), ("slowest", 10), ("largest", 10))
HEAD = f"{'lane':<24}" + "".join(f"{name:>{width}}" for name, width in COLUMNS) + f"{'found':>7}"


def row(account: Account) -> str:
    """One lane's line of the table."""
    return (
        f"{account.lane:<24}{account.inputs:>9}{account.results:>9}{account.errors:>16}"
        f"{account.slowest_s * 1e3:>7.0f} ms{account.largest / MIB:>6.1f} MiB{account.found:>7}"
    )


def main(arguments: list[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m selftests.fuzz", description=__doc__)
    parser.add_argument("lane", nargs="*", help="all, if none is named")
    parser.add_argument("--count", type=int, default=10_000, help="inputs a lane")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="of processor time a lane, at most"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder of inputs")
    parser.add_argument("--replay", type=Path, help="one kept input through the lane's door")
    given = parser.parse_args(arguments)
    if unknown := set(given.lane) - set(LANES):
        parser.error(f"no lane {', '.join(sorted(unknown))}: there are {', '.join(LANES)}")
    lanes = [LANES[name] for name in given.lane or LANES]
    if given.replay is not None:
        if len(lanes) != 1:
            parser.error("--replay needs one lane")
        lanes[0].door(given.replay.read_bytes())
        return 0
    print(HEAD)
    accounts = []
    for lane in lanes:
        accounts.append(account := run(lane, given.count, given.seed, given.keep, given.seconds))
        print(row(account), flush=True)
        for finding in account.findings.values():
            print(f"  {finding}", flush=True)
    return 1 if any(account.found for account in accounts) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
