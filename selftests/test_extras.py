"""What a plain installation lacks is told with what to install, and `run` lacks nothing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from migrate.errors import ConfigurationError
from migrate.results.database import open_store
from migrate.statistics.regression import by_attempts

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("extra", "library", "use"),
    [
        ("gate", "scipy", lambda: by_attempts(np.arange(8), 3)),
        ("trend", "duckdb", lambda: open_store(ROOT / "results")),
    ],
)
def test_a_library_that_is_not_installed_is_told_with_its_extra(
    extra: str, library: str, use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError) as caught:
        use()
    assert caught.value.said == f"{library} is not installed"
    assert caught.value.remedy == f"pip install 'migrate-lab[{extra}]'"
    assert any(line.startswith(library) for line in PROJECT["optional-dependencies"][extra])


def test_other_modules_do_without_the_extras() -> None:
    """All that a run, its table and its report import; plugins and the gate's statistics aside."""
    libraries = ("scipy", "duckdb", "labgrid", "grpc", "avocado", "lxml", "yaml", "hypothesis")
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({libraries}))\n"
        "import migrate.attempt, migrate.campaign.session, migrate.campaign.nightly\n"
        "import migrate.cli.main, migrate.plugins.pytest, migrate.report.html\n"
        "from migrate.statistics.spread import spread\n"
        "assert spread(range(20)).level > 0.95"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
