"""Which machine type a guest is given: one that both QEMUs know, the newest."""

from __future__ import annotations

import pytest

from migrate.errors import HostError
from migrate.guest.machine_type import MachineTypes, common_machine


def of(host: str, default: str, *known: str) -> MachineTypes:
    return MachineTypes(host, f"pc-q35-{default}", [f"pc-q35-{name}" for name in known])


@pytest.mark.parametrize(
    ("ends", "name"),
    [
        ((of("a", "10.0", "7.2", "10.0"), of("b", "11.1", "7.2", "10.0", "11.1")), "10.0"),
        ((of("a", "7.2", "6.2", "7.2"), of("b", "11.1", "5.2", "7.2", "9.2", "11.1")), "7.2"),
        ((of("a", "10.0", "10.0"), of("b", "10.0", "10.0")), "10.0"),
        ((of("a", "7.2", "5.2", "7.1", "7.2"), of("b", "16.0", "7.1", "16.0")), "7.1"),
        (
            (of("a", "rhel9.6.0", "rhel9.4.0", "rhel9.6.0"), of("b", "rhel10.0.0", "rhel9.4.0")),
            "rhel9.4.0",
        ),
        ((of("a", "10.0"), of("b", "10.0")), "10.0"),
    ],
    ids=["newer", "oldest", "alike", "dropped", "downstream", "nothing-listed"],
)
def test_the_newest_that_both_know(ends: tuple[MachineTypes, MachineTypes], name: str) -> None:
    assert common_machine(ends) == common_machine(ends[::-1]) == f"pc-q35-{name}"


def test_hosts_that_know_none_in_common_are_told_with_what_they_know() -> None:
    with pytest.raises(HostError, match=r"a: pc-q35-7\.2; b: pc-q35-16\.0") as caught:
        common_machine([of("a", "7.2", "7.2"), of("b", "16.0", "16.0")])
    assert "nearer" in caught.value.remedy
