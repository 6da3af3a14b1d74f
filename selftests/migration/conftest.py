"""What the tests of moves have in common: a listener that hears nothing by itself."""

from __future__ import annotations

import pytest

from migrate.recorder.events import Listener


@pytest.fixture
def listener() -> Listener:
    return Listener()
