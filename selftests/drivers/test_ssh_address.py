"""The user's own ssh files, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.drivers.ssh_address import resolve
from migrate.errors import HostError


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config", b"Host a\n  Port many\n"),
        ("config", b"Host a\n  Port 99999999999999999999999\n"),
        ("config", b"\xff\xfe nonsense without a value\n"),
        ("known_hosts", b"\xff\xfe\x00\n"),
        ("known_hosts", b"a ssh-ed25519 not-base-64\n"),
        ("known_hosts", b"a ssh-ed25519 AAAA\n"),
    ],
)
def test_files_that_make_no_sense_are_an_error_with_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / name).write_bytes(content)
    with pytest.raises(HostError) as caught:
        resolve("a", "host-a")
    assert caught.value.host == "host-a"
