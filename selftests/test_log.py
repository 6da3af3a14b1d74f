"""Logging: what is shown, what a run's log has, and that nothing of it stays."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate import log
from migrate.errors import GuestError, HostError

LOGGER = logging.getLogger("migrate.somewhere.deep")


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    before = (list(log.LOGGER.handlers), log.LOGGER.level)
    yield
    assert (log.LOGGER.handlers, log.LOGGER.level) == before


def test_progress_is_shown_and_details_only_where_asked_for() -> None:
    lines: list[str] = []
    details: list[str] = []
    with log.shown(lines.append), log.shown(details.append, logging.DEBUG):
        LOGGER.info("host %s is up", "a")
        LOGGER.debug("it took %d ms", 12)
        LOGGER.warning("100 % full")
    LOGGER.info("too late")
    assert lines == ["host a is up", "100 % full"]
    assert details == [lines[0], "migrate.somewhere.deep: it took 12 ms", lines[1]]


def test_what_the_display_raises_reaches_who_logged() -> None:
    """Nobody listens any more: what goes on has to end."""

    def broken(_line: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError), log.shown(broken):
        LOGGER.info("hello")


def test_a_runs_log_has_what_came_before_its_folder_and_all_details(tmp_path: Path) -> None:
    path = tmp_path / log.RUN_LOG
    with log.recorded() as run_log:
        LOGGER.info("bringing the lab up")
        assert not path.exists()
        run_log.write_to(path)
        LOGGER.debug("a detail")
        assert "a detail" in path.read_text(), "also if the next moment kills us"
    LOGGER.info("somebody else's")
    first, second = path.read_text().splitlines()
    assert " INFO migrate.somewhere.deep: bringing the lab up" in first
    assert " DEBUG migrate.somewhere.deep: a detail" in second
    stamp, axis_s = first.split()[:2]
    assert stamp.endswith("Z")
    assert float(axis_s) > 0


def test_a_runs_log_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / log.RUN_LOG
    for text in ("first", "second"):
        with log.recorded() as run_log:
            run_log.write_to(path)
            LOGGER.info(text)
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == [
        "first",
        "second",
    ]


def test_what_a_guest_says_is_one_line_of_printable_text(tmp_path: Path) -> None:
    path = tmp_path / log.RUN_LOG
    with log.recorded() as run_log:
        run_log.write_to(path)
        LOGGER.info("console: %s", "\x1b[2J\nowned \udcff")
    (line,) = path.read_text().splitlines()
    assert line.endswith(r"console: \x1b[2J\nowned \udcff")


def test_other_handlers_get_what_they_can_write(caplog: pytest.LogCaptureFixture) -> None:
    """pytest hears what is logged; its workers can't pass half a character on."""
    with log.recorded():
        LOGGER.info("console: %s", "\x1b[2J\nowned \udcff")
        LOGGER.debug("100 %", exc_info=GuestError("hello", said="\udc80"))
        LOGGER.debug("and not of ours", exc_info=ValueError("\udc80"))
    assert "console: \\x1b[2J\nowned \\udcff" in caplog.text
    assert "100 %\nmigrate.errors.GuestError: hello: \\udc80" in caplog.text
    assert "ValueError: \\udc80" in caplog.text
    caplog.text.encode()


def test_a_run_that_is_ended_by_an_error_says_which(tmp_path: Path) -> None:
    path = tmp_path / log.RUN_LOG

    def run() -> None:
        with log.recorded() as run_log:
            run_log.write_to(path)
            raise HostError("connect to libvirt", host="b", said="refused")

    with pytest.raises(HostError):
        run()
    assert path.read_text().endswith(
        " DEBUG migrate: ended by HostError: connect to libvirt on host b: refused\n"
    )


def test_a_disk_that_is_full_ends_nothing() -> None:
    with log.recorded() as run_log:
        run_log.write_to(Path("/dev/full"))
        LOGGER.info("lost")
        LOGGER.info("lost, too")


def test_who_shows_nothing_hears_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    LOGGER.info("nobody asked")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
