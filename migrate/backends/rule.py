"""One kind of nonsense that a scenario may not ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from migrate.model import Case


@dataclass(frozen=True, slots=True)
class Rule:
    """It names the key to blame, and what would be right."""

    key: str
    broken: Callable[[Case], bool]
    """True of a case that asks for it."""
    said: str
    remedy: str
    of_expectation: bool = False
    """It is about ``expect``: nothing to a test that judges for itself."""
