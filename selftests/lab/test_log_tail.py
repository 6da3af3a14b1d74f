"""The end of a log that may be as long as its writer liked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from migrate.clock import Deadline
from migrate.drivers.shell import Completed, run
from migrate.formats.log_lines import LINE
from migrate.lab.api import Host
from migrate.lab.log_tail import MOST_BYTES, log_tail
from selftests.helpers import soon


class Here:
    """This machine as a host."""

    def run(self, argv: Sequence[str], deadline: Deadline, **how: Any) -> Completed:
        return run(argv, deadline, **how)


def tail(path: Path, lines: int) -> str | None:
    return log_tail(cast("Host", Here()), str(path), soon(), lines)


def test_the_last_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "guest.log"
    path.write_text("one\ntwo\nthree\n")
    assert tail(path, 2) == "two\nthree\n"
    assert tail(path, 9) == "one\ntwo\nthree\n"


def test_a_line_without_an_end_is_read_in_part(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"x" * (MOST_BYTES + 1000))
    text = tail(path, 2)
    assert text is not None
    assert len(text) == LINE
    path.write_bytes(b"x" * (MOST_BYTES + 1000) + b"\nlast\n")
    assert tail(path, 2) == "last\n"


def test_what_virtlogd_put_aside_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    Path(f"{path}.0").write_text("one\ntw")
    path.write_text("o\nthree\n")
    assert tail(path, 2) == "two\nthree\n"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x1b[2J\n", "½\r\u2028x\n".encode()])
def test_what_is_no_text_is_read_as_well_as_it_can_be(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(content)
    assert tail(path, 9)


def test_there_is_no_such_log(tmp_path: Path) -> None:
    assert tail(tmp_path / "nothing", 2) is None
