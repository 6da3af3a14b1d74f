"""Roots: whole or not there, whatever happens to the program that makes them."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from migrate.errors import ConfigurationError, HostError
from migrate.lab import rootfs as roots
from migrate.lab.rootfs import PACKAGES, ensure_root, init_program
from selftests.helpers import SaidSoFar


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An mmdebstrap that comes first; its last but one argument is the folder to fill."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return programs / "mmdebstrap"


def write(program: Path, then: str) -> None:
    program.write_text(
        "#!/bin/sh\n"
        "while [ $# -gt 2 ]; do shift; done\n"
        'mkdir -p "$1/etc"; cat >"$1/etc/sources"\n'
        f"{then}\n"
    )
    program.chmod(0o755)


def left(cache: Path) -> list[str]:
    """Folders of roots, whole or half made."""
    return sorted(path.name for path in (cache / "roots").iterdir() if path.is_dir())


def test_a_root_is_made_once_and_told(tmp_path: Path, fake: Path, told: SaidSoFar) -> None:
    write(fake, "exit 0")
    folder = ensure_root("debian-12", tmp_path)
    assert "bookworm" in (folder / "etc/sources").read_text()
    assert len(told.lines) == 1
    assert "debian-12" in told.lines[0]
    write(fake, "exit 1")
    assert ensure_root("debian-12", tmp_path) == folder
    assert len(told.lines) == 1, "the second time it is there"


@pytest.mark.parametrize("name", roots.RECIPES)
def test_signatures_are_checked_by_debians_keyring(tmp_path: Path, fake: Path, name: str) -> None:
    write(fake, "exit 0")
    sources = (ensure_root(name, tmp_path) / "etc/sources").read_text()
    assert all("signed-by=/usr/share/keyrings/debian-" in line for line in sources.splitlines())
    assert "trusted" not in sources


def test_backports_are_a_second_source(tmp_path: Path, fake: Path) -> None:
    write(fake, "exit 0")
    folder = ensure_root("debian-13-backports", tmp_path)
    sources = (folder / "etc/sources").read_text()
    assert "trixie main" in sources
    assert "trixie-backports main" in sources


def test_another_recipe_makes_another_folder(
    tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(fake, "exit 0")
    before = ensure_root("debian-13", tmp_path)
    monkeypatch.setattr(roots, "VERSION", roots.VERSION + 1)
    assert ensure_root("debian-13", tmp_path) != before


@pytest.mark.parametrize(
    ("then", "said"),
    [("echo 'E: no mirror' >&2; exit 25", "E: no mirror"), ("kill -9 $$", "exit status")],
)
def test_a_root_that_fails_leaves_nothing_half_made(
    tmp_path: Path, fake: Path, then: str, said: str
) -> None:
    write(fake, then)
    with pytest.raises(HostError, match=said) as caught:
        ensure_root("debian-13", tmp_path)
    assert "mmdebstrap" in caught.value.remedy
    assert left(tmp_path) == []


UNMET = """\
echo "I: running apt-get update..." >&2
case $asked in
*openvswitch*)
    echo "The following packages have unmet dependencies:" >&2
    echo " openvswitch-switch-dpdk : Depends: librte-vhost26 but it is not installable" >&2
    echo "E: mmdebstrap failed to run" >&2
    exit 25 ;;
esac"""


def write_asked(program: Path, then: str) -> None:
    """As :func:`write`; what it was asked for is in ``asked``, and in the root."""
    write(program, f'echo "$asked" >"$1/etc/asked"\n{then}')
    program.write_text(program.read_text().replace("#!/bin/sh\n", '#!/bin/sh\nasked="$*"\n'))


def test_a_rolling_root_takes_a_mirror_that_lags_behind(tmp_path: Path, fake: Path) -> None:
    write_asked(fake, "exit 0")
    folder = ensure_root("debian-sid", tmp_path)
    assert "check-valid-until=no" in (folder / "etc/sources").read_text()
    assert "openvswitch-switch-dpdk" in (folder / "etc/asked").read_text()
    assert "valid-until" not in (ensure_root("debian-13", tmp_path) / "etc/sources").read_text()


def test_a_rolling_root_does_without_what_cannot_be_had_today(
    tmp_path: Path, fake: Path, told: SaidSoFar
) -> None:
    write_asked(fake, UNMET)
    folder = ensure_root("debian-sid", tmp_path)
    asked = (folder / "etc/asked").read_text()
    assert "qemu-system-x86" in asked
    assert "openvswitch" not in asked
    assert "librte-vhost26 but it is not installable" in "\n".join(told.lines)
    with pytest.raises(HostError, match="unmet dependencies"):
        ensure_root("debian-13", tmp_path)


def test_a_mirror_out_of_reach_is_no_missing_package(tmp_path: Path, fake: Path) -> None:
    write(fake, "echo again >>$0.count; echo 'E: no mirror' >&2; exit 25")
    with pytest.raises(HostError, match="make a root of Debian sid: E: no mirror"):
        ensure_root("debian-sid", tmp_path)
    assert fake.with_name("mmdebstrap.count").read_text() == "again\n"
    assert left(tmp_path) == []


def test_a_rolling_root_is_made_anew_each_week(
    tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(fake, "exit 0")
    monkeypatch.setattr(roots, "_week", lambda: (2026, 48))
    first = ensure_root("debian-sid", tmp_path)
    assert ensure_root("debian-sid", tmp_path) == first
    monkeypatch.setattr(roots, "_week", lambda: (2026, 49))
    assert ensure_root("debian-sid", tmp_path) != first


def test_without_mmdebstrap_the_package_is_named(
    tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fake.parent / "setpriv").symlink_to(shutil.which("setpriv") or "/")
    monkeypatch.setenv("PATH", str(fake.parent))
    with pytest.raises(HostError, match="mmdebstrap: No such file") as caught:
        ensure_root("debian-13", tmp_path)
    assert "the package mmdebstrap" in caught.value.remedy
    assert left(tmp_path) == []


def test_what_a_killed_controller_left_is_removed_by_the_next(tmp_path: Path, fake: Path) -> None:
    write(fake, f"echo $$ >{tmp_path}/pid; exec sleep 1000")
    os.mkfifo(tmp_path / "pid")
    script = (
        "import sys; from pathlib import Path; from migrate.lab.rootfs import ensure_root;"
        "ensure_root('debian-13', Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) as controller:
        maker = int((tmp_path / "pid").read_text())
        descriptor = os.pidfd_open(maker)
        try:
            half_made = left(tmp_path)
            controller.send_signal(signal.SIGKILL)
            controller.wait()
            went_with_it = bool(select.select([descriptor], [], [], 10)[0])
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)
    assert half_made
    assert went_with_it, "what makes a root does not go on without its controller"
    write(fake, "exit 0")
    folder = ensure_root("debian-13", tmp_path)
    assert left(tmp_path) == [folder.name]


def test_a_name_that_is_no_root_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such root") as caught:
        ensure_root("debian-1", tmp_path)
    assert "debian-13-backports" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_this_machines_own_root_needs_its_programs(
    tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake.parent))
    missing = "libvirtd, virtlogd, qemu-system-x86_64, ip not installed"
    with pytest.raises(HostError, match=missing) as caught:
        ensure_root("/", tmp_path)
    assert all(package in caught.value.remedy for package in PACKAGES)
    for program in roots.PROGRAMS:
        (fake.parent / program).touch(0o755)
    assert ensure_root("/", tmp_path) == Path("/")


def test_without_an_init_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert init_program().name == "tini-static"
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(HostError) as caught:
        init_program()
    assert "apt-get install tini" in caught.value.remedy
