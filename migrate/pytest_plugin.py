"""The old name of :mod:`migrate.plugins.pytest`, for one release."""

import warnings

from migrate.plugins.pytest import Boot, Scenario, Verdicts

__all__ = ["Boot", "Scenario", "Verdicts"]

warnings.warn(
    "migrate.pytest_plugin is migrate.plugins.pytest now", DeprecationWarning, stacklevel=2
)
