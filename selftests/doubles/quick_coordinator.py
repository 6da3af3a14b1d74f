"""labgrid's own coordinator on loopback, with a clock that runs FASTER times as fast: what it waits
60 s for takes it ``60 / FASTER``. ``python quick_coordinator.py FASTER HOST:PORT``"""

from __future__ import annotations

import asyncio
import sys
import time
import types
from typing import Any

from labgrid.remote import common, coordinator


def main() -> None:
    faster = float(sys.argv.pop(1))
    sys.argv.insert(1, "--listen")
    clock: Any = types.SimpleNamespace(time=lambda: time.time() * faster)
    quick: Any = types.SimpleNamespace(**vars(asyncio))
    quick.sleep = lambda seconds: asyncio.sleep(seconds / faster)
    vars(common)["time"] = clock
    vars(coordinator)["asyncio"] = quick
    coordinator.main()


if __name__ == "__main__":
    main()
