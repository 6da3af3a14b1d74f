"""An attempt that hangs is ended after its time, and says where it hung."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.migration import watchdog as module
from migrate.migration.watchdog import watchdog
from migrate.model import Case
from migrate.world import RESTARTS, attempt_s
from selftests.helpers import soon

HOSTS: Any = [SimpleNamespace(name=name) for name in "ab"]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the guest has been ended on both hosts; on ``b`` that fails."""
    done = threading.Event()

    def signal(host: Any, _uuid: str, _name: str) -> bool:
        if host.name == "b":
            done.set()
            raise HostError("end the guest", host="b", said="no route")
        return True

    monkeypatch.setattr(module, "signal_qemu", signal)
    monkeypatch.setattr(module, "guest_states", lambda *_words, **_names: ("paused on a",))
    return done


def hang(ended: threading.Event) -> None:
    """As a call of libvirt's on a QEMU that hangs: it returns when that is ended."""
    assert ended.wait(soon().left())


def test_what_hangs_is_ended_and_says_where(ended: threading.Event) -> None:
    with watchdog(HOSTS, "0", Deadline.after(0.1)) as reasons:
        hang(ended)
    assert reasons[0].startswith("it hung, ")
    assert "its guest was ended; then paused on a" in reasons[0]


def test_what_ends_in_time_is_left_alone(ended: threading.Event) -> None:
    with watchdog(HOSTS, "0", soon()) as reasons:
        pass
    assert reasons == []
    assert not ended.is_set()


def test_the_limit_is_longer_than_all_deadlines_together() -> None:
    one, two = Case(id="x"), Case.model_validate({"id": "x", "policy": {"hops": 2}})
    assert attempt_s(one, 60, 1) > (1 + RESTARTS) * 60 + 2 * one.policy.timeout_s
    assert attempt_s(two, 60, 1) - attempt_s(one, 60, 1) > 2 * one.policy.timeout_s
    assert attempt_s(one, 60, 3) > attempt_s(one, 60, 1), "a slow lab is waited for longer"
