"""A guest that measured its clock wrongly as it booted is not used, and is booted again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from migrate.clock import Deadline, Offset, now_ns
from migrate.drivers.libvirt import Domain, Hypervisor
from migrate.errors import GuestError
from migrate.guest import clock_rate, lifecycle
from migrate.guest.clock_rate import ClockRateError, check_clock_rate
from migrate.guest.identity import Identity
from migrate.guest.lifecycle import BOOTS, Order
from migrate.guest.probe import Probe
from migrate.images.initramfs import Image

MS = 1_000_000


class Clock:
    """A probe whose clock runs at ``rate`` of ours; each look is ``error_ns`` wide."""

    where = "guest on a"

    def __init__(self, rate: float, error_ns: int = 100_000) -> None:
        self.rate, self.error_ns, self.began_ns = rate, error_ns, now_ns()

    def clock_offset(self, clock: str, rounds: int) -> Offset:
        assert rounds > 1
        since_ns = now_ns() - self.began_ns
        return Offset(clock, since_ns - round(since_ns * self.rate), self.error_ns)


def looked_at(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_rate, "WATCH_S", 0.05)
    check_clock_rate(cast("Probe", clock))


@pytest.mark.parametrize("rate", [1.0, 1.0005, 0.9995])
def test_a_clock_that_drifts_a_little_is_used(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at(Clock(rate), monkeypatch)


@pytest.mark.parametrize(("rate", "said"), [(2.8, "it gained "), (0.5, "it gained -")])
def test_a_clock_at_another_pace_is_not(
    rate: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClockRateError) as error:
        looked_at(Clock(rate), monkeypatch)
    assert said in error.value.said
    assert "quieter machine" in error.value.remedy


def test_what_lies_inside_the_error_of_both_looks_is_no_other_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at(Clock(1.2, error_ns=500 * MS), monkeypatch)


class Booted:
    """A guest that was created; ended if it is not used."""

    def __init__(self) -> None:
        self.destroyed = False

    def destroy(self) -> None:
        self.destroyed = True


class Creator:
    """Creates a guest each time it is asked for one."""

    host = "a"

    def __init__(self) -> None:
        self.guests: list[Booted] = []

    def create(self, _xml: str, _deadline: Deadline) -> Booted:
        self.guests.append(Booted())
        return self.guests[-1]


def booted(failures: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Creator, Callable[[], Domain]]:
    monkeypatch.setattr(lifecycle, "rewritten", lambda xml, _marks: xml)
    creator = Creator()

    def prepare(_domain: Domain) -> None:
        if len(creator.guests) <= failures:
            raise ClockRateError("use the guest's clock", said="it gained 900.0 ms in 500 ms")

    order = Order(
        xml="<domain/>",
        image=cast("Image", None),
        warm=False,
        cache=Path("/nowhere"),
        identity=Identity.new(),
    )
    return creator, lambda: lifecycle._cold(
        order, cast("Hypervisor", creator), prepare, Deadline.after(5)
    )


def test_it_is_booted_again_until_its_clock_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    creator, boot = booted(BOOTS - 1, monkeypatch)
    boot()
    assert [guest.destroyed for guest in creator.guests] == [True] * (BOOTS - 1) + [False]


def test_it_is_given_up_after_some_boots(monkeypatch: pytest.MonkeyPatch) -> None:
    creator, boot = booted(BOOTS, monkeypatch)
    with pytest.raises(GuestError, match="use the guest's clock"):
        boot()
    assert [guest.destroyed for guest in creator.guests] == [True] * BOOTS
