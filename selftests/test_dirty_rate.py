"""Dirty rates by every method, the limit, and the boot sector that has a rate of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from migrate.boot_sector import build, pages_written
from migrate.clock import Deadline
from migrate.errors import ConfigurationError, HostError, MeasurementError
from migrate.observe import dirty_rate
from migrate.observe.dirty_rate import DirtyRate, limited, measure


class Answers:
    """A QEMU that answers one after the other; the last answer for ever."""

    def __init__(self, answers: Sequence[Any], refuses: str = "") -> None:
        self.answers, self.refuses = list(answers), refuses
        self.heard: list[str] = []

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        self.heard.append(f"{command} {json.dumps(arguments)}")
        if self.refuses:
            raise HostError(command, host="a", said=self.refuses)
        if command != "query-dirty-rate":
            return {}
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_a_rate_is_had_when_qemu_has_measured_it() -> None:
    ring = {
        "status": "measured",
        "dirty-rate": 16,
        "vcpu-dirty-rate": [{"id": 0, "dirty-rate": 15}],
    }
    qemu = Answers([{"status": "measuring"}, ring])
    assert measure(qemu, "dirty-ring", 1) == DirtyRate("dirty-ring", 16.0, (15.0,))
    assert qemu.heard[0] == 'calc-dirty-rate {"calc-time": 1, "mode": "dirty-ring"}'


def test_a_method_that_is_refused_has_its_reason_and_no_rate() -> None:
    qemu = Answers([], refuses="mode dirty-bitmap is not enabled")
    found = measure(qemu, "dirty-bitmap", 1)
    assert (found.mib_s, found.refused) == (None, "mode dirty-bitmap is not enabled")


def test_a_measurement_that_never_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirty_rate, "GRACE_S", -1.0)
    with pytest.raises(MeasurementError, match="still measuring"):
        measure(Answers([{"status": "measuring"}]), "page-sampling", 1)


def test_a_limit_is_taken_back_whatever_happens() -> None:
    qemu = Answers([])
    with pytest.raises(KeyError), limited(qemu, 8):
        raise KeyError
    assert qemu.heard == ['set-vcpu-dirty-limit {"dirty-rate": 8}', "cancel-vcpu-dirty-limit {}"]


def test_a_limit_that_is_refused_is_told() -> None:
    refused = "dirty page limit feature requires KVM with accelerator property 'dirty-ring-size'"
    with pytest.raises(HostError, match="requires KVM"), limited(Answers([], refused), 8):
        pass


# --- the boot sector ------------------------------------------------------------------------------


def test_a_sector_is_one_that_a_bios_boots_and_has_its_period() -> None:
    sector = build(16, 64, 2e9)
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    assert round(2e9 * 4096 / (16 * 2**20)).to_bytes(4, "little") in sector
    assert (80 << 20).to_bytes(4, "little") in sector  # 16 MiB and 64
    assert build(4, 64, 2e9) != sector


@pytest.mark.parametrize("mib_s", [1e-6, 1e9])
def test_a_rate_that_a_sector_cant_keep_is_refused(mib_s: float) -> None:
    with pytest.raises(ConfigurationError, match="in 31 bits"):
        build(mib_s, 64, 2e9)


REGISTERS = """
ESI=0000ab12 EDI=01000000 EBP=00000010 ESP=00006e18
EIP={ip} EFL=00000006 [-----P-] CPL=0
CS ={cs} 00cf9b00 DPL=0 CS32 [-RA]
"""


@pytest.mark.parametrize(
    ("ip", "cs", "pages"),
    [
        ("00007c42", "0008 00000000 ffffffff", 0xAB12),
        ("000e9fbf", "0008 00000000 ffffffff", None),  # the firmware, flat
        ("00007c42", "f000 000f0000 0000ffff", None),  # the firmware, in a segment of its own
    ],
)
def test_what_a_sector_wrote_is_told_when_it_is_the_sector_that_runs(
    ip: str, cs: str, pages: int | None
) -> None:
    assert pages_written(REGISTERS.format(ip=ip, cs=cs)) == pages
